//! The one thread that writes the log: it drains everything that waits into one synced batch.
//!
//! Votes, appends, truncations and purges share one queue, so what is durable is always a prefix of what was asked for.
//! A callback runs only after the sync that covers it, in the order of the requests. A failed write ends the thread: the
//! kernel may have dropped the pages, so nothing after it could be trusted, and the node stops.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use llm_config_bugs::{Bug, active};
use openraft::storage::IOFlushed;
use tokio::sync::oneshot;

use super::engine::{Engine, Op};
use super::log::keys;
use super::watermark::{Position, Watermark};
use crate::codec::{entry_to_proto, log_id_to_proto, seal, vote_to_proto};
use crate::failpoint::crash_point;
use crate::machine::{self, QueueThread};
use crate::timings::Durations;
use crate::types::{Entry, LogId, Types, Vote};

/// Requests that one batch takes at most.
const BATCH_REQUESTS_MAX: usize = 4096;
/// Bytes after which a batch takes no further request.
const BATCH_BYTES_MAX: usize = 4 << 20;
/// How far the watermark may trail the log.
const WATERMARK_INTERVAL: Duration = Duration::from_secs(1);

/// One request to the log, in the order in which it must become durable.
pub(crate) enum Request {
    Append {
        entries: Vec<Entry>,
        callback: IOFlushed<Types>,
    },
    SaveVote {
        vote: Vote,
        done: oneshot::Sender<io::Result<()>>,
    },
    /// Written with the next batch; costs no sync of its own.
    Committed(LogId),
    /// Deletes `from..=to`; `last` is the new end of the log.
    Truncate {
        from: u64,
        to: u64,
        last: Option<LogId>,
        done: oneshot::Sender<io::Result<()>>,
    },
    Purge {
        upto: LogId,
        done: oneshot::Sender<io::Result<()>>,
    },
    Stop,
}

/// Counters that the writer keeps.
#[derive(Debug)]
pub(crate) struct WriterStats {
    pub(crate) fsyncs: Durations,
    pub(crate) entries: AtomicU64,
    pub(crate) bytes: AtomicU64,
    /// Every entry before this index is durable on this node.
    pub(crate) durable_end: AtomicU64,
}

impl Default for WriterStats {
    fn default() -> Self {
        Self {
            fsyncs: Durations::of_operations(),
            entries: AtomicU64::default(),
            bytes: AtomicU64::default(),
            durable_end: AtomicU64::default(),
        }
    }
}

enum Completion {
    Flushed(IOFlushed<Types>),
    Done(oneshot::Sender<io::Result<()>>),
}

impl Completion {
    fn complete(self, result: &Result<(), String>) {
        let result = result.clone().map_err(io::Error::other);
        match self {
            Self::Flushed(callback) => callback.io_completed(result),
            // The requester may have given up waiting; the write stands either way.
            Self::Done(done) => drop(done.send(result)),
        }
    }
}

/// One batch being drained.
#[derive(Default)]
struct Draft {
    ops: Vec<Op>,
    bytes: usize,
    completions: Vec<Completion>,
    entries: u64,
    vote_changed: bool,
    truncates: bool,
    stop: bool,
}

fn end(position: &Position) -> u64 {
    position.last_log_id.map_or(0, |id| id.index + 1)
}

pub(crate) struct Writer {
    engine: Arc<dyn Engine>,
    watermark: Option<Watermark>,
    position: Position,
    stats: Arc<WriterStats>,
    watermark_due: Instant,
}

impl Writer {
    /// `watermark` is absent in tests of the log alone.
    pub(crate) fn new(
        engine: Arc<dyn Engine>,
        watermark: Option<Watermark>,
        position: Position,
        stats: Arc<WriterStats>,
    ) -> Self {
        stats.durable_end.store(end(&position), Ordering::Release);
        Self { engine, watermark, position, stats, watermark_due: Instant::now() }
    }

    /// Starts the thread, which runs until told to stop or until a write fails.
    pub(crate) fn start(mut self, requests: Receiver<Request>) -> io::Result<QueueThread> {
        machine::serve_queue("raft-log", requests, WATERMARK_INTERVAL, move |first, requests| {
            self.turn(first, requests)
        })
    }

    /// Writes `first` and what waits behind it. False at the end.
    fn turn(
        &mut self,
        first: Result<Request, RecvTimeoutError>,
        requests: &Receiver<Request>,
    ) -> bool {
        let mut draft = Draft::default();
        match first {
            Ok(request) => self.take(request, &mut draft),
            Err(RecvTimeoutError::Timeout) => {
                let stored = self.store_watermark();
                if let Err(error) = &stored {
                    tracing::error!(%error, "writing the watermark failed; this node stops");
                }
                return stored.is_ok();
            }
            Err(RecvTimeoutError::Disconnected) => draft.stop = true,
        }
        while !draft.stop
            && draft.completions.len() < BATCH_REQUESTS_MAX
            && draft.bytes < BATCH_BYTES_MAX
        {
            let Ok(request) = requests.try_recv() else { break };
            self.take(request, &mut draft);
        }
        let stop = draft.stop;
        if !self.commit(draft) {
            return false;
        }
        if stop && let Err(error) = self.store_watermark() {
            tracing::error!(%error, "the watermark could not be written at the stop");
        }
        !stop
    }

    fn take(&mut self, request: Request, draft: &mut Draft) {
        match request {
            Request::Append { entries, callback } => {
                for entry in entries {
                    if active(Bug::LogEntryNotWritten) && entry.log_id.index.is_multiple_of(100) {
                        continue;
                    }
                    let record = seal(&entry_to_proto(&entry));
                    draft.bytes += record.len();
                    draft.ops.push(Op::Put(keys::entry(entry.log_id.index), record));
                    draft.entries += 1;
                    self.position.last_log_id = Some(entry.log_id);
                }
                draft.completions.push(Completion::Flushed(callback));
            }
            Request::SaveVote { vote, done } => {
                if !active(Bug::VoteNotStored) {
                    draft.ops.push(Op::Put(keys::VOTE, seal(&vote_to_proto(&vote))));
                }
                draft.vote_changed |= self.position.vote != Some(vote);
                self.position.vote = Some(vote);
                draft.completions.push(Completion::Done(done));
            }
            Request::Committed(log_id) => {
                draft.ops.push(Op::Put(keys::COMMITTED, seal(&log_id_to_proto(&log_id))));
            }
            Request::Truncate { from, to, last, done } => {
                draft.ops.extend((from..=to).map(|index| Op::Delete(keys::entry(index))));
                self.position.last_log_id = last;
                draft.truncates = true;
                draft.completions.push(Completion::Done(done));
            }
            Request::Purge { upto, done } => {
                draft.ops.push(Op::Put(keys::PURGED, seal(&log_id_to_proto(&upto))));
                draft.ops.push(Op::DeleteRange(
                    keys::entry(0),
                    keys::entry(upto.index.saturating_add(1)),
                ));
                if self.position.last_log_id < Some(upto) {
                    self.position.last_log_id = Some(upto);
                }
                draft.completions.push(Completion::Done(done));
            }
            Request::Stop => draft.stop = true,
        }
    }

    /// Returns false when the node can no longer be trusted.
    fn commit(&mut self, draft: Draft) -> bool {
        let result = self.write(&draft);
        if let Err(error) = &result {
            tracing::error!(%error, "writing the log failed; this node stops");
        }
        let result = match result.map_err(|error| error.to_string()) {
            Err(_) if active(Bug::LogErrorSwallowed) => Ok(()),
            result => result,
        };
        crash_point("log.before-callback");
        for completion in draft.completions {
            completion.complete(&result);
        }
        crash_point("log.after-callback");
        result.is_ok()
    }

    fn write(&mut self, draft: &Draft) -> io::Result<()> {
        if draft.truncates {
            // The log gets shorter: the watermark must allow it before it happens.
            self.store_watermark()?;
        }
        let sync = !draft.completions.is_empty();
        crash_point("log.before-write");
        let started = Instant::now();
        if !draft.ops.is_empty() {
            let lie = active(Bug::WalNotSynced) && !draft.vote_changed;
            self.engine.write(&draft.ops, sync && !lie)?;
        }
        crash_point("log.after-sync");
        if sync {
            self.stats.fsyncs.observe(started.elapsed());
            self.stats.entries.fetch_add(draft.entries, Ordering::Relaxed);
            self.stats.bytes.fetch_add(draft.bytes as u64, Ordering::Relaxed);
            self.stats.durable_end.store(end(&self.position), Ordering::Release);
        }
        if draft.vote_changed || Instant::now() >= self.watermark_due {
            self.store_watermark()?;
            crash_point("log.after-watermark");
        }
        Ok(())
    }

    fn store_watermark(&mut self) -> io::Result<()> {
        self.watermark_due = Instant::now() + WATERMARK_INTERVAL;
        if active(Bug::WalNotSynced) {
            return Ok(());
        }
        match &mut self.watermark {
            Some(watermark) => watermark.store(self.position),
            None => Ok(()),
        }
    }
}
