//! Replicas: two nodes that list the same at the same revision list the same entries; and when all is over, every node was
//! asked and all are at one revision.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::facts::{Facts, Index};
use super::{Findings, Limits, Verdict};
use crate::history::{Answer, Call, Keyed, Outcome, Scope};

/// A list: who asked for it, and what is in it.
type Listed<'h> = (Index, BTreeMap<&'h str, &'h Keyed>);

pub(super) fn check(facts: &Facts<'_>, _: &Limits) -> Verdict {
    let mut found = Findings::default();
    let mut listed: HashMap<(&Scope, u64), Listed<'_>> = HashMap::new();
    // Of each scope that was closed with: the revision of each node.
    let mut closing: BTreeMap<&Scope, BTreeMap<u64, (u64, Index)>> = BTreeMap::new();
    for (by, operation) in facts.operations.iter().enumerate() {
        let (Call::List { scope, .. }, Some(Answer::Entries { entries }), Some(revision)) =
            (&operation.call, &operation.answer, operation.revision)
        else {
            continue;
        };
        if operation.outcome != Outcome::Ok {
            continue;
        }
        if operation.last {
            closing.entry(scope).or_default().insert(operation.node, (revision, by));
        }
        found.checked += 1;
        let entries: BTreeMap<&str, &Keyed> =
            entries.iter().map(|keyed| (keyed.key.as_str(), keyed)).collect();
        let Some((other, known)) = listed.get(&(scope, revision)) else {
            listed.insert((scope, revision), (by, entries));
            continue;
        };
        if *known == entries {
            continue;
        }
        let differs = known
            .keys()
            .chain(entries.keys())
            .find(|key| known.get(*key) != entries.get(*key))
            .copied();
        let (this, that) = (operation.node, facts.operations[*other].node);
        found.fail(
            "differ",
            differs,
            [facts.id(*other), facts.id(by)],
            format!("nodes {that} and {this} list different entries at revision {revision}"),
        );
    }
    for (scope, nodes) in &closing {
        let revisions: BTreeSet<u64> = nodes.values().map(|(revision, _)| *revision).collect();
        if revisions.len() > 1 {
            let named = nodes.values().map(|(_, by)| facts.id(*by));
            found.fail(
                "not converged",
                Some(&scope.prefix),
                named,
                format!("in the end the nodes are at the revisions {revisions:?}"),
            );
        }
    }
    if !facts.header().closing || facts.partial() || !found.violations.is_empty() {
        return found.verdict();
    }
    if closing.is_empty() {
        return Verdict::Unknown { why: "no node was listed in the end".to_owned() };
    }
    for (scope, nodes) in &closing {
        if let Some(node) = facts.header().nodes.iter().find(|node| !nodes.contains_key(node)) {
            return Verdict::Unknown {
                why: format!("node {node} was not asked for {} in the end", scope.prefix),
            };
        }
    }
    found.verdict()
}
