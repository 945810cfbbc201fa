//! The past of an entry: its versions, and what changed between two of them.

use axum::extract::State;
use http::StatusCode;

use super::caller::Asking;
use super::configs::target;
use super::openapi::{DiffDocument, HistoryDocument, ReadErrors};
use super::params::{CURSOR, ENV, ENV_FROM, ENV_TO, FROM, LIMIT, Query, TO, query_parameters};
use super::path::Segments;
use super::render::{self, array, entry};
use super::{Answer, AppState};
use crate::service::{DiffRequest, HistoryRequest};

query_parameters! {
    HistoryParameters: [ENV, LIMIT, CURSOR, CONSISTENCY, MIN_REVISION, MAX_STALENESS]
}

/// The versions of an entry
///
/// Newest first, deletes included (`"deleted": true`). 404 when it never existed.
#[utoipa::path(
    get, path = "/api/v1/configs/{ns}/{key}/history", tag = "configs", operation_id = "configHistory",
    params(
        ("ns" = String, Path, description = "Namespace; a `/` in it is written `%2F`"),
        ("key" = String, Path, description = "Key, percent-encoded"),
        HistoryParameters,
    ),
    responses((status = 200, description = "A page", body = HistoryDocument), ReadErrors)
)]
pub(super) async fn history(
    State(state): State<AppState>,
    Asking(caller): Asking,
    segments: Segments,
    query: Query<HistoryParameters>,
) -> Answer {
    let request = HistoryRequest {
        target: target(&segments, query.text(ENV))?,
        limit: query.number(LIMIT)?,
        cursor: query.given(CURSOR).map(str::to_owned),
        read: query.read_options()?,
    };
    let answer = state.service.history(&state.service.context(caller, None), request).await?;
    Ok(render::object(StatusCode::OK, answer.revision, |object| {
        array(object.raw("items"), &answer.items, entry);
        object.member("next_cursor", &answer.next_cursor);
    }))
}

query_parameters! {
    DiffParameters: [ENV, FROM, TO, ENV_FROM, ENV_TO, CONSISTENCY, MIN_REVISION, MAX_STALENESS]
}

/// What changed between two versions, or between two environments
///
/// As an RFC 6902 JSON Patch. A deleted version compares as null.
#[utoipa::path(
    get, path = "/api/v1/configs/{ns}/{key}/diff", tag = "configs", operation_id = "configDiff",
    params(
        ("ns" = String, Path, description = "Namespace; a `/` in it is written `%2F`"),
        ("key" = String, Path, description = "Key, percent-encoded"),
        DiffParameters,
    ),
    responses((status = 200, description = "Both sides and the patch", body = DiffDocument), ReadErrors)
)]
pub(super) async fn diff(
    State(state): State<AppState>,
    Asking(caller): Asking,
    segments: Segments,
    query: Query<DiffParameters>,
) -> Answer {
    let request = DiffRequest {
        target: target(&segments, query.text(ENV))?,
        from: query.number(FROM)?,
        to: query.number(TO)?,
        environment_from: query.text(ENV_FROM),
        environment_to: query.text(ENV_TO),
        read: query.read_options()?,
    };
    let answer = state.service.diff(&state.service.context(caller, None), request).await?;
    Ok(render::object(StatusCode::OK, answer.revision, |object| {
        entry(object.raw("from"), &answer.from);
        entry(object.raw("to"), &answer.to);
        object.raw("patch").extend_from_slice(answer.patch.as_bytes());
    }))
}
