//! Log lines on stderr, as text or JSON, through a bounded queue and one writer thread.
//!
//! A reader of stderr that stops reading must not stop the node: when the queue is full, lines are dropped and counted,
//! and a line says so as soon as there is room again. Nothing here rotates or ships logs.

use std::io::{self, IsTerminal, Write};
use std::str::FromStr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

/// Lines waiting for the writer thread.
const QUEUE_LINES_MAX: usize = 8_192;
/// A line longer than this is cut, so that the queue is bounded in bytes too.
const LINE_BYTES_MAX: usize = 16 << 10;
/// How long the end of the process waits for the last lines.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

static DROPPED_LINES: AtomicU64 = AtomicU64::new(0);
static QUEUE: OnceLock<SyncSender<Message>> = OnceLock::new();

/// Form of the log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One line of words for each event.
    Text,
    /// One JSON object for each event.
    Json,
}

impl Format {
    /// The word of the option.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(format!("{text:?} is no log format; give text or json")),
        }
    }
}

enum Message {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

/// Lines that nobody will read, since the start of the process.
#[must_use]
pub fn dropped_lines() -> u64 {
    DROPPED_LINES.load(Ordering::Relaxed)
}

/// Starts logging for the whole process. The second call changes nothing.
pub fn init(format: Format, level: LevelFilter) -> io::Result<()> {
    let (sender, receiver) = sync_channel(QUEUE_LINES_MAX);
    if QUEUE.set(sender).is_err() {
        return Ok(());
    }
    thread::Builder::new()
        .name("log-writer".to_owned())
        .spawn(move || write_lines(&receiver, io::stderr()))?;
    let libraries = of_libraries(level);
    let targets = Targets::new().with_default(libraries).with_target("llm_config", level);
    let layer = match format {
        Format::Text => {
            fmt::layer().with_ansi(colours()).with_writer(Queue).with_filter(targets).boxed()
        }
        Format::Json => {
            fmt::layer().json().flatten_event(true).with_writer(Queue).with_filter(targets).boxed()
        }
    };
    // Only a second subscriber could fail, and then that one takes the events.
    let _already_set = tracing_subscriber::registry().with(layer).try_init();
    Ok(())
}

/// Libraries warn of what is no fault of this node, in words that `grep -i error` takes for one: a peer that is restarted makes
/// openraft report an error for each message to it. Who looks for such things turns the level up.
fn of_libraries(level: LevelFilter) -> LevelFilter {
    if level >= LevelFilter::DEBUG { LevelFilter::WARN } else { level.min(LevelFilter::ERROR) }
}

/// Waits, for a bounded time, until what was logged so far is written.
pub fn flush() {
    let Some(queue) = QUEUE.get() else { return };
    let (done, wait) = sync_channel(1);
    if queue.try_send(Message::Flush(done)).is_ok() {
        // A reader that does not read is the only reason for a timeout; the lines are lost then.
        let _timed_out = wait.recv_timeout(FLUSH_TIMEOUT);
    }
}

/// Says one sentence to the person at the terminal, whatever the log level; never blocks once logging runs.
pub fn say(sentence: &str) {
    match QUEUE.get() {
        Some(queue) => enqueue(queue, format!("{sentence}\n").into_bytes()),
        // Nobody reads stderr: there is nobody left to tell.
        None => drop(writeln!(io::stderr(), "{sentence}")),
    }
}

fn colours() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn enqueue(queue: &SyncSender<Message>, mut line: Vec<u8>) {
    if line.len() > LINE_BYTES_MAX {
        line.truncate(LINE_BYTES_MAX);
        line.extend_from_slice(b" [cut]\n");
    }
    if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
        queue.try_send(Message::Line(line))
    {
        DROPPED_LINES.fetch_add(1, Ordering::Relaxed);
    }
}

/// The writer thread. Ends when every sender is gone.
fn write_lines(receiver: &Receiver<Message>, mut out: impl Write) {
    let mut reported = 0;
    while let Ok(message) = receiver.recv() {
        match message {
            Message::Line(line) => {
                // Stderr may be closed; the service goes on.
                let _closed = out.write_all(&line);
            }
            Message::Flush(done) => {
                let _closed = out.flush();
                // The waiter may have given up.
                let _gone = done.try_send(());
            }
        }
        let dropped = dropped_lines();
        if dropped > reported {
            let _closed = writeln!(
                out,
                "{} log lines were dropped: stderr was not read fast enough",
                dropped - reported
            );
            reported = dropped;
        }
    }
}

/// Hands each formatted event to the writer thread.
struct Queue;

impl<'a> MakeWriter<'a> for Queue {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line
    }

    fn make_writer_for(&'a self, _meta: &tracing::Metadata<'_>) -> Line {
        Line
    }
}

/// The formatter writes a whole event in one call.
struct Line;

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(queue) = QUEUE.get() {
            enqueue(queue, bytes.to_vec());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Logs a panic as an error line of the chosen format, instead of the runtime's own free text.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let reason = panic.payload_as_str().unwrap_or("no message");
        tracing::event!(Level::ERROR, place, reason, "a task panicked");
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_drops_lines_and_never_blocks() {
        let (sender, receiver) = sync_channel(2);
        let before = dropped_lines();
        for _ in 0..5 {
            enqueue(&sender, b"line\n".to_vec());
        }
        assert_eq!(dropped_lines() - before, 3);
        drop(sender);
        let mut out = Vec::new();
        write_lines(&receiver, &mut out);
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.matches("line\n").count(), 2);
        assert!(text.contains("log lines were dropped"), "{text}");
    }

    #[test]
    fn libraries_tell_of_faults_and_of_more_when_asked() {
        for (level, libraries) in [
            (LevelFilter::OFF, LevelFilter::OFF),
            (LevelFilter::INFO, LevelFilter::ERROR),
            (LevelFilter::TRACE, LevelFilter::WARN),
        ] {
            assert_eq!(of_libraries(level), libraries);
        }
    }

    #[test]
    fn a_long_line_is_cut() {
        let (sender, receiver) = sync_channel(1);
        enqueue(&sender, vec![b'x'; LINE_BYTES_MAX + 1]);
        let Ok(Message::Line(line)) = receiver.recv() else { panic!("no line") };
        assert!(line.ends_with(b" [cut]\n") && line.len() < LINE_BYTES_MAX + 10);
    }
}
