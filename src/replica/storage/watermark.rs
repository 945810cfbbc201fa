//! What this node has made durable, remembered outside the database.
//!
//! RocksDB opens a database whose write-ahead log was deleted, or an old copy of one, without a word. This file notices:
//! it holds the vote and the last log id that were once durable, in two checksummed slots written in turn, so that a torn
//! write leaves the other slot whole. What the log holds at a start must not be older.
//!
//! The file trails the log by up to a second; a log cut shorter than that by less goes unnoticed.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use llm_config_proto::internal as pb;

use crate::codec::{
    CodecError, log_id_from_proto, log_id_to_proto, seal, unseal, vote_from_proto, vote_to_proto,
};
use crate::form::NewerForm;
use crate::machine::fs::{File, OpenOptions};
use crate::machine::os::unix::fs::FileExt as _;
use crate::types::{LogId, Vote};

const SLOT_BYTES: usize = 512;

/// A position that was durable once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) vote: Option<Vote>,
    pub(crate) last_log_id: Option<LogId>,
}

/// The open file and what it holds.
#[derive(Debug)]
pub(crate) struct Watermark {
    file: File,
    path: PathBuf,
    sequence: u64,
    position: Position,
}

impl Watermark {
    /// Opens the file, or creates it when the directory is new.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        Self::of(file, path)
    }

    /// Opens the file to look at it only.
    pub(crate) fn open_read_only(path: &Path) -> io::Result<Self> {
        Self::of(File::open(path)?, path)
    }

    fn of(file: File, path: &Path) -> io::Result<Self> {
        let mut content = vec![0_u8; 2 * SLOT_BYTES];
        let mut length = 0;
        while length < content.len() {
            match file.read_at(&mut content[length..], length as u64)? {
                0 => break,
                read => length += read,
            }
        }
        let content = Bytes::from(content);
        let mut slots: Vec<pb::Watermark> = Vec::new();
        for start in [0, SLOT_BYTES].into_iter().filter(|start| length > *start) {
            slots.extend(read_slot(&content.slice(start..start + SLOT_BYTES))?);
        }
        let newest = slots.into_iter().max_by_key(|slot| slot.sequence);
        if newest.is_none() && length > 0 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{}: both slots are damaged", path.display()),
            ));
        }
        let slot = newest.unwrap_or_default();
        Ok(Self {
            file,
            path: path.to_owned(),
            sequence: slot.sequence,
            position: Position {
                vote: slot.vote.as_ref().map(vote_from_proto),
                last_log_id: slot.last_log_id.as_ref().map(log_id_from_proto),
            },
        })
    }

    #[cfg(test)]
    pub(crate) fn position(&self) -> Position {
        self.position
    }

    /// Writes a new position and syncs it.
    pub(crate) fn store(&mut self, position: Position) -> io::Result<()> {
        if position == self.position && self.sequence > 0 {
            return Ok(());
        }
        let sequence = self.sequence + 1;
        let record = seal(&pb::Watermark {
            sequence,
            vote: position.vote.as_ref().map(vote_to_proto),
            last_log_id: position.last_log_id.as_ref().map(log_id_to_proto),
        });
        let mut slot = vec![0_u8; SLOT_BYTES];
        let length = u16::try_from(record.len()).map_err(io::Error::other)?;
        slot[..2].copy_from_slice(&length.to_le_bytes());
        slot[2..2 + record.len()].copy_from_slice(&record);
        let offset = if sequence.is_multiple_of(2) { 0 } else { SLOT_BYTES as u64 };
        self.file.write_all_at(&slot, offset)?;
        self.file.sync_data()?;
        self.sequence = sequence;
        self.position = position;
        Ok(())
    }

    /// Refuses a log that ends before what was durable once.
    pub(crate) fn check(&self, found: Position) -> io::Result<()> {
        let lost = |what: &str, durable: String, now: String| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "acknowledged data is missing: {what} {durable} was durable ({}), but the log holds {now}; a \
                     write-ahead log was deleted or cut, or an old copy of the directory was put back. Do not start \
                     this node on it: replace the node, or restore the missing files",
                    self.path.display()
                ),
            )
        };
        if found.last_log_id < self.position.last_log_id {
            let show =
                |id: Option<LogId>| id.map_or_else(|| "none".to_owned(), |id| id.to_string());
            return Err(lost("log id", show(self.position.last_log_id), show(found.last_log_id)));
        }
        let older = match (&found.vote, &self.position.vote) {
            (None, Some(_)) => true,
            (Some(found), Some(stored)) => found < stored,
            (_, None) => false,
        };
        if older {
            let show = |vote: Option<Vote>| {
                vote.map_or_else(|| "none".to_owned(), |vote| vote.to_string())
            };
            return Err(lost("vote", show(self.position.vote), show(found.vote)));
        }
        Ok(())
    }
}

/// None: torn. A whole slot in a newer format is an error: the other slot is older than what the log holds.
fn read_slot(slot: &Bytes) -> Result<Option<pb::Watermark>, NewerForm> {
    let length = usize::from(u16::from_le_bytes([slot[0], slot[1]]));
    if length == 0 || length + 2 > slot.len() {
        return Ok(None);
    }
    match unseal("the watermark", &slot.slice(2..2 + length)) {
        Ok(slot) => Ok(Some(slot)),
        Err(CodecError::Newer(newer)) => Err(newer),
        Err(CodecError::Malformed(_)) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use openraft::vote::RaftLeaderId as _;

    use super::*;
    use crate::types::LeaderId;

    fn position(term: u64, index: u64) -> Position {
        let leader = LeaderId::new(term, 1);
        Position {
            vote: Some(Vote { leader_id: leader, committed: true }),
            last_log_id: Some(LogId::new(leader, index)),
        }
    }

    #[test]
    fn a_reopened_file_holds_the_last_position() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("watermark");
        for index in 1..5 {
            let mut watermark = Watermark::open(&path).unwrap();
            watermark.store(position(1, index)).unwrap();
            assert_eq!(Watermark::open(&path).unwrap().position(), position(1, index));
        }
    }

    #[test]
    fn a_torn_slot_leaves_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("watermark");
        let mut watermark = Watermark::open(&path).unwrap();
        watermark.store(position(1, 1)).unwrap();
        watermark.store(position(1, 2)).unwrap();
        // Sequence 2 is in the first slot.
        watermark.file.write_all_at(&[0xff; 20], 4).unwrap();
        assert_eq!(Watermark::open(&path).unwrap().position(), position(1, 1));
        watermark.file.write_all_at(&[0xff; 20], SLOT_BYTES as u64 + 4).unwrap();
        assert!(Watermark::open(&path).unwrap_err().to_string().contains("both slots"));
    }

    #[test]
    fn a_newer_slot_is_refused_although_the_other_could_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("watermark");
        let mut watermark = Watermark::open(&path).unwrap();
        watermark.store(position(1, 1)).unwrap();
        watermark.store(position(1, 2)).unwrap();
        // Sequence 2 is in the first slot: its length, then its format.
        let mut slot = std::fs::read(&path).unwrap();
        let end = 2 + usize::from(u16::from_le_bytes([slot[0], slot[1]])) - 4;
        slot[2] += 1;
        let crc = crc32fast::hash(&slot[2..end]);
        slot[end..end + 4].copy_from_slice(&crc.to_le_bytes());
        watermark.file.write_all_at(&slot, 0).unwrap();
        let error = Watermark::open(&path).unwrap_err();
        assert!(NewerForm::within(&error).is_some(), "{error}");
    }

    #[test]
    fn an_older_log_or_vote_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut watermark = Watermark::open(&dir.path().join("watermark")).unwrap();
        watermark.store(position(3, 10)).unwrap();
        watermark.check(position(3, 10)).unwrap();
        watermark.check(position(4, 5)).unwrap();
        for found in [Position::default(), position(3, 9), position(2, 50)] {
            let error = watermark.check(found).unwrap_err().to_string();
            assert!(error.contains("acknowledged data is missing"), "{error}");
        }
        let mut old_vote = position(3, 10);
        old_vote.vote = Some(Vote { leader_id: LeaderId::new(2, 1), committed: true });
        assert!(watermark.check(old_vote).is_err());
    }
}
