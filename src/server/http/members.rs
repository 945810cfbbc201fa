//! Changes of the cluster's members.

use axum::extract::State;
use axum::response::IntoResponse;
use http::StatusCode;
use llm_config_replica::Member;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::body::{ENTRY_BODY_BYTES_MAX, JsonBody};
use super::caller::Asking;
use super::cluster::MemberView;
use super::openapi::MemberErrors;
use super::params::{FORCE, Nothing, Query, query_parameters};
use super::path::Segments;
use super::render;
use super::{Answer, AppState};
use crate::service::AddMemberRequest;

/// A node that waits to be added.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AddBody {
    /// Its `--node-id`.
    id: u64,
    /// Its node-to-node address as others reach it, HOST:PORT.
    raft: String,
    /// Its HTTP address, HOST:PORT.
    http: String,
    /// Its client gRPC address, HOST:PORT.
    grpc: String,
    /// Do it although the cluster may lose its quorum by it.
    #[serde(default)]
    force: bool,
}

#[derive(Deserialize, ToSchema, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct ForceBody {
    /// Do it although the cluster may lose its quorum by it.
    #[serde(default)]
    force: bool,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReplaceBody {
    /// The learner that takes the place.
    with: u64,
    /// Do it although the cluster may lose its quorum by it.
    #[serde(default)]
    force: bool,
}

#[derive(Deserialize, ToSchema, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct TransferBody {
    /// The voter that is to lead; the best candidate when absent.
    to: Option<u64>,
    /// Do it although the cluster may lose its quorum by it.
    #[serde(default)]
    force: bool,
}

/// Who leads now.
#[derive(Serialize, ToSchema)]
pub(super) struct TransferView {
    leader_id: u64,
}

query_parameters! {
    /// Of the removal of a member.
    Removal: [FORCE]
}

fn answer(state: &AppState, status: StatusCode, member: Member) -> Answer {
    let revision = state.service.replica().applied_revision();
    Ok(render::serialized(status, revision, &MemberView::from(member)))
}

/// Adds a node as a learner
///
/// The node was started with `--join` and waits. It follows without a vote until it is promoted.
#[utoipa::path(
    post, path = "/api/v1/cluster/members", tag = "cluster", operation_id = "memberAdd",
    params(Nothing),
    request_body(content = AddBody, content_type = "application/json"),
    responses((status = 201, description = "The learner", body = MemberView), MemberErrors)
)]
pub(super) async fn add(
    State(state): State<AppState>,
    Asking(caller): Asking,
    _query: Query<Nothing>,
    body: JsonBody<ENTRY_BODY_BYTES_MAX>,
) -> Answer {
    let AddBody { id, raft, http, grpc, force } = body.required()?;
    let request = AddMemberRequest { id, raft, http, grpc, force };
    let member = state.service.add_member(&state.service.context(caller, None), request).await?;
    answer(&state, StatusCode::CREATED, member)
}

/// Gives a learner its vote
///
/// The learner must be reachable and have caught up.
#[utoipa::path(
    post, path = "/api/v1/cluster/members/{id}/promote", tag = "cluster", operation_id = "memberPromote",
    params(("id" = u64, Path, description = "The learner"), Nothing),
    request_body(content = Option<ForceBody>, content_type = "application/json"),
    responses((status = 200, description = "The voter", body = MemberView), MemberErrors)
)]
pub(super) async fn promote(
    State(state): State<AppState>,
    Asking(caller): Asking,
    path: Segments,
    _query: Query<Nothing>,
    body: JsonBody<ENTRY_BODY_BYTES_MAX>,
) -> Answer {
    let ForceBody { force } = body.optional()?;
    let context = state.service.context(caller, None);
    let member = state.service.promote_member(&context, path.member()?, force).await?;
    answer(&state, StatusCode::OK, member)
}

/// Takes a voter's vote
///
/// It goes on as a learner. A leader hands over first.
#[utoipa::path(
    post, path = "/api/v1/cluster/members/{id}/demote", tag = "cluster", operation_id = "memberDemote",
    params(("id" = u64, Path, description = "The voter"), Nothing),
    request_body(content = Option<ForceBody>, content_type = "application/json"),
    responses((status = 200, description = "The learner", body = MemberView), MemberErrors)
)]
pub(super) async fn demote(
    State(state): State<AppState>,
    Asking(caller): Asking,
    path: Segments,
    _query: Query<Nothing>,
    body: JsonBody<ENTRY_BODY_BYTES_MAX>,
) -> Answer {
    let ForceBody { force } = body.optional()?;
    let context = state.service.context(caller, None);
    let member = state.service.demote_member(&context, path.member()?, force).await?;
    answer(&state, StatusCode::OK, member)
}

/// Lets a learner take a member's place
///
/// One change swaps the two votes; then the old member is removed for ever. The old one may be dead, the new one must
/// have caught up.
#[utoipa::path(
    post, path = "/api/v1/cluster/members/{id}/replace", tag = "cluster", operation_id = "memberReplace",
    params(("id" = u64, Path, description = "The member that goes"), Nothing),
    request_body(content = ReplaceBody, content_type = "application/json"),
    responses((status = 200, description = "The new voter", body = MemberView), MemberErrors)
)]
pub(super) async fn replace(
    State(state): State<AppState>,
    Asking(caller): Asking,
    path: Segments,
    _query: Query<Nothing>,
    body: JsonBody<ENTRY_BODY_BYTES_MAX>,
) -> Answer {
    let ReplaceBody { with, force } = body.required()?;
    let context = state.service.context(caller, None);
    let member = state.service.replace_member(&context, path.member()?, with, force).await?;
    answer(&state, StatusCode::OK, member)
}

/// Removes a member for ever
///
/// Its id is never used again, and the node refuses to start. A leader hands over first.
#[utoipa::path(
    delete, path = "/api/v1/cluster/members/{id}", tag = "cluster", operation_id = "memberRemove",
    params(("id" = u64, Path, description = "The member that goes"), Removal),
    responses((status = 204, description = "Removed"), MemberErrors)
)]
pub(super) async fn remove(
    State(state): State<AppState>,
    Asking(caller): Asking,
    path: Segments,
    query: Query<Removal>,
) -> Answer {
    let context = state.service.context(caller, None);
    state.service.remove_member(&context, path.member()?, query.flag(FORCE)?).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Makes another voter the leader
#[utoipa::path(
    post, path = "/api/v1/cluster/transfer-leader", tag = "cluster", operation_id = "transferLeader",
    params(Nothing),
    request_body(content = Option<TransferBody>, content_type = "application/json"),
    responses((status = 200, description = "Who leads now", body = TransferView), MemberErrors)
)]
pub(super) async fn transfer_leader(
    State(state): State<AppState>,
    Asking(caller): Asking,
    _query: Query<Nothing>,
    body: JsonBody<ENTRY_BODY_BYTES_MAX>,
) -> Answer {
    let TransferBody { to, force } = body.optional()?;
    let context = state.service.context(caller, None);
    let leader_id = state.service.transfer_leader(&context, to, force).await?;
    let revision = state.service.replica().applied_revision();
    Ok(render::serialized(StatusCode::OK, revision, &TransferView { leader_id }))
}
