//! Nodes come, get a vote, lose it, go and are replaced, while the cluster goes on.
#![allow(clippy::unwrap_used, reason = "a test says so by failing")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use llm_config_domain::{Outcome, digest, query};
use llm_config_replica::{MemberChange, MemberError, Replica, Role, StartError};
use support::{Cluster, address, eventually, in_time, set};

const ACTOR: &str = "operator";

async fn change(replica: &Replica, change: MemberChange) -> Result<(), MemberError> {
    replica.change_members(change, false, ACTOR, in_time()).await
}

/// Promotes as soon as the learner has caught up.
async fn promote(replica: &Replica, id: u64) {
    loop {
        match change(replica, MemberChange::Promote { id }).await {
            Err(MemberError::Conflict(_)) => tokio::time::sleep(Duration::from_millis(20)).await,
            other => return other.unwrap(),
        }
    }
}

fn voters(replica: &Replica) -> Vec<u64> {
    let members = replica.status().members;
    members.iter().filter(|member| member.role != Role::Learner).map(|member| member.id).collect()
}

fn members(replica: &Replica) -> Vec<u64> {
    replica.status().members.iter().map(|member| member.id).collect()
}

async fn all_see(cluster: &Cluster, wanted: &[u64]) {
    eventually("every node sees the same voters", || {
        cluster.running().all(|replica| voters(replica) == wanted)
    })
    .await;
}

async fn converged(cluster: &Cluster) {
    eventually("every node has the same state", || {
        let digests: Vec<_> =
            cluster.running().map(|replica| digest(&replica.view()).unwrap()).collect();
        digests.windows(2).all(|pair| pair[0] == pair[1])
    })
    .await;
}

async fn write(replica: &Replica, key: &str, value: u64) {
    let applied = replica.propose(set(key, value), in_time()).await.unwrap();
    assert!(matches!(applied.result, Ok(Outcome::Set { .. })), "{applied:?}");
}

/// A write without a pause, at every running node in turn; what was acknowledged is counted.
fn write_on(replicas: Vec<Replica>, stop: Arc<AtomicBool>) -> tokio::task::JoinHandle<u64> {
    tokio::spawn(async move {
        let mut written = 0;
        for replica in replicas.iter().cycle() {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let command = set("counter", written).with_request_id(format!("write-{written}"));
            let applied = replica.propose(command, in_time()).await.unwrap();
            assert!(applied.result.is_ok(), "{applied:?}");
            written += 1;
        }
        written
    })
}

fn follower(cluster: &Cluster, leader: u64) -> u64 {
    cluster.running().map(Replica::node_id).find(|id| *id != leader).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_joins_behind_the_log_and_gets_a_vote_while_writes_go_on() {
    let mut cluster = Cluster::start(3).await;
    for number in 0..300 {
        write(cluster.node(1), &format!("key-{}", number % 10), number).await;
    }
    eventually("the beginning of the log is purged", || {
        cluster.running().all(|replica| replica.status().purged_index > 0)
    })
    .await;
    let stop = Arc::new(AtomicBool::new(false));
    let writer = write_on(cluster.running().cloned().collect(), Arc::clone(&stop));
    cluster.start_joiner(4).await;
    assert!(cluster.node(4).awaits_cluster());
    let entry = follower(&cluster, cluster.leader().await);
    change(cluster.node(entry), cluster.add(4)).await.unwrap();
    assert!(members(cluster.node(cluster.leader().await)).contains(&4));
    eventually("the learner serves", || cluster.node(4).ready()).await;
    assert_eq!(cluster.node(4).status().role, Role::Learner);
    assert!(!cluster.node(4).awaits_cluster());
    assert!(cluster.node(4).stats().snapshots_installed > 0, "the log was enough");
    promote(cluster.node(entry), 4).await;
    all_see(&cluster, &[1, 2, 3, 4]).await;
    stop.store(true, Ordering::Relaxed);
    let written = writer.await.unwrap();
    assert!(written > 0);
    converged(&cluster).await;
    let counter = query::get(&cluster.node(4).view(), &address("counter")).unwrap().unwrap();
    assert_eq!(counter.version, written, "an acknowledged write is missing, or one was made twice");
    eventually("the new node has registered", || {
        cluster.node(1).status().members.iter().all(|member| member.version == "test")
    })
    .await;
    // The new voter's vote counts: without it, two of four are no majority.
    let leader = cluster.leader().await;
    let away = (1..=3).find(|id| *id != leader).unwrap();
    cluster.stop_node(away).await;
    write(cluster.node(4), "after", 1).await;
    // It needs no flag to come back.
    cluster.stop_node(4).await;
    cluster.start_node(4).await.unwrap();
    eventually("the new node is back", || cluster.node(4).ready()).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_node_is_replaced_in_one_step() {
    let mut cluster = Cluster::start(3).await;
    cluster.all_registered().await;
    let leader = cluster.leader().await;
    let dead = follower(&cluster, leader);
    cluster.stop_node(dead).await;
    cluster.start_joiner(4).await;
    change(cluster.node(leader), cluster.add(4)).await.unwrap();
    let replace = MemberChange::Replace { old: dead, new: 4 };
    loop {
        match change(cluster.node(leader), replace.clone()).await {
            Err(MemberError::Conflict(_)) => tokio::time::sleep(Duration::from_millis(20)).await,
            other => break other.unwrap(),
        }
    }
    let wanted: Vec<u64> = (1..=4).filter(|id| *id != dead).collect();
    all_see(&cluster, &wanted).await;
    assert_eq!(members(cluster.node(leader)), wanted);
    // Repeating it is no mistake.
    change(cluster.node(4), replace).await.unwrap();
    write(cluster.node(4), "key", 1).await;

    // The replaced node comes back from the dead: it hears that it was removed, and never starts again.
    cluster.start_node(dead).await.unwrap();
    let ended = tokio::time::timeout_at(in_time().into(), cluster.node(dead).failure()).await;
    assert!(
        matches!(&ended, Ok(StartError::DataDir(text)) if text.contains("was removed")),
        "{ended:?}"
    );
    cluster.stop_node(dead).await;
    assert!(cluster.dir(dead).join("removed").exists());
    match cluster.start_node(dead).await {
        Err(StartError::DataDir(text)) => assert!(text.contains("was removed"), "{text}"),
        other => panic!("a removed node started: {other:?}"),
    }
    // Neither its disk nor another one gets the id back.
    cluster.wipe(dead);
    let disk = cluster.dir(dead).to_owned();
    match cluster.start_node(dead).await {
        Err(StartError::DataDir(text)) => assert!(text.contains("was removed"), "{text}"),
        other => panic!("a removed id started: {other:?}"),
    }
    cluster.forget(dead).await;
    std::fs::remove_dir_all(disk).unwrap();
    cluster.start_joiner(dead).await;
    let again = change(cluster.node(leader), cluster.add(dead)).await.unwrap_err();
    assert!(
        matches!(&again, MemberError::Conflict(text) if text.contains("never used again")),
        "{again}"
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_hands_over_before_it_is_demoted_or_removed() {
    let mut cluster = Cluster::start(3).await;
    cluster.all_registered().await;
    let stop = Arc::new(AtomicBool::new(false));
    let first = cluster.leader().await;
    let entry = follower(&cluster, first);
    let writer = write_on(vec![cluster.node(entry).clone()], Arc::clone(&stop));
    change(cluster.node(first), MemberChange::Demote { id: first }).await.unwrap();
    let second = cluster.leader().await;
    assert_ne!(second, first);
    let two: Vec<u64> = (1..=3).filter(|id| *id != first).collect();
    all_see(&cluster, &two).await;
    assert_eq!(cluster.node(first).status().role, Role::Learner);
    change(cluster.node(first), MemberChange::Demote { id: first }).await.unwrap();
    promote(cluster.node(first), first).await;
    all_see(&cluster, &[1, 2, 3]).await;

    change(cluster.node(entry), MemberChange::TransferLeader { to: Some(first) }).await.unwrap();
    eventually("the leader that was asked for leads", || {
        cluster.running().all(|replica| replica.leader_id() == Some(first))
    })
    .await;
    change(cluster.node(entry), MemberChange::TransferLeader { to: None }).await.unwrap();
    let third = cluster.leader().await;
    assert_ne!(third, first);
    change(cluster.node(entry), MemberChange::TransferLeader { to: Some(first) }).await.unwrap();
    change(cluster.node(entry), MemberChange::Remove { id: first }).await.unwrap();
    change(cluster.node(entry), MemberChange::Remove { id: first }).await.unwrap();
    let ended = tokio::time::timeout_at(in_time().into(), cluster.node(first).failure()).await;
    assert!(matches!(ended, Ok(StartError::DataDir(_))), "{ended:?}");
    stop.store(true, Ordering::Relaxed);
    let written = writer.await.unwrap();
    let counter = query::get(&cluster.node(entry).view(), &address("counter")).unwrap().unwrap();
    assert_eq!(counter.version, written);
    cluster.forget(first).await;
    all_see(&cluster, &two).await;
    write(cluster.node(entry), "key", 1).await;
    converged(&cluster).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_would_cost_the_quorum_is_refused_unless_forced() {
    let mut cluster = Cluster::start(3).await;
    cluster.all_registered().await;
    let leader = cluster.leader().await;
    let dead = follower(&cluster, leader);
    let other = (1..=3).find(|id| *id != leader && *id != dead).unwrap();
    cluster.stop_node(dead).await;
    let asked = cluster.node(leader);
    // At once, while everybody still believes that it is up.
    for refused in [MemberChange::Remove { id: other }, MemberChange::Demote { id: other }] {
        let error = change(cluster.node(other), refused).await.unwrap_err();
        assert!(
            matches!(&error, MemberError::QuorumAtRisk(text) if text.contains(&dead.to_string())),
            "{error}"
        );
    }
    write(asked, "key", 1).await;
    // The dead one may go: the others are a majority without it.
    change(asked, MemberChange::Remove { id: dead }).await.unwrap();
    let two: Vec<u64> = (1..=3).filter(|id| *id != dead).collect();
    assert_eq!(members(asked), two);
    let voters_both = MemberChange::Replace { old: other, new: leader };
    let error = change(asked, voters_both).await.unwrap_err();
    assert!(
        matches!(&error, MemberError::Conflict(text) if text.contains("a vote of its own")),
        "{error}"
    );
    // Forced, one of two leaves, though the one that stays has no majority to lose: then none is left to go.
    asked.change_members(MemberChange::Remove { id: other }, true, ACTOR, in_time()).await.unwrap();
    eventually("one voter is left", || voters(asked) == [leader]).await;
    for last in [MemberChange::Remove { id: leader }, MemberChange::Demote { id: leader }] {
        let error = asked.change_members(last, true, ACTOR, in_time()).await.unwrap_err();
        assert!(matches!(error, MemberError::Conflict(_)), "{error}");
    }
    write(asked, "key", 2).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_is_refused_and_says_why() {
    let mut cluster = Cluster::start(1).await;
    cluster.all_registered().await;
    let conflict = |error: MemberError, text: &str| {
        assert!(
            matches!(&error, MemberError::Conflict(reason) if reason.contains(text)),
            "{error}"
        );
    };
    for unknown in [
        MemberChange::Promote { id: 9 },
        MemberChange::Demote { id: 9 },
        MemberChange::Remove { id: 9 },
        MemberChange::Replace { old: 9, new: 1 },
        MemberChange::Replace { old: 1, new: 9 },
        MemberChange::TransferLeader { to: Some(9) },
    ] {
        let error = change(cluster.node(1), unknown).await.unwrap_err();
        assert_eq!(error, MemberError::Unknown { id: 9 });
    }
    let voter = change(cluster.node(1), MemberChange::Promote { id: 1 }).await;
    assert_eq!(voter, Ok(()), "what is done already is no mistake");
    let same = change(cluster.node(1), MemberChange::Replace { old: 1, new: 1 }).await;
    assert!(matches!(same, Err(MemberError::Invalid(_))), "{same:?}");
    conflict(
        change(cluster.node(1), MemberChange::TransferLeader { to: None }).await.unwrap_err(),
        "no other voter",
    );

    // Nobody there; somebody else there; somebody of another cluster there.
    cluster.prepare_joiner(2, Some("another cluster".into()));
    let add = cluster.add(2);
    conflict(change(cluster.node(1), add.clone()).await.unwrap_err(), "no node answers");
    cluster.start_node(2).await.unwrap();
    conflict(change(cluster.node(1), add).await.unwrap_err(), "waits for cluster another cluster");
    let refused = change(cluster.node(2), MemberChange::Promote { id: 1 }).await;
    assert_eq!(refused, Err(MemberError::NotReady));
    let misnamed = MemberChange::Add { id: 3, addresses: cluster.advertise(2) };
    conflict(change(cluster.node(1), misnamed).await.unwrap_err(), "has id 2, not 3");
    let taken = MemberChange::Add { id: 3, addresses: cluster.advertise(1) };
    conflict(change(cluster.node(1), taken).await.unwrap_err(), "address of node 1");
    let moved = MemberChange::Add { id: 1, addresses: cluster.advertise(2) };
    conflict(change(cluster.node(1), moved).await.unwrap_err(), "is a member already");
    let mut founded = Cluster::start(2).await;
    let foreign = MemberChange::Add { id: 2, addresses: founded.advertise(2) };
    conflict(change(cluster.node(1), foreign).await.unwrap_err(), "belongs to another cluster");
    cluster.forget(2).await;

    // An emptied disk under the id of a learner.
    cluster.start_joiner(4).await;
    let add = cluster.add(4);
    change(cluster.node(1), add.clone()).await.unwrap();
    eventually("the learner serves", || cluster.node(4).ready()).await;
    cluster.stop_node(4).await;
    conflict(
        {
            eventually("the learner is missed", || {
                cluster.node(1).status().members.iter().any(|member| !member.reachable)
            })
            .await;
            change(cluster.node(1), MemberChange::Promote { id: 4 }).await.unwrap_err()
        },
        "does not answer",
    );
    // Repeating the addition of a member that is down is no mistake.
    change(cluster.node(1), add.clone()).await.unwrap();
    cluster.wipe(4);
    cluster.start_node(4).await.unwrap();
    let ended = tokio::time::timeout_at(in_time().into(), cluster.node(4).failure()).await;
    assert!(
        matches!(&ended, Ok(StartError::DataDir(text)) if text.contains("another disk")),
        "{ended:?}"
    );
    conflict(change(cluster.node(1), add).await.unwrap_err(), "never used again");
    founded.stop_node(1).await;
    founded.stop().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_change_at_a_time_and_none_without_a_majority() {
    let mut cluster = Cluster::start(3).await;
    cluster.start_joiner(4).await;
    cluster.start_joiner(5).await;
    let leader = cluster.node(cluster.leader().await).clone();
    let (one, two) = tokio::join!(change(&leader, cluster.add(4)), change(&leader, cluster.add(5)));
    assert!(one.is_ok(), "{one:?}");
    assert!(
        matches!(&two, Err(MemberError::Conflict(text)) if text.contains("in progress")),
        "{two:?}"
    );
    change(&leader, cluster.add(5)).await.unwrap();
    for id in [4, 5] {
        promote(&leader, id).await;
    }
    all_see(&cluster, &[1, 2, 3, 4, 5]).await;
    let away: Vec<u64> = (1..=5).filter(|id| *id != leader.node_id()).take(3).collect();
    for id in &away {
        cluster.stop_node(*id).await;
    }
    let soon = Instant::now() + Duration::from_secs(1);
    let stuck = leader
        .change_members(MemberChange::Remove { id: away[0] }, true, ACTOR, soon)
        .await
        .unwrap_err();
    assert!(matches!(stuck, MemberError::OutcomeUnknown | MemberError::NoLeader), "{stuck}");
    for id in &away {
        cluster.start_node(*id).await.unwrap();
    }
    // Sent again, it is done once, whatever came of the first try.
    loop {
        match change(&leader, MemberChange::Remove { id: away[0] }).await {
            Err(MemberError::Conflict(text)) if text.contains("in progress") => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            other => break other.unwrap(),
        }
    }
    let rest: Vec<u64> = (1..=5).filter(|id| *id != away[0]).collect();
    eventually("the node has gone", || members(&leader) == rest).await;
    drop(leader);
    cluster.forget(away[0]).await;
    all_see(&cluster, &rest).await;
    cluster.stop().await;
}
