//! A full store, fast: many keys in each transaction, several of them under way, at the leader. What is measured comes
//! afterwards, when the nodes have come to rest.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;

use crate::cluster::Cluster;
use crate::servers::Servers;
use crate::system::{Bulk, System};
use crate::values::Values;

/// Keys and bytes in a transaction: a command of them is well below what one may be, and is answered in time.
const BATCH: usize = 500;
const BATCH_BYTES: usize = 1 << 20;
const UNDER_WAY: usize = 8;
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
const PROGRESS: Duration = Duration::from_secs(5);
/// The nodes are at rest when all of them together use less of a core.
const REST: f64 = 0.2;
const REST_STEP: Duration = Duration::from_secs(1);
const REST_MAX: Duration = Duration::from_secs(120);

/// Writes every key.
pub(super) async fn fill(
    cluster: &Cluster,
    keys: usize,
    value_bytes: usize,
    limit: Duration,
) -> anyhow::Result<()> {
    let leader = cluster.leader().await?;
    let nodes = cluster.addresses(System::LlmConfig);
    let node = nodes.get(leader).context("no leader")?;
    let values = &Values::new(value_bytes, false)?;
    let written = &AtomicUsize::new(0);
    let mut writers = Vec::with_capacity(UNDER_WAY);
    for first in 0..UNDER_WAY {
        let mut bulk = Bulk::open(node).await?;
        writers.push(async move {
            for batch in batches(keys, value_bytes).skip(first).step_by(UNDER_WAY) {
                let size = batch.len();
                let entries = batch.map(|key| (key, values.any(&mut rand::rng(), None)));
                let entries: Vec<(usize, Bytes)> = entries.collect();
                let answer = tokio::time::timeout(ANSWER_TIMEOUT, bulk.put(entries)).await;
                answer
                    .context("a transaction is not answered")?
                    .context("cannot fill the store")?;
                written.fetch_add(size, Ordering::Relaxed);
            }
            anyhow::Ok(())
        });
    }
    let all = futures::future::try_join_all(writers);
    let told = async {
        loop {
            tokio::time::sleep(PROGRESS).await;
            eprintln!("filling: {} of {keys} keys", written.load(Ordering::Relaxed));
        }
    };
    tokio::select! {
        done = tokio::time::timeout(limit, all) => {
            let done = done.with_context(|| {
                format!("{} of {keys} keys after {limit:?}", written.load(Ordering::Relaxed))
            })?;
            done.map(drop)
        }
        () = told => Ok(()),
    }
}

fn batches(keys: usize, value_bytes: usize) -> impl Iterator<Item = Range<usize>> {
    let size = (BATCH_BYTES / value_bytes.max(1)).clamp(1, BATCH);
    (0..keys).step_by(size).map(move |from| from..(from + size).min(keys))
}

/// Waits until what is left over of filling is done: snapshots, compactions. Whether it was in time.
pub(super) async fn rest(servers: &Servers) -> anyhow::Result<bool> {
    let deadline = Instant::now() + REST_MAX;
    let mut before = servers.cpu_us()?.context("no nodes")?;
    while Instant::now() < deadline {
        let begun = Instant::now();
        tokio::time::sleep(REST_STEP).await;
        let now = servers.cpu_us()?.context("no nodes")?;
        if (now - before) / 1e6 < REST * begun.elapsed().as_secs_f64() {
            return Ok(true);
        }
        before = now;
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::servers::LLM_CONFIG;

    #[test]
    fn the_batches_are_all_keys_once_and_no_command_is_too_large() {
        for value_bytes in [2, 256, 4096, BATCH_BYTES - 1, BATCH_BYTES] {
            for keys in [1, BATCH - 1, BATCH, BATCH + 1, 10 * BATCH] {
                let all: Vec<usize> = batches(keys, value_bytes).flatten().collect();
                assert_eq!(all, (0..keys).collect::<Vec<_>>());
                let fits = |batch: Range<usize>| {
                    batch.len() <= BATCH && batch.len() * value_bytes <= BATCH_BYTES
                };
                assert!(batches(keys, value_bytes).all(fits), "{keys} {value_bytes}");
            }
        }
    }

    #[tokio::test]
    async fn a_process_that_sleeps_is_at_rest() {
        let mut sleeper = std::process::Command::new("sleep").arg("30").spawn().unwrap();
        let pids = vec![i32::try_from(sleeper.id()).unwrap()];
        let rested = rest(&Servers { pids, metrics: Vec::new(), names: LLM_CONFIG }).await;
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
        assert!(rested.unwrap());
    }
}
