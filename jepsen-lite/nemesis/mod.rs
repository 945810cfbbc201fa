//! What is done to the cluster. Each fault is planned from the seed, put into force, mended, and proves that it bit: one
//! that did not makes the run worthless, not green.

mod clock;
mod corruption;
mod damage;
mod delay;
mod member;
mod partition;
mod plan;
mod process;
mod read;
mod snapshot;
mod starve;
mod storage;

use std::collections::BTreeSet;
use std::time::Duration;

use clap::ValueEnum;
use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;

use crate::lab::doctor::Capability;
use crate::lab::{Lab, Node};
pub use member::replace_suspects;
pub use plan::{Plan, Planned};

/// How long a cluster may take to find a leader after a fault, before the next one begins.
const LEADER_TIMEOUT: Duration = Duration::from_secs(20);

/// A class of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum)]
pub enum Class {
    /// Processes are killed and started again.
    Kill,
    /// Processes are killed and their disks lose what was not synced.
    Power,
    /// Processes are stopped by a signal for a while.
    Pause,
    /// Nodes cannot reach each other, or their clients: leader alone, minority, halves, ring, bridge.
    Partition,
    /// Packets, or calls, get through in one direction only.
    OneWay,
    /// Packets get lost, cables are slow, connections are reset.
    Network,
    /// Packets come late, in another order, or twice.
    Delay,
    /// Wall clocks jump, back and forth.
    Clock,
    /// The clocks that measure time run fast or slow.
    ClockRate,
    /// Disks are full.
    DiskFull,
    /// Disks are slow.
    DiskSlow,
    /// Syncs fail.
    DiskError,
    /// Reads fail.
    ReadError,
    /// A stopped node's files change: bytes, whole files, old copies.
    Corruption,
    /// A snapshot on its way to a follower is cut off.
    Snapshot,
    /// Nodes leave and others join.
    Member,
    /// All nodes are restarted, one after the other, and leadership is handed on.
    Rolling,
    /// Processor, memory or file descriptors are scarce, or nobody reads what a node logs.
    Starve,
    /// Syncs do nothing and say that they did. It breaks what the store is built on: a run with it must fail.
    LyingSync,
}

impl Class {
    /// All that a store has to survive.
    pub const HONEST: [Self; 18] = [
        Self::Kill,
        Self::Power,
        Self::Pause,
        Self::Partition,
        Self::OneWay,
        Self::Network,
        Self::Delay,
        Self::Clock,
        Self::ClockRate,
        Self::DiskFull,
        Self::DiskSlow,
        Self::DiskError,
        Self::ReadError,
        Self::Corruption,
        Self::Snapshot,
        Self::Member,
        Self::Rolling,
        Self::Starve,
    ];

    /// What the machine has to be able to do, beside what every run needs.
    #[must_use]
    pub fn needs(self) -> &'static [Capability] {
        match self {
            Self::Partition | Self::OneWay => &[Capability::Rules],
            Self::Network => &[Capability::Rules, Capability::Throttle, Capability::Reset],
            Self::Delay => &[Capability::Wire],
            Self::Snapshot => &[Capability::Rules, Capability::Throttle],
            Self::DiskSlow => &[Capability::Shim, Capability::Groups],
            Self::Clock | Self::ClockRate | Self::DiskError | Self::ReadError | Self::LyingSync => {
                &[Capability::Shim]
            }
            Self::Starve => &[Capability::Groups, Capability::Rules],
            _ => &[],
        }
    }

    /// Whether servers have to make snapshots all the time: for a node that needs one, and for files to read.
    #[must_use]
    pub fn needs_snapshots(self) -> bool {
        matches!(self, Self::Snapshot | Self::ReadError)
    }
}

/// What came of putting a fault into force.
#[derive(Debug)]
pub enum Outcome {
    /// It is in force.
    Installed(Box<dyn Active>),
    /// There was nothing to strike, as every node is struck by another fault already.
    Skipped(String),
}

/// A fault in force.
pub trait Active: std::fmt::Debug {
    /// What it is, for people.
    fn name(&self) -> String;
    /// The places that no other fault may strike while this one lasts.
    fn holds(&self) -> BTreeSet<u8>;
    /// Whether it can be mended now: one that has to do with the cluster for that waits until the cluster can. Asked until
    /// all other faults are mended.
    fn is_due(&mut self, _lab: &mut Lab) -> anyhow::Result<bool> {
        Ok(true)
    }
    /// Mends it, and proves that it bit.
    ///
    /// # Errors
    /// When it cannot be mended: then the run is over.
    fn mend(self: Box<Self>, lab: &mut Lab) -> anyhow::Result<Evidence>;
}

/// Whether a fault bit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// It did.
    pub bit: bool,
    /// By what that is known.
    pub words: String,
    /// What the product did wrong that no history shows, such as serving from a damaged disk.
    pub wrong: Option<String>,
}

impl Evidence {
    fn of(bit: bool, words: impl Into<String>) -> Self {
        Self { bit, words: words.into(), wrong: None }
    }
}

/// Puts a planned fault into force. `held` are the places that others strike.
///
/// # Errors
/// When it stays unclear whether it is in force: then the run is over.
pub fn install(
    lab: &mut Lab,
    planned: &Planned,
    chance: &mut StdRng,
    held: &BTreeSet<u8>,
) -> anyhow::Result<Outcome> {
    lab.supervise()?;
    let mut strike = Strike { lab, chance, held };
    match planned.class {
        Class::Kill => process::kill(&mut strike),
        Class::Power => process::power(&mut strike),
        Class::Pause => process::pause(&mut strike),
        Class::Rolling => process::rolling(&mut strike),
        Class::Partition => partition::install(&mut strike),
        Class::OneWay => partition::one_way(&mut strike),
        Class::Network => partition::network(&mut strike),
        Class::Delay => delay::install(&mut strike),
        Class::Clock => clock::install(&mut strike),
        Class::ClockRate => clock::rate(&mut strike),
        Class::DiskFull => storage::full(&mut strike),
        Class::DiskSlow => storage::slow(&mut strike),
        Class::DiskError => storage::error(&mut strike),
        Class::LyingSync => storage::lie(&mut strike),
        Class::ReadError => read::install(&mut strike),
        Class::Corruption => corruption::install(&mut strike),
        Class::Snapshot => snapshot::install(&mut strike),
        Class::Member => member::install(&mut strike),
        Class::Starve => starve::install(&mut strike),
    }
}

/// What a fault is made with.
struct Strike<'a> {
    lab: &'a mut Lab,
    chance: &'a mut StdRng,
    held: &'a BTreeSet<u8>,
}

impl Strike<'_> {
    /// The running members that no other fault strikes.
    fn free(&self) -> Vec<u8> {
        let free = |place: &u8| {
            let suspect = |node: &Node| node.place == *place && node.suspect;
            !self.held.contains(place) && !self.lab.nodes.iter().any(suspect)
        };
        self.lab.running().into_iter().filter(free).collect()
    }

    /// The leader half of the time if it is free, else any free node.
    fn one(&mut self) -> Option<u8> {
        let free = self.free();
        let leader = self.lab.leader().map(|(place, _)| place).filter(|place| free.contains(place));
        if self.chance.random_bool(0.5) && leader.is_some() {
            return leader;
        }
        free.choose(self.chance).copied()
    }

    /// One of: a node, the leader, a majority, all. Those of them that are free.
    fn some(&mut self) -> Vec<u8> {
        let free = self.free();
        let members = self.lab.members().len();
        let count = match self.chance.random_range(0..10) {
            0..7 => return self.one().into_iter().collect(),
            7..9 => members / 2 + 1,
            _ => members,
        };
        free.choose_multiple(self.chance, count).copied().collect()
    }

    fn skipped() -> anyhow::Result<Outcome> {
        Ok(Outcome::Skipped("every node is struck by another fault".to_owned()))
    }
}

fn set(places: &[u8]) -> BTreeSet<u8> {
    places.iter().copied().collect()
}

fn listed(places: &[u8]) -> String {
    let places: Vec<_> = places.iter().map(u8::to_string).collect();
    places.join("+")
}
