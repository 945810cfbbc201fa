//! The folder of kept backups: how a complete file is called, which files are complete, which go.
//!
//! `{9999999999 − seconds}-{YYYYMMDDTHHMMSSZ}-r{revision}.backup`: sorted by name, the newest comes first. A file gets
//! such a name by rename, once it is whole and on the disk; everything else in the folder is somebody else's, except
//! `.tmp-…`, which a crash left behind.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// What the seconds are subtracted from: the last second with ten digits, in the year 2286.
const SECONDS_MAX: u64 = 9_999_999_999;
const DIGITS: usize = 10;
const EXTENSION: &str = ".backup";
/// How a file that is being written is called.
pub(super) const TEMPORARY: &str = ".tmp-";
/// Backups that a listing names: more than can be kept, so that a folder full of other files costs no memory.
const LISTED_MAX: usize = 10_000;

/// A complete backup in the data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Name of the file in `DIR/backups`.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// Store revision that it holds.
    pub revision: u64,
    /// When it was made, in seconds since the Unix epoch.
    pub created_at_s: u64,
}

/// The complete backups in a folder, newest first. A folder that is not there has none.
pub(super) fn list(folder: &Path) -> io::Result<Vec<Kept>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut kept = Vec::new();
    for entry in entries {
        let entry = entry?;
        let Some((name, created_at_s, revision)) = entry.file_name().to_str().and_then(parse)
        else {
            continue;
        };
        // One that is deleted meanwhile is no error.
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_file() && kept.len() < LISTED_MAX {
            kept.push(Kept { name, bytes: metadata.len(), revision, created_at_s });
        }
    }
    kept.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(kept)
}

/// The name of a backup made at a time.
pub(super) fn name(created_at_s: u64, revision: u64) -> String {
    let inverted = SECONDS_MAX.saturating_sub(created_at_s);
    format!("{inverted:0DIGITS$}-{}-r{revision}{EXTENSION}", stamp(created_at_s))
}

/// A time in seconds since the Unix epoch as part of a file's name: `20260131T235959Z`.
#[must_use]
pub fn stamp(seconds: u64) -> String {
    let at = i64::try_from(seconds).ok().and_then(|s| Timestamp::from_second(s).ok());
    let at = at.unwrap_or(Timestamp::UNIX_EPOCH).to_zoned(TimeZone::UTC);
    format!(
        "{:04}{:02}{:02}T{:02}{:02}{:02}Z",
        at.year(),
        at.month(),
        at.day(),
        at.hour(),
        at.minute(),
        at.second()
    )
}

/// Name, seconds and revision, if it is the name of a complete backup, written exactly as we write it.
fn parse(text: &str) -> Option<(String, u64, u64)> {
    let (inverted, rest) = text.split_once('-')?;
    let (_, rest) = rest.split_once("-r")?;
    let revision: u64 = rest.strip_suffix(EXTENSION)?.parse().ok()?;
    let seconds = SECONDS_MAX.checked_sub(inverted.parse().ok()?)?;
    (name(seconds, revision) == text).then(|| (text.to_owned(), seconds, revision))
}

/// Deletes the oldest files beyond `keep`. Called after a newer one is complete, never before.
pub(super) fn retain(folder: &Path, keep: usize) -> io::Result<()> {
    for old in list(folder)?.iter().skip(keep.max(1)) {
        fs::remove_file(folder.join(&old.name))?;
    }
    Ok(())
}

/// Deletes what a crash left half-written.
pub(super) fn sweep(folder: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Makes a change of names in a folder durable.
pub(super) fn sync_dir(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorted_by_name_the_newest_comes_first() {
        let folder = tempfile::tempdir().unwrap();
        for (seconds, revision) in [(1_700_000_000, 9), (1_800_000_000, 11), (1_700_000_001, 10)] {
            fs::write(folder.path().join(name(seconds, revision)), "x").unwrap();
        }
        let listed = list(folder.path()).unwrap();
        let revisions: Vec<_> = listed.iter().map(|kept| kept.revision).collect();
        assert_eq!(revisions, [11, 10, 9]);
        assert_eq!(listed[0].created_at_s, 1_800_000_000);
        assert_eq!(listed[0].name, "8199999999-20270115T080000Z-r11.backup");
    }

    #[test]
    fn only_complete_backups_are_listed_and_nobody_elses_file_is_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let others = [
            ".tmp-1",
            "notes.txt",
            "8199999999-20270115T080000Z-r11.backup.part",
            "8199999999-20270115T080001Z-r11.backup",
            "8199999999-20270115T080000Z-r011.backup",
            "x-20270115T080000Z-r11.backup",
        ];
        for other in others {
            fs::write(folder.path().join(other), "x").unwrap();
        }
        for seconds in 1..=4 {
            fs::write(folder.path().join(name(seconds, seconds)), "x").unwrap();
        }
        retain(folder.path(), 2).unwrap();
        let left: Vec<_> = list(folder.path()).unwrap().iter().map(|kept| kept.revision).collect();
        assert_eq!(left, [4, 3]);
        sweep(folder.path()).unwrap();
        assert!(!folder.path().join(others[0]).exists());
        assert!(others[1..].iter().all(|other| folder.path().join(other).exists()));
    }

    #[test]
    fn a_folder_that_is_not_there_is_empty() {
        let folder = tempfile::tempdir().unwrap();
        let absent = folder.path().join("absent");
        assert_eq!(list(&absent).unwrap(), []);
        assert!(sweep(&absent).is_ok() && retain(&absent, 1).is_ok());
    }
}
