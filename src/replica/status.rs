//! What a replica tells about itself: plain values, free of openraft types.

use std::time::Duration;

use crate::config::Advertise;
use crate::timings::{DurationSample, PeerSample, SnapshotSample};

/// What a node currently is in the replication protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Takes writes and replicates them.
    Leader,
    /// Follows a leader and votes.
    Follower,
    /// Stands for election.
    Candidate,
    /// Follows without a vote.
    Learner,
}

impl Role {
    /// The word used in the APIs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Follower => "follower",
            Self::Candidate => "candidate",
            Self::Learner => "learner",
        }
    }
}

/// One member as the answering node knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Node id.
    pub id: u64,
    /// The answering node's own role, or what can be told of another: leader, follower or learner.
    pub role: Role,
    /// Addresses; HTTP and gRPC are empty until the member has registered.
    pub addresses: Advertise,
    /// Whether the answering node exchanged a message with it recently.
    pub reachable: bool,
    /// Highest log index known to be replicated to it; the leader knows it of all, others of nobody.
    pub matched_index: Option<u64>,
    /// The release it runs; empty until it has registered.
    pub version: String,
}

/// A node's view of the cluster at one moment.
#[derive(Debug, Clone)]
pub struct Status {
    /// Absent until the cluster is founded.
    pub cluster_id: Option<String>,
    /// This node.
    pub node_id: u64,
    /// This node's role.
    pub role: Role,
    /// The leader, when known.
    pub leader_id: Option<u64>,
    /// Addresses of the leader, when known.
    pub leader: Option<Advertise>,
    /// Raft term.
    pub term: u64,
    /// Index of the last log entry on this node; 0 when the log is empty.
    pub last_log_index: u64,
    /// Index up to which the log was purged behind a snapshot; 0 when it was not yet.
    pub purged_index: u64,
    /// Highest index known to be committed.
    pub committed_index: u64,
    /// Highest index applied.
    pub applied_index: u64,
    /// Store revision applied.
    pub revision: u64,
    /// Whether the node is in contact with a working majority.
    pub has_quorum: bool,
    /// Voters and learners, by id.
    pub members: Vec<Member>,
}

/// Counters and gauges since the start of the process.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Stats {
    /// Synced writes of the log.
    pub log_fsyncs: u64,
    /// Log entries made durable.
    pub log_entries_appended: u64,
    /// Bytes of log entries made durable.
    pub log_bytes_appended: u64,
    /// Entries applied to the state.
    pub entries_applied: u64,
    /// Writes proposed by this node as the leader, its own and forwarded ones.
    pub proposals: u64,
    /// Writes passed on to the leader.
    pub proposals_forwarded: u64,
    /// Writes of clients of this node that were not carried out, or not known to be, by reason.
    pub proposals_failed: [(&'static str, u64); 4],
    /// Writes in flight.
    pub proposals_in_flight: u64,
    /// Read-index confirmations asked for; one serves all reads that wait for it.
    pub read_index_rounds: u64,
    /// Linearizable reads served by them.
    pub read_index_reads: u64,
    /// Confirmations that failed.
    pub read_index_failures: u64,
    /// Changes of the known leader.
    pub leader_changes: u64,
    /// Elections in which this node stood.
    pub elections: u64,
    /// TLS handshakes of arriving connections that failed.
    pub tls_handshake_failures: u64,
    /// Snapshots built.
    pub snapshots_built: u64,
    /// Snapshots received and installed.
    pub snapshots_installed: u64,
    /// Room for what the node stores.
    pub space: SpaceStats,
    /// Hits in the RocksDB block cache.
    pub block_cache_hits: u64,
    /// Misses in the RocksDB block cache.
    pub block_cache_misses: u64,
    /// Blocks that left the RocksDB block cache for want of room.
    pub block_cache_evictions: u64,
    /// Memory that the RocksDB block cache uses.
    pub block_cache_bytes: u64,
    /// Memory that it may use.
    pub block_cache_capacity_bytes: u64,
}

/// What a database of RocksDB tells about itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EngineStats {
    /// Memory of writes that are not in files yet.
    pub memtable_bytes: u64,
    /// Files in level 0.
    pub level0_files: u64,
    /// Estimate of what compaction still has to rewrite.
    pub pending_compaction_bytes: u64,
    /// Compactions under way.
    pub running_compactions: u64,
    /// Flushes under way.
    pub running_flushes: u64,
    /// It takes no writes until it has caught up.
    pub write_stopped: bool,
    /// It slows writes down.
    pub write_delayed: bool,
    /// Errors of flushes and compactions.
    pub background_errors: u64,
    /// Estimate of the keys in it.
    pub estimated_keys: u64,
    /// Estimate of the data without what is deleted or replaced.
    pub live_data_bytes: u64,
}

/// What a monitoring system wants to know beyond [`Status`] and [`Stats`].
#[derive(Debug, Clone, PartialEq)]
pub struct Readings {
    /// Members that vote, and members that do not.
    pub voters: usize,
    /// See `voters`.
    pub learners: usize,
    /// Last entry in the newest snapshot; 0 when there is none.
    pub snapshot_index: u64,
    /// Size of the log on the disk.
    pub log_bytes: u64,
    /// Time since a majority last answered; of the leader only.
    pub quorum_ack_age: Option<Duration>,
    /// Time since a message was exchanged with each of the others, where one was.
    pub contact_ages: Vec<(u64, Duration)>,
    /// Synced writes of the log.
    pub log_fsync: DurationSample,
    /// Runs of entries applied.
    pub apply: DurationSample,
    /// Writes of clients of this node, from proposing to the answer.
    pub proposal: DurationSample,
    /// Confirmations of linearizable reads.
    pub read_index: DurationSample,
    /// Snapshots built, sent and installed.
    pub snapshots: [SnapshotSample; 3],
    /// Messages to the other members.
    pub peers: Vec<PeerSample>,
    /// The databases, by name.
    pub engines: [(&'static str, EngineStats); 2],
}

/// How much a node stores, how much it may, and what refuses writes for want of room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpaceStats {
    /// Bytes that the node stores: log, state and snapshots; a file with several names counts once, backups do not count.
    pub used_bytes: u64,
    /// Bytes that it may store; 0 is no bound.
    pub quota_bytes: u64,
    /// Size of the file system that holds the data directory.
    pub disk_capacity_bytes: u64,
    /// Bytes free on it.
    pub disk_free_bytes: u64,
    /// Free bytes below which writes are refused.
    pub disk_reserve_bytes: u64,
    /// At least 90 % of the quota is used.
    pub quota_near: bool,
    /// The quota is reached: the cluster refuses writes.
    pub quota_full: bool,
    /// The disk is nearly full: the cluster refuses writes.
    pub disk_full: bool,
    /// Another node that says that it is full.
    pub full_peer: Option<u64>,
    /// Writes refused for want of room.
    pub refused: u64,
}
