//! The openraft type configuration.

use std::fmt;

use bytes::Bytes;
use llm_config_domain::Applied;
use openraft::impls::BasicNode;

/// What the log replicates: a command as its first node encoded it, and the leader's time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Proposal {
    /// Milliseconds since the Unix epoch.
    pub(crate) time_ms: u64,
    /// An encoded `domain::Command`: cloning it is a reference count, never a copy.
    pub(crate) command: Bytes,
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "command of {} bytes", self.command.len())
    }
}

openraft::declare_raft_types!(
    /// See the module.
    pub(crate) Types:
        D = Proposal,
        R = Option<Applied>,
        NodeId = u64,
        Node = BasicNode,
        Term = u64,
        AsyncRuntime = openraft_rt_tokio::TokioRuntime,
);

pub(crate) type Entry = openraft::alias::EntryOf<Types>;
pub(crate) type EntryPayload = openraft::alias::EntryPayloadOf<Types>;
pub(crate) type LogId = openraft::alias::LogIdOf<Types>;
pub(crate) type LeaderId = openraft::alias::LeaderIdOf<Types>;
pub(crate) type Vote = openraft::alias::VoteOf<Types>;
pub(crate) type Membership = openraft::Membership<u64, BasicNode>;
pub(crate) type StoredMembership = openraft::alias::StoredMembershipOf<Types>;
pub(crate) type SnapshotMeta = openraft::alias::SnapshotMetaOf<Types>;
