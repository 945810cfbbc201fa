//! A server process: started inside its node's network namespace, its standard error kept in a file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use rustix::fs::OFlags;
use rustix::process::{Pid, Signal};

use super::net;
use super::run_file;

/// A server drains for ten seconds when it is asked to stop; then it must be gone.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(5);
const REST_TIMEOUT: Duration = Duration::from_secs(5);
const PIPE_BYTES: usize = 4096;
/// More of a log is not kept; a server that says more is broken in a way that the first part shows.
const LOG_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// A running server.
#[derive(Debug)]
pub struct Server {
    child: Child,
    identity: run_file::Process,
    log: Arc<Log>,
    /// The reading end of its standard error, to look at.
    pipe: OwnedFd,
    /// Whoever reads it.
    reader: Option<JoinHandle<()>>,
}

/// Whether anybody reads the server's standard error.
#[derive(Debug)]
struct Log {
    path: PathBuf,
    blocked: AtomicBool,
    /// Whether the reader has noticed.
    rests: AtomicBool,
}

fn unless_full(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::WouldBlock { Ok(()) } else { Err(error) }
}

impl Server {
    /// Starts `command` inside a network namespace.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(mut command: Command, namespace: &str, log: &Path) -> anyhow::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        // A child is born into the namespace of the thread that starts it.
        let mut child = net::inside(namespace, move || {
            command.spawn().with_context(|| format!("cannot start {:?}", command.get_program()))
        })?;
        let log = Arc::new(Log {
            path: log.to_path_buf(),
            blocked: AtomicBool::new(false),
            rests: AtomicBool::new(false),
        });
        let identity =
            run_file::Process::of_child(child.id()).context("/proc does not know a child")?;
        let stderr = child.stderr.take().context("a child without a standard error")?;
        // As small as it gets, so that a log that nobody reads is soon full.
        rustix::pipe::fcntl_setpipe_size(&stderr, PIPE_BYTES)?;
        let pipe = stderr.as_fd().try_clone_to_owned()?;
        let mut server = Self { child, identity, log: log.clone(), pipe, reader: None };
        let file = OpenOptions::new().create(true).append(true).open(&log.path);
        let file = file.with_context(|| format!("cannot write {}", log.path.display()))?;
        server.reader = Some(thread::spawn(move || drain(stderr, file, &log)));
        Ok(server)
    }

    /// What tells this process from all others.
    #[must_use]
    pub fn identity(&self) -> run_file::Process {
        self.identity
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        rustix::process::kill_process(pid.context("a process number out of range")?, signal)
            .context("cannot send a signal")
    }

    /// Its state in the kernel's letters: `R` runs, `S` sleeps, `T` is stopped.
    #[must_use]
    pub fn state(&self) -> Option<char> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).ok()?;
        stat.rsplit_once(") ")?.1.chars().next()
    }

    /// Ends it the hard way, and waits until it is gone.
    ///
    /// # Errors
    /// When it does not go.
    pub fn kill(&mut self) -> anyhow::Result<ExitStatus> {
        if let Some(status) = self.ended()? {
            return Ok(status);
        }
        self.child.kill().context("cannot kill a server")?;
        self.wait("killed")
    }

    /// Asks it to stop, and waits until it has.
    ///
    /// # Errors
    /// When it does not.
    pub fn stop(&mut self) -> anyhow::Result<ExitStatus> {
        if self.ended()?.is_none() {
            self.signal(Signal::TERM)?;
        }
        self.wait("told to stop")
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    /// When it goes on.
    pub fn wait(&mut self, why: &str) -> anyhow::Result<ExitStatus> {
        let deadline = Instant::now() + STOP_TIMEOUT;
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            let pid = self.child.id();
            anyhow::ensure!(Instant::now() < deadline, "process {pid} was {why} and goes on");
            thread::sleep(POLL);
        }
    }

    /// Waits until everything is in the log that a server which has ended said. Nobody may be told to stop reading it.
    pub fn join_log(&mut self) {
        if let Some(reader) = self.reader.take() {
            // It reports nothing, and a log with a hole shows by what is missing.
            drop(reader.join());
        }
    }

    /// Stops reading its standard error, and leaves no room there for what it says next.
    ///
    /// # Errors
    /// When it is still read after a while.
    pub fn block_log(&self) -> anyhow::Result<()> {
        self.log.blocked.store(true, Ordering::Release);
        let read_end = format!("/proc/self/fd/{}", self.pipe.as_raw_fd());
        let mut pipe = OpenOptions::new()
            .write(true)
            .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
            .open(read_end)?;
        // The reader waits for something to read, and notices then; or it has something, and notices after that.
        let deadline = Instant::now() + REST_TIMEOUT;
        pipe.write_all(b"\n").or_else(unless_full)?;
        while !self.log.rests.load(Ordering::Acquire) {
            ensure!(Instant::now() < deadline, "the log of a server is read although it must not");
            thread::sleep(POLL);
        }
        loop {
            match pipe.write_all(b"\n") {
                Ok(()) => {}
                Err(error) => return Ok(unless_full(error)?),
            }
        }
    }

    /// Goes on reading its standard error.
    pub fn open_log(&self) {
        self.log.blocked.store(false, Ordering::Release);
    }

    /// Whether one of its threads waits for room in a pipe.
    ///
    /// # Errors
    /// When it has ended, or the kernel does not tell.
    pub fn waits_for_log(&self) -> anyhow::Result<bool> {
        for thread in fs::read_dir(format!("/proc/{}/task", self.identity.pid))? {
            // Threads come and go.
            let waits = fs::read_to_string(thread?.path().join("wchan")).unwrap_or_default();
            if waits.contains("pipe_write") {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended; the run file knows it otherwise.
        drop(self.kill());
    }
}

fn drain(mut stderr: ChildStderr, mut file: File, log: &Log) {
    let mut buffer = vec![0; 8192];
    let mut written = 0;
    loop {
        while log.blocked.load(Ordering::Acquire) {
            log.rests.store(true, Ordering::Release);
            thread::sleep(POLL);
        }
        log.rests.store(false, Ordering::Release);
        match stderr.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(count) if written < LOG_BYTES_MAX => {
                written += count as u64;
                if file.write_all(&buffer[..count]).is_err() {
                    return;
                }
            }
            Ok(_) => {}
        }
    }
}
