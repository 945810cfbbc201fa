//! How much room there is for more, on this node and on those that it asks: what the quota and the disk say.
//!
//! It holds the last measurement and adds what was appended since; it measures nothing itself (see `reclaim`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use llm_config_domain::{Operation, TxnOp};

use crate::config::Tuning;
use crate::status::SpaceStats;

/// Percent of the quota from which a node warns and tidies up.
const NEAR_PERCENT: u64 = 90;
/// Share of a bound by which a node must be inside it again before it takes writes again, so that it does not flicker.
const RETURN_SHARE: u64 = 16;
/// What an entry costs on the disk until the next measurement: once in the log, once in the state.
const COPIES: u64 = 2;
/// How long another node's word that it is full holds. Nodes are asked every second.
const PEER_WORD: Duration = Duration::from_secs(5);

/// What a measurement found.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Measured {
    pub(crate) used_bytes: u64,
    /// The part of it that is the log.
    pub(crate) log_bytes: u64,
    /// Size of the disk; 0 when it is not known.
    pub(crate) disk_capacity_bytes: u64,
    pub(crate) disk_free_bytes: u64,
    /// Bytes that the log had appended since the start of the process.
    pub(crate) appended_bytes: u64,
}

/// The room of one node.
pub(crate) struct Space {
    quota_bytes: u64,
    reserve_bytes: u64,
    measured: ArcSwap<Measured>,
    /// What was answered last; it takes more room to come back than to stay.
    quota_full: AtomicBool,
    disk_full: AtomicBool,
    refused: AtomicU64,
    /// Read before each write, changed once a second at most.
    peers: ArcSwap<BTreeMap<u64, Instant>>,
}

/// Whether an operation needs room. What gives room back, or keeps the cluster going, must pass when there is none.
pub(crate) fn grows(operation: &Operation) -> bool {
    match operation {
        Operation::Set(_) | Operation::Rollback(_) => true,
        Operation::Txn(txn) => {
            txn.success.iter().chain(&txn.failure).any(|op| matches!(op, TxnOp::Set(_)))
        }
        _ => false,
    }
}

impl Space {
    pub(crate) fn new(tuning: &Tuning) -> Self {
        Self {
            quota_bytes: tuning.storage_quota_bytes,
            reserve_bytes: tuning.disk_reserve_bytes,
            measured: ArcSwap::default(),
            quota_full: AtomicBool::new(false),
            disk_full: AtomicBool::new(false),
            refused: AtomicU64::new(0),
            peers: ArcSwap::default(),
        }
    }

    pub(crate) fn note(&self, measured: Measured) {
        self.measured.store(Arc::new(measured));
        // Settles the two answers, also when nobody writes.
        let _settled = self.full(measured.appended_bytes);
    }

    pub(crate) fn measured(&self) -> Measured {
        **self.measured.load()
    }

    /// Why this node has no room, when `appended_bytes` have been appended so far.
    pub(crate) fn full(&self, appended_bytes: u64) -> Option<String> {
        let measured = self.measured();
        let since = appended_bytes.saturating_sub(measured.appended_bytes).saturating_mul(COPIES);
        let used = measured.used_bytes.saturating_add(since);
        let free = measured.disk_free_bytes.saturating_sub(since);
        let quota = self.quota_bytes;
        let quota_full = quota > 0 && used >= quota - slack(&self.quota_full, quota);
        let reserve = self.reserve_bytes;
        let known = measured.disk_capacity_bytes > 0;
        let disk_full = known && free < reserve.saturating_add(slack(&self.disk_full, reserve));
        self.quota_full.store(quota_full, Ordering::Relaxed);
        self.disk_full.store(disk_full, Ordering::Relaxed);
        if disk_full {
            Some(format!("has {free} bytes of disk left and keeps {reserve} in reserve"))
        } else if quota_full {
            Some(format!("stores {used} of the {quota} bytes of its quota"))
        } else {
            None
        }
    }

    /// Whether tidying up is worth its work.
    pub(crate) fn near(&self) -> bool {
        let measured = self.measured();
        let low = measured.disk_capacity_bytes > 0
            && measured.disk_free_bytes < self.reserve_bytes.saturating_mul(2);
        low || self.quota_near(&measured) || self.quota_full.load(Ordering::Relaxed)
    }

    fn quota_near(&self, measured: &Measured) -> bool {
        self.quota_bytes > 0
            && u128::from(measured.used_bytes) * 100
                >= u128::from(self.quota_bytes) * u128::from(NEAR_PERCENT)
    }

    /// Another node said whether it is full.
    pub(crate) fn note_peer(&self, id: u64, full: bool) {
        if !full && !self.peers.load().contains_key(&id) {
            return;
        }
        self.peers.rcu(|peers| {
            let mut peers = BTreeMap::clone(peers);
            if full {
                peers.insert(id, Instant::now());
            } else {
                peers.remove(&id);
            }
            peers
        });
    }

    /// Those that said so lately; one that is not heard from holds nobody up.
    pub(crate) fn full_peers(&self) -> Vec<u64> {
        let peers = self.peers.load();
        peers.iter().filter(|(_, at)| at.elapsed() <= PEER_WORD).map(|(id, _)| *id).collect()
    }

    /// Counts a write that was refused.
    pub(crate) fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn stats(&self) -> SpaceStats {
        let measured = self.measured();
        let quota_full = self.quota_full.load(Ordering::Relaxed);
        SpaceStats {
            used_bytes: measured.used_bytes,
            quota_bytes: self.quota_bytes,
            disk_capacity_bytes: measured.disk_capacity_bytes,
            disk_free_bytes: measured.disk_free_bytes,
            disk_reserve_bytes: self.reserve_bytes,
            quota_near: quota_full || self.quota_near(&measured),
            quota_full,
            disk_full: self.disk_full.load(Ordering::Relaxed),
            full_peer: self.full_peers().first().copied(),
            refused: self.refused.load(Ordering::Relaxed),
        }
    }
}

fn slack(was_full: &AtomicBool, bound: u64) -> u64 {
    if was_full.load(Ordering::Relaxed) { bound / RETURN_SHARE } else { 0 }
}

#[cfg(test)]
mod tests {
    use llm_config_domain::{Address, Compact, Delete, Txn};

    use super::*;

    fn space() -> Space {
        Space::new(&Tuning {
            storage_quota_bytes: 1600,
            disk_reserve_bytes: 160,
            ..Tuning::default()
        })
    }

    fn measured(used_bytes: u64, disk_free_bytes: u64) -> Measured {
        Measured { used_bytes, disk_free_bytes, disk_capacity_bytes: 10_000, ..Measured::default() }
    }

    #[test]
    fn a_node_is_full_at_its_quota_and_takes_writes_again_a_little_below() {
        let space = space();
        space.note(measured(1599, 5000));
        assert_eq!(space.full(0), None);
        assert!(space.stats().quota_near && !space.stats().quota_full);
        assert!(space.full(1).is_some_and(|reason| reason.contains("1601 of the 1600 bytes")));
        space.note(measured(1510, 5000));
        assert!(space.full(0).is_some());
        space.note(measured(1400, 5000));
        assert_eq!(space.full(0), None);
        assert!(!space.stats().quota_near);
    }

    #[test]
    fn a_node_keeps_a_reserve_of_its_disk() {
        let space = space();
        space.note(measured(0, 170));
        assert_eq!(space.full(4), None);
        assert!(space.full(6).is_some_and(|reason| reason.contains("160 in reserve")));
        assert!(space.stats().disk_full && space.near());
        space.note(measured(0, 171));
        assert_eq!(space.full(0), None);
    }

    #[test]
    fn a_reserve_beyond_every_disk_refuses_and_does_no_harm() {
        let space = Space::new(&Tuning { disk_reserve_bytes: u64::MAX, ..Tuning::default() });
        space.note(measured(0, 9000));
        assert!(space.full(0).is_some());
        assert!(space.full(0).is_some());
    }

    #[test]
    fn without_a_quota_only_the_disk_counts() {
        let space = Space::new(&Tuning { storage_quota_bytes: 0, ..Tuning::default() });
        space.note(Measured { used_bytes: u64::MAX, ..Measured::default() });
        assert_eq!(space.full(u64::MAX), None, "an unknown disk refuses nothing");
        assert!(!space.near());
    }

    #[test]
    fn only_what_writes_a_value_needs_room() {
        let address = Address::parse("ns", "k", "base").unwrap();
        let delete =
            Delete { address: address.clone(), expected_version: None, comment: String::new() };
        let txn = Txn {
            compare: Vec::new(),
            success: vec![TxnOp::Delete(delete.clone()), TxnOp::Get(address)],
            failure: Vec::new(),
        };
        for frees in [
            Operation::Delete(delete),
            Operation::Txn(txn),
            Operation::Compact(Compact { revision: 1 }),
        ] {
            assert!(!grows(&frees), "{frees:?}");
        }
    }

    #[test]
    fn a_node_that_says_that_it_has_room_again_is_believed_at_once() {
        let space = space();
        space.note_peer(3, true);
        assert_eq!(space.full_peers(), [3]);
        space.note_peer(3, false);
        assert!(space.full_peers().is_empty());
    }
}
