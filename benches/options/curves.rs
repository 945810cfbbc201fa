//! What may be said about series and their pictures.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use llm_config_benches::curves::Settings;
use llm_config_benches::curves::axes::Axis;

use super::{Started, positive};

/// Series along axes.
#[derive(Debug, Args)]
pub struct Curves {
    #[command(flatten)]
    pub started: Started,
    /// What grows [default: each of them, in turn]
    #[arg(long, value_enum, value_name = "AXIS[,…]", value_delimiter = ',')]
    pub axis: Vec<Axis>,
    /// These steps instead of the usual ones, along one axis
    #[arg(long, value_name = "N[,…]", value_delimiter = ',', requires = "axis", value_parser = positive)]
    pub at: Vec<usize>,
    /// At most so many steps of each axis, evenly spread [default: all; quick: 3]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub steps: Option<usize>,
    /// Measured time of each run; three times as long with watchers [default: 6; quick: 2]
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub seconds: Option<u64>,
    /// Unmeasured time before it [default: 2; quick: 1]
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(..=3600))]
    pub warmup: Option<u64>,
    /// The most keys: about 2 GB on the disk for each million, on three nodes together, and as much again meanwhile [default: 1000000; quick: 10000]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub keys_max: Option<usize>,
    /// How long the runs of one step may take
    #[arg(long, value_name = "S", default_value_t = 180, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub point_seconds: u64,
    /// How long a store may take to be filled with keys, before that
    #[arg(long, value_name = "S", default_value_t = 1800, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub fill_seconds: u64,
    /// Keeps each line in this file, in the place of an older one of the same step
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
    /// Which keys are drawn: the same seed draws the same
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Less of everything, to see that it works: the figures say little
    #[arg(long)]
    pub quick: bool,
}

impl Curves {
    /// How much of everything.
    pub fn settings(&self) -> anyhow::Result<Settings> {
        anyhow::ensure!(self.at.is_empty() || self.axis.len() == 1, "--at is for one --axis");
        let (steps, seconds, warmup, keys_max) =
            if self.quick { (3, 2, 1, 10_000) } else { (usize::MAX, 6, 2, 1_000_000) };
        Ok(Settings {
            programs: self.started.programs(),
            axes: if self.axis.is_empty() { Axis::ALL.to_vec() } else { self.axis.clone() },
            at: self.at.clone(),
            steps: self.steps.unwrap_or(steps),
            measured: Duration::from_secs(self.seconds.unwrap_or(seconds)),
            warmup: Duration::from_secs(self.warmup.unwrap_or(warmup)),
            keys_max: self.keys_max.unwrap_or(keys_max),
            point_limit: Duration::from_secs(self.point_seconds),
            fill_limit: Duration::from_secs(self.fill_seconds),
            record: self.record.clone(),
            seed: self.seed,
        })
    }
}

/// Pictures of them.
#[derive(Debug, Args)]
pub struct Draw {
    /// The lines that were kept
    #[arg(long, value_name = "FILE", default_value = "docs/benchmarks/curves.jsonl")]
    pub from: PathBuf,
    /// Where the pictures go
    #[arg(long, value_name = "DIR", default_value = "docs/benchmarks")]
    pub to: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Only {
        #[command(flatten)]
        curves: Curves,
    }

    fn parse(line: &str) -> anyhow::Result<Settings> {
        let words = std::iter::once("curves").chain(line.split_whitespace());
        Only::try_parse_from(words)?.curves.settings()
    }

    #[test]
    fn all_axes_unless_it_is_said() {
        let all = parse("--server x").unwrap();
        assert_eq!(
            (all.axes, all.steps, all.keys_max),
            (Axis::ALL.to_vec(), usize::MAX, 1_000_000)
        );
        assert_eq!(all.measured, Duration::from_secs(6));
        let some = parse("--server x --axis nodes,value --seconds 3 --steps 4 --record y").unwrap();
        assert_eq!((some.axes, some.steps), (vec![Axis::Nodes, Axis::Value], 4));
        assert_eq!((some.measured, some.record), (Duration::from_secs(3), Some("y".into())));
        let quick = parse("--server x --quick --keys-max 500").unwrap();
        assert_eq!((quick.steps, quick.keys_max), (3, 500));
        assert_eq!(
            (quick.measured, quick.warmup),
            (Duration::from_secs(2), Duration::from_secs(1))
        );
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for wrong in [
            "",
            "--server x --axis colour",
            "--server x --at 5",
            "--server x --axis nodes,value --at 5",
            "--server x --axis nodes --at 0",
            "--server x --steps 0",
            "--server x --point-seconds 0",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(parse("--server x --axis nodes --at 1,9").unwrap().at, [1, 9]);
    }
}
