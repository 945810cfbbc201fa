//! A database.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use llm_config_simdisk::fs::{self, File};

use crate::files::{self, Manifest};
use crate::iterate::DBRawIteratorWithThreadMode;
use crate::simulated::{self, Defect};
use crate::{Error, ErrorKind, Map, Op, Options, ReadOptions, WriteBatch, WriteOptions};

/// What the product's log calls the key of a vote.
const VOTE: &[u8] = b"\x00vote";

struct Inner {
    map: Arc<Map>,
    manifest: Manifest,
    /// Absent in a database that is only read.
    log: Option<File>,
    /// Whether there is something that the table does not hold.
    dirty: bool,
    /// Whether a part of it is not in the write-ahead log either.
    unlogged: bool,
    /// The disk failed once: nothing is written any more.
    failed: bool,
}

/// An open database.
pub struct DB {
    folder: PathBuf,
    inner: Mutex<Inner>,
}

/// One table; there is only one, without levels.
#[derive(Debug, Clone)]
pub struct LiveFile {
    /// Its level.
    pub level: i32,
    /// Its last key.
    pub end_key: Option<Vec<u8>>,
    /// Its bytes.
    pub size: usize,
}

fn locked(inner: &Mutex<Inner>) -> MutexGuard<'_, Inner> {
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

impl DB {
    /// Opens a database to write.
    ///
    /// # Errors
    /// When it is open, absent, or damaged, or the disk fails.
    pub fn open(options: &Options, path: impl AsRef<Path>) -> Result<Self, Error> {
        let folder = path.as_ref();
        fs::create_dir_all(folder)?;
        if !simulated::open(folder) {
            return Err(Error {
                kind: ErrorKind::IOError,
                message: format!(
                    "IO error: {}/LOCK: already held by this process",
                    folder.display()
                ),
            });
        }
        let opened = Inner::open(options, folder);
        if opened.is_err() {
            simulated::close(folder);
        }
        Ok(Self { folder: folder.to_owned(), inner: Mutex::new(opened?) })
    }

    /// Opens a database to read; it is not changed.
    ///
    /// # Errors
    /// When it is absent or damaged, or the disk fails.
    pub fn open_for_read_only(
        _options: &Options,
        path: impl AsRef<Path>,
        refuse_log: bool,
    ) -> Result<Self, Error> {
        let folder = path.as_ref();
        let Some(manifest) = files::current(folder)? else {
            return Err(fs::metadata(folder.join(files::CURRENT)).map_or_else(Error::from, |_| {
                Error::corruption("a database came into being while it was opened")
            }));
        };
        let (map, logged) = load(folder, manifest)?;
        if refuse_log && logged {
            return Err(Error::corruption("there is a write-ahead log"));
        }
        let inner = Inner {
            map: Arc::new(map),
            manifest,
            log: None,
            dirty: false,
            unlogged: false,
            failed: false,
        };
        Ok(Self { folder: folder.to_owned(), inner: Mutex::new(inner) })
    }

    /// Writes a batch, all or nothing.
    ///
    /// # Errors
    /// When the disk fails, now or before.
    pub fn write_opt(&self, batch: WriteBatch, options: &WriteOptions) -> Result<(), Error> {
        let mut inner = locked(&self.inner);
        inner.refuse_failed()?;
        if !options.no_wal {
            let written = inner.log_batch(&self.folder, &batch.ops, options.sync);
            inner.failed |= written.is_err();
            written?;
        }
        inner.unlogged |= options.no_wal;
        inner.dirty |= !batch.ops.is_empty();
        let map = Arc::make_mut(&mut inner.map);
        for op in &batch.ops {
            op.apply(map);
        }
        Ok(())
    }

    /// The value of a key.
    ///
    /// # Errors
    /// Never, here.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>, Error> {
        Ok(locked(&self.inner).map.get(key.as_ref()).map(|value| value.to_vec()))
    }

    fn map(&self) -> Arc<Map> {
        Arc::clone(&locked(&self.inner).map)
    }

    /// Reads from key to key.
    #[must_use]
    pub fn raw_iterator_opt(&self, options: ReadOptions) -> DBRawIteratorWithThreadMode<'_, Self> {
        DBRawIteratorWithThreadMode::new(self.map(), options)
    }

    /// What is there now, whatever is written later.
    #[must_use]
    pub fn snapshot(&self) -> SnapshotWithThreadMode<'_, Self> {
        SnapshotWithThreadMode { map: self.map(), of: std::marker::PhantomData }
    }

    /// Makes everything durable that is there now.
    ///
    /// # Errors
    /// When the disk fails, now or before.
    pub fn flush(&self) -> Result<(), Error> {
        let mut inner = locked(&self.inner);
        inner.refuse_failed()?;
        let flushed = inner.flush(&self.folder);
        inner.failed |= flushed.is_err();
        flushed
    }

    /// There is nothing to do: tables are whole copies.
    pub fn compact_range(&self, _from: Option<&[u8]>, _to: Option<&[u8]>) {}

    /// The tables.
    ///
    /// # Errors
    /// Never, here.
    pub fn live_files(&self) -> Result<Vec<LiveFile>, Error> {
        Ok(Vec::new())
    }

    /// Nothing is known.
    ///
    /// # Errors
    /// Never, here.
    pub fn property_int_value(&self, _name: &str) -> Result<Option<u64>, Error> {
        Ok(None)
    }

    /// Nothing is known.
    ///
    /// # Errors
    /// Never, here.
    pub fn property_value(&self, _name: &str) -> Result<Option<String>, Error> {
        Ok(None)
    }

    /// The folder, and what it holds after a flush: a manifest and its table.
    pub(crate) fn flushed(&self) -> Result<(PathBuf, Manifest), Error> {
        self.flush()?;
        Ok((self.folder.clone(), locked(&self.inner).manifest))
    }

    /// The deliberate mistake of a table that lacks its last value.
    pub(crate) fn write_lacking(&self, path: &Path) -> Result<(), Error> {
        let mut map = Map::clone(&self.map());
        map.pop_last();
        files::write_table(path, &map)?;
        Ok(())
    }
}

impl Drop for DB {
    fn drop(&mut self) {
        let mut inner = locked(&self.inner);
        if inner.log.is_none() {
            return;
        }
        // As RocksDB does it: what has no write-ahead log is written at the end. When the machine is off, it is not.
        if inner.unlogged && !inner.failed {
            drop(inner.flush(&self.folder));
        }
        drop(inner);
        simulated::close(&self.folder);
    }
}

/// Table and write-ahead log of a manifest, and whether the log held anything.
fn load(folder: &Path, manifest: Manifest) -> Result<(Map, bool), Error> {
    let mut map = Map::new();
    if manifest.table > 0 {
        map = files::read_table(&folder.join(files::table_name(manifest.table)))?;
    }
    let log = folder.join(files::log_name(manifest.log));
    // A checkpoint has none.
    let logged = manifest.log > 0
        && fs::exists(&log)?
        && files::replay(&log, simulated::defect() == Some(Defect::RecoveryLacksRecord), &mut map)?;
    Ok((map, logged))
}

impl Inner {
    fn open(options: &Options, folder: &Path) -> Result<Self, Error> {
        let found = files::current(folder)?;
        if found.is_none() && !options.create_if_missing {
            return Err(Error::corruption(format!("{}: no database", folder.display())));
        }
        let manifest = found.unwrap_or_default();
        let (map, logged) = load(folder, manifest)?;
        let mut inner = Self {
            map: Arc::new(map),
            manifest,
            log: None,
            dirty: logged,
            unlogged: false,
            failed: false,
        };
        let log = folder.join(files::log_name(manifest.log));
        if found.is_none() || logged || !fs::exists(&log)? {
            inner.renew(folder)?;
        } else {
            // The log is empty: it stays.
            inner.log = Some(files::open_log(&log)?);
            simulated::settled(folder, &inner.map);
        }
        files::sweep(folder, inner.manifest)?;
        Ok(inner)
    }

    fn refuse_failed(&self) -> Result<(), Error> {
        if self.failed || self.log.is_none() {
            return Err(Error {
                kind: ErrorKind::IOError,
                message: "IO error: the database failed before, or is read only".into(),
            });
        }
        Ok(())
    }

    fn log_batch(&mut self, folder: &Path, ops: &[Op], sync: bool) -> Result<(), Error> {
        let Some(log) = &mut self.log else { return Ok(()) };
        log.write_all(&files::record(ops))?;
        simulated::written(folder, ops);
        let votes = ops.iter().any(|op| matches!(op, Op::Put(key, _) if &key[..] == VOTE));
        let forgotten = match simulated::defect() {
            Some(Defect::VoteNotSynced) => votes,
            Some(Defect::EntriesNotSynced) => !votes,
            _ => false,
        };
        if sync && !forgotten {
            log.sync_data()?;
            if log.is_synced() {
                simulated::synced(folder);
            }
        }
        Ok(())
    }

    fn flush(&mut self, folder: &Path) -> Result<(), Error> {
        if !self.dirty {
            return Ok(());
        }
        self.renew(folder)?;
        files::sweep(folder, self.manifest)?;
        Ok(())
    }

    /// Writes a table of everything and begins a new write-ahead log.
    fn renew(&mut self, folder: &Path) -> Result<(), Error> {
        let next = self.manifest.number.max(self.manifest.table).max(self.manifest.log) + 1;
        let manifest = Manifest { number: next, table: next + 1, log: next + 2 };
        let table = files::write_table(&folder.join(files::table_name(manifest.table)), &self.map)?;
        let log = files::make_log(&folder.join(files::log_name(manifest.log)))?;
        files::sync_folder(folder)?;
        files::point(folder, manifest)?;
        self.manifest = manifest;
        self.log = Some(log);
        (self.dirty, self.unlogged) = (false, false);
        if table.is_synced() {
            simulated::settled(folder, &self.map);
        }
        Ok(())
    }
}

/// A view that does not change.
pub struct SnapshotWithThreadMode<'a, D> {
    map: Arc<Map>,
    of: std::marker::PhantomData<&'a D>,
}

impl<D> SnapshotWithThreadMode<'_, D> {
    /// The value of a key.
    ///
    /// # Errors
    /// Never, here.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.map.get(key.as_ref()).map(|value| value.to_vec()))
    }

    /// Reads from key to key.
    #[must_use]
    pub fn raw_iterator_opt(&self, options: ReadOptions) -> DBRawIteratorWithThreadMode<'_, D> {
        DBRawIteratorWithThreadMode::new(Arc::clone(&self.map), options)
    }
}
