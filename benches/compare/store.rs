//! Nodes that hold many keys: what they need in memory, and how long they take to come back.

use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::cluster::Cluster;
use crate::drive;
use crate::system::Reads;
use crate::values::Values;

const VALUE_BYTES: usize = 1024;
/// For what is still written and applied after the last key.
const SETTLE: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(300);

/// A cluster whose nodes are full.
#[derive(Debug, Clone, Copy)]
pub(super) struct Full {
    /// The last key that was written: whoever has it has all.
    last: usize,
}

/// Writes so many keys, and one more when all of them are there.
pub(super) async fn fill(cluster: &Cluster, keys: usize) -> anyhow::Result<Full> {
    let system = cluster.kind().system();
    let leader = cluster.leader().await?;
    let nodes = cluster.addresses(system);
    let node = nodes.get(leader).context("no leader")?.clone();
    drive::preload(system, &[node], keys, VALUE_BYTES).await?;
    let value = Values::new(VALUE_BYTES, false)?.any(&mut rand::rng(), None);
    cluster.link(leader).await?.caller().await?.put(keys, value).await?;
    tokio::time::sleep(SETTLE).await;
    Ok(Full { last: keys })
}

impl Full {
    /// In MiB, the mean of all nodes.
    pub(super) async fn memory(self, cluster: &Cluster) -> anyhow::Result<f64> {
        let memory = cluster.servers()?.memory()?.context("no nodes")?;
        #[allow(clippy::cast_precision_loss, reason = "memory of a machine is below 2^52 bytes")]
        let (total, nodes) = (memory.total as f64, cluster.size() as f64);
        Ok(total / nodes / f64::from(1 << 20))
    }

    /// In milliseconds: a follower is stopped; from its start until it gives a linearizable answer.
    pub(super) async fn restart(self, cluster: &mut Cluster) -> anyhow::Result<f64> {
        let node = self.follower(cluster, 1).await?;
        cluster.stop(node).await?;
        let begun = Instant::now();
        cluster.spawn(node)?;
        cluster.read(node, self.last, Reads::Linearizable, begun + PATIENCE).await?;
        Ok(begun.elapsed().as_secs_f64() * 1e3)
    }

    /// In milliseconds: a follower is removed with its data, and another takes its place.
    pub(super) async fn catch_up(self, cluster: &mut Cluster) -> anyhow::Result<f64> {
        let node = self.follower(cluster, 2).await?;
        let taken = cluster.replace(node, self.last, PATIENCE).await?;
        Ok(taken.as_secs_f64() * 1e3)
    }

    async fn follower(self, cluster: &Cluster, distance: usize) -> anyhow::Result<usize> {
        Ok((cluster.leader().await? + distance) % cluster.size())
    }
}
