//! A store that fills up: what is refused, by whom, and how the space comes back.
#![allow(clippy::unwrap_used, reason = "a test says so by failing")]

mod support;

use std::time::Duration;

use llm_config_domain::{
    Address, Command, Compact, Delete, JsonValue, Operation, Set, digest, query,
};
use llm_config_replica::{ProposeError, Replica, Tuning};
use support::{Cluster, eventually, in_time};

const QUOTA: u64 = 96 << 20;
const VALUE_BYTES: usize = 1 << 20;

fn tuning() -> Tuning {
    Tuning { storage_quota_bytes: QUOTA, disk_reserve_bytes: 0, ..support::tuning() }
}

fn address(number: u64) -> Address {
    Address::parse("ns", &format!("key-{number}"), "base").unwrap()
}

/// A value that no compression makes small: hexadecimal digits of a linear congruential generator.
fn large(number: u64) -> Command {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut text = String::from("\"");
    while text.len() < VALUE_BYTES - 20 {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        text.push_str(&format!("{:08x}", state >> 32));
    }
    text.push('"');
    set(number % 10, &text)
}

fn set(number: u64, value: &str) -> Command {
    let set = Set {
        address: address(number),
        value: JsonValue::parse(value.as_bytes()).unwrap().into(),
        description: String::new(),
        tags: Vec::new(),
        comment: String::new(),
        expected_version: None,
        declassify: false,
    };
    Command::new("test", Operation::Set(set))
}

fn delete(number: u64) -> Command {
    let delete =
        Delete { address: address(number), expected_version: None, comment: String::new() };
    Command::new("test", Operation::Delete(delete))
}

async fn propose(replica: &Replica, command: Command) -> Result<(), ProposeError> {
    replica.propose(command, in_time()).await.map(|applied| {
        applied.result.unwrap();
    })
}

/// Writes large values until that is refused, and says why.
async fn fill(replica: &Replica) -> String {
    for number in 0..10_000 {
        match propose(replica, large(number)).await {
            Ok(()) => {}
            Err(ProposeError::StorageFull(reason)) => return reason,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("10 GB fit into {QUOTA} bytes");
}

/// Writes a small value once that is taken again.
async fn takes_writes_again(replica: &Replica) {
    let limit = in_time();
    while let Err(error) = propose(replica, set(99, "1")).await {
        assert!(matches!(error, ProposeError::StorageFull(_)), "{error}");
        assert!(
            std::time::Instant::now() < limit,
            "no space came back: {:?}",
            replica.stats().space
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn converged(cluster: &Cluster) {
    eventually("every node has the same state", || {
        let digests: Vec<_> =
            cluster.running().map(|replica| digest(&replica.view()).unwrap()).collect();
        digests.windows(2).all(|pair| pair[0] == pair[1])
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_store_refuses_values_and_nothing_else_and_empties() {
    let mut cluster = Cluster::prepare(1);
    cluster.start_node_tuned(1, tuning()).await.unwrap();
    cluster.all_ready().await;
    let node = cluster.node(1);
    // What was given back is what the next round fills.
    for _ in 0..3 {
        let reason = fill(node).await;
        assert!(reason.contains("node 1 stores") && reason.contains("quota"), "{reason}");
        let space = node.stats().space;
        assert!(space.quota_full && space.refused > 0, "{space:?}");
        query::get(&node.view(), &address(0)).unwrap();
        node.linearizable(in_time()).await.unwrap();
        for number in 0..10 {
            // What was not written again since the last round is not there: an answer too.
            node.propose(delete(number), in_time()).await.unwrap();
        }
        propose(node, Command::new("test", Operation::Compact(Compact { revision: 1 })))
            .await
            .unwrap();
        takes_writes_again(node).await;
        eventually("it stores less than its quota", || node.stats().space.used_bytes < QUOTA).await;
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_full_voter_makes_the_whole_cluster_refuse_until_it_has_room() {
    let mut cluster = Cluster::prepare(3);
    // Only node 3 has a bound.
    let wide = || Tuning { storage_quota_bytes: 0, ..tuning() };
    for (id, tuning) in [(1, wide()), (2, wide()), (3, tuning())] {
        cluster.start_node_tuned(id, tuning).await.unwrap();
    }
    cluster.all_ready().await;
    let reason = fill(cluster.node(1)).await;
    assert!(reason.contains("node 3"), "{reason}");
    eventually("node 3 says so of itself", || cluster.node(3).stats().space.quota_full).await;
    for node in cluster.running() {
        let refused = propose(node, set(50, "1")).await.unwrap_err();
        assert!(
            matches!(&refused, ProposeError::StorageFull(reason) if reason.contains("node 3")),
            "{refused}"
        );
    }
    for number in 0..10 {
        propose(cluster.node(2), delete(number)).await.unwrap();
    }
    for id in 1..=3 {
        takes_writes_again(cluster.node(id)).await;
    }
    converged(&cluster).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_voter_that_is_gone_holds_nobody_up() {
    let mut cluster = Cluster::prepare(3);
    let wide = || Tuning { storage_quota_bytes: 0, ..tuning() };
    for (id, tuning) in [(1, wide()), (2, wide()), (3, tuning())] {
        cluster.start_node_tuned(id, tuning).await.unwrap();
    }
    cluster.all_ready().await;
    fill(cluster.node(1)).await;
    cluster.stop_node(3).await;
    takes_writes_again(cluster.node(1)).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_of_many_bytes_and_few_entries_is_purged() {
    let mut cluster = Cluster::prepare(1);
    let bounded = Tuning {
        storage_quota_bytes: 0,
        log_bytes_max: 8 << 20,
        snapshot_log_entries: 1_000_000,
        ..tuning()
    };
    cluster.start_node_tuned(1, bounded).await.unwrap();
    cluster.all_ready().await;
    let node = cluster.node(1);
    for number in 0..20 {
        propose(node, large(number)).await.unwrap();
    }
    eventually("the log is purged behind a snapshot", || node.status().purged_index > 5).await;
    assert!(node.stats().snapshots_built > 0);
    cluster.stop().await;
}
