//! Transactions: all of one happens or nothing, at one revision, on the versions that it compared; and what they must keep,
//! every reader finds kept.

use std::collections::{BTreeSet, HashMap};

use super::facts::{Change, Effect, Facts, Index, State};
use super::revision::changes;
use super::{Findings, Limits, Verdict};
use crate::history::{Answer, Call, Entry, Operation, Outcome, TxnOp, TxnResult};

pub(super) fn check(facts: &Facts<'_>, _: &Limits) -> Verdict {
    let mut found = Findings::default();
    for (by, operation) in facts.operations.iter().enumerate() {
        if operation.outcome == Outcome::Ok {
            compared(facts, by, operation, &mut found);
            sums(facts, operation, &mut found);
        }
    }
    // In a part of a history, somebody who is not in it may have written the same values.
    if !facts.partial() {
        whole(facts, &mut found);
    }
    found.verdict()
}

/// A transaction that succeeded found what it compared; one that did not, missed something.
fn compared(facts: &Facts<'_>, by: Index, operation: &Operation, found: &mut Findings) {
    let (Call::Txn { compare, .. }, Some(Answer::Txn { succeeded, .. }), Some(revision)) =
        (&operation.call, &operation.answer, operation.revision)
    else {
        return;
    };
    let before = if changes(operation) { revision.saturating_sub(1) } else { revision };
    let mut held = true;
    let mut certain = true;
    for compare in compare {
        let Some(key) = facts.key_id(&compare.key) else { continue };
        let state: State<'_> = facts.at(key, before);
        let holds = state.version() == compare.version;
        held &= holds;
        certain &= state.is_certain();
        if *succeeded && !holds && state.is_certain() {
            let also = state.point.map(|point| facts.id(point.witness));
            found.fail(
                "compare",
                Some(&compare.key),
                std::iter::once(facts.id(by)).chain(also),
                format!(
                    "a transaction at revision {revision} found version {}, where version {} was",
                    compare.version,
                    state.version()
                ),
            );
        }
    }
    found.checked += 1;
    if !*succeeded && held && certain {
        found.fail(
            "compare",
            None,
            [facts.id(by)],
            format!(
                "a transaction at revision {revision} missed what it compared, and all of it was so"
            ),
        );
    }
}

/// A transaction without an answer happened at one revision with all its changes, or not at all.
fn whole(facts: &Facts<'_>, found: &mut Findings) {
    let mut of: HashMap<Index, Vec<&Change>> = HashMap::new();
    for change in &facts.changes {
        let operation = &facts.operations[change.by];
        if matches!(operation.call, Call::Txn { .. }) && operation.outcome == Outcome::Unknown {
            of.entry(change.by).or_default().push(change);
        }
    }
    for (by, changes) in of {
        let Call::Txn { success, failure, .. } = &facts.operations[by].call else { continue };
        found.checked += 1;
        // Where a value is that nobody else writes, there it happened.
        let mut at: BTreeSet<u64> = BTreeSet::new();
        for change in &changes {
            let Effect::Value(value) = change.effect else { continue };
            let mut same = facts.changes_of(change.key).filter(|other| {
                other.by != by
                    && matches!(other.effect, Effect::Any | Effect::Value(_))
                    && other.effect.can_be(Some(value))
            });
            if same.next().is_some() {
                continue;
            }
            let log = &facts.log[change.key as usize];
            at.extend(log.iter().filter(|p| p.value == Some(value)).map(|p| p.revision));
        }
        if at.len() > 1 {
            found.fail(
                "torn",
                None,
                [facts.id(by)],
                format!("a transaction happened at several revisions: {at:?}"),
            );
            continue;
        }
        let Some(revision) = at.first().copied() else { continue };
        let torn = |list: &[TxnOp]| -> Option<String> {
            list.iter().filter(|op| !matches!(op, TxnOp::Get { .. })).find_map(|op| {
                let key = facts.key_id(op.key())?;
                let state = facts.at(key, revision);
                let here = state.point.is_some_and(|point| point.revision == revision);
                (!here && state.is_certain()).then(|| op.key().to_owned())
            })
        };
        // It was one of the lists, and which is known only by what it left.
        let torn = match (torn(success), torn(failure)) {
            (Some(key), _) if failure.iter().all(|op| matches!(op, TxnOp::Get { .. })) => Some(key),
            (Some(key), Some(_)) => Some(key),
            _ => None,
        };
        if let Some(key) = torn {
            found.fail(
                "torn",
                Some(&key),
                [facts.id(by)],
                format!(
                    "a transaction happened at revision {revision} and left one of its changes out"
                ),
            );
        }
    }
}

/// Whoever sees all numbers of a sum at one revision sees their sum.
fn sums(facts: &Facts<'_>, operation: &Operation, found: &mut Findings) {
    let mut seen: HashMap<&str, Option<&Entry>> = HashMap::new();
    match (&operation.call, &operation.answer) {
        (Call::List { scope, .. }, Some(Answer::Entries { entries }))
            if operation.revision.is_some() =>
        {
            for sum in &facts.header().sums {
                seen.extend(
                    sum.keys
                        .iter()
                        .filter(|key| scope.contains(key))
                        .map(|key| (key.as_str(), None)),
                );
            }
            seen.extend(entries.iter().map(|keyed| (keyed.key.as_str(), Some(&keyed.entry))));
        }
        (Call::Txn { success, failure, .. }, Some(Answer::Txn { succeeded, results })) => {
            let done = if *succeeded { success } else { failure };
            // After a write of its own, a transaction may see what is not there yet as a whole.
            let reads = done.iter().zip(results).map_while(|(op, result)| match result {
                TxnResult::Got { entry } => Some((op.key(), entry.as_ref())),
                TxnResult::Written { .. } => None,
            });
            seen.extend(reads);
        }
        _ => return,
    }
    for sum in &facts.header().sums {
        let entries: Option<Vec<_>> =
            sum.keys.iter().map(|key| seen.get(key.as_str()).copied()).collect();
        let Some(entries) = entries else { continue };
        if entries.iter().all(Option::is_none) {
            continue;
        }
        found.checked += 1;
        let numbers = entries.iter().map(|entry| entry.and_then(|e| e.value.as_ref()?.as_i64()));
        let total: Option<i64> = numbers.sum();
        if total != Some(sum.total) {
            let total = total.map_or_else(|| "a part of it".to_owned(), |total| total.to_string());
            found.fail(
                "sum",
                sum.keys.first().map(String::as_str),
                [operation.id],
                format!("{total} was seen where all numbers together are {}", sum.total),
            );
        }
    }
}
