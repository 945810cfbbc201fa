//! `jepsen-lite`: breaks a real cluster and proves what it answered.
//!
//! `run` makes one run, `matrix` many, `doctor` tells what this machine can do, `clean` takes away what killed runs left.

mod client;
mod lab;
mod matrix;
mod nemesis;
mod report;
mod run;
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

use lab::doctor::{self, Capability};
use nemesis::Class;
use report::Verdict;
use workload::Workload;

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
    /// The server program
    #[arg(long, env = "LLM_CONFIG_SERVER", value_name = "FILE")]
    server: PathBuf,
    /// Where history, logs and report go: a folder in it for each run
    #[arg(long, default_value = "jepsen-runs", value_name = "DIR")]
    out: PathBuf,
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

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Doctor => examine(),
        Command::Run(run) => make_run(&run),
        Command::Matrix(asked) => make_matrix(asked),
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
    let lacking = lacking(&asked.faults)?;
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
        faults: asked.faults.clone(),
        workloads,
        pace: asked.pace,
        server: std::path::absolute(&asked.server)?,
        command: command(asked),
    };
    let report = run::run(&wish)?;
    println!("{}", report.text());
    println!("{}", wish.out.display());
    Ok(report.verdict().code())
}

/// The command that makes this run again.
fn command(asked: &Run) -> String {
    use clap::ValueEnum as _;
    let faults: Vec<_> = asked.faults.iter().map(|class| run::class_name(*class)).collect();
    let mut command = format!(
        "jepsen-lite run --seed {} --nodes {} --time {} --faults {} --pace {}",
        asked.seed,
        asked.nodes,
        asked.time,
        faults.join(","),
        asked.pace
    );
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
