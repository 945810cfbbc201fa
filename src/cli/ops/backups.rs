//! Whether there are backups, how old the newest is, and whether files are whole.

use std::path::{Path, PathBuf};

use super::source::{Reading, Source};
use super::{Check, Outcome};
use crate::Usage;

const BACKUP: &str = "backup";
const FILE: &str = "backup file";
/// A day and some hours: the nodes make one a day.
const AGE_ATTENTION_SECONDS: u64 = 26 * 3_600;
const AGE_FAILED_SECONDS: u64 = 50 * 3_600;
/// The newest ones are read to their ends.
const FILES_MAX: usize = 5;
/// Names in a folder that are looked at.
const NAMES_MAX: usize = 10_000;

/// Those that the nodes say they keep.
pub(crate) async fn kept(source: &Source, now: u64) -> Vec<Check> {
    if let Source::Nowhere(reason) = source {
        return vec![Check::skipped(BACKUP, reason)];
    }
    match source.readings("backup_last_success_timestamp_seconds").await {
        Ok(readings) if readings.is_empty() => {
            vec![Check::new(BACKUP, "", Outcome::Failed, "no node tells of its backups")]
        }
        Ok(readings) => readings.into_iter().map(|reading| newest(reading, now)).collect(),
        Err(error) => vec![Check::broken(BACKUP, &error)],
    }
}

fn newest(reading: Reading, now: u64) -> Check {
    if reading.value <= 0.0 {
        return Check::new(BACKUP, reading.instance, Outcome::Failed, "it has none");
    }
    let (result, found) = age((now as f64 - reading.value).max(0.0));
    Check::new(BACKUP, reading.instance, result, found)
}

fn age(seconds: f64) -> (Outcome, String) {
    let result = Outcome::at(seconds, AGE_ATTENTION_SECONDS as f64, AGE_FAILED_SECONDS as f64);
    (result, format!("the newest is {:.0} h old", seconds / 3_600.0))
}

/// The newest files of a data directory on this machine, each read through.
///
/// # Errors
/// A directory that cannot be listed is wrong usage.
pub(crate) fn check(data_dir: &Path, now: u64) -> Result<Vec<Check>, Usage> {
    let folder = data_dir.join("backups");
    let shown = folder.display();
    let wrong = |error| Usage(format!("--data-dir: {shown}: {error}"));
    let mut names: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(&folder).map_err(wrong)?.take(NAMES_MAX) {
        let path = entry.map_err(wrong)?.path();
        if path.extension().is_some_and(|ending| ending == "backup") {
            names.push(path);
        }
    }
    // Their names begin with a number that counts down: the newest comes first.
    names.sort();
    if names.is_empty() {
        let found = format!("{shown} holds none");
        return Ok(vec![Check::new(FILE, "", Outcome::Failed, found)]);
    }
    let newest = names.iter().take(FILES_MAX).enumerate();
    Ok(newest.map(|(index, path)| file(path, index == 0, now)).collect())
}

/// Only of the newest the age matters.
fn file(path: &Path, newest: bool, now: u64) -> Check {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    match llm_config_archive::verify(path) {
        Err(error) => Check::new(FILE, name, Outcome::Failed, error.to_string()),
        Ok(summary) => {
            let whole = format!(
                "whole: revision {}, {} bytes",
                summary.manifest.revision, summary.file_bytes
            );
            if !newest {
                return Check::new(FILE, name, Outcome::Ok, whole);
            }
            let made = summary.manifest.created_at_ms / 1_000;
            let (result, age) = age(now.saturating_sub(made) as f64);
            Check::new(FILE, name, result, format!("{whole}; {age}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use llm_config_archive::{Manifest, Writer};

    use super::*;

    const NOW: u64 = 1_769_860_800;

    fn put(folder: &Path, name: &str, age_hours: u64) -> PathBuf {
        let manifest = Manifest {
            product_version: "0.1.0".into(),
            cluster_id: "c".into(),
            node_id: 1,
            revision: 7,
            applied_term: 1,
            applied_index: 9,
            created_at_ms: (NOW - age_hours * 3_600) * 1_000,
            history_limit: 10,
            voters: BTreeMap::from([(1, "a:1".to_owned())]),
        };
        let path = folder.join(name);
        let file = std::fs::File::create(&path).unwrap();
        Writer::new(file, &manifest).unwrap().finish().unwrap();
        path
    }

    #[test]
    fn the_newest_files_are_read_through() {
        let data = tempfile::tempdir().unwrap();
        assert!(check(data.path(), NOW).is_err(), "no such folder");
        let folder = data.path().join("backups");
        std::fs::create_dir(&folder).unwrap();
        assert_eq!(check(data.path(), NOW).unwrap()[0].result, Outcome::Failed);
        for age in 1..=7 {
            put(&folder, &format!("{age}-x.backup"), age);
        }
        std::fs::write(folder.join(".tmp-1"), "half").unwrap();
        let checks = check(data.path(), NOW).unwrap();
        assert_eq!(checks.len(), 5);
        assert!(checks.iter().all(|check| check.result == Outcome::Ok), "{checks:?}");
        assert!(checks[0].found.contains("revision 7") && checks[0].found.contains("1 h old"));
        let third = folder.join("3-x.backup");
        let bytes = std::fs::read(&third).unwrap();
        std::fs::write(&third, &bytes[..bytes.len() - 1]).unwrap();
        assert_eq!(check(data.path(), NOW).unwrap()[2].result, Outcome::Failed);
    }

    #[test]
    fn an_old_backup_is_none() {
        let reading = |hours: u64| Reading {
            instance: "a".into(),
            labels: BTreeMap::new(),
            value: (NOW - hours * 3_600) as f64,
        };
        let result = |hours| newest(reading(hours), NOW).result;
        assert_eq!(
            [1, 25, 26, 49, 50].map(result),
            [Outcome::Ok, Outcome::Ok, Outcome::Attention, Outcome::Attention, Outcome::Failed]
        );
        let none = Reading { value: 0.0, ..reading(1) };
        assert_eq!(newest(none, NOW).found, "it has none");
    }
}
