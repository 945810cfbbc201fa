//! Makes a failing history smaller, without making up a failure: what is taken away is such that a correct store's history
//! would still pass without it.
//!
//! First it is tried as a part of a history (see [`Header::partial`](crate::history::Header::partial)), from which anything
//! may be left out. Where the failure shows only in the whole, reads are left out and answers are forgotten.

use std::time::{Duration, Instant};

use crate::check::{Checker, Facts, Limits, Verdict, Violation, checker};
use crate::history::{Call, History, Operation, Outcome};

/// A failing history that cannot be made smaller, or not in the time that there was.
#[derive(Debug, Clone)]
pub struct Shrunk {
    /// What is left.
    pub history: History,
    /// Which checker fails it.
    pub checker: &'static str,
    /// What is wrong with it.
    pub violation: Violation,
    /// Nothing more can be left out.
    pub minimal: bool,
}

/// What is left out or kept as one: an operation, or everything of a watch.
type Unit = Vec<Operation>;

struct Search {
    checker: &'static Checker,
    rule: &'static str,
    limits: Limits,
    deadline: Instant,
}

/// Makes a history smaller that a checker fails with a rule.
///
/// Returns `None` when it does not fail so.
#[must_use]
pub fn shrink(
    history: &History,
    checker_name: &str,
    rule: &str,
    limits: &Limits,
    time: Duration,
) -> Option<Shrunk> {
    let checker = checker(checker_name)?;
    let (rule, _) = fails(checker, history, limits, Some(rule))?;
    let search = Search { checker, rule, limits: *limits, deadline: Instant::now() + time };
    let mut small = history.clone();
    small.faults.clear();
    search.one_key(&mut small);
    let mut part = small.clone();
    part.header.partial = true;
    let minimal = if search.fails(&part) {
        small = part;
        search.leave_out(&mut small, |unit| {
            !unit.iter().any(|operation| matches!(operation.call, Call::Policy { .. }))
        })
    } else {
        let reads = search
            .leave_out(&mut small, |unit| !unit.iter().any(|operation| operation.call.changes()));
        let refusals = search.leave_out(&mut small, |unit| {
            unit.iter().all(|operation| operation.outcome == Outcome::Fail)
        });
        let unknown = search.forget_answers(&mut small);
        reads && refusals && unknown
    };
    let (_, violation) = fails(checker, &small, limits, Some(rule))?;
    small.faults.clone_from(&history.faults);
    Some(Shrunk { history: small, checker: checker.name, violation, minimal })
}

/// The violation of a rule, or of any.
fn fails(
    checker: &Checker,
    history: &History,
    limits: &Limits,
    rule: Option<&str>,
) -> Option<(&'static str, Violation)> {
    match checker.check(&Facts::new(history), limits) {
        Verdict::Fail { violations, .. } => violations
            .into_iter()
            .find(|violation| rule.is_none_or(|rule| rule == violation.rule))
            .map(|violation| (violation.rule, violation)),
        Verdict::Pass { .. } | Verdict::Unknown { .. } => None,
    }
}

impl Search {
    fn fails(&self, history: &History) -> bool {
        fails(self.checker, history, &self.limits, Some(self.rule)).is_some()
    }

    fn is_late(&self) -> bool {
        Instant::now() > self.deadline
    }

    /// Keeps what is about one entry only, if the failure is there.
    fn one_key(&self, history: &mut History) {
        let violation = fails(self.checker, history, &self.limits, Some(self.rule));
        let Some(key) = violation.and_then(|(_, violation)| violation.key) else { return };
        let mut only = history.clone();
        only.operations.retain(|operation| {
            let keys = operation.call.keys();
            keys.is_empty() || keys.contains(key.as_str())
        });
        // A transaction that is gone may have changed what a list or a watch shows: those are a part only.
        only.header.partial = true;
        if self.fails(&only) {
            only.header.partial = history.header.partial;
            if self.fails(&only) {
                *history = only;
            }
        }
    }

    /// Leaves out as many of the units as it can: halves, quarters, and so on down to single ones (Zeller's ddmin). Says
    /// whether it came to an end.
    fn leave_out(&self, history: &mut History, may: impl Fn(&Unit) -> bool) -> bool {
        let (mut candidates, fixed): (Vec<Unit>, Vec<Unit>) =
            units(&history.operations).into_iter().partition(|unit| may(unit));
        let with = |candidates: &[Unit]| {
            let mut operations: Vec<Operation> =
                candidates.iter().chain(&fixed).flatten().cloned().collect();
            operations.sort_by_key(|operation| (operation.invoked_ns, operation.id));
            History { operations, ..history.clone_without_operations() }
        };
        let mut parts = 2;
        while !candidates.is_empty() {
            let size = candidates.len().div_ceil(parts);
            let mut start = 0;
            let mut smaller = false;
            while start < candidates.len() {
                if self.is_late() {
                    *history = with(&candidates);
                    return false;
                }
                let end = (start + size).min(candidates.len());
                let mut kept = candidates.clone();
                kept.drain(start..end);
                if self.fails(&with(&kept)) {
                    candidates = kept;
                    smaller = true;
                } else {
                    start = end;
                }
            }
            if size <= 1 && !smaller {
                break;
            }
            parts = (parts * 2).min(candidates.len().max(1));
        }
        *history = with(&candidates);
        true
    }

    /// Forgets the answers of as many writes as it can: whoever lost an answer knows less.
    fn forget_answers(&self, history: &mut History) -> bool {
        for place in 0..history.operations.len() {
            if self.is_late() {
                return false;
            }
            let operation = &history.operations[place];
            if !operation.call.is_write() || operation.outcome != Outcome::Ok {
                continue;
            }
            let forgotten = Operation {
                outcome: Outcome::Unknown,
                completed_ns: None,
                revision: None,
                answer: None,
                ..operation.clone()
            };
            let kept = std::mem::replace(&mut history.operations[place], forgotten);
            if !self.fails(history) {
                history.operations[place] = kept;
            }
        }
        true
    }
}

impl History {
    fn clone_without_operations(&self) -> Self {
        Self {
            header: self.header.clone(),
            operations: Vec::new(),
            faults: self.faults.clone(),
            whole: self.whole,
        }
    }
}

/// What can be left out on its own. What a watch does not deliver is a violation, so a watch goes as a whole; what was sent
/// twice is one request.
fn units(operations: &[Operation]) -> Vec<Unit> {
    let mut units: Vec<Unit> = Vec::new();
    let mut watches = std::collections::HashMap::new();
    for operation in operations {
        let (Call::WatchOpen { watch, .. }
        | Call::WatchBatch { watch }
        | Call::WatchEnd { watch, .. }) = operation.call
        else {
            units.push(vec![operation.clone()]);
            continue;
        };
        let place = *watches.entry(watch).or_insert_with(|| {
            units.push(Vec::new());
            units.len() - 1
        });
        units[place].push(operation.clone());
    }
    units
}
