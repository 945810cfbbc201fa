//! The axes: along which what grows, by which steps, what stays the same, and what is done at each step.

use std::fmt::Write as _;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::system::{Reads, Target};

/// What grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Axis {
    /// Clients, each with one request under way.
    Clients,
    /// Bytes of a value.
    Value,
    /// Keys in the store.
    Keys,
    /// Nodes of the cluster, all with a vote.
    Nodes,
    /// Streams that watch every write.
    Watchers,
}

/// What is done at a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    /// Cached reads at the followers.
    CachedGet,
    /// Linearizable reads at all nodes.
    LinearizableGet,
    /// Writes at the leader.
    Put,
    /// A few writes a second at the leader, until the last watcher has each.
    WatchedPut,
}

/// A step: all that a run depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// Nodes of the cluster.
    pub nodes: usize,
    /// Clients.
    pub clients: usize,
    /// Bytes of a value.
    pub value_bytes: usize,
    /// Keys, all written before.
    pub keys: usize,
    /// Streams that watch.
    pub watchers: usize,
}

/// Writes a second with watchers: ten thousand of them make fifty thousand deliveries of it.
pub const WATCHED_RATE: u64 = 5;

const USUAL: Setting = Setting { nodes: 3, clients: 64, value_bytes: 256, keys: 1000, watchers: 0 };
/// The product's limits: of a value, and of the calls and watches that a node takes at a time.
const VALUE_BYTES_MAX: usize = 1 << 20;
const CALLS_MAX: usize = 4096;
const WATCHES_MAX: usize = 10_000;
/// More processes than this on one machine are no cluster.
const NODES_MAX: usize = 31;

impl Axis {
    /// All of them, in the order in which they are measured.
    pub const ALL: [Self; 5] =
        [Self::Clients, Self::Value, Self::Keys, Self::Nodes, Self::Watchers];

    /// As on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Clients => "clients",
            Self::Value => "value",
            Self::Keys => "keys",
            Self::Nodes => "nodes",
            Self::Watchers => "watchers",
        }
    }

    /// Its steps.
    #[must_use]
    pub fn steps(self) -> &'static [usize] {
        match self {
            Self::Clients => &[1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024],
            Self::Value => {
                &[64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, VALUE_BYTES_MAX]
            }
            Self::Keys => {
                &[1000, 10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000]
            }
            Self::Nodes => &[1, 3, 5, 7],
            Self::Watchers => &[1, 10, 100, 1000, 3000, 10_000],
        }
    }

    /// What is done at each, in this order: reads first, so that they meet the store as it was filled.
    #[must_use]
    pub fn works(self) -> &'static [Work] {
        match self {
            Self::Clients | Self::Value | Self::Keys => {
                &[Work::CachedGet, Work::LinearizableGet, Work::Put]
            }
            Self::Nodes => &[Work::LinearizableGet, Work::Put],
            Self::Watchers => &[Work::WatchedPut],
        }
    }

    /// What a step is.
    #[must_use]
    pub fn setting(self, x: usize) -> Setting {
        match self {
            Self::Clients => Setting { clients: x, ..USUAL },
            // A node takes 64 MiB of requests at a time, and the largest values have to find room.
            Self::Value => Setting { value_bytes: x, clients: 16, keys: 64, ..USUAL },
            Self::Keys => Setting { keys: x, ..USUAL },
            Self::Nodes => Setting { nodes: x, ..USUAL },
            Self::Watchers => Setting { watchers: x, clients: 8, ..USUAL },
        }
    }

    /// Why a step cannot be taken.
    #[must_use]
    pub fn forbids(self, x: usize) -> Option<String> {
        let (most, what) = match self {
            Self::Clients => (CALLS_MAX, "a node takes so many calls at a time"),
            Self::Value => (VALUE_BYTES_MAX, "the largest value that the store takes, in bytes"),
            Self::Keys => (usize::MAX, ""),
            Self::Nodes => (NODES_MAX, "the most nodes that are started on one machine"),
            Self::Watchers => (WATCHES_MAX * USUAL.nodes, "so many watches the nodes take in all"),
        };
        let least = if self == Self::Value { 2 } else { 1 };
        match x {
            _ if x > most => Some(format!("above {most}: {what}")),
            _ if x < least => Some(format!("below {least}")),
            _ => None,
        }
    }

    /// What the servers are told beside who and where they are.
    #[must_use]
    pub fn flags(self) -> &'static [&'static str] {
        match self {
            // The quota of 8 GiB is for what a store should hold, not for how its cost grows.
            Self::Keys => &["--storage-quota", "0"],
            _ => &[],
        }
    }

    /// What stays the same, for people.
    #[must_use]
    pub fn fixed(self) -> String {
        let setting = self.setting(1);
        let mut words = Vec::new();
        for (axis, number, unit) in [
            (Self::Nodes, setting.nodes, "nodes"),
            (Self::Clients, setting.clients, "clients"),
            (Self::Value, setting.value_bytes, "B"),
            (Self::Keys, setting.keys, "keys"),
        ] {
            if axis != self {
                words.push(format!("{number} {unit}"));
            }
        }
        let mut text = words.join(", ");
        if self == Self::Watchers {
            // Writing to a string cannot fail.
            let _ = write!(text, ", {WATCHED_RATE} puts/s");
        }
        text
    }
}

impl Work {
    /// For people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::CachedGet => "cached get, followers",
            Self::LinearizableGet => "linearizable get, all nodes",
            Self::Put | Self::WatchedPut => "put, leader",
        }
    }

    /// Who is asked, how many of a hundred requests read, how fresh, and how many come a second.
    #[must_use]
    pub fn load(self) -> (Target, u8, Reads, Option<u64>) {
        match self {
            Self::CachedGet => (Target::Followers, 100, Reads::Cached, None),
            Self::LinearizableGet => (Target::All, 100, Reads::Linearizable, None),
            Self::Put => (Target::Leader, 0, Reads::Linearizable, None),
            Self::WatchedPut => (Target::Leader, 0, Reads::Linearizable, Some(WATCHED_RATE)),
        }
    }
}

/// At most so many of the steps, the first and the last among them, evenly spread.
#[must_use]
pub fn thin(steps: &[usize], most: usize) -> Vec<usize> {
    let last = steps.len().saturating_sub(1);
    match most {
        _ if most > last => steps.to_vec(),
        0 => Vec::new(),
        1 => steps.iter().copied().take(1).collect(),
        _ => (0..most).filter_map(|place| steps.get(place * last / (most - 1)).copied()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_axis_grows_in_one_thing_within_the_limits() {
        for axis in Axis::ALL {
            assert_eq!(axis.to_possible_value().unwrap().get_name(), axis.name());
            assert_eq!(serde_json::to_value(axis).unwrap(), axis.name());
            assert!(axis.steps().is_sorted_by(|a, b| a < b), "{axis:?}");
            assert!(!axis.works().is_empty());
            for &x in axis.steps() {
                assert_eq!(axis.forbids(x), None, "{axis:?} {x}");
                let Setting { nodes, clients, value_bytes, keys, watchers } = axis.setting(x);
                let own = match axis {
                    Axis::Clients => clients,
                    Axis::Value => value_bytes,
                    Axis::Keys => keys,
                    Axis::Nodes => nodes,
                    Axis::Watchers => watchers,
                };
                assert_eq!(own, x, "{axis:?}");
                assert!(clients * value_bytes < 64 << 20, "{axis:?} {x}: refused as overload");
            }
        }
        assert_eq!(Axis::Clients.steps().last(), Some(&1024));
        assert_eq!(Axis::Value.steps().last(), Some(&(1 << 20)));
        assert_eq!(Axis::Keys.steps().last(), Some(&10_000_000));
        assert_eq!(Axis::Nodes.steps(), [1, 3, 5, 7]);
        assert_eq!(Axis::Watchers.steps().last(), Some(&10_000));
    }

    #[test]
    fn what_the_product_does_not_take_is_left_out_with_a_word() {
        let word = Axis::Value.forbids((1 << 20) + 1).unwrap();
        assert!(word.contains("1048576"), "{word}");
        assert!(Axis::Value.forbids(1).is_some());
        assert!(Axis::Watchers.forbids(30_001).is_some());
        assert!(Axis::Nodes.forbids(0).is_some());
    }

    #[test]
    fn what_stays_the_same_is_said_and_what_grows_is_not() {
        assert_eq!(Axis::Clients.fixed(), "3 nodes, 256 B, 1000 keys");
        assert_eq!(Axis::Value.fixed(), "3 nodes, 16 clients, 64 keys");
        assert_eq!(Axis::Watchers.fixed(), "3 nodes, 8 clients, 256 B, 1000 keys, 5 puts/s");
    }

    #[test]
    fn fewer_steps_keep_both_ends() {
        let steps = Axis::Clients.steps();
        assert_eq!(thin(steps, 3), [1, 32, 1024]);
        assert_eq!(thin(steps, 2), [1, 1024]);
        assert_eq!(thin(steps, 1), [1]);
        assert_eq!(thin(steps, 99), steps);
        assert!(thin(steps, 0).is_empty() && thin(&[], 3).is_empty());
    }
}
