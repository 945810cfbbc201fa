//! Snapshots: RocksDB checkpoints of the state, complete and durable before a pointer names them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use llm_config_domain::{RECORD_FORMAT, check_format};
use llm_config_proto::internal as pb;
use rocksdb::checkpoint::Checkpoint;
use rocksdb::{DB, Options, ReadOptions};

use super::directory::{Directory, named, sync_dir};
use super::rocks::io_error;
use super::view::StateDb;
use crate::codec::{log_id_from_proto, stored_membership_from_proto, unseal};
use crate::failpoint::crash_point;
use crate::form::{NewerForm, state_error};
use crate::machine::fs::{self, File};
use crate::types::{SnapshotMeta, StoredMembership};

/// Where the state keeps its position in the log, in the same batch as the data.
pub(crate) const APPLIED_KEY: &[u8] = &[1];

/// A folder that holds a snapshot. Clones share it; a retired one goes when the last clone goes.
#[derive(Debug, Clone)]
pub(crate) struct SnapshotDir {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    /// Deleted on drop: arrived but not installed, or replaced by a newer one.
    temporary: AtomicBool,
    /// Sizes and checksums of the files, computed when it is sent for the first time.
    manifest: OnceLock<Vec<pb::SnapshotFile>>,
}

impl SnapshotDir {
    /// A folder that is deleted unless [`Self::keep`] is called.
    pub(crate) fn temporary(path: PathBuf) -> Self {
        Self {
            inner: Arc::new(Inner {
                path,
                temporary: AtomicBool::new(true),
                manifest: OnceLock::new(),
            }),
        }
    }

    pub(crate) fn kept(path: PathBuf) -> Self {
        Self {
            inner: Arc::new(Inner {
                path,
                temporary: AtomicBool::new(false),
                manifest: OnceLock::new(),
            }),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.inner.path
    }

    pub(crate) fn keep(&self) {
        self.inner.temporary.store(false, Ordering::Release);
    }

    pub(crate) fn retire(&self) {
        self.inner.temporary.store(true, Ordering::Release);
    }

    /// What was computed when the snapshot was sent before.
    pub(crate) fn manifest(&self) -> &OnceLock<Vec<pb::SnapshotFile>> {
        &self.inner.manifest
    }

    /// The files that make up the snapshot, by name. RocksDB's own text logs and lock are not among them.
    pub(crate) fn files(&self) -> io::Result<Vec<(String, u64)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(self.path())? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            if is_snapshot_file(&name) {
                files.push((name, entry.metadata()?.len()));
            }
        }
        files.sort();
        Ok(files)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.temporary.load(Ordering::Acquire)
            && let Err(error) = fs::remove_dir_all(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.path.display(), reason = %error, "a replaced snapshot could not be deleted");
        }
    }
}

/// Whether a name is one that a checkpoint consists of; anything else is not sent and not accepted.
pub(crate) fn is_snapshot_file(name: &str) -> bool {
    let known = name == "CURRENT"
        || name.starts_with("MANIFEST-")
        || name.starts_with("OPTIONS-")
        || Path::new(name).extension().is_some_and(|extension| extension == "sst");
    known && !name.contains(['/', '\\', '\0'])
}

/// Reads a state's position in the log.
pub(crate) fn read_applied(
    get: impl FnOnce(&[u8]) -> io::Result<Option<Bytes>>,
) -> io::Result<SnapshotMeta> {
    let Some(record) = get(APPLIED_KEY)? else {
        return Ok(SnapshotMeta {
            last_log_id: None,
            last_membership: StoredMembership::default(),
        });
    };
    let applied: pb::AppliedState = unseal("the applied record", &record)?;
    NewerForm::refuse("a record of the state", applied.state_format, RECORD_FORMAT.into())?;
    Ok(SnapshotMeta {
        last_log_id: applied.last_applied.as_ref().map(log_id_from_proto),
        last_membership: stored_membership_from_proto(applied.membership.unwrap_or_default())?,
    })
}

/// The error names the folder. A snapshot has no write-ahead log.
fn open_read_only(options: &Options, path: &Path) -> io::Result<DB> {
    DB::open_for_read_only(options, path, true).map_err(|error| named(path, io_error(error)))
}

/// Reads the position from inside a snapshot folder, which also proves that it opens.
pub(crate) fn read_meta(options: &Options, path: &Path) -> io::Result<SnapshotMeta> {
    let db = open_read_only(options, path)?;
    read_applied(|key| Ok(db.get(key).map_err(io_error)?.map(Bytes::from)))
}

/// Reads everything in a snapshot folder: a table that was damaged where it came from has passed every checksum of the
/// transport, and must be found before the snapshot replaces anything. So must a record that this release cannot read.
pub(crate) fn verify(path: &Path, expected: &SnapshotMeta) -> io::Result<()> {
    let options = Options::default();
    let found = read_meta(&options, path)?;
    if found != *expected {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("the snapshot claims position {expected} but holds {found}"),
        ));
    }
    let db = open_read_only(&options, path)?;
    let mut reads = ReadOptions::default();
    reads.fill_cache(false);
    let mut iterator = db.raw_iterator_opt(reads);
    iterator.seek_to_first();
    while let Some((key, value)) = iterator.item() {
        check_format(key, value).map_err(state_error)?;
        iterator.next();
    }
    iterator.status().map_err(io_error)
}

/// A complete snapshot and what it holds.
#[derive(Debug, Clone)]
pub(crate) struct Complete {
    pub(crate) meta: SnapshotMeta,
    pub(crate) folder: SnapshotDir,
}

/// Makes a durable copy of what is applied now, in a folder that is deleted unless it is kept.
pub(crate) fn checkpoint(directory: &Directory, state: &StateDb) -> io::Result<Complete> {
    let path = directory.fresh("snapshot");
    let folder = SnapshotDir::temporary(path.clone());
    // Flushes the memtable: with the write-ahead log off, this is also what makes the state durable up to here.
    Checkpoint::new(state.db()).map_err(io_error)?.create_checkpoint(&path).map_err(io_error)?;
    crash_point("snapshot.after-checkpoint");
    let meta = read_meta(state.options(), &path)?;
    for (name, _) in folder.files()? {
        File::open(path.join(name))?.sync_all()?;
    }
    sync_dir(&path)?;
    sync_dir(directory.root())?;
    Ok(Complete { meta, folder })
}

/// Makes a state folder out of a snapshot: tables are linked, the small files that RocksDB rewrites are copied.
pub(crate) fn unpack(snapshot: &SnapshotDir, target: &Path) -> io::Result<()> {
    fs::create_dir(target)?;
    for (name, _) in snapshot.files()? {
        let (from, to) = (snapshot.path().join(&name), target.join(&name));
        if name.ends_with(".sst") {
            fs::hard_link(&from, &to)?;
        } else {
            fs::copy(&from, &to)?;
            File::open(&to)?.sync_all()?;
        }
        crash_point("install.between-files");
    }
    sync_dir(target)
}
