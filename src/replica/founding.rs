//! How a cluster begins, exactly once, whatever the order in which its nodes start.
//!
//! Every founder writes the same first log entry, the membership of the founding list, so any of them may do it, and doing
//! it on all of them is one founding. The leader that they elect then proposes the cluster's id. A node that starts late,
//! or again, asks the others first: when they have founded already it waits for the leader instead, and when they know
//! another disk under its id it refuses, because a voter that forgot its votes could vote twice.
//!
//! A cluster that was restored from a backup is founded before its nodes first meet: each directory names it. A founder
//! that starts on an empty directory beside them is refused, as its vote would count without the state that they share.

use std::collections::BTreeMap;
use std::time::Duration;

use llm_config_proto::internal as pb;
use openraft::errors::{InitializeError, RaftError};
use openraft::impls::BasicNode;

use crate::error::StartError;
use crate::local::Failure;
use crate::network::passport;
use crate::node::Node;
use crate::storage::directory::RESTORED;

/// How long one founder waits for the answers of the others. Those that are not up yet do not hold it up for longer.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);

/// Tells two founding lists apart; the order of the entries does not matter.
pub(crate) fn digest(initial_cluster: &BTreeMap<u64, String>) -> String {
    if initial_cluster.is_empty() {
        return String::new();
    }
    let list: Vec<String> =
        initial_cluster.iter().map(|(id, address)| format!("{id}={address}")).collect();
    list.join(",")
}

/// Founds the cluster unless that has happened already.
pub(crate) async fn found(
    node: &Node,
    initial_cluster: &BTreeMap<u64, String>,
) -> Result<(), StartError> {
    let initialized =
        node.raft.is_initialized().await.map_err(|error| StartError::Runtime(error.to_string()))?;
    // One that knows its cluster is a member of it, also when it has joined and not got anything yet.
    if initialized || initial_cluster.is_empty() || node.local.cluster_id().is_some() {
        return Ok(());
    }
    let replies = ask_all(node, initial_cluster).await;
    if let Some(failure) = node.local.failure() {
        return Err(failure.into_error());
    }
    // All of them, before any is believed: one that has not heard of this node's registration yet may answer first.
    for (id, reply) in &replies {
        let own = node.local.node_id();
        if reply.removed {
            let reason = removed(own, &reply.cluster_id);
            return Err(StartError::DataDir(format!(
                "{}: node {id} says: {reason}",
                node.directory.root().display()
            )));
        }
        if let Some(known) = reply.incarnations.get(&own)
            && *known != node.local.identity.incarnation
        {
            return Err(StartError::DataDir(format!(
                "{}: node {id} says that cluster {} knows node {own} by another disk; a node id is never used again \
                 after its disk was lost or emptied. Put the old directory back, or add this node under a new id",
                node.directory.root().display(),
                reply.cluster_id,
            )));
        }
    }
    if let Some((_, reply)) = replies.iter().find(|(_, reply)| !reply.cluster_id.is_empty()) {
        tracing::info!(cluster_id = %reply.cluster_id, "the cluster is founded already; waiting for its leader");
        return Ok(());
    }
    let members: BTreeMap<u64, BasicNode> =
        initial_cluster.iter().map(|(id, address)| (*id, BasicNode::new(address))).collect();
    match node.raft.initialize(members).await {
        // Not allowed means that an append or a vote of another founder came first: the cluster is being founded.
        Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
        Err(error) => Err(StartError::Runtime(format!("founding the cluster failed: {error}"))),
    }
}

/// What a removed node is told, and tells.
pub(crate) fn removed(id: u64, cluster_id: &str) -> String {
    format!(
        "node {id} was removed from cluster {cluster_id}, and a removed node does not come back. To use this machine \
         again, give it an empty data directory and a node id that was never used, and start it with --join"
    )
}

async fn ask_all(
    node: &Node,
    initial_cluster: &BTreeMap<u64, String>,
) -> Vec<(u64, pb::IdentifyReply)> {
    let others = initial_cluster.iter().filter(|(id, _)| **id != node.local.node_id());
    let questions =
        others.map(|(id, address)| async move { Some((*id, ask(node, *id, address).await?)) });
    futures::future::join_all(questions).await.into_iter().flatten().collect()
}

/// Asks a node who it is. Also how nodes notice that a neighbour is up.
pub(crate) async fn ask(node: &Node, id: u64, address: &str) -> Option<pb::IdentifyReply> {
    let mut peer = node.peer(id, address).ok()?;
    let request = node.request(id, pb::IdentifyRequest {}, ASK_TIMEOUT);
    let reply =
        tokio::time::timeout(ASK_TIMEOUT, peer.identify(request)).await.ok()?.ok()?.into_inner();
    let ours = node.local.cluster_id();
    refuse_beside_restored(node, id, &reply);
    let same = reply.node_id == id
        && match ours.as_deref() {
            Some(ours) if !reply.cluster_id.is_empty() => ours == reply.cluster_id,
            _ => reply.awaits || reply.founding == node.local.identity.founding || ours.is_none(),
        };
    if !same {
        tracing::warn!(
            address, expected_node = id, node = reply.node_id, cluster_id = %reply.cluster_id,
            "another node answers at this address; check --initial-cluster{}", restored_hint(node)
        );
        return None;
    }
    node.local.contacts.heard_from(id);
    node.space.note_peer(id, reply.storage_full);
    Some(reply)
}

/// What else may be wrong when the nodes were restored.
fn restored_hint(node: &Node) -> &'static str {
    if node.local.identity.founding.starts_with(RESTORED) { passport::RESTORED_HINT } else { "" }
}

/// A founder of an empty directory has no place among nodes that were restored.
fn refuse_beside_restored(node: &Node, id: u64, reply: &pb::IdentifyReply) {
    let local = &node.local;
    let is_new_founder = local.cluster_id().is_none() && !local.identity.founding.is_empty();
    if reply.node_id == id && is_new_founder && reply.founding.starts_with(RESTORED) {
        local.fail(Failure::ForeignDisk(format!(
            "{}: node {id} belongs to cluster {}, which was restored from a backup, and this directory is empty: restore \
             the same backup here, with the same --initial-cluster, before this node is started",
            node.directory.root().display(),
            reply.cluster_id,
        )));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_the_founding_list_does_not_matter() {
        let one = BTreeMap::from([(1, "a:1".to_owned()), (2, "b:1".to_owned())]);
        let other = BTreeMap::from([(2, "b:1".to_owned()), (1, "a:1".to_owned())]);
        assert_eq!(digest(&one), digest(&other));
        assert_ne!(digest(&one), digest(&BTreeMap::from([(1, "a:1".to_owned())])));
    }
}
