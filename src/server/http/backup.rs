//! Backups of the whole store: streamed, or kept in this node's data directory.

use std::io;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::body::{ENTRY_BODY_BYTES_MAX, JsonBody};
use super::caller::Asking;
use super::openapi::{ReadErrors, WriteErrors};
use super::params::{BACKUP_CONSISTENCY, Nothing, Query, query_parameters};
use super::render::{self, AnswerRevision};
use super::{Answer, AppState};
use crate::backups::{BackupStream, Kept, stamp};
use crate::service::Consistency;

query_parameters! {
    BackupParameters: [BACKUP_CONSISTENCY]
}

/// These requests need no body; one with fields is refused instead of ignored.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct NoFields {}

/// A backup in the data directory of the answering node.
#[derive(Serialize, ToSchema)]
pub(super) struct BackupView {
    /// Name of the file in `backups` of the data directory; sorted by name, the newest comes first.
    name: String,
    bytes: u64,
    /// The revision of the store that it holds.
    revision: u64,
    /// RFC 3339, UTC
    created_at: String,
}

/// The backups in the data directory of the answering node.
#[derive(Serialize, ToSchema)]
pub(super) struct BackupList {
    /// Newest first.
    items: Vec<BackupView>,
    node_id: u64,
}

/// What came of a backup into the data directory.
#[derive(Serialize, ToSchema)]
pub(super) struct BackupMade {
    /// Null while it is being made: it goes on, and the list shows it when it is complete.
    backup: Option<BackupView>,
    node_id: u64,
}

impl From<Kept> for BackupView {
    fn from(kept: Kept) -> Self {
        BackupView {
            name: kept.name,
            bytes: kept.bytes,
            revision: kept.revision,
            created_at: render::timestamp(kept.created_at_s.saturating_mul(1000)),
        }
    }
}

/// A backup of the whole store, as one file
///
/// One consistent revision with all versions and settings, checksummed. The answer ends early, by a broken connection,
/// when the backup cannot be finished; such a file is refused by `backup verify` and by a restore. A client that takes
/// nothing for 30 s is cut off.
#[utoipa::path(
    post, path = "/api/v1/admin/backup", tag = "cluster", operation_id = "backup",
    params(BackupParameters),
    responses(
        (status = 200, description = "The file", content_type = "application/octet-stream", body = Vec<u8>),
        WriteErrors
    )
)]
pub(super) async fn backup(
    State(state): State<AppState>,
    Asking(caller): Asking,
    query: Query<BackupParameters>,
    body: JsonBody<ENTRY_BODY_BYTES_MAX>,
) -> Answer {
    let NoFields {} = body.optional()?;
    let consistency = query
        .given(BACKUP_CONSISTENCY)
        .map_or(Ok(Consistency::Linearizable), Consistency::parse)?;
    let stream = state.service.backup(&state.service.context(caller, None), consistency).await?;
    Ok(file(stream))
}

fn file(stream: BackupStream) -> Response {
    let BackupStream { manifest, chunks } = stream;
    let name = format!(
        "llm-config-{}-r{}.backup",
        stamp(manifest.created_at_ms / 1000),
        manifest.revision
    );
    // An error in the body is not an answer: the connection is cut, so that the client cannot take it for the end.
    let chunks = chunks.into_stream().map(|chunk| {
        chunk.map_err(|error| {
            tracing::warn!(reason = %error, "a backup is cut off");
            io::Error::other(error.to_string())
        })
    });
    let mut response = Body::from_stream(chunks).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    if let Ok(disposition) = HeaderValue::from_str(&format!("attachment; filename=\"{name}\"")) {
        headers.insert(header::CONTENT_DISPOSITION, disposition);
    }
    response.extensions_mut().insert(AnswerRevision(manifest.revision));
    response
}

/// The backups in this node's data directory
#[utoipa::path(
    get, path = "/api/v1/admin/backups", tag = "cluster", operation_id = "backups",
    params(Nothing),
    responses((status = 200, description = "Complete backups, newest first", body = BackupList), ReadErrors)
)]
pub(super) async fn list(
    State(state): State<AppState>,
    Asking(caller): Asking,
    _query: Query<Nothing>,
) -> Answer {
    let kept = state.service.kept_backups(&state.service.context(caller, None)).await?;
    let replica = state.service.replica();
    let view = BackupList {
        items: kept.into_iter().map(Into::into).collect(),
        node_id: replica.node_id(),
    };
    Ok(render::serialized(StatusCode::OK, replica.applied_revision(), &view))
}

/// Makes a backup in this node's data directory
///
/// Like the scheduled ones: the oldest beyond the number to keep are deleted once it is complete.
#[utoipa::path(
    post, path = "/api/v1/admin/backups", tag = "cluster", operation_id = "keep_backup",
    params(Nothing),
    responses(
        (status = 201, description = "Made", body = BackupMade),
        (status = 202, description = "Begun; it takes longer than a request may", body = BackupMade),
        WriteErrors
    )
)]
pub(super) async fn keep(
    State(state): State<AppState>,
    Asking(caller): Asking,
    _query: Query<Nothing>,
    body: JsonBody<ENTRY_BODY_BYTES_MAX>,
) -> Answer {
    let NoFields {} = body.optional()?;
    let kept = state.service.keep_backup(&state.service.context(caller, None)).await?;
    let replica = state.service.replica();
    let status = if kept.is_some() { StatusCode::CREATED } else { StatusCode::ACCEPTED };
    let view = BackupMade { backup: kept.map(Into::into), node_id: replica.node_id() };
    Ok(render::serialized(status, replica.applied_revision(), &view))
}
