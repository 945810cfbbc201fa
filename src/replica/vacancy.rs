//! A leader whose process is gone is replaced at once, not after an election timeout.
//!
//! When a process ends, its system closes its connections and refuses new ones; when a machine or a network fails, it does
//! neither. So a follower whose stream from the leader broke off tries to connect, and one that is *refused* knows that nobody
//! leads there. It gives up the lease that it holds for that leader and stands for election by a pre-vote, which only
//! those grant who have given the lease up too (or whose lease has run out): a majority must have seen for itself that the
//! leader is gone, and one node that a firewall refuses unseats nobody. Safety does not rest on any of it: whoever wins, wins
//! an ordinary election (Ongaro, *Consensus: Bridging Theory and Practice*, sections 4.2.3 and 9.6).

use std::sync::{Arc, Weak};
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::raft::TransferLeaderRequest;
use parking_lot::Mutex;
use tokio::runtime::Handle;

use crate::machine;
use crate::node::Node;
use crate::types::Vote;

/// How long the attempt to connect may take; who refuses does it at once.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(200);
/// Between two attempts. The voters begin one after the other at this distance, so that they do not take votes from each
/// other.
const STEP: Duration = Duration::from_millis(20);
/// After these, the election timeout has the word.
const ATTEMPTS: u32 = 10;
/// A node id that no node has: the lease is given up in nobody's favour.
const NOBODY: u64 = 0;

/// Looks after the leader when the stream of its messages ends, however it ends: the task that reads a broken connection is
/// dropped, and told nothing.
pub(crate) struct StreamEnd {
    node: Weak<Node>,
    leader: Mutex<Option<u64>>,
}

impl StreamEnd {
    pub(crate) fn new(node: &Arc<Node>) -> Self {
        Self { node: Arc::downgrade(node), leader: Mutex::new(None) }
    }

    /// Who sends.
    pub(crate) fn sent_by(&self, leader: u64) {
        *self.leader.lock() = Some(leader);
    }
}

impl Drop for StreamEnd {
    fn drop(&mut self) {
        let leader = *self.leader.lock();
        // Without a runtime the node is ending.
        if let (Some(leader), Ok(runtime)) = (leader, Handle::try_current()) {
            runtime.spawn(look(self.node.clone(), leader));
        }
    }
}

/// What this node believes of the leader, when that is still the one whose stream ended.
fn followed(node: &Node, leader: u64) -> Option<(String, Vote, Vec<u64>)> {
    let metrics = node.raft.metrics();
    let metrics = metrics.borrow_watched();
    let own = node.local.node_id();
    if leader == own || metrics.current_leader != Some(leader) {
        return None;
    }
    let members = &metrics.membership_config;
    let address = members.get_node(&leader)?.addr.clone();
    let heirs: Vec<u64> = members.voter_ids().filter(|voter| *voter != leader).collect();
    heirs.contains(&own).then_some((address, metrics.vote, heirs))
}

async fn look(node: Weak<Node>, leader: u64) {
    let Some((address, _, heirs)) = node.upgrade().and_then(|node| followed(&node, leader)) else {
        return;
    };
    if !machine::refuses(&address, CONNECT_TIMEOUT).await {
        return;
    }
    tracing::warn!(leader, %address, "nobody listens at the leader's address any more: electing another one");
    for attempt in 0..ATTEMPTS {
        let Some(node) = node.upgrade() else { return };
        let Some((_, vote, _)) = followed(&node, leader) else { return };
        let given_up = TransferLeaderRequest::new(vote, NOBODY, None);
        if node.raft.handle_transfer_leader(given_up).await.is_err() {
            // The core has ended; why is told elsewhere.
            return;
        }
        let own = node.local.node_id();
        let turn = heirs.iter().position(|heir| *heir == own).unwrap_or_default();
        if attempt as usize % heirs.len() == turn && node.raft.trigger().elect(true).await.is_err()
        {
            return;
        }
        drop(node);
        tokio::time::sleep(STEP).await;
    }
}
