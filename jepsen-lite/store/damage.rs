//! Damage to the files of a stopped node: every kind of file, every kind of harm.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};

const PAGE_BYTES: u64 = 4096;
/// Places that are tried for a page that is not empty already.
const TRIES: usize = 8;

/// What is done to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Harm {
    /// One bit of it is another.
    Flip,
    /// A page of it is empty.
    Zero,
    /// Its end is missing.
    Cut,
    /// It is gone.
    Delete,
    /// It and another have changed places.
    Swap,
    /// An older copy of it is back.
    Older,
}

impl Harm {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Flip, Self::Zero, Self::Cut, Self::Delete, Self::Swap, Self::Older];

    /// In a word or two.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Flip => "bit flipped",
            Self::Zero => "page zeroed",
            Self::Cut => "end cut",
            Self::Delete => "deleted",
            Self::Swap => "swapped",
            Self::Older => "older copy",
        }
    }
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// In words.
    pub what: String,
    /// The files that are not what they were, by their path in the directory.
    pub touched: Vec<PathBuf>,
}

/// Every kind of file that [`kind`] tells apart.
pub const KINDS: [&str; 21] = [
    "identity",
    "watermark",
    "CURRENT-STATE",
    "CURRENT-SNAPSHOT",
    "other",
    "log: write-ahead log",
    "log: table",
    "log: manifest",
    "log: CURRENT",
    "log: options",
    "log: other",
    "state: write-ahead log",
    "state: table",
    "state: manifest",
    "state: CURRENT",
    "state: options",
    "state: other",
    "snapshot: table",
    "snapshot: manifest",
    "snapshot: CURRENT",
    "snapshot: options",
];

/// Which of [`KINDS`] a file of a data directory is, by its path in it.
#[must_use]
pub fn kind(path: &Path) -> &'static str {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let folder = path.parent().and_then(Path::to_str).unwrap_or_default();
    let folder = folder.split('-').next().unwrap_or_default();
    let what = if name.ends_with(".log") {
        "write-ahead log"
    } else if name.ends_with(".sst") {
        "table"
    } else if name.starts_with("MANIFEST-") {
        "manifest"
    } else if name == "CURRENT" {
        "CURRENT"
    } else if name.starts_with("OPTIONS-") {
        "options"
    } else {
        "other"
    };
    let wanted = if folder.is_empty() { name.into_owned() } else { format!("{folder}: {what}") };
    KINDS.iter().copied().find(|kind| *kind == wanted).unwrap_or("other")
}

/// The files of a folder, by their path in it. What vanishes meanwhile is left out.
///
/// # Errors
/// When a folder cannot be read.
pub fn files(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", folder.display()));
            }
        };
        for entry in entries {
            let Ok(entry) = entry else { continue };
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(inside) = path.strip_prefix(root) {
                found.push(inside.to_path_buf());
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Copies a folder; files that are one in it are one in the copy. What vanishes meanwhile is left out.
///
/// # Errors
/// When something cannot be read or written.
pub fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    let mut copied: BTreeMap<(u64, u64), PathBuf> = BTreeMap::new();
    fs::create_dir_all(to)?;
    for inside in files(from)? {
        let (source, target) = (from.join(&inside), to.join(&inside));
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        let Ok(metadata) = fs::metadata(&source) else { continue };
        let same = copied.entry((metadata.dev(), metadata.ino())).or_insert_with(|| target.clone());
        let done = if *same == target {
            fs::copy(&source, &target).map(drop)
        } else {
            fs::hard_link(same, &target)
        };
        match done {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            done => done.with_context(|| format!("cannot copy {}", source.display()))?,
        }
    }
    Ok(())
}

/// Puts right what was damaged, from the directory that `data` was a copy of.
///
/// # Errors
/// When a file cannot be read or written.
pub fn mend(data: &Path, origin: &Path, damage: &Damage) -> anyhow::Result<()> {
    for inside in &damage.touched {
        let (path, whole) = (data.join(inside), origin.join(inside));
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        // The refusal may have taken its folder away; what is missing then, the next start shows.
        if whole.exists() && path.parent().is_some_and(Path::is_dir) {
            fs::copy(&whole, &path)?;
        }
    }
    Ok(())
}

/// Does harm to a file of a kind in `data`. `older` is the same directory as it was a while before. Says what was done;
/// nothing when there is no such file, or it is the same afterwards.
///
/// # Errors
/// When a file cannot be read or written.
pub fn damage(
    data: &Path,
    older: &Path,
    of: &str,
    harm: Harm,
    chance: &mut StdRng,
) -> anyhow::Result<Option<Damage>> {
    if harm == Harm::Older {
        return put_back(data, older, of, chance);
    }
    let all = files(data)?;
    let candidates: Vec<&PathBuf> = all.iter().filter(|path| kind(path) == of).collect();
    let Some(inside) = candidates.choose(chance) else { return Ok(None) };
    let path = data.join(inside);
    let size = fs::metadata(&path)?.len();
    let name = inside.display();
    let here = |what: String, all: &[PathBuf]| -> anyhow::Result<Option<Damage>> {
        Ok(Some(Damage { what, touched: linked(data, inside, all)? }))
    };
    if size == 0 && harm != Harm::Delete {
        return Ok(None);
    }
    match harm {
        Harm::Flip => {
            let file = File::options().read(true).write(true).open(&path)?;
            let at = chance.random_range(0..size);
            let bit = chance.random_range(0..8);
            let mut byte = [0];
            file.read_exact_at(&mut byte, at)?;
            file.write_all_at(&[byte[0] ^ (1 << bit)], at)?;
            here(format!("bit {bit} of byte {at} of {size} of {name} flipped"), &all)
        }
        Harm::Zero => {
            let file = File::options().read(true).write(true).open(&path)?;
            for _ in 0..TRIES {
                let at = chance.random_range(0..size) / PAGE_BYTES * PAGE_BYTES;
                let mut page = vec![0; usize::try_from(PAGE_BYTES.min(size - at))?];
                file.read_exact_at(&mut page, at)?;
                if page.iter().any(|byte| *byte != 0) {
                    file.write_all_at(&vec![0; page.len()], at)?;
                    return here(
                        format!("{} bytes at {at} of {size} of {name} zeroed", page.len()),
                        &all,
                    );
                }
            }
            Ok(None)
        }
        Harm::Cut => {
            // A little of it as often as much of it: the end is where the newest is.
            let left = if chance.random_bool(0.5) {
                size - chance.random_range(1..=size.min(200))
            } else {
                chance.random_range(0..size)
            };
            File::options().write(true).open(&path)?.set_len(left)?;
            here(format!("{name} cut from {size} to {left} bytes"), &all)
        }
        Harm::Delete => {
            fs::remove_file(&path)?;
            Ok(Some(Damage {
                what: format!("{name} deleted"),
                touched: vec![inside.to_path_buf()],
            }))
        }
        Harm::Swap => swap(data, inside, &all, chance),
        Harm::Older => Ok(None),
    }
}

/// The paths of a file that is damaged in place: a table of the state may be one of the snapshot too.
fn linked(data: &Path, inside: &Path, all: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let number =
        |path: &Path| fs::metadata(data.join(path)).map(|found| (found.dev(), found.ino()));
    let own = number(inside)?;
    Ok(all.iter().filter(|path| number(path).is_ok_and(|number| number == own)).cloned().collect())
}

/// With another one of its kind, if there is one that differs.
fn swap(
    data: &Path,
    inside: &Path,
    all: &[PathBuf],
    chance: &mut StdRng,
) -> anyhow::Result<Option<Damage>> {
    let path = data.join(inside);
    let content = fs::read(&path)?;
    let mut others: Vec<&PathBuf> = all.iter().filter(|other| *other != inside).collect();
    others.shuffle(chance);
    let file_kind = |path: &Path| kind(path).rsplit(": ").next().unwrap_or_default();
    // Of the same kind first, of whichever database; `sort_by_key` keeps the order of chance otherwise.
    others.sort_by_key(|other| file_kind(other) != file_kind(inside));
    for other in others {
        let beside = data.join(other);
        if fs::read(&beside)? == content {
            continue;
        }
        let aside = data.join("swapping");
        fs::rename(&path, &aside)?;
        fs::rename(&beside, &path)?;
        fs::rename(&aside, &beside)?;
        let what = format!("{} and {} swapped", inside.display(), other.display());
        return Ok(Some(Damage { what, touched: vec![inside.to_path_buf(), other.clone()] }));
    }
    Ok(None)
}

/// Also a file that has been deleted since.
fn put_back(
    data: &Path,
    older: &Path,
    of: &str,
    chance: &mut StdRng,
) -> anyhow::Result<Option<Damage>> {
    let mut known = files(older)?;
    known.shuffle(chance);
    for inside in known.iter().filter(|path| kind(path) == of) {
        let (path, before) = (data.join(inside), fs::read(older.join(inside))?);
        let now = fs::read(&path).ok();
        if now.as_ref() == Some(&before) || !path.parent().is_some_and(Path::is_dir) {
            continue;
        }
        // Another file, as whoever puts a copy back makes one: what is linked to the old one stays.
        let _ = fs::remove_file(&path);
        fs::write(&path, &before)?;
        let was = now.map_or("deleted since".to_owned(), |now| format!("{} bytes now", now.len()));
        let name = inside.display();
        let what = format!("an older copy of {name} put back: {} bytes, {was}", before.len());
        return Ok(Some(Damage { what, touched: vec![inside.to_path_buf()] }));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    /// A directory and an older one, with one file that differs.
    fn folders() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let (data, older) = (root.path().join("data"), root.path().join("older"));
        for (folder, wal) in [(&data, "new, and long"), (&older, "old")] {
            fs::create_dir_all(folder.join("log")).unwrap();
            fs::write(folder.join("log/000004.log"), wal).unwrap();
            fs::write(folder.join("log/000002.log"), "another").unwrap();
            fs::write(folder.join("identity"), "node").unwrap();
        }
        (root, data, older)
    }

    fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        let read = |path: PathBuf| (path.clone(), fs::read(folder.join(path)).unwrap());
        files(folder).unwrap().into_iter().map(read).collect()
    }

    #[test]
    fn every_harm_is_one() {
        for harm in Harm::ALL {
            for seed in 0..20 {
                let (root, origin, older) = folders();
                fs::hard_link(origin.join("log/000004.log"), origin.join("linked")).unwrap();
                let data = root.path().join("copy");
                copy(&origin, &data).unwrap();
                let before = contents(&data);
                let chance = &mut StdRng::seed_from_u64(seed);
                let what = damage(&data, &older, "log: write-ahead log", harm, chance).unwrap();
                assert!(what.is_some() && contents(&data) != before, "{harm:?} {what:?}");
                mend(&data, &origin, &what.unwrap()).unwrap();
                assert_eq!(contents(&data), before, "{harm:?}");
            }
        }
    }

    #[test]
    fn what_is_not_there_or_the_same_is_not_damaged() {
        let (_root, data, older) = folders();
        let before = contents(&data);
        let chance = &mut StdRng::seed_from_u64(1);
        assert_eq!(damage(&data, &older, "log: table", Harm::Flip, chance).unwrap(), None);
        assert_eq!(damage(&data, &older, "identity", Harm::Older, chance).unwrap(), None);
        assert_eq!(contents(&data), before);
    }

    #[test]
    fn a_copy_keeps_what_is_linked() {
        let (root, data, _) = folders();
        fs::hard_link(data.join("log/000004.log"), data.join("linked")).unwrap();
        let to = root.path().join("copy");
        copy(&data, &to).unwrap();
        assert_eq!(contents(&to), contents(&data));
        fs::write(to.join("linked"), "both").unwrap();
        assert_eq!(fs::read(to.join("log/000004.log")).unwrap(), b"both");
        assert_eq!(fs::read(data.join("linked")).unwrap(), b"new, and long");
    }

    #[test]
    fn files_are_told_apart() {
        for (path, is) in [
            ("identity", "identity"),
            ("LOCK", "other"),
            ("log/000012.log", "log: write-ahead log"),
            ("log/LOG.old.17", "log: other"),
            ("state-0a1b/000012.sst", "state: table"),
            ("snapshot-0a1b/MANIFEST-000004", "snapshot: manifest"),
            ("snapshot-0a1b/OPTIONS-000004", "snapshot: options"),
            ("state-0a1b/CURRENT", "state: CURRENT"),
        ] {
            assert_eq!(kind(Path::new(path)), is, "{path}");
        }
    }
}
