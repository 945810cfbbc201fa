//! Many runs, one after the other, each in a process of its own, and the table of what came of them.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::child;
use crate::nemesis::Class;
use crate::report::{Report, Verdict};
use crate::run::class_name;

/// What founding, healing, the power cut and the scan may take beside the faults.
const BESIDE: Duration = Duration::from_secs(480);

/// What is wanted of a matrix.
#[derive(Debug)]
pub struct Wish {
    /// How many runs.
    pub runs: u64,
    /// The seed of the first; each further one is one higher.
    pub seed: u64,
    /// Founding nodes, in turn.
    pub nodes: Vec<u8>,
    /// How long faults are made in each.
    pub time: u64,
    /// One class for each run in turn, together with one or two others.
    pub faults: Vec<Class>,
    /// See [`crate::run::Wish::pace`].
    pub pace: u64,
    /// The server program.
    pub server: PathBuf,
    /// Where the runs write.
    pub out: PathBuf,
    /// A table in Markdown that rows are added to.
    pub results: Option<PathBuf>,
}

/// All that came of it.
#[derive(Debug, Default)]
struct Sum {
    verdicts: BTreeMap<&'static str, u64>,
    operations: u64,
    faults: BTreeMap<String, u64>,
    power_cuts: u64,
    worst: u8,
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
    let mut sum = Sum::default();
    for number in 0..wish.runs {
        let seed = wish.seed + number;
        let nodes = pick(&wish.nodes, number);
        let faults = mixed(&wish.faults, number);
        let words: Vec<_> = faults.iter().map(|class| class_name(*class)).collect();
        println!(
            "== {} of {}: seed {seed}, {nodes} nodes, {}",
            number + 1,
            wish.runs,
            words.join(",")
        );
        let out = wish.out.join(format!("seed-{seed}"));
        let report = one(wish, seed, nodes, &words.join(","), &out)?;
        sum.add(report.as_ref());
        if report.is_none() {
            println!("the harness failed");
        }
        if let Some(results) = &wish.results {
            append(results, &row(seed, nodes, &words.join(","), report.as_ref()))?;
        }
    }
    println!("{}", sum.text());
    Ok(sum.worst)
}

fn pick<T: Copy>(of: &[T], number: u64) -> T {
    of[usize::try_from(number).unwrap_or(0) % of.len()]
}

/// The class whose turn it is, and two that follow it at growing distances, so that all pairs come up.
fn mixed(classes: &[Class], number: u64) -> Vec<Class> {
    let count = classes.len() as u64;
    let (turn, round) = (number % count, number / count);
    let mut mixed: Vec<Class> = Vec::new();
    for at in [turn, turn + 1 + round, turn + 3 + 2 * round] {
        let class = pick(classes, at);
        if !mixed.contains(&class) {
            mixed.push(class);
        }
    }
    mixed
}

fn one(
    wish: &Wish,
    seed: u64,
    nodes: u8,
    faults: &str,
    out: &Path,
) -> anyhow::Result<Option<Report>> {
    let mut command = child::command()?;
    command.args(["--seed", &seed.to_string(), "--nodes", &nodes.to_string()]);
    command.args(["--time", &wish.time.to_string(), "--pace", &wish.pace.to_string()]);
    command.args(["--faults", faults]);
    command.arg("--server").arg(&wish.server);
    child::run(command, Duration::from_secs(wish.time * 3) + BESIDE, out)
}

fn row(seed: u64, nodes: u8, faults: &str, report: Option<&Report>) -> String {
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

fn append(path: &Path, row: &str) -> anyhow::Result<()> {
    let new = fs::metadata(path).map_or(true, |found| found.len() == 0);
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    let text = if new { format!("{HEAD}{row}") } else { row.to_owned() };
    file.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
}

impl Sum {
    fn add(&mut self, report: Option<&Report>) {
        let Some(report) = report else {
            *self.verdicts.entry("HARNESS FAILED").or_default() += 1;
            self.note(2);
            return;
        };
        let verdict = report.verdict();
        *self.verdicts.entry(verdict.word()).or_default() += 1;
        self.operations += report.ok + report.failed + report.unknown;
        for fault in report.faults.iter().filter(|fault| fault.bit == Some(true)) {
            *self.faults.entry(fault.class.clone()).or_default() += 1;
        }
        let cuts = report.faults.iter().filter(|fault| fault.class == class_name(Class::Power));
        // And the last one, of all nodes.
        self.power_cuts += cuts.count() as u64 + 1;
        self.note(verdict.code());
    }

    /// A violation is worse than whatever else there is.
    fn note(&mut self, code: u8) {
        let fail = Verdict::Fail.code();
        self.worst = if code == fail || self.worst == fail { fail } else { self.worst.max(code) };
    }

    fn text(&self) -> String {
        let list = |(name, count): (&str, &u64)| format!("{name} {count}");
        let verdicts: Vec<_> =
            self.verdicts.iter().map(|(name, count)| list((name, count))).collect();
        let faults: Vec<_> = self.faults.iter().map(|(name, count)| list((name, count))).collect();
        format!(
            "runs: {}\noperations: {}\nfaults that bit: {}\npower cuts: {}",
            verdicts.join(", "),
            self.operations,
            faults.join(", "),
            self.power_cuts
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_has_its_turn_and_meets_others() {
        let all: Vec<_> = (0..28).map(|number| mixed(&Class::HONEST, number)).collect();
        for (number, class) in Class::HONEST.iter().enumerate() {
            assert_eq!(all[number][0], *class);
            assert!(all[number].len() == 3, "{:?}", all[number]);
        }
        assert_ne!(all[0], all[14], "another round meets others");
    }

    #[test]
    fn a_violation_is_never_hidden_by_a_later_run() {
        let mut sum = Sum::default();
        let mut report = Report { wrong: vec!["it lied".to_owned()], ..Report::default() };
        sum.add(Some(&report));
        report.wrong.clear();
        report.invalid.push("nothing bit".to_owned());
        sum.add(Some(&report));
        sum.add(None);
        assert_eq!(sum.worst, 1);
    }
}
