//! The order of revisions, over the whole store: it is the order of time, one write has one revision, and replaying the
//! writes in this order gives what every read answered, cached reads included.
//!
//! It trusts the revisions that answers name, and so does not share a mistake with the search for an order.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::facts::{Effect, Facts, Index, KeyId, Point};
use super::{Findings, Limits, Verdict};
use crate::history::{Answer, Call, Entry, Operation, Outcome, Scope, TxnOp, TxnResult};

pub(super) fn check(facts: &Facts<'_>, _: &Limits) -> Verdict {
    let mut found = Findings::default();
    let explained = explain(facts, &mut found);
    time(facts, &explained, &mut found);
    one_each(facts, &mut found);
    replay(facts, &mut found);
    found.verdict()
}

/// Whether an operation made a change.
pub(super) fn changes(operation: &Operation) -> bool {
    match (&operation.call, &operation.answer) {
        (Call::Txn { success, failure, .. }, Some(Answer::Txn { succeeded, .. })) => {
            let done = if *succeeded { success } else { failure };
            done.iter().any(|op| !matches!(op, TxnOp::Get { .. }))
        }
        (call, _) => call.is_write(),
    }
}

/// The revision that an operation shows to exist.
pub(super) fn revision_of(operation: &Operation) -> Option<u64> {
    if operation.outcome != Outcome::Ok {
        return None;
    }
    let shown = match &operation.answer {
        Some(Answer::Events { revision, .. }) => Some(*revision),
        Some(Answer::Entry { entry: Some(entry) }) => Some(entry.revision),
        Some(Answer::Entries { entries }) => entries.iter().map(|keyed| keyed.entry.revision).max(),
        Some(Answer::Versions { versions }) => versions.iter().map(|entry| entry.revision).max(),
        _ => None,
    };
    operation.revision.max(shown)
}

/// Finds out which write whose outcome is unknown made which change; and changes that nobody made.
fn explain(facts: &Facts<'_>, found: &mut Findings) -> HashMap<Index, u64> {
    let mut revisions: HashMap<Index, u64> = HashMap::new();
    for key in facts.key_ids() {
        let unknown: Vec<_> =
            facts.changes_of(key).filter(|change| change.outcome == Outcome::Unknown).collect();
        // An entry that nobody writes was there before; its changes are somebody else's.
        if facts.partial() || facts.changes_of(key).next().is_none() {
            continue;
        }
        let log = &facts.log[key as usize];
        let mut used: HashSet<Index> = HashSet::new();
        for point in log.iter().filter(|point| point.maker.is_none()) {
            let fitting: Vec<_> =
                unknown.iter().filter(|change| change.effect.can_be(point.value)).collect();
            match fitting.as_slice() {
                [] => {
                    let made = acknowledged(facts, key, point);
                    let also = made.map(|(by, _)| facts.id(by));
                    let sentence = match made {
                        Some((by, revision)) => format!(
                            "version {} at revision {} is operation {} a second time, which made revision {revision}",
                            point.version,
                            point.revision,
                            facts.id(by)
                        ),
                        None => format!(
                            "version {} at revision {} ({}) is what nobody wrote",
                            point.version,
                            point.revision,
                            facts.show(point.value)
                        ),
                    };
                    let rule = if made.is_some() { "applied twice" } else { "from nowhere" };
                    let named = std::iter::once(facts.id(point.witness)).chain(also);
                    found.fail(rule, Some(facts.name(key)), named, sentence);
                }
                [only] if only.effect != Effect::Any => {
                    if !used.insert(only.by) {
                        found.fail(
                            "applied twice",
                            Some(facts.name(key)),
                            [only.by, point.witness].map(|by| facts.id(by)),
                            format!(
                                "operation {} was sent once and made several versions, the last of them {}",
                                facts.id(only.by), point.version
                            ),
                        );
                    }
                    revisions.insert(only.by, point.revision);
                }
                _ => {}
            }
            found.checked += 1;
        }
        // Versions that nobody saw were made by writes that nobody heard of.
        let highest = log.iter().map(|point| point.version).max().unwrap_or(0);
        let unseen = highest.saturating_sub(log.len() as u64);
        let makers: HashSet<Index> = unknown.iter().map(|change| change.by).collect();
        let seen = log.iter().filter(|point| point.maker.is_none()).count();
        let possible = makers.len().saturating_sub(seen) as u64;
        if unseen > possible {
            let last = log.iter().max_by_key(|point| point.version);
            found.fail(
                "from nowhere",
                Some(facts.name(key)),
                last.map(|point| facts.id(point.witness)),
                format!(
                    "of {highest} versions {unseen} were never seen, and only {possible} writes without an \
                     answer can have made them"
                ),
            );
        }
    }
    revisions
}

/// The acknowledged write of the value of a point, if there is one only.
fn acknowledged(facts: &Facts<'_>, key: KeyId, point: &Point) -> Option<(Index, u64)> {
    let mut fitting = facts.changes_of(key).filter(|change| {
        change.outcome == Outcome::Ok
            && point.value.is_some_and(|value| change.effect == Effect::Value(value))
    });
    let change = fitting.next()?;
    fitting.next().is_none().then_some((change.by, change.revision?))
}

/// Whatever was over before something else began has a lower revision than it.
fn time(facts: &Facts<'_>, explained: &HashMap<Index, u64>, found: &mut Findings) {
    let mut events: Vec<(u64, bool, Index)> = Vec::new();
    for (by, operation) in facts.operations.iter().enumerate() {
        if operation.outcome == Outcome::Ok {
            events.push((operation.invoked_ns, false, by));
            events.extend(operation.completed_ns.map(|completed| (completed, true, by)));
        } else if explained.contains_key(&by) {
            events.push((operation.invoked_ns, false, by));
        }
    }
    // At the same moment, what begins comes first: it is concurrent with what ends.
    events.sort_unstable();
    let mut highest: Option<(u64, Index)> = None;
    for (_, ends, by) in events {
        let operation = &facts.operations[by];
        if ends {
            if let Some(revision) = revision_of(operation)
                && highest.is_none_or(|(highest, _)| revision > highest)
            {
                highest = Some((revision, by));
            }
            continue;
        }
        let writes = changes(operation);
        let linearizable = writes
            || matches!(operation.call, Call::Txn { .. })
            || operation.call.read().is_some_and(|read| read.linearizable);
        let revision = explained.get(&by).copied().or(operation.revision);
        let (Some((floor, floor_by)), Some(revision), true) = (highest, revision, linearizable)
        else {
            continue;
        };
        found.checked += 1;
        if revision < floor || (writes && revision == floor) {
            let (rule, what) =
                if writes { ("order of time", "made") } else { ("stale read", "answered as of") };
            found.fail(
                rule,
                None,
                [facts.id(by), facts.id(floor_by)],
                format!(
                    "operation {} ({}) {what} revision {revision}, and began after operation {} had shown revision {floor}",
                    facts.id(by), operation.call.kind(), facts.id(floor_by)
                ),
            );
        }
    }
}

/// No revision is made by two operations.
fn one_each(facts: &Facts<'_>, found: &mut Findings) {
    let mut made: HashMap<u64, Index> = HashMap::new();
    for (by, operation) in facts.operations.iter().enumerate() {
        if operation.outcome != Outcome::Ok || !changes(operation) {
            continue;
        }
        let Some(revision) = operation.revision else { continue };
        found.checked += 1;
        if let Some(other) = made.insert(revision, by) {
            found.fail(
                "one revision",
                None,
                [facts.id(other), facts.id(by)],
                format!("two writes made revision {revision}"),
            );
        }
    }
}

/// Every read is what the replay has at its revision.
fn replay(facts: &Facts<'_>, found: &mut Findings) {
    let mut scopes: BTreeMap<&Scope, Vec<KeyId>> = BTreeMap::new();
    for (by, operation) in facts.operations.iter().enumerate() {
        let (Outcome::Ok, Some(revision)) = (operation.outcome, operation.revision) else {
            continue;
        };
        match (&operation.call, &operation.answer) {
            (Call::Get { key, version: None, .. }, Some(Answer::Entry { entry })) => {
                let Some(key) = facts.key_id(key) else { continue };
                one(facts, by, key, entry.as_ref(), revision, found);
            }
            (Call::Get { key, version: Some(asked), .. }, Some(Answer::Entry { entry })) => {
                let Some(entry) = entry else { continue };
                if entry.version != *asked || entry.revision > revision {
                    found.fail(
                        "replay",
                        Some(key),
                        [facts.id(by)],
                        format!(
                            "version {asked} was asked for at revision {revision}, and version {} of revision {} answered",
                            entry.version, entry.revision
                        ),
                    );
                }
            }
            (Call::History { key, .. }, Some(Answer::Versions { versions })) => {
                let Some(key) = facts.key_id(key) else { continue };
                match versions.first() {
                    Some(newest) if newest.value.is_some() => {
                        one(facts, by, key, Some(newest), revision, found);
                    }
                    newest => deleted(facts, by, key, newest, revision, found),
                }
            }
            (Call::List { scope, .. }, Some(Answer::Entries { entries })) => {
                let keys = scopes.entry(scope).or_insert_with(|| facts.in_scope(scope));
                let mut listed: HashMap<KeyId, &Entry> = HashMap::new();
                for keyed in entries {
                    let Some(key) = facts.key_id(&keyed.key) else { continue };
                    if !scope.contains(&keyed.key) || listed.insert(key, &keyed.entry).is_some() {
                        found.fail(
                            "replay",
                            Some(&keyed.key),
                            [facts.id(by)],
                            "a list has an entry twice, or one that was not asked for".to_owned(),
                        );
                    }
                }
                for key in keys.iter() {
                    one(facts, by, *key, listed.get(key).copied(), revision, found);
                }
            }
            (Call::Txn { success, failure, .. }, Some(Answer::Txn { succeeded, results })) => {
                let done = if *succeeded { success } else { failure };
                let before = if changes(operation) { revision.saturating_sub(1) } else { revision };
                let mut written: HashSet<&str> = HashSet::new();
                for (op, result) in done.iter().zip(results) {
                    match result {
                        TxnResult::Written { .. } => {
                            written.insert(op.key());
                        }
                        TxnResult::Got { entry } if !written.contains(op.key()) => {
                            let Some(key) = facts.key_id(op.key()) else { continue };
                            one(facts, by, key, entry.as_ref(), before, found);
                        }
                        TxnResult::Got { .. } => {}
                    }
                }
            }
            _ => {}
        }
    }
}

/// One entry, or its absence, at one revision.
fn one(
    facts: &Facts<'_>,
    by: Index,
    key: KeyId,
    entry: Option<&Entry>,
    revision: u64,
    found: &mut Findings,
) {
    let Some(entry) = entry else {
        return deleted(facts, by, key, None, revision, found);
    };
    found.checked += 1;
    let name = Some(facts.name(key));
    if entry.revision > revision {
        return found.fail(
            "replay",
            name,
            [facts.id(by)],
            format!(
                "an answer as of revision {revision} has a version of revision {}",
                entry.revision
            ),
        );
    }
    let Some(point) = facts.at(key, revision).point else { return };
    if (point.version, point.revision) == (entry.version, entry.revision) {
        // What a version is, is for the checker of versions; but this read is wrong too.
        let value = facts.shown_as(key, entry);
        if point.value != value {
            found.fail(
                "replay",
                name,
                [facts.id(by), facts.id(point.witness)],
                format!(
                    "version {} was read as {}, and is {}",
                    entry.version,
                    facts.show(value),
                    facts.show(point.value)
                ),
            );
        }
        return;
    }
    found.fail(
        "replay",
        name,
        [facts.id(by), facts.id(point.witness)],
        format!(
            "at revision {revision} version {} was answered, where version {} of revision {} is",
            entry.version, point.version, point.revision
        ),
    );
}

/// The absence of an entry at a revision.
fn deleted(
    facts: &Facts<'_>,
    by: Index,
    key: KeyId,
    newest: Option<&Entry>,
    revision: u64,
    found: &mut Findings,
) {
    found.checked += 1;
    let state = facts.at(key, revision);
    let Some(point) = state.point else { return };
    if point.value.is_none() && newest.is_none_or(|newest| newest.version == point.version) {
        return;
    }
    // Somebody whose answer was lost may have deleted it.
    let completed_ns = facts.operations[by].completed_ns.unwrap_or(u64::MAX);
    let may_be_deleted = facts.partial()
        || facts.changes_of(key).any(|change| {
            change.outcome == Outcome::Unknown
                && change.effect == Effect::Delete
                && facts.operations[change.by].invoked_ns <= completed_ns
        });
    if may_be_deleted && !state.is_certain() {
        return;
    }
    found.fail(
        "replay",
        Some(facts.name(key)),
        [facts.id(by), facts.id(point.witness)],
        format!(
            "at revision {revision} there is no entry, where version {} of revision {} ({}) is",
            point.version,
            point.revision,
            facts.show(point.value)
        ),
    );
}
