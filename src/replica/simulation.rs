//! What a deterministic simulation needs of this crate: a machine of its own under each node, and a look inside.
//!
//! No program that ships is built with the feature `simulation`. The simulation itself is in `jepsen-lite/sim`.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use bytes::Bytes;
use llm_config_domain::{Reader as _, digest};
use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver as _;

use crate::codec::{log_id_from_proto, unseal, vote_from_proto};
pub use crate::machine::simulated::{Connection, Listener, World, set_world};
use crate::replica::Replica;
use crate::storage::log::{decode_entry, keys};
use crate::storage::snapshot;
use crate::types::LogId;

/// A place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Of the leader that proposed it.
    pub term: u64,
    /// That leader.
    pub leader: u64,
    /// Counted from 0.
    pub index: u64,
}

fn position(id: LogId) -> Position {
    Position { term: id.leader_id.term, leader: id.leader_id.node_id, index: id.index }
}

/// What a node promised: a term, to whom, and whether that one won.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Promise {
    /// The term.
    pub term: u64,
    /// Who got the vote.
    pub node: u64,
    /// Whether a quorum gave it theirs.
    pub won: bool,
}

/// What a node shows of its inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inside {
    /// Its promise.
    pub vote: Promise,
    /// Whether it takes itself for the leader.
    pub leads: bool,
    /// Up to where it knows its log to be committed.
    pub committed: Option<Position>,
    /// Up to where its log is in its state.
    pub applied: Option<Position>,
    /// Up to where its snapshot goes.
    pub snapshot: Option<Position>,
    /// Up to where its log is gone.
    pub purged: Option<Position>,
    /// The voters; two sets while they change.
    pub voters: Vec<BTreeSet<u64>>,
    /// Where the membership stands in the log.
    pub voters_since: Option<u64>,
    /// Everybody, learners too.
    pub members: BTreeSet<u64>,
}

impl Replica {
    /// Looks inside.
    #[must_use]
    pub fn inside(&self) -> Inside {
        let metrics = self.node().raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = &metrics.membership_config;
        let vote = &metrics.vote;
        Inside {
            vote: Promise {
                term: vote.leader_id.term,
                node: vote.leader_id.node_id,
                won: vote.committed,
            },
            leads: metrics.state == ServerState::Leader,
            committed: metrics.local_committed.map(position),
            applied: metrics.last_applied.map(position),
            snapshot: metrics.snapshot.map(position),
            purged: metrics.purged.map(position),
            voters: membership.membership().get_joint_config().clone(),
            voters_since: membership.log_id().map(|id| id.index),
            members: membership.nodes().map(|(id, _)| *id).collect(),
        }
    }

    /// The entries of `from..=to` that are in the log: where they stand, and a digest of what they say.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn entries(&self, from: u64, to: u64) -> io::Result<Vec<(Position, u32)>> {
        let entries = self.node().log.entries(from, to.saturating_add(1))?;
        let digest = |entry: crate::types::Entry| {
            let sealed = crate::codec::seal(&crate::codec::entry_to_proto(&entry));
            (position(entry.log_id), crc32fast::hash(&sealed))
        };
        Ok(entries.into_iter().map(digest).collect())
    }

    /// What the state is: up to where the log is in it, and a digest of all of it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn state(&self) -> Result<(Option<Position>, [u8; 32]), Box<dyn std::error::Error>> {
        let view = self.view();
        let applied = snapshot::read_applied(|key| view.get(key).map_err(io::Error::other))?;
        Ok((applied.last_log_id.map(position), digest(&view)?))
    }

    /// Asks for a snapshot, and for the log behind it to go but for `keep` entries.
    pub async fn snapshot_and_purge(&self, keep: u64) {
        let trigger = self.node().raft.trigger();
        if trigger.snapshot().await.is_err() {
            // The node ends; `failure` says why.
            return;
        }
        let upto = self.inside().snapshot.map_or(0, |snapshot| snapshot.index.saturating_sub(keep));
        drop(trigger.purge_log(upto).await);
    }

    /// Has the node stand for election now.
    pub async fn stand_for_election(&self) {
        drop(self.node().raft.trigger().elect(false).await);
    }

    /// Gives leadership to `target`, when this node has it.
    pub async fn give_leadership_to(&self, target: u64) {
        drop(self.node().raft.trigger().transfer_leader(target).await);
    }
}

/// What of a node's log would survive if the power went now and took all that it may take.
#[derive(Debug)]
pub struct DurableLog<'d> {
    database: &'d Path,
    get: fn(&Path, &[u8]) -> Option<Bytes>,
}

impl<'d> DurableLog<'d> {
    /// Of the log in the data directory `root`; `get` reads what is durable of a database.
    #[must_use]
    pub fn new(database: &'d Path, get: fn(&Path, &[u8]) -> Option<Bytes>) -> Self {
        Self { database, get }
    }

    fn get(&self, key: &[u8]) -> Option<Bytes> {
        (self.get)(self.database, key)
    }

    /// Whether an entry is there, or was and went with a snapshot.
    #[must_use]
    pub fn has(&self, wanted: Position) -> bool {
        let key = keys::entry(wanted.index);
        let entry = self.get(&key).and_then(|record| decode_entry(&key, &record).ok());
        if let Some(entry) = entry {
            return position(entry.log_id) == wanted;
        }
        let purged = self.get(&keys::PURGED).and_then(|record| unseal("purged", &record).ok());
        purged.is_some_and(|purged| log_id_from_proto(&purged).index >= wanted.index)
    }

    /// The promise that is there.
    #[must_use]
    pub fn vote(&self) -> Option<Promise> {
        let record = unseal("vote", &self.get(&keys::VOTE)?).ok()?;
        let vote = vote_from_proto(&record);
        let (term, node) = (vote.leader_id.term, vote.leader_id.node_id);
        Some(Promise { term, node, won: vote.committed })
    }
}
