//! Members: a node never goes back to an older term or to an older leader, and when all is over the nodes agree who is in the
//! cluster, every one of them with a vote.
//!
//! Elections of one term are told apart by who stood for them, so a term may have several leaders, one after the other.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::facts::{Facts, Index};
use super::{Findings, Limits, Verdict};
use crate::history::{Answer, Member, Outcome};

pub(super) fn check(facts: &Facts<'_>, _: &Limits) -> Verdict {
    let mut found = Findings::default();
    let mut closing: BTreeMap<u64, (&[Member], Index)> = BTreeMap::new();
    // Of each node, what began and what ended, in the order of time.
    let mut events: Vec<(u64, bool, Index)> = Vec::new();
    for (by, operation) in facts.operations.iter().enumerate() {
        let (Outcome::Ok, Some(Answer::Members { members, .. }), Some(completed_ns)) =
            (operation.outcome, &operation.answer, operation.completed_ns)
        else {
            continue;
        };
        found.checked += 1;
        events.push((operation.invoked_ns, false, by));
        events.push((completed_ns, true, by));
        if operation.last {
            closing.insert(operation.node, (members, by));
        }
    }
    events.sort_unstable();
    rising(facts, &events, &mut found);
    agreed(facts, &closing, &mut found);
    let asked = |node: &&u64| !closing.contains_key(*node);
    let open = facts.header().nodes.iter().find(asked);
    match open.filter(|_| facts.header().closing && !closing.is_empty()) {
        Some(node) if !facts.partial() && found.violations.is_empty() => Verdict::Unknown {
            why: format!("node {node} was not asked for the members in the end"),
        },
        _ => found.verdict(),
    }
}

/// The vote of a node is on its disk: the term, and whom it follows in it.
fn rising(facts: &Facts<'_>, events: &[(u64, bool, Index)], found: &mut Findings) {
    let mut terms: HashMap<u64, (u64, Index)> = HashMap::new();
    let mut leaders: HashMap<u64, ((u64, u64), Index)> = HashMap::new();
    for (_, ends, by) in events {
        let operation = &facts.operations[*by];
        let Some(Answer::Members { term, leader, .. }) = &operation.answer else { continue };
        let led = leader.map(|leader| (*term, leader));
        let node = operation.node;
        if *ends {
            if terms.get(&node).is_none_or(|(known, _)| term > known) {
                terms.insert(node, (*term, *by));
            }
            if let Some(led) = led
                && leaders.get(&node).is_none_or(|(known, _)| led > *known)
            {
                leaders.insert(node, (led, *by));
            }
            continue;
        }
        if let Some((known, earlier)) = terms.get(&node).filter(|(known, _)| term < known) {
            let sentence = format!("node {node} was in term {known}, and is in term {term}");
            found.fail("older term", None, [facts.id(*by), facts.id(*earlier)], sentence);
        } else if let (Some(led), Some((known, earlier))) = (led, leaders.get(&node))
            && led < *known
        {
            let sentence = format!(
                "node {node} followed {} in term {}, and follows {} again",
                known.1, known.0, led.1
            );
            found.fail("older leader", None, [facts.id(*by), facts.id(*earlier)], sentence);
        }
    }
}

fn agreed(facts: &Facts<'_>, closing: &BTreeMap<u64, (&[Member], Index)>, found: &mut Findings) {
    let mut first: Option<(&[Member], Index)> = None;
    let nodes: BTreeSet<u64> = facts.header().nodes.iter().copied().collect();
    for (node, (members, by)) in closing {
        let (known, other) = *first.get_or_insert((*members, *by));
        if known != *members {
            let sentence = format!(
                "in the end node {node} has the members {members:?}, and another {known:?}"
            );
            found.fail("agree", None, [facts.id(*by), facts.id(other)], sentence);
        }
        let voters: BTreeSet<u64> =
            members.iter().filter(|member| member.votes).map(|member| member.id).collect();
        if voters != nodes {
            let sentence = format!("in the end {voters:?} vote, and {nodes:?} are there");
            found.fail("voters", None, [facts.id(*by)], sentence);
        }
    }
}
