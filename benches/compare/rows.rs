//! What is compared, and what the comparison has to show.

use serde::Serialize;

use super::ratio::Bound;
use crate::system::{Reads, System, Target};

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Contender {
    /// LLM Config Manager.
    Ours,
    /// etcd.
    Etcd,
    /// The empty server of the same protocol.
    Floor,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// User and system time of all servers, in microseconds for each operation.
    CpuPerOp,
    /// Operations a second.
    OpsPerSecond,
    /// Latency that half of the operations stay at or below, in milliseconds.
    P50,
    /// From the beginning of a write until the last watcher has it, in milliseconds: 99 % stay at or below.
    LastWatcherP99,
    /// How long it took, in milliseconds.
    Millis,
    /// Resident memory of a node, in MiB.
    MemoryPerNode,
}

impl Measure {
    /// For people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::CpuPerOp => "server CPU µs/op",
            Self::OpsPerSecond => "ops/s",
            Self::P50 => "p50 ms",
            Self::LastWatcherP99 => "last watcher p99 ms",
            Self::Millis => "ms",
            Self::MemoryPerNode => "RSS MiB/node",
        }
    }
}

/// Ours by somebody's, in one measure.
#[derive(Debug, Clone, Copy)]
pub struct Check {
    /// In what.
    pub measure: Measure,
    /// By whose.
    pub against: Contender,
    /// What it has to be.
    pub bound: Bound,
}

/// A run of load.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// By which protocol we are asked.
    pub ours: System,
    /// Whether etcd is asked the same.
    pub etcd: bool,
    /// The empty server that is asked the same.
    pub floor: Option<System>,
    /// Which nodes.
    pub target: Target,
    /// How many clients.
    pub clients: usize,
    /// Of a hundred requests, those that read.
    pub reads_percent: u8,
    /// How fresh.
    pub reads: Reads,
    /// Arrivals a second, or a closed loop.
    pub rate: Option<u64>,
    /// Streams that watch.
    pub watchers: usize,
}

/// What is done in a row.
#[derive(Debug, Clone, Copy)]
pub enum Work {
    /// Load for a while.
    Load(Load),
    /// The leader is killed; how long until a write is acknowledged.
    LeaderKill,
    /// The nodes are filled; what one needs in memory.
    Memory,
    /// The nodes are filled; how long one takes from its start until it serves.
    Restart,
    /// The nodes are filled; how long an empty one takes until it has all and a vote.
    CatchUp,
}

/// One row.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// By which it is chosen.
    pub name: &'static str,
    /// For people.
    pub title: &'static str,
    /// What is done.
    pub work: Work,
    /// What has to come of it.
    pub checks: &'static [Check],
}

impl Row {
    /// Who is measured.
    #[must_use]
    pub fn contenders(&self) -> Vec<Contender> {
        let mut all = vec![Contender::Ours];
        let (etcd, floor) = match self.work {
            Work::Load(load) => (load.etcd, load.floor.is_some()),
            _ => (true, false),
        };
        all.extend(etcd.then_some(Contender::Etcd));
        all.extend(floor.then_some(Contender::Floor));
        all
    }
}

const fn check(measure: Measure, against: Contender, bound: Bound) -> Check {
    Check { measure, against, bound }
}

const fn cpu(at_most: f64) -> Check {
    check(Measure::CpuPerOp, Contender::Etcd, Bound::AtMost(at_most))
}

const fn cpu_of_floor(at_most: f64) -> Check {
    check(Measure::CpuPerOp, Contender::Floor, Bound::AtMost(at_most))
}

/// Throughput has to be ahead wherever it is measured.
const AHEAD: Check = check(Measure::OpsPerSecond, Contender::Etcd, Bound::AtLeast(1.0));
const P50: Check = check(Measure::P50, Contender::Etcd, Bound::Shown);

const PUT: Load = Load {
    ours: System::LlmConfig,
    etcd: true,
    floor: None,
    target: Target::Leader,
    clients: 64,
    reads_percent: 0,
    reads: Reads::Linearizable,
    rate: None,
    watchers: 0,
};
const GET: Load = Load { target: Target::All, reads_percent: 100, ..PUT };

/// All of them, in the order in which they run.
pub const ROWS: &[Row] = &[
    Row {
        name: "put-1-leader",
        title: "put, 1 client, leader",
        work: Work::Load(Load { clients: 1, ..PUT }),
        checks: &[
            check(Measure::P50, Contender::Etcd, Bound::AtMost(0.7)),
            AHEAD,
            check(Measure::CpuPerOp, Contender::Etcd, Bound::Shown),
        ],
    },
    Row {
        name: "put-64-leader",
        title: "put, 64 clients, leader",
        work: Work::Load(Load { floor: Some(System::Echo), ..PUT }),
        checks: &[cpu(0.30), cpu_of_floor(4.0), AHEAD, P50],
    },
    Row {
        name: "put-64-spread",
        title: "put, 64 clients, all nodes",
        work: Work::Load(Load { target: Target::All, ..PUT }),
        checks: &[cpu(0.30), AHEAD, P50],
    },
    Row {
        name: "put-256-leader",
        title: "put, 256 clients, leader",
        work: Work::Load(Load { clients: 256, ..PUT }),
        checks: &[cpu(0.25), AHEAD, P50],
    },
    Row {
        name: "get-64-linearizable",
        title: "linearizable get, 64 clients, all nodes",
        work: Work::Load(GET),
        checks: &[cpu(0.30), AHEAD, P50],
    },
    Row {
        name: "get-64-cached",
        title: "cached get, 64 clients, followers",
        work: Work::Load(Load {
            floor: Some(System::Echo),
            target: Target::Followers,
            reads: Reads::Cached,
            ..GET
        }),
        checks: &[
            cpu_of_floor(1.4),
            AHEAD,
            check(Measure::CpuPerOp, Contender::Etcd, Bound::Shown),
            P50,
        ],
    },
    Row {
        name: "http-get-64-cached",
        title: "cached get over HTTP, 64 clients, all nodes",
        work: Work::Load(Load {
            ours: System::Http,
            etcd: false,
            floor: Some(System::EchoHttp),
            reads: Reads::Cached,
            ..GET
        }),
        checks: &[cpu_of_floor(2.0), check(Measure::OpsPerSecond, Contender::Floor, Bound::Shown)],
    },
    Row {
        name: "mix-64",
        title: "95 % linearizable get, 5 % put, 64 clients, all nodes",
        work: Work::Load(Load { reads_percent: 95, ..GET }),
        checks: &[cpu(0.30), AHEAD, P50],
    },
    Row {
        name: "watch-100",
        title: "100 watchers, 200 puts/s",
        work: Work::Load(Load { target: Target::All, rate: Some(200), watchers: 100, ..PUT }),
        checks: &[cpu(0.35), check(Measure::LastWatcherP99, Contender::Etcd, Bound::AtMost(0.7))],
    },
    Row {
        name: "leader-kill",
        title: "leader killed until the next acknowledged put",
        work: Work::LeaderKill,
        checks: &[check(Measure::Millis, Contender::Etcd, Bound::AtMost(0.5))],
    },
    Row {
        name: "memory",
        title: "memory of a node with all keys",
        work: Work::Memory,
        checks: &[check(Measure::MemoryPerNode, Contender::Etcd, Bound::AtMost(0.5))],
    },
    Row {
        name: "restart",
        title: "a node with all keys starts until it serves",
        work: Work::Restart,
        checks: &[check(Measure::Millis, Contender::Etcd, Bound::AtMost(0.25))],
    },
    Row {
        name: "catch-up",
        title: "an emptied node has all keys and a vote",
        work: Work::CatchUp,
        checks: &[check(Measure::Millis, Contender::Etcd, Bound::AtMost(0.5))],
    },
];

/// What is done together: rows that share a filled cluster, or one row.
#[must_use]
pub fn units(rows: &[&'static Row]) -> Vec<Vec<&'static Row>> {
    let shares = |row: &Row| matches!(row.work, Work::Memory | Work::Restart | Work::CatchUp);
    let mut units: Vec<Vec<&'static Row>> = Vec::new();
    for row in rows {
        match units.last_mut() {
            Some(unit) if shares(row) && unit.iter().any(|other| shares(other)) => unit.push(row),
            _ => units.push(vec![row]),
        }
    }
    units
}

/// The rows of these names, in the order of the table; all of them without names.
///
/// # Errors
/// When there is no such row.
pub fn chosen(names: &[String]) -> Result<Vec<&'static Row>, String> {
    for name in names {
        if ROWS.iter().all(|row| row.name != name) {
            let known: Vec<_> = ROWS.iter().map(|row| row.name).collect();
            return Err(format!("there is no row {name:?}; there are {}", known.join(", ")));
        }
    }
    let wanted = |row: &&Row| names.is_empty() || names.iter().any(|name| name == row.name);
    Ok(ROWS.iter().filter(wanted).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn rows_are_chosen_by_name_and_run_in_the_order_of_the_table() {
        let found = chosen(&names(&["watch-100", "put-64-leader"])).unwrap();
        let found: Vec<_> = found.iter().map(|row| row.name).collect();
        assert_eq!(found, ["put-64-leader", "watch-100"]);
        assert_eq!(chosen(&[]).unwrap().len(), ROWS.len());
        let error = chosen(&names(&["memory", "put-65-leader"])).unwrap_err();
        assert!(error.contains("put-65-leader") && error.contains("put-64-leader"), "{error}");
    }

    #[test]
    fn every_check_has_somebody_to_compare_with() {
        assert_eq!(ROWS.iter().map(|row| row.name).collect::<BTreeSet<_>>().len(), ROWS.len());
        for row in ROWS {
            assert!(!row.checks.is_empty(), "{}", row.name);
            for check in row.checks {
                assert!(row.contenders().contains(&check.against), "{}: {check:?}", row.name);
                assert_ne!(check.against, Contender::Ours, "{}", row.name);
            }
        }
    }

    #[test]
    fn what_needs_full_nodes_shares_them() {
        let units = units(&chosen(&names(&["mix-64", "memory", "catch-up"])).unwrap());
        let units: Vec<Vec<_>> =
            units.iter().map(|unit| unit.iter().map(|row| row.name).collect()).collect();
        assert_eq!(units, [vec!["mix-64"], vec!["memory", "catch-up"]]);
    }
}
