//! Serves on a bound socket: HTTP/1.1 and HTTP/2, told apart by the first bytes, in clear text or inside TLS.
//!
//! Everything a stranger can open is bounded: connections, the time for a TLS handshake, to say what protocol is spoken
//! and to send a head, streams of a connection, size of the headers. Closing stops new work first and gives the old a
//! time to finish.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use llm_config_tls::server::TlsStream;
use llm_config_tls::{Failures, Names, ServerTls, refusal};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, BufWriter, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Sleep, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::activity::{Activity, Answering, Counted};
use crate::metrics::Metrics;
use crate::peer::{ClientCertificate, Peer, PeerAddress};

/// Time in which a client gets through the TLS handshake and says which protocol it speaks; and, once more, in which it
/// sends the head of each HTTP/1.1 request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a connection may stay without a request.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(300);
/// How long a client may leave what was sent to it unread while more is waiting.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a connection that is closed for being idle may take to say goodbye.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after the system refused a connection (usually: too many open files), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const HTTP1_BUFFER_BYTES: usize = 64 << 10;
const HTTP2_STREAMS_MAX: u32 = 1_024;
const HTTP2_HEADER_BYTES_MAX: u32 = 32 << 10;
const HTTP2_STREAM_WINDOW_BYTES: u32 = 512 << 10;
/// What a connection may send that nobody has looked at yet; times the connections, this is memory that strangers fill.
const HTTP2_CONNECTION_WINDOW_BYTES: u32 = 1 << 20;
const HTTP2_SEND_BUFFER_BYTES: usize = 256 << 10;
const HTTP2_KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(20);
const HTTP2_KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// Answers that are collected before they are written; a larger piece is written as it is.
const WRITE_BUFFER_BYTES: usize = 16 << 10;
/// What every HTTP/2 client sends first (RFC 9113, section 3.4).
const HTTP2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What every TLS client sends first: the type of a handshake record (RFC 8446, section 5.1).
const TLS_HANDSHAKE: u8 = 22;

type Outcome = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// What a listener serves, and when it ends.
#[derive(Clone)]
pub(super) struct Listener<S> {
    /// Word of the metrics.
    pub(super) name: &'static str,
    pub(super) router: S,
    /// What connections are secured with; in clear text without.
    pub(super) tls: Option<Arc<ServerTls>>,
    /// Tells of connections that did not come to a request.
    pub(super) failures: Arc<Failures>,
    pub(super) connections_max: usize,
    pub(super) idle_timeout: Duration,
    pub(super) metrics: Arc<Metrics>,
    /// Owner of the connections' tasks.
    pub(super) tasks: TaskTracker,
    /// No new connections and requests; those in flight finish.
    pub(super) closing: CancellationToken,
    /// Connections end at once.
    pub(super) abort: CancellationToken,
}

impl<A: Answering> Listener<A> {
    /// Accepts until closing. With all connections in use, new ones wait in the system's queue.
    pub(super) async fn serve(self, listener: TcpListener) {
        self.metrics.known_listener(self.name, self.connections_max);
        let connections = Arc::new(Semaphore::new(self.connections_max));
        loop {
            let accepted = tokio::select! {
                () = self.closing.cancelled() => return,
                permit = Arc::clone(&connections).acquire_owned() => match permit {
                    Ok(permit) => tokio::select! {
                        () = self.closing.cancelled() => return,
                        accepted = listener.accept() => accepted.map(|accepted| (accepted, permit)),
                    },
                    // Nobody closes the semaphore.
                    Err(_) => return,
                },
            };
            match accepted {
                Ok(((stream, address), permit)) => {
                    let this = self.clone();
                    let open = self.metrics.connection(self.name);
                    self.tasks.spawn(async move {
                        // A client that breaks its connection is its own affair.
                        let _broken = this.serve_connection(stream, address).await;
                        drop((open, permit));
                    });
                }
                Err(error) => {
                    tracing::warn!(listener = self.name, reason = %error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn serve_connection(&self, stream: TcpStream, address: SocketAddr) -> Outcome {
        stream.set_nodelay(true)?;
        let peer = Peer { address: PeerAddress::new(address), certificate: None };
        match &self.tls {
            None => {
                let Some(greeted) = self.in_time(Greeted::read(stream)).await? else {
                    return Ok(());
                };
                if greeted.speaks_tls() {
                    self.failures.note(
                        address,
                        "a client speaks TLS, and this listener does not: give the node --tls-cert and --tls-key, or \
                         the client http://",
                    );
                    return Ok(());
                }
                self.converse(greeted, peer).await
            }
            Some(tls) => {
                let greeting = async {
                    let stream = self.secure(tls, stream, address).await?;
                    let certificate = client_certificate(&stream)?;
                    Ok::<_, io::Error>((Greeted::read(stream).await?, certificate))
                };
                match self.in_time(greeting).await? {
                    Some((greeted, certificate)) => {
                        self.converse(greeted, Peer { certificate, ..peer }).await
                    }
                    None => Ok(()),
                }
            }
        }
    }

    /// What a client does before its first request; `None` when the listener closes meanwhile.
    async fn in_time<T>(
        &self,
        greeting: impl Future<Output = io::Result<T>>,
    ) -> io::Result<Option<T>> {
        tokio::select! {
            () = self.closing.cancelled() => Ok(None),
            greeted = timeout(HEAD_TIMEOUT, greeting) => greeted?.map(Some),
        }
    }

    async fn secure(
        &self,
        tls: &ServerTls,
        stream: TcpStream,
        address: SocketAddr,
    ) -> io::Result<TlsStream<TcpStream>> {
        tls.acceptor().accept(stream).await.inspect_err(|error| {
            if let Some(reason) = refusal(error) {
                self.metrics.tls_handshake_failed(self.name);
                self.failures.note(address, &format!("a TLS handshake failed: {reason}"));
            }
        })
    }

    async fn converse<S>(&self, greeted: Greeted<S>, peer: Peer) -> Outcome
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let builder = protocol(greeted.speaks_http2());
        let activity = Arc::new(Activity::new());
        let cut = CancellationToken::new();
        let counted = Counted::new(self.router.clone(), peer, Arc::clone(&activity), cut.clone());
        let service = TowerToHyperService::new(counted);
        let connection = builder.serve_connection(TokioIo::new(greeted), service);
        tokio::pin!(connection);
        tokio::select! {
            // Most wake-ups are for the connection.
            biased;
            done = connection.as_mut() => return done,
            () = cut.cancelled() => return Ok(()),
            () = activity.idle_for(self.idle_timeout) => {
                connection.as_mut().graceful_shutdown();
                return timeout(GOODBYE_TIMEOUT, connection).await?;
            }
            () = self.closing.cancelled() => connection.as_mut().graceful_shutdown(),
        }
        tokio::select! {
            () = cut.cancelled() => Ok(()),
            done = connection => done,
            () = self.abort.cancelled() => Ok(()),
        }
    }
}

/// The certificate that the client has shown; the handshake has verified it.
fn client_certificate(stream: &TlsStream<TcpStream>) -> io::Result<Option<ClientCertificate>> {
    let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let names = shown.map(Names::of).transpose().map_err(io::Error::other)?;
    Ok(names.map(ClientCertificate::new))
}

fn protocol(http2: bool) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HTTP1_BUFFER_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(HTTP2_STREAMS_MAX)
        .max_header_list_size(HTTP2_HEADER_BYTES_MAX)
        .initial_stream_window_size(HTTP2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(HTTP2_CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(HTTP2_SEND_BUFFER_BYTES)
        .keep_alive_interval(HTTP2_KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(HTTP2_KEEP_ALIVE_TIMEOUT);
    if http2 { builder.http2_only() } else { builder.http1_only() }
}

/// A connection whose first bytes have been read to see what it speaks, and are read once more by the server; and whose
/// answers are collected until they are flushed.
///
/// hyper-util can tell the protocols apart as well, but waits without limit for a client that says nothing.
struct Greeted<S> {
    stream: BufWriter<S>,
    first: [u8; HTTP2_PREFACE.len()],
    read: usize,
    given_back: usize,
    /// Runs while the system takes nothing more.
    blocked: Option<Pin<Box<Sleep>>>,
    /// What is to be flushed has let others go first.
    gave_way: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Greeted<S> {
    async fn read(stream: S) -> io::Result<Self> {
        let mut this = Self {
            stream: BufWriter::with_capacity(WRITE_BUFFER_BYTES, stream),
            first: [0; HTTP2_PREFACE.len()],
            read: 0,
            given_back: 0,
            blocked: None,
            gave_way: false,
        };
        while this.read < HTTP2_PREFACE.len() && HTTP2_PREFACE.starts_with(&this.first[..this.read])
        {
            match this.stream.read(&mut this.first[this.read..]).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => this.read += n,
            }
        }
        Ok(this)
    }

    /// Lets the tasks that are ready run once before something is sent, so that answers which become ready together leave
    /// in one system call and one packet: the call costs more than most answers do. Only where requests share the
    /// connection; the wait is a turn of the scheduler, not of a clock.
    fn gives_way(&mut self, cx: &Context<'_>) -> bool {
        let gives = !self.gave_way && self.speaks_http2() && !self.stream.buffer().is_empty();
        self.gave_way = true;
        if gives {
            cx.waker().wake_by_ref();
        }
        gives
    }

    /// Ends the connection of a client that does not read for too long.
    fn limit<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.blocked = None;
            return written;
        }
        let blocked = self.blocked.get_or_insert_with(|| Box::pin(sleep(WRITE_TIMEOUT)));
        match blocked.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }

    fn speaks_http2(&self) -> bool {
        self.first == *HTTP2_PREFACE
    }

    fn speaks_tls(&self) -> bool {
        self.first[0] == TLS_HANDSHAKE
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Greeted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let waiting = &self.first[self.given_back..self.read];
        if waiting.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let n = waiting.len().min(buf.remaining());
        buf.put_slice(&waiting[..n]);
        self.given_back += n;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Greeted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.limit(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.limit(cx, written)
    }

    /// HTTP/2 copies small pieces into its frames when it is told no, and flushes between them when it is told yes.
    fn is_write_vectored(&self) -> bool {
        !self.speaks_http2() && self.stream.is_write_vectored()
    }

    /// TLS keeps what the system does not take, and waits here.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.gives_way(cx) {
            return Poll::Pending;
        }
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        if flushed.is_ready() {
            self.gave_way = false;
        }
        self.limit(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.limit(cx, shut)
    }
}

#[cfg(test)]
#[path = "../../tls/tests/authority/mod.rs"]
mod authority;

#[cfg(test)]
mod tests {
    use axum::{Extension, Router};
    use llm_config_tls::pki_types::pem::PemObject as _;
    use llm_config_tls::pki_types::{CertificateDer, PrivateKeyDer};
    use llm_config_tls::{File, Files, TlsConnector, client, provider};
    use rustls::{ClientConfig, RootCertStore};
    use tokio::io::AsyncWriteExt;

    use super::authority::{Authority, Issued};

    use super::*;

    struct Served {
        address: std::net::SocketAddr,
        metrics: Arc<Metrics>,
        closing: CancellationToken,
        tasks: TaskTracker,
    }

    async fn serve(router: Router, connections_max: usize) -> Served {
        serve_with(router, connections_max, None).await
    }

    async fn serve_with(
        router: Router,
        connections_max: usize,
        tls: Option<Arc<ServerTls>>,
    ) -> Served {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let (metrics, tasks, closing) =
            (Arc::new(Metrics::new()), TaskTracker::new(), CancellationToken::new());
        let listener = Listener {
            name: "http",
            router,
            tls,
            failures: Arc::new(Failures::new("http listener")),
            connections_max,
            idle_timeout: IDLE_TIMEOUT,
            metrics: Arc::clone(&metrics),
            tasks: tasks.clone(),
            closing: closing.clone(),
            abort: CancellationToken::new(),
        };
        tasks.spawn(listener.serve(socket));
        Served { address, metrics, closing, tasks }
    }

    fn hello() -> Router {
        Router::new().route("/", axum::routing::get(|| async { "hello" }))
    }

    /// Answers with what it was told of the client.
    fn who() -> Router {
        let answer = async |peer: Extension<PeerAddress>,
                            shown: Option<Extension<ClientCertificate>>| {
            let name = shown.and_then(|shown| shown.names().common_name.clone());
            format!("{} {}", peer.0.0, name.as_deref().unwrap_or("nobody"))
        };
        Router::new().route("/", axum::routing::get(answer))
    }

    fn secured(authority: &Authority, clients: &Authority) -> Arc<ServerTls> {
        let folder = tempfile::tempdir().unwrap();
        let written = authority.issue("server", &["localhost"]).write(folder.path(), "server");
        let ca = folder.path().join("ca.pem");
        std::fs::write(&ca, clients.pem()).unwrap();
        let file = |option, path| File { option, path };
        let files = Files {
            certificate: file("--tls-cert", written.certificate),
            key: file("--tls-key", written.key),
        };
        ServerTls::for_clients(files, Some(file("--tls-client-ca", ca))).unwrap()
    }

    async fn connect(
        served: &Served,
        authority: &Authority,
        shown: Option<Issued>,
    ) -> io::Result<client::TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match shown {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let chain = CertificateDer::from_pem_slice(own.certificate.as_bytes()).unwrap();
                let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
                builder.with_client_auth_cert(vec![chain], key).unwrap()
            }
        };
        let stream = TcpStream::connect(served.address).await.unwrap();
        let name = "localhost".try_into().unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    async fn exchange<S>(stream: &mut S, request: &[u8]) -> String
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        stream.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await.unwrap().unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    #[tokio::test]
    async fn a_request_in_single_bytes_is_answered() {
        let served = serve(hello(), 10).await;
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let request = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        for byte in &request[..request.len() - 1] {
            stream.write_all(&[*byte]).await.unwrap();
            stream.flush().await.unwrap();
        }
        let answer = exchange(&mut stream, &request[request.len() - 1..]).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"), "{answer}");
    }

    #[tokio::test]
    async fn http2_without_upgrade_is_answered_with_a_settings_frame() {
        let served = serve(hello(), 10).await;
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        stream.write_all(HTTP2_PREFACE).await.unwrap();
        stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
        let mut frame = [0; 9];
        timeout(Duration::from_secs(10), stream.read_exact(&mut frame)).await.unwrap().unwrap();
        assert_eq!(frame[3], 4, "the first frame is SETTINGS: {frame:?}");
    }

    #[tokio::test]
    async fn closing_ends_idle_connections_and_accepts_no_more() {
        let served = serve(hello(), 10).await;
        let mut idle = TcpStream::connect(served.address).await.unwrap();
        idle.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut first = [0; 12];
        idle.read_exact(&mut first).await.unwrap();
        served.closing.cancel();
        served.tasks.close();
        timeout(Duration::from_secs(10), served.tasks.wait()).await.expect("connections drain");
        assert!(TcpStream::connect(served.address).await.is_err());
    }

    #[tokio::test]
    async fn connections_beyond_the_bound_wait_for_a_place() {
        let served = serve(hello(), 1).await;
        let mut first = TcpStream::connect(served.address).await.unwrap();
        first.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut head = [0; 12];
        first.read_exact(&mut head).await.unwrap();
        let request = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        let mut second = TcpStream::connect(served.address).await.unwrap();
        second.write_all(request).await.unwrap();
        let page = String::from_utf8(served.metrics.render().unwrap()).unwrap();
        assert!(page.contains("llm_config_connections{listener=\"http\"} 1"), "{page}");
        drop(first);
        assert!(exchange(&mut second, b"").await.starts_with("HTTP/1.1 200"));
    }

    /// Counts what it is given to write.
    #[derive(Default)]
    struct Counting {
        writes: usize,
        written: Vec<u8>,
    }

    impl AsyncRead for Counting {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Counting {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.writes += 1;
            self.written.extend_from_slice(bytes);
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn what_is_ready_in_the_same_turn_is_sent_in_one_piece() {
        let mut greeted = Greeted {
            stream: BufWriter::new(Counting::default()),
            first: *HTTP2_PREFACE,
            read: 0,
            given_back: 0,
            blocked: None,
            gave_way: false,
        };
        for answers in 1..=2 {
            let mut more = 0;
            std::future::poll_fn(|cx| {
                // Each time that the connection is polled another answer has become ready, up to three.
                if more < 3 {
                    more += 1;
                    let written = Pin::new(&mut greeted).poll_write(cx, b"answer");
                    assert!(matches!(written, Poll::Ready(Ok(6))), "{written:?}");
                }
                Pin::new(&mut greeted).poll_flush(cx)
            })
            .await
            .unwrap();
            let sent = greeted.stream.get_ref();
            assert_eq!((sent.writes, sent.written.len()), (answers, answers * 12), "two at a time");
        }
    }

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

    #[tokio::test]
    async fn a_request_knows_where_it_comes_from() {
        let served = serve(who(), 10).await;
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        let own = stream.local_addr().unwrap();
        let answer = exchange(&mut stream, REQUEST).await;
        assert!(answer.ends_with(&format!("{own} nobody")), "{answer}");
    }

    #[tokio::test]
    async fn a_request_knows_whose_certificate_was_shown() {
        let (authority, clients) = (Authority::new("a"), Authority::new("b"));
        let served = serve_with(who(), 10, Some(secured(&authority, &clients))).await;
        let robot = clients.issue("robot", &[]);
        for (shown, name) in [(Some(robot), "robot"), (None, "nobody")] {
            let mut stream = connect(&served, &authority, shown).await.unwrap();
            let own = stream.get_ref().0.local_addr().unwrap();
            let answer = exchange(&mut stream, REQUEST).await;
            assert!(answer.ends_with(&format!("{own} {name}")), "{answer}");
        }
    }

    #[tokio::test]
    async fn a_connection_that_waits_for_its_handshake_has_one_of_the_places_and_ends_with_the_listener()
     {
        let authority = Authority::new("a");
        let served = serve_with(hello(), 1, Some(secured(&authority, &authority))).await;
        let silent = TcpStream::connect(served.address).await.unwrap();
        let mut second = std::pin::pin!(connect(&served, &authority, None));
        let early = timeout(Duration::from_millis(200), second.as_mut()).await;
        assert!(early.is_err(), "the only place is taken");
        drop(silent);
        let mut stream = timeout(Duration::from_secs(10), second).await.unwrap().unwrap();
        assert!(exchange(&mut stream, REQUEST).await.ends_with("hello"));

        let _silent = TcpStream::connect(served.address).await.unwrap();
        served.closing.cancel();
        served.tasks.close();
        timeout(Duration::from_secs(10), served.tasks.wait()).await.expect("nothing is waited for");
    }

    #[tokio::test]
    async fn failed_handshakes_are_counted_and_silence_is_not() {
        let authority = Authority::new("a");
        let served = serve_with(hello(), 10, Some(secured(&authority, &authority))).await;
        drop(TcpStream::connect(served.address).await.unwrap());
        let mut plain = TcpStream::connect(served.address).await.unwrap();
        plain.write_all(REQUEST).await.unwrap();
        let mut alert = Vec::new();
        // The connection may break before or after the alert is read.
        let _broken = plain.read_to_end(&mut alert).await;
        assert!(!String::from_utf8_lossy(&alert).contains("HTTP"));
        let page = String::from_utf8(served.metrics.render().unwrap()).unwrap();
        let line = "tls_handshake_failures_total{listener=\"http\"} 1\n";
        assert!(page.contains(line), "{page}");
    }
}
