//! Reading the state. Every function takes one consistent view and answers from it alone.
//!
//! Pages are bounded; what cannot be paged has a limit and says so. Nothing here knows of caches or freshness.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;
use llm_config_bugs::{Bug, active};

use crate::command::{Node, RemovedNode};
use crate::entry::{Change, Entry};
use crate::keys;
use crate::limits;
use crate::names::{Address, Environment, Key, Namespace};
use crate::outcome::Rejection;
use crate::record::{self, ChangeRecord, Head, NamespaceCount, Record, Version};
use crate::sealed::Value;
use crate::store::{self, Order, Reader, StoreError};

/// What is shown in the place of a secret.
pub const MASK: &str = "********";

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// This node's storage is at fault.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The state says no.
    #[error(transparent)]
    Refused(#[from] Rejection),
}

/// The result of a query.
pub type QueryResult<T> = Result<T, QueryError>;

/// What is known of the state as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// The number of the last change; 0 before the first.
    pub revision: u64,
    /// None: not founded yet.
    pub cluster_id: Option<String>,
    /// Versions kept per entry.
    pub history_limit: u64,
    /// The oldest revision a watch may resume from.
    pub oldest_revision: u64,
    /// Log time: never goes back, whatever the leaders' clocks do.
    pub last_time_ms: u64,
    /// Entries per environment, indexed by [`Environment::index`].
    pub active: [u64; 5],
    /// Where stored changes begin; below `oldest_revision` while forgotten ones are still being removed.
    pub change_log_start: u64,
    /// Changes stored.
    pub change_log_entries: u64,
    /// Bytes of the versions those changes keep.
    pub change_log_bytes: u64,
    /// Idempotency keys stored.
    pub requests: u64,
    /// No idempotency key was stored before this time.
    pub requests_since_ms: u64,
    /// The audit log.
    pub audit: AuditMeta,
    /// Counts changes of tokens and roles.
    pub policy_revision: u64,
    /// Whether the first token was taken.
    pub bootstrapped: bool,
    /// Tokens stored.
    pub tokens: u64,
    /// Roles stored, without those that are built in.
    pub roles: u64,
    /// Bans stored, those that are over included.
    pub bans: u64,
    /// Counts changes of bans.
    pub bans_revision: u64,
    /// Data keys stored.
    pub data_keys: u64,
    /// Counts changes of data keys.
    pub keys_revision: u64,
    /// Schemas stored.
    pub schemas: u64,
    /// Counts changes of schemas.
    pub schemas_version: u64,
}

/// What is known of the audit log apart from its records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditMeta {
    /// The oldest record that is kept.
    pub start: u64,
    /// The number of the next one.
    pub next: u64,
    /// Bytes that the records take.
    pub bytes: u64,
    /// The hash of the record before the oldest one.
    pub base: [u8; 32],
    /// The hash of the newest one.
    pub head: [u8; 32],
    /// No record is older than this.
    pub since_ms: u64,
    /// How long records stay, in milliseconds.
    pub max_age_ms: u64,
    /// How many bytes of records stay.
    pub max_bytes: u64,
}

impl Default for AuditMeta {
    fn default() -> Self {
        Self {
            start: 1,
            next: 1,
            bytes: 0,
            base: [0; 32],
            head: [0; 32],
            since_ms: 0,
            max_age_ms: limits::AUDIT_AGE_MS_DEFAULT,
            max_bytes: limits::AUDIT_BYTES_DEFAULT,
        }
    }
}

/// Part of a longer answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// In order.
    pub items: Vec<T>,
    /// Whether there are items after these.
    pub more: bool,
}

/// What to list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListQuery {
    /// The namespace.
    pub namespace: Namespace,
    /// The environment.
    pub environment: Environment,
    /// Only keys that start with this.
    pub prefix: String,
    /// Only keys after this one: where the page before ended.
    pub after: Option<Key>,
    /// Items on the page, brought into 1 to [`limits::PAGE_LIMIT_MAX`].
    pub limit: usize,
}

/// A namespace and how much is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceSummary {
    /// Its name.
    pub namespace: Namespace,
    /// Entries in all environments.
    pub entries: u64,
}

/// A namespace as an application in one environment sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Sorted by key: the value and the environment it comes from.
    pub values: Vec<(Key, Value, Environment)>,
    /// The revision this was read at.
    pub revision: u64,
}

/// All changes of one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevisionChanges {
    /// The revision.
    pub revision: u64,
    /// In the order they were made.
    pub changes: Vec<Change>,
}

fn page_limit(limit: usize) -> usize {
    limit.clamp(1, limits::PAGE_LIMIT_MAX)
}

/// Everything known of the state as a whole.
pub fn meta<R: Reader + ?Sized>(reader: &R) -> QueryResult<Meta> {
    Ok(Meta::from_record(reader.get(&keys::meta())?)?)
}

/// The revision of the last change.
pub fn revision<R: Reader + ?Sized>(reader: &R) -> QueryResult<u64> {
    Ok(meta(reader)?.revision)
}

pub(crate) fn head<R: Reader + ?Sized>(
    reader: &R,
    address: &Address,
) -> Result<Option<Head>, StoreError> {
    reader.get(&keys::head(address))?.map(Head::from_bytes).transpose()
}

/// The newest version that an address ever had, deletions included; 0 when it never had one.
pub fn latest_version<R: Reader + ?Sized>(reader: &R, address: &Address) -> QueryResult<u64> {
    Ok(head(reader, address)?.map_or(0, |head| head.latest_version))
}

/// Whether the entry at an address is a secret.
pub fn is_secret<R: Reader + ?Sized>(reader: &R, address: &Address) -> QueryResult<bool> {
    Ok(head(reader, address)?.is_some_and(|head| head.live && head.secret))
}

/// A version that is stored, whether or not history still shows it.
pub(crate) fn stored_version<R: Reader + ?Sized>(
    reader: &R,
    address: &Address,
    version: u64,
) -> Result<Option<Entry>, StoreError> {
    let bytes = reader.get(&keys::version(address, version))?;
    bytes.map(|bytes| Version::from_bytes(bytes)?.into_entry(address.clone(), version)).transpose()
}

/// A version that must be stored, because heads or the change log point to it.
fn referenced_version<R: Reader + ?Sized>(
    reader: &R,
    address: &Address,
    version: u64,
) -> Result<Entry, StoreError> {
    stored_version(reader, address, version)?.ok_or_else(|| {
        StoreError::Corrupt(format!(
            "version {version} of {address} is missing from the versions table"
        ))
    })
}

/// The entry at an address.
pub fn get<R: Reader + ?Sized>(reader: &R, address: &Address) -> QueryResult<Option<Entry>> {
    match head(reader, address)? {
        Some(head) if head.live => {
            Ok(Some(referenced_version(reader, address, head.latest_version)?))
        }
        Some(_) | None => Ok(None),
    }
}

/// One version of an entry, which may be a deletion. `NotFound` when it was never made, `Compacted` when history no
/// longer shows it.
pub fn get_version<R: Reader + ?Sized>(
    reader: &R,
    address: &Address,
    version: u64,
) -> QueryResult<Entry> {
    let head = head(reader, address)?.unwrap_or_default();
    if version == 0 || version > head.latest_version {
        return Err(Rejection::NotFound.into());
    }
    let oldest = head.oldest_shown(meta(reader)?.history_limit);
    if version < oldest {
        return Err(forgotten(reader, address, oldest));
    }
    Ok(referenced_version(reader, address, version)?)
}

/// The refusal of what lies before an entry's oldest shown version.
fn forgotten<R: Reader + ?Sized>(reader: &R, address: &Address, oldest: u64) -> QueryError {
    match referenced_version(reader, address, oldest) {
        Ok(oldest) => Rejection::Compacted { oldest_revision: oldest.revision }.into(),
        Err(error) => error.into(),
    }
}

/// The entry an application in `environment` sees: the first one in [`Environment::lookup_order`].
pub fn resolve_entry<R: Reader + ?Sized>(
    reader: &R,
    namespace: &Namespace,
    key: &Key,
    environment: Environment,
) -> QueryResult<Option<Entry>> {
    for environment in environment.lookup_order() {
        let address =
            Address { namespace: namespace.clone(), key: key.clone(), environment: *environment };
        if let Some(entry) = get(reader, &address)? {
            return Ok(Some(entry));
        }
    }
    Ok(None)
}

/// Visits the entries of a namespace in one environment, sorted by key, without reading their values.
fn visit_entries<R: Reader + ?Sized>(
    reader: &R,
    (from, to): (Vec<u8>, Vec<u8>),
    namespace: &Namespace,
    environment: Environment,
    visit: &mut dyn FnMut(Address, u64) -> Result<ControlFlow<()>, StoreError>,
) -> Result<(), StoreError> {
    reader.scan(&from, &to, Order::Ascending, &mut |storage_key, value| {
        let head = Head::from_bytes(Bytes::copy_from_slice(value))?;
        if !head.live && active(Bug::ListEndsAtDeleted) {
            return Ok(ControlFlow::Break(()));
        }
        if !head.live {
            return Ok(ControlFlow::Continue(()));
        }
        let key = keys::head_key(namespace, storage_key)?;
        visit(Address { namespace: namespace.clone(), key, environment }, head.latest_version)
    })
}

/// One page of a namespace's entries in one environment, sorted by key. Passes over deleted keys, however many.
pub fn list<R: Reader + ?Sized>(reader: &R, query: &ListQuery) -> QueryResult<Page<Entry>> {
    let limit = page_limit(query.limit);
    let range =
        keys::head_range(&query.namespace, query.environment, &query.prefix, query.after.as_ref());
    let mut page = Page { items: Vec::new(), more: false };
    visit_entries(reader, range, &query.namespace, query.environment, &mut |address, version| {
        if page.items.len() == limit {
            page.more = true;
            return Ok(ControlFlow::Break(()));
        }
        page.items.push(referenced_version(reader, &address, version)?);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(page)
}

/// One page of the namespaces that have entries, sorted by name.
pub fn namespaces<R: Reader + ?Sized>(
    reader: &R,
    prefix: &str,
    after: Option<Namespace>,
    limit: usize,
) -> QueryResult<Page<NamespaceSummary>> {
    let limit = page_limit(limit);
    let (from, to) = keys::namespace_range(prefix, after.as_ref());
    let mut page = Page { items: Vec::new(), more: false };
    reader.scan(&from, &to, Order::Ascending, &mut |key, value| {
        if page.items.len() == limit {
            page.more = true;
            return Ok(ControlFlow::Break(()));
        }
        let counts = NamespaceCount::from_bytes(Bytes::copy_from_slice(value))?.entries()?;
        page.items.push(NamespaceSummary {
            namespace: keys::namespace_name(key)?,
            entries: counts.iter().sum(),
        });
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(page)
}

/// One page of an entry's versions, newest first, deletions included; only those before `before_version`, if given.
/// `NotFound` when the entry never existed, `Compacted` when everything before `before_version` is forgotten.
pub fn history<R: Reader + ?Sized>(
    reader: &R,
    address: &Address,
    before_version: Option<u64>,
    limit: usize,
) -> QueryResult<Page<Entry>> {
    let limit = page_limit(limit);
    let head = head(reader, address)?.ok_or(Rejection::NotFound)?;
    let oldest = head.oldest_shown(meta(reader)?.history_limit);
    let end = before_version.unwrap_or(u64::MAX).min(head.latest_version + 1);
    // A page ends at the oldest version only without a successor, so who asks for one was overtaken by compaction.
    if end <= oldest && oldest > 1 {
        return Err(forgotten(reader, address, oldest));
    }
    let mut page = Page { items: Vec::new(), more: false };
    let (from, to) = (keys::version(address, oldest), keys::version(address, end));
    reader.scan(&from, &to, Order::Descending, &mut |key, value| {
        if page.items.len() == limit {
            page.more = true;
            return Ok(ControlFlow::Break(()));
        }
        let record = Version::from_bytes(Bytes::copy_from_slice(value))?;
        page.items.push(record.into_entry(address.clone(), keys::version_number(key)?)?);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(page)
}

/// A whole namespace as an application in `environment` sees it. `TooLarge` above
/// [`limits::RESOLVE_ENTRIES_MAX`] or [`limits::RESOLVE_BYTES_MAX`].
pub fn resolve<R: Reader + ?Sized>(
    reader: &R,
    namespace: &Namespace,
    environment: Environment,
) -> QueryResult<Resolved> {
    let mut found = BTreeMap::new();
    let mut size = 0;
    let mut refusal = None;
    for environment in environment.lookup_order() {
        let range = keys::head_range(namespace, *environment, "", None);
        visit_entries(reader, range, namespace, *environment, &mut |address, version| {
            if found.contains_key(&address.key) {
                return Ok(ControlFlow::Continue(()));
            }
            if let Some(value) = referenced_version(reader, &address, version)?.value {
                size += address.key.as_str().len() + value.size();
                found.insert(address.key, (value, *environment));
            }
            refusal = resolve_refusal(found.len(), size);
            Ok(if refusal.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        if let Some(refusal) = refusal {
            return Err(refusal.into());
        }
    }
    let values =
        found.into_iter().map(|(key, (value, environment))| (key, value, environment)).collect();
    Ok(Resolved { values, revision: revision(reader)? })
}

fn resolve_refusal(entries: usize, size: usize) -> Option<Rejection> {
    let refuse = |what: &str, size: usize, limit: usize| {
        Some(Rejection::TooLarge { what: what.into(), size: size as u64, limit: limit as u64 })
    };
    if entries > limits::RESOLVE_ENTRIES_MAX {
        refuse(
            "the number of entries of the resolved namespace",
            entries,
            limits::RESOLVE_ENTRIES_MAX,
        )
    } else if size > limits::RESOLVE_BYTES_MAX {
        refuse("the bytes of the resolved namespace", size, limits::RESOLVE_BYTES_MAX)
    } else {
        None
    }
}

/// What changed from `from_revision` on (itself included; 0 means from the first), whole revisions in order: at most
/// `limit_revisions`, and no further one once [`limits::CHANGES_PAGE_BYTES`] are reached. Empty: nothing newer.
/// `Compacted` when `from_revision` is forgotten.
pub fn changes<R: Reader + ?Sized>(
    reader: &R,
    from_revision: u64,
    limit_revisions: usize,
) -> QueryResult<Vec<RevisionChanges>> {
    changes_within(reader, from_revision, limit_revisions, limits::CHANGES_PAGE_BYTES)
}

/// As [`changes`], with no further revision once `bytes` are reached.
pub fn changes_within<R: Reader + ?Sized>(
    reader: &R,
    from_revision: u64,
    limit_revisions: usize,
    bytes: usize,
) -> QueryResult<Vec<RevisionChanges>> {
    let oldest_revision = meta(reader)?.oldest_revision;
    let from_revision = from_revision.max(1);
    if from_revision < oldest_revision {
        return Err(Rejection::Compacted { oldest_revision }.into());
    }
    let mut revisions: Vec<RevisionChanges> = Vec::new();
    let mut size = 0;
    let (from, to) = (keys::change(from_revision, 0), keys::changes_end());
    reader.scan(&from, &to, Order::Ascending, &mut |key, value| {
        let revision = keys::change_revision(key)?;
        if revisions.last().is_none_or(|last| last.revision != revision) {
            if revisions.len() >= limit_revisions.max(1) || size >= bytes {
                return Ok(ControlFlow::Break(()));
            }
            revisions.push(RevisionChanges { revision, changes: Vec::new() });
        }
        let record = ChangeRecord::from_bytes(Bytes::copy_from_slice(value))?;
        let version = record.version;
        let entry = referenced_version(reader, &record.address()?, version)?;
        size += entry.size();
        if let Some(last) = revisions.last_mut() {
            last.changes.push(Change::of(entry));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(revisions)
}

/// Every node that is known and was not removed, by id.
pub fn nodes<R: Reader + ?Sized>(reader: &R) -> QueryResult<Vec<Node>> {
    let known = node_records(reader)?.into_iter();
    Ok(known.filter_map(|record| record.ok()).collect())
}

/// Every node that was removed, by id.
pub fn removed_nodes<R: Reader + ?Sized>(reader: &R) -> QueryResult<Vec<RemovedNode>> {
    let known = node_records(reader)?.into_iter();
    Ok(known.filter_map(|record| record.err()).collect())
}

/// The whole table of nodes, bounded by [`limits::NODES_MAX`].
pub(crate) fn node_records<R: Reader + ?Sized>(
    reader: &R,
) -> QueryResult<Vec<Result<Node, RemovedNode>>> {
    Ok(store::all(reader, keys::nodes(), record::node_from_bytes)?)
}

/// An RFC 6902 JSON Patch that turns the value of `from` into that of `to`. A deletion counts as null, and a secret as
/// [`MASK`]: that it changed shows in the versions.
pub fn diff(from: &Entry, to: &Entry) -> serde_json::Value {
    let value = |entry: &Entry| match &entry.value {
        Some(Value::Json(json)) => json.to_json(),
        Some(Value::Sealed(_)) => MASK.into(),
        None => serde_json::Value::Null,
    };
    // A patch is made of strings and values, which always serialise.
    serde_json::to_value(json_patch::diff(&value(from), &value(to))).unwrap_or_default()
}
