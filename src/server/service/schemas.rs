//! Schemas: put, read, deleted, and what they say of the values that are about to be written.
//!
//! A value is checked on the node that took it, and the command names the schema that it was checked by. Should another one
//! be in place when the command is applied, the state machine says so, and the value is checked again. A value that does not
//! meet its schema is refused at once; with an idempotency key it is proposed all the same, in a form that the state machine
//! never carries out, because this may be the retry of a request that was carried out before the schema came.

use std::collections::BTreeMap;
use std::sync::Arc;

use llm_config_domain::{
    Action, Address, AuditKind, CheckedSchema, DeleteSchema, JsonValue, Key, Namespace, Operation,
    Outcome, PutSchema, QueryError, Schema, TxnOp, Value, limits, query, schemas,
};
use serde_json::Value as Json;
use tokio::sync::Semaphore;
use zeroize::Zeroize as _;

use super::cursor::Listing;
use super::pages::{check_prefix, collect, next, page_limit, start};
use super::writes::unexpected;
use super::{
    Context, DeleteSchemaAnswer, DeleteSchemaRequest, GetSchemaRequest, ListSchemasRequest,
    PutSchemaAnswer, PutSchemaRequest, ReadOptions, SchemaAnswer, SchemasAnswer, Service, internal,
    query_error,
};
use crate::error::{ServiceError, Violation};
use crate::schemas::{Contract, too_costly};

/// Checks that take longer, at a time: each keeps a processor to itself.
const CHECKS_AT_ONCE: usize = 2;

pub(super) fn slots() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(CHECKS_AT_ONCE))
}

/// What the schemas say of the values of an operation.
#[derive(Debug, Default)]
pub(super) struct Judged {
    checked: BTreeMap<(Namespace, Key), u64>,
    violations: Vec<Violation>,
    /// Whose schema is not met.
    of: Option<String>,
}

impl Judged {
    /// Refuses values that do not meet their schemas, unless this may be a retry; then with the refusal for when it is
    /// none.
    pub(super) fn refuse_or_ask(
        &self,
        may_be_retry: bool,
    ) -> Result<Option<ServiceError>, ServiceError> {
        let Some(of) = self.of.clone() else { return Ok(None) };
        let refusal = ServiceError::SchemaViolation { of, violations: self.violations.clone() };
        if may_be_retry { Ok(Some(refusal)) } else { Err(refusal) }
    }

    /// What the command says that its values were checked by.
    pub(super) fn schemas(&self) -> Vec<CheckedSchema> {
        let each = self.checked.iter();
        each.map(|((namespace, key), version)| CheckedSchema {
            namespace: namespace.clone(),
            key: key.clone(),
            version: *version,
        })
        .collect()
    }

    fn add(&mut self, schema: &Schema, place: &str, violations: Vec<Violation>) {
        let name = (schema.namespace.clone(), schema.key.clone());
        let checked = self.checked.entry(name).or_insert(schema.version);
        if violations.is_empty() {
            return;
        }
        *checked = CheckedSchema::UNMET;
        self.of.get_or_insert_with(|| format!("{} in {}", schema.key, schema.namespace));
        let placed = violations
            .into_iter()
            .map(|violation| Violation { path: format!("{place}{}", violation.path), ..violation });
        self.violations.extend(placed);
        self.violations.truncate(crate::schemas::VIOLATIONS_MAX);
    }
}

impl Service {
    /// What the schemas say of the values in an operation, none of which is sealed yet.
    pub(super) async fn judge(
        &self,
        context: &Context,
        operation: &Operation,
    ) -> Result<Judged, ServiceError> {
        let mut judged = Judged::default();
        for (place, address, value) in values(operation) {
            if let Some(schema) = self.schema_of(address)? {
                let violations = self.check(context, &schema, value.to_json()).await?;
                judged.add(&schema, &place.pointer(), violations);
            }
        }
        Ok(judged)
    }

    /// What the schema of an entry says of one of its old versions, which is about to come back. A version that this node
    /// does not have is left to the state machine.
    pub(super) async fn judge_version(
        &self,
        context: &Context,
        address: &Address,
        version: u64,
    ) -> Result<Judged, ServiceError> {
        let mut judged = Judged::default();
        let Some(schema) = self.schema_of(address)? else { return Ok(judged) };
        let (view, revision) = self.view()?;
        let entry = match query::get_version(&view, address, version) {
            Ok(entry) => entry,
            Err(QueryError::Refused(_)) => return Ok(judged),
            Err(error) => return Err(query_error(error, revision, || "there is no state".into())),
        };
        let json = match entry.value {
            None => return Ok(judged),
            Some(Value::Json(json)) => json.to_json(),
            Some(Value::Sealed(sealed)) => {
                let plaintext = self.open(address, &sealed)?;
                serde_json::from_slice(plaintext.expose())
                    .map_err(|_| internal("a secret is not JSON".into()))?
            }
        };
        let violations = self.check(context, &schema, json).await?;
        judged.add(&schema, "", violations);
        Ok(judged)
    }

    /// The schema that the entry's values have to meet, as far as this node has applied.
    fn schema_of(&self, address: &Address) -> Result<Option<Schema>, ServiceError> {
        let known = self.inner.guards.schemas.version(&address.namespace, &address.key);
        let unreadable = |error| internal(format!("storage: {error}"));
        if known.map_err(unreadable)?.is_none() {
            return Ok(None);
        }
        let (view, _) = self.view()?;
        schemas::get(&view, &address.namespace, &address.key).map_err(unreadable)
    }

    async fn check(
        &self,
        context: &Context,
        schema: &Schema,
        value: Json,
    ) -> Result<Vec<Violation>, ServiceError> {
        let contract = self.inner.guards.schemas.contract(schema).map_err(|reason| {
            internal(format!("the schema of {} in {}: {reason}", schema.key, schema.namespace))
        })?;
        match contract.is_quick(&value) {
            None => Ok(vec![too_costly()]),
            Some(true) => Ok(violations(&contract, value)),
            Some(false) => {
                let late = |_| ServiceError::Overloaded {
                    reason: "the value could not be checked by its schema in time".into(),
                };
                let deadline = context.deadline.into();
                let slot = Arc::clone(&self.inner.checks).acquire_owned();
                let slot = tokio::time::timeout_at(deadline, slot).await.map_err(late)?;
                let checking = tokio::task::spawn_blocking(move || {
                    let found = violations(&contract, value);
                    drop(slot);
                    found
                });
                let checked = tokio::time::timeout_at(deadline, checking).await.map_err(late)?;
                checked.map_err(|error| internal(format!("the check broke off: {error}")))
            }
        }
    }

    pub async fn put_schema(
        &self,
        context: &Context,
        request: PutSchemaRequest,
    ) -> Result<PutSchemaAnswer, ServiceError> {
        let result = self.keep_schema(context, request).await;
        self.counted(context, "schema_put", result)
    }

    async fn keep_schema(
        &self,
        context: &Context,
        request: PutSchemaRequest,
    ) -> Result<PutSchemaAnswer, ServiceError> {
        let too_large = || ServiceError::PayloadTooLarge {
            what: "schema".into(),
            limit: limits::SCHEMA_BYTES_MAX as u64,
        };
        let schema = JsonValue::parse(&request.schema).map_err(|error| match error {
            llm_config_domain::ValueError::TooLarge { .. } => too_large(),
            llm_config_domain::ValueError::Invalid(invalid) => {
                ServiceError::invalid("schema", invalid.reason)
            }
        })?;
        if schema.as_bytes().len() > limits::SCHEMA_BYTES_MAX {
            return Err(too_large());
        }
        let put = PutSchema {
            namespace: Namespace::parse(&request.namespace)?,
            key: Key::parse(&request.key)?,
            schema,
            expected_version: request.expected_version,
            comment: request.comment,
        };
        let (namespace, key) = (put.namespace.clone(), put.key.clone());
        let operation = Operation::PutSchema(put.clone());
        self.authorize(context, &operation.needs()).await?;
        let text = put.schema.bytes();
        let read = tokio::task::spawn_blocking(move || Contract::read(&text).map(drop)).await;
        read.map_err(|error| internal(format!("reading the schema broke off: {error}")))?
            .map_err(|reason| ServiceError::invalid("schema", reason))?;
        let what = format!("there is no schema of {key} in {namespace}");
        let done = self.propose(context, operation, request.idempotency_key, what).await?;
        self.changed(AuditKind::SchemaPut, &done);
        let Outcome::SchemaPut { version, created } = done.outcome else {
            return Err(unexpected(&done.outcome));
        };
        let (view, revision) = self.view()?;
        let kept = schemas::get(&view, &namespace, &key)
            .map_err(|error| internal(format!("storage: {error}")))?;
        // Somebody may have put another one since; then who put this one, and when, is known to the audit log only.
        let schema = kept.filter(|kept| kept.version == version).unwrap_or_else(|| Schema {
            namespace,
            key,
            schema: put.schema,
            version,
            created_at_ms: 0,
            created_by: String::new(),
            updated_at_ms: 0,
            updated_by: context.caller.name.to_string(),
            comment: put.comment,
        });
        Ok(PutSchemaAnswer { schema, created, revision, replayed: done.replayed })
    }

    pub async fn schema(
        &self,
        context: &Context,
        request: GetSchemaRequest,
    ) -> Result<SchemaAnswer, ServiceError> {
        let result = self.show_schema(context, request).await;
        self.counted(context, "schema_get", result)
    }

    async fn show_schema(
        &self,
        context: &Context,
        request: GetSchemaRequest,
    ) -> Result<SchemaAnswer, ServiceError> {
        let (namespace, key) = (Namespace::parse(&request.namespace)?, Key::parse(&request.key)?);
        self.may_read_schemas(context, &request.read, &namespace).await?;
        self.on_view(context, move |view, revision| {
            let found = schemas::get(view, &namespace, &key)
                .map_err(|error| internal(format!("storage: {error}")))?;
            let schema = found.ok_or_else(|| ServiceError::NotFound {
                what: format!("there is no schema of {key} in {namespace}"),
                revision: Some(revision),
            })?;
            Ok(SchemaAnswer { schema, revision })
        })
        .await
    }

    /// A schema is the same in every environment, so the right to read in one of them is enough.
    async fn may_read_schemas(
        &self,
        context: &Context,
        read: &ReadOptions,
        namespace: &Namespace,
    ) -> Result<(), ServiceError> {
        self.fresh(context, read, &[]).await?;
        if self.rights(context)?.allow_in_some(Action::Read, namespace) {
            return Ok(());
        }
        Err(self.deny(&context.caller, format!("read in {namespace}")).await)
    }

    pub async fn schemas(
        &self,
        context: &Context,
        request: ListSchemasRequest,
    ) -> Result<SchemasAnswer, ServiceError> {
        let result = self.list_schemas(context, request).await;
        self.counted(context, "schemas", result)
    }

    async fn list_schemas(
        &self,
        context: &Context,
        request: ListSchemasRequest,
    ) -> Result<SchemasAnswer, ServiceError> {
        let namespace = Namespace::parse(&request.namespace)?;
        check_prefix("prefix", &request.prefix, limits::KEY_BYTES_MAX)?;
        let limit = page_limit(request.limit)?;
        let prefix = request.prefix;
        let scope = ["schemas", namespace.as_str(), &prefix];
        let parse = |text: &str| Ok(Key::parse(text)?);
        let after = start(&Listing(&scope), request.cursor.as_deref(), parse)?;
        self.may_read_schemas(context, &request.read, &namespace).await?;
        self.on_view(context, move |view, revision| {
            let page = collect(
                limit,
                after,
                |schema: &Schema| schema.schema.as_bytes().len(),
                |schema| schema.key.clone(),
                |after, limit| {
                    schemas::list(view, &namespace, &prefix, after.as_ref(), limit)
                        .map_err(|error| internal(format!("storage: {error}")))
                },
            )?;
            let scope = ["schemas", namespace.as_str(), &prefix];
            let next_cursor =
                next(&page, &Listing(&scope), |schema| schema.key.as_str().as_bytes().to_vec());
            Ok(SchemasAnswer { items: page.items, next_cursor, revision })
        })
        .await
    }

    pub async fn delete_schema(
        &self,
        context: &Context,
        request: DeleteSchemaRequest,
    ) -> Result<DeleteSchemaAnswer, ServiceError> {
        let result = self.forget_schema(context, request).await;
        self.counted(context, "schema_delete", result)
    }

    async fn forget_schema(
        &self,
        context: &Context,
        request: DeleteSchemaRequest,
    ) -> Result<DeleteSchemaAnswer, ServiceError> {
        let delete = DeleteSchema {
            namespace: Namespace::parse(&request.namespace)?,
            key: Key::parse(&request.key)?,
            expected_version: request.expected_version,
            comment: request.comment,
        };
        let what = format!("there is no schema of {} in {}", delete.key, delete.namespace);
        let operation = Operation::DeleteSchema(delete);
        let done = self.propose(context, operation, request.idempotency_key, what).await?;
        self.changed(AuditKind::SchemaDelete, &done);
        match done.outcome {
            Outcome::SchemaDeleted { version } => {
                Ok(DeleteSchemaAnswer { version, replayed: done.replayed })
            }
            other => Err(unexpected(&other)),
        }
    }
}

/// What the value does not meet. It may be a secret: its memory is overwritten.
fn violations(contract: &Contract, mut value: Json) -> Vec<Violation> {
    let found = contract.violations(&value);
    if let Json::String(text) = &mut value {
        text.zeroize();
    }
    found
}

/// Where a value is in its request.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// It is the value of the request.
    Value,
    /// In a list of operations.
    In(&'static str, usize),
}

impl Place {
    fn pointer(self) -> String {
        match self {
            Place::Value => String::new(),
            Place::In(list, index) => format!("/{list}/{index}/value"),
        }
    }
}

/// The values of an operation, and for which entries they are.
fn values(operation: &Operation) -> Vec<(Place, &Address, &JsonValue)> {
    match operation {
        Operation::Set(set) => {
            set.value.json().map(|json| (Place::Value, &set.address, json)).into_iter().collect()
        }
        Operation::Txn(txn) => {
            let lists = [("success", &txn.success), ("failure", &txn.failure)].into_iter();
            let ops = lists.flat_map(|(list, ops)| {
                ops.iter().enumerate().map(move |(index, op)| (Place::In(list, index), op))
            });
            ops.filter_map(|(place, op)| match op {
                TxnOp::Set(set) => set.value.json().map(|json| (place, &set.address, json)),
                TxnOp::Delete(_) | TxnOp::Get(_) => None,
            })
            .collect()
        }
        _ => Vec::new(),
    }
}
