//! `jepsen-lite bugs`: proves the harness. A server with each of its deliberate bugs in turn is run until the checkers that
//! should notice do.

mod plan;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use llm_config_bugs::{Bug, VARIABLE};

use crate::child;
use crate::report::{Report, Verdict};
use plan::{Plan, Sign, plan};

pub use plan::SHORT;

/// What a run may take beside its faults.
const BESIDE: Duration = Duration::from_secs(300);
const RULER: &str = "| bug | what is wrong | caught by | command | seeds tried | seconds |\n|---|---|---|---|---|---|\n";

/// What is wanted.
#[derive(Debug)]
pub struct Wish {
    /// Which bugs.
    pub bugs: Vec<Bug>,
    /// How many seeds each may take.
    pub attempts: u64,
    /// The server program with the bugs.
    pub server: PathBuf,
    /// Where the runs write.
    pub out: PathBuf,
    /// A Markdown file for the table.
    pub results: Option<PathBuf>,
}

/// What came of one bug.
#[derive(Debug)]
struct Tried {
    bug: Bug,
    attempts: u64,
    /// Of the last run.
    seconds: u64,
    command: String,
    /// What noticed, if that is what should.
    caught: Option<String>,
    /// Everything that failed in the last run.
    failed: String,
}

/// The bug of this name, for the command line.
///
/// # Errors
/// When there is none.
pub fn bug(name: &str) -> Result<Bug, String> {
    Bug::named(name).ok_or_else(|| "no such bug; `jepsen-lite bugs --list` names all".to_owned())
}

/// Makes sure that a server has the bug, and does not just ignore its name.
///
/// # Errors
/// When it does not say so.
pub fn ensure_known(server: &Path, bug: Bug) -> anyhow::Result<()> {
    let mut command = Command::new("timeout");
    command.arg("60").arg(server).arg("--version").env(VARIABLE, bug.name()).stdin(Stdio::null());
    let output = command.output().with_context(|| format!("cannot start {}", server.display()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success() && said.contains(&format!("seeded bug {}", bug.name())),
        "{} does not know the bug {}: `make seeded-server` builds one that does. {said}",
        server.display(),
        bug.name()
    );
    Ok(())
}

/// Says what there is.
pub fn list(bugs: &[Bug]) {
    for bug in bugs {
        let plan = plan(*bug);
        let signs: Vec<_> = plan.signs.iter().map(Sign::to_string).collect();
        println!("{:<24} {} [{}]", bug.name(), plan.wrong, signs.join(", "));
    }
}

/// Runs each bug until it is caught or the attempts are used up; exit code 0 when all were.
///
/// # Errors
/// When a run cannot be started or the table cannot be written.
pub fn run(wish: &Wish) -> anyhow::Result<u8> {
    for bug in &wish.bugs {
        ensure_known(&wish.server, *bug)?;
    }
    let mut table = RULER.to_owned();
    let mut missed = Vec::new();
    for (number, bug) in wish.bugs.iter().enumerate() {
        println!("== {} of {}: {}", number + 1, wish.bugs.len(), bug.name());
        let tried = hunt(wish, *bug)?;
        match &tried.caught {
            Some(by) => println!("== {}: caught by {by}", bug.name()),
            None => println!("== {}: NOT CAUGHT; failed: {}", bug.name(), tried.failed),
        }
        if tried.caught.is_none() {
            missed.push(bug.name());
        }
        tried.row(&mut table)?;
        // After each, so that what was found is there when the rest is cut off.
        if let Some(results) = &wish.results {
            fs::write(results, &table)
                .with_context(|| format!("cannot write {}", results.display()))?;
        }
    }
    println!("{table}");
    println!("{} of {} caught", wish.bugs.len() - missed.len(), wish.bugs.len());
    if !missed.is_empty() {
        println!("not caught: {}", missed.join(", "));
    }
    Ok(u8::from(!missed.is_empty()))
}

fn hunt(wish: &Wish, bug: Bug) -> anyhow::Result<Tried> {
    let plan = plan(bug);
    let mut tried = Tried {
        bug,
        attempts: 0,
        seconds: 0,
        command: String::new(),
        caught: None,
        failed: String::new(),
    };
    while tried.caught.is_none() && tried.attempts < wish.attempts {
        let seed = plan.seed + tried.attempts;
        tried.attempts += 1;
        let options = plan.options(bug, seed);
        tried.command = format!("jepsen-lite run {}", options.join(" "));
        let mut command = child::command()?;
        command.args(&options).args(["--shrink", "0"]).arg("--server").arg(&wish.server);
        let out = wish.out.join(bug.name());
        let begun = Instant::now();
        let report = child::run(command, Duration::from_secs(plan.time * 3) + BESIDE, &out)?;
        tried.seconds = begun.elapsed().as_secs();
        tried.failed = report.as_ref().map_or("the harness".to_owned(), failures);
        tried.caught = report.and_then(|report| plan.caught(&report));
    }
    Ok(tried)
}

/// Everything that failed, in few words.
fn failures(report: &Report) -> String {
    let failed = report.checks.iter().filter(|check| check.verdict == Verdict::Fail);
    let checkers = failed.map(|check| check.name.clone());
    let wrong = report.wrong.iter().map(|wrong| wrong.lines().next().unwrap_or("").to_owned());
    checkers.chain(wrong).collect::<Vec<_>>().join("; ")
}

impl Tried {
    fn row(&self, table: &mut String) -> std::fmt::Result {
        let Plan { wrong, .. } = plan(self.bug);
        let caught = self.caught.as_deref().unwrap_or("NOT CAUGHT");
        let (name, command) = (self.bug.name(), &self.command);
        let (attempts, seconds) = (self.attempts, self.seconds);
        writeln!(table, "| {name} | {wrong} | {caught} | `{command}` | {attempts} | {seconds} |")
    }
}
