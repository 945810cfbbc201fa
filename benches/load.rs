//! The `llm-config-load` program: load on a running cluster, or, with `--server-bin`, on one that it starts itself.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use llm_config_benches::cluster::Cluster;
use llm_config_benches::drive::{self, Outcome, Plan, Target, Work};
use llm_config_benches::report;
use llm_config_benches::rolling;
use llm_config_benches::servers::Servers;
use llm_config_client::Client;

/// Closed-loop load over gRPC; prints a Markdown table.
#[derive(Debug, Clone, Parser)]
#[command(name = "llm-config-load", version)]
struct Args {
    /// Client gRPC or HTTP addresses of the running cluster's nodes, separated by commas.
    #[arg(
        long,
        value_name = "URL[,URL…]",
        value_delimiter = ',',
        required_unless_present = "server_bin"
    )]
    endpoints: Vec<String>,
    /// What the clients do.
    #[arg(long, value_enum, default_value_t = Work::Write)]
    work: Work,
    /// Which nodes they talk to.
    #[arg(long, value_enum, default_value_t = Target::All)]
    target: Target,
    /// How many clients, each with one request under way.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = positive)]
    clients: usize,
    /// Size of a value.
    #[arg(long, value_name = "BYTES", default_value_t = 256)]
    value_bytes: usize,
    /// How many keys; all are written before a run that reads.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = positive)]
    keys: usize,
    /// Measured time of each run.
    #[arg(long, value_name = "S", default_value_t = 10)]
    seconds: u64,
    /// Unmeasured time before each run.
    #[arg(long, value_name = "S", default_value_t = 2)]
    warmup: u64,
    /// Server processes on this machine whose CPU time is the cost.
    #[arg(long, value_name = "PID[,PID…]", value_delimiter = ',')]
    pids: Vec<i32>,
    /// `HOST:PORT` of the nodes' metrics, for entries per fsync.
    #[arg(long, value_name = "ADDR[,ADDR…]", value_delimiter = ',')]
    metrics: Vec<String>,
    /// Start a three-node cluster of this server program and measure writes and both kinds of reads on it.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["endpoints", "work", "target", "pids", "metrics"])]
    server_bin: Option<PathBuf>,
    /// Where that cluster's temporary data directory is made [default: the system's].
    #[arg(long, value_name = "DIR", requires = "server_bin")]
    data_dir: Option<PathBuf>,
    /// Instead: restart every node of that cluster in turn under a constant load of writes, this many times, and show how
    /// long a write waited at most.
    #[arg(
        long,
        value_name = "ROUNDS",
        requires = "server_bin",
        conflicts_with = "endpoints",
        value_parser = positive
    )]
    rolling: Option<usize>,
}

fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err("must be a whole number above 0".to_owned()),
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let result = match &args.server_bin {
        Some(server) => measure_own(&args, server).await,
        None => measure_running(&args).await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(1)
        }
    }
}

async fn measure_running(args: &Args) -> anyhow::Result<()> {
    let servers = Servers {
        pids: args.pids.clone(),
        metrics: args.metrics.iter().map(|address| host_port(address)).collect(),
    };
    if args.work != Work::Write {
        drive::preload(&args.endpoints, args.keys, args.value_bytes).await?;
    }
    println!("{}", report::HEAD);
    let plan = args.plan(args.endpoints.clone(), args.work, args.target, args.clients);
    one_run(&plan, &servers).await
}

async fn measure_own(args: &Args, server: &Path) -> anyhow::Result<()> {
    let parent = args.data_dir.clone().unwrap_or_else(std::env::temp_dir);
    let mut cluster = Cluster::start(server, &parent).await?;
    if let Some(rounds) = args.rolling {
        return measure_rolling(args, &mut cluster, rounds).await;
    }
    let (endpoints, servers) = (cluster.endpoints(), cluster.servers());
    let version = Client::connect(&endpoints)?.status().await?.version;
    drive::preload(&endpoints, args.keys, args.value_bytes).await?;
    println!(
        "Three nodes (version {version}) on loopback, {} cores shared with the load, data on {}, closed loop over gRPC, {} keys, {} s per row.\n",
        std::thread::available_parallelism()?,
        cluster.file_system(),
        args.keys,
        args.seconds,
    );
    println!("{}", report::HEAD);
    for (work, target, clients) in [
        (Work::Write, Target::Leader, 1),
        (Work::Write, Target::All, args.clients),
        (Work::Write, Target::Leader, args.clients),
        (Work::ReadLinearizable, Target::All, args.clients),
        (Work::ReadCached, Target::Followers, args.clients),
    ] {
        one_run(&args.plan(endpoints.clone(), work, target, clients), &servers).await?;
    }
    Ok(())
}

/// The row on stdout, and under it the same as JSON.
async fn measure_rolling(args: &Args, cluster: &mut Cluster, rounds: usize) -> anyhow::Result<()> {
    println!(
        "Three nodes on loopback, {} cores shared with the load, data on {}, closed loop over gRPC.\n",
        std::thread::available_parallelism()?,
        cluster.file_system(),
    );
    let plan = rolling::Plan { clients: args.clients, value_bytes: args.value_bytes, rounds };
    let outcome = rolling::run(cluster, plan).await?;
    println!("{}", report::ROLLING_HEAD);
    println!("{}\n", report::rolling_row(plan, &outcome));
    println!("{}", report::rolling_json(plan, &outcome));
    if let Some(error) = &outcome.first_error {
        eprintln!("first error: {error}");
    }
    anyhow::ensure!(outcome.lost == 0, "{} acknowledged writes were lost", outcome.lost);
    Ok(())
}

async fn one_run(plan: &Plan, servers: &Servers) -> anyhow::Result<()> {
    let outcome: Outcome = drive::run(plan, servers).await?;
    println!("{}", report::row(plan, &outcome));
    if let Some(error) = &outcome.first_error {
        eprintln!("first error: {error}");
    }
    anyhow::ensure!(outcome.latencies.total() > 0, "no operation succeeded");
    Ok(())
}

impl Args {
    fn plan(&self, endpoints: Vec<String>, work: Work, target: Target, clients: usize) -> Plan {
        Plan {
            endpoints,
            work,
            target,
            clients,
            value_bytes: self.value_bytes,
            keys: self.keys,
            warmup: Duration::from_secs(self.warmup),
            measured: Duration::from_secs(self.seconds.max(1)),
        }
    }
}

/// `HOST:PORT` of an address that may be written as a URL.
fn host_port(address: &str) -> String {
    let rest = address.strip_prefix("http://").unwrap_or(address);
    rest.split('/').next().unwrap_or(rest).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn parse(line: &str) -> Result<Args, clap::Error> {
        Args::try_parse_from(std::iter::once("llm-config-load").chain(line.split_whitespace()))
    }

    #[test]
    fn the_definition_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn both_modes_parse_and_do_not_mix() {
        assert!(parse("--endpoints a:1,b:2 --work read-cached --target leader --pids 1,2").is_ok());
        assert!(parse("--server-bin x --clients 8 --seconds 1").is_ok());
        assert!(parse("--server-bin x --rolling 2").is_ok());
        assert!(parse("--endpoints a:1 --rolling 2").is_err());
        assert!(parse("").is_err());
        assert!(parse("--server-bin x --endpoints a:1").is_err());
        assert!(parse("--endpoints a:1 --clients 0").is_err());
    }

    #[test]
    fn metrics_may_be_written_as_urls() {
        assert_eq!(host_port("http://127.0.0.1:9090/metrics"), "127.0.0.1:9090");
        assert_eq!(host_port("127.0.0.1:9090"), "127.0.0.1:9090");
    }
}
