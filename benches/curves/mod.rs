//! How cost grows: series of runs, each along one axis, with all else as it was. Every step has a cluster of its own. What
//! fails is told, recorded as a gap, and the series goes on.

pub mod axes;
pub mod book;
mod fill;

use std::path::PathBuf;
use std::time::Duration;

use procfs::Current as _;

use crate::cluster::{Cluster, Kind, Programs};
use crate::drive::{self, DRAIN, Plan};
use crate::process::file_system;
use crate::report::Record;
use crate::system::System;
use axes::{Axis, Setting, Work, thin};
use book::{Book, Gave, Line};

/// Of a reason, as it is kept.
const REASON_CHARS: usize = 160;

/// How much of it.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The servers.
    pub programs: Programs,
    /// Along which axes.
    pub axes: Vec<Axis>,
    /// These steps instead of an axis' own.
    pub at: Vec<usize>,
    /// At most so many steps of each axis.
    pub steps: usize,
    /// Measured time of a run.
    pub measured: Duration,
    /// Unmeasured time before it.
    pub warmup: Duration,
    /// Steps of keys above it are left out.
    pub keys_max: usize,
    /// How long the runs of a step may take.
    pub point_limit: Duration,
    /// How long its store may take to be filled.
    pub fill_limit: Duration,
    /// Where lines are kept, beside those that are there.
    pub record: Option<PathBuf>,
    /// Which keys are drawn.
    pub seed: u64,
}

impl Settings {
    /// The steps to take along an axis; those that cannot be taken are handed to `skipped` with the reason.
    pub fn points(&self, axis: Axis, mut skipped: impl FnMut(usize, String)) -> Vec<usize> {
        let wanted = if self.at.is_empty() { axis.steps() } else { self.at.as_slice() };
        let mut points = Vec::with_capacity(wanted.len());
        for &x in wanted {
            let over = axis == Axis::Keys && x > self.keys_max;
            let why = over.then(|| format!("above --keys-max {}", self.keys_max));
            match why.or_else(|| axis.forbids(x)) {
                Some(why) => skipped(x, why),
                None => points.push(x),
            }
        }
        thin(&points, self.steps)
    }

    fn plan(&self, axis: Axis, setting: Setting, work: Work, nodes: Vec<String>) -> Plan {
        let (target, reads_percent, reads, rate) = work.load();
        // A few writes a second make few latencies: it takes longer to have enough.
        let stretch = if axis == Axis::Watchers { 3 } else { 1 };
        Plan {
            system: System::LlmConfig,
            nodes,
            target,
            clients: setting.clients,
            connections: None,
            rate,
            reads_percent,
            reads,
            value_bytes: setting.value_bytes,
            keys: setting.keys,
            watchers: setting.watchers,
            warmup: self.warmup,
            measured: self.measured * stretch,
            drain: DRAIN,
            seed: self.seed,
        }
    }
}

/// What a series came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum {
    /// Runs with figures.
    pub measured: usize,
    /// Runs without.
    pub failed: usize,
}

/// Runs the series; each line is printed as its run ends, and kept.
///
/// # Errors
/// When lines cannot be kept, or the machine tells nothing of itself.
pub async fn run(settings: &Settings) -> anyhow::Result<Sum> {
    let mut series = Series {
        settings,
        book: settings.record.as_deref().map(Book::read).transpose()?.unwrap_or_default(),
        file_system: file_system(&settings.programs.data).unwrap_or_else(|| "unknown".to_owned()),
        cores: std::thread::available_parallelism()?.get(),
        sum: Sum::default(),
    };
    for &axis in &settings.axes {
        let name = axis.name();
        let points = settings.points(axis, |x, why| eprintln!("{name} {x}: skipped, {why}"));
        eprintln!("{name}: {points:?}; {}", axis.fixed());
        for x in points {
            series.point(axis, x).await?;
        }
    }
    Ok(series.sum)
}

struct Series<'a> {
    settings: &'a Settings,
    book: Book,
    file_system: String,
    cores: usize,
    sum: Sum,
}

impl Series<'_> {
    /// All works of a step; those that the cluster, the time or an error leave out are recorded as such.
    async fn point(&mut self, axis: Axis, x: usize) -> anyhow::Result<()> {
        let load_before = procfs::LoadAverage::current()?.one;
        let limit = self.settings.point_limit;
        let works = axis.works();
        let mut done = 0;
        let result = async {
            let cluster = self.cluster(axis, x).await?;
            let runs = async {
                for &work in works {
                    let gave = self.work(&cluster, axis, x, work).await?;
                    self.keep(axis, x, work, load_before, gave)?;
                    done += 1;
                }
                anyhow::Ok(())
            };
            match tokio::time::timeout(limit, runs).await {
                Ok(result) => result,
                Err(_) => Err(anyhow::anyhow!("not done after {limit:?}")),
            }
        }
        .await;
        let Err(error) = result else { return Ok(()) };
        eprintln!("{} {x}: failed: {error:#}", axis.name());
        // One line: the end of a server's log is for whoever watches.
        let text = format!("{error:#}");
        let line = text.lines().next().unwrap_or_default();
        let failed: String = line.chars().take(REASON_CHARS).collect();
        for &work in works.get(done..).unwrap_or_default() {
            let gave = Gave::Nothing { failed: failed.clone() };
            self.keep(axis, x, work, load_before, gave)?;
        }
        Ok(())
    }

    /// Started for a step, with every key in it.
    async fn cluster(&self, axis: Axis, x: usize) -> anyhow::Result<Cluster> {
        let setting = axis.setting(x);
        let programs = &self.settings.programs;
        let cluster =
            Cluster::start_with(Kind::LlmConfig, programs, setting.nodes, axis.flags()).await?;
        let limit = self.settings.fill_limit;
        fill::fill(&cluster, setting.keys, setting.value_bytes, limit).await?;
        if !fill::rest(&cluster.servers()?).await? {
            eprintln!("{} {x}: measured though the nodes have not come to rest", axis.name());
        }
        Ok(cluster)
    }

    async fn work(
        &self,
        cluster: &Cluster,
        axis: Axis,
        x: usize,
        work: Work,
    ) -> anyhow::Result<Gave> {
        let nodes = cluster.addresses(System::LlmConfig);
        let plan = self.settings.plan(axis, axis.setting(x), work, nodes);
        let label = format!("{} {x}, {}", axis.name(), work.name());
        let version = Some(cluster.status(0).await?.version);
        let outcome = drive::run(&plan, &cluster.servers()?, |operations| {
            eprintln!("{label}: {operations} operations");
        })
        .await?;
        let record = Record::new(&plan, version, &outcome);
        let error = record.first_error.as_deref();
        if let Some(error) = error {
            eprintln!("{label}: first error: {error}");
        }
        let why = error.unwrap_or("none was answered");
        anyhow::ensure!(record.operations > 0, "{}: no success: {why}", work.name());
        Ok(Gave::Figures { disk_bytes: cluster.disk_bytes()?, record: Box::new(record) })
    }

    fn keep(
        &mut self,
        axis: Axis,
        x: usize,
        work: Work,
        load_before: f32,
        gave: Gave,
    ) -> anyhow::Result<()> {
        match gave {
            Gave::Figures { .. } => self.sum.measured += 1,
            Gave::Nothing { .. } => self.sum.failed += 1,
        }
        let nodes = axis.setting(x).nodes;
        let (cores, file_system) = (self.cores, self.file_system.clone());
        let line = Line { axis, x, work, nodes, cores, file_system, load_before, gave };
        let text = serde_json::to_string(&line)?;
        println!("{text}");
        if let Some(path) = &self.settings.record {
            self.book.add(&text)?;
            self.book.save(path)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn settings(axes: &[Axis]) -> Settings {
        Settings {
            programs: Programs {
                server: PathBuf::from("/no/such/program"),
                etcd: None,
                data: std::env::temp_dir(),
            },
            axes: axes.to_vec(),
            at: Vec::new(),
            steps: usize::MAX,
            measured: Duration::from_secs(2),
            warmup: Duration::ZERO,
            keys_max: 100_000,
            point_limit: Duration::from_secs(10),
            fill_limit: Duration::from_secs(10),
            record: None,
            seed: 1,
        }
    }

    #[test]
    fn steps_are_those_that_can_be_taken() {
        let points = |settings: &Settings, axis| {
            let mut skipped = Vec::new();
            let points = settings.points(axis, |x, why| skipped.push((x, why)));
            (points, skipped)
        };
        let all = settings(&Axis::ALL);
        let (keys, skipped) = points(&all, Axis::Keys);
        assert_eq!(keys, [1000, 10_000, 30_000, 100_000]);
        assert_eq!((skipped.len(), skipped[0].0), (4, 300_000));
        assert!(skipped[0].1.contains("--keys-max 100000"), "{skipped:?}");
        assert_eq!(points(&all, Axis::Clients).0, Axis::Clients.steps());
        let few = Settings { steps: 2, ..all.clone() };
        assert_eq!(points(&few, Axis::Keys).0, [1000, 100_000], "of those that can be taken");
        let at = Settings { at: vec![64, 2 << 20], ..all };
        let (value, skipped) = points(&at, Axis::Value);
        assert_eq!((value, skipped.len(), skipped[0].0), (vec![64], 1, 2 << 20));
    }

    #[test]
    fn a_run_is_that_of_its_step() {
        let all = settings(&Axis::ALL);
        let plan = |axis: Axis, x, work| all.plan(axis, axis.setting(x), work, Vec::new());
        let put = plan(Axis::Value, 4096, Work::Put);
        assert_eq!((put.value_bytes, put.clients, put.reads_percent), (4096, 16, 0));
        assert_eq!(put.measured, Duration::from_secs(2));
        let watched = plan(Axis::Watchers, 10, Work::WatchedPut);
        assert_eq!((watched.watchers, watched.rate), (10, Some(axes::WATCHED_RATE)));
        assert_eq!(watched.measured, Duration::from_secs(6));
        assert_eq!(plan(Axis::Keys, 5000, Work::CachedGet).keys, 5000);
    }

    #[tokio::test]
    async fn what_fails_is_recorded_as_a_gap_and_the_series_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let server = dir.path().join("server");
        std::fs::write(&server, "#!/bin/sh\necho no such flag\nexit 2\n").unwrap();
        std::fs::set_permissions(&server, std::fs::Permissions::from_mode(0o755)).unwrap();
        let path = dir.path().join("curves.jsonl");
        let programs = Programs { server, etcd: None, data: dir.path().to_owned() };
        let settings = Settings {
            programs,
            at: vec![1, 3],
            record: Some(path.clone()),
            ..settings(&[Axis::Nodes])
        };
        assert_eq!(run(&settings).await.unwrap(), Sum { measured: 0, failed: 4 });
        let book = Book::read(&path).unwrap();
        let gaps: Vec<_> = book.points(Axis::Nodes).map(|point| (point.x, point.nodes)).collect();
        assert_eq!(gaps, [(1, 1), (1, 1), (3, 3), (3, 3)]);
        let why = book.points(Axis::Nodes).next().unwrap().failed.clone().unwrap();
        assert!(why.starts_with("a server stopped"), "{why}");
    }
}
