//! One disk: its names, its files, and what may go wrong with it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::time::Duration;

use crate::chance::Chance;
use crate::inode::Inode;
use crate::{Counters, Defect};

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    Folder,
    File(u64),
}

/// A change of a folder.
#[derive(Debug, Clone)]
enum Named {
    Add(String, Entry),
    Remove(String),
    Rename(String, String),
}

type Names = BTreeMap<String, Entry>;

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

fn is_below(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

impl Named {
    /// The folder that has to be synced for it to last.
    fn folder(&self) -> &str {
        match self {
            Self::Add(path, _) | Self::Remove(path) | Self::Rename(_, path) => parent(path),
        }
    }

    fn apply(&self, names: &mut Names) {
        match self {
            Self::Add(path, entry) => {
                names.insert(path.clone(), *entry);
            }
            Self::Remove(path) => {
                names.remove(path);
            }
            Self::Rename(from, to) => {
                if !names.contains_key(from) {
                    return;
                }
                names.retain(|path, _| path != to && !is_below(path, to));
                let moved: Vec<String> = names
                    .keys()
                    .filter(|path| *path == from || is_below(path, from))
                    .cloned()
                    .collect();
                for path in moved {
                    if let Some(entry) = names.remove(&path) {
                        names.insert(format!("{to}{}", &path[from.len()..]), entry);
                    }
                }
            }
        }
    }
}

pub(crate) struct Disk {
    names: Names,
    synced: Names,
    /// What happened to folders and was not synced, oldest first.
    pending: Vec<Named>,
    files: BTreeMap<u64, Inode>,
    next_file: u64,
    pub(crate) frozen: bool,
    pub(crate) freeze_in: Option<u64>,
    pub(crate) fail_sync_in: Option<u64>,
    pub(crate) latency: (Duration, Duration),
    pub(crate) counters: Counters,
}

fn missing() -> io::Error {
    ErrorKind::NotFound.into()
}

impl Disk {
    pub(crate) fn new() -> Self {
        Self {
            names: Names::new(),
            synced: Names::new(),
            pending: Vec::new(),
            files: BTreeMap::new(),
            next_file: 1,
            frozen: false,
            freeze_in: None,
            fail_sync_in: None,
            latency: (Duration::ZERO, Duration::ZERO),
            counters: Counters::default(),
        }
    }

    fn alive(&self) -> io::Result<()> {
        if self.frozen { Err(io::Error::other("the machine is off")) } else { Ok(()) }
    }

    /// Counts an operation that changes something; the machine may stop right before it.
    fn operation(&mut self) -> io::Result<()> {
        self.alive()?;
        self.counters.operations += 1;
        if let Some(left) = &mut self.freeze_in {
            if *left == 0 {
                self.freeze_in = None;
                self.frozen = true;
                return self.alive();
            }
            *left -= 1;
        }
        Ok(())
    }

    /// The root of the disk has no parent, and is always there.
    fn is_root(path: &str) -> bool {
        path.rfind('/') == Some(0)
    }

    pub(crate) fn entry(&self, path: &str) -> io::Result<Entry> {
        self.alive()?;
        if Self::is_root(path) {
            return Ok(Entry::Folder);
        }
        self.names.get(path).copied().ok_or_else(missing)
    }

    fn file_at(&self, path: &str) -> io::Result<u64> {
        match self.entry(path)? {
            Entry::File(id) => Ok(id),
            Entry::Folder => Err(ErrorKind::IsADirectory.into()),
        }
    }

    fn rename_entry(&mut self, change: Named) {
        change.apply(&mut self.names);
        self.pending.push(change);
    }

    fn add(&mut self, path: &str, entry: Entry) -> io::Result<()> {
        if self.entry(path).is_ok() {
            return Err(ErrorKind::AlreadyExists.into());
        }
        if self.entry(parent(path))? != Entry::Folder {
            return Err(ErrorKind::NotADirectory.into());
        }
        self.operation()?;
        self.rename_entry(Named::Add(path.to_owned(), entry));
        Ok(())
    }

    pub(crate) fn open(
        &mut self,
        path: &str,
        create: bool,
        new: bool,
        truncate: bool,
    ) -> io::Result<u64> {
        match self.file_at(path) {
            Ok(_) if new => Err(ErrorKind::AlreadyExists.into()),
            Ok(id) => {
                if truncate {
                    self.operation()?;
                    self.inode(id)?.resize(0);
                }
                Ok(id)
            }
            Err(error) if error.kind() == ErrorKind::NotFound && (create || new) => {
                let id = self.next_file;
                self.add(path, Entry::File(id))?;
                self.next_file += 1;
                self.files.insert(id, Inode::default());
                Ok(id)
            }
            Err(error) => Err(error),
        }
    }

    fn inode(&mut self, id: u64) -> io::Result<&mut Inode> {
        self.files.get_mut(&id).ok_or_else(missing)
    }

    pub(crate) fn content(&self, id: u64) -> io::Result<&[u8]> {
        self.alive()?;
        self.files.get(&id).map(|file| file.content.as_slice()).ok_or_else(missing)
    }

    pub(crate) fn set_length(&mut self, id: u64, length: usize) -> io::Result<()> {
        self.operation()?;
        self.inode(id)?.resize(length);
        Ok(())
    }

    pub(crate) fn write(&mut self, id: u64, offset: usize, bytes: &[u8]) -> io::Result<()> {
        self.operation()?;
        self.inode(id)?.write(offset, bytes);
        Ok(())
    }

    pub(crate) fn sync(
        &mut self,
        id: u64,
        chance: &mut Chance,
        defect: Option<Defect>,
    ) -> io::Result<()> {
        self.operation()?;
        if let Some(left) = &mut self.fail_sync_in {
            if *left == 0 {
                self.fail_sync_in = None;
                self.counters.failed_syncs += 1;
                self.inode(id)?.fail_sync(chance);
                return Err(io::Error::other("Input/output error"));
            }
            *left -= 1;
        }
        if defect != Some(Defect::SyncsNothing) {
            self.inode(id)?.sync();
        }
        Ok(())
    }

    pub(crate) fn is_synced(&self, id: u64) -> bool {
        self.files.get(&id).is_some_and(Inode::is_synced)
    }

    /// Two holders of one lock are two programs on one disk.
    pub(crate) fn lock(&mut self, id: u64) -> io::Result<bool> {
        self.alive()?;
        Ok(!std::mem::replace(&mut self.inode(id)?.locked, true))
    }

    pub(crate) fn unlock(&mut self, id: u64) {
        if let Some(file) = self.files.get_mut(&id) {
            file.locked = false;
        }
    }

    pub(crate) fn sync_folder(&mut self, path: &str, defect: Option<Defect>) -> io::Result<()> {
        self.operation()?;
        if defect == Some(Defect::SyncsNoFolder) {
            return Ok(());
        }
        let (synced, pending) = std::mem::take(&mut self.pending)
            .into_iter()
            .partition(|change: &Named| change.folder() == path);
        self.pending = pending;
        let synced: Vec<Named> = synced;
        for change in synced {
            change.apply(&mut self.synced);
        }
        Ok(())
    }

    pub(crate) fn create_folder(&mut self, path: &str) -> io::Result<()> {
        self.add(path, Entry::Folder)
    }

    pub(crate) fn remove(&mut self, path: &str) -> io::Result<()> {
        self.entry(path)?;
        let inside: Vec<String> =
            self.names.keys().filter(|name| is_below(name, path)).rev().cloned().collect();
        for name in inside.into_iter().chain([path.to_owned()]) {
            self.operation()?;
            self.rename_entry(Named::Remove(name));
        }
        Ok(())
    }

    pub(crate) fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.entry(from)?;
        if self.entry(parent(to))? != Entry::Folder {
            return Err(ErrorKind::NotADirectory.into());
        }
        self.operation()?;
        self.rename_entry(Named::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    pub(crate) fn link(&mut self, from: &str, to: &str) -> io::Result<()> {
        let id = self.file_at(from)?;
        self.add(to, Entry::File(id))
    }

    pub(crate) fn children(&self, path: &str) -> io::Result<Vec<String>> {
        if self.entry(path)? != Entry::Folder {
            return Err(ErrorKind::NotADirectory.into());
        }
        Ok(self.names.keys().filter(|name| parent(name) == path).cloned().collect())
    }

    pub(crate) fn restart(&mut self) {
        (self.frozen, self.freeze_in, self.fail_sync_in) = (false, None, None);
        for file in self.files.values_mut() {
            file.locked = false;
        }
        self.forget_nameless();
    }

    /// What nobody has open and nothing names is gone.
    fn forget_nameless(&mut self) {
        let added = self.pending.iter().filter_map(|change| match change {
            Named::Add(_, entry) => Some(entry),
            Named::Remove(_) | Named::Rename(..) => None,
        });
        let entries = self.names.values().chain(self.synced.values()).chain(added);
        let named: BTreeSet<u64> = entries
            .filter_map(|entry| match entry {
                Entry::File(id) => Some(*id),
                Entry::Folder => None,
            })
            .collect();
        self.files.retain(|id, _| named.contains(id));
    }

    pub(crate) fn power_cut(&mut self, chance: &mut Chance) {
        let pending = std::mem::take(&mut self.pending);
        let total = pending.len() as u64;
        let journal = chance.percent(50).then(|| chance.below(total + 1));
        let mut cut = BTreeSet::new();
        for (number, change) in pending.iter().enumerate() {
            let survives = match journal {
                Some(kept) => (number as u64) < kept,
                // From its first lost change on, a folder loses them all.
                None if cut.contains(change.folder()) => false,
                None => !chance.percent(20),
            };
            if survives {
                change.apply(&mut self.synced);
            } else {
                cut.insert(change.folder().to_owned());
                self.counters.lost += 1;
            }
        }
        // What is in a folder that is not there is not there either. Folders sort before what they hold.
        let mut names = Names::new();
        for (path, entry) in &self.synced {
            let parent = parent(path);
            if Self::is_root(parent) || names.get(parent) == Some(&Entry::Folder) {
                names.insert(path.clone(), *entry);
            }
        }
        self.synced.clone_from(&names);
        self.names = names;
        for file in self.files.values_mut() {
            let (lost, torn) = file.power_cut(chance);
            self.counters.lost += lost;
            self.counters.torn += u64::from(torn);
        }
        self.restart();
    }
}
