//! The cache of entries, with hashers of the kinds that a server has, but the same in every process.

use std::hash::{BuildHasherDefault, DefaultHasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::fast::FixedState;
use llm_config_cache::{Cache, Counts, Lookup};
use llm_config_domain::{Address, Environment};

use crate::state::{State, Written};
use crate::turns::in_turn;
use crate::{Call, Error};

/// What a server takes unless told.
const BYTES_MAX: usize = 64 << 20;
const SEED: u64 = 1;

/// As the server's metrics count.
#[derive(Default)]
struct Counted {
    hits: AtomicU64,
    misses: AtomicU64,
    evicted: AtomicU64,
}

impl Counts for Counted {
    fn hit(&self) {
        self.hits.fetch_add(1, Ordering::Relaxed);
    }

    fn miss(&self) {
        self.misses.fetch_add(1, Ordering::Relaxed);
    }

    fn evicted(&self, slots: u64) {
        self.evicted.fetch_add(slots, Ordering::Relaxed);
    }
}

type Fixed = Cache<Counted, BuildHasherDefault<DefaultHasher>, FixedState>;

/// A cache that has every entry, and what they were filled from.
fn filled() -> Result<(Fixed, Vec<Written>), Error> {
    let slot = FixedState::with_seed(SEED);
    let cache =
        Fixed::with_hashers(BYTES_MAX, Arc::default(), BuildHasherDefault::default(), &slot);
    let written = State::new()?.written;
    for written in &written {
        cache.applied(&written.changes);
    }
    Ok((cache, written))
}

pub(crate) fn hit() -> Result<Call, Error> {
    let (cache, written) = filled()?;
    let addresses = written.into_iter().map(|written| written.set.address).collect();
    let lookup = move |address: &Address| cache.lookup(address);
    Ok(in_turn(addresses, lookup, |found| matches!(found, Lookup::Hit(_))))
}

pub(crate) fn miss() -> Result<Call, Error> {
    let (cache, written) = filled()?;
    let elsewhere =
        |written: Written| Address { environment: Environment::Staging, ..written.set.address };
    let addresses = written.into_iter().map(elsewhere).collect();
    let lookup = move |address: &Address| cache.lookup(address);
    Ok(in_turn(addresses, lookup, |found| matches!(found, Lookup::Miss(_))))
}

/// Taking over a change of an entry that it has.
pub(crate) fn applied() -> Result<Call, Error> {
    let (cache, written) = filled()?;
    let entries = written.len();
    let cache = Arc::new(cache);
    let filled = Arc::clone(&cache);
    Ok(in_turn(
        written,
        move |written| cache.applied(&written.changes),
        move |()| filled.size().entries == entries,
    ))
}
