//! Commands: everything that may change the replicated state, and their encoding.
//!
//! A command is encoded once at the edge and travels as bytes. Decoding validates everything again, because what comes
//! from another node is input. The bounds themselves are in `validate.rs`.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::access::{Action, Need, Role, Token};
use crate::event::AuditEvent;
use crate::limits;
use crate::names::{Address, Environment, InvalidArgument, Key, Namespace, check_line};
use crate::sealed::{DataKey, ResealedVersion, Sealed, Value};
use crate::value::JsonValue;
use crate::wire;

/// One entry of the replicated log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Who asks.
    pub actor: String,
    /// Makes a retry recognisable.
    pub request: Option<RequestId>,
    /// Where it comes from. Absent for what nodes do by themselves, and for commands of releases before 0.2: those are
    /// neither judged again nor recorded.
    pub origin: Option<Origin>,
    /// The schemas that its values were checked by where the request came in. A schema that is in place when the command
    /// is applied, and is not the one named here, refuses it. In order, each once.
    pub schemas: Vec<CheckedSchema>,
    /// What to do.
    pub operation: Operation,
}

/// A schema that a value was checked by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CheckedSchema {
    /// Whose: of this namespace,
    pub namespace: Namespace,
    /// and this key.
    pub key: Key,
    /// Its version. [`CheckedSchema::UNMET`]: whatever its version, the value does not meet it.
    pub version: u64,
}

impl CheckedSchema {
    /// No schema ever has this version. A command that names it changes nothing unless it was carried out before, and
    /// then gets the answer of that time.
    pub const UNMET: u64 = u64::MAX;
}

/// Where a command comes from, for the audit log, and by what right it was let in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Who asks, by what never changes: the id of a token, or the subject of somebody else's. Empty without
    /// authentication.
    pub principal: String,
    /// From which network address.
    pub source: String,
    /// The request, as its answer names it.
    pub request_id: String,
    /// The node that took the request.
    pub node: u64,
    /// By what right. Absent without authentication.
    pub authority: Option<Authority>,
}

/// By what right a command was let in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Authority {
    /// The policy that it was judged by.
    pub policy_revision: u64,
    /// The token that it came with; absent for somebody else's.
    pub token_id: Option<String>,
    /// Of somebody else's token: the roles that it names.
    pub roles: Vec<String>,
    /// From when on the right is void; 0 is never.
    pub expires_at_ms: u64,
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
    /// Takes the first token, once.
    Bootstrap(Token),
    /// Makes a token.
    CreateToken(Token),
    /// Revokes the token with this id.
    RevokeToken(String),
    /// Makes or changes a role.
    PutRole(Role),
    /// Deletes the role of this name.
    DeleteRole(String),
    /// Shuts an address out.
    Ban(BanOrder),
    /// Lets an address in again.
    LiftBan(String),
    /// Adds a key for secrets.
    AddDataKey(DataKey),
    /// Stores keys for secrets under another master key.
    RewrapDataKeys(Vec<DataKey>),
    /// Puts secrets under another key.
    Reseal(Reseal),
    /// Forgets a key for secrets that opens nothing any more.
    DropDataKey(DropDataKey),
    /// Records what changes nothing, or is about to be done.
    Record(Vec<AuditEvent>),
    /// Sets how long audit records stay.
    SetAuditRetention(AuditRetention),
    /// Makes or changes the schema of a key.
    PutSchema(PutSchema),
    /// Deletes the schema of a key.
    DeleteSchema(DeleteSchema),
}

/// Writes an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// Where.
    pub address: Address,
    /// The new value.
    pub value: Value,
    /// What the entry is for.
    pub description: String,
    /// Free labels.
    pub tags: Vec<String>,
    /// Why.
    pub comment: String,
    /// Refuse unless the entry is at this version; 0: unless it does not exist.
    pub expected_version: Option<u64>,
    /// Whether a value that everybody may see may take the place of a secret.
    pub declassify: bool,
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
    /// When the old version is a secret: the same, encrypted for the version that this makes.
    pub resealed: Option<Sealed>,
}

/// Makes or changes the schema that values of a key have to meet from now on, in every environment. What it says, and
/// that it can be checked, is looked at where the request comes in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PutSchema {
    /// Of this namespace,
    pub namespace: Namespace,
    /// and this key.
    pub key: Key,
    /// A JSON Schema.
    pub schema: JsonValue,
    /// Refuse unless the schema is at this version; 0: unless there is none.
    pub expected_version: Option<u64>,
    /// Why.
    pub comment: String,
}

/// Deletes the schema of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteSchema {
    /// Of this namespace,
    pub namespace: Namespace,
    /// and this key.
    pub key: Key,
    /// Refuse unless the schema is at this version.
    pub expected_version: Option<u64>,
    /// Why.
    pub comment: String,
}

/// A schema as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schema {
    /// Of this namespace,
    pub namespace: Namespace,
    /// and this key.
    pub key: Key,
    /// A JSON Schema.
    pub schema: JsonValue,
    /// Counts changes of schemas in the whole cluster: no two schemas ever share one.
    pub version: u64,
    /// When there was none before.
    pub created_at_ms: u64,
    /// By whom.
    pub created_by: String,
    /// When it was changed last.
    pub updated_at_ms: u64,
    /// By whom.
    pub updated_by: String,
    /// Why.
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

/// Puts secrets of one entry under another key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reseal {
    /// The entry.
    pub address: Address,
    /// The key that they are under; what is under another one by now stays as it is.
    pub from_key_version: u32,
    /// What takes their place.
    pub versions: Vec<ResealedVersion>,
}

/// Forgets a data key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DropDataKey {
    /// Whose.
    pub owner: String,
    /// Which.
    pub version: u32,
}

/// An address that was shut out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ban {
    /// The network address, as it is counted: an IPv6 network stands for all of its addresses.
    pub address: String,
    /// Until when.
    pub until_ms: u64,
    /// How often in a row.
    pub strikes: u32,
    /// Why.
    pub reason: String,
    /// Since when.
    pub since_ms: u64,
}

/// Asks to shut an address out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BanOrder {
    /// The network address.
    pub address: String,
    /// How long the first time, in milliseconds; twice as long each further time.
    pub first_ms: u64,
    /// The longest, in milliseconds.
    pub longest_ms: u64,
    /// Why.
    pub reason: String,
}

impl BanOrder {
    pub(crate) fn validate(&self) -> Result<(), InvalidArgument> {
        check_line("address", &self.address, limits::SOURCE_BYTES_MAX)?;
        check_line("reason", &self.reason, limits::AUDIT_DETAIL_BYTES_MAX)?;
        if self.first_ms == 0 || self.longest_ms < self.first_ms {
            return Err(InvalidArgument::new("request", "a ban that lasts no time"));
        }
        Ok(())
    }
}

/// How long audit records stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditRetention {
    /// At most so long, in milliseconds.
    pub max_age_ms: u64,
    /// At most so many bytes.
    pub max_bytes: u64,
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

impl Operation {
    /// The rights that carrying it out needs. Empty for what only nodes propose.
    pub fn needs(&self) -> Vec<Need> {
        match self {
            Self::Set(set) => vec![Need::at(Action::Write, &set.address)],
            Self::Delete(delete) => vec![Need::at(Action::Delete, &delete.address)],
            Self::Rollback(rollback) => vec![Need::at(Action::Rollback, &rollback.address)],
            Self::Txn(txn) => {
                let compared = txn.compare.iter().map(|c| Need::at(Action::Read, &c.address));
                let ops = txn.success.iter().chain(&txn.failure).map(|op| match op {
                    TxnOp::Set(set) => Need::at(Action::Write, &set.address),
                    TxnOp::Delete(delete) => Need::at(Action::Delete, &delete.address),
                    TxnOp::Get(address) => Need::at(Action::Read, address),
                });
                compared.chain(ops).collect()
            }
            // It binds what is written in each of them.
            Self::PutSchema(PutSchema { namespace, key, .. })
            | Self::DeleteSchema(DeleteSchema { namespace, key, .. }) => {
                let at = |environment| {
                    let (namespace, key) = (namespace.clone(), key.clone());
                    Need::at(Action::Write, &Address { namespace, key, environment })
                };
                Environment::ALL.into_iter().map(at).collect()
            }
            Self::Compact(_) => vec![Need::Everywhere(Action::Cluster)],
            Self::CreateToken(_)
            | Self::RevokeToken(_)
            | Self::PutRole(_)
            | Self::DeleteRole(_)
            | Self::LiftBan(_)
            | Self::SetAuditRetention(_) => vec![Need::Everywhere(Action::Auth)],
            Self::Record(events) => events.iter().flat_map(|event| event.needs()).collect(),
            Self::Found(_)
            | Self::RegisterNode(_)
            | Self::AddNode(_)
            | Self::RemoveNode(_)
            | Self::Bootstrap(_)
            | Self::Ban(_)
            | Self::AddDataKey(_)
            | Self::RewrapDataKeys(_)
            | Self::Reseal(_)
            | Self::DropDataKey(_) => Vec::new(),
        }
    }

    /// Whether it changes who may do what, the keys or the schemas: what nodes keep in memory of those is then read again.
    pub fn changes_rules(&self) -> bool {
        matches!(
            self,
            Self::PutSchema(_)
                | Self::DeleteSchema(_)
                | Self::Bootstrap(_)
                | Self::CreateToken(_)
                | Self::RevokeToken(_)
                | Self::PutRole(_)
                | Self::DeleteRole(_)
                | Self::Ban(_)
                | Self::LiftBan(_)
                | Self::AddDataKey(_)
                | Self::RewrapDataKeys(_)
                | Self::DropDataKey(_)
        )
    }
}

impl Command {
    /// A command without a request id.
    pub fn new(actor: impl Into<String>, operation: Operation) -> Self {
        let (actor, schemas) = (actor.into(), Vec::new());
        Self { actor, request: None, origin: None, schemas, operation }
    }

    /// The same command with the schemas that its values were checked by.
    pub fn checked_by(self, mut schemas: Vec<CheckedSchema>) -> Self {
        schemas.sort();
        schemas.dedup();
        Self { schemas, ..self }
    }

    /// The same command with where it comes from.
    pub fn from_origin(self, origin: Origin) -> Self {
        Self { origin: Some(origin), ..self }
    }

    /// The same command under an idempotency key: a retry with the same key gets the first answer.
    pub fn with_request_id(self, key: impl Into<String>) -> Self {
        let digest = Sha256::digest(self.content()).into();
        self.with_request(key, digest)
    }

    /// What is asked for, the same in each try of one request: where it comes from, and what it was checked by, may differ.
    pub fn content(&self) -> Bytes {
        Self::new(self.actor.clone(), self.operation.clone()).encode()
    }

    /// The same command under an idempotency key and a digest of the caller's: a secret is encrypted anew for each try.
    pub fn with_request(self, key: impl Into<String>, digest: [u8; 32]) -> Self {
        Self { request: Some(RequestId { key: key.into(), digest }), ..self }
    }

    /// Whose idempotency keys it shares.
    pub(crate) fn requester(&self) -> &str {
        let principal = self.origin.as_ref().map_or("", |origin| &origin.principal);
        if principal.is_empty() { &self.actor } else { principal }
    }

    /// Encodes it: one format byte, then protobuf. The same command always gives the same bytes.
    pub fn encode(&self) -> Bytes {
        wire::encode(&wire::Command::from(self), self.format())
    }

    /// The oldest format that says all of it, so that older nodes read what they understand.
    fn format(&self) -> u8 {
        let plain = |set: &Set| !set.value.is_secret() && !set.declassify;
        let old = match &self.operation {
            Operation::Set(set) => plain(set),
            Operation::Rollback(rollback) => rollback.resealed.is_none(),
            Operation::Txn(txn) => txn.success.iter().chain(&txn.failure).all(|op| match op {
                TxnOp::Set(set) => plain(set),
                TxnOp::Delete(_) | TxnOp::Get(_) => true,
            }),
            Operation::Delete(_)
            | Operation::Compact(_)
            | Operation::Found(_)
            | Operation::RegisterNode(_)
            | Operation::AddNode(_)
            | Operation::RemoveNode(_) => true,
            _ => false,
        };
        if old && self.origin.is_none() && self.schemas.is_empty() {
            wire::COMMAND_FORMAT_OLDEST
        } else {
            wire::COMMAND_FORMAT
        }
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
            value: JsonValue::parse(value.as_bytes()).unwrap().into(),
            description: String::new(),
            tags: Vec::new(),
            comment: String::new(),
            expected_version: None,
            declassify: false,
        }
    }

    #[test]
    fn where_a_request_comes_from_is_no_part_of_what_it_is() {
        let command = || Command::new("a", Operation::Set(set("1")));
        let origin = Origin { request_id: "r-2".into(), ..Origin::default() };
        let retried = command().from_origin(origin.clone()).with_request_id("k");
        assert_eq!(retried.request, command().with_request_id("k").request);
        assert_eq!(retried.origin, Some(origin));
    }

    #[test]
    fn what_older_nodes_understand_is_written_for_them() {
        let old = Command::new("a", Operation::Set(set("1")));
        assert_eq!(old.encode()[0], 1);
        assert_eq!(old.clone().from_origin(Origin::default()).encode()[0], 2);
        let new = Command::new("a", Operation::LiftBan("192.0.2.1".into()));
        assert_eq!(new.encode()[0], 2);
        for command in [old.from_origin(Origin::default()), new] {
            assert_eq!(Command::decode(command.encode()), Ok(command));
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
