//! Connections between nodes inside TLS: both sides show a certificate, and it says which node each of them is.
//!
//! Who shows none, or one of another authority, does not get as far as a message. Certificates that are exchanged count
//! for new connections; those that are open stay.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use hyper_util::rt::TokioIo;
use llm_config_tls::pki_types::{CertificateDer, ServerName};
use llm_config_tls::{Names, client, node_name, refusal, server};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tonic::transport::server::Connected;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::local::Secure;
use crate::machine::TcpListener;

/// Time for the handshake of an arriving connection.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);
/// Handshakes at once. They have places of their own, so that strangers who never finish one keep no node out for longer
/// than the time above.
const HANDSHAKES_MAX: usize = 256;
/// Open connections: a handful from each node.
const CONNECTIONS_MAX: usize = 1_024;
/// Pause after the system refused a connection (usually: too many open files), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Time to reach the other node, before the handshake.
const REACH_TIMEOUT: Duration = Duration::from_millis(400);
/// Time to reach it and to get through the handshake: it is one or two round trips, and work for both processors.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// The node that the certificate of a connection names; in the extensions of every message that comes over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Certified(pub(crate) u64);

/// An arriving connection whose handshake is done.
pub(crate) struct Secured {
    stream: server::TlsStream<TcpStream>,
    node: Certified,
    /// Of [`CONNECTIONS_MAX`].
    _place: OwnedSemaphorePermit,
}

impl Connected for Secured {
    type ConnectInfo = Certified;

    fn connect_info(&self) -> Certified {
        self.node
    }
}

/// Connections of other nodes. A handshake that takes its time holds up no other.
pub(crate) fn incoming(
    listener: TcpListener,
    secure: Arc<Secure>,
) -> impl Stream<Item = io::Result<Secured>> {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    futures::stream::unfold(listener, |listener| async move {
        let accepted = accept(&listener).await;
        Some((accepted, listener))
    })
    .map(move |(stream, address)| admit(stream, address, Arc::clone(&secure), Arc::clone(&places)))
    .buffer_unordered(HANDSHAKES_MAX)
    .filter_map(|admitted| std::future::ready(admitted.map(Ok)))
}

async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                tracing::warn!(listener = "raft", reason = %error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn admit(
    stream: TcpStream,
    address: SocketAddr,
    secure: Arc<Secure>,
    places: Arc<Semaphore>,
) -> Option<Secured> {
    match timeout(HANDSHAKE_TIMEOUT, shake_hands(stream, &secure)).await {
        Ok(Ok((stream, node))) => match places.try_acquire_owned() {
            Ok(place) => Some(Secured { stream, node, _place: place }),
            Err(_) => {
                secure.arriving.note(address, "too many connections of nodes are open");
                None
            }
        },
        Ok(Err(error)) => {
            if let Some(reason) = refusal(&error) {
                secure.arriving.note(address, &reason);
            }
            None
        }
        Err(_) => {
            secure.arriving.note(address, "the TLS handshake took too long");
            None
        }
    }
}

async fn shake_hands(
    stream: TcpStream,
    secure: &Secure,
) -> io::Result<(server::TlsStream<TcpStream>, Certified)> {
    // Without it every small reply can wait for a delayed acknowledgement, 40 ms.
    stream.set_nodelay(true)?;
    let stream = secure.tls.acceptor().accept(stream).await?;
    let node = named(stream.get_ref().1.peer_certificates())?;
    Ok((stream, Certified(node)))
}

/// The node that a verified certificate names.
fn named(shown: Option<&[CertificateDer<'_>]>) -> io::Result<u64> {
    let Some(certificate) = shown.and_then(<[_]>::first) else {
        return Err(io::Error::other("the other side showed no certificate"));
    };
    let names = Names::of(certificate).map_err(io::Error::other)?;
    names.node_id().ok_or_else(|| {
        io::Error::other(format!(
            "the certificate of the other side names no node: it needs exactly one DNS name like {}, and has {:?}",
            node_name(1),
            names.dns
        ))
    })
}

/// A lazily opened connection to one node, and to no other that may answer at its address.
pub(crate) fn channel(
    endpoint: &Endpoint,
    secure: Arc<Secure>,
    target: u64,
    address: &str,
) -> Channel {
    let address: Arc<str> = address.into();
    endpoint.connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
        let (secure, address) = (Arc::clone(&secure), Arc::clone(&address));
        async move { reach(&secure, target, &address).await.map(TokioIo::new) }
    }))
}

async fn reach(
    secure: &Secure,
    target: u64,
    address: &str,
) -> io::Result<client::TlsStream<TcpStream>> {
    // Nodes that are down are no news; what follows is.
    let stream = timeout(REACH_TIMEOUT, TcpStream::connect(address)).await??;
    stream.set_nodelay(true)?;
    let secured = async {
        let name = ServerName::try_from(node_name(target)).map_err(io::Error::other)?;
        let stream = secure.tls.connector().connect(name, stream).await?;
        // The verifier also accepts a certificate of several nodes, or of any.
        let found = named(stream.get_ref().1.peer_certificates())?;
        if found != target {
            return Err(io::Error::other(format!("the certificate there is that of node {found}")));
        }
        Ok(stream)
    };
    secured.await.map_err(|error| {
        let reason = refusal(&error).unwrap_or_else(|| {
            "the other side closed it during the TLS handshake; does it run with --raft-tls-cert?".to_owned()
        });
        let reason = format!("node {target} at {address}: {reason}");
        secure.leaving.note(address, &reason);
        io::Error::new(error.kind(), reason)
    })
}

impl AsyncRead for Secured {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Secured {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
