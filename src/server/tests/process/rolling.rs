//! A rolling restart of three real processes under constant writes: every node is stopped with SIGTERM and started again,
//! the leader included, and no acknowledged write is lost.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::support::{Cluster, Node, http_with, wait_for};
use serde_json::json;

const WRITERS: usize = 6;
/// Longest time that one write is repeated: far above what the product promises, so that only a hang fails here.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the writers have done so far.
#[derive(Default)]
struct Progress {
    stop: AtomicBool,
    acknowledged: AtomicU64,
    /// Answers that leave the outcome open, which only an exchange that the network cut off may do.
    unknown: AtomicU64,
    /// Attempts that no node answered: the connection was refused or ended.
    unanswered: AtomicU64,
}

/// Counts up one entry of its own; each number is written under one idempotency key, at the next node when one does not
/// answer. Returns the last number acknowledged, which is the entry's version as well.
fn writer(number: usize, nodes: Vec<SocketAddr>, progress: Arc<Progress>) -> JoinHandle<u64> {
    std::thread::spawn(move || {
        let path = format!("/api/v1/configs/rolling/writer-{number}");
        let mut node = number;
        let mut written = 0;
        while !progress.stop.load(Ordering::Relaxed) {
            let value = written + 1;
            let body = json!({ "value": value }).to_string();
            let key = format!("idempotency-key: w{number}-{value}");
            let begun = Instant::now();
            loop {
                assert!(begun.elapsed() < PATIENCE, "writer {number} cannot write {value}");
                let reply =
                    http_with(nodes[node % nodes.len()], "PUT", &path, &[&key], Some(&body));
                match reply {
                    Some(reply) if matches!(reply.status, 200 | 201) => {
                        let version = reply.json()["version"].as_u64();
                        assert_eq!(version, Some(value), "a write was lost or done twice");
                        break;
                    }
                    Some(reply) => {
                        assert!(matches!(reply.status, 503 | 504), "{}", reply.body);
                        if reply.status == 504 {
                            progress.unknown.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    None => drop(progress.unanswered.fetch_add(1, Ordering::Relaxed)),
                }
                node += 1;
                std::thread::sleep(Duration::from_millis(10));
            }
            written = value;
            progress.acknowledged.fetch_add(1, Ordering::Relaxed);
        }
        written
    })
}

fn more_writes(progress: &Progress, what: &str) {
    let before = progress.acknowledged.load(Ordering::Relaxed);
    wait_for(what, || (progress.acknowledged.load(Ordering::Relaxed) >= before + 50).then_some(()));
}

fn term(cluster: &Cluster, node: usize) -> u64 {
    wait_for("the node tells its term", || cluster.nodes[node].cluster()?["term"].as_u64())
}

/// Stops one node, waits for its end, and starts it again.
fn restart(node: &mut Node) -> String {
    let begun = node.log().len();
    node.signal("TERM");
    assert_eq!(node.wait_exit().code(), Some(0), "{}", node.log());
    let log = node.log()[begun..].to_owned();
    node.start();
    node.wait_ready();
    log
}

#[test]
fn a_rolling_restart_loses_no_acknowledged_write_and_hands_leadership_over() {
    let mut cluster = Cluster::started(3);
    let progress = Arc::new(Progress::default());
    let nodes: Vec<_> = cluster.nodes.iter().map(|node| node.ports.http).collect();
    let writers: Vec<_> =
        (0..WRITERS).map(|number| writer(number, nodes.clone(), Arc::clone(&progress))).collect();
    more_writes(&progress, "the writers write");

    let mut led = [false; 3];
    // First each node in turn, whoever leads; then whoever leads, until each node was stopped as the leader.
    for round in 0..12 {
        let leader = cluster.leader();
        let stopped = if round < 3 { round } else { leader };
        let term = term(&cluster, stopped);
        let log = restart(&mut cluster.nodes[stopped]);
        if stopped == leader {
            led[stopped] = true;
            // The very next term: the one that it asked for, not one that the others had to elect.
            let handed_over = log.lines().find(|line| line.contains("leadership was handed over"));
            let expected = format!("term={}", term + 1);
            assert!(handed_over.is_some_and(|line| line.contains(&expected)), "{expected}:\n{log}");
        }
        more_writes(&progress, "the writers go on after a restart");
        if round >= 2 && led == [true; 3] {
            break;
        }
    }
    progress.stop.store(true, Ordering::Relaxed);
    let written: Vec<u64> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
    for node in &cluster.nodes {
        for (number, value) in written.iter().enumerate() {
            wait_for("every node holds the last acknowledged write", || {
                let path =
                    format!("/api/v1/configs/rolling/writer-{number}?consistency=linearizable");
                let entry = node.get(&path).filter(|reply| reply.status == 200)?.json();
                assert_eq!(entry["version"].as_u64(), Some(*value), "{entry}");
                (entry["value"] == json!(value)).then_some(())
            });
        }
    }
    assert_eq!(led, [true; 3], "not every node was stopped as the leader");
    // Nothing crashed and nothing was cut off, so nothing may be in doubt.
    assert_eq!(progress.unknown.load(Ordering::Relaxed), 0, "outcomes were left open");
}
