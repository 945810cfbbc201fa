//! The audit log: its records in pages, and whether its chain is whole.

use axum::extract::State;
use http::StatusCode;
use jiff::Timestamp;
use llm_config_domain::{AuditRecord, AuditRetention};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::body::{ENTRY_BODY_BYTES_MAX, JsonBody};
use super::caller::Asking;
use super::openapi::{ReadErrors, WriteErrors};
use super::params::{
    ACTOR, AUDIT_KEY, AUDIT_NAMESPACE, AUDIT_TYPE, CURSOR, LIMIT, Nothing, ORDER, Param, Query,
    SINCE, UNTIL, query_parameters,
};
use super::render;
use super::{Answer, AppState};
use crate::error::ServiceError;
use crate::hex::hex;
use crate::service::AuditRequest;

query_parameters! {
    AuditParameters: [
        AUDIT_TYPE, ACTOR, AUDIT_NAMESPACE, AUDIT_KEY, SINCE, UNTIL, ORDER, LIMIT, CURSOR,
        CONSISTENCY, MIN_REVISION, MAX_STALENESS,
    ]
}

/// What happened once.
#[derive(Serialize, ToSchema)]
pub(super) struct AuditRecordView {
    /// Counts 1, 2, 3… without a gap.
    sequence: u64,
    /// RFC 3339, UTC, by the clock of the leader.
    time: String,
    /// config.set, secret.reveal, auth.token_create, access.denied, …
    r#type: &'static str,
    /// Who, by name.
    actor: String,
    /// Who, by what never changes: the id of a token, or the subject of somebody else's. Empty without authentication.
    principal: String,
    /// From which network address; empty for what a node does by itself.
    source: String,
    /// The `X-Request-Id` of the answer.
    request_id: String,
    /// The node that took the request.
    node_id: u64,
    /// The store's revision by then; of a change, the revision that it made.
    revision: u64,
    /// The entries that it is about.
    targets: Vec<AuditTargetView>,
    /// Why, in the words of who did it.
    comment: String,
    detail: String,
    /// Of the record before, hexadecimal.
    previous_hash: String,
    /// SHA-256 of this record and the hash before, hexadecimal.
    hash: String,
}

#[derive(Serialize, ToSchema)]
pub(super) struct AuditTargetView {
    namespace: String,
    key: String,
    env: &'static str,
    /// The version that it made, or that was shown; null when none is meant.
    version: Option<u64>,
}

/// A page of records.
#[derive(Serialize, ToSchema)]
pub(super) struct AuditList {
    /// May be empty on a page that is not the last one: it looked at many records that were not asked for.
    items: Vec<AuditRecordView>,
    /// Null on the last page.
    next_cursor: Option<String>,
    /// The revision that the page reflects.
    revision: u64,
}

/// A chain that was walked.
#[derive(Serialize, ToSchema)]
pub(super) struct AuditVerdictView {
    /// Whether every record is what it was and where it was.
    whole: bool,
    node_id: u64,
    revision: u64,
    /// Records that were checked, in a whole chain.
    records: Option<u64>,
    /// The oldest record that is kept; null when the log is empty or broken.
    first_sequence: Option<u64>,
    last_sequence: Option<u64>,
    /// The hash of the newest record: equal on two nodes when all that led to it is.
    head: Option<String>,
    /// In a broken chain: the first record that is not what it should be.
    broken: Option<AuditBreakView>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct AuditBreakView {
    sequence: u64,
    reason: &'static str,
}

/// How long records stay. The oldest go first; what is left stays checkable.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RetentionView {
    /// Older records go, milliseconds.
    max_age_ms: u64,
    /// When all of them take more, the oldest go.
    max_bytes: u64,
}

impl From<AuditRecord> for AuditRecordView {
    fn from(record: AuditRecord) -> Self {
        let event = record.event;
        let targets = event.targets.into_iter().map(|target| AuditTargetView {
            namespace: target.address.namespace.to_string(),
            key: target.address.key.to_string(),
            env: target.address.environment.as_str(),
            version: Some(target.version).filter(|version| *version != 0),
        });
        AuditRecordView {
            sequence: record.sequence,
            time: render::timestamp(record.time_ms),
            r#type: event.kind.as_str(),
            targets: targets.collect(),
            actor: event.actor,
            principal: event.principal,
            source: event.source,
            request_id: event.request_id,
            node_id: event.node,
            revision: record.revision,
            comment: event.comment,
            detail: event.detail,
            previous_hash: hex(&record.previous),
            hash: hex(&record.hash),
        }
    }
}

impl From<AuditRetention> for RetentionView {
    fn from(retention: AuditRetention) -> Self {
        RetentionView { max_age_ms: retention.max_age_ms, max_bytes: retention.max_bytes }
    }
}

/// The audit log
///
/// Who did what, when, why and from where: one record per change, refusal, revealed secret and administrative action.
#[utoipa::path(
    get, path = "/api/v1/audit", tag = "audit", operation_id = "audit",
    params(AuditParameters),
    responses((status = 200, description = "A page", body = AuditList), ReadErrors)
)]
pub(super) async fn audit(
    State(state): State<AppState>,
    Asking(caller): Asking,
    query: Query<AuditParameters>,
) -> Answer {
    let oldest_first = match query.given(ORDER) {
        None | Some("newest") => false,
        Some("oldest") => true,
        Some(_) => return Err(ServiceError::invalid("order", "must be newest or oldest").into()),
    };
    let text = |param| query.given(param).filter(|text| !text.is_empty()).map(str::to_owned);
    let request = AuditRequest {
        kind: text(AUDIT_TYPE),
        actor: text(ACTOR),
        namespace: text(AUDIT_NAMESPACE),
        key: text(AUDIT_KEY),
        from_ms: time(&query, SINCE)?,
        to_ms: time(&query, UNTIL)?,
        oldest_first,
        limit: query.number(LIMIT)?,
        cursor: query.given(CURSOR).map(str::to_owned),
        read: query.read_options()?,
    };
    let answer = state.service.audit(&state.service.context(caller, None), request).await?;
    let list = AuditList {
        items: answer.items.into_iter().map(Into::into).collect(),
        next_cursor: answer.next_cursor,
        revision: answer.revision,
    };
    Ok(render::serialized(StatusCode::OK, answer.revision, &list))
}

fn time(query: &Query<AuditParameters>, param: Param) -> Result<Option<u64>, ServiceError> {
    let Some(text) = query.given(param).filter(|text| !text.is_empty()) else { return Ok(None) };
    let time = text.parse::<Timestamp>().map_err(|_| {
        ServiceError::invalid(param.name, "must be a time like 2026-01-31T12:00:00Z (RFC 3339)")
    })?;
    // Before 1970 nothing was recorded.
    Ok(Some(u64::try_from(time.as_millisecond()).unwrap_or_default()))
}

/// Walks the audit log's chain
///
/// On the answering node, from the oldest record that is kept to the newest: finds what was altered, is missing or
/// changed its place.
#[utoipa::path(
    get, path = "/api/v1/audit/verify", tag = "audit", operation_id = "verifyAudit",
    params(Nothing),
    responses(
        (status = 200, description = "Whole", body = AuditVerdictView),
        (status = 409, description = "Broken: the first record that is not what it should be", body = AuditVerdictView),
        ReadErrors
    )
)]
pub(super) async fn verify(
    State(state): State<AppState>,
    Asking(caller): Asking,
    _query: Query<Nothing>,
) -> Answer {
    let verdict = state.service.verify_audit(&state.service.context(caller, None)).await?;
    let mut view = AuditVerdictView {
        whole: verdict.chain.is_ok(),
        node_id: state.service.replica().node_id(),
        revision: verdict.revision,
        records: None,
        first_sequence: None,
        last_sequence: None,
        head: None,
        broken: None,
    };
    let status = match verdict.chain {
        Ok(chain) => {
            let records = (chain.last + 1).saturating_sub(chain.first);
            view.records = Some(records);
            view.first_sequence = (records > 0).then_some(chain.first);
            view.last_sequence = (records > 0).then_some(chain.last);
            view.head = Some(hex(&chain.head));
            StatusCode::OK
        }
        Err(broken) => {
            let (sequence, reason) = (broken.sequence, broken.reason);
            view.broken = Some(AuditBreakView { sequence, reason });
            StatusCode::CONFLICT
        }
    };
    Ok(render::serialized(status, verdict.revision, &view))
}

/// How long audit records stay
#[utoipa::path(
    get, path = "/api/v1/audit/retention", tag = "audit", operation_id = "auditRetention",
    params(Nothing),
    responses((status = 200, description = "The bounds", body = RetentionView), ReadErrors)
)]
pub(super) async fn retention(
    State(state): State<AppState>,
    Asking(caller): Asking,
    _query: Query<Nothing>,
) -> Answer {
    let retention = state.service.audit_retention(&state.service.context(caller, None)).await?;
    let revision = state.service.replica().applied_revision();
    Ok(render::serialized(StatusCode::OK, revision, &RetentionView::from(retention)))
}

/// Sets how long audit records stay
#[utoipa::path(
    put, path = "/api/v1/audit/retention", tag = "audit", operation_id = "setAuditRetention",
    params(Nothing),
    request_body(content = RetentionView, content_type = "application/json"),
    responses((status = 200, description = "The bounds", body = RetentionView), WriteErrors)
)]
pub(super) async fn set_retention(
    State(state): State<AppState>,
    Asking(caller): Asking,
    _query: Query<Nothing>,
    body: JsonBody<ENTRY_BODY_BYTES_MAX>,
) -> Answer {
    let RetentionView { max_age_ms, max_bytes } = body.required()?;
    let context = state.service.context(caller, None);
    let kept = AuditRetention { max_age_ms, max_bytes };
    let kept = state.service.set_audit_retention(&context, kept).await?;
    let revision = state.service.replica().applied_revision();
    Ok(render::serialized(StatusCode::OK, revision, &RetentionView::from(kept)))
}
