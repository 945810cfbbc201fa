//! A snapshot on its way in: written to a folder of its own, checked chunk by chunk and file by file, synced, and only
//! then handed to the state machine. Whatever is wrong with it, the folder is deleted and nothing else was touched.

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::path::PathBuf;

use llm_config_proto::internal as pb;
use thiserror::Error;

use crate::codec::{CodecError, log_id_from_proto, required_vote, stored_membership_from_proto};
use crate::failpoint::crash_point;
use crate::form::{NewerForm, SNAPSHOT_FORMAT};
use crate::machine::fs::{self, File};
use crate::storage::directory::{Directory, sync_dir};
use crate::storage::snapshot::{self, SnapshotDir, is_snapshot_file};
use crate::types::{SnapshotMeta, Vote};

/// Files that one snapshot may consist of.
const FILES_MAX: usize = 100_000;
/// RocksDB's own names have a few dozen; a refusal repeats the name.
const FILE_NAME_BYTES_MAX: usize = 128;

/// Why an arriving snapshot was refused.
#[derive(Debug, Error)]
pub(crate) enum ReceiveError {
    #[error("snapshot: {0}")]
    Malformed(String),
    #[error("snapshot: {0}")]
    Io(io::Error),
    #[error("snapshot: {0}")]
    Newer(#[from] NewerForm),
}

impl From<io::Error> for ReceiveError {
    fn from(error: io::Error) -> Self {
        match NewerForm::within(&error) {
            Some(newer) => Self::Newer(newer.clone()),
            None => Self::Io(error),
        }
    }
}

impl From<CodecError> for ReceiveError {
    fn from(error: CodecError) -> Self {
        match error {
            CodecError::Malformed(reason) => Self::Malformed(reason),
            CodecError::Newer(newer) => Self::Newer(newer),
        }
    }
}

struct Current {
    number: usize,
    file: File,
    written: u64,
    crc: crc32fast::Hasher,
}

/// One snapshot in arrival.
pub(crate) struct Receiver {
    folder: SnapshotDir,
    vote: Vote,
    meta: SnapshotMeta,
    files: Vec<pb::SnapshotFile>,
    next: usize,
    current: Option<Current>,
}

fn malformed<T>(reason: impl Into<String>) -> Result<T, ReceiveError> {
    Err(ReceiveError::Malformed(reason.into()))
}

impl Receiver {
    pub(crate) fn new(
        directory: &Directory,
        header: pb::SnapshotHeader,
    ) -> Result<Self, ReceiveError> {
        Self::at(directory.fresh("receive"), header)
    }

    /// Checks the header, then makes the folder at `path` that the files come into.
    pub(crate) fn at(path: PathBuf, header: pb::SnapshotHeader) -> Result<Self, ReceiveError> {
        NewerForm::refuse("a snapshot sent by the leader", header.format, SNAPSHOT_FORMAT)?;
        if header.files.len() > FILES_MAX {
            return malformed(format!("{} files, more than {FILES_MAX}", header.files.len()));
        }
        let mut names = BTreeSet::new();
        for file in &header.files {
            if file.name.len() > FILE_NAME_BYTES_MAX {
                return malformed(format!("the name of a file has {} bytes", file.name.len()));
            }
            if !is_snapshot_file(&file.name) {
                return malformed(format!("file {:?} does not belong into a snapshot", file.name));
            }
            if !names.insert(&file.name) {
                return malformed(format!("file {:?} is listed twice", file.name));
            }
        }
        let vote = required_vote(header.vote)?;
        let meta = SnapshotMeta {
            last_log_id: header.last_log_id.as_ref().map(log_id_from_proto),
            last_membership: stored_membership_from_proto(
                header.last_membership.unwrap_or_default(),
            )?,
        };
        fs::create_dir(&path)?;
        let folder = SnapshotDir::temporary(path);
        Ok(Self { folder, vote, meta, files: header.files, next: 0, current: None })
    }

    pub(crate) fn write(&mut self, data: &pb::SnapshotData) -> Result<(), ReceiveError> {
        if crc32fast::hash(&data.data) != data.crc32 {
            return malformed(format!(
                "chunk at {} of file {}: checksum mismatch",
                data.offset, data.file
            ));
        }
        let number = usize::try_from(data.file).unwrap_or(usize::MAX);
        while self.current.as_ref().is_none_or(|current| current.number != number) {
            self.finish_file()?;
            if self.next > number || self.next >= self.files.len() {
                return malformed(format!("file {number} is out of order"));
            }
            self.open_next()?;
        }
        let Some(current) = &mut self.current else { return malformed("no file is open") };
        let size = self.files[number].size;
        if data.offset != current.written || current.written + data.data.len() as u64 > size {
            return malformed(format!(
                "chunk at {} of {:?} does not fit",
                data.offset, self.files[number].name
            ));
        }
        current.file.write_all(&data.data)?;
        current.crc.update(&data.data);
        current.written += data.data.len() as u64;
        crash_point("receive.after-chunk");
        Ok(())
    }

    /// Checks that everything came and is what the header says, and syncs it.
    pub(crate) fn finish(mut self) -> Result<(Vote, SnapshotMeta, SnapshotDir), ReceiveError> {
        self.finish_files()?;
        if self.meta.last_log_id.is_none_or(|id| id.leader_id > self.vote.leader_id) {
            return malformed("its position is beyond the sender's vote");
        }
        snapshot::verify(self.folder.path(), &self.meta)?;
        sync_dir(self.folder.path())?;
        crash_point("receive.finished");
        Ok((self.vote, self.meta, self.folder))
    }

    pub(crate) fn finish_files(&mut self) -> Result<(), ReceiveError> {
        self.finish_file()?;
        while self.next < self.files.len() {
            self.open_next()?;
            self.finish_file()?;
        }
        Ok(())
    }

    fn open_next(&mut self) -> Result<(), ReceiveError> {
        let number = self.next;
        let file = File::create_new(self.folder.path().join(&self.files[number].name))?;
        self.current = Some(Current { number, file, written: 0, crc: crc32fast::Hasher::new() });
        self.next += 1;
        Ok(())
    }

    fn finish_file(&mut self) -> Result<(), ReceiveError> {
        let Some(current) = self.current.take() else { return Ok(()) };
        let expected = &self.files[current.number];
        if current.written != expected.size {
            return malformed(format!(
                "file {:?} ended after {} of {} bytes",
                expected.name, current.written, expected.size
            ));
        }
        if current.crc.finalize() != expected.crc32 {
            return malformed(format!("file {:?}: checksum mismatch", expected.name));
        }
        current.file.sync_all()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::vote_to_proto;
    use crate::types::LeaderId;
    use bytes::Bytes;
    use openraft::vote::RaftLeaderId as _;

    const CONTENT: &[u8] = b"tables are linked, the rest is copied";

    fn header() -> pb::SnapshotHeader {
        let vote = Vote { leader_id: LeaderId::new(1, 1), committed: true };
        let file = |name: &str, content: &[u8]| pb::SnapshotFile {
            name: name.into(),
            size: content.len() as u64,
            crc32: crc32fast::hash(content),
        };
        pb::SnapshotHeader {
            vote: Some(vote_to_proto(&vote)),
            last_log_id: None,
            last_membership: None,
            files: vec![file("000001.sst", CONTENT), file("CURRENT", b"")],
            format: SNAPSHOT_FORMAT,
        }
    }

    fn chunk(offset: usize, data: &'static [u8]) -> pb::SnapshotData {
        pb::SnapshotData {
            file: 0,
            offset: offset as u64,
            data: Bytes::from_static(data),
            crc32: crc32fast::hash(data),
        }
    }

    fn with_receiver<T>(check: impl FnOnce(Receiver) -> T) -> (T, usize) {
        let root = tempfile::tempdir().unwrap();
        let (directory, _) = Directory::open(root.path(), 1).unwrap();
        let result = check(Receiver::new(&directory, header()).unwrap());
        let left = fs::read_dir(root.path())
            .unwrap()
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("receive"))
            .count();
        (result, left)
    }

    #[test]
    fn a_whole_snapshot_arrives() {
        with_receiver(|mut receiver| {
            receiver.write(&chunk(0, &CONTENT[..10])).unwrap();
            receiver.write(&chunk(10, &CONTENT[10..])).unwrap();
            receiver.finish_files().unwrap();
            let folder = receiver.folder.path();
            assert_eq!(fs::read(folder.join("000001.sst")).unwrap(), CONTENT);
            assert_eq!(fs::read(folder.join("CURRENT")).unwrap(), b"");
        });
    }

    #[test]
    fn whatever_is_wrong_is_refused_and_leaves_nothing() {
        let damaged = pb::SnapshotData { crc32: 1, ..chunk(0, CONTENT) };
        let elsewhere = pb::SnapshotData { file: 7, ..chunk(0, CONTENT) };
        for bad in [
            damaged,
            elsewhere,
            chunk(5, CONTENT),
            chunk(0, b"too long: more bytes than the header said"),
        ] {
            let (result, left) = with_receiver(|mut receiver| receiver.write(&bad));
            assert!(matches!(result, Err(ReceiveError::Malformed(_))), "{bad:?}");
            assert_eq!(left, 0);
        }
        let (cut, left) = with_receiver(|mut receiver| {
            receiver.write(&chunk(0, &CONTENT[..10])).unwrap();
            receiver.finish().map(|_| ())
        });
        assert!(cut.unwrap_err().to_string().contains("ended after 10"));
        assert_eq!(left, 0);
        let (altered, _) = with_receiver(|mut receiver| {
            receiver.write(&chunk(0, b"Tables are linked, the rest is copied")).unwrap();
            receiver.finish().map(|_| ())
        });
        assert!(altered.unwrap_err().to_string().contains("checksum mismatch"));
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let (directory, _) = Directory::open(root.path(), 1).unwrap();
        for name in ["../identity", "a/b.sst", "identity", "CURRENT-STATE", ""] {
            let mut header = header();
            header.files[0].name = name.into();
            assert!(Receiver::new(&directory, header).is_err(), "{name}");
        }
        let mut newer = header();
        newer.format += 1;
        assert!(matches!(Receiver::new(&directory, newer), Err(ReceiveError::Newer(_))));
        let mut long = header();
        long.files[0].name = format!("{}.sst", "0".repeat(FILE_NAME_BYTES_MAX));
        let error = Receiver::new(&directory, long).err().unwrap();
        assert!(error.to_string().len() < 100, "{error}");
        let mut twice = header();
        twice.files[1].name = twice.files[0].name.clone();
        assert!(Receiver::new(&directory, twice).is_err());
    }
}
