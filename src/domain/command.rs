//! Commands: everything that may change the replicated state, and their encoding.
//!
//! A command is encoded once at the edge and travels as bytes. Decoding validates everything again, because what comes
//! from another node is input. The bounds themselves are in `validate.rs`.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::limits;
use crate::names::{Address, InvalidArgument};
use crate::value::JsonValue;
use crate::wire;

/// One entry of the replicated log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Who asks.
    pub actor: String,
    /// Makes a retry recognisable.
    pub request: Option<RequestId>,
    /// What to do.
    pub operation: Operation,
}

/// Names a request of an actor, so that its retry gets the first answer and changes nothing again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId {
    /// The caller's idempotency key.
    pub key: String,
    /// SHA-256 of the encoded command without its request id: tells a retry from a reuse of the key.
    pub digest: [u8; 32],
}

/// What a command does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Writes an entry.
    Set(Set),
    /// Deletes an entry.
    Delete(Delete),
    /// Gives an entry the value of one of its old versions.
    Rollback(Rollback),
    /// Compares, then does one of two lists of operations, all or nothing.
    Txn(Txn),
    /// Forgets old changes.
    Compact(Compact),
    /// Gives the cluster its identity, once.
    Found(Found),
    /// Makes a node and its addresses known.
    RegisterNode(Node),
    /// Makes a node known before it is told to replicate.
    AddNode(AddNode),
    /// Forgets a node and keeps its id from being used again.
    RemoveNode(RemoveNode),
}

/// Writes an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// Where.
    pub address: Address,
    /// The new value.
    pub value: JsonValue,
    /// What the entry is for.
    pub description: String,
    /// Free labels.
    pub tags: Vec<String>,
    /// Why.
    pub comment: String,
    /// Refuse unless the entry is at this version; 0: unless it does not exist.
    pub expected_version: Option<u64>,
}

/// Deletes an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delete {
    /// Where.
    pub address: Address,
    /// Refuse unless the entry is at this version.
    pub expected_version: Option<u64>,
    /// Why.
    pub comment: String,
}

/// Gives an entry the value, description and tags of one of its old versions, as a new version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rollback {
    /// Where.
    pub address: Address,
    /// The version to return to.
    pub version: u64,
    /// Refuse unless the entry is at this version; 0: unless it is deleted.
    pub expected_version: Option<u64>,
    /// Why; "rollback to version N" when empty.
    pub comment: String,
}

/// Compares versions, then does one of two lists of operations, all or nothing, at one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Txn {
    /// All must hold for `success`.
    pub compare: Vec<Compare>,
    /// Done when every comparison holds.
    pub success: Vec<TxnOp>,
    /// Done when one does not.
    pub failure: Vec<TxnOp>,
}

/// Holds when the entry is at the version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    /// Which entry.
    pub address: Address,
    /// Its version; 0: it does not exist.
    pub version: u64,
}

/// One operation of a transaction; it sees what earlier ones of the same transaction did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TxnOp {
    /// Writes an entry.
    Set(Set),
    /// Deletes an entry; one that is absent refuses the whole transaction.
    Delete(Delete),
    /// Reads an entry.
    Get(Address),
}

/// Forgets change history: watches can no longer resume before this revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compact {
    /// The oldest revision to keep; at most the one that comes next, which keeps none.
    pub revision: u64,
}

/// Gives the cluster its identity, once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The cluster's id.
    pub cluster_id: String,
    /// Versions kept per entry.
    pub history_limit: u64,
}

/// A node and where it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its id, never 0.
    pub id: u64,
    /// Names its data directory: another one must not take the same id.
    pub incarnation: String,
    /// Address of its REST API.
    pub http: String,
    /// Address of its client gRPC.
    pub grpc: String,
    /// Address other nodes reach it at.
    pub raft: String,
    /// The release it runs.
    pub version: String,
}

/// Makes a node known before it is told to replicate, so that no other disk can answer under its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddNode {
    /// The node.
    pub node: Node,
}

/// Forgets a node and keeps its id from being used again, for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoveNode {
    /// Its id.
    pub id: u64,
}

/// What is left of a removed node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemovedNode {
    /// Its id, used up.
    pub id: u64,
    /// The disk that it had; empty when it was removed before it had registered.
    pub incarnation: String,
}

/// Why bytes are not a command or an answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// No bytes at all.
    #[error("empty")]
    Empty,
    /// Written by a newer release.
    #[error("format version {0} is not known to this release")]
    Format(u8),
    /// Not what it should be.
    #[error("malformed: {0}")]
    Malformed(String),
    /// More bytes than a command may have.
    #[error("has {size} bytes, at most {} are allowed", limits::COMMAND_BYTES_MAX)]
    TooLarge {
        /// Its size.
        size: usize,
    },
    /// Well-formed, but a field is not acceptable.
    #[error(transparent)]
    Invalid(#[from] InvalidArgument),
}

impl Command {
    /// A command without a request id.
    pub fn new(actor: impl Into<String>, operation: Operation) -> Self {
        Self { actor: actor.into(), request: None, operation }
    }

    /// The same command under an idempotency key: a retry with the same key gets the first answer.
    pub fn with_request_id(self, key: impl Into<String>) -> Self {
        let bare = Self { request: None, ..self };
        let digest = Sha256::digest(bare.encode()).into();
        Self { request: Some(RequestId { key: key.into(), digest }), ..bare }
    }

    /// Encodes it: one format byte, then protobuf. The same command always gives the same bytes.
    pub fn encode(&self) -> Bytes {
        wire::encode(&wire::Command::from(self))
    }

    /// Decodes and validates. Values are copied, so that no value keeps a whole network buffer alive.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        if bytes.len() > limits::COMMAND_BYTES_MAX {
            return Err(DecodeError::TooLarge { size: bytes.len() });
        }
        let command: Self = wire::decode::<wire::Command>(bytes)?.try_into()?;
        command.validate()?;
        Ok(command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(value: &str) -> Set {
        Set {
            address: Address::parse("ns", "key", "base").unwrap(),
            value: JsonValue::parse(value.as_bytes()).unwrap(),
            description: String::new(),
            tags: Vec::new(),
            comment: String::new(),
            expected_version: None,
        }
    }

    #[test]
    fn the_digest_tells_commands_apart_but_not_keys() {
        let digest = |key: &str, value| {
            Command::new("a", Operation::Set(set(value)))
                .with_request_id(key)
                .request
                .unwrap()
                .digest
        };
        assert_eq!(digest("one", "1"), digest("two", "1"));
        assert_ne!(digest("one", "1"), digest("one", "2"));
        let twice = Command::new("a", Operation::Set(set("1")))
            .with_request_id("one")
            .with_request_id("two");
        assert_eq!(twice.request.unwrap().digest, digest("x", "1"));
    }

    #[test]
    fn other_formats_are_refused() {
        assert_eq!(Command::decode(Bytes::new()), Err(DecodeError::Empty));
        assert_eq!(Command::decode(Bytes::from_static(&[9, 1])), Err(DecodeError::Format(9)));
        assert!(matches!(
            Command::decode(Bytes::from_static(&[1, 0xff])),
            Err(DecodeError::Malformed(_))
        ));
        assert!(matches!(
            Command::decode(Bytes::from_static(&[1])),
            Err(DecodeError::Malformed(_))
        ));
    }
}
