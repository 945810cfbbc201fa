//! Bodies of the fuzz targets for what other nodes send: log entries, messages, snapshots.
//!
//! What is accepted must survive being sent on, and what is refused must leave nothing behind. The targets are in
//! `.ci/fuzz`; the tests below run the bodies over its inputs.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use llm_config_proto::internal as pb;
use prost::Message as _;

use crate::codec::{
    CodecError, entry_from_proto, entry_size, entry_to_proto, log_id_to_proto, seal,
    stored_membership_from_proto, stored_membership_to_proto, unseal, vote_to_proto,
};
use crate::membership::{change_from_proto, change_to_proto, reply_from_proto, reply_to_proto};
use crate::network::receive::Receiver;
use crate::network::service::{append_from_proto, vote_from_proto};

/// Most bytes of a refusal: it is sent back, and logged.
const REFUSAL_BYTES_MAX: usize = 1024;
/// Files of a snapshot that are really written: each is synced.
const SNAPSHOT_FILES_MAX: usize = 16;

fn check_refusal(error: &dyn std::error::Error) {
    let text = error.to_string();
    assert!(text.len() <= REFUSAL_BYTES_MAX, "a refusal of {} bytes", text.len());
}

/// A log entry as it is sent, and the sealed record of one as it is stored.
pub fn log_entry(data: &[u8]) {
    let data = Bytes::copy_from_slice(data);
    match unseal::<pb::LogEntry>("a log entry", &data) {
        Ok(message) => check_entry(message),
        Err(error) => check_refusal(&error),
    }
    if let Ok(message) = pb::LogEntry::decode(data) {
        let sealed = seal(&message);
        assert_eq!(unseal::<pb::LogEntry>("a log entry", &sealed).as_ref(), Ok(&message));
        check_entry(message);
    }
}

fn check_entry(message: pb::LogEntry) {
    let command = match &message.payload {
        Some(pb::log_entry::Payload::Normal(normal)) => normal.command.len(),
        _ => 0,
    };
    match entry_from_proto(message) {
        Ok(entry) => {
            assert!(entry_size(&entry) >= command as u64, "an entry is counted too small");
            assert_eq!(entry_from_proto(entry_to_proto(&entry)).as_ref(), Ok(&entry));
        }
        Err(error) => check_refusal(&error),
    }
}

/// What a leader sends to be appended.
pub fn append(data: &[u8]) {
    let Ok(message) = pb::AppendRequest::decode(data) else { return };
    let entries = message.entries.len();
    let sent = pb::AppendRequest { entries: Vec::new(), ..message.clone() };
    match append_from_proto(message) {
        Ok(append) => {
            assert_eq!(append.entries.len(), entries);
            let message = pb::AppendRequest {
                vote: Some(vote_to_proto(&append.vote)),
                prev_log_id: append.prev_log_id.as_ref().map(log_id_to_proto),
                entries: append.entries.iter().map(entry_to_proto).collect(),
                leader_commit: append.leader_commit.as_ref().map(log_id_to_proto),
                ..sent
            };
            let again = append_from_proto(message);
            assert!(again.is_ok_and(|again| {
                (again.vote, again.prev_log_id, again.entries, again.leader_commit)
                    == (append.vote, append.prev_log_id, append.entries, append.leader_commit)
            }));
        }
        Err(error) => check_refusal(&error),
    }
}

/// The other messages between nodes; the first byte says which.
pub fn peer_messages(data: &[u8]) {
    let Some((kind, data)) = data.split_first() else { return };
    match kind {
        0 => {
            if let Ok(message) = pb::VoteRequest::decode(data) {
                check(vote_from_proto(message).map(drop));
            }
        }
        1 => {
            let Ok(message) = pb::ChangeMembersRequest::decode(data) else { return };
            let Some(change) = message.change.map(change_from_proto) else { return };
            assert_eq!(change_from_proto(change_to_proto(&change)), change);
        }
        2 => {
            let Ok(message) = pb::ChangeMembersReply::decode(data) else { return };
            let sent = reply_to_proto(reply_from_proto(message));
            assert_eq!(reply_to_proto(reply_from_proto(sent.clone())), sent);
        }
        _ => {
            let Ok(message) = pb::AppliedState::decode(data) else { return };
            let membership = message.membership.unwrap_or_default();
            check(stored_membership_from_proto(membership).map(|stored| {
                let again = stored_membership_from_proto(stored_membership_to_proto(&stored));
                assert_eq!(again.as_ref(), Ok(&stored));
            }));
        }
    }
}

fn check(outcome: Result<(), CodecError>) {
    if let Err(error) = outcome {
        check_refusal(&error);
    }
}

/// A snapshot in arrival: its header, then pieces of its files, each behind its length.
pub fn snapshot(mut data: &[u8]) {
    let mut next = || pb::SnapshotChunk::decode_length_delimited(&mut data).ok()?.part;
    let Some(pb::snapshot_chunk::Part::Header(header)) = next() else { return };
    if header.files.len() > SNAPSHOT_FILES_MAX {
        return;
    }
    let announced: u64 = header.files.iter().map(|file| file.size).fold(0, u64::saturating_add);
    let folder = folder();
    let received = Receiver::at(folder.clone(), header).and_then(|mut receiver| {
        while let Some(pb::snapshot_chunk::Part::Data(data)) = next() {
            receiver.write(&data)?;
        }
        receiver.finish_files()?;
        assert!(bytes_in(&folder) <= announced, "more was written than was announced");
        Ok(())
    });
    if let Err(error) = received {
        check_refusal(&error);
    }
    assert!(!folder.exists(), "a snapshot that was not installed was left behind");
}

/// A new folder for each call: tests run at the same time.
fn folder() -> PathBuf {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("llm-config-fuzz-{}-{call}", std::process::id()))
}

fn bytes_in(folder: &std::path::Path) -> u64 {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    files.filter_map(|file| file.metadata().ok()).map(|metadata| metadata.len()).sum()
}

#[cfg(test)]
mod tests {
    use crate::replay::run;

    #[test]
    fn the_inputs_of_each_target_pass() {
        run("log_entry", super::log_entry);
        run("append", super::append);
        run("peer_messages", super::peer_messages);
        run("snapshot", super::snapshot);
    }
}
