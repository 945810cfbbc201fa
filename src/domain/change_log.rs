//! The change log: which versions each revision made, so that a watch can resume without a gap.
//!
//! It is bounded in entries and bytes. Its floor, `Meta::oldest_revision`, moves by whole revisions and at once; stored
//! lines below it are removed by and by, so that no command does unbounded work. A version record lives as long as
//! history shows it or the log points to it: whichever ends last removes it. When the log lets go of the deletion of an
//! entry that is still deleted, history lets go of everything before that deletion, so that deleting gives space back.

use std::ops::ControlFlow;

use bytes::Bytes;
use llm_config_bugs::{Bug, active};

use crate::entry::Entry;
use crate::key_ring;
use crate::keys;
use crate::limits;
use crate::names::Address;
use crate::overlay::Overlay;
use crate::query::{self, Meta};
use crate::record::{ChangeRecord, Head, Record, Version};
use crate::store::{Order, Reader, StoreError};

/// Adds a line for a version whose record takes `version_bytes`.
pub(crate) fn append<R: Reader + ?Sized>(
    store: &mut Overlay<'_, R>,
    meta: &mut Meta,
    entry: &Entry,
    sequence: u32,
    version_bytes: usize,
) -> Result<(), StoreError> {
    let line = ChangeRecord::new(&entry.address, entry.version, version_bytes as u64);
    store.put(keys::change(entry.revision, sequence), line.to_bytes());
    meta.change_log_entries += 1;
    meta.change_log_bytes += version_bytes as u64;
    Ok(())
}

/// After version `latest` was added: removes the one version that history has just ceased to show, unless the log still
/// points to it.
pub(crate) fn forget_version<R: Reader + ?Sized>(
    store: &mut Overlay<'_, R>,
    meta: &Meta,
    address: &Address,
    latest: u64,
) -> Result<(), StoreError> {
    if active(Bug::HistoryTooShort) && latest > 8 {
        store.delete(keys::version(address, latest - 8));
    }
    // While the log reaches back to the first revision it points to everything: no need to look.
    if latest <= meta.history_limit || meta.oldest_revision == 1 {
        return Ok(());
    }
    let key = keys::version(address, latest - meta.history_limit);
    if let Some(bytes) = store.get(&key)? {
        let record = Version::from_bytes(bytes)?;
        if record.revision < meta.oldest_revision {
            if let Some(key_version) = record.key_version() {
                key_ring::unmark(store, address, key_version, latest - meta.history_limit);
            }
            store.delete(key);
        }
    }
    Ok(())
}

/// Removes a version. One that may be a secret is read first: its key is needed for one version less.
fn remove_version<R: Reader + ?Sized>(
    store: &mut Overlay<'_, R>,
    address: &Address,
    version: u64,
    had_secrets: bool,
) -> Result<(), StoreError> {
    let key = keys::version(address, version);
    if had_secrets
        && let Some(bytes) = store.get(&key)?
        && let Some(key_version) = Version::from_bytes(bytes)?.key_version()
    {
        key_ring::unmark(store, address, key_version, version);
    }
    store.delete(key);
    Ok(())
}

/// Versions of a deleted entry that may go with the line of its deletion; more take further commands.
const HISTORY_PER_LINE: usize = limits::HISTORY_LIMIT_DEFAULT as usize;

/// A line that is about to be removed.
struct Line {
    key: Vec<u8>,
    revision: u64,
    record: ChangeRecord,
}

/// Moves the floor when the log is above a bound, and removes lines below the floor: at most
/// [`limits::EVICTIONS_PER_COMMAND_MAX`] more than the command added, and [`HISTORY_PER_LINE`] versions of deleted entries
/// for each. Once above a bound it makes room for many commands, so that few of them have to look. The newest revision
/// always stays.
pub(crate) fn evict<R: Reader + ?Sized>(
    store: &mut Overlay<'_, R>,
    meta: &mut Meta,
    added: usize,
) -> Result<(), StoreError> {
    let above_bound = meta.change_log_entries > limits::CHANGE_LOG_ENTRIES_MAX
        || meta.change_log_bytes > limits::CHANGE_LOG_BYTES_MAX;
    if !above_bound && meta.change_log_start >= meta.oldest_revision {
        return Ok(());
    }
    let floor = if above_bound { meta.revision } else { meta.oldest_revision };
    let lines_max = limits::EVICTIONS_PER_COMMAND_MAX + added;
    // Of its own: out of one with the lines, a few deletions of long histories would keep the log above its bounds.
    let mut budget = lines_max * HISTORY_PER_LINE;
    let (lines, mut next) = oldest_lines(store, meta.change_log_start, floor, lines_max)?;
    for line in lines {
        meta.oldest_revision = meta.oldest_revision.max(line.revision + 1);
        let (version, bytes) = (line.record.version, line.record.bytes);
        let address = line.record.address()?;
        let head = query::head(store, &address)?.unwrap_or_default();
        if version + meta.history_limit <= head.latest_version {
            remove_version(store, &address, version, head.had_secrets)?;
        } else if version == head.latest_version
            && !head.live
            && !forget_deleted(store, meta, &address, head, &mut budget)?
        {
            // The line stays below the floor, and the next command goes on from it.
            next = Some(line.revision);
            break;
        }
        meta.change_log_entries = meta.change_log_entries.saturating_sub(1);
        meta.change_log_bytes = meta.change_log_bytes.saturating_sub(bytes);
        store.delete(line.key);
    }
    meta.change_log_start = next.unwrap_or(meta.revision + 1);
    Ok(())
}

/// Removes the versions of a deleted entry before its deletion, oldest first, at most `budget`. The deletion itself stays:
/// who deleted it, and what to answer to a retry of that. The log has let go of all of them before. True: all are gone.
fn forget_deleted<R: Reader + ?Sized>(
    store: &mut Overlay<'_, R>,
    meta: &Meta,
    address: &Address,
    head: Head,
    budget: &mut usize,
) -> Result<bool, StoreError> {
    let mut version = head.oldest_shown(meta.history_limit);
    while version < head.latest_version && *budget > 0 {
        remove_version(store, address, version, head.had_secrets)?;
        version += 1;
        *budget -= 1;
    }
    let done = version == head.latest_version;
    if head.oldest_version != version {
        store.put(keys::head(address), Head { oldest_version: version, ..head }.to_bytes());
    }
    Ok(done)
}

/// The first lines below `floor`, at most `budget`, and the revision of the line after them.
fn oldest_lines<R: Reader + ?Sized>(
    store: &Overlay<'_, R>,
    start: u64,
    floor: u64,
    budget: usize,
) -> Result<(Vec<Line>, Option<u64>), StoreError> {
    let mut lines = Vec::new();
    let mut next = None;
    store.scan(
        &keys::change(start, 0),
        &keys::changes_end(),
        Order::Ascending,
        &mut |key, value| {
            let revision = keys::change_revision(key)?;
            if revision >= floor || lines.len() == budget {
                next = Some(revision);
                return Ok(ControlFlow::Break(()));
            }
            let record = ChangeRecord::from_bytes(Bytes::copy_from_slice(value))?;
            lines.push(Line { key: key.to_vec(), revision, record });
            Ok(ControlFlow::Continue(()))
        },
    )?;
    Ok((lines, next))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Command, Found, Operation, Set};
    use crate::store::MemoryStore;
    use crate::{JsonValue, apply};

    fn run(store: &mut MemoryStore, commands: &[Command]) {
        let mut overlay = Overlay::new(&*store);
        for command in commands {
            apply(&mut overlay, 0, command).unwrap().0.result.unwrap();
        }
        let writes = overlay.into_writes();
        store.apply_writes(writes);
    }

    fn set(key: &str) -> Command {
        let operation = Operation::Set(Set {
            address: Address::parse("ns", key, "base").unwrap(),
            value: JsonValue::parse(b"1").unwrap().into(),
            description: String::new(),
            tags: Vec::new(),
            comment: String::new(),
            expected_version: None,
            declassify: false,
        });
        Command::new("test", operation)
    }

    fn rows(store: &MemoryStore, from: &[u8], to: &[u8]) -> u64 {
        let mut rows = 0;
        let count = &mut |_: &[u8], _: &[u8]| {
            rows += 1;
            Ok(ControlFlow::Continue(()))
        };
        store.scan(from, to, Order::Ascending, count).unwrap();
        rows
    }

    #[test]
    fn the_log_stays_within_its_bound_of_entries() {
        let mut store = MemoryStore::default();
        let found = Found { cluster_id: "c".into(), history_limit: 2 };
        run(&mut store, &[Command::new("test", Operation::Found(found))]);
        let batch = vec![set("k"); 500];
        for _ in 0..limits::CHANGE_LOG_ENTRIES_MAX / 500 {
            run(&mut store, &batch);
        }
        assert_eq!(query::meta(&store).unwrap().oldest_revision, 1);
        run(&mut store, &batch);
        let meta = query::meta(&store).unwrap();
        let stored = rows(&store, &keys::change(0, 0), &keys::changes_end());
        assert!(stored <= limits::CHANGE_LOG_ENTRIES_MAX, "{stored}");
        assert_eq!(meta.change_log_entries, stored);
        assert_eq!(meta.oldest_revision, meta.revision - stored + 1);
        // Every version that left the log left the store with it: history shows only two of them.
        assert_eq!(rows(&store, &[0x11], &[0x12]), stored);
        assert_eq!(
            query::changes(&store, meta.oldest_revision, 1).unwrap()[0].revision,
            meta.oldest_revision
        );
    }

    #[test]
    fn above_the_bound_of_bytes_all_but_the_newest_revision_may_go() {
        let mut store = MemoryStore::default();
        let found = Found { cluster_id: "c".into(), history_limit: 2 };
        run(
            &mut store,
            &[
                Command::new("test", Operation::Found(found)),
                set("a"),
                set("a"),
                set("a"),
                set("a"),
            ],
        );
        let mut meta = query::meta(&store).unwrap();
        meta.change_log_bytes = 2 * limits::CHANGE_LOG_BYTES_MAX;
        store.apply_writes([(keys::meta(), Some(meta.to_record()))].into());
        run(&mut store, &[set("a")]);
        let meta = query::meta(&store).unwrap();
        assert_eq!((meta.oldest_revision, meta.revision, meta.change_log_entries), (5, 5, 1));
        assert_eq!(rows(&store, &[0x11], &[0x12]), 2);
    }
}
