//! Durability: every acknowledged write is there when all is over, or what came after it.

use std::collections::HashMap;

use super::facts::{Effect, Facts, Index, KeyId};
use super::{Findings, Limits, Verdict};
use crate::history::{Answer, Call, Entry, Operation, Outcome};

pub(super) fn check(facts: &Facts<'_>, _: &Limits) -> Verdict {
    let mut found = Findings::default();
    // Of each entry, the last acknowledged version, and whether it is a delete.
    let mut acknowledged: HashMap<KeyId, (u64, Index, bool)> = HashMap::new();
    for change in facts.changes.iter().filter(|change| change.outcome == Outcome::Ok) {
        let Some(version) = change.version else { continue };
        let made = (version, change.by, change.effect == Effect::Delete);
        let known = acknowledged.entry(change.key).or_insert(made);
        if version > known.0 {
            *known = made;
        }
    }
    replaced(facts, &mut found);
    let mut covered: HashMap<KeyId, Index> = HashMap::new();
    for (by, operation) in facts.operations.iter().enumerate() {
        if !operation.last || operation.outcome != Outcome::Ok {
            continue;
        }
        for (key, entry) in closing(facts, operation) {
            covered.insert(key, by);
            found.checked += 1;
            let Some((version, maker, deletes)) = acknowledged.get(&key).copied() else { continue };
            let lost = match entry {
                Some(entry) => entry.version < version,
                // A later delete explains it, known or without an answer.
                None => !deletes && !facts.partial() && !later_delete(facts, key, version),
            };
            if lost {
                let what = entry.map_or_else(
                    || "there is no entry".to_owned(),
                    |entry| format!("there is version {}", entry.version),
                );
                found.fail(
                    "lost",
                    Some(facts.name(key)),
                    [facts.id(maker), facts.id(by)],
                    format!(
                        "version {version} was acknowledged, and in the end {what} on node {}",
                        operation.node
                    ),
                );
            }
        }
    }
    if facts.header().closing && !facts.partial() && found.violations.is_empty() {
        let mut open = acknowledged.keys().filter(|key| !covered.contains_key(key));
        if let Some(key) = open.next() {
            return Verdict::Unknown {
                why: format!(
                    "no closing read covers {} and {} others",
                    facts.name(*key),
                    open.count()
                ),
            };
        }
    }
    found.verdict()
}

/// What a closing history has in the place of an acknowledged write is that write.
fn replaced(facts: &Facts<'_>, found: &mut Findings) {
    for (by, operation) in facts.operations.iter().enumerate() {
        let (Call::History { key, .. }, Some(Answer::Versions { versions }), true) =
            (&operation.call, &operation.answer, operation.last)
        else {
            continue;
        };
        let Some(id) = facts.key_id(key) else { continue };
        let kept: HashMap<u64, &Entry> =
            versions.iter().map(|entry| (entry.version, entry)).collect();
        for change in facts.changes_of(id).filter(|change| change.outcome == Outcome::Ok) {
            let (Some(version), Some(revision)) = (change.version, change.revision) else {
                continue;
            };
            // Older ones may be forgotten; that later ones are there is looked at elsewhere.
            let Some(entry) = kept.get(&version) else { continue };
            found.checked += 1;
            let value = facts.shown_as(id, entry);
            if entry.revision == revision && change.effect.can_be(value) {
                continue;
            }
            found.fail(
                "replaced",
                Some(key),
                [facts.id(change.by), facts.id(by)],
                format!(
                    "version {version} was acknowledged with revision {revision}, and in the end it is {} of revision {}",
                    facts.show(value),
                    entry.revision
                ),
            );
        }
    }
}

fn later_delete(facts: &Facts<'_>, key: KeyId, version: u64) -> bool {
    let known = facts.log[key as usize]
        .iter()
        .any(|point| point.version > version && point.value.is_none());
    known
        || facts
            .changes_of(key)
            .any(|change| change.outcome == Outcome::Unknown && change.effect == Effect::Delete)
}

/// The entries that a closing read found or missed.
fn closing<'o>(facts: &Facts<'_>, operation: &'o Operation) -> Vec<(KeyId, Option<&'o Entry>)> {
    match (&operation.call, &operation.answer) {
        (Call::Get { key, version: None, .. }, Some(Answer::Entry { entry })) => {
            facts.key_id(key).map(|key| (key, entry.as_ref())).into_iter().collect()
        }
        (Call::History { key, .. }, Some(Answer::Versions { versions })) => {
            facts.key_id(key).map(|key| (key, versions.first())).into_iter().collect()
        }
        (Call::List { scope, .. }, Some(Answer::Entries { entries })) => {
            let mut found: HashMap<KeyId, Option<&Entry>> =
                facts.in_scope(scope).into_iter().map(|key| (key, None)).collect();
            for keyed in entries {
                if let Some(key) = facts.key_id(&keyed.key) {
                    found.insert(key, Some(&keyed.entry));
                }
            }
            let mut found: Vec<_> = found.into_iter().collect();
            found.sort_by_key(|(key, _)| *key);
            found
        }
        _ => Vec::new(),
    }
}
