//! What came of a run, for people and for the table of many runs.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

/// What a run amounts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Everything was checked and everything holds.
    Pass,
    /// The product broke a promise.
    Fail,
    /// A check came to no end. It is not a pass.
    Unknown,
    /// The run proves nothing: the machine cannot do it, or a fault did not bite.
    Invalid,
}

impl Verdict {
    /// The exit code of the program.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Pass => 0,
            Self::Fail => 1,
            Self::Invalid => 3,
            Self::Unknown => 4,
        }
    }

    /// In a word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Pass => "PASS",
            Self::Fail => "FAIL",
            Self::Unknown => "UNKNOWN",
            Self::Invalid => "INVALID",
        }
    }
}

/// One fault of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Struck {
    /// Its class, as on the command line.
    pub class: String,
    /// What it was.
    pub name: String,
    /// When it began and ended, in milliseconds of the run.
    pub from_ms: u64,
    /// See [`Struck::from_ms`].
    pub to_ms: u64,
    /// Whether it is known to have bitten; absent when there was nobody to strike.
    pub bit: Option<bool>,
    /// By what that is known, or why it was left out.
    pub words: String,
}

/// One checker's word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// The checker.
    pub name: String,
    /// Pass, fail or unknown.
    pub verdict: Verdict,
    /// What it found.
    pub words: String,
}

/// A run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Its name.
    pub run: String,
    /// The command that runs it again.
    pub command: String,
    /// What everything was derived from.
    pub seed: u64,
    /// Founding nodes.
    pub nodes: u8,
    /// What the server says of its version.
    pub server: String,
    /// Seconds from the first start of a node to the end of the closing scan.
    pub seconds: u64,
    /// Calls with an answer.
    pub ok: u64,
    /// Calls that the cluster refused.
    pub failed: u64,
    /// Calls without an answer.
    pub unknown: u64,
    /// Answers a second before the first fault.
    pub healthy_rate: u64,
    /// How long the cluster took to converge once everything was mended.
    pub healed_ms: u64,
    /// The term in the end: how many elections there were, at most.
    pub term: u64,
    /// How often a node lost its power, and with it what was not synced.
    #[serde(default)]
    pub power_cuts: u64,
    /// How often all members did so at once.
    #[serde(default)]
    pub power_cuts_of_all: u64,
    /// What was done to it.
    pub faults: Vec<Struck>,
    /// What each checker says.
    pub checks: Vec<Checked>,
    /// What the product did wrong.
    pub wrong: Vec<String>,
    /// Why the run proves nothing.
    pub invalid: Vec<String>,
}

impl Report {
    /// A violation counts even when the run proves nothing else.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let any = |verdict| self.checks.iter().any(|check| check.verdict == verdict);
        if !self.wrong.is_empty() || any(Verdict::Fail) {
            Verdict::Fail
        } else if !self.invalid.is_empty() {
            Verdict::Invalid
        } else if any(Verdict::Unknown) || self.checks.is_empty() {
            Verdict::Unknown
        } else {
            Verdict::Pass
        }
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a text does not fail.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        let (ok, failed, unknown) = (self.ok, self.failed, self.unknown);
        writeln!(
            text,
            "{}: seed {}, {} nodes, {} s",
            self.run, self.seed, self.nodes, self.seconds
        )?;
        writeln!(text, "  server: {}", self.server)?;
        writeln!(text, "  calls: {ok} ok, {failed} refused, {unknown} unknown")?;
        writeln!(text, "  before the first fault: {} answers a second", self.healthy_rate)?;
        writeln!(text, "  healed in {} ms, in term {}", self.healed_ms, self.term)?;
        for fault in &self.faults {
            let bit = match fault.bit {
                Some(true) => "bit",
                Some(false) => "DID NOT BITE",
                None => "left out",
            };
            let (from, to) = (fault.from_ms, fault.to_ms);
            let (name, words) = (&fault.name, &fault.words);
            writeln!(text, "  fault {from:>6}–{to:<6} ms {}: {name}: {bit}: {words}", fault.class)?;
        }
        for check in &self.checks {
            writeln!(text, "  check {}: {}", check.name, check.words)?;
        }
        for wrong in &self.wrong {
            writeln!(text, "  WRONG: {wrong}")?;
        }
        for invalid in &self.invalid {
            writeln!(text, "  invalid: {invalid}")?;
        }
        writeln!(text, "  again: {}", self.command)?;
        write!(text, "{} {}", self.verdict().word(), self.run)
    }

    /// Writes it to a file.
    ///
    /// # Errors
    /// What the file says.
    pub fn save(&self, path: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Reads one from a file.
    ///
    /// # Errors
    /// When there is none.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let text =
            std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(serde_json::from_slice(&text)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(verdict: Verdict) -> Checked {
        Checked { name: "one".to_owned(), verdict, words: String::new() }
    }

    #[test]
    fn only_what_was_checked_passes() {
        let mut report = Report::default();
        assert_eq!(report.verdict(), Verdict::Unknown);
        report.checks.push(checked(Verdict::Pass));
        assert_eq!(report.verdict(), Verdict::Pass);
        report.checks.push(checked(Verdict::Unknown));
        assert_eq!(report.verdict(), Verdict::Unknown);
        report.invalid.push("a fault did not bite".to_owned());
        assert_eq!(report.verdict(), Verdict::Invalid);
        report.checks.push(checked(Verdict::Fail));
        assert_eq!(report.verdict(), Verdict::Fail);
    }

    #[test]
    fn what_the_product_did_wrong_counts_without_a_checker() {
        let wrong = vec!["a node ended".to_owned()];
        let report = Report { wrong, checks: vec![checked(Verdict::Pass)], ..Report::default() };
        assert_eq!(report.verdict(), Verdict::Fail);
        assert!(report.text().contains("WRONG: a node ended"));
    }
}
