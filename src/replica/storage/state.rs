//! The state machine: applies committed entries, builds and installs snapshots.
//!
//! One RocksDB batch holds the changes of a run of entries together with the position that they lead to, so a crash
//! leaves the state at one position, never between two. The batch has no write-ahead log: what a crash takes is replayed
//! from the Raft log, which is purged only behind a durable snapshot.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use llm_config_bugs::{Bug, active};
use llm_config_domain::{
    Applied, Batch, COMMAND_FORMAT, Change, Command, DecodeError, Node, Operation, QueryError,
    RECORD_FORMAT, query,
};
use llm_config_proto::internal as pb;
use openraft::RaftSnapshotBuilder;
use openraft::storage::{ApplyResponder, EntryResponder, RaftStateMachine, Snapshot};
use parking_lot::{Mutex, RwLock};
use rocksdb::{Cache, WriteOptions};
use tokio::sync::watch;

use super::directory::{Directory, SNAPSHOT_POINTER, STATE_POINTER, is_folder, sync_dir};
use super::engine::Op;
use super::recall::Recall;
use super::rocks;
use super::snapshot::{self, APPLIED_KEY, Complete, SnapshotDir};
use super::view::{StateDb, View};
use crate::codec::{log_id_to_proto, seal, stored_membership_to_proto};
use crate::failpoint::crash_point;
use crate::form::{NewerForm, state_error};
use crate::machine::{self, fs};
use crate::observer::Observer;
use crate::timings::{Durations, SnapshotTimings};
use crate::types::{Entry, EntryPayload, LogId, SnapshotMeta, StoredMembership, Types};

/// Entries that one batch takes at most.
const BATCH_ENTRIES_MAX: usize = 1024;
/// Bytes of commands after which a batch takes no further entry.
const BATCH_BYTES_MAX: usize = 2 << 20;
/// Bytes of tables that a compaction replaces before the snapshot that holds the old ones is made again.
const COMPACTED_BYTES_MAX: u64 = 128 << 20;

type SnapshotOf = Snapshot<
    openraft::alias::CommittedLeaderIdOf<Types>,
    u64,
    openraft::impls::BasicNode,
    SnapshotDir,
>;

/// How far the state has come; what waiting reads wait for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) index: u64,
    pub(crate) revision: u64,
}

/// What the rest of the replica knows of the cluster from the state: kept here so that no read is needed for it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Registry {
    pub(crate) cluster_id: Option<String>,
    pub(crate) nodes: BTreeMap<u64, Node>,
    /// The disks that removed nodes had, by id.
    pub(crate) removed: BTreeMap<u64, String>,
    /// Voters and learners of the applied membership.
    pub(crate) members: BTreeSet<u64>,
}

#[derive(Debug)]
pub(crate) struct StateStats {
    pub(crate) entries: AtomicU64,
    pub(crate) applies: Durations,
    pub(crate) built: SnapshotTimings,
    pub(crate) installed: SnapshotTimings,
}

impl Default for StateStats {
    fn default() -> Self {
        Self {
            entries: AtomicU64::default(),
            applies: Durations::of_operations(),
            built: SnapshotTimings::new(),
            installed: SnapshotTimings::new(),
        }
    }
}

pub(crate) struct Shared {
    pub(crate) directory: Arc<Directory>,
    cache: Cache,
    current: RwLock<Arc<StateDb>>,
    /// Locked while a pointer moves, so that building and installing take turns.
    snapshot: Mutex<Option<Complete>>,
    progress: watch::Sender<Progress>,
    registry: RwLock<Registry>,
    observer: Arc<dyn Observer>,
    /// What ended the state machine, when a newer release wrote it: openraft passes errors on as text.
    newer: OnceLock<NewerForm>,
    pub(crate) stats: StateStats,
}

impl Shared {
    pub(crate) fn view(&self) -> View {
        View::new(self.current())
    }

    pub(crate) fn current(&self) -> Arc<StateDb> {
        Arc::clone(&self.current.read())
    }

    pub(crate) fn progress(&self) -> Progress {
        *self.progress.borrow()
    }

    pub(crate) fn watch_progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    pub(crate) fn registry(&self) -> Registry {
        self.registry.read().clone()
    }

    pub(crate) fn registered(&self, id: u64) -> Option<Node> {
        self.registry.read().nodes.get(&id).cloned()
    }

    pub(crate) fn cluster_id(&self) -> Option<String> {
        self.registry.read().cluster_id.clone()
    }

    pub(crate) fn cache(&self) -> &Cache {
        &self.cache
    }

    /// The newer form that the state machine met and ended at.
    pub(crate) fn newer(&self) -> Option<&NewerForm> {
        self.newer.get()
    }

    fn remember_newer<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result
            && let Some(newer) = NewerForm::within(error)
        {
            self.newer.get_or_init(|| newer.clone());
        }
        result
    }

    /// The disk that is or was known under a node id.
    pub(crate) fn incarnation(&self, id: u64) -> Option<String> {
        let registry = self.registry.read();
        let known = registry.nodes.get(&id).map(|node| &node.incarnation);
        known.or_else(|| registry.removed.get(&id)).filter(|disk| !disk.is_empty()).cloned()
    }

    /// Whether a node was removed, mark and membership: one whose removal is only half done still counts as a member.
    pub(crate) fn is_removed(&self, id: u64) -> bool {
        let registry = self.registry.read();
        registry.removed.contains_key(&id) && !registry.members.contains(&id)
    }

    /// Has RocksDB rewrite the tables that hold deleted records, a piece at a time. Blocks.
    ///
    /// The last snapshot keeps the old tables alive, so it is made again when the pieces add up: rewriting everything
    /// first would need the room for everything twice, when there is none.
    pub(crate) fn compact(&self, stop: &AtomicBool) -> io::Result<()> {
        let state = self.current();
        state.db().flush().map_err(rocks::io_error)?;
        let mut rewritten = 0;
        for piece in rocks::pieces(state.db())? {
            if stop.load(Ordering::Acquire) || !Arc::ptr_eq(&state, &self.current()) {
                // The node stops, or an installed snapshot has replaced this state.
                return Ok(());
            }
            state.db().compact_range(piece.from.as_deref(), piece.to.as_deref());
            rewritten += piece.bytes;
            if rewritten >= COMPACTED_BYTES_MAX {
                rewritten = 0;
                SnapshotBuilder::build(self, &state)?;
            }
        }
        Ok(())
    }

    fn reload_registry(&self, state: &StateDb, applied: &SnapshotMeta) -> io::Result<()> {
        let meta = query::meta(state).map_err(query_error)?;
        let nodes = query::nodes(state).map_err(query_error)?;
        let removed = query::removed_nodes(state).map_err(query_error)?;
        let members = applied.last_membership.nodes();
        *self.registry.write() = Registry {
            cluster_id: meta.cluster_id,
            nodes: nodes.into_iter().map(|node| (node.id, node)).collect(),
            removed: removed.into_iter().map(|node| (node.id, node.incarnation)).collect(),
            members: members.map(|(id, _)| *id).collect(),
        };
        Ok(())
    }

    fn publish(&self, state: &StateDb, index: u64) -> io::Result<u64> {
        let revision = query::revision(state).map_err(query_error)?;
        self.progress.send_replace(Progress { index, revision });
        Ok(revision)
    }
}

/// The state machine as openraft drives it.
pub(crate) struct StateMachine {
    shared: Arc<Shared>,
    recall: Recall,
    applied: SnapshotMeta,
}

impl StateMachine {
    pub(crate) fn open(
        directory: Arc<Directory>,
        cache: Cache,
        observer: Arc<dyn Observer>,
    ) -> io::Result<Self> {
        let path = match directory.pointer(STATE_POINTER)? {
            Some(path) if is_folder(&path) => path,
            Some(path) => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!(
                        "{}: the folder of the applied state is missing; replace this node",
                        path.display()
                    ),
                ));
            }
            None => {
                let path = directory.fresh("state");
                fs::create_dir(&path)?;
                sync_dir(directory.root())?;
                directory.point(STATE_POINTER, &path)?;
                path
            }
        };
        let state = StateDb::open(rocks::state_options(&cache), &path, &directory)?;
        let applied = snapshot::read_applied(|key| {
            Ok(state.db().get(key).map_err(rocks::io_error)?.map(Bytes::from))
        })?;
        let snapshot = match directory.pointer(SNAPSHOT_POINTER)? {
            Some(path) => Some(Complete {
                meta: snapshot::read_meta(state.options(), &path)?,
                folder: SnapshotDir::kept(path),
            }),
            None => None,
        };
        // Only now that everything which is named was found: a pointer that is damaged must not cost what it named.
        directory.sweep()?;
        let shared = Shared {
            directory,
            cache,
            current: RwLock::new(Arc::clone(&state)),
            snapshot: Mutex::new(snapshot),
            progress: watch::Sender::new(Progress::default()),
            registry: RwLock::new(Registry::default()),
            observer,
            newer: OnceLock::new(),
            stats: StateStats::default(),
        };
        shared.reload_registry(&state, &applied)?;
        shared.publish(&state, applied.last_log_id.map_or(0, |id| id.index))?;
        Ok(Self { shared: Arc::new(shared), recall: Recall::new(), applied })
    }

    /// Makes the snapshot that the log is going to begin behind, unless there is one. The state can be ahead of the log: what
    /// is committed is applied before this node has synced it, and a power cut, or a disk that fails a sync, may leave the
    /// state and not the entries. Replication then lets the log begin behind the state, and an older snapshot could not
    /// bring a peer up to there.
    pub(crate) fn cover(&self, (purged, last): (Option<LogId>, Option<LogId>)) -> io::Result<()> {
        let begins = purged.max(self.applied.last_log_id.filter(|applied| Some(*applied) > last));
        let snapshot =
            self.shared.snapshot.lock().as_ref().map(|complete| complete.meta.last_log_id);
        if begins <= snapshot.flatten() {
            return Ok(());
        }
        SnapshotBuilder::build(&self.shared, &self.shared.current()).map(drop)
    }

    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    fn apply_batch(
        &mut self,
        batch: Vec<(Entry, Option<ApplyResponder<Types>>)>,
    ) -> io::Result<()> {
        let started = Instant::now();
        let state = self.shared.current();
        let recalling = self.recall.of(&state);
        let mut batched = Batch::new(&recalling);
        let mut answers = Vec::with_capacity(batch.len());
        let mut changed: Vec<(u64, Vec<Change>)> = Vec::new();
        let mut registry_changed = false;
        let mut rules_changed = false;
        let mut joint = false;
        let count = batch.len() as u64;
        for (entry, responder) in batch {
            self.applied.last_log_id = Some(entry.log_id);
            let answer = match entry.payload {
                EntryPayload::Blank => None,
                EntryPayload::Membership(membership) => {
                    joint |= membership.get_joint_config().len() > 1;
                    self.applied.last_membership =
                        StoredMembership::new(Some(entry.log_id), membership);
                    registry_changed = true;
                    None
                }
                EntryPayload::Normal(proposal) => {
                    let command = decode(&entry.log_id, proposal.command)?;
                    registry_changed |= matches!(
                        command.operation,
                        Operation::Found(_)
                            | Operation::RegisterNode(_)
                            | Operation::AddNode(_)
                            | Operation::RemoveNode(_)
                    );
                    rules_changed |= command.operation.changes_rules();
                    let (applied, changes) =
                        batched.apply(proposal.time_ms, &command).map_err(state_error)?;
                    if !changes.is_empty() {
                        changed.push((applied.revision, changes));
                    }
                    Some(applied)
                }
            };
            answers.push((responder, answer));
        }
        let writes = batched.into_writes();
        let mut ops: Vec<Op> = writes
            .into_iter()
            .map(|(key, value)| match value {
                Some(value) => Op::Put(Bytes::from(key), value),
                None => Op::Delete(Bytes::from(key)),
            })
            .collect();
        let index = self.applied.last_log_id.map_or(0, |id| id.index);
        if !active(Bug::AppliedApartFromData) || index % 64 < count {
            ops.push(Op::Put(Bytes::from_static(APPLIED_KEY), applied_record(&self.applied)));
        }
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        crash_point("state.before-write");
        let written = state.db().write_opt(rocks::write_batch(&ops), &options);
        // A compaction may have met damage: then nothing can be written any more.
        written.map_err(rocks::io_error).inspect_err(|error| self.shared.directory.noted(error))?;
        crash_point("state.after-write");
        for op in &ops {
            match op {
                Op::Put(key, value) => self.recall.written(key, Some(value)),
                Op::Delete(key) => self.recall.written(key, None),
                Op::DeleteRange(..) => {}
            }
        }
        if joint {
            crash_point("members.joint");
        }
        if registry_changed {
            self.shared.reload_registry(&state, &self.applied)?;
        }
        // Before anybody can see what came with it.
        if rules_changed {
            self.shared.observer.rules(state.as_ref());
        }
        let untold = if active(Bug::LastOfBatchTold) { changed.len().saturating_sub(1) } else { 0 };
        for (revision, changes) in &changed[untold..] {
            self.shared.observer.applied(*revision, changes);
        }
        self.shared.publish(&state, self.applied.last_log_id.map_or(0, |id| id.index))?;
        self.shared.stats.entries.fetch_add(count, Ordering::Relaxed);
        self.shared.stats.applies.observe(started.elapsed());
        crash_point("state.before-answer");
        answer_all(answers);
        Ok(())
    }

    fn install(&mut self, meta: &SnapshotMeta, folder: &SnapshotDir) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let directory = &shared.directory;
        let path = directory.fresh("state");
        snapshot::unpack(folder, &path)?;
        let state = StateDb::open(rocks::state_options(&shared.cache), &path, directory)?;
        if active(Bug::SnapshotWithoutTable) {
            let heads = Op::DeleteRange(Bytes::from_static(&[0x10]), Bytes::from_static(&[0x11]));
            let batch = rocks::write_batch(&[heads]);
            state.db().write_opt(batch, &WriteOptions::default()).map_err(rocks::io_error)?;
        }
        let applied = snapshot::read_applied(|key| {
            Ok(state.db().get(key).map_err(rocks::io_error)?.map(Bytes::from))
        })?;
        if applied.last_log_id != meta.last_log_id {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("the snapshot claims position {meta} but holds {applied}"),
            ));
        }
        sync_dir(directory.root())?;
        crash_point("install.before-snapshot-pointer");
        // Held over both pointers: a snapshot that is being built beside must not come between them.
        let mut current = shared.snapshot.lock();
        let in_place = current.as_ref().is_some_and(|known| known.folder.path() == folder.path());
        if !in_place {
            let kept = directory.fresh("snapshot");
            fs::rename(folder.path(), &kept)?;
            folder.keep();
            sync_dir(directory.root())?;
            // The snapshot first: a crash before the state's pointer moves is repaired by installing it again.
            directory.point(SNAPSHOT_POINTER, &kept)?;
            let complete = Complete { meta: applied.clone(), folder: SnapshotDir::kept(kept) };
            if let Some(previous) = current.replace(complete) {
                previous.folder.retire();
            }
        }
        crash_point("install.before-state-pointer");
        directory.point(STATE_POINTER, &path)?;
        crash_point("install.after-state-pointer");
        drop(current);
        let old = std::mem::replace(&mut *shared.current.write(), Arc::clone(&state));
        old.retire();
        self.recall.clear();
        self.applied = applied;
        shared.reload_registry(&state, &self.applied)?;
        let revision = query::revision(state.as_ref()).map_err(query_error)?;
        shared.observer.rules(state.as_ref());
        if !active(Bug::InstallNotTold) {
            shared.observer.reset(revision);
        }
        shared.publish(&state, self.applied.last_log_id.map_or(0, |id| id.index))?;
        Ok(())
    }
}

fn answer_all(answers: Vec<(Option<ApplyResponder<Types>>, Option<Applied>)>) {
    for (responder, answer) in answers {
        if let Some(responder) = responder {
            responder.send(answer);
        }
    }
}

pub(crate) fn decode(log_id: &LogId, command: Bytes) -> io::Result<Command> {
    Command::decode(command).map_err(|error| match error {
        DecodeError::Format(found) if found > COMMAND_FORMAT => NewerForm {
            form: format!("the command in log entry {log_id}"),
            found: found.into(),
            known: COMMAND_FORMAT.into(),
        }
        .into(),
        error => io::Error::new(
            io::ErrorKind::InvalidData,
            format!("log entry {log_id} holds no command: {error}"),
        ),
    })
}

pub(crate) fn applied_record(applied: &SnapshotMeta) -> Bytes {
    seal(&pb::AppliedState {
        last_applied: applied.last_log_id.as_ref().map(log_id_to_proto),
        membership: (!active(Bug::MembersNotStored))
            .then(|| stored_membership_to_proto(&applied.last_membership)),
        state_format: RECORD_FORMAT.into(),
    })
}

fn query_error(error: QueryError) -> io::Error {
    match error {
        QueryError::Store(error) => state_error(error),
        refused @ QueryError::Refused(_) => {
            io::Error::new(io::ErrorKind::InvalidData, refused.to_string())
        }
    }
}

impl RaftStateMachine<Types> for StateMachine {
    type SnapshotData = SnapshotDir;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.applied.last_log_id, self.applied.last_membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + Send,
    {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            if let EntryPayload::Normal(proposal) = &entry.payload {
                bytes += proposal.command.len();
            }
            batch.push((entry, responder));
            if batch.len() >= BATCH_ENTRIES_MAX || bytes >= BATCH_BYTES_MAX {
                let applied = self.apply_batch(std::mem::take(&mut batch));
                self.shared.remember_newer(applied)?;
                bytes = 0;
            }
        }
        if batch.is_empty() {
            return Ok(());
        }
        let applied = self.apply_batch(batch);
        self.shared.remember_newer(applied)
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder { shared: Arc::clone(&self.shared) }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotDir,
    ) -> io::Result<()> {
        // Links, copies, syncs and opens files: heartbeats must not wait behind it on this thread.
        let started = Instant::now();
        let installed = machine::block_in_place(|| self.install(meta, &snapshot));
        self.shared.stats.installed.ended(installed.is_ok(), started.elapsed());
        self.shared.remember_newer(installed)
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<SnapshotOf>> {
        let current = self.shared.snapshot.lock().clone();
        Ok(current.map(|complete| Snapshot { meta: complete.meta, snapshot: complete.folder }))
    }
}

/// Builds a snapshot beside the running state machine.
pub(crate) struct SnapshotBuilder {
    shared: Arc<Shared>,
}

impl SnapshotBuilder {
    fn build(shared: &Shared, state: &Arc<StateDb>) -> io::Result<SnapshotOf> {
        let started = Instant::now();
        let built = snapshot::checkpoint(&shared.directory, state);
        let adopted = built.and_then(|built| Self::adopt(shared, built));
        shared.stats.built.ended(adopted.is_ok(), started.elapsed());
        adopted
    }

    /// Makes a finished snapshot the current one.
    pub(crate) fn adopt(shared: &Shared, built: Complete) -> io::Result<SnapshotOf> {
        let mut current = shared.snapshot.lock();
        // A newer one may have arrived and been installed while this one was built; the older must not replace it. One at
        // the same position does: it lets go of files that a compaction has replaced.
        if let Some(newer) = current.as_ref()
            && newer.meta.last_log_id > built.meta.last_log_id
        {
            return Ok(Snapshot { meta: newer.meta.clone(), snapshot: newer.folder.clone() });
        }
        crash_point("snapshot.before-pointer");
        shared.directory.point(SNAPSHOT_POINTER, built.folder.path())?;
        built.folder.keep();
        crash_point("snapshot.after-pointer");
        if let Some(previous) = current.replace(built.clone()) {
            previous.folder.retire();
        }
        Ok(Snapshot { meta: built.meta, snapshot: built.folder })
    }
}

impl RaftSnapshotBuilder<Types> for SnapshotBuilder {
    type SnapshotData = SnapshotDir;

    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf> {
        let shared = Arc::clone(&self.shared);
        machine::spawn_blocking(move || Self::build(&shared, &shared.current()))
            .await
            .map_err(io::Error::other)?
    }
}
