//! What a history says about each entry, sorted: who wrote what, who saw what, and the log of changes that follows from both.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::LazyLock;

use crate::history::{
    Answer, Call, Entry, Header, History, MASK, Operation, Outcome, Scope, TxnOp, TxnResult, Value,
};

/// A key, by number.
pub(super) type KeyId = u32;
/// A value, by number; equal values have one.
pub(super) type ValueId = u32;
/// Some value: a secret that was not shown. It has the first number.
pub(super) const MASKED: ValueId = 0;
static MASKED_VALUE: LazyLock<Value> = LazyLock::new(|| Value::from(MASK));
/// An operation, by its place in [`Facts::operations`].
pub(super) type Index = usize;

/// What a write makes of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    Value(ValueId),
    Delete,
    /// A value that only the store knows.
    Any,
}

impl Effect {
    /// Whether it can have made this.
    pub(super) fn can_be(self, value: Option<ValueId>) -> bool {
        match self {
            Self::Value(id) => value == Some(id) || value == Some(MASKED),
            Self::Delete => value.is_none(),
            Self::Any => value.is_some(),
        }
    }
}

/// A change of an entry that an operation makes, or would have made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Change {
    pub(super) key: KeyId,
    pub(super) effect: Effect,
    /// As it was answered.
    pub(super) version: Option<u64>,
    pub(super) revision: Option<u64>,
    /// `Fail` also for the list of a transaction that was not done.
    pub(super) outcome: Outcome,
    pub(super) by: Index,
}

/// A version of an entry that an answer shows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sighting {
    pub(super) key: KeyId,
    pub(super) version: u64,
    pub(super) revision: u64,
    pub(super) value: Option<ValueId>,
    /// The revision at which it was the current one.
    pub(super) current_at: Option<u64>,
    pub(super) by: Index,
}

/// A change that happened.
#[derive(Debug, Clone, Copy)]
pub(super) struct Point {
    pub(super) version: u64,
    pub(super) revision: u64,
    pub(super) value: Option<ValueId>,
    /// The write that was acknowledged with it.
    pub(super) maker: Option<Index>,
    /// The first operation that shows it.
    pub(super) witness: Index,
    /// Up to this revision it is known to have been the current version.
    pub(super) current_until: u64,
}

impl Point {
    fn is_masked_of(&self, other: &Self) -> bool {
        self.value == Some(MASKED) && other.value.is_some()
    }
}

/// Two answers about one entry that cannot both be right.
#[derive(Debug, Clone)]
pub(super) struct Contradiction {
    pub(super) key: KeyId,
    pub(super) first: Point,
    pub(super) second: Point,
}

/// A history, sorted for the checkers.
#[derive(Debug)]
pub struct Facts<'h> {
    pub(super) history: &'h History,
    /// In order of invocation. What was sent more than once under one idempotency key is one operation.
    pub(super) operations: Vec<Cow<'h, Operation>>,
    pub(super) changes: Vec<Change>,
    pub(super) sightings: Vec<Sighting>,
    /// Of each key, its known changes in the order of revisions.
    pub(super) log: Vec<Vec<Point>>,
    pub(super) contradictions: Vec<Contradiction>,
    keys: HashMap<&'h str, KeyId>,
    names: Vec<&'h str>,
    values: HashMap<&'h Value, ValueId>,
    /// For each key, the changes of it, by their place in `changes`.
    changes_of: Vec<Vec<usize>>,
}

impl<'h> Facts<'h> {
    /// Sorts a history.
    #[must_use]
    pub fn new(history: &'h History) -> Self {
        let mut facts = Self {
            history,
            operations: merge(&history.operations),
            changes: Vec::new(),
            sightings: Vec::new(),
            log: Vec::new(),
            contradictions: Vec::new(),
            keys: HashMap::new(),
            names: Vec::new(),
            values: HashMap::new(),
            changes_of: Vec::new(),
        };
        facts.value(&MASKED_VALUE);
        for operation in &history.operations {
            for key in operation.call.keys() {
                facts.key(key);
            }
        }
        // The originals have what the merged ones have, and live as long as the history.
        for operation in &history.operations {
            facts.intern(operation);
        }
        for index in 0..facts.operations.len() {
            facts.read_off(index);
        }
        facts.changes_of = vec![Vec::new(); facts.names.len()];
        for (place, change) in facts.changes.iter().enumerate() {
            facts.changes_of[change.key as usize].push(place);
        }
        facts.build_log();
        facts
    }

    pub(super) fn header(&self) -> &Header {
        &self.history.header
    }

    pub(super) fn partial(&self) -> bool {
        self.history.header.partial
    }

    pub(super) fn id(&self, index: Index) -> u64 {
        self.operations[index].id
    }

    pub(super) fn name(&self, key: KeyId) -> &'h str {
        self.names[key as usize]
    }

    pub(super) fn key_ids(&self) -> impl Iterator<Item = KeyId> + use<> {
        0..u32::try_from(self.names.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn key_id(&self, name: &str) -> Option<KeyId> {
        self.keys.get(name).copied()
    }

    pub(super) fn value_id(&self, value: &Value) -> Option<ValueId> {
        self.values.get(value).copied()
    }

    /// The changes that operations made, or would have made, of a key.
    pub(super) fn changes_of(&self, key: KeyId) -> impl Iterator<Item = &Change> {
        self.changes_of[key as usize].iter().map(|place| &self.changes[*place])
    }

    /// The value in an answer about a version; of a secret that it does not show, the one that others saw.
    pub(super) fn shown_as(&self, key: KeyId, entry: &Entry) -> Option<ValueId> {
        let value = self.value_id(entry.value.as_ref()?)?;
        let known = || self.version(key, entry.version).and_then(|point| point.value);
        if value == MASKED { known().or(Some(value)) } else { Some(value) }
    }

    /// The keys of a scope.
    pub(super) fn in_scope(&self, scope: &Scope) -> Vec<KeyId> {
        self.key_ids().filter(|key| scope.contains(self.name(*key))).collect()
    }

    /// What is known of a key at a revision.
    pub(super) fn at(&self, key: KeyId, revision: u64) -> State<'_> {
        let log = &self.log[key as usize];
        let after = log.partition_point(|point| point.revision <= revision);
        State { point: after.checked_sub(1).map(|last| &log[last]), next: log.get(after), revision }
    }

    /// The known change of a key that made this version.
    pub(super) fn version(&self, key: KeyId, version: u64) -> Option<&Point> {
        let log = &self.log[key as usize];
        match log.binary_search_by_key(&version, |point| point.version) {
            Ok(place) => log.get(place),
            // Where versions do not rise with revisions, a search may pass by it.
            Err(_) => log.iter().find(|point| point.version == version),
        }
    }

    /// The known change of a key at a revision.
    pub(super) fn change_at(&self, key: KeyId, revision: u64) -> Option<&Point> {
        let log = &self.log[key as usize];
        log.binary_search_by_key(&revision, |point| point.revision).ok().and_then(|at| log.get(at))
    }

    fn key(&mut self, name: &'h str) -> KeyId {
        if let Some(id) = self.keys.get(name) {
            return *id;
        }
        let id = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        self.keys.insert(name, id);
        self.names.push(name);
        id
    }

    fn value(&mut self, value: &'h Value) {
        let next = u32::try_from(self.values.len()).unwrap_or(u32::MAX);
        self.values.entry(value).or_insert(next);
    }

    fn entry(&mut self, entry: &'h Entry) {
        if let Some(value) = &entry.value {
            self.value(value);
        }
    }

    /// Gives numbers to the keys and values of an operation.
    fn intern(&mut self, operation: &'h Operation) {
        match &operation.call {
            Call::Set { value, .. } => self.value(value),
            Call::Txn { success, failure, .. } => {
                for op in success.iter().chain(failure) {
                    if let TxnOp::Set { value, .. } = op {
                        self.value(value);
                    }
                }
            }
            _ => {}
        }
        match &operation.answer {
            Some(Answer::Entry { entry: Some(entry) }) => self.entry(entry),
            Some(Answer::Written { value: Some(value), .. }) => self.value(value),
            Some(Answer::Txn { results, .. }) => {
                for result in results {
                    if let TxnResult::Got { entry: Some(entry) } = result {
                        self.entry(entry);
                    }
                }
            }
            Some(Answer::Entries { entries } | Answer::Events { events: entries, .. }) => {
                for keyed in entries {
                    self.key(&keyed.key);
                    self.entry(&keyed.entry);
                }
            }
            Some(Answer::Versions { versions }) => {
                for entry in versions {
                    self.entry(entry);
                }
            }
            Some(
                Answer::Entry { entry: None }
                | Answer::Written { value: None, .. }
                | Answer::Conflict { .. }
                | Answer::Compacted { .. }
                | Answer::Audit { .. }
                | Answer::Chain { .. }
                | Answer::Members { .. },
            )
            | None => {}
        }
    }

    /// Takes the changes and sightings from an operation.
    fn read_off(&mut self, by: Index) {
        let operation = self.operations[by].clone();
        match &operation.call {
            Call::Set { key, value, .. } => {
                let effect = self.effect(value);
                self.single(by, &operation, key, effect);
            }
            Call::Delete { key, .. } => self.single(by, &operation, key, Effect::Delete),
            Call::Rollback { key, .. } | Call::Increment { key, .. } => {
                let effect = match &operation.answer {
                    Some(Answer::Written { value: Some(value), .. }) => self.effect(value),
                    _ => Effect::Any,
                };
                self.single(by, &operation, key, effect);
            }
            Call::Txn { success, failure, .. } => {
                self.transaction(by, &operation, success, failure);
            }
            Call::Get { key, version, .. } => {
                if let Some(Answer::Entry { entry: Some(entry) }) = &operation.answer {
                    let current = version.is_none().then_some(operation.revision).flatten();
                    self.sighting(by, key, entry, current);
                }
            }
            Call::List { .. } => {
                if let Some(Answer::Entries { entries }) = &operation.answer {
                    for keyed in entries {
                        self.sighting(by, &keyed.key, &keyed.entry, operation.revision);
                    }
                }
            }
            Call::History { key, .. } => {
                if let Some(Answer::Versions { versions }) = &operation.answer {
                    for (place, entry) in versions.iter().enumerate() {
                        let current = (place == 0).then_some(operation.revision).flatten();
                        self.sighting(by, key, entry, current);
                    }
                }
            }
            Call::WatchBatch { .. } => {
                if let Some(Answer::Events { events, .. }) = &operation.answer {
                    for keyed in events {
                        self.sighting(by, &keyed.key, &keyed.entry, None);
                    }
                }
            }
            Call::WatchOpen { .. }
            | Call::WatchEnd { .. }
            | Call::Policy { .. }
            | Call::RotateKeys
            | Call::Audit { .. }
            | Call::VerifyAudit
            | Call::Members
            | Call::Other { .. } => {}
        }
    }

    fn effect(&self, value: &Value) -> Effect {
        let shown = self.value_id(value).filter(|value| *value != MASKED);
        shown.map_or(Effect::Any, Effect::Value)
    }

    fn single(&mut self, by: Index, operation: &Operation, key: &str, effect: Effect) {
        let Some(key) = self.key_id(key) else { return };
        let version = match &operation.answer {
            Some(Answer::Written { version, .. }) => Some(*version),
            _ => None,
        };
        self.changes.push(Change {
            key,
            effect,
            version,
            revision: operation.revision.filter(|_| version.is_some()),
            outcome: operation.outcome,
            by,
        });
    }

    fn transaction(
        &mut self,
        by: Index,
        operation: &Operation,
        success: &[TxnOp],
        failure: &[TxnOp],
    ) {
        let done = match &operation.answer {
            Some(Answer::Txn { succeeded, results }) => Some((*succeeded, results)),
            _ => None,
        };
        for (list, succeeds) in [(success, true), (failure, false)] {
            for (place, op) in list.iter().enumerate() {
                let result = done
                    .filter(|(succeeded, _)| *succeeded == succeeds)
                    .and_then(|(_, results)| results.get(place));
                let effect = match op {
                    TxnOp::Set { value, .. } => self.effect(value),
                    TxnOp::Delete { .. } => Effect::Delete,
                    TxnOp::Get { key } => {
                        if let Some(TxnResult::Got { entry: Some(entry) }) = result {
                            self.sighting(by, key, entry, None);
                        }
                        continue;
                    }
                };
                let Some(key) = self.key_id(op.key()) else { continue };
                let outcome = match (done, result) {
                    (Some(_), Some(_)) => Outcome::Ok,
                    (Some(_), None) => Outcome::Fail,
                    (None, _) => operation.outcome,
                };
                let version = match result {
                    Some(TxnResult::Written { version }) => Some(*version),
                    _ => None,
                };
                let revision = operation.revision.filter(|_| version.is_some());
                self.changes.push(Change { key, effect, version, revision, outcome, by });
            }
        }
    }

    fn sighting(&mut self, by: Index, key: &str, entry: &Entry, current_at: Option<u64>) {
        let Some(key) = self.key_id(key) else { return };
        let value = entry.value.as_ref().and_then(|value| self.value_id(value));
        self.sightings.push(Sighting {
            key,
            version: entry.version,
            revision: entry.revision,
            value,
            current_at,
            by,
        });
    }

    /// Puts acknowledged changes and sightings into one log for each key.
    fn build_log(&mut self) {
        let mut points: Vec<Vec<Point>> = vec![Vec::new(); self.names.len()];
        for change in &self.changes {
            let (Some(version), Some(revision)) = (change.version, change.revision) else {
                continue;
            };
            let value = match change.effect {
                Effect::Value(value) => Some(value),
                Effect::Delete => None,
                Effect::Any => Some(MASKED),
            };
            points[change.key as usize].push(Point {
                version,
                revision,
                value,
                maker: Some(change.by),
                witness: change.by,
                current_until: revision,
            });
        }
        for sighting in &self.sightings {
            points[sighting.key as usize].push(Point {
                version: sighting.version,
                revision: sighting.revision,
                value: sighting.value,
                maker: None,
                witness: sighting.by,
                current_until: sighting.current_at.unwrap_or(0).max(sighting.revision),
            });
        }
        for (key, mut points) in self.key_ids().zip(points) {
            // What the makers say comes first, so that it is what others are compared with.
            points.sort_by_key(|point| (point.revision, point.version, point.maker.is_none()));
            let mut log: Vec<Point> = Vec::new();
            let mut by_version: HashMap<u64, usize> = HashMap::new();
            for point in points {
                let known = by_version.get(&point.version).copied();
                let same_revision = log
                    .last()
                    .filter(|last| last.revision == point.revision)
                    .map(|_| log.len() - 1);
                match known.or(same_revision) {
                    None => {
                        by_version.insert(point.version, log.len());
                        log.push(point);
                    }
                    Some(place) => {
                        let known = &mut log[place];
                        let same = |a: &Point, b: &Point| {
                            (a.version, a.revision) == (b.version, b.revision)
                                && (a.value == b.value || a.is_masked_of(b) || b.is_masked_of(a))
                        };
                        if same(known, &point) && (known.maker.is_none() || point.maker.is_none()) {
                            if known.is_masked_of(&point) {
                                known.value = point.value;
                            }
                            known.current_until = known.current_until.max(point.current_until);
                            known.maker = known.maker.or(point.maker);
                        } else {
                            let first = *known;
                            self.contradictions.push(Contradiction { key, first, second: point });
                        }
                    }
                }
            }
            self.log.push(log);
        }
    }

    /// How a value looks in a sentence.
    pub(super) fn show(&self, value: Option<ValueId>) -> String {
        let Some(id) = value else { return "deleted".to_owned() };
        let text =
            self.values.iter().find(|(_, known)| **known == id).map(|(value, _)| value.to_string());
        let text = text.unwrap_or_default();
        if text.chars().count() <= 40 {
            return text;
        }
        let start: String = text.chars().take(40).collect();
        format!("{start}…")
    }
}

/// What is known of an entry at a revision.
#[derive(Debug, Clone, Copy)]
pub(super) struct State<'f> {
    /// The last known change up to there.
    pub(super) point: Option<&'f Point>,
    /// The first known change after it.
    pub(super) next: Option<&'f Point>,
    revision: u64,
}

impl State<'_> {
    /// Whether nothing unseen can have happened between the last known change and the revision.
    pub(super) fn is_certain(&self) -> bool {
        let before = self.point.map_or(0, |point| point.version);
        self.point.is_some_and(|point| point.current_until >= self.revision)
            || self.next.is_some_and(|next| next.version == before + 1)
    }

    /// The version that a comparison sees; 0 when there is no entry.
    pub(super) fn version(&self) -> u64 {
        self.point.filter(|point| point.value.is_some()).map_or(0, |point| point.version)
    }
}

/// One operation for each request: what was sent more than once under one idempotency key was invoked with the first
/// sending, and was done when the first answer came. A sending that was refused says nothing about the others.
fn merge(operations: &[Operation]) -> Vec<Cow<'_, Operation>> {
    let mut merged: Vec<Cow<'_, Operation>> = Vec::with_capacity(operations.len());
    let mut known: HashMap<&str, usize> = HashMap::new();
    for operation in operations {
        let Some(request) = operation.call.idempotency_key() else {
            merged.push(Cow::Borrowed(operation));
            continue;
        };
        let Some(place) = known.get(request).copied() else {
            known.insert(request, merged.len());
            merged.push(Cow::Borrowed(operation));
            continue;
        };
        if merged[place].call != operation.call {
            // Another request under the same key: it is for the checker of counters to say whether that was accepted.
            merged.push(Cow::Borrowed(operation));
            continue;
        }
        let (kept, other) = (merged[place].as_ref(), operation);
        let rank = |operation: &Operation| match operation.outcome {
            Outcome::Ok => (0, operation.completed_ns),
            Outcome::Unknown => (1, None),
            Outcome::Fail => (2, None),
        };
        let better = if rank(other) < rank(kept) { other } else { kept };
        let refused = |operation: &Operation| operation.outcome == Outcome::Fail;
        let invoked_ns = match (refused(kept), refused(other)) {
            (false, true) => kept.invoked_ns,
            (true, false) => other.invoked_ns,
            _ => kept.invoked_ns.min(other.invoked_ns),
        };
        merged[place] = Cow::Owned(Operation { invoked_ns, ..better.clone() });
    }
    merged.sort_by_key(|operation| (operation.invoked_ns, operation.id));
    merged
}
