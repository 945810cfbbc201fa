//! What many runs add up to: the figures that RESULTS.md states.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

use crate::report::{Report, Verdict};

/// A run of a matrix, as its JSON-lines file keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// What everything was derived from.
    pub seed: u64,
    /// Founding nodes.
    pub nodes: u8,
    /// How long faults were made, in seconds.
    pub time: u64,
    /// The classes of faults, as on the command line.
    pub faults: String,
    /// What came of it; nothing when the harness failed.
    pub report: Option<Report>,
}

/// The sums.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tally {
    runs: BTreeSet<String>,
    verdicts: BTreeMap<&'static str, u64>,
    failures: u64,
    accepted: u64,
    by_nodes: BTreeMap<u8, u64>,
    classes: BTreeMap<String, Class>,
    calls: [u64; 3],
    checked: BTreeMap<String, u64>,
    cuts: [u64; 2],
    worst: u8,
}

/// What one class comes to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Class {
    runs: u64,
    bit: u64,
    did_not: u64,
}

impl Tally {
    /// Adds a run, once. Only what was accepted counts: a run that proves nothing adds nothing but its verdict.
    pub fn add(&mut self, report: &Report) {
        if !self.runs.insert(report.run.clone()) {
            return;
        }
        let verdict = report.verdict();
        *self.verdicts.entry(verdict.word()).or_default() += 1;
        self.note(verdict.code());
        for fault in report.faults.iter().filter(|fault| fault.bit == Some(false)) {
            self.classes.entry(fault.class.clone()).or_default().did_not += 1;
        }
        if !matches!(verdict, Verdict::Pass | Verdict::Fail) {
            return;
        }
        self.accepted += 1;
        *self.by_nodes.entry(report.nodes).or_default() += 1;
        let bit = report.faults.iter().filter(|fault| fault.bit == Some(true));
        let mut met = BTreeSet::new();
        for fault in bit {
            let class = self.classes.entry(fault.class.clone()).or_default();
            class.bit += 1;
            class.runs += u64::from(met.insert(&fault.class));
        }
        for (sum, more) in self.calls.iter_mut().zip([report.ok, report.failed, report.unknown]) {
            *sum += more;
        }
        for check in report.checks.iter().filter(|check| check.verdict == Verdict::Pass) {
            *self.checked.entry(check.name.clone()).or_default() += 1;
        }
        self.cuts[0] += report.power_cuts;
        self.cuts[1] += report.power_cuts_of_all;
    }

    /// Adds a run that came to no report.
    pub fn add_failure(&mut self) {
        self.failures += 1;
        self.note(2);
    }

    /// The exit code of the worst run: a violation is worse than whatever else there is.
    #[must_use]
    pub fn worst(&self) -> u8 {
        self.worst
    }

    fn note(&mut self, code: u8) {
        let fail = Verdict::Fail.code();
        self.worst = if code == fail || self.worst == fail { fail } else { self.worst.max(code) };
    }

    /// Adds all runs of a file or folder: a report, the JSON lines of a matrix, or every report below a folder.
    ///
    /// # Errors
    /// When it is neither.
    pub fn read(&mut self, path: &Path) -> anyhow::Result<()> {
        if path.is_dir() {
            let mut found = Vec::new();
            reports(path, &mut found)?;
            ensure!(!found.is_empty(), "there are no runs below {}", path.display());
            for report in found {
                match report {
                    Some(report) => self.add(&Report::load(&report)?),
                    None => self.add_failure(),
                }
            }
        } else if path.extension().is_some_and(|extension| extension == "jsonl") {
            for row in rows(path)? {
                match row.report {
                    Some(report) => self.add(&report),
                    None => self.add_failure(),
                }
            }
        } else {
            self.add(&Report::load(path)?);
        }
        Ok(())
    }

    /// For people: Markdown.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a text does not fail.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        let [ok, refused, unknown] = self.calls;
        let verdicts = self.verdicts.iter().map(|(word, count)| format!("{count} {word}"));
        let mut verdicts: Vec<_> = verdicts.collect();
        if self.failures > 0 {
            verdicts.push(format!("{} HARNESS FAILED", self.failures));
        }
        let nodes = self.by_nodes.iter().map(|(nodes, runs)| format!("{runs} on {nodes} nodes"));
        let nodes: Vec<_> = nodes.collect();
        let bit: u64 = self.classes.values().map(|class| class.bit).sum();
        let corruptions = self.classes.get("corruption").map_or(0, |class| class.bit);
        let [cuts, whole] = self.cuts;
        writeln!(text, "| | |\n|---|---|")?;
        writeln!(text, "| runs | {} |", verdicts.join(", "))?;
        writeln!(text, "| accepted runs | {} ({}) |", self.accepted, nodes.join(", "))?;
        writeln!(
            text,
            "| operations | {} ({ok} ok, {refused} refused, {unknown} unknown) |",
            ok + refused + unknown
        )?;
        writeln!(text, "| faults that bit | {bit} |")?;
        writeln!(text, "| nodes whose power was cut | {cuts}, {whole} times all at once |")?;
        writeln!(text, "| corruptions | {corruptions} |")?;
        let checked = self.checked.iter().map(|(name, count)| format!("{name} {count}"));
        writeln!(text, "| checks passed | {} |", checked.collect::<Vec<_>>().join(", "))?;
        writeln!(text, "\n| class | accepted runs | faults that bit | did not bite |")?;
        writeln!(text, "|---|---|---|---|")?;
        for (name, class) in &self.classes {
            writeln!(text, "| `{name}` | {} | {} | {} |", class.runs, class.bit, class.did_not)?;
        }
        Ok(())
    }
}

/// The rows of a JSON-lines file; a last line that was cut off is a run that was cut off.
///
/// # Errors
/// When there is no such file, or it is of something else.
pub fn rows(path: &Path) -> anyhow::Result<Vec<Row>> {
    let text = fs::read_to_string(path);
    let text = text.with_context(|| format!("cannot read {}", path.display()))?;
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let row = |(number, line): (usize, &str)| {
        let row = serde_json::from_str(line);
        row.with_context(|| format!("{}:{}: not a run", path.display(), number + 1))
    };
    whole.lines().enumerate().map(row).collect()
}

/// The reports below a folder; nothing for a run that has a history and no report.
fn reports(folder: &Path, found: &mut Vec<Option<PathBuf>>) -> anyhow::Result<()> {
    let report = folder.join("report.json");
    if report.is_file() {
        found.push(Some(report));
        return Ok(());
    }
    if folder.join("history.jsonl").is_file() {
        found.push(None);
        return Ok(());
    }
    let entries = fs::read_dir(folder);
    for entry in entries.with_context(|| format!("cannot read {}", folder.display()))? {
        let entry = entry?;
        // Not through links: those may lead in circles.
        if entry.file_type()?.is_dir() {
            reports(&entry.path(), found)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Checked, Struck};

    fn report(run: &str, bit: &[(&str, bool)]) -> Report {
        let struck = |(class, bit): &(&str, bool)| Struck {
            class: (*class).to_owned(),
            name: String::new(),
            from_ms: 0,
            to_ms: 0,
            bit: Some(*bit),
            words: String::new(),
        };
        let check =
            Checked { name: "one".to_owned(), verdict: Verdict::Pass, words: String::new() };
        Report {
            run: run.to_owned(),
            nodes: 3,
            ok: 10,
            power_cuts: 4,
            power_cuts_of_all: 1,
            faults: bit.iter().map(struck).collect(),
            checks: vec![check],
            ..Report::default()
        }
    }

    #[test]
    fn a_violation_is_never_hidden_by_a_later_run() {
        let mut tally = Tally::default();
        let mut one = report("a", &[]);
        one.wrong.push("it lied".to_owned());
        tally.add(&one);
        let mut other = report("b", &[]);
        other.invalid.push("nothing bit".to_owned());
        tally.add(&other);
        tally.add_failure();
        assert_eq!(tally.worst(), 1);
    }

    #[test]
    fn only_accepted_runs_count_and_each_once() {
        let mut tally = Tally::default();
        let passed = report("a", &[("kill", true), ("kill", true), ("power", true)]);
        tally.add(&passed);
        tally.add(&passed);
        let mut invalid = report("b", &[("kill", false), ("power", true)]);
        invalid.invalid.push("a kill did not bite".to_owned());
        tally.add(&invalid);
        assert_eq!((tally.accepted, tally.calls, tally.cuts), (1, [10, 0, 0], [4, 1]));
        assert_eq!(tally.classes["kill"], Class { runs: 1, bit: 2, did_not: 1 });
        assert_eq!(tally.classes["power"], Class { runs: 1, bit: 1, did_not: 0 });
    }

    #[test]
    fn folders_and_lines_come_to_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let one = report("a", &[("kill", true)]);
        let path = folder.path().join("seed-1/a");
        fs::create_dir_all(&path).unwrap();
        one.save(&path.join("report.json")).unwrap();
        let broken = folder.path().join("seed-2/b");
        fs::create_dir_all(&broken).unwrap();
        fs::write(broken.join("history.jsonl"), "").unwrap();
        let row = |report| {
            let row = Row { seed: 1, nodes: 3, time: 8, faults: "kill".to_owned(), report };
            serde_json::to_string(&row).unwrap() + "\n"
        };
        let lines = folder.path().join("runs.jsonl");
        // The last one was being written when the machine went.
        fs::write(&lines, row(Some(one)) + &row(None) + "{\"seed\":3").unwrap();
        let (mut by_folder, mut by_lines) = (Tally::default(), Tally::default());
        by_folder.read(folder.path()).unwrap();
        by_lines.read(&lines).unwrap();
        assert_eq!(by_folder, by_lines);
        assert_eq!((by_lines.accepted, by_lines.failures), (1, 1));
    }

    #[test]
    fn what_is_no_run_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Tally::default().read(folder.path()).is_err());
        let lines = folder.path().join("runs.jsonl");
        fs::write(&lines, "{}\n").unwrap();
        assert!(Tally::default().read(&lines).is_err());
    }
}
