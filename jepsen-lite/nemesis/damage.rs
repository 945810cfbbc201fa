//! What can become of the files of a stopped node: bytes change, files get shorter, disappear or change places.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;

const PAGE_BYTES: u64 = 4096;

/// The files below a folder that hold something.
fn files(folder: &Path, found: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if entry.file_type()?.is_dir() {
            files(&entry.path(), found)?;
        } else if entry.metadata()?.len() > 0 && !name.starts_with("LOG") && name != "LOCK" {
            // The storage engine's own diary and its lock hold nothing that is read again.
            found.push(entry.path());
        }
    }
    Ok(())
}

fn has_ending(path: &Path, ending: &str) -> bool {
    path.extension().is_some_and(|extension| extension == ending)
}

/// Does one of these to the files below `data`, and tells what.
///
/// # Errors
/// When there is nothing to damage.
pub fn damage(data: &Path, chance: &mut StdRng) -> anyhow::Result<String> {
    let mut found = Vec::new();
    files(data, &mut found)?;
    found.sort();
    let path = found.choose(chance).context("there are no files to damage")?;
    match chance.random_range(0..10) {
        0..=2 => flip(data, path, chance),
        3 => noise(data, path, chance, true),
        4 => noise(data, path, chance, false),
        5 => cut(data, path, chance),
        6 => remove(data, path),
        7 => {
            // What was written last, and is nowhere else.
            let journals = found.iter().filter(|path| has_ending(path, "log"));
            let newest =
                journals.max_by_key(|path| fs::metadata(path).and_then(|it| it.modified()).ok());
            remove(data, newest.unwrap_or(path))
        }
        _ => {
            let like = |other: &&PathBuf| *other != path && other.extension() == path.extension();
            let others: Vec<_> = found.iter().filter(like).collect();
            match others.choose(chance) {
                Some(other) => swap(data, path, other),
                None => remove(data, path),
            }
        }
    }
}

fn within(data: &Path, path: &Path) -> String {
    path.strip_prefix(data).unwrap_or(path).display().to_string()
}

fn open(path: &Path) -> anyhow::Result<(File, u64)> {
    let file = File::options().read(true).write(true).open(path)?;
    let size = file.metadata()?.len();
    ensure!(size > 0, "{} is empty", path.display());
    Ok((file, size))
}

fn flip(data: &Path, path: &Path, chance: &mut StdRng) -> anyhow::Result<String> {
    let (file, size) = open(path)?;
    let at = chance.random_range(0..size);
    let mut byte = [0];
    file.read_exact_at(&mut byte, at)?;
    let bit = chance.random_range(0..8);
    file.write_all_at(&[byte[0] ^ (1 << bit)], at)?;
    file.sync_all()?;
    Ok(format!("bit {bit} of byte {at} of {size} in {} flipped", within(data, path)))
}

fn noise(data: &Path, path: &Path, chance: &mut StdRng, zero: bool) -> anyhow::Result<String> {
    let (file, size) = open(path)?;
    let at = chance.random_range(0..size) / PAGE_BYTES * PAGE_BYTES;
    let count = PAGE_BYTES.min(size - at);
    let bytes: Vec<u8> = (0..count).map(|_| if zero { 0 } else { chance.random() }).collect();
    file.write_all_at(&bytes, at)?;
    file.sync_all()?;
    let what = if zero { "zero" } else { "noise" };
    Ok(format!("{count} bytes at {at} of {size} in {} are {what}", within(data, path)))
}

fn cut(data: &Path, path: &Path, chance: &mut StdRng) -> anyhow::Result<String> {
    let (file, size) = open(path)?;
    let at = chance.random_range(0..size);
    file.set_len(at)?;
    file.sync_all()?;
    Ok(format!("{} cut from {size} to {at} bytes", within(data, path)))
}

fn sync_folder(path: &Path) -> anyhow::Result<()> {
    let folder = path.parent().context("a file without a folder")?;
    Ok(File::open(folder)?.sync_all()?)
}

fn remove(data: &Path, path: &Path) -> anyhow::Result<String> {
    let size = fs::metadata(path)?.len();
    fs::remove_file(path)?;
    sync_folder(path)?;
    Ok(format!("{} of {size} bytes removed", within(data, path)))
}

fn swap(data: &Path, one: &Path, other: &Path) -> anyhow::Result<String> {
    let aside = one.with_extension("swap");
    fs::rename(one, &aside)?;
    fs::rename(other, one)?;
    fs::rename(&aside, other)?;
    sync_folder(one)?;
    sync_folder(other)?;
    Ok(format!("{} and {} swapped", within(data, one), within(data, other)))
}

/// Puts the parts of an older copy in the place of those below `data`: the log, or the state with its snapshots. What
/// the other part and the watermark say is newer then.
///
/// # Errors
/// When there is no such part.
pub fn age(data: &Path, old: &Path, log: bool) -> anyhow::Result<String> {
    let is_part = |name: &str| {
        if log {
            name == "log"
        } else {
            ["state-", "snapshot-", "CURRENT-"].iter().any(|start| name.starts_with(start))
        }
    };
    let parts = |folder: &Path| -> anyhow::Result<Vec<PathBuf>> {
        let mut parts = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if is_part(&entry.file_name().to_string_lossy()) {
                parts.push(entry.path());
            }
        }
        Ok(parts)
    };
    for part in parts(data)? {
        if part.is_dir() { fs::remove_dir_all(&part) } else { fs::remove_file(&part) }?;
    }
    let from = parts(old)?;
    ensure!(!from.is_empty(), "{} has no such part", old.display());
    for part in from {
        let to = data.join(part.file_name().context("a part without a name")?);
        crate::lab::command::run("cp", ["-a".as_ref(), part.as_os_str(), to.as_os_str()])?;
    }
    File::open(data)?.sync_all()?;
    Ok(format!("{} is an old copy", if log { "the log" } else { "the state" }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;
    use std::collections::BTreeMap;

    fn content(folder: &Path) -> BTreeMap<String, Vec<u8>> {
        let mut found = Vec::new();
        files(folder, &mut found).unwrap();
        found.iter().map(|path| (within(folder, path), fs::read(path).unwrap())).collect()
    }

    #[test]
    fn every_damage_changes_something_that_counts() {
        for seed in 0..200 {
            let folder = tempfile::tempdir().unwrap();
            let log = folder.path().join("log");
            fs::create_dir(&log).unwrap();
            for (name, byte) in
                [("1.sst", 1), ("2.sst", 2), ("3.log", 3), ("CURRENT", 4), ("LOG", 5)]
            {
                fs::write(log.join(name), vec![byte; 5000]).unwrap();
            }
            let before = content(folder.path());
            let words = damage(folder.path(), &mut StdRng::seed_from_u64(seed)).unwrap();
            assert_ne!(content(folder.path()), before, "{words}");
        }
    }

    #[test]
    fn an_old_copy_takes_the_place_of_its_part_only() {
        let folder = tempfile::tempdir().unwrap();
        let (data, old) = (folder.path().join("data"), folder.path().join("old"));
        for (root, word) in [(&data, "new"), (&old, "old")] {
            for name in ["log/1", "state-1/1", "CURRENT-STATE", "watermark"] {
                let path = root.join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, word).unwrap();
            }
        }
        age(&data, &old, true).unwrap();
        let word = |name: &str| fs::read_to_string(data.join(name)).unwrap();
        assert_eq!([word("log/1"), word("state-1/1"), word("watermark")], ["old", "new", "new"]);
        age(&data, &old, false).unwrap();
        assert_eq!(
            [word("state-1/1"), word("CURRENT-STATE"), word("watermark")],
            ["old", "old", "new"]
        );
    }
}
