//! Health, readiness, liveness and leadership over HTTP, for load balancers, orchestrators and people.
//!
//! Every answer is made from what this node knows; nothing here asks another node or touches the network.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use futures::FutureExt;
use http::StatusCode;
use llm_config_domain::query;
use llm_config_replica::{Replica, Role, SpaceStats, Status};
use serde::Serialize;

use crate::http::AppState;
use crate::metrics::HealthSample;
use crate::service::Service;

/// `service` of the body.
const SERVICE: &str = "llm-config-manager";
/// Committed entries that a node may still have to apply before it counts as degraded.
const APPLY_LAG_ENTRIES_MAX: u64 = 10_000;
/// Revisions that the cache may be behind storage before the node counts as degraded.
const CACHE_LAG_REVISIONS_MAX: u64 = 1_000;
/// Share of the disk below which a node counts as degraded, in percent.
const DISK_FREE_PERCENT_MIN: u64 = 10;

/// `/health`, `/health/live`, `/health/ready` and `/health/leader`.
pub fn router(state: AppState) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/health/live", get(live))
        .route("/health/ready", get(ready))
        .route("/health/leader", get(leader))
        .with_state(state)
}

/// How well something is; the worst part is how well the whole is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Health {
    Healthy,
    Degraded(String),
    Unhealthy(String),
}

impl Health {
    fn word(&self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded(_) => "degraded",
            Self::Unhealthy(_) => "unhealthy",
        }
    }

    /// The word alone, or the word and the reason.
    fn sentence(&self) -> String {
        match self {
            Self::Healthy => self.word().to_owned(),
            Self::Degraded(reason) | Self::Unhealthy(reason) => {
                format!("{}: {reason}", self.word())
            }
        }
    }

    fn level(&self) -> u8 {
        match self {
            Self::Healthy => 2,
            Self::Degraded(_) => 1,
            Self::Unhealthy(_) => 0,
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Healthy | Self::Degraded(_) => StatusCode::OK,
            Self::Unhealthy(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

#[derive(Debug, Serialize)]
struct Body {
    status: &'static str,
    service: &'static str,
    version: &'static str,
    node_id: u64,
    /// Null until this node belongs to a founded cluster.
    cluster_id: Option<String>,
    role: &'static str,
    leader_id: Option<u64>,
    term: u64,
    applied_index: u64,
    uptime_seconds: u64,
    checks: Checks,
}

#[derive(Debug, Serialize)]
struct Checks {
    raft: String,
    storage: String,
    cache: String,
    disk: String,
}

async fn health(State(state): State<AppState>) -> Response {
    let service = state.service.clone();
    // The numbers of the disk and a read from storage may wait for the disk.
    match tokio::task::spawn_blocking(move || examine(&service)).await {
        Ok((status, body)) => (status, Json(body)).into_response(),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()).into_response(),
    }
}

/// Of the replication, the storage engine, the cache and the disk. It reads from storage, so it may wait for the disk.
fn checks(service: &Service, status: &Status) -> [Health; 4] {
    let replica = service.replica();
    let space = replica.stats().space;
    [raft(status, replica.awaits_cluster()), storage(replica, &space), cache(service), disk(&space)]
}

/// The same answer as a page, in numbers. May wait for the disk.
pub(crate) fn levels(service: &Service) -> HealthSample {
    let levels = checks(service, &service.replica().status()).map(|check| check.level());
    let [raft, storage, cache, disk] = levels;
    let whole = levels.into_iter().min().unwrap_or(2);
    let parts = [("raft", raft), ("storage", storage), ("cache", cache), ("disk", disk)];
    HealthSample { whole, parts }
}

fn examine(service: &Service) -> (StatusCode, Body) {
    let status = service.replica().status();
    let checks = checks(service, &status);
    let worst = checks.iter().max().cloned().unwrap_or(Health::Healthy);
    let [raft, storage, cache, disk] = checks.map(|check| check.sentence());
    let body = Body {
        status: worst.word(),
        service: SERVICE,
        version: env!("CARGO_PKG_VERSION"),
        node_id: status.node_id,
        cluster_id: status.cluster_id,
        role: status.role.as_str(),
        leader_id: status.leader_id,
        term: status.term,
        applied_index: status.applied_index,
        uptime_seconds: service.started().elapsed().as_secs(),
        checks: Checks { raft, storage, cache, disk },
    };
    (worst.status(), body)
}

/// Without a majority nothing can be written anywhere, so no node calls itself healthy then.
fn raft(status: &Status, awaits: bool) -> Health {
    if awaits {
        return Health::Unhealthy(format!(
            "waits to be added to the cluster: `llm-config cluster add --id {} …`; the log has the whole line",
            status.node_id
        ));
    }
    if status.cluster_id.is_none() {
        return Health::Unhealthy(
            "not part of a founded cluster yet: start the other founding nodes, or check --initial-cluster".to_owned(),
        );
    }
    if status.leader_id.is_none() {
        return Health::Unhealthy("no leader is known".to_owned());
    }
    if !status.has_quorum {
        return Health::Unhealthy("no contact with a working majority".to_owned());
    }
    let lag = status.committed_index.saturating_sub(status.applied_index);
    if lag > APPLY_LAG_ENTRIES_MAX {
        return Health::Degraded(format!("{lag} committed entries are not applied yet"));
    }
    let lost: Vec<_> = status
        .members
        .iter()
        .filter(|m| m.id != status.node_id && !m.reachable)
        .map(|m| m.id.to_string())
        .collect();
    // Only the leader talks to everyone; a follower cannot tell.
    if status.role == Role::Leader && !lost.is_empty() {
        return Health::Degraded(format!("no contact with node {}", lost.join(", ")));
    }
    Health::Healthy
}

fn storage(replica: &Replica, space: &SpaceStats) -> Health {
    if let Some(error) = replica.failure().now_or_never() {
        return Health::Unhealthy(error.to_string());
    }
    match query::meta(&replica.view()) {
        Ok(_) => quota(space),
        Err(error) => Health::Unhealthy(error.to_string()),
    }
}

/// Reads and deletes go on in a full store, so it is never worse than degraded.
fn quota(space: &SpaceStats) -> Health {
    let numbers =
        format!("{} of {} bytes of the quota are used", space.used_bytes, space.quota_bytes);
    if space.quota_full {
        return Health::Degraded(format!(
            "full, writes are refused: {numbers}; delete entries or raise --storage-quota"
        ));
    }
    match space.full_peer {
        Some(peer) => {
            Health::Degraded(format!("writes are refused because node {peer} has no room for more"))
        }
        None if space.quota_near => Health::Degraded(format!("nearly full: {numbers}")),
        None => Health::Healthy,
    }
}

/// A cache behind storage is bypassed, so answers stay right and become slower. Being behind for a moment is normal.
fn cache(service: &Service) -> Health {
    match service.cache_lag() {
        0..=CACHE_LAG_REVISIONS_MAX => Health::Healthy,
        lag => {
            Health::Degraded(format!("the cache is {lag} revisions behind storage and not used"))
        }
    }
}

fn disk(space: &SpaceStats) -> Health {
    let free = space.disk_free_bytes;
    if space.disk_full {
        return Health::Degraded(format!(
            "full, writes are refused: {free} bytes are free and {} are kept in reserve; free space on the disk",
            space.disk_reserve_bytes
        ));
    }
    let percent = free.saturating_mul(100).checked_div(space.disk_capacity_bytes).unwrap_or(100);
    if percent < DISK_FREE_PERCENT_MIN {
        return Health::Degraded(format!("{percent} % of the disk is free ({free} bytes)"));
    }
    Health::Healthy
}

#[derive(Serialize)]
pub(crate) struct Probe {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

pub(crate) async fn live() -> Json<Probe> {
    Json(Probe { status: "alive", reason: None })
}

/// Knows a leader and has caught up: traffic may come.
async fn ready(State(state): State<AppState>) -> Response {
    if state.service.replica().ready() {
        return Json(Probe { status: "ready", reason: None }).into_response();
    }
    let reason = if state.service.replica().awaits_cluster() {
        "the node waits to be added to the cluster (llm-config cluster add)"
    } else {
        "the node knows no leader or has not caught up yet"
    };
    (StatusCode::SERVICE_UNAVAILABLE, Json(Probe { status: "not_ready", reason: Some(reason) }))
        .into_response()
}

#[derive(Serialize)]
struct Leadership {
    role: &'static str,
    node_id: u64,
    leader_id: Option<u64>,
    term: u64,
}

/// 200 on the leader alone. A leader without a majority is about to learn that it is none.
async fn leader(State(state): State<AppState>) -> Response {
    let status = state.service.replica().status();
    let leads = status.role == Role::Leader && status.has_quorum;
    let code = if leads { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = Leadership {
        role: status.role.as_str(),
        node_id: status.node_id,
        leader_id: status.leader_id,
        term: status.term,
    };
    (code, Json(body)).into_response()
}

#[cfg(test)]
mod tests {
    use llm_config_replica::{Advertise, Member};

    use super::*;

    fn status() -> Status {
        let member = |id, reachable| Member {
            id,
            role: if id == 1 { Role::Leader } else { Role::Follower },
            addresses: Advertise::default(),
            reachable,
            matched_index: Some(9),
            version: "0.1.0".to_owned(),
        };
        Status {
            cluster_id: Some("c".to_owned()),
            node_id: 1,
            role: Role::Leader,
            leader_id: Some(1),
            leader: None,
            term: 1,
            last_log_index: 9,
            purged_index: 0,
            committed_index: 9,
            applied_index: 9,
            revision: 3,
            has_quorum: true,
            members: vec![member(1, true), member(2, true), member(3, true)],
        }
    }

    #[test]
    fn without_a_majority_a_node_is_unhealthy() {
        assert_eq!(raft(&status(), false), Health::Healthy);
        assert_eq!(raft(&status(), true).word(), "unhealthy");
        for broken in [
            Status { has_quorum: false, ..status() },
            Status { leader_id: None, ..status() },
            Status { cluster_id: None, ..status() },
        ] {
            assert_eq!(
                raft(&broken, false).status(),
                StatusCode::SERVICE_UNAVAILABLE,
                "{broken:?}"
            );
        }
    }

    #[test]
    fn a_leader_that_lost_one_of_three_is_degraded_and_serves() {
        let mut status = status();
        status.members[2].reachable = false;
        assert_eq!(raft(&status, false), Health::Degraded("no contact with node 3".to_owned()));
        assert_eq!(raft(&status, false).status(), StatusCode::OK);
    }

    #[test]
    fn a_nearly_full_disk_degrades() {
        let space = |disk_free_bytes| SpaceStats {
            disk_capacity_bytes: 1000,
            disk_free_bytes,
            ..SpaceStats::default()
        };
        assert_eq!(disk(&space(100)), Health::Healthy);
        assert_eq!(disk(&space(99)).word(), "degraded");
        assert_eq!(disk(&SpaceStats::default()), Health::Healthy);
        let full = SpaceStats { disk_full: true, ..space(500) };
        assert!(disk(&full).sentence().contains("writes are refused"));
    }

    #[test]
    fn a_full_store_degrades_and_says_what_to_do() {
        let space = SpaceStats { used_bytes: 95, quota_bytes: 100, ..SpaceStats::default() };
        assert_eq!(quota(&space), Health::Healthy);
        let near = SpaceStats { quota_near: true, ..space };
        assert!(quota(&near).sentence().starts_with("degraded: nearly full: 95 of 100"));
        let full = SpaceStats { quota_full: true, ..near };
        assert!(quota(&full).sentence().contains("--storage-quota"));
        assert_eq!(quota(&full).status(), StatusCode::OK);
        let other = SpaceStats { full_peer: Some(3), ..space };
        assert!(quota(&other).sentence().contains("node 3"));
    }

    #[test]
    fn the_worst_part_is_the_whole() {
        let parts =
            [Health::Degraded("z".to_owned()), Health::Unhealthy("a".to_owned()), Health::Healthy];
        assert_eq!(parts.iter().max().unwrap().word(), "unhealthy");
    }
}
