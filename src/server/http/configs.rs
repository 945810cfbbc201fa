//! One entry: read, write, delete, roll back.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};
use llm_config_domain::Entry;
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::body::{ENTRY_BODY_BYTES_MAX, JsonBody, present};
use super::caller::Asking;
use super::headers::Headers;
use super::openapi::{EntryDocument, ReadErrors, WriteErrors};
use super::params::{
    COMMENT, ENV, EXPECTED_VERSION, Nothing, Query, RESOLVE, REVEAL, VERSION, query_parameters,
};
use super::path::{self, Segments};
use super::render::{AnswerRevision, entry_answer};
use super::{Answer, AppState};
use crate::error::ServiceError;
use crate::service::{DeleteRequest, GetRequest, RollbackRequest, SetRequest, Target};

/// Tells that an answer was remembered from the first request with the same idempotency key.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// A namespace and a key from the path, an environment from elsewhere.
pub(super) fn target(segments: &Segments, environment: String) -> Result<Target, ServiceError> {
    Ok(Target { namespace: segments.namespace()?, key: segments.key()?, environment })
}

query_parameters! {
    GetParameters: [ENV, RESOLVE, VERSION, REVEAL, CONSISTENCY, MIN_REVISION, MAX_STALENESS]
}

/// One entry
///
/// 404 when it is not there. `resolve=true` falls back as the environment does, `version=N` gives an old version,
/// `reveal=true` the plaintext of a secret to who may see it, once the audit log says so.
#[utoipa::path(
    get, path = "/api/v1/configs/{ns}/{key}", tag = "configs", operation_id = "getConfig",
    params(
        ("ns" = String, Path, description = "Namespace; a `/` in it is written `%2F`"),
        ("key" = String, Path, description = "Key, percent-encoded"),
        GetParameters,
    ),
    responses((status = 200, description = "The entry; its version is the `ETag`", body = EntryDocument), ReadErrors)
)]
pub(super) async fn get(
    State(state): State<AppState>,
    Asking(caller): Asking,
    segments: Segments,
    query: Query<GetParameters>,
) -> Answer {
    let request = GetRequest {
        target: target(&segments, query.text(ENV))?,
        read: query.read_options()?,
        resolve: query.flag(RESOLVE)?,
        version: query.number(VERSION)?,
        reveal: query.flag(REVEAL)?,
    };
    let answer = state.service.get(&state.service.context(caller, None), request).await?;
    let plaintext = answer.revealed.as_ref();
    Ok(entry_answer(StatusCode::OK, answer.revision, &answer.entry, plaintext))
}

/// A change of an entry.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SetBody<'a> {
    /// Any JSON value, `null` included, up to 1 MiB. Numbers are kept as they are written.
    #[serde(borrow, default, deserialize_with = "present")]
    #[schema(value_type = serde_json::Value, required)]
    pub(super) value: Option<&'a RawValue>,
    /// The environment; base when absent.
    env: Option<String>,
    /// Seal the value, a string: it is stored encrypted, shown masked, and only revealed to who may. Absent: as the
    /// entry is. False makes a secret a plain value.
    secret: Option<bool>,
    description: Option<String>,
    tags: Option<Vec<String>>,
    /// Why this change.
    comment: Option<String>,
    /// Refuse with 409 unless the entry is at this version; 0: unless it does not exist.
    expected_version: Option<u64>,
}

/// Creates or changes an entry
///
/// `If-Match: "N"` means the same as `expected_version`. The same `Idempotency-Key` with the same request gives the
/// first answer again for at least 10 minutes.
#[utoipa::path(
    method(put, post), path = "/api/v1/configs/{ns}/{key}", tag = "configs", operation_id = "setConfig",
    params(
        ("ns" = String, Path, description = "Namespace; a `/` in it is written `%2F`"),
        ("key" = String, Path, description = "Key, percent-encoded"),
        ("Idempotency-Key" = Option<String>, Header, description = "At most 64 bytes"),
        ("If-Match" = Option<String>, Header, description = "The expected version in double quotes"),
        ("If-None-Match" = Option<String>, Header, description = "`*`: the entry must not exist"),
        Nothing,
    ),
    request_body(content = SetBody, content_type = "application/json"),
    responses(
        (status = 200, description = "Changed", body = EntryDocument),
        (status = 201, description = "Created; `Location` leads to it", body = EntryDocument),
        WriteErrors,
    )
)]
pub(super) async fn set(
    State(state): State<AppState>,
    Asking(caller): Asking,
    segments: Segments,
    _query: Query<Nothing>,
    headers: Headers,
    body: JsonBody<ENTRY_BODY_BYTES_MAX>,
) -> Answer {
    let set: SetBody<'_> = body.required()?;
    let value = set
        .value
        .ok_or_else(|| ServiceError::invalid("value", "is required; null is a value too"))?;
    let request = SetRequest {
        target: target(&segments, set.env.unwrap_or_default())?,
        value: body.text(value),
        secret: set.secret,
        description: set.description.unwrap_or_default(),
        tags: set.tags.unwrap_or_default(),
        comment: set.comment.unwrap_or_default(),
        expected_version: headers.expected_version(set.expected_version)?,
        idempotency_key: headers.idempotency_key()?,
    };
    let answer = state.service.set(&state.service.context(caller, None), request).await?;
    let status = if answer.created { StatusCode::CREATED } else { StatusCode::OK };
    let mut response = changed(status, &answer.entry, answer.replayed);
    if answer.created {
        let address = &answer.entry.address;
        let location = path::of_entry(
            address.namespace.as_str(),
            address.key.as_str(),
            address.environment.as_str(),
        );
        if let Ok(location) = HeaderValue::from_str(&location) {
            response.headers_mut().insert(header::LOCATION, location);
        }
    }
    Ok(response)
}

query_parameters! {
    DeleteParameters: [ENV, EXPECTED_VERSION, COMMENT]
}

/// Deletes an entry
///
/// 404 when it is not there. The delete is a version of its own; history keeps what was before.
#[utoipa::path(
    delete, path = "/api/v1/configs/{ns}/{key}", tag = "configs", operation_id = "deleteConfig",
    params(
        ("ns" = String, Path, description = "Namespace; a `/` in it is written `%2F`"),
        ("key" = String, Path, description = "Key, percent-encoded"),
        ("Idempotency-Key" = Option<String>, Header, description = "At most 64 bytes"),
        ("If-Match" = Option<String>, Header, description = "The expected version in double quotes"),
        DeleteParameters,
    ),
    responses((status = 204, description = "Deleted"), WriteErrors)
)]
pub(super) async fn delete(
    State(state): State<AppState>,
    Asking(caller): Asking,
    segments: Segments,
    query: Query<DeleteParameters>,
    headers: Headers,
) -> Answer {
    let request = DeleteRequest {
        target: target(&segments, query.text(ENV))?,
        expected_version: headers.expected_version(query.number(EXPECTED_VERSION)?)?,
        comment: query.text(COMMENT),
        idempotency_key: headers.idempotency_key()?,
    };
    let answer = state.service.delete(&state.service.context(caller, None), request).await?;
    let mut response = StatusCode::NO_CONTENT.into_response();
    mark_replayed(&mut response, answer.replayed);
    Ok(response)
}

#[derive(Deserialize, ToSchema, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct RollbackBody {
    /// Why this change.
    comment: Option<String>,
    /// Refuse with 409 unless the entry is at this version.
    expected_version: Option<u64>,
}

query_parameters! {
    RollbackParameters: [ENV]
}

/// Brings an old value back
///
/// As a new version; history keeps everything.
#[utoipa::path(
    post, path = "/api/v1/configs/{ns}/{key}/rollback/{version}", tag = "configs", operation_id = "rollbackConfig",
    params(
        ("ns" = String, Path, description = "Namespace; a `/` in it is written `%2F`"),
        ("key" = String, Path, description = "Key, percent-encoded"),
        ("version" = u64, Path, description = "The version whose value comes back"),
        ("Idempotency-Key" = Option<String>, Header, description = "At most 64 bytes"),
        ("If-Match" = Option<String>, Header, description = "The expected version in double quotes"),
        RollbackParameters,
    ),
    request_body(content = Option<RollbackBody>, content_type = "application/json"),
    responses((status = 200, description = "The new version", body = EntryDocument), WriteErrors)
)]
pub(super) async fn rollback(
    State(state): State<AppState>,
    Asking(caller): Asking,
    segments: Segments,
    query: Query<RollbackParameters>,
    headers: Headers,
    body: JsonBody<ENTRY_BODY_BYTES_MAX>,
) -> Answer {
    let given: RollbackBody = body.optional()?;
    let request = RollbackRequest {
        target: target(&segments, query.text(ENV))?,
        version: segments.version()?,
        expected_version: headers.expected_version(given.expected_version)?,
        comment: given.comment.unwrap_or_default(),
        idempotency_key: headers.idempotency_key()?,
    };
    let answer = state.service.rollback(&state.service.context(caller, None), request).await?;
    Ok(changed(StatusCode::OK, &answer.entry, answer.replayed))
}

/// The answer to a change: what `X-Config-Revision` says stays this node's, which may be behind a forwarded change.
fn changed(status: StatusCode, entry: &Entry, replayed: bool) -> Response {
    let mut response = entry_answer(status, entry.revision, entry, None);
    response.extensions_mut().remove::<AnswerRevision>();
    mark_replayed(&mut response, replayed);
    response
}

pub(super) fn mark_replayed(response: &mut Response, replayed: bool) {
    if replayed {
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
}
