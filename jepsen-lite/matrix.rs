//! Many runs, some at once, each in a process of its own, and the table of what came of them.

use std::collections::{BTreeSet, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use crate::child;
use crate::nemesis::Class;
use crate::report::Report;
use crate::run::class_name;
use crate::tally::{self, Row, Tally};

/// What founding, healing, the power cut and the scan may take beside the faults.
const BESIDE: Duration = Duration::from_secs(480);
/// What came of each run, a line each, in the folder of all runs.
const LINES: &str = "runs.jsonl";

/// What is wanted of a matrix.
#[derive(Debug)]
pub struct Wish {
    /// How many runs.
    pub runs: u64,
    /// How many of them at once.
    pub jobs: u8,
    /// Runs that came to a report in an earlier matrix of this folder are not made again.
    pub resume: bool,
    /// The seed of the first; each further one is one higher.
    pub seed: u64,
    /// Founding nodes, in turn.
    pub nodes: Vec<u8>,
    /// How long faults are made in each.
    pub time: u64,
    /// Classes of faults, in turn.
    pub faults: Vec<Class>,
    /// How many classes each run mixes.
    pub mix: u8,
    /// See [`crate::run::Wish::pace`].
    pub pace: u64,
    /// The server program.
    pub server: PathBuf,
    /// Where the runs write.
    pub out: PathBuf,
    /// A table in Markdown that rows are added to.
    pub results: Option<PathBuf>,
}

/// One run that is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Planned {
    seed: u64,
    nodes: u8,
    faults: String,
}

/// What the jobs share.
#[derive(Debug)]
struct Shared {
    left: VecDeque<Planned>,
    tally: Tally,
    ended: usize,
    error: Option<anyhow::Error>,
}

/// Makes the runs; the exit code of the worst.
///
/// # Errors
/// When a run cannot be started or the table cannot be written.
pub fn matrix(wish: &Wish) -> anyhow::Result<u8> {
    ensure!(
        !wish.faults.is_empty() && !wish.nodes.is_empty(),
        "no faults or no nodes to choose from"
    );
    fs::create_dir_all(&wish.out).with_context(|| format!("cannot make {}", wish.out.display()))?;
    let mut tally = Tally::default();
    let done = if wish.resume { resume(wish, &mut tally)? } else { BTreeSet::new() };
    let planned = (0..wish.runs).map(|number| plan(wish, number));
    let left: VecDeque<_> = planned.filter(|planned| !done.contains(&planned.seed)).collect();
    let count = left.len();
    if wish.resume {
        println!("{} of {} runs are made already", wish.runs - count as u64, wish.runs);
    }
    let shared = Mutex::new(Shared { left, tally, ended: 0, error: None });
    thread::scope(|scope| {
        for _ in 0..wish.jobs {
            scope.spawn(|| work(wish, &shared, count));
        }
    });
    let shared = shared.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!("{}", shared.tally.text());
    shared.error.map_or(Ok(shared.tally.worst()), Err)
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes runs until none is left or one could not even be started.
fn work(wish: &Wish, shared: &Mutex<Shared>, count: usize) {
    loop {
        let next = {
            let mut shared = lock(shared);
            if shared.error.is_some() {
                return;
            }
            shared.left.pop_front()
        };
        let Some(planned) = next else { return };
        let begun = Instant::now();
        let made = one(wish, &planned);
        let mut shared = lock(shared);
        shared.ended += 1;
        let noted = made.and_then(|report| {
            let seconds = begun.elapsed().as_secs();
            println!("[{}/{count}] {}", shared.ended, line(&planned, seconds, report.as_ref()));
            match &report {
                Some(report) => shared.tally.add(report),
                None => shared.tally.add_failure(),
            }
            note(wish, &planned, report)
        });
        if let Err(error) = noted {
            shared.error.get_or_insert(error);
            return;
        }
    }
}

/// The seeds whose runs came to a report; the sums go on from there.
fn resume(wish: &Wish, tally: &mut Tally) -> anyhow::Result<BTreeSet<u64>> {
    let path = wish.out.join(LINES);
    let mut done = BTreeSet::new();
    if !path.exists() {
        return Ok(done);
    }
    for row in tally::rows(&path)? {
        let number = row.seed.checked_sub(wish.seed).filter(|number| *number < wish.runs);
        let (Some(number), Some(report)) = (number, &row.report) else { continue };
        let planned = plan(wish, number);
        ensure!(
            (row.nodes, &row.faults, row.time) == (planned.nodes, &planned.faults, wish.time),
            "{}: seed {} was run with {} nodes, {} s of {}; resume with what it was begun with, or use another --out",
            path.display(),
            row.seed,
            row.nodes,
            row.time,
            row.faults
        );
        tally.add(report);
        done.insert(row.seed);
    }
    Ok(done)
}

fn plan(wish: &Wish, number: u64) -> Planned {
    let faults = mixed(&wish.faults, number, wish.mix);
    let words: Vec<_> = faults.iter().map(|class| class_name(*class)).collect();
    Planned { seed: wish.seed + number, nodes: pick(&wish.nodes, number), faults: words.join(",") }
}

fn pick<T: Copy>(of: &[T], number: u64) -> T {
    of[usize::try_from(number).unwrap_or(0) % of.len()]
}

/// The class whose turn it is, and others that follow it at distances which grow from round to round, so that all pairs
/// come up.
fn mixed(classes: &[Class], number: u64, mix: u8) -> Vec<Class> {
    let count = classes.len() as u64;
    let (turn, round) = (number % count, number / count);
    let mut mixed: Vec<Class> = Vec::new();
    for step in 0..u64::from(mix) {
        let class = pick(classes, turn + step * (step + 1) / 2 + step * round);
        if !mixed.contains(&class) {
            mixed.push(class);
        }
    }
    mixed
}

/// Makes a run, with its output in a file; its report, unless the harness failed.
fn one(wish: &Wish, planned: &Planned) -> anyhow::Result<Option<Report>> {
    let out = wish.out.join(format!("seed-{}", planned.seed));
    fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    let log = out.join("output.log");
    let log = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut command = child::command()?;
    command.args(["--seed", &planned.seed.to_string()]);
    command.args(["--nodes", &planned.nodes.to_string()]);
    command.args(["--time", &wish.time.to_string(), "--pace", &wish.pace.to_string()]);
    command.args(["--faults", &planned.faults]).arg("--server").arg(&wish.server);
    command.stdout(log.try_clone()?).stderr(log);
    child::run(command, Duration::from_secs(wish.time * 3) + BESIDE, &out)
}

fn line(planned: &Planned, seconds: u64, report: Option<&Report>) -> String {
    let Planned { seed, nodes, faults } = planned;
    let what = format!("seed {seed}, {nodes} nodes, {faults}: ");
    let Some(report) = report else {
        return what + &format!("HARNESS FAILED after {seconds} s, see seed-{seed}/output.log");
    };
    let bit = report.faults.iter().filter(|fault| fault.bit == Some(true)).count();
    let calls = report.ok + report.failed + report.unknown;
    let word = report.verdict().word();
    let failed = |check: &&crate::report::Checked| check.verdict != crate::report::Verdict::Pass;
    let checks = report.checks.iter().filter(failed);
    let checks = checks.map(|check| format!("{}: {}", check.name, check.words));
    let why: Vec<_> = report.wrong.iter().chain(&report.invalid).cloned().chain(checks).collect();
    let why = why.first().and_then(|why| why.lines().next()).map(|why| format!(": {why}"));
    let why = why.unwrap_or_default();
    what + &format!("{word} in {seconds} s, {calls} calls, {bit} faults bit{why}")
}

/// Adds a run to the JSON lines and to the table.
fn note(wish: &Wish, planned: &Planned, report: Option<Report>) -> anyhow::Result<()> {
    if let Some(results) = &wish.results {
        let new = fs::metadata(results).map_or(true, |found| found.len() == 0);
        let head = if new { HEAD } else { "" };
        append(results, &format!("{head}{}", cells(planned, report.as_ref())))?;
    }
    let Planned { seed, nodes, faults } = planned.clone();
    let row = Row { seed, nodes, time: wish.time, faults, report };
    append(&wish.out.join(LINES), &(serde_json::to_string(&row)? + "\n"))
}

fn cells(planned: &Planned, report: Option<&Report>) -> String {
    let Planned { seed, nodes, faults } = planned;
    let Some(report) = report else {
        return format!("| {seed} | {nodes} | {faults} | | | | HARNESS FAILED | |\n");
    };
    let bit = report.faults.iter().filter(|fault| fault.bit == Some(true)).count();
    format!(
        "| {seed} | {nodes} | {faults} | {bit} | {} / {} / {} | {} | {} | `{}` |\n",
        report.ok,
        report.failed,
        report.unknown,
        report.healed_ms,
        report.verdict().word(),
        report.command
    )
}

const HEAD: &str = "| seed | nodes | faults | bit | ok / refused / unknown | healed, ms | verdict | again |\n\
                    |---|---|---|---|---|---|---|---|\n";

fn append(path: &Path, text: &str) -> anyhow::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    file.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_has_its_turn_and_meets_others() {
        let count = Class::HONEST.len() as u64;
        let mixed = |number| mixed(&Class::HONEST, number, 3);
        for (number, class) in (0..).zip(Class::HONEST) {
            let (first, later) = (mixed(number), mixed(number + count));
            assert_eq!((first[0], later[0]), (class, class));
            assert!(first.len() == 3 && later.len() == 3, "{first:?} {later:?}");
            assert_ne!(first, later, "another round meets others");
        }
    }

    #[test]
    fn one_class_a_run_when_nothing_is_mixed() {
        assert_eq!(mixed(&Class::HONEST, 2, 1), [Class::HONEST[2]]);
    }

    fn wish(out: &Path) -> Wish {
        Wish {
            runs: 4,
            jobs: 1,
            resume: true,
            seed: 10,
            nodes: vec![3, 5],
            time: 8,
            faults: vec![Class::Kill, Class::Power],
            mix: 2,
            pace: 100,
            server: PathBuf::new(),
            out: out.to_path_buf(),
            results: Some(out.join("table.md")),
        }
    }

    #[test]
    fn what_came_to_a_report_is_not_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let wish = wish(folder.path());
        let report = |run: &str| Some(Report { run: run.to_owned(), ..Report::default() });
        note(&wish, &plan(&wish, 0), report("a")).unwrap();
        note(&wish, &plan(&wish, 1), None).unwrap();
        note(&wish, &plan(&wish, 2), report("c")).unwrap();
        let done = resume(&wish, &mut Tally::default()).unwrap();
        assert_eq!(done, BTreeSet::from([10, 12]));
        let table = fs::read_to_string(folder.path().join("table.md")).unwrap();
        assert_eq!(table.lines().count(), 5, "{table}");
        let other = Wish { time: 9, ..wish };
        assert!(resume(&other, &mut Tally::default()).is_err(), "not the same runs");
    }
}
