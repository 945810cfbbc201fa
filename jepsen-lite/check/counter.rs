//! Every acknowledged write counts exactly once, however often its request was sent: versions and sums count them.

use std::collections::HashMap;

use super::facts::{Facts, KeyId};
use super::{Findings, Limits, Verdict};
use crate::history::{Answer, Call, Operation, Outcome, Value};

pub(super) fn check(facts: &Facts<'_>, _: &Limits) -> Verdict {
    let mut found = Findings::default();
    requests(facts, &mut found);
    if !facts.partial() {
        versions(facts, &mut found);
    }
    sums(facts, &mut found);
    found.verdict()
}

/// One idempotency key is one request, and has one answer.
fn requests(facts: &Facts<'_>, found: &mut Findings) {
    let mut answered: HashMap<&str, &Operation> = HashMap::new();
    for operation in &facts.history.operations {
        let (Some(request), Outcome::Ok) = (operation.call.idempotency_key(), operation.outcome)
        else {
            continue;
        };
        let first = *answered.entry(request).or_insert(operation);
        if first.id == operation.id {
            continue;
        }
        found.checked += 1;
        let ids = [first.id, operation.id];
        if first.call != operation.call && clock_moved(facts, first, operation) {
            continue;
        }
        if first.call != operation.call {
            let sentence =
                format!("two different requests under the idempotency key {request} were accepted");
            found.fail("one request", None, ids, sentence);
        } else if (first.revision, &first.answer) != (operation.revision, &operation.answer) {
            let sentence = format!(
                "the request of the idempotency key {request} was answered as of revision {} and as of revision {}",
                first.revision.unwrap_or(0),
                operation.revision.unwrap_or(0)
            );
            found.fail("one answer", None, ids, sentence);
        }
    }
}

/// Whether a clock may have jumped between two requests: the time for which a key is remembered may have been over.
fn clock_moved(facts: &Facts<'_>, first: &Operation, second: &Operation) -> bool {
    let end = second.completed_ns.unwrap_or(u64::MAX);
    facts.history.faults.iter().any(|fault| {
        let over = fault.to_ns.is_some_and(|over| over < first.invoked_ns);
        fault.name.starts_with("clock") && fault.from_ns <= end && !over
    })
}

/// An entry has no more versions than there were writes of it.
fn versions(facts: &Facts<'_>, found: &mut Findings) {
    let mut begun: HashMap<KeyId, Vec<(u64, usize)>> = HashMap::new();
    for change in facts.changes.iter().filter(|change| change.outcome != Outcome::Fail) {
        let times = begun.entry(change.key).or_default();
        times.push((facts.operations[change.by].invoked_ns, change.by));
    }
    for times in begun.values_mut() {
        times.sort_unstable();
        // A transaction whose outcome is unknown has the entry in one of its lists only.
        times.dedup_by_key(|(_, by)| *by);
    }
    let seen = facts.sightings.iter().map(|seen| (seen.key, seen.version, seen.by));
    let made = facts.changes.iter().filter_map(|made| Some((made.key, made.version?, made.by)));
    for (key, version, by) in seen.chain(made) {
        let (Some(times), Some(completed_ns)) =
            (begun.get(&key), facts.operations[by].completed_ns)
        else {
            continue;
        };
        found.checked += 1;
        let writes = times.partition_point(|(invoked_ns, _)| *invoked_ns <= completed_ns);
        if version > writes as u64 {
            found.fail(
                "counted twice",
                Some(facts.name(key)),
                [facts.id(by)],
                format!("version {version} was seen when only {writes} writes had begun"),
            );
        }
    }
}

/// What was added to a number, by time.
#[derive(Debug, Default)]
struct Added {
    /// When an addition began that happened or may have, and how much.
    begun: Vec<(u64, u64)>,
    /// When one was acknowledged.
    done: Vec<(u64, u64)>,
    /// The sums that were answered.
    sums: HashMap<u64, u64>,
    /// Something else writes the entry.
    mixed: bool,
}

fn sums(facts: &Facts<'_>, found: &mut Findings) {
    let mut numbers: HashMap<&str, Added> = HashMap::new();
    for operation in &facts.operations {
        let Call::Increment { key, by } = &operation.call else { continue };
        let number = numbers.entry(key).or_default();
        if operation.outcome == Outcome::Fail {
            continue;
        }
        number.begun.push((operation.invoked_ns, *by));
        if let (Outcome::Ok, Some(completed_ns)) = (operation.outcome, operation.completed_ns) {
            number.done.push((completed_ns, *by));
        }
        if let Some(Answer::Written { value: Some(sum), .. }) = &operation.answer
            && let Some(sum) = sum.as_u64()
            && let Some(other) = number.sums.insert(sum, operation.id)
            && *by > 0
        {
            found.fail(
                "lost",
                Some(key),
                [other, operation.id],
                format!("two additions made the sum {sum}"),
            );
        }
    }
    for operation in &facts.operations {
        if matches!(operation.call, Call::Increment { .. } | Call::Get { .. }) {
            continue;
        }
        if operation.call.is_write() {
            for key in operation.call.keys() {
                if let Some(number) = numbers.get_mut(key) {
                    number.mixed = true;
                }
            }
        }
    }
    for number in numbers.values_mut() {
        running(&mut number.begun);
        running(&mut number.done);
    }
    for operation in facts.operations.iter().filter(|op| op.outcome == Outcome::Ok) {
        match (&operation.call, &operation.answer) {
            (Call::Get { key, read, version: None }, Some(Answer::Entry { entry })) => {
                let Some(number) = numbers.get(key.as_str()) else { continue };
                let value = entry.as_ref().and_then(|entry| entry.value.as_ref());
                let linearizable = read.linearizable;
                bounds(facts, operation, key, number, value, 0, linearizable, found);
            }
            (Call::Increment { key, by }, Some(Answer::Written { value, .. })) => {
                let Some(number) = numbers.get(key.as_str()) else { continue };
                bounds(facts, operation, key, number, value.as_ref(), *by, true, found);
            }
            (Call::List { .. }, Some(Answer::Entries { entries })) => {
                for keyed in entries {
                    let Some(number) = numbers.get(keyed.key.as_str()) else { continue };
                    let value = keyed.entry.value.as_ref();
                    let linearizable = operation.call.read().is_some_and(|read| read.linearizable);
                    bounds(facts, operation, &keyed.key, number, value, 0, linearizable, found);
                }
            }
            _ => {}
        }
    }
}

/// Sorts by time, and turns amounts into sums so far.
fn running(amounts: &mut [(u64, u64)]) {
    amounts.sort_unstable();
    let mut sum = 0_u64;
    for (_, amount) in amounts {
        sum = sum.saturating_add(*amount);
        *amount = sum;
    }
}

/// A sum that was seen has everything that was acknowledged before, and nothing that had not begun.
#[expect(clippy::too_many_arguments, reason = "one comparison, called from three kinds of answers")]
fn bounds(
    facts: &Facts<'_>,
    operation: &Operation,
    key: &str,
    number: &Added,
    value: Option<&Value>,
    own: u64,
    linearizable: bool,
    found: &mut Findings,
) {
    if number.mixed {
        return;
    }
    let sum = value.map_or(Some(0), Value::as_u64);
    let Some(sum) = sum else {
        let sentence = "a number that is added to is no whole number".to_owned();
        return found.fail("lost", Some(key), [operation.id], sentence);
    };
    found.checked += 1;
    let upto = |amounts: &[(u64, u64)], count: usize| {
        count.checked_sub(1).and_then(|last| amounts.get(last)).map_or(0, |(_, sum)| *sum)
    };
    let done = number.done.partition_point(|(at, _)| *at < operation.invoked_ns);
    let least = upto(&number.done, done).saturating_add(own);
    if linearizable && sum < least {
        let sentence = format!("{sum} was seen, when {least} had been added and acknowledged");
        found.fail("lost", Some(key), [operation.id], sentence);
    }
    let completed_ns = operation.completed_ns.unwrap_or(u64::MAX);
    let begun = number.begun.partition_point(|(at, _)| *at <= completed_ns);
    let most = upto(&number.begun, begun);
    if !facts.partial() && sum > most {
        let sentence = format!("{sum} was seen, when no more than {most} can have been added");
        found.fail("counted twice", Some(key), [operation.id], sentence);
    }
}
