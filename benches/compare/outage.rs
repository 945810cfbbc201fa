//! How long nobody can write after the leader is killed.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::cluster::Cluster;

/// Between two attempts at each node that is left.
const PACE: Duration = Duration::from_millis(5);
/// Attempts that wait for an answer: one that was caught in the fall of the leader must not hold up the next.
const ATTEMPTS_MAX: usize = 512;
const PATIENCE: Duration = Duration::from_secs(60);
const VALUE: &[u8] = b"\"after the fall\"";

/// Kills the leader, and tells how long it takes until a write is acknowledged that was sent afterwards. The clients know
/// all nodes and do not wait for an answer before they try again, so that the servers are measured, not their retries. Then
/// the node is started again, and every node serves when this returns.
///
/// # Errors
/// When no node takes a write, or the killed one does not come back.
pub async fn after_leader_kill(cluster: &mut Cluster) -> anyhow::Result<Duration> {
    let leader = cluster.leader().await?;
    let mut left = Vec::new();
    for node in (0..cluster.size()).filter(|node| *node != leader) {
        left.push(cluster.link(node).await?);
    }
    let begun = Instant::now();
    cluster.kill(leader)?;
    let mut attempts: JoinSet<anyhow::Result<()>> = JoinSet::new();
    let mut pace = tokio::time::interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let deadline = begun + PATIENCE;
    let mut refused = None;
    let outage = loop {
        tokio::select! {
            Some(answer) = attempts.join_next() => match answer.context("an attempt stopped")? {
                Ok(()) => break begun.elapsed(),
                Err(error) => refused = Some(error),
            },
            _ = pace.tick() => {
                for link in left.iter().filter(|_| attempts.len() < ATTEMPTS_MAX).collect::<Vec<_>>() {
                    let link = link.clone();
                    attempts.spawn(async move {
                        link.caller().await?.put(0, Bytes::from_static(VALUE)).await
                    });
                }
            }
        }
        if Instant::now() >= deadline {
            let refused = refused.map_or_else(|| "no answer".to_owned(), |e| format!("{e:#}"));
            anyhow::bail!(
                "no write is acknowledged {PATIENCE:?} after the leader's end: {refused}"
            );
        }
    };
    attempts.shutdown().await;
    cluster.spawn(leader)?;
    let deadline = Instant::now() + PATIENCE;
    for node in 0..cluster.size() {
        cluster.write(node, deadline).await?;
    }
    Ok(outage)
}
