//! Change streams: one bounded ring of recent revisions, and a cursor for each watcher.
//!
//! A watcher has no queue of its own. It wakes when something was applied and pulls what comes next, from the ring or,
//! when it is behind the ring, from the replicated change log; so a slow watcher costs nothing and loses nothing, until
//! the change log itself forgot what it needs (`REVISION_COMPACTED`). All changes of a revision are delivered together.

mod room;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use llm_config_bugs::{Bug, active};
use llm_config_domain::{Change, Environment, Namespace};
use llm_config_replica::wall_clock_ms;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::room::{Held, Room};
use crate::access::Sight;
use crate::error::ServiceError;
use crate::metrics::Metrics;

/// Revisions that a watcher takes at a time.
const PULL_REVISIONS: usize = 16;
/// Bytes after which it takes no further one.
pub const PULL_BYTES: usize = 256 << 10;
/// What a watcher may hold without taking room for it: most changes are small, and need not wait for who is stuck.
const SMALL_BYTES: usize = 4 << 10;

/// The bounds of a hub.
#[derive(Debug, Clone, Copy)]
pub struct WatchLimits {
    pub ring_revisions: usize,
    pub ring_bytes: usize,
    pub watchers: usize,
    /// Bytes that all watchers together hold pulled and not yet sent.
    pub held_bytes: usize,
    /// Longest time between two bookmarks.
    pub bookmark_interval: Duration,
}

/// Everything up to and including `revision` was delivered; without changes it is a bookmark.
#[derive(Debug, Clone)]
pub struct WatchBatch {
    pub revision: u64,
    pub changes: Vec<Change>,
}

/// The durable source behind the ring.
pub trait ChangeLog: Send + Sync + 'static {
    /// The newest revision it holds.
    fn revision(&self) -> Result<u64, ServiceError>;
    /// The changes of `from` and later revisions, oldest first, of at most `limit` revisions.
    fn changes(&self, from: u64, limit: usize) -> Result<Vec<WatchBatch>, ServiceError>;
}

/// Which changes a watcher wants.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub namespace: Option<Namespace>,
    /// Of namespaces; empty for all.
    pub namespace_prefix: String,
    /// Of keys; empty for all.
    pub prefix: String,
    pub environment: Option<Environment>,
}

impl Filter {
    fn accepts(&self, change: &Change) -> bool {
        let address = &change.entry.address;
        self.namespace.as_ref().is_none_or(|namespace| *namespace == address.namespace)
            && address.namespace.as_str().starts_with(&self.namespace_prefix)
            && self.environment.is_none_or(|environment| environment == address.environment)
            && address.key.as_str().starts_with(&self.prefix)
            && !(active(Bug::WatchWithoutDeletes) && change.entry.deleted())
    }
}

/// Where a watch begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WatchFrom {
    /// With the next change.
    Now,
    /// With this revision itself; 0 means now.
    Revision(u64),
    /// With the revision after this one.
    After(u64),
}

#[derive(Default)]
struct Ring {
    /// Consecutive revisions.
    batches: VecDeque<Arc<WatchBatch>>,
    bytes: usize,
}

impl Ring {
    fn push(&mut self, batch: Arc<WatchBatch>, limits: &WatchLimits) {
        let follows = self.batches.back().is_none_or(|last| last.revision + 1 == batch.revision);
        if !follows {
            self.clear();
        }
        self.bytes += bytes(&batch);
        self.batches.push_back(batch);
        while self.batches.len() > limits.ring_revisions || self.bytes > limits.ring_bytes {
            let Some(oldest) = self.batches.pop_front() else { break };
            self.bytes -= bytes(&oldest);
        }
    }

    fn clear(&mut self) {
        self.batches.clear();
        self.bytes = 0;
    }

    /// What follows from `next` on; nothing when the ring does not reach back, or not yet up, to it.
    fn from(&self, next: u64) -> VecDeque<Arc<WatchBatch>> {
        let Some(first) = self.batches.front() else { return VecDeque::new() };
        let Some(offset) = next.checked_sub(first.revision) else { return VecDeque::new() };
        let Ok(offset) = usize::try_from(offset) else { return VecDeque::new() };
        let mut size = 0;
        let fits = |batch: &&Arc<WatchBatch>| {
            let fits = size < PULL_BYTES;
            size += bytes(batch);
            fits
        };
        self.batches.iter().skip(offset).take(PULL_REVISIONS).take_while(fits).cloned().collect()
    }
}

fn bytes(batch: &WatchBatch) -> usize {
    batch.changes.iter().map(|change| change.entry.size()).sum()
}

#[derive(Debug, Clone, Copy, Default)]
struct Head {
    revision: u64,
    stopped: bool,
}

/// What all watchers of a node share. Fed by the replica through `Shared`.
pub struct WatchHub {
    ring: Mutex<Ring>,
    head: watch::Sender<Head>,
    watchers: AtomicUsize,
    room: Arc<Room>,
    limits: WatchLimits,
    metrics: Arc<Metrics>,
}

impl WatchHub {
    pub fn new(limits: WatchLimits, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(WatchHub {
            ring: Mutex::new(Ring::default()),
            head: watch::Sender::new(Head::default()),
            watchers: AtomicUsize::new(0),
            room: Room::new(limits.held_bytes),
            limits,
            metrics,
        })
    }

    /// Takes over the changes of one applied command and wakes the watchers.
    pub fn publish(&self, revision: u64, changes: &[Change]) {
        let batch = Arc::new(WatchBatch { revision, changes: changes.to_vec() });
        self.ring.lock().push(batch, &self.limits);
        self.advance(revision);
    }

    /// The state was replaced as a whole: watchers go on from the change log.
    pub fn reset(&self, revision: u64) {
        self.ring.lock().clear();
        self.advance(revision);
    }

    /// Tells a hub that has seen nothing yet what the node had applied when it started.
    pub fn advance(&self, revision: u64) {
        self.head.send_if_modified(|head| {
            let newer = revision > head.revision;
            head.revision = head.revision.max(revision);
            newer
        });
    }

    /// Returns once the changes up to this revision were taken over.
    pub async fn reached(&self, revision: u64) {
        // The sender is this hub's own, so waiting cannot fail.
        let _ = self.head.subscribe().wait_for(|head| head.revision >= revision).await;
    }

    /// How many watches are taken at a time.
    pub fn watchers_max(&self) -> usize {
        self.limits.watchers
    }

    /// Ends every watch, now and later.
    pub fn stop(&self) {
        self.head.send_modify(|head| head.stopped = true);
    }

    /// Opens a watch. What cannot be served (too many watchers, a forgotten revision) is refused here.
    pub async fn watch(
        self: &Arc<Self>,
        log: Arc<dyn ChangeLog>,
        filter: Filter,
        sight: Sight,
        from: WatchFrom,
    ) -> Result<Watcher, ServiceError> {
        let slot = self.slot()?;
        let next = match from {
            WatchFrom::Now | WatchFrom::Revision(0) => log.revision()?.saturating_add(1),
            WatchFrom::Revision(revision) if active(Bug::WatchRepeats) => revision - 1,
            WatchFrom::Revision(revision) => revision,
            WatchFrom::After(revision) => revision.saturating_add(1),
        };
        let mut watcher = Watcher {
            hub: self.clone(),
            log,
            filter,
            sight,
            head: self.head.subscribe(),
            next,
            pending: VecDeque::new(),
            held: None,
            connection: None,
            // The first answer is a bookmark, so that a caller knows at once that the watch stands.
            bookmark_due: Instant::now(),
            _slot: slot,
        };
        // From the log even if the ring reaches back further: every node refuses the same starts.
        if watcher.next <= watcher.head.borrow().revision {
            watcher.read_log().await?;
        }
        Ok(watcher)
    }

    fn slot(self: &Arc<Self>) -> Result<Slot, ServiceError> {
        let open = self.watchers.fetch_add(1, Ordering::Relaxed) + 1;
        let slot = Slot { hub: self.clone() };
        self.metrics.watchers(open);
        if open > self.limits.watchers {
            self.metrics.overloaded("watches");
            return Err(ServiceError::Overloaded {
                reason: format!("{} watches are open", self.limits.watchers),
            });
        }
        Ok(slot)
    }
}

/// One place among the open watches.
struct Slot {
    hub: Arc<WatchHub>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let before = self.hub.watchers.fetch_sub(1, Ordering::Relaxed);
        self.hub.metrics.watchers(before.saturating_sub(1));
    }
}

/// One open watch.
pub struct Watcher {
    hub: Arc<WatchHub>,
    log: Arc<dyn ChangeLog>,
    filter: Filter,
    sight: Sight,
    head: watch::Receiver<Head>,
    /// The next revision to deliver: everything before it was delivered, or filtered out.
    next: u64,
    /// Pulled and not yet looked at; at most `PULL_REVISIONS`.
    pending: VecDeque<Arc<WatchBatch>>,
    /// Room for what is pending and for what was returned last.
    held: Option<Held>,
    /// Ends the connection of a watcher that does not read, when others need its room.
    connection: Option<CancellationToken>,
    bookmark_due: Instant,
    _slot: Slot,
}

impl Watcher {
    /// Names what ends the connection that this watch is sent over.
    pub fn cut_with(&mut self, connection: Option<CancellationToken>) {
        self.connection = connection;
    }

    /// The next batch. After an error the watch is over. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<WatchBatch, ServiceError> {
        loop {
            if self.head.borrow_and_update().stopped {
                return Err(ServiceError::NotReady {
                    reason: "it is stopping; watch another node".into(),
                });
            }
            self.sight.check(wall_clock_ms())?;
            if self.bookmark_due <= Instant::now() {
                self.bookmark_due = Instant::now() + self.hub.limits.bookmark_interval;
                // A watch that starts in the future has nothing delivered to it beyond what exists.
                let delivered = if active(Bug::WatchBookmarkAhead) { u64::MAX } else { self.next };
                let revision = delivered.saturating_sub(1).min(self.head.borrow().revision);
                return Ok(WatchBatch { revision, changes: Vec::new() });
            }
            if let Some(batch) = self.pending.pop_front() {
                self.next = batch.revision.saturating_add(1);
                let mut changes = self.select(&batch);
                if active(Bug::WatchDrops) && batch.revision.is_multiple_of(50) {
                    continue;
                }
                if active(Bug::WatchSplits) && changes.len() > 1 {
                    let rest = WatchBatch { changes: changes.split_off(1), ..*batch };
                    self.pending.push_front(Arc::new(rest));
                }
                if !changes.is_empty() {
                    self.hub.metrics.watch_events(changes.len());
                    return Ok(WatchBatch { revision: batch.revision, changes });
                }
                continue;
            }
            self.pull().await?;
            if self.pending.is_empty() {
                self.wait().await;
            } else {
                // A watcher whose filter accepts nothing must not keep the thread to itself.
                tokio::task::yield_now().await;
            }
        }
    }

    /// Fetches what comes next, if it exists already.
    async fn pull(&mut self) -> Result<(), ServiceError> {
        // Who asks for more has sent what it had.
        self.held = None;
        let head = self.head.borrow().revision;
        if self.next > head {
            return Ok(());
        }
        let recent = self.hub.ring.lock().from(self.next);
        if recent.is_empty() && active(Bug::WatchSkipsToNow) {
            self.next = head.saturating_add(1);
            return Ok(());
        }
        if recent.is_empty() { self.read_log().await } else { self.take(recent).await }
    }

    /// Bytes of what the filter accepts: the rest is let go of without waiting for the client.
    fn wanted_bytes(&self, pulled: &VecDeque<Arc<WatchBatch>>) -> usize {
        let changes = pulled.iter().flat_map(|batch| &batch.changes);
        changes.filter(|change| self.accepts(change)).map(|change| change.entry.size()).sum()
    }

    fn accepts(&self, change: &Change) -> bool {
        self.filter.accepts(change) && self.sight.sees(&change.entry.address)
    }

    fn select(&self, batch: &WatchBatch) -> Vec<Change> {
        batch.changes.iter().filter(|change| self.accepts(change)).cloned().collect()
    }

    /// Holds what was pulled, once there is room for it and for its rendering.
    async fn take(&mut self, mut pulled: VecDeque<Arc<WatchBatch>>) -> Result<(), ServiceError> {
        if active(Bug::WatchReorders) && pulled.len() > 2 {
            pulled.swap(0, 1);
        }
        let size = self.wanted_bytes(&pulled);
        if size <= SMALL_BYTES {
            self.pending = pulled;
            return Ok(());
        }
        let room = Arc::clone(&self.hub.room);
        match room.take(size.saturating_mul(2), self.connection.clone()).await {
            Some(held) => self.held = Some(held),
            None => {
                self.hub.metrics.overloaded("watch_bytes");
                return Err(ServiceError::Overloaded {
                    reason: "watches that are not read hold all the room".into(),
                });
            }
        }
        self.pending = pulled;
        Ok(())
    }

    /// Fetches what comes next from the change log, where it must be.
    async fn read_log(&mut self) -> Result<(), ServiceError> {
        let head = self.head.borrow().revision;
        let (log, next) = (self.log.clone(), self.next);
        let read = tokio::task::spawn_blocking(move || log.changes(next, PULL_REVISIONS))
            .await
            .map_err(|error| unreadable(&error.to_string()))?;
        if matches!(read, Err(ServiceError::RevisionCompacted { .. })) {
            self.hub.metrics.watch_compacted();
        }
        let batches = read?;
        if batches.is_empty() {
            return Err(unreadable(&format!(
                "revision {next} is missing although {head} was applied"
            )));
        }
        // The log may be ahead of the head. What is delivered must not be newer than what the cache answers with.
        let pulled =
            batches.into_iter().filter(|batch| batch.revision <= head).map(Arc::new).collect();
        self.take(pulled).await
    }

    /// Sleeps until something was applied, the policy changed, the hub stops, or a bookmark is due.
    async fn wait(&mut self) {
        tokio::select! {
            // The sender lives in the hub that this watcher holds, so this cannot fail.
            _ = self.head.changed() => {}
            () = self.sight.changed() => {}
            () = tokio::time::sleep_until(self.bookmark_due) => {}
        }
    }
}

fn unreadable(reason: &str) -> ServiceError {
    ServiceError::Internal {
        reason: format!("the change log: {reason}"),
        effect: crate::error::Effect::No,
    }
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
