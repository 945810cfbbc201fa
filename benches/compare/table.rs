//! The ratios, as a table and as lines of JSON.

use serde::Serialize;

use super::Rounds;
use super::ratio::{Bound, Ratio, median_of};
use super::rows::{Check, Contender, Measure};
use crate::report::number;

/// The table's head.
pub const HEAD: &str = "| row | measure | ours | against | theirs | ratio (min–max) | target | met | errors |\n\
     |---|---|--:|---|--:|--:|--:|---|--:|";

/// One check of a row, with what came of it.
#[derive(Debug, Serialize)]
pub struct Verdict {
    row: &'static str,
    #[serde(skip)]
    title: &'static str,
    measure: Measure,
    ours: Vec<Option<f64>>,
    against: Contender,
    against_version: Option<String>,
    theirs: Vec<Option<f64>>,
    ratio: Option<Ratio>,
    bound: Bound,
    met: Option<bool>,
    /// Of both.
    errors: u64,
}

impl Verdict {
    /// All checks of a row.
    #[must_use]
    pub fn all(rounds: &Rounds) -> Vec<Self> {
        rounds.row.checks.iter().map(|check| Self::new(rounds, *check)).collect()
    }

    fn new(rounds: &Rounds, Check { measure, against, bound }: Check) -> Self {
        let ours = rounds.values(Contender::Ours, measure);
        let theirs = rounds.values(against, measure);
        let ratio = Ratio::of(&ours, &theirs);
        Self {
            row: rounds.row.name,
            title: rounds.row.title,
            measure,
            ours,
            against,
            against_version: rounds.version(against).map(str::to_owned),
            theirs,
            ratio,
            bound,
            met: bound.met(ratio),
            errors: rounds.faults(Contender::Ours) + rounds.faults(against),
        }
    }

    /// For programs: one line.
    ///
    /// # Errors
    /// Never: every field can be written as JSON.
    pub fn json(&self) -> anyhow::Result<String> {
        Ok(serde_json::to_string(self)?)
    }

    /// For people.
    #[must_use]
    pub fn line(&self) -> String {
        let against = match (self.against, &self.against_version) {
            (Contender::Etcd, Some(version)) => format!("etcd {version}"),
            (Contender::Etcd, None) => "etcd".to_owned(),
            (Contender::Floor, _) => "empty server".to_owned(),
            (Contender::Ours, _) => "ourselves".to_owned(),
        };
        let ratio = self.ratio.map_or_else(
            || "–".to_owned(),
            |Ratio { median, min, max }| format!("{median:.2} ({min:.2}–{max:.2})"),
        );
        let target = match self.bound {
            Bound::AtMost(bound) => format!("≤ {bound:.2}"),
            Bound::AtLeast(bound) => format!("≥ {bound:.2}"),
            Bound::Shown => "–".to_owned(),
        };
        let met = match self.met {
            Some(true) => "yes",
            Some(false) => "**no**",
            None => "–",
        };
        let median = |values: &[Option<f64>]| {
            let median = median_of(values);
            number(median, if median.is_some_and(|median| median < 100.0) { 2 } else { 0 })
        };
        format!(
            "| {} | {} | {} | {against} | {} | {ratio} | {target} | {met} | {} |",
            self.title,
            self.measure.name(),
            median(&self.ours),
            median(&self.theirs),
            self.errors,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::Sample;
    use crate::compare::rows::chosen;

    fn sample(cpu: f64, ops: f64, faults: u64) -> Sample {
        let values = [(Measure::CpuPerOp, cpu), (Measure::OpsPerSecond, ops)].into();
        Sample { values, faults, version: Some("3.5.0".into()) }
    }

    #[test]
    fn a_row_says_what_was_wanted_and_what_came() {
        let mut rounds = Rounds::new(chosen(&["put-64-leader".to_owned()]).unwrap()[0]);
        rounds
            .samples
            .insert(Contender::Ours, vec![sample(50.0, 900.0, 0), sample(60.0, 800.0, 2)]);
        rounds
            .samples
            .insert(Contender::Etcd, vec![sample(200.0, 300.0, 0), sample(300.0, 200.0, 1)]);
        let verdicts = Verdict::all(&rounds);
        let lines: Vec<String> = verdicts.iter().map(Verdict::line).collect();
        assert_eq!(
            lines,
            [
                "| put, 64 clients, leader | server CPU µs/op | 55.00 | etcd 3.5.0 | 250 | 0.23 (0.20–0.25) | ≤ 0.30 | yes | 3 |",
                "| put, 64 clients, leader | server CPU µs/op | 55.00 | empty server | – | – | ≤ 4.00 | – | 2 |",
                "| put, 64 clients, leader | ops/s | 850 | etcd 3.5.0 | 250 | 3.50 (3.00–4.00) | ≥ 1.00 | yes | 3 |",
                "| put, 64 clients, leader | p50 ms | – | etcd 3.5.0 | – | – | – | – | 3 |",
            ]
        );
        let json: serde_json::Value = serde_json::from_str(&verdicts[0].json().unwrap()).unwrap();
        assert_eq!(json["row"], "put-64-leader");
        assert_eq!((&json["bound"]["at_most"], &json["met"]), (&0.3.into(), &true.into()));
        assert_eq!(json["theirs"], serde_json::json!([200.0, 300.0]));
    }
}
