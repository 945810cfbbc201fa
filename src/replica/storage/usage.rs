//! How many bytes a data directory holds.

use std::collections::BTreeSet;
use std::path::Path;

use crate::machine::fs;
use crate::machine::os::unix::fs::MetadataExt as _;

/// What stands in the directory and is not the node's own store: copies for the operator, and a snapshot in arrival,
/// which replaces what is there and would otherwise count as a second store.
const NOT_COUNTED: [&str; 4] = ["backups", "receive-", "restore-", "recover-"];

/// Bytes of a data directory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Log, state and snapshots.
    pub(crate) total: u64,
    /// The log alone.
    pub(crate) log: u64,
}

/// Measures a directory. A snapshot shares files with the state by hard links; each file counts once.
///
/// Takes paths, not the directory: whoever measures must not keep its lock from a node that has stopped.
pub(crate) fn measure(root: &Path, log: &Path) -> Usage {
    let mut seen = BTreeSet::new();
    let log = size_of(log, &mut seen);
    let Ok(entries) = fs::read_dir(root) else { return Usage { total: log, log } };
    let counted = entries.flatten().filter(|entry| {
        let name = entry.file_name();
        !NOT_COUNTED.iter().any(|start| name.to_string_lossy().starts_with(start))
    });
    let total: u64 = counted.map(|entry| entry_size(&entry, &mut seen)).sum();
    Usage { total: log + total, log }
}

fn size_of(path: &Path, seen: &mut BTreeSet<(u64, u64)>) -> u64 {
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    entries.flatten().map(|entry| entry_size(&entry, seen)).sum()
}

/// A file that vanishes meanwhile counts as nothing.
fn entry_size(entry: &fs::DirEntry, seen: &mut BTreeSet<(u64, u64)>) -> u64 {
    match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => size_of(&entry.path(), seen),
        Ok(metadata) if seen.insert((metadata.dev(), metadata.ino())) => metadata.len(),
        Ok(_) | Err(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::super::directory::Directory;
    use super::*;

    #[test]
    fn hard_links_count_once_and_copies_for_the_operator_do_not_count() {
        let root = tempfile::tempdir().unwrap();
        let (directory, _) = Directory::open(root.path(), 1).unwrap();
        let empty = measure(root.path(), &directory.log());
        let others = ["backups", "receive-1", "restore-1", "recover-1"];
        for folder in ["log", "state-1", "snapshot-1"].into_iter().chain(others) {
            fs::create_dir(root.path().join(folder)).unwrap();
            fs::write(root.path().join(folder).join("own"), [0; 1000]).unwrap();
        }
        let (table, link) =
            (root.path().join("state-1/table.sst"), root.path().join("snapshot-1/table.sst"));
        fs::write(&table, [0; 5000]).unwrap();
        fs::hard_link(&table, &link).unwrap();
        let usage = measure(root.path(), &directory.log());
        assert_eq!((usage.total - empty.total, usage.log), (8000, 1000));
    }
}
