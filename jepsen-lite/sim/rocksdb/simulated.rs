//! What only the simulation asks: what would survive if all power went now, and how this engine may be broken.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use crate::{Map, Op};

/// A deliberately broken engine, to prove that the simulation notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defect {
    /// A batch that sets a vote is never synced by itself.
    VoteNotSynced,
    /// A batch without a vote is never synced by itself.
    EntriesNotSynced,
    /// After a restart, the last record of the write-ahead log is missing.
    RecoveryLacksRecord,
    /// A checkpoint lacks the last of its values.
    CheckpointsLackValues,
}

/// What is durable of one database.
#[derive(Default)]
struct Durable {
    map: Map,
    owed: Vec<Op>,
}

#[derive(Default)]
struct World {
    defect: Option<Defect>,
    durable: BTreeMap<PathBuf, Durable>,
    open: BTreeSet<PathBuf>,
}

static WORLD: LazyLock<Mutex<World>> = LazyLock::new(Mutex::default);

fn world() -> MutexGuard<'static, World> {
    WORLD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Breaks every database.
pub fn set_defect(defect: Option<Defect>) {
    world().defect = defect;
}

pub(crate) fn defect() -> Option<Defect> {
    world().defect
}

/// What a key would be after a power cut that takes everything that it may take.
#[must_use]
pub fn durable(database: &Path, key: &[u8]) -> Option<Arc<[u8]>> {
    world().durable.get(database)?.map.get(key).cloned()
}

/// False when it is open already.
pub(crate) fn open(path: &Path) -> bool {
    world().open.insert(path.to_owned())
}

pub(crate) fn close(path: &Path) {
    world().open.remove(path);
}

/// Everything that is there is durable.
pub(crate) fn settled(path: &Path, map: &Map) {
    let durable = Durable { map: map.clone(), owed: Vec::new() };
    world().durable.insert(path.to_owned(), durable);
}

pub(crate) fn written(path: &Path, ops: &[Op]) {
    let mut world = world();
    if let Some(durable) = world.durable.get_mut(path) {
        durable.owed.extend_from_slice(ops);
    }
}

pub(crate) fn synced(path: &Path) {
    let mut world = world();
    if let Some(Durable { map, owed }) = world.durable.get_mut(path) {
        for op in owed.drain(..) {
            op.apply(map);
        }
    }
}
