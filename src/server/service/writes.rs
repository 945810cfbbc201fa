//! Changes: build the command, check it here, let the cluster decide.
//!
//! Whose right it needs is asked twice: here, so that nobody loads the cluster with what they may not do, and where it is
//! applied, when the policy has changed in between.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use llm_config_cache::Slot;
use llm_config_domain::{
    Action, Address, AuditKind, Command, Compact, Compare, Delete, JsonValue, Need, Operation,
    Outcome, Rejection, Rollback, Set, Txn, TxnOp, TxnResult, Value, limits, query,
};
use llm_config_replica::ProposeError;

use super::schemas::Judged;
use super::secrets::{ATTEMPTS_MAX, next_version};
use super::{
    CacheCleared, CompactAnswer, CompactRequest, Context, DeleteAnswer, DeleteRequest,
    RollbackAnswer, RollbackRequest,
};
use super::{Service, SetAnswer, SetRequest, Target, TxnAnswer, TxnOpRequest, TxnRequest};
use super::{internal, query_error, refused};
use crate::error::{Effect, ServiceError};
use crate::metrics::SecretAccess;

/// What came out of a proposal that the state machine accepted.
pub(super) struct Done {
    pub(super) outcome: Outcome,
    pub(super) revision: u64,
    pub(super) replayed: bool,
}

/// What each set of an operation says about being a secret; `None`: as the entry is.
type Choices = Vec<Option<bool>>;

impl Service {
    pub async fn set(
        &self,
        context: &Context,
        request: SetRequest,
    ) -> Result<SetAnswer, ServiceError> {
        let environment = super::named(&request.target.environment);
        let result = self.set_entry(context, request).await;
        self.counted_in(context, "set", environment, result)
    }

    async fn set_entry(
        &self,
        context: &Context,
        request: SetRequest,
    ) -> Result<SetAnswer, ServiceError> {
        let address = request.target.parse()?;
        let what = missing(&address);
        let set = Set {
            address,
            value: JsonValue::parse(&request.value)?.into(),
            description: request.description,
            tags: request.tags,
            comment: request.comment,
            expected_version: request.expected_version,
            declassify: request.secret == Some(false),
        };
        let operation = Operation::Set(set);
        let choices = vec![request.secret];
        let done = self.write(context, operation, choices, request.idempotency_key, what).await?;
        self.changed(AuditKind::ConfigSet, &done);
        match done.outcome {
            Outcome::Set { entry, created } => {
                Ok(SetAnswer { entry, created, revision: done.revision, replayed: done.replayed })
            }
            other => Err(unexpected(&other)),
        }
    }

    pub async fn delete(
        &self,
        context: &Context,
        request: DeleteRequest,
    ) -> Result<DeleteAnswer, ServiceError> {
        let environment = super::named(&request.target.environment);
        let result = self.delete_entry(context, request).await;
        self.counted_in(context, "delete", environment, result)
    }

    async fn delete_entry(
        &self,
        context: &Context,
        request: DeleteRequest,
    ) -> Result<DeleteAnswer, ServiceError> {
        let address = request.target.parse()?;
        let what = missing(&address);
        let delete = Delete {
            address,
            expected_version: request.expected_version,
            comment: request.comment,
        };
        let done =
            self.propose(context, Operation::Delete(delete), request.idempotency_key, what).await?;
        self.changed(AuditKind::ConfigDelete, &done);
        match done.outcome {
            Outcome::Deleted { entry } => Ok(DeleteAnswer {
                version: entry.version,
                revision: done.revision,
                replayed: done.replayed,
            }),
            other => Err(unexpected(&other)),
        }
    }

    pub async fn rollback(
        &self,
        context: &Context,
        request: RollbackRequest,
    ) -> Result<RollbackAnswer, ServiceError> {
        let environment = super::named(&request.target.environment);
        let result = self.rollback_entry(context, request).await;
        self.counted_in(context, "rollback", environment, result)
    }

    async fn rollback_entry(
        &self,
        context: &Context,
        request: RollbackRequest,
    ) -> Result<RollbackAnswer, ServiceError> {
        let address = request.target.parse()?;
        let what = format!("there is no version {} of {address} to go back to", request.version);
        let rollback = Rollback {
            address,
            version: request.version,
            expected_version: request.expected_version,
            comment: request.comment,
            resealed: None,
        };
        let plain = Operation::Rollback(rollback.clone());
        self.authorize(context, &plain.needs()).await?;
        // The digest of what was asked; how it is sealed differs from try to try.
        let request = match request.idempotency_key {
            None => None,
            Some(key) => self.command(context, plain)?.with_request_id(key).request,
        };
        let rollback = &rollback;
        let done = self
            .propose_sealed(context, request, what, || async move {
                let Rollback { address, version, .. } = rollback;
                let next = next_version(self, address)?;
                let judged = self.judge_version(context, address, *version).await?;
                let resealed = self.sealed_again(context, address, *version, next).await?;
                Ok((Operation::Rollback(Rollback { resealed, ..rollback.clone() }), judged))
            })
            .await?;
        self.changed(AuditKind::ConfigRollback, &done);
        match done.outcome {
            Outcome::RolledBack { entry } => {
                Ok(RollbackAnswer { entry, revision: done.revision, replayed: done.replayed })
            }
            other => Err(unexpected(&other)),
        }
    }

    pub async fn txn(
        &self,
        context: &Context,
        request: TxnRequest,
    ) -> Result<TxnAnswer, ServiceError> {
        let result = self.transact(context, request).await;
        self.counted(context, "txn", result)
    }

    async fn transact(
        &self,
        context: &Context,
        request: TxnRequest,
    ) -> Result<TxnAnswer, ServiceError> {
        let counts = [
            ("compare", request.compare.len(), limits::TXN_COMPARES_MAX),
            ("success", request.success.len(), limits::TXN_OPS_MAX),
            ("failure", request.failure.len(), limits::TXN_OPS_MAX),
        ];
        // Before anything is parsed: refusing a million operations must be cheap.
        for (field, count, max) in counts {
            if count > max {
                return Err(ServiceError::invalid(
                    field,
                    format!("has {count} elements, at most {max} are allowed"),
                ));
            }
        }
        let choices = choices(&request);
        let txn = Txn {
            compare: each("compare", request.compare, |compare| {
                Ok(Compare { address: compare.target.parse()?, version: compare.version })
            })?,
            success: each("success", request.success, txn_op)?,
            failure: each("failure", request.failure, txn_op)?,
        };
        let what = "the transaction deletes an entry that is not there".to_owned();
        let operation = Operation::Txn(txn);
        let done = self.write(context, operation, choices, request.idempotency_key, what).await?;
        if matches!(&done.outcome, Outcome::Txn { results, .. } if changes(results)) {
            self.changed(AuditKind::ConfigTxn, &done);
        }
        match done.outcome {
            Outcome::Txn { succeeded, results } => Ok(TxnAnswer {
                succeeded,
                revision: done.revision,
                results,
                replayed: done.replayed,
            }),
            other => Err(unexpected(&other)),
        }
    }

    pub async fn compact(
        &self,
        context: &Context,
        request: CompactRequest,
    ) -> Result<CompactAnswer, ServiceError> {
        let result = self.compact_history(context, request).await;
        self.counted(context, "compact", result)
    }

    async fn compact_history(
        &self,
        context: &Context,
        request: CompactRequest,
    ) -> Result<CompactAnswer, ServiceError> {
        match request.revision {
            Some(revision) => {
                let operation = Operation::Compact(Compact { revision });
                let what = format!("there is no revision {revision}");
                let done = self.propose(context, operation, None, what).await?;
                self.changed(AuditKind::AdminCompact, &done);
            }
            None => {
                self.authorize(context, &[Need::Everywhere(Action::Cluster)]).await?;
                let detail = format!("the storage of node {}", self.replica().node_id());
                self.note(context, AuditKind::AdminCompact, detail).await;
            }
        }
        let storage = self.compact_storage(context).await?;
        let (view, revision) = self.view()?;
        let meta = query::meta(&view)
            .map_err(|error| query_error(error, revision, || "there is no state".into()))?;
        Ok(CompactAnswer { revision, oldest_revision: meta.oldest_revision, storage })
    }

    /// Forgets what this node keeps in memory of the entries. Nothing is lost, and no answer becomes newer by it: the next
    /// reads go to storage.
    pub async fn clear_cache(&self, context: &Context) -> Result<CacheCleared, ServiceError> {
        let result = self.authorize(context, &[Need::Everywhere(Action::Cluster)]).await.map(|()| {
            let cache = &self.inner.shared.cache;
            let held = cache.size();
            cache.reset();
            tracing::info!(by = %context.caller.name, entries = held.entries, "the cache was cleared");
            CacheCleared { entries: held.entries, revision: self.replica().applied_revision() }
        });
        self.counted(context, "cache_clear", result)
    }

    /// One at a time on this node; a long one goes on after the request was answered.
    async fn compact_storage(&self, context: &Context) -> Result<&'static str, ServiceError> {
        if self.inner.compacting.swap(true, Ordering::SeqCst) {
            return Ok("running");
        }
        let inner = Arc::clone(&self.inner);
        let task = tokio::task::spawn_blocking(move || {
            inner.replica.compact();
            inner.compacting.store(false, Ordering::SeqCst);
        });
        match tokio::time::timeout_at(context.deadline.into(), task).await {
            Err(_) => Ok("running"),
            Ok(Ok(())) => Ok("compacted"),
            Ok(Err(error)) => Err(internal(format!("the compaction broke off: {error}"))),
        }
    }

    /// Proposes what needs no secret, for somebody who may do it.
    pub(super) async fn propose(
        &self,
        context: &Context,
        operation: Operation,
        idempotency_key: Option<String>,
        what: String,
    ) -> Result<Done, ServiceError> {
        self.authorize(context, &operation.needs()).await?;
        let mut command = self.command(context, operation)?;
        if let Some(key) = idempotency_key {
            command = command.with_request_id(key);
        }
        command.validate()?;
        match self.submit(context, command).await? {
            Ok(done) => Ok(done),
            Err(rejection) => Err(self.rejected(context, rejection, what).await),
        }
    }

    /// Proposes values, those of secrets sealed.
    ///
    /// Whether an entry that is written without a word about it is a secret is looked up on this node. Should it have
    /// become one an instant ago elsewhere, the write is refused by the state machine and made again, sealed.
    async fn write(
        &self,
        context: &Context,
        plain: Operation,
        choices: Choices,
        idempotency_key: Option<String>,
        what: String,
    ) -> Result<Done, ServiceError> {
        self.authorize(context, &plain.needs()).await?;
        let mut secret = self.secrets_in(&plain, &choices)?;
        if !secret.contains(&true) {
            match self.propose_plain(context, &plain, idempotency_key.clone()).await? {
                Ok(done) => return Ok(done),
                Err(Rejection::EntryIsSecret) => {
                    self.catch_up(context.deadline).await?;
                    secret = self.secrets_in(&plain, &choices)?;
                }
                Err(rejection) => return Err(self.rejected(context, rejection, what).await),
            }
        }
        for (set, _) in sets(&plain).into_iter().zip(secret).filter(|(_, secret)| *secret) {
            if let Some(json) = set.value.json() {
                Self::plaintext(json.as_bytes())?;
            }
        }
        // Everything about it that is no secret is checked before anything is sealed.
        let command = self.command(context, plain.clone())?;
        command.validate()?;
        let said: Vec<u8> = choices.iter().map(|choice| choice.map_or(2, u8::from)).collect();
        let request =
            self.request_of(context, idempotency_key, &[&command.content(), &said]).await?;
        let (plain, choices) = (&plain, &choices);
        let done = self
            .propose_sealed(context, request, what, || self.sealed(context, plain, choices))
            .await?;
        if !done.replayed {
            self.inner.metrics.secret_access(SecretAccess::Write);
        }
        Ok(done)
    }

    /// Proposes values that are no secrets, again while other schemas come first than those that they were checked by.
    async fn propose_plain(
        &self,
        context: &Context,
        plain: &Operation,
        idempotency_key: Option<String>,
    ) -> Result<Result<Done, Rejection>, ServiceError> {
        let mut command = self.command(context, plain.clone())?;
        if let Some(key) = idempotency_key {
            command = command.with_request_id(key);
        }
        command.validate()?;
        for _ in 0..ATTEMPTS_MAX {
            let judged = self.judge(context, plain).await?;
            let retried = judged.refuse_or_ask(command.request.is_some())?;
            let checked = command.clone().checked_by(judged.schemas());
            match self.submit(context, checked).await? {
                Err(Rejection::SchemaChanged { .. }) => match retried {
                    Some(violation) => return Err(violation),
                    None => self.catch_up(context.deadline).await?,
                },
                answer => return Ok(answer),
            }
        }
        Err(ServiceError::Overloaded { reason: "the schema is being changed by others".into() })
    }

    /// The same operation with its secrets sealed for the versions that come next.
    async fn sealed(
        &self,
        context: &Context,
        plain: &Operation,
        choices: &Choices,
    ) -> Result<(Operation, Judged), ServiceError> {
        let judged = self.judge(context, plain).await?;
        let mut operation = plain.clone();
        let secret = self.secrets_in(plain, choices)?;
        let earlier = changes_before(plain);
        for ((set, secret), earlier) in
            sets_mut(&mut operation).into_iter().zip(secret).zip(earlier)
        {
            if !secret {
                continue;
            }
            let Some(json) = set.value.json() else { continue };
            let plaintext = Self::plaintext(json.as_bytes())?;
            let version = next_version(self, &set.address)? + earlier;
            set.value = Value::Sealed(self.seal(context, &set.address, version, &plaintext).await?);
        }
        Ok((operation, judged))
    }

    /// Which sets of an operation write a secret, as far as this node knows.
    fn secrets_in(
        &self,
        operation: &Operation,
        choices: &Choices,
    ) -> Result<Vec<bool>, ServiceError> {
        let mut view = None;
        let sets = sets(operation);
        let mut secret = Vec::with_capacity(sets.len());
        for (set, choice) in sets.into_iter().zip(choices) {
            secret.push(match choice {
                Some(said) => *said,
                None => match self.remembered_secret(&set.address) {
                    Some(known) => known,
                    None => {
                        let (view, revision) = match &mut view {
                            Some(view) => view,
                            none => none.insert(self.view()?),
                        };
                        query::is_secret(view, &set.address).map_err(|error| {
                            query_error(error, *revision, || missing(&set.address))
                        })?
                    }
                },
            });
        }
        Ok(secret)
    }

    /// What the cache says about an entry being a secret; nothing when it does not know the entry.
    fn remembered_secret(&self, address: &Address) -> Option<bool> {
        let shared = &self.inner.shared;
        shared.abreast_of(self.replica().applied_revision())?;
        shared.cache.peek(address).map(|slot| match slot {
            Slot::Present(entry) => entry.is_secret(),
            Slot::Absent { .. } => false,
        })
    }

    /// A command of the caller.
    pub(super) fn command(
        &self,
        context: &Context,
        operation: Operation,
    ) -> Result<Command, ServiceError> {
        let origin = context.caller.origin(self.replica().node_id());
        let command = Command::new(context.caller.name.to_string(), operation).from_origin(origin);
        if command.size() > limits::COMMAND_BYTES_MAX {
            return Err(ServiceError::PayloadTooLarge {
                what: "body".into(),
                limit: limits::COMMAND_BYTES_MAX as u64,
            });
        }
        Ok(command)
    }

    /// Proposes a command and waits until it is applied, or refused by the state machine.
    pub(super) async fn submit(
        &self,
        context: &Context,
        command: Command,
    ) -> Result<Result<Done, Rejection>, ServiceError> {
        let idempotent = command.request.is_some();
        let proposed = self.replica().propose(command, context.deadline).await;
        let applied = proposed.map_err(|error| not_proposed(error, idempotent))?;
        let (revision, replayed) = (applied.revision, applied.replayed);
        Ok(applied.result.map(|outcome| Done { outcome, revision, replayed }))
    }

    /// The answer to what the state machine refused. A right that was missing leaves its trace.
    pub(super) async fn rejected(
        &self,
        context: &Context,
        rejection: Rejection,
        what: String,
    ) -> ServiceError {
        let error = refused(rejection, || what);
        self.after_refusal(context, &error).await;
        error
    }

    /// Counts the record that a change left in the audit log.
    pub(super) fn changed(&self, kind: AuditKind, done: &Done) {
        if !done.replayed {
            self.inner.metrics.audit_event(kind.as_str());
        }
    }
}

fn missing(address: &Address) -> String {
    format!("there is no entry {address}")
}

/// Whether a transaction changed something.
fn changes(results: &[TxnResult]) -> bool {
    results.iter().any(|result| !matches!(result, TxnResult::Get(_)))
}

fn choices(request: &TxnRequest) -> Choices {
    let ops = request.success.iter().chain(&request.failure);
    ops.filter_map(|op| match op {
        TxnOpRequest::Set { secret, .. } => Some(*secret),
        TxnOpRequest::Delete { .. } | TxnOpRequest::Get { .. } => None,
    })
    .collect()
}

/// The sets of an operation, in their order.
fn sets(operation: &Operation) -> Vec<&Set> {
    match operation {
        Operation::Set(set) => vec![set],
        Operation::Txn(txn) => {
            let ops = txn.success.iter().chain(&txn.failure);
            ops.filter_map(|op| if let TxnOp::Set(set) = op { Some(set) } else { None }).collect()
        }
        _ => Vec::new(),
    }
}

fn sets_mut(operation: &mut Operation) -> Vec<&mut Set> {
    match operation {
        Operation::Set(set) => vec![set],
        Operation::Txn(txn) => {
            let ops = txn.success.iter_mut().chain(&mut txn.failure);
            ops.filter_map(|op| if let TxnOp::Set(set) = op { Some(set) } else { None }).collect()
        }
        _ => Vec::new(),
    }
}

/// For each set of an operation: how many changes of the same entry come before it in its list.
fn changes_before(operation: &Operation) -> Vec<u64> {
    let Operation::Txn(txn) = operation else { return vec![0] };
    let mut counts = Vec::new();
    for list in [&txn.success, &txn.failure] {
        let mut changed: HashMap<&Address, u64> = HashMap::new();
        for op in list {
            let (address, is_set) = match op {
                TxnOp::Set(set) => (&set.address, true),
                TxnOp::Delete(delete) => (&delete.address, false),
                TxnOp::Get(_) => continue,
            };
            let count = changed.entry(address).or_default();
            if is_set {
                counts.push(*count);
            }
            *count += 1;
        }
    }
    counts
}

/// Converts every element; an error names the element it is in.
fn each<T, U>(
    list: &'static str,
    elements: Vec<T>,
    convert: impl Fn(T) -> Result<U, ServiceError>,
) -> Result<Vec<U>, ServiceError> {
    let at = |index, error| match error {
        ServiceError::InvalidArgument { field, reason } => {
            ServiceError::invalid(format!("{list}[{index}].{field}"), reason)
        }
        ServiceError::PayloadTooLarge { what, limit } => {
            ServiceError::PayloadTooLarge { what: format!("{list}[{index}].{what}").into(), limit }
        }
        other => other,
    };
    elements
        .into_iter()
        .enumerate()
        .map(|(index, element)| convert(element).map_err(|error| at(index, error)))
        .collect()
}

fn txn_op(op: TxnOpRequest) -> Result<TxnOp, ServiceError> {
    let address = |target: Target| target.parse();
    Ok(match op {
        TxnOpRequest::Set {
            target,
            value,
            secret,
            description,
            tags,
            comment,
            expected_version,
        } => {
            if secret == Some(true) {
                Service::plaintext(&value)?;
            }
            let value = JsonValue::parse(&value)?.into();
            TxnOp::Set(Set {
                address: address(target)?,
                value,
                description,
                tags,
                comment,
                expected_version,
                declassify: secret == Some(false),
            })
        }
        TxnOpRequest::Delete { target, expected_version, comment } => {
            TxnOp::Delete(Delete { address: address(target)?, expected_version, comment })
        }
        TxnOpRequest::Get { target } => TxnOp::Get(address(target)?),
    })
}

pub(super) fn not_proposed(error: ProposeError, idempotent: bool) -> ServiceError {
    match error {
        ProposeError::NoLeader => ServiceError::NoLeader,
        ProposeError::NotReady => {
            ServiceError::NotReady { reason: "it has not joined a founded cluster yet".into() }
        }
        ProposeError::Overloaded => {
            ServiceError::Overloaded { reason: "writes are in flight up to the bound".into() }
        }
        ProposeError::StorageFull(reason) => ServiceError::StorageFull { reason },
        ProposeError::OutcomeUnknown => ServiceError::OutcomeUnknown {
            reason: "it was proposed and not answered in time".into(),
            idempotent,
        },
        ProposeError::Invalid(reason) => {
            ServiceError::InvalidArgument { field: "request".into(), reason }
        }
        ProposeError::Failed(reason) => {
            ServiceError::NotReady { reason: format!("it is stopping: {reason}") }
        }
    }
}

/// The state machine answered with the outcome of another operation: a fault of ours, and the change did happen.
pub(super) fn unexpected(outcome: &Outcome) -> ServiceError {
    let kind = match outcome {
        Outcome::Set { .. } => "set",
        Outcome::Deleted { .. } => "delete",
        Outcome::RolledBack { .. } => "rollback",
        Outcome::Txn { .. } => "txn",
        Outcome::Compacted => "compact",
        Outcome::Founded => "found",
        Outcome::Registered => "register",
        Outcome::NodeAdded => "add a node",
        Outcome::NodeRemoved => "remove a node",
        Outcome::Done => "done",
        Outcome::Banned { .. } => "ban",
        Outcome::SchemaPut { .. } => "put a schema",
        Outcome::SchemaDeleted { .. } => "delete a schema",
    };
    ServiceError::Internal {
        reason: format!("the command was answered as a {kind}"),
        effect: Effect::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_propose_error_says_whether_anything_happened() {
        let table = [
            (ProposeError::NoLeader, "NO_LEADER", "no"),
            (ProposeError::NotReady, "NOT_READY", "no"),
            (ProposeError::Overloaded, "OVERLOADED", "no"),
            (ProposeError::StorageFull("node 1".into()), "STORAGE_FULL", "no"),
            (ProposeError::OutcomeUnknown, "OUTCOME_UNKNOWN", "unknown"),
            (ProposeError::Invalid("deep".into()), "INVALID_ARGUMENT", "no"),
            (ProposeError::Failed("disk".into()), "NOT_READY", "no"),
        ];
        for (error, code, applied) in table {
            let mapped = not_proposed(error, true);
            assert_eq!((mapped.code(), mapped.effect().as_str()), (code, applied));
        }
    }

    #[test]
    fn an_error_in_a_list_names_its_element() {
        let ops = vec![
            TxnOpRequest::Get {
                target: Target {
                    namespace: "app".into(),
                    key: "a".into(),
                    environment: String::new(),
                },
            },
            TxnOpRequest::Get {
                target: Target {
                    namespace: "app".into(),
                    key: "b".into(),
                    environment: "moon".into(),
                },
            },
        ];
        let error = each("success", ops, txn_op).unwrap_err();
        assert!(error.to_string().starts_with("success[1].env: "), "{error}");
    }
}
