//! A network between a client and a node, that can be made to fail.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Pass,
    /// What the node says is kept back.
    HoldAnswers,
    /// Connections are accepted and stay open, and nothing goes through either way.
    HalfOpen,
    /// Connections are closed as soon as they are made.
    Dead,
    /// What the node says comes in pieces of a few bytes.
    Stutter,
}

#[derive(Debug)]
pub(crate) struct Proxy {
    pub address: SocketAddr,
    /// The mode, and how often all connections were cut.
    state: watch::Sender<(Mode, u64)>,
    accepted: Arc<AtomicUsize>,
    answered_bytes: Arc<AtomicUsize>,
}

impl Proxy {
    pub(crate) async fn before(target: SocketAddr, mode: Mode) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (state, receiver) = watch::channel((mode, 0));
        let proxy = Self {
            address: listener.local_addr().unwrap(),
            state,
            accepted: Arc::default(),
            answered_bytes: Arc::default(),
        };
        let (accepted, bytes) = (proxy.accepted.clone(), proxy.answered_bytes.clone());
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                accepted.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(carry(socket, target, receiver.clone(), bytes.clone()));
            }
        });
        proxy
    }

    pub(crate) fn endpoint(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.state.send_modify(|state| state.0 = mode);
    }

    /// Cuts all connections; later ones are carried as the mode says.
    pub(crate) fn cut(&self) {
        self.state.send_modify(|state| state.1 += 1);
    }

    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    pub(crate) fn answered_bytes(&self) -> usize {
        self.answered_bytes.load(Ordering::SeqCst)
    }
}

async fn carry(
    mut client: TcpStream,
    target: SocketAddr,
    mut state: watch::Receiver<(Mode, u64)>,
    answered_bytes: Arc<AtomicUsize>,
) {
    let (mode, generation) = *state.borrow_and_update();
    if mode == Mode::Dead {
        return;
    }
    let Ok(mut node) = TcpStream::connect(target).await else { return };
    let (mut up, mut down) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        let (mode, now) = *state.borrow_and_update();
        if now != generation || mode == Mode::Dead {
            return;
        }
        let open = mode != Mode::HalfOpen;
        let piece = if mode == Mode::Stutter { 61 } else { down.len() };
        let carried = tokio::select! {
            changed = state.changed() => {
                if changed.is_err() { return }
                continue;
            }
            read = client.read(&mut up), if open => match read {
                Ok(0) | Err(_) => return,
                Ok(count) => node.write_all(&up[..count]).await,
            },
            read = node.read(&mut down[..piece]), if open && mode != Mode::HoldAnswers => match read {
                Ok(0) | Err(_) => return,
                Ok(count) => {
                    answered_bytes.fetch_add(count, Ordering::SeqCst);
                    client.write_all(&down[..count]).await
                }
            },
        };
        if carried.is_err() {
            return;
        }
    }
}
