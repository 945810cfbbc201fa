//! A consistent view of the applied state: nothing that is applied later shows in it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use llm_config_bugs::{Bug, active};
use llm_config_domain::store::{DOMAIN_END, DOMAIN_FIRST};
use llm_config_domain::{Order, QueryError, Reader, StoreError, Visit, query};
use rocksdb::{DB, Options, ReadOptions, SnapshotWithThreadMode};
use self_cell::self_cell;

use super::directory::Directory;
use super::rocks;
use crate::machine::fs;

/// One state database. When a snapshot has replaced it, its folder goes when the last view of it goes.
pub(crate) struct StateDb {
    // An option so that `drop` can close the database before it deletes the folder.
    db: Option<DB>,
    options: Options,
    path: PathBuf,
    obsolete: AtomicBool,
    // Its lock outlives the database in it.
    directory: Arc<Directory>,
}

impl StateDb {
    pub(crate) fn open(
        options: Options,
        path: &Path,
        directory: &Arc<Directory>,
    ) -> std::io::Result<Arc<Self>> {
        let db = rocks::open(&options, path)?;
        Ok(Arc::new(Self {
            db: Some(db),
            options,
            path: path.to_owned(),
            obsolete: AtomicBool::new(false),
            directory: Arc::clone(directory),
        }))
    }

    #[allow(clippy::expect_used, reason = "the option is emptied in drop only")]
    pub(crate) fn db(&self) -> &DB {
        self.db.as_ref().expect("open until dropped")
    }

    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A reader is told what it cannot have, and the node that it must not go on.
    fn noted<T>(&self, read: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(StoreError::Corrupt(what)) = &read {
            self.directory.note_damage(what);
        }
        read
    }

    pub(crate) fn retire(&self) {
        self.obsolete.store(true, Ordering::Release);
    }
}

impl Drop for StateDb {
    fn drop(&mut self) {
        self.db = None;
        if self.obsolete.load(Ordering::Acquire)
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            tracing::warn!(path = %self.path.display(), reason = %error, "a replaced state could not be deleted");
        }
    }
}

type DbSnapshot<'a> = SnapshotWithThreadMode<'a, DB>;

/// A snapshot together with the database that it borrows from.
mod pinned {
    #![allow(clippy::mem_forget, reason = "inside the expansion of self_cell")]

    use super::{Arc, DbSnapshot, StateDb, self_cell};

    self_cell!(
        pub(super) struct Pinned {
            owner: Arc<StateDb>,
            #[covariant]
            dependent: DbSnapshot,
        }
    );
}
use pinned::Pinned;

/// A consistent read view. Cheap to clone; holds old versions in storage alive, so it is for one request, not to keep.
#[derive(Clone)]
pub struct View {
    pinned: Arc<Pinned>,
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View").field("state", &self.pinned.borrow_owner().path()).finish()
    }
}

impl View {
    pub(crate) fn new(state: Arc<StateDb>) -> Self {
        Self { pinned: Arc::new(Pinned::new(state, |state| state.db().snapshot())) }
    }

    /// The store revision that the view shows.
    ///
    /// # Errors
    /// When the storage cannot be read.
    pub fn revision(&self) -> Result<u64, QueryError> {
        query::revision(self)
    }

    /// Visits everything that belongs to the domain, in order, past the block cache: what is read once must not push out
    /// what is read often.
    pub(crate) fn scan_domain(&self, visit: Visit<'_>) -> Result<(), StoreError> {
        const READAHEAD_BYTES: usize = 1 << 20;
        let mut options = bounds(&[DOMAIN_FIRST], &[DOMAIN_END]);
        options.fill_cache(false);
        options.set_readahead_size(READAHEAD_BYTES);
        let iterator = self.snapshot().raw_iterator_opt(options);
        self.state().noted(scan_raw(iterator, Order::Ascending, visit))
    }

    fn state(&self) -> &StateDb {
        self.pinned.borrow_owner()
    }

    fn snapshot(&self) -> &DbSnapshot<'_> {
        self.pinned.borrow_dependent()
    }
}

impl Reader for View {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        if active(Bug::ViewNotPinned) {
            return self.pinned.borrow_owner().get(key);
        }
        let value = self.snapshot().get(key).map(|value| value.map(Bytes::from));
        self.state().noted(value.map_err(store_error))
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        order: Order,
        visit: Visit<'_>,
    ) -> Result<(), StoreError> {
        if active(Bug::ViewNotPinned) {
            std::thread::sleep(std::time::Duration::from_millis(5));
            return self.pinned.borrow_owner().scan(from, to, order, visit);
        }
        let iterator = self.snapshot().raw_iterator_opt(bounds(from, to));
        self.state().noted(scan_raw(iterator, order, visit))
    }
}

impl Reader for StateDb {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let value = self.db().get(key).map(|value| value.map(Bytes::from));
        self.noted(value.map_err(store_error))
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        order: Order,
        visit: Visit<'_>,
    ) -> Result<(), StoreError> {
        self.noted(scan_raw(self.db().raw_iterator_opt(bounds(from, to)), order, visit))
    }
}

/// A database that is only looked at.
pub(crate) struct Inspected<'a>(pub(crate) &'a DB);

impl Reader for Inspected<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.0.get(key).map(|value| value.map(Bytes::from)).map_err(store_error)
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        order: Order,
        visit: Visit<'_>,
    ) -> Result<(), StoreError> {
        scan_raw(self.0.raw_iterator_opt(bounds(from, to)), order, visit)
    }
}

fn bounds(from: &[u8], to: &[u8]) -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_iterate_lower_bound(from);
    options.set_iterate_upper_bound(to);
    options
}

fn scan_raw(
    mut iterator: rocksdb::DBRawIteratorWithThreadMode<'_, DB>,
    order: Order,
    visit: Visit<'_>,
) -> Result<(), StoreError> {
    match order {
        Order::Ascending => iterator.seek_to_first(),
        Order::Descending => iterator.seek_to_last(),
    }
    while let Some((key, value)) = iterator.item() {
        if visit(key, value)?.is_break() {
            return Ok(());
        }
        match order {
            Order::Ascending => iterator.next(),
            Order::Descending => iterator.prev(),
        }
    }
    // An iterator also ends at a read error: without this a damaged table would look like a short one.
    iterator.status().map_err(store_error)
}

fn store_error(error: rocksdb::Error) -> StoreError {
    match error.kind() {
        rocksdb::ErrorKind::Corruption => StoreError::Corrupt(error.into_string()),
        _ => StoreError::Read(error.into_string()),
    }
}
