//! What the replica feeds after each applied command: the cache first, then the watchers.
//!
//! Who may do what is told before either. It also tells whether the cache is abreast of storage, so that no read mixes an older entry with a newer revision.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use llm_config_cache::Cache;
use llm_config_domain::{Change, Reader};
use llm_config_replica::Observer;

use super::Guards;
use crate::metrics::Metrics;
use crate::watch::{WatchHub, WatchLimits};

/// Longest time between two bookmarks; half of what is promised.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(5);

/// The bounds of what is derived from the applied state.
#[derive(Debug, Clone, Copy)]
pub struct SharedLimits {
    pub cache_bytes: usize,
    pub ring_revisions: usize,
    pub ring_bytes: usize,
    pub watchers: usize,
    pub watch_bytes: usize,
}

impl Default for SharedLimits {
    fn default() -> Self {
        SharedLimits {
            cache_bytes: 64 << 20,
            ring_revisions: 16_384,
            ring_bytes: 8 << 20,
            watchers: 10_000,
            watch_bytes: 64 << 20,
        }
    }
}

/// The observer of a replica. Made before the replica starts, handed to the service afterwards.
pub struct Shared {
    pub(crate) cache: Cache<Metrics>,
    pub(crate) hub: Arc<WatchHub>,
    guards: Arc<Guards>,
    metrics: Arc<Metrics>,
    /// Revision whose changes are being taken over, and the last one that was taken over: equal between changes.
    begun: AtomicU64,
    done: AtomicU64,
}

impl Shared {
    pub fn new(limits: SharedLimits, guards: Arc<Guards>, metrics: Arc<Metrics>) -> Arc<Self> {
        let watch = WatchLimits {
            ring_revisions: limits.ring_revisions,
            ring_bytes: limits.ring_bytes,
            watchers: limits.watchers,
            held_bytes: limits.watch_bytes,
            bookmark_interval: BOOKMARK_INTERVAL,
        };
        Arc::new(Shared {
            cache: Cache::new(limits.cache_bytes, metrics.clone()),
            hub: WatchHub::new(watch, Arc::clone(&metrics)),
            guards,
            metrics,
            begun: AtomicU64::new(0),
            done: AtomicU64::new(0),
        })
    }

    /// What knows who may do what: told when the state says something else.
    pub(crate) fn guards(&self) -> &Arc<Guards> {
        &self.guards
    }

    /// The revision up to which changes were taken over, when that is at least `applied`: otherwise storage is ahead
    /// and the cache must not answer.
    pub(crate) fn abreast_of(&self, applied: u64) -> Option<u64> {
        let done = self.done.load(Ordering::SeqCst);
        (done >= applied).then_some(done)
    }

    /// Revisions applied but not taken over yet.
    pub(crate) fn lag(&self, applied: u64) -> u64 {
        applied.saturating_sub(self.done.load(Ordering::SeqCst))
    }

    /// Whether no change was taken over, or is being taken over, since `abreast_of` answered this revision.
    pub(crate) fn unchanged_since(&self, revision: u64) -> bool {
        self.begun.load(Ordering::SeqCst) == revision
    }

    /// Tells what the node had applied when it started, in case nothing was applied since. An empty cache is right
    /// for every revision, so this is needed only while nothing was taken over.
    pub(crate) fn seed(&self, revision: u64) {
        if self.begun.compare_exchange(0, revision, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            self.done.fetch_max(revision, Ordering::SeqCst);
        }
        self.hub.advance(revision);
    }

    fn take_over(&self, revision: u64, into_cache: impl FnOnce(&Cache<Metrics>)) {
        self.begun.fetch_max(revision, Ordering::SeqCst);
        into_cache(&self.cache);
        self.done.fetch_max(revision, Ordering::SeqCst);
    }
}

impl Observer for Shared {
    fn applied(&self, revision: u64, changes: &[Change]) {
        self.metrics.changes(changes.iter().map(|change| change.entry.address.environment));
        self.take_over(revision, |cache| cache.applied(changes));
        self.hub.publish(revision, changes);
    }

    fn rules(&self, state: &dyn Reader) {
        self.guards.access.reload(state);
        self.guards.schemas.reload(state);
        // Keys are unwrapped anew from what the ring says now.
        self.guards.keys.forget();
    }

    fn reset(&self, revision: u64) {
        self.take_over(revision, Cache::reset);
        self.hub.reset(revision);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Access;
    use crate::limits::Limits;
    use crate::schemas::Schemas;
    use crate::secrets::DataKeys;
    use crate::settings::SecuritySettings;

    fn shared() -> Arc<Shared> {
        let metrics = Arc::new(Metrics::new());
        let guards = Guards {
            access: Access::new(false, None, Arc::clone(&metrics)),
            limits: Limits::new(&SecuritySettings::nothing(), Arc::clone(&metrics)),
            keys: DataKeys::new(None),
            schemas: Schemas::default(),
        };
        Shared::new(SharedLimits::default(), Arc::new(guards), metrics)
    }

    #[test]
    fn the_cache_answers_only_when_it_is_abreast_of_storage() {
        let shared = shared();
        assert_eq!(shared.abreast_of(0), Some(0));
        assert_eq!(shared.abreast_of(1), None);
        shared.applied(1, &[]);
        assert_eq!(shared.abreast_of(1), Some(1));
    }

    #[test]
    fn a_node_that_starts_with_data_may_use_its_cache_at_once() {
        let shared = shared();
        shared.seed(40);
        assert_eq!(shared.abreast_of(40), Some(40));
        shared.applied(41, &[]);
        shared.seed(40);
        assert_eq!(shared.abreast_of(41), Some(41));
    }

    #[test]
    fn a_change_between_two_lookups_is_noticed() {
        let shared = shared();
        shared.applied(1, &[]);
        let seen = shared.abreast_of(1).unwrap();
        assert!(shared.unchanged_since(seen));
        shared.applied(2, &[]);
        assert!(!shared.unchanged_since(seen));
    }
}
