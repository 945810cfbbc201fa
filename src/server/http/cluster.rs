//! The cluster as this node sees it, and its maintenance.

use axum::extract::State;
use http::StatusCode;
use llm_config_replica::{Advertise, Member, Status};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::body::{ENTRY_BODY_BYTES_MAX, JsonBody};
use super::caller::Asking;
use super::openapi::{ReadErrors, WriteErrors};
use super::params::{Nothing, Query};
use super::render;
use super::{Answer, AppState};
use crate::service::CompactRequest;

/// The cluster from the answering node's point of view.
#[derive(Serialize, ToSchema)]
pub(super) struct ClusterView {
    /// Null until the cluster is founded.
    cluster_id: Option<String>,
    node_id: u64,
    /// leader, follower, candidate or learner
    role: &'static str,
    /// Null when unknown.
    leader_id: Option<u64>,
    /// Addresses of the leader; null when unknown.
    leader: Option<Addresses>,
    term: u64,
    last_log_index: u64,
    committed_index: u64,
    applied_index: u64,
    /// What this node has applied.
    revision: u64,
    /// Whether this node is in contact with a working majority.
    has_quorum: bool,
    version: &'static str,
    members: Vec<MemberView>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct Addresses {
    http: String,
    grpc: String,
    raft: String,
}

#[derive(Serialize, ToSchema)]
pub(super) struct MemberView {
    id: u64,
    /// leader, follower, candidate or learner, as far as this node knows
    role: &'static str,
    #[serde(flatten)]
    addresses: Addresses,
    /// Whether this node exchanged a message with it recently.
    reachable: bool,
    /// Highest log index known to be replicated to it; the leader knows it of all, others of nobody.
    matched_index: Option<u64>,
    /// The release that it registered with; empty until it has.
    version: String,
}

impl From<Advertise> for Addresses {
    fn from(addresses: Advertise) -> Self {
        Addresses { http: addresses.http, grpc: addresses.grpc, raft: addresses.raft }
    }
}

impl From<Member> for MemberView {
    fn from(member: Member) -> Self {
        MemberView {
            id: member.id,
            role: member.role.as_str(),
            addresses: member.addresses.into(),
            reachable: member.reachable,
            matched_index: member.matched_index,
            version: member.version,
        }
    }
}

impl From<Status> for ClusterView {
    fn from(status: Status) -> Self {
        ClusterView {
            cluster_id: status.cluster_id,
            node_id: status.node_id,
            role: status.role.as_str(),
            leader_id: status.leader_id,
            leader: status.leader.map(Into::into),
            term: status.term,
            last_log_index: status.last_log_index,
            committed_index: status.committed_index,
            applied_index: status.applied_index,
            revision: status.revision,
            has_quorum: status.has_quorum,
            version: env!("CARGO_PKG_VERSION"),
            members: status.members.into_iter().map(Into::into).collect(),
        }
    }
}

/// The cluster as this node sees it
#[utoipa::path(
    get, path = "/api/v1/cluster", tag = "cluster", operation_id = "cluster",
    params(Nothing),
    responses((status = 200, description = "Members, leader and progress", body = ClusterView), ReadErrors)
)]
pub(super) async fn cluster(
    State(state): State<AppState>,
    Asking(caller): Asking,
    _query: Query<Nothing>,
) -> Answer {
    let status = state.service.cluster(&state.service.context(caller, None)).await?;
    let revision = status.revision;
    Ok(render::serialized(StatusCode::OK, revision, &ClusterView::from(status)))
}

/// What was cleared.
#[derive(Serialize, ToSchema)]
pub(super) struct CacheClearedView {
    node_id: u64,
    /// Entries that the node kept in memory, and addresses that it knew to have none.
    entries: usize,
}

/// Forgets what this node keeps in memory of the entries
#[utoipa::path(
    post, path = "/api/v1/admin/cache/clear", tag = "cluster", operation_id = "clearCache",
    params(Nothing),
    responses((status = 200, description = "The next reads go to storage", body = CacheClearedView), WriteErrors)
)]
pub(super) async fn clear_cache(
    State(state): State<AppState>,
    Asking(caller): Asking,
    _query: Query<Nothing>,
) -> Answer {
    let cleared = state.service.clear_cache(&state.service.context(caller, None)).await?;
    let view =
        CacheClearedView { node_id: state.service.replica().node_id(), entries: cleared.entries };
    Ok(render::serialized(StatusCode::OK, cleared.revision, &view))
}

#[derive(Deserialize, ToSchema, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct CompactBody {
    /// Forget the changes before this revision, on every node: no watch can start there any more. Values and history
    /// stay. Without it, only this node's storage is compacted.
    revision: Option<u64>,
}

/// What a compaction did.
#[derive(Serialize, ToSchema)]
pub(super) struct CompactView {
    /// What this node has applied.
    revision: u64,
    /// The oldest revision that a watch can start from.
    oldest_revision: u64,
    /// `compacted`, or `running` while this node's storage needs longer
    storage: &'static str,
}

/// Forgets old changes and compacts this node's storage
#[utoipa::path(
    post, path = "/api/v1/admin/compact", tag = "cluster", operation_id = "compact",
    params(Nothing),
    request_body(content = Option<CompactBody>, content_type = "application/json"),
    responses((status = 200, description = "Done, or begun", body = CompactView), WriteErrors)
)]
pub(super) async fn compact(
    State(state): State<AppState>,
    Asking(caller): Asking,
    _query: Query<Nothing>,
    body: JsonBody<ENTRY_BODY_BYTES_MAX>,
) -> Answer {
    let given: CompactBody = body.optional()?;
    let request = CompactRequest { revision: given.revision };
    let answer = state.service.compact(&state.service.context(caller, None), request).await?;
    let view = CompactView {
        revision: answer.revision,
        oldest_revision: answer.oldest_revision,
        storage: answer.storage,
    };
    Ok(render::serialized(StatusCode::OK, answer.revision, &view))
}
