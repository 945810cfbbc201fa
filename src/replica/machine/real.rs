//! The machine that a program runs on.

use std::io;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

pub(crate) use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint};

pub(crate) use std::{fs, os};
pub(crate) use tokio::task::{block_in_place, spawn_blocking};

/// A thread that serves a queue.
pub(crate) type QueueThread = std::thread::JoinHandle<()>;

/// Starts a thread that hands `turn` what comes next, or that nothing came for a time, until that returns false.
pub(crate) fn serve_queue<R: Send + 'static>(
    name: &str,
    queue: Receiver<R>,
    idle: Duration,
    mut turn: impl FnMut(Result<R, RecvTimeoutError>, &Receiver<R>) -> bool + Send + 'static,
) -> io::Result<QueueThread> {
    std::thread::Builder::new()
        .name(name.into())
        .spawn(move || while turn(queue.recv_timeout(idle), &queue) {})
}

/// Chunks of a snapshot that are read ahead of the network.
pub(crate) const READ_AHEAD: usize = 4;

/// Hands a message over and waits for room. False when nobody takes it any more.
pub(crate) fn hand_over<T>(sender: &tokio::sync::mpsc::Sender<T>, message: T) -> bool {
    sender.blocking_send(message).is_ok()
}

/// Where other nodes arrive.
pub type Listener = std::net::TcpListener;

/// Size of the disk that holds `path`, and what is free of it; in bytes.
pub(crate) fn disk_space(path: &Path) -> io::Result<(u64, u64)> {
    let disk = rustix::fs::statvfs(path)?;
    Ok((disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize))
}

/// Milliseconds since the Unix epoch.
pub(crate) fn wall_clock_ms() -> u64 {
    let since =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Begins to listen.
pub(crate) fn listen(listener: Listener) -> io::Result<TcpListener> {
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Arriving connections in clear text.
pub(crate) fn incoming(listener: TcpListener) -> TcpIncoming {
    // On the listener: the server builder applies its own setting only to sockets that it binds itself. Without it
    // every small reply can wait for a delayed acknowledgement, 40 ms.
    TcpIncoming::from(listener).with_nodelay(Some(true))
}

/// Whether connections to an address are refused: its machine answers, and nobody listens there.
pub(crate) async fn refuses(address: &str, limit: Duration) -> bool {
    let connecting = tokio::time::timeout(limit, tokio::net::TcpStream::connect(address)).await;
    matches!(connecting, Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused)
}

/// A connection in clear text, made when it is first used.
pub(crate) fn channel(endpoint: &Endpoint, _address: &str) -> Channel {
    endpoint.connect_lazy()
}
