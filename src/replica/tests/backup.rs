//! Backup, restore and recovery, through the face of the crate: what is brought back is what was there.
#![allow(clippy::unwrap_used, reason = "a test says so by failing")]

mod support;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use llm_config_archive::{Reader, Summary};
use llm_config_domain::{
    Command, Delete, MemoryStore, Operation, Outcome, Rejection, Set, Txn, TxnOp, Writes, digest,
    query,
};
use llm_config_replica::{
    BackupError, ProposeError, Replica, RestoreTarget, Restored, StartError, recover, restore,
};
use support::{Cluster, address, eventually, in_time, set};

async fn write(replica: &Replica, command: Command) -> u64 {
    let applied = replica.propose(command, in_time()).await.unwrap();
    assert!(applied.result.is_ok(), "{applied:?}");
    applied.revision
}

fn delete(key: &str) -> Command {
    let delete = Delete { address: address(key), expected_version: None, comment: String::new() };
    Command::new("test", Operation::Delete(delete))
}

/// Sets two entries to the same value at one revision.
fn pair(value: u64) -> Command {
    let half = |key: &str| match set(key, value).operation {
        Operation::Set(set) => TxnOp::Set(Set { ..set }),
        other => panic!("{other:?}"),
    };
    let success = vec![half("left"), half("right")];
    let txn = Txn { compare: Vec::new(), success, failure: Vec::new() };
    Command::new("test", Operation::Txn(txn))
}

fn load(path: &Path) -> (Summary, MemoryStore) {
    let (_, mut reader) = Reader::open(BufReader::new(File::open(path).unwrap())).unwrap();
    let mut writes = Writes::new();
    while let Some(pair) = reader.next_pair().unwrap() {
        writes.insert(pair.key.to_vec(), Some(pair.value.to_vec().into()));
    }
    let mut store = MemoryStore::default();
    store.apply_writes(writes);
    (reader.into_summary().unwrap(), store)
}

fn target(cluster: &Cluster, id: u64, token: &str) -> RestoreTarget {
    RestoreTarget {
        data_dir: cluster.dir(id).to_owned(),
        node_id: id,
        initial_cluster: cluster.founding_list(),
        token: token.into(),
    }
}

fn restore_on(cluster: &Cluster, id: u64, archive: &Path, token: &str) -> Restored {
    restore(archive, &target(cluster, id, token)).unwrap()
}

/// At its first byte it lets the writers loose, and goes on when they are done.
struct Held<'a> {
    file: File,
    replica: &'a Replica,
    writers: &'a tokio::sync::Notify,
    until: u64,
    begun: bool,
}

impl Write for Held<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !std::mem::replace(&mut self.begun, true) {
            self.writers.notify_one();
            while self.replica.applied_revision() < self.until {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_the_state_of_one_revision_whatever_is_written_meanwhile() {
    let cluster = Cluster::start(1).await;
    cluster.all_registered().await;
    let replica = cluster.node(1);
    for number in 0..50 {
        write(replica, set(&format!("key-{}", number % 7), number)).await;
    }
    let (before, revision) = (digest(&replica.view()).unwrap(), replica.applied_revision());
    let path = cluster.file("backup");
    let writers = tokio::sync::Notify::new();
    let mut out = Held {
        file: File::create(&path).unwrap(),
        replica,
        writers: &writers,
        until: revision + 50,
        begun: false,
    };
    let write_meanwhile = async {
        writers.notified().await;
        for number in 0..50 {
            write(replica, set(&format!("key-{}", number % 9), number)).await;
        }
    };
    let summary = std::thread::scope(|scope| {
        let backup = scope.spawn(|| replica.backup(&mut out).unwrap());
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(write_meanwhile));
        backup.join().unwrap()
    });
    let (read, store) = load(&path);
    assert_eq!(read, summary);
    assert_eq!(summary.manifest.revision, revision);
    assert_eq!(summary.manifest.voters, cluster.founding_list());
    assert_eq!(digest(&store).unwrap(), before, "something of a later revision came in");
    assert_ne!(digest(&replica.view()).unwrap(), before, "nothing was written meanwhile");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_backup_under_load_shows_half_a_transaction() {
    let cluster = Cluster::start(1).await;
    let replica = cluster.node(1);
    let path = cluster.file("backup");
    let writes = async {
        for number in 0..200 {
            write(replica, pair(number)).await;
        }
    };
    let backups = async {
        let mut revisions = Vec::new();
        while replica.applied_revision() < 200 {
            let summary = tokio::task::block_in_place(|| {
                replica.backup(&mut File::create(&path).unwrap()).unwrap()
            });
            let (_, store) = load(&path);
            let revision = summary.manifest.revision;
            assert_eq!(query::revision(&store).unwrap(), revision);
            let value = |key: &str| {
                let entry = query::get(&store, &address(key)).unwrap();
                entry.map(|entry| (entry.revision, entry.value.unwrap()))
            };
            assert_eq!(value("left"), value("right"));
            assert!(revision == 0 || value("left").is_some_and(|left| left.0 == revision));
            revisions.push(revision);
            tokio::task::yield_now().await;
        }
        revisions
    };
    let ((), revisions) = tokio::join!(writes, backups);
    assert!(revisions.is_sorted() && !revisions.is_empty(), "{revisions:?}");
    cluster.stop().await;
}

/// A writer that fails: its backup ends, and the node goes on.
struct Broken;

impl Write for Broken {
    fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_that_cannot_be_written_leaves_the_node_as_it_was() {
    let cluster = Cluster::start(1).await;
    write(cluster.node(1), set("key", 1)).await;
    let failed = cluster.node(1).backup(&mut Broken).unwrap_err();
    assert!(matches!(failed, BackupError::Output(_)), "{failed}");
    write(cluster.node(1), set("key", 2)).await;
    // Closing the storage waits for every view of it.
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_cluster_has_everything_and_goes_on_counting() {
    let old = Cluster::start(1).await;
    let source = old.node(1);
    for number in 0..20 {
        write(source, set(&format!("key-{}", number % 4), number)).await;
    }
    write(source, delete("key-3")).await;
    let once = set("once", 1).with_request_id("once");
    let first = source.propose(once.clone(), in_time()).await.unwrap();
    let path = old.file("backup");
    let summary = source.backup(&mut File::create(&path).unwrap()).unwrap();
    let view = source.view();
    let history = |view: &llm_config_replica::View, key: &str| {
        query::history(view, &address(key), None, 100).unwrap()
    };
    let changes = query::changes(&view, 1, 1000).unwrap();
    let histories: Vec<_> = (0..4).map(|key| history(&view, &format!("key-{key}"))).collect();
    drop(view);

    let mut new = Cluster::prepare(3);
    let restored: Vec<Restored> = (1..=3).map(|id| restore_on(&new, id, &path, "token")).collect();
    assert!(restored.iter().all(|one| one.cluster_id == restored[0].cluster_id));
    assert_ne!(restored[0].cluster_id, summary.manifest.cluster_id);
    assert!(restored.iter().all(|one| one.source == summary && one.revision == first.revision));
    for id in [2, 3, 1] {
        new.start_node(id).await.unwrap();
    }
    new.all_ready().await;
    new.all_registered().await;
    for replica in new.running() {
        assert_eq!(replica.status().cluster_id.as_ref(), Some(&restored[0].cluster_id));
        let view = replica.view();
        assert_eq!(query::changes(&view, 1, 1000).unwrap(), changes, "a watch can resume");
        for (key, expected) in histories.iter().enumerate() {
            assert_eq!(history(&view, &format!("key-{key}")), *expected);
        }
    }
    let again = new.node(2).propose(once, in_time()).await.unwrap();
    assert!(again.replayed, "the request was forgotten: {again:?}");
    let reused = set("once", 2).with_request_id("once");
    let reused = new.node(3).propose(reused, in_time()).await.unwrap();
    assert_eq!(reused.result.unwrap_err(), Rejection::IdempotencyKeyReused);
    let next = new.node(1).propose(set("key-3", 7), in_time()).await.unwrap();
    assert_eq!(next.revision, first.revision + 1);
    match next.result {
        // Five values and a deletion came before.
        Ok(Outcome::Set { entry, .. }) => assert_eq!(entry.version, 7),
        other => panic!("{other:?}"),
    }

    // It is an ordinary cluster: it restarts, and it brings up a node that fell behind what the others keep.
    new.stop_node(1).await;
    for number in 0..300 {
        write(new.node(2), set(&format!("more-{}", number % 9), number)).await;
    }
    new.stop_node(2).await;
    new.stop_node(3).await;
    for id in 1..=3 {
        new.start_node(id).await.unwrap();
    }
    new.all_ready().await;
    eventually("all have the same state", || {
        let digests: Vec<_> = new.running().map(|node| digest(&node.view()).unwrap()).collect();
        digests.windows(2).all(|pair| pair[0] == pair[1])
            && new.running().all(|node| node.applied_revision() == first.revision + 301)
    })
    .await;
    new.stop().await;
    old.stop().await;
}

async fn backup_of_one_write(cluster: &Cluster) -> std::path::PathBuf {
    write(cluster.node(1), set("key", 1)).await;
    let path = cluster.file("backup");
    cluster.node(1).backup(&mut File::create(&path).unwrap()).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_founder_with_an_empty_disk_is_refused_among_restored_ones() {
    let old = Cluster::start(1).await;
    let path = backup_of_one_write(&old).await;
    let mut new = Cluster::prepare(3);
    for id in [1, 2] {
        restore_on(&new, id, &path, "");
        new.start_node(id).await.unwrap();
    }
    new.all_ready().await;
    match new.start_node(3).await {
        Err(StartError::DataDir(text)) => {
            assert!(text.contains("restored from a backup"), "{text}");
        }
        other => panic!("an empty disk was let in: {other:?}"),
    }
    write(new.node(1), set("key", 2)).await;
    new.stop().await;
    old.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_founder_that_was_first_takes_no_part_either() {
    let old = Cluster::start(1).await;
    let path = backup_of_one_write(&old).await;
    let mut new = Cluster::prepare(3);
    // Nobody is there to tell it.
    new.start_node(3).await.unwrap();
    for id in [1, 2] {
        restore_on(&new, id, &path, "");
        new.start_node(id).await.unwrap();
    }
    eventually("two restored nodes work", || [1, 2].iter().all(|id| new.node(*id).ready())).await;
    match tokio::time::timeout(Duration::from_secs(60), new.node(3).failure()).await {
        Ok(StartError::DataDir(text)) => assert!(text.contains("restored from a backup"), "{text}"),
        other => panic!("it stays: {other:?}"),
    }
    assert!(query::get(&new.node(3).view(), &address("key")).unwrap().is_none());
    write(new.node(1), set("key", 2)).await;
    new.stop().await;
    old.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn founders_restored_from_different_backups_do_not_mix() {
    let old = Cluster::start(1).await;
    let first = backup_of_one_write(&old).await;
    write(old.node(1), set("key", 2)).await;
    let second = old.file("second");
    old.node(1).backup(&mut File::create(&second).unwrap()).unwrap();
    let mut new = Cluster::prepare(3);
    let ids: Vec<String> = [(1, &first), (2, &first), (3, &second)]
        .map(|(id, path)| restore_on(&new, id, path, "").cluster_id)
        .into();
    assert!(ids[0] == ids[1] && ids[1] != ids[2]);
    for id in 1..=3 {
        new.start_node(id).await.unwrap();
    }
    eventually("two restored nodes work", || [1, 2].iter().all(|id| new.node(*id).ready())).await;
    write(new.node(1), set("more", 1)).await;
    let alone = new.node(3);
    let soon = Instant::now() + Duration::from_millis(500);
    let refused = alone.propose(set("more", 2), soon).await.unwrap_err();
    assert_eq!(refused, ProposeError::NoLeader);
    assert!(query::get(&alone.view(), &address("more")).unwrap().is_none());
    assert_eq!(query::get(&alone.view(), &address("key")).unwrap().unwrap().version, 2);
    new.stop().await;
    old.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_restored_is_refused_and_touches_nothing() {
    let old = Cluster::start(1).await;
    let path = backup_of_one_write(&old).await;
    let new = Cluster::prepare(3);
    let good = target(&new, 1, "");
    let usage = [
        RestoreTarget { node_id: 4, ..good.clone() },
        RestoreTarget { node_id: 0, ..good.clone() },
        RestoreTarget {
            initial_cluster: BTreeMap::from([(1, "a:1".into()), (2, "a:1".into())]),
            ..good.clone()
        },
    ];
    for wrong in usage {
        assert!(matches!(restore(&path, &wrong), Err(StartError::Usage(_))), "{wrong:?}");
    }
    assert!(matches!(restore(&old.file("absent"), &good), Err(StartError::Usage(_))));
    let mut altered = fs::read(&path).unwrap();
    let middle = altered.len() / 2;
    altered[middle] ^= 1;
    let bad = old.file("bad");
    for (content, expected) in [(&altered[..], "damaged"), (&altered[..100], "cut off")] {
        fs::write(&bad, content).unwrap();
        let refused = restore(&bad, &good).unwrap_err();
        assert!(matches!(refused, StartError::DataDir(_)));
        assert!(refused.to_string().contains(expected), "{refused}");
    }
    assert!(!good.data_dir.exists(), "a refused restore made something");
    fs::create_dir(&good.data_dir).unwrap();
    fs::write(good.data_dir.join("precious"), "x").unwrap();
    let refused = restore(&path, &good).unwrap_err().to_string();
    assert!(refused.contains("not empty") && refused.contains("precious"), "{refused}");
    // What a node that is gone had made of itself may stay.
    fs::rename(good.data_dir.join("precious"), good.data_dir.join("backups")).unwrap();
    restore(&path, &good).unwrap();
    let refused = restore(&path, &good).unwrap_err();
    assert!(refused.to_string().contains("not empty"), "{refused}");
    old.stop().await;
}

fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            for (name, content) in contents(&path) {
                found.insert(format!("{}/{name}", path.display()), content);
            }
            found.insert(path.display().to_string(), Vec::new());
        } else {
            found.insert(path.display().to_string(), fs::read(&path).unwrap());
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_majority_is_recovered_with_the_uncommitted_tail() {
    let mut old = Cluster::start(3).await;
    let leader = old.leader().await;
    write(old.node(leader), set("key", 1)).await;
    for id in (1..=3).filter(|id| *id != leader) {
        old.stop_node(id).await;
    }
    let soon = Instant::now() + Duration::from_millis(150);
    let unknown = old.node(leader).propose(set("key", 2), soon).await.unwrap_err();
    assert_eq!(unknown, ProposeError::OutcomeUnknown);
    let status = old.node(leader).status();
    let path = old.file("backup");
    let running = recover(old.dir(leader), None, None).unwrap_err();
    assert!(running.to_string().contains("another process"), "{running}");
    old.stop_node(leader).await;

    let before = contents(old.dir(leader));
    let report = recover(old.dir(leader), Some(leader), None).unwrap();
    assert!(report.archive.is_none() && !path.exists());
    assert_eq!(Some(&report.cluster_id), status.cluster_id.as_ref());
    assert_eq!((report.node_id, report.revision), (leader, 1));
    assert_eq!((report.last_index, report.last_term), (status.last_log_index, status.term));
    assert_eq!(report.uncommitted, report.last_index - report.committed_index);
    assert!(report.uncommitted >= 1 && report.warnings.is_empty(), "{report:?}");
    assert_eq!(report.voters, old.founding_list());
    let found = recover(old.dir(leader), None, Some(&path)).unwrap();
    assert_eq!(found.archive.unwrap().manifest.revision, 2);
    assert!(contents(old.dir(leader)) == before, "the directory was changed");
    let beside = fs::read_dir(path.parent().unwrap()).unwrap().flatten();
    let mut beside = beside.map(|entry| entry.file_name().to_string_lossy().into_owned());
    assert!(!beside.any(|name| name.starts_with("recover-")), "rubbish stays");

    let mut new = Cluster::prepare(3);
    for id in 1..=3 {
        restore_on(&new, id, &path, "");
        new.start_node(id).await.unwrap();
    }
    new.all_ready().await;
    new.node(3).linearizable(in_time()).await.unwrap();
    let entry = query::get(&new.node(3).view(), &address("key")).unwrap().unwrap();
    assert_eq!((entry.version, entry.value.unwrap().json().unwrap().as_str()), (2, "2"));
    new.stop().await;

    let refusals = [
        recover(old.dir(leader), Some(leader % 3 + 1), None),
        recover(old.dir(leader), None, Some(&path)),
        recover(&old.file("absent"), None, None),
    ];
    for (refused, expected) in refusals.into_iter().zip(["--node-id", "exists", "not the data"]) {
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains(expected), "{refused}");
    }
    old.stop().await;
}
