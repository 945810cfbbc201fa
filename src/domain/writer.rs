//! Writes entries within one command: versions, heads, counts and the change log, all at one revision.
//!
//! It checks what a single operation demands (expected version, existence); what a whole command demands, and taking
//! everything back, is `apply`'s.

use std::sync::Arc;

use llm_config_bugs::{Bug, active, chance};

use crate::change_log;
use crate::command::{CheckedSchema, Command, Delete, Rollback, Set};
use crate::entry::{Change, Entry};
use crate::key_ring;
use crate::keys;
use crate::names::{Address, InvalidArgument};
use crate::outcome::Rejection;
use crate::overlay::Overlay;
use crate::query::{self, Meta, QueryResult};
use crate::record::{Head, NamespaceCount, Record, Version};
use crate::schemas;
use crate::sealed::{Sealed, Value};
use crate::store::{Reader, StoreError};

pub(crate) struct Writer<'o, 'b, R: Reader + ?Sized> {
    pub(crate) store: &'o mut Overlay<'b, R>,
    pub(crate) meta: Meta,
    actor: &'o str,
    checked: &'o [CheckedSchema],
    /// The revision that everything written by this command gets.
    revision: u64,
    changes: Vec<Change>,
}

/// What the caller decides about a new version.
struct Content {
    value: Option<Value>,
    description: String,
    tags: Vec<String>,
    comment: String,
}

impl<'o, 'b, R: Reader + ?Sized> Writer<'o, 'b, R> {
    pub(crate) fn new(store: &'o mut Overlay<'b, R>, meta: Meta, command: &'o Command) -> Self {
        let revision = meta.revision + 1;
        let (actor, checked) = (command.actor.as_str(), command.schemas.as_slice());
        Self { store, meta, actor, checked, revision, changes: Vec::new() }
    }

    /// Who asks.
    pub(crate) fn actor(&self) -> &'o str {
        self.actor
    }

    /// What was changed so far.
    pub(crate) fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// The revision that this command makes, or the store's when it changes no entry.
    pub(crate) fn revision(&self) -> u64 {
        if self.changes.is_empty() { self.meta.revision } else { self.revision }
    }

    /// A command that changed no entry takes no revision.
    pub(crate) fn finish(mut self) -> (Meta, Vec<Change>) {
        if !self.changes.is_empty() {
            self.meta.revision = self.revision;
        }
        (self.meta, self.changes)
    }

    pub(crate) fn current_version(&self, address: &Address) -> Result<u64, StoreError> {
        Ok(query::head(&*self.store, address)?.map_or(0, |head| head.current_version()))
    }

    pub(crate) fn get(&self, address: &Address) -> QueryResult<Option<Entry>> {
        query::get(&*self.store, address)
    }

    /// Also answers whether the entry did not exist before.
    pub(crate) fn set(&mut self, set: &Set) -> QueryResult<(Arc<Entry>, bool)> {
        if chance(Bug::ApplyByChance, 50) {
            return Err(Rejection::NotFound.into());
        }
        let head = query::head(&*self.store, &set.address)?;
        let current_version = head.as_ref().map_or(0, Head::current_version);
        Rejection::unless_at(current_version, set.expected_version)?;
        self.check_schema(&set.address)?;
        let created = !head.as_ref().is_some_and(|head| head.live);
        match &set.value {
            Value::Sealed(sealed) => self.check_sealed(&set.address, head.as_ref(), sealed)?,
            // Somebody forgot to say that it is a secret, and would show it to everybody.
            Value::Json(_) if !set.declassify && head.as_ref().is_some_and(|head| head.secret) => {
                return Err(Rejection::EntryIsSecret.into());
            }
            Value::Json(_) => {}
        }
        let content = Content {
            value: Some(set.value.clone()),
            description: set.description.clone(),
            tags: set.tags.clone(),
            comment: set.comment.clone(),
        };
        Ok((self.write(&set.address, head, content)?, created))
    }

    pub(crate) fn delete(&mut self, delete: &Delete) -> QueryResult<Arc<Entry>> {
        let head = query::head(&*self.store, &delete.address)?.filter(|head| head.live);
        let head = head.ok_or(Rejection::NotFound)?;
        Rejection::unless_at(head.current_version(), delete.expected_version)?;
        let content = Content {
            value: None,
            description: String::new(),
            tags: Vec::new(),
            comment: delete.comment.clone(),
        };
        Ok(self.write(&delete.address, Some(head), content)?)
    }

    pub(crate) fn rollback(&mut self, rollback: &Rollback) -> QueryResult<Arc<Entry>> {
        let head = query::head(&*self.store, &rollback.address)?.ok_or(Rejection::NotFound)?;
        Rejection::unless_at(head.current_version(), rollback.expected_version)?;
        let back = u64::from(active(Bug::RollbackOffByOne) && rollback.version > 1);
        let old = query::get_version(&*self.store, &rollback.address, rollback.version - back)?;
        self.check_schema(&rollback.address)?;
        if old.deleted() {
            let reason =
                format!("version {} is a deletion and has no value to return to", rollback.version);
            return Err(Rejection::from(InvalidArgument::new("version", reason)).into());
        }
        let value = match (old.value, &rollback.resealed) {
            (Some(Value::Sealed(_)), Some(sealed)) => {
                self.check_sealed(&rollback.address, Some(&head), sealed)?;
                Some(Value::Sealed(sealed.clone()))
            }
            (Some(Value::Sealed(_)), None) => {
                return Err(Rejection::NeedsReseal { version: head.latest_version + 1 }.into());
            }
            (value, _) => value,
        };
        let comment = match rollback.comment.as_str() {
            "" => format!("rollback to version {}", rollback.version),
            comment => comment.to_owned(),
        };
        let content = Content { value, description: old.description, tags: old.tags, comment };
        Ok(self.write(&rollback.address, Some(head), content)?)
    }

    /// Values are checked where they come in; here only that it was by the schema that is in place.
    fn check_schema(&self, address: &Address) -> QueryResult<()> {
        // Asked for each write, and in most stores of nothing.
        if self.meta.schemas == 0 {
            return Ok(());
        }
        let Some(schema) = schemas::get(&*self.store, &address.namespace, &address.key)? else {
            return Ok(());
        };
        let of = |checked: &CheckedSchema| {
            (&checked.namespace, &checked.key).cmp(&(&address.namespace, &address.key))
        };
        let checked = self.checked.binary_search_by(of).ok().and_then(|at| self.checked.get(at));
        if checked.is_some_and(|checked| checked.version == schema.version) {
            return Ok(());
        }
        Err(Rejection::SchemaChanged {
            namespace: address.namespace.as_str().into(),
            key: address.key.as_str().into(),
            version: schema.version,
        }
        .into())
    }

    /// A secret opens in one version only, and with a key that is there.
    fn check_sealed(
        &self,
        address: &Address,
        head: Option<&Head>,
        sealed: &Sealed,
    ) -> QueryResult<()> {
        let version = head.map_or(0, |head| head.latest_version) + 1;
        if sealed.version != version {
            return Err(Rejection::SealedForOther { version }.into());
        }
        key_ring::check_key(&*self.store, address, sealed)
    }

    fn write(
        &mut self,
        address: &Address,
        head: Option<Head>,
        content: Content,
    ) -> Result<Arc<Entry>, StoreError> {
        let head = head.filter(|head| head.live || !active(Bug::DeleteResetsVersion));
        if active(Bug::TxnSplitsRevision) && !self.changes.is_empty() {
            self.revision += 1;
        }
        let was_live = head.as_ref().is_some_and(|head| head.live);
        let version = head.as_ref().map_or(0, |head| head.latest_version) + 1;
        let oldest_version = head.as_ref().map_or(0, |head| head.oldest_version);
        let had_secrets = head.as_ref().is_some_and(|head| head.had_secrets);
        let now_ms = self.meta.last_time_ms;
        let (created_at_ms, created_by) = match head {
            Some(head) if head.live => (head.created_at_ms, head.created_by),
            Some(_) | None => (now_ms, self.actor.to_owned()),
        };
        let entry = Arc::new(Entry {
            address: address.clone(),
            version,
            revision: self.revision,
            value: content.value,
            created_at_ms,
            created_by,
            updated_at_ms: now_ms,
            updated_by: self.actor.to_owned(),
            description: content.description,
            tags: content.tags,
            comment: content.comment,
        });
        self.store_entry(&entry, oldest_version, had_secrets)?;
        self.count(address, was_live, !entry.deleted())?;
        change_log::forget_version(self.store, &self.meta, address, version)?;
        self.changes.push(Change::of(Arc::clone(&entry)));
        Ok(entry)
    }

    fn store_entry(
        &mut self,
        entry: &Entry,
        oldest_version: u64,
        had_secrets: bool,
    ) -> Result<(), StoreError> {
        let sealed = entry.value.as_ref().and_then(Value::sealed);
        if let Some(sealed) = sealed {
            key_ring::mark(self.store, &entry.address, sealed);
        }
        let head = Head {
            latest_version: entry.version,
            live: !entry.deleted(),
            created_at_ms: entry.created_at_ms,
            created_by: entry.created_by.clone(),
            oldest_version,
            secret: sealed.is_some(),
            had_secrets: had_secrets || sealed.is_some(),
        };
        let record = Version::of(entry).to_bytes();
        // A transaction has far fewer operations than a sequence number has values.
        let sequence = u32::try_from(self.changes.len()).unwrap_or(u32::MAX);
        change_log::append(self.store, &mut self.meta, entry, sequence, record.len())?;
        self.store.put(keys::version(&entry.address, entry.version), record);
        self.store.put(keys::head(&entry.address), head.to_bytes());
        Ok(())
    }

    /// Keeps the counts of entries when one comes to be or ceases to exist; a namespace without entries is not listed.
    fn count(
        &mut self,
        address: &Address,
        was_live: bool,
        is_live: bool,
    ) -> Result<(), StoreError> {
        if was_live == is_live {
            return Ok(());
        }
        let step =
            |count: &mut u64| *count = if is_live { *count + 1 } else { count.saturating_sub(1) };
        let slot = address.environment.index();
        step(&mut self.meta.active[slot]);

        let key = keys::namespace(&address.namespace);
        let mut entries = match self.store.get(&key)? {
            Some(bytes) => NamespaceCount::from_bytes(bytes)?.entries()?,
            None => [0; 5],
        };
        step(&mut entries[slot]);
        if entries == [0; 5] {
            self.store.delete(key);
        } else {
            self.store.put(key, NamespaceCount::new(entries).to_bytes());
        }
        Ok(())
    }
}
