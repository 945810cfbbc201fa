//! Settings, most of which have no meaning without tables and threads.

use std::sync::Arc;

use crate::statistics::Ticker;

/// How much of a damaged write-ahead log is taken. The simulation knows the way that the product chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DBRecoveryMode {
    /// Only an end that is torn is left out.
    TolerateCorruptedTailRecords,
    /// Whatever comes before the first damage. The product asks for it where RocksDB's own files are torn, so never here.
    PointInTime,
}

/// How tables are compressed; here they are not.
#[derive(Debug, Clone, Copy)]
pub enum DBCompressionType {
    /// Not at all.
    None,
    /// LZ4.
    Lz4,
}

/// Room for blocks of tables, which are not cached here.
#[derive(Clone)]
pub struct Cache(());

impl Cache {
    /// Of so many bytes.
    #[must_use]
    pub fn new_lru_cache(_bytes: usize) -> Self {
        Self(())
    }

    /// Nothing.
    #[must_use]
    pub fn get_usage(&self) -> usize {
        0
    }
}

/// How tables are built.
#[derive(Default)]
pub struct BlockBasedOptions(());

impl BlockBasedOptions {
    /// No meaning here.
    pub fn set_block_cache(&mut self, _cache: &Cache) {}
    /// No meaning here.
    pub fn set_bloom_filter(&mut self, _bits: f64, _block_based: bool) {}
    /// No meaning here.
    pub fn set_cache_index_and_filter_blocks(&mut self, _cache: bool) {}
    /// No meaning here.
    pub fn set_format_version(&mut self, _version: i32) {}
}

/// How a database is opened.
#[derive(Clone, Default)]
pub struct Options {
    pub(crate) create_if_missing: bool,
}

impl Options {
    /// Makes one that is not there.
    pub fn create_if_missing(&mut self, create: bool) {
        self.create_if_missing = create;
    }

    /// No meaning here.
    pub fn set_paranoid_checks(&mut self, _check: bool) {}
    /// No meaning here.
    pub fn set_keep_log_file_num(&mut self, _files: usize) {}
    /// No meaning here.
    pub fn set_max_log_file_size(&mut self, _bytes: usize) {}
    /// No meaning here.
    pub fn set_max_background_jobs(&mut self, _jobs: i32) {}
    /// The only mode is the one that the product sets.
    pub fn set_wal_recovery_mode(&mut self, _mode: DBRecoveryMode) {}
    /// No meaning here.
    pub fn set_write_buffer_size(&mut self, _bytes: usize) {}
    /// No meaning here.
    pub fn set_max_total_wal_size(&mut self, _bytes: u64) {}
    /// No meaning here.
    pub fn set_compression_type(&mut self, _kind: DBCompressionType) {}
    /// No meaning here.
    pub fn set_block_based_table_factory(&mut self, _options: &BlockBasedOptions) {}
    /// No meaning here.
    pub fn enable_statistics(&mut self) {}

    /// Nothing is counted here.
    #[must_use]
    pub fn get_ticker_count(&self, _ticker: Ticker) -> u64 {
        0
    }
}

/// How it is read.
#[derive(Default)]
pub struct ReadOptions {
    pub(crate) lower: Option<Arc<[u8]>>,
    pub(crate) upper: Option<Arc<[u8]>>,
}

impl ReadOptions {
    /// The first key that may be read.
    pub fn set_iterate_lower_bound(&mut self, key: impl AsRef<[u8]>) {
        self.lower = Some(key.as_ref().into());
    }

    /// The first key behind those that may be read.
    pub fn set_iterate_upper_bound(&mut self, key: impl AsRef<[u8]>) {
        self.upper = Some(key.as_ref().into());
    }

    /// No meaning here.
    pub fn fill_cache(&mut self, _fill: bool) {}
    /// No meaning here.
    pub fn set_readahead_size(&mut self, _bytes: usize) {}
}

/// How it is written.
#[derive(Default)]
pub struct WriteOptions {
    pub(crate) sync: bool,
    pub(crate) no_wal: bool,
}

impl WriteOptions {
    /// Returns only when it lasts.
    pub fn set_sync(&mut self, sync: bool) {
        self.sync = sync;
    }

    /// Lasts from the next flush on.
    pub fn disable_wal(&mut self, disable: bool) {
        self.no_wal = disable;
    }
}
