//! Who may do what: nothing that begins after a right was taken away is done under it, on any node; and what was granted
//! works on every node that has heard of it.
//!
//! Writes and linearizable reads are judged by the newest rules, wherever they are asked. A cached read is judged by what its
//! node has heard: all that is older than the age it bounds, or than the revision it waits for, or than what the node has
//! shown before.

use std::collections::{BTreeMap, HashMap};

use super::facts::{Facts, Index};
use super::revision::{changes, revision_of};
use super::{Findings, Limits, Verdict};
use crate::history::{Call, Operation, Outcome, PERMISSION_DENIED, Policy, Right, UNAUTHENTICATED};

const NS_IN_MS: u64 = 1_000_000;

/// A change of the rules: it takes effect within this time, or, if its answer was lost, at any later one or never.
#[derive(Debug, Clone, Copy)]
struct When {
    invoked_ns: u64,
    completed_ns: Option<u64>,
    by: Index,
}

impl When {
    fn is_over_before(&self, at: u64) -> bool {
        self.completed_ns.is_some_and(|completed| completed < at)
    }
}

/// A token: it exists from its creation to its revocation, and never again.
#[derive(Debug)]
struct Token<'h> {
    role: &'h str,
    namespace: &'h str,
    created: When,
    revoked: Vec<When>,
}

/// What the rules were, and when.
#[derive(Debug, Default)]
struct Rules<'h> {
    tokens: HashMap<&'h str, Token<'h>>,
    /// Of each role, what it allowed after each change.
    roles: HashMap<&'h str, Vec<(When, &'h [Right])>>,
}

/// What may have been the case at some moment of a time.
#[derive(Debug, Clone, Copy, Default)]
struct Possible {
    allowed: bool,
    /// Together with the change that forbids it, if there is one.
    forbidden: bool,
    by: Option<Index>,
}

pub(super) fn check(facts: &Facts<'_>, _: &Limits) -> Verdict {
    let mut found = Findings::default();
    let rules = Rules::of(facts);
    let heard = Heard::of(facts);
    for (by, operation) in facts.operations.iter().enumerate() {
        let denied = operation.outcome == Outcome::Fail
            && matches!(operation.error.as_deref(), Some(PERMISSION_DENIED | UNAUTHENTICATED));
        let Some(name) = operation.token.as_deref() else {
            if denied {
                found.fail(
                    "administrator",
                    None,
                    [facts.id(by)],
                    format!("node {} refused the administrator", operation.node),
                );
            }
            continue;
        };
        let (Some(right), Some(token)) = (operation.call.needs(), rules.tokens.get(name)) else {
            continue;
        };
        if denied {
            found.checked += 1;
            let since = heard.before(operation.node, operation.invoked_ns);
            refused(facts, &rules, by, token, right, since, &mut found);
        } else if operation.outcome == Outcome::Ok {
            found.checked += 1;
            let since = judged_since(operation, &heard);
            done(facts, &rules, by, token, right, since, &mut found);
        }
    }
    found.verdict()
}

/// By the rules of which time on an operation was judged.
fn judged_since(operation: &Operation, heard: &Heard) -> u64 {
    let Some(read) = operation.call.read().filter(|read| !read.linearizable) else {
        return operation.invoked_ns;
    };
    let bound = read.max_staleness_ms.map_or(0, |bound_ms| {
        operation.invoked_ns.saturating_sub(bound_ms.saturating_mul(NS_IN_MS))
    });
    let waited = read.min_revision.map_or(0, |revision| heard.by(revision));
    bound.max(waited).max(heard.before(operation.node, operation.invoked_ns))
}

/// Something was done with a token: at some moment since then, it was allowed.
fn done(
    facts: &Facts<'_>,
    rules: &Rules<'_>,
    by: Index,
    token: &Token<'_>,
    right: Right,
    since: u64,
    found: &mut Findings,
) {
    let operation = &facts.operations[by];
    let until = operation.completed_ns.unwrap_or(u64::MAX);
    let name = operation.token.as_deref().unwrap_or_default();
    let what = operation.call.kind();
    if !is_within(&operation.call, token.namespace) {
        let sentence = format!(
            "token {name} is good for {} only, and did a {what} elsewhere",
            token.namespace
        );
        let named = [facts.id(by), facts.id(token.created.by)];
        return found.fail("elsewhere", None, named, sentence);
    }
    if let Some(revoked) = token.revoked.iter().find(|revoked| revoked.is_over_before(since)) {
        let sentence = format!(
            "a {what} with token {name} was done at node {}, which had heard that the token was revoked",
            operation.node
        );
        return found.fail("revoked", None, [facts.id(by), facts.id(revoked.by)], sentence);
    }
    let possible = rules.possible(token.role, right, since, until);
    if !possible.allowed {
        let sentence = format!(
            "a {what} with token {name} was done at node {}, and role {} did not allow it any more, or not yet",
            operation.node, token.role
        );
        let named = std::iter::once(by).chain(possible.by);
        found.fail("not allowed", None, named.map(|by| facts.id(by)), sentence);
    }
}

/// Something was refused: at some moment since the node heard of the rules, it was not allowed.
fn refused(
    facts: &Facts<'_>,
    rules: &Rules<'_>,
    by: Index,
    token: &Token<'_>,
    right: Right,
    since: u64,
    found: &mut Findings,
) {
    let operation = &facts.operations[by];
    let until = operation.completed_ns.unwrap_or(u64::MAX);
    let mut rights = vec![right];
    if right == Right::Reveal {
        rights.push(Right::Read);
    }
    let exists = token.created.is_over_before(since)
        && token.revoked.iter().all(|revoked| revoked.invoked_ns > until);
    let allowed =
        rights.into_iter().all(|right| !rules.possible(token.role, right, since, until).forbidden);
    if exists && allowed && is_within(&operation.call, token.namespace) {
        found.fail(
            "refused",
            None,
            [facts.id(by), facts.id(token.created.by)],
            format!(
                "node {} refused a {} with token {}, which it had heard is allowed",
                operation.node,
                operation.call.kind(),
                operation.token.as_deref().unwrap_or_default()
            ),
        );
    }
}

/// Whether all that a call is about is in a namespace.
fn is_within(call: &Call, namespace: &str) -> bool {
    let inside =
        |text: &str| text.strip_prefix(namespace).is_some_and(|rest| rest.starts_with('/'));
    match call {
        Call::List { scope, .. } => inside(&scope.prefix),
        _ => call.keys().into_iter().all(inside),
    }
}

impl<'h> Rules<'h> {
    fn of(facts: &Facts<'h>) -> Self {
        let mut rules = Self::default();
        for (by, operation) in facts.operations.iter().enumerate() {
            // Changes of the rules are never merged, so they are the history's own.
            let (std::borrow::Cow::Borrowed(operation), false) =
                (operation, operation.outcome == Outcome::Fail)
            else {
                continue;
            };
            let Call::Policy { change } = &operation.call else { continue };
            let (invoked_ns, completed_ns) = (operation.invoked_ns, operation.completed_ns);
            let when = When { invoked_ns, completed_ns, by };
            match change {
                Policy::CreateToken { token, role, namespace } => {
                    let made = Token { role, namespace, created: when, revoked: Vec::new() };
                    rules.tokens.insert(token, made);
                }
                Policy::RevokeToken { token } => {
                    if let Some(token) = rules.tokens.get_mut(token.as_str()) {
                        token.revoked.push(when);
                    }
                }
                Policy::PutRole { role, allows } => {
                    rules.roles.entry(role).or_default().push((when, allows));
                }
                Policy::DeleteRole { role } => {
                    rules.roles.entry(role).or_default().push((when, &[]));
                }
            }
        }
        rules
    }

    /// What a role may have allowed at some moment of a time. A change counts until another one, which began after its end,
    /// was over before that time.
    fn possible(&self, role: &str, right: Right, since: u64, until: u64) -> Possible {
        let mut possible = Possible::default();
        let changes = self.roles.get(role).map(Vec::as_slice).unwrap_or_default();
        let latest = changes
            .iter()
            .filter(|(when, _)| when.is_over_before(since))
            .map(|(when, _)| when.invoked_ns)
            .max();
        // Before its first change it is not there.
        possible.forbidden = latest.is_none();
        for (when, allows) in changes.iter().filter(|(when, _)| when.invoked_ns <= until) {
            let over = when
                .completed_ns
                .is_some_and(|completed| latest.is_some_and(|latest| completed < latest));
            if over {
                continue;
            }
            if allows.contains(&right) {
                possible.allowed = true;
            } else {
                possible.forbidden = true;
                possible.by = Some(when.by);
            }
        }
        possible
    }
}

/// What nodes have applied, by what they showed.
#[derive(Debug, Default)]
struct Heard {
    /// Of each node, when it had shown up to which revision.
    shown: BTreeMap<u64, Vec<(u64, u64)>>,
    /// Up to each revision, when the last of the writes was asked for: whatever was over before that comes before it.
    asked: Vec<(u64, u64)>,
}

impl Heard {
    fn of(facts: &Facts<'_>) -> Self {
        let mut heard = Self::default();
        for operation in
            facts.operations.iter().filter(|operation| operation.outcome == Outcome::Ok)
        {
            if changes(operation) {
                // Somebody else may have carried it out.
                heard
                    .asked
                    .extend(operation.revision.map(|revision| (revision, operation.invoked_ns)));
            } else if let (Some(_), Some(completed_ns), Some(revision)) =
                // A transaction that only reads is carried out by the leader, wherever it is asked for.
                (
                    operation.call.read(),
                    operation.completed_ns,
                    revision_of(operation),
                )
            {
                heard.shown.entry(operation.node).or_default().push((completed_ns, revision));
            }
        }
        rising(&mut heard.asked);
        heard.shown.values_mut().for_each(|shown| rising(shown));
        heard
    }

    /// A time before which everything was over that comes before a revision.
    fn by(&self, revision: u64) -> u64 {
        let count = self.asked.partition_point(|(known, _)| *known <= revision);
        count.checked_sub(1).and_then(|last| self.asked.get(last)).map_or(0, |(_, asked)| *asked)
    }

    /// The same for what a node had shown before.
    fn before(&self, node: u64, at: u64) -> u64 {
        let shown = self.shown.get(&node).map(Vec::as_slice).unwrap_or_default();
        let count = shown.partition_point(|(completed, _)| *completed < at);
        let last = count.checked_sub(1).and_then(|last| shown.get(last));
        last.map_or(0, |(_, revision)| self.by(*revision))
    }
}

/// Sorts by the first number, and makes the second one the highest so far.
fn rising(list: &mut [(u64, u64)]) {
    list.sort_unstable();
    let mut highest = 0;
    for (_, number) in list {
        highest = highest.max(*number);
        *number = highest;
    }
}
