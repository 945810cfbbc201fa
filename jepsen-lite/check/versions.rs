//! The versions of an entry: they count from 1 without gap or repeat, mean one value for ever, and rise with the revision,
//! also over a delete.

use std::collections::HashMap;

use super::facts::{Facts, Index, KeyId, MASKED};
use super::{Findings, Limits, Verdict};
use crate::history::{Answer, Call, Entry, Outcome};

pub(super) fn check(facts: &Facts<'_>, _: &Limits) -> Verdict {
    let mut found = Findings::default();
    for contradiction in &facts.contradictions {
        let (first, second) = (&contradiction.first, &contradiction.second);
        found.fail(
            "one meaning",
            Some(facts.name(contradiction.key)),
            [facts.id(first.witness), facts.id(second.witness)],
            format!(
                "version {} of revision {} is {} to one and version {} of revision {} is {} to another{}",
                first.version,
                first.revision,
                facts.show(first.value),
                second.version,
                second.revision,
                facts.show(second.value),
                if first.maker.is_some() && second.maker.is_some() { ", who both made it" } else { "" },
            ),
        );
    }
    for key in facts.key_ids() {
        rising(facts, key, &mut found);
        expected(facts, key, &mut found);
    }
    histories(facts, &mut found);
    rollbacks(facts, &mut found);
    found.verdict()
}

/// A later revision has a later version; what was expected of the version before was so.
fn rising(facts: &Facts<'_>, key: KeyId, found: &mut Findings) {
    let log = &facts.log[key as usize];
    if let Some(first) = log.first()
        && first.version == 0
    {
        found.fail(
            "from 1",
            Some(facts.name(key)),
            [facts.id(first.witness)],
            "version 0 is no version".to_owned(),
        );
    }
    for pair in log.windows(2) {
        found.checked += 1;
        let [before, after] = pair else { continue };
        if after.version <= before.version {
            found.fail(
                "reused",
                Some(facts.name(key)),
                [facts.id(before.witness), facts.id(after.witness)],
                format!(
                    "revision {} has version {}, and the later revision {} has version {}",
                    before.revision, before.version, after.revision, after.version
                ),
            );
        }
    }
}

/// An acknowledged write on an expected version made the next one of it.
fn expected(facts: &Facts<'_>, key: KeyId, found: &mut Findings) {
    for change in facts.changes_of(key).filter(|change| change.outcome == Outcome::Ok) {
        let (Call::Set { expected_version, .. } | Call::Delete { expected_version, .. }) =
            &facts.operations[change.by].call
        else {
            continue;
        };
        let (Some(expected), Some(version)) = (*expected_version, change.version) else {
            continue;
        };
        found.checked += 1;
        let before = version.checked_sub(1);
        let point = before.and_then(|before| facts.version(key, before));
        let wrong = if expected == 0 {
            point.is_some_and(|point| point.value.is_some())
        } else {
            before != Some(expected) || point.is_some_and(|point| point.value.is_none())
        };
        if wrong {
            let also = point.map(|point| facts.id(point.witness));
            found.fail(
                "expected version",
                Some(facts.name(key)),
                std::iter::once(facts.id(change.by)).chain(also),
                format!("a write that expected version {expected} made version {version}"),
            );
        }
    }
}

/// What the store keeps of an entry's past is all of it, up to the limit.
fn histories(facts: &Facts<'_>, found: &mut Findings) {
    // Of each entry, what was acknowledged, by time: the highest version up to then.
    let mut acknowledged: HashMap<KeyId, Vec<(u64, u64, Index)>> = HashMap::new();
    for change in &facts.changes {
        let completed_ns = facts.operations[change.by].completed_ns;
        if let (Outcome::Ok, Some(version), Some(at)) =
            (change.outcome, change.version, completed_ns)
        {
            acknowledged.entry(change.key).or_default().push((at, version, change.by));
        }
    }
    for (by, operation) in facts.operations.iter().enumerate() {
        let (Call::History { key, read }, Some(Answer::Versions { versions }), Outcome::Ok) =
            (&operation.call, &operation.answer, operation.outcome)
        else {
            continue;
        };
        found.checked += versions.len() as u64;
        for pair in versions.windows(2) {
            let [newer, older] = pair else { continue };
            if older.version.checked_add(1) != Some(newer.version) {
                found.fail(
                    "gap",
                    Some(key),
                    [facts.id(by)],
                    format!(
                        "a history has version {} next to version {}",
                        newer.version, older.version
                    ),
                );
            }
            if older.revision >= newer.revision {
                found.fail(
                    "reused",
                    Some(key),
                    [facts.id(by)],
                    format!(
                        "version {} is of revision {}, and version {} of revision {}",
                        newer.version, newer.revision, older.version, older.revision
                    ),
                );
            }
        }
        // Of an entry that was deleted long ago, only the delete is kept.
        let limit = facts.header().history_limit;
        if let Some(oldest) = versions.last()
            && oldest.version != 1
            && oldest.value.is_some()
            && (versions.len() as u64) < limit
        {
            found.fail(
                "forgotten",
                Some(key),
                [facts.id(by)],
                format!(
                    "a history ends with version {}, and has {} versions where {limit} are kept",
                    oldest.version,
                    versions.len()
                ),
            );
        }
        let highest = facts
            .key_id(key)
            .and_then(|key| acknowledged.get(&key))
            .into_iter()
            .flatten()
            .filter(|(at, _, _)| *at < operation.invoked_ns)
            .max_by_key(|(_, version, _)| *version);
        let newest = versions.first().map_or(0, |newest| newest.version);
        if let Some((_, version, maker)) = highest
            && read.linearizable
            && newest < *version
        {
            found.fail(
                "forgotten",
                Some(key),
                [facts.id(by), facts.id(*maker)],
                format!(
                    "a history ends at version {newest}, after version {version} was acknowledged"
                ),
            );
        }
    }
}

/// A rollback makes a new version with the old value.
fn rollbacks(facts: &Facts<'_>, found: &mut Findings) {
    for (by, operation) in facts.operations.iter().enumerate() {
        let (
            Call::Rollback { key, to_version, .. },
            Some(Answer::Written { version, value: Some(value) }),
            Outcome::Ok,
        ) = (&operation.call, &operation.answer, operation.outcome)
        else {
            continue;
        };
        let Some(id) = facts.key_id(key) else { continue };
        let Some(point) = facts.version(id, *to_version) else { continue };
        found.checked += 1;
        let made = Entry { version: *version, revision: 0, value: Some(value.clone()) };
        let written = facts.shown_as(id, &made);
        if point.value != written && ![point.value, written].contains(&Some(MASKED)) {
            let shown = facts.show(written);
            found.fail(
                "rollback",
                Some(key),
                [facts.id(by), facts.id(point.witness)],
                format!(
                    "a rollback to version {to_version} wrote {shown}, where that version is {}",
                    facts.show(point.value)
                ),
            );
        }
    }
}
