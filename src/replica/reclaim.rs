//! Gives back the space of what nobody needs any more: snapshots and purges the log by its bytes, lets the change log go
//! when the cluster is full, and has RocksDB rewrite what holds deleted records.
//!
//! Each node tidies its own files when it sees fit. What is replicated is forgotten by commands of the leader alone.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use llm_config_domain::{Command, Compact, Operation, query};
use openraft::async_runtime::watch::WatchReceiver as _;

use crate::node::Node;
use crate::propose;
use crate::space::Measured;
use crate::storage::usage;

const MEASURE_INTERVAL: Duration = Duration::from_secs(1);
/// How often a node that is nearly full tidies up while it is written to.
const NEAR_INTERVAL: Duration = Duration::from_secs(60);
/// How long one step of the Raft core may take: a snapshot, or a purge that waits for a follower.
const STEP_TIMEOUT: Duration = Duration::from_secs(60);
const PURGE_TIMEOUT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(50);
const PROPOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Commands of one round; each forgets a bounded number of records.
const FORGET_COMMANDS_MAX: usize = 2_000;
/// Bytes of the log that stay behind a snapshot made for want of room, in parts of what may be there.
const KEEP_SHARE: u64 = 16;
/// Recorded as the author of what is proposed here.
const ACTOR: &str = "system";

/// Measures the storage of a node; the numbers decide whether writes are taken.
pub(crate) async fn measure(node: &Arc<Node>) {
    let node = Arc::clone(node);
    let measured = tokio::task::spawn_blocking(move || {
        // Read first: what is appended while measuring counts twice rather than not at all.
        let appended_bytes = node.log.stats().bytes.load(Ordering::Relaxed);
        let usage = usage::measure(&node.directory);
        let mut measured = Measured {
            used_bytes: usage.total,
            log_bytes: usage.log,
            appended_bytes,
            ..Measured::default()
        };
        match rustix::fs::statvfs(node.directory.root()) {
            Ok(disk) => {
                measured.disk_capacity_bytes = disk.f_blocks * disk.f_frsize;
                measured.disk_free_bytes = disk.f_bavail * disk.f_frsize;
            }
            Err(error) => tracing::error!(%error, "the size of the disk is not known"),
        }
        node.space.note(measured);
    });
    if let Err(error) = measured.await {
        tracing::error!(%error, "measuring the storage failed");
    }
}

/// Measures and tidies up until dropped. Measuring goes on while a long tidying runs.
pub(crate) async fn watch(node: &Arc<Node>) {
    let measuring = async {
        loop {
            tokio::time::sleep(MEASURE_INTERVAL).await;
            measure(node).await;
        }
    };
    let tidying = async {
        let mut tidied = Tidied::default();
        loop {
            tokio::time::sleep(MEASURE_INTERVAL).await;
            tidied.round(node).await;
        }
    };
    futures::future::join(measuring, tidying).await;
}

/// When this node tidied up last, what it had applied then, and how long it rests when nothing happens.
#[derive(Default)]
struct Tidied {
    at: Option<Instant>,
    index: u64,
    rest: Duration,
    was_full: bool,
    was_pressed: bool,
}

impl Tidied {
    async fn round(&mut self, node: &Arc<Node>) {
        let full = node.full().is_some();
        let pressed = full || node.full_peer().is_some();
        // Once more when the pressure has ended: what was deleted while the last round ran is still there.
        let last_round = std::mem::replace(&mut self.was_full, full) && !full;
        if (std::mem::replace(&mut self.was_pressed, pressed) || pressed) && node.leads() {
            forget_changes(node).await;
        }
        let index = node.local.state.progress().index;
        let idle = index == self.index;
        if !idle {
            self.rest = MEASURE_INTERVAL;
        }
        let rested = |limit| self.at.is_none_or(|at| at.elapsed() >= limit);
        // Full and idle, it tries again too: a reader may have held files, or a follower the log.
        if (full && rested(self.rest))
            || last_round
            || (!idle && node.space.near() && rested(NEAR_INTERVAL))
        {
            self.rest = (self.rest * 2).min(NEAR_INTERVAL);
            compact_state(node).await;
            tidy_log(node, node.space.measured().log_bytes / KEEP_SHARE).await;
            (self.at, self.index) = (Some(Instant::now()), index);
            measure(node).await;
            let used_bytes = node.space.measured().used_bytes;
            tracing::info!(used_bytes, "nearly full: tidied up");
        } else if !idle && node.space.measured().log_bytes > node.local.tuning.log_bytes_max {
            tidy_log(node, node.local.tuning.log_bytes_max / 4).await;
            self.index = index;
            measure(node).await;
        }
    }
}

/// Lets go of the whole change log, and with it of the history of deleted entries. Watches that would resume from before
/// are told so; those that are up to date notice nothing.
async fn forget_changes(node: &Arc<Node>) {
    for _ in 0..FORGET_COMMANDS_MAX {
        let Ok(meta) = query::meta(&node.local.state.view()) else { return };
        if meta.cluster_id.is_none() || meta.change_log_start > meta.revision {
            return;
        }
        let operation = Operation::Compact(Compact { revision: meta.revision + 1 });
        let command = Command { actor: ACTOR.to_owned(), request: None, operation };
        if propose::propose(node, &command, Instant::now() + PROPOSE_TIMEOUT).await.is_err() {
            return;
        }
    }
}

/// Has RocksDB drop what was deleted from the state.
async fn compact_state(node: &Arc<Node>) {
    let state = Arc::clone(&node.local.state);
    blocking("compacting the state", move || state.compact()).await;
}

/// Makes a snapshot, purges the log behind it except for about `keep_bytes`, and has RocksDB drop what was purged.
async fn tidy_log(node: &Arc<Node>, keep_bytes: u64) {
    let wanted = node.local.state.progress().index;
    if node.raft.trigger().snapshot().await.is_err() {
        // The core has ended; the steward says why.
        return;
    }
    wait(STEP_TIMEOUT, || metric(node, |metrics| metrics.snapshot) >= wanted).await;
    let purged = metric(node, |metrics| metrics.purged);
    let snapshot = metric(node, |metrics| metrics.snapshot);
    let entries = snapshot.saturating_sub(purged).max(1);
    let mean = (node.space.measured().log_bytes / entries).max(1);
    let keep = (keep_bytes / mean).min(node.local.tuning.log_entries_kept);
    let upto = snapshot.saturating_sub(keep);
    if upto > purged {
        if node.raft.trigger().purge_log(upto).await.is_err() {
            return;
        }
        // Waits no longer for a follower that still reads it; the next round comes back to it.
        wait(PURGE_TIMEOUT, || metric(node, |metrics| metrics.purged) >= upto).await;
    }
    let log = node.log.clone();
    blocking("compacting the log", move || log.compact()).await;
}

/// The index of one of openraft's log ids; 0 when there is none.
fn metric(
    node: &Node,
    pick: impl FnOnce(&openraft::RaftMetrics<crate::types::Types>) -> Option<crate::types::LogId>,
) -> u64 {
    let metrics = node.raft.metrics();
    let metrics = metrics.borrow_watched();
    pick(&metrics).map_or(0, |id| id.index)
}

async fn wait(limit: Duration, reached: impl Fn() -> bool) {
    let deadline = Instant::now() + limit;
    while !reached() && Instant::now() < deadline {
        tokio::time::sleep(POLL).await;
    }
}

async fn blocking(what: &str, work: impl FnOnce() -> std::io::Result<()> + Send + 'static) {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(())) => {}
        // It is tried again in the next round; what cannot be written stops the node by itself.
        Ok(Err(error)) => tracing::warn!(%error, "{what} failed"),
        Err(error) => tracing::error!(%error, "{what} broke off"),
    }
}
