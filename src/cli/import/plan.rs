//! What an import has to do to make the entries those of the file, each against the version that was seen.
//!
//! Whether a secret has a value already cannot be told, so it is written each time. Where the file has the mask that is
//! shown instead of a secret, nothing is: that is no value that anybody wanted.

use std::collections::{BTreeSet, HashSet};

use llm_config_client::v1;
use llm_config_client::v1::txn_op::Op;
use prost::Message as _;

use crate::diff::{Preview, State};
use crate::document::Entries;
use crate::export::{Current, Snapshot};
use crate::json::{self, MASK};
use crate::txn::{BYTES_MAX, OPERATIONS_MAX};

/// Where the entries belong, and why they change.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) namespace: &'a str,
    pub(super) environment: &'a str,
    pub(super) comment: &'a str,
}

/// One entry to write or delete, if it is still at the version that was seen.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) key: String,
    pub(super) compare: v1::Compare,
    pub(super) op: v1::TxnOp,
}

#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) steps: Vec<Step>,
    pub(super) preview: Preview,
    /// Secrets that are masked in the file, and stay what they are.
    pub(super) masked: usize,
    /// Keys that are masked in the file, and are no secrets here: what belongs there is not known.
    pub(super) unknown: Vec<String>,
}

impl Plan {
    pub(super) fn deletes(&self) -> usize {
        self.preview.changes.iter().filter(|change| change.action == "delete").count()
    }
}

/// `done` are the keys that need no more looking at; with `replace`, keys that are not wanted go.
pub(super) fn plan(
    wanted: &Entries,
    there: &Snapshot,
    place: Place<'_>,
    replace: bool,
    done: &HashSet<String>,
) -> Plan {
    let mut plan = Plan::default();
    for (key, value) in wanted.iter().filter(|(key, _)| !done.contains(key)) {
        let current = there.entries.get(key);
        let secret = current.is_some_and(|current| current.entry.secret);
        if json::compact(value) == MASK {
            if secret {
                plan.masked += 1;
            } else {
                plan.unknown.push(key.clone());
            }
            continue;
        }
        let before = current.map(state);
        let changes = plan.preview.changes.len();
        let at = (place.namespace, key.as_str(), place.environment);
        plan.preview.add(at, before.as_ref(), Some((value, secret)));
        if plan.preview.changes.len() > changes {
            let kept = current.map(|current| current.entry.clone()).unwrap_or_default();
            let set = v1::txn_op::Set {
                namespace: place.namespace.to_owned(),
                key: key.clone(),
                environment: place.environment.to_owned(),
                value: json::compact(value).into(),
                description: kept.description,
                tags: kept.tags,
                comment: place.comment.to_owned(),
                ..Default::default()
            };
            plan.steps.push(step(place, key, current, Op::Set(set)));
        }
    }
    if replace {
        let wanted: BTreeSet<&String> = wanted.iter().map(|(key, _)| key).collect();
        for (key, current) in &there.entries {
            if wanted.contains(key) || done.contains(key) {
                continue;
            }
            let at = (place.namespace, key.as_str(), place.environment);
            plan.preview.add(at, Some(&state(current)), None);
            let delete = v1::txn_op::Delete {
                namespace: place.namespace.to_owned(),
                key: key.clone(),
                environment: place.environment.to_owned(),
                comment: place.comment.to_owned(),
                ..Default::default()
            };
            plan.steps.push(step(place, key, Some(current), Op::Delete(delete)));
        }
    }
    plan
}

fn state(current: &Current) -> State {
    State {
        version: current.entry.version,
        value: current.value.clone(),
        secret: current.entry.secret,
    }
}

fn step(place: Place<'_>, key: &str, current: Option<&Current>, op: Op) -> Step {
    Step {
        key: key.to_owned(),
        compare: v1::Compare {
            namespace: place.namespace.to_owned(),
            key: key.to_owned(),
            environment: place.environment.to_owned(),
            version: current.map_or(0, |current| current.entry.version),
        },
        op: v1::TxnOp { op: Some(op) },
    }
}

/// The steps in as few transactions as hold them.
pub(super) fn parts(steps: Vec<Step>) -> Vec<Vec<Step>> {
    parts_within(steps, OPERATIONS_MAX, BYTES_MAX)
}

fn parts_within(steps: Vec<Step>, operations_max: usize, bytes_max: usize) -> Vec<Vec<Step>> {
    let mut parts: Vec<Vec<Step>> = Vec::new();
    let mut bytes = 0;
    for step in steps {
        // What a step takes beside its two messages: their heads.
        let size = step.compare.encoded_len() + step.op.encoded_len() + 32;
        match parts.last_mut() {
            Some(part) if part.len() < operations_max && bytes + size <= bytes_max => {
                bytes += size;
                part.push(step);
            }
            _ => {
                bytes = size;
                parts.push(vec![step]);
            }
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;

    const PLACE: Place<'_> = Place { namespace: "n", environment: "base", comment: "why" };

    fn raw(text: &str) -> Box<RawValue> {
        serde_json::from_str(text).unwrap()
    }

    fn there(entries: &[(&str, &str, bool)]) -> Snapshot {
        let entry = |(index, (key, value, secret)): (usize, &(&str, &str, bool))| {
            let entry = v1::Entry {
                secret: *secret,
                version: index as u64 + 1,
                description: "kept".into(),
                tags: vec!["t".into()],
                ..Default::default()
            };
            ((*key).to_owned(), Current { entry, value: raw(value) })
        };
        Snapshot { revision: 9, entries: entries.iter().enumerate().map(entry).collect() }
    }

    fn file(entries: &[(&str, &str)]) -> Entries {
        entries.iter().map(|(key, value)| ((*key).to_owned(), raw(value))).collect()
    }

    fn keys(plan: &Plan) -> Vec<(&str, u64)> {
        plan.steps.iter().map(|step| (step.key.as_str(), step.compare.version)).collect()
    }

    #[test]
    fn only_what_differs_is_written_against_the_version_seen() {
        let there = there(&[
            ("same", "{\"a\":1,\"b\":2}", false),
            ("other", "1", false),
            ("x", "1.0", false),
            ("text", "1.0", false),
        ]);
        let wanted = file(&[
            ("same", "{ \"b\": 2, \"a\": 1 }"),
            ("other", "2"),
            ("new", "[ 1 ]"),
            ("text", "1.00"),
        ]);
        let plan = plan(&wanted, &there, PLACE, false, &HashSet::new());
        assert_eq!(keys(&plan), [("other", 2), ("new", 0), ("text", 4)]);
        assert_eq!(plan.preview.counts(), "1 added, 2 changed, 0 deleted, 1 unchanged");
        let Some(Op::Set(set)) = &plan.steps[0].op.op else { panic!("a write") };
        assert_eq!(
            (set.description.as_str(), set.tags.len(), set.comment.as_str()),
            ("kept", 1, "why")
        );
        let Some(Op::Set(set)) = &plan.steps[1].op.op else { panic!("a write") };
        assert_eq!(&set.value[..], b"[1]");
    }

    #[test]
    fn a_mask_is_never_written_and_a_secret_always() {
        let there = there(&[("secret", MASK, true), ("plain", "1", false)]);
        let masked = file(&[("secret", MASK), ("plain", MASK), ("absent", MASK)]);
        let plan_of = |wanted: &Entries| plan(wanted, &there, PLACE, false, &HashSet::new());
        let plan = plan_of(&masked);
        assert!(plan.steps.is_empty(), "{plan:?}");
        assert_eq!((plan.masked, plan.unknown), (1, vec!["plain".to_owned(), "absent".to_owned()]));
        assert_eq!(plan_of(&file(&[("secret", "\"new\"")])).steps.len(), 1);
    }

    #[test]
    fn what_the_file_lacks_goes_on_request() {
        let there = there(&[("a", "1", false), ("b", "1", false), ("c", "1", false)]);
        let wanted = file(&[("a", "1")]);
        assert!(plan(&wanted, &there, PLACE, false, &HashSet::new()).steps.is_empty());
        let done = HashSet::from(["c".to_owned()]);
        let plan = plan(&wanted, &there, PLACE, true, &done);
        assert_eq!((keys(&plan), plan.deletes()), (vec![("b", 2)], 1));
        assert!(
            matches!(&plan.steps[0].op.op, Some(Op::Delete(delete)) if delete.comment == "why")
        );
    }

    #[test]
    fn parts_hold_as_much_as_one_transaction_takes() {
        let wanted: Entries = (0..25).map(|i| (format!("k{i:02}"), raw("1"))).collect();
        let steps = plan(&wanted, &Snapshot::default(), PLACE, false, &HashSet::new()).steps;
        let sizes = |operations, bytes| -> Vec<usize> {
            parts_within(steps.clone(), operations, bytes).iter().map(Vec::len).collect()
        };
        assert_eq!(sizes(10, usize::MAX), [10, 10, 5]);
        assert_eq!(sizes(usize::MAX, 1), vec![1; 25], "one is always taken");
        assert_eq!(sizes(usize::MAX, usize::MAX), [25]);
        let by_bytes = sizes(usize::MAX, 400);
        assert!(by_bytes.len() > 1 && by_bytes.iter().sum::<usize>() == 25, "{by_bytes:?}");
        assert!(parts(Vec::new()).is_empty());
    }
}
