//! Sessions: what one wrote it reads, and what it has read once it does not read older, on whatever node. And nodes: what
//! one has shown a while ago it does not fall behind again, whoever asks, and whatever happened to it.

use std::collections::{HashMap, VecDeque};

use super::facts::{Facts, Index, KeyId};
use super::revision::revision_of;
use super::{Findings, Limits, Verdict};
use crate::history::{Answer, Call, Operation, Outcome};

/// What a node showed this long ago is on its disk, however slow that is: it may lose what came after with its power, and
/// nothing before.
const SETTLED_NS: u64 = 10_000_000_000;

/// How far a node has come.
#[derive(Debug, Default)]
struct Shown {
    /// Not long enough ago, by time.
    late: VecDeque<(u64, u64, Index)>,
    settled: Option<(u64, Index)>,
}

impl Shown {
    fn settle(&mut self, now_ns: u64) {
        while let Some((_, revision, by)) =
            self.late.pop_front_if(|(at, _, _)| at.saturating_add(SETTLED_NS) < now_ns)
        {
            if self.settled.is_none_or(|(settled, _)| revision > settled) {
                self.settled = Some((revision, by));
            }
        }
    }
}

/// How far a session has come.
#[derive(Debug, Default)]
struct Seen {
    revision: Option<(u64, Index)>,
    versions: HashMap<KeyId, (u64, Index)>,
}

pub(super) fn check(facts: &Facts<'_>, _: &Limits) -> Verdict {
    let mut found = Findings::default();
    let mut events: Vec<(u64, bool, Index)> = Vec::new();
    for (by, operation) in facts.operations.iter().enumerate() {
        let (Outcome::Ok, Some(completed_ns)) = (operation.outcome, operation.completed_ns) else {
            continue;
        };
        if operation.session.is_some() || operation.call.read().is_some() {
            events.push((operation.invoked_ns, false, by));
            events.push((completed_ns, true, by));
        }
    }
    // At the same moment, what begins comes first: it is concurrent with what ends.
    events.sort_unstable();
    let versions_of = shown(facts);
    let mut sessions: HashMap<u64, Seen> = HashMap::new();
    let mut nodes: HashMap<u64, Shown> = HashMap::new();
    for (at, ends, by) in events {
        let operation = &facts.operations[by];
        if operation.call.read().is_some() {
            let shown = nodes.entry(operation.node).or_default();
            at_node(facts, shown, (at, ends, by), &mut found);
        }
        let Some(session) = operation.session else { continue };
        let seen = sessions.entry(session).or_default();
        if ends {
            learn(seen, by, operation, &versions_of[by]);
        } else if operation.call.read().is_some() {
            found.checked += 1;
            compare(facts, seen, by, operation, &versions_of[by], session, &mut found);
        }
    }
    found.verdict()
}

/// A read begins or ends at a node.
fn at_node(
    facts: &Facts<'_>,
    shown: &mut Shown,
    (at, ends, by): (u64, bool, Index),
    found: &mut Findings,
) {
    let operation = &facts.operations[by];
    let Some(revision) = operation.revision.filter(|_| operation.node > 0) else { return };
    if ends {
        shown.late.push_back((at, revision, by));
        return;
    }
    shown.settle(at);
    found.checked += 1;
    if let Some((settled, known)) = shown.settled
        && revision < settled
    {
        let sentence = format!(
            "node {} answered as of revision {revision}, more than {} s after it had shown {settled}",
            operation.node,
            SETTLED_NS / 1_000_000_000
        );
        found.fail("node went back", None, [facts.id(by), facts.id(known)], sentence);
    }
}

/// The versions that each operation shows or made, current ones only.
fn shown(facts: &Facts<'_>) -> Vec<Vec<(KeyId, u64)>> {
    let mut shown: Vec<Vec<(KeyId, u64)>> = vec![Vec::new(); facts.operations.len()];
    for change in facts.changes.iter().filter(|change| change.outcome == Outcome::Ok) {
        shown[change.by].extend(change.version.map(|version| (change.key, version)));
    }
    for seen in &facts.sightings {
        let old = matches!(facts.operations[seen.by].call, Call::Get { version: Some(_), .. });
        if !old {
            shown[seen.by].push((seen.key, seen.version));
        }
    }
    for versions in &mut shown {
        // Of a history, the newest one counts.
        versions.sort_unstable_by(|a, b| (a.0, b.1).cmp(&(b.0, a.1)));
        versions.dedup_by_key(|(key, _)| *key);
    }
    shown
}

fn learn(seen: &mut Seen, by: Index, operation: &Operation, versions: &[(KeyId, u64)]) {
    if let Some(revision) = revision_of(operation)
        && seen.revision.is_none_or(|(highest, _)| revision > highest)
    {
        seen.revision = Some((revision, by));
    }
    for (key, version) in versions {
        let known = seen.versions.entry(*key).or_insert((*version, by));
        if *version > known.0 {
            *known = (*version, by);
        }
    }
}

fn compare(
    facts: &Facts<'_>,
    seen: &Seen,
    by: Index,
    operation: &Operation,
    versions: &[(KeyId, u64)],
    session: u64,
    found: &mut Findings,
) {
    if matches!(operation.call, Call::Get { version: Some(_), .. }) {
        return;
    }
    if let (Some((highest, known)), Some(revision)) = (seen.revision, operation.revision)
        && revision < highest
    {
        return found.fail(
            "went back",
            None,
            [facts.id(by), facts.id(known)],
            format!("session {session} read at revision {revision} after it had been at {highest}"),
        );
    }
    for (key, version) in versions {
        if let Some((highest, known)) = seen.versions.get(key)
            && version < highest
        {
            return found.fail(
                "went back",
                Some(facts.name(*key)),
                [facts.id(by), facts.id(*known)],
                format!("session {session} read version {version} after it had seen or written {highest}"),
            );
        }
    }
    // What was never deleted is not absent again.
    if let (Call::Get { key, .. }, Some(Answer::Entry { entry: None })) =
        (&operation.call, &operation.answer)
        && !facts.partial()
        && let Some(key) = facts.key_id(key)
        && let Some((version, known)) = seen.versions.get(&key)
        && !facts.changes_of(key).any(|change| {
            change.effect == super::facts::Effect::Delete && change.outcome != Outcome::Fail
        })
    {
        found.fail(
            "went back",
            Some(facts.name(key)),
            [facts.id(by), facts.id(*known)],
            format!(
                "session {session} found nothing after it had seen or written version {version}"
            ),
        );
    }
}
