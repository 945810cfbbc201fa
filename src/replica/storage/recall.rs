//! Records that apply reads each time that the same entry is written, at hand instead of in RocksDB: a look into its memtable
//! walks a list through memory that no processor cache holds, and was a fifth of applying a write.
//!
//! Right because apply alone writes the state, one batch after the other, and tells of what it wrote; whoever else reads,
//! reads RocksDB.

use std::num::NonZeroUsize;

use bytes::Bytes;
use llm_config_domain::{Order, Reader, StoreError, Visit, reads_again};
use lru::LruCache;
use parking_lot::Mutex;

use super::view::StateDb;

/// Records that are kept, those used last.
const RECORDS_MAX: usize = 16_384;
/// A larger one is not kept; most take less than a hundred bytes.
const RECORD_BYTES_MAX: usize = 256;

/// See the module.
pub(super) struct Recall {
    // Apply is the only one that locks it.
    records: Mutex<LruCache<Vec<u8>, Bytes>>,
}

impl Recall {
    pub(super) fn new() -> Self {
        let records = NonZeroUsize::new(RECORDS_MAX).unwrap_or(NonZeroUsize::MIN);
        Self { records: Mutex::new(LruCache::new(records)) }
    }

    /// Reads a state, and what is at hand of it.
    pub(super) fn of<'a>(&'a self, state: &'a StateDb) -> Recalling<'a> {
        Recalling { recall: self, state }
    }

    /// A record was stored, or deleted.
    pub(super) fn written(&self, key: &[u8], value: Option<&Bytes>) {
        if !reads_again(key) {
            return;
        }
        let mut records = self.records.lock();
        match value.filter(|value| value.len() <= RECORD_BYTES_MAX) {
            Some(value) => match records.get_mut(key) {
                Some(known) => *known = value.clone(),
                None => drop(records.put(key.to_vec(), value.clone())),
            },
            None => drop(records.pop(key)),
        }
    }

    /// The state is another one.
    pub(super) fn clear(&self) {
        self.records.lock().clear();
    }
}

/// A state with what is at hand of it in front.
pub(super) struct Recalling<'a> {
    recall: &'a Recall,
    state: &'a StateDb,
}

impl Reader for Recalling<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        if !reads_again(key) {
            return self.state.get(key);
        }
        if let Some(known) = self.recall.records.lock().get(key) {
            return Ok(Some(known.clone()));
        }
        let found = self.state.get(key)?;
        if found.is_some() {
            self.recall.written(key, found.as_ref());
        }
        Ok(found)
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        order: Order,
        visit: Visit<'_>,
    ) -> Result<(), StoreError> {
        self.state.scan(from, to, order, visit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(recall: &Recall, key: &[u8]) -> Option<Bytes> {
        recall.records.lock().get(key).cloned()
    }

    #[test]
    fn what_was_written_last_is_known_and_what_was_deleted_is_not() {
        let recall = Recall::new();
        let head = [0x10, b'k'];
        assert!(reads_again(&head) && !reads_again(&[0x11, b'k']));
        recall.written(&head, Some(&Bytes::from_static(b"one")));
        recall.written(&head, Some(&Bytes::from_static(b"two")));
        assert_eq!(known(&recall, &head).unwrap(), "two");
        recall.written(&[0x11, b'k'], Some(&Bytes::from_static(b"a version")));
        assert_eq!(known(&recall, &[0x11, b'k']), None, "it is not read again");
        recall.written(&head, Some(&Bytes::from(vec![0; RECORD_BYTES_MAX + 1])));
        assert_eq!(known(&recall, &head), None, "what is too large must not leave what was before");
        recall.written(&head, Some(&Bytes::from_static(b"three")));
        recall.written(&head, None);
        assert_eq!(known(&recall, &head), None);
        recall.written(&head, Some(&Bytes::from_static(b"four")));
        recall.clear();
        assert_eq!(known(&recall, &head), None);
    }
}
