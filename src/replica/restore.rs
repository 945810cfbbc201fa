//! A node's directory made out of a backup, while no node runs on it.
//!
//! Every founder of the new cluster restores the same file with the same founding list. From both follows the cluster's
//! id, the same on each of them, and so they found one cluster without having to meet first: each directory begins with
//! the state of the backup, a snapshot of it, a log that was purged up to it, and the membership of the list.
//!
//! Everything is made in a folder of its own and moved into place when it is durable, the identity last. Until then no
//! node starts on the directory, and restoring again begins anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use llm_config_archive::{ArchiveError, Reader, Summary, verify};
use llm_config_domain::query;
use llm_config_domain::restore::adopt;
use openraft::impls::BasicNode;
use openraft::vote::RaftLeaderId as _;
use rocksdb::{Cache, WriteOptions};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::error::StartError;
use crate::failpoint::crash_point;
use crate::founding;
use crate::storage::directory::{
    Directory, Identity, RESTORE_PREFIX, RESTORED, SNAPSHOT_POINTER, STATE_POINTER, sync_dir,
};
use crate::storage::engine::Op;
use crate::storage::log;
use crate::storage::rocks::{self, RocksEngine};
use crate::storage::snapshot::{self, APPLIED_KEY};
use crate::storage::state::applied_record;
use crate::storage::view::StateDb;
use crate::storage::watermark::{Position, Watermark};
use crate::types::{LeaderId, LogId, Membership, SnapshotMeta, StoredMembership, Vote};

/// Where a backup goes, and what cluster begins with it.
#[derive(Debug, Clone)]
pub struct RestoreTarget {
    /// The directory of the node; must be empty or absent.
    pub data_dir: PathBuf,
    /// The node that will run on it.
    pub node_id: u64,
    /// The founding members of the new cluster, `id → host:port` of their node-to-node listener: the same on all.
    pub initial_cluster: BTreeMap<u64, String>,
    /// Tells apart clusters that are restored from one file with one list; the same on all founders. May be empty.
    pub token: String,
}

/// What was restored.
#[derive(Debug, Clone)]
pub struct Restored {
    /// The new cluster.
    pub cluster_id: String,
    /// The node that the directory belongs to.
    pub node_id: u64,
    /// Store revision that the cluster begins with.
    pub revision: u64,
    /// The backup.
    pub source: Summary,
}

/// Term in which every restored cluster begins.
const FIRST_TERM: u64 = 1;
/// Bytes of one batch while the state is written.
const BATCH_BYTES: usize = 4 << 20;
const CACHE_BYTES: usize = 8 << 20;
/// What an otherwise empty directory may hold: the lock, the backups of the node that was there, a file system's own.
const MAY_STAY: [&str; 3] = ["LOCK", "backups", "lost+found"];
const LOG: &str = "log";
const WATERMARK: &str = "watermark";
const IDENTITY: &str = "identity";

/// Makes the directory of a founder of a new cluster out of a backup; blocks. The whole file is checked before anything
/// is written, and a node starts on the directory only after the last step: what was interrupted is repeated.
///
/// # Errors
/// See [`StartError`].
pub fn restore(archive: &Path, target: &RestoreTarget) -> Result<Restored, StartError> {
    check(target)?;
    check_empty(&target.data_dir)?;
    let source = verify(archive).map_err(|error| unusable(archive, &error))?;
    let plan = Plan::new(archive, source, target)?;
    let directory = Directory::lock(&target.data_dir)?;
    // Again, now that nobody else can put anything there.
    check_empty(&target.data_dir)?;
    let failed = |error: Failed| match error {
        Failed::Archive(error) => unusable(archive, &error),
        Failed::Io(error) => StartError::Runtime(format!(
            "{}: {error}; the restore is not finished: repeat it",
            target.data_dir.display()
        )),
    };
    remove_leftovers(directory.root()).map_err(|error| failed(error.into()))?;
    let folder = directory.fresh(RESTORE_PREFIX.trim_end_matches('-'));
    let inner = Arc::new(Directory::lock(&folder)?);
    build(&inner, &plan).map_err(failed)?;
    drop(inner);
    put_in_place(&folder, directory.root()).map_err(|error| failed(error.into()))?;
    Ok(Restored {
        cluster_id: plan.cluster_id,
        node_id: target.node_id,
        revision: plan.source.manifest.revision,
        source: plan.source,
    })
}

/// What went wrong half-way: with the file, or with the disk.
enum Failed {
    Archive(ArchiveError),
    Io(io::Error),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<ArchiveError> for Failed {
    fn from(error: ArchiveError) -> Self {
        match error {
            ArchiveError::Io(error) => Self::Io(error),
            other => Self::Archive(other),
        }
    }
}

fn unusable(archive: &Path, error: &ArchiveError) -> StartError {
    let text = format!("{}: {error}", archive.display());
    match error {
        ArchiveError::Io(error) if error.kind() == io::ErrorKind::NotFound => {
            StartError::Usage(text)
        }
        ArchiveError::Io(_) => StartError::Runtime(text),
        _ => StartError::DataDir(text),
    }
}

fn check(target: &RestoreTarget) -> Result<(), StartError> {
    let usage = |message: String| Err(StartError::Usage(message));
    let list = &target.initial_cluster;
    if target.node_id == 0 || list.contains_key(&0) {
        return usage("--node-id, --initial-cluster: node id 0 is not allowed".into());
    }
    if !list.contains_key(&target.node_id) {
        return usage(format!(
            "--initial-cluster does not list this node ({}); every founder restores with the same list, itself included",
            target.node_id
        ));
    }
    let addresses: BTreeSet<&str> = list.values().map(String::as_str).collect();
    if addresses.len() < list.len() || addresses.contains("") {
        return usage("--initial-cluster: every node needs an address of its own".into());
    }
    Ok(())
}

/// Refuses a directory that holds anything but what an interrupted restore left there.
fn check_empty(root: &Path) -> Result<(), StartError> {
    let names = match names(root) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(StartError::DataDir(format!("{}: {error}", root.display()))),
    };
    // No node starts on a directory in which a restore is under way, so whatever lies beside it is part of it.
    let interrupted =
        !names.contains(IDENTITY) && names.iter().any(|name| name.starts_with(RESTORE_PREFIX));
    let foreign: Vec<&str> =
        names.iter().map(String::as_str).filter(|name| !interrupted || !made_here(name)).collect();
    match foreign.first() {
        None => Ok(()),
        // The identity is put in place last: what is left beside it is only to be taken away, by the node itself.
        Some(_) if names.iter().any(|name| name.starts_with(RESTORE_PREFIX)) => {
            Err(StartError::DataDir(format!(
                "{}: the directory is not empty: a restore was completed here; start the node, or name another \
                 --data-dir",
                root.display()
            )))
        }
        Some(first) => Err(StartError::DataDir(format!(
            "{}: the directory is not empty (it holds {first}); a backup is restored into an empty directory: move what \
             is there away, or name another --data-dir",
            root.display()
        ))),
    }
}

fn names(root: &Path) -> io::Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(root)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !MAY_STAY.contains(&name.as_str()) {
            names.insert(name);
        }
    }
    Ok(names)
}

fn made_here(name: &str) -> bool {
    [RESTORE_PREFIX, "state-", "snapshot-"].iter().any(|start| name.starts_with(start))
        || [LOG, WATERMARK, STATE_POINTER, SNAPSHOT_POINTER].contains(&name)
}

/// Takes away what an interrupted restore left: its own folder last, as that is what tells.
fn remove_leftovers(root: &Path) -> io::Result<()> {
    let (ours, moved): (Vec<String>, Vec<String>) =
        names(root)?.into_iter().partition(|name| name.starts_with(RESTORE_PREFIX));
    for name in moved.into_iter().chain(ours) {
        let path = root.join(&name);
        if path.is_dir() {
            fs::remove_dir_all(&path)?
        } else {
            fs::remove_file(&path)?
        }
        sync_dir(root)?;
    }
    Ok(())
}

/// Everything that follows from the file and the target.
struct Plan<'a> {
    archive: &'a Path,
    source: Summary,
    cluster_id: String,
    node_id: u64,
    position: SnapshotMeta,
    log_id: LogId,
    vote: Vote,
}

impl<'a> Plan<'a> {
    fn new(archive: &'a Path, source: Summary, target: &RestoreTarget) -> Result<Self, StartError> {
        let list = &target.initial_cluster;
        let first = list.keys().next().copied().unwrap_or(target.node_id);
        // The same position and vote on every founder, as if the first had led when the backup was made. Nobody leads in
        // that term again: a node that starts has no leader, and an election begins the next.
        let leader = LeaderId::new(FIRST_TERM, first);
        let log_id = LogId::new(leader, source.manifest.applied_index);
        let members = list.iter().map(|(id, address)| (*id, BasicNode::new(address)));
        let membership = Membership::new(
            vec![list.keys().copied().collect()],
            members.collect::<BTreeMap<_, _>>(),
        )
        .map_err(|error| StartError::Usage(format!("--initial-cluster: {error}")))?;
        Ok(Self {
            archive,
            cluster_id: cluster_id(&source, target),
            source,
            node_id: target.node_id,
            position: SnapshotMeta {
                last_log_id: Some(log_id),
                last_membership: StoredMembership::new(Some(log_id), membership),
            },
            log_id,
            vote: Vote { leader_id: leader, committed: true },
        })
    }
}

/// The same for every founder, and another for any other file, list or token.
fn cluster_id(source: &Summary, target: &RestoreTarget) -> String {
    let mut hash = Sha256::new();
    let founding = founding::digest(&target.initial_cluster);
    for part in [&source.digest[..], founding.as_bytes(), target.token.as_bytes()] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let hash: [u8; 32] = hash.finalize().into();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid().to_string()
}

/// Makes everything in the folder, durable.
fn build(inner: &Arc<Directory>, plan: &Plan<'_>) -> Result<(), Failed> {
    crash_point("restore.after-folder");
    let cache = Cache::new_lru_cache(CACHE_BYTES);
    let path = inner.fresh("state");
    fs::create_dir(&path)?;
    let state = StateDb::open(rocks::state_options(&cache), &path, inner)?;
    fill(&state, plan)?;
    let snapshot = snapshot::checkpoint(inner, &state)?;
    inner.point(SNAPSHOT_POINTER, snapshot.folder.path())?;
    snapshot.folder.keep();
    inner.point(STATE_POINTER, &path)?;
    drop(state);
    crash_point("restore.after-state");
    log::begin_at(&RocksEngine::open(&inner.log(), None)?, plan.vote, plan.log_id)?;
    Watermark::open(&inner.watermark())?
        .store(Position { vote: Some(plan.vote), last_log_id: Some(plan.log_id) })?;
    inner.write_identity(&Identity {
        node_id: plan.node_id,
        incarnation: Uuid::new_v4().simple().to_string(),
        cluster_id: Some(plan.cluster_id.clone()),
        founding: format!("{RESTORED}{}", plan.cluster_id),
    })?;
    sync_tree(inner.root())?;
    crash_point("restore.after-folder-durable");
    Ok(())
}

/// Writes the state, and looks whether it is the one that the file promised.
fn fill(state: &StateDb, plan: &Plan<'_>) -> Result<(), Failed> {
    let file = BufReader::with_capacity(1 << 20, File::open(plan.archive)?);
    let (_, mut reader) = Reader::open(file)?;
    let mut batch = Batch { state, ops: Vec::new(), bytes: 0 };
    let contradiction = |what: String| ArchiveError::Damaged { offset: 0, what };
    while let Some(pair) = reader.next_pair()? {
        let adopted = adopt(pair.key, pair.value, &plan.cluster_id)
            .map_err(|error| contradiction(error.to_string()))?;
        if let Some(value) = adopted {
            batch.put(Bytes::copy_from_slice(pair.key), value)?;
        }
    }
    if reader.into_summary()? != plan.source {
        return Err(contradiction("the file was replaced while it was read".into()).into());
    }
    batch.put(Bytes::from_static(APPLIED_KEY), applied_record(&plan.position))?;
    batch.write()?;
    state.db().flush().map_err(rocks::io_error)?;
    let meta = query::meta(state).map_err(|error| contradiction(error.to_string()))?;
    let expected = (Some(plan.cluster_id.clone()), plan.source.manifest.revision);
    if (meta.cluster_id, meta.revision) != expected {
        return Err(contradiction("it holds another revision than it names".into()).into());
    }
    Ok(())
}

/// Collects writes to a bounded size.
struct Batch<'a> {
    state: &'a StateDb,
    ops: Vec<Op>,
    bytes: usize,
}

impl Batch<'_> {
    fn put(&mut self, key: Bytes, value: Bytes) -> io::Result<()> {
        self.bytes += key.len() + value.len();
        self.ops.push(Op::Put(key, value));
        if self.bytes >= BATCH_BYTES { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> io::Result<()> {
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        let batch = rocks::write_batch(&self.ops);
        self.state.db().write_opt(batch, &options).map_err(rocks::io_error)?;
        self.ops.clear();
        self.bytes = 0;
        Ok(())
    }
}

fn sync_tree(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { sync_tree(&path)? } else { File::open(&path)?.sync_all()? }
    }
    sync_dir(folder)
}

/// Moves everything up into the directory. The log first, so that the directory is not taken for a new one; the identity
/// last, so that no node starts on it before.
fn put_in_place(folder: &Path, root: &Path) -> io::Result<()> {
    sync_dir(root)?;
    let rank = |name: &String| match name.as_str() {
        LOG => 0,
        IDENTITY => 2,
        _ => 1,
    };
    let mut names: Vec<String> = names(folder)?.into_iter().collect();
    names.sort_by_key(rank);
    for name in names {
        if name == IDENTITY {
            sync_dir(root)?;
            crash_point("restore.before-identity");
        }
        fs::rename(folder.join(&name), root.join(&name))?;
        crash_point("restore.after-move");
    }
    sync_dir(root)?;
    crash_point("restore.after-identity");
    fs::remove_dir_all(folder)?;
    sync_dir(root)
}
