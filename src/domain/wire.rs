//! How commands (and, in `answer.rs`, answers) are written as bytes: protobuf messages behind one format byte.
//!
//! These mirror the public types field by field; turning a message back into a public type validates it. Field numbers
//! and meanings never change within a format version.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

use crate::command::{self, DecodeError, Operation, RemovedNode, TxnOp};
use crate::names::{self, Environment, InvalidArgument, Key, Namespace};
use crate::value::{JsonValue, ValueError};

mod answer;

pub(crate) use answer::Applied;

/// The newest format of commands and answers that this release reads: there is only one so far.
pub const COMMAND_FORMAT: u8 = 1;

/// Writes the format byte and the message.
pub(crate) fn encode(message: &impl Message) -> Bytes {
    let mut bytes = BytesMut::with_capacity(1 + message.encoded_len());
    bytes.put_u8(COMMAND_FORMAT);
    // A growing buffer has room for everything; a lack of room is the only error encoding knows.
    message.encode(&mut bytes).unwrap_or_default();
    bytes.freeze()
}

/// Reads the format byte and the message.
pub(crate) fn decode<M: Message + Default>(bytes: Bytes) -> Result<M, DecodeError> {
    match bytes.first() {
        None => Err(DecodeError::Empty),
        Some(&COMMAND_FORMAT) => {
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

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Set {
    #[prost(message, optional, tag = "1")]
    address: Option<Address>,
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
}

impl From<&command::Set> for Set {
    fn from(set: &command::Set) -> Self {
        Self {
            address: Some((&set.address).into()),
            value: set.value.bytes(),
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
        Ok(Self {
            address: address(set.address)?,
            value: json_value(&set.value)?,
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
    #[prost(oneof = "CommandKind", tags = "10, 11, 12, 13, 14, 15, 16, 17, 18")]
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
        })
    }
}
