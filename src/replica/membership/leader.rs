//! What the leader does to change the members: checks, marks in the state, and steps of the Raft membership, in an order
//! in which a crash after any of them leaves something that the same change, sent again, completes.
//!
//! A node is known in the state before it is told to replicate, so that no other disk can answer under its id; one that
//! is removed is marked in the state before it leaves, so that its id is used up whatever happens next.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use llm_config_domain::{AddNode, Command, Node as Registration, Operation, Rejection, RemoveNode};
use llm_config_proto::internal as pb;
use openraft::ChangeMembers;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::impls::BasicNode;
use openraft::raft::Precondition;

use super::view::View;
use super::{Attempt, MemberChange, MemberError};
use crate::config::Advertise;
use crate::error::ProposeError;
use crate::failpoint::crash_point;
use crate::handover;
use crate::node::Node;
use crate::propose;

/// Longest time that the leader works on one change, also when nobody waits for it any more.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long an earlier change may take to be committed before the next one is refused.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a new node has to say who it is.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(10);

/// Why a change goes no further here.
enum Stop {
    /// For good.
    Refused(MemberError),
    /// Another node leads now, and nothing was begun.
    Elsewhere,
    /// Something was begun and this node cannot say how it ended.
    Unknown,
}

impl From<MemberError> for Stop {
    fn from(error: MemberError) -> Self {
        Self::Refused(error)
    }
}

type Step<T = ()> = Result<T, Stop>;

fn conflict<T>(reason: String) -> Step<T> {
    Err(Stop::Refused(MemberError::Conflict(reason)))
}

/// Carries out a change, when this node leads.
pub(crate) async fn on_leader(
    node: &Arc<Node>,
    change: MemberChange,
    force: bool,
    actor: String,
    deadline: Instant,
) -> Attempt {
    if !node.leads() {
        return Attempt::NotBegun;
    }
    let Ok(turn) = Arc::clone(&node.changing).try_lock_owned() else {
        return Attempt::Final(Err(MemberError::Conflict(
            "another change of the members is in progress; wait for it, look at the members, then try again".into(),
        )));
    };
    let work = Work { node: Arc::clone(node), force, actor, asked_until: deadline };
    // A task of its own: who gives up waiting must not leave the cluster between the two steps of a change. Its end is
    // its time limit, and no second one starts before.
    let task = tokio::spawn(async move {
        let _turn = turn;
        let carried_out = tokio::time::timeout(CHANGE_TIMEOUT, work.carry_out(change));
        carried_out.await.unwrap_or(Err(Stop::Unknown))
    });
    match tokio::time::timeout_at(deadline.into(), task).await {
        Ok(Ok(Ok(()))) => Attempt::Final(Ok(())),
        Ok(Ok(Err(Stop::Refused(error)))) => Attempt::Final(Err(error)),
        Ok(Ok(Err(Stop::Elsewhere))) => Attempt::NotBegun,
        Ok(Ok(Err(Stop::Unknown)) | Err(_)) | Err(_) => Attempt::Unknown,
    }
}

/// One change at work.
struct Work {
    node: Arc<Node>,
    force: bool,
    actor: String,
    /// When the caller gives up: what has not begun by then does not begin.
    asked_until: Instant,
}

impl Work {
    async fn carry_out(&self, change: MemberChange) -> Step {
        let mut view = self.settled().await?;
        if !matches!(change, MemberChange::Add { .. } | MemberChange::TransferLeader { .. }) {
            view.confirm_live(&self.node, self.asked_until).await;
        }
        match change {
            MemberChange::Add { id, addresses } => self.add(&view, id, addresses).await,
            MemberChange::Promote { id } => self.promote(&view, id).await,
            MemberChange::Demote { id } => self.demote(&view, id).await,
            MemberChange::Remove { id } => self.remove(&view, id).await,
            MemberChange::Replace { old, new } => self.replace(&view, old, new).await,
            MemberChange::TransferLeader { to } => self.transfer(&view, to).await,
        }
    }

    /// The members once the last change of them is committed: an earlier leader may have left one behind.
    async fn settled(&self) -> Step<View> {
        let limit = self.asked_until.min(Instant::now() + SETTLE_TIMEOUT);
        loop {
            let view = View::of(&self.node);
            if !view.leads {
                return Err(Stop::Elsewhere);
            }
            if view.committed && view.log_id.is_some() {
                return Ok(view);
            }
            if Instant::now() >= limit {
                return conflict(
                    "an earlier change of the members is not committed yet: a majority of the voters must be up for \
                     it; bring them back, then try again"
                        .into(),
                );
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn is_removed(&self, id: u64) -> bool {
        self.node.local.state.registry().removed.contains_key(&id)
    }

    /// Refuses an id that is no member, and one that is on its way out.
    fn check_stays(&self, view: &View, id: u64) -> Step {
        if self.is_removed(id) && view.nodes.contains_key(&id) {
            return conflict(format!(
                "the removal of node {id} is not finished; remove it again, which completes it"
            ));
        }
        if self.is_removed(id) {
            return conflict(format!(
                "node {id} was removed, and a removed node does not come back; add the machine under a new id"
            ));
        }
        if !view.nodes.contains_key(&id) {
            return Err(MemberError::Unknown { id }.into());
        }
        Ok(())
    }

    async fn add(&self, view: &View, id: u64, addresses: Advertise) -> Step {
        if self.is_removed(id) {
            return conflict(format!(
                "node id {id} belonged to a node that was removed, and ids are never used again; give the new node \
                 another id"
            ));
        }
        let known = view.nodes.get(&id);
        if let Some(address) = known.filter(|address| **address != addresses.raft) {
            return conflict(format!(
                "node {id} is a member already, at {address}; give the new node another id"
            ));
        }
        if let Some((other, _)) =
            view.nodes.iter().find(|(other, address)| **other != id && **address == addresses.raft)
        {
            return conflict(format!(
                "{} is the address of node {other}; every node needs its own",
                addresses.raft
            ));
        }
        let reply = match (self.identify(id, &addresses.raft).await, known) {
            (Ok(reply), _) => reply,
            // It is a member, and down.
            (Err(_), Some(_)) => return Ok(()),
            (Err(reason), None) => return conflict(reason),
        };
        self.check_joins(id, &addresses.raft, &reply)?;
        if known.is_some() {
            return Ok(());
        }
        crash_point("members.add.before-node");
        let registration = Registration {
            id,
            incarnation: reply.incarnation,
            http: addresses.http,
            grpc: addresses.grpc,
            raft: addresses.raft.clone(),
            version: reply.release,
        };
        self.propose(Operation::AddNode(AddNode { node: registration })).await?;
        crash_point("members.add.after-node");
        let learner = ChangeMembers::AddNodes([(id, BasicNode::new(addresses.raft))].into());
        self.change(|view| (!view.nodes.contains_key(&id)).then(|| learner.clone())).await?;
        crash_point("members.add.after-learner");
        tracing::info!(node = id, "a learner was added");
        Ok(())
    }

    /// Asks who answers at an address. The error says what to do about it.
    async fn identify(&self, id: u64, address: &str) -> Result<pb::IdentifyReply, String> {
        let mut peer = self.node.peer(id, address).map_err(|error| {
            format!("{error}; give the node-to-node address of the new node as host:port")
        })?;
        let request = self.node.request(id, pb::IdentifyRequest {}, ASK_TIMEOUT);
        let unreachable = |error: &str| {
            format!(
                "no node answers at {address} ({error}); start the new node with --join, check the address, then try \
                 again"
            )
        };
        match tokio::time::timeout(ASK_TIMEOUT, peer.identify(request)).await {
            Ok(Ok(reply)) => Ok(reply.into_inner()),
            Ok(Err(status)) => Err(unreachable(status.message())),
            Err(_) => Err(unreachable("no answer in time")),
        }
    }

    /// Whether the node that answered is the one to be added.
    fn check_joins(&self, id: u64, address: &str, reply: &pb::IdentifyReply) -> Step {
        if reply.node_id != id {
            return conflict(format!(
                "the node at {address} has id {}, not {id}; check the id and the address",
                reply.node_id
            ));
        }
        let ours = self.node.local.cluster_id().unwrap_or_default();
        let disk = self.node.local.state.incarnation(id);
        if let Some(disk) = disk.filter(|disk| *disk != reply.incarnation) {
            return conflict(format!(
                "node id {id} is known with another data directory (disk {disk}); an id is never used again after \
                 its disk was lost or emptied. Give the new node a new id"
            ));
        }
        if reply.cluster_id == ours {
            return Ok(());
        }
        if !reply.cluster_id.is_empty() {
            return conflict(format!(
                "the node at {address} belongs to another cluster, {}; give it an empty data directory and start it \
                 with --join",
                reply.cluster_id
            ));
        }
        if !reply.awaits || reply.incarnation.is_empty() {
            return conflict(format!(
                "the node at {address} does not wait to join a cluster; start it on an empty data directory with --join"
            ));
        }
        if !reply.wants.is_empty() && reply.wants != ours {
            return conflict(format!(
                "the node at {address} waits for cluster {}, and this is cluster {ours}; check what its --join names",
                reply.wants
            ));
        }
        Ok(())
    }

    async fn promote(&self, view: &View, id: u64) -> Step {
        self.check_stays(view, id)?;
        let voters: BTreeSet<u64> = view.voters.iter().copied().chain([id]).collect();
        if !view.votes(id) {
            view.check_caught_up(id)?;
        }
        if voters != view.voters {
            view.check_quorum(&voters, self.force)?;
        }
        self.vote(&voters).await?;
        tracing::info!(node = id, "a learner has become a voter");
        Ok(())
    }

    async fn demote(&self, view: &View, id: u64) -> Step {
        self.check_stays(view, id)?;
        let voters = without(view, id);
        if view.votes(id) {
            view.check_quorum(&voters, self.force)?;
            self.leave_to_another(view, id).await?;
        }
        self.vote(&voters).await?;
        tracing::info!(node = id, "a voter has become a learner");
        Ok(())
    }

    async fn remove(&self, view: &View, id: u64) -> Step {
        let member = view.nodes.contains_key(&id);
        if !member && !self.is_removed(id) && self.node.local.state.registered(id).is_none() {
            return Err(MemberError::Unknown { id }.into());
        }
        let voters = without(view, id);
        if view.votes(id) {
            view.check_quorum(&voters, self.force)?;
            self.leave_to_another(view, id).await?;
        }
        self.mark_removed(id).await?;
        self.vote(&voters).await?;
        self.drop_out(id).await?;
        tracing::info!(node = id, "a member was removed");
        Ok(())
    }

    async fn replace(&self, view: &View, old: u64, new: u64) -> Step {
        if old == new {
            return Err(MemberError::Invalid(format!(
                "with: node {new} cannot replace itself; add the new node under a new id first"
            ))
            .into());
        }
        self.check_stays(view, new)?;
        let member = view.nodes.contains_key(&old);
        if !member && !self.is_removed(old) {
            return Err(MemberError::Unknown { id: old }.into());
        }
        if view.voters.contains(&old) && view.voters.contains(&new) {
            return conflict(format!(
                "node {new} has a vote of its own already; remove node {old} instead, or name a learner"
            ));
        }
        let mut voters = without(view, old);
        voters.insert(new);
        if !view.votes(old) && !view.voters.contains(&new) {
            return conflict(format!(
                "node {old} has no vote that node {new} could get; promote node {new} and remove node {old} instead"
            ));
        }
        if !view.votes(new) {
            view.check_caught_up(new)?;
        }
        if voters != view.voters {
            view.check_quorum(&voters, self.force)?;
            self.leave_to_another(view, old).await?;
        }
        self.vote(&voters).await?;
        self.mark_removed(old).await?;
        self.drop_out(old).await?;
        tracing::info!(old, new, "a member was replaced");
        Ok(())
    }

    async fn transfer(&self, view: &View, to: Option<u64>) -> Step {
        let in_time = |taken: bool| {
            if taken {
                return Ok(());
            }
            conflict(
                "leadership was not taken over in time, the voters elect a leader; look who leads, then try again"
                    .into(),
            )
        };
        crash_point("members.transfer.before");
        let Some(to) = to else {
            if view.voters.len() < 2 {
                return conflict(
                    "there is no other voter that could lead; promote one first".into(),
                );
            }
            handover::hand_over(&self.node, self.asked_until).await;
            return in_time(!self.node.leads());
        };
        if to == view.own {
            return Ok(());
        }
        self.check_stays(view, to)?;
        if !view.voters.contains(&to) {
            return conflict(format!("node {to} has no vote and cannot lead; promote it first"));
        }
        view.check_caught_up(to)?;
        let taken = handover::give_to(&self.node, to, self.asked_until).await;
        crash_point("members.transfer.after");
        in_time(taken)
    }

    /// A leader that loses its vote first makes another voter the leader; that one carries out the change.
    async fn leave_to_another(&self, view: &View, id: u64) -> Step {
        if id != view.own {
            return Ok(());
        }
        handover::hand_over(&self.node, self.asked_until).await;
        if self.node.leads() {
            return conflict(format!(
                "node {id} leads, and no other voter took over from it; check that the others are up, then try again"
            ));
        }
        crash_point("members.handed-over");
        Err(Stop::Elsewhere)
    }

    /// Uses up the id of a node.
    async fn mark_removed(&self, id: u64) -> Step {
        if self.is_removed(id) {
            return Ok(());
        }
        crash_point("members.mark.before");
        self.propose(Operation::RemoveNode(RemoveNode { id })).await?;
        crash_point("members.mark.after");
        Ok(())
    }

    /// Brings the cluster to these voters; who loses its vote becomes a learner.
    async fn vote(&self, voters: &BTreeSet<u64>) -> Step {
        let changed = self.change(|view| {
            let differ = view.joint || view.voters != *voters;
            differ.then(|| ChangeMembers::ReplaceAllVoters(voters.clone()))
        });
        crash_point("members.voters.before");
        changed.await?;
        crash_point("members.voters.after");
        Ok(())
    }

    /// Takes a learner out.
    async fn drop_out(&self, id: u64) -> Step {
        let changed = self.change(|view| {
            view.nodes.contains_key(&id).then(|| ChangeMembers::RemoveNodes(BTreeSet::from([id])))
        });
        crash_point("members.drop.before");
        changed.await?;
        crash_point("members.drop.after");
        Ok(())
    }

    /// Changes the Raft membership until nothing is left to change. Each step builds on the membership that it was
    /// decided on, or is decided anew.
    async fn change(&self, next: impl Fn(&View) -> Option<ChangeMembers<u64, BasicNode>>) -> Step {
        loop {
            let view = View::of(&self.node);
            if !view.leads || self.node.local.failure().is_some() {
                return Err(Stop::Unknown);
            }
            let Some(change) = next(&view) else { return Ok(()) };
            let unchanged =
                Precondition::LastMembershipLogId { last_membership_log_id: view.log_id };
            // Retaining: whoever loses its vote stays a learner until it is taken out by name.
            match self.node.raft.change_membership_if(change, true, [unchanged]).await {
                Ok(_) => {}
                Err(RaftError::APIError(
                    ClientWriteError::ForwardToLeader(_) | ClientWriteError::LogEntryDiscarded(_),
                )) => return Err(Stop::Unknown),
                Err(RaftError::APIError(
                    ClientWriteError::PreconditionFailed(_)
                    | ClientWriteError::ChangeMembershipError(
                        ChangeMembershipError::InProgress(_)
                        | ChangeMembershipError::UncommittedLeaderLog(_),
                    ),
                )) => tokio::time::sleep(PAUSE).await,
                Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(error))) => {
                    return Err(MemberError::Failed(format!(
                        "the members could not be changed: {error}"
                    ))
                    .into());
                }
                Err(RaftError::Fatal(error)) => {
                    tracing::error!(%error, "a change of the members was cut off");
                    return Err(Stop::Unknown);
                }
            }
        }
    }

    async fn propose(&self, operation: Operation) -> Step {
        let command = Command::new(self.actor.clone(), operation);
        let deadline = self.asked_until;
        let applied =
            propose::propose(&self.node, &command, deadline).await.map_err(
                |error| match error {
                    ProposeError::NoLeader | ProposeError::NotReady => Stop::Elsewhere,
                    ProposeError::OutcomeUnknown => Stop::Unknown,
                    ProposeError::Overloaded => MemberError::Overloaded.into(),
                    ProposeError::Invalid(reason) => MemberError::Invalid(reason).into(),
                    ProposeError::Failed(reason) => MemberError::Failed(reason).into(),
                    full => MemberError::StorageFull(full.to_string()).into(),
                },
            )?;
        match applied.result {
            Ok(_) => Ok(()),
            Err(Rejection::InvalidArgument(invalid)) => {
                Err(MemberError::Invalid(invalid.to_string()).into())
            }
            Err(rejection) => conflict(rejection.to_string()),
        }
    }
}

fn without(view: &View, id: u64) -> BTreeSet<u64> {
    view.voters.iter().copied().filter(|voter| *voter != id).collect()
}
