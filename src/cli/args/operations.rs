//! What is asked of Prometheus and of the nodes together: baselines, and the operator's daily and weekly checks.

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

const DAILY_EXAMPLES: &str = "\
Examples:
  llm-config ops daily --prometheus http://localhost:9091 --alertmanager http://localhost:9093
  docker compose logs --since 12h llm-config-manager | llm-config ops daily --log -
  llm-config ops daily --metrics localhost:9090 --data-dir /var/lib/llm-config";

const WEEKLY_EXAMPLES: &str = "\
Examples:
  llm-config ops weekly --prometheus http://localhost:9091
  llm-config ops weekly --prometheus http://localhost:9091 --file baselines.yml --runbook docs/operations/runbooks/alerts.md";

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

#[derive(Debug, Subcommand)]
pub(crate) enum Ops {
    /// The check of every morning: alerts of the night, nodes, key numbers, error lines, backups, room, certificates.
    ///
    /// Each row is ok, attention, failed or not checked; the last says what would have to be given. Exit code 1 when one
    /// failed.
    #[command(after_help = DAILY_EXAMPLES)]
    Daily(Daily),
    /// The review of every week: alerts and performance beside the week before, when disks are full, baselines,
    /// runbooks.
    ///
    /// It needs a Prometheus that keeps two weeks. Exit code 1 when a row failed.
    #[command(after_help = WEEKLY_EXAMPLES)]
    Weekly(Weekly),
}

/// Where numbers come from.
#[derive(Debug, Args)]
pub(crate) struct Sources {
    /// Address of Prometheus.
    #[arg(long, value_name = "URL")]
    pub(crate) prometheus: Option<String>,
    /// Without Prometheus: addresses of the nodes' own metrics pages, for what these can tell.
    #[arg(long, value_name = "URL[,URL…]", value_delimiter = ',', conflicts_with = "prometheus")]
    pub(crate) metrics: Vec<String>,
    /// The job that Prometheus scrapes the nodes as.
    #[arg(long, value_name = "JOB", default_value = JOB)]
    pub(crate) job: String,
    /// The label `cluster` of the nodes; needed when Prometheus knows more than one.
    #[arg(long, value_name = "NAME", requires = "prometheus")]
    pub(crate) cluster: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Daily {
    #[command(flatten)]
    pub(crate) sources: Sources,
    /// Address of Alertmanager: whether what fires has reached it.
    #[arg(long, value_name = "URL")]
    pub(crate) alertmanager: Option<String>,
    /// Count the error lines of these logs; `-` reads stdin.
    #[arg(long, value_name = "FILE[,FILE…]", value_delimiter = ',')]
    pub(crate) log: Vec<String>,
    /// The data directory of a node on this machine: its newest backups are read through.
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// How far back alerts, numbers and log lines are looked at, from 5m to 90d.
    #[arg(long, value_name = "TIME", value_parser = window, default_value = "12h")]
    pub(crate) since: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct Weekly {
    #[command(flatten)]
    pub(crate) sources: Sources,
    /// The file that `llm-config baseline record` wrote.
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// The runbook: whether every alert that fired has a section in it.
    #[arg(long, value_name = "FILE")]
    pub(crate) runbook: Option<PathBuf>,
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
