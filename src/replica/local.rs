//! What this node knows of itself and of its neighbours, shared by everything that talks to them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::config::Tuning;
use crate::error::StartError;
use crate::storage::directory::Identity;
use crate::storage::state;

/// This node, as its transport needs it.
pub(crate) struct Local {
    pub(crate) identity: Identity,
    /// Digest of the founding list; empty for a node that was started without one.
    pub(crate) founding: String,
    pub(crate) tuning: Tuning,
    pub(crate) state: Arc<state::Shared>,
    pub(crate) contacts: Contacts,
    failure: watch::Sender<Option<Failure>>,
}

/// Why a node stopped trusting itself.
#[derive(Debug, Clone)]
pub(crate) enum Failure {
    /// The disk failed or the Raft core stopped.
    Fault(String),
    /// The disk is not the one that the cluster knows under this node id.
    ForeignDisk(String),
}

impl Failure {
    pub(crate) fn message(&self) -> &str {
        match self {
            Self::Fault(message) | Self::ForeignDisk(message) => message,
        }
    }

    pub(crate) fn into_error(self) -> StartError {
        match self {
            Self::Fault(message) => StartError::Runtime(message),
            Self::ForeignDisk(message) => StartError::DataDir(message),
        }
    }
}

impl Local {
    pub(crate) fn new(
        identity: Identity,
        founding: String,
        tuning: Tuning,
        state: Arc<state::Shared>,
    ) -> Self {
        Self {
            identity,
            founding,
            tuning,
            state,
            contacts: Contacts::new(),
            failure: watch::Sender::new(None),
        }
    }

    pub(crate) fn node_id(&self) -> u64 {
        self.identity.node_id
    }

    /// From the state, or, before it has been replayed, from the identity file.
    pub(crate) fn cluster_id(&self) -> Option<String> {
        self.state.cluster_id().or_else(|| self.identity.cluster_id.clone())
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

/// When this node last heard from others.
pub(crate) struct Contacts {
    started: Instant,
    /// Milliseconds after `started`, plus one; 0 is never.
    leader: AtomicU64,
    nodes: Mutex<BTreeMap<u64, Instant>>,
}

impl Contacts {
    fn new() -> Self {
        Self { started: Instant::now(), leader: AtomicU64::new(0), nodes: Mutex::default() }
    }

    /// A leader's message was accepted.
    pub(crate) fn heard_from_leader(&self) {
        let millis = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        self.leader.fetch_max(millis + 1, Ordering::Relaxed);
    }

    pub(crate) fn leader_age(&self) -> Option<Duration> {
        let stored = self.leader.load(Ordering::Relaxed).checked_sub(1)?;
        Some(self.started.elapsed().saturating_sub(Duration::from_millis(stored)))
    }

    pub(crate) fn heard_from(&self, id: u64) {
        self.nodes.lock().insert(id, Instant::now());
    }

    pub(crate) fn age(&self, id: u64) -> Option<Duration> {
        self.nodes.lock().get(&id).map(Instant::elapsed)
    }
}
