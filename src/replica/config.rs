//! What a replica is told when it starts, and the timing it runs with.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use llm_config_tls::NodeTls;

use crate::machine::Listener;

/// Addresses that a node tells to others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Advertise {
    /// REST API, `host:port`.
    pub http: String,
    /// Client gRPC, `host:port`.
    pub grpc: String,
    /// Node-to-node gRPC, `host:port`.
    pub raft: String,
}

/// A new node that founds nothing: it waits until a member of a running cluster adds it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Join {
    /// The only cluster that may add it. Absent: the first one that does.
    pub cluster_id: Option<String>,
}

/// Everything that [`crate::Replica::start`] needs.
#[derive(Debug)]
pub struct Config {
    /// Non-zero, and never used again by another disk.
    pub node_id: u64,
    /// Everything that this node stores.
    pub data_dir: PathBuf,
    /// Bound by the caller, so that a port in use is known before anything is touched.
    pub raft_listener: Listener,
    /// What this node tells others.
    pub advertise: Advertise,
    /// Founding members, `id → host:port` of their node-to-node listener. Empty: the node was founded before.
    pub initial_cluster: BTreeMap<u64, String>,
    /// Wait until a running cluster takes this node in. Means nothing in a directory that belongs to a cluster already.
    pub join: Option<Join>,
    /// What connections between the nodes are secured with; in clear text without. Looking at its files is the caller's.
    pub tls: Option<Arc<NodeTls>>,
    /// Versions kept for each entry; replicated when the cluster is founded.
    pub history_limit: u64,
    /// Version of the program, shown to other nodes.
    pub version: String,
    /// Timing and sizes.
    pub tuning: Tuning,
}

/// Timing and sizes. The defaults suit nodes in one region with local disks.
#[derive(Debug, Clone)]
pub struct Tuning {
    /// Interval of the leader's heartbeats; also the time limit of one.
    pub heartbeat_interval: Duration,
    /// Shortest time without a leader before a node stands for election.
    pub election_timeout_min: Duration,
    /// Longest such time; also the leader's lease.
    pub election_timeout_max: Duration,
    /// Log entries between two snapshots.
    pub snapshot_log_entries: u64,
    /// Log entries kept behind a snapshot, so that a node that was away briefly catches up from the log.
    pub log_entries_kept: u64,
    /// Bytes of recent log entries kept in memory.
    pub log_cache_bytes: u64,
    /// Bytes of the RocksDB block cache shared by both databases.
    pub block_cache_bytes: usize,
    /// Proposals in flight on this node, as a leader, before writes are refused.
    pub proposals_in_flight_max: usize,
    /// Bytes of commands in flight on this node before writes are refused.
    pub proposal_bytes_in_flight_max: usize,
    /// Bytes that this node may store before the cluster refuses writes; 0 is no bound.
    pub storage_quota_bytes: u64,
    /// Free bytes of the disk below which writes are refused.
    pub disk_reserve_bytes: u64,
    /// Bytes of the log database after which a snapshot is made and the log behind it is purged.
    pub log_bytes_max: u64,
    /// Size of one chunk of a snapshot in transit.
    pub snapshot_chunk_bytes: usize,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            heartbeat_interval: Duration::from_millis(150),
            election_timeout_min: Duration::from_millis(600),
            election_timeout_max: Duration::from_millis(1200),
            snapshot_log_entries: 50_000,
            log_entries_kept: 10_000,
            log_cache_bytes: 16 << 20,
            block_cache_bytes: 32 << 20,
            proposals_in_flight_max: 5_000,
            proposal_bytes_in_flight_max: 64 << 20,
            storage_quota_bytes: 8 << 30,
            disk_reserve_bytes: 256 << 20,
            log_bytes_max: 1 << 30,
            snapshot_chunk_bytes: 512 << 10,
        }
    }
}
