//! Stands in for RocksDB in the deterministic simulation: what a replica calls of it, over the simulated disk.
//!
//! The product's code is compiled against this crate unchanged. It keeps what that code relies on: a batch is written
//! whole or not at all; with a sync it lasts, and so does everything before it; without a write-ahead log it lasts from the
//! next flush on; what is damaged in the middle is refused and a torn end is not; a checkpoint is what was there when it
//! was made; a snapshot does not change. It keeps nothing else: tables are whole copies, and nothing happens beside the
//! caller.

pub mod checkpoint;
mod db;
mod files;
mod iterate;
mod options;
pub mod simulated;
pub mod statistics;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;

pub use db::{DB, LiveFile, SnapshotWithThreadMode};
pub use iterate::DBRawIteratorWithThreadMode;
pub use options::{
    BlockBasedOptions, Cache, DBCompressionType, DBRecoveryMode, Options, ReadOptions, WriteOptions,
};

type Map = BTreeMap<Arc<[u8]>, Arc<[u8]>>;

#[derive(Debug, Clone)]
enum Op {
    Put(Arc<[u8]>, Arc<[u8]>),
    Delete(Arc<[u8]>),
    DeleteRange(Arc<[u8]>, Arc<[u8]>),
}

impl Op {
    fn apply(&self, map: &mut Map) {
        match self {
            Self::Put(key, value) => {
                map.insert(Arc::clone(key), Arc::clone(value));
            }
            Self::Delete(key) => {
                map.remove(key);
            }
            Self::DeleteRange(from, to) => {
                if from >= to {
                    return;
                }
                let range = map.range::<Arc<[u8]>, _>(from..to);
                let keys: Vec<_> = range.map(|(key, _)| Arc::clone(key)).collect();
                for key in keys {
                    map.remove(&key);
                }
            }
        }
    }
}

/// Changes that are written together.
#[derive(Debug, Clone, Default)]
pub struct WriteBatch {
    ops: Vec<Op>,
}

impl WriteBatch {
    /// Sets a key.
    pub fn put(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        self.ops.push(Op::Put(key.as_ref().into(), value.as_ref().into()));
    }

    /// Deletes a key.
    pub fn delete(&mut self, key: impl AsRef<[u8]>) {
        self.ops.push(Op::Delete(key.as_ref().into()));
    }

    /// Deletes the keys of `from..to`.
    pub fn delete_range(&mut self, from: impl AsRef<[u8]>, to: impl AsRef<[u8]>) {
        self.ops.push(Op::DeleteRange(from.as_ref().into(), to.as_ref().into()));
    }
}

/// What an error is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// What was read is not what was written.
    Corruption,
    /// The disk.
    IOError,
}

/// Why something was not done.
#[derive(Debug, Clone)]
pub struct Error {
    kind: ErrorKind,
    message: String,
}

impl Error {
    /// What it is about.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// In words.
    #[must_use]
    pub fn into_string(self) -> String {
        self.message
    }

    fn corruption(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Corruption, message: format!("Corruption: {}", message.into()) }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self { kind: ErrorKind::IOError, message: format!("IO error: {error}") }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
