//! What the cluster said had not happened and would not, never takes effect: its value is seen by nobody.

use super::facts::{Effect, Facts};
use super::{Findings, Limits, Verdict};
use crate::history::Outcome;

pub(super) fn check(facts: &Facts<'_>, _: &Limits) -> Verdict {
    let mut found = Findings::default();
    // In a part of a history, somebody who is not in it may have written the same values.
    if facts.partial() {
        return found.verdict();
    }
    for key in facts.key_ids() {
        for change in facts.changes_of(key).filter(|change| change.outcome == Outcome::Fail) {
            let Effect::Value(value) = change.effect else { continue };
            // A value that somebody else writes too tells nothing.
            let also = facts
                .changes_of(key)
                .any(|other| other.outcome != Outcome::Fail && other.effect.can_be(Some(value)));
            if also {
                continue;
            }
            found.checked += 1;
            let mut log = facts.log[key as usize].iter();
            if let Some(point) = log.find(|point| point.value == Some(value)) {
                found.fail(
                    "took effect",
                    Some(facts.name(key)),
                    [facts.id(change.by), facts.id(point.witness)],
                    format!(
                        "operation {} was refused, and is version {} of revision {}",
                        facts.id(change.by),
                        point.version,
                        point.revision
                    ),
                );
            }
        }
    }
    found.verdict()
}
