//! How a leader that stops gives up its place: to the voter that has most of the log and answered lately, and waiting
//! until that one leads, so that writes wait for a round trip instead of an election.
//!
//! From the moment the Raft core is asked to transfer it takes no new entry; a write that arrives then is certainly not
//! appended, and whoever passed it on tries again at the next leader (`propose`). What was appended before is part of
//! the log that the next leader must have, so it is committed and answered.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use openraft::Instant as _;
use openraft::async_runtime::watch::WatchReceiver as _;

use crate::node::Node;

/// Longest time that a node spends on handing over before it stops regardless.
pub(crate) const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long writes that other nodes passed on may take to be answered once another node leads.
const FINISH_TIMEOUT: Duration = Duration::from_secs(2);
/// Entries that a voter may lack when it is asked to lead: it gets them within its election timeout.
const LAG_MAX: u64 = 1_000;
/// Entries that make no difference: under load, every voter lacks what is on its way.
const LAG_EQUAL: u64 = 100;
const POLL: Duration = Duration::from_millis(5);

/// Hands over when this node leads and another voter can. Tries one voter after the other until the deadline.
pub(crate) async fn hand_over(node: &Node, deadline: Instant) {
    let mut refused = BTreeSet::new();
    while node.leads() {
        let Some(target) = candidate(node, &refused, deadline).await else {
            let alone =
                node.raft.metrics().borrow_watched().membership_config.voter_ids().count() < 2;
            if !alone {
                tracing::warn!("no other voter answers: leadership is not handed over");
            }
            return;
        };
        tracing::info!(target, "handing over leadership");
        if node.raft.trigger().transfer_leader(target).await.is_err() {
            // The core has ended; why is told elsewhere.
            return;
        }
        let limit = deadline.min(Instant::now() + node.local.tuning.election_timeout_max);
        match other_leader(node, limit).await {
            Some(leader) => {
                let term = node.raft.metrics().borrow_watched().current_term;
                tracing::info!(leader, term, "leadership was handed over");
            }
            None if Instant::now() >= deadline => {
                tracing::warn!("leadership was not taken over in time; the others elect a leader");
                return;
            }
            None => {
                refused.insert(target);
            }
        }
    }
}

/// Makes `target` the leader; false when it did not take over in time.
pub(crate) async fn give_to(node: &Node, target: u64, deadline: Instant) -> bool {
    tracing::info!(target, "handing over leadership");
    if node.raft.trigger().transfer_leader(target).await.is_err() {
        return false;
    }
    let limit = deadline.min(Instant::now() + node.local.tuning.election_timeout_max * 2);
    other_leader(node, limit).await == Some(target)
}

/// Waits until the writes that other nodes passed on to this one are answered.
pub(crate) async fn finish_writes(node: &Node) {
    let limit = Instant::now() + FINISH_TIMEOUT;
    let idle = || node.slots.available_permits() >= node.local.tuning.proposals_in_flight_max;
    while !idle() && Instant::now() < limit {
        tokio::time::sleep(POLL).await;
    }
}

/// The leader, once it is another node.
async fn other_leader(node: &Node, limit: Instant) -> Option<u64> {
    let own = node.local.node_id();
    loop {
        if let Some((leader, _)) = node.leader().filter(|(id, _)| *id != own) {
            return Some(leader);
        }
        if Instant::now() >= limit {
            return None;
        }
        node.wait_for_leader(Some(own), limit).await;
    }
}

/// The best voter to lead next. One that lags gets a moment to catch up, because it could not win before; and a leader
/// that was elected just now has heard of nobody yet.
async fn candidate(node: &Node, refused: &BTreeSet<u64>, deadline: Instant) -> Option<u64> {
    let patience = deadline.min(Instant::now() + node.local.tuning.election_timeout_max);
    loop {
        let best = best_voter(node, refused);
        let waits = match &best {
            Some(best) => best.lag > LAG_MAX,
            None => untried(node, refused),
        };
        if !waits || Instant::now() >= patience {
            return best.map(|best| best.id);
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Whether there is another voter that has not refused.
fn untried(node: &Node, refused: &BTreeSet<u64>) -> bool {
    let metrics = node.raft.metrics();
    let metrics = metrics.borrow_watched();
    let own = node.local.node_id();
    metrics.membership_config.voter_ids().any(|id| id != own && !refused.contains(&id))
}

/// Ordered by what makes a good leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Standing {
    /// It answered so lately that it is up.
    recent: bool,
    /// Up to here it has the log; whoever lacks only the last few is as good as whoever lacks none.
    matched: u64,
    /// Among equals, leadership goes round: to the next lower id, and from the lowest to the highest.
    turn: (bool, u64),
}

struct Best {
    id: u64,
    lag: u64,
}

impl Standing {
    fn new(own: u64, id: u64, last: u64, matched: u64, recent: bool) -> Self {
        Self { recent, matched: matched.min(last.saturating_sub(LAG_EQUAL)), turn: (id < own, id) }
    }
}

/// Among the other voters that answered within the lease; none when no one did.
fn best_voter(node: &Node, refused: &BTreeSet<u64>) -> Option<Best> {
    let metrics = node.raft.metrics();
    let metrics = metrics.borrow_watched();
    let own = node.local.node_id();
    let tuning = &node.local.tuning;
    let last = metrics.last_log_index.unwrap_or_default();
    let (replication, acked) = (metrics.replication.as_ref()?, metrics.heartbeat.as_ref()?);
    metrics
        .membership_config
        .voter_ids()
        .filter(|id| *id != own && !refused.contains(id))
        .filter_map(|id| {
            let age = acked.get(&id).copied().flatten()?.elapsed();
            let matched = replication.get(&id)?.map_or(0, |id| id.index);
            let standing =
                Standing::new(own, id, last, matched, age <= tuning.election_timeout_min);
            let best = Best { id, lag: last.saturating_sub(matched) };
            (age <= tuning.election_timeout_max * 2).then_some((standing, best))
        })
        .max_by_key(|(standing, _)| *standing)
        .map(|(_, best)| best)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(own: u64, others: &[(u64, u64, bool)]) -> Option<u64> {
        let last = 10_000;
        let standing = |(id, matched, recent): &(u64, u64, bool)| {
            (Standing::new(own, *id, last, *matched, *recent), *id)
        };
        others.iter().map(standing).max().map(|(_, id)| id)
    }

    #[test]
    fn who_answered_lately_and_has_most_of_the_log_is_chosen() {
        assert_eq!(chosen(1, &[(2, 9_000, true), (3, 5_000, true)]), Some(2));
        assert_eq!(chosen(1, &[(2, 9_000, false), (3, 5_000, true)]), Some(3));
        assert_eq!(chosen(1, &[]), None);
    }

    #[test]
    fn among_equals_leadership_goes_round() {
        assert_eq!(chosen(3, &[(1, 10_000, true), (2, 9_990, true)]), Some(2));
        assert_eq!(chosen(2, &[(1, 9_990, true), (3, 10_000, true)]), Some(1));
        assert_eq!(chosen(1, &[(2, 10_000, true), (3, 10_000, true)]), Some(3));
    }
}
