//! A backup on its way to a client: read from storage on a thread of its own, in chunks, as fast as they are taken.
//!
//! A stream that does not come to its end yields an error, so that the transport cuts the answer: half a backup must
//! not look like a whole one. A client that takes nothing for a while loses its place, because a backup keeps one state
//! of the storage alive.

use std::io::{self, Write};
use std::thread;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures::Stream;
use llm_config_archive::{Manifest, Reader};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::{Backups, failed, internal};
use crate::error::ServiceError;

const CHUNK_BYTES: usize = 256 << 10;
/// Chunks that wait for the client; with the one being filled, the memory of a stream.
const CHUNKS_WAITING_MAX: usize = 4;
/// Pause of the reading thread while the client has enough.
const FULL_PAUSE: Duration = Duration::from_millis(5);

/// What the reading thread says.
enum Part {
    Chunk(Bytes),
    Failed(ServiceError),
    /// Everything was sent. Without this word the end of the channel is a failure.
    End,
}

/// A backup that has begun.
pub struct BackupStream {
    /// What the backup says about itself.
    pub manifest: Manifest,
    /// Its bytes.
    pub chunks: BackupChunks,
}

/// The bytes of a backup, in order.
pub struct BackupChunks {
    first: Option<Bytes>,
    parts: Receiver<Part>,
    done: bool,
}

impl Backups {
    /// Begins a backup and waits for its first bytes, so that what goes wrong at once is an answer of its own.
    ///
    /// # Errors
    /// [`ServiceError::Overloaded`], [`ServiceError::NotReady`], [`ServiceError::Internal`].
    pub async fn stream(&self, deadline: Instant) -> Result<BackupStream, ServiceError> {
        let inner = &self.inner;
        let Ok(permit) = inner.streams.clone().try_acquire_owned() else {
            inner.metrics.overloaded("backups");
            return Err(ServiceError::Overloaded {
                reason: format!("{} backups are being read", inner.limits.streams),
            });
        };
        let (sender, mut parts) = channel(CHUNKS_WAITING_MAX);
        let mut out = Chunks {
            buffer: BytesMut::with_capacity(CHUNK_BYTES),
            sender,
            stall_timeout: inner.limits.stall_timeout,
            ends: Instant::now() + inner.limits.stream_timeout,
            left: false,
        };
        let replica = inner.replica.clone();
        // Not awaited: it ends with the channel, or with its time.
        tokio::task::spawn_blocking(move || {
            let outcome = replica.backup(&mut out);
            out.finish(outcome.map(drop).map_err(failed));
            drop(permit);
        });
        let first = match tokio::time::timeout_at(deadline.into(), parts.recv()).await {
            Ok(Some(Part::Chunk(first))) => first,
            Ok(Some(Part::Failed(error))) => return Err(error),
            Ok(Some(Part::End) | None) => return Err(internal("the backup is empty".into())),
            Err(_) => {
                return Err(ServiceError::Overloaded {
                    reason: "the storage could not be read in time".into(),
                });
            }
        };
        let (manifest, _) = Reader::open(first.as_ref())
            .map_err(|error| internal(format!("the backup begins wrongly: {error}")))?;
        Ok(BackupStream {
            manifest,
            chunks: BackupChunks { first: Some(first), parts, done: false },
        })
    }
}

impl BackupChunks {
    /// The next bytes; `None` after the last. An error ends it.
    pub async fn next(&mut self) -> Option<Result<Bytes, ServiceError>> {
        if let Some(first) = self.first.take() {
            return Some(Ok(first));
        }
        if self.done {
            return None;
        }
        let part = self.parts.recv().await;
        self.done = !matches!(part, Some(Part::Chunk(_)));
        match part {
            Some(Part::Chunk(chunk)) => Some(Ok(chunk)),
            Some(Part::End) => None,
            Some(Part::Failed(error)) => Some(Err(error)),
            None => Some(Err(ServiceError::Overloaded {
                reason: "the backup was not taken fast enough and is cut off".into(),
            })),
        }
    }

    /// The same as a stream.
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes, ServiceError>> + Send {
        futures::stream::unfold(self, |mut chunks| async move {
            let next = chunks.next().await?;
            Some((next, chunks))
        })
    }
}

/// Takes the bytes of the backup and hands them on in chunks.
struct Chunks {
    buffer: BytesMut,
    sender: Sender<Part>,
    stall_timeout: Duration,
    ends: Instant,
    /// The client is gone or too slow: nothing more is said to it.
    left: bool,
}

impl Chunks {
    /// Waits for room, on a thread that may wait.
    fn send(&mut self, part: Part) -> io::Result<()> {
        let sent = self.wait_and_send(part);
        self.left |= sent.is_err();
        sent
    }

    fn wait_and_send(&self, mut part: Part) -> io::Result<()> {
        let stalled = Instant::now() + self.stall_timeout;
        loop {
            match self.sender.try_send(part) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Closed(_)) => return Err(io::ErrorKind::BrokenPipe.into()),
                Err(TrySendError::Full(back)) => part = back,
            }
            if Instant::now() >= stalled.min(self.ends) {
                return Err(io::ErrorKind::TimedOut.into());
            }
            thread::sleep(FULL_PAUSE);
        }
    }

    fn send_buffer(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let chunk = self.buffer.split().freeze();
        self.send(Part::Chunk(chunk))
    }

    /// Says how it ended. For a client that left, the channel ends without the last word.
    fn finish(mut self, outcome: Result<(), ServiceError>) {
        let end = match outcome {
            Ok(()) => self.send_buffer().and_then(|()| self.send(Part::End)),
            Err(_) if self.left => Err(io::ErrorKind::BrokenPipe.into()),
            Err(error) => self.send(Part::Failed(error)),
        };
        if let Err(error) = end {
            tracing::warn!(reason = %error, "a backup was not taken to its end and is cut off");
        }
    }
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = CHUNK_BYTES - self.buffer.len();
        let taken = bytes.len().min(room);
        self.buffer.extend_from_slice(&bytes[..taken]);
        if self.buffer.len() == CHUNK_BYTES {
            self.send_buffer()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
