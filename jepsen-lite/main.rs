//! `jepsen-lite`: breaks a real cluster and proves what it answered.
//!
//! `run` makes one run, `matrix` many, `power` and `corrupt` break the disk of one node, `doctor` tells what this machine
//! can do, `clean` takes away what killed runs left.

mod child;
mod client;
mod lab;
mod matrix;
mod nemesis;
mod report;
mod run;
mod seeded;
mod store;
mod tally;
mod workload;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, ensure};
use clap::{Args, Parser, Subcommand};
use jepsen_lite::check::Overall;
use jepsen_lite::judge;
use llm_config_bugs::Bug;

use lab::doctor::{self, Capability};
use nemesis::Class;
use report::Verdict;
use workload::Workload;

const HEAL_SECONDS: u64 = 60;

/// Breaks a real cluster and proves what it answered
#[derive(Debug, Parser)]
#[command(name = "jepsen-lite", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Tell what this machine can do
    Doctor,
    /// Make one run: exit code 0 pass, 1 violation, 2 the harness failed, 3 invalid, 4 unknown
    Run(Run),
    /// Make many runs; the exit code of the worst
    Matrix(Matrix),
    /// Cut the power of one node again and again; exit code as of `run`
    Power(Power),
    /// Damage the files of a stopped node and start it on them; exit code as of `run`
    Corrupt(Corrupt),
    /// Run a server with each of its deliberate bugs: exit code 0 if all were caught, else 1
    Bugs(Bugs),
    /// Add up runs: report files, the JSON lines of a matrix, or folders of runs; the exit code of the worst
    Sum {
        /// Files and folders
        #[arg(required = true)]
        paths: Vec<PathBuf>,
    },
    /// Check a history; exit code as of `run`
    Check(Check),
    /// Take away what runs have left whose process is gone
    Clean,
}

#[derive(Debug, Args)]
struct Run {
    /// What the faults and the clients are derived from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Founding nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(3..=7))]
    nodes: u8,
    /// Seconds in which faults are made
    #[arg(long, default_value_t = 40, value_name = "SECONDS")]
    time: u64,
    /// Classes of faults
    #[arg(long, value_delimiter = ',', value_enum, default_value = "kill,power,pause,partition")]
    faults: Vec<Class>,
    /// What clients do; all of it when not given
    #[arg(long, value_delimiter = ',', value_enum)]
    workloads: Vec<Workload>,
    /// How long clients rest between calls, in percent of the usual
    #[arg(long, default_value_t = 100)]
    pace: u64,
    /// Let nodes take a snapshot after so many log entries; debug builds of the server do
    #[arg(long, value_name = "ENTRIES")]
    snapshots: Option<u64>,
    /// A bug that the nodes shall have; the server has to be one that was built for it (`make seeded-server`)
    #[arg(long, value_name = "NAME", value_parser = seeded::bug)]
    seeded_bug: Option<Bug>,
    /// Seconds in which the cluster has to come together once everything is mended
    #[arg(long, default_value_t = HEAL_SECONDS, value_name = "SECONDS")]
    heal: u64,
    /// Seconds in which a failing history is made smaller; 0: not at all
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    shrink: u64,
    /// The server program
    #[arg(long, env = "LLM_CONFIG_SERVER", value_name = "FILE")]
    server: PathBuf,
    /// Where history, logs and report go: a folder in it for each run
    #[arg(long, default_value = "jepsen-runs", value_name = "DIR")]
    out: PathBuf,
}

/// What the rigs for one node's disk have in common.
#[derive(Debug, Args)]
struct Rig {
    /// What everything is derived from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Nodes at the same time
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=8))]
    jobs: u64,
    /// The server program
    #[arg(long, env = "LLM_CONFIG_SERVER", value_name = "FILE")]
    server: PathBuf,
    /// Where logs, report and what shows a failure go: a folder in it for each run
    #[arg(long, default_value = "jepsen-runs", value_name = "DIR")]
    out: PathBuf,
}

#[derive(Debug, Args)]
struct Power {
    /// How many cuts
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..))]
    cuts: u64,
    /// Make syncs do nothing, to prove the rig: then it has to fail
    #[arg(long)]
    lying_sync: bool,
    #[command(flatten)]
    rig: Rig,
}

#[derive(Debug, Args)]
struct Corrupt {
    /// How many corruptions
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
    /// The number of the first: with a count of 1, one corruption again
    #[arg(long, default_value_t = 0)]
    from: u64,
    #[command(flatten)]
    rig: Rig,
}

#[derive(Debug, Args)]
struct Bugs {
    /// These only
    #[arg(long, value_delimiter = ',', value_name = "NAME", value_parser = seeded::bug)]
    only: Vec<Bug>,
    /// The three that are found soonest
    #[arg(long, conflicts_with = "only")]
    short: bool,
    /// Say what there is, and make no run
    #[arg(long)]
    list: bool,
    /// How many seeds a bug may take
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..))]
    attempts: u64,
    /// The server program, built with its bugs (`make seeded-server`)
    #[arg(long, env = "LLM_CONFIG_SERVER", value_name = "FILE", required_unless_present = "list")]
    server: Option<PathBuf>,
    /// Where history, logs and report go: a folder in it for each run
    #[arg(long, default_value = "jepsen-runs", value_name = "DIR")]
    out: PathBuf,
    /// A Markdown file that the table is written to
    #[arg(long, value_name = "FILE")]
    results: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Check {
    /// The history
    file: PathBuf,
    /// Seconds in which a failing history is made smaller; 0: not at all
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    shrink: u64,
    /// Say how long each checker takes
    #[arg(long)]
    stats: bool,
}

#[derive(Debug, Args)]
struct Matrix {
    /// How many runs
    #[arg(long, default_value_t = 28)]
    runs: u64,
    /// How many of them at once
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=16))]
    jobs: u8,
    /// Go on with a matrix in the same folder: runs that came to a report are not made again
    #[arg(long)]
    resume: bool,
    /// The seed of the first; each further one is one higher
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Founding nodes, in turn
    #[arg(long, value_delimiter = ',', default_value = "3,5", value_parser = clap::value_parser!(u8).range(3..=7))]
    nodes: Vec<u8>,
    /// Seconds in which faults are made, in each run
    #[arg(long, default_value_t = 40, value_name = "SECONDS")]
    time: u64,
    /// Classes of faults, which have their turn as the first of a run; all that a store has to survive when not given
    #[arg(long, value_delimiter = ',', value_enum)]
    faults: Vec<Class>,
    /// How many classes each run mixes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=8))]
    mix: u8,
    /// How long clients rest between calls, in percent of the usual
    #[arg(long, default_value_t = 100)]
    pace: u64,
    /// The server program
    #[arg(long, env = "LLM_CONFIG_SERVER", value_name = "FILE")]
    server: PathBuf,
    /// Where history, logs and report go: a folder in it for each run
    #[arg(long, default_value = "jepsen-runs", value_name = "DIR")]
    out: PathBuf,
    /// A Markdown table that a row is added to for each run
    #[arg(long, value_name = "FILE")]
    results: Option<PathBuf>,
}

fn make_matrix(asked: Matrix) -> anyhow::Result<u8> {
    let faults = if asked.faults.is_empty() { Class::HONEST.to_vec() } else { asked.faults };
    matrix::matrix(&matrix::Wish {
        runs: asked.runs,
        jobs: asked.jobs,
        resume: asked.resume,
        seed: asked.seed,
        nodes: asked.nodes,
        time: asked.time,
        faults,
        mix: asked.mix,
        pace: asked.pace,
        server: asked.server,
        out: asked.out,
        results: asked.results,
    })
}

fn try_bugs(asked: Bugs) -> anyhow::Result<u8> {
    let bugs = match (asked.short, asked.only.is_empty()) {
        (true, _) => seeded::SHORT.to_vec(),
        (false, false) => asked.only,
        (false, true) => Bug::ALL.to_vec(),
    };
    let Some(server) = asked.server.filter(|_| !asked.list) else {
        seeded::list(&bugs);
        return Ok(0);
    };
    seeded::run(&seeded::Wish {
        bugs,
        attempts: asked.attempts,
        server,
        out: asked.out,
        results: asked.results,
    })
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Doctor => examine(),
        Command::Run(run) => make_run(&run),
        Command::Matrix(asked) => make_matrix(asked),
        Command::Power(asked) => cut_power(asked),
        Command::Corrupt(asked) => corrupt(asked),
        Command::Bugs(asked) => try_bugs(asked),
        Command::Sum { paths } => sum(&paths),
        Command::Check(asked) => check(&asked),
        Command::Clean => clean(),
    };
    match done {
        Ok(code) => code.into(),
        Err(error) => {
            eprintln!("jepsen-lite: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// A name that no other run on this machine has.
fn run_name() -> anyhow::Result<String> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).context("a clock before 1970")?;
    Ok(format!("lcjl-{:x}{:x}", since.as_secs() & 0xff_ffff, std::process::id()))
}

fn examine() -> anyhow::Result<u8> {
    let mut missing = false;
    for (capability, tried) in doctor::examine(&run_name()?)? {
        match tried {
            Ok(()) => println!("yes  {}", capability.words()),
            Err(error) => {
                missing = true;
                println!("NO   {}: {error:#}", capability.words());
            }
        }
    }
    Ok(if missing { Verdict::Invalid.code() } else { 0 })
}

/// What the machine lacks for these faults.
fn lacking(faults: &[Class]) -> anyhow::Result<Vec<String>> {
    let always = [Capability::Network, Capability::Power];
    let needed: BTreeSet<Capability> =
        faults.iter().flat_map(|class| class.needs()).copied().chain(always).collect();
    let tried = doctor::examine(&run_name()?)?;
    let failed = tried.into_iter().filter(|(capability, _)| needed.contains(capability));
    let failed = failed.filter_map(|(capability, tried)| Some((capability, tried.err()?)));
    Ok(failed.map(|(capability, error)| format!("{}: {error:#}", capability.words())).collect())
}

fn make_run(asked: &Run) -> anyhow::Result<u8> {
    ensure!(asked.server.is_file(), "no server program at {}", asked.server.display());
    let environment = environment(asked)?;
    // Without time there are none.
    let faults = if asked.time == 0 { Vec::new() } else { asked.faults.clone() };
    let lacking = lacking(&faults)?;
    if !lacking.is_empty() {
        lacking.iter().for_each(|what| println!("this machine cannot do it: {what}"));
        println!("INVALID");
        return Ok(Verdict::Invalid.code());
    }
    let run = run_name()?;
    let workloads = if asked.workloads.is_empty() {
        use clap::ValueEnum as _;
        Workload::value_variants().iter().copied().collect()
    } else {
        asked.workloads.iter().copied().collect()
    };
    let wish = run::Wish {
        out: std::path::absolute(asked.out.join(&run))?,
        run,
        seed: asked.seed,
        nodes: asked.nodes,
        time: Duration::from_secs(asked.time),
        faults,
        workloads,
        pace: asked.pace,
        server: std::path::absolute(&asked.server)?,
        environment,
        heal: Duration::from_secs(asked.heal),
        shrink: Duration::from_secs(asked.shrink),
        command: command(asked),
    };
    let report = run::run(&wish)?;
    println!("{}", report.text());
    println!("{}", wish.out.display());
    Ok(report.verdict().code())
}

/// The name, folder and program of a run of a rig; nothing when the machine cannot do it.
fn prepare(rig: &Rig) -> anyhow::Result<Option<(String, PathBuf, PathBuf)>> {
    ensure!(rig.server.is_file(), "no server program at {}", rig.server.display());
    let lacking = lacking(&[])?;
    if !lacking.is_empty() {
        lacking.iter().for_each(|what| println!("this machine cannot do it: {what}"));
        println!("INVALID");
        return Ok(None);
    }
    let run = run_name()?;
    let out = std::path::absolute(rig.out.join(&run))?;
    println!("{}", out.display());
    Ok(Some((run, out, std::path::absolute(&rig.server)?)))
}

fn cut_power(asked: Power) -> anyhow::Result<u8> {
    let Power { cuts, lying_sync, rig } = asked;
    let Some((run, out, server)) = prepare(&rig)? else { return Ok(Verdict::Invalid.code()) };
    let (seed, jobs) = (rig.seed, rig.jobs);
    let wish = store::power::Wish { run, cuts, seed, jobs, server, out, lying_sync };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let interrupted = run::listen(&runtime)?;
    store::power::power(&wish, &interrupted).map(Verdict::code)
}

fn corrupt(asked: Corrupt) -> anyhow::Result<u8> {
    let Corrupt { count, from, rig } = asked;
    let Some((run, out, server)) = prepare(&rig)? else { return Ok(Verdict::Invalid.code()) };
    let (seed, jobs) = (rig.seed, rig.jobs);
    let wish = store::corrupt::Wish { run, count, seed, from, jobs, server, out };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let interrupted = run::listen(&runtime)?;
    store::corrupt::corrupt(&wish, &interrupted).map(Verdict::code)
}

/// What the nodes are told that their command line does not say.
fn environment(asked: &Run) -> anyhow::Result<Vec<(&'static str, String)>> {
    let mut environment = Vec::new();
    if let Some(bug) = asked.seeded_bug {
        seeded::ensure_known(&asked.server, bug)?;
        environment.push((llm_config_bugs::VARIABLE, bug.name().to_owned()));
    }
    if let Some(entries) = asked.snapshots {
        environment.push(("LLM_CONFIG_TEST_SNAPSHOT_ENTRIES", entries.to_string()));
    }
    Ok(environment)
}

/// The command that makes this run again.
fn command(asked: &Run) -> String {
    use clap::ValueEnum as _;
    let mut command = format!(
        "jepsen-lite run --seed {} --nodes {} --time {} --pace {}",
        asked.seed, asked.nodes, asked.time, asked.pace
    );
    if asked.time > 0 {
        let faults: Vec<_> = asked.faults.iter().map(|class| run::class_name(*class)).collect();
        command += &format!(" --faults {}", faults.join(","));
    }
    if let Some(bug) = asked.seeded_bug {
        command += &format!(" --seeded-bug {}", bug.name());
    }
    if let Some(entries) = asked.snapshots {
        command += &format!(" --snapshots {entries}");
    }
    if asked.heal != HEAL_SECONDS {
        command += &format!(" --heal {}", asked.heal);
    }
    if !asked.workloads.is_empty() {
        let names = asked.workloads.iter().filter_map(|workload| workload.to_possible_value());
        let names: Vec<_> = names.map(|value| value.get_name().to_owned()).collect();
        command += &format!(" --workloads {}", names.join(","));
    }
    command
}

fn check(asked: &Check) -> anyhow::Result<u8> {
    let options = judge::Options {
        shrink_time: Duration::from_secs(asked.shrink),
        stats: asked.stats,
        ..judge::Options::default()
    };
    let overall = judge::judge_file(&asked.file, &options, &mut std::io::stdout())?;
    Ok(match overall {
        Overall::Pass => Verdict::Pass,
        Overall::Fail => Verdict::Fail,
        Overall::Unknown => Verdict::Unknown,
    }
    .code())
}

fn sum(paths: &[PathBuf]) -> anyhow::Result<u8> {
    let mut tally = tally::Tally::default();
    paths.iter().try_for_each(|path| tally.read(path))?;
    println!("{}", tally.text());
    Ok(tally.worst())
}

fn clean() -> anyhow::Result<u8> {
    let cleaned = lab::run_file::clean()?;
    let mut code = 0;
    for (run, done) in &cleaned {
        match done {
            Ok(()) => println!("{run}: nothing is left"),
            Err(error) => {
                code = 2;
                println!("{run}: {error:#}");
            }
        }
    }
    println!("{} runs", cleaned.len());
    Ok(code)
}
