//! The same work for LLM Config Manager and for etcd, in turn: A B A B A B. Each runs alone, on a cluster that was started
//! for this row and this round, with its data on the same disk and with its own defaults: both acknowledge a write after it
//! was fsynced on a majority.

mod outage;
pub mod ratio;
pub mod rows;
mod store;
pub mod table;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;

use crate::cluster::{Cluster, Kind, Programs};
use crate::drive::{self, DRAIN, Plan};
use crate::report::Record;
use crate::system::System;
use rows::{Contender, Load, Measure, Row, Work};

/// How much of it.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The servers.
    pub programs: Programs,
    /// How often each of them is measured.
    pub rounds: usize,
    /// Measured time of a run of load.
    pub measured: Duration,
    /// Unmeasured time before it.
    pub warmup: Duration,
    /// Keys of 1 KiB in the rows about nodes that are full.
    pub store_keys: usize,
    /// How often the leader is killed in each round.
    pub kills: usize,
    /// Which keys are drawn in the first round; each further one has the next.
    pub seed: u64,
}

/// Size of a value in runs of load.
pub const VALUE_BYTES: usize = 256;
/// Keys of runs of load.
pub const KEYS: usize = 1000;

/// What one of them gave in one round of a row.
#[derive(Debug, Default)]
pub struct Sample {
    values: BTreeMap<Measure, f64>,
    /// What went wrong: errors, requests without an answer, writes that did not arrive.
    faults: u64,
    version: Option<String>,
}

/// All rounds of a row.
#[derive(Debug)]
pub struct Rounds {
    /// The row.
    pub row: &'static Row,
    samples: BTreeMap<Contender, Vec<Sample>>,
}

impl Rounds {
    fn new(row: &'static Row) -> Self {
        Self { row, samples: BTreeMap::new() }
    }

    /// What somebody's rounds gave in a measure.
    #[must_use]
    pub fn values(&self, contender: Contender, measure: Measure) -> Vec<Option<f64>> {
        let samples = self.samples.get(&contender).map_or(&[][..], Vec::as_slice);
        samples.iter().map(|sample| sample.values.get(&measure).copied()).collect()
    }

    /// What went wrong with somebody in all rounds.
    #[must_use]
    pub fn faults(&self, contender: Contender) -> u64 {
        self.samples.get(&contender).into_iter().flatten().map(|sample| sample.faults).sum()
    }

    /// The release of somebody's servers, where they told.
    #[must_use]
    pub fn version(&self, contender: Contender) -> Option<&str> {
        self.samples.get(&contender)?.iter().find_map(|sample| sample.version.as_deref())
    }
}

/// A line of JSON about one run.
#[derive(Serialize)]
struct Line<'a> {
    row: &'a str,
    round: usize,
    contender: Contender,
    #[serde(flatten)]
    record: &'a Record,
}

/// A line of JSON about what is no load.
#[derive(Serialize)]
struct Event<'a> {
    row: &'a str,
    round: usize,
    contender: Contender,
    /// In the order in which it happened: milliseconds, or MiB.
    values: &'a [f64],
}

/// Runs the rows; each run is printed as it ends, as a line of JSON.
///
/// # Errors
/// When servers do not start, or something cannot be measured.
pub async fn run(rows: &[&'static Row], settings: &Settings) -> anyhow::Result<Vec<Rounds>> {
    let mut all = Vec::with_capacity(rows.len());
    for unit in rows::units(rows) {
        let mut unit: Vec<Rounds> = unit.into_iter().map(Rounds::new).collect();
        let contenders = unit.first().map(|rounds| rounds.row.contenders()).unwrap_or_default();
        for round in 0..settings.rounds {
            for contender in &contenders {
                let turn = Turn { settings, round, rounds: settings.rounds, contender: *contender };
                turn.take(&mut unit).await?;
            }
        }
        all.extend(unit);
    }
    Ok(all)
}

/// One of them in one round.
#[derive(Debug, Clone, Copy)]
struct Turn<'a> {
    settings: &'a Settings,
    round: usize,
    rounds: usize,
    contender: Contender,
}

impl Turn<'_> {
    async fn take(self, unit: &mut [Rounds]) -> anyhow::Result<()> {
        let first = unit.first().context("no row")?.row;
        let samples = match first.work {
            Work::Load(load) => vec![self.load(first, load).await?],
            Work::LeaderKill => vec![self.leader_kill(first).await?],
            Work::Memory | Work::Restart | Work::CatchUp => {
                let rows: Vec<_> = unit.iter().map(|rounds| rounds.row).collect();
                self.store(&rows).await?
            }
        };
        for (rounds, sample) in unit.iter_mut().zip(samples) {
            rounds.samples.entry(self.contender).or_default().push(sample);
        }
        Ok(())
    }

    fn label(self, row: &Row) -> String {
        let who = match self.contender {
            Contender::Ours => "llm-config",
            Contender::Etcd => "etcd",
            Contender::Floor => "the empty server",
        };
        format!("{}, round {} of {}, {who}", row.name, self.round + 1, self.rounds)
    }

    fn kind(self) -> Kind {
        match self.contender {
            Contender::Ours => Kind::LlmConfig,
            Contender::Etcd => Kind::Etcd,
            Contender::Floor => Kind::Floor,
        }
    }

    async fn load(self, row: &Row, load: Load) -> anyhow::Result<Sample> {
        let label = self.label(row);
        let system = match self.contender {
            Contender::Ours => load.ours,
            Contender::Etcd => System::Etcd,
            Contender::Floor => load.floor.context("no empty server plays in this row")?,
        };
        eprintln!("{label}: starting");
        let cluster = Cluster::start(self.kind(), &self.settings.programs).await?;
        let plan = Plan {
            system,
            nodes: cluster.addresses(system),
            target: load.target,
            clients: load.clients,
            connections: None,
            rate: load.rate,
            reads_percent: load.reads_percent,
            reads: load.reads,
            value_bytes: VALUE_BYTES,
            keys: KEYS,
            watchers: load.watchers,
            warmup: self.settings.warmup,
            measured: self.settings.measured,
            drain: DRAIN,
            seed: self.settings.seed.wrapping_add(self.round as u64 * 1000),
        };
        drive::preload(system, &plan.nodes, plan.keys, plan.value_bytes).await?;
        let version = match self.contender {
            Contender::Floor => None,
            _ => Some(cluster.status(0).await?.version),
        };
        let outcome = drive::run(&plan, &cluster.servers()?, |operations| {
            eprintln!("{label}: {operations} operations");
        })
        .await?;
        let record = Record::new(&plan, version, &outcome);
        let line = Line {
            row: row.name,
            round: self.round + 1,
            contender: self.contender,
            record: &record,
        };
        println!("{}", serde_json::to_string(&line)?);
        if let Some(error) = &record.first_error {
            eprintln!("{label}: first error: {error}");
        }
        anyhow::ensure!(record.operations > 0, "{label}: no operation succeeded");
        Ok(sample_of(&record))
    }

    async fn leader_kill(self, row: &Row) -> anyhow::Result<Sample> {
        let label = self.label(row);
        eprintln!("{label}: starting");
        let mut cluster = Cluster::start(self.kind(), &self.settings.programs).await?;
        let version = cluster.status(0).await?.version;
        let mut outages = Vec::with_capacity(self.settings.kills);
        for _ in 0..self.settings.kills {
            let outage = outage::after_leader_kill(&mut cluster).await?;
            eprintln!("{label}: {outage:?}");
            outages.push(outage.as_secs_f64() * 1e3);
        }
        self.event(row, &outages)?;
        let all: Vec<_> = outages.into_iter().map(Some).collect();
        let median = ratio::median_of(&all).context("the leader was never killed")?;
        Ok(sample(Measure::Millis, median, version))
    }

    async fn store(self, rows: &[&'static Row]) -> anyhow::Result<Vec<Sample>> {
        let label = rows.first().map(|row| self.label(row)).unwrap_or_default();
        eprintln!("{label}: starting");
        let mut cluster = Cluster::start(self.kind(), &self.settings.programs).await?;
        let version = cluster.status(0).await?.version;
        eprintln!("{label}: writing {} keys", self.settings.store_keys);
        let full = store::fill(&cluster, self.settings.store_keys).await?;
        let mut samples = Vec::with_capacity(rows.len());
        for row in rows {
            let (measure, value) = match row.work {
                Work::Memory => (Measure::MemoryPerNode, full.memory(&cluster).await?),
                Work::Restart => (Measure::Millis, full.restart(&mut cluster).await?),
                Work::CatchUp => (Measure::Millis, full.catch_up(&mut cluster).await?),
                Work::Load(_) | Work::LeaderKill => anyhow::bail!("no row of a full store"),
            };
            eprintln!("{}: {value:.0} {}", self.label(row), measure.name());
            self.event(row, &[value])?;
            samples.push(sample(measure, value, version.clone()));
        }
        Ok(samples)
    }

    fn event(self, row: &Row, values: &[f64]) -> anyhow::Result<()> {
        let event =
            Event { row: row.name, round: self.round + 1, contender: self.contender, values };
        println!("{}", serde_json::to_string(&event)?);
        Ok(())
    }
}

fn sample(measure: Measure, value: f64, version: String) -> Sample {
    Sample { values: [(measure, value)].into(), faults: 0, version: Some(version) }
}

fn sample_of(record: &Record) -> Sample {
    let values = [
        (Measure::CpuPerOp, record.server_cpu_us_per_op),
        (Measure::OpsPerSecond, Some(record.ops_per_second)),
        (Measure::P50, record.latency.p50_ms),
        (Measure::LastWatcherP99, record.last_watcher.p99_ms),
    ];
    let values = values.into_iter().filter_map(|(measure, value)| Some((measure, value?)));
    Sample {
        values: values.collect(),
        faults: record.errors + record.unanswered + record.undelivered,
        version: record.version.clone(),
    }
}
