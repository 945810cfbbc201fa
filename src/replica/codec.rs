//! Between openraft's types and the messages that nodes exchange and store.
//!
//! What arrives here comes from another node or from the disk, so a missing or impossible field is an error, never a
//! default.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{BufMut, Bytes, BytesMut};
use llm_config_domain::COMMAND_FORMAT;
use llm_config_proto::internal as pb;
use openraft::entry::RaftEntry as _;
use openraft::impls::BasicNode;
use openraft::vote::RaftLeaderId as _;
use thiserror::Error;

use crate::form::{NewerForm, RECORD_FORMAT};
use crate::types::{
    Entry, EntryPayload, LeaderId, LogId, Membership, Proposal, StoredMembership, Vote,
};

/// A message or record that cannot be what it claims to be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum CodecError {
    #[error("{0}")]
    Malformed(String),
    #[error(transparent)]
    Newer(#[from] NewerForm),
}

impl From<CodecError> for std::io::Error {
    fn from(error: CodecError) -> Self {
        match error {
            CodecError::Newer(newer) => newer.into(),
            malformed => Self::new(std::io::ErrorKind::InvalidData, malformed),
        }
    }
}

impl From<CodecError> for tonic::Status {
    fn from(error: CodecError) -> Self {
        Self::invalid_argument(error.to_string())
    }
}

fn missing(what: &str) -> CodecError {
    CodecError::Malformed(format!("{what} is missing"))
}

pub(crate) fn vote_to_proto(vote: &Vote) -> pb::Vote {
    pb::Vote {
        term: vote.leader_id.term(),
        node_id: *vote.leader_id.node_id(),
        committed: vote.committed,
    }
}

pub(crate) fn vote_from_proto(vote: &pb::Vote) -> Vote {
    Vote { leader_id: LeaderId::new(vote.term, vote.node_id), committed: vote.committed }
}

pub(crate) fn required_vote(vote: Option<pb::Vote>) -> Result<Vote, CodecError> {
    vote.as_ref().map(vote_from_proto).ok_or_else(|| missing("vote"))
}

pub(crate) fn log_id_to_proto(log_id: &LogId) -> pb::LogId {
    pb::LogId {
        term: log_id.leader_id.term(),
        node_id: *log_id.leader_id.node_id(),
        index: log_id.index,
    }
}

pub(crate) fn log_id_from_proto(log_id: &pb::LogId) -> LogId {
    LogId::new(LeaderId::new(log_id.term, log_id.node_id), log_id.index)
}

fn membership_to_proto(membership: &Membership) -> pb::Membership {
    let configs = membership
        .get_joint_config()
        .iter()
        .map(|voters| pb::membership::Config { voters: voters.iter().copied().collect() })
        .collect();
    let nodes = membership.nodes().map(|(id, node)| (*id, node.addr.clone())).collect();
    pb::Membership { configs, nodes }
}

fn membership_from_proto(membership: pb::Membership) -> Result<Membership, CodecError> {
    let configs: Vec<BTreeSet<u64>> =
        membership.configs.into_iter().map(|config| config.voters.into_iter().collect()).collect();
    let nodes: BTreeMap<u64, BasicNode> =
        membership.nodes.into_iter().map(|(id, addr)| (id, BasicNode::new(addr))).collect();
    if configs.is_empty() && nodes.is_empty() {
        return Ok(Membership::default());
    }
    Membership::new(configs, nodes)
        .map_err(|error| CodecError::Malformed(format!("membership: {error}")))
}

pub(crate) fn stored_membership_to_proto(stored: &StoredMembership) -> pb::StoredMembership {
    pb::StoredMembership {
        log_id: stored.log_id().as_ref().map(log_id_to_proto),
        membership: Some(membership_to_proto(stored.membership())),
    }
}

pub(crate) fn stored_membership_from_proto(
    stored: pb::StoredMembership,
) -> Result<StoredMembership, CodecError> {
    let membership = membership_from_proto(stored.membership.unwrap_or_default())?;
    Ok(StoredMembership::new(stored.log_id.as_ref().map(log_id_from_proto), membership))
}

pub(crate) fn entry_to_proto(entry: &Entry) -> pb::LogEntry {
    let payload = match &entry.payload {
        EntryPayload::Blank => pb::log_entry::Payload::Blank(pb::Blank {}),
        EntryPayload::Normal(proposal) => pb::log_entry::Payload::Normal(pb::Normal {
            time_ms: proposal.time_ms,
            command: proposal.command.clone(),
        }),
        EntryPayload::Membership(membership) => {
            pb::log_entry::Payload::Membership(membership_to_proto(membership))
        }
    };
    pb::LogEntry { log_id: Some(log_id_to_proto(&entry.log_id)), payload: Some(payload) }
}

pub(crate) fn entry_from_proto(entry: pb::LogEntry) -> Result<Entry, CodecError> {
    let log_id = log_id_from_proto(&entry.log_id.ok_or_else(|| missing("log_id"))?);
    let payload = match entry.payload.ok_or_else(|| missing("payload"))? {
        pb::log_entry::Payload::Blank(pb::Blank {}) => EntryPayload::Blank,
        pb::log_entry::Payload::Normal(normal) => {
            // Here, so that neither a log that is opened nor one that arrives brings in what apply could not read.
            let format = normal.command.first().copied().unwrap_or_default();
            NewerForm::refuse("a command in the log", format.into(), COMMAND_FORMAT.into())?;
            EntryPayload::Normal(Proposal { time_ms: normal.time_ms, command: normal.command })
        }
        pb::log_entry::Payload::Membership(membership) => {
            EntryPayload::Membership(membership_from_proto(membership)?)
        }
    };
    Ok(Entry::new(log_id, payload))
}

/// Bytes that an entry takes in memory and, nearly, on disk and on the wire.
pub(crate) fn entry_size(entry: &Entry) -> u64 {
    const OVERHEAD: usize = 48;
    let payload = match &entry.payload {
        EntryPayload::Blank => 0,
        EntryPayload::Normal(proposal) => proposal.command.len(),
        EntryPayload::Membership(membership) => 64 * membership.nodes().count(),
    };
    (OVERHEAD + payload) as u64
}

/// A stored record: format version, message, CRC-32 of both.
pub(crate) fn seal(message: &impl prost::Message) -> Bytes {
    let mut out = BytesMut::with_capacity(message.encoded_len() + 5);
    out.put_u8(RECORD_FORMAT);
    message.encode_raw(&mut out);
    let crc = crc32fast::hash(&out);
    out.put_u32_le(crc);
    out.freeze()
}

/// Opens what [`seal`] made.
pub(crate) fn unseal<M: prost::Message + Default>(
    what: &str,
    record: &Bytes,
) -> Result<M, CodecError> {
    let Some(body_len) = record.len().checked_sub(4).filter(|len| *len > 0) else {
        return Err(CodecError::Malformed(format!(
            "{what}: the record is cut short ({} bytes)",
            record.len()
        )));
    };
    let stored = u32::from_le_bytes([
        record[body_len],
        record[body_len + 1],
        record[body_len + 2],
        record[body_len + 3],
    ]);
    let actual = crc32fast::hash(&record[..body_len]);
    if stored != actual {
        return Err(CodecError::Malformed(format!(
            "{what}: checksum mismatch (stored {stored:08x}, computed {actual:08x})"
        )));
    }
    NewerForm::refuse(what, record[0].into(), RECORD_FORMAT.into())?;
    M::decode(record.slice(1..body_len))
        .map_err(|error| CodecError::Malformed(format!("{what}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log_id(index: u64) -> LogId {
        LogId::new(LeaderId::new(3, 2), index)
    }

    #[test]
    fn entries_survive_the_wire() {
        let membership = Membership::new(
            vec![BTreeSet::from([1, 2]), BTreeSet::from([2, 3])],
            BTreeMap::from([
                (1, BasicNode::new("a:1")),
                (2, BasicNode::new("b:2")),
                (3, BasicNode::new("c:3")),
            ]),
        )
        .unwrap();
        let payloads = [
            EntryPayload::Blank,
            EntryPayload::Normal(Proposal { time_ms: 7, command: Bytes::from_static(b"\x01bc") }),
            EntryPayload::Membership(membership),
        ];
        for payload in payloads {
            let entry = Entry::new(log_id(9), payload);
            let sealed = seal(&entry_to_proto(&entry));
            let back = entry_from_proto(unseal("entry", &sealed).unwrap()).unwrap();
            assert_eq!(back, entry);
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_is_noticed() {
        let sealed = seal(&entry_to_proto(&Entry::new(log_id(1), EntryPayload::Blank)));
        for byte in 0..sealed.len() {
            let mut damaged = sealed.to_vec();
            damaged[byte] ^= 1;
            let opened = unseal::<pb::LogEntry>("entry", &Bytes::from(damaged));
            assert!(opened.is_err(), "byte {byte} was not checked");
        }
    }

    #[test]
    fn a_cut_record_is_noticed() {
        let sealed = seal(&entry_to_proto(&Entry::new(log_id(1), EntryPayload::Blank)));
        for length in 0..sealed.len() {
            assert!(unseal::<pb::LogEntry>("entry", &sealed.slice(..length)).is_err());
        }
    }

    #[test]
    fn a_newer_format_says_what_to_do() {
        let mut record = vec![RECORD_FORMAT + 1, 0];
        record.extend(crc32fast::hash(&record).to_le_bytes());
        let error = unseal::<pb::LogEntry>("entry", &Bytes::from(record)).unwrap_err();
        assert!(matches!(error, CodecError::Newer(_)), "{error}");
        assert!(error.to_string().contains("use the release that wrote it"), "{error}");
        let proposal = Proposal { time_ms: 1, command: Bytes::from_static(&[COMMAND_FORMAT + 1]) };
        let entry = Entry::new(log_id(1), EntryPayload::Normal(proposal));
        let error = entry_from_proto(entry_to_proto(&entry)).unwrap_err();
        assert!(matches!(error, CodecError::Newer(_)), "{error}");
    }
}
