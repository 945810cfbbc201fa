//! The table of request ids: what makes a retry after a lost answer not a second write.
//!
//! A record holds the digest of the command and the versions in its answer; values are read again when it is replayed.
//! Only commands that were carried out are remembered (see `apply`). Records live for a window of log time; a record past
//! it counts as absent, even when it has not been removed yet. The table is bounded, and removal is bounded per command.

use std::sync::Arc;

use std::ops::ControlFlow;

use bytes::Bytes;
use llm_config_bugs::{Bug, active};

use crate::command::{Command, Operation, RequestId, TxnOp};
use crate::entry::Entry;
use crate::keys;
use crate::limits;
use crate::names::Address;
use crate::outcome::{Outcome, Rejection, TxnResult};
use crate::overlay::Overlay;
use crate::query::{self, Meta, QueryResult};
use crate::record::{Record, Request};
use crate::store::{Order, Reader, StoreError};

fn expired(time_ms: u64, meta: &Meta) -> bool {
    time_ms.saturating_add(limits::IDEMPOTENCY_WINDOW_MS) < meta.last_time_ms
}

/// Removes the oldest records past the window, at most [`limits::EVICTIONS_PER_COMMAND_MAX`]. Looks only when there must
/// be some, and only from where they begin: scanning over what was removed before is slow in a log-structured store.
pub(crate) fn evict_expired<R: Reader + ?Sized>(
    store: &mut Overlay<'_, R>,
    meta: &mut Meta,
) -> Result<(), StoreError> {
    if meta.requests == 0 || !expired(meta.requests_since_ms, meta) {
        return Ok(());
    }
    let mut evicted = Vec::new();
    let mut since_ms = meta.last_time_ms;
    let (from, to) = keys::request_expiry_range(meta.requests_since_ms);
    store.scan(&from, &to, Order::Ascending, &mut |key, _| {
        let (time_ms, request) = keys::expiring_request(key)?;
        if !expired(time_ms, meta) || evicted.len() == limits::EVICTIONS_PER_COMMAND_MAX {
            since_ms = time_ms;
            return Ok(ControlFlow::Break(()));
        }
        evicted.push((key.to_vec(), request));
        Ok(ControlFlow::Continue(()))
    })?;
    meta.requests_since_ms = since_ms;
    meta.requests = meta.requests.saturating_sub(evicted.len() as u64);
    for (expiry, request) in evicted {
        store.delete(expiry);
        store.delete(request);
    }
    Ok(())
}

/// What the table knows of a request id.
pub(crate) enum Lookup {
    /// Nothing.
    Absent,
    /// A record past its window that has not been removed yet: counts as nothing, and gives way to a new one.
    Stale { time_ms: u64 },
    /// The same command was carried out before.
    Known(Request),
}

/// Looks a request id up. Refused when it belongs to a different command.
pub(crate) fn find<R: Reader + ?Sized>(
    store: &Overlay<'_, R>,
    meta: &Meta,
    actor: &str,
    request: &RequestId,
) -> QueryResult<Lookup> {
    let Some(bytes) = store.get(&keys::request(actor, &request.key))? else {
        return Ok(Lookup::Absent);
    };
    if active(Bug::RequestForgotten) {
        return Ok(Lookup::Absent);
    }
    let record = Request::from_bytes(bytes)?;
    if expired(record.time_ms, meta) {
        return Ok(Lookup::Stale { time_ms: record.time_ms });
    }
    if record.digest != request.digest && !active(Bug::RequestNotCompared) {
        return Err(Rejection::IdempotencyKeyReused.into());
    }
    Ok(Lookup::Known(record))
}

/// Stores the answer of a command that was carried out. `stale_ms` is the time of the record it replaces, if any.
pub(crate) fn remember<R: Reader + ?Sized>(
    store: &mut Overlay<'_, R>,
    meta: &mut Meta,
    actor: &str,
    request: &RequestId,
    stale_ms: Option<u64>,
    outcome: &Outcome,
) -> Result<(), Rejection> {
    match stale_ms {
        Some(time_ms) => store.delete(keys::request_expiry(time_ms, actor, &request.key)),
        None if meta.requests >= limits::IDEMPOTENCY_ENTRIES_MAX => {
            return Err(Rejection::IdempotencyTableFull);
        }
        None => {
            if meta.requests == 0 {
                meta.requests_since_ms = meta.last_time_ms;
            }
            meta.requests += 1;
        }
    }
    let (flag, versions) = summary(outcome);
    let record = Request {
        digest: request.digest.to_vec(),
        time_ms: meta.last_time_ms,
        revision: meta.revision,
        flag,
        versions,
    };
    store.put(keys::request(actor, &request.key), record.to_bytes());
    store.put(keys::request_expiry(meta.last_time_ms, actor, &request.key), Bytes::new());
    Ok(())
}

/// What of an outcome cannot be told from the command and the versions table.
fn summary(outcome: &Outcome) -> (bool, Vec<u64>) {
    let version = |result: &TxnResult| match result {
        TxnResult::Set(entry) | TxnResult::Delete(entry) | TxnResult::Get(Some(entry)) => {
            entry.version
        }
        TxnResult::Get(None) => 0,
    };
    match outcome {
        Outcome::Set { entry, created } => (*created, vec![entry.version]),
        Outcome::Deleted { entry } | Outcome::RolledBack { entry } => (false, vec![entry.version]),
        Outcome::Txn { succeeded, results } => (*succeeded, results.iter().map(version).collect()),
        Outcome::Compacted
        | Outcome::Founded
        | Outcome::Registered
        | Outcome::NodeAdded
        | Outcome::NodeRemoved
        | Outcome::Done => (false, Vec::new()),
        // What is remembered of versions remembers two numbers as well.
        Outcome::Banned { until_ms, strikes } => (false, vec![*until_ms, u64::from(*strikes)]),
        Outcome::SchemaPut { version, created } => (*created, vec![*version]),
        Outcome::SchemaDeleted { version } => (false, vec![*version]),
    }
}

/// Rebuilds the first answer. Refused as compacted when a version in it has been forgotten since, and as a reuse of the
/// key when the command does not fit the record: then its digest was not made by [`Command::with_request_id`].
pub(crate) fn replay<R: Reader + ?Sized>(
    store: &Overlay<'_, R>,
    meta: &Meta,
    command: &Command,
    record: &Request,
) -> QueryResult<Outcome> {
    let mut versions = record.versions.iter().copied();
    let mut entry = |address: &Address| -> QueryResult<Option<Arc<Entry>>> {
        match versions.next() {
            Some(0) => Ok(None),
            Some(version) => match query::stored_version(store, address, version)? {
                Some(entry) => Ok(Some(Arc::new(entry))),
                None => Err(Rejection::Compacted { oldest_revision: meta.oldest_revision }.into()),
            },
            None => Err(Rejection::IdempotencyKeyReused.into()),
        }
    };
    Ok(match &command.operation {
        Operation::Set(set) => Outcome::Set {
            entry: entry(&set.address)?.ok_or(Rejection::IdempotencyKeyReused)?,
            created: record.flag,
        },
        Operation::Delete(delete) => Outcome::Deleted {
            entry: entry(&delete.address)?.ok_or(Rejection::IdempotencyKeyReused)?,
        },
        Operation::Rollback(rollback) => Outcome::RolledBack {
            entry: entry(&rollback.address)?.ok_or(Rejection::IdempotencyKeyReused)?,
        },
        Operation::Txn(txn) => {
            let mut results = Vec::new();
            for op in if record.flag { &txn.success } else { &txn.failure } {
                results.push(match op {
                    TxnOp::Set(set) => {
                        TxnResult::Set(entry(&set.address)?.ok_or(Rejection::IdempotencyKeyReused)?)
                    }
                    TxnOp::Delete(delete) => TxnResult::Delete(
                        entry(&delete.address)?.ok_or(Rejection::IdempotencyKeyReused)?,
                    ),
                    TxnOp::Get(address) => TxnResult::Get(entry(address)?),
                });
            }
            Outcome::Txn { succeeded: record.flag, results }
        }
        Operation::Compact(_) => Outcome::Compacted,
        Operation::Found(_) => Outcome::Founded,
        Operation::RegisterNode(_) => Outcome::Registered,
        Operation::AddNode(_) => Outcome::NodeAdded,
        Operation::RemoveNode(_) => Outcome::NodeRemoved,
        Operation::Ban(_) => match record.versions[..] {
            [until_ms, strikes] => {
                Outcome::Banned { until_ms, strikes: u32::try_from(strikes).unwrap_or(u32::MAX) }
            }
            _ => return Err(Rejection::IdempotencyKeyReused.into()),
        },
        Operation::PutSchema(_) => match record.versions[..] {
            [version] => Outcome::SchemaPut { version, created: record.flag },
            _ => return Err(Rejection::IdempotencyKeyReused.into()),
        },
        Operation::DeleteSchema(_) => match record.versions[..] {
            [version] => Outcome::SchemaDeleted { version },
            _ => return Err(Rejection::IdempotencyKeyReused.into()),
        },
        Operation::Bootstrap(_)
        | Operation::CreateToken(_)
        | Operation::RevokeToken(_)
        | Operation::PutRole(_)
        | Operation::DeleteRole(_)
        | Operation::LiftBan(_)
        | Operation::AddDataKey(_)
        | Operation::RewrapDataKeys(_)
        | Operation::Reseal(_)
        | Operation::DropDataKey(_)
        | Operation::Record(_)
        | Operation::SetAuditRetention(_) => Outcome::Done,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Found;
    use crate::outcome::Applied;
    use crate::store::MemoryStore;
    use crate::{Set, apply, digest};

    fn set(key: &str) -> Command {
        let operation = Operation::Set(Set {
            address: Address::parse("ns", key, "base").unwrap(),
            value: crate::JsonValue::parse(b"1").unwrap().into(),
            description: String::new(),
            tags: Vec::new(),
            comment: String::new(),
            expected_version: None,
            declassify: false,
        });
        Command::new("test", operation)
    }

    fn run(store: &mut MemoryStore, time_ms: u64, command: &Command) -> Applied {
        let mut overlay = Overlay::new(&*store);
        let (applied, _) = apply(&mut overlay, time_ms, command).unwrap();
        let writes = overlay.into_writes();
        store.apply_writes(writes);
        applied
    }

    fn founded() -> MemoryStore {
        let mut store = MemoryStore::default();
        let found = Found { cluster_id: "c".into(), history_limit: 10 };
        run(&mut store, 0, &Command::new("test", Operation::Found(found))).result.unwrap();
        store
    }

    fn put_meta(store: &mut MemoryStore, change: impl FnOnce(&mut Meta)) {
        let mut meta = query::meta(store).unwrap();
        change(&mut meta);
        store.apply_writes([(keys::meta(), Some(meta.to_record()))].into());
    }

    #[test]
    fn a_full_table_refuses_until_records_expire() {
        let mut store = founded();
        run(&mut store, 1000, &set("a").with_request_id("first")).result.unwrap();
        put_meta(&mut store, |meta| meta.requests = limits::IDEMPOTENCY_ENTRIES_MAX);
        let before = digest(&store).unwrap();
        let second = set("b").with_request_id("second");
        assert_eq!(run(&mut store, 1000, &second).result, Err(Rejection::IdempotencyTableFull));
        assert_eq!(digest(&store).unwrap(), before);
        // What needs no new record still works.
        assert!(run(&mut store, 1000, &set("a").with_request_id("first")).replayed);
        run(&mut store, 1000, &set("b")).result.unwrap();
        run(&mut store, 1001 + limits::IDEMPOTENCY_WINDOW_MS, &second).result.unwrap();
    }

    #[test]
    fn removal_is_bounded_and_a_record_past_its_window_counts_as_absent_before_it() {
        let mut store = founded();
        let count = 2 * limits::EVICTIONS_PER_COMMAND_MAX as u64 + 10;
        for index in 0..count {
            run(&mut store, 1000 + index, &set("a").with_request_id(format!("key {index}")))
                .result
                .unwrap();
        }
        let later = 5000 + limits::IDEMPOTENCY_WINDOW_MS;
        // Its record is the last to be removed, so it is still stored: the key is free for another command all the same.
        let last = format!("key {}", count - 1);
        let applied = run(&mut store, later, &set("b").with_request_id(last.clone()));
        assert!(applied.result.is_ok() && !applied.replayed);
        assert_eq!(
            query::meta(&store).unwrap().requests,
            count - limits::EVICTIONS_PER_COMMAND_MAX as u64
        );
        run(&mut store, later, &set("b"));
        run(&mut store, later, &set("b"));
        assert_eq!(query::meta(&store).unwrap().requests, 1);
        assert!(run(&mut store, later, &set("b").with_request_id(last)).replayed);
    }

    #[test]
    fn a_digest_that_does_not_fit_the_command_is_refused_not_corruption() {
        let mut store = founded();
        let honest = set("a").with_request_id("key");
        run(&mut store, 0, &honest).result.unwrap();
        let txn = crate::Txn {
            compare: Vec::new(),
            success: Vec::new(),
            failure: vec![
                TxnOp::Set(match set("a").operation {
                    Operation::Set(set) => set,
                    other => panic!("{other:?}"),
                });
                2
            ],
        };
        let mut forged =
            Command { request: honest.request, ..Command::new("test", Operation::Txn(txn)) };
        // The flag of the record says "created", so the empty success branch fits; two entries do not.
        assert!(run(&mut store, 0, &forged).result.is_ok());
        if let Operation::Txn(txn) = &mut forged.operation {
            std::mem::swap(&mut txn.success, &mut txn.failure);
        }
        assert_eq!(run(&mut store, 0, &forged).result, Err(Rejection::IdempotencyKeyReused));
    }
}
