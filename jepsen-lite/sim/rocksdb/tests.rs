//! What the product relies on.

use std::collections::BTreeMap;

use llm_config_simdisk as disk;

use crate::checkpoint::Checkpoint;
use crate::simulated::{self, Defect};
use crate::{DB, Options, ReadOptions, WriteBatch, WriteOptions};

/// One test at a time: the disks are those of the process.
fn alone() -> std::sync::MutexGuard<'static, ()> {
    static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let held = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    simulated::set_defect(None);
    disk::set_defect(None);
    held
}

fn fresh(seed: u64) {
    disk::seed(seed);
    disk::add("t");
    disk::fs::File::open("/t").unwrap().sync_all().unwrap();
}

fn open(path: &str) -> DB {
    let mut options = Options::default();
    options.create_if_missing(true);
    let db = DB::open(&options, path).unwrap();
    disk::fs::File::open("/t").unwrap().sync_all().unwrap();
    db
}

fn put(db: &DB, keys: &[u8], sync: bool, no_wal: bool) {
    let mut batch = WriteBatch::default();
    for key in keys {
        batch.put([*key], [*key, *key]);
    }
    let mut options = WriteOptions::default();
    options.set_sync(sync);
    options.disable_wal(no_wal);
    db.write_opt(batch, &options).unwrap();
}

fn keys(db: &DB) -> Vec<u8> {
    let mut iterator = db.raw_iterator_opt(ReadOptions::default());
    iterator.seek_to_first();
    let mut keys = Vec::new();
    while let Some((key, _)) = iterator.item() {
        keys.push(key[0]);
        iterator.next();
    }
    iterator.status().unwrap();
    keys
}

/// The machine stops with the database open, and the power goes.
fn cut(db: DB) -> DB {
    disk::freeze("t");
    drop(db);
    disk::power_cut("t");
    open("/t/db")
}

#[test]
fn synced_batches_last_and_the_others_do_so_whole_and_in_order() {
    let _alone = alone();
    let mut seen = BTreeMap::new();
    for seed in 0..200 {
        fresh(seed);
        let db = open("/t/db");
        put(&db, &[1, 2], true, false);
        put(&db, &[3, 4], false, false);
        put(&db, &[5, 6], false, false);
        let found = keys(&cut(db));
        *seen.entry(found).or_insert(0) += 1;
    }
    let expected = [vec![1, 2], vec![1, 2, 3, 4], vec![1, 2, 3, 4, 5, 6]];
    assert!(seen.keys().eq(&expected), "{seen:?}");
}

#[test]
fn without_a_write_ahead_log_a_flush_is_what_lasts() {
    let _alone = alone();
    for seed in 0..50 {
        fresh(seed);
        let db = open("/t/db");
        put(&db, &[1], false, true);
        db.flush().unwrap();
        put(&db, &[2], false, true);
        assert_eq!(keys(&cut(db)), [1]);
    }
}

#[test]
fn closing_flushes_and_a_second_opening_is_refused() {
    let _alone = alone();
    fresh(1);
    let db = open("/t/db");
    put(&db, &[1], false, true);
    assert!(DB::open(&Options::default(), "/t/db").is_err());
    drop(db);
    assert_eq!(keys(&open("/t/db")), [1]);
}

#[test]
fn a_crash_at_any_operation_leaves_a_database_with_all_that_was_synced() {
    let _alone = alone();
    for operations in 0..60 {
        fresh(operations);
        let db = open("/t/db");
        put(&db, &[1], true, false);
        disk::freeze_after("t", operations);
        let mut synced = vec![1];
        for key in 2..6 {
            let mut batch = WriteBatch::default();
            batch.put([key], [key]);
            let mut options = WriteOptions::default();
            options.set_sync(true);
            if db.write_opt(batch, &options).is_ok() {
                synced.push(key);
            }
            let _may_fail = db.flush();
        }
        let found = keys(&cut(db));
        assert!(found.starts_with(&synced), "{operations}: {found:?} lacks some of {synced:?}");
    }
}

#[test]
fn damage_in_the_middle_is_refused() {
    let _alone = alone();
    fresh(1);
    let db = open("/t/db");
    put(&db, &[1], true, false);
    drop(db);
    let table = disk::fs::read_dir("/t/db").unwrap().map(|entry| entry.unwrap().path());
    let table =
        table.filter(|path| path.extension().is_some_and(|ext| ext == "sst")).last().unwrap();
    let mut content = disk::fs::read(&table).unwrap();
    content.push(0);
    disk::fs::write(&table, content).unwrap();
    assert!(DB::open(&Options::default(), "/t/db").is_err());
}

#[test]
fn a_checkpoint_and_a_snapshot_do_not_change() {
    let _alone = alone();
    fresh(1);
    let db = open("/t/db");
    put(&db, &[1], false, true);
    let snapshot = db.snapshot();
    Checkpoint::new(&db).unwrap().create_checkpoint("/t/copy").unwrap();
    put(&db, &[2], false, true);
    assert!(snapshot.get([2]).unwrap().is_none() && db.get([2]).unwrap().is_some());
    let copy = DB::open_for_read_only(&Options::default(), "/t/copy", true).unwrap();
    assert_eq!(keys(&copy), [1]);
}

#[test]
fn iterators_keep_their_bounds_both_ways() {
    let _alone = alone();
    fresh(1);
    let db = open("/t/db");
    put(&db, &[1, 3, 5, 7], false, true);
    let mut options = ReadOptions::default();
    options.set_iterate_lower_bound([2]);
    options.set_iterate_upper_bound([7]);
    let mut iterator = db.raw_iterator_opt(options);
    iterator.seek_to_last();
    let mut found = Vec::new();
    while let Some((key, _)) = iterator.item() {
        found.push(key[0]);
        iterator.prev();
    }
    assert_eq!(found, [5, 3]);
    iterator.seek([4]);
    assert_eq!(iterator.item().map(|(key, _)| key[0]), Some(5));
}

#[test]
fn a_vote_that_is_not_synced_can_be_lost() {
    let _alone = alone();
    simulated::set_defect(Some(Defect::VoteNotSynced));
    let mut lost = 0;
    for seed in 0..50 {
        fresh(seed);
        let db = open("/t/db");
        let mut batch = WriteBatch::default();
        batch.put(b"\x00vote", b"1");
        let mut options = WriteOptions::default();
        options.set_sync(true);
        db.write_opt(batch, &options).unwrap();
        let known = simulated::durable("/t/db".as_ref(), b"\x00vote").is_some();
        assert!(!known, "what is not synced does not count as durable");
        lost += u32::from(keys(&cut(db)).is_empty());
    }
    assert!(lost > 0);
    simulated::set_defect(None);
}

#[test]
fn a_recovery_can_be_made_to_lack_a_record() {
    let _alone = alone();
    simulated::set_defect(Some(Defect::RecoveryLacksRecord));
    fresh(1);
    let db = open("/t/db");
    put(&db, &[1], true, false);
    put(&db, &[2], true, false);
    assert_eq!(keys(&cut(db)), [1]);
    simulated::set_defect(None);
}
