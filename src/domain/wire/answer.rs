//! Answers as bytes: what the leader sends back to the node that forwarded a command.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;

use super::{Address, DecodeError, Sealed, address, required, value};
use crate::entry;
use crate::names::InvalidArgument;
use crate::outcome::{self, Outcome, Rejection, TxnResult};
use crate::sealed::Value;
use crate::value::JsonValue;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Entry {
    #[prost(message, optional, tag = "1")]
    address: Option<Address>,
    #[prost(uint64, tag = "2")]
    version: u64,
    #[prost(uint64, tag = "3")]
    revision: u64,
    #[prost(bytes = "bytes", optional, tag = "4")]
    value: Option<Bytes>,
    #[prost(uint64, tag = "5")]
    created_at_ms: u64,
    #[prost(string, tag = "6")]
    created_by: String,
    #[prost(uint64, tag = "7")]
    updated_at_ms: u64,
    #[prost(string, tag = "8")]
    updated_by: String,
    #[prost(string, tag = "9")]
    description: String,
    #[prost(string, repeated, tag = "10")]
    tags: Vec<String>,
    #[prost(string, tag = "11")]
    comment: String,
    #[prost(message, optional, tag = "12")]
    sealed: Option<Sealed>,
}

impl From<&entry::Entry> for Entry {
    fn from(entry: &entry::Entry) -> Self {
        Self {
            address: Some((&entry.address).into()),
            version: entry.version,
            revision: entry.revision,
            value: entry.value.as_ref().and_then(Value::json).map(JsonValue::bytes),
            sealed: entry.value.as_ref().and_then(Value::sealed).map(Sealed::from),
            created_at_ms: entry.created_at_ms,
            created_by: entry.created_by.clone(),
            updated_at_ms: entry.updated_at_ms,
            updated_by: entry.updated_by.clone(),
            description: entry.description.clone(),
            tags: entry.tags.clone(),
            comment: entry.comment.clone(),
        }
    }
}

impl TryFrom<Entry> for entry::Entry {
    type Error = DecodeError;

    fn try_from(entry: Entry) -> Result<Self, DecodeError> {
        Ok(Self {
            address: address(entry.address)?,
            version: entry.version,
            revision: entry.revision,
            value: value(entry.value, entry.sealed)?,
            created_at_ms: entry.created_at_ms,
            created_by: entry.created_by,
            updated_at_ms: entry.updated_at_ms,
            updated_by: entry.updated_by,
            description: entry.description,
            tags: entry.tags,
            comment: entry.comment,
        })
    }
}

impl TryFrom<Entry> for Arc<entry::Entry> {
    type Error = DecodeError;

    fn try_from(entry: Entry) -> Result<Self, DecodeError> {
        entry::Entry::try_from(entry).map(Arc::new)
    }
}

fn entry(entry: Option<Entry>) -> Result<Arc<entry::Entry>, DecodeError> {
    required(entry, "an entry")?.try_into()
}

/// A message without fields.
#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct Unit {}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct SetOutcome {
    #[prost(message, optional, tag = "1")]
    entry: Option<Entry>,
    #[prost(bool, tag = "2")]
    created: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TxnOutcome {
    #[prost(bool, tag = "1")]
    succeeded: bool,
    #[prost(message, repeated, tag = "2")]
    results: Vec<OpResult>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct OpResult {
    #[prost(oneof = "OpResultKind", tags = "1, 2, 3, 4")]
    kind: Option<OpResultKind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum OpResultKind {
    #[prost(message, tag = "1")]
    Set(Entry),
    #[prost(message, tag = "2")]
    Delete(Entry),
    #[prost(message, tag = "3")]
    Found(Entry),
    #[prost(message, tag = "4")]
    Absent(Unit),
}

impl From<&TxnResult> for OpResult {
    fn from(result: &TxnResult) -> Self {
        let kind = match result {
            TxnResult::Set(entry) => OpResultKind::Set(entry.as_ref().into()),
            TxnResult::Delete(entry) => OpResultKind::Delete(entry.as_ref().into()),
            TxnResult::Get(Some(entry)) => OpResultKind::Found(entry.as_ref().into()),
            TxnResult::Get(None) => OpResultKind::Absent(Unit {}),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<OpResult> for TxnResult {
    type Error = DecodeError;

    fn try_from(result: OpResult) -> Result<Self, DecodeError> {
        Ok(match required(result.kind, "an operation's result")? {
            OpResultKind::Set(entry) => Self::Set(entry.try_into()?),
            OpResultKind::Delete(entry) => Self::Delete(entry.try_into()?),
            OpResultKind::Found(entry) => Self::Get(Some(entry.try_into()?)),
            OpResultKind::Absent(Unit {}) => Self::Get(None),
        })
    }
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct Banned {
    #[prost(uint64, tag = "1")]
    until_ms: u64,
    #[prost(uint32, tag = "2")]
    strikes: u32,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct SchemaPut {
    #[prost(uint64, tag = "1")]
    version: u64,
    #[prost(bool, tag = "2")]
    created: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct SchemaChanged {
    #[prost(string, tag = "1")]
    namespace: String,
    #[prost(string, tag = "2")]
    key: String,
    #[prost(uint64, tag = "3")]
    version: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TooLarge {
    #[prost(string, tag = "1")]
    what: String,
    #[prost(uint64, tag = "2")]
    size: u64,
    #[prost(uint64, tag = "3")]
    limit: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Invalid {
    #[prost(string, tag = "1")]
    field: String,
    #[prost(string, tag = "2")]
    reason: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Applied {
    #[prost(uint64, tag = "1")]
    revision: u64,
    #[prost(bool, tag = "2")]
    replayed: bool,
    #[prost(
        oneof = "Answer",
        tags = "10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, \
                42, 43, 44, 45, 46, 47, 48, 49, 50, 51"
    )]
    answer: Option<Answer>,
}

/// Outcomes from 10 on, refusals from 30 on.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum Answer {
    #[prost(message, tag = "10")]
    Set(SetOutcome),
    #[prost(message, tag = "11")]
    Deleted(Entry),
    #[prost(message, tag = "12")]
    RolledBack(Entry),
    #[prost(message, tag = "13")]
    Txn(TxnOutcome),
    #[prost(message, tag = "14")]
    CompactedHistory(Unit),
    #[prost(message, tag = "15")]
    Founded(Unit),
    #[prost(message, tag = "16")]
    Registered(Unit),
    #[prost(message, tag = "17")]
    NodeAdded(Unit),
    #[prost(message, tag = "18")]
    NodeWasRemoved(Unit),
    #[prost(message, tag = "19")]
    Done(Unit),
    #[prost(message, tag = "20")]
    Banned(Banned),
    #[prost(message, tag = "21")]
    SchemaPut(SchemaPut),
    #[prost(uint64, tag = "22")]
    SchemaDeleted(u64),
    #[prost(message, tag = "30")]
    NotFound(Unit),
    #[prost(uint64, tag = "31")]
    VersionConflict(u64),
    #[prost(uint64, tag = "32")]
    Compacted(u64),
    #[prost(message, tag = "33")]
    IdempotencyKeyReused(Unit),
    #[prost(message, tag = "34")]
    IdempotencyTableFull(Unit),
    #[prost(string, tag = "35")]
    AlreadyFounded(String),
    #[prost(message, tag = "36")]
    NotFounded(Unit),
    #[prost(uint64, tag = "37")]
    NodeIdTaken(u64),
    #[prost(message, tag = "38")]
    TooLarge(TooLarge),
    #[prost(message, tag = "39")]
    InvalidArgument(Invalid),
    #[prost(uint64, tag = "40")]
    NodeRemoved(u64),
    #[prost(message, tag = "41")]
    Unauthenticated(Unit),
    #[prost(string, tag = "42")]
    PermissionDenied(String),
    #[prost(message, tag = "43")]
    AlreadyBootstrapped(Unit),
    #[prost(string, tag = "44")]
    TokenExists(String),
    #[prost(uint64, tag = "45")]
    SealedForOther(u64),
    #[prost(message, tag = "46")]
    EntryIsSecret(Unit),
    #[prost(uint64, tag = "47")]
    NeedsReseal(u64),
    #[prost(uint32, tag = "48")]
    UnknownKey(u32),
    #[prost(uint32, tag = "49")]
    KeyVersion(u32),
    #[prost(message, tag = "50")]
    KeyInUse(Unit),
    #[prost(message, tag = "51")]
    SchemaChanged(SchemaChanged),
}

impl From<&outcome::Applied> for Applied {
    fn from(applied: &outcome::Applied) -> Self {
        let answer = match &applied.result {
            Ok(outcome) => outcome.into(),
            Err(rejection) => rejection.into(),
        };
        Self { revision: applied.revision, replayed: applied.replayed, answer: Some(answer) }
    }
}

impl From<&Outcome> for Answer {
    fn from(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Set { entry, created } => {
                Self::Set(SetOutcome { entry: Some(entry.as_ref().into()), created: *created })
            }
            Outcome::Deleted { entry } => Self::Deleted(entry.as_ref().into()),
            Outcome::RolledBack { entry } => Self::RolledBack(entry.as_ref().into()),
            Outcome::Txn { succeeded, results } => Self::Txn(TxnOutcome {
                succeeded: *succeeded,
                results: results.iter().map(OpResult::from).collect(),
            }),
            Outcome::Compacted => Self::CompactedHistory(Unit {}),
            Outcome::Founded => Self::Founded(Unit {}),
            Outcome::Registered => Self::Registered(Unit {}),
            Outcome::NodeAdded => Self::NodeAdded(Unit {}),
            Outcome::NodeRemoved => Self::NodeWasRemoved(Unit {}),
            Outcome::Done => Self::Done(Unit {}),
            Outcome::Banned { until_ms, strikes } => {
                Self::Banned(Banned { until_ms: *until_ms, strikes: *strikes })
            }
            Outcome::SchemaPut { version, created } => {
                Self::SchemaPut(SchemaPut { version: *version, created: *created })
            }
            Outcome::SchemaDeleted { version } => Self::SchemaDeleted(*version),
        }
    }
}

impl From<&Rejection> for Answer {
    fn from(rejection: &Rejection) -> Self {
        match rejection {
            Rejection::NotFound => Self::NotFound(Unit {}),
            Rejection::VersionConflict { current_version } => {
                Self::VersionConflict(*current_version)
            }
            Rejection::Compacted { oldest_revision } => Self::Compacted(*oldest_revision),
            Rejection::IdempotencyKeyReused => Self::IdempotencyKeyReused(Unit {}),
            Rejection::IdempotencyTableFull => Self::IdempotencyTableFull(Unit {}),
            Rejection::AlreadyFounded { cluster_id } => Self::AlreadyFounded(cluster_id.clone()),
            Rejection::NotFounded => Self::NotFounded(Unit {}),
            Rejection::NodeIdTaken { id } => Self::NodeIdTaken(*id),
            Rejection::NodeRemoved { id } => Self::NodeRemoved(*id),
            Rejection::TooLarge { what, size, limit } => {
                Self::TooLarge(TooLarge { what: what.clone(), size: *size, limit: *limit })
            }
            Rejection::InvalidArgument(InvalidArgument { field, reason }) => {
                Self::InvalidArgument(Invalid { field: (*field).into(), reason: reason.clone() })
            }
            Rejection::Unauthenticated => Self::Unauthenticated(Unit {}),
            Rejection::PermissionDenied { need } => Self::PermissionDenied(need.clone()),
            Rejection::AlreadyBootstrapped => Self::AlreadyBootstrapped(Unit {}),
            Rejection::TokenExists { id } => Self::TokenExists(id.clone()),
            Rejection::SealedForOther { version } => Self::SealedForOther(*version),
            Rejection::EntryIsSecret => Self::EntryIsSecret(Unit {}),
            Rejection::NeedsReseal { version } => Self::NeedsReseal(*version),
            Rejection::UnknownKey { version } => Self::UnknownKey(*version),
            Rejection::KeyVersion { latest } => Self::KeyVersion(*latest),
            Rejection::KeyInUse => Self::KeyInUse(Unit {}),
            Rejection::SchemaChanged { namespace, key, version } => {
                Self::SchemaChanged(SchemaChanged {
                    namespace: namespace.clone(),
                    key: key.clone(),
                    version: *version,
                })
            }
        }
    }
}

impl TryFrom<Applied> for outcome::Applied {
    type Error = DecodeError;

    fn try_from(applied: Applied) -> Result<Self, DecodeError> {
        Ok(Self {
            revision: applied.revision,
            replayed: applied.replayed,
            result: result(required(applied.answer, "the answer")?)?,
        })
    }
}

fn result(answer: Answer) -> Result<Result<Outcome, Rejection>, DecodeError> {
    Ok(match answer {
        Answer::Set(set) => Ok(Outcome::Set { entry: entry(set.entry)?, created: set.created }),
        Answer::Deleted(entry) => Ok(Outcome::Deleted { entry: entry.try_into()? }),
        Answer::RolledBack(entry) => Ok(Outcome::RolledBack { entry: entry.try_into()? }),
        Answer::Txn(txn) => Ok(Outcome::Txn {
            succeeded: txn.succeeded,
            results: txn.results.into_iter().map(TxnResult::try_from).collect::<Result<_, _>>()?,
        }),
        Answer::CompactedHistory(Unit {}) => Ok(Outcome::Compacted),
        Answer::Founded(Unit {}) => Ok(Outcome::Founded),
        Answer::Registered(Unit {}) => Ok(Outcome::Registered),
        Answer::NodeAdded(Unit {}) => Ok(Outcome::NodeAdded),
        Answer::NodeWasRemoved(Unit {}) => Ok(Outcome::NodeRemoved),
        Answer::Done(Unit {}) => Ok(Outcome::Done),
        Answer::Banned(Banned { until_ms, strikes }) => Ok(Outcome::Banned { until_ms, strikes }),
        Answer::SchemaPut(SchemaPut { version, created }) => {
            Ok(Outcome::SchemaPut { version, created })
        }
        Answer::SchemaDeleted(version) => Ok(Outcome::SchemaDeleted { version }),
        Answer::NotFound(Unit {}) => Err(Rejection::NotFound),
        Answer::VersionConflict(current_version) => {
            Err(Rejection::VersionConflict { current_version })
        }
        Answer::Compacted(oldest_revision) => Err(Rejection::Compacted { oldest_revision }),
        Answer::IdempotencyKeyReused(Unit {}) => Err(Rejection::IdempotencyKeyReused),
        Answer::IdempotencyTableFull(Unit {}) => Err(Rejection::IdempotencyTableFull),
        Answer::AlreadyFounded(cluster_id) => Err(Rejection::AlreadyFounded { cluster_id }),
        Answer::NotFounded(Unit {}) => Err(Rejection::NotFounded),
        Answer::NodeIdTaken(id) => Err(Rejection::NodeIdTaken { id }),
        Answer::NodeRemoved(id) => Err(Rejection::NodeRemoved { id }),
        Answer::TooLarge(TooLarge { what, size, limit }) => {
            Err(Rejection::TooLarge { what, size, limit })
        }
        Answer::InvalidArgument(Invalid { field, reason }) => {
            Err(InvalidArgument::from_wire(&field, reason).into())
        }
        Answer::Unauthenticated(Unit {}) => Err(Rejection::Unauthenticated),
        Answer::PermissionDenied(need) => Err(Rejection::PermissionDenied { need }),
        Answer::AlreadyBootstrapped(Unit {}) => Err(Rejection::AlreadyBootstrapped),
        Answer::TokenExists(id) => Err(Rejection::TokenExists { id }),
        Answer::SealedForOther(version) => Err(Rejection::SealedForOther { version }),
        Answer::EntryIsSecret(Unit {}) => Err(Rejection::EntryIsSecret),
        Answer::NeedsReseal(version) => Err(Rejection::NeedsReseal { version }),
        Answer::UnknownKey(version) => Err(Rejection::UnknownKey { version }),
        Answer::KeyVersion(latest) => Err(Rejection::KeyVersion { latest }),
        Answer::KeyInUse(Unit {}) => Err(Rejection::KeyInUse),
        Answer::SchemaChanged(SchemaChanged { namespace, key, version }) => {
            Err(Rejection::SchemaChanged { namespace, key, version })
        }
    })
}
