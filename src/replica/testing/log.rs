//! The log's promises: readable at once, durable before the callback, in order, and never silently shorter.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use openraft::entry::RaftEntry as _;
use openraft::storage::{IOFlushed, RaftLogReader as _, RaftLogStorage as _};
use openraft::type_config::TypeConfigExt as _;
use openraft::vote::RaftLeaderId as _;
use proptest::prelude::*;
use tokio::runtime::Runtime;

use crate::storage::directory::Directory;
use crate::storage::engine::memory::MemoryEngine;
use crate::storage::engine::{Engine, Op};
use crate::storage::log::{LogStore, inspect, keys};
use crate::storage::rocks::{self, RocksEngine};
use crate::storage::watermark::Watermark;
use crate::types::{Entry, EntryPayload, LeaderId, LogId, Proposal, Types, Vote};

const CACHE: u64 = 1 << 20;

fn leader(term: u64) -> LeaderId {
    LeaderId::new(term, 1)
}

fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(leader(term), index)
}

fn entry(term: u64, index: u64, bytes: usize) -> Entry {
    let proposal = Proposal { time_ms: index, command: Bytes::from(vec![1; bytes]) };
    Entry::new(log_id(term, index), EntryPayload::Normal(proposal))
}

fn vote(term: u64) -> Vote {
    Vote { leader_id: leader(term), committed: true }
}

fn open(engine: &Arc<MemoryEngine>, cache: u64) -> LogStore {
    LogStore::open(Arc::clone(engine) as Arc<dyn Engine>, None, cache).unwrap()
}

type Flushed = openraft::alias::OneshotReceiverOf<Types, Result<(), std::io::Error>>;

async fn append(log: &mut LogStore, entries: Vec<Entry>) -> Flushed {
    let (sender, flushed) = Types::oneshot();
    log.append(entries, IOFlushed::signal(sender)).await.unwrap();
    flushed
}

async fn durable(log: &mut LogStore, entries: Vec<Entry>) {
    append(log, entries).await.await.unwrap().unwrap();
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let limit = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < limit, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_callback_runs_before_the_sync_that_covers_it() {
    let engine = Arc::new(MemoryEngine::default());
    let mut log = open(&engine, CACHE);
    for round in 0..20_u64 {
        engine.waiting.store(false, Ordering::SeqCst);
        engine.close_gate();
        let mut callbacks = Vec::new();
        for number in 0..5 {
            callbacks.push(append(&mut log, vec![entry(1, round * 5 + number, 10)]).await);
        }
        let waiting = Arc::clone(&engine);
        wait_until("the writer is at the disk", move || waiting.waiting.load(Ordering::SeqCst));
        for callback in &mut callbacks {
            assert!(
                callback.try_recv().is_err(),
                "called back while the write was still at the disk"
            );
        }
        engine.open_gate();
        for (number, callback) in callbacks.into_iter().enumerate() {
            callback.await.unwrap().unwrap();
            // What a power cut would leave now must hold the entry.
            let mut survivor = open(&engine.crash(0), CACHE);
            let index = round * 5 + number as u64;
            assert_eq!(survivor.try_get_log_entries(index..=index).await.unwrap().len(), 1);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_shares_one_sync() {
    let engine = Arc::new(MemoryEngine::default());
    let mut log = open(&engine, CACHE);
    engine.close_gate();
    let mut callbacks = vec![append(&mut log, vec![entry(1, 0, 10)]).await];
    let waiting = Arc::clone(&engine);
    wait_until("the writer is at the disk", move || waiting.waiting.load(Ordering::SeqCst));
    for index in 1..100 {
        callbacks.push(append(&mut log, vec![entry(1, index, 10)]).await);
        log.save_committed(Some(log_id(1, index))).await.unwrap();
    }
    engine.open_gate();
    for callback in callbacks {
        callback.await.unwrap().unwrap();
    }
    assert_eq!(engine.syncs.load(Ordering::SeqCst), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_appended_entry_can_be_read_before_it_is_durable() {
    let engine = Arc::new(MemoryEngine::default());
    let mut log = open(&engine, 1);
    engine.close_gate();
    let mut reader = log.get_log_reader().await;
    let callback = append(&mut log, (0..50).map(|index| entry(1, index, 100)).collect()).await;
    assert_eq!(reader.try_get_log_entries(0..50).await.unwrap().len(), 50);
    engine.open_gate();
    callback.await.unwrap().unwrap();
    // The cache is smaller than one entry: with the next append the durable ones leave it.
    durable(&mut log, vec![entry(1, 50, 100)]).await;
    let read = reader.try_get_log_entries(0..51).await.unwrap();
    assert_eq!(
        read.iter().map(|entry| entry.log_id.index).collect::<Vec<_>>(),
        (0..51).collect::<Vec<_>>()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limited_read_is_short_but_never_empty() {
    let engine = Arc::new(MemoryEngine::default());
    let mut log = open(&engine, u64::MAX);
    durable(&mut log, vec![entry(1, 0, 3 << 20), entry(1, 1, 10), entry(1, 2, 3 << 20)]).await;
    assert_eq!(log.limited_get_log_entries(0, 3).await.unwrap().len(), 1);
    assert_eq!(log.limited_get_log_entries(1, 3).await.unwrap().len(), 1);
    let mut reopened = open(&engine, CACHE);
    assert_eq!(reopened.limited_get_log_entries(0, 3).await.unwrap().len(), 1);
    assert_eq!(reopened.limited_get_log_entries(3, 3).await.unwrap().len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_write_is_reported_and_never_retried() {
    let engine = Arc::new(MemoryEngine::default());
    let mut log = open(&engine, CACHE);
    durable(&mut log, vec![entry(1, 0, 10)]).await;
    engine.fail_next.store(true, Ordering::SeqCst);
    let failed = append(&mut log, vec![entry(1, 1, 10)]).await;
    assert!(failed.await.unwrap().unwrap_err().to_string().contains("injected"));
    // The writer has ended: nothing after the failure may be called durable.
    let (sender, _callback) = Types::oneshot();
    let limit = Instant::now() + Duration::from_secs(20);
    let mut refused = log.append([entry(1, 2, 10)], IOFlushed::signal(sender)).await.is_err();
    while !refused {
        assert!(Instant::now() < limit, "an append was accepted for ever after a failed write");
        let (sender, callback) = Types::oneshot();
        refused = log.append([entry(1, 2, 10)], IOFlushed::signal(sender)).await.is_err();
        drop(callback);
    }
    assert!(log.save_vote(&vote(2)).await.is_err());
    let mut survivor = open(&engine.crash(usize::MAX), CACHE);
    assert_eq!(survivor.try_get_log_entries(0..9).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hole_in_the_log_is_refused() {
    let engine = Arc::new(MemoryEngine::default());
    let mut log = open(&engine, CACHE);
    durable(&mut log, (0..5).map(|index| entry(1, index, 10)).collect()).await;
    engine.write(&[Op::Delete(keys::entry(2))], true).unwrap();
    let refused = LogStore::open(engine.crash(0) as Arc<dyn Engine>, None, CACHE).err().unwrap();
    assert!(refused.to_string().contains("hole"), "{refused}");
}

/// A log on the real engine, closed as a crash leaves it: in the write-ahead log only.
fn stored_log(root: &Path) -> PathBuf {
    let (directory, _) = Directory::open(root, 1).unwrap();
    let engine = RocksEngine::open(&directory.log(), None).unwrap();
    let watermark = Watermark::open(&directory.watermark()).unwrap();
    let mut log = LogStore::open(Arc::new(engine), Some(watermark), CACHE).unwrap();
    Runtime::new().unwrap().block_on(async {
        log.save_vote(&vote(1)).await.unwrap();
        for index in 0..100 {
            durable(&mut log, vec![entry(1, index, 200)]).await;
        }
    });
    log.close();
    write_ahead_log(&directory)
}

/// The file that holds something.
fn write_ahead_log(directory: &Directory) -> PathBuf {
    let wal =
        |entry: &fs::DirEntry| entry.path().extension().is_some_and(|extension| extension == "log");
    fs::read_dir(directory.log())
        .unwrap()
        .flatten()
        .filter(wal)
        .map(|entry| entry.path())
        .max_by_key(|path| fs::metadata(path).unwrap().len())
        .unwrap()
}

fn reopen(root: &Path) -> std::io::Result<LogStore> {
    let (directory, _) = Directory::open(root, 1).unwrap();
    let engine = RocksEngine::open(&directory.log(), None)?;
    LogStore::open(Arc::new(engine), Some(Watermark::open(&directory.watermark())?), CACHE)
}

#[test]
fn a_damaged_write_ahead_log_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let wal = stored_log(root.path());
    let whole = fs::read(&wal).unwrap();
    for position in [whole.len() / 4, whole.len() / 2, whole.len() - 300] {
        let mut damaged = whole.clone();
        damaged[position] ^= 1;
        fs::write(&wal, &damaged).unwrap();
        assert!(reopen(root.path()).is_err(), "the flipped bit at {position} went unnoticed");
    }
}

#[test]
fn a_deleted_or_cut_write_ahead_log_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let wal = stored_log(root.path());
    let whole = fs::read(&wal).unwrap();
    fs::write(&wal, &whole[..whole.len() / 2]).unwrap();
    let refused = reopen(root.path()).err().unwrap();
    assert!(refused.to_string().contains("acknowledged data is missing"), "{refused}");
}

#[test]
fn a_deleted_write_ahead_log_is_refused() {
    let root = tempfile::tempdir().unwrap();
    fs::remove_file(stored_log(root.path())).unwrap();
    let refused = reopen(root.path()).err().unwrap();
    assert!(refused.to_string().contains("acknowledged data is missing"), "{refused}");
}

#[test]
fn a_record_that_a_power_cut_tore_is_cut_off() {
    let root = tempfile::tempdir().unwrap();
    stored_log(root.path());
    let directory = Arc::new(Directory::open(root.path(), 1).unwrap().0);
    let engine = RocksEngine::open(&directory.log(), None).unwrap();
    engine.write(&[Op::Put(keys::entry(100), Bytes::from(vec![1; 9000]))], true).unwrap();
    drop(engine);
    // The file has its length, and its last page was not written.
    let wal = write_ahead_log(&directory);
    let mut torn = fs::read(&wal).unwrap();
    torn[8192..].fill(0);
    fs::write(&wal, &torn).unwrap();
    let refused = rocks::open_read_only(&rocks::log_options(), &directory.log()).err().unwrap();
    assert!(refused.to_string().contains("Corruption"), "RocksDB knows it by itself: {refused}");

    let looked = RocksEngine::open_read_only(&directory.log(), Arc::clone(&directory)).unwrap();
    assert_eq!(inspect(&looked).unwrap().last, Some(log_id(1, 99)));
    drop(looked);
    assert_eq!(fs::read(&wal).unwrap(), torn, "looking changed the file");
    drop(directory);
    let log = reopen(root.path()).unwrap();
    assert_eq!(log.range().1, Some(log_id(1, 99)));
    log.close();
    drop(log);
    assert_eq!(reopen(root.path()).unwrap().range().1, Some(log_id(1, 99)));
}

#[derive(Debug, Clone)]
enum Step {
    Append(u8),
    Truncate(u8),
    Purge(u8),
    Vote,
    /// A power cut that keeps some of the batches which were not synced, then a restart.
    Crash(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1..20_u8).prop_map(Step::Append),
        2 => any::<u8>().prop_map(Step::Truncate),
        1 => any::<u8>().prop_map(Step::Purge),
        1 => Just(Step::Vote),
        2 => any::<u8>().prop_map(Step::Crash),
    ];
    prop::collection::vec(step, 1..40)
}

/// The log as it must be: every step here was acknowledged.
#[derive(Default)]
struct Model {
    term: u64,
    entries: BTreeMap<u64, LogId>,
    purged: Option<LogId>,
}

impl Model {
    fn last(&self) -> Option<LogId> {
        self.entries.last_key_value().map(|(_, id)| *id).or(self.purged)
    }

    fn pick(&self, choice: u8) -> Option<LogId> {
        let position = usize::from(choice) % self.entries.len().max(1);
        self.entries.values().nth(position).copied()
    }
}

async fn run(steps: Vec<Step>) {
    let mut engine = Arc::new(MemoryEngine::default());
    let mut log = open(&engine, 500);
    let mut model = Model::default();
    for step in steps {
        match step {
            Step::Append(count) => {
                let first = model.last().map_or(0, |id| id.index + 1);
                let entries: Vec<Entry> = (first..first + u64::from(count))
                    .map(|index| entry(model.term, index, 20))
                    .collect();
                model
                    .entries
                    .extend(entries.iter().map(|entry| (entry.log_id.index, entry.log_id)));
                durable(&mut log, entries).await;
            }
            Step::Truncate(choice) => {
                let Some(after) = model.pick(choice) else { continue };
                log.truncate_after(Some(after)).await.unwrap();
                drop(model.entries.split_off(&(after.index + 1)));
                model.term += 1;
            }
            Step::Purge(choice) => {
                let Some(upto) = model.pick(choice) else { continue };
                log.purge(upto).await.unwrap();
                model.entries = model.entries.split_off(&(upto.index + 1));
                model.purged = Some(upto);
            }
            Step::Vote => {
                model.term += 1;
                log.save_vote(&vote(model.term)).await.unwrap();
            }
            Step::Crash(survivors) => {
                let voted = log.read_vote().await.unwrap();
                let keep = usize::from(survivors) % (engine.unsynced_batches() + 1);
                engine = engine.crash(keep);
                log = open(&engine, 500);
                assert_eq!(log.read_vote().await.unwrap(), voted);
            }
        }
        let state = log.get_log_state().await.unwrap();
        assert_eq!((state.last_purged_log_id, state.last_log_id), (model.purged, model.last()));
        let first = model.purged.map_or(0, |id| id.index + 1);
        let read: Vec<LogId> = log
            .try_get_log_entries(first..)
            .await
            .unwrap()
            .into_iter()
            .map(|entry| entry.log_id)
            .collect();
        assert_eq!(read, model.entries.values().copied().collect::<Vec<_>>());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_log_is_what_was_acknowledged(steps in steps()) {
        Runtime::new().unwrap().block_on(run(steps));
    }
}
