//! What must hold in each tick, whatever goes wrong.
//!
//! The truth about disks is that of the simulated ones, not what a node believes of its own.

use std::collections::BTreeMap;

use llm_config_replica::Replica;
use llm_config_replica::simulation::{DurableLog, Inside, Position, Promise};

use crate::cluster::Cluster;
use crate::node::{data_dir, durable, lock};
use crate::trace::Trace;

/// A committed entry, as whoever reported it first had it.
#[derive(Debug, Clone, Copy)]
struct Entry {
    position: Position,
    digest: u32,
    reported_by: u64,
}

/// What is known of a node.
struct Known {
    life: u64,
    inside: Inside,
    /// Up to here its log was compared in this life.
    compared: u64,
}

#[derive(Default)]
pub struct Invariants {
    committed: BTreeMap<u64, Entry>,
    nodes: BTreeMap<u64, Known>,
    /// The highest promise of each node that it has acted upon, over all its lives.
    promises: BTreeMap<u64, Promise>,
    /// Who led, by term and node.
    leaders: BTreeMap<(u64, u64), u64>,
    states: BTreeMap<u64, (u64, [u8; 32])>,
    pub violations: Vec<String>,
    pub elections: u64,
    pub installs: u64,
}

impl Invariants {
    fn violated(&mut self, what: String) {
        self.violations.push(what);
    }

    pub fn committed_entries(&self) -> usize {
        self.committed.len()
    }

    /// Looks at every node.
    pub fn check(&mut self, cluster: &Cluster, trace: &mut Trace) {
        for id in cluster.running() {
            let Some(replica) = cluster.replica(id) else { continue };
            let (life, inside) = (cluster.life(id), replica.inside());
            let known = self.nodes.get(&id).filter(|known| known.life == life);
            if known.is_some_and(|known| known.inside == inside) {
                continue;
            }
            self.note(cluster, trace, id, &inside);
            self.check_promise(id, &inside);
            self.check_order(id, &inside);
            if let Some(known) = self.nodes.get(&id).filter(|known| known.life == life) {
                let backwards = went_back(&known.inside, &inside);
                if let Some(what) = backwards {
                    self.violated(format!(
                        "n{id}: {what}: {:?}, then {inside:?}",
                        self.nodes[&id].inside
                    ));
                }
            }
            let compared = self.compare_log(cluster, id, life, &replica, &inside);
            if inside.leads {
                self.check_leader(id, &replica, &inside);
            }
            self.nodes.insert(id, Known { life, inside, compared });
        }
        let contradictions = std::mem::take(&mut lock(&cluster.seen).contradictions);
        self.violations.extend(contradictions);
    }

    fn note(&mut self, cluster: &Cluster, trace: &mut Trace, id: u64, inside: &Inside) {
        trace.line(
            cluster.tick,
            format_args!(
                "n{id} vote {:?} leads {} committed {:?} applied {:?} snapshot {:?} purged {:?} voters {:?}",
                inside.vote,
                inside.leads,
                inside.committed,
                inside.applied,
                inside.snapshot,
                inside.purged,
                inside.voters
            ),
        );
        if inside.leads && inside.vote.won {
            let leader = (inside.vote.term, inside.vote.node);
            if self.leaders.insert(leader, id).is_none() {
                self.elections += 1;
            }
        }
    }

    /// What a node promised is durable before it acts upon it, and no life of it forgets it.
    fn check_promise(&mut self, id: u64, inside: &Inside) {
        let log = data_dir(id).join("log");
        let vote = inside.vote;
        if vote.term == 0 {
            // Where every node begins; nobody is elected in it.
            return;
        }
        let kept = DurableLog::new(&log, durable).vote();
        if kept < Some(vote) {
            self.violated(format!("n{id} acts upon {vote:?}, and its disk has {kept:?}"));
        }
        let before = self.promises.insert(id, vote);
        if before > Some(vote) {
            self.violated(format!("n{id} promised {before:?}, and now goes by {vote:?}"));
        }
    }

    fn check_order(&mut self, id: u64, inside: &Inside) {
        if inside.applied > inside.committed {
            self.violated(format!("n{id} has applied what is not committed: {inside:?}"));
        }
        if inside.snapshot > inside.applied {
            self.violated(format!("n{id} has a snapshot of what is not applied: {inside:?}"));
        }
        if inside.leads && inside.vote.node != id {
            self.violated(format!("n{id} leads by the vote for another: {inside:?}"));
        }
    }

    /// Compares what is newly applied on a node with what all others had there. Returns up to where.
    ///
    /// A snapshot that is being installed is committed and, for a moment, applied above a log that it has yet to replace:
    /// only a log that holds the entry that was applied last is what led to the state.
    fn compare_log(
        &mut self,
        cluster: &Cluster,
        id: u64,
        life: u64,
        replica: &Replica,
        inside: &Inside,
    ) -> u64 {
        let known = self.nodes.get(&id).filter(|known| known.life == life);
        let compared = known.map_or(0, |known| known.compared);
        let Some(applied) = inside.applied else { return compared };
        let gone = inside.purged.map_or(0, |purged| purged.index + 1);
        let from = compared.max(gone);
        if compared > 0 && gone > compared {
            self.installs += 1;
        }
        if applied.index < from {
            return from;
        }
        let entries = match replica.entries(from, applied.index) {
            Ok(entries) => entries,
            // The node ends by itself for it.
            Err(_) if cluster.disk_failed(id) => return compared,
            Err(error) => {
                self.violated(format!("n{id}: its log cannot be read: {error}"));
                return compared;
            }
        };
        if entries.last().is_none_or(|(last, _)| *last != applied) {
            return compared;
        }
        for (position, digest) in &entries {
            let new = Entry { position: *position, digest: *digest, reported_by: id };
            let first = *self.committed.entry(position.index).or_insert(new);
            if (first.position, first.digest) != (*position, *digest) {
                self.violated(format!(
                    "committed on n{}: {:?}, on n{id}: {position:?}{}",
                    first.reported_by,
                    first.position,
                    if first.position == *position { ", with other content" } else { "" }
                ));
            }
        }
        applied.index + 1
    }

    /// Whether the log of a node was compared up to what it has applied.
    pub fn has_compared(&self, id: u64) -> bool {
        self.nodes.get(&id).is_some_and(|known| {
            known.inside.applied.is_some_and(|applied| known.compared > applied.index)
        })
    }

    fn check_leader(&mut self, id: u64, replica: &Replica, inside: &Inside) {
        let Some(committed) = inside.committed else { return };
        let mine = (inside.vote.term, inside.vote.node);
        if (committed.term, committed.leader) == mine {
            self.check_quorum(id, inside, committed);
        }
        // It had everything that was committed when it was elected.
        let known = self
            .nodes
            .get(&id)
            .is_some_and(|known| known.inside.leads && known.inside.vote.term == inside.vote.term);
        if known {
            return;
        }
        let earlier = self
            .committed
            .values()
            .rev()
            .find(|entry| (entry.position.term, entry.position.leader) < mine);
        let Some(last) = earlier.copied() else { return };
        let index = last.position.index;
        let purged = inside.purged.is_some_and(|purged| purged.index >= index);
        let has = replica
            .entries(index, index)
            .is_ok_and(|entries| entries.iter().any(|(position, _)| *position == last.position));
        if !purged && !has {
            self.violated(format!(
                "n{id} leads and lacks {:?}, which was committed",
                last.position
            ));
        }
    }

    /// What a leader takes for committed is on the disks of a quorum.
    fn check_quorum(&mut self, id: u64, inside: &Inside, committed: Position) {
        if inside.voters_since.is_some_and(|since| since > committed.index) {
            // By the voters before; which those were is not known here.
            return;
        }
        for voters in &inside.voters {
            let has = |voter: &&u64| {
                DurableLog::new(&data_dir(**voter).join("log"), durable).has(committed)
            };
            let holders: Vec<u64> = voters.iter().filter(has).copied().collect();
            if holders.len() * 2 <= voters.len() {
                let what = format!(
                    "n{id} takes {committed:?} for committed, and of {voters:?} only {holders:?} have it on disk"
                );
                self.violations.push(what);
            }
        }
    }

    /// The same position of the log is the same state.
    pub fn compare_state(&mut self, id: u64, replica: &Replica) {
        match replica.state() {
            Ok((Some(position), digest)) => {
                let (first, known) = *self.states.entry(position.index).or_insert((id, digest));
                if known != digest {
                    self.violated(format!(
                        "the state after {position:?} is not the same on n{first} and n{id}"
                    ));
                }
            }
            Ok((None, _)) => {}
            Err(error) => self.violated(format!("n{id}: its state cannot be read: {error}")),
        }
    }
}

/// What may only grow while a program runs.
fn went_back(before: &Inside, after: &Inside) -> Option<&'static str> {
    let grows = [
        ("the commit position went back", before.committed, after.committed),
        ("the applied position went back", before.applied, after.applied),
        ("the snapshot went back", before.snapshot, after.snapshot),
        ("the purged position went back", before.purged, after.purged),
    ];
    grows.into_iter().find(|(_, before, after)| before > after).map(|(what, _, _)| what)
}
