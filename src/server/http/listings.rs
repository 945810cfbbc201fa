//! Listings in pages: the entries of a namespace, the namespaces.

use axum::extract::State;
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::caller::Asking;
use super::openapi::{ListDocument, ReadErrors};
use super::params::{CURSOR, ENV, LIMIT, PREFIX, Query, query_parameters};
use super::path::Segments;
use super::render::{self, array, entry};
use super::{Answer, AppState};
use crate::service::{ListRequest, NamespacesRequest};

query_parameters! {
    ListParameters: [ENV, PREFIX, LIMIT, CURSOR, CONSISTENCY, MIN_REVISION, MAX_STALENESS]
}

/// The entries of a namespace
///
/// In one environment, sorted by key, a page at a time. A namespace without entries is an empty list.
#[utoipa::path(
    get, path = "/api/v1/configs/{ns}", tag = "configs", operation_id = "listConfigs",
    params(("ns" = String, Path, description = "Namespace; a `/` in it is written `%2F`"), ListParameters),
    responses((status = 200, description = "A page", body = ListDocument), ReadErrors)
)]
pub(super) async fn list(
    State(state): State<AppState>,
    Asking(caller): Asking,
    segments: Segments,
    query: Query<ListParameters>,
) -> Answer {
    let request = ListRequest {
        namespace: segments.namespace()?,
        environment: query.text(ENV),
        prefix: query.text(PREFIX),
        limit: query.number(LIMIT)?,
        cursor: query.given(CURSOR).map(str::to_owned),
        read: query.read_options()?,
    };
    let answer = state.service.list(&state.service.context(caller, None), request).await?;
    Ok(render::object(StatusCode::OK, answer.revision, |object| {
        array(object.raw("items"), &answer.items, entry);
        object.member("next_cursor", &answer.next_cursor);
        object.member("revision", &answer.revision);
    }))
}

query_parameters! {
    NamespacesParameters: [PREFIX, LIMIT, CURSOR, CONSISTENCY, MIN_REVISION, MAX_STALENESS]
}

/// A page of namespaces.
#[derive(Serialize, ToSchema)]
pub(super) struct NamespaceList {
    items: Vec<NamespaceItem>,
    /// Absent (null) on the last page.
    next_cursor: Option<String>,
    /// The revision that the page reflects.
    revision: u64,
}

#[derive(Serialize, ToSchema)]
pub(super) struct NamespaceItem {
    namespace: String,
    /// Entries in all environments.
    entries: u64,
}

/// The namespaces that have entries
#[utoipa::path(
    get, path = "/api/v1/namespaces", tag = "configs", operation_id = "listNamespaces",
    params(NamespacesParameters),
    responses((status = 200, description = "A page", body = NamespaceList), ReadErrors)
)]
pub(super) async fn namespaces(
    State(state): State<AppState>,
    Asking(caller): Asking,
    query: Query<NamespacesParameters>,
) -> Answer {
    let request = NamespacesRequest {
        prefix: query.text(PREFIX),
        limit: query.number(LIMIT)?,
        cursor: query.given(CURSOR).map(str::to_owned),
        read: query.read_options()?,
    };
    let answer = state.service.namespaces(&state.service.context(caller, None), request).await?;
    let items = answer
        .items
        .iter()
        .map(|item| NamespaceItem { namespace: item.namespace.to_string(), entries: item.entries })
        .collect();
    let list = NamespaceList { items, next_cursor: answer.next_cursor, revision: answer.revision };
    Ok(render::serialized(StatusCode::OK, answer.revision, &list))
}
