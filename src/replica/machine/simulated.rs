//! The machine under a node of a deterministic simulation: files are on the simulated disk, what would block runs as a
//! task, threads are tasks, and the network and the clocks are those of the [`World`].

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;
use tonic::transport::{Channel, Endpoint, Uri};

pub(crate) use llm_config_simdisk::{fs, os};

/// What the nodes find around them. Every call comes from within a node.
pub trait World: Send + Sync {
    /// Connects to another node.
    fn connect(
        &self,
        address: String,
    ) -> Pin<Box<dyn Future<Output = io::Result<Connection>> + Send>>;

    /// Milliseconds since the Unix epoch, by the clock of the calling node.
    fn wall_clock_ms(&self) -> u64;

    /// How long the disk of the calling node takes now.
    fn disk_latency(&self) -> Duration;
}

static WORLD: OnceLock<Box<dyn World>> = OnceLock::new();

/// Says what the world is, once.
pub fn set_world(world: Box<dyn World>) {
    assert!(WORLD.set(world).is_ok(), "a process is one simulation");
}

#[allow(clippy::expect_used, reason = "without a world there is no simulation")]
fn world() -> &'static dyn World {
    WORLD.get().expect("a simulation begins with its world").as_ref()
}

/// Bytes both ways.
trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// A connection between two nodes.
pub struct Connection(Box<dyn Wire>);

impl Connection {
    /// Over these bytes.
    pub fn new(wire: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        Self(Box::new(wire))
    }
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Where other nodes arrive: whoever runs the simulation accepts, and passes on.
#[derive(Debug)]
pub struct Listener {
    arriving: mpsc::Receiver<Connection>,
    address: String,
}

impl Listener {
    /// At `address`, which is only told.
    #[must_use]
    pub fn new(address: String, arriving: mpsc::Receiver<Connection>) -> Self {
        Self { arriving, address }
    }

    pub(crate) fn local_addr(&self) -> String {
        self.address.clone()
    }
}

/// The shortest time that passes.
const TICK: Duration = Duration::from_millis(1);

pub(crate) fn block_in_place<T>(work: impl FnOnce() -> T) -> T {
    work()
}

pub(crate) fn spawn_blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    let latency = world().disk_latency();
    tokio::spawn(async move {
        tokio::time::sleep(latency).await;
        work()
    })
}

type Turn = Box<dyn FnMut() -> Option<bool> + Send>;

/// A task that serves a queue.
pub(crate) struct QueueThread(Arc<Mutex<Turn>>);

impl QueueThread {
    /// Serves what waits, to the end.
    pub(crate) fn join(self) -> Result<(), String> {
        let mut turn = self.0.lock();
        while turn() == Some(true) {}
        Ok(())
    }
}

/// A tick or more pass before what came is taken, as long as the disk takes.
#[allow(clippy::unnecessary_wraps, reason = "a thread may not start")]
pub(crate) fn serve_queue<R: Send + 'static>(
    _name: &str,
    queue: Receiver<R>,
    idle: Duration,
    mut turn: impl FnMut(Result<R, RecvTimeoutError>, &Receiver<R>) -> bool + Send + 'static,
) -> io::Result<QueueThread> {
    let mut rested = Duration::ZERO;
    // Dropped at the end, as by a thread: whoever sends then is told.
    let mut served = Some(queue);
    let turn: Turn = Box::new(move || {
        let Some(queue) = &served else { return Some(false) };
        let first = match queue.try_recv() {
            Ok(first) => Ok(first),
            Err(TryRecvError::Disconnected) => Err(RecvTimeoutError::Disconnected),
            Err(TryRecvError::Empty) if rested >= idle => Err(RecvTimeoutError::Timeout),
            Err(TryRecvError::Empty) => {
                rested += TICK;
                return None;
            }
        };
        rested = Duration::ZERO;
        let goes_on = turn(first, queue);
        if !goes_on {
            served = None;
        }
        Some(goes_on)
    });
    let thread = QueueThread(Arc::new(Mutex::new(turn)));
    let turn = Arc::clone(&thread.0);
    tokio::spawn(async move {
        loop {
            let pause = match turn.lock()() {
                Some(true) => world().disk_latency().max(TICK),
                Some(false) => return,
                None => TICK,
            };
            tokio::time::sleep(pause).await;
        }
    });
    Ok(thread)
}

/// All chunks of a snapshot: who reads them cannot wait.
pub(crate) const READ_AHEAD: usize = 16_384;

pub(crate) fn hand_over<T>(sender: &tokio::sync::mpsc::Sender<T>, message: T) -> bool {
    sender.try_send(message).is_ok()
}

/// There is always room.
#[allow(clippy::unnecessary_wraps, reason = "a real disk may not tell")]
pub(crate) fn disk_space(_path: &Path) -> io::Result<(u64, u64)> {
    Ok((1 << 40, 1 << 40))
}

pub(crate) fn wall_clock_ms() -> u64 {
    world().wall_clock_ms()
}

/// Stands for a socket where the crate names one; TLS is not simulated.
pub(crate) struct TcpListener(Listener);

impl TcpListener {
    #[allow(clippy::unused_async, reason = "as in tokio")]
    pub(crate) async fn accept(&self) -> io::Result<(tokio::net::TcpStream, SocketAddr)> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[allow(clippy::unnecessary_wraps, reason = "a socket may fail")]
pub(crate) fn listen(listener: Listener) -> io::Result<TcpListener> {
    Ok(TcpListener(listener))
}

pub(crate) fn incoming(listener: TcpListener) -> impl Stream<Item = io::Result<Connection>> {
    ReceiverStream::new(listener.0.arriving).map(Ok)
}

pub(crate) async fn refuses(address: &str, limit: Duration) -> bool {
    let connecting = tokio::time::timeout(limit, world().connect(address.to_owned())).await;
    matches!(connecting, Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused)
}

pub(crate) fn channel(endpoint: &Endpoint, address: &str) -> Channel {
    let address: Arc<str> = address.into();
    endpoint.connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
        let connecting = world().connect(address.to_string());
        async move { connecting.await.map(TokioIo::new) }
    }))
}
