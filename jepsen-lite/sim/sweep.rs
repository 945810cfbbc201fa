//! Many seeds, each in a process of its own.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};

use clap::ValueEnum as _;

use crate::plan::Mistake;

/// A line of progress comes after so many seeds.
const PROGRESS: u64 = 50;
/// How many lines of a failing seed are shown.
const TAIL_LINES: usize = 14;

/// What one process came to.
struct Ran {
    seed: u64,
    passed: bool,
    output: String,
}

fn start(seed: u64, more: &[&str]) -> Result<Child, String> {
    let program = std::env::current_exe().map_err(|error| format!("this program: {error}"))?;
    Command::new(program)
        .args(["run", "--seed", &seed.to_string()])
        .args(more)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("seed {seed} could not be started: {error}"))
}

fn finish(seed: u64, mut child: Child) -> Result<Ran, String> {
    let failed = |error: std::io::Error| format!("seed {seed}: {error}");
    let mut output = String::new();
    if let Some(stdout) = &mut child.stdout {
        stdout.read_to_string(&mut output).map_err(failed)?;
    }
    let status = child.wait().map_err(failed)?;
    Ok(Ran { seed, passed: status.success(), output })
}

/// Runs seeds, `jobs` at a time, and hands each to `take` in order until that says that it is enough.
fn run_all(
    seeds: impl Iterator<Item = u64>,
    jobs: usize,
    more: &[&str],
    mut take: impl FnMut(Ran) -> bool,
) -> Result<(), String> {
    let mut running: std::collections::VecDeque<(u64, Child)> = std::collections::VecDeque::new();
    let mut enough = false;
    for seed in seeds {
        if enough {
            break;
        }
        running.push_back((seed, start(seed, more)?));
        if running.len() >= jobs.max(1)
            && let Some((seed, child)) = running.pop_front()
        {
            enough = take(finish(seed, child)?);
        }
    }
    for (seed, child) in running {
        let ran = finish(seed, child)?;
        if !enough {
            enough = take(ran);
        }
    }
    Ok(())
}

fn replay_command(seed: u64) -> String {
    format!("make sim SIM_ARGS='run --seed {seed}'")
}

/// Adds the numbers up that a run names.
fn add_up(totals: &mut BTreeMap<String, u64>, output: &str) {
    let Some(line) = output.lines().find_map(|line| line.strip_prefix("Totals {")) else { return };
    for field in line.trim_end_matches([' ', '}']).split(',') {
        if let Some((name, number)) = field.split_once(':')
            && let Ok(number) = number.trim().parse::<u64>()
        {
            *totals.entry(name.trim().to_owned()).or_default() += number;
        }
    }
}

/// Runs `seeds` seeds; fails when one of them does.
pub fn sweep(from: u64, seeds: u64, jobs: usize) -> Result<ExitCode, String> {
    let mut failing = Vec::new();
    let mut totals = BTreeMap::new();
    let mut done = 0;
    run_all(from..from.saturating_add(seeds), jobs, &[], |ran| {
        done += 1;
        add_up(&mut totals, &ran.output);
        if !ran.passed {
            println!("seed {} fails; again: {}", ran.seed, replay_command(ran.seed));
            let lines: Vec<&str> = ran.output.lines().collect();
            for line in &lines[lines.len().saturating_sub(TAIL_LINES)..] {
                println!("    {line}");
            }
            failing.push(ran.seed);
        }
        if done % PROGRESS == 0 {
            println!("{done} of {seeds} seeds, {} fail", failing.len());
        }
        false
    })?;
    println!("{done} seeds from {from}: {} fail {failing:?}; {totals:?}", failing.len());
    Ok(if failing.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn scratch(seed: u64, number: u32) -> PathBuf {
    std::env::temp_dir().join(format!("llm-config-sim-{}-{seed}-{number}", std::process::id()))
}

/// Runs a seed twice; fails when anything differs.
pub fn replay_check(seed: u64) -> Result<ExitCode, String> {
    let traces = [scratch(seed, 1), scratch(seed, 2)];
    let compared = compare(seed, &traces);
    for trace in &traces {
        // One that was not written is not there to be deleted.
        drop(std::fs::remove_file(trace));
    }
    compared
}

fn compare(seed: u64, traces: &[PathBuf; 2]) -> Result<ExitCode, String> {
    let run = |trace: &Path| -> Result<(Ran, Vec<u8>), String> {
        let path = trace.to_str().ok_or("the folder for temporary files has a strange name")?;
        let ran = finish(seed, start(seed, &["--trace", path])?)?;
        let text = std::fs::read(trace).map_err(|error| format!("{path}: {error}"))?;
        Ok((ran, text))
    };
    let [(first, first_trace), (second, second_trace)] = [run(&traces[0])?, run(&traces[1])?];
    let differs =
        first_trace.split(|byte| *byte == b'\n').zip(second_trace.split(|byte| *byte == b'\n'));
    if first_trace == second_trace && first.output == second.output {
        println!("seed {seed}: {} bytes of trace, twice the same", first_trace.len());
        return Ok(ExitCode::SUCCESS);
    }
    println!("seed {seed}: two runs differ");
    for (one, other) in differs.filter(|(one, other)| one != other).take(1) {
        println!("  {}\n  {}", String::from_utf8_lossy(one), String::from_utf8_lossy(other));
    }
    Ok(ExitCode::FAILURE)
}

/// Makes each mistake; fails when one is not found within `seeds` seeds.
pub fn prove(seeds: u64) -> Result<ExitCode, String> {
    let mut missed = Vec::new();
    for mistake in Mistake::value_variants() {
        let value = mistake.to_possible_value();
        let name = value.as_ref().map_or("", |value| value.get_name());
        let mut found = None;
        run_all(1..seeds.saturating_add(1), 1, &["--mistake", name], |ran| {
            if !ran.passed {
                found = Some(ran);
            }
            found.is_some()
        })?;
        match found {
            Some(ran) => {
                let what = ran.output.lines().find_map(|line| line.strip_prefix("violation: "));
                let what: String =
                    what.unwrap_or("no violation is named").chars().take(140).collect();
                println!("{name}: found by seed {}: {what}", ran.seed);
            }
            None => {
                println!("{name}: NOT FOUND by {seeds} seeds");
                missed.push(name.to_owned());
            }
        }
    }
    Ok(if missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
