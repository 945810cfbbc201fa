//! A restore that dies at any of its steps leaves nothing that starts, and is repeated; what a killed node had
//! acknowledged is recovered from its directory.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use llm_config_domain::{Address, query};

use super::crash::{check_written, crash, start, wait_unlocked};
use super::{Silent, set};
use crate::storage::directory::RESTORE_PREFIX;
use crate::{Advertise, Config, Replica, RestoreTarget, StartError, Tuning, recover, restore};

const BACKUP: &str = "backup";
const NODE: &str = "node";
const KEYS: u64 = 20;

fn target(root: &Path) -> RestoreTarget {
    RestoreTarget {
        data_dir: root.join(NODE),
        node_id: 1,
        initial_cluster: BTreeMap::from([(1, "127.0.0.1:1".to_owned())]),
        token: "test".into(),
    }
}

/// What the child does until it is killed.
pub(super) fn work(root: &Path, arm: impl FnOnce()) {
    arm();
    restore(&root.join(BACKUP), &target(root)).unwrap();
}

async fn make_backup(root: &Path) {
    let replica = start(&root.join("source")).await;
    for number in 0..KEYS {
        let command = set(&format!("key-{number}"), number);
        replica.propose(command, Instant::now() + Duration::from_secs(60)).await.unwrap();
    }
    replica.backup(&mut File::create(root.join(BACKUP)).unwrap()).unwrap();
    replica.shutdown().await;
}

/// Starts on the directory as an operator would who does not know that the restore was killed.
async fn start_unaware(root: &Path) -> Result<Replica, StartError> {
    let raft_listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = raft_listener.local_addr().unwrap().to_string();
    let config = Config {
        node_id: 1,
        data_dir: root.join(NODE),
        raft_listener,
        advertise: Advertise { raft: address.clone(), ..Advertise::default() },
        initial_cluster: BTreeMap::from([(1, address)]),
        join: None,
        tls: None,
        history_limit: 100,
        version: "test".into(),
        tuning: Tuning::default(),
    };
    Replica::start(config, Arc::new(Silent)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_restore_leaves_nothing_that_starts_and_is_repeated() {
    let source = tempfile::tempdir().unwrap();
    make_backup(source.path()).await;
    let points = [
        ("restore.after-folder", 1),
        ("snapshot.after-checkpoint", 1),
        ("pointer.before-rename", 1),
        ("restore.after-state", 1),
        ("pointer.before-rename", 3),
        ("restore.after-folder-durable", 1),
        ("restore.after-move", 1),
        ("restore.after-move", 4),
        ("restore.before-identity", 1),
        ("restore.after-identity", 1),
    ];
    for (point, hit) in points {
        let root = tempfile::tempdir().unwrap();
        std::fs::copy(source.path().join(BACKUP), root.path().join(BACKUP)).unwrap();
        crash("restore", root.path(), point, hit);
        if point == "restore.after-identity" {
            let refused = restore(&root.path().join(BACKUP), &target(root.path())).unwrap_err();
            assert!(refused.to_string().contains("not empty"), "{point}: {refused}");
        } else {
            match start_unaware(root.path()).await {
                Err(StartError::DataDir(text)) => {
                    assert!(text.contains("repeat the restore"), "{point}: {text}");
                }
                other => panic!("{point}, {hit}: a half restored directory starts: {other:?}"),
            }
            wait_unlocked(&root.path().join(NODE));
            restore(&root.path().join(BACKUP), &target(root.path())).unwrap();
        }
        let replica = start(&root.path().join(NODE)).await;
        let view = replica.view();
        for number in 0..KEYS {
            let address = Address::parse("ns", &format!("key-{number}"), "base").unwrap();
            let entry = query::get(&view, &address).unwrap();
            let value = entry.and_then(|entry| entry.value);
            assert_eq!(value.unwrap().json().unwrap().as_str(), number.to_string(), "{point}");
        }
        assert_eq!(view.revision().unwrap(), KEYS, "{point}");
        drop(view);
        replica.shutdown().await;
        let left = std::fs::read_dir(root.path().join(NODE)).unwrap().flatten();
        let mut left = left.map(|entry| entry.file_name().to_string_lossy().into_owned());
        assert!(!left.any(|name| name.starts_with(RESTORE_PREFIX)), "{point}: rubbish stays");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_node_acknowledged_is_recovered() {
    for (point, hit) in [("log.before-callback", 70), ("state.before-write", 75)] {
        let root = tempfile::tempdir().unwrap();
        let acks = crash("write", &root.path().join("killed"), point, hit);
        assert!(!acks.is_empty());
        let found =
            recover(&root.path().join("killed"), Some(1), Some(&root.path().join(BACKUP))).unwrap();
        assert!(found.warnings.is_empty(), "{point}: {:?}", found.warnings);
        assert!(found.applied_index < found.last_index, "nothing was replayed: {found:?}");
        restore(&root.path().join(BACKUP), &target(root.path())).unwrap();
        check_written(&root.path().join(NODE), &acks, point).await;
    }
}
