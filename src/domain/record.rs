//! What is stored under each key (`keys.rs`): one format byte, then protobuf. Reading checks both and names the table.
//!
//! The same record always gives the same bytes, so that nodes can compare digests. These are written by apply only;
//! values in them were validated before.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

use crate::command::{Node, RemovedNode};
use crate::entry::Entry;
use crate::event::AuditRecord;
use crate::names::Address;
use crate::query::{AuditMeta, Meta};
use crate::sealed::{Sealed, Value};
use crate::store::StoreError;
use crate::value::JsonValue;
use crate::wire;
use crate::{keys, limits};

/// The newest format of a record that this release reads, and the one that it writes. A release that adds one raises the
/// `state_format` of a node's state with the first record that it writes so.
///
/// 1: as of 0.1. 2: secrets, tokens, roles, bans, keys, schemas and the audit log; every record of format 1 reads the same.
pub const RECORD_FORMAT: u8 = 2;
/// The oldest that this release reads.
const RECORD_FORMAT_OLDEST: u8 = 1;

/// A record and the name of its table, for messages.
pub(crate) trait Record: Message + Default {
    const TABLE: &'static str;

    fn to_bytes(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(1 + self.encoded_len());
        bytes.put_u8(RECORD_FORMAT);
        // A growing buffer has room for everything; a lack of room is the only error encoding knows.
        self.encode(&mut bytes).unwrap_or_default();
        bytes.freeze()
    }

    fn from_bytes(bytes: Bytes) -> Result<Self, StoreError> {
        match bytes.first() {
            Some(&(RECORD_FORMAT_OLDEST..=RECORD_FORMAT)) => {
                Self::decode(bytes.slice(1..)).map_err(corrupt::<Self>)
            }
            Some(&found) if found > RECORD_FORMAT => {
                Err(StoreError::Newer { table: Self::TABLE, found, known: RECORD_FORMAT })
            }
            Some(other) => Err(corrupt::<Self>(format_args!("{other} is not a format"))),
            None => Err(corrupt::<Self>("empty")),
        }
    }
}

/// Refuses a stored value in a newer format, without reading it. For whoever takes over a whole state.
pub fn check_format(key: &[u8], value: &[u8]) -> Result<(), StoreError> {
    match (keys::table(key), value.first()) {
        (Some(table), Some(&found)) if found > RECORD_FORMAT => {
            Err(StoreError::Newer { table, found, known: RECORD_FORMAT })
        }
        _ => Ok(()),
    }
}

fn corrupt<R: Record>(what: impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt(format!("a record of the {} table: {what}", R::TABLE))
}

/// What is known of an address without reading its value. Stays after a delete, so that versions go on counting.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Head {
    #[prost(uint64, tag = "1")]
    pub(crate) latest_version: u64,
    #[prost(bool, tag = "2")]
    pub(crate) live: bool,
    #[prost(uint64, tag = "3")]
    pub(crate) created_at_ms: u64,
    #[prost(string, tag = "4")]
    pub(crate) created_by: String,
    /// Versions below this one are forgotten, whatever the history limit says; 0: none for that reason.
    #[prost(uint64, tag = "5")]
    pub(crate) oldest_version: u64,
    /// The entry is a secret.
    #[prost(bool, tag = "6")]
    pub(crate) secret: bool,
    /// Some version that is stored may be a secret: whoever removes one looks.
    #[prost(bool, tag = "7")]
    pub(crate) had_secrets: bool,
}

impl Record for Head {
    const TABLE: &'static str = "heads";
}

impl Head {
    /// What `expected_version` and comparisons look at: 0 when the entry does not exist.
    pub(crate) fn current_version(&self) -> u64 {
        if self.live { self.latest_version } else { 0 }
    }

    /// The oldest version that history shows.
    pub(crate) fn oldest_shown(&self, history_limit: u64) -> u64 {
        (self.latest_version.saturating_sub(history_limit) + 1).max(self.oldest_version)
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Version {
    #[prost(uint64, tag = "1")]
    pub(crate) revision: u64,
    /// Absent: this version is a deletion.
    #[prost(bytes = "bytes", optional, tag = "2")]
    value: Option<Bytes>,
    #[prost(string, tag = "3")]
    description: String,
    #[prost(string, repeated, tag = "4")]
    tags: Vec<String>,
    #[prost(string, tag = "5")]
    comment: String,
    #[prost(uint64, tag = "6")]
    updated_at_ms: u64,
    #[prost(string, tag = "7")]
    updated_by: String,
    #[prost(uint64, tag = "8")]
    created_at_ms: u64,
    #[prost(string, tag = "9")]
    created_by: String,
    /// Instead of a value: a secret.
    #[prost(message, optional, tag = "10")]
    sealed: Option<wire::Sealed>,
}

impl Record for Version {
    const TABLE: &'static str = "versions";
}

impl Version {
    pub(crate) fn of(entry: &Entry) -> Self {
        Self {
            revision: entry.revision,
            value: entry.value.as_ref().and_then(Value::json).map(JsonValue::bytes),
            sealed: entry.value.as_ref().and_then(Value::sealed).map(wire::Sealed::from),
            description: entry.description.clone(),
            tags: entry.tags.clone(),
            comment: entry.comment.clone(),
            updated_at_ms: entry.updated_at_ms,
            updated_by: entry.updated_by.clone(),
            created_at_ms: entry.created_at_ms,
            created_by: entry.created_by.clone(),
        }
    }

    /// The data key that this version needs, when it is a secret.
    pub(crate) fn key_version(&self) -> Option<u32> {
        self.sealed.as_ref().map(wire::Sealed::key_version)
    }

    /// Puts the same secret under another key.
    pub(crate) fn reseal(&mut self, sealed: &Sealed) {
        self.sealed = Some(sealed.into());
    }

    pub(crate) fn into_entry(self, address: Address, version: u64) -> Result<Entry, StoreError> {
        let json = self.value.map(JsonValue::from_stored).transpose().map_err(corrupt::<Self>)?;
        let sealed = self.sealed.map(Sealed::try_from).transpose().map_err(corrupt::<Self>)?;
        Ok(Entry {
            address,
            version,
            revision: self.revision,
            value: json.map(Value::Json).or(sealed.map(Value::Sealed)),
            created_at_ms: self.created_at_ms,
            created_by: self.created_by,
            updated_at_ms: self.updated_at_ms,
            updated_by: self.updated_by,
            description: self.description,
            tags: self.tags,
            comment: self.comment,
        })
    }
}

/// One line of the change log: which version a revision made. `bytes` is what it keeps from being forgotten.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ChangeRecord {
    #[prost(message, optional, tag = "1")]
    address: Option<wire::Address>,
    #[prost(uint64, tag = "2")]
    pub(crate) version: u64,
    #[prost(uint64, tag = "3")]
    pub(crate) bytes: u64,
}

impl Record for ChangeRecord {
    const TABLE: &'static str = "changes";
}

impl ChangeRecord {
    pub(crate) fn new(address: &Address, version: u64, bytes: u64) -> Self {
        Self { address: Some(address.into()), version, bytes }
    }

    pub(crate) fn address(self) -> Result<Address, StoreError> {
        let address = self.address.ok_or_else(|| corrupt::<Self>("no address"))?;
        address.try_into().map_err(corrupt::<Self>)
    }
}

/// Entries per environment, indexed like `Environment::ALL`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct NamespaceCount {
    #[prost(uint64, repeated, tag = "1")]
    entries: Vec<u64>,
}

impl Record for NamespaceCount {
    const TABLE: &'static str = "namespaces";
}

impl NamespaceCount {
    pub(crate) fn new(entries: [u64; 5]) -> Self {
        Self { entries: entries.to_vec() }
    }

    pub(crate) fn entries(self) -> Result<[u64; 5], StoreError> {
        self.entries.try_into().map_err(|_| corrupt::<Self>("a count per environment is missing"))
    }
}

/// The answer to a request, without what the request itself or the versions table can tell when it is replayed.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Request {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) digest: Vec<u8>,
    #[prost(uint64, tag = "2")]
    pub(crate) time_ms: u64,
    #[prost(uint64, tag = "3")]
    pub(crate) revision: u64,
    /// Set: created. Txn: succeeded.
    #[prost(bool, tag = "4")]
    pub(crate) flag: bool,
    /// The version of each entry in the answer, in order; 0 for a `get` that found nothing.
    #[prost(uint64, repeated, tag = "5")]
    pub(crate) versions: Vec<u64>,
}

impl Record for Request {
    const TABLE: &'static str = "requests";
}

impl Record for wire::Node {
    const TABLE: &'static str = "nodes";
}

/// A node, or what is left of a removed one.
pub(crate) fn node_from_bytes(bytes: Bytes) -> Result<Result<Node, RemovedNode>, StoreError> {
    let node = wire::Node::from_bytes(bytes)?;
    if node.removed {
        return Ok(Err(RemovedNode { id: node.id, incarnation: node.incarnation }));
    }
    Ok(Ok(node.into()))
}

pub(crate) fn removed_node_to_bytes(node: &RemovedNode) -> Bytes {
    wire::Node::removed(node).to_bytes()
}

pub(crate) fn node_to_bytes(node: &Node) -> Bytes {
    wire::Node::from(node).to_bytes()
}

impl Record for wire::Token {
    const TABLE: &'static str = "tokens";
}

impl Record for wire::Role {
    const TABLE: &'static str = "roles";
}

impl Record for wire::Ban {
    const TABLE: &'static str = "bans";
}

impl Record for wire::Schema {
    const TABLE: &'static str = "schemas";
}

impl Record for wire::DataKey {
    const TABLE: &'static str = "data keys";
}

/// A link of the audit chain. Its hash covers this form, so fields are only added, and only with a value in new records.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Audit {
    #[prost(uint64, tag = "1")]
    pub(crate) sequence: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) time_ms: u64,
    #[prost(uint64, tag = "3")]
    pub(crate) revision: u64,
    #[prost(message, optional, tag = "4")]
    pub(crate) event: Option<wire::AuditEvent>,
    #[prost(bytes = "bytes", tag = "5")]
    pub(crate) previous: Bytes,
    #[prost(bytes = "bytes", tag = "6")]
    pub(crate) hash: Bytes,
}

impl Record for Audit {
    const TABLE: &'static str = "audit";
}

impl Audit {
    /// The stored form of a record without its hash, and the hash that `hash` makes of it. What the hash covers is encoded
    /// once: the hash is the last field, so the record with it begins with the record without it.
    pub(crate) fn hashed(&self, hash: impl FnOnce(&[u8]) -> [u8; 32]) -> (Bytes, [u8; 32]) {
        let mut bytes = BytesMut::with_capacity(1 + self.encoded_len() + 2 + 32);
        bytes.put_u8(RECORD_FORMAT);
        // As in `to_bytes`.
        self.encode(&mut bytes).unwrap_or_default();
        let hash = hash(&bytes[1..]);
        let alone = Self { hash: Bytes::copy_from_slice(&hash), ..Self::default() };
        alone.encode(&mut bytes).unwrap_or_default();
        (bytes.freeze(), hash)
    }

    pub(crate) fn into_record(self) -> Result<AuditRecord, StoreError> {
        let hash = |bytes: Bytes| {
            bytes
                .as_ref()
                .try_into()
                .map_err(|_| corrupt::<Self>("a hash that is not 32 bytes long"))
        };
        let event = self.event.ok_or_else(|| corrupt::<Self>("no event"))?;
        Ok(AuditRecord {
            sequence: self.sequence,
            time_ms: self.time_ms,
            revision: self.revision,
            event: event.try_into().map_err(corrupt::<Self>)?,
            previous: hash(self.previous)?,
            hash: hash(self.hash)?,
        })
    }
}

/// The part of [`AuditMeta`] that is stored.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct AuditMetaRecord {
    #[prost(uint64, tag = "1")]
    start: u64,
    #[prost(uint64, tag = "2")]
    next: u64,
    #[prost(uint64, tag = "3")]
    bytes: u64,
    #[prost(bytes = "vec", tag = "4")]
    base: Vec<u8>,
    #[prost(bytes = "vec", tag = "5")]
    head: Vec<u8>,
    #[prost(uint64, tag = "6")]
    since_ms: u64,
    #[prost(uint64, tag = "7")]
    max_age_ms: u64,
    #[prost(uint64, tag = "8")]
    max_bytes: u64,
}

impl From<&AuditMeta> for AuditMetaRecord {
    fn from(meta: &AuditMeta) -> Self {
        Self {
            start: meta.start,
            next: meta.next,
            bytes: meta.bytes,
            base: meta.base.to_vec(),
            head: meta.head.to_vec(),
            since_ms: meta.since_ms,
            max_age_ms: meta.max_age_ms,
            max_bytes: meta.max_bytes,
        }
    }
}

impl TryFrom<AuditMetaRecord> for AuditMeta {
    type Error = StoreError;

    fn try_from(record: AuditMetaRecord) -> Result<Self, StoreError> {
        let hash = |bytes: Vec<u8>| {
            let sized = bytes.try_into();
            sized.map_err(|_| corrupt::<MetaRecord>("a hash that is not 32 bytes long"))
        };
        Ok(Self {
            start: record.start,
            next: record.next,
            bytes: record.bytes,
            base: hash(record.base)?,
            head: hash(record.head)?,
            since_ms: record.since_ms,
            max_age_ms: record.max_age_ms,
            max_bytes: record.max_bytes,
        })
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct MetaRecord {
    #[prost(uint64, tag = "1")]
    revision: u64,
    #[prost(string, optional, tag = "2")]
    cluster_id: Option<String>,
    #[prost(uint64, tag = "3")]
    history_limit: u64,
    #[prost(uint64, tag = "4")]
    oldest_revision: u64,
    #[prost(uint64, tag = "5")]
    last_time_ms: u64,
    #[prost(uint64, repeated, tag = "6")]
    active: Vec<u64>,
    #[prost(uint64, tag = "7")]
    change_log_start: u64,
    #[prost(uint64, tag = "8")]
    change_log_entries: u64,
    #[prost(uint64, tag = "9")]
    change_log_bytes: u64,
    #[prost(uint64, tag = "10")]
    requests: u64,
    #[prost(uint64, tag = "11")]
    requests_since_ms: u64,
    /// Absent in what was written before there was an audit log.
    #[prost(message, optional, tag = "12")]
    audit: Option<AuditMetaRecord>,
    #[prost(uint64, tag = "13")]
    policy_revision: u64,
    #[prost(bool, tag = "14")]
    bootstrapped: bool,
    #[prost(uint64, tag = "15")]
    tokens: u64,
    #[prost(uint64, tag = "16")]
    roles: u64,
    #[prost(uint64, tag = "17")]
    bans: u64,
    #[prost(uint64, tag = "18")]
    bans_revision: u64,
    #[prost(uint64, tag = "19")]
    data_keys: u64,
    #[prost(uint64, tag = "20")]
    keys_revision: u64,
    #[prost(uint64, tag = "21")]
    schemas: u64,
    #[prost(uint64, tag = "22")]
    schemas_version: u64,
}

impl Record for MetaRecord {
    const TABLE: &'static str = "meta";
}

impl Meta {
    /// Nothing stored: the state before the first command.
    pub(crate) fn from_record(bytes: Option<Bytes>) -> Result<Self, StoreError> {
        let Some(bytes) = bytes else { return Ok(Self::unfounded()) };
        let record = MetaRecord::from_bytes(bytes)?;
        let active = record.active.try_into();
        Ok(Self {
            revision: record.revision,
            cluster_id: record.cluster_id,
            history_limit: record.history_limit,
            oldest_revision: record.oldest_revision,
            last_time_ms: record.last_time_ms,
            active: active
                .map_err(|_| corrupt::<MetaRecord>("a count per environment is missing"))?,
            change_log_start: record.change_log_start,
            change_log_entries: record.change_log_entries,
            change_log_bytes: record.change_log_bytes,
            requests: record.requests,
            requests_since_ms: record.requests_since_ms,
            audit: record.audit.map_or_else(|| Ok(AuditMeta::default()), AuditMeta::try_from)?,
            policy_revision: record.policy_revision,
            bootstrapped: record.bootstrapped,
            tokens: record.tokens,
            roles: record.roles,
            bans: record.bans,
            bans_revision: record.bans_revision,
            data_keys: record.data_keys,
            keys_revision: record.keys_revision,
            schemas: record.schemas,
            schemas_version: record.schemas_version,
        })
    }

    fn unfounded() -> Self {
        Self {
            revision: 0,
            cluster_id: None,
            history_limit: limits::HISTORY_LIMIT_DEFAULT,
            oldest_revision: 1,
            last_time_ms: 0,
            active: [0; 5],
            change_log_start: 1,
            change_log_entries: 0,
            change_log_bytes: 0,
            requests: 0,
            requests_since_ms: 0,
            audit: AuditMeta::default(),
            policy_revision: 0,
            bootstrapped: false,
            tokens: 0,
            roles: 0,
            bans: 0,
            bans_revision: 0,
            data_keys: 0,
            keys_revision: 0,
            schemas: 0,
            schemas_version: 0,
        }
    }

    pub(crate) fn to_record(&self) -> Bytes {
        MetaRecord {
            revision: self.revision,
            cluster_id: self.cluster_id.clone(),
            history_limit: self.history_limit,
            oldest_revision: self.oldest_revision,
            last_time_ms: self.last_time_ms,
            active: self.active.to_vec(),
            change_log_start: self.change_log_start,
            change_log_entries: self.change_log_entries,
            change_log_bytes: self.change_log_bytes,
            requests: self.requests,
            requests_since_ms: self.requests_since_ms,
            audit: Some((&self.audit).into()),
            policy_revision: self.policy_revision,
            bootstrapped: self.bootstrapped,
            tokens: self.tokens,
            roles: self.roles,
            bans: self.bans,
            bans_revision: self.bans_revision,
            data_keys: self.data_keys,
            keys_revision: self.keys_revision,
            schemas: self.schemas,
            schemas_version: self.schemas_version,
        }
        .to_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_and_its_hash_are_stored_as_one_message() {
        let bare = Audit {
            sequence: 7,
            time_ms: 1,
            revision: 5,
            event: Some(wire::AuditEvent::default()),
            previous: Bytes::from_static(&[3; 32]),
            hash: Bytes::new(),
        };
        let (bytes, hash) = bare.hashed(|form| {
            assert_eq!(form, bare.encode_to_vec());
            [9; 32]
        });
        assert_eq!(hash, [9; 32]);
        assert_eq!(bytes, Audit { hash: Bytes::from_static(&[9; 32]), ..bare }.to_bytes());
    }

    #[test]
    fn an_unknown_format_is_refused_with_the_name_of_the_table() {
        let bytes =
            Head { latest_version: 3, live: true, created_by: "a".into(), ..Head::default() }
                .to_bytes();
        assert_eq!(Head::from_bytes(bytes.clone()).unwrap().current_version(), 3);
        let mut newer = bytes.to_vec();
        newer[0] = RECORD_FORMAT + 1;
        let error = Head::from_bytes(newer.clone().into()).unwrap_err();
        assert_eq!(error, StoreError::Newer { table: "heads", found: 3, known: RECORD_FORMAT });
        assert_eq!(check_format(&[0x10, b'n'], &newer), Err(error));
        assert_eq!(check_format(&[0x10, b'n'], &bytes), Ok(()));
        assert_eq!(check_format(&[0x15], &[]), Ok(()), "an index without values has no format");
        newer[0] = 0;
        let error = Head::from_bytes(newer.into()).unwrap_err().to_string();
        assert!(error.contains("heads table: 0 is not a format"), "{error}");
        assert!(
            Version::from_bytes(Bytes::new()).unwrap_err().to_string().contains("versions table")
        );
        assert!(
            MetaRecord::from_bytes(Bytes::from_static(&[1, 0xff]))
                .unwrap_err()
                .to_string()
                .contains("meta table")
        );
        assert!(
            Meta::from_record(Some(Bytes::from_static(&[1])))
                .unwrap_err()
                .to_string()
                .contains("meta table")
        );
    }
}
