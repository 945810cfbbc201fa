//! What can be saved from one node when the majority of its cluster is lost for good.
//!
//! Reads the directory of a stopped node and changes nothing in it: a copy of the applied state, brought forward by the
//! whole log, becomes a backup, from which a new cluster is restored. The end of the log is taken too, though nobody
//! knows any more whether it was committed: leaving it out could lose writes that were acknowledged, taking it in can
//! only bring back writes whose callers were told that the outcome is unknown.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use llm_config_archive::Summary;
use llm_config_domain::{Batch, Operation, query};
use rocksdb::{Cache, WriteOptions};
use uuid::Uuid;

use crate::backup::{self, BackupError};
use crate::codec::log_id_to_proto;
use crate::error::StartError;
use crate::storage::directory::{Directory, Identity, SNAPSHOT_POINTER, STATE_POINTER, sync_dir};
use crate::storage::engine::{Engine as _, Op};
use crate::storage::log::{self, Inspection, decode_entry};
use crate::storage::rocks::{self, RocksEngine};
use crate::storage::snapshot::{self, APPLIED_KEY};
use crate::storage::state::{applied_record, decode};
use crate::storage::view::{Inspected, StateDb, View};
use crate::storage::watermark::{Position, Watermark};
use crate::types::{Entry, EntryPayload, SnapshotMeta, StoredMembership};

/// Entries and bytes of commands that are applied at once.
const BATCH_ENTRIES_MAX: usize = 1024;
const BATCH_BYTES_MAX: usize = 2 << 20;
const CACHE_BYTES: usize = 8 << 20;

/// What the directory of a stopped node holds. Of several nodes, the one with the highest last term, and among those the
/// highest last index, knows most.
#[derive(Debug, Clone)]
pub struct Recovery {
    /// The node that the directory belongs to.
    pub node_id: u64,
    /// The cluster that it belongs to.
    pub cluster_id: String,
    /// The highest term that the node had heard of.
    pub term: u64,
    /// Index up to which the state on the disk had come.
    pub applied_index: u64,
    /// Index up to which the node knew entries to be committed.
    pub committed_index: u64,
    /// Term of the last entry of the log.
    pub last_term: u64,
    /// Index of the last entry of the log.
    pub last_index: u64,
    /// Entries at the end of the log that the node did not know to be committed. They are part of the backup.
    pub uncommitted: u64,
    /// Store revision of the state on the disk; that of the backup is in its manifest.
    pub revision: u64,
    /// The voters as the state on the disk knows them.
    pub voters: BTreeMap<u64, String>,
    /// What is wrong with the directory and was worked around.
    pub warnings: Vec<String>,
    /// The backup that was written, when an output was named.
    pub archive: Option<Summary>,
}

/// Reads the directory of a stopped node and, with `output`, writes all that it holds there as a backup; blocks.
///
/// The work is done in a folder beside `output`, which needs room for a copy of the state. With `node_id`, the directory
/// of another node is refused.
///
/// # Errors
/// See [`StartError`].
pub fn recover(
    data_dir: &Path,
    node_id: Option<u64>,
    output: Option<&Path>,
) -> Result<Recovery, StartError> {
    let failed = |error: io::Error| StartError::DataDir(format!("{}: {error}", data_dir.display()));
    // Before the lock, which would make a directory out of a wrong name.
    if !data_dir.join("log").is_dir() {
        return Err(StartError::DataDir(format!(
            "{}: this is not the data directory of a node that has run; check --data-dir",
            data_dir.display()
        )));
    }
    if let Some(output) = output.filter(|output| output.exists()) {
        return Err(StartError::Usage(format!(
            "--output {}: the file exists already; name another, nothing is overwritten",
            output.display()
        )));
    }
    let directory = Arc::new(Directory::lock(data_dir)?);
    let identity = directory.read_identity()?.ok_or_else(|| {
        failed(io::Error::other("the identity file is missing; put it back, or use another node"))
    })?;
    if let Some(wanted) = node_id.filter(|wanted| *wanted != identity.node_id) {
        return Err(StartError::Usage(format!(
            "{} belongs to node {}, not to node {wanted}; check --node-id and --data-dir",
            data_dir.display(),
            identity.node_id
        )));
    }
    let mut warnings = Vec::new();
    let engine =
        RocksEngine::open_read_only(&directory.log(), Arc::clone(&directory)).map_err(failed)?;
    let log = log::inspect(&engine).map_err(failed)?;
    check_watermark(&directory, &log, &mut warnings);
    let base = Base::newest(&directory, &mut warnings).map_err(failed)?;
    let mut recovery = base.report(&identity, &engine, &log, warnings).map_err(failed)?;
    if let Some(output) = output {
        let work = Work::create(output).map_err(|error| {
            StartError::Runtime(format!("--output {}: {error}", output.display()))
        })?;
        recovery.archive = Some(save(&directory, &engine, &log, &base, &identity, &work, output)?);
    }
    Ok(recovery)
}

/// A log that is shorter than it once was has lost what may have been acknowledged: worth saying, no reason to stop here.
fn check_watermark(directory: &Directory, log: &Inspection, warnings: &mut Vec<String>) {
    let found = Position { vote: log.vote, last_log_id: log.last };
    let checked = Watermark::open_read_only(&directory.watermark())
        .and_then(|watermark| watermark.check(found));
    match checked {
        Err(error) if error.kind() != io::ErrorKind::NotFound => warnings.push(error.to_string()),
        Ok(()) | Err(_) => {}
    }
}

/// The state to begin with: the live one, or the last snapshot where that is newer or the other cannot be read.
struct Base {
    path: PathBuf,
    meta: SnapshotMeta,
    revision: u64,
    cluster_id: Option<String>,
}

impl Base {
    fn newest(directory: &Directory, warnings: &mut Vec<String>) -> io::Result<Self> {
        let mut newest: Option<Self> = None;
        for pointer in [STATE_POINTER, SNAPSHOT_POINTER] {
            let Some(path) = directory.pointer(pointer)? else { continue };
            match Self::read(path) {
                Ok(base) => {
                    let newer = newest
                        .as_ref()
                        .is_none_or(|known| known.meta.last_log_id < base.meta.last_log_id);
                    if newer {
                        newest = Some(base);
                    }
                }
                Err(error) => warnings.push(format!("{pointer} cannot be read: {error}")),
            }
        }
        newest.ok_or_else(|| {
            io::Error::other(format!(
                "neither the state nor a snapshot can be read; use another node. {}",
                warnings.join("; ")
            ))
        })
    }

    fn read(path: PathBuf) -> io::Result<Self> {
        let cache = Cache::new_lru_cache(CACHE_BYTES);
        let db = rocks::open_read_only(&rocks::state_options(&cache), &path)?;
        let get = |key: &[u8]| Ok(db.get(key).map_err(rocks::io_error)?.map(Bytes::from));
        let meta = snapshot::read_applied(get)?;
        let store = query::meta(&Inspected(&db)).map_err(io::Error::other)?;
        Ok(Self { path, meta, revision: store.revision, cluster_id: store.cluster_id })
    }

    fn index(&self) -> u64 {
        self.meta.last_log_id.map_or(0, |id| id.index)
    }

    fn next_index(&self) -> u64 {
        self.meta.last_log_id.map_or(0, |id| id.index + 1)
    }

    fn report(
        &self,
        identity: &Identity,
        engine: &RocksEngine,
        log: &Inspection,
        warnings: Vec<String>,
    ) -> io::Result<Recovery> {
        let known = self.cluster_id.clone().or_else(|| identity.cluster_id.clone());
        let cluster_id = match known {
            Some(cluster_id) => Some(cluster_id),
            None => founded_in(engine, self)?,
        };
        let cluster_id = cluster_id.ok_or_else(|| {
            io::Error::other("the node never heard of a founded cluster; use another node")
        })?;
        let applied_index = self.index();
        let last = log.last.max(self.meta.last_log_id);
        let last_index = last.map_or(0, |id| id.index);
        let last_term = last.map_or(0, |id| log_id_to_proto(&id).term);
        let committed_index = log.committed.map_or(0, |id| id.index).max(applied_index);
        let voted = log.vote.map_or(0, |vote| crate::codec::vote_to_proto(&vote).term);
        Ok(Recovery {
            node_id: identity.node_id,
            cluster_id,
            term: voted.max(last_term),
            applied_index,
            committed_index,
            last_term,
            last_index,
            uncommitted: last_index.saturating_sub(committed_index),
            revision: self.revision,
            voters: backup::voters(&self.meta),
            warnings,
            archive: None,
        })
    }
}

/// The id that the log gives the cluster, when a node was killed before that had reached its state and its identity.
fn founded_in(engine: &RocksEngine, base: &Base) -> io::Result<Option<String>> {
    let mut cluster_id = None;
    engine.scan(&log::keys::entry(base.next_index()), log::keys::END, &mut |key, value| {
        let entry = decode_entry(key, value)?;
        if let EntryPayload::Normal(proposal) = entry.payload
            && let Operation::Found(found) = decode(&entry.log_id, proposal.command)?.operation
        {
            cluster_id = Some(found.cluster_id);
            return Ok(ControlFlow::Break(()));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(cluster_id)
}

/// A folder beside the output, which goes with this value.
struct Work {
    folder: PathBuf,
}

impl Work {
    fn create(output: &Path) -> io::Result<Self> {
        let folder = parent(output).join(format!("recover-{}", Uuid::new_v4().simple()));
        fs::create_dir(&folder)?;
        Ok(Self { folder })
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            tracing::warn!(path = %self.folder.display(), reason = %error, "a temporary folder could not be deleted");
        }
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Writes the state and everything that the log adds to it.
fn save(
    directory: &Arc<Directory>,
    engine: &RocksEngine,
    log: &Inspection,
    base: &Base,
    identity: &Identity,
    work: &Work,
    output: &Path,
) -> Result<Summary, StartError> {
    let damaged =
        |error: io::Error| StartError::DataDir(format!("{}: {error}", directory.root().display()));
    let unwritable =
        |error: io::Error| StartError::Runtime(format!("--output {}: {error}", output.display()));
    if log.purged.is_some_and(|purged| purged.index >= base.next_index()) {
        return Err(damaged(io::Error::other(format!(
            "the log begins behind entry {}, the state ends at entry {}: what lies between is lost; use another node",
            log.purged.map_or(0, |id| id.index),
            base.index()
        ))));
    }
    let copy = work.folder.join("state");
    copy_state(&base.path, &copy).map_err(unwritable)?;
    let cache = Cache::new_lru_cache(CACHE_BYTES);
    let state =
        StateDb::open(rocks::state_options(&cache), &copy, directory).map_err(unwritable)?;
    replay(engine, &state, base).map_err(damaged)?;
    let partial = work.folder.join("backup");
    let mut file = File::create(&partial).map_err(unwritable)?;
    let summary = backup::write(&View::new(state), identity.node_id, &mut file).map_err(
        |error| match error {
            BackupError::Output(_) => unwritable(io::Error::other(error)),
            BackupError::NotReady | BackupError::Storage(_) => damaged(io::Error::other(error)),
        },
    )?;
    file.sync_all().map_err(unwritable)?;
    // A link and not a rename: it never replaces a file that appeared meanwhile.
    fs::hard_link(&partial, output).map_err(unwritable)?;
    sync_dir(parent(output)).map_err(unwritable)?;
    Ok(summary)
}

/// Tables never change and may be shared; everything else that RocksDB could write to is copied.
fn copy_state(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        let text = name.to_string_lossy();
        if text == "LOCK" || text.starts_with("LOG") || !entry.file_type()?.is_file() {
            continue;
        }
        let target = to.join(&name);
        let shared = text.ends_with(".sst") && fs::hard_link(entry.path(), &target).is_ok();
        if !shared {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

/// Applies every entry of the log that the state does not hold yet.
fn replay(engine: &RocksEngine, state: &StateDb, base: &Base) -> io::Result<()> {
    let mut applied = base.meta.clone();
    let (mut batch, mut bytes) = (Vec::new(), 0);
    engine.scan(&log::keys::entry(base.next_index()), log::keys::END, &mut |key, value| {
        let entry = decode_entry(key, value)?;
        bytes += value.len();
        batch.push(entry);
        if batch.len() >= BATCH_ENTRIES_MAX || bytes >= BATCH_BYTES_MAX {
            apply_batch(state, std::mem::take(&mut batch), &mut applied)?;
            bytes = 0;
        }
        Ok(ControlFlow::Continue(()))
    })?;
    apply_batch(state, batch, &mut applied)
}

fn apply_batch(state: &StateDb, batch: Vec<Entry>, applied: &mut SnapshotMeta) -> io::Result<()> {
    let mut batched = Batch::new(state);
    for entry in batch {
        applied.last_log_id = Some(entry.log_id);
        match entry.payload {
            EntryPayload::Blank => {}
            EntryPayload::Membership(membership) => {
                applied.last_membership = StoredMembership::new(Some(entry.log_id), membership);
            }
            EntryPayload::Normal(proposal) => {
                let command = decode(&entry.log_id, proposal.command)?;
                batched.apply(proposal.time_ms, &command).map_err(io::Error::other)?;
            }
        }
    }
    let writes = batched.into_writes().into_iter().map(|(key, value)| match value {
        Some(value) => Op::Put(Bytes::from(key), value),
        None => Op::Delete(Bytes::from(key)),
    });
    let mut ops: Vec<Op> = writes.collect();
    ops.push(Op::Put(Bytes::from_static(APPLIED_KEY), applied_record(applied)));
    let mut options = WriteOptions::default();
    options.disable_wal(true);
    state.db().write_opt(rocks::write_batch(&ops), &options).map_err(rocks::io_error)
}
