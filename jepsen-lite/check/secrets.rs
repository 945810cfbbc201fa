//! Secrets: nobody sees one who did not ask for it, whoever asks sees it, and what the store has let go of does not come
//! back, on no node and after no failover. Whether it is the right one, the other checkers say, for which it is a value.

use std::collections::HashMap;

use super::facts::{Facts, Index};
use super::{Findings, Limits, Verdict};
use crate::history::{
    Answer, Call, Entry, MASK, Operation, Outcome, TxnResult, Value, secret_name, shown_name,
};

pub(super) fn check(facts: &Facts<'_>, _: &Limits) -> Verdict {
    let mut found = Findings::default();
    let gone = Gone::of(facts);
    for (by, operation) in facts.operations.iter().enumerate() {
        if operation.outcome != Outcome::Ok {
            continue;
        }
        for (key, entry) in entries(operation) {
            let Some(value) = &entry.value else { continue };
            masked(facts, by, key, value, &mut found);
            if let Some(revision) = operation.revision {
                gone.compare(facts, by, key, entry.version, revision, &mut found);
            }
        }
    }
    found.verdict()
}

/// What an answer shows, with what it is about.
fn entries(operation: &Operation) -> Vec<(&str, &Entry)> {
    let own = operation.call.keys().into_iter().next().unwrap_or_default();
    match &operation.answer {
        Some(Answer::Entry { entry: Some(entry) }) => vec![(own, entry)],
        Some(Answer::Versions { versions }) => versions.iter().map(|entry| (own, entry)).collect(),
        Some(Answer::Entries { entries } | Answer::Events { events: entries, .. }) => {
            entries.iter().map(|keyed| (keyed.key.as_str(), &keyed.entry)).collect()
        }
        Some(Answer::Txn { results, .. }) => {
            let got = results.iter().filter_map(|result| match result {
                TxnResult::Got { entry } => entry.as_ref(),
                TxnResult::Written { .. } => None,
            });
            got.map(|entry| ("", entry)).collect()
        }
        _ => Vec::new(),
    }
}

fn masked(facts: &Facts<'_>, by: Index, key: &str, value: &Value, found: &mut Findings) {
    let operation = &facts.operations[by];
    let reveals = operation.call.read().is_some_and(|read| read.reveal);
    let secret = secret_name(value).is_some() || shown_name(value).is_some() || value == MASK;
    if !secret {
        return;
    }
    found.checked += 1;
    let what = operation.call.kind();
    if let Some(name) = shown_name(value).or(secret_name(value).filter(|_| !reveals)) {
        let sentence = format!("a {what} that did not ask for it shows the secret {name}");
        found.fail("shown", Some(key), [facts.id(by)], sentence);
    } else if reveals && value == MASK {
        let sentence = "a secret that was asked for is masked".to_owned();
        found.fail("not opened", Some(key), [facts.id(by)], sentence);
    }
}

/// Of each entry, which versions were said to be gone, and when: those below a number, or a single one.
#[derive(Debug, Default)]
struct Gone<'h>(HashMap<&'h str, Vec<Missing>>);

#[derive(Debug)]
struct Missing {
    from: u64,
    to: u64,
    revision: u64,
    completed_ns: u64,
    by: Index,
}

impl<'h> Gone<'h> {
    fn of(facts: &'h Facts<'_>) -> Self {
        let mut gone = Self::default();
        for (by, operation) in facts.operations.iter().enumerate() {
            let (Outcome::Ok, Some(revision), Some(completed_ns)) =
                (operation.outcome, operation.revision, operation.completed_ns)
            else {
                continue;
            };
            let (key, from, to) = match (&operation.call, &operation.answer) {
                (Call::History { key, .. }, Some(Answer::Versions { versions })) => {
                    let Some(oldest) = versions.last().filter(|oldest| oldest.version > 1) else {
                        continue;
                    };
                    (key, 1, oldest.version - 1)
                }
                // It is absent now; that it was there, others say.
                (
                    Call::Get { key, version: Some(version), .. },
                    Some(Answer::Entry { entry: None }),
                ) => (key, *version, *version),
                _ => continue,
            };
            let missing = Missing { from, to, revision, completed_ns, by };
            gone.0.entry(key).or_default().push(missing);
        }
        gone
    }

    fn compare(
        &self,
        facts: &Facts<'_>,
        by: Index,
        key: &str,
        version: u64,
        revision: u64,
        found: &mut Findings,
    ) {
        let missing = self.0.get(key).map(Vec::as_slice).unwrap_or_default();
        let operation = &facts.operations[by];
        let contradicts = |missing: &&Missing| {
            (missing.from..=missing.to).contains(&version)
                && missing.revision <= revision
                && missing.completed_ns < operation.invoked_ns
        };
        // A version that is not there yet is no version that is gone.
        let made = |missing: &&Missing| {
            let key = facts.key_id(key);
            let point = key.and_then(|key| facts.version(key, version));
            point.is_some_and(|point| point.revision <= missing.revision)
        };
        if let Some(missing) = missing.iter().filter(contradicts).find(made) {
            let sentence =
                format!("version {version} was gone, and is read again at node {}", operation.node);
            found.fail("came back", Some(key), [facts.id(by), facts.id(missing.by)], sentence);
        }
    }
}
