//! Applies a command: the one place where replicated state changes.
//!
//! The result depends on the command, its stamped time and the state, nothing else. A command is carried out or refused;
//! a refusal leaves not a byte behind, not even its time or its request id. That makes the retry of a refused command
//! safe: it is decided anew, and as the first try did nothing, at most one try ever does.

use std::sync::Arc;

use llm_config_bugs::{Bug, active};

use crate::audit;
use crate::bans;
use crate::change_log;
use crate::command::{
    AuditRetention, Command, Compact, Found, Node, Operation, Origin, RemovedNode, Txn, TxnOp,
};
use crate::entry::Change;
use crate::event::{AuditEvent, AuditKind, AuditTarget};
use crate::keys;
use crate::limits;
use crate::names::InvalidArgument;
use crate::outcome::{Applied, Outcome, Rejection, TxnResult};
use crate::overlay::Overlay;
use crate::policy;
use crate::query::{self, Meta, QueryError, QueryResult};
use crate::record::{self, Request};
use crate::requests::{self, Lookup};
use crate::rotation;
use crate::schemas;
use crate::store::{Reader, StoreError, Writes};
use crate::writer::Writer;

/// Whether apply reads a record each time that the same entry is written. A store does well to have those at hand.
#[must_use]
pub fn reads_again(storage_key: &[u8]) -> bool {
    keys::is_head(storage_key)
}

/// A command with the time its leader gave it.
#[derive(Clone, Copy, Debug)]
pub struct Stamped<'a> {
    /// Milliseconds since 1970, UTC.
    pub time_ms: u64,
    /// The command.
    pub command: &'a Command,
}

impl Stamped<'_> {
    /// Applies it, see [`apply()`].
    pub fn apply<R: Reader + ?Sized>(
        &self,
        overlay: &mut Overlay<'_, R>,
    ) -> Result<(Applied, Vec<Change>), StoreError> {
        apply(overlay, self.time_ms, self.command)
    }
}

/// The commands of one batch: each sees what the ones before it did, and all their writes are stored together.
///
/// Every command reads and changes what is known of the state as a whole, so that is read once for the batch and written
/// once at its end.
#[derive(Debug)]
pub struct Batch<'a, R: Reader + ?Sized> {
    overlay: Overlay<'a, R>,
    /// As stored, and as it is now. Read with the first command.
    meta: Option<(Meta, Meta)>,
}

impl<'a, R: Reader + ?Sized> Batch<'a, R> {
    /// No commands yet.
    pub fn new(base: &'a R) -> Self {
        Self { overlay: Overlay::new(base), meta: None }
    }

    /// Applies the next command, see [`apply()`].
    pub fn apply(
        &mut self,
        time_ms: u64,
        command: &Command,
    ) -> Result<(Applied, Vec<Change>), StoreError> {
        let (_, meta) = match &mut self.meta {
            Some(known) => known,
            none => {
                let stored = Meta::from_record(self.overlay.get(&keys::meta())?)?;
                none.insert((stored.clone(), stored))
            }
        };
        apply_at(&mut self.overlay, meta, time_ms, command)
    }

    /// The writes of all commands, for one atomic batch.
    pub fn into_writes(mut self) -> Writes {
        if let Some((stored, meta)) = &self.meta
            && stored != meta
        {
            self.overlay.put(keys::meta(), meta.to_record());
        }
        self.overlay.into_writes()
    }
}

/// What carrying out a command came to, before it is known to whom it is told.
#[allow(
    clippy::large_enum_variant,
    reason = "lives for one call; a box would cost an allocation per command"
)]
enum Done {
    Now { meta: Meta, outcome: Outcome, changes: Vec<Change> },
    Before { revision: u64, result: Result<Outcome, Rejection> },
}

/// Applies a command to the overlay. Answers what the caller is told, and the changes for caches and watchers (none
/// for a refusal or a replayed answer).
///
/// An error means that this node's storage failed: the overlay must be thrown away and the node must stop.
pub fn apply<R: Reader + ?Sized>(
    overlay: &mut Overlay<'_, R>,
    time_ms: u64,
    command: &Command,
) -> Result<(Applied, Vec<Change>), StoreError> {
    let before = Meta::from_record(overlay.get(&keys::meta())?)?;
    let mut meta = before.clone();
    let answer = apply_at(overlay, &mut meta, time_ms, command)?;
    if meta != before {
        overlay.put(keys::meta(), meta.to_record());
    }
    Ok(answer)
}

/// The same with what is known of the state as a whole beside the overlay, not in it.
fn apply_at<R: Reader + ?Sized>(
    overlay: &mut Overlay<'_, R>,
    before: &mut Meta,
    time_ms: u64,
    command: &Command,
) -> Result<(Applied, Vec<Change>), StoreError> {
    overlay.set_savepoint();
    let revision = before.revision;
    match carry_out(overlay, before, time_ms, command) {
        Ok(Done::Now { meta, outcome, changes }) => {
            overlay.release_savepoint();
            let revision = meta.revision;
            *before = meta;
            Ok((Applied { revision, result: Ok(outcome), replayed: false }, changes))
        }
        Ok(Done::Before { revision, result }) => {
            overlay.roll_back();
            Ok((Applied { revision, result, replayed: true }, Vec::new()))
        }
        Err(QueryError::Refused(rejection)) => {
            if !active(Bug::RefusalLeavesWrites) {
                overlay.roll_back();
            }
            Ok((Applied { revision, result: Err(rejection), replayed: false }, Vec::new()))
        }
        Err(QueryError::Store(error)) => {
            overlay.roll_back();
            Err(error)
        }
    }
}

fn carry_out<R: Reader + ?Sized>(
    overlay: &mut Overlay<'_, R>,
    before: &Meta,
    time_ms: u64,
    command: &Command,
) -> QueryResult<Done> {
    command.validate().map_err(Rejection::from)?;
    let mut meta = before.clone();
    meta.last_time_ms = meta.last_time_ms.max(time_ms);
    requests::evict_expired(overlay, &mut meta)?;
    policy::check_authority(&*overlay, &meta, command)?;
    let requester = command.requester();
    let mut stale_ms = None;
    if let Some(request) = &command.request {
        match requests::find(overlay, &meta, requester, request)? {
            Lookup::Absent => {}
            Lookup::Stale { time_ms } => stale_ms = Some(time_ms),
            Lookup::Known(record) => return answer_again(overlay, &meta, command, &record),
        }
    }

    let mut writer = Writer::new(overlay, meta, command);
    let outcome = operate(&mut writer, &command.operation)?;
    record(&mut writer, command, &outcome)?;
    let (mut meta, changes) = writer.finish();

    if let Some(request) = &command.request {
        requests::remember(overlay, &mut meta, requester, request, stale_ms, &outcome)?;
    }
    change_log::evict(overlay, &mut meta, changes.len())?;
    Ok(Done::Now { meta, outcome, changes })
}

fn answer_again<R: Reader + ?Sized>(
    overlay: &Overlay<'_, R>,
    meta: &Meta,
    command: &Command,
    record: &Request,
) -> QueryResult<Done> {
    let result = match requests::replay(overlay, meta, command, record) {
        Ok(outcome) => Ok(outcome),
        Err(QueryError::Refused(rejection)) => Err(rejection),
        Err(error @ QueryError::Store(_)) => return Err(error),
    };
    Ok(Done::Before { revision: record.revision, result })
}

fn operate<R: Reader + ?Sized>(
    writer: &mut Writer<'_, '_, R>,
    operation: &Operation,
) -> QueryResult<Outcome> {
    match operation {
        Operation::Found(found) => Ok(establish(writer, found)?),
        Operation::RegisterNode(node) => {
            keep_node(writer, node)?;
            Ok(Outcome::Registered)
        }
        Operation::Set(_)
        | Operation::Delete(_)
        | Operation::Rollback(_)
        | Operation::Txn(_)
        | Operation::Compact(_)
        | Operation::AddNode(_)
        | Operation::RemoveNode(_)
        | Operation::Bootstrap(_)
        | Operation::CreateToken(_)
        | Operation::RevokeToken(_)
        | Operation::PutRole(_)
        | Operation::DeleteRole(_)
        | Operation::Ban(_)
        | Operation::LiftBan(_)
        | Operation::AddDataKey(_)
        | Operation::RewrapDataKeys(_)
        | Operation::Reseal(_)
        | Operation::DropDataKey(_)
        | Operation::Record(_)
        | Operation::SetAuditRetention(_)
        | Operation::PutSchema(_)
        | Operation::DeleteSchema(_)
            if writer.meta.cluster_id.is_none() =>
        {
            Err(Rejection::NotFounded.into())
        }
        Operation::Set(set) => {
            let (entry, created) = writer.set(set)?;
            Ok(Outcome::Set { entry, created })
        }
        Operation::Delete(delete) => Ok(Outcome::Deleted { entry: writer.delete(delete)? }),
        Operation::Rollback(rollback) => {
            Ok(Outcome::RolledBack { entry: writer.rollback(rollback)? })
        }
        Operation::Txn(txn) => transact(writer, txn),
        Operation::Compact(compact) => Ok(compact_history(&mut writer.meta, *compact)?),
        Operation::AddNode(add) => {
            keep_node(writer, &add.node)?;
            Ok(Outcome::NodeAdded)
        }
        Operation::RemoveNode(remove) => remove_node(writer, remove.id),
        Operation::Bootstrap(token) => policy::bootstrap(writer, token),
        Operation::CreateToken(token) => policy::create_token(writer, token),
        Operation::RevokeToken(id) => policy::revoke_token(writer, id),
        Operation::PutRole(role) => policy::put_role(writer, role),
        Operation::DeleteRole(name) => policy::delete_role(writer, name),
        Operation::Ban(order) => bans::ban(writer.store, &mut writer.meta, order),
        Operation::LiftBan(address) => bans::lift(writer.store, &mut writer.meta, address),
        Operation::AddDataKey(key) => rotation::add(writer, key),
        Operation::RewrapDataKeys(keys) => rotation::rewrap(writer, keys),
        Operation::Reseal(reseal) => rotation::reseal(writer, reseal),
        Operation::DropDataKey(drop) => rotation::drop_key(writer, &drop.owner, drop.version),
        Operation::PutSchema(put) => {
            let actor = writer.actor();
            schemas::put(writer.store, &mut writer.meta, actor, put)
        }
        Operation::DeleteSchema(delete) => schemas::delete(writer.store, &mut writer.meta, delete),
        // The events are the whole of it.
        Operation::Record(_) => Ok(Outcome::Done),
        Operation::SetAuditRetention(AuditRetention { max_age_ms, max_bytes }) => {
            writer.meta.audit.max_age_ms = *max_age_ms;
            writer.meta.audit.max_bytes = *max_bytes;
            Ok(Outcome::Done)
        }
    }
}

/// Adds what the command did to the audit log, and lets go of what is old there.
fn record<R: Reader + ?Sized>(
    writer: &mut Writer<'_, '_, R>,
    command: &Command,
    outcome: &Outcome,
) -> Result<(), StoreError> {
    let revision = writer.revision();
    let added = match (&command.operation, &command.origin) {
        (Operation::Record(events), _) => {
            audit::append(writer.store, &mut writer.meta, revision, events.iter().cloned())
        }
        (_, Some(origin)) => {
            let event = event_of(command, origin, outcome, writer.changes());
            audit::append(writer.store, &mut writer.meta, revision, event)
        }
        (_, None) => return Ok(()),
    };
    audit::evict(writer.store, &mut writer.meta, added)
}

/// What a command that was carried out is remembered as; nothing when it changed nothing that anybody would ask for.
fn event_of(
    command: &Command,
    origin: &Origin,
    outcome: &Outcome,
    changes: &[Change],
) -> Option<AuditEvent> {
    let (kind, comment, detail) = match &command.operation {
        Operation::Set(set) => (AuditKind::ConfigSet, set.comment.clone(), String::new()),
        Operation::Delete(delete) => {
            (AuditKind::ConfigDelete, delete.comment.clone(), String::new())
        }
        Operation::Rollback(rollback) => (
            AuditKind::ConfigRollback,
            rollback.comment.clone(),
            format!("to version {}", rollback.version),
        ),
        Operation::Txn(_) if changes.is_empty() => return None,
        Operation::Txn(_) => {
            let sets = changes.iter().filter(|change| !change.entry.deleted()).count();
            let deletes = changes.len() - sets;
            let comment = changes.iter().map(|change| change.entry.comment.as_str());
            let comment = comment.into_iter().find(|comment| !comment.is_empty());
            let detail = format!("{sets} set, {deletes} deleted");
            (AuditKind::ConfigTxn, comment.unwrap_or_default().to_owned(), detail)
        }
        Operation::Compact(compact) => {
            let detail = format!("changes before revision {}", compact.revision);
            (AuditKind::AdminCompact, String::new(), detail)
        }
        Operation::Bootstrap(token) => {
            (AuditKind::AuthBootstrap, String::new(), format!("token {}", token.id))
        }
        Operation::CreateToken(token) => {
            let detail =
                format!("token {} for {}, roles {}", token.id, token.name, token.roles.join(", "));
            (AuditKind::AuthTokenCreate, String::new(), detail)
        }
        Operation::RevokeToken(id) => {
            (AuditKind::AuthTokenRevoke, String::new(), format!("token {id}"))
        }
        Operation::PutRole(role) => {
            (AuditKind::AuthRolePut, String::new(), format!("role {}", role.name))
        }
        Operation::DeleteRole(name) => {
            (AuditKind::AuthRoleDelete, String::new(), format!("role {name}"))
        }
        Operation::Ban(order) => {
            let strikes = match outcome {
                Outcome::Banned { strikes, .. } => *strikes,
                _ => 0,
            };
            let detail = format!("{}, time {strikes}: {}", order.address, order.reason);
            (AuditKind::SecurityBan, String::new(), detail)
        }
        Operation::LiftBan(address) => (AuditKind::SecurityBanLift, String::new(), address.clone()),
        Operation::SetAuditRetention(retention) => {
            let AuditRetention { max_age_ms, max_bytes } = retention;
            let detail = format!("{max_age_ms} ms, {max_bytes} bytes");
            (AuditKind::AdminAuditRetention, String::new(), detail)
        }
        Operation::PutSchema(put) => {
            let detail = format!("schema of {} in {}", put.key.as_str(), put.namespace.as_str());
            (AuditKind::SchemaPut, put.comment.clone(), detail)
        }
        Operation::DeleteSchema(delete) => {
            let (key, namespace) = (delete.key.as_str(), delete.namespace.as_str());
            let detail = format!("schema of {key} in {namespace}");
            (AuditKind::SchemaDelete, delete.comment.clone(), detail)
        }
        Operation::Found(_)
        | Operation::RegisterNode(_)
        | Operation::AddNode(_)
        | Operation::RemoveNode(_)
        | Operation::AddDataKey(_)
        | Operation::RewrapDataKeys(_)
        | Operation::Reseal(_)
        | Operation::DropDataKey(_)
        | Operation::Record(_) => return None,
    };
    let target = |change: &Change| AuditTarget {
        address: change.entry.address.clone(),
        version: change.entry.version,
    };
    Some(AuditEvent {
        kind,
        actor: command.actor.clone(),
        principal: origin.principal.clone(),
        source: origin.source.clone(),
        request_id: origin.request_id.clone(),
        node: origin.node,
        targets: changes.iter().take(limits::AUDIT_TARGETS_MAX).map(target).collect(),
        comment,
        detail: cut(detail, limits::AUDIT_DETAIL_BYTES_MAX),
    })
}

/// The beginning of a text, in whole characters.
fn cut(mut text: String, bytes_max: usize) -> String {
    if text.len() > bytes_max {
        let end = (0..=bytes_max).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or_default());
    }
    text
}

fn transact<R: Reader + ?Sized>(writer: &mut Writer<'_, '_, R>, txn: &Txn) -> QueryResult<Outcome> {
    let mut succeeded = true;
    let compared = if active(Bug::TxnComparesFirst) { 1 } else { txn.compare.len() };
    for compare in txn.compare.iter().take(compared) {
        succeeded &= writer.current_version(&compare.address)? == compare.version;
    }
    let mut results = Vec::new();
    let mut size = 0;
    for op in if succeeded { &txn.success } else { &txn.failure } {
        let result = match op {
            TxnOp::Set(set) => TxnResult::Set(writer.set(set)?.0),
            TxnOp::Delete(delete) => TxnResult::Delete(writer.delete(delete)?),
            TxnOp::Get(address) => TxnResult::Get(writer.get(address)?.map(Arc::new)),
        };
        size += match &result {
            TxnResult::Set(entry) | TxnResult::Delete(entry) | TxnResult::Get(Some(entry)) => {
                entry.size()
            }
            TxnResult::Get(None) => 0,
        };
        if size > limits::TXN_RESULT_BYTES_MAX {
            let (size, limit) = (size as u64, limits::TXN_RESULT_BYTES_MAX as u64);
            return Err(Rejection::TooLarge {
                what: "the bytes of the transaction's answer".into(),
                size,
                limit,
            }
            .into());
        }
        results.push(result);
    }
    Ok(Outcome::Txn { succeeded, results })
}

/// Forgetting what is already forgotten is no mistake: the caller has what it wants. The next revision as the new floor
/// leaves nothing to resume from, and so lets the newest deletion give its space back too.
fn compact_history(meta: &mut Meta, compact: Compact) -> Result<Outcome, Rejection> {
    if compact.revision > meta.revision + 1 {
        let reason = format!(
            "{} is in the future; the current revision is {}",
            compact.revision, meta.revision
        );
        return Err(InvalidArgument::new("revision", reason).into());
    }
    meta.oldest_revision = meta.oldest_revision.max(compact.revision);
    Ok(Outcome::Compacted)
}

fn establish<R: Reader + ?Sized>(
    writer: &mut Writer<'_, '_, R>,
    found: &Found,
) -> Result<Outcome, Rejection> {
    if let Some(cluster_id) = &writer.meta.cluster_id {
        return Err(Rejection::AlreadyFounded { cluster_id: cluster_id.clone() });
    }
    writer.meta.cluster_id = Some(found.cluster_id.clone());
    writer.meta.history_limit = found.history_limit;
    Ok(Outcome::Founded)
}

/// A node registers again after its addresses changed; another disk under its id is refused, and so is an id whose node
/// was removed.
fn keep_node<R: Reader + ?Sized>(writer: &mut Writer<'_, '_, R>, node: &Node) -> QueryResult<()> {
    match known_node(writer, node.id)? {
        Some(Err(removed)) => return Err(Rejection::NodeRemoved { id: removed.id }.into()),
        Some(Ok(known)) if known.incarnation != node.incarnation => {
            return Err(Rejection::NodeIdTaken { id: node.id }.into());
        }
        Some(Ok(_)) => {}
        None => check_room_for_a_node(writer)?,
    }
    writer.store.put(keys::node(node.id), record::node_to_bytes(node));
    Ok(())
}

/// Leaves a mark behind for ever. One that never registered is marked as well: it may have been told to replicate.
fn remove_node<R: Reader + ?Sized>(
    writer: &mut Writer<'_, '_, R>,
    id: u64,
) -> QueryResult<Outcome> {
    let incarnation = match known_node(writer, id)? {
        Some(Err(_)) => return Ok(Outcome::NodeRemoved),
        Some(Ok(known)) => known.incarnation,
        None => {
            check_room_for_a_node(writer)?;
            String::new()
        }
    };
    let removed = RemovedNode { id, incarnation };
    writer.store.put(keys::node(id), record::removed_node_to_bytes(&removed));
    Ok(Outcome::NodeRemoved)
}

fn known_node<R: Reader + ?Sized>(
    writer: &Writer<'_, '_, R>,
    id: u64,
) -> QueryResult<Option<Result<Node, RemovedNode>>> {
    Ok(writer.store.get(&keys::node(id))?.map(record::node_from_bytes).transpose()?)
}

fn check_room_for_a_node<R: Reader + ?Sized>(writer: &Writer<'_, '_, R>) -> QueryResult<()> {
    let known = query::node_records(&*writer.store)?.len();
    if known >= limits::NODES_MAX {
        let (size, limit) = (known as u64 + 1, limits::NODES_MAX as u64);
        return Err(Rejection::TooLarge { what: "the table of nodes".into(), size, limit }.into());
    }
    Ok(())
}
