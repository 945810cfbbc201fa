//! The members as the leader knows them, and what it may do to them without losing the quorum.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::{Instant as _, ServerState};

use super::MemberError;
use crate::node::Node;
use crate::types::LogId;

/// Entries that a learner may lack when it gets a vote: it has them within a moment.
const LAG_MAX: u64 = 1_000;
const POLL: Duration = Duration::from_millis(10);

/// The effective membership, and who is up, at one moment.
#[derive(Debug, Clone)]
pub(super) struct View {
    pub(super) own: u64,
    pub(super) leads: bool,
    pub(super) log_id: Option<LogId>,
    /// Whether the membership is committed: only then may the next one be proposed.
    pub(super) committed: bool,
    /// Whether a change of voters is between its two steps.
    pub(super) joint: bool,
    /// The voters that the last change leads to.
    pub(super) voters: BTreeSet<u64>,
    /// Voters before it, as long as it is not complete.
    leaving: BTreeSet<u64>,
    /// Node-to-node addresses of voters and learners.
    pub(super) nodes: BTreeMap<u64, String>,
    live: BTreeSet<u64>,
    matched: BTreeMap<u64, u64>,
    last_log_index: u64,
}

impl View {
    pub(super) fn of(node: &Node) -> Self {
        Self::within(node, node.local.tuning.election_timeout_max * 2)
    }

    /// The same; up is who answered a heartbeat that was sent at most so long ago.
    fn within(node: &Node, age: Duration) -> Self {
        let metrics = node.raft.metrics();
        let metrics = metrics.borrow_watched();
        let stored = &metrics.membership_config;
        let configs = stored.membership().get_joint_config();
        let voters = configs.last().cloned().unwrap_or_default();
        let own = node.local.node_id();
        let acked = metrics.heartbeat.as_ref();
        // What it said lately, and what it answered lately: one that was never asked yet is judged by the first alone.
        let live = |id: u64| {
            id == own
                || node.reachable(id)
                    && acked
                        .and_then(|acked| acked.get(&id).copied().flatten())
                        .is_none_or(|at| at.elapsed() <= age)
        };
        let nodes: BTreeMap<u64, String> =
            stored.nodes().map(|(id, node)| (*id, node.addr.clone())).collect();
        let matched = metrics.replication.iter().flatten();
        Self {
            own,
            leads: metrics.state == ServerState::Leader,
            log_id: *stored.log_id(),
            committed: *stored.log_id() <= metrics.cluster_committed.max(metrics.local_committed),
            joint: configs.len() > 1,
            leaving: configs.iter().flatten().filter(|id| !voters.contains(id)).copied().collect(),
            live: nodes.keys().copied().filter(|id| live(*id)).collect(),
            matched: matched.filter_map(|(id, at)| Some((*id, at.as_ref()?.index))).collect(),
            last_log_index: metrics.last_log_index.unwrap_or(0),
            voters,
            nodes,
        }
    }

    /// Waits until everybody who seems to be up has answered once more: who died a moment ago must not be counted on.
    pub(super) async fn confirm_live(&mut self, node: &Node, deadline: Instant) {
        let started = Instant::now();
        let limit = deadline.min(started + node.local.tuning.election_timeout_max);
        loop {
            self.live = Self::within(node, started.elapsed()).live;
            if self.live == Self::of(node).live || Instant::now() >= limit {
                return;
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Whether a node has a vote, also one that it is losing.
    pub(super) fn votes(&self, id: u64) -> bool {
        self.voters.contains(&id) || self.leaving.contains(&id)
    }

    pub(super) fn is_live(&self, id: u64) -> bool {
        self.live.contains(&id)
    }

    /// Refuses a learner that would hold up the others as a voter.
    pub(super) fn check_caught_up(&self, id: u64) -> Result<(), MemberError> {
        if !self.is_live(id) {
            return Err(MemberError::Conflict(format!(
                "node {id} does not answer, and a vote that nobody casts helps nobody; start it, wait until \
                 `llm-config cluster list` shows it as reachable, and try again"
            )));
        }
        let matched = self.matched.get(&id).copied().unwrap_or(0);
        if matched + LAG_MAX < self.last_log_index {
            return Err(MemberError::Conflict(format!(
                "node {id} has not caught up: it has {matched} of {} log entries; wait until it has nearly all, then \
                 try again",
                self.last_log_index
            )));
        }
        Ok(())
    }

    /// Refuses voters of which a majority is not up: the cluster would stop taking writes.
    pub(super) fn check_quorum(
        &self,
        voters: &BTreeSet<u64>,
        force: bool,
    ) -> Result<(), MemberError> {
        if voters.is_empty() {
            return Err(MemberError::Conflict(
                "a cluster needs a voter, and this change leaves none; promote another node first"
                    .into(),
            ));
        }
        let live = voters.iter().filter(|id| self.is_live(**id)).count();
        let needed = voters.len() / 2 + 1;
        if live >= needed || force {
            return Ok(());
        }
        let dead: Vec<String> =
            voters.iter().filter(|id| !self.is_live(**id)).map(u64::to_string).collect();
        Err(MemberError::QuorumAtRisk(format!(
            "after this change {needed} of {} voters would have to be up, and {live} are (not reachable: {}); bring \
             them back first, or remove or replace those that are lost",
            voters.len(),
            dead.join(", ")
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(voters: &[u64], live: &[u64]) -> View {
        View {
            own: 1,
            leads: true,
            log_id: None,
            committed: true,
            joint: false,
            voters: voters.iter().copied().collect(),
            leaving: BTreeSet::new(),
            nodes: voters.iter().map(|id| (*id, format!("h:{id}"))).collect(),
            live: live.iter().copied().collect(),
            matched: BTreeMap::from([(4, 5_000)]),
            last_log_index: 6_000,
        }
    }

    fn allowed(voters: &[u64], live: &[u64], force: bool) -> Result<(), MemberError> {
        view(voters, live).check_quorum(&voters.iter().copied().collect(), force)
    }

    #[test]
    fn a_majority_of_the_new_voters_must_be_up() {
        allowed(&[1, 2, 3], &[1, 2], false).unwrap();
        allowed(&[1, 2, 3, 4], &[1, 2, 3], false).unwrap();
        allowed(&[1], &[1], false).unwrap();
        for (voters, live) in
            [(&[1, 2][..], &[1][..]), (&[1, 2, 3, 4], &[1, 2]), (&[1, 2, 3], &[3])]
        {
            let refused = allowed(voters, live, false).unwrap_err();
            assert!(matches!(refused, MemberError::QuorumAtRisk(_)), "{refused}");
            allowed(voters, live, true).unwrap();
        }
        let none = allowed(&[], &[1], true).unwrap_err();
        assert!(matches!(none, MemberError::Conflict(_)), "{none}");
    }

    #[test]
    fn a_learner_gets_a_vote_when_it_is_up_and_has_nearly_everything() {
        let mut view = view(&[1, 2, 3], &[1, 2, 3, 4]);
        view.check_caught_up(4).unwrap();
        view.last_log_index = 6_001;
        assert!(view.check_caught_up(4).unwrap_err().to_string().contains("5000 of 6001"));
        view.live.remove(&4);
        assert!(view.check_caught_up(4).unwrap_err().to_string().contains("does not answer"));
        assert!(view.check_caught_up(9).is_err());
    }
}
