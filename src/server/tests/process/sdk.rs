//! The SDK against three real processes whose leader is killed with `kill -9`, again and again: no write is lost or done
//! twice, and a watcher sees every revision once, in order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use llm_config_client::{Client, Options, v1};

use crate::support::{Cluster, wait_for};

const WRITES: u64 = 10_000;
const WRITERS: u64 = 8;
/// Longest time of one write with its retries: far above an election, so that only a hang fails here.
const PATIENCE: Duration = Duration::from_secs(60);
const FAILOVERS: u64 = 3;

fn client(cluster: &Cluster) -> Client {
    let endpoints = cluster.nodes.iter().map(|node| node.ports.grpc.to_string());
    Client::with_options(endpoints, Options::default().timeout(PATIENCE)).unwrap()
}

fn entry_of(writer: u64, value: u64) -> v1::SetRequest {
    v1::SetRequest {
        namespace: "sdk".into(),
        key: format!("writer-{writer}"),
        value: value.to_string().into(),
        ..Default::default()
    }
}

/// Writes its share of all writes, one after the other, each once for its caller and as often as needed on the wire.
async fn writer(client: Client, writer: u64, written: Arc<AtomicU64>) {
    for value in 1..=WRITES / WRITERS {
        let entry = client.set(entry_of(writer, value)).await.unwrap().entry.unwrap();
        assert_eq!(entry.version, value, "a write was lost or done twice");
        written.fetch_add(1, Ordering::Relaxed);
    }
}

/// Collects what a watch brings until it has seen the last revision of `until`.
async fn watcher(
    client: Client,
    until: Arc<AtomicU64>,
    done: Arc<AtomicBool>,
) -> Vec<(u64, String)> {
    let request =
        v1::WatchRequest { namespace: "sdk".into(), from_revision: 1, ..Default::default() };
    let mut watch = client.watch(request);
    let mut seen = Vec::new();
    while let Some(batch) = watch.next().await {
        let batch = batch.unwrap();
        for event in batch.events {
            let entry = event.entry.unwrap();
            assert_eq!(entry.revision, batch.revision);
            seen.push((
                batch.revision,
                format!("{}={}", entry.key, String::from_utf8_lossy(&entry.value)),
            ));
        }
        if done.load(Ordering::Acquire) && batch.revision >= until.load(Ordering::Acquire) {
            break;
        }
    }
    seen
}

#[test]
fn ten_thousand_writes_and_a_watch_across_three_killed_leaders() {
    let mut cluster = Cluster::started(3);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.unwrap();
    let (written, last) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(u64::MAX)));
    let done = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = {
        let _context = runtime.enter();
        (0..WRITERS)
            .map(|number| tokio::spawn(writer(client(&cluster), number, Arc::clone(&written))))
            .collect()
    };
    let watch = {
        let _context = runtime.enter();
        tokio::spawn(watcher(client(&cluster), Arc::clone(&last), Arc::clone(&done)))
    };
    for failover in 1..=FAILOVERS {
        let due = WRITES * failover / (FAILOVERS + 1);
        wait_for("the writers get on", || (written.load(Ordering::Relaxed) >= due).then_some(()));
        let leader = cluster.leader();
        cluster.nodes[leader].kill();
        let before = written.load(Ordering::Relaxed);
        wait_for("writes go on without it", || {
            let others_write = written.load(Ordering::Relaxed) >= (before + 20).min(WRITES);
            others_write.then_some(())
        });
        cluster.nodes[leader].start();
        cluster.nodes[leader].wait_ready();
    }
    let asking = client_in(&runtime, &cluster);
    let revision = runtime.block_on(async {
        for writer in writers {
            writer.await.unwrap();
        }
        let mut revision = 0;
        for writer in 0..WRITERS {
            let entry = asking.get(linearizable(writer)).await.unwrap();
            assert_eq!(entry.version, WRITES / WRITERS);
            revision = revision.max(entry.revision);
        }
        revision
    });
    // One revision for each write, and none beside: exactly as many versions as writes.
    assert_eq!(revision, WRITES);
    last.store(revision, Ordering::Release);
    done.store(true, Ordering::Release);
    let seen = runtime.block_on(async {
        tokio::time::timeout(PATIENCE, watch).await.expect("the watch comes to its end").unwrap()
    });
    let revisions: Vec<u64> = seen.iter().map(|(revision, _)| *revision).collect();
    assert_eq!(revisions, (1..=WRITES).collect::<Vec<_>>(), "each revision once, in order");
    let mut values: BTreeMap<String, u64> = BTreeMap::new();
    for (_, change) in seen {
        let (key, value) = change.split_once('=').unwrap();
        let before = values.insert(key.to_owned(), value.parse().unwrap()).unwrap_or(0);
        assert_eq!(before + 1, value.parse::<u64>().unwrap(), "{key}");
    }
}

fn client_in(runtime: &tokio::runtime::Runtime, cluster: &Cluster) -> Client {
    let _context = runtime.enter();
    client(cluster)
}

fn linearizable(writer: u64) -> v1::GetRequest {
    let read =
        v1::ReadOptions { consistency: v1::Consistency::Linearizable.into(), ..Default::default() };
    v1::GetRequest {
        namespace: "sdk".into(),
        key: format!("writer-{writer}"),
        read: Some(read),
        ..Default::default()
    }
}

/// Time from the death of a leader to the next write that the SDK has acknowledged. Asserts nothing about it: run with
/// `cargo test -p llm-config-server --test process -- --ignored --nocapture killed_leader`.
#[test]
#[ignore = "measures; ten elections take a minute"]
fn how_long_a_killed_leader_keeps_a_writer_waiting() {
    let mut cluster = Cluster::started(3);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.unwrap();
    let client = client_in(&runtime, &cluster);
    let mut waits = Vec::new();
    for round in 0..10 {
        runtime.block_on(client.set(entry_of(0, round))).unwrap();
        let leader = cluster.leader();
        cluster.nodes[leader].kill();
        let begun = Instant::now();
        runtime.block_on(client.set(entry_of(1, round))).unwrap();
        waits.push(begun.elapsed());
        cluster.nodes[leader].start();
        cluster.nodes[leader].wait_ready();
    }
    waits.sort();
    println!("median {:?} of 10, from {:?} to {:?}", (waits[4] + waits[5]) / 2, waits[0], waits[9]);
}
