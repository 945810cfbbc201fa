//! Bounded staleness: a read that may be so old and no older has everything that was acknowledged that long before it began.

use std::collections::HashMap;

use super::facts::{Facts, Index, KeyId};
use super::revision::revision_of;
use super::{Findings, Limits, Verdict};
use crate::history::{Answer, Call, Outcome};

const NS_IN_MS: u64 = 1_000_000;

/// What was known by when: times rise, and so does the highest number up to them.
#[derive(Debug, Default)]
struct Highest(Vec<(u64, u64, Index)>);

impl Highest {
    fn sort(&mut self) {
        self.0.sort_unstable();
        let mut highest: Option<(u64, Index)> = None;
        for (_, number, by) in &mut self.0 {
            match highest {
                Some((known, known_by)) if known >= *number => (*number, *by) = (known, known_by),
                _ => highest = Some((*number, *by)),
            }
        }
    }

    /// The highest before a time.
    fn before(&self, at: u64) -> Option<(u64, Index)> {
        let count = self.0.partition_point(|(time, _, _)| *time < at);
        let (_, number, by) = self.0.get(count.checked_sub(1)?)?;
        Some((*number, *by))
    }
}

pub(super) fn check(facts: &Facts<'_>, _: &Limits) -> Verdict {
    let mut found = Findings::default();
    let mut revisions = Highest::default();
    let mut versions: HashMap<KeyId, Highest> = HashMap::new();
    for (by, operation) in facts.operations.iter().enumerate() {
        if let (Some(completed_ns), Some(revision)) =
            (operation.completed_ns, revision_of(operation))
        {
            revisions.0.push((completed_ns, revision, by));
        }
    }
    revisions.sort();
    for change in facts.changes.iter().filter(|change| change.outcome == Outcome::Ok) {
        if let (Some(version), Some(at)) =
            (change.version, facts.operations[change.by].completed_ns)
        {
            versions.entry(change.key).or_default().0.push((at, version, change.by));
        }
    }
    versions.values_mut().for_each(Highest::sort);
    for (by, operation) in facts.operations.iter().enumerate() {
        let (Some(read), Outcome::Ok) = (operation.call.read(), operation.outcome) else {
            continue;
        };
        if let (Some(least), Some(revision)) = (read.min_revision, operation.revision) {
            found.checked += 1;
            if revision < least {
                let sentence =
                    format!("a read that asked for revision {least} was answered as of {revision}");
                found.fail("min revision", None, [operation.id], sentence);
            }
        }
        let Some(bound_ms) = read.max_staleness_ms else { continue };
        let Some(since) = operation.invoked_ns.checked_sub(bound_ms.saturating_mul(NS_IN_MS))
        else {
            continue;
        };
        found.checked += 1;
        if let (Some(revision), Some((least, known))) =
            (operation.revision, revisions.before(since))
            && revision < least
        {
            found.fail(
                "too old",
                None,
                [facts.id(by), facts.id(known)],
                format!(
                    "a read bound to {bound_ms} ms was answered as of revision {revision}, and revision {least} had \
                     been acknowledged before that"
                ),
            );
            continue;
        }
        // Without trust in the revision that the answer names.
        if let (Call::Get { key, version: None, .. }, Some(Answer::Entry { entry: Some(entry) })) =
            (&operation.call, &operation.answer)
            && let Some(id) = facts.key_id(key)
            && let Some((least, known)) = versions.get(&id).and_then(|known| known.before(since))
            && entry.version < least
        {
            found.fail(
                "too old",
                Some(key),
                [facts.id(by), facts.id(known)],
                format!(
                    "a read bound to {bound_ms} ms was answered with version {}, and version {least} had been \
                     acknowledged before that",
                    entry.version
                ),
            );
        }
    }
    found.verdict()
}
