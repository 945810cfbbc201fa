//! The audit log: who did what, when, why and from where, as a chain in which every record holds the hash of the one before.
//!
//! A record is made by the very command that it tells of, so neither exists without the other, on every node alike. What
//! changes nothing (a refusal, a look at a secret) is recorded by a command of its own. Old records go by age and by
//! size, a few at a time; the hash of the last one that went stays, so that the rest can still be checked.

use std::ops::ControlFlow;

use bytes::Bytes;
use prost::Message as _;
use sha2::{Digest, Sha256};

use crate::event::{AuditEvent, AuditKind, AuditRecord, AuditTarget};
use crate::keys;
use crate::limits;
use crate::overlay::Overlay;
use crate::query::{self, Meta, Page, QueryResult};
use crate::record::{self, Record as _};
use crate::store::{Order, Reader, StoreError};

/// The hash of a link: over the stored form with an empty hash.
fn hash_of(record: &record::Audit) -> [u8; 32] {
    let bare = record::Audit { hash: Bytes::new(), ..record.clone() };
    hash_of_bare(&bare.encode_to_vec())
}

fn hash_of_bare(form: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"llm-config audit record v1");
    hash.update(form);
    hash.finalize().into()
}

/// Adds records at the end of the chain, and tells how many.
pub(crate) fn append<R: Reader + ?Sized>(
    store: &mut Overlay<'_, R>,
    meta: &mut Meta,
    revision: u64,
    events: impl IntoIterator<Item = AuditEvent>,
) -> u64 {
    let first = meta.audit.next;
    for event in events {
        let bare = record::Audit {
            sequence: meta.audit.next,
            time_ms: meta.last_time_ms,
            revision,
            event: Some(event.into()),
            previous: Bytes::copy_from_slice(&meta.audit.head),
            hash: Bytes::new(),
        };
        let (bytes, hash) = bare.hashed(hash_of_bare);
        meta.audit.bytes += bytes.len() as u64;
        store.put(keys::audit(meta.audit.next), bytes);
        meta.audit.next += 1;
        meta.audit.head = hash;
    }
    meta.audit.next - first
}

/// Lets go of the oldest records beyond the age or the size that is kept, at most
/// [`limits::EVICTIONS_PER_COMMAND_MAX`] more than the command added. The newest record always stays.
pub(crate) fn evict<R: Reader + ?Sized>(
    store: &mut Overlay<'_, R>,
    meta: &mut Meta,
    added: u64,
) -> Result<(), StoreError> {
    let budget = limits::EVICTIONS_PER_COMMAND_MAX as u64 + added;
    let end = meta.audit.next.saturating_sub(1).min(meta.audit.start.saturating_add(budget));
    let due = |meta: &Meta, time_ms: u64| {
        meta.audit.bytes > meta.audit.max_bytes
            || time_ms.saturating_add(meta.audit.max_age_ms) < meta.last_time_ms
    };
    // Only the time of the oldest record is known without reading it.
    if !due(meta, meta.audit.since_ms) {
        return Ok(());
    }
    while meta.audit.start < end {
        let key = keys::audit(meta.audit.start);
        let bytes = store.get(&key)?.ok_or_else(|| missing(meta.audit.start))?;
        let size = bytes.len() as u64;
        let record = record::Audit::from_bytes(bytes)?;
        meta.audit.since_ms = record.time_ms;
        if !due(meta, record.time_ms) {
            return Ok(());
        }
        meta.audit.base = record.hash.as_ref().try_into().map_err(|_| damaged(meta.audit.start))?;
        meta.audit.start += 1;
        meta.audit.bytes = meta.audit.bytes.saturating_sub(size);
        store.delete(key);
    }
    Ok(())
}

fn missing(sequence: u64) -> StoreError {
    StoreError::Corrupt(format!("record {sequence} is missing from the audit table"))
}

fn damaged(sequence: u64) -> StoreError {
    StoreError::Corrupt(format!("record {sequence} of the audit table has no hash"))
}

/// Which records are asked for. What is absent is not looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditQuery {
    /// Of this kind.
    pub kind: Option<AuditKind>,
    /// By this name, or by this principal.
    pub actor: Option<String>,
    /// About an entry in this namespace.
    pub namespace: Option<String>,
    /// About an entry with this key.
    pub key: Option<String>,
    /// Not before this time.
    pub from_ms: Option<u64>,
    /// Before this time.
    pub to_ms: Option<u64>,
    /// Oldest first instead of newest first.
    pub oldest_first: bool,
    /// Only records after this one, in the order asked for.
    pub after: Option<u64>,
    /// At most so many.
    pub limit: usize,
}

impl AuditQuery {
    fn wants(&self, record: &AuditRecord) -> bool {
        let event = &record.event;
        let about = |test: &dyn Fn(&AuditTarget) -> bool| event.targets.iter().any(test);
        let entry = |target: &AuditTarget| {
            let is = |wanted: &Option<String>, text: &str| {
                wanted.as_ref().is_none_or(|wanted| wanted == text)
            };
            is(&self.namespace, target.address.namespace.as_str())
                && is(&self.key, target.address.key.as_str())
        };
        self.kind.is_none_or(|kind| kind == event.kind)
            && self
                .actor
                .as_ref()
                .is_none_or(|actor| *actor == event.actor || *actor == event.principal)
            && ((self.namespace.is_none() && self.key.is_none()) || about(&entry))
            && self.from_ms.is_none_or(|from| record.time_ms >= from)
            && self.to_ms.is_none_or(|to| record.time_ms < to)
    }
}

/// Records, and where to go on: a page that found little may have looked at much.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditPage {
    /// What was found, in order.
    pub page: Page<AuditRecord>,
    /// The last record that was looked at; go on after it.
    pub looked_at: Option<u64>,
}

/// One page of the audit log. Looks at no more than [`limits::AUDIT_SCAN_MAX`] records.
pub fn records<R: Reader + ?Sized>(reader: &R, query: &AuditQuery) -> QueryResult<AuditPage> {
    let limit = query.limit.clamp(1, limits::PAGE_LIMIT_MAX);
    let meta = query::meta(reader)?;
    let (mut from, mut to) = (meta.audit.start, meta.audit.next);
    let order = if query.oldest_first {
        from = query.after.map_or(from, |after| from.max(after.saturating_add(1)));
        Order::Ascending
    } else {
        to = query.after.map_or(to, |after| to.min(after));
        Order::Descending
    };
    let mut found = AuditPage { page: Page { items: Vec::new(), more: false }, looked_at: None };
    let mut looked = 0;
    reader.scan(&keys::audit(from), &keys::audit(to), order, &mut |key, value| {
        if found.page.items.len() == limit || looked == limits::AUDIT_SCAN_MAX {
            found.page.more = true;
            return Ok(ControlFlow::Break(()));
        }
        looked += 1;
        let sequence = keys::audit_sequence(key)?;
        found.looked_at = Some(sequence);
        let record = record::Audit::from_bytes(Bytes::copy_from_slice(value))?.into_record()?;
        if query.wants(&record) {
            found.page.items.push(record);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(found)
}

/// A chain that was walked to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditChain {
    /// The oldest record that is kept.
    pub first: u64,
    /// The newest one; less than `first` when there is none.
    pub last: u64,
    /// The hash of the newest one: equal on two nodes exactly when all that led to it is.
    pub head: [u8; 32],
}

/// Where a chain is broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditBreak {
    /// The first record that is not what it should be.
    pub sequence: u64,
    /// What is wrong.
    pub reason: &'static str,
}

/// Walks the chain from the oldest record that is kept to the newest, which the store knows apart from the records.
/// Finds what was altered, what is missing, and what changed its place. The outer error is storage that cannot be read.
pub fn verify<R: Reader + ?Sized>(
    reader: &R,
    keep_going: &dyn Fn() -> bool,
) -> QueryResult<Option<Result<AuditChain, AuditBreak>>> {
    let meta = query::meta(reader)?;
    let mut expected = meta.audit.start;
    let mut previous = meta.audit.base;
    let mut broken = None;
    let mut given_up = false;
    // Beyond the end too: a record that the store does not know of was slipped in.
    reader.scan(&keys::audit(0), &keys::audits_end(), Order::Ascending, &mut |key, value| {
        if expected % 1024 == 0 && !keep_going() {
            given_up = true;
            return Ok(ControlFlow::Break(()));
        }
        let sequence = keys::audit_sequence(key)?;
        let at = |sequence, reason| Some(AuditBreak { sequence, reason });
        broken = if sequence < expected {
            at(sequence, "it was let go of and is there again")
        } else if sequence > expected {
            at(expected, "it is missing")
        } else {
            match record::Audit::from_bytes(Bytes::copy_from_slice(value)) {
                Err(StoreError::Newer { .. }) => at(sequence, "its format is of a newer release"),
                Err(_) => at(sequence, "it cannot be read"),
                Ok(record) if record.sequence != sequence => at(sequence, "it is another record"),
                Ok(record) if record.previous != previous.as_slice() => {
                    at(sequence, "it does not follow the record before it")
                }
                Ok(record) => {
                    previous = hash_of(&record);
                    let altered = record.hash != previous.as_slice();
                    if altered { at(sequence, "it was altered") } else { None }
                }
            }
        };
        expected += 1;
        Ok(if broken.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    if given_up {
        return Ok(None);
    }
    if let Some(broken) = broken {
        return Ok(Some(Err(broken)));
    }
    if expected < meta.audit.next {
        return Ok(Some(Err(AuditBreak { sequence: expected, reason: "it is missing" })));
    }
    if expected > meta.audit.next {
        let reason = "the store does not know of it";
        return Ok(Some(Err(AuditBreak { sequence: meta.audit.next, reason })));
    }
    if previous != meta.audit.head {
        let last = expected.saturating_sub(1);
        let reason = "it is not the newest record that the store knows";
        return Ok(Some(Err(AuditBreak { sequence: last, reason })));
    }
    let last = expected.saturating_sub(1);
    Ok(Some(Ok(AuditChain { first: meta.audit.start, last, head: meta.audit.head })))
}
