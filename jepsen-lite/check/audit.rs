//! The audit log: one record of everything that was acknowledged and none of what was certainly not done, in the order in
//! which it happened, as one chain that every node has.

use std::collections::{BTreeMap, HashMap};

use super::facts::{Facts, Index};
use super::revision::changes;
use super::{Findings, Limits, Verdict};
use crate::history::{
    Answer, AuditRecord, BALLAST, Call, Chain, Operation, Outcome, PERMISSION_DENIED, Target,
    TxnOp, TxnResult, UNAUTHENTICATED, requester,
};

const DENIED: &str = "access.denied";
const REVEALED: &str = "secret.reveal";
const ROTATED: &str = "admin.keys_rotate";
/// A refusal waits this long for its record and is answered all the same; what took less has one.
const DENIAL_WAITS_NS: u64 = 900_000_000;
/// A node that changed something so soon after it refused something was not about to stop: what waits to be recorded then is
/// lost, as the node's log says.
const LIVED_ON_NS: u64 = 300_000_000;
/// A record names so many entries and counts the others.
const TARGETS_MAX: usize = 128;

/// An audit log, and who read it.
type Listed<'h> = (Index, &'h [AuditRecord]);

pub(super) fn check(facts: &Facts<'_>, _: &Limits) -> Verdict {
    let mut found = Findings::default();
    let mut lists: Vec<Listed<'_>> = Vec::new();
    let mut chains: Vec<(Index, &Chain)> = Vec::new();
    for (by, operation) in facts.operations.iter().enumerate() {
        match (&operation.answer, operation.outcome) {
            (Some(Answer::Audit { records }), Outcome::Ok) => lists.push((by, records)),
            (Some(Answer::Chain { chain }), Outcome::Ok) => chains.push((by, chain)),
            _ => {}
        }
    }
    for list in &lists {
        linked(facts, *list, &mut found);
    }
    // What all others are compared with.
    let longest = lists.iter().max_by_key(|(_, records)| records.len()).copied();
    if let Some(longest) = longest {
        for list in lists.iter().filter(|list| list.0 != longest.0) {
            same(facts, longest, *list, &mut found);
        }
        everything(facts, longest, &mut found);
    }
    one_chain(facts, longest, &chains, &mut found);
    if facts.header().audited && !facts.partial() && found.violations.is_empty() {
        let last = |by: Index| facts.operations[by].last;
        if !lists.iter().any(|(by, _)| last(*by)) {
            return Verdict::Unknown { why: "the audit log was not read in the end".to_owned() };
        }
        let walked = |node: u64| {
            chains.iter().any(|(by, _)| last(*by) && facts.operations[*by].node == node)
        };
        if let Some(node) = facts.header().nodes.iter().find(|node| !walked(**node)) {
            let why = format!("node {node} did not walk its audit log in the end");
            return Verdict::Unknown { why };
        }
    }
    found.verdict()
}

/// A list is a chain from the first record on, in the order of time and of revisions.
fn linked(facts: &Facts<'_>, (by, records): Listed<'_>, found: &mut Findings) {
    let mut fail = |rule, sentence| found.fail(rule, None, [facts.id(by)], sentence);
    if let Some(first) = records.first()
        && first.sequence != 1
    {
        fail("chain", format!("the audit log begins with record {}", first.sequence));
    }
    for pair in records.windows(2) {
        let [before, after] = pair else { continue };
        let number = after.sequence;
        if before.sequence.checked_add(1) != Some(number) {
            fail("chain", format!("record {number} comes after record {}", before.sequence));
        } else if before.hash != after.previous {
            fail("chain", format!("record {number} does not follow the one before it"));
        }
        if after.revision < before.revision {
            let sentence = format!(
                "record {number} is of revision {}, and the one before of {}",
                after.revision, before.revision
            );
            fail("order", sentence);
        }
        if after.time_ms < before.time_ms {
            fail("order", format!("record {number} is older than the one before it"));
        }
    }
    found.checked += records.len() as u64;
}

/// Two lists have the same, as far as both go.
fn same(facts: &Facts<'_>, longest: Listed<'_>, (by, records): Listed<'_>, found: &mut Findings) {
    let differs = longest.1.iter().zip(records).find(|(one, other)| one != other);
    if let Some((one, _)) = differs {
        let sentence = format!("record {} is another one in another answer", one.sequence);
        found.fail("differ", None, [facts.id(longest.0), facts.id(by)], sentence);
    }
}

/// Every node has the same chain, and it is whole.
fn one_chain(
    facts: &Facts<'_>,
    longest: Option<Listed<'_>>,
    chains: &[(Index, &Chain)],
    found: &mut Findings,
) {
    let mut heads: BTreeMap<u64, (&str, Index)> = BTreeMap::new();
    if let Some((by, records)) = longest {
        heads.extend(records.iter().map(|record| (record.sequence, (record.hash.as_str(), by))));
    }
    let mut ends: Option<(u64, Index)> = None;
    for (by, chain) in chains {
        found.checked += 1;
        let node = facts.operations[*by].node;
        if let Some(broken) = &chain.broken {
            found.fail("chain", None, [facts.id(*by)], format!("node {node}: {broken}"));
            continue;
        }
        let (head, first) = *heads.entry(chain.last).or_insert((chain.head.as_str(), *by));
        if head != chain.head {
            let sentence =
                format!("the audit log of node {node} is another one at record {}", chain.last);
            found.fail("differ", None, [facts.id(first), facts.id(*by)], sentence);
        }
        if facts.operations[*by].last {
            let (last, other) = *ends.get_or_insert((chain.last, *by));
            if last != chain.last {
                let sentence = format!(
                    "in the end the audit log of node {node} ends with record {}, and another with {last}",
                    chain.last
                );
                found.fail("differ", None, [facts.id(other), facts.id(*by)], sentence);
            }
        }
    }
}

/// What a record is of, and what it must say.
struct Expected<'o> {
    what: &'static str,
    targets: Vec<(&'o str, u64)>,
}

/// What an operation leaves behind when it was done; nothing for what is not recorded.
fn expected(operation: &Operation) -> Option<Expected<'_>> {
    let (what, targets) = match (&operation.call, &operation.answer) {
        (Call::Set { key, .. } | Call::Increment { key, .. }, answer) => {
            ("config.set", written(key, answer.as_ref()))
        }
        (Call::Delete { key, .. }, answer) => ("config.delete", written(key, answer.as_ref())),
        (Call::Rollback { key, .. }, answer) => ("config.rollback", written(key, answer.as_ref())),
        (Call::Txn { success, failure, .. }, Some(Answer::Txn { succeeded, results })) => {
            if !changes(operation) {
                return None;
            }
            let done = if *succeeded { success } else { failure };
            ("config.txn", versions(done, results))
        }
        (Call::Txn { .. }, _) => ("config.txn", Vec::new()),
        (Call::Policy { change }, _) => (change.recorded_as(), Vec::new()),
        (Call::RotateKeys, _) => (ROTATED, Vec::new()),
        (Call::Get { key, read, .. }, Some(Answer::Entry { entry: Some(entry) }))
            // A version that is a delete has nothing to show.
            if read.reveal && entry.value.is_some() =>
        {
            (REVEALED, vec![(key.as_str(), entry.version)])
        }
        _ => return None,
    };
    Some(Expected { what, targets })
}

fn written<'o>(key: &'o str, answer: Option<&Answer>) -> Vec<(&'o str, u64)> {
    match answer {
        Some(Answer::Written { version, .. }) => vec![(key, *version)],
        _ => Vec::new(),
    }
}

/// The last version that a transaction made of each entry.
fn versions<'o>(done: &'o [TxnOp], results: &[TxnResult]) -> Vec<(&'o str, u64)> {
    let mut made: BTreeMap<&str, u64> = BTreeMap::new();
    for (op, result) in done.iter().zip(results) {
        if let TxnResult::Written { version } = result {
            made.insert(op.key(), *version);
        }
    }
    let mut made: Vec<_> = made.into_iter().collect();
    if made.len() > TARGETS_MAX {
        made.clear();
    }
    made
}

/// One record of everything that was done, none of what was not.
fn everything(facts: &Facts<'_>, (reader, records): Listed<'_>, found: &mut Findings) {
    let mut of_revision: HashMap<u64, &AuditRecord> = HashMap::new();
    let mut of_operation: HashMap<u64, Vec<&AuditRecord>> = HashMap::new();
    for record in records {
        if let Some(operation) = requester(&record.request) {
            of_operation.entry(operation).or_default().push(record);
        }
        if !record.what.starts_with("config.") {
            continue;
        }
        if let Some(other) = of_revision.insert(record.revision, record) {
            let sentence = format!(
                "records {} and {} are both of what made revision {}",
                other.sequence, record.sequence, record.revision
            );
            found.fail("twice", None, [facts.id(reader)], sentence);
        }
    }
    let read_ns = facts.operations[reader].invoked_ns;
    let lives = Lives::of(facts);
    // As they were sent: what was sent twice under one idempotency key has one record, by the name of one of the two.
    for operation in &facts.history.operations {
        let own = of_operation.remove(&operation.id).unwrap_or_default();
        recorded_once(operation, facts.id(reader), &own, found);
        let over = operation.completed_ns.is_some_and(|completed| completed < read_ns);
        if over && operation.outcome == Outcome::Ok {
            let by_revision = operation.revision.and_then(|revision| of_revision.get(&revision));
            acknowledged(operation, facts.id(reader), &own, by_revision.copied(), found);
        }
        if over && is_denied(operation) {
            let took = operation.completed_ns.unwrap_or(u64::MAX) - operation.invoked_ns;
            if own.iter().all(|record| record.what != DENIED)
                && took < DENIAL_WAITS_NS
                && lives.on(operation)
            {
                let sentence =
                    format!("operation {} was refused, and there is no record of it", operation.id);
                found.fail("missing", None, [operation.id, facts.id(reader)], sentence);
            }
        }
    }
    if facts.partial() {
        return;
    }
    let mut nobodys = of_operation
        .into_values()
        .flatten()
        .chain(records.iter().filter(|record| requester(&record.request).is_none()));
    let changes = |record: &&AuditRecord| {
        let laid_in = |target: &Target| {
            target.key.strip_prefix(BALLAST).is_some_and(|rest| rest.starts_with('/'))
        };
        let by_itself = record.what == "auth.bootstrap"
            || (!record.targets.is_empty() && record.targets.iter().all(laid_in));
        (record.what.starts_with("config.") || record.what.starts_with("auth.")) && !by_itself
    };
    if let Some(record) = nobodys.find(changes) {
        let sentence =
            format!("record {} is of a {} that nobody asked for", record.sequence, record.what);
        found.fail("from nowhere", None, [facts.id(reader)], sentence);
    }
}

/// Of each node, when it changed something for somebody: invoked and completed.
struct Lives(HashMap<u64, Vec<(u64, u64)>>);

impl Lives {
    fn of(facts: &Facts<'_>) -> Self {
        let mut lives: HashMap<u64, Vec<(u64, u64)>> = HashMap::new();
        for operation in &facts.history.operations {
            if let (true, Outcome::Ok, Some(completed_ns)) =
                (operation.call.changes(), operation.outcome, operation.completed_ns)
            {
                lives.entry(operation.node).or_default().push((operation.invoked_ns, completed_ns));
            }
        }
        lives.values_mut().for_each(|changes| changes.sort_unstable());
        Self(lives)
    }

    /// Whether a node lived on after it had refused something.
    fn on(&self, refused: &Operation) -> bool {
        let (Some(changes), Some(from)) = (self.0.get(&refused.node), refused.completed_ns) else {
            return false;
        };
        let first = changes.partition_point(|(invoked, _)| *invoked < from);
        let until = from.saturating_add(LIVED_ON_NS);
        let mut soon = changes[first..].iter().take_while(|(invoked, _)| *invoked <= until);
        soon.any(|(_, completed)| *completed <= until)
    }
}

fn is_denied(operation: &Operation) -> bool {
    operation.outcome == Outcome::Fail
        && matches!(operation.error.as_deref(), Some(PERMISSION_DENIED | UNAUTHENTICATED))
}

/// The records of one operation: what it did at most once, and nothing else.
fn recorded_once(operation: &Operation, reader: u64, own: &[&AuditRecord], found: &mut Findings) {
    let what = expected(operation).map(|expected| expected.what).or(denied_as(operation));
    let mut fail = |rule, sentence| found.fail(rule, None, [operation.id, reader], sentence);
    let mut done = 0;
    for record in own {
        if record.what == DENIED {
            continue;
        }
        if Some(record.what.as_str()) != what {
            let sentence = format!(
                "operation {} is a {}, and record {} is of a {}",
                operation.id,
                operation.call.kind(),
                record.sequence,
                record.what
            );
            fail("another", sentence);
        }
        done += 1;
        // What is announced before it is done may fail afterwards.
        let announced = record.what == REVEALED || record.what == ROTATED;
        if operation.outcome == Outcome::Fail && !announced {
            let sentence = format!(
                "operation {} was refused, and record {} says that it was done",
                operation.id, record.sequence
            );
            fail("not done", sentence);
        }
    }
    let denials = own.iter().filter(|record| record.what == DENIED).count();
    if done > 1 || denials > 1 {
        fail(
            "twice",
            format!(
                "operation {} was recorded {done} times, its refusal {denials} times",
                operation.id
            ),
        );
    }
}

/// A reveal that was refused has no answer to be known by.
fn denied_as(operation: &Operation) -> Option<&'static str> {
    operation.call.read().filter(|read| read.reveal).map(|_| REVEALED)
}

/// What was acknowledged is recorded as what it was.
fn acknowledged(
    operation: &Operation,
    reader: u64,
    own: &[&AuditRecord],
    by_revision: Option<&AuditRecord>,
    found: &mut Findings,
) {
    let Some(Expected { what, targets }) = expected(operation) else { return };
    found.checked += 1;
    let record = if what.starts_with("config.") {
        by_revision
    } else {
        own.iter().find(|record| record.what == what).copied()
    };
    let mut fail = |rule, sentence| found.fail(rule, None, [operation.id, reader], sentence);
    let Some(record) = record else {
        let sentence = format!(
            "operation {} ({}) was done, and there is no record of it",
            operation.id,
            operation.call.kind()
        );
        return fail("missing", sentence);
    };
    let told = |(key, version): &(&str, u64)| {
        record.targets.iter().any(|target| target.key == *key && target.version == *version)
    };
    if record.what != what || !targets.iter().all(told) {
        let sentence = format!(
            "record {} should be of a {what} of {targets:?}, and is of a {} of {:?}",
            record.sequence, record.what, record.targets
        );
        fail("another", sentence);
    }
}
