//! Numbers of the replica, taken at one moment and shown as metric families.

use std::time::Duration;

use llm_config_domain::Environment;
use llm_config_replica::{Role, Stats, Status};
use prometheus::proto::MetricFamily;

use super::family::{counter, gauge, gauges};

/// What the replica says about itself when the page is asked for.
#[derive(Debug, Clone)]
pub struct NodeSample {
    /// The node's view of the cluster.
    pub status: Status,
    /// Counters since the start.
    pub stats: Stats,
    /// Whether the node has caught up once and knows a leader.
    pub ready: bool,
    /// Time since the node last heard from a leader.
    pub leader_contact_age: Option<Duration>,
    /// Entries that exist, in the order of [`Environment::ALL`]; absent when storage did not answer.
    pub active: Option<[u64; 5]>,
}

impl NodeSample {
    pub(super) fn families(&self) -> Vec<MetricFamily> {
        let mut families = self.raft();
        families.extend(self.log());
        families.extend(self.storage());
        families.extend(self.peers());
        families.push(self.active());
        families
    }

    fn leads(&self) -> bool {
        self.status.role == Role::Leader && self.status.has_quorum
    }

    fn raft(&self) -> Vec<MetricFamily> {
        let (status, stats) = (&self.status, &self.stats);
        let mut families = vec![
            gauge(
                "llm_config_ready",
                "1 when the node has caught up and knows a leader",
                flag(self.ready),
            ),
            gauge(
                "llm_config_revision",
                "Store revision that the node has applied",
                status.revision as f64,
            ),
            gauge(
                "llm_config_raft_has_leader",
                "1 when the node knows a leader",
                flag(status.leader_id.is_some()),
            ),
            gauge(
                "llm_config_raft_is_leader",
                "1 when the node leads",
                flag(status.role == Role::Leader),
            ),
            gauge(
                "llm_config_raft_has_quorum",
                "1 when the node is in contact with a working majority",
                flag(status.has_quorum),
            ),
            gauge("llm_config_raft_term", "Raft term", status.term as f64),
            gauge(
                "llm_config_raft_members",
                "Members that the node knows, voters and learners",
                status.members.len() as f64,
            ),
            gauge(
                "llm_config_raft_last_log_index",
                "Last log entry of the node",
                status.last_log_index as f64,
            ),
            gauge(
                "llm_config_raft_committed_index",
                "Highest log index known to be committed",
                status.committed_index as f64,
            ),
            gauge(
                "llm_config_raft_applied_index",
                "Highest log index applied",
                status.applied_index as f64,
            ),
            counter(
                "llm_config_raft_leader_changes_total",
                "Changes of the leader that the node saw",
                stats.leader_changes as f64,
            ),
            counter(
                "llm_config_raft_proposals_total",
                "Writes proposed by this node as the leader",
                stats.proposals as f64,
            ),
            counter(
                "llm_config_raft_proposals_forwarded_total",
                "Writes passed on to the leader",
                stats.proposals_forwarded as f64,
            ),
            counter(
                "llm_config_raft_proposals_unknown_total",
                "Writes that got no answer in time",
                stats.proposals_unknown as f64,
            ),
            counter(
                "llm_config_raft_proposals_refused_total",
                "Writes refused because too many were in flight",
                stats.proposals_refused as f64,
            ),
            gauge(
                "llm_config_raft_proposals_in_flight",
                "Writes in flight",
                stats.proposals_in_flight as f64,
            ),
            counter(
                "llm_config_raft_read_index_rounds_total",
                "Read confirmations asked for",
                stats.read_index_rounds as f64,
            ),
            counter(
                "llm_config_raft_read_index_reads_total",
                "Linearizable reads served by them",
                stats.read_index_reads as f64,
            ),
        ];
        if let Some(age) = self.leader_contact_age {
            families.push(gauge(
                "llm_config_raft_leader_contact_age_seconds",
                "Time since the node heard from a leader",
                age.as_secs_f64(),
            ));
        }
        families
    }

    fn log(&self) -> Vec<MetricFamily> {
        let stats = &self.stats;
        vec![
            counter(
                "llm_config_raft_log_fsyncs_total",
                "Synced writes of the log",
                stats.log_fsyncs as f64,
            ),
            counter(
                "llm_config_raft_log_fsync_seconds_total",
                "Time spent in them",
                stats.log_fsync_seconds,
            ),
            counter(
                "llm_config_raft_log_entries_appended_total",
                "Log entries made durable",
                stats.log_entries_appended as f64,
            ),
            counter(
                "llm_config_raft_log_appended_bytes_total",
                "Bytes of log entries made durable",
                stats.log_bytes_appended as f64,
            ),
            counter(
                "llm_config_raft_entries_applied_total",
                "Log entries applied to the state",
                stats.entries_applied as f64,
            ),
            counter(
                "llm_config_raft_apply_seconds_total",
                "Time spent applying",
                stats.apply_seconds,
            ),
            counter(
                "llm_config_raft_snapshots_built_total",
                "Snapshots built",
                stats.snapshots_built as f64,
            ),
            counter(
                "llm_config_raft_snapshots_installed_total",
                "Snapshots received and installed",
                stats.snapshots_installed as f64,
            ),
        ]
    }

    fn storage(&self) -> Vec<MetricFamily> {
        let space = &self.stats.space;
        let causes = [
            ("quota", space.quota_full),
            ("disk", space.disk_full),
            ("peer", space.full_peer.is_some()),
        ];
        vec![
            gauge(
                "storage_size_bytes",
                "Bytes that the node stores: log, state and snapshots",
                space.used_bytes as f64,
            ),
            gauge(
                "storage_quota_bytes",
                "Bytes that the node may store before writes are refused; 0 is no bound",
                space.quota_bytes as f64,
            ),
            gauge(
                "storage_quota_near",
                "1 when at least 90 % of the quota is used",
                flag(space.quota_near),
            ),
            gauges(
                "llm_config_storage_full",
                "1 while writes are refused for want of room, by cause",
                "cause",
                causes.into_iter().map(|(cause, full)| (cause.to_owned(), flag(full))),
            ),
            counter(
                "llm_config_storage_refused_total",
                "Writes that this node refused for want of room",
                space.refused as f64,
            ),
            gauge(
                "storage_capacity_bytes",
                "Size of the file system that holds the data directory",
                space.disk_capacity_bytes as f64,
            ),
            gauge(
                "llm_config_storage_free_bytes",
                "Bytes free on that file system",
                space.disk_free_bytes as f64,
            ),
        ]
    }

    /// Others, as this node sees them. Only the leader knows how far each has got.
    fn peers(&self) -> Vec<MetricFamily> {
        let others =
            || self.status.members.iter().filter(|member| member.id != self.status.node_id);
        let reachable = others().map(|member| (member.id.to_string(), flag(member.reachable)));
        let last = self.status.last_log_index;
        let lag = others().filter_map(|member| {
            let matched = member.matched_index.filter(|_| self.leads())?;
            Some((member.id.to_string(), last.saturating_sub(matched) as f64))
        });
        let families = [
            gauges(
                "llm_config_raft_peer_reachable",
                "1 when a message was exchanged with the peer recently",
                "peer",
                reachable,
            ),
            gauges(
                "llm_config_raft_peer_lag_entries",
                "Log entries that the peer is behind; the leader knows it",
                "peer",
                lag,
            ),
        ];
        // The text format has no families without samples.
        families.into_iter().filter(|family| !family.get_metric().is_empty()).collect()
    }

    /// Replicated state: the leader shows it and the others show zero, so that a sum over the nodes counts it once.
    fn active(&self) -> MetricFamily {
        let active = self.active.filter(|_| self.leads()).unwrap_or_default();
        let samples = Environment::ALL
            .iter()
            .zip(active)
            .map(|(environment, n)| (environment.as_str().to_owned(), n as f64));
        gauges(
            "config_active_total",
            "Entries that exist; the leader's number, 0 on other nodes",
            "environment",
            samples,
        )
    }
}

fn flag(value: bool) -> f64 {
    f64::from(u8::from(value))
}
