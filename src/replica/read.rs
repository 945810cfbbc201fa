//! Linearizable reads by ReadIndex (Ongaro, *Consensus: Bridging Theory and Practice*, section 6.4), on any node.
//!
//! The leader confirms with a quorum that it still leads and names its commit index; the reading node waits until it has
//! applied that much. All reads that wait when a confirmation starts share it. A read that arrives later waits for the
//! next one: sharing an earlier one could miss a write acknowledged in between.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use llm_config_bugs::{Bug, active};
use llm_config_proto::internal as pb;
use openraft::ReadPolicy;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::error::ReadError;
use crate::node::{Counters, Node};

/// So many reads that share a round are a load: then the next round waits for those who ask again, because a round costs
/// the same for one read as for all of them. A read alone never waits.
const MANY: usize = 8;
/// A tick of the runtime's timers.
const GATHER: Duration = Duration::from_millis(1);

/// Those who wait for the next confirmation.
#[derive(Default)]
pub(crate) struct Coalescer {
    state: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    running: bool,
    reads: Vec<oneshot::Sender<Option<u64>>>,
}

impl Coalescer {
    /// Returns the receiver, and whether the caller must start the runner.
    fn join(&self) -> (oneshot::Receiver<Option<u64>>, bool) {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.state.lock();
        state.reads.push(sender);
        let start = !state.running;
        state.running = true;
        (receiver, start)
    }

    fn take(&self) -> Vec<oneshot::Sender<Option<u64>>> {
        let mut state = self.state.lock();
        if state.reads.is_empty() {
            state.running = false;
        }
        std::mem::take(&mut state.reads)
    }
}

/// Waits until this node's state is at least as new as every write acknowledged before the call.
pub(crate) async fn linearizable(node: &Arc<Node>, deadline: Instant) -> Result<(), ReadError> {
    if active(Bug::LinearizableIsLocal) {
        return Ok(());
    }
    loop {
        if let Some(failure) = node.local.failure() {
            return Err(ReadError::Failed(failure.message().to_owned()));
        }
        let (confirmed, start) = node.reads.join();
        if start {
            tokio::spawn(run(Arc::clone(node)));
        }
        match tokio::time::timeout_at(deadline.into(), confirmed).await {
            Ok(Ok(Some(_))) if active(Bug::ReadIndexNotAwaited) => return Ok(()),
            Ok(Ok(None)) if active(Bug::ReadUnconfirmed) => return Ok(()),
            Ok(Ok(Some(index))) => return wait_applied(node, index, deadline).await,
            Ok(Ok(None) | Err(_)) if Instant::now() < deadline => {
                node.wait_for_leader(None, deadline).await;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Ok(Ok(None) | Err(_)) | Err(_) => return Err(ReadError::NoLeader),
        }
    }
}

/// Confirms for everybody who waits, until nobody does.
async fn run(node: Arc<Node>) {
    loop {
        let reads = node.reads.take();
        if reads.is_empty() {
            return;
        }
        Counters::add(&node.counters.read_rounds);
        node.counters.read_served.fetch_add(reads.len() as u64, Ordering::Relaxed);
        let begun = Instant::now();
        let index = confirm_anywhere(&node).await;
        if index.is_some() {
            node.counters.confirmed.observe(begun.elapsed());
        } else {
            Counters::add(&node.counters.read_failed);
        }
        let answered = reads.len();
        for read in reads {
            // A read that has given up needs no answer.
            let _gone = read.send(index);
        }
        if answered >= MANY {
            tokio::time::sleep(GATHER).await;
        }
    }
}

async fn confirm_anywhere(node: &Arc<Node>) -> Option<u64> {
    let (leader, address) = node.leader()?;
    if leader == node.local.node_id() {
        return confirm(node).await;
    }
    let timeout = node.local.tuning.election_timeout_max;
    let mut peer = node.peer(leader, &address).ok()?;
    let request = node.request(leader, pb::ReadIndexRequest {}, timeout);
    let reply = tokio::time::timeout(timeout, peer.read_index(request)).await.ok()?.ok()?;
    Some(reply.into_inner().index)
}

/// Confirms on the leader; `None` when this node does not lead or reaches no quorum. Whoever asks while a confirmation runs
/// shares the next one, at whichever node they read: a round costs a message to every member.
pub(crate) async fn confirm(node: &Arc<Node>) -> Option<u64> {
    let (confirmed, start) = node.confirmations.join();
    if start {
        tokio::spawn(confirm_all(Arc::clone(node)));
    }
    // At the latest when the confirmation that runs, and then the one that is shared, have run out of time.
    confirmed.await.ok()?
}

/// Confirms for everybody who waits, until nobody does.
async fn confirm_all(node: Arc<Node>) {
    loop {
        let asked = node.confirmations.take();
        if asked.is_empty() {
            return;
        }
        let index = confirm_once(&node).await;
        for asked in asked {
            // Who has given up needs no answer.
            let _gone = asked.send(index);
        }
    }
}

async fn confirm_once(node: &Node) -> Option<u64> {
    if active(Bug::ReadWithoutQuorum) {
        return node.leads().then(|| node.local.state.progress().index);
    }
    let timeout = node.local.tuning.election_timeout_max;
    let confirmed = node.raft.get_read_linearizer(ReadPolicy::ReadIndex);
    let linearizer = tokio::time::timeout(timeout, confirmed).await.ok()?.ok()?;
    Some(linearizer.read_log_id().index())
}

async fn wait_applied(node: &Node, index: u64, deadline: Instant) -> Result<(), ReadError> {
    wait(node, deadline, 0, |progress| progress.index >= index).await
}

/// Waits until this node has applied a store revision.
pub(crate) async fn wait_revision(
    node: &Node,
    revision: u64,
    deadline: Instant,
) -> Result<(), ReadError> {
    wait(node, deadline, revision, |progress| progress.revision >= revision).await
}

async fn wait(
    node: &Node,
    deadline: Instant,
    wanted: u64,
    reached: impl Fn(&crate::storage::state::Progress) -> bool,
) -> Result<(), ReadError> {
    if reached(&node.local.state.progress()) {
        return Ok(());
    }
    let mut progress = node.local.state.watch_progress();
    let applied = progress.wait_for(|progress| reached(progress));
    match tokio::time::timeout_at(deadline.into(), applied).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_)) => Err(ReadError::Failed("the state is closed".into())),
        Err(_) => Err(ReadError::Behind { wanted, applied: node.local.state.progress().revision }),
    }
}
