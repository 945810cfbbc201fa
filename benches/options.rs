//! What may be said on the command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::PossibleValuesParser;
use llm_config_benches::cluster::{Kind, Programs};
use llm_config_benches::compare::Settings;
use llm_config_benches::compare::rows::ROWS;
use llm_config_benches::drive::{DRAIN, Plan};
use llm_config_benches::servers::{ETCD, LLM_CONFIG, Servers};
use llm_config_benches::system::{Reads, System, Target};

mod curves;

pub use curves::{Curves, Draw};

/// The programs of servers that are started.
#[derive(Debug, Args)]
pub struct Started {
    /// LLM Config Manager's server program
    #[arg(long, env = "LLM_CONFIG_SERVER", value_name = "FILE")]
    pub server: PathBuf,
    /// etcd's
    #[arg(long, env = "LLM_CONFIG_ETCD", value_name = "FILE")]
    pub etcd: Option<PathBuf>,
    /// Where the temporary data directories are made: on the disk to be measured [default: the system's]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

impl Started {
    /// As the cluster wants it.
    pub fn programs(&self) -> Programs {
        Programs {
            server: self.server.clone(),
            etcd: self.etcd.clone(),
            data: self.data_dir.clone().unwrap_or_else(std::env::temp_dir),
        }
    }
}

/// How a run is shaped, whatever the system.
#[derive(Debug, Clone, Args)]
pub struct Shape {
    /// Size of a value
    #[arg(long, value_name = "BYTES", default_value_t = 256)]
    pub value_bytes: usize,
    /// How many keys; all are written before a run
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = positive)]
    pub keys: usize,
    /// Measured time of each run
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub seconds: u64,
    /// Unmeasured time before each run
    #[arg(long, value_name = "S", default_value_t = 2, value_parser = clap::value_parser!(u64).range(..=3600))]
    pub warmup: u64,
    /// Which keys are drawn: the same seed draws the same
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
}

/// One kind of work after the other.
#[derive(Debug, Args)]
pub struct Table {
    #[command(flatten)]
    pub started: Started,
    #[command(flatten)]
    pub shape: Shape,
    /// How many clients, each with one request under way
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = positive)]
    pub clients: usize,
    /// By which protocol
    #[arg(long, value_enum, default_value_t = System::LlmConfig)]
    pub system: System,
}

/// One run.
#[derive(Debug, Args)]
pub struct Run {
    /// What is under load, and by which protocol
    #[arg(long, value_enum, default_value_t = System::LlmConfig)]
    pub system: System,
    /// Addresses of a running cluster's nodes, of this protocol; without them a cluster of three is started
    #[arg(long, value_name = "HOST:PORT[,…]", value_delimiter = ',', conflicts_with = "data_dir")]
    pub endpoints: Vec<String>,
    /// Processes of that cluster, if they run on this machine, whose CPU time and memory are the cost
    #[arg(long, value_name = "PID[,…]", value_delimiter = ',', requires = "endpoints")]
    pub pids: Vec<i32>,
    /// Where that cluster serves its metrics, for entries and fsyncs
    #[arg(long, value_name = "HOST:PORT[,…]", value_delimiter = ',', requires = "endpoints")]
    pub metrics: Vec<String>,
    /// LLM Config Manager's server program
    #[arg(
        long,
        env = "LLM_CONFIG_SERVER",
        value_name = "FILE",
        required_unless_present = "endpoints"
    )]
    pub server: Option<PathBuf>,
    /// etcd's
    #[arg(long, env = "LLM_CONFIG_ETCD", value_name = "FILE")]
    pub etcd: Option<PathBuf>,
    /// Where the temporary data directories are made: on the disk to be measured [default: the system's]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Which nodes are asked
    #[arg(long, value_enum, default_value_t = Target::All)]
    pub target: Target,
    /// How many clients, each with one request under way
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = positive)]
    pub clients: usize,
    /// Connections that they share [default: one for 8 clients; over HTTP/1.1 one for each]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub connections: Option<usize>,
    /// Requests that arrive in a second, whatever the cluster answers (open loop) [default: as many as are answered]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub rate: Option<u64>,
    /// Reads and writes, in percent
    #[arg(long, value_name = "READS/WRITES", default_value = "0/100", value_parser = mix)]
    pub mix: u8,
    /// How fresh reads are
    #[arg(long, value_enum, default_value_t = Reads::Linearizable)]
    pub reads: Reads,
    /// Streams that watch what is written, over all nodes; tells when the last one has it
    #[arg(long, value_name = "N", default_value_t = 0, requires = "rate")]
    pub watchers: usize,
    #[command(flatten)]
    pub shape: Shape,
}

impl Run {
    /// What to run on these nodes.
    pub fn plan(&self, nodes: Vec<String>) -> anyhow::Result<Plan> {
        anyhow::ensure!(
            !self.system.is_http() || self.connections.is_none_or(|n| n >= self.clients),
            "over HTTP/1.1 each client has a connection of its own: leave out --connections"
        );
        let mut plan = self.shape.plan(self.system, nodes);
        plan.target = self.target;
        plan.clients = self.clients;
        plan.connections = self.connections;
        plan.rate = self.rate;
        plan.reads_percent = self.mix;
        plan.reads = self.reads;
        plan.watchers = self.watchers;
        Ok(plan)
    }

    /// The given servers, when they run already.
    pub fn servers(&self) -> Servers {
        let names = if Kind::of(self.system) == Kind::Etcd { ETCD } else { LLM_CONFIG };
        Servers { pids: self.pids.clone(), metrics: self.metrics.clone(), names }
    }

    /// The programs, when they do not.
    pub fn programs(&self) -> anyhow::Result<Programs> {
        let server = self.server.clone();
        Ok(Programs {
            server: server.ok_or_else(|| anyhow::anyhow!("give --server or --endpoints"))?,
            etcd: self.etcd.clone(),
            data: self.data_dir.clone().unwrap_or_else(std::env::temp_dir),
        })
    }
}

impl Shape {
    /// Puts by one client in a closed loop.
    pub fn plan(&self, system: System, nodes: Vec<String>) -> Plan {
        Plan {
            system,
            nodes,
            target: Target::All,
            clients: 1,
            connections: None,
            rate: None,
            reads_percent: 0,
            reads: Reads::Linearizable,
            value_bytes: self.value_bytes,
            keys: self.keys,
            watchers: 0,
            warmup: Duration::from_secs(self.warmup),
            measured: Duration::from_secs(self.seconds),
            drain: DRAIN,
            seed: self.seed,
        }
    }
}

/// The comparison.
#[derive(Debug, Args)]
pub struct Compare {
    #[command(flatten)]
    pub started: Started,
    /// Which rows [default: all]
    #[arg(long, value_name = "ROW[,…]", value_delimiter = ',', value_parser = PossibleValuesParser::new(ROWS.iter().map(|row| row.name)))]
    pub rows: Vec<String>,
    /// How often each system is measured, in turn [default: 3; quick: 1]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub rounds: Option<usize>,
    /// Measured time of a run of load [default: 10; quick: 3]
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub seconds: Option<u64>,
    /// Unmeasured time before it [default: 2; quick: 1]
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(..=3600))]
    pub warmup: Option<u64>,
    /// Keys of 1 KiB in the rows memory, restart and catch-up [default: 100000; quick: 10000]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub store_keys: Option<usize>,
    /// How often the leader is killed in each round [default: 5; quick: 2]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub kills: Option<usize>,
    /// Which keys are drawn: the same seed draws the same
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Less of everything, to see that it works: the figures say little
    #[arg(long)]
    pub quick: bool,
}

impl Compare {
    /// How much of everything.
    pub fn settings(&self) -> Settings {
        let (rounds, seconds, warmup, store_keys, kills) =
            if self.quick { (1, 3, 1, 10_000, 2) } else { (3, 10, 2, 100_000, 5) };
        Settings {
            programs: self.started.programs(),
            rounds: self.rounds.unwrap_or(rounds),
            measured: Duration::from_secs(self.seconds.unwrap_or(seconds)),
            warmup: Duration::from_secs(self.warmup.unwrap_or(warmup)),
            store_keys: self.store_keys.unwrap_or(store_keys),
            kills: self.kills.unwrap_or(kills),
            seed: self.seed,
        }
    }
}

/// A rolling restart.
#[derive(Debug, Args)]
pub struct Rolling {
    #[command(flatten)]
    pub started: Started,
    /// How often every node is restarted
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = positive)]
    pub rounds: usize,
    /// Writers, each with one write under way
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = positive)]
    pub clients: usize,
    /// Size of a value
    #[arg(long, value_name = "BYTES", default_value_t = 256)]
    pub value_bytes: usize,
}

/// The empty servers.
#[derive(Debug, Args)]
pub struct Floor {
    /// For empty calls
    #[arg(long)]
    pub grpc: SocketAddr,
    /// For empty pages
    #[arg(long)]
    pub http: SocketAddr,
}

/// A whole number above 0.
pub fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err("must be a whole number above 0".to_owned()),
    }
}

/// `95/5`: the reads of a hundred requests.
fn mix(text: &str) -> Result<u8, String> {
    let parts = text.split_once('/').map(|(reads, writes)| (reads.parse(), writes.parse()));
    match parts {
        Some((Ok(reads), Ok::<u8, _>(writes))) if u16::from(reads) + u16::from(writes) == 100 => {
            Ok(reads)
        }
        _ => Err("must be two whole numbers that add up to 100, like 95/5".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct OnlyCompare {
        #[command(flatten)]
        compare: Compare,
    }

    #[test]
    fn a_comparison_is_as_long_as_it_is_said_to_be() {
        let parse = |line: &str| {
            let words = std::iter::once("compare").chain(line.split_whitespace());
            OnlyCompare::try_parse_from(words).map(|only| only.compare)
        };
        let settings = parse("--server x --etcd y").unwrap().settings();
        assert_eq!(
            (settings.rounds, settings.measured, settings.store_keys),
            (3, Duration::from_secs(10), 100_000)
        );
        let quick = parse("--server x --quick --seconds 7 --rows put-1-leader,memory").unwrap();
        assert_eq!(quick.rows, ["put-1-leader", "memory"]);
        let settings = quick.settings();
        assert_eq!(
            (settings.rounds, settings.measured, settings.kills),
            (1, Duration::from_secs(7), 2)
        );
        assert!(parse("--server x --rows put-2-leader").is_err());
        assert!(parse("--server x --rounds 0").is_err());
    }

    #[derive(Debug, Parser)]
    struct Only {
        #[command(flatten)]
        run: Run,
    }

    fn parse(line: &str) -> Result<Run, clap::Error> {
        Only::try_parse_from(std::iter::once("run").chain(line.split_whitespace()))
            .map(|only| only.run)
    }

    #[test]
    fn a_mix_is_two_parts_of_a_hundred() {
        assert_eq!((mix("95/5"), mix("0/100"), mix("100/0")), (Ok(95), Ok(0), Ok(100)));
        for wrong in ["", "95", "95/6", "a/b", "-5/105", "200/100", "95/5/0"] {
            assert!(mix(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_running_cluster_or_one_that_is_started() {
        let run = parse("--endpoints a:1,b:2 --pids 1,2 --metrics a:3 --target leader").unwrap();
        assert_eq!((run.endpoints.len(), run.servers().pids), (2, vec![1, 2]));
        assert!(run.programs().is_err());
        assert!(parse("--server x --system etcd --etcd y").unwrap().programs().is_ok());
        assert!(parse("--server x --pids 1").is_err());
        assert!(parse("--data-dir x --endpoints a:1").is_err());
        assert!(parse("").is_err());
    }

    #[test]
    fn what_cannot_be_is_refused() {
        assert!(parse("--server x --clients 0").is_err());
        assert!(parse("--server x --watchers 5").is_err(), "without a rate");
        assert!(parse("--server x --watchers 5 --rate 100").is_ok());
        assert!(parse("--server x --rate 0").is_err());
        let plan = |line| parse(line).unwrap().plan(Vec::new());
        assert!(plan("--server x --system llm-config-http --clients 8 --connections 2").is_err());
        assert!(plan("--server x --clients 8 --connections 2").is_ok());
        let plan = plan("--server x --mix 95/5 --seconds 3 --reads cached").unwrap();
        assert_eq!((plan.reads_percent, plan.reads), (95, Reads::Cached));
        assert_eq!(plan.measured, Duration::from_secs(3));
    }
}
