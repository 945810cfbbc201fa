//! What is asked of Prometheus: baselines.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::security::age;

/// The job of the shipped configuration of Prometheus.
pub(crate) const JOB: &str = "llm-config-manager";

const RECORD_EXAMPLES: &str = "\
Examples:
  llm-config baseline record --prometheus http://localhost:9091 --window 7d
  llm-config baseline record --prometheus http://localhost:9091 --window 7d --cluster production \\
      --file baselines.yml --rules baseline-rules.yml";

const COMPARE_EXAMPLES: &str = "\
Examples:
  llm-config baseline compare --prometheus http://localhost:9091
  llm-config baseline compare --prometheus http://localhost:9091 --file baselines.yml --window 1d --output json";

#[derive(Debug, Subcommand)]
pub(crate) enum Baseline {
    /// Ask Prometheus what was normal in a window, and write it into a file, with the thresholds of a deviation.
    ///
    /// It needs the recording rules that are shipped in monitoring/prometheus/rules. When Prometheus has values for less
    /// than 80 % of the window, or no request came in it, nothing is written.
    #[command(after_help = RECORD_EXAMPLES)]
    Record(RecordBaseline),
    /// Compare the last hour with a recorded baseline. Exit code 1 when a threshold is passed.
    #[command(after_help = COMPARE_EXAMPLES)]
    Compare(CompareBaseline),
}

#[derive(Debug, Args)]
pub(crate) struct RecordBaseline {
    /// Address of Prometheus.
    #[arg(long, value_name = "URL")]
    pub(crate) prometheus: String,
    /// How far back from now, from 5m to 90d.
    #[arg(long, value_name = "TIME", value_parser = window)]
    pub(crate) window: Duration,
    /// The file to write; `-` is stdout.
    #[arg(long, value_name = "FILE", default_value = "baselines.yml")]
    pub(crate) file: PathBuf,
    /// Also write alerting rules for Prometheus: BaselineDeviation, of severity info; `-` is stdout.
    #[arg(long, value_name = "FILE")]
    pub(crate) rules: Option<PathBuf>,
    /// The job that the nodes are scraped as.
    #[arg(long, value_name = "JOB", default_value = JOB)]
    pub(crate) job: String,
    /// The label `cluster` of the nodes; needed when Prometheus knows more than one.
    #[arg(long, value_name = "NAME")]
    pub(crate) cluster: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct CompareBaseline {
    /// Address of Prometheus.
    #[arg(long, value_name = "URL")]
    pub(crate) prometheus: String,
    /// The file that `record` wrote; `-` is stdin.
    #[arg(long, value_name = "FILE", default_value = "baselines.yml")]
    pub(crate) file: PathBuf,
    /// The time whose means are compared, from 5m to 90d.
    #[arg(long, value_name = "TIME", value_parser = window, default_value = "1h")]
    pub(crate) window: Duration,
    /// The job that the nodes are scraped as [default: that of the file].
    #[arg(long, value_name = "JOB")]
    pub(crate) job: Option<String>,
    /// The label `cluster` of the nodes [default: that of the file].
    #[arg(long, value_name = "NAME")]
    pub(crate) cluster: Option<String>,
}

/// The expressions look at five minutes at a time; and longer is not normal any more.
fn window(text: &str) -> Result<Duration, String> {
    let (least, most) = (Duration::from_secs(5 * 60), Duration::from_secs(90 * 86_400));
    age(text).and_then(|time| {
        let fits = (least..=most).contains(&time);
        if fits { Ok(time) } else { Err("must be from 5m to 90d".to_owned()) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_bounded() {
        assert_eq!(window("7d"), Ok(Duration::from_secs(604_800)));
        for bad in ["299s", "91d", "7", "", "-1d"] {
            assert!(window(bad).is_err(), "{bad}");
        }
    }
}
