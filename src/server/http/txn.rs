//! Transactions: compare, then one of two lists of operations, all or nothing.

use axum::extract::State;
use http::StatusCode;
use llm_config_domain::TxnResult;
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::body::{JsonBody, JsonObject, TXN_BODY_BYTES_MAX, present};
use super::caller::Asking;
use super::configs::mark_replayed;
use super::headers::Headers;
use super::openapi::{TxnDocument, WriteErrors};
use super::params::{Nothing, Query};
use super::render::{self, AnswerRevision, Object, array, entry};
use super::{Answer, AppState};
use crate::error::ServiceError;
use crate::service::{CompareRequest, Target, TxnOpRequest, TxnRequest};

/// Operations that depend on versions.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TxnBody<'a> {
    /// All must hold for `success` to run, at most 128.
    #[serde(default)]
    #[schema(value_type = Vec<CompareBody>)]
    pub(super) compare: Vec<JsonObject<CompareBody>>,
    /// Run when every comparison holds, at most 128.
    #[serde(borrow, default)]
    #[schema(value_type = Vec<OpBody>)]
    pub(super) success: Vec<JsonObject<OpBody<'a>>>,
    /// Run otherwise, at most 128.
    #[serde(borrow, default)]
    #[schema(value_type = Vec<OpBody>)]
    pub(super) failure: Vec<JsonObject<OpBody<'a>>>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CompareBody {
    namespace: String,
    key: String,
    /// The environment; base when absent.
    env: Option<String>,
    /// 0: the entry must not exist.
    version: u64,
}

#[derive(Deserialize, ToSchema, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum OpName {
    Set,
    Delete,
    Get,
}

/// One operation. `value`, `secret`, `description` and `tags` are for `set` only, `comment` and `expected_version`
/// for `set` and `delete`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct OpBody<'a> {
    op: OpName,
    namespace: String,
    key: String,
    /// The environment; base when absent.
    env: Option<String>,
    #[serde(borrow, default, deserialize_with = "present")]
    #[schema(value_type = Option<serde_json::Value>)]
    value: Option<&'a RawValue>,
    secret: Option<bool>,
    description: Option<String>,
    tags: Option<Vec<String>>,
    comment: Option<String>,
    expected_version: Option<u64>,
}

/// Several changes at once
///
/// All comparisons hold: `success` runs, otherwise `failure`. All operations of a list happen together, under one
/// revision, or none does.
#[utoipa::path(
    post, path = "/api/v1/txn", tag = "configs", operation_id = "transact",
    params(("Idempotency-Key" = Option<String>, Header, description = "At most 64 bytes"), Nothing),
    request_body(content = TxnBody, content_type = "application/json"),
    responses((status = 200, description = "Which list ran, and what it did", body = TxnDocument), WriteErrors)
)]
pub(super) async fn txn(
    State(state): State<AppState>,
    Asking(caller): Asking,
    _query: Query<Nothing>,
    headers: Headers,
    body: JsonBody<TXN_BODY_BYTES_MAX>,
) -> Answer {
    let given: TxnBody<'_> = body.required()?;
    let request = TxnRequest {
        compare: given.compare.into_iter().map(compare).collect(),
        success: ops("success", given.success, &body)?,
        failure: ops("failure", given.failure, &body)?,
        idempotency_key: headers.idempotency_key()?,
    };
    let answer = state.service.txn(&state.service.context(caller, None), request).await?;
    let mut response = render::object(StatusCode::OK, answer.revision, |object| {
        object.member("succeeded", &answer.succeeded);
        object.member("revision", &answer.revision);
        array(object.raw("results"), &answer.results, result);
    });
    // The transaction's revision may be ahead of what this node has applied.
    response.extensions_mut().remove::<AnswerRevision>();
    mark_replayed(&mut response, answer.replayed);
    Ok(response)
}

pub(super) fn compare(JsonObject(body): JsonObject<CompareBody>) -> CompareRequest {
    let target = Target {
        namespace: body.namespace,
        key: body.key,
        environment: body.env.unwrap_or_default(),
    };
    CompareRequest { target, version: body.version }
}

pub(super) fn ops(
    list: &'static str,
    bodies: Vec<JsonObject<OpBody<'_>>>,
    body: &JsonBody<TXN_BODY_BYTES_MAX>,
) -> Result<Vec<TxnOpRequest>, ServiceError> {
    let at = |index, (field, reason): (&str, &str)| {
        ServiceError::invalid(format!("{list}[{index}].{field}"), reason)
    };
    bodies
        .into_iter()
        .enumerate()
        .map(|(index, one)| op(one.0, body).map_err(|error| at(index, error)))
        .collect()
}

/// Refuses fields that the operation would ignore, by name and reason.
fn op(
    given: OpBody<'_>,
    body: &JsonBody<TXN_BODY_BYTES_MAX>,
) -> Result<TxnOpRequest, (&'static str, &'static str)> {
    let set_only = [
        ("value", given.value.is_some()),
        ("secret", given.secret.is_some()),
        ("description", given.description.is_some()),
        ("tags", given.tags.is_some()),
    ];
    let change_only = [
        ("comment", given.comment.is_some()),
        ("expected_version", given.expected_version.is_some()),
    ];
    let refused =
        |fields: &[(&'static str, bool)], reason| match fields.iter().find(|(_, given)| *given) {
            Some((name, _)) => Err((*name, reason)),
            None => Ok(()),
        };
    if given.op != OpName::Set {
        refused(&set_only, "is for set only")?;
    }
    if given.op == OpName::Get {
        refused(&change_only, "is for set and delete only")?;
    }
    let target = Target {
        namespace: given.namespace,
        key: given.key,
        environment: given.env.unwrap_or_default(),
    };
    Ok(match given.op {
        OpName::Set => TxnOpRequest::Set {
            target,
            value: body.text(given.value.ok_or(("value", "is required; null is a value too"))?),
            secret: given.secret,
            description: given.description.unwrap_or_default(),
            tags: given.tags.unwrap_or_default(),
            comment: given.comment.unwrap_or_default(),
            expected_version: given.expected_version,
        },
        OpName::Delete => TxnOpRequest::Delete {
            target,
            expected_version: given.expected_version,
            comment: given.comment.unwrap_or_default(),
        },
        OpName::Get => TxnOpRequest::Get { target },
    })
}

fn result(out: &mut Vec<u8>, result: &TxnResult) {
    let mut object = Object::open(out);
    let (op, found) = match result {
        TxnResult::Set(found) => ("set", Some(found)),
        TxnResult::Delete(found) => ("delete", Some(found)),
        TxnResult::Get(found) => ("get", found.as_ref()),
    };
    object.member("op", op);
    match found {
        Some(found) => entry(object.raw("entry"), found),
        None => object.member("entry", &()),
    }
    object.close();
}
