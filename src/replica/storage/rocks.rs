//! RocksDB as this product opens it: one database for the log, one for the state.
//!
//! The log syncs its write-ahead log with each batch and refuses to open when a record in the middle of it is damaged:
//! the default recovery mode would silently drop everything after the damage. What a power cut has torn at its end is cut
//! off before. The state has no write-ahead log: it is
//! replayed from the Raft log.

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, DBRecoveryMode, Options, ReadOptions,
    WriteBatch, WriteOptions,
};

use super::directory::{Directory, named};
use super::engine::{Engine, Op, Visit};
use super::wal;
use crate::status::EngineStats;

fn base_options() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_paranoid_checks(true);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(4 << 20);
    options.set_max_background_jobs(2);
    options
}

pub(crate) fn log_options() -> Options {
    let mut options = base_options();
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_write_buffer_size(16 << 20);
    options.set_max_total_wal_size(128 << 20);
    options.set_compression_type(DBCompressionType::None);
    options
}

pub(crate) fn state_options(cache: &Cache) -> Options {
    let mut options = base_options();
    options.set_write_buffer_size(16 << 20);
    options.set_compression_type(DBCompressionType::Lz4);
    options.enable_statistics();
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    blocks.set_bloom_filter(10.0, false);
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_format_version(5);
    options.set_block_based_table_factory(&blocks);
    options
}

pub(crate) fn io_error(error: rocksdb::Error) -> io::Error {
    let kind = match error.kind() {
        rocksdb::ErrorKind::Corruption => io::ErrorKind::InvalidData,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error.into_string())
}

/// Opens a database; the error names the folder.
pub(crate) fn open(options: &Options, path: &Path) -> io::Result<DB> {
    DB::open(options, path).map_err(|error| named(path, io_error(error)))
}

/// Opens a database to read what it holds, its write-ahead log included; no file of it changes.
pub(crate) fn open_read_only(options: &Options, path: &Path) -> io::Result<DB> {
    DB::open_for_read_only(options, path, false).map_err(|error| named(path, io_error(error)))
}

/// A range of keys to compact, and the bytes of the tables that begin in it.
pub(crate) struct Piece {
    pub(crate) from: Option<Vec<u8>>,
    pub(crate) to: Option<Vec<u8>>,
    pub(crate) bytes: u64,
}

/// All keys of a database, cut where its lowest tables end.
pub(crate) fn pieces(db: &DB) -> io::Result<Vec<Piece>> {
    let files = db.live_files().map_err(io_error)?;
    let lowest = files.iter().map(|file| file.level).max().unwrap_or(0);
    let mut cuts: Vec<(Vec<u8>, u64)> = files
        .into_iter()
        .filter(|file| file.level == lowest && lowest > 0)
        .filter_map(|file| Some((file.end_key?, file.size as u64)))
        .collect();
    cuts.sort();
    let mut from = None;
    let mut pieces = Vec::with_capacity(cuts.len() + 1);
    for (end, bytes) in cuts {
        pieces.push(Piece { from: from.replace(end.clone()), to: Some(end), bytes });
    }
    pieces.push(Piece { from, to: None, bytes: 0 });
    Ok(pieces)
}

pub(crate) fn write_batch(ops: &[Op]) -> WriteBatch {
    let mut batch = WriteBatch::default();
    for op in ops {
        match op {
            Op::Put(key, value) => batch.put(key, value),
            Op::Delete(key) => batch.delete(key),
            Op::DeleteRange(from, to) => batch.delete_range(from, to),
        }
    }
    batch
}

/// The log database.
pub(crate) struct RocksEngine {
    db: DB,
    // Its lock outlives the database in it. Dropped after `db`.
    directory: Option<Arc<Directory>>,
}

impl RocksEngine {
    pub(crate) fn open(path: &Path, directory: Option<Arc<Directory>>) -> io::Result<Self> {
        for torn in wal::torn_ends(path)? {
            torn.cut()?;
            tracing::warn!("the log was not written to its end: cut off {torn}");
        }
        Ok(Self { db: open(&log_options(), path)?, directory })
    }

    /// Opens a log that nobody writes, and changes no file of it.
    pub(crate) fn open_read_only(path: &Path, directory: Arc<Directory>) -> io::Result<Self> {
        let mut options = log_options();
        if !wal::torn_ends(path)?.is_empty() {
            // The log is whole up to there, so this mode passes over nothing else.
            options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
        }
        Ok(Self { db: open_read_only(&options, path)?, directory: Some(directory) })
    }

    /// Whoever asked is told, and the node that it must not go on.
    fn failed(&self, error: rocksdb::Error) -> io::Error {
        let error = io_error(error);
        self.noted(&error);
        error
    }

    fn noted(&self, error: &io::Error) {
        if let Some(directory) = &self.directory {
            directory.noted(error);
        }
    }
}

impl Engine for RocksEngine {
    fn write(&self, batch: &[Op], sync: bool) -> io::Result<()> {
        let mut options = WriteOptions::default();
        options.set_sync(sync);
        self.db.write_opt(write_batch(batch), &options).map_err(|error| self.failed(error))
    }

    fn get(&self, key: &[u8]) -> io::Result<Option<Bytes>> {
        Ok(self.db.get(key).map_err(|error| self.failed(error))?.map(Bytes::from))
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: Visit<'_>) -> io::Result<()> {
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(to);
        let mut iterator = self.db.raw_iterator_opt(options);
        iterator.seek(from);
        while let Some((key, value)) = iterator.item() {
            if visit(key, value).inspect_err(|error| self.noted(error))?.is_break() {
                return Ok(());
            }
            iterator.next();
        }
        iterator.status().map_err(|error| self.failed(error))
    }

    fn compact(&self) -> io::Result<()> {
        // The write-ahead log of what is in memory goes with the flush.
        self.db.flush().map_err(io_error)?;
        self.db.compact_range(None::<&[u8]>, None::<&[u8]>);
        Ok(())
    }

    fn stats(&self) -> EngineStats {
        stats(&self.db)
    }
}

/// What a database tells about itself. It takes the lock that its writers take, so not for the thread of a request.
pub(crate) fn stats(db: &DB) -> EngineStats {
    // A property that this release of RocksDB does not know reads as zero.
    let number = |name: &str| db.property_int_value(name).ok().flatten().unwrap_or(0);
    let level0 = db.property_value("rocksdb.num-files-at-level0").ok().flatten();
    EngineStats {
        memtable_bytes: number("rocksdb.cur-size-all-mem-tables"),
        level0_files: level0.and_then(|text| text.trim().parse().ok()).unwrap_or(0),
        pending_compaction_bytes: number("rocksdb.estimate-pending-compaction-bytes"),
        running_compactions: number("rocksdb.num-running-compactions"),
        running_flushes: number("rocksdb.num-running-flushes"),
        write_stopped: number("rocksdb.is-write-stopped") > 0,
        write_delayed: number("rocksdb.actual-delayed-write-rate") > 0,
        background_errors: number("rocksdb.background-errors"),
        estimated_keys: number("rocksdb.estimate-num-keys"),
        live_data_bytes: number("rocksdb.estimate-live-data-size"),
    }
}
