//! Linearizability of each entry, by the search of Wing and Gong with Lowe's memory of what was tried.
//!
//! It trusts no revision. The entry counts its versions, and that is what keeps the search short: a write whose outcome is
//! unknown is only tried at a version that no acknowledged write has and that nobody saw with another value. In a part of a
//! history, the version may jump: others wrote meanwhile.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use super::facts::{Facts, Index, KeyId, MASKED, ValueId};
use super::{Findings, Limits, Verdict};
use crate::history::{
    Answer, Call, Entry, NOT_FOUND, Operation, Outcome, TxnOp, TxnResult, VERSION_CONFLICT,
};

/// A value that nobody has seen, or was not shown; each such one counts as this.
const UNSEEN: ValueId = ValueId::MAX;
/// How many steps pass between two looks at the clock.
const STEPS_BETWEEN_LOOKS: u64 = 4096;
/// The memory of what was tried, in words: half a gigabyte.
const WORDS_MAX: usize = 64 << 20;

/// What an entry is: the version of its last change, and its value if it exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct State {
    version: u64,
    value: Option<ValueId>,
}

/// A value that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    Value(ValueId),
    Deleted,
    /// Only the store knows.
    Any,
}

/// A step of an operation on the entry, all of which happen at once.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// It was read: version and value, or absent.
    Read(Option<(u64, ValueId)>),
    /// It had this version; 0: it did not exist.
    Version(u64),
    /// It had another version than this.
    NotVersion(u64),
    /// It was written, and got this version if that is known.
    Write(Written, Option<u64>),
    /// No entry answers so.
    Never,
}

/// An operation on one entry.
#[derive(Debug, Clone)]
struct Entered {
    by: Index,
    /// One of these lists of steps is what happened.
    ways: Vec<Vec<Step>>,
    invoked_ns: u64,
    /// Absent: it may happen at any later time, or never.
    completed_ns: Option<u64>,
}

/// What answers say about the versions of an entry.
#[derive(Debug, Default)]
struct Known {
    /// Versions that acknowledged writes have.
    claimed: HashSet<u64>,
    /// What a version is.
    values: HashMap<u64, Option<ValueId>>,
    highest: u64,
    /// Somebody was refused without being told the version.
    vague: bool,
    partial: bool,
}

pub(super) fn check(facts: &Facts<'_>, limits: &Limits) -> Verdict {
    let deadline = Instant::now() + limits.time;
    let mut of_key: Vec<Vec<Entered>> = Vec::new();
    of_key.resize_with(facts.key_ids().count(), Vec::new);
    for by in 0..facts.operations.len() {
        enter(facts, by, &mut of_key);
    }
    let mut found = Findings::default();
    let mut undecided: Vec<String> = Vec::new();
    for (key, entered) in facts.key_ids().zip(of_key) {
        if entered.iter().all(|operation| operation.completed_ns.is_none()) {
            continue;
        }
        found.checked += entered.len() as u64;
        match search(&entered, facts.partial(), limits, deadline) {
            Found::Order => {}
            Found::None { deepest, stuck } => {
                let name = facts.name(key);
                report(facts, key, name, &entered, &deepest, stuck, &mut found);
            }
            Found::GaveUp(why) => undecided.push(format!("{}: {why}", facts.name(key))),
        }
    }
    if found.violations.is_empty() && !undecided.is_empty() {
        undecided.truncate(5);
        return Verdict::Unknown { why: undecided.join("; ") };
    }
    found.verdict()
}

fn report(
    facts: &Facts<'_>,
    key: KeyId,
    name: &str,
    entered: &[Entered],
    deepest: &[usize],
    stuck: usize,
    found: &mut Findings,
) {
    let last_write = deepest.iter().rev().find(|place| {
        let steps = entered[**place].ways.iter().flatten();
        steps.clone().any(|step| matches!(step, Step::Write(..)))
    });
    let stuck = entered[stuck].by;
    let named = std::iter::once(stuck).chain(last_write.map(|place| entered[*place].by));
    let after = last_write.map_or_else(
        || "before any write".to_owned(),
        |place| format!("after operation {}", facts.id(entered[*place].by)),
    );
    let log = &facts.log[key as usize];
    let versions = log.last().map_or(0, |point| point.version);
    found.fail(
        "no order",
        Some(name),
        named.map(|by| facts.id(by)),
        format!(
            "no order of its operations explains all answers; the longest that does has {} of {} \
             and ends {after}, where the answer of operation {} ({}) cannot be right; {versions} versions are known",
            deepest.len(),
            entered.len(),
            facts.id(stuck),
            facts.operations[stuck].call.kind(),
        ),
    );
}

/// Adds an operation to the entries that it is about.
fn enter(facts: &Facts<'_>, by: Index, of_key: &mut [Vec<Entered>]) {
    let operation = &facts.operations[by];
    let completed_ns = match operation.outcome {
        Outcome::Unknown => None,
        Outcome::Ok | Outcome::Fail => operation.completed_ns,
    };
    let mut add = |key: &str, ways: Vec<Vec<Step>>| {
        let Some(key) = facts.key_id(key) else { return };
        if ways.iter().all(Vec::is_empty) {
            return;
        }
        let invoked_ns = operation.invoked_ns;
        of_key[key as usize].push(Entered { by, ways, invoked_ns, completed_ns });
    };
    let entry = |entry: &Option<Entry>| {
        let seen = entry.as_ref().and_then(|entry| {
            let value = facts.value_id(entry.value.as_ref()?)?;
            Some((entry.version, if value == MASKED { UNSEEN } else { value }))
        });
        Step::Read(seen)
    };
    if operation.outcome == Outcome::Fail {
        if let Some((key, step)) = refusal(operation)
            && completed_ns.is_some()
        {
            add(key, vec![vec![step]]);
        }
        return;
    }
    let version = match &operation.answer {
        Some(Answer::Written { version, .. }) => Some(*version),
        _ => None,
    };
    match (&operation.call, &operation.answer) {
        (Call::Get { key, read, version: None }, Some(Answer::Entry { entry: seen }))
            if read.linearizable =>
        {
            add(key, vec![vec![entry(seen)]]);
        }
        (Call::Set { key, value, expected_version, .. }, _) => {
            let written = facts.value_id(value).map_or(Written::Any, Written::Value);
            add(key, vec![conditional(*expected_version, written, version)]);
        }
        (Call::Delete { key, expected_version, .. }, _) => {
            add(key, vec![conditional(*expected_version, Written::Deleted, version)]);
        }
        (Call::Rollback { key, .. } | Call::Increment { key, .. }, answer) => {
            let written = match answer {
                Some(Answer::Written { value: Some(value), .. }) => facts
                    .value_id(value)
                    .filter(|value| *value != MASKED)
                    .map_or(Written::Any, Written::Value),
                _ => Written::Any,
            };
            add(key, vec![vec![Step::Write(written, version)]]);
        }
        (Call::Txn { compare, success, failure, .. }, answer) => {
            for key in operation.call.keys() {
                let compared: Vec<u64> = compare
                    .iter()
                    .filter(|compare| compare.key == key)
                    .map(|compare| compare.version)
                    .collect();
                let way = |list: &[TxnOp], results: Option<&[TxnResult]>, succeeds: bool| {
                    let mut steps: Vec<Step> = Vec::new();
                    if succeeds {
                        steps.extend(compared.iter().map(|version| Step::Version(*version)));
                    } else if let ([version], 1) = (&*compared, compare.len()) {
                        steps.push(Step::NotVersion(*version));
                    }
                    for (place, op) in list.iter().enumerate().filter(|(_, op)| op.key() == key) {
                        let result = results.and_then(|results| results.get(place));
                        let version = match result {
                            Some(TxnResult::Written { version }) => Some(*version),
                            _ => None,
                        };
                        match (op, result) {
                            (TxnOp::Set { value, .. }, _) => {
                                let written =
                                    facts.value_id(value).map_or(Written::Any, Written::Value);
                                steps.push(Step::Write(written, version));
                            }
                            (TxnOp::Delete { .. }, _) => {
                                steps.push(Step::Write(Written::Deleted, version));
                            }
                            (TxnOp::Get { .. }, Some(TxnResult::Got { entry: seen })) => {
                                steps.push(entry(seen));
                            }
                            (TxnOp::Get { .. }, _) => {}
                        }
                    }
                    steps
                };
                let ways = match answer {
                    Some(Answer::Txn { succeeded: true, results }) => {
                        vec![way(success, Some(results), true)]
                    }
                    Some(Answer::Txn { succeeded: false, results }) => {
                        vec![way(failure, Some(results), false)]
                    }
                    _ => [way(success, None, true), way(failure, None, false)]
                        .into_iter()
                        .filter(|way| way.iter().any(|step| matches!(step, Step::Write(..))))
                        .collect(),
                };
                add(key, ways);
            }
        }
        _ => {}
    }
}

fn conditional(expected: Option<u64>, written: Written, version: Option<u64>) -> Vec<Step> {
    let mut steps: Vec<Step> = expected.map(Step::Version).into_iter().collect();
    steps.push(Step::Write(written, version));
    steps
}

/// What a refusal tells about the entry, as far as it was the entry that was refused.
fn refusal(operation: &Operation) -> Option<(&str, Step)> {
    let (key, expected) = match &operation.call {
        Call::Set { key, expected_version, .. } => (key, *expected_version),
        Call::Delete { key, expected_version, .. } => {
            if operation.error.as_deref() == Some(NOT_FOUND) {
                return Some((key, Step::Version(0)));
            }
            (key, *expected_version)
        }
        _ => return None,
    };
    if operation.error.as_deref() != Some(VERSION_CONFLICT) {
        return None;
    }
    match operation.answer {
        // What was expected was there, and was refused; or a delete of nothing was refused for its version.
        Some(Answer::Conflict { current_version })
            if Some(current_version) == expected
                || (current_version == 0 && matches!(operation.call, Call::Delete { .. })) =>
        {
            Some((key, Step::Never))
        }
        Some(Answer::Conflict { current_version }) => Some((key, Step::Version(current_version))),
        _ => Some((key, Step::NotVersion(expected?))),
    }
}

impl Known {
    fn of(entered: &[Entered], partial: bool) -> Self {
        let mut known = Self { partial, ..Self::default() };
        for operation in entered {
            let steps = operation.ways.iter().flatten();
            for step in steps {
                match *step {
                    Step::Read(None) | Step::Never => {}
                    Step::Read(Some((version, value))) => {
                        if value != UNSEEN {
                            known.values.entry(version).or_insert(Some(value));
                        }
                        known.highest = known.highest.max(version);
                    }
                    Step::Version(version) => known.highest = known.highest.max(version),
                    Step::NotVersion(_) => known.vague = true,
                    Step::Write(written, Some(version)) => {
                        known.claimed.insert(version);
                        known.highest = known.highest.max(version);
                        match written {
                            Written::Value(value) => known.values.insert(version, Some(value)),
                            Written::Deleted => known.values.insert(version, None),
                            Written::Any => None,
                        };
                    }
                    Step::Write(_, None) => {}
                }
            }
        }
        known
    }

    /// The state after a step, if it can be taken.
    fn after(&self, state: State, step: Step) -> Option<State> {
        let State { version: at, value } = state;
        let live = value.is_some();
        match step {
            Step::Never => None,
            Step::Read(Some((version, seen))) => {
                let same = version == at
                    && value.is_some_and(|v| v == seen || v == UNSEEN || seen == UNSEEN);
                let jumps = self.partial && version > at;
                let value = if same && seen == UNSEEN { value } else { Some(seen) };
                (same || jumps).then_some(State { version, value })
            }
            Step::Read(None) | Step::Version(0) => {
                if !live {
                    return Some(state);
                }
                // Others deleted it, which took a version.
                self.partial.then_some(State { version: at + 1, value: None })
            }
            Step::Version(version) => {
                if live && version == at {
                    return Some(state);
                }
                let value = self.values.get(&version).copied().unwrap_or(Some(UNSEEN));
                (self.partial && version > at && value.is_some())
                    .then_some(State { version, value })
            }
            Step::NotVersion(version) => {
                let current = if live { at } else { 0 };
                (self.partial || current != version).then_some(state)
            }
            Step::Write(written, Some(version)) => {
                let next = version == at + 1 && (live || written != Written::Deleted);
                let jumps = self.partial && version > at + 1;
                (next || jumps).then_some(State { version, value: self.made(written, version)? })
            }
            Step::Write(written, None) => {
                let version = at + 1;
                if self.claimed.contains(&version) || (written == Written::Deleted && !live) {
                    return None;
                }
                // A value above all that was seen explains nothing.
                let seen = version <= self.highest || self.vague;
                if !seen && written != Written::Deleted {
                    return None;
                }
                Some(State { version, value: self.made(written, version)? })
            }
        }
    }

    /// What a version becomes by a write, if that is what was seen of it.
    fn made(&self, written: Written, version: u64) -> Option<Option<ValueId>> {
        let known = self.values.get(&version).copied();
        match (written, known) {
            (Written::Any, None) => Some(Some(UNSEEN)),
            (Written::Any, Some(None)) => None,
            (Written::Any, Some(seen)) => Some(seen),
            (Written::Deleted, None | Some(None)) => Some(None),
            (Written::Deleted, Some(Some(_))) => None,
            (Written::Value(value), Some(seen)) if seen != Some(value) => None,
            (Written::Value(value), _) => Some(Some(value)),
        }
    }

    fn all(&self, state: State, steps: &[Step]) -> Option<State> {
        steps.iter().try_fold(state, |state, step| self.after(state, *step))
    }
}

/// What a search found.
enum Found {
    Order,
    /// The longest order, and the operation that could not follow.
    None {
        deepest: Vec<usize>,
        stuck: usize,
    },
    GaveUp(String),
}

/// A node of the list of invocations and answers that are not yet in the order.
#[derive(Debug, Clone, Copy)]
struct Node {
    /// Which operation.
    place: usize,
    /// Its answer; else its invocation.
    is_answer: bool,
    /// Of an invocation, the node of the answer; 0 if there is none.
    answer: usize,
    before: usize,
    after: usize,
}

/// The list. Node 0 is its head.
struct List(Vec<Node>);

impl List {
    fn of(entered: &[Entered]) -> Self {
        let mut events: Vec<(u64, bool, usize)> = Vec::new();
        for (place, operation) in entered.iter().enumerate() {
            events.push((operation.invoked_ns, false, place));
            if let Some(completed_ns) = operation.completed_ns {
                events.push((completed_ns, true, place));
            }
        }
        // At the same moment, invocations come first: what is not surely before is concurrent.
        events.sort_unstable();
        let head = Node { place: 0, is_answer: false, answer: 0, before: 0, after: 0 };
        let mut nodes = vec![head];
        let mut invocations = vec![0; entered.len()];
        for (_, is_answer, place) in events {
            let node = nodes.len();
            nodes.push(Node { place, is_answer, answer: 0, before: node - 1, after: 0 });
            nodes[node - 1].after = node;
            if is_answer {
                nodes[invocations[place]].answer = node;
            } else {
                invocations[place] = node;
            }
        }
        Self(nodes)
    }

    fn unlink(&mut self, node: usize) {
        let Node { before, after, .. } = self.0[node];
        self.0[before].after = after;
        if after != 0 {
            self.0[after].before = before;
        }
    }

    fn relink(&mut self, node: usize) {
        let Node { before, after, .. } = self.0[node];
        self.0[before].after = node;
        if after != 0 {
            self.0[after].before = node;
        }
    }

    /// Takes an invocation and its answer out.
    fn lift(&mut self, node: usize) {
        self.unlink(node);
        let answer = self.0[node].answer;
        if answer != 0 {
            self.unlink(answer);
        }
    }

    /// Undoes the last `lift`.
    fn unlift(&mut self, node: usize) {
        let answer = self.0[node].answer;
        if answer != 0 {
            self.relink(answer);
        }
        self.relink(node);
    }
}

/// A set of operations, in a short form: of what was answered, nearly all that was invoked long ago is taken and nothing of
/// what comes later, so only the words between are kept. What was not answered is apart, as it may stay untaken for ever.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Taken {
    full_words: u32,
    words: Box<[u64]>,
    unanswered: Box<[u64]>,
}

/// The operations that are in the order.
#[derive(Debug)]
struct Bits {
    /// Of each operation: whether it was answered, and its place among those that were, or were not.
    places: Vec<(bool, usize)>,
    answered: Vec<u64>,
    unanswered: Vec<u64>,
}

impl Bits {
    fn of(entered: &[Entered]) -> Self {
        let (mut answered, mut unanswered) = (0, 0);
        let mut place = |operation: &Entered| {
            let is_answered = operation.completed_ns.is_some();
            let count = if is_answered { &mut answered } else { &mut unanswered };
            *count += 1;
            (is_answered, *count - 1)
        };
        let places = entered.iter().map(&mut place).collect();
        let words = |count: usize| vec![0; count.div_ceil(64)];
        Self { places, answered: words(answered), unanswered: words(unanswered) }
    }

    fn flip(&mut self, operation: usize) {
        let (is_answered, place) = self.places[operation];
        let words = if is_answered { &mut self.answered } else { &mut self.unanswered };
        words[place / 64] ^= 1 << (place % 64);
    }

    fn taken(&self) -> Taken {
        let full = self.answered.iter().take_while(|word| **word == u64::MAX).count();
        let used =
            |words: &[u64]| words.iter().rposition(|word| *word != 0).map_or(0, |last| last + 1);
        let words = self.answered.get(full..used(&self.answered)).unwrap_or_default();
        let unanswered = self.unanswered.get(..used(&self.unanswered)).unwrap_or_default();
        Taken {
            full_words: u32::try_from(full).unwrap_or(u32::MAX),
            words: words.into(),
            unanswered: unanswered.into(),
        }
    }
}

fn search(entered: &[Entered], partial: bool, limits: &Limits, deadline: Instant) -> Found {
    // What may never have happened explains nothing that a jump does not.
    let mut places: Vec<usize> = (0..entered.len())
        .filter(|place| !partial || entered[*place].completed_ns.is_some())
        .collect();
    places.sort_by_key(|place| entered[*place].invoked_ns);
    let sorted: Vec<Entered> = places.iter().map(|place| entered[*place].clone()).collect();
    let known = Known::of(&sorted, partial);
    let mut list = List::of(&sorted);
    let mut answers_left =
        sorted.iter().filter(|operation| operation.completed_ns.is_some()).count();
    let mut bits = Bits::of(&sorted);
    let mut words = 0;
    let mut state = State { version: 0, value: None };
    let mut tried: HashSet<(Taken, State)> = HashSet::new();
    // Of each operation in the order: its node, which of its ways, and the state before it.
    let mut order: Vec<(usize, usize, State)> = Vec::new();
    let mut deepest: (Vec<usize>, usize) = (Vec::new(), 0);
    let mut steps = 0_u64;
    let mut at = list.0[0].after;
    let mut way = 0;
    loop {
        if answers_left == 0 {
            return Found::Order;
        }
        steps += 1;
        if steps > limits.steps {
            return Found::GaveUp(format!("no order was found in {} steps", limits.steps));
        }
        if steps.is_multiple_of(STEPS_BETWEEN_LOOKS) && Instant::now() > deadline {
            let seconds = limits.time.max(Duration::from_secs(1)).as_secs();
            return Found::GaveUp(format!("no order was found in {seconds} s"));
        }
        let node = list.0[at];
        if at != 0 && !node.is_answer {
            let ways = &sorted[node.place].ways;
            let next = (way..ways.len())
                .find_map(|way| known.all(state, &ways[way]).map(|next| (way, next)));
            let Some((taken_way, next)) = next else {
                (at, way) = (node.after, 0);
                continue;
            };
            bits.flip(node.place);
            let taken = bits.taken();
            words += taken.words.len() + taken.unanswered.len();
            if tried.insert((taken, next)) {
                if tried.len() > limits.states || words > WORDS_MAX {
                    return Found::GaveUp(format!("more than {} states", tried.len() - 1));
                }
                order.push((at, taken_way, state));
                state = next;
                list.lift(at);
                answers_left -= usize::from(node.answer != 0);
                (at, way) = (list.0[0].after, 0);
            } else {
                bits.flip(node.place);
                way = taken_way + 1;
            }
            continue;
        }
        // An operation has ended and is in no order, or nothing is left to try: the last one was wrong.
        if order.len() >= deepest.0.len() && node.is_answer {
            let so_far = order.iter().map(|(node, _, _)| places[list.0[*node].place]);
            deepest = (so_far.collect(), places[node.place]);
        }
        let Some((last, last_way, before)) = order.pop() else {
            let (deepest, stuck) = deepest;
            return Found::None { deepest, stuck };
        };
        list.unlift(last);
        let undone = list.0[last];
        bits.flip(undone.place);
        answers_left += usize::from(undone.answer != 0);
        state = before;
        (at, way) = (last, last_way + 1);
    }
}
