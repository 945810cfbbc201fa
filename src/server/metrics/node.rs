//! Numbers of the replica, taken at one moment and shown as metric families.

use std::time::Duration;

use llm_config_domain::Environment;
use llm_config_replica::{EngineStats, Readings, Role, Stats, Status};
use prometheus::proto::MetricFamily;

use super::family::{counter, counters, counters_of, gauge, gauges, histograms_of};

/// What the replica says about itself when the page is asked for.
#[derive(Debug, Clone)]
pub struct NodeSample {
    /// The node's view of the cluster.
    pub status: Status,
    /// Counters since the start.
    pub stats: Stats,
    /// Times, ages and sizes.
    pub readings: Readings,
    /// Whether the node has caught up once and knows a leader.
    pub ready: bool,
    /// Time since the node last heard from a leader.
    pub leader_contact_age: Option<Duration>,
    /// Entries that exist, in the order of [`Environment::ALL`]; absent when storage did not answer.
    pub active: Option<[u64; 5]>,
    /// Absent until the node looked at itself.
    pub health: Option<HealthSample>,
    pub usage: UsageSample,
}

/// What `/health` says, as numbers: 2 is healthy, 1 degraded, 0 unhealthy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HealthSample {
    pub whole: u8,
    pub parts: [(&'static str, u8); 4],
}

/// What is in use of what may be.
#[derive(Debug, Clone, Copy, Default)]
pub struct UsageSample {
    pub requests: usize,
    pub requests_max: usize,
    pub request_bytes: usize,
    pub request_bytes_max: usize,
    pub watchers_max: usize,
    pub cache_entries: usize,
    pub cache_bytes: usize,
    pub cache_bytes_max: usize,
}

impl NodeSample {
    pub(super) fn families(&self) -> Vec<MetricFamily> {
        let mut families = self.raft();
        families.extend(self.log());
        families.extend(self.storage());
        families.extend(self.peers());
        families.extend(self.messages());
        families.extend(self.engines());
        families.extend(self.usage());
        families.extend(self.caches());
        families.extend(self.health());
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
            counters(
                "llm_config_raft_proposals_failed_total",
                "Writes of clients of this node that were not carried out, or not known to be",
                "reason",
                stats.proposals_failed.map(|(reason, count)| (reason.to_owned(), count as f64)),
            ),
            histograms_of(
                "llm_config_raft_proposal_duration_seconds",
                "Time from proposing a write of a client of this node to its answer",
                [(Vec::new(), &self.readings.proposal)],
            ),
            gauge("llm_config_raft_voters", "Members that vote", self.readings.voters as f64),
            gauge(
                "llm_config_raft_learners",
                "Members that do not vote",
                self.readings.learners as f64,
            ),
            counter(
                "llm_config_raft_elections_total",
                "Elections in which the node stood",
                stats.elections as f64,
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
            counter(
                "llm_config_raft_read_index_failures_total",
                "Read confirmations that failed",
                stats.read_index_failures as f64,
            ),
            histograms_of(
                "llm_config_raft_read_index_duration_seconds",
                "Time of a read confirmation",
                [(Vec::new(), &self.readings.read_index)],
            ),
        ];
        if let Some(age) = self.readings.quorum_ack_age {
            families.push(gauge(
                "llm_config_raft_quorum_ack_age_seconds",
                "Time since a majority last answered; on the leader only",
                age.as_secs_f64(),
            ));
        }
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
        let (stats, readings) = (&self.stats, &self.readings);
        let op = |op: &'static str| vec![("op", op.to_owned())];
        vec![
            histograms_of(
                "llm_config_raft_log_fsync_duration_seconds",
                "Time of a synced write of the log",
                [(Vec::new(), &readings.log_fsync)],
            ),
            gauge(
                "llm_config_raft_log_entries",
                "Entries in the log",
                self.status.last_log_index.saturating_sub(self.status.purged_index) as f64,
            ),
            gauge(
                "llm_config_raft_log_size_bytes",
                "Size of the log on the disk",
                readings.log_bytes as f64,
            ),
            gauge(
                "llm_config_raft_purged_index",
                "Last entry that was purged from the log",
                self.status.purged_index as f64,
            ),
            gauge(
                "llm_config_raft_snapshot_index",
                "Last entry in the newest snapshot",
                readings.snapshot_index as f64,
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
            histograms_of(
                "llm_config_raft_apply_duration_seconds",
                "Time to apply a run of entries",
                [(Vec::new(), &readings.apply)],
            ),
            histograms_of(
                "llm_config_raft_snapshot_duration_seconds",
                "Time of a snapshot, by what was done with it",
                readings.snapshots.iter().map(|of| (op(of.op), &of.durations)),
            ),
            counters_of(
                "llm_config_raft_snapshot_failures_total",
                "Snapshots that could not be built, sent or installed",
                readings.snapshots.iter().map(|of| (op(of.op), of.failures as f64)),
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
            gauges(
                "llm_config_raft_peer_contact_age_seconds",
                "Time since a message was exchanged with the peer",
                "peer",
                self.readings
                    .contact_ages
                    .iter()
                    .map(|(id, age)| (id.to_string(), age.as_secs_f64())),
            ),
        ];
        with_samples(families)
    }

    fn messages(&self) -> Vec<MetricFamily> {
        let peers = &self.readings.peers;
        let labels = |rpc: &'static str, peer: u64| {
            vec![("rpc", rpc.to_owned()), ("peer", peer.to_string())]
        };
        let answered = peers.iter().flat_map(|peer| {
            peer.answered.iter().map(move |(rpc, sample)| (labels(rpc, peer.id), sample))
        });
        let failed = peers.iter().flat_map(|peer| {
            peer.failed.iter().map(move |(rpc, count)| (labels(rpc, peer.id), *count as f64))
        });
        with_samples([
            histograms_of(
                "llm_config_raft_rpc_duration_seconds",
                "Time to the answer of a message to a peer",
                answered,
            ),
            counters_of(
                "llm_config_raft_rpc_failures_total",
                "Messages to a peer without an answer",
                failed,
            ),
        ])
    }

    fn engines(&self) -> Vec<MetricFamily> {
        let each = |name, help, value: fn(&EngineStats) -> f64| {
            let engines = self.readings.engines.iter();
            gauges(
                name,
                help,
                "database",
                engines.map(|(of, stats)| ((*of).to_owned(), value(stats))),
            )
        };
        vec![
            each("rocksdb_memtable_bytes", "Memory of writes that are not in files yet", |stats| {
                stats.memtable_bytes as f64
            }),
            each("rocksdb_level0_files", "Files in level 0", |stats| stats.level0_files as f64),
            each(
                "rocksdb_pending_compaction_bytes",
                "Estimate of what compaction still has to rewrite",
                |stats| stats.pending_compaction_bytes as f64,
            ),
            each("rocksdb_running_compactions", "Compactions under way", |stats| {
                stats.running_compactions as f64
            }),
            each("rocksdb_running_flushes", "Flushes under way", |stats| {
                stats.running_flushes as f64
            }),
            each("rocksdb_write_stopped", "1 while the engine takes no writes", |stats| {
                flag(stats.write_stopped)
            }),
            each("rocksdb_write_delayed", "1 while the engine slows writes down", |stats| {
                flag(stats.write_delayed)
            }),
            each("rocksdb_background_errors", "Errors of flushes and compactions", |stats| {
                stats.background_errors as f64
            }),
            each("rocksdb_estimated_keys", "Estimate of the keys in it", |stats| {
                stats.estimated_keys as f64
            }),
            each(
                "rocksdb_live_data_bytes",
                "Estimate of the data without what is deleted or replaced",
                |stats| stats.live_data_bytes as f64,
            ),
        ]
    }

    fn usage(&self) -> Vec<MetricFamily> {
        let usage = &self.usage;
        vec![
            gauge(
                "llm_config_requests_in_flight",
                "Requests being answered",
                usage.requests as f64,
            ),
            gauge(
                "llm_config_requests_in_flight_max",
                "Requests that are taken at a time",
                usage.requests_max as f64,
            ),
            gauge(
                "llm_config_request_bytes_in_flight",
                "Bytes of messages in flight",
                usage.request_bytes as f64,
            ),
            gauge(
                "llm_config_request_bytes_in_flight_max",
                "Bytes of messages that are taken at a time",
                usage.request_bytes_max as f64,
            ),
            gauge(
                "llm_config_watchers_max",
                "Watches that are taken at a time",
                usage.watchers_max as f64,
            ),
        ]
    }

    /// Blocks of `l2` are not counted by RocksDB, its bytes are.
    fn caches(&self) -> Vec<MetricFamily> {
        let (usage, stats) = (&self.usage, &self.stats);
        let tiers =
            |l1: usize, l2: u64| [("l1".to_owned(), l1 as f64), ("l2".to_owned(), l2 as f64)];
        vec![
            gauges(
                "cache_entries",
                "Entries that the tier holds",
                "tier",
                [("l1".to_owned(), usage.cache_entries as f64)],
            ),
            gauges(
                "cache_size_bytes",
                "Memory that the tier uses",
                "tier",
                tiers(usage.cache_bytes, stats.block_cache_bytes),
            ),
            gauges(
                "cache_capacity_bytes",
                "Memory that the tier may use",
                "tier",
                tiers(usage.cache_bytes_max, stats.block_cache_capacity_bytes),
            ),
        ]
    }

    fn health(&self) -> Vec<MetricFamily> {
        let Some(health) = &self.health else { return Vec::new() };
        vec![
            gauge(
                "health_status",
                "2 is healthy, 1 degraded, 0 unhealthy",
                f64::from(health.whole),
            ),
            gauges(
                "health_check_status",
                "The same of the parts of a node",
                "component",
                health.parts.map(|(part, level)| (part.to_owned(), f64::from(level))),
            ),
        ]
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

/// The text format has no families without samples.
fn with_samples(families: impl IntoIterator<Item = MetricFamily>) -> Vec<MetricFamily> {
    families.into_iter().filter(|family| !family.get_metric().is_empty()).collect()
}

fn flag(value: bool) -> f64 {
    f64::from(u8::from(value))
}
