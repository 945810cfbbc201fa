//! The history while it happens: one clock, numbers for operations and processes, and the file.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufWriter};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::Context as _;
use jepsen_lite::history::{Call, Fault, Header, Operation, Outcome, Writer};

use super::Vault;

/// Takes down what clients say.
#[derive(Debug)]
pub struct Recorder {
    begun: Instant,
    operations: AtomicU64,
    processes: AtomicU64,
    ok: AtomicU64,
    failed: AtomicU64,
    unknown: AtomicU64,
    revision: AtomicU64,
    compacted: AtomicU64,
    keys: Mutex<BTreeSet<String>>,
    file: Mutex<Sheet>,
    vault: Vault,
}

/// The file, and the first error that it had: a history with a hole proves nothing.
struct Sheet {
    writer: Option<Writer<BufWriter<File>>>,
    error: Option<io::Error>,
}

impl std::fmt::Debug for Sheet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sheet").field("error", &self.error).finish_non_exhaustive()
    }
}

/// How many operations ended how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// With an answer.
    pub ok: u64,
    /// With the cluster's word that it did not happen.
    pub failed: u64,
    /// Without an answer.
    pub unknown: u64,
}

impl Recorder {
    /// Begins a history.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn create(path: &Path, header: &Header) -> anyhow::Result<Self> {
        let file =
            File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        let writer = Writer::new(BufWriter::new(file), header)?;
        Ok(Self {
            begun: Instant::now(),
            operations: AtomicU64::new(0),
            processes: AtomicU64::new(0),
            ok: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
            revision: AtomicU64::new(0),
            compacted: AtomicU64::new(0),
            keys: Mutex::new(BTreeSet::new()),
            file: Mutex::new(Sheet { writer: Some(writer), error: None }),
            vault: Vault::new(header.seed),
        })
    }

    /// Nanoseconds since the run began.
    #[must_use]
    pub fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// A number for an operation.
    #[must_use]
    pub fn operation(&self) -> u64 {
        self.operations.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A number for a process, a session or a watch.
    #[must_use]
    pub fn process(&self) -> u64 {
        self.processes.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// How many operations ended how, so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
        Counts { ok: read(&self.ok), failed: read(&self.failed), unknown: read(&self.unknown) }
    }

    /// The highest revision that was answered so far.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision.load(Ordering::Relaxed)
    }

    /// A watch was told that what it asks for is forgotten.
    pub fn note_compacted(&self) {
        self.compacted.fetch_add(1, Ordering::Relaxed);
    }

    /// How often a watch was told that.
    #[must_use]
    pub fn compacted(&self) -> u64 {
        self.compacted.load(Ordering::Relaxed)
    }

    /// What clients know and a history must not.
    #[must_use]
    pub fn vault(&self) -> &Vault {
        &self.vault
    }

    /// All entries that were ever asked for.
    #[must_use]
    pub fn keys(&self) -> BTreeSet<String> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes down an operation that has ended.
    pub fn record(&self, operation: &Operation) {
        self.remember(&operation.call);
        let count = match operation.outcome {
            Outcome::Ok => &self.ok,
            Outcome::Fail => &self.failed,
            Outcome::Unknown => &self.unknown,
        };
        count.fetch_add(1, Ordering::Relaxed);
        if let Some(revision) = operation.revision {
            self.revision.fetch_max(revision, Ordering::Relaxed);
        }
        self.write(|writer| writer.operation(operation));
    }

    fn remember(&self, call: &Call) {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        for key in call.keys() {
            if !keys.contains(key) {
                keys.insert(key.to_owned());
            }
        }
    }

    /// Takes down a fault that is over.
    pub fn fault(&self, fault: &Fault) {
        self.write(|writer| writer.fault(fault));
    }

    fn write(&self, write: impl FnOnce(&mut Writer<BufWriter<File>>) -> io::Result<()>) {
        let mut sheet = self.lock();
        let Some(writer) = &mut sheet.writer else { return };
        if let Err(error) = write(writer) {
            sheet.error.get_or_insert(error);
        }
    }

    /// Ends the history.
    ///
    /// # Errors
    /// When anything of it could not be written.
    pub fn finish(&self) -> anyhow::Result<()> {
        let mut sheet = self.lock();
        if let Some(error) = sheet.error.take() {
            return Err(error).context("the history has a hole");
        }
        let writer = sheet.writer.take().context("the history was ended before")?;
        writer.finish().context("cannot write the end of the history")?;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Sheet> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
