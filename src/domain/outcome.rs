//! What a command answers: an outcome, or a refusal that is the same on every node.
//!
//! A refusal is an answer, not a fault: it changes nothing, and no node may disagree about it. Faults of one node
//! (`StoreError`) have no place here.

use std::sync::Arc;

use bytes::Bytes;
use llm_config_bugs::{Bug, active};

use crate::command::DecodeError;
use crate::entry::Entry;
use crate::names::InvalidArgument;
use crate::wire;

/// What a command that was carried out answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The entry as it is now.
    Set {
        /// The new version.
        entry: Arc<Entry>,
        /// Whether it did not exist before.
        created: bool,
    },
    /// The version that records the deletion.
    Deleted {
        /// The deletion.
        entry: Arc<Entry>,
    },
    /// The new version that carries the old value.
    RolledBack {
        /// The new version.
        entry: Arc<Entry>,
    },
    /// Which branch was taken and what each of its operations answered.
    Txn {
        /// Whether every comparison held.
        succeeded: bool,
        /// One per operation of the branch taken.
        results: Vec<TxnResult>,
    },
    /// Change history before the revision is forgotten.
    Compacted,
    /// The cluster has its id.
    Founded,
    /// The node is known.
    Registered,
    /// The node is known and may be told to replicate.
    NodeAdded,
    /// The node's id is used up.
    NodeRemoved,
    /// It is done, and there is nothing more to say.
    Done,
    /// The schema is in place.
    SchemaPut {
        /// Its version.
        version: u64,
        /// Whether there was none before.
        created: bool,
    },
    /// The schema of this version is gone.
    SchemaDeleted {
        /// Its version.
        version: u64,
    },
    /// The address is shut out.
    Banned {
        /// Until when.
        until_ms: u64,
        /// How often in a row.
        strikes: u32,
    },
}

/// What one operation of a transaction answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TxnResult {
    /// The new version.
    Set(Arc<Entry>),
    /// The deletion.
    Delete(Arc<Entry>),
    /// The entry, or None when there is none.
    Get(Option<Arc<Entry>>),
}

/// Why a command or a query is refused: decided by the replicated state alone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// There is no such entry or version.
    #[error("there is no such entry")]
    NotFound,
    /// The entry is not at the version that was expected.
    #[error("the entry is at version {current_version} (0: it does not exist)")]
    VersionConflict {
        /// Its version; 0 when it does not exist.
        current_version: u64,
    },
    /// What was asked for has been compacted.
    #[error("that is compacted; the oldest revision kept is {oldest_revision}")]
    Compacted {
        /// The oldest revision that can still be asked for.
        oldest_revision: u64,
    },
    /// The idempotency key was used for another command.
    #[error("this idempotency key was used for a different request")]
    IdempotencyKeyReused,
    /// Too many idempotency keys are remembered.
    #[error("too many idempotency keys are in use; they are forgotten after ten minutes")]
    IdempotencyTableFull,
    /// The cluster was founded before.
    #[error("the cluster is already founded, as {cluster_id}")]
    AlreadyFounded {
        /// Its id.
        cluster_id: String,
    },
    /// The cluster is not founded yet.
    #[error("the cluster is not founded yet")]
    NotFounded,
    /// Another disk has used this node id.
    #[error("node id {id} belongs to another data directory; node ids are never reused")]
    NodeIdTaken {
        /// The id.
        id: u64,
    },
    /// The node was removed.
    #[error("node {id} was removed from the cluster; node ids are never reused")]
    NodeRemoved {
        /// The id.
        id: u64,
    },
    /// An answer or a table above its limit.
    #[error("{what} would take {size}, the limit is {limit}")]
    TooLarge {
        /// What is too large.
        what: String,
        /// Its size so far.
        size: u64,
        /// The most allowed.
        limit: u64,
    },
    /// The token of the author was revoked or has expired.
    #[error("the token was revoked or has expired")]
    Unauthenticated,
    /// The author has lost a right since the request came in.
    #[error("not allowed: {need}")]
    PermissionDenied {
        /// The right that is missing.
        need: String,
    },
    /// The first token was taken before.
    #[error("the first token was taken before")]
    AlreadyBootstrapped,
    /// There is a token of this id.
    #[error("there is a token {id} already")]
    TokenExists {
        /// The id.
        id: String,
    },
    /// A secret was encrypted for another version than the one that comes next.
    #[error("the secret is encrypted for another version than {version}, the next one")]
    SealedForOther {
        /// The version that comes next.
        version: u64,
    },
    /// The entry is a secret, and the command brings a value that everybody may see.
    #[error("the entry is a secret")]
    EntryIsSecret,
    /// The old version is a secret and must be encrypted for the new one.
    #[error("the old version is a secret, to be encrypted for version {version}")]
    NeedsReseal {
        /// The version that comes next.
        version: u64,
    },
    /// There is no such data key.
    #[error("there is no data key of version {version}")]
    UnknownKey {
        /// Its version.
        version: u32,
    },
    /// The data key is not the next one of its owner.
    #[error("the newest data key has version {latest}")]
    KeyVersion {
        /// The newest; 0 when there is none.
        latest: u32,
    },
    /// A value was not checked by the schema that is in place.
    #[error("the schema of {key} in {namespace} is at version {version} by now")]
    SchemaChanged {
        /// Whose: of this namespace,
        namespace: String,
        /// and this key.
        key: String,
        /// The version that is in place.
        version: u64,
    },
    /// A data key opens something still, or is the newest.
    #[error("the data key is in use")]
    KeyInUse,
    /// The command can never succeed as it is.
    #[error(transparent)]
    InvalidArgument(#[from] InvalidArgument),
}

impl Rejection {
    /// Refuses what is not at the version that was expected; nothing is refused when none was.
    pub(crate) fn unless_at(current_version: u64, expected: Option<u64>) -> Result<(), Self> {
        match expected {
            Some(expected) if active(Bug::CompareAcceptsOlder) && expected < current_version => {
                Ok(())
            }
            Some(expected) if expected != current_version => {
                Err(Self::VersionConflict { current_version })
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// What applying a command came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The revision a change made; for anything else the store's revision.
    pub revision: u64,
    /// The answer.
    pub result: Result<Outcome, Rejection>,
    /// Whether this is the remembered answer of an earlier command with the same request id.
    pub replayed: bool,
}

impl Applied {
    /// Encodes it for another node: one format byte, then protobuf.
    pub fn encode(&self) -> Bytes {
        wire::encode(&wire::Applied::from(self), self.format())
    }

    /// The oldest format that says all of it, so that older nodes read what they understand.
    fn format(&self) -> u8 {
        let new = match &self.result {
            Ok(Outcome::Set { entry, .. } | Outcome::RolledBack { entry }) => entry.is_secret(),
            Ok(Outcome::Txn { results, .. }) => results.iter().any(|result| match result {
                TxnResult::Set(entry) | TxnResult::Get(Some(entry)) => entry.is_secret(),
                TxnResult::Delete(_) | TxnResult::Get(None) => false,
            }),
            Ok(
                Outcome::Done
                | Outcome::Banned { .. }
                | Outcome::SchemaPut { .. }
                | Outcome::SchemaDeleted { .. },
            ) => true,
            Ok(_) => false,
            Err(
                Rejection::Unauthenticated
                | Rejection::PermissionDenied { .. }
                | Rejection::AlreadyBootstrapped
                | Rejection::TokenExists { .. }
                | Rejection::SealedForOther { .. }
                | Rejection::EntryIsSecret
                | Rejection::NeedsReseal { .. }
                | Rejection::UnknownKey { .. }
                | Rejection::KeyVersion { .. }
                | Rejection::KeyInUse
                | Rejection::SchemaChanged { .. },
            ) => true,
            Err(_) => false,
        };
        if new { wire::COMMAND_FORMAT } else { wire::COMMAND_FORMAT_OLDEST }
    }

    /// Decodes and validates what another node sent.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        wire::decode::<wire::Applied>(bytes)?.try_into()
    }
}
