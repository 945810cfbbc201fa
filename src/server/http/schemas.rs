//! What the values of a key have to meet.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use llm_config_domain::Schema;
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::body::{ENTRY_BODY_BYTES_MAX, JsonBody, present};
use super::caller::Asking;
use super::configs::mark_replayed;
use super::headers::Headers;
use super::openapi::{ReadErrors, SchemaDocument, SchemaPageDocument, WriteErrors};
use super::params::{
    COMMENT, CURSOR, EXPECTED_VERSION, LIMIT, Nothing, PREFIX, Query, query_parameters,
};
use super::path::Segments;
use super::render::{self, AnswerRevision, Object, array, timestamp};
use super::{Answer, AppState};
use crate::error::ServiceError;
use crate::service::{DeleteSchemaRequest, GetSchemaRequest, ListSchemasRequest, PutSchemaRequest};

query_parameters! {
    GetParameters: [CONSISTENCY, MIN_REVISION, MAX_STALENESS]
}

/// The schema of a key
///
/// 404 when there is none.
#[utoipa::path(
    get, path = "/api/v1/schemas/{ns}/{key}", tag = "schemas", operation_id = "getSchema",
    params(
        ("ns" = String, Path, description = "Namespace; a `/` in it is written `%2F`"),
        ("key" = String, Path, description = "Key, percent-encoded"),
        GetParameters,
    ),
    responses((status = 200, description = "The schema; its version is the `ETag`", body = SchemaDocument), ReadErrors)
)]
pub(super) async fn get(
    State(state): State<AppState>,
    Asking(caller): Asking,
    segments: Segments,
    query: Query<GetParameters>,
) -> Answer {
    let request = GetSchemaRequest {
        namespace: segments.namespace()?,
        key: segments.key()?,
        read: query.read_options()?,
    };
    let answer = state.service.schema(&state.service.context(caller, None), request).await?;
    Ok(rendered(StatusCode::OK, answer.revision, &answer.schema))
}

/// A change of a schema.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PutSchemaBody<'a> {
    /// A JSON Schema of the draft 2020-12, up to 64 KiB. `$ref` leads into the schema itself only.
    #[serde(borrow, default, deserialize_with = "present")]
    #[schema(value_type = serde_json::Value, required)]
    schema: Option<&'a RawValue>,
    /// Why this change.
    comment: Option<String>,
    /// Refuse with 409 unless the schema is at this version; 0: unless there is none.
    expected_version: Option<u64>,
}

/// Says what every later value of a key has to meet, in every environment
///
/// Values that are there already stay. A value that does not meet it is refused with 422 `SCHEMA_VIOLATION`. Needs the right
/// to write in all environments of the namespace.
#[utoipa::path(
    put, path = "/api/v1/schemas/{ns}/{key}", tag = "schemas", operation_id = "putSchema",
    params(
        ("ns" = String, Path, description = "Namespace; a `/` in it is written `%2F`"),
        ("key" = String, Path, description = "Key, percent-encoded"),
        ("Idempotency-Key" = Option<String>, Header, description = "At most 64 bytes"),
        ("If-Match" = Option<String>, Header, description = "The expected version in double quotes"),
        ("If-None-Match" = Option<String>, Header, description = "`*`: there must be no schema"),
        Nothing,
    ),
    request_body(content = PutSchemaBody, content_type = "application/json"),
    responses(
        (status = 200, description = "Changed", body = SchemaDocument),
        (status = 201, description = "Created", body = SchemaDocument),
        WriteErrors,
    )
)]
pub(super) async fn put(
    State(state): State<AppState>,
    Asking(caller): Asking,
    segments: Segments,
    _query: Query<Nothing>,
    headers: Headers,
    body: JsonBody<ENTRY_BODY_BYTES_MAX>,
) -> Answer {
    let put: PutSchemaBody<'_> = body.required()?;
    let schema = put.schema.ok_or_else(|| ServiceError::invalid("schema", "is required"))?;
    let request = PutSchemaRequest {
        namespace: segments.namespace()?,
        key: segments.key()?,
        schema: body.text(schema),
        comment: put.comment.unwrap_or_default(),
        expected_version: headers.expected_version(put.expected_version)?,
        idempotency_key: headers.idempotency_key()?,
    };
    let answer = state.service.put_schema(&state.service.context(caller, None), request).await?;
    let status = if answer.created { StatusCode::CREATED } else { StatusCode::OK };
    let mut response = rendered(status, answer.revision, &answer.schema);
    response.extensions_mut().remove::<AnswerRevision>();
    mark_replayed(&mut response, answer.replayed);
    Ok(response)
}

query_parameters! {
    DeleteParameters: [EXPECTED_VERSION, COMMENT]
}

/// Lifts what the values of a key had to meet
///
/// 404 when there is no schema.
#[utoipa::path(
    delete, path = "/api/v1/schemas/{ns}/{key}", tag = "schemas", operation_id = "deleteSchema",
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
    let request = DeleteSchemaRequest {
        namespace: segments.namespace()?,
        key: segments.key()?,
        comment: query.text(COMMENT),
        expected_version: headers.expected_version(query.number(EXPECTED_VERSION)?)?,
        idempotency_key: headers.idempotency_key()?,
    };
    let answer = state.service.delete_schema(&state.service.context(caller, None), request).await?;
    let mut response = StatusCode::NO_CONTENT.into_response();
    mark_replayed(&mut response, answer.replayed);
    Ok(response)
}

query_parameters! {
    ListParameters: [PREFIX, LIMIT, CURSOR, CONSISTENCY, MIN_REVISION, MAX_STALENESS]
}

/// The schemas of a namespace
///
/// Sorted by key, a page at a time.
#[utoipa::path(
    get, path = "/api/v1/schemas/{ns}", tag = "schemas", operation_id = "listSchemas",
    params(("ns" = String, Path, description = "Namespace; a `/` in it is written `%2F`"), ListParameters),
    responses((status = 200, description = "A page", body = SchemaPageDocument), ReadErrors)
)]
pub(super) async fn list(
    State(state): State<AppState>,
    Asking(caller): Asking,
    segments: Segments,
    query: Query<ListParameters>,
) -> Answer {
    let request = ListSchemasRequest {
        namespace: segments.namespace()?,
        prefix: query.text(PREFIX),
        limit: query.number(LIMIT)?,
        cursor: query.given(CURSOR).map(str::to_owned),
        read: query.read_options()?,
    };
    let answer = state.service.schemas(&state.service.context(caller, None), request).await?;
    Ok(render::object(StatusCode::OK, answer.revision, |object| {
        array(object.raw("items"), &answer.items, |out, schema| {
            let mut object = Object::open(out);
            members(&mut object, schema);
            object.close();
        });
        object.member("next_cursor", &answer.next_cursor);
    }))
}

fn rendered(status: StatusCode, revision: u64, schema: &Schema) -> Response {
    let mut response = render::object(status, revision, |object| members(object, schema));
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{}\"", schema.version)) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

fn members(object: &mut Object<'_>, schema: &Schema) {
    object.member("namespace", schema.namespace.as_str());
    object.member("key", schema.key.as_str());
    object.raw("schema").extend_from_slice(schema.schema.as_bytes());
    object.member("version", &schema.version);
    object.member("created_at", &timestamp(schema.created_at_ms));
    object.member("created_by", &schema.created_by);
    object.member("updated_at", &timestamp(schema.updated_at_ms));
    object.member("updated_by", &schema.updated_by);
    object.member("comment", &schema.comment);
}
