//! How long things take on this node, counted where they happen.
//!
//! Counting takes no lock and never waits: what is measured here is what everybody waits for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

/// From an fsync that a disk only pretends (a tenth of a millisecond) to one that stalls a cluster.
const OPERATION_BOUNDS: &[f64] = &[
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5,
    1.0, 2.5, 5.0,
];
/// From a small state to one that takes a quarter of an hour.
const SNAPSHOT_BOUNDS: &[f64] =
    &[0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 102.4, 204.8, 409.6, 819.2];
/// Peers whose times are kept; far more than a cluster has.
const PEERS_MAX: usize = 256;

/// A histogram of durations.
#[derive(Debug, Clone, PartialEq)]
pub struct DurationSample {
    /// Upper bounds of all buckets but the last, which has none; in seconds.
    pub bounds: &'static [f64],
    /// What each bucket counted by itself.
    pub counts: Vec<u64>,
    /// All durations together, in seconds.
    pub seconds: f64,
}

/// Durations, counted by size.
#[derive(Debug)]
pub(crate) struct Durations {
    bounds: &'static [f64],
    counts: Box<[AtomicU64]>,
    micros: AtomicU64,
}

impl Durations {
    fn new(bounds: &'static [f64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, counts, micros: AtomicU64::new(0) }
    }

    pub(crate) fn of_operations() -> Self {
        Self::new(OPERATION_BOUNDS)
    }

    pub(crate) fn of_snapshots() -> Self {
        Self::new(SNAPSHOT_BOUNDS)
    }

    pub(crate) fn observe(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = self.bounds.partition_point(|bound| *bound < seconds);
        if let Some(count) = self.counts.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }

    pub(crate) fn count(&self) -> u64 {
        self.counts.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    #[allow(clippy::cast_precision_loss, reason = "microseconds fit a double for 285 years")]
    pub(crate) fn sample(&self) -> DurationSample {
        DurationSample {
            bounds: self.bounds,
            counts: self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect(),
            seconds: self.micros.load(Ordering::Relaxed) as f64 / 1e6,
        }
    }
}

/// What a message to a peer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rpc {
    Append,
    Heartbeat,
    Vote,
    /// Its time is that of a snapshot, not of a message.
    Snapshot,
}

impl Rpc {
    const TIMED: [Self; 3] = [Self::Append, Self::Heartbeat, Self::Vote];
    const ALL: [Self; 4] = [Self::Append, Self::Heartbeat, Self::Vote, Self::Snapshot];

    fn as_str(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::Heartbeat => "heartbeat",
            Self::Vote => "vote",
            Self::Snapshot => "snapshot",
        }
    }
}

/// What is counted of the messages to one peer.
#[derive(Debug)]
pub(crate) struct PeerTimings {
    answered: [Durations; Rpc::TIMED.len()],
    failed: [AtomicU64; Rpc::ALL.len()],
}

impl PeerTimings {
    fn new() -> Self {
        Self {
            answered: Rpc::TIMED.map(|_| Durations::of_operations()),
            failed: Rpc::ALL.map(|_| AtomicU64::new(0)),
        }
    }

    /// A message was answered, whatever the answer says.
    pub(crate) fn answered(&self, rpc: Rpc, took: Duration) {
        if let Some(durations) = self.answered.get(rpc as usize) {
            durations.observe(took);
        }
    }

    /// A message got no answer, or one of the transport.
    pub(crate) fn failed(&self, rpc: Rpc) {
        self.failed[rpc as usize].fetch_add(1, Ordering::Relaxed);
    }
}

/// The same of all peers.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    // Locked when a connection is made and when the numbers are read, not when a message is counted.
    peers: Mutex<BTreeMap<u64, Arc<PeerTimings>>>,
}

impl Peers {
    pub(crate) fn of(&self, id: u64) -> Arc<PeerTimings> {
        let mut peers = self.peers.lock();
        if peers.len() >= PEERS_MAX && !peers.contains_key(&id) {
            // Not reached by members: what counts for a stranger is not kept.
            return Arc::new(PeerTimings::new());
        }
        Arc::clone(peers.entry(id).or_insert_with(|| Arc::new(PeerTimings::new())))
    }

    /// Forgets all but the members.
    pub(crate) fn keep(&self, members: &BTreeSet<u64>) {
        self.peers.lock().retain(|id, _| members.contains(id));
    }

    pub(crate) fn sample(&self) -> Vec<PeerSample> {
        let peers = self.peers.lock();
        let samples = peers.iter().map(|(id, peer)| PeerSample {
            id: *id,
            answered: Rpc::TIMED.map(|rpc| (rpc.as_str(), peer.answered[rpc as usize].sample())),
            failed: Rpc::ALL
                .map(|rpc| (rpc.as_str(), peer.failed[rpc as usize].load(Ordering::Relaxed))),
        });
        samples.collect()
    }
}

/// Messages to one peer, by what they were for.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerSample {
    /// The peer.
    pub id: u64,
    /// Times to the answer.
    pub answered: [(&'static str, DurationSample); 3],
    /// Messages without an answer.
    pub failed: [(&'static str, u64); 4],
}

/// What is done with a snapshot.
#[derive(Debug)]
pub(crate) struct SnapshotTimings {
    pub(crate) durations: Durations,
    pub(crate) failures: AtomicU64,
}

impl SnapshotTimings {
    pub(crate) fn new() -> Self {
        Self { durations: Durations::of_snapshots(), failures: AtomicU64::new(0) }
    }

    /// Counts what came of one that took this long.
    pub(crate) fn ended(&self, succeeded: bool, took: Duration) {
        if succeeded {
            self.durations.observe(took);
        } else {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn sample(&self, op: &'static str) -> SnapshotSample {
        SnapshotSample {
            op,
            durations: self.durations.sample(),
            failures: self.failures.load(Ordering::Relaxed),
        }
    }
}

/// Snapshots, by what was done with them.
#[derive(Debug, Clone, PartialEq)]
pub struct SnapshotSample {
    /// `build`, `send` or `install`.
    pub op: &'static str,
    /// Of those that succeeded.
    pub durations: DurationSample,
    /// Those that did not.
    pub failures: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_counts_in_the_first_bucket_that_holds_it() {
        let durations = Durations::of_operations();
        for micros in [50, 100, 101, 9_000_000] {
            durations.observe(Duration::from_micros(micros));
        }
        let sample = durations.sample();
        assert_eq!(sample.counts.len(), sample.bounds.len() + 1);
        assert_eq!((sample.counts[0], sample.counts[1]), (2, 1), "a bound belongs to its bucket");
        assert_eq!(sample.counts.last(), Some(&1));
        assert!((sample.seconds - 9.000_251).abs() < 1e-9, "{}", sample.seconds);
        assert_eq!(durations.count(), 4);
    }

    #[test]
    fn bounds_rise() {
        for bounds in [OPERATION_BOUNDS, SNAPSHOT_BOUNDS] {
            assert!(bounds.windows(2).all(|pair| pair[0] < pair[1]), "{bounds:?}");
        }
    }

    #[test]
    fn a_peer_keeps_its_numbers_until_it_is_no_member() {
        let peers = Peers::default();
        peers.of(2).answered(Rpc::Vote, Duration::from_millis(3));
        peers.of(2).failed(Rpc::Snapshot);
        peers.of(3).failed(Rpc::Append);
        let [two, three] = &peers.sample()[..] else { panic!("two peers") };
        assert_eq!(
            (two.id, two.answered[2].0, two.answered[2].1.counts.iter().sum()),
            (2, "vote", 1_u64)
        );
        assert_eq!(two.failed[3], ("snapshot", 1));
        assert_eq!(three.failed[0], ("append", 1));
        peers.keep(&BTreeSet::from([3]));
        assert_eq!(peers.sample().len(), 1);
    }

    #[test]
    fn strangers_cannot_fill_the_memory() {
        let peers = Peers::default();
        for id in 0..2 * PEERS_MAX as u64 {
            peers.of(id).failed(Rpc::Append);
        }
        assert_eq!(peers.sample().len(), PEERS_MAX);
    }
}
