//! What apply and queries need from a storage engine, and a store in memory for tests and simulations.
//!
//! Domain keys start with a byte from 0x10 up to 0xfe; what is below belongs to whoever owns the store.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use bytes::Bytes;
use sha2::{Digest, Sha256};

/// The order of a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Smallest key first.
    Ascending,
    /// Largest key first.
    Descending,
}

/// A fault of this node's storage. The node cannot go on: others may have applied what it could not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The engine could not read.
    #[error("storage could not be read: {0}")]
    Read(String),
    /// The engine read something that was never written so.
    #[error("storage is corrupt: {0}")]
    Corrupt(String),
    /// The engine read what a newer release wrote.
    #[error(
        "a record of the {table} table has format {found}, and this release reads up to format {known}"
    )]
    Newer {
        /// Which records.
        table: &'static str,
        /// Their format.
        found: u8,
        /// The newest that this release reads.
        known: u8,
    },
}

/// Called for each key and value of a scan; breaks to end it.
pub type Visit<'v> = &'v mut dyn FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, StoreError>;

/// A consistent view of ordered keys and values.
pub trait Reader {
    /// The value of a key.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// Visits the keys of `from..to` in order until `visit` breaks. An error half-way is returned, never swallowed.
    /// An empty or inverted range visits nothing.
    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        order: Order,
        visit: Visit<'_>,
    ) -> Result<(), StoreError>;
}

/// Uncommitted writes; `None` deletes.
pub type Writes = BTreeMap<Vec<u8>, Option<Bytes>>;

/// Where the domain's keys begin.
pub const DOMAIN_FIRST: u8 = 0x10;
/// Where the domain's keys have ended.
pub const DOMAIN_END: u8 = 0xff;

/// Every value of a range in the order of its keys. For tables with a bound that is small enough to read at once.
pub(crate) fn all<R: Reader + ?Sized, T>(
    reader: &R,
    (from, to): (Vec<u8>, Vec<u8>),
    decode: impl Fn(Bytes) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    let mut found = Vec::new();
    reader.scan(&from, &to, Order::Ascending, &mut |_, value| {
        found.push(decode(Bytes::copy_from_slice(value))?);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(found)
}

/// SHA-256 over all domain keys and values in order: equal on two nodes exactly when their state is equal.
pub fn digest<R: Reader + ?Sized>(reader: &R) -> Result<[u8; 32], StoreError> {
    let mut hash = Sha256::new();
    reader.scan(&[DOMAIN_FIRST], &[DOMAIN_END], Order::Ascending, &mut |key, value| {
        for part in [key, value] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(hash.finalize().into())
}

/// A store in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryStore(BTreeMap<Vec<u8>, Bytes>);

impl MemoryStore {
    /// Commits a batch of writes.
    pub fn apply_writes(&mut self, writes: Writes) {
        for (key, value) in writes {
            match value {
                Some(value) => self.0.insert(key, value),
                None => self.0.remove(&key),
            };
        }
    }
}

/// What `BTreeMap::range` takes for `from..to`.
type KeyBounds<'k> = (Bound<&'k [u8]>, Bound<&'k [u8]>);

/// The bounds of `from..to`, or None when nothing can be in between (which `BTreeMap::range` would panic on).
pub(crate) fn bounds<'k>(from: &'k [u8], to: &'k [u8]) -> Option<KeyBounds<'k>> {
    (from < to).then_some((Bound::Included(from), Bound::Excluded(to)))
}

impl Reader for MemoryStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.0.get(key).cloned())
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        order: Order,
        visit: Visit<'_>,
    ) -> Result<(), StoreError> {
        let Some(bounds) = bounds(from, to) else { return Ok(()) };
        let mut range = self.0.range::<[u8], _>(bounds);
        while let Some((key, value)) = match order {
            Order::Ascending => range.next(),
            Order::Descending => range.next_back(),
        } {
            if visit(key, value)?.is_break() {
                break;
            }
        }
        Ok(())
    }
}
