//! What a node does about itself in the background: gives the cluster its id, registers its addresses and its disk, asks
//! whether its neighbours are up, and looks after its storage.

use std::sync::Arc;
use std::time::{Duration, Instant};

use llm_config_domain::{Applied, Command, Found, Node as Registration, Operation, Rejection};
use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::errors::Fatal;
use tokio::sync::watch;
use uuid::Uuid;

use crate::founding;
use crate::local::Failure;
use crate::node::{Counters, Node};
use crate::propose;
use crate::reclaim;
use crate::storage::directory::Identity;

const ROUND: Duration = Duration::from_millis(250);
const PING_INTERVAL: Duration = Duration::from_secs(1);
const PROPOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Recorded as the author of what the steward proposes.
const ACTOR: &str = "system";

/// What the steward needs to know of the configuration.
pub(crate) struct Steward {
    pub(crate) node: Arc<Node>,
    pub(crate) registration: Registration,
    pub(crate) history_limit: u64,
    pub(crate) recovered: watch::Sender<bool>,
}

impl Steward {
    /// Runs until the node stops.
    pub(crate) async fn run(self, mut stop: watch::Receiver<bool>) {
        let work = async {
            let mut rounds = tokio::time::interval(ROUND);
            rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            let mut pinged: Option<Instant> = None;
            let mut identity_written = self.node.local.identity.cluster_id.is_some();
            loop {
                rounds.tick().await;
                identity_written = identity_written || self.write_identity();
                self.notice_own_removal();
                self.found().await;
                self.register().await;
                if pinged.is_none_or(|at| at.elapsed() >= PING_INTERVAL) {
                    pinged = Some(Instant::now());
                    self.ping().await;
                }
            }
        };
        tokio::select! {
            () = work => {}
            () = self.watch_core() => {}
            () = self.watch_damage() => {}
            () = reclaim::watch(&self.node) => {}
            () = self.watch_recovery() => {}
            () = self.watch_leader() => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }

    /// The Raft core ends by itself after a storage error; a panic of it shows only in the closed channel.
    async fn watch_core(&self) {
        let mut metrics = self.node.raft.metrics();
        loop {
            let state = metrics.borrow_watched().running_state.clone();
            if let Err(Fatal::Stopped) = state {
                // This node ends its core itself when it stops.
                break;
            }
            if let Err(error) = state {
                let local = &self.node.local;
                local.fail(match (local.state.newer(), self.node.directory.damage()) {
                    (Some(newer), _) => newer.into(),
                    (None, Some(damage)) => Failure::Damaged(damage),
                    (None, None) => Failure::Fault(format!("replication stopped: {error}")),
                });
                break;
            }
            if openraft::async_runtime::watch::WatchReceiver::changed(&mut metrics).await.is_err() {
                self.node.local.fail(Failure::Fault("replication ended unexpectedly".into()));
                break;
            }
        }
        std::future::pending::<()>().await;
    }

    /// Whatever met it, a read of a client or the node itself: what else is wrong is not known, so nothing is served on.
    async fn watch_damage(&self) {
        let mut damage = self.node.directory.watch_damage();
        // The directory outlives this node's tasks.
        if let Ok(found) = damage.wait_for(Option::is_some).await
            && let Some(what) = found.clone()
        {
            self.node.local.fail(Failure::Damaged(what));
        }
        std::future::pending::<()>().await;
    }

    /// Keeps the cluster id where the next start finds it before it reads the state.
    fn write_identity(&self) -> bool {
        let Some(cluster_id) = self.node.local.state.cluster_id() else { return false };
        let identity =
            Identity { cluster_id: Some(cluster_id), ..self.node.local.identity.clone() };
        match self.node.directory.write_identity(&identity) {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(%error, "the identity file could not be written");
                false
            }
        }
    }

    /// The state says that this node was removed, or (`ping`) another node does.
    fn notice_own_removal(&self) {
        let local = &self.node.local;
        if local.failure().is_none() && local.state.is_removed(local.node_id()) {
            self.leave();
        }
    }

    /// Ends this node for good: a removed one would otherwise stand for election again and again.
    fn leave(&self) {
        let local = &self.node.local;
        let cluster_id = local.cluster_id().unwrap_or_default();
        let reason = founding::removed(local.node_id(), &cluster_id);
        if let Err(error) = self.node.directory.mark_removed(&reason) {
            tracing::error!(%error, "the file `removed` could not be written");
        }
        local.fail(Failure::Removed(reason));
    }

    async fn found(&self) {
        if !self.node.leads() || self.node.local.state.cluster_id().is_some() {
            return;
        }
        let found =
            Found { cluster_id: Uuid::new_v4().to_string(), history_limit: self.history_limit };
        let cluster_id = found.cluster_id.clone();
        if let Some(Applied { result: Ok(_), .. }) = self.propose(Operation::Found(found)).await {
            tracing::info!(cluster_id, "the cluster is founded");
        }
    }

    async fn register(&self) {
        let own = self.node.local.node_id();
        let state = &self.node.local.state;
        if state.cluster_id().is_none()
            || state.registered(own).is_some_and(|known| known == self.registration)
            // Its removal is under way; registering would be refused.
            || state.registry().removed.contains_key(&own)
        {
            return;
        }
        let answer = self.propose(Operation::RegisterNode(self.registration.clone())).await;
        if let Some(Applied { result: Err(Rejection::NodeIdTaken { .. }), .. }) = answer {
            self.node.local.fail(Failure::ForeignDisk(format!(
                "node id {own} is registered with another disk: a node id is never used again. Give this node a new id"
            )));
        }
    }

    /// None when there is no answer now; the next round tries again.
    async fn propose(&self, operation: Operation) -> Option<Applied> {
        let command = Command::new(ACTOR, operation);
        propose::propose(&self.node, &command, Instant::now() + PROPOSE_TIMEOUT).await.ok()
    }

    async fn ping(&self) {
        let members: Vec<(u64, String)> = {
            let metrics = self.node.raft.metrics();
            let metrics = metrics.borrow_watched();
            metrics.membership_config.nodes().map(|(id, node)| (*id, node.addr.clone())).collect()
        };
        let known = members.iter().map(|(id, _)| *id).collect();
        self.node.local.contacts.keep(&known);
        self.node.local.peers.keep(&known);
        let own = self.node.local.node_id();
        let pings = members.iter().filter(|(id, _)| *id != own);
        let replies = futures::future::join_all(
            pings.map(|(id, address)| founding::ask(&self.node, *id, address)),
        )
        .await;
        if replies.iter().flatten().any(|reply| reply.removed)
            && self.node.local.failure().is_none()
        {
            self.leave();
        }
    }

    /// Opens the gate for cached reads once everything that was committed before the start is applied again.
    async fn watch_recovery(&self) {
        loop {
            if self.node.raft.wait_for_recovery(Some(Duration::from_secs(5))).await.is_ok() {
                self.recovered.send_replace(true);
                break;
            }
            // An error is the time limit, or at once the end of the core.
            tokio::time::sleep(ROUND).await;
        }
        std::future::pending::<()>().await;
    }

    async fn watch_leader(&self) {
        let mut server = self.node.raft.server_metrics();
        let mut leader = None;
        // The term of the last election that was counted. Who leads stood for election, even if that was not seen.
        let mut stood = 0;
        loop {
            let (now, state, term) = {
                let server = server.borrow_watched();
                (server.current_leader, server.state, server.vote.leader_id.term)
            };
            if matches!(state, ServerState::Candidate | ServerState::Leader) && term > stood {
                stood = term;
                Counters::add(&self.node.counters.elections);
            }
            if now != leader {
                leader = now;
                if let Some(leader) = leader {
                    Counters::add(&self.node.counters.leader_changes);
                    tracing::info!(leader, "the leader changed");
                }
            }
            if openraft::async_runtime::watch::WatchReceiver::changed(&mut server).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}
