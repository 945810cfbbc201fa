//! A snapshot on its way out: a header with the list of files, then their bytes in checked chunks.

use std::io::{self, Read as _};
use std::sync::Arc;

use bytes::Bytes;
use futures::Stream;
use llm_config_proto::internal as pb;
use openraft::impls::BasicNode;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::codec::{log_id_to_proto, stored_membership_to_proto, vote_to_proto};
use crate::form::SNAPSHOT_FORMAT;
use crate::machine::{self, fs::File};
use crate::storage::snapshot::SnapshotDir;
use crate::types::{Types, Vote};

type Snapshot = openraft::storage::Snapshot<
    openraft::alias::CommittedLeaderIdOf<Types>,
    u64,
    BasicNode,
    SnapshotDir,
>;

/// Reads the snapshot on a blocking thread, as fast as the receiver takes it. A read error ends the stream early and is
/// left in `failed`; the receiver then misses bytes and refuses the whole.
pub(crate) fn chunks(
    vote: Vote,
    snapshot: Snapshot,
    chunk_bytes: usize,
    failed: Arc<Mutex<Option<String>>>,
) -> impl Stream<Item = pb::SnapshotChunk> + Send + 'static {
    let (sender, receiver) = mpsc::channel(machine::READ_AHEAD);
    machine::spawn_blocking(move || {
        if let Err(error) = read_all(vote, &snapshot, chunk_bytes, &sender) {
            *failed.lock() = Some(error.to_string());
        }
    });
    ReceiverStream::new(receiver)
}

fn read_all(
    vote: Vote,
    snapshot: &Snapshot,
    chunk_bytes: usize,
    sender: &mpsc::Sender<pb::SnapshotChunk>,
) -> io::Result<()> {
    let folder = &snapshot.snapshot;
    let Some(files) = manifest(folder, chunk_bytes, sender)? else { return Ok(()) };
    let header = pb::SnapshotHeader {
        vote: Some(vote_to_proto(&vote)),
        last_log_id: snapshot.meta.last_log_id.as_ref().map(log_id_to_proto),
        last_membership: Some(stored_membership_to_proto(&snapshot.meta.last_membership)),
        files: files.clone(),
        format: SNAPSHOT_FORMAT,
    };
    if !send(sender, pb::snapshot_chunk::Part::Header(header)) {
        return Ok(());
    }
    for (number, file) in files.iter().enumerate() {
        let number = u32::try_from(number).map_err(io::Error::other)?;
        let open = File::open(folder.path().join(&file.name))?;
        let finished = for_each_chunk(open, chunk_bytes, |offset, data| {
            let crc32 = crc32fast::hash(&data);
            let data = pb::SnapshotData { file: number, offset, data, crc32 };
            send(sender, pb::snapshot_chunk::Part::Data(data))
        })?;
        if !finished {
            return Ok(());
        }
    }
    Ok(())
}

/// Sizes and checksums of all files, computed once for a snapshot; none when the receiver went away meanwhile.
fn manifest(
    folder: &SnapshotDir,
    chunk_bytes: usize,
    sender: &mpsc::Sender<pb::SnapshotChunk>,
) -> io::Result<Option<Vec<pb::SnapshotFile>>> {
    if let Some(files) = folder.manifest().get() {
        return Ok(Some(files.clone()));
    }
    let mut files = Vec::new();
    for (name, size) in folder.files()? {
        let mut crc = crc32fast::Hasher::new();
        let whole =
            for_each_chunk(File::open(folder.path().join(&name))?, chunk_bytes, |_, data| {
                crc.update(&data);
                !sender.is_closed()
            })?;
        if !whole {
            return Ok(None);
        }
        files.push(pb::SnapshotFile { name, size, crc32: crc.finalize() });
    }
    Ok(Some(folder.manifest().get_or_init(|| files).clone()))
}

/// False when the receiver is gone.
fn send(sender: &mpsc::Sender<pb::SnapshotChunk>, part: pb::snapshot_chunk::Part) -> bool {
    machine::hand_over(sender, pb::SnapshotChunk { part: Some(part) })
}

fn for_each_chunk(
    mut file: File,
    chunk_bytes: usize,
    mut take: impl FnMut(u64, Bytes) -> bool,
) -> io::Result<bool> {
    let mut offset = 0;
    loop {
        let mut data = Vec::with_capacity(chunk_bytes);
        let read = (&mut file).take(chunk_bytes as u64).read_to_end(&mut data)?;
        if read == 0 {
            return Ok(true);
        }
        if !take(offset, Bytes::from(data)) {
            return Ok(false);
        }
        offset += read as u64;
    }
}
