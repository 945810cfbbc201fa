//! Backups of this node's state: streamed to a client, or kept as files in the data directory.
//!
//! Both are one consistent revision and cost a bounded amount of memory. What a backup consists of is the replica's and
//! the archive's; here is decided how many are made at once, how long one may take, and which files stay.

mod files;
mod keep;
mod schedule;
mod stream;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use llm_config_replica::{BackupError, Replica};
use tokio::sync::Semaphore;

use crate::error::{Effect, ServiceError};
use crate::metrics::Metrics;

pub use files::{Kept, stamp};
pub use stream::{BackupChunks, BackupStream};

/// Name of the folder in the data directory.
const FOLDER: &str = "backups";

/// The bounds of backups.
#[derive(Debug, Clone, Copy)]
pub struct BackupLimits {
    /// Backups streamed to clients at once. Each holds one state of the storage alive.
    pub streams: usize,
    /// Longest time that a client may leave the next bytes waiting.
    pub stall_timeout: Duration,
    /// Longest time of a stream as a whole.
    pub stream_timeout: Duration,
    /// Files kept in the data directory.
    pub keep: usize,
    /// Bytes of the disk that a file must leave free.
    pub disk_reserve_bytes: u64,
}

impl Default for BackupLimits {
    fn default() -> Self {
        Self {
            streams: 2,
            stall_timeout: Duration::from_secs(30),
            stream_timeout: Duration::from_secs(3600),
            keep: 7,
            disk_reserve_bytes: 256 << 20,
        }
    }
}

/// A handle; clones share everything.
#[derive(Clone)]
pub struct Backups {
    inner: Arc<Inner>,
}

struct Inner {
    replica: Replica,
    metrics: Arc<Metrics>,
    folder: PathBuf,
    limits: BackupLimits,
    streams: Arc<Semaphore>,
    /// One file at a time.
    keeping: Arc<Semaphore>,
    stopping: AtomicBool,
}

impl Backups {
    /// Backups of this node, and those in its data directory.
    #[must_use]
    pub fn new(replica: Replica, metrics: Arc<Metrics>, limits: BackupLimits) -> Self {
        let inner = Inner {
            folder: replica.data_dir().join(FOLDER),
            replica,
            metrics,
            limits,
            streams: Arc::new(Semaphore::new(limits.streams)),
            keeping: Arc::new(Semaphore::new(1)),
            stopping: AtomicBool::new(false),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The files in the data directory, newest first.
    ///
    /// # Errors
    /// [`ServiceError::Internal`] when the folder cannot be read.
    pub async fn list(&self) -> Result<Vec<Kept>, ServiceError> {
        let this = self.clone();
        let list = tokio::task::spawn_blocking(move || files::list(&this.inner.folder));
        match list.await {
            Ok(Ok(kept)) => Ok(kept),
            Ok(Err(error)) => Err(internal(format!("{}: {error}", self.inner.folder.display()))),
            Err(error) => Err(internal(format!("listing the backups broke off: {error}"))),
        }
    }

    /// Cuts what is being written: a file that is not complete is worth nothing, and the node wants to stop.
    pub fn stop(&self) {
        self.inner.stopping.store(true, Ordering::Release);
    }

    fn stopping(&self) -> bool {
        self.inner.stopping.load(Ordering::Acquire)
    }
}

fn internal(reason: String) -> ServiceError {
    ServiceError::Internal { reason, effect: Effect::No }
}

fn failed(error: BackupError) -> ServiceError {
    match error {
        BackupError::NotReady => {
            ServiceError::NotReady { reason: "it has not joined a founded cluster yet".into() }
        }
        other => internal(format!("the backup failed: {other}")),
    }
}
