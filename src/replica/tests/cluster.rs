//! Three nodes in one process, through the face of the crate and over real sockets.
#![allow(clippy::unwrap_used, reason = "a test says so by failing")]

mod support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use llm_config_domain::{Applied, Command, Outcome, Rejection, digest, query};
use llm_config_replica::{
    DurationSample, ProposeError, ReadError, Readings, Replica, Role, StartError, Tuning,
};
use support::{Cluster, address, eventually, in_time, set};
use tokio::runtime::{Builder, Runtime};
use tokio::task::block_in_place;

fn version(applied: &Applied) -> u64 {
    match &applied.result {
        Ok(Outcome::Set { entry, .. }) => entry.version,
        other => panic!("expected a version, got {other:?}"),
    }
}

async fn propose(replica: &Replica, command: Command) -> Applied {
    replica.propose(command, in_time()).await.unwrap()
}

fn digests(cluster: &Cluster) -> Vec<[u8; 32]> {
    cluster.running().map(|replica| digest(&replica.view()).unwrap()).collect()
}

async fn converged(cluster: &Cluster) {
    eventually("every node has the same state", || {
        let digests = digests(cluster);
        digests.windows(2).all(|pair| pair[0] == pair[1])
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_node_takes_a_write_and_every_node_answers() {
    let cluster = Cluster::start(3).await;
    let mut revision = 0;
    for round in 0..5 {
        for (number, replica) in cluster.running().enumerate() {
            let applied = propose(replica, set("key", round * 10 + number as u64)).await;
            assert_eq!(applied.revision, revision + 1);
            revision = applied.revision;
            let own = query::get(&replica.view(), &address("key")).unwrap();
            assert!(
                own.is_some_and(|entry| entry.revision == revision),
                "the node does not show what it wrote"
            );
            for reader in cluster.running() {
                reader.linearizable(in_time()).await.unwrap();
                let entry = query::get(&reader.view(), &address("key")).unwrap().unwrap();
                assert_eq!(
                    entry.revision, revision,
                    "a linearizable read missed an acknowledged write"
                );
            }
        }
    }
    converged(&cluster).await;
    let cluster_ids: Vec<_> =
        cluster.running().map(|replica| replica.status().cluster_id).collect();
    assert!(cluster_ids[0].is_some() && cluster_ids.windows(2).all(|pair| pair[0] == pair[1]));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_leader_hands_over_and_comes_back() {
    let mut cluster = Cluster::start(3).await;
    for round in 0..3_u64 {
        let leader = cluster.leader().await;
        cluster.stop_node(leader).await;
        let survivor = cluster.running().next().unwrap();
        let applied = propose(survivor, set("key", round)).await;
        assert_eq!(version(&applied), round + 1);
        cluster.start_node(leader).await.unwrap();
    }
    cluster.all_ready().await;
    converged(&cluster).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_there_after_all_nodes_were_stopped() {
    let mut cluster = Cluster::start(3).await;
    cluster.all_registered().await;
    for number in 0..50 {
        propose(cluster.node(1), set(&format!("key-{number}"), number)).await;
    }
    converged(&cluster).await;
    let before = digests(&cluster)[0];
    for id in 1..=3 {
        cluster.stop_node(id).await;
    }
    for id in [3, 1, 2] {
        cluster.start_node(id).await.unwrap();
    }
    cluster.all_ready().await;
    assert_eq!(digests(&cluster), vec![before; 3]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_fell_far_behind_gets_a_snapshot_while_it_serves() {
    let mut cluster = Cluster::start(3).await;
    let away = (1..=3).find(|id| cluster.node(*id).status().role != Role::Leader).unwrap();
    propose(cluster.node(away), set("before", 1)).await;
    let reached = cluster.node(away).status().last_log_index;
    cluster.stop_node(away).await;
    let writer = cluster.running().next().unwrap();
    for number in 0..400 {
        propose(writer, set(&format!("key-{}", number % 20), number)).await;
    }
    eventually("the log behind the snapshot is purged", || {
        cluster.running().all(|replica| replica.status().purged_index > reached)
    })
    .await;
    cluster.start_node(away).await.unwrap();
    let wanted = cluster.running().map(Replica::applied_revision).max().unwrap();
    let returned = cluster.node(away);
    // The old state answers while the new one arrives: an aged value, never an absent one.
    while returned.applied_revision() < wanted {
        assert!(query::get(&returned.view(), &address("before")).unwrap().is_some());
        tokio::task::yield_now().await;
    }
    assert!(returned.stats().snapshots_installed > 0, "the log was enough: the test shows nothing");
    assert!(cluster.resets(away) > 0, "the caches were not told");
    converged(&cluster).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_an_unknown_outcome_is_told_from_no_leader() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    propose(cluster.node(leader), set("key", 0)).await;
    for id in (1..=3).filter(|id| *id != leader) {
        cluster.stop_node(id).await;
    }
    let alone = cluster.node(leader);
    let unknown = set("key", 1).with_request_id("retried");
    let soon = Instant::now() + Duration::from_millis(150);
    // The lease of the leader has not run out: it appends, and cannot commit.
    let first = alone.propose(unknown.clone(), soon).await;
    assert_eq!(first.unwrap_err(), ProposeError::OutcomeUnknown);
    eventually("the leader notices that its quorum is gone", || !alone.status().has_quorum).await;
    let refused = alone.propose(set("key", 2), Instant::now() + Duration::from_millis(300)).await;
    assert_eq!(refused.unwrap_err(), ProposeError::NoLeader);
    let read = alone.linearizable(Instant::now() + Duration::from_millis(300)).await;
    assert_eq!(read.unwrap_err(), ReadError::NoLeader);
    let aged = query::get(&alone.view(), &address("key")).unwrap().unwrap();
    assert_eq!(aged.version, 1, "what was never committed is not shown");

    for id in (1..=3).filter(|id| *id != leader) {
        cluster.start_node(id).await.unwrap();
    }
    cluster.all_ready().await;
    let settled = propose(cluster.node(leader), unknown).await;
    assert_eq!(version(&settled), 2, "the retry of a write of unknown outcome is one write");
    let next = propose(cluster.node(leader), set("key", 3)).await;
    assert_eq!(version(&next), 3, "the refused write did not happen");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_gets_the_first_answer_across_a_change_of_leader() {
    let mut cluster = Cluster::start(3).await;
    let command = set("key", 1).with_request_id("one");
    let first = propose(cluster.node(1), command.clone()).await;
    let leader = cluster.leader().await;
    cluster.stop_node(leader).await;
    let again = propose(cluster.running().next().unwrap(), command).await;
    assert!(again.replayed && !first.replayed);
    assert_eq!((again.revision, version(&again)), (first.revision, version(&first)));
    let reused =
        propose(cluster.running().next().unwrap(), set("key", 2).with_request_id("one")).await;
    assert_eq!(reused.result.unwrap_err(), Rejection::IdempotencyKeyReused);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_out_of_bounds_never_reaches_the_log() {
    let cluster = Cluster::start(1).await;
    let mut command = set("key", 1);
    command.actor = String::new();
    let refused = cluster.node(1).propose(command, in_time()).await.unwrap_err();
    assert!(matches!(refused, ProposeError::Invalid(_)), "{refused}");
    assert_eq!(version(&propose(cluster.node(1), set("key", 1)).await), 1);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_emptied_disk_under_a_known_id_is_refused() {
    let mut cluster = Cluster::start(3).await;
    cluster.all_registered().await;
    cluster.stop_node(2).await;
    cluster.wipe(2);
    match cluster.start_node(2).await {
        Err(StartError::DataDir(reason)) => assert!(reason.contains("another disk"), "{reason}"),
        other => panic!("an emptied disk was taken back: {other:?}"),
    }
    propose(cluster.node(1), set("key", 1)).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn founders_started_late_join_the_same_cluster() {
    let mut cluster = Cluster::prepare(3);
    cluster.start_node(3).await.unwrap();
    let alone =
        cluster.node(3).propose(set("key", 0), Instant::now() + Duration::from_millis(300)).await;
    assert_eq!(alone.unwrap_err(), ProposeError::NotReady);
    assert!(
        !cluster.node(3).recovered(),
        "a node that knows no cluster cannot tell what is absent"
    );
    cluster.start_node(1).await.unwrap();
    propose(cluster.node(1), set("key", 1)).await;
    cluster.start_node(2).await.unwrap();
    cluster.all_ready().await;
    converged(&cluster).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_another_cluster_is_not_let_in() {
    let mut cluster = Cluster::start(3).await;
    cluster.all_registered().await;
    let mut stranger = Cluster::start(1).await;
    let foreign_dir = stranger.dir(1).to_owned();
    stranger.stop_node(1).await;
    cluster.stop_node(1).await;
    // The stranger's disk, started as node 1 of the cluster.
    cluster.start_node_on(1, &foreign_dir).await.unwrap();
    let intruder_id = cluster.node(1).status().cluster_id;
    propose(cluster.node(2), set("key", 1)).await;
    let members: Vec<_> = [2, 3].map(|id| cluster.node(id).status().cluster_id).into();
    assert!(members.iter().all(|id| id.is_some() && *id != intruder_id));
    assert!(query::get(&cluster.node(1).view(), &address("key")).unwrap().is_none());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_confirmation_serves_many_reads() {
    let cluster = Cluster::start(3).await;
    let follower = cluster.running().find(|replica| replica.status().role != Role::Leader).unwrap();
    let before = follower.stats();
    let reads = (0..500).map(|_| follower.linearizable(in_time()));
    for read in futures::future::join_all(reads).await {
        read.unwrap();
    }
    let after = follower.stats();
    assert_eq!(after.read_index_reads - before.read_index_reads, 500);
    let rounds = after.read_index_rounds - before.read_index_rounds;
    assert!((1..=50).contains(&rounds), "{rounds} confirmations for 500 concurrent reads");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_peer_is_asked_less_and_less_often() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let dead = (1..=3).find(|id| *id != leader).unwrap();
    cluster.stop_node(dead).await;
    // Counts the connections that arrive where the peer was.
    let listener = tokio::net::TcpListener::bind(cluster.raft_address(dead)).await.unwrap();
    let counted = std::sync::atomic::AtomicU32::new(0);
    let count = async {
        loop {
            let (connection, _) = listener.accept().await.unwrap();
            drop(connection);
            counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    };
    let write = async {
        for number in 0..20 {
            propose(cluster.node(leader), set("key", number)).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        () = write => {}
        () = count => {}
    }
    let attempts = counted.into_inner();
    // Two seconds of votes, heartbeats, pings and back-offs; a loop without a pause makes thousands.
    assert!((1..200).contains(&attempts), "{attempts} connections to a dead peer in two seconds");
    drop(listener);
    cluster.stop().await;
}

fn counted(sample: &DurationSample) -> u64 {
    sample.counts.iter().sum()
}

/// Messages of one kind to one peer: those that were answered, and those that were not.
fn messages(readings: &Readings, peer: u64, rpc: &str) -> (u64, u64) {
    let Some(of) = readings.peers.iter().find(|of| of.id == peer) else { return (0, 0) };
    let answered = of.answered.iter().find(|(kind, _)| *kind == rpc).unwrap();
    let failed = of.failed.iter().find(|(kind, _)| *kind == rpc).unwrap();
    (counted(&answered.1), failed.1)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_measures_is_what_happened() {
    let mut cluster = Cluster::start(3).await;
    cluster.all_registered().await;
    let leader = cluster.leader().await;
    let other = (1..=3).find(|id| *id != leader).unwrap();
    let before = cluster.node(other).readings();
    for number in 0..5 {
        propose(cluster.node(other), set("key", number)).await;
    }
    cluster.node(other).linearizable(in_time()).await.unwrap();
    let after = cluster.node(other).readings();
    assert_eq!(
        counted(&after.proposal) - counted(&before.proposal),
        5,
        "counted where they came in"
    );
    assert!(counted(&after.log_fsync) > counted(&before.log_fsync));
    assert!(counted(&after.apply) > counted(&before.apply) && after.apply.seconds > 0.0);
    assert_eq!(counted(&after.read_index) - counted(&before.read_index), 1);
    assert_eq!((after.voters, after.learners), (3, 0));
    assert!(after.quorum_ack_age.is_none(), "of the leader only");
    let readings = cluster.node(leader).readings();
    assert!(readings.quorum_ack_age.is_some());
    assert!(messages(&readings, other, "append").0 > 0, "{:?}", readings.peers);
    assert!(messages(&readings, other, "heartbeat").0 > 0, "{:?}", readings.peers);
    assert!(readings.contact_ages.iter().any(|(id, _)| *id == other));
    assert!(cluster.running().map(|node| node.stats().elections).sum::<u64>() > 0);
    let engines = || cluster.node(leader).readings().engines;
    eventually("the databases are measured", || {
        engines().iter().all(|(_, of)| of.memtable_bytes > 0)
    })
    .await;
    cluster.stop_node(other).await;
    eventually("messages to a node that is gone fail", || {
        messages(&cluster.node(leader).readings(), other, "heartbeat").1 > 0
    })
    .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_and_reads_without_a_leader_count_as_such() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let [one, two] = [1, 2, 3].into_iter().filter(|id| *id != leader).collect::<Vec<_>>()[..]
    else {
        panic!("two followers")
    };
    cluster.stop_node(leader).await;
    cluster.stop_node(two).await;
    let alone = cluster.node(one);
    let soon = || Instant::now() + Duration::from_millis(300);
    eventually("it notices that nobody leads", || alone.status().leader_id.is_none()).await;
    let refused = alone.propose(set("key", 1), soon()).await.unwrap_err();
    assert_eq!(refused, ProposeError::NoLeader);
    assert_eq!(alone.linearizable(soon()).await.unwrap_err(), ReadError::NoLeader);
    let stats = alone.stats();
    let [(_, no_leader), (_, overloaded), (_, storage_full), (_, unknown)] = stats.proposals_failed;
    assert_eq!((no_leader, overloaded, storage_full, unknown), (1, 0, 0, 0));
    // The read gave up before its confirmation did.
    eventually("the confirmation fails", || alone.stats().read_index_failures > 0).await;
    cluster.stop().await;
}

/// Nobody's election timeout runs out in the time of a test.
fn patient() -> Tuning {
    Tuning {
        election_timeout_min: Duration::from_secs(600),
        election_timeout_max: Duration::from_secs(1200),
        ..support::tuning()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_process_is_gone_is_replaced_before_any_timeout() {
    let mut cluster = Cluster::prepare(3);
    // Each on a runtime of its own, whose end is that of a process: sockets closed, nothing handed over.
    let mut runtimes: BTreeMap<u64, Runtime> = BTreeMap::new();
    for id in 1..=3 {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let started = block_in_place(|| runtime.block_on(cluster.start_node_tuned(id, patient())));
        started.unwrap();
        runtimes.insert(id, runtime);
    }
    cluster.all_ready().await;
    let leader = cluster.leader().await;
    let survivors: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    propose(cluster.node(leader), set("key", 1)).await;
    eventually("both followers are told by the leader", || {
        survivors.iter().all(|id| cluster.node(*id).applied_revision() == 1)
    })
    .await;
    runtimes.remove(&leader).unwrap().shutdown_background();
    let survivor = cluster.node(survivors[0]);
    eventually("another node leads", || {
        survivor.status().leader_id.is_some_and(|now| now != leader)
    })
    .await;
    assert_eq!(version(&propose(survivor, set("key", 2)).await), 2);
    for (_, runtime) in runtimes {
        runtime.shutdown_background();
    }
}
