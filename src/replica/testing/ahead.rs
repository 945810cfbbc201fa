//! A state that is ahead of the log: the log's disk failed a sync, or lost its power, and the state was kept.

use std::path::Path;
use std::sync::Arc;

use openraft::RaftSnapshotBuilder as _;
use openraft::entry::RaftEntry as _;
use openraft::storage::{IOFlushed, RaftLogStorage as _, RaftStateMachine as _, StorageHelper};
use openraft::type_config::TypeConfigExt as _;

use super::Silent;
use super::crash::{apply, log_id};
use crate::Tuning;
use crate::lifecycle::open_storage;
use crate::storage::directory::Directory;
use crate::storage::log::LogStore;
use crate::storage::state::StateMachine;
use crate::types::{Entry, EntryPayload, Types};

async fn open(root: &Path) -> (StateMachine, LogStore) {
    let (directory, identity) = Directory::open(root, 1).unwrap();
    let directory = Arc::new(directory);
    open_storage(&directory, &Tuning::default(), Arc::new(Silent), &identity).await.unwrap()
}

async fn append(log: &mut LogStore, to: u64) {
    let entries = (0..=to).map(|index| Entry::new(log_id(index), EntryPayload::Blank));
    let (sender, flushed) = Types::oneshot();
    log.append(entries, IOFlushed::signal(sender)).await.unwrap();
    flushed.await.unwrap().unwrap();
}

/// Which snapshot there is.
async fn snapshot(state: &mut StateMachine) -> Option<u64> {
    let snapshot = state.get_current_snapshot().await.unwrap();
    snapshot.and_then(|snapshot| snapshot.meta.last_log_id).map(|id| id.index)
}

/// A log up to 7, a state up to `applied`, and a snapshot up to 5.
async fn prepare(root: &Path, applied: u64) {
    let (mut state, mut log) = open(root).await;
    append(&mut log, 7).await;
    apply(&mut state, 1, 5, "k").await;
    state.get_snapshot_builder().await.build_snapshot().await.unwrap();
    apply(&mut state, 6, applied, "k").await;
    state.shared().current().db().flush().unwrap();
    log.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_never_begins_behind_its_snapshot() {
    let root = tempfile::tempdir().unwrap();
    prepare(root.path(), 10).await;
    let (mut state, mut log) = open(root.path()).await;
    // Before anything is purged: a crash in between must leave a snapshot too.
    assert_eq!(log.range(), (None, Some(log_id(7))));
    assert_eq!(snapshot(&mut state).await, Some(10));
    let raft = StorageHelper::new(&mut log, &mut state).with_id(1).get_initial_state().await;
    assert_eq!(raft.unwrap().snapshot_meta.last_log_id, Some(log_id(10)));
    assert_eq!(log.range(), (Some(log_id(10)), Some(log_id(10))));
    log.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_that_is_not_ahead_needs_no_other_snapshot() {
    let root = tempfile::tempdir().unwrap();
    prepare(root.path(), 7).await;
    let (mut state, log) = open(root.path()).await;
    assert_eq!(snapshot(&mut state).await, Some(5));
    log.close();
}
