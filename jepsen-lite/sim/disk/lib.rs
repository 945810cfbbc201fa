//! A disk for the deterministic simulation: files in memory that forget at a power cut what was not synced.
//!
//! [`fs`] and [`os`] have the names of `std::fs` and `std::os`, as far as a replica uses them. The first part of a path
//! says whose disk it is: `/n1/log` is on the disk `n1`. What a program sees is what it wrote; what survives a power cut
//! is decided by [`power_cut`]:
//!
//! - of a file, what was synced, and a prefix of the writes since then, the last of them perhaps in part;
//! - of a folder, the entries that were there when it was synced, and a prefix of what happened to it since then. Now and
//!   then the folders agree about that prefix, as in one journal; otherwise each has its own, as POSIX allows.
//!
//! A program that was only killed finds everything that it wrote. Everything is decided by [`seed`].

mod chance;
mod disk;
pub mod fs;
mod inode;
pub mod os;

use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use chance::Chance;
use disk::Disk;

/// A deliberately broken disk, to prove that the simulation notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defect {
    /// A sync of a file says that it is done, and does nothing.
    SyncsNothing,
    /// A sync of a folder says that it is done, and does nothing.
    SyncsNoFolder,
}

/// What happened to a disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Writes, syncs and changes of folders.
    pub operations: u64,
    /// Syncs that failed because they were told to.
    pub failed_syncs: u64,
    /// Writes, and changes of folders, that power cuts took.
    pub lost: u64,
    /// Writes that power cuts left in part.
    pub torn: u64,
}

#[derive(Default)]
struct World {
    disks: BTreeMap<String, Disk>,
    chance: Chance,
    defect: Option<Defect>,
}

static WORLD: LazyLock<Mutex<World>> = LazyLock::new(Mutex::default);

fn world() -> MutexGuard<'static, World> {
    WORLD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Decides everything that is left to chance from now on.
pub fn seed(seed: u64) {
    world().chance = Chance::new(seed);
}

/// Breaks every disk.
pub fn set_defect(defect: Option<Defect>) {
    world().defect = defect;
}

/// Makes an empty disk: the folder `/NAME`.
pub fn add(name: &str) {
    world().disks.insert(name.to_owned(), Disk::new());
}

fn with_disk<T>(name: &str, act: impl FnOnce(&mut Disk, &mut Chance) -> T) -> Option<T> {
    let World { disks, chance, .. } = &mut *world();
    disks.get_mut(name).map(|disk| act(disk, chance))
}

/// From now on no operation reaches the disk: the machine is off, as far as it can tell.
pub fn freeze(name: &str) {
    with_disk(name, |disk, _| disk.frozen = true);
}

/// Whether the disk is frozen, be it that [`freeze_after`] has come true.
#[must_use]
pub fn is_frozen(name: &str) -> bool {
    with_disk(name, |disk, _| disk.frozen).unwrap_or(false)
}

/// Freezes the disk at one of the next operations: a crash in the midst of what writes.
pub fn freeze_after(name: &str, operations: u64) {
    with_disk(name, |disk, _| disk.freeze_in = Some(operations));
}

/// One of the next syncs of a file fails, and what it should have synced is never synced.
pub fn fail_sync_after(name: &str, syncs: u64) {
    with_disk(name, |disk, _| disk.fail_sync_in = Some(syncs));
}

/// Nothing that was armed happens any more.
pub fn disarm(name: &str) {
    with_disk(name, |disk, _| (disk.freeze_in, disk.fail_sync_in) = (None, None));
}

/// The program was killed: it finds everything that it wrote.
pub fn restart(name: &str) {
    with_disk(name, |disk, _| disk.restart());
}

/// The power was cut: it finds what was synced, and a part of the rest.
pub fn power_cut(name: &str) {
    with_disk(name, Disk::power_cut);
}

/// How long a write takes.
pub fn set_latency(name: &str, least: Duration, most: Duration) {
    with_disk(name, |disk, _| disk.latency = (least, most));
}

/// Draws how long the next write to the disk of `path` takes.
#[must_use]
pub fn latency(path: &Path) -> Duration {
    let drawn = on(path, |disk, _, chance, _| {
        let (least, most) = disk.latency;
        let micros = u64::try_from(most.saturating_sub(least).as_micros()).unwrap_or(0);
        Ok(least + Duration::from_micros(chance.below(micros + 1)))
    });
    drawn.unwrap_or(Duration::ZERO)
}

/// What happened to a disk so far.
#[must_use]
pub fn counters(name: &str) -> Counters {
    with_disk(name, |disk, _| disk.counters).unwrap_or_default()
}

/// The name of the disk that a path is on.
#[must_use]
pub fn disk_of(path: &Path) -> Option<String> {
    let mut parts = path.components();
    match (parts.next(), parts.next()) {
        (Some(Component::RootDir), Some(Component::Normal(name))) => {
            name.to_str().map(str::to_owned)
        }
        _ => None,
    }
}

/// Runs `act` on the disk of a path, with the path as the disk knows it.
fn on<T>(
    path: &Path,
    act: impl FnOnce(&mut Disk, &str, &mut Chance, Option<Defect>) -> io::Result<T>,
) -> io::Result<T> {
    let absent =
        || io::Error::new(io::ErrorKind::NotFound, format!("{}: no such disk", path.display()));
    let name = disk_of(path).ok_or_else(absent)?;
    let text = path.to_str().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidFilename))?;
    let World { disks, chance, defect } = &mut *world();
    let disk = disks.get_mut(&name).ok_or_else(absent)?;
    act(disk, text.trim_end_matches('/'), chance, *defect)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests;
