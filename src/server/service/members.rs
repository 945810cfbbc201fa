//! Changes of the members: check the request, let the leader carry it out, answer with what came of it.
//!
//! What may be done, and in which order, is the replica's; each change may be sent again.

use std::time::{Duration, Instant};

use llm_config_domain::{Action, AuditKind, Need};
use llm_config_replica::{Advertise, Member, MemberChange, MemberError, Role, Status};

use super::{Context, Service};
use crate::address::advertised;
use crate::error::ServiceError;

/// How long the answer to a change that is done waits for this node to have seen it.
const SEEN_TIMEOUT: Duration = Duration::from_secs(2);
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// A node to be added, as text.
#[derive(Debug, Clone)]
pub struct AddMemberRequest {
    pub id: u64,
    pub raft: String,
    pub http: String,
    pub grpc: String,
    pub force: bool,
}

impl Service {
    /// Adds a node that waits for it, as a learner.
    pub async fn add_member(
        &self,
        context: &Context,
        request: AddMemberRequest,
    ) -> Result<Member, ServiceError> {
        let result = self.add(context, request).await;
        self.counted(context, "member_add", result)
    }

    async fn add(
        &self,
        context: &Context,
        request: AddMemberRequest,
    ) -> Result<Member, ServiceError> {
        let id = member_id("id", request.id)?;
        let address = |field: &'static str, text: &str| {
            advertised(text).map_err(|reason| ServiceError::invalid(field, reason))
        };
        let addresses = Advertise {
            raft: address("raft", &request.raft)?,
            http: address("http", &request.http)?,
            grpc: address("grpc", &request.grpc)?,
        };
        let change = MemberChange::Add { id, addresses: addresses.clone() };
        self.change(context, change, request.force).await?;
        // Sent again, it may meet a member that has a vote by now.
        match self.until(context, |status| find(status, id)).await {
            Some(member) => Ok(member),
            None => Ok(self.seen(context, id, false, addresses).await),
        }
    }

    /// Gives a learner its vote.
    pub async fn promote_member(
        &self,
        context: &Context,
        id: u64,
        force: bool,
    ) -> Result<Member, ServiceError> {
        let result = self.vote(context, MemberChange::Promote { id }, id, force).await;
        self.counted(context, "member_promote", result)
    }

    /// Takes a voter's vote.
    pub async fn demote_member(
        &self,
        context: &Context,
        id: u64,
        force: bool,
    ) -> Result<Member, ServiceError> {
        let result = self.vote(context, MemberChange::Demote { id }, id, force).await;
        self.counted(context, "member_demote", result)
    }

    async fn vote(
        &self,
        context: &Context,
        change: MemberChange,
        id: u64,
        force: bool,
    ) -> Result<Member, ServiceError> {
        let votes = matches!(change, MemberChange::Promote { .. });
        member_id("id", id)?;
        self.change(context, change, force).await?;
        Ok(self.seen(context, id, votes, Advertise::default()).await)
    }

    /// Removes a member for ever.
    pub async fn remove_member(
        &self,
        context: &Context,
        id: u64,
        force: bool,
    ) -> Result<(), ServiceError> {
        let result = self.remove(context, id, force).await;
        self.counted(context, "member_remove", result)
    }

    async fn remove(&self, context: &Context, id: u64, force: bool) -> Result<(), ServiceError> {
        member_id("id", id)?;
        self.change(context, MemberChange::Remove { id }, force).await?;
        // A node that removed itself may never see it.
        self.until(context, |status| find(status, id).is_none().then_some(())).await;
        Ok(())
    }

    /// Lets a learner take the place of another member, which is removed.
    pub async fn replace_member(
        &self,
        context: &Context,
        old: u64,
        new: u64,
        force: bool,
    ) -> Result<Member, ServiceError> {
        let result = self.replace(context, old, new, force).await;
        self.counted(context, "member_replace", result)
    }

    async fn replace(
        &self,
        context: &Context,
        old: u64,
        new: u64,
        force: bool,
    ) -> Result<Member, ServiceError> {
        member_id("id", old)?;
        member_id("with", new)?;
        if old == new {
            return Err(ServiceError::invalid("with", "is the member that is to be replaced"));
        }
        self.change(context, MemberChange::Replace { old, new }, force).await?;
        Ok(self.seen(context, new, true, Advertise::default()).await)
    }

    /// Makes another voter the leader: the given one, else the best candidate. Answers who leads then.
    pub async fn transfer_leader(
        &self,
        context: &Context,
        to: Option<u64>,
        force: bool,
    ) -> Result<u64, ServiceError> {
        let result = self.transfer(context, to, force).await;
        self.counted(context, "transfer_leader", result)
    }

    async fn transfer(
        &self,
        context: &Context,
        to: Option<u64>,
        force: bool,
    ) -> Result<u64, ServiceError> {
        to.map(|to| member_id("to", to)).transpose()?;
        let before = self.replica().leader_id();
        self.change(context, MemberChange::TransferLeader { to }, force).await?;
        let leads = |status: &Status| match to {
            Some(_) => status.leader_id.filter(|leader| Some(*leader) == to),
            None => status.leader_id.filter(|leader| Some(*leader) != before),
        };
        match self.until(context, leads).await.or(to) {
            Some(leader) => Ok(leader),
            None => Err(ServiceError::MembershipUnknown {
                reason: "no new leader was heard of in time".into(),
            }),
        }
    }

    async fn change(
        &self,
        context: &Context,
        change: MemberChange,
        force: bool,
    ) -> Result<(), ServiceError> {
        let (kind, mut detail) = announced(&change);
        if force {
            detail.push_str(", forced");
        }
        self.authorize(context, &[Need::Everywhere(Action::Cluster)]).await?;
        self.announce(context, kind, Vec::new(), detail).await?;
        let actor = &context.caller.name;
        let changed = self.replica().change_members(change, force, actor, context.deadline).await;
        changed.map_err(not_changed)
    }

    /// The member as this node knows it once the change has reached it; without news in time, as the change left it.
    async fn seen(&self, context: &Context, id: u64, votes: bool, addresses: Advertise) -> Member {
        let changed = |status: &Status| {
            find(status, id).filter(|member| (member.role != Role::Learner) == votes)
        };
        match self.until(context, changed).await {
            Some(member) => member,
            None => Member {
                id,
                role: if votes { Role::Follower } else { Role::Learner },
                addresses,
                reachable: false,
                matched_index: None,
                version: String::new(),
            },
        }
    }

    /// Looks at this node's view of the cluster until it shows something, or a short time has passed.
    async fn until<T>(&self, context: &Context, shows: impl Fn(&Status) -> Option<T>) -> Option<T> {
        let deadline = context.deadline.min(Instant::now() + SEEN_TIMEOUT);
        loop {
            if let Some(found) = shows(&self.replica().status()) {
                return Some(found);
            }
            if Instant::now() >= deadline {
                return None;
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
}

/// How a change is called in the audit log.
fn announced(change: &MemberChange) -> (AuditKind, String) {
    match change {
        MemberChange::Add { id, addresses } => {
            (AuditKind::ClusterMemberAdd, format!("node {id} at {}", addresses.raft))
        }
        MemberChange::Promote { id } => (AuditKind::ClusterMemberPromote, format!("node {id}")),
        MemberChange::Demote { id } => (AuditKind::ClusterMemberDemote, format!("node {id}")),
        MemberChange::Remove { id } => (AuditKind::ClusterMemberRemove, format!("node {id}")),
        MemberChange::Replace { old, new } => {
            (AuditKind::ClusterMemberReplace, format!("node {old} by node {new}"))
        }
        MemberChange::TransferLeader { to } => (
            AuditKind::ClusterTransferLeader,
            to.map_or_else(|| "to the best candidate".into(), |to| format!("to node {to}")),
        ),
    }
}

fn find(status: &Status, id: u64) -> Option<Member> {
    status.members.iter().find(|member| member.id == id).cloned()
}

fn member_id(field: &'static str, id: u64) -> Result<u64, ServiceError> {
    if id == 0 {
        return Err(ServiceError::invalid(field, "0 is no node id; nodes are numbered from 1"));
    }
    Ok(id)
}

fn not_changed(error: MemberError) -> ServiceError {
    match error {
        MemberError::NoLeader => ServiceError::NoLeader,
        MemberError::NotReady => {
            ServiceError::NotReady { reason: "it has not joined a founded cluster yet".into() }
        }
        MemberError::Overloaded => {
            ServiceError::Overloaded { reason: "writes are in flight up to the bound".into() }
        }
        MemberError::StorageFull(reason) => ServiceError::StorageFull { reason },
        MemberError::OutcomeUnknown => {
            ServiceError::MembershipUnknown { reason: "it was not finished in time".into() }
        }
        MemberError::Failed(reason) => {
            ServiceError::NotReady { reason: format!("it is stopping: {reason}") }
        }
        MemberError::Invalid(reason) => ServiceError::invalid("member", reason),
        MemberError::Unknown { id } => ServiceError::NotFound {
            what: format!(
                "node {id} is no member of this cluster; `llm-config cluster list` shows who is"
            ),
            revision: None,
        },
        MemberError::Conflict(reason) => ServiceError::MembershipConflict { reason },
        MemberError::QuorumAtRisk(reason) => ServiceError::QuorumAtRisk { reason },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_of_a_change_has_its_place_in_the_table() {
        let table = [
            (MemberError::NoLeader, "NO_LEADER", "no"),
            (MemberError::NotReady, "NOT_READY", "no"),
            (MemberError::Overloaded, "OVERLOADED", "no"),
            (MemberError::StorageFull("disk".into()), "STORAGE_FULL", "no"),
            (MemberError::OutcomeUnknown, "OUTCOME_UNKNOWN", "unknown"),
            (MemberError::Failed("disk".into()), "NOT_READY", "no"),
            (MemberError::Invalid("x".into()), "INVALID_ARGUMENT", "no"),
            (MemberError::Unknown { id: 7 }, "NOT_FOUND", "no"),
            (MemberError::Conflict("x".into()), "MEMBERSHIP_CONFLICT", "no"),
            (MemberError::QuorumAtRisk("x".into()), "QUORUM_AT_RISK", "no"),
        ];
        for (error, code, applied) in table {
            let mapped = not_changed(error);
            assert_eq!((mapped.code(), mapped.effect().as_str()), (code, applied));
        }
    }

    #[test]
    fn an_unknown_outcome_may_be_sent_again_without_a_key() {
        let error = not_changed(MemberError::OutcomeUnknown);
        assert!(error.retryable());
        assert!(!error.to_string().contains("Idempotency-Key"), "{error}");
    }
}
