//! What survives.

use std::io::Write as _;

use crate::fs::{self, File};
use crate::{Defect, add, power_cut, restart, seed, set_defect};

/// One test at a time: the disks are those of the process.
fn alone() -> std::sync::MutexGuard<'static, ()> {
    static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let held = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    set_defect(None);
    held
}

fn sync_dir(path: &str) {
    File::open(path).unwrap().sync_all().unwrap();
}

#[test]
fn a_power_cut_leaves_what_was_synced_and_a_prefix_of_the_rest() {
    let _alone = alone();
    let mut found = std::collections::BTreeSet::new();
    for number in 0..200 {
        seed(number);
        add("t");
        let mut file = File::create("/t/file").unwrap();
        sync_dir("/t");
        file.write_all(b"synced").unwrap();
        file.sync_all().unwrap();
        file.write_all(b"-one").unwrap();
        file.write_all(b"-two").unwrap();
        power_cut("t");
        found.insert(fs::read_to_string("/t/file").unwrap());
    }
    assert!(
        found.iter().all(|text| text.starts_with("synced") && "synced-one-two".starts_with(text)),
        "{found:?}"
    );
    for expected in ["synced", "synced-one", "synced-one-two", "synced-o"] {
        assert!(found.contains(expected), "{expected}: {found:?}");
    }
}

#[test]
fn a_name_lasts_when_its_folder_was_synced() {
    let _alone = alone();
    let mut lost = 0;
    for number in 0..100 {
        seed(number);
        add("t");
        fs::create_dir("/t/kept").unwrap();
        sync_dir("/t");
        let mut file = File::create("/t/kept/file").unwrap();
        file.write_all(b"x").unwrap();
        file.sync_all().unwrap();
        sync_dir("/t/kept");
        fs::rename("/t/kept/file", "/t/kept/renamed").unwrap();
        power_cut("t");
        let (old, new) =
            (fs::exists("/t/kept/file").unwrap(), fs::exists("/t/kept/renamed").unwrap());
        assert!(old != new, "a rename is done or not");
        lost += u32::from(old);
    }
    assert!(lost > 0 && lost < 100, "{lost}");
}

#[test]
fn a_program_that_was_killed_finds_everything() {
    let _alone = alone();
    add("t");
    fs::write("/t/file", "unsynced").unwrap();
    restart("t");
    assert_eq!(fs::read_to_string("/t/file").unwrap(), "unsynced");
}

#[test]
fn a_crash_may_come_before_any_operation() {
    let _alone = alone();
    add("t");
    crate::freeze_after("t", 2);
    // The name, then its content, then nothing more.
    fs::write("/t/a", "1").unwrap();
    assert!(fs::write("/t/b", "2").is_err() && crate::is_frozen("t"));
    restart("t");
    assert!(fs::exists("/t/a").unwrap() && !fs::exists("/t/b").unwrap());
}

#[test]
fn what_a_failed_sync_owed_is_never_synced() {
    let _alone = alone();
    let mut lost = 0;
    for number in 0..50 {
        seed(number);
        add("t");
        let mut file = File::create("/t/file").unwrap();
        sync_dir("/t");
        file.write_all(b"owed").unwrap();
        crate::fail_sync_after("t", 0);
        file.sync_all().unwrap_err();
        assert_eq!(fs::read_to_string("/t/file").unwrap(), "owed");
        file.sync_all().unwrap();
        power_cut("t");
        lost += u32::from(fs::read("/t/file").unwrap().is_empty());
    }
    assert!(lost > 0);
}

#[test]
fn a_broken_disk_syncs_nothing() {
    let _alone = alone();
    let mut lost = 0;
    for number in 0..50 {
        seed(number);
        add("t");
        sync_dir("/t");
        let mut file = File::create("/t/file").unwrap();
        sync_dir("/t");
        set_defect(Some(Defect::SyncsNothing));
        file.write_all(b"x").unwrap();
        file.sync_all().unwrap();
        set_defect(None);
        power_cut("t");
        lost += u32::from(fs::read("/t/file").unwrap().is_empty());
    }
    assert!(lost > 0);
}

#[test]
fn a_lock_is_held_until_its_file_is_closed() {
    let _alone = alone();
    add("t");
    let file = File::create("/t/LOCK").unwrap();
    file.try_lock().unwrap();
    let other = File::open("/t/LOCK").unwrap();
    assert!(matches!(other.try_lock(), Err(fs::TryLockError::WouldBlock)));
    drop(file);
    other.try_lock().unwrap();
}
