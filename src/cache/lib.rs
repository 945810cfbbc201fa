//! Recent entries in memory, so that a cached read needs neither network nor RocksDB.
//!
//! Bounded by bytes, sharded, least recently used out first. It is fed by what the replica applied; a miss may be
//! filled from storage, but only when nothing was applied to that shard since the read began, so that an old read
//! never overwrites a newer change. There is no expiry: an entry is right for what the node applied, or not here.
//!
//! A crate of its own, so that what measures it need not link a server. Who keeps numbers of it does so by [`Counts`].
#![forbid(unsafe_code)]

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use llm_config_bugs::{Bug, active};
use llm_config_domain::{Address, Change, Entry};
use lru::{DefaultHasher, LruCache};
use parking_lot::Mutex;

const SHARDS: usize = 16;

/// Charged for each slot besides its entry: map and list nodes, the address.
const SLOT_OVERHEAD_BYTES: usize = 256;

/// Is told how the cache is doing: at every lookup, so it has to be cheap.
pub trait Counts {
    /// A lookup was answered.
    fn hit(&self);
    /// A lookup was not answered.
    fn miss(&self);
    /// So many slots left for want of room.
    fn evicted(&self, slots: u64);
}

/// What is known of one address.
#[derive(Debug, Clone)]
pub enum Slot {
    Present(Arc<Entry>),
    /// Known not to exist, as of this revision.
    Absent {
        revision: u64,
    },
}

impl Slot {
    fn bytes(&self, address: &Address) -> usize {
        let names = address.namespace.as_str().len() + address.key.as_str().len();
        let entry = match self {
            Slot::Absent { .. } => 0,
            Slot::Present(entry) => entry.size(),
        };
        SLOT_OVERHEAD_BYTES + names + entry
    }
}

/// The right to fill a slot after a miss; void once the shard changed.
#[derive(Debug)]
pub struct Ticket {
    shard: usize,
    sequence: u64,
}

#[derive(Debug)]
pub enum Lookup {
    Hit(Slot),
    Miss(Ticket),
}

struct Shard<M> {
    slots: LruCache<Address, Slot, M>,
    bytes: usize,
    /// Counts what was applied here.
    sequence: u64,
}

impl<M: BuildHasher> Shard<M> {
    fn new(hasher: M) -> Self {
        Shard { slots: LruCache::unbounded_with_hasher(hasher), bytes: 0, sequence: 0 }
    }

    /// Stores the slot and makes room for it; returns how many others had to leave.
    fn store(&mut self, address: Address, slot: Slot, bytes_max: usize) -> u64 {
        let bytes = slot.bytes(&address);
        if let Some(old) = self.slots.pop(&address) {
            self.bytes -= old.bytes(&address);
        }
        if bytes > bytes_max {
            return 0;
        }
        let mut evicted = 0;
        while self.bytes + bytes > bytes_max {
            let Some((address, slot)) = self.slots.pop_lru() else { break };
            self.bytes -= slot.bytes(&address);
            evicted += 1;
        }
        self.bytes += bytes;
        self.slots.put(address, slot);
        evicted
    }
}

/// See the crate's documentation. `S` chooses the shard of an address, and `M` its place in there: were they the same, what
/// meets in a shard would also meet in few places of its map.
pub struct Cache<C, S = RandomState, M = DefaultHasher> {
    shards: Vec<Mutex<Shard<M>>>,
    hasher: S,
    shard_bytes_max: usize,
    /// Of all shards.
    entries: AtomicUsize,
    bytes: AtomicUsize,
    counts: Arc<C>,
}

/// What a cache holds, and may hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheSize {
    /// Entries, and addresses known to have none.
    pub entries: usize,
    pub bytes: usize,
    pub bytes_max: usize,
}

impl<C: Counts> Cache<C> {
    pub fn new(bytes_max: usize, counts: Arc<C>) -> Self {
        Self::with_hashers(bytes_max, counts, RandomState::new(), &DefaultHasher::default())
    }
}

impl<C: Counts, S: BuildHasher, M: BuildHasher + Clone> Cache<C, S, M> {
    /// With hashers that are not drawn by lot, a lookup takes the same steps in every process.
    pub fn with_hashers(bytes_max: usize, counts: Arc<C>, shard: S, slot: &M) -> Self {
        Cache {
            shards: (0..SHARDS).map(|_| Mutex::new(Shard::new(slot.clone()))).collect(),
            hasher: shard,
            shard_bytes_max: bytes_max / SHARDS,
            entries: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            counts,
        }
    }

    pub fn lookup(&self, address: &Address) -> Lookup {
        let index = self.index(address);
        let found = {
            let mut shard = self.shards[index].lock();
            match shard.slots.get(address) {
                Some(slot) => Lookup::Hit(slot.clone()),
                None => Lookup::Miss(Ticket { shard: index, sequence: shard.sequence }),
            }
        };
        match found {
            Lookup::Hit(_) => self.counts.hit(),
            Lookup::Miss(_) => self.counts.miss(),
        }
        found
    }

    /// What is known of an address, for a look that is no read: it is not counted, and makes nothing more recent.
    pub fn peek(&self, address: &Address) -> Option<Slot> {
        self.shards[self.index(address)].lock().slots.peek(address).cloned()
    }

    /// Keeps what a read found after a miss, unless the shard changed since the ticket was given.
    pub fn fill(&self, ticket: &Ticket, address: Address, slot: Slot) {
        let evicted = {
            let mut shard = self.shards[ticket.shard].lock();
            if shard.sequence != ticket.sequence {
                return;
            }
            self.change(&mut shard, |shard| shard.store(address, slot, self.shard_bytes_max))
        };
        self.count_evictions(evicted);
    }

    /// Takes over the changes of one applied command.
    pub fn applied(&self, changes: &[Change]) {
        for change in changes {
            let entry = &change.entry;
            if active(Bug::CacheKeepsOld) && entry.revision.is_multiple_of(8) {
                continue;
            }
            let slot = if entry.deleted() {
                Slot::Absent { revision: entry.revision }
            } else {
                Slot::Present(Arc::clone(entry))
            };
            let evicted = {
                let mut shard = self.shards[self.index(&entry.address)].lock();
                shard.sequence += 1;
                self.change(&mut shard, |shard| {
                    shard.store(entry.address.clone(), slot, self.shard_bytes_max)
                })
            };
            self.count_evictions(evicted);
        }
    }

    /// Forgets everything, and voids every ticket: the state was replaced as a whole.
    pub fn reset(&self) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            self.change(&mut shard, |shard| {
                shard.slots.clear();
                shard.bytes = 0;
            });
            shard.sequence += 1;
        }
    }

    /// Bytes charged for what is kept.
    pub fn bytes(&self) -> usize {
        self.size().bytes
    }

    /// Told without a lock: between two shards it may be one change off.
    pub fn size(&self) -> CacheSize {
        CacheSize {
            entries: self.entries.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            bytes_max: self.shard_bytes_max * SHARDS,
        }
    }

    /// Does something to a shard, and counts what it holds afterwards.
    fn change<T>(&self, shard: &mut Shard<M>, change: impl FnOnce(&mut Shard<M>) -> T) -> T {
        let (entries, bytes) = (shard.slots.len(), shard.bytes);
        let result = change(shard);
        // Wraps in both directions; the sums come out right.
        let add = |total: &AtomicUsize, now: usize, before: usize| {
            total.fetch_add(now.wrapping_sub(before), Ordering::Relaxed);
        };
        add(&self.entries, shard.slots.len(), entries);
        add(&self.bytes, shard.bytes, bytes);
        result
    }

    fn index(&self, address: &Address) -> usize {
        // The remainder is below SHARDS, which fits every integer.
        (self.hasher.hash_one(address) % SHARDS as u64) as usize
    }

    fn count_evictions(&self, evicted: u64) {
        if evicted > 0 {
            self.counts.evicted(evicted);
        }
    }
}

#[cfg(test)]
mod tests {
    use llm_config_domain::{Environment, JsonValue, Key, Namespace};

    use super::*;

    #[derive(Default)]
    struct Counted {
        hits: AtomicUsize,
        misses: AtomicUsize,
        evicted: AtomicUsize,
    }

    impl Counts for Counted {
        fn hit(&self) {
            self.hits.fetch_add(1, Ordering::Relaxed);
        }

        fn miss(&self) {
            self.misses.fetch_add(1, Ordering::Relaxed);
        }

        fn evicted(&self, slots: u64) {
            self.evicted.fetch_add(slots as usize, Ordering::Relaxed);
        }
    }

    fn address(key: &str) -> Address {
        Address {
            namespace: Namespace::parse("app").unwrap(),
            key: Key::parse(key).unwrap(),
            environment: Environment::Base,
        }
    }

    fn entry(key: &str, revision: u64, value: Option<String>) -> Entry {
        Entry {
            address: address(key),
            version: revision,
            revision,
            value: value.map(|text| JsonValue::parse(text.as_bytes()).unwrap().into()),
            created_at_ms: 0,
            created_by: String::new(),
            updated_at_ms: 0,
            updated_by: String::new(),
            description: String::new(),
            tags: Vec::new(),
            comment: String::new(),
        }
    }

    fn set(key: &str, revision: u64) -> Change {
        Change::of(entry(key, revision, Some(revision.to_string())))
    }

    fn delete(key: &str, revision: u64) -> Change {
        Change::of(entry(key, revision, None))
    }

    fn cache(bytes: usize) -> Cache<Counted> {
        Cache::new(bytes, Arc::default())
    }

    fn miss(cache: &Cache<Counted>, key: &str) -> Ticket {
        match cache.lookup(&address(key)) {
            Lookup::Miss(ticket) => ticket,
            Lookup::Hit(slot) => panic!("unexpected hit: {slot:?}"),
        }
    }

    fn revision(cache: &Cache<Counted>, key: &str) -> u64 {
        match cache.lookup(&address(key)) {
            Lookup::Hit(Slot::Present(entry)) => entry.revision,
            other => panic!("not present: {other:?}"),
        }
    }

    #[test]
    fn what_was_applied_is_found() {
        let cache = cache(1 << 20);
        cache.applied(&[set("a", 1)]);
        assert_eq!(revision(&cache, "a"), 1);
        cache.applied(&[set("a", 2)]);
        assert_eq!(revision(&cache, "a"), 2);
    }

    #[test]
    fn a_deleted_entry_is_known_to_be_absent() {
        let cache = cache(1 << 20);
        cache.applied(&[set("a", 1)]);
        cache.applied(&[delete("a", 2)]);
        assert!(matches!(cache.lookup(&address("a")), Lookup::Hit(Slot::Absent { revision: 2 })));
    }

    #[test]
    fn a_look_finds_what_is_there_and_is_no_read() {
        let cache = cache(1 << 20);
        cache.applied(&[set("a", 1), delete("b", 2)]);
        assert!(matches!(cache.peek(&address("a")), Some(Slot::Present(_))));
        assert!(matches!(cache.peek(&address("b")), Some(Slot::Absent { revision: 2 })));
        assert!(cache.peek(&address("c")).is_none());
        let counted = [&cache.counts.hits, &cache.counts.misses];
        assert_eq!(counted.map(|count| count.load(Ordering::Relaxed)), [0, 0]);
    }

    #[test]
    fn a_miss_is_filled() {
        let cache = cache(1 << 20);
        let ticket = miss(&cache, "a");
        cache.fill(&ticket, address("a"), Slot::Present(Arc::new(entry("a", 1, Some("1".into())))));
        assert_eq!(revision(&cache, "a"), 1);
    }

    #[test]
    fn a_read_that_began_before_a_change_does_not_overwrite_it() {
        let cache = cache(1 << 20);
        let ticket = miss(&cache, "a");
        cache.applied(&[set("a", 2)]);
        cache.fill(&ticket, address("a"), Slot::Present(Arc::new(entry("a", 1, Some("1".into())))));
        assert_eq!(revision(&cache, "a"), 2);
    }

    #[test]
    fn a_read_that_began_before_a_change_does_not_bring_back_what_was_evicted() {
        // Room for one slot in each shard: the change itself may be gone again when the old read fills.
        let cache = cache(SHARDS * (2 * SLOT_OVERHEAD_BYTES + size_of::<Entry>()));
        let ticket = miss(&cache, "a");
        cache.applied(&[set("a", 2)]);
        let shard = cache.index(&address("a"));
        let neighbour =
            (0..).map(|n| format!("n{n}")).find(|key| cache.index(&address(key)) == shard).unwrap();
        cache.applied(&[set(&neighbour, 3)]);
        cache.fill(&ticket, address("a"), Slot::Present(Arc::new(entry("a", 1, Some("1".into())))));
        miss(&cache, "a");
    }

    #[test]
    fn a_reset_empties_it_and_voids_reads_under_way() {
        let cache = cache(1 << 20);
        cache.applied(&[set("a", 1)]);
        let ticket = miss(&cache, "b");
        cache.reset();
        miss(&cache, "a");
        cache.fill(&ticket, address("b"), Slot::Absent { revision: 1 });
        miss(&cache, "b");
        assert_eq!(cache.bytes(), 0);
    }

    #[test]
    fn hits_misses_and_what_had_to_leave_are_told() {
        let cache = cache(SHARDS * (2 * SLOT_OVERHEAD_BYTES + size_of::<Entry>()));
        miss(&cache, "a");
        cache.applied(&[set("a", 1)]);
        revision(&cache, "a");
        revision(&cache, "a");
        for n in 0..4 * SHARDS {
            cache.applied(&[set(&format!("n{n}"), 2)]);
        }
        let of = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        let Counted { hits, misses, evicted } = cache.counts.as_ref();
        assert_eq!((of(hits), of(misses)), (2, 1));
        assert_eq!(of(evicted), 1 + 4 * SHARDS - cache.size().entries);
    }

    #[test]
    fn it_never_holds_more_than_its_bound() {
        let bound = 256 << 10;
        let cache = cache(bound);
        for n in 0..2_000u64 {
            let text = format!("\"{}\"", "x".repeat((n as usize * 37) % 4_000));
            let change = Change::of(entry(&format!("k{}", n % 700), n + 1, Some(text)));
            cache.applied(&[change]);
            assert!(cache.bytes() <= bound, "{} bytes after {n}", cache.bytes());
        }
        assert!(cache.bytes() > bound / 2, "it should make use of its room");
    }

    #[test]
    fn an_entry_larger_than_a_shard_is_not_kept_and_drops_the_old_one() {
        let cache = cache(SHARDS * 2_048);
        cache.applied(&[set("a", 1)]);
        let large = format!("\"{}\"", "x".repeat(4_096));
        cache.applied(&[Change::of(entry("a", 2, Some(large)))]);
        miss(&cache, "a");
        assert_eq!(cache.bytes(), 0);
    }
}
