//! Changes: build the command, check it here, let the cluster decide.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use llm_config_domain::{
    Address, Command, Compact, Compare, Delete, JsonValue, Operation, Outcome, Rollback, Set, Txn,
    TxnOp, limits, query,
};
use llm_config_replica::ProposeError;

use super::{
    CompactAnswer, CompactRequest, Context, DeleteAnswer, DeleteRequest, RollbackAnswer,
    RollbackRequest,
};
use super::{Service, SetAnswer, SetRequest, Target, TxnAnswer, TxnOpRequest, TxnRequest};
use super::{internal, query_error, refused};
use crate::error::{Effect, ServiceError};

/// What came out of a proposal that the state machine accepted.
struct Done {
    outcome: Outcome,
    revision: u64,
    replayed: bool,
}

impl Service {
    pub async fn set(
        &self,
        context: &Context,
        request: SetRequest,
    ) -> Result<SetAnswer, ServiceError> {
        let result = self.set_entry(context, request).await;
        self.counted("set", result)
    }

    async fn set_entry(
        &self,
        context: &Context,
        request: SetRequest,
    ) -> Result<SetAnswer, ServiceError> {
        refuse_secret(request.secret)?;
        let address = request.target.parse()?;
        let what = missing(&address);
        let set = Set {
            address,
            value: JsonValue::parse(&request.value)?,
            description: request.description,
            tags: request.tags,
            comment: request.comment,
            expected_version: request.expected_version,
        };
        let done =
            self.propose(context, Operation::Set(set), request.idempotency_key, what).await?;
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
        let result = self.delete_entry(context, request).await;
        self.counted("delete", result)
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
        let result = self.rollback_entry(context, request).await;
        self.counted("rollback", result)
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
        };
        let done = self
            .propose(context, Operation::Rollback(rollback), request.idempotency_key, what)
            .await?;
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
        self.counted("txn", result)
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
        let txn = Txn {
            compare: each("compare", request.compare, |compare| {
                Ok(Compare { address: compare.target.parse()?, version: compare.version })
            })?,
            success: each("success", request.success, txn_op)?,
            failure: each("failure", request.failure, txn_op)?,
        };
        let what = "the transaction deletes an entry that is not there".to_owned();
        let done =
            self.propose(context, Operation::Txn(txn), request.idempotency_key, what).await?;
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
        self.counted("compact", result)
    }

    async fn compact_history(
        &self,
        context: &Context,
        request: CompactRequest,
    ) -> Result<CompactAnswer, ServiceError> {
        if let Some(revision) = request.revision {
            let what = format!("there is no revision {revision}");
            self.propose(context, Operation::Compact(Compact { revision }), None, what).await?;
        }
        let storage = self.compact_storage(context).await?;
        let (view, revision) = self.view()?;
        let meta = query::meta(&view)
            .map_err(|error| query_error(error, revision, || "there is no state".into()))?;
        Ok(CompactAnswer { revision, oldest_revision: meta.oldest_revision, storage })
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

    async fn propose(
        &self,
        context: &Context,
        operation: Operation,
        idempotency_key: Option<String>,
        what: String,
    ) -> Result<Done, ServiceError> {
        let idempotent = idempotency_key.is_some();
        let mut command = Command::new(context.actor.clone(), operation);
        if command.size() > limits::COMMAND_BYTES_MAX {
            return Err(ServiceError::PayloadTooLarge {
                what: "body".into(),
                limit: limits::COMMAND_BYTES_MAX as u64,
            });
        }
        if let Some(key) = idempotency_key {
            command = command.with_request_id(key);
        }
        command.validate()?;
        let proposed = self.replica().propose(command, context.deadline).await;
        let applied = proposed.map_err(|error| not_proposed(error, idempotent))?;
        let outcome = applied.result.map_err(|rejection| refused(rejection, || what))?;
        Ok(Done { outcome, revision: applied.revision, replayed: applied.replayed })
    }
}

fn missing(address: &Address) -> String {
    format!("there is no entry {address}")
}

/// Encryption at rest is not there, and storing a secret in the clear would be worse than refusing it.
fn refuse_secret(secret: bool) -> Result<(), ServiceError> {
    if secret {
        return Err(ServiceError::invalid(
            "secret",
            "this version stores no secrets; leave it out or send false",
        ));
    }
    Ok(())
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
            refuse_secret(secret)?;
            let value = JsonValue::parse(&value)?;
            TxnOp::Set(Set {
                address: address(target)?,
                value,
                description,
                tags,
                comment,
                expected_version,
            })
        }
        TxnOpRequest::Delete { target, expected_version, comment } => {
            TxnOp::Delete(Delete { address: address(target)?, expected_version, comment })
        }
        TxnOpRequest::Get { target } => TxnOp::Get(address(target)?),
    })
}

fn not_proposed(error: ProposeError, idempotent: bool) -> ServiceError {
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
fn unexpected(outcome: &Outcome) -> ServiceError {
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
