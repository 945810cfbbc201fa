//! How commands (and, in `answer.rs`, answers; in `security.rs`, who asks) are written as bytes: protobuf messages behind one format byte.
//!
//! These mirror the public types field by field; turning a message back into a public type validates it. Field numbers
//! and meanings never change within a format version.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

use crate::command::{self, DecodeError, Operation, RemovedNode, TxnOp};
use crate::names::{self, Environment, InvalidArgument, Key, Namespace};
use crate::sealed::{Sealed as SealedValue, Value};
use crate::value::{JsonValue, ValueError};

mod answer;
mod schema;
mod security;

pub(crate) use answer::Applied;
pub(crate) use schema::*;
pub(crate) use security::*;

/// The newest format of commands and answers that this release reads.
///
/// 1: as of 0.1. 2: with where a command comes from (it is then judged again and recorded), secrets, and what manages
/// tokens, roles, bans, keys and schemas. Format 1 reads the same.
pub const COMMAND_FORMAT: u8 = 2;
/// The oldest that this release reads, and still writes for what it can say.
pub(crate) const COMMAND_FORMAT_OLDEST: u8 = 1;

/// Writes the format byte and the message.
pub(crate) fn encode(message: &impl Message, format: u8) -> Bytes {
    let mut bytes = BytesMut::with_capacity(1 + message.encoded_len());
    bytes.put_u8(format);
    // A growing buffer has room for everything; a lack of room is the only error encoding knows.
    message.encode(&mut bytes).unwrap_or_default();
    bytes.freeze()
}

/// Reads the format byte and the message.
pub(crate) fn decode<M: Message + Default>(bytes: Bytes) -> Result<M, DecodeError> {
    match bytes.first() {
        None => Err(DecodeError::Empty),
        Some(&(COMMAND_FORMAT_OLDEST..=COMMAND_FORMAT)) => {
            M::decode(bytes.slice(1..)).map_err(|error| DecodeError::Malformed(error.to_string()))
        }
        Some(&other) => Err(DecodeError::Format(other)),
    }
}

fn required<T>(field: Option<T>, name: &str) -> Result<T, DecodeError> {
    field.ok_or_else(|| DecodeError::Malformed(format!("{name} is missing")))
}

fn json_value(text: &Bytes) -> Result<JsonValue, DecodeError> {
    JsonValue::parse(text).map_err(|error| match error {
        ValueError::TooLarge { size } => DecodeError::Malformed(format!("a value of {size} bytes")),
        ValueError::Invalid(invalid) => DecodeError::Invalid(invalid),
    })
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Address {
    #[prost(string, tag = "1")]
    pub(crate) namespace: String,
    #[prost(string, tag = "2")]
    pub(crate) key: String,
    #[prost(uint32, tag = "3")]
    pub(crate) environment: u32,
}

impl From<&names::Address> for Address {
    fn from(address: &names::Address) -> Self {
        Self {
            namespace: address.namespace.as_str().into(),
            key: address.key.as_str().into(),
            environment: address.environment.code().into(),
        }
    }
}

impl TryFrom<Address> for names::Address {
    type Error = InvalidArgument;

    fn try_from(address: Address) -> Result<Self, InvalidArgument> {
        let environment = u8::try_from(address.environment).ok().and_then(Environment::from_code);
        Ok(Self {
            namespace: Namespace::parse(&address.namespace)?,
            key: Key::parse(&address.key)?,
            environment: environment.ok_or_else(|| {
                InvalidArgument::new(
                    "env",
                    format!("{} is not an environment", address.environment),
                )
            })?,
        })
    }
}

fn address(address: Option<Address>) -> Result<names::Address, DecodeError> {
    Ok(required(address, "address")?.try_into()?)
}

/// A value that is JSON or a secret, one of both.
fn value(json: Option<Bytes>, sealed: Option<Sealed>) -> Result<Option<Value>, DecodeError> {
    match (json, sealed) {
        (Some(json), None) => Ok(Some(Value::Json(json_value(&json)?))),
        (None, Some(sealed)) => Ok(Some(Value::Sealed(SealedValue::try_from(sealed)?))),
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(DecodeError::Malformed("a value and a secret in one".into())),
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Set {
    #[prost(message, optional, tag = "1")]
    address: Option<Address>,
    /// Empty when it is a secret.
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
    #[prost(string, tag = "3")]
    description: String,
    #[prost(string, repeated, tag = "4")]
    tags: Vec<String>,
    #[prost(string, tag = "5")]
    comment: String,
    #[prost(uint64, optional, tag = "6")]
    expected_version: Option<u64>,
    #[prost(message, optional, tag = "7")]
    sealed: Option<Sealed>,
    #[prost(bool, tag = "8")]
    declassify: bool,
}

impl From<&command::Set> for Set {
    fn from(set: &command::Set) -> Self {
        Self {
            address: Some((&set.address).into()),
            value: set.value.json().map(JsonValue::bytes).unwrap_or_default(),
            sealed: set.value.sealed().map(Sealed::from),
            declassify: set.declassify,
            description: set.description.clone(),
            tags: set.tags.clone(),
            comment: set.comment.clone(),
            expected_version: set.expected_version,
        }
    }
}

impl TryFrom<Set> for command::Set {
    type Error = DecodeError;

    fn try_from(set: Set) -> Result<Self, DecodeError> {
        let json = Some(set.value).filter(|json| !json.is_empty());
        Ok(Self {
            address: address(set.address)?,
            value: required(value(json, set.sealed)?, "a value")?,
            declassify: set.declassify,
            description: set.description,
            tags: set.tags,
            comment: set.comment,
            expected_version: set.expected_version,
        })
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Delete {
    #[prost(message, optional, tag = "1")]
    address: Option<Address>,
    #[prost(uint64, optional, tag = "2")]
    expected_version: Option<u64>,
    #[prost(string, tag = "3")]
    comment: String,
}

impl From<&command::Delete> for Delete {
    fn from(delete: &command::Delete) -> Self {
        Self {
            address: Some((&delete.address).into()),
            expected_version: delete.expected_version,
            comment: delete.comment.clone(),
        }
    }
}

impl TryFrom<Delete> for command::Delete {
    type Error = DecodeError;

    fn try_from(delete: Delete) -> Result<Self, DecodeError> {
        Ok(Self {
            address: address(delete.address)?,
            expected_version: delete.expected_version,
            comment: delete.comment,
        })
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Rollback {
    #[prost(message, optional, tag = "1")]
    address: Option<Address>,
    #[prost(uint64, tag = "2")]
    version: u64,
    #[prost(uint64, optional, tag = "3")]
    expected_version: Option<u64>,
    #[prost(string, tag = "4")]
    comment: String,
    #[prost(message, optional, tag = "5")]
    resealed: Option<Sealed>,
}

/// A comparison of a transaction.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Compare {
    #[prost(message, optional, tag = "1")]
    address: Option<Address>,
    #[prost(uint64, tag = "2")]
    version: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Op {
    #[prost(oneof = "OpKind", tags = "1, 2, 3")]
    kind: Option<OpKind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum OpKind {
    #[prost(message, tag = "1")]
    Set(Set),
    #[prost(message, tag = "2")]
    Delete(Delete),
    #[prost(message, tag = "3")]
    Get(Address),
}

impl From<&TxnOp> for Op {
    fn from(op: &TxnOp) -> Self {
        let kind = match op {
            TxnOp::Set(set) => OpKind::Set(set.into()),
            TxnOp::Delete(delete) => OpKind::Delete(delete.into()),
            TxnOp::Get(address) => OpKind::Get(address.into()),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<Op> for TxnOp {
    type Error = DecodeError;

    fn try_from(op: Op) -> Result<Self, DecodeError> {
        Ok(match required(op.kind, "an operation's kind")? {
            OpKind::Set(set) => Self::Set(set.try_into()?),
            OpKind::Delete(delete) => Self::Delete(delete.try_into()?),
            OpKind::Get(address) => Self::Get(address.try_into()?),
        })
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Txn {
    #[prost(message, repeated, tag = "1")]
    compare: Vec<Compare>,
    #[prost(message, repeated, tag = "2")]
    success: Vec<Op>,
    #[prost(message, repeated, tag = "3")]
    failure: Vec<Op>,
}

impl From<&command::Txn> for Txn {
    fn from(txn: &command::Txn) -> Self {
        let compare = txn.compare.iter();
        Self {
            compare: compare
                .map(|c| Compare { address: Some((&c.address).into()), version: c.version })
                .collect(),
            success: txn.success.iter().map(Op::from).collect(),
            failure: txn.failure.iter().map(Op::from).collect(),
        }
    }
}

impl TryFrom<Txn> for command::Txn {
    type Error = DecodeError;

    fn try_from(txn: Txn) -> Result<Self, DecodeError> {
        let compare =
            |c: Compare| Ok(command::Compare { address: address(c.address)?, version: c.version });
        Ok(Self {
            compare: txn.compare.into_iter().map(compare).collect::<Result<_, DecodeError>>()?,
            success: txn.success.into_iter().map(TxnOp::try_from).collect::<Result<_, _>>()?,
            failure: txn.failure.into_iter().map(TxnOp::try_from).collect::<Result<_, _>>()?,
        })
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Found {
    #[prost(string, tag = "1")]
    cluster_id: String,
    #[prost(uint64, tag = "2")]
    history_limit: u64,
}

/// Also the stored form of a node (`record.rs`).
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Node {
    #[prost(uint64, tag = "1")]
    pub(crate) id: u64,
    #[prost(string, tag = "2")]
    pub(crate) incarnation: String,
    #[prost(string, tag = "3")]
    http: String,
    #[prost(string, tag = "4")]
    grpc: String,
    #[prost(string, tag = "5")]
    raft: String,
    #[prost(string, tag = "6")]
    version: String,
    /// Stored only: nothing is left of the node but its id and its disk.
    #[prost(bool, tag = "7")]
    pub(crate) removed: bool,
}

impl Node {
    /// What is stored of a node that was removed.
    pub(crate) fn removed(node: &RemovedNode) -> Self {
        let incarnation = node.incarnation.clone();
        Self { id: node.id, incarnation, removed: true, ..Self::default() }
    }
}

impl From<&command::Node> for Node {
    fn from(node: &command::Node) -> Self {
        Self {
            removed: false,
            id: node.id,
            incarnation: node.incarnation.clone(),
            http: node.http.clone(),
            grpc: node.grpc.clone(),
            raft: node.raft.clone(),
            version: node.version.clone(),
        }
    }
}

impl From<Node> for command::Node {
    fn from(node: Node) -> Self {
        Self {
            id: node.id,
            incarnation: node.incarnation,
            http: node.http,
            grpc: node.grpc,
            raft: node.raft,
            version: node.version,
        }
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Request {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(bytes = "vec", tag = "2")]
    digest: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Compact {
    #[prost(uint64, tag = "1")]
    revision: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Command {
    #[prost(string, tag = "1")]
    actor: String,
    #[prost(message, optional, tag = "2")]
    request: Option<Request>,
    #[prost(message, optional, tag = "3")]
    origin: Option<Origin>,
    #[prost(message, repeated, tag = "4")]
    schemas: Vec<CheckedSchema>,
    #[prost(
        oneof = "CommandKind",
        tags = "10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33"
    )]
    kind: Option<CommandKind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum CommandKind {
    #[prost(message, tag = "10")]
    Set(Set),
    #[prost(message, tag = "11")]
    Delete(Delete),
    #[prost(message, tag = "12")]
    Rollback(Rollback),
    #[prost(message, tag = "13")]
    Txn(Txn),
    #[prost(message, tag = "14")]
    Compact(Compact),
    #[prost(message, tag = "15")]
    Found(Found),
    #[prost(message, tag = "16")]
    RegisterNode(Node),
    #[prost(message, tag = "17")]
    AddNode(Node),
    #[prost(uint64, tag = "18")]
    RemoveNode(u64),
    #[prost(message, tag = "19")]
    Bootstrap(Token),
    #[prost(message, tag = "20")]
    CreateToken(Token),
    #[prost(string, tag = "21")]
    RevokeToken(String),
    #[prost(message, tag = "22")]
    PutRole(Role),
    #[prost(string, tag = "23")]
    DeleteRole(String),
    #[prost(message, tag = "24")]
    Ban(BanOrder),
    #[prost(string, tag = "25")]
    LiftBan(String),
    #[prost(message, tag = "26")]
    AddDataKey(DataKey),
    #[prost(message, tag = "27")]
    RewrapDataKeys(DataKeys),
    #[prost(message, tag = "28")]
    Reseal(Reseal),
    #[prost(message, tag = "29")]
    DropDataKey(DropDataKey),
    #[prost(message, tag = "30")]
    Record(AuditEvents),
    #[prost(message, tag = "31")]
    SetAuditRetention(AuditRetention),
    #[prost(message, tag = "32")]
    PutSchema(PutSchema),
    #[prost(message, tag = "33")]
    DeleteSchema(DeleteSchema),
}

impl From<&command::Command> for Command {
    fn from(command: &command::Command) -> Self {
        let request = command.request.as_ref();
        Self {
            actor: command.actor.clone(),
            request: request.map(|request| Request {
                key: request.key.clone(),
                digest: request.digest.to_vec(),
            }),
            origin: command.origin.as_ref().map(Origin::from),
            schemas: command.schemas.iter().map(CheckedSchema::from).collect(),
            kind: Some((&command.operation).into()),
        }
    }
}

impl From<&Operation> for CommandKind {
    fn from(operation: &Operation) -> Self {
        match operation {
            Operation::Set(set) => Self::Set(set.into()),
            Operation::Delete(delete) => Self::Delete(delete.into()),
            Operation::Rollback(rollback) => Self::Rollback(Rollback {
                address: Some((&rollback.address).into()),
                version: rollback.version,
                expected_version: rollback.expected_version,
                comment: rollback.comment.clone(),
                resealed: rollback.resealed.as_ref().map(Sealed::from),
            }),
            Operation::Txn(txn) => Self::Txn(txn.into()),
            Operation::Compact(compact) => Self::Compact(Compact { revision: compact.revision }),
            Operation::Found(found) => Self::Found(Found {
                cluster_id: found.cluster_id.clone(),
                history_limit: found.history_limit,
            }),
            Operation::RegisterNode(node) => Self::RegisterNode(node.into()),
            Operation::AddNode(add) => Self::AddNode((&add.node).into()),
            Operation::RemoveNode(remove) => Self::RemoveNode(remove.id),
            Operation::Bootstrap(token) => Self::Bootstrap(token.into()),
            Operation::CreateToken(token) => Self::CreateToken(token.into()),
            Operation::RevokeToken(id) => Self::RevokeToken(id.clone()),
            Operation::PutRole(role) => Self::PutRole(role.into()),
            Operation::DeleteRole(name) => Self::DeleteRole(name.clone()),
            Operation::Ban(order) => Self::Ban(order.into()),
            Operation::LiftBan(address) => Self::LiftBan(address.clone()),
            Operation::AddDataKey(key) => Self::AddDataKey(key.into()),
            Operation::RewrapDataKeys(keys) => {
                Self::RewrapDataKeys(DataKeys { keys: keys.iter().map(DataKey::from).collect() })
            }
            Operation::Reseal(reseal) => Self::Reseal(reseal.into()),
            Operation::DropDataKey(drop) => {
                Self::DropDataKey(DropDataKey { owner: drop.owner.clone(), version: drop.version })
            }
            Operation::Record(events) => {
                Self::Record(AuditEvents { events: events.iter().map(AuditEvent::from).collect() })
            }
            Operation::SetAuditRetention(retention) => Self::SetAuditRetention(AuditRetention {
                max_age_ms: retention.max_age_ms,
                max_bytes: retention.max_bytes,
            }),
            Operation::PutSchema(put) => Self::PutSchema(put.into()),
            Operation::DeleteSchema(delete) => Self::DeleteSchema(delete.into()),
        }
    }
}

impl TryFrom<Command> for command::Command {
    type Error = DecodeError;

    fn try_from(command: Command) -> Result<Self, DecodeError> {
        let request = command.request.map(|request| {
            let digest = request.digest.try_into();
            let digest = digest
                .map_err(|_| DecodeError::Malformed("a digest that is not 32 bytes long".into()))?;
            Ok::<_, DecodeError>(command::RequestId { key: request.key, digest })
        });
        Ok(Self {
            actor: command.actor,
            request: request.transpose()?,
            origin: command.origin.map(command::Origin::from),
            schemas: {
                let schemas = command.schemas.into_iter().map(TryInto::try_into);
                schemas.collect::<Result<_, DecodeError>>()?
            },
            operation: required(command.kind, "the operation")?.try_into()?,
        })
    }
}

impl TryFrom<CommandKind> for Operation {
    type Error = DecodeError;

    fn try_from(kind: CommandKind) -> Result<Self, DecodeError> {
        Ok(match kind {
            CommandKind::Set(set) => Self::Set(set.try_into()?),
            CommandKind::Delete(delete) => Self::Delete(delete.try_into()?),
            CommandKind::Rollback(rollback) => Self::Rollback(command::Rollback {
                address: address(rollback.address)?,
                version: rollback.version,
                expected_version: rollback.expected_version,
                comment: rollback.comment,
                resealed: rollback.resealed.map(SealedValue::try_from).transpose()?,
            }),
            CommandKind::Txn(txn) => Self::Txn(txn.try_into()?),
            CommandKind::Compact(compact) => {
                Self::Compact(command::Compact { revision: compact.revision })
            }
            CommandKind::Found(found) => Self::Found(command::Found {
                cluster_id: found.cluster_id,
                history_limit: found.history_limit,
            }),
            CommandKind::RegisterNode(node) => Self::RegisterNode(node.into()),
            CommandKind::AddNode(node) => Self::AddNode(command::AddNode { node: node.into() }),
            CommandKind::RemoveNode(id) => Self::RemoveNode(command::RemoveNode { id }),
            CommandKind::Bootstrap(token) => Self::Bootstrap(token.try_into()?),
            CommandKind::CreateToken(token) => Self::CreateToken(token.try_into()?),
            CommandKind::RevokeToken(id) => Self::RevokeToken(id),
            CommandKind::PutRole(role) => Self::PutRole(role.try_into()?),
            CommandKind::DeleteRole(name) => Self::DeleteRole(name),
            CommandKind::Ban(order) => Self::Ban(order.into()),
            CommandKind::LiftBan(address) => Self::LiftBan(address),
            CommandKind::AddDataKey(key) => Self::AddDataKey(key.into()),
            CommandKind::RewrapDataKeys(rewrapped) => {
                Self::RewrapDataKeys(rewrapped.keys.into_iter().map(Into::into).collect())
            }
            CommandKind::Reseal(reseal) => Self::Reseal(reseal.try_into()?),
            CommandKind::DropDataKey(drop) => {
                Self::DropDataKey(command::DropDataKey { owner: drop.owner, version: drop.version })
            }
            CommandKind::Record(recorded) => {
                let events = recorded.events.into_iter().map(TryInto::try_into);
                Self::Record(events.collect::<Result<_, DecodeError>>()?)
            }
            CommandKind::PutSchema(put) => Self::PutSchema(put.try_into()?),
            CommandKind::DeleteSchema(delete) => Self::DeleteSchema(delete.try_into()?),
            CommandKind::SetAuditRetention(retention) => {
                Self::SetAuditRetention(command::AuditRetention {
                    max_age_ms: retention.max_age_ms,
                    max_bytes: retention.max_bytes,
                })
            }
        })
    }
}
