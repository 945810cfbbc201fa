//! The Raft log: recent entries in memory, all of them in the log database, one thread that writes.
//!
//! An entry can be read as soon as `append` returns; it is durable when its callback runs. Entries leave memory only
//! when they are durable, so a reader always finds them in one of the two places.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, ControlFlow, RangeBounds};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;

use bytes::Bytes;
use futures::{Stream, TryStreamExt as _};
use llm_config_bugs::{Bug, active};
use llm_config_proto::internal as pb;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::engine::{Engine, Op};
use super::watermark::{Position, Watermark};
use super::writer::{Request, Writer, WriterStats};
use crate::codec::{
    entry_from_proto, entry_size, log_id_from_proto, log_id_to_proto, seal, unseal,
    vote_from_proto, vote_to_proto,
};
use crate::machine::QueueThread;
use crate::status::EngineStats;
use crate::types::{Entry, LogId, Types, Vote};

/// Requests that may wait for the writer; the Raft core waits when it is full.
const QUEUE_REQUESTS_MAX: usize = 16_384;
/// Bytes of entries that one append message carries at most (one entry may be larger).
const APPEND_BYTES_MAX: u64 = 1 << 20;

pub(crate) mod keys {
    //! Keys of the log database.

    use bytes::Bytes;

    pub(crate) const VOTE: Bytes = Bytes::from_static(b"\x00vote");
    pub(crate) const PURGED: Bytes = Bytes::from_static(b"\x00purged");
    pub(crate) const COMMITTED: Bytes = Bytes::from_static(b"\x00committed");

    pub(crate) fn entry(index: u64) -> Bytes {
        let mut key = [1_u8; 9];
        key[1..].copy_from_slice(&index.to_be_bytes());
        Bytes::copy_from_slice(&key)
    }

    /// Behind the last entry.
    pub(crate) const END: &[u8] = &[2];

    pub(crate) fn index(key: &[u8]) -> Option<u64> {
        Some(u64::from_be_bytes(key.strip_prefix(&[1])?.try_into().ok()?))
    }
}

/// What is known without reading the database.
#[derive(Default)]
struct Recent {
    entries: BTreeMap<u64, Entry>,
    bytes: u64,
    last: Option<LogId>,
    purged: Option<LogId>,
    vote: Option<Vote>,
    committed: Option<LogId>,
}

struct Shared {
    engine: Arc<dyn Engine>,
    recent: Mutex<Recent>,
    cache_bytes: u64,
    queue: SyncSender<Request>,
    stats: Arc<WriterStats>,
    thread: Mutex<Option<QueueThread>>,
}

/// A handle to the log; clones share it.
#[derive(Clone)]
pub(crate) struct LogStore {
    shared: Arc<Shared>,
}

impl LogStore {
    /// Reads what the database holds, refuses holes and damage, and starts the writer.
    pub(crate) fn open(
        engine: Arc<dyn Engine>,
        watermark: Option<Watermark>,
        cache_bytes: u64,
    ) -> io::Result<Self> {
        let recent = load(engine.as_ref())?;
        let position = Position { vote: recent.vote, last_log_id: recent.last };
        if let Some(watermark) = &watermark {
            watermark.check(position)?;
        }
        let stats = Arc::new(WriterStats::default());
        let writer = Writer::new(Arc::clone(&engine), watermark, position, Arc::clone(&stats));
        let (queue, requests) = std::sync::mpsc::sync_channel(QUEUE_REQUESTS_MAX);
        let thread = writer.start(requests)?;
        let recent = Mutex::new(recent);
        let thread = Mutex::new(Some(thread));
        Ok(Self { shared: Arc::new(Shared { engine, recent, cache_bytes, queue, stats, thread }) })
    }

    pub(crate) fn stats(&self) -> &WriterStats {
        &self.shared.stats
    }

    /// The last entry that was purged, and the last one that there is.
    pub(crate) fn range(&self) -> (Option<LogId>, Option<LogId>) {
        let recent = self.shared.recent.lock();
        (recent.purged, recent.last)
    }

    /// Writes what is queued and ends the writer thread. Later requests fail.
    pub(crate) fn close(&self) {
        // A send error means that the writer has ended already.
        drop(self.shared.queue.send(Request::Stop));
        if let Some(thread) = self.shared.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the log writer panicked");
        }
    }

    /// Entries of `start..end`, for the simulation.
    #[cfg(feature = "simulation")]
    pub(crate) fn entries(&self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.read(start, end, u64::MAX)
    }

    /// What the engine below tells about itself. Blocks.
    pub(crate) fn engine_stats(&self) -> EngineStats {
        self.shared.engine.stats()
    }

    /// Gives back the space of purged entries. Blocks.
    pub(crate) fn compact(&self) -> io::Result<()> {
        self.shared.engine.compact()
    }

    fn send(&self, request: Request) -> io::Result<()> {
        self.shared.queue.send(request).map_err(|_| {
            io::Error::other("the log writer has stopped after an error or at the shutdown")
        })
    }

    async fn send_and_wait(
        &self,
        request: impl FnOnce(oneshot::Sender<io::Result<()>>) -> Request,
    ) -> io::Result<()> {
        let (done, outcome) = oneshot::channel();
        self.send(request(done))?;
        outcome.await.map_err(|_| io::Error::other("the log writer has stopped"))?
    }

    /// Entries of `start..end`, from memory where they are there, at most `bytes_max` (but at least one).
    fn read(&self, start: u64, end: u64, bytes_max: u64) -> io::Result<Vec<Entry>> {
        let (first_in_memory, recent) = {
            let recent = self.shared.recent.lock();
            let first = recent.entries.first_key_value().map_or(u64::MAX, |(index, _)| *index);
            let mut bytes = 0;
            let found: Vec<Entry> = if start >= end || start < first {
                Vec::new()
            } else {
                recent
                    .entries
                    .range(start..end)
                    .map(|(_, entry)| entry)
                    .take_while(|entry| take_within(&mut bytes, bytes_max, entry))
                    .cloned()
                    .collect()
            };
            (first, found)
        };
        if start >= end || start >= first_in_memory {
            return Ok(recent);
        }
        let (mut entries, whole) = self.read_stored(start, end.min(first_in_memory), bytes_max)?;
        let used: u64 = entries.iter().map(entry_size).sum();
        if whole && first_in_memory < end && used < bytes_max {
            entries.extend(self.read(first_in_memory, end, bytes_max - used)?);
        }
        Ok(entries)
    }

    /// Also tells whether the range was read to its end.
    fn read_stored(&self, start: u64, end: u64, bytes_max: u64) -> io::Result<(Vec<Entry>, bool)> {
        let mut entries = Vec::new();
        let mut bytes = 0;
        let mut whole = true;
        self.shared.engine.scan(&keys::entry(start), &keys::entry(end), &mut |key, value| {
            let entry = decode_entry(key, value)?;
            if !take_within(&mut bytes, bytes_max, &entry) {
                whole = false;
                return Ok(ControlFlow::Break(()));
            }
            let follows = entries
                .last()
                .is_none_or(|last: &Entry| last.log_id.index + 1 == entry.log_id.index);
            if !follows {
                return Err(corrupt(format!("the log has a hole before entry {}", entry.log_id)));
            }
            entries.push(entry);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok((entries, whole))
    }
}

/// A range as its first index and the one behind its last.
fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(start) => start.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(end) => end.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}

/// Whether an entry still fits; the first always does.
fn take_within(bytes: &mut u64, bytes_max: u64, entry: &Entry) -> bool {
    let first = *bytes == 0;
    *bytes = bytes.saturating_add(entry_size(entry));
    first || *bytes <= bytes_max
}

fn corrupt(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

pub(crate) fn decode_entry(key: &[u8], value: &[u8]) -> io::Result<Entry> {
    let index =
        keys::index(key).ok_or_else(|| corrupt(format!("log key {key:02x?} is malformed")))?;
    let what = format!("log entry {index}");
    let record: pb::LogEntry = unseal(&what, &Bytes::copy_from_slice(value))?;
    let entry = entry_from_proto(record)?;
    if entry.log_id.index != index {
        return Err(corrupt(format!("{what} holds entry {}", entry.log_id.index)));
    }
    Ok(entry)
}

/// What a log holds that nobody writes.
pub(crate) struct Inspection {
    pub(crate) vote: Option<Vote>,
    pub(crate) purged: Option<LogId>,
    pub(crate) committed: Option<LogId>,
    pub(crate) last: Option<LogId>,
}

/// Reads a log without writing to it; refuses holes and damage.
pub(crate) fn inspect(engine: &dyn Engine) -> io::Result<Inspection> {
    let Recent { vote, purged, committed, last, .. } = load(engine)?;
    Ok(Inspection { vote, purged, committed, last })
}

/// Makes an empty log that begins behind `position`, durably.
pub(crate) fn begin_at(engine: &dyn Engine, vote: Vote, position: LogId) -> io::Result<()> {
    let position = seal(&log_id_to_proto(&position));
    let ops = [
        Op::Put(keys::VOTE, seal(&vote_to_proto(&vote))),
        Op::Put(keys::PURGED, position.clone()),
        Op::Put(keys::COMMITTED, position),
    ];
    engine.write(&ops, true)
}

fn load(engine: &dyn Engine) -> io::Result<Recent> {
    let log_id = |key: Bytes, what: &str| -> io::Result<Option<LogId>> {
        let Some(record) = engine.get(&key)? else { return Ok(None) };
        Ok(Some(log_id_from_proto(&unseal(what, &record)?)))
    };
    let vote = match engine.get(&keys::VOTE)? {
        Some(record) => Some(vote_from_proto(&unseal("vote", &record)?)),
        None => None,
    };
    let purged = log_id(keys::PURGED, "purged position")?;
    let committed = log_id(keys::COMMITTED, "committed position")?;
    let mut next = purged.map_or(0, |id| id.index + 1);
    let mut last = purged;
    engine.scan(&keys::entry(next), keys::END, &mut |key, value| {
        let entry = decode_entry(key, value)?;
        if entry.log_id.index != next || Some(entry.log_id) <= last {
            return Err(corrupt(format!(
                "the log has a hole: expected entry {next}, found {}; replace this node",
                entry.log_id
            )));
        }
        last = Some(entry.log_id);
        next += 1;
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(Recent { last, purged, vote, committed, ..Recent::default() })
}

impl RaftLogReader<Types> for LogStore {
    /// In steps, so that a node with much to replay does not hold all of it in memory.
    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = io::Result<Entry>> + Send
    where
        RB: RangeBounds<u64> + Clone + Debug + Send,
    {
        let (start, end) = bounds(&range);
        let log = self.clone();
        let steps = futures::stream::try_unfold(start, move |next| {
            let step =
                if next < end { log.read(next, end, APPEND_BYTES_MAX) } else { Ok(Vec::new()) };
            let step = step.map(|entries| {
                let next = entries.last().map(|entry| entry.log_id.index + 1)?;
                Some((futures::stream::iter(entries.into_iter().map(Ok)), next))
            });
            std::future::ready(step)
        });
        Box::pin(steps.try_flatten())
    }

    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        let (start, end) = bounds(&range);
        self.read(start, end, u64::MAX)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.read(start, end, APPEND_BYTES_MAX)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.shared.recent.lock().vote)
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        let recent = self.shared.recent.lock();
        Ok(LogState { last_purged_log_id: recent.purged, last_log_id: recent.last })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let vote = *vote;
        self.send_and_wait(|done| Request::SaveVote { vote, done }).await?;
        self.shared.recent.lock().vote = Some(vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        let Some(committed) = committed else { return Ok(()) };
        self.shared.recent.lock().committed = Some(committed);
        self.send(Request::Committed(committed))
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        if active(Bug::ReadBeforeReplay) {
            return Ok(None);
        }
        Ok(self.shared.recent.lock().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let durable_end = self.shared.stats.durable_end.load(Ordering::Acquire);
        {
            let mut recent = self.shared.recent.lock();
            for entry in &entries {
                recent.bytes += entry_size(entry);
                recent.last = Some(entry.log_id);
                recent.entries.insert(entry.log_id.index, entry.clone());
            }
            recent.shrink(self.shared.cache_bytes, durable_end);
        }
        self.send(Request::Append { entries, callback })
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> io::Result<()> {
        let (from, to) = {
            let mut recent = self.shared.recent.lock();
            let from = last_log_id.map_or(0, |id| id.index + 1);
            let Some(to) = recent.last.map(|id| id.index).filter(|to| *to >= from) else {
                return Ok(());
            };
            let removed = recent.entries.split_off(&from);
            recent.bytes -= removed.values().map(entry_size).sum::<u64>();
            recent.last = last_log_id.max(recent.purged);
            (from, to)
        };
        // Waits, so that an append in the queue cannot report as durable what the next one replaces. Rare.
        self.send_and_wait(|done| Request::Truncate { from, to, last: last_log_id, done }).await
    }

    async fn purge(&mut self, log_id: LogId) -> io::Result<()> {
        {
            let mut recent = self.shared.recent.lock();
            let kept = recent.entries.split_off(&(log_id.index + 1));
            let removed = std::mem::replace(&mut recent.entries, kept);
            recent.bytes -= removed.values().map(entry_size).sum::<u64>();
            recent.purged = recent.purged.max(Some(log_id));
            recent.last = recent.last.max(Some(log_id));
        }
        self.send_and_wait(|done| Request::Purge { upto: log_id, done }).await
    }
}

impl Recent {
    /// Drops the oldest entries above the bound, but none that is not durable yet.
    fn shrink(&mut self, bytes_max: u64, durable_end: u64) {
        while self.bytes > bytes_max {
            let Some(oldest) =
                self.entries.first_entry().filter(|oldest| *oldest.key() < durable_end)
            else {
                return;
            };
            self.bytes -= entry_size(&oldest.remove());
        }
    }
}
