//! Changing the members of a running cluster, from any node.
//!
//! A change is carried out by the leader (`leader`), one at a time; any other node passes it on. Every change may be
//! repeated: what was done already is not done again, what was left half done is completed. So a change whose answer was
//! lost, and one whose leader died between two steps, is simply sent once more.

mod leader;
mod view;

use std::time::{Duration, Instant};

use llm_config_proto::internal as pb;
use thiserror::Error;
use tonic::Code;

use crate::config::Advertise;
use crate::node::Node;
use crate::propose::never_sent;

pub(crate) use leader::on_leader;

/// Time that a forwarded change leaves for its answer to travel back.
const REPLY_MARGIN: Duration = Duration::from_millis(20);

/// A change of the members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberChange {
    /// Takes a node that waits to join in, as a learner.
    Add {
        /// Its id, never used before.
        id: u64,
        /// Where it is reached.
        addresses: Advertise,
    },
    /// Gives a learner that has caught up a vote.
    Promote {
        /// The learner.
        id: u64,
    },
    /// Makes a voter a learner.
    Demote {
        /// The voter.
        id: u64,
    },
    /// Removes a member; its id is never used again.
    Remove {
        /// The member.
        id: u64,
    },
    /// Swaps the votes of two members in one step, then removes the old one.
    Replace {
        /// The voter to be removed, usually dead.
        old: u64,
        /// A learner that has caught up.
        new: u64,
    },
    /// Makes another voter the leader.
    TransferLeader {
        /// The voter; `None`: the one that is up and furthest.
        to: Option<u64>,
    },
}

/// Why the members were not changed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MemberError {
    /// No leader was found before the deadline.
    #[error("no leader is known; the members were not changed, try again")]
    NoLeader,
    /// This node does not belong to a founded cluster yet.
    #[error("the node does not belong to a cluster yet; ask a member")]
    NotReady,
    /// Too much is in flight.
    #[error("too many writes are in flight; the members were not changed, try again")]
    Overloaded,
    /// The disk is (nearly) full, or the quota is reached.
    #[error("storage is full; the members were not changed: {0}")]
    StorageFull(String),
    /// Begun, but not answered in time.
    #[error(
        "the change may or may not have happened; look at the members, or send the same change again: that is safe"
    )]
    OutcomeUnknown,
    /// The node is stopping, or something failed that no other error names.
    #[error("{0}")]
    Failed(String),
    /// The request can never succeed as it is.
    #[error("{0}")]
    Invalid(String),
    /// There is no such member.
    #[error("node {id} is not a member of this cluster; `llm-config cluster list` shows who is")]
    Unknown {
        /// The id that was named.
        id: u64,
    },
    /// The members do not allow it now.
    #[error("{0}")]
    Conflict(String),
    /// It could cost the cluster its quorum.
    #[error("{0}")]
    QuorumAtRisk(String),
}

/// What one attempt came to, when it is not the answer.
pub(crate) enum Attempt {
    /// Certainly nothing was begun; another node may know better.
    NotBegun,
    /// Maybe begun. A repetition is safe.
    Unknown,
    /// The answer.
    Final(Result<(), MemberError>),
}

/// Changes the members, from any node.
pub(crate) async fn change(
    node: &std::sync::Arc<Node>,
    change: MemberChange,
    force: bool,
    actor: &str,
    deadline: Instant,
) -> Result<(), MemberError> {
    if node.local.cluster_id().is_none() {
        return Err(MemberError::NotReady);
    }
    let mut maybe_begun = false;
    loop {
        if let Some(failure) = node.local.failure() {
            let failed =
                MemberError::Failed(format!("the node is stopping: {}", failure.message()));
            return Err(if maybe_begun { MemberError::OutcomeUnknown } else { failed });
        }
        let leader = node.leader();
        let attempt = match &leader {
            Some((id, _)) if *id == node.local.node_id() => {
                on_leader(node, change.clone(), force, actor.to_owned(), deadline).await
            }
            Some((id, address)) => {
                forward(node, *id, address, &change, force, actor, deadline).await
            }
            None => Attempt::NotBegun,
        };
        match attempt {
            Attempt::Final(answer) => return answer,
            Attempt::NotBegun => {}
            // Sent again it would make yet another node the leader.
            Attempt::Unknown if change == (MemberChange::TransferLeader { to: None }) => {
                return Err(MemberError::OutcomeUnknown);
            }
            Attempt::Unknown => maybe_begun = true,
        }
        node.wait_for_leader(leader.map(|(id, _)| id), deadline).await;
        if Instant::now() >= deadline {
            return Err(if maybe_begun {
                MemberError::OutcomeUnknown
            } else {
                MemberError::NoLeader
            });
        }
    }
}

async fn forward(
    node: &Node,
    leader: u64,
    address: &str,
    change: &MemberChange,
    force: bool,
    actor: &str,
    deadline: Instant,
) -> Attempt {
    let left = deadline.saturating_duration_since(Instant::now());
    let Ok(mut peer) = node.peer(leader, address) else { return Attempt::NotBegun };
    if left <= REPLY_MARGIN {
        return Attempt::NotBegun;
    }
    let message = pb::ChangeMembersRequest {
        change: Some(change_to_proto(change)),
        force,
        actor: actor.to_owned(),
        timeout_ms: u64::try_from((left - REPLY_MARGIN).as_millis()).unwrap_or(u64::MAX),
    };
    let request = node.request(leader, message, left);
    match tokio::time::timeout_at(deadline.into(), peer.change_members(request)).await {
        Err(_) => Attempt::Unknown,
        Ok(Ok(reply)) => reply_from_proto(reply.into_inner()),
        Ok(Err(status)) if never_sent(&status) => Attempt::NotBegun,
        // The passport check runs before anything else.
        Ok(Err(status)) if status.code() == Code::FailedPrecondition => Attempt::NotBegun,
        Ok(Err(status)) => {
            tracing::warn!(%status, leader, "a forwarded change of the members has no known outcome");
            Attempt::Unknown
        }
    }
}

pub(crate) fn change_to_proto(change: &MemberChange) -> pb::change_members_request::Change {
    use pb::change_members_request::{Add, Change, Replace, Transfer};
    match change {
        MemberChange::Add { id, addresses } => Change::Add(Add {
            id: *id,
            http: addresses.http.clone(),
            grpc: addresses.grpc.clone(),
            raft: addresses.raft.clone(),
        }),
        MemberChange::Promote { id } => Change::Promote(*id),
        MemberChange::Demote { id } => Change::Demote(*id),
        MemberChange::Remove { id } => Change::Remove(*id),
        MemberChange::Replace { old, new } => {
            Change::Replace(Replace { old_id: *old, new_id: *new })
        }
        MemberChange::TransferLeader { to } => Change::Transfer(Transfer { to: *to }),
    }
}

/// What another node asks for.
pub(crate) fn change_from_proto(change: pb::change_members_request::Change) -> MemberChange {
    use pb::change_members_request::Change;
    match change {
        Change::Add(add) => MemberChange::Add {
            id: add.id,
            addresses: Advertise { http: add.http, grpc: add.grpc, raft: add.raft },
        },
        Change::Promote(id) => MemberChange::Promote { id },
        Change::Demote(id) => MemberChange::Demote { id },
        Change::Remove(id) => MemberChange::Remove { id },
        Change::Replace(replace) => {
            MemberChange::Replace { old: replace.old_id, new: replace.new_id }
        }
        Change::Transfer(transfer) => MemberChange::TransferLeader { to: transfer.to },
    }
}

/// The answer to another node.
pub(crate) fn reply_to_proto(attempt: Attempt) -> pb::ChangeMembersReply {
    use pb::change_members_reply::Kind;
    let error = match attempt {
        Attempt::NotBegun => return reply(Kind::NotLeader, String::new()),
        Attempt::Unknown => return reply(Kind::OutcomeUnknown, String::new()),
        Attempt::Final(Ok(())) => return reply(Kind::Done, String::new()),
        Attempt::Final(Err(error)) => error,
    };
    match error {
        MemberError::NoLeader | MemberError::NotReady => reply(Kind::NotLeader, String::new()),
        MemberError::Overloaded => reply(Kind::Overloaded, String::new()),
        MemberError::StorageFull(reason) => reply(Kind::StorageFull, reason),
        MemberError::OutcomeUnknown => reply(Kind::OutcomeUnknown, String::new()),
        MemberError::Failed(reason) => reply(Kind::Failed, reason),
        MemberError::Invalid(reason) => reply(Kind::Invalid, reason),
        MemberError::Unknown { id } => {
            pb::ChangeMembersReply { kind: Kind::UnknownMember.into(), reason: String::new(), id }
        }
        MemberError::Conflict(reason) => reply(Kind::Conflict, reason),
        MemberError::QuorumAtRisk(reason) => reply(Kind::QuorumAtRisk, reason),
    }
}

fn reply(kind: pb::change_members_reply::Kind, reason: String) -> pb::ChangeMembersReply {
    pb::ChangeMembersReply { kind: kind.into(), reason, id: 0 }
}

pub(crate) fn reply_from_proto(reply: pb::ChangeMembersReply) -> Attempt {
    use pb::change_members_reply::Kind;
    let kind = reply.kind();
    let error = match kind {
        Kind::Done => return Attempt::Final(Ok(())),
        Kind::NotLeader => return Attempt::NotBegun,
        Kind::OutcomeUnknown | Kind::Unspecified => return Attempt::Unknown,
        Kind::Invalid => MemberError::Invalid(reply.reason),
        Kind::UnknownMember => MemberError::Unknown { id: reply.id },
        Kind::Conflict => MemberError::Conflict(reply.reason),
        Kind::QuorumAtRisk => MemberError::QuorumAtRisk(reply.reason),
        Kind::Overloaded => MemberError::Overloaded,
        Kind::StorageFull => MemberError::StorageFull(reply.reason),
        Kind::Failed => MemberError::Failed(reply.reason),
    };
    Attempt::Final(Err(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_survive_the_wire() {
        let changes = [
            MemberChange::Add {
                id: 4,
                addresses: Advertise { http: "h:1".into(), grpc: "h:2".into(), raft: "h:3".into() },
            },
            MemberChange::Promote { id: 4 },
            MemberChange::Demote { id: 3 },
            MemberChange::Remove { id: 2 },
            MemberChange::Replace { old: 1, new: 4 },
            MemberChange::TransferLeader { to: Some(2) },
            MemberChange::TransferLeader { to: None },
        ];
        for change in changes {
            assert_eq!(change_from_proto(change_to_proto(&change)), change);
        }
    }

    #[test]
    fn refusals_survive_the_wire() {
        let errors = [
            MemberError::Overloaded,
            MemberError::StorageFull("s".into()),
            MemberError::Failed("f".into()),
            MemberError::Invalid("i".into()),
            MemberError::Unknown { id: 9 },
            MemberError::Conflict("c".into()),
            MemberError::QuorumAtRisk("q".into()),
        ];
        for error in errors {
            let sent = reply_to_proto(Attempt::Final(Err(error.clone())));
            match reply_from_proto(sent) {
                Attempt::Final(Err(back)) => assert_eq!(back, error),
                _ => panic!("{error} became something else"),
            }
        }
    }
}
