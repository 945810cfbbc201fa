//! Gives back the space of what nobody needs any more: snapshots and purges the log by its bytes, lets the change log go
//! when the cluster is full, and has RocksDB rewrite what holds deleted records.
//!
//! Each node tidies its own files when it sees fit. What is replicated is forgotten by commands of the leader alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use llm_config_domain::{Command, Compact, Operation, query};
use openraft::async_runtime::watch::WatchReceiver as _;

use crate::machine;
use crate::node::Node;
use crate::propose;
use crate::space::Measured;
use crate::storage::{rocks, usage};

const MEASURE_INTERVAL: Duration = Duration::from_secs(1);
/// How often a node that is nearly full tidies up while it is written to.
const NEAR_INTERVAL: Duration = Duration::from_secs(60);
/// How long one step of the Raft core may take: a snapshot, or a purge that waits for a follower.
const STEP_TIMEOUT: Duration = Duration::from_secs(60);
const PURGE_TIMEOUT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(50);
/// Rounds that another node must have been full before the change log goes, which cannot be undone: while a node installs
/// a snapshot it holds its state twice, and its word is believed for some seconds.
const PEER_ROUNDS: u32 = 8;
const PROPOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Commands of one round; each forgets a bounded number of records.
const FORGET_COMMANDS_MAX: usize = 2_000;
/// Bytes of the log that stay behind a snapshot made for want of room, in parts of what may be there.
const KEEP_SHARE: u64 = 16;
/// Recorded as the author of what is proposed here.
const ACTOR: &str = "system";

/// Measures the storage of a node; the numbers decide whether writes are taken.
pub(crate) async fn measure(node: &Arc<Node>) {
    let (root, log) = (node.directory.root().to_owned(), node.directory.log());
    // Read first: what is appended while measuring counts twice rather than not at all.
    let appended_bytes = node.log.stats().bytes.load(Ordering::Relaxed);
    let asked = Arc::clone(node);
    let measured = machine::spawn_blocking(move || {
        let engines = [asked.log.engine_stats(), rocks::stats(asked.local.state.current().db())];
        *asked.engines.lock() = engines;
        let usage = usage::measure(&root, &log);
        let mut measured = Measured {
            used_bytes: usage.total,
            log_bytes: usage.log,
            appended_bytes,
            ..Measured::default()
        };
        match machine::disk_space(&root) {
            Ok((capacity, free)) => {
                measured.disk_capacity_bytes = capacity;
                measured.disk_free_bytes = free;
            }
            Err(error) => tracing::error!(%error, "the size of the disk is not known"),
        }
        measured
    });
    match measured.await {
        Ok(measured) => node.space.note(measured),
        Err(error) => tracing::error!(%error, "measuring the storage failed"),
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
    /// What was applied in the last round.
    seen: u64,
    was_pressed: bool,
    /// Rounds in which another node was full, and whether there was reason to let go of the change log.
    peer_rounds: u32,
    forgetting: bool,
    /// Somebody was full: once all is quiet, what the deletes since then have freed is given back as well.
    owed: bool,
}

impl Tidied {
    async fn round(&mut self, node: &Arc<Node>) {
        let full = node.full().is_some();
        let peer_full = node.full_peer().is_some();
        let pressed = full || peer_full;
        self.peer_rounds = if peer_full { self.peer_rounds.saturating_add(1) } else { 0 };
        let lasts = full || self.peer_rounds >= PEER_ROUNDS;
        self.forgetting |= lasts;
        self.owed |= pressed;
        let applied = node.local.state.progress().index;
        let quiet = std::mem::replace(&mut self.seen, applied) == applied;
        // Once more when the pressure has ended, and once more when nothing happens: what was deleted meanwhile is there.
        let ended = std::mem::replace(&mut self.was_pressed, pressed) && !pressed;
        let last = ended || (self.owed && !pressed && quiet);
        if (lasts || (last && self.forgetting)) && node.leads() {
            forget_changes(node).await;
        }
        let index = node.local.state.progress().index;
        let idle = index == self.index;
        if !idle {
            self.rest = MEASURE_INTERVAL;
        }
        let rested = |limit| self.at.is_none_or(|at| at.elapsed() >= limit);
        // Full and idle, it tries again too: a reader may have held files, or a follower the log.
        let again = full && rested(self.rest);
        let near = !idle && node.space.near() && rested(NEAR_INTERVAL);
        if again || near || last {
            self.rest = (self.rest * 2).min(NEAR_INTERVAL);
            self.owed &= pressed || !quiet;
            self.forgetting &= self.owed;
            compact_state(node).await;
            tidy_log(node, node.space.measured().log_bytes / KEEP_SHARE).await;
            (self.at, self.index) = (Some(Instant::now()), index);
            measure(node).await;
            let used_bytes = node.space.measured().used_bytes;
            tracing::info!(used_bytes, "the storage was tidied up for want of room");
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
        let command = Command::new(ACTOR, operation);
        if propose::propose(node, &command, Instant::now() + PROPOSE_TIMEOUT).await.is_err() {
            return;
        }
    }
}

/// Has RocksDB drop what was deleted from the state.
async fn compact_state(node: &Arc<Node>) {
    let state = Arc::clone(&node.local.state);
    blocking(node, "compacting the state", move |stop| state.compact(stop)).await;
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
    blocking(node, "compacting the log", move |_| log.compact()).await;
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

/// Runs what holds the storage open; a node that closes waits for it, and tells it to stop.
async fn blocking(
    node: &Arc<Node>,
    what: &str,
    work: impl FnOnce(&AtomicBool) -> std::io::Result<()> + Send + 'static,
) {
    let Ok(busy) = Arc::clone(&node.tidying.busy).acquire_owned().await else { return };
    let stop = Arc::clone(&node.tidying.stop);
    let task = machine::spawn_blocking(move || {
        // The storage is let go of first, then the permit.
        let result = work(&stop);
        drop(busy);
        result
    });
    match task.await {
        Ok(Ok(())) => {}
        // It is tried again in a later round; what cannot be written stops the node by itself.
        Ok(Err(error)) => tracing::warn!(reason = %error, "{what} failed"),
        Err(error) => tracing::error!(%error, "{what} broke off"),
    }
}
