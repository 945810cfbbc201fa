//! The power fails at each step of each change of the members. Sent again after the restart, the change is completed.
//!
//! A test starts this test program again as a child, which runs the whole cluster, makes one change and aborts at the
//! crash point that its environment names.
#![allow(clippy::unwrap_used, reason = "a test says so by failing")]

mod support;

use std::path::Path;
use std::process::{Command as Process, Stdio};
use std::time::Duration;

use llm_config_replica::{MemberChange, MemberError, Replica, Role, StartError};
use support::{Cluster, eventually, in_time, set};

/// Set in a child: the change to make, and where.
const WORK: &str = "LLM_CONFIG_TEST_MEMBERS_WORK";
const ROOT: &str = "LLM_CONFIG_TEST_MEMBERS_ROOT";
/// Read by the replica: where the child dies.
const CRASH_AT: &str = "LLM_CONFIG_TEST_CRASH_AT";

/// Work for which node 4 waits to join.
const JOINING: [&str; 3] = ["add", "promote", "replace"];

/// Not a test by itself: what the children run.
#[test]
fn child() {
    let (Ok(work), Ok(root)) = (std::env::var(WORK), std::env::var(ROOT)) else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let mut cluster = Cluster::prepare_in(Path::new(&root), 3);
        for id in 1..=3 {
            cluster.start_node(id).await.unwrap();
        }
        cluster.all_ready().await;
        cluster.all_registered().await;
        cluster.node(1).propose(set("before", 1), in_time()).await.unwrap();
        if JOINING.contains(&work.as_str()) {
            cluster.start_joiner(4).await;
        }
        if work == "replace" || work == "promote" {
            sent(cluster.node(1), cluster.add(4)).await.unwrap();
            eventually("the learner serves", || cluster.node(4).ready()).await;
        }
        if work == "remove-leader" {
            let to = MemberChange::TransferLeader { to: Some(3) };
            sent(cluster.node(1), to).await.unwrap();
        } else if cluster.leader().await == 3 {
            sent(cluster.node(1), MemberChange::TransferLeader { to: Some(1) }).await.unwrap();
        }
        std::fs::write(Path::new(&root).join("begun"), "").unwrap();
        sent(cluster.node(1), what(&work, &cluster)).await.unwrap();
        // What the joining and the removed node do follows a moment later.
        tokio::time::sleep(Duration::from_secs(20)).await;
    });
}

fn what(work: &str, cluster: &Cluster) -> MemberChange {
    match work {
        "add" => cluster.add(4),
        "promote" => MemberChange::Promote { id: 4 },
        "demote" => MemberChange::Demote { id: 3 },
        "remove" | "remove-leader" => MemberChange::Remove { id: 3 },
        "replace" => MemberChange::Replace { old: 3, new: 4 },
        other => panic!("no such work: {other}"),
    }
}

/// Sends a change until it is done: what passes is waited for.
async fn sent(replica: &Replica, change: MemberChange) -> Result<(), MemberError> {
    loop {
        let answer = replica.change_members(change.clone(), false, "operator", in_time()).await;
        match answer {
            Err(MemberError::Conflict(text))
                if ["in progress", "caught up", "does not answer", "no node answers"]
                    .iter()
                    .any(|passing| text.contains(passing)) => {}
            Err(MemberError::QuorumAtRisk(_) | MemberError::NoLeader) => {}
            other => return other,
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn crash(work: &str, root: &Path, point: &str) {
    let output = Process::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(WORK, work)
        .env(ROOT, root)
        .env(CRASH_AT, point)
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    let signal = std::os::unix::process::ExitStatusExt::signal(&output.status);
    assert_eq!(signal, Some(6), "{work} did not die at {point}: {}", output.status);
    assert!(root.join("begun").exists(), "{work} died at {point} before it began");
}

/// Members that are no learners, and learners.
fn members(replica: &Replica) -> (Vec<u64>, Vec<u64>) {
    let members = replica.status().members;
    let (learners, voters): (Vec<_>, Vec<_>) =
        members.into_iter().partition(|member| member.role == Role::Learner);
    let ids = |members: Vec<llm_config_replica::Member>| members.iter().map(|m| m.id).collect();
    (ids(voters), ids(learners))
}

async fn completed_after_a_crash(work: &str, point: &str, voters: &[u64], learners: &[u64]) {
    let root = tempfile::tempdir().unwrap();
    crash(work, root.path(), point);
    let mut cluster = Cluster::prepare_in(root.path(), 3);
    let removes = !voters.contains(&3) && !learners.contains(&3);
    for id in 1..=3 {
        match cluster.start_node(id).await {
            Ok(()) => {}
            // It knew already that it was removed.
            Err(StartError::DataDir(text)) if removes && id == 3 => {
                assert!(text.contains("was removed"), "{work} at {point}: {text}");
            }
            Err(error) => panic!("{work} at {point}: node {id} does not start: {error}"),
        }
    }
    if JOINING.contains(&work) {
        cluster.start_joiner(4).await;
    }
    let again = what(work, &cluster);
    sent(cluster.node(1), again).await.unwrap_or_else(|error| panic!("{work} at {point}: {error}"));
    eventually("every member sees the same members", || {
        let all = voters.iter().chain(learners);
        all.into_iter().all(|id| members(cluster.node(*id)) == (voters.into(), learners.into()))
    })
    .await;
    if removes && cluster.runs(3) {
        let ended = tokio::time::timeout_at(in_time().into(), cluster.node(3).failure()).await;
        assert!(matches!(ended, Ok(StartError::DataDir(_))), "{work} at {point}: {ended:?}");
    }
    let writer = voters.iter().chain(learners).max().unwrap();
    let applied = cluster.node(*writer).propose(set("before", 2), in_time()).await.unwrap();
    assert_eq!(applied.revision, 2, "{work} at {point}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_addition_is_completed() {
    for point in [
        "members.add.before-node",
        "members.add.after-node",
        "members.join.before-identity",
        "members.join.after-identity",
        "members.add.after-learner",
    ] {
        completed_after_a_crash("add", point, &[1, 2, 3], &[4]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promotion_and_a_demotion_are_completed() {
    for point in ["members.voters.before", "members.joint", "members.voters.after"] {
        completed_after_a_crash("promote", point, &[1, 2, 3, 4], &[]).await;
    }
    completed_after_a_crash("demote", "members.joint", &[1, 2], &[3]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_is_completed() {
    for point in [
        "members.mark.before",
        "members.mark.after",
        "members.joint",
        "members.drop.before",
        "members.drop.after",
        "members.removed.before-file",
        "members.removed.after-file",
    ] {
        completed_after_a_crash("remove", point, &[1, 2], &[]).await;
    }
    completed_after_a_crash("remove-leader", "members.handed-over", &[1, 2], &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replacement_is_completed() {
    for point in
        ["members.joint", "members.voters.after", "members.mark.after", "members.drop.before"]
    {
        completed_after_a_crash("replace", point, &[1, 2, 4], &[]).await;
    }
}
