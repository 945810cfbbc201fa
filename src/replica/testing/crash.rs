//! The process dies at each boundary between two writes; what it acknowledged must be there afterwards.
//!
//! A test starts this test program again as a child, arms one crash point in it, and lets it work until it aborts. What
//! the child acknowledged, it wrote to its standard output first.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command as Process, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use llm_config_domain::{Address, Outcome, digest, query};
use openraft::entry::RaftEntry as _;
use openraft::storage::RaftStateMachine as _;
use openraft::vote::RaftLeaderId as _;

use super::{Silent, open_state, set};
use crate::storage::directory::{Directory, SNAPSHOT_POINTER};
use crate::storage::snapshot::{self, SnapshotDir};
use crate::storage::state::{SnapshotBuilder, StateMachine};
use crate::types::{Entry, EntryPayload, LeaderId, LogId, Proposal, SnapshotMeta};
use crate::{Advertise, Config, Replica, Tuning};

/// Set in a child: the work to do, the folder to do it in, the crash point and how often to pass it first.
const WORK: &str = "LLM_CONFIG_TEST_CRASH_WORK";
const ROOT: &str = "LLM_CONFIG_TEST_CRASH_ROOT";
const POINT: &str = "LLM_CONFIG_TEST_CRASH_POINT";
/// Writes after which a child gives up; it crashes long before.
const WRITES_MAX: u64 = 5_000;
const KEYS: u64 = 7;
const TIMEOUT: Duration = Duration::from_secs(60);

/// Waits until nobody holds the directory any more: connections let go of a stopped node a moment later, and a process
/// that another test is just starting has inherited the lock until it runs.
pub(super) fn wait_unlocked(root: &Path) {
    let Ok(lock) = std::fs::File::open(root.join("LOCK")) else { return };
    let limit = Instant::now() + TIMEOUT;
    while lock.try_lock().is_err() {
        assert!(Instant::now() < limit, "{} stays locked", root.display());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Runs `work` in a child that aborts at `point` on its `hit`-th pass, and returns the lines that it acknowledged.
pub(super) fn crash(work: &str, root: &Path, point: &str, hit: u32) -> Vec<String> {
    wait_unlocked(root);
    let output = Process::new(std::env::current_exe().unwrap())
        .args(["--exact", "testing::crash::child", "--nocapture", "--test-threads=1"])
        .env(WORK, work)
        .env(ROOT, root)
        .env(POINT, format!("{point}={}*off->return", hit - 1))
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(!output.status.success(), "{work} did not pass {point} {hit} times");
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&output.status),
        Some(6),
        "{work} at {point}: ended otherwise than by the crash point"
    );
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter_map(|line| line.split_once("ack ")).map(|(_, ack)| ack.to_owned()).collect()
}

/// Not a test by itself: what the children run.
#[test]
fn child() {
    let (Ok(work), Ok(root), Ok(point)) =
        (std::env::var(WORK), std::env::var(ROOT), std::env::var(POINT))
    else {
        return;
    };
    let (name, action) = point.split_once('=').unwrap();
    let arm = || fail::cfg(name, action).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    match work.as_str() {
        "write" => runtime.block_on(write(Path::new(&root), arm)),
        "install" => runtime.block_on(install(Path::new(&root), arm)),
        "restore" => super::restore::work(Path::new(&root), arm),
        other => panic!("no such work: {other}"),
    }
}

pub(super) async fn start(root: &Path) -> Replica {
    tokio::task::block_in_place(|| wait_unlocked(root));
    let raft_listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = raft_listener.local_addr().unwrap().to_string();
    let config = Config {
        node_id: 1,
        data_dir: root.to_owned(),
        raft_listener,
        advertise: Advertise {
            http: "127.0.0.1:1".into(),
            grpc: "127.0.0.1:2".into(),
            raft: address.clone(),
        },
        initial_cluster: BTreeMap::from([(1, address)]),
        join: None,
        tls: None,
        history_limit: 100,
        version: "test".into(),
        tuning: Tuning {
            heartbeat_interval: Duration::from_millis(50),
            election_timeout_min: Duration::from_millis(150),
            election_timeout_max: Duration::from_millis(300),
            snapshot_log_entries: 40,
            log_entries_kept: 10,
            ..Tuning::default()
        },
    };
    let replica = Replica::start(config, Arc::new(Silent)).await.unwrap();
    replica.linearizable(Instant::now() + TIMEOUT).await.unwrap();
    replica
}

async fn write(root: &Path, arm: impl FnOnce()) {
    let replica = start(root).await;
    arm();
    for number in 0..WRITES_MAX {
        let command = set(&format!("key-{}", number % KEYS), number);
        let applied = replica.propose(command, Instant::now() + TIMEOUT).await.unwrap();
        let Ok(Outcome::Set { entry, .. }) = applied.result else { panic!("refused: {applied:?}") };
        println!("\nack {} {} {number}", entry.address.key, entry.version);
    }
}

/// Every acknowledged version is there, versions have no gap, and at most the one write in flight came on top.
pub(super) async fn check_written(root: &Path, acks: &[String], context: &str) {
    let replica = start(root).await;
    let view = replica.view();
    let mut newest: BTreeMap<String, u64> = BTreeMap::new();
    for ack in acks {
        let [key, version, value] = ack.split(' ').collect::<Vec<_>>()[..] else { panic!("{ack}") };
        let address = Address::parse("ns", key, "base").unwrap();
        let version: u64 = version.parse().unwrap();
        let stored = query::get_version(&view, &address, version)
            .unwrap_or_else(|error| panic!("{context}: acknowledged {ack} is gone: {error}"));
        assert_eq!(stored.value.unwrap().json().unwrap().as_str(), value, "{context}: {ack}");
        newest.insert(key.to_owned(), version);
    }
    let total: u64 = (0..KEYS)
        .filter_map(|key| {
            let address = Address::parse("ns", &format!("key-{key}"), "base").unwrap();
            query::get(&view, &address).unwrap().map(|entry| entry.version)
        })
        .sum();
    let acknowledged: u64 = newest.values().sum();
    assert!(
        (acknowledged..=acknowledged + 1).contains(&total),
        "{context}: {acknowledged} acknowledged, {total} stored"
    );
    assert_eq!(query::revision(&view).unwrap(), total, "{context}");
    drop(view);
    replica.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_write_is_lost_at_any_boundary() {
    let every_write = [
        "log.before-write",
        "log.after-sync",
        "log.before-callback",
        "log.after-callback",
        "state.before-write",
        "state.after-write",
        "state.before-answer",
    ];
    let snapshots = [
        "snapshot.after-checkpoint",
        "snapshot.before-pointer",
        "snapshot.after-pointer",
        "pointer.before-rename",
        "pointer.after-rename",
    ];
    let runs = every_write
        .into_iter()
        .map(|point| (point, 60))
        .chain(snapshots.into_iter().map(|point| (point, 2)));
    for (point, hit) in runs {
        let root = tempfile::tempdir().unwrap();
        let acks = crash("write", root.path(), point, hit);
        assert!(!acks.is_empty(), "{point}: nothing was acknowledged before the crash");
        check_written(root.path(), &acks, point).await;
        // What came back from the crash can crash and come back again.
        let more = crash("write", root.path(), point, hit);
        assert!(!more.is_empty());
    }
}

pub(super) fn log_id(index: u64) -> LogId {
    LogId::new(LeaderId::new(1, 1), index)
}

pub(super) async fn apply(state: &mut StateMachine, from: u64, to: u64, key: &str) {
    let entries = (from..=to).map(|index| {
        let command = if index == 1 {
            llm_config_domain::Command::new(
                "test",
                llm_config_domain::Operation::Found(llm_config_domain::Found {
                    cluster_id: "c".into(),
                    history_limit: 10,
                }),
            )
        } else {
            set(key, index)
        };
        let proposal = Proposal { time_ms: index, command: command.encode() };
        Ok((Entry::new(log_id(index), EntryPayload::Normal(proposal)), None))
    });
    state.apply(futures::stream::iter(entries.collect::<Vec<_>>())).await.unwrap();
}

/// A state of ten entries, and beside it a snapshot of thirty that has arrived.
async fn prepare(root: &Path) {
    let (_directory, mut state) = open_state(&root.join("node"));
    apply(&mut state, 1, 10, "old").await;
    // A clean stop, so that the old state is durable.
    state.shared().current().db().flush().unwrap();
    let (_directory, mut other) = open_state(&root.join("other"));
    apply(&mut other, 1, 30, "new").await;
    openraft::RaftSnapshotBuilder::build_snapshot(&mut other.get_snapshot_builder().await)
        .await
        .unwrap();
}

/// The other node's snapshot, as if it had just been received.
fn arrived(
    root: &Path,
    directory: &Directory,
    state: &StateMachine,
) -> (SnapshotMeta, SnapshotDir) {
    let (other, _) = Directory::open(&root.join("other"), 1).unwrap();
    let source = SnapshotDir::kept(other.pointer(SNAPSHOT_POINTER).unwrap().unwrap());
    let received = SnapshotDir::temporary(directory.fresh("receive"));
    snapshot::unpack(&source, received.path()).unwrap();
    let meta = snapshot::read_meta(state.shared().current().options(), received.path()).unwrap();
    (meta, received)
}

async fn install(root: &Path, arm: impl FnOnce()) {
    let (directory, mut state) = open_state(&root.join("node"));
    let (meta, received) = arrived(root, &directory, &state);
    arm();
    state.install_snapshot(&meta, received).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_installed_snapshot_is_whole_or_not_there() {
    let points = [
        ("install.between-files", false),
        ("install.before-snapshot-pointer", false),
        ("install.before-state-pointer", true),
        ("install.after-state-pointer", true),
    ];
    for (point, installed) in points {
        let root = tempfile::tempdir().unwrap();
        prepare(root.path()).await;
        crash("install", root.path(), point, 1);
        let (_directory, mut state) = open_state(&root.path().join("node"));
        // What openraft does at a start: a snapshot newer than the state is installed again.
        if let Some(snapshot) = state.get_current_snapshot().await.unwrap()
            && snapshot.meta.last_log_id > state.applied_state().await.unwrap().0
        {
            state.install_snapshot(&snapshot.meta, snapshot.snapshot).await.unwrap();
        }
        let expected = if installed { ("new", 30) } else { ("old", 10) };
        assert_eq!(state.applied_state().await.unwrap().0, Some(log_id(expected.1)), "{point}");
        let (_other, reference) = open_state(&root.path().join("reference"));
        let mut reference = reference;
        apply(&mut reference, 1, expected.1, expected.0).await;
        let of = |state: &StateMachine| digest(state.shared().current().as_ref()).unwrap();
        assert_eq!(of(&state), of(&reference), "{point}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_state_serves_its_readers_and_then_goes() {
    let root = tempfile::tempdir().unwrap();
    prepare(root.path()).await;
    let (directory, mut state) = open_state(&root.path().join("node"));
    let before = state.shared().view();
    let old_path = state.shared().current().path().to_owned();
    let (meta, received) = arrived(root.path(), &directory, &state);
    state.install_snapshot(&meta, received).await.unwrap();
    let old = Address::parse("ns", "old", "base").unwrap();
    assert!(query::get(&before, &old).unwrap().is_some(), "a reader lost its view");
    assert!(query::get(&state.shared().view(), &old).unwrap().is_none());
    assert!(old_path.exists());
    drop(before);
    assert!(!old_path.exists(), "the replaced state is still on the disk");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_built_beside_an_installation_does_not_replace_the_newer_one() {
    let root = tempfile::tempdir().unwrap();
    prepare(root.path()).await;
    let (directory, mut state) = open_state(&root.path().join("node"));
    let built = snapshot::checkpoint(&directory, &state.shared().current()).unwrap();
    let built_path = built.folder.path().to_owned();
    let (meta, received) = arrived(root.path(), &directory, &state);
    state.install_snapshot(&meta, received).await.unwrap();
    let installed = directory.pointer(SNAPSHOT_POINTER).unwrap();

    let adopted = SnapshotBuilder::adopt(&state.shared(), built).unwrap();
    assert_eq!(adopted.meta, meta);
    assert_eq!(directory.pointer(SNAPSHOT_POINTER).unwrap(), installed);
    assert!(!built_path.exists(), "the older snapshot is still on the disk");
    let current = state.get_current_snapshot().await.unwrap().unwrap();
    assert_eq!(current.meta, meta);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_was_damaged_at_its_source_is_found() {
    let root = tempfile::tempdir().unwrap();
    prepare(root.path()).await;
    let (directory, state) = open_state(&root.path().join("node"));
    let (meta, received) = arrived(root.path(), &directory, &state);
    snapshot::verify(received.path(), &meta).unwrap();

    let mut elsewhere = meta.clone();
    elsewhere.last_log_id = Some(log_id(31));
    assert!(snapshot::verify(received.path(), &elsewhere).is_err());

    let is_table = |name: &String| name.ends_with(".sst");
    let table = received.files().unwrap().into_iter().map(|(name, _)| name).find(is_table).unwrap();
    let table = received.path().join(table);
    let mut content = std::fs::read(&table).unwrap();
    content[20] ^= 1;
    // A new file: the old one is linked from elsewhere.
    std::fs::remove_file(&table).unwrap();
    std::fs::write(&table, content).unwrap();
    assert!(snapshot::verify(received.path(), &meta).is_err());
}
