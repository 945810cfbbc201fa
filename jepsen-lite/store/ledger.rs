//! What a store of one node has to hold: everything that it acknowledged or once showed, in the order of revisions; and
//! whether what it answers now is exactly that.

use std::collections::{BTreeMap, BTreeSet};

use jepsen_lite::history::{
    Answer, Call, Entry, Operation, Outcome, Scope, TxnOp, TxnResult, Value,
};

/// More of one kind of violation is not said: the first ones show it.
const SHOWN: usize = 5;
/// More of a value is not shown.
const VALUE_SHOWN: usize = 40;

/// One version that a revision made of an entry. No value: it is a delete.
#[derive(Debug, Clone, PartialEq)]
pub struct Effect {
    /// The entry.
    pub key: String,
    /// The version.
    pub version: u64,
    /// Its value.
    pub value: Option<Value>,
}

/// A write without an answer: it took effect once, with one of these outcomes, or never.
#[derive(Debug, Clone, PartialEq)]
struct Pending {
    operation: u64,
    outcomes: Vec<BTreeMap<String, Option<Value>>>,
}

/// What a store answered when it was asked for everything. What it answered with an error is not in it.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// Changes by revision, from `from` to `upto`, both included.
    pub changes: BTreeMap<u64, Vec<Effect>>,
    /// See [`Found::changes`].
    pub from: u64,
    /// See [`Found::changes`]; less than `from` when none came.
    pub upto: u64,
    /// What each list had.
    pub lists: Vec<(Scope, BTreeMap<String, Entry>)>,
    /// The versions of each entry, newest first.
    pub histories: BTreeMap<String, Vec<Entry>>,
    /// What went wrong, in the words of the store: errors, not answers.
    pub errors: Vec<String>,
}

/// The book that is kept beside a store.
#[derive(Debug, Clone)]
pub struct Ledger {
    /// Versions that are kept of an entry.
    limit: usize,
    changes: BTreeMap<u64, Vec<Effect>>,
    pending: Vec<Pending>,
    keys: BTreeSet<String>,
    /// Writes without an answer that are known to have taken effect, and those that are known not to have.
    pub happened: u64,
    /// See [`Ledger::happened`].
    pub vanished: u64,
}

impl Ledger {
    /// An empty store that keeps `limit` versions of an entry.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            changes: BTreeMap::new(),
            pending: Vec::new(),
            keys: BTreeSet::new(),
            happened: 0,
            vanished: 0,
        }
    }

    /// Every entry that was ever written or tried to be.
    #[must_use]
    pub fn keys(&self) -> &BTreeSet<String> {
        &self.keys
    }

    /// The newest revision that is certain; 0 when there is none.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.changes.last_key_value().map_or(0, |(revision, _)| *revision)
    }

    /// How many changes are certain.
    #[must_use]
    pub fn count(&self) -> usize {
        self.changes.len()
    }

    /// Takes down what a client may conclude of a write.
    ///
    /// # Errors
    /// When the store gave one revision to two writes.
    pub fn note(&mut self, operation: &Operation) -> Result<(), String> {
        if !operation.call.is_write() {
            return Ok(());
        }
        self.keys.extend(operation.call.keys().into_iter().map(str::to_owned));
        match operation.outcome {
            Outcome::Fail => Ok(()),
            Outcome::Unknown => {
                let outcomes = possible(&operation.call);
                self.pending.push(Pending { operation: operation.id, outcomes });
                Ok(())
            }
            Outcome::Ok => {
                let effects = effects(operation);
                let (Some(revision), false) = (operation.revision, effects.is_empty()) else {
                    return Ok(());
                };
                match self.changes.insert(revision, effects) {
                    None => Ok(()),
                    Some(before) => Err(format!(
                        "revision {revision} was acknowledged twice: as {}, and as {}",
                        show(&before),
                        show(&self.changes[&revision])
                    )),
                }
            }
        }
    }

    /// Compares what a store answers with what it has to hold, and takes over what became of writes without an answer. The
    /// caller has seen to it that none of them is still under way.
    ///
    /// Says what is wrong; nothing when everything that was answered is right.
    pub fn settle(&mut self, found: &Found) -> Vec<String> {
        let mut wrong = Wrong::default();
        self.settle_changes(found, &mut wrong);
        // Those that the change log did not show, because it was answered with an error, may be in the rest.
        let whole = found.errors.is_empty();
        if whole {
            self.vanished += self.pending.len() as u64;
            self.pending.clear();
        }
        let versions = self.versions(&mut wrong);
        let none = Vec::new();
        for (key, answered) in &found.histories {
            let known = versions.get(key).unwrap_or(&none);
            let kept = &known[known.len().saturating_sub(self.limit)..];
            let expected: Vec<&Entry> = kept.iter().rev().collect();
            if !answered.iter().eq(expected.iter().copied()) && (whole || !self.is_pending(key)) {
                wrong.say("history", differ(key, &expected, answered));
            }
        }
        for (scope, answered) in &found.lists {
            let latest = versions.iter().filter(|(key, _)| scope.contains(key));
            let latest = latest.filter_map(|(key, versions)| Some((key, versions.last()?)));
            let expected: BTreeMap<&String, &Entry> =
                latest.filter(|(_, entry)| entry.value.is_some()).collect();
            let names: BTreeSet<&String> =
                expected.keys().copied().chain(answered.keys()).collect();
            for key in names {
                let (wanted, there) = (expected.get(key).copied(), answered.get(key));
                if wanted != there && (whole || !self.is_pending(key)) {
                    let one =
                        |entry: Option<&Entry>| entry.map_or("nothing".to_owned(), show_entry);
                    let what = format!("list: {key} is {}, not {}", one(there), one(wanted));
                    wrong.say("list", what);
                }
            }
        }
        wrong.said()
    }

    fn settle_changes(&mut self, found: &Found, wrong: &mut Wrong) {
        for (revision, effects) in &found.changes {
            if let Some(known) = self.changes.get(revision) {
                if sorted(known) != sorted(effects) {
                    let (was, is) = (show(known), show(effects));
                    wrong.say("changed", format!("revision {revision} was {was} and is now {is}"));
                }
                continue;
            }
            match self.pending.iter().position(|pending| pending.explains(effects)) {
                Some(at) => {
                    self.pending.swap_remove(at);
                    self.happened += 1;
                    self.changes.insert(*revision, effects.clone());
                }
                None => {
                    let what =
                        format!("revision {revision} is {}, which nobody wrote", show(effects));
                    wrong.say("invented", what);
                }
            }
        }
        // Whoever answered without an error has answered to the end.
        let upto = if found.errors.is_empty() { u64::MAX } else { found.upto };
        if upto < found.from {
            return;
        }
        for (revision, known) in self.changes.range(found.from..=upto) {
            if !found.changes.contains_key(revision) {
                wrong.say("lost", format!("revision {revision} is gone: {}", show(known)));
            }
        }
    }

    /// Whether a write without an answer may have changed an entry.
    fn is_pending(&self, key: &str) -> bool {
        let of = |pending: &Pending| pending.outcomes.iter().any(|known| known.contains_key(key));
        self.pending.iter().any(of)
    }

    /// All versions of each entry, oldest first.
    fn versions(&self, wrong: &mut Wrong) -> BTreeMap<String, Vec<Entry>> {
        let mut versions: BTreeMap<String, Vec<Entry>> = BTreeMap::new();
        for (revision, effects) in &self.changes {
            for Effect { key, version, value } in effects {
                let known = versions.entry(key.clone()).or_default();
                let next = known.last().map_or(1, |last| last.version + 1);
                if *version != next && !self.is_pending(key) {
                    let what =
                        format!("version {version} of {key} was made where {next} comes next");
                    wrong.say("version", what);
                }
                let value = value.clone();
                known.push(Entry { version: *version, revision: *revision, value });
            }
        }
        versions
    }
}

impl Pending {
    fn explains(&self, effects: &[Effect]) -> bool {
        let made: BTreeMap<&String, &Option<Value>> =
            effects.iter().map(|effect| (&effect.key, &effect.value)).collect();
        self.outcomes.iter().any(|outcome| {
            outcome.len() == made.len()
                && outcome.iter().all(|(key, value)| made.get(key) == Some(&value))
        })
    }
}

/// What an acknowledged write changed.
fn effects(operation: &Operation) -> Vec<Effect> {
    let one = |key: &str, version: u64, value: Option<Value>| {
        vec![Effect { key: key.to_owned(), version, value }]
    };
    match (&operation.call, &operation.answer) {
        (Call::Set { key, value, .. }, Some(Answer::Written { version, .. })) => {
            one(key, *version, Some(value.clone()))
        }
        (Call::Delete { key, .. }, Some(Answer::Written { version, .. })) => {
            one(key, *version, None)
        }
        (Call::Txn { success, failure, .. }, Some(Answer::Txn { succeeded, results })) => {
            let steps = if *succeeded { success } else { failure };
            let made = steps.iter().zip(results).filter_map(|(step, result)| {
                let TxnResult::Written { version } = result else { return None };
                let value = match step {
                    TxnOp::Set { value, .. } => Some(value.clone()),
                    TxnOp::Delete { .. } | TxnOp::Get { .. } => None,
                };
                Some(Effect { key: step.key().to_owned(), version: *version, value })
            });
            made.collect()
        }
        _ => Vec::new(),
    }
}

/// What a write changes, if it happens.
fn possible(call: &Call) -> Vec<BTreeMap<String, Option<Value>>> {
    match call {
        Call::Set { key, value, .. } => vec![BTreeMap::from([(key.clone(), Some(value.clone()))])],
        Call::Delete { key, .. } => vec![BTreeMap::from([(key.clone(), None)])],
        Call::Txn { success, failure, .. } => {
            let list = |steps: &[TxnOp]| {
                let written = steps.iter().filter_map(|step| match step {
                    TxnOp::Set { key, value } => Some((key.clone(), Some(value.clone()))),
                    TxnOp::Delete { key } => Some((key.clone(), None)),
                    TxnOp::Get { .. } => None,
                });
                written.collect::<BTreeMap<_, _>>()
            };
            [list(success), list(failure)].into_iter().filter(|list| !list.is_empty()).collect()
        }
        _ => Vec::new(),
    }
}

/// Violations, of each kind the first few.
#[derive(Debug, Default)]
struct Wrong(BTreeMap<&'static str, (Vec<String>, usize)>);

impl Wrong {
    fn say(&mut self, kind: &'static str, what: String) {
        let (said, count) = self.0.entry(kind).or_default();
        *count += 1;
        if said.len() < SHOWN {
            said.push(what);
        }
    }

    fn said(self) -> Vec<String> {
        let each = self.0.into_iter().flat_map(|(kind, (mut said, count))| {
            if count > said.len() {
                said.push(format!("{kind}: and {} more", count - said.len()));
            }
            said
        });
        each.collect()
    }
}

fn sorted(effects: &[Effect]) -> Vec<&Effect> {
    let mut sorted: Vec<_> = effects.iter().collect();
    sorted.sort_by(|one, other| one.key.cmp(&other.key));
    sorted
}

fn show_value(value: Option<&Value>) -> String {
    let Some(value) = value else { return "deleted".to_owned() };
    let text = value.to_string();
    match text.char_indices().nth(VALUE_SHOWN) {
        Some((at, _)) => format!("{}… ({} bytes)", &text[..at], text.len()),
        None => text,
    }
}

fn show(effects: &[Effect]) -> String {
    let one = |effect: &Effect| {
        format!("{} v{} = {}", effect.key, effect.version, show_value(effect.value.as_ref()))
    };
    sorted(effects).into_iter().map(one).collect::<Vec<_>>().join(", ")
}

fn show_entry(entry: &Entry) -> String {
    format!("v{} r{} = {}", entry.version, entry.revision, show_value(entry.value.as_ref()))
}

/// Where a history is first another one than it should be.
fn differ(key: &str, expected: &[&Entry], answered: &[Entry]) -> String {
    let count = expected.len().max(answered.len());
    let at = (0..count).find(|at| expected.get(*at).copied() != answered.get(*at)).unwrap_or(0);
    let one = |entry: Option<&Entry>| entry.map_or("nothing".to_owned(), show_entry);
    format!(
        "history of {key}: place {at} of {} is {}, not {}",
        expected.len(),
        one(answered.get(at)),
        one(expected.get(at).copied())
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "ns/a@base";
    const B: &str = "ns/b@base";

    fn operation(
        call: Call,
        outcome: Outcome,
        revision: Option<u64>,
        answer: Option<Answer>,
    ) -> Operation {
        Operation {
            id: 1,
            process: 1,
            session: None,
            token: None,
            node: 1,
            call,
            invoked_ns: 0,
            completed_ns: Some(1),
            outcome,
            revision,
            answer,
            error: None,
            last: false,
        }
    }

    fn set(key: &str, value: &str) -> Call {
        Call::Set {
            key: key.into(),
            value: value.into(),
            expected_version: None,
            idempotency_key: None,
        }
    }

    fn delete(key: &str) -> Call {
        Call::Delete { key: key.into(), expected_version: None, idempotency_key: None }
    }

    fn both(value: &str) -> Call {
        Call::Txn {
            compare: Vec::new(),
            success: vec![
                TxnOp::Set { key: A.into(), value: value.into() },
                TxnOp::Delete { key: B.into() },
            ],
            failure: Vec::new(),
            idempotency_key: None,
        }
    }

    fn done(call: Call, revision: u64, version: u64) -> Operation {
        let answer = Answer::Written { version, value: None };
        operation(call, Outcome::Ok, Some(revision), Some(answer))
    }

    fn lost(call: Call) -> Operation {
        operation(call, Outcome::Unknown, None, None)
    }

    fn entry(version: u64, revision: u64, value: Option<&str>) -> Entry {
        Entry { version, revision, value: value.map(Into::into) }
    }

    fn effect(key: &str, version: u64, value: Option<&str>) -> Effect {
        Effect { key: key.into(), version, value: value.map(Into::into) }
    }

    /// Three versions of one entry of which two are kept, and another that was made and deleted.
    fn ledger() -> Ledger {
        let mut ledger = Ledger::new(2);
        for operation in [
            done(set(A, "1"), 11, 1),
            done(set(B, "2"), 12, 1),
            done(set(A, "3"), 13, 2),
            done(delete(B), 15, 2),
            done(set(A, "4"), 16, 3),
            operation(set(A, "refused"), Outcome::Fail, None, None),
        ] {
            ledger.note(&operation).unwrap();
        }
        ledger
    }

    fn found() -> Found {
        let scope = Scope { prefix: "ns/".into(), environment: Some("base".into()) };
        Found {
            changes: BTreeMap::from([
                (11, vec![effect(A, 1, Some("1"))]),
                (12, vec![effect(B, 1, Some("2"))]),
                (13, vec![effect(A, 2, Some("3"))]),
                (15, vec![effect(B, 2, None)]),
                (16, vec![effect(A, 3, Some("4"))]),
            ]),
            from: 1,
            upto: 16,
            lists: vec![(scope, BTreeMap::from([(A.into(), entry(3, 16, Some("4")))]))],
            histories: BTreeMap::from([
                (A.into(), vec![entry(3, 16, Some("4")), entry(2, 13, Some("3"))]),
                (B.into(), vec![entry(2, 15, None), entry(1, 12, Some("2"))]),
            ]),
            errors: Vec::new(),
        }
    }

    #[test]
    fn what_was_acknowledged_is_right() {
        assert_eq!(ledger().settle(&found()), Vec::<String>::new());
    }

    #[test]
    fn every_wrong_answer_is_noticed() {
        type Alter = fn(&mut Found);
        let alterations: [(&str, Alter); 13] = [
            ("a revision is gone", |found| drop(found.changes.remove(&13))),
            ("the newest revision is gone", |found| drop(found.changes.remove(&16))),
            ("a revision is another value", |found| {
                found.changes.insert(13, vec![effect(A, 2, Some("5"))]);
            }),
            ("a revision is another entry", |found| {
                found.changes.insert(13, vec![effect(B, 2, Some("3"))]);
            }),
            ("a revision that nobody made", |found| {
                found.changes.insert(14, vec![effect(A, 4, Some("9"))]);
            }),
            ("a refused write shows", |found| {
                found.changes.insert(17, vec![effect(A, 4, Some("refused"))]);
            }),
            ("an entry is gone from the list", |found| found.lists[0].1.clear()),
            ("a deleted entry is back", |found| {
                found.lists[0].1.insert(B.into(), entry(1, 12, Some("2")));
            }),
            ("the list has an old version", |found| {
                found.lists[0].1.insert(A.into(), entry(2, 13, Some("3")));
            }),
            ("another revision in the list", |found| {
                found.lists[0].1.insert(A.into(), entry(3, 17, Some("4")));
            }),
            ("a history is short", |found| drop(found.histories.get_mut(A).unwrap().pop())),
            ("a history is empty", |found| found.histories.get_mut(B).unwrap().clear()),
            ("a history has another value", |found| {
                found.histories.get_mut(A).unwrap()[1].value = Some("2".into());
            }),
        ];
        for (what, alter) in alterations {
            let mut altered = found();
            alter(&mut altered);
            assert_ne!(ledger().settle(&altered), Vec::<String>::new(), "{what}");
            // An error beside it does not excuse it.
            altered.errors.push("INTERNAL: something else".into());
            assert_ne!(ledger().settle(&altered), Vec::<String>::new(), "{what}, with an error");
        }
    }

    #[test]
    fn what_was_not_answered_is_not_wrong() {
        let mut found = found();
        found.histories.remove(B);
        found.lists.clear();
        found.changes.retain(|revision, _| *revision < 13);
        found.upto = 12;
        found.errors.push("INTERNAL: Corruption".into());
        assert_eq!(ledger().settle(&found), Vec::<String>::new());
    }

    #[test]
    fn a_write_without_an_answer_may_show_once_or_never() {
        let (mut ledger, mut now) = (ledger(), found());
        ledger.note(&lost(set(A, "5"))).unwrap();
        ledger.note(&lost(delete(A))).unwrap();
        ledger.note(&lost(set(B, "6"))).unwrap();
        now.changes.insert(18, vec![effect(A, 4, Some("5"))]);
        now.upto = 18;
        now.lists[0].1.insert(A.into(), entry(4, 18, Some("5")));
        now.histories.insert(A.into(), vec![entry(4, 18, Some("5")), entry(3, 16, Some("4"))]);
        assert_eq!(ledger.settle(&now), Vec::<String>::new());
        assert_eq!((ledger.happened, ledger.vanished), (1, 2));
        // From now on it is certain, and the others did not happen.
        assert_eq!(ledger.settle(&now), Vec::<String>::new());
        assert!(
            ledger
                .settle(&found())
                .iter()
                .any(|wrong| wrong.contains("revision 18") || wrong.contains("history"))
        );
        now.changes.insert(19, vec![effect(B, 3, Some("6"))]);
        assert!(ledger.settle(&now).iter().any(|wrong| wrong.contains("nobody wrote")));
    }

    #[test]
    fn a_write_without_an_answer_never_shows_twice() {
        let (mut ledger, mut now) = (ledger(), found());
        ledger.note(&lost(set(A, "5"))).unwrap();
        now.changes.insert(18, vec![effect(A, 4, Some("5"))]);
        now.changes.insert(19, vec![effect(A, 5, Some("5"))]);
        now.upto = 19;
        assert!(ledger.settle(&now).iter().any(|wrong| wrong.contains("revision 19")));
    }

    #[test]
    fn half_of_a_transaction_explains_nothing() {
        let (mut ledger, mut now) = (ledger(), found());
        ledger.note(&lost(both("7"))).unwrap();
        now.changes.insert(18, vec![effect(A, 4, Some("7"))]);
        assert!(ledger.settle(&now).iter().any(|wrong| wrong.contains("nobody wrote")));
        let results = vec![TxnResult::Written { version: 4 }, TxnResult::Written { version: 3 }];
        let answer = Answer::Txn { succeeded: true, results };
        let mut ledger = self::ledger();
        ledger.note(&operation(both("7"), Outcome::Ok, Some(18), Some(answer))).unwrap();
        now.upto = 18;
        assert!(ledger.settle(&now).iter().any(|wrong| wrong.contains("revision 18 was")));
    }

    #[test]
    fn revisions_and_versions_are_never_used_again() {
        let mut ledger = ledger();
        assert!(ledger.note(&done(set(B, "8"), 16, 3)).unwrap_err().contains("revision 16"));
        let mut ledger = self::ledger();
        ledger.note(&done(set(A, "8"), 17, 3)).unwrap();
        let mut now = found();
        now.changes.insert(17, vec![effect(A, 3, Some("8"))]);
        now.upto = 17;
        assert!(ledger.settle(&now).iter().any(|wrong| wrong.contains("where 4 comes next")));
    }
}
