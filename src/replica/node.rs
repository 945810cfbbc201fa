//! The parts of a running node, as the modules of this crate see them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use llm_config_domain::{Applied, Operation};
use llm_config_proto::internal::replication_client::ReplicationClient;
use openraft::{Raft, ServerState};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tonic::Request;
use tonic::transport::Channel;

use crate::batch::Batcher;
use crate::error::ProposeError;
use crate::local::{Local, Sent};
use crate::machine;
use crate::network::{client, passport};
use crate::read::Coalescer;
use crate::space::{Space, grows};
use crate::status::EngineStats;
use crate::storage::directory::Directory;
use crate::storage::log::LogStore;
use crate::storage::state::StateMachine;
use crate::timings::Durations;
use crate::types::Types;

/// How long a node that stops waits for a piece of a compaction.
const TIDYING_STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Counters of this node that no other part keeps.
#[derive(Debug)]
pub(crate) struct Counters {
    pub(crate) proposals: AtomicU64,
    pub(crate) forwarded: AtomicU64,
    failed: [AtomicU64; FAILURES.len()],
    pub(crate) answered: Durations,
    pub(crate) read_rounds: AtomicU64,
    pub(crate) read_served: AtomicU64,
    pub(crate) read_failed: AtomicU64,
    pub(crate) confirmed: Durations,
    pub(crate) leader_changes: AtomicU64,
    pub(crate) elections: AtomicU64,
}

/// Why a write of a client was not carried out, or is not known to be.
const FAILURES: [&str; 4] = ["no_leader", "overloaded", "storage_full", "unknown"];

impl Counters {
    fn new() -> Self {
        Self {
            proposals: AtomicU64::default(),
            forwarded: AtomicU64::default(),
            failed: FAILURES.map(|_| AtomicU64::default()),
            answered: Durations::of_operations(),
            read_rounds: AtomicU64::default(),
            read_served: AtomicU64::default(),
            read_failed: AtomicU64::default(),
            confirmed: Durations::of_operations(),
            leader_changes: AtomicU64::default(),
            elections: AtomicU64::default(),
        }
    }

    pub(crate) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// What came of a write of a client of this node.
    pub(crate) fn ended(&self, outcome: &Result<Applied, ProposeError>, took: Duration) {
        let [no_leader, overloaded, storage_full, unknown] = &self.failed;
        match outcome {
            Ok(_) => self.answered.observe(took),
            Err(ProposeError::NoLeader | ProposeError::NotReady) => Self::add(no_leader),
            Err(ProposeError::Overloaded) => Self::add(overloaded),
            Err(ProposeError::StorageFull(_)) => Self::add(storage_full),
            Err(ProposeError::OutcomeUnknown) => Self::add(unknown),
            // The caller's mistake, and a node that ends.
            Err(ProposeError::Invalid(_) | ProposeError::Failed(_)) => {}
        }
    }

    pub(crate) fn failures(&self) -> [(&'static str, u64); FAILURES.len()] {
        let mut failures = FAILURES.map(|reason| (reason, 0));
        for (failure, count) in failures.iter_mut().zip(&self.failed) {
            failure.1 = count.load(Ordering::Relaxed);
        }
        failures
    }
}

/// A ping goes out every second and may take as long.
const PING_MARGIN: Duration = Duration::from_secs(2);

/// What rewrites files in the background, so that a stop can wait for it.
pub(crate) struct Tidying {
    /// One at a time; closed with the node.
    pub(crate) busy: Arc<Semaphore>,
    pub(crate) stop: Arc<AtomicBool>,
}

impl Tidying {
    fn new() -> Self {
        Self { busy: Arc::new(Semaphore::new(1)), stop: Arc::new(AtomicBool::new(false)) }
    }

    /// Stops what runs, and lets nothing begin any more.
    pub(crate) async fn end(&self) {
        self.stop.store(true, Ordering::Release);
        if tokio::time::timeout(TIDYING_STOP_TIMEOUT, self.busy.acquire()).await.is_err() {
            tracing::warn!("a compaction did not end in time");
        }
        self.busy.close();
    }
}

/// A running node.
pub(crate) struct Node {
    pub(crate) local: Arc<Local>,
    pub(crate) raft: Raft<Types, StateMachine>,
    pub(crate) log: LogStore,
    pub(crate) directory: Arc<Directory>,
    pub(crate) counters: Counters,
    pub(crate) space: Space,
    /// What the databases of the log and of the state said of themselves when the storage was measured last.
    pub(crate) engines: Mutex<[EngineStats; 2]>,
    pub(crate) tidying: Tidying,
    pub(crate) batcher: Batcher,
    pub(crate) reads: Coalescer,
    /// Of this node as the leader, for reads at every node.
    pub(crate) confirmations: Coalescer,
    /// Proposals that may be in flight on this node.
    pub(crate) slots: Arc<Semaphore>,
    /// Bytes of commands that may be in flight, in units of [`Node::BYTES_UNIT`].
    pub(crate) bytes: Arc<Semaphore>,
    /// Held while this node, as the leader, changes the members.
    pub(crate) changing: Arc<tokio::sync::Mutex<()>>,
    /// Connections for what is not replication: forwarded writes and read-index questions.
    peers: Mutex<std::collections::BTreeMap<u64, (String, Channel)>>,
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
        let space = Space::new(&local.tuning);
        let units = local.tuning.proposal_bytes_in_flight_max / Self::BYTES_UNIT;
        Self {
            local,
            raft,
            log,
            directory,
            counters: Counters::new(),
            space,
            engines: Mutex::default(),
            tidying: Tidying::new(),
            batcher: Batcher::default(),
            reads: Coalescer::default(),
            confirmations: Coalescer::default(),
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

    /// Why this node itself has no room for more.
    pub(crate) fn full(&self) -> Option<String> {
        let appended = self.log.stats().bytes.load(Ordering::Relaxed);
        self.space.full(appended).map(|reason| format!("node {} {reason}", self.local.node_id()))
    }

    /// A voter, other than this node, that said that it has no room.
    pub(crate) fn full_peer(&self) -> Option<u64> {
        let full = self.space.full_peers();
        if full.is_empty() {
            // Asked before each write.
            return None;
        }
        let voters = self.voters();
        full.into_iter().find(|id| voters.contains(id))
    }

    /// Refuses what needs room that a voter does not have. The leader decides for all of them, as each tells it; a node
    /// without a vote holds nobody up.
    pub(crate) fn room_for(&self, operation: &Operation) -> Result<(), ProposeError> {
        if !grows(operation) {
            return Ok(());
        }
        let own = self.full().filter(|_| self.voters().contains(&self.local.node_id()));
        let reason = own.or_else(|| {
            let peer = self.full_peer().filter(|_| self.leads())?;
            Some(format!("node {peer} has no room for more"))
        });
        match reason {
            Some(reason) => {
                self.space.refused();
                Err(ProposeError::StorageFull(reason))
            }
            None => Ok(()),
        }
    }

    pub(crate) fn leads(&self) -> bool {
        let metrics = self.raft.metrics();
        openraft::async_runtime::watch::WatchReceiver::borrow_watched(&metrics).state
            == ServerState::Leader
    }

    fn voters(&self) -> Vec<u64> {
        let metrics = self.raft.metrics();
        let metrics = openraft::async_runtime::watch::WatchReceiver::borrow_watched(&metrics);
        metrics.membership_config.voter_ids().collect()
    }

    /// A leader's message was accepted; it named this commit index, when that is one of its own.
    pub(crate) fn heard_from_leader(&self, commit: Option<u64>, sent: Option<Sent>) {
        let applied = self.local.state.progress().index;
        self.local.contacts.heard_from_leader(commit, applied, sent);
    }

    /// A client of another node; the connection is kept.
    pub(crate) fn peer(
        &self,
        id: u64,
        address: &str,
    ) -> Result<ReplicationClient<Channel>, String> {
        let mut peers = self.peers.lock();
        if let Some((_, channel)) = peers.get(&id).filter(|(known, _)| known == address) {
            return Ok(client::client(channel.clone()));
        }
        let channel =
            client::connect(&self.local, id, address).map_err(|error| error.to_string())?;
        // Nodes come from the membership, so they are few; forget all rather than grow for ever.
        if peers.len() >= 64 {
            peers.clear();
        }
        peers.insert(id, (address.to_owned(), channel.clone()));
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
#[must_use]
pub fn wall_clock_ms() -> u64 {
    machine::wall_clock_ms()
}
