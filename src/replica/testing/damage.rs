//! Files of a stopped node change behind its back: it says which, does not go on with them, and spoils nothing else.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use llm_config_domain::StoreError;
use rocksdb::Cache;

use super::crash::start;
use super::{Silent, open_state, set};
use crate::StartError;
use crate::storage::directory::{Directory, SNAPSHOT_POINTER, STATE_POINTER};
use crate::storage::snapshot;
use crate::storage::state::StateMachine;

const TIMEOUT: Duration = Duration::from_secs(60);
/// Enough for many blocks of a table.
const WRITES: u64 = 1_500;

fn folder(root: &Path, pointer: &str) -> PathBuf {
    let name = fs::read_to_string(root.join(pointer)).unwrap();
    root.join(name.lines().next().unwrap())
}

fn tables(folder: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "sst")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_meets_damage_while_it_serves_ends_and_is_not_to_be_started_again() {
    let folder_of_test = tempfile::tempdir().unwrap();
    let root = folder_of_test.path();
    let replica = start(root).await;
    for number in 0..WRITES {
        let deadline = Instant::now() + TIMEOUT;
        replica.propose(set(&format!("k{number}"), number), deadline).await.unwrap();
    }
    replica.shutdown().await;
    drop(replica);
    // The middle of the largest table: what is read at a start lies elsewhere.
    let mut tables = tables(&folder(root, STATE_POINTER));
    tables.sort_by_key(|path| fs::metadata(path).unwrap().len());
    let table = tables.last().unwrap();
    let mut content = fs::read(table).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 1;
    fs::write(table, content).unwrap();

    let replica = start(root).await;
    let view = replica.view();
    let met = view.scan_domain(&mut |_, _| Ok(ControlFlow::Continue(()))).unwrap_err();
    assert!(matches!(met, StoreError::Corrupt(_)), "{met}");
    let failure = tokio::time::timeout(TIMEOUT, replica.failure()).await.unwrap();
    let StartError::DataDir(message) = failure else { panic!("{failure}") };
    let name = table.file_name().unwrap().to_str().unwrap();
    assert!(message.contains(name) && message.contains("replace the node"), "{message}");
    drop(view);
    replica.shutdown().await;
}

#[test]
fn a_damaged_pointer_costs_nothing_that_it_named() {
    for damage in ["state-0\nformat=1\n", "", "snapshot-0\nformat=1\n"] {
        let root = tempfile::tempdir().unwrap();
        drop(open_state(root.path()));
        let pointer = root.path().join(STATE_POINTER);
        let whole = fs::read(&pointer).unwrap();
        let state = folder(root.path(), STATE_POINTER);
        fs::write(&pointer, damage).unwrap();
        let directory = Arc::new(Directory::open(root.path(), 1).unwrap().0);
        let cache = Cache::new_lru_cache(1 << 20);
        let error = StateMachine::open(directory, cache, Arc::new(Silent)).err().unwrap();
        assert!(error.to_string().contains(root.path().to_str().unwrap()), "{error}");
        assert!(state.join("CURRENT").exists(), "{damage:?}: the state is gone");
        fs::write(&pointer, whole).unwrap();
        drop(open_state(root.path()));
    }
}

#[test]
fn a_damaged_snapshot_is_named() {
    let root = tempfile::tempdir().unwrap();
    let (directory, machine) = open_state(root.path());
    let built = snapshot::checkpoint(&directory, &machine.shared().current()).unwrap();
    directory.point(SNAPSHOT_POINTER, built.folder.path()).unwrap();
    built.folder.keep();
    drop((machine, directory));
    fs::write(built.folder.path().join("CURRENT"), "MANIFEST").unwrap();
    let directory = Arc::new(Directory::open(root.path(), 1).unwrap().0);
    let cache = Cache::new_lru_cache(1 << 20);
    let error = StateMachine::open(directory, cache, Arc::new(Silent)).err().unwrap().to_string();
    assert!(error.starts_with(built.folder.path().to_str().unwrap()), "{error}");
}
