//! What the subcommands do.

use llm_config_benches::cluster::{Cluster, Kind, NODES};
use llm_config_benches::compare;
use llm_config_benches::compare::rows::{self, Contender};
use llm_config_benches::compare::table::{self, Verdict};
use llm_config_benches::curves::{self, book::Book};
use llm_config_benches::draw;
use llm_config_benches::drive::{self, Plan};
use llm_config_benches::process::{self, file_system};
use llm_config_benches::report::{self, Record};
use llm_config_benches::rolling;
use llm_config_benches::servers::Servers;
use llm_config_benches::system::{Link, Reads, Target};
use procfs::Current as _;

use crate::options::{Compare, Curves, Draw, Rolling, Run, Table};

/// One run.
pub async fn run(options: &Run) -> anyhow::Result<()> {
    let record = if options.endpoints.is_empty() {
        let cluster = Cluster::start(Kind::of(options.system), &options.programs()?).await?;
        eprintln!("{NODES} nodes on loopback, data on {}", cluster.file_system());
        let plan = options.plan(cluster.addresses(options.system))?;
        one(&plan, &cluster.servers()?).await?
    } else {
        let nodes = options.endpoints.iter().map(|address| host_port(address)).collect();
        one(&options.plan(nodes)?, &options.servers()).await?
    };
    println!("\n{}\n{}", report::HEAD, record.row());
    Ok(())
}

/// The usual kinds of work, one after the other.
pub async fn table(options: &Table) -> anyhow::Result<()> {
    let cluster = Cluster::start(Kind::of(options.system), &options.started.programs()).await?;
    let nodes = cluster.addresses(options.system);
    let mut rows = Vec::new();
    for (clients, target, reads_percent, reads) in [
        (1, Target::Leader, 0, Reads::Linearizable),
        (options.clients, Target::All, 0, Reads::Linearizable),
        (options.clients, Target::Leader, 0, Reads::Linearizable),
        (options.clients, Target::All, 100, Reads::Linearizable),
        (options.clients, Target::Followers, 100, Reads::Cached),
        (options.clients, Target::All, 95, Reads::Linearizable),
    ] {
        let plan = options.shape.plan(options.system, nodes.clone());
        let plan = Plan { clients, target, reads_percent, reads, ..plan };
        rows.push(one(&plan, &cluster.servers()?).await?.row());
    }
    println!(
        "\n{NODES} nodes on loopback, {} cores shared with the load, data on {}, closed loop, {} keys, {} s per row.\n",
        std::thread::available_parallelism()?,
        cluster.file_system(),
        options.shape.keys,
        options.shape.seconds,
    );
    println!("{}\n{}", report::HEAD, rows.join("\n"));
    Ok(())
}

/// The comparison with etcd.
pub async fn compare(options: &Compare) -> anyhow::Result<()> {
    let rows = rows::chosen(&options.rows).map_err(anyhow::Error::msg)?;
    let etcd = rows.iter().any(|row| row.contenders().contains(&Contender::Etcd));
    anyhow::ensure!(!etcd || options.started.etcd.is_some(), "etcd is missing: give --etcd");
    let settings = options.settings();
    let load = load_average()?;
    let all = compare::run(&rows, &settings).await?;
    let mut lines = Vec::new();
    for verdict in all.iter().flat_map(Verdict::all) {
        println!("{}", verdict.json()?);
        lines.push(verdict.line());
    }
    println!(
        "\n{NODES} nodes of each on loopback, {} cores shared with the load, data on {}; {} rounds in turn, {} s each, values of \
         {} B, {} keys ({} of 1 KiB in the full ones). The machine's load was {load:.1} before, {:.1} after.\n",
        std::thread::available_parallelism()?,
        file_system(&settings.programs.data).as_deref().unwrap_or("an unknown file system"),
        settings.rounds,
        settings.measured.as_secs(),
        compare::VALUE_BYTES,
        compare::KEYS,
        settings.store_keys,
        load_average()?,
    );
    println!("{}\n{}", table::HEAD, lines.join("\n"));
    Ok(())
}

/// How cost grows.
pub async fn curves(options: &Curves) -> anyhow::Result<()> {
    let settings = options.settings()?;
    // A connection for 8 watchers: ten thousand of them are more open files than many systems allow at first.
    let files = process::raise_open_files()?;
    eprintln!("up to {files} open files, here and in each server");
    let sum = curves::run(&settings).await?;
    eprintln!("{} runs with figures, {} without", sum.measured, sum.failed);
    anyhow::ensure!(sum.measured > 0, "no run gave figures");
    Ok(())
}

/// The pictures of what was measured.
pub fn draw(options: &Draw) -> anyhow::Result<()> {
    for name in draw::write(&Book::read(&options.from)?, &options.to)? {
        eprintln!("{}", options.to.join(name).display());
    }
    Ok(())
}

/// Of the last minute: what else the machine did.
fn load_average() -> anyhow::Result<f32> {
    Ok(procfs::LoadAverage::current()?.one)
}

/// A rolling restart.
pub async fn rolling(options: &Rolling) -> anyhow::Result<()> {
    let mut cluster = Cluster::start(Kind::LlmConfig, &options.started.programs()).await?;
    let plan = rolling::Plan {
        clients: options.clients,
        value_bytes: options.value_bytes,
        rounds: options.rounds,
    };
    let outcome = rolling::run(&mut cluster, plan).await?;
    let report = report::Rolling::new(plan, &outcome);
    println!("{}\n\n{}\n{}", report.json()?, report::ROLLING_HEAD, report.row());
    if let Some(error) = &outcome.first_error {
        eprintln!("first error: {error}");
    }
    anyhow::ensure!(outcome.lost == 0, "{} acknowledged writes were lost", outcome.lost);
    Ok(())
}

/// Writes the keys, runs the plan, prints its line of JSON.
async fn one(plan: &Plan, servers: &Servers) -> anyhow::Result<Record> {
    drive::preload(plan.system, &plan.nodes, plan.keys, plan.value_bytes).await?;
    let version = match plan.nodes.first() {
        Some(node) if !plan.system.is_floor() => {
            Some(Link::open(plan.system, node).await?.status().await?.version)
        }
        _ => None,
    };
    let outcome = drive::run(plan, servers, |operations| {
        eprintln!("{}: {operations} operations", plan.system.name());
    })
    .await?;
    if let Some(error) = &outcome.first_error {
        eprintln!("first error: {error}");
    }
    let record = Record::new(plan, version, &outcome);
    println!("{}", record.json()?);
    anyhow::ensure!(record.operations > 0, "no operation succeeded");
    Ok(record)
}

/// `HOST:PORT` of an address that may be written as a URL.
fn host_port(address: &str) -> String {
    let rest = address.strip_prefix("http://").unwrap_or(address);
    rest.split('/').next().unwrap_or(rest).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_may_be_written_as_urls() {
        assert_eq!(host_port("http://127.0.0.1:9090/metrics"), "127.0.0.1:9090");
        assert_eq!(host_port("127.0.0.1:9090"), "127.0.0.1:9090");
    }
}
