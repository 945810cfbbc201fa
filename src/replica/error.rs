//! What can go wrong at the edge of the replica, told apart by what the caller may do next.
//!
//! A *refusal by the state machine* is not here: that is an answer, [`llm_config_domain::Rejection`].

use thiserror::Error;

/// Why a node did not start. The three kinds are the three exit codes of the program.
#[derive(Debug, Error)]
pub enum StartError {
    /// The configuration cannot work: exit code 2.
    #[error("{0}")]
    Usage(String),
    /// The data directory is damaged, locked, or belongs to another node or cluster: exit code 3.
    #[error("{0}")]
    DataDir(String),
    /// A fault of the machine or the network: exit code 1.
    #[error("{0}")]
    Runtime(String),
}

/// Why a write has no answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProposeError {
    /// No leader was found before the deadline; nothing was proposed.
    #[error("no leader is known; nothing was proposed")]
    NoLeader,
    /// This node has not joined a founded cluster yet; nothing was proposed.
    #[error("the node is not ready yet; nothing was proposed")]
    NotReady,
    /// Too many proposals are in flight; nothing was proposed.
    #[error("too many writes are in flight; nothing was proposed")]
    Overloaded,
    /// A voter has reached its quota, or its disk is nearly full; nothing was proposed. Says which node and what for.
    #[error("storage is full ({0}); nothing was proposed")]
    StorageFull(String),
    /// The command is outside the bounds of the domain; nothing was proposed.
    #[error("the command is not valid: {0}")]
    Invalid(String),
    /// Proposed, but not answered in time: it may have happened, or may still happen.
    #[error("the write was proposed but its outcome is unknown")]
    OutcomeUnknown,
    /// The node is stopping; nothing was proposed.
    #[error("the node is stopping: {0}")]
    Failed(String),
}

/// Why a read could not be given the freshness it asked for.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReadError {
    /// No leader confirmed the read before the deadline.
    #[error("no leader is known")]
    NoLeader,
    /// The node has not replayed its log yet.
    #[error("the node has not replayed its log yet")]
    NotReady,
    /// The node did not apply what was asked for before the deadline.
    #[error("the node has applied revision {applied}, not yet {wanted}")]
    Behind {
        /// Revision asked for; 0 when the wait was for a log position.
        wanted: u64,
        /// Revision applied by this node.
        applied: u64,
    },
    /// The node is stopping.
    #[error("the node is stopping: {0}")]
    Failed(String),
}
