//! The parts of a running node, as the modules of this crate see them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use llm_config_proto::internal::replication_client::ReplicationClient;
use openraft::Raft;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tonic::Request;
use tonic::transport::Channel;

use crate::local::Local;
use crate::network::{client, passport};
use crate::read::Coalescer;
use crate::storage::directory::Directory;
use crate::storage::log::LogStore;
use crate::storage::state::StateMachine;
use crate::types::Types;

/// Counters of this node that no other part keeps.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) proposals: AtomicU64,
    pub(crate) forwarded: AtomicU64,
    pub(crate) unknown: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) read_rounds: AtomicU64,
    pub(crate) read_served: AtomicU64,
    pub(crate) leader_changes: AtomicU64,
    pub(crate) storage_bytes: AtomicU64,
    pub(crate) disk_capacity: AtomicU64,
    pub(crate) disk_free: AtomicU64,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// A ping goes out every second and may take as long.
const PING_MARGIN: Duration = Duration::from_secs(2);

/// A running node.
pub(crate) struct Node {
    pub(crate) local: Arc<Local>,
    pub(crate) raft: Raft<Types, StateMachine>,
    pub(crate) log: LogStore,
    pub(crate) directory: Arc<Directory>,
    pub(crate) counters: Counters,
    pub(crate) reads: Coalescer,
    /// Proposals that may be in flight on this node.
    pub(crate) slots: Arc<Semaphore>,
    /// Bytes of commands that may be in flight, in units of [`Node::BYTES_UNIT`].
    pub(crate) bytes: Arc<Semaphore>,
    /// Held while this node, as the leader, changes the members.
    pub(crate) changing: Arc<tokio::sync::Mutex<()>>,
    /// Connections for what is not replication: forwarded writes and read-index questions.
    peers: Mutex<std::collections::BTreeMap<String, Channel>>,
}

impl Node {
    /// What one permit of the byte budget stands for.
    pub(crate) const BYTES_UNIT: usize = 1024;

    pub(crate) fn new(
        local: Arc<Local>,
        raft: Raft<Types, StateMachine>,
        log: LogStore,
        directory: Arc<Directory>,
    ) -> Self {
        let slots = Arc::new(Semaphore::new(local.tuning.proposals_in_flight_max));
        let units = local.tuning.proposal_bytes_in_flight_max / Self::BYTES_UNIT;
        Self {
            local,
            raft,
            log,
            directory,
            counters: Counters::default(),
            reads: Coalescer::default(),
            slots,
            bytes: Arc::new(Semaphore::new(units)),
            changing: Arc::default(),
            peers: Mutex::default(),
        }
    }

    /// The leader as this node knows it: id and node-to-node address.
    pub(crate) fn leader(&self) -> Option<(u64, String)> {
        let metrics = self.raft.metrics();
        let metrics = openraft::async_runtime::watch::WatchReceiver::borrow_watched(&metrics);
        let id = metrics.current_leader?;
        let address = metrics.membership_config.get_node(&id)?.addr.clone();
        Some((id, address))
    }

    /// Whether a message was exchanged with a node recently.
    pub(crate) fn reachable(&self, id: u64) -> bool {
        let fresh = self.local.tuning.election_timeout_max + PING_MARGIN;
        self.local.contacts.age(id).is_some_and(|age| age <= fresh)
    }

    /// A leader's message was accepted; it named this commit index.
    pub(crate) fn heard_from_leader(&self, commit: u64) {
        self.local.contacts.heard_from_leader(commit, self.local.state.progress().index);
    }

    /// A client of another node; the connection is kept.
    pub(crate) fn peer(&self, address: &str) -> Result<ReplicationClient<Channel>, String> {
        let mut peers = self.peers.lock();
        if let Some(channel) = peers.get(address) {
            return Ok(client::client(channel.clone()));
        }
        let channel = client::connect(address).map_err(|error| error.to_string())?;
        // Addresses come from the membership, so they are few; forget all rather than grow for ever.
        if peers.len() >= 64 {
            peers.clear();
        }
        peers.insert(address.to_owned(), channel.clone());
        Ok(client::client(channel))
    }

    pub(crate) fn request<T>(&self, target: u64, message: T, timeout: Duration) -> Request<T> {
        let mut request = Request::new(message);
        passport::stamp(&self.local, target, &mut request);
        request.set_timeout(timeout);
        request
    }

    /// Waits until the known leader is another than `than`, or a little while: what a caller does before it tries again.
    pub(crate) async fn wait_for_leader(&self, than: Option<u64>, deadline: Instant) {
        let until = deadline.min(Instant::now() + Duration::from_millis(100));
        let mut server = self.raft.server_metrics();
        let changed = async {
            loop {
                let leader = openraft::async_runtime::watch::WatchReceiver::borrow_watched(&server)
                    .current_leader;
                if leader.is_some() && leader != than {
                    return;
                }
                if openraft::async_runtime::watch::WatchReceiver::changed(&mut server)
                    .await
                    .is_err()
                {
                    return;
                }
            }
        };
        // Running into the time limit is one of the two expected ends.
        drop(tokio::time::timeout_at(until.into(), changed).await);
    }
}

/// Milliseconds since the Unix epoch: the only place where this crate reads the wall clock. The state machine clamps it,
/// so a clock that jumps back does no harm.
pub(crate) fn wall_clock_ms() -> u64 {
    let since =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
