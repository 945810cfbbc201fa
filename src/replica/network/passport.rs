//! Who a message is from and for.
//!
//! A stale DNS name or a reused address can lead a message to a node of another cluster, and a replaced disk can answer
//! under the id of the old one. Every call therefore names its cluster, its receiver and the receiver's disk; the receiver
//! refuses what is not for it. With TLS the sender must be the node that its certificate names.

use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::{Request, Status};

use super::secure::Certified;
use crate::config::Join;
use crate::local::{Failure, Local};
use crate::storage::directory::RESTORED;

const CLUSTER: &str = "x-cluster-id";
const FOUNDING: &str = "x-founding";
const SOURCE: &str = "x-source-node";
const SOURCE_INCARNATION: &str = "x-source-incarnation";
const TARGET: &str = "x-target-node";
const TARGET_INCARNATION: &str = "x-target-incarnation";

/// What to look at when restored nodes find that they belong to different clusters.
pub(crate) const RESTORED_HINT: &str = "; every founder of a restored cluster must be restored from the same backup with \
     the same --initial-cluster and --cluster-token, and none may start on an empty directory";

/// Stamps an outgoing request.
pub(crate) fn stamp<T>(local: &Local, target: u64, request: &mut Request<T>) {
    let metadata = request.metadata_mut();
    insert(metadata, SOURCE, &local.node_id().to_string());
    insert(metadata, SOURCE_INCARNATION, &local.identity.incarnation);
    insert(metadata, TARGET, &target.to_string());
    insert(metadata, FOUNDING, &local.identity.founding);
    if let Some(cluster_id) = local.cluster_id() {
        insert(metadata, CLUSTER, &cluster_id);
    }
    if let Some(incarnation) = local.state.incarnation(target) {
        insert(metadata, TARGET_INCARNATION, &incarnation);
    }
}

fn insert(metadata: &mut MetadataMap, key: &'static str, value: &str) {
    if let Ok(value) = MetadataValue::<Ascii>::try_from(value) {
        metadata.insert(key, value);
    }
}

fn text<'a>(metadata: &'a MetadataMap, key: &str) -> Option<&'a str> {
    metadata.get(key).and_then(|value| value.to_str().ok()).filter(|value| !value.is_empty())
}

fn number(metadata: &MetadataMap, key: &str) -> Option<u64> {
    text(metadata, key).and_then(|value| value.parse().ok())
}

/// Whether who asks was removed from this node's cluster. A stranger with the same id is not told that it was.
pub(crate) fn asked_by_removed(local: &Local, metadata: &MetadataMap) -> bool {
    let same_cluster = match (local.cluster_id(), text(metadata, CLUSTER)) {
        (Some(ours), Some(theirs)) => ours == theirs,
        // A founder whose disk was emptied knows no cluster, but the list that it was founded with.
        (Some(_), None) => {
            let founding = text(metadata, FOUNDING).unwrap_or_default();
            !founding.is_empty() && founding == local.identity.founding
        }
        (None, _) => false,
    };
    same_cluster && number(metadata, SOURCE).is_some_and(|source| local.state.is_removed(source))
}

/// A request that passed.
pub(crate) struct Passed {
    /// Who sent it.
    pub(crate) source: u64,
    /// This node awaits a cluster, and the sender's is one that it may join. It has not joined it yet.
    pub(crate) joins: Option<String>,
}

/// Whether the sender is the node that its certificate names: who it says that it is counts for nothing until then.
#[allow(clippy::result_large_err, reason = "tonic's error type is large by design")]
pub(crate) fn certified<T>(local: &Local, request: &Request<T>) -> Result<(), Status> {
    let Some(secure) = &local.secure else { return Ok(()) };
    let claimed = number(request.metadata(), SOURCE);
    let shown = request.extensions().get::<Certified>();
    let reason = match (claimed, shown) {
        (Some(claimed), Some(Certified(id))) if claimed == *id => return Ok(()),
        (Some(claimed), Some(Certified(id))) => {
            format!(
                "it says that it is from node {claimed}, and its certificate is that of node {id}"
            )
        }
        (None, Some(Certified(id))) => {
            format!("it has no sender, and the certificate of node {id}")
        }
        // No connection without one is accepted.
        (_, None) => "its connection has no certificate".to_owned(),
    };
    let peer = shown.map_or(0, |Certified(id)| *id);
    secure.pretended.note(format_args!("node {peer}"), &reason);
    // The code that says that nothing was begun.
    Err(Status::failed_precondition(reason))
}

/// Checks an incoming request.
#[allow(clippy::result_large_err, reason = "tonic's error type is large by design")]
pub(crate) fn check<T>(local: &Local, request: &Request<T>) -> Result<Passed, Status> {
    certified(local, request)?;
    let metadata = request.metadata();
    let source = number(metadata, SOURCE)
        .ok_or_else(|| Status::invalid_argument("x-source-node is missing"))?;
    let target = number(metadata, TARGET)
        .ok_or_else(|| Status::invalid_argument("x-target-node is missing"))?;
    if target != local.node_id() {
        return Err(refuse(format!(
            "this is node {}, not node {target}: check the addresses",
            local.node_id()
        )));
    }
    let theirs = text(metadata, CLUSTER);
    let ours = local.cluster_id();
    let joins = match (&ours, &local.join) {
        (None, Some(join)) => Some(joinable(join, source, theirs)?),
        (Some(_), _) | (None, None) => None,
    };
    let restored = [text(metadata, FOUNDING).unwrap_or_default(), &local.identity.founding];
    let hint = if restored.iter().any(|founding| founding.starts_with(RESTORED)) {
        RESTORED_HINT
    } else {
        ""
    };
    match (ours.as_deref(), theirs) {
        (None, _) if joins.is_some() => {}
        (Some(ours), Some(theirs)) if ours != theirs => {
            return Err(refuse(format!(
                "this node belongs to cluster {ours}; node {source} belongs to cluster {theirs}{hint}"
            )));
        }
        (Some(_), Some(_)) => {}
        // At least one side has not heard of the founded cluster yet: the founding list must be the same.
        _ if text(metadata, FOUNDING).unwrap_or_default() != local.identity.founding => {
            return Err(refuse(format!(
                "node {source} was started with another --initial-cluster than node {}{hint}",
                local.node_id()
            )));
        }
        _ => {}
    }
    if let Some(expected) = text(metadata, TARGET_INCARNATION)
        && expected != local.identity.incarnation
    {
        local.fail(Failure::ForeignDisk(format!(
            "the cluster knows node {} by another disk than this data directory: a node id is never used again after \
             its disk was lost or emptied. Give this node a new id and replace the old one",
            local.node_id()
        )));
        return Err(refuse(format!("the disk of node {} was replaced", local.node_id())));
    }
    if let (Some(known), Some(claimed)) =
        (local.state.registered(source), text(metadata, SOURCE_INCARNATION))
        && known.incarnation != claimed
    {
        return Err(refuse(format!("node {source} is registered with another disk")));
    }
    if local.state.is_removed(source) {
        return Err(refuse(format!("node {source} was removed from this cluster")));
    }
    local.contacts.heard_from(source);
    Ok(Passed { source, joins })
}

/// The cluster that a waiting node may join at the word of `source`.
#[allow(clippy::result_large_err, reason = "tonic's error type is large by design")]
fn joinable(join: &Join, source: u64, theirs: Option<&str>) -> Result<String, Status> {
    let Some(theirs) = theirs else {
        return Err(refuse(format!(
            "this node waits to join a running cluster; node {source} belongs to none yet"
        )));
    };
    if let Some(wanted) = join.cluster_id.as_deref().filter(|wanted| *wanted != theirs) {
        return Err(refuse(format!(
            "this node waits to join cluster {wanted}; node {source} belongs to cluster {theirs}"
        )));
    }
    Ok(theirs.to_owned())
}

fn refuse(message: String) -> Status {
    tracing::warn!(reason = message, "a message from another node was refused");
    Status::failed_precondition(message)
}
