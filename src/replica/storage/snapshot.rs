//! Snapshots: RocksDB checkpoints of the state, complete and durable before a pointer names them.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use llm_config_proto::internal as pb;
use openraft::storage::Snapshot;
use rocksdb::DB;
use rocksdb::checkpoint::Checkpoint;

use super::directory::{Directory, SNAPSHOT_POINTER, sync_dir};
use super::rocks::io_error;
use super::view::StateDb;
use crate::codec::{log_id_from_proto, stored_membership_from_proto, unseal};
use crate::failpoint::crash_point;
use crate::types::{SnapshotMeta, StoredMembership, Types};

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
}

impl SnapshotDir {
    /// A folder that is deleted unless [`Self::keep`] is called.
    pub(crate) fn temporary(path: PathBuf) -> Self {
        Self { inner: Arc::new(Inner { path, temporary: AtomicBool::new(true) }) }
    }

    pub(crate) fn kept(path: PathBuf) -> Self {
        Self { inner: Arc::new(Inner { path, temporary: AtomicBool::new(false) }) }
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
            tracing::warn!(path = %self.path.display(), %error, "a replaced snapshot could not be deleted");
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
    let applied: pb::AppliedState = unseal("applied position", &record)?;
    Ok(SnapshotMeta {
        last_log_id: applied.last_applied.as_ref().map(log_id_from_proto),
        last_membership: stored_membership_from_proto(applied.membership.unwrap_or_default())?,
    })
}

/// Reads the position from inside a snapshot folder, which also proves that it opens.
pub(crate) fn read_meta(state: &StateDb, path: &Path) -> io::Result<SnapshotMeta> {
    let db = DB::open_for_read_only(state.options(), path, true).map_err(io_error)?;
    read_applied(|key| Ok(db.get(key).map_err(io_error)?.map(Bytes::from)))
}

/// Builds a snapshot of what is applied now and makes it the current one.
pub(crate) fn build(
    directory: &Directory,
    state: &StateDb,
) -> io::Result<
    Snapshot<
        openraft::alias::CommittedLeaderIdOf<Types>,
        u64,
        openraft::impls::BasicNode,
        SnapshotDir,
    >,
> {
    let path = directory.fresh("snapshot");
    let folder = SnapshotDir::temporary(path.clone());
    // Flushes the memtable: with the write-ahead log off, this is also what makes the state durable up to here.
    Checkpoint::new(state.db()).map_err(io_error)?.create_checkpoint(&path).map_err(io_error)?;
    crash_point("snapshot.after-checkpoint");
    let meta = read_meta(state, &path)?;
    for (name, _) in folder.files()? {
        File::open(path.join(name))?.sync_all()?;
    }
    sync_dir(&path)?;
    sync_dir(directory.root())?;
    crash_point("snapshot.before-pointer");
    directory.point(SNAPSHOT_POINTER, &path)?;
    folder.keep();
    crash_point("snapshot.after-pointer");
    Ok(Snapshot { meta, snapshot: folder })
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
