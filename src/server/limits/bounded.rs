//! A table with a bound: what nobody asked about for longest makes room for what is new.
//!
//! Cut into shards, so that requests of different callers seldom wait for each other.

use std::borrow::Borrow;
use std::hash::{BuildHasher, Hash, RandomState};
use std::num::NonZeroUsize;

use lru::LruCache;
use parking_lot::Mutex;

const SHARDS: usize = 16;

/// See the module.
pub(super) struct Bounded<K, V> {
    shards: Vec<Mutex<LruCache<K, V>>>,
    /// Seeded anew in each process: nobody can choose names that all fall into one shard.
    hasher: RandomState,
}

impl<K: Hash + Eq, V> Bounded<K, V> {
    /// At most `entries_max`, rounded up to whole shards.
    pub(super) fn new(entries_max: usize) -> Self {
        let each = NonZeroUsize::new(entries_max.div_ceil(SHARDS)).unwrap_or(NonZeroUsize::MIN);
        Self {
            shards: (0..SHARDS).map(|_| Mutex::new(LruCache::sparse(each))).collect(),
            hasher: RandomState::new(),
        }
    }

    /// Looks at the value of `key`, which is `new` when the table knows none.
    pub(super) fn with<Q, T>(
        &self,
        key: &Q,
        new: impl FnOnce() -> V,
        look: impl FnOnce(&mut V) -> T,
    ) -> T
    where
        K: Borrow<Q>,
        Q: ToOwned<Owned = K> + Hash + Eq + ?Sized,
    {
        // The remainder is below the number of shards, so it fits.
        let index = self.hasher.hash_one(key) % SHARDS as u64;
        let mut shard = self.shards[index as usize].lock();
        look(shard.get_or_insert_mut_ref(key, new))
    }

    /// Entries in the table.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_stays_until_others_need_the_room() {
        let table: Bounded<String, u32> = Bounded::new(64);
        let count = |key: &str| {
            table.with(key, u32::default, |value| {
                *value += 1;
                *value
            })
        };
        assert_eq!((count("a"), count("a"), count("b")), (1, 2, 1));
        for other in 0..10_000 {
            count(&format!("other-{other}"));
        }
        assert_eq!(table.len(), 64);
        assert_eq!(count("a"), 1, "it was forgotten");
    }

    #[test]
    fn what_is_asked_for_again_and_again_is_kept() {
        let table: Bounded<String, u32> = Bounded::new(64);
        for other in 0..10_000 {
            table.with("kept", u32::default, |value| *value += 1);
            table.with(format!("other-{other}").as_str(), u32::default, |_| ());
        }
        assert_eq!(table.with("kept", u32::default, |value| *value), 10_000);
    }
}
