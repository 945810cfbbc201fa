//! The seam between the log and the disk: an ordered map with atomic batches.
//!
//! [`super::rocks::RocksEngine`] is the product. Tests use a memory engine that forgets what was not synced.

use std::io;
use std::ops::ControlFlow;

use bytes::Bytes;

use crate::status::EngineStats;

/// One change of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Op {
    Put(Bytes, Bytes),
    Delete(Bytes),
    /// Deletes `from..to`.
    DeleteRange(Bytes, Bytes),
}

/// What a scan calls for each pair.
pub(crate) type Visit<'v> = &'v mut dyn FnMut(&[u8], &[u8]) -> io::Result<ControlFlow<()>>;

/// An ordered map whose batches are atomic.
pub(crate) trait Engine: Send + Sync + 'static {
    /// Applies the whole batch or nothing. With `sync`, returns only when it and everything before it is durable.
    fn write(&self, batch: &[Op], sync: bool) -> io::Result<()>;

    fn get(&self, key: &[u8]) -> io::Result<Option<Bytes>>;

    /// Visits `from..to` in order until `visit` breaks. A read error half-way is returned, never swallowed.
    fn scan(&self, from: &[u8], to: &[u8], visit: Visit<'_>) -> io::Result<()>;

    /// Gives back the space of what was deleted. May take long.
    fn compact(&self) -> io::Result<()>;

    /// What the engine tells about itself. May take locks of its own.
    fn stats(&self) -> EngineStats {
        EngineStats::default()
    }
}

#[cfg(test)]
pub(crate) mod memory {
    //! A disk that loses what was not synced, and can be told to fail or to wait.

    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use parking_lot::{Condvar, Mutex};

    use super::*;

    type Map = BTreeMap<Bytes, Bytes>;

    #[derive(Default)]
    struct Disk {
        durable: Map,
        /// Batches written and not synced, oldest first.
        pending: Vec<Vec<Op>>,
        current: Map,
    }

    #[derive(Default)]
    pub(crate) struct MemoryEngine {
        disk: Mutex<Disk>,
        gate_closed: Mutex<bool>,
        gate: Condvar,
        pub(crate) waiting: AtomicBool,
        pub(crate) fail_next: AtomicBool,
        pub(crate) syncs: AtomicU64,
    }

    impl MemoryEngine {
        pub(crate) fn close_gate(&self) {
            *self.gate_closed.lock() = true;
        }

        pub(crate) fn open_gate(&self) {
            *self.gate_closed.lock() = false;
            self.gate.notify_all();
        }

        /// The engine as a restart finds it: everything synced, and the first `survivors` of the unsynced batches.
        pub(crate) fn crash(&self, survivors: usize) -> Arc<Self> {
            let disk = self.disk.lock();
            let mut durable = disk.durable.clone();
            for batch in disk.pending.iter().take(survivors) {
                apply(&mut durable, batch);
            }
            let disk = Disk { current: durable.clone(), durable, pending: Vec::new() };
            Arc::new(Self { disk: Mutex::new(disk), ..Self::default() })
        }

        pub(crate) fn unsynced_batches(&self) -> usize {
            self.disk.lock().pending.len()
        }
    }

    fn apply(map: &mut Map, batch: &[Op]) {
        for op in batch {
            match op {
                Op::Put(key, value) => {
                    map.insert(key.clone(), value.clone());
                }
                Op::Delete(key) => {
                    map.remove(key);
                }
                Op::DeleteRange(from, to) => {
                    let keys: Vec<Bytes> =
                        map.range(from.clone()..to.clone()).map(|(key, _)| key.clone()).collect();
                    for key in keys {
                        map.remove(&key);
                    }
                }
            }
        }
    }

    impl Engine for MemoryEngine {
        fn write(&self, batch: &[Op], sync: bool) -> io::Result<()> {
            let mut closed = self.gate_closed.lock();
            while *closed {
                self.waiting.store(true, Ordering::SeqCst);
                self.gate.wait(&mut closed);
            }
            drop(closed);
            if self.fail_next.swap(false, Ordering::SeqCst) {
                return Err(io::Error::other("injected write error"));
            }
            let mut disk = self.disk.lock();
            apply(&mut disk.current, batch);
            disk.pending.push(batch.to_vec());
            if sync {
                disk.durable = disk.current.clone();
                disk.pending.clear();
                self.syncs.fetch_add(1, Ordering::SeqCst);
            }
            Ok(())
        }

        fn compact(&self) -> io::Result<()> {
            Ok(())
        }

        fn get(&self, key: &[u8]) -> io::Result<Option<Bytes>> {
            Ok(self.disk.lock().current.get(key).cloned())
        }

        fn scan(&self, from: &[u8], to: &[u8], visit: Visit<'_>) -> io::Result<()> {
            let range = Bytes::copy_from_slice(from)..Bytes::copy_from_slice(to);
            let found: Vec<(Bytes, Bytes)> = self
                .disk
                .lock()
                .current
                .range(range)
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect();
            for (key, value) in found {
                if visit(&key, &value)?.is_break() {
                    break;
                }
            }
            Ok(())
        }
    }
}
