//! What this node knows of itself and of its neighbours, shared by everything that talks to them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use llm_config_tls::{Failures, NodeTls};
use openraft::alias::WatchReceiverOf;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::{Instant as _, RaftMetrics};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::config::{Join, Tuning};
use crate::error::StartError;
use crate::form::NewerForm;
use crate::storage::directory::Identity;
use crate::storage::state;
use crate::timings::{Peers, SnapshotTimings};
use crate::types::Types;

/// This node, as its transport needs it.
pub(crate) struct Local {
    pub(crate) identity: Identity,
    /// The release that this node runs.
    pub(crate) release: String,
    /// Set in a node that was started to join a cluster.
    pub(crate) join: Option<Join>,
    /// Without it, nodes talk in clear text.
    pub(crate) secure: Option<Arc<Secure>>,
    /// The cluster that took this node in, until it is in the state.
    joined: OnceLock<String>,
    pub(crate) tuning: Tuning,
    pub(crate) state: Arc<state::Shared>,
    pub(crate) contacts: Contacts,
    pub(crate) peers: Peers,
    pub(crate) snapshots_sent: SnapshotTimings,
    failure: watch::Sender<Option<Failure>>,
    raft: OnceLock<WatchReceiverOf<Types, RaftMetrics<Types>>>,
}

/// What secures the connections between nodes, and who tells of those that it turned away.
pub(crate) struct Secure {
    pub(crate) tls: Arc<NodeTls>,
    /// Handshakes of arriving connections.
    pub(crate) arriving: Failures,
    /// Handshakes of connections to others.
    pub(crate) leaving: Failures,
    /// Messages in another node's name than that of its certificate.
    pub(crate) pretended: Failures,
}

impl Secure {
    pub(crate) fn new(tls: Arc<NodeTls>) -> Self {
        Self {
            tls,
            arriving: Failures::new("an arriving node-to-node connection failed"),
            leaving: Failures::new("a connection to another node failed"),
            pretended: Failures::new("a message from another node was refused"),
        }
    }
}

/// Why a node stopped trusting itself.
#[derive(Debug, Clone)]
pub(crate) enum Failure {
    /// The disk failed or the Raft core stopped.
    Fault(String),
    /// The disk is not the one that the cluster knows under this node id.
    ForeignDisk(String),
    /// The disk holds something else than was written to it.
    Damaged(String),
    /// A newer release wrote what this node has to read.
    Newer(String),
    /// The cluster has removed this node.
    Removed(String),
}

impl Failure {
    pub(crate) fn message(&self) -> &str {
        match self {
            Self::Fault(message)
            | Self::ForeignDisk(message)
            | Self::Damaged(message)
            | Self::Newer(message)
            | Self::Removed(message) => message,
        }
    }

    pub(crate) fn into_error(self) -> StartError {
        match self {
            Self::Fault(message) => StartError::Runtime(message),
            Self::ForeignDisk(message)
            | Self::Damaged(message)
            | Self::Newer(message)
            | Self::Removed(message) => StartError::DataDir(message),
        }
    }
}

impl From<&NewerForm> for Failure {
    fn from(newer: &NewerForm) -> Self {
        Self::Newer(newer.to_string())
    }
}

impl Local {
    pub(crate) fn new(
        identity: Identity,
        release: String,
        join: Option<Join>,
        secure: Option<Arc<Secure>>,
        tuning: Tuning,
        state: Arc<state::Shared>,
    ) -> Self {
        Self {
            identity,
            release,
            join,
            secure,
            joined: OnceLock::new(),
            tuning,
            state,
            contacts: Contacts::new(),
            peers: Peers::default(),
            snapshots_sent: SnapshotTimings::new(),
            failure: watch::Sender::new(None),
            raft: OnceLock::new(),
        }
    }

    pub(crate) fn node_id(&self) -> u64 {
        self.identity.node_id
    }

    /// The Raft core runs: what it says of itself is known from now on.
    pub(crate) fn runs(&self, raft: WatchReceiverOf<Types, RaftMetrics<Types>>) {
        if self.raft.set(raft).is_err() {
            tracing::debug!("the core was known already");
        }
    }

    /// For how long no majority has answered this node as the leader that it is; nothing when none has yet. Asked for each
    /// message to a peer.
    pub(crate) fn unconfirmed(&self) -> Option<Duration> {
        let metrics = self.raft.get()?.borrow_watched();
        match metrics.membership_config.membership().get_joint_config().as_slice() {
            [voters] if voters.len() == 1 => Some(Duration::ZERO),
            _ => metrics.last_quorum_acked.map(|acked| acked.elapsed()),
        }
    }

    /// From the state, or, before it has been replayed, from the identity file.
    pub(crate) fn cluster_id(&self) -> Option<String> {
        let known = self.state.cluster_id().or_else(|| self.identity.cluster_id.clone());
        known.or_else(|| self.joined.get().cloned())
    }

    /// A cluster has taken this node in: it is the only one from now on. The identity file says so already.
    pub(crate) fn joined(&self, cluster_id: String) {
        if let Err(other) = self.joined.set(cluster_id) {
            tracing::debug!(other, "the cluster was known already");
        }
    }

    /// Whether it was started to join a cluster and belongs to none yet.
    pub(crate) fn awaits_cluster(&self) -> bool {
        self.join.is_some() && self.cluster_id().is_none()
    }

    /// The first failure stands.
    pub(crate) fn fail(&self, failure: Failure) {
        self.failure.send_if_modified(|current| {
            let first = current.is_none();
            if first {
                tracing::error!(reason = failure.message(), "this node stops");
                *current = Some(failure);
            }
            first
        });
    }

    pub(crate) fn failure(&self) -> Option<Failure> {
        self.failure.borrow().clone()
    }

    pub(crate) fn watch_failure(&self) -> watch::Receiver<Option<Failure>> {
        self.failure.subscribe()
    }
}

/// Nodes whose last sign of life is remembered; far more than a cluster has.
const CONTACTS_MAX: usize = 256;

/// When this node last heard from others.
pub(crate) struct Contacts {
    started: Instant,
    /// Milliseconds after `started`, plus one; 0 is never.
    leader: AtomicU64,
    caught_up: Mutex<CaughtUp>,
    /// The same unit. Written for every message, so a node that is known takes no lock.
    nodes: ArcSwap<BTreeMap<u64, Arc<AtomicU64>>>,
}

/// When this node is known to have applied everything that was committed at the time.
#[derive(Default)]
struct CaughtUp {
    at: Option<Instant>,
    /// A commit index that a leader named, and when: reaching it proves the state of that moment.
    pending: Option<(u64, Instant)>,
    way: Way,
}

/// When a leader sent a message, by a clock of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) term: u64,
    pub(crate) node: u64,
    pub(crate) ms: u64,
    /// For how long no majority had answered it then: as long as that, another may have led.
    pub(crate) unconfirmed: Duration,
}

/// How long the messages of a leader are on their way, as far as that can be told without its clock.
///
/// What lies between the sender's clock and this node's is unknown and stays the same; the shortest way of late counts as
/// none. So a message that waited is known to be old, whatever it waited for: the network, or this node, which was stopped
/// while it lay in the kernel's buffer.
#[derive(Default)]
struct Way {
    leader: (u64, u64),
    /// The least differences between the two clocks, of this stretch of time and of the one before it.
    least_ms: [Option<i64>; 2],
    since: Option<Instant>,
}

/// After this, a shortest way is forgotten at the next but one change: clocks drift apart, by some milliseconds meanwhile.
const STRETCH: Duration = Duration::from_secs(60);
/// A way that is shorter than all before by more than this shows that those before were not the shortest: all of them waited.
const SURPRISE_MS: i64 = 20;

impl Way {
    /// How old a message is that is read now; nothing when that cannot be told.
    fn age(&mut self, sent: Sent, now: Instant, now_ms: u64) -> Option<Duration> {
        let leader = (sent.term, sent.node);
        if self.leader != leader {
            *self = Self { leader, ..Self::default() };
        }
        if self.since.is_none_or(|since| now.saturating_duration_since(since) > STRETCH) {
            self.least_ms = [None, self.least_ms[0].or(self.least_ms[1])];
            self.since = Some(now);
        }
        let between = i64::try_from(now_ms).ok()?.checked_sub(i64::try_from(sent.ms).ok()?)?;
        let known = self.least_ms.into_iter().flatten().min();
        self.least_ms[0] = Some(self.least_ms[0].map_or(between, |least| least.min(between)));
        match known {
            Some(least) if between >= least - SURPRISE_MS => {
                Some(Duration::from_millis(u64::try_from(between - least).unwrap_or(0)))
            }
            // The first one, or the first that did not wait.
            _ => None,
        }
    }
}

impl CaughtUp {
    fn settle(&mut self, applied: u64) {
        if let Some((commit, at)) = self.pending
            && applied >= commit
        {
            self.at = self.at.max(Some(at));
            self.pending = None;
        }
    }
}

impl Contacts {
    fn new() -> Self {
        Self {
            started: Instant::now(),
            leader: AtomicU64::new(0),
            caught_up: Mutex::default(),
            nodes: ArcSwap::default(),
        }
    }

    /// Milliseconds of a clock that runs evenly and that other nodes know nothing of. Never 0, which stands for never.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1
    }

    fn since(&self, stored: u64) -> Option<Duration> {
        let millis = stored.checked_sub(1)?;
        Some(self.started.elapsed().saturating_sub(Duration::from_millis(millis)))
    }

    /// A leader's message was accepted. It named `commit`; this node has applied `applied`. A message proves the state of
    /// the time when it was sent, which may be long ago, and none when the leader has committed nothing of its own yet.
    pub(crate) fn heard_from_leader(&self, commit: Option<u64>, applied: u64, sent: Option<Sent>) {
        let now = Instant::now();
        let now_ms = self.now();
        self.leader.fetch_max(now_ms, Ordering::Relaxed);
        let mut caught_up = self.caught_up.lock();
        caught_up.settle(applied);
        let age = match sent {
            Some(sent) => {
                caught_up.way.age(sent, now, now_ms).map(|age| age.saturating_add(sent.unconfirmed))
            }
            None => Some(Duration::ZERO),
        };
        let (Some(commit), Some(at)) = (commit, age.and_then(|age| now.checked_sub(age))) else {
            return;
        };
        if applied >= commit {
            caught_up.at = caught_up.at.max(Some(at));
            caught_up.pending = None;
        } else if caught_up.pending.is_none() {
            caught_up.pending = Some((commit, at));
        }
    }

    /// How long ago a leader's message was accepted.
    pub(crate) fn leader_age(&self) -> Option<Duration> {
        self.since(self.leader.load(Ordering::Relaxed))
    }

    /// How old the state may be that has applied `applied`. A leader's voice alone proves nothing: a node that was cut off
    /// hears it again before it has caught up.
    pub(crate) fn staleness(&self, applied: u64) -> Option<Duration> {
        let mut caught_up = self.caught_up.lock();
        caught_up.settle(applied);
        caught_up.at.map(|at| at.elapsed())
    }

    /// Bounded even against strangers that invent ids: beyond a number, only known ones are renewed until the next
    /// [`Self::keep`].
    pub(crate) fn heard_from(&self, id: u64) {
        let now = self.now();
        if let Some(known) = self.nodes.load().get(&id) {
            known.fetch_max(now, Ordering::Relaxed);
            return;
        }
        self.nodes.rcu(|nodes| {
            let mut nodes = BTreeMap::clone(nodes);
            if nodes.len() < CONTACTS_MAX {
                nodes.entry(id).or_default().fetch_max(now, Ordering::Relaxed);
            }
            nodes
        });
    }

    /// Forgets all but the members.
    pub(crate) fn keep(&self, members: &BTreeSet<u64>) {
        self.nodes.rcu(|nodes| {
            let mut nodes = BTreeMap::clone(nodes);
            nodes.retain(|id, _| members.contains(id));
            nodes
        });
    }

    pub(crate) fn age(&self, id: u64) -> Option<Duration> {
        self.since(self.nodes.load().get(&id)?.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_cannot_fill_the_memory_and_members_outlive_them() {
        let contacts = Contacts::new();
        contacts.heard_from(1);
        for stranger in 1_000..1_000 + 2 * CONTACTS_MAX as u64 {
            contacts.heard_from(stranger);
        }
        assert_eq!(contacts.nodes.load().len(), CONTACTS_MAX);
        contacts.heard_from(1);
        contacts.keep(&BTreeSet::from([1, 2]));
        assert!(contacts.age(1).is_some() && contacts.age(1_000).is_none());
        contacts.heard_from(2);
        assert!(contacts.age(2).is_some());
    }

    #[test]
    fn a_node_that_hears_the_leader_but_lags_is_stale() {
        let contacts = Contacts::new();
        assert_eq!(contacts.staleness(5), None);
        contacts.heard_from_leader(None, 5, None);
        assert!(contacts.leader_age().is_some());
        assert_eq!(contacts.staleness(5), None, "nobody has said what is committed");
        contacts.heard_from_leader(Some(100), 5, None);
        assert_eq!(contacts.staleness(5), None, "it has applied 5 of 100");
        contacts.heard_from_leader(Some(120), 50, None);
        assert_eq!(contacts.staleness(99), None);
        assert!(
            contacts.staleness(100).is_some(),
            "it has what was committed at the first message"
        );
    }

    #[test]
    fn a_leader_vouches_only_for_the_time_when_a_majority_answered_it() {
        let contacts = Contacts::new();
        let heard = |unconfirmed| {
            let ms = contacts.now();
            contacts.heard_from_leader(
                Some(5),
                5,
                Some(Sent { term: 1, node: 2, ms, unconfirmed }),
            );
            contacts.caught_up.lock().at
        };
        // The first message of a leader only shows how its clock runs.
        heard(Duration::ZERO);
        assert_eq!(heard(Duration::MAX), None, "no majority has answered it yet");
        let before = Instant::now();
        let silent = heard(Duration::from_secs(1));
        assert!(silent.is_some_and(|at| at < before), "a second before it was sent");
        assert!(heard(Duration::ZERO) > silent);
    }

    #[test]
    fn catching_up_proves_the_state_of_the_time_of_the_message() {
        let contacts = Contacts::new();
        contacts.heard_from_leader(Some(100), 5, None);
        std::thread::sleep(Duration::from_millis(20));
        assert!(contacts.staleness(100).is_some_and(|age| age >= Duration::from_millis(20)));
        contacts.heard_from_leader(Some(100), 100, None);
        let fresh = contacts.staleness(100);
        assert!(fresh.is_some_and(|age| age < contacts.started.elapsed()));
    }

    #[test]
    fn a_message_that_waited_proves_the_time_when_it_was_sent() {
        let start = Instant::now();
        let mut way = Way::default();
        let mut read = |sent_ms: u64, read_ms: u64| {
            let sent =
                Sent { term: 2, node: 1, ms: 7_000_000 + sent_ms, unconfirmed: Duration::ZERO };
            way.age(sent, start + Duration::from_millis(read_ms), read_ms)
        };
        let age = |ms| Some(Duration::from_millis(ms));
        assert_eq!(read(1_000, 1_001), None, "one message alone says nothing");
        assert_eq!(read(1_100, 1_104), age(3));
        // This node was stopped for five seconds while messages came in.
        assert_eq!(read(1_200, 6_201), age(5_000));
        assert_eq!(read(6_100, 6_202), age(101));
        assert_eq!(read(6_300, 6_301), age(0));
        // And again, for longer than a shortest way is remembered.
        assert_eq!(read(6_400, 206_400), age(199_999));
        assert_eq!(read(206_500, 206_501), age(0));
    }

    #[test]
    fn the_first_messages_of_a_leader_may_have_waited() {
        let start = Instant::now();
        let mut way = Way::default();
        let mut read = |term, sent_ms: u64, read_ms: u64| {
            let sent = Sent { term, node: 1, ms: sent_ms, unconfirmed: Duration::ZERO };
            way.age(sent, start + Duration::from_millis(read_ms), read_ms)
        };
        assert_eq!(read(1, 100, 3_100), None);
        assert_eq!(read(1, 1_600, 3_101), None, "shorter by far: the one before had waited");
        assert_eq!(read(1, 3_200, 3_201), None);
        assert_eq!(read(1, 3_300, 3_302), Some(Duration::from_millis(1)));
        assert_eq!(read(2, 10, 3_400), None, "another leader has another clock");
        assert_eq!(read(2, 110, 3_500), Some(Duration::ZERO));
    }

    #[test]
    fn drifting_clocks_make_no_message_old() {
        let start = Instant::now();
        let mut way = Way::default();
        let mut oldest = Duration::ZERO;
        // A day in which one clock gains 100 parts in a million.
        for round in 0..86_400_u64 {
            let sent =
                Sent { term: 1, node: 1, ms: 1_000 + round * 1_000, unconfirmed: Duration::ZERO };
            let read_ms = 1_000 + round * 1_000 + round / 10;
            if let Some(age) = way.age(sent, start + Duration::from_millis(read_ms), read_ms) {
                oldest = oldest.max(age);
            }
        }
        assert!(oldest <= Duration::from_millis(15), "{oldest:?}");
    }
}
