//! One history for each rule, right and broken.

use jepsen_lite::check::{Limits, Verdict, check};
use jepsen_lite::history::{
    Answer, Call, Compare, Entry, Header, History, Keyed, NOT_FOUND, Operation, Outcome,
    REVISION_COMPACTED, Read, Scope, Sum, TxnOp, TxnResult, VERSION_CONFLICT, Value,
};

pub(crate) const MS: u64 = 1_000_000;
pub(crate) const X: &str = "n/x@base";
pub(crate) const Y: &str = "n/y@base";

/// Numbers the operations as they are written down; process 1 unless said otherwise.
pub(crate) fn operation(
    at: (u64, u64),
    call: Call,
    revision: Option<u64>,
    answer: Option<Answer>,
) -> Operation {
    Operation {
        id: 0,
        process: 1,
        session: None,
        token: None,
        node: 1,
        call,
        invoked_ns: at.0 * MS,
        completed_ns: Some(at.1 * MS),
        outcome: Outcome::Ok,
        revision,
        answer,
        error: None,
        last: false,
    }
}

/// What is said about an operation after it is made.
pub(crate) trait With: Sized {
    fn with(self, change: impl FnOnce(&mut Operation)) -> Operation;
    fn unknown(self) -> Operation {
        self.with(|operation| {
            operation.outcome = Outcome::Unknown;
            operation.completed_ns = None;
            operation.revision = None;
            operation.answer = None;
        })
    }
    fn refused(self, code: &str) -> Operation {
        self.with(|operation| {
            operation.outcome = Outcome::Fail;
            operation.error = Some(code.to_owned());
            operation.revision = None;
            operation.answer = None;
        })
    }
    fn conflict(self, current_version: u64) -> Operation {
        self.refused(VERSION_CONFLICT)
            .with(|operation| operation.answer = Some(Answer::Conflict { current_version }))
    }
    fn expecting(self, version: u64) -> Operation {
        self.with(|operation| match &mut operation.call {
            Call::Set { expected_version, .. } | Call::Delete { expected_version, .. } => {
                *expected_version = Some(version);
            }
            other => panic!("{other:?} expects nothing"),
        })
    }
    fn under(self, request: &str) -> Operation {
        self.with(|operation| match &mut operation.call {
            Call::Set { idempotency_key, .. } | Call::Txn { idempotency_key, .. } => {
                *idempotency_key = Some(request.to_owned());
            }
            other => panic!("{other:?} is not sent again here"),
        })
    }
    fn session(self) -> Operation {
        self.with(|operation| operation.session = Some(7))
    }
    fn last(self) -> Operation {
        self.with(|operation| operation.last = true)
    }
    fn node(self, node: u64) -> Operation {
        self.with(|operation| operation.node = node)
    }
    fn unnamed(self) -> Operation {
        self.with(|operation| operation.revision = None)
    }
}

impl With for Operation {
    fn with(mut self, change: impl FnOnce(&mut Operation)) -> Operation {
        change(&mut self);
        self
    }
}

pub(crate) fn entry((version, revision, value): (u64, u64, i64)) -> Entry {
    Entry { version, revision, value: Some(Value::from(value)) }
}

fn deleted(version: u64, revision: u64) -> Entry {
    Entry { version, revision, value: None }
}

fn keyed(key: &str, seen: (u64, u64, i64)) -> Keyed {
    Keyed { key: key.to_owned(), entry: entry(seen) }
}

/// A set, and the version and revision that it made.
pub(crate) fn set(at: (u64, u64), key: &str, value: i64, made: (u64, u64)) -> Operation {
    let call = Call::Set {
        key: key.to_owned(),
        value: Value::from(value),
        expected_version: None,
        idempotency_key: None,
    };
    operation(at, call, Some(made.1), Some(Answer::Written { version: made.0, value: None }))
}

pub(crate) fn delete(at: (u64, u64), key: &str, made: (u64, u64)) -> Operation {
    let call = Call::Delete { key: key.to_owned(), expected_version: None, idempotency_key: None };
    operation(at, call, Some(made.1), Some(Answer::Written { version: made.0, value: None }))
}

fn read(
    at: (u64, u64),
    key: &str,
    read: Read,
    seen: Option<(u64, u64, i64)>,
    revision: u64,
) -> Operation {
    let call = Call::Get { key: key.to_owned(), read, version: None };
    operation(at, call, Some(revision), Some(Answer::Entry { entry: seen.map(entry) }))
}

/// A linearizable read: version, revision and value, and the revision at which it was read.
pub(crate) fn get(
    at: (u64, u64),
    key: &str,
    seen: Option<(u64, u64, i64)>,
    revision: u64,
) -> Operation {
    read(at, key, Read::LINEARIZABLE, seen, revision)
}

pub(crate) fn cached(
    at: (u64, u64),
    key: &str,
    seen: Option<(u64, u64, i64)>,
    revision: u64,
) -> Operation {
    read(at, key, Read::CACHED, seen, revision)
}

fn bounded(
    at: (u64, u64),
    bound_ms: u64,
    seen: Option<(u64, u64, i64)>,
    revision: u64,
) -> Operation {
    read(at, X, Read { max_staleness_ms: Some(bound_ms), ..Read::CACHED }, seen, revision)
}

pub(crate) fn list(at: (u64, u64), seen: &[(&str, (u64, u64, i64))], revision: u64) -> Operation {
    let scope = Scope { prefix: "n/".to_owned(), environment: None };
    let entries = seen.iter().map(|(key, seen)| keyed(key, *seen)).collect();
    let call = Call::List { scope, read: Read::LINEARIZABLE };
    operation(at, call, Some(revision), Some(Answer::Entries { entries }))
}

pub(crate) fn history(at: (u64, u64), versions: Vec<Entry>, revision: u64) -> Operation {
    let call = Call::History { key: X.to_owned(), read: Read::LINEARIZABLE };
    operation(at, call, Some(revision), Some(Answer::Versions { versions }))
}

fn add(at: (u64, u64), by: u64, sum: i64, made: (u64, u64)) -> Operation {
    let value = Some(Value::from(sum));
    let call = Call::Increment { key: X.to_owned(), by };
    operation(at, call, Some(made.1), Some(Answer::Written { version: made.0, value }))
}

pub(crate) fn rollback(at: (u64, u64), to_version: u64, value: i64, made: (u64, u64)) -> Operation {
    let value = Some(Value::from(value));
    let call = Call::Rollback { key: X.to_owned(), to_version, idempotency_key: None };
    operation(at, call, Some(made.1), Some(Answer::Written { version: made.0, value }))
}

/// A transaction that sets `x` and `y`, if `x` has this version, and reads both otherwise.
fn txn(
    at: (u64, u64),
    when: u64,
    x: i64,
    y: i64,
    revision: u64,
    answer: (bool, Vec<TxnResult>),
) -> Operation {
    let step = |key: &str, value| TxnOp::Set { key: key.to_owned(), value: Value::from(value) };
    let call = Call::Txn {
        compare: vec![Compare { key: X.to_owned(), version: when }],
        success: vec![step(X, x), step(Y, y)],
        failure: [X, Y].map(|key| TxnOp::Get { key: key.to_owned() }).to_vec(),
        idempotency_key: None,
    };
    let (succeeded, results) = answer;
    operation(at, call, Some(revision), Some(Answer::Txn { succeeded, results }))
}

fn wrote(versions: [u64; 2]) -> (bool, Vec<TxnResult>) {
    (true, versions.map(|version| TxnResult::Written { version }).to_vec())
}

fn got(seen: [Option<(u64, u64, i64)>; 2]) -> (bool, Vec<TxnResult>) {
    (false, seen.map(|seen| TxnResult::Got { entry: seen.map(entry) }).to_vec())
}

fn open(at: u64, from_revision: u64) -> Operation {
    let scope = Scope { prefix: "n/".to_owned(), environment: Some("base".to_owned()) };
    let call = Call::WatchOpen { watch: 1, scope, from_revision: Some(from_revision) };
    operation((at, at), call, None, None)
}

fn batch(at: u64, revision: u64, events: &[(&str, (u64, u64, i64))]) -> Operation {
    let events = events.iter().map(|(key, seen)| keyed(key, *seen)).collect();
    let call = Call::WatchBatch { watch: 1 };
    operation((at, at), call, None, Some(Answer::Events { revision, events }))
}

fn ended(at: u64, up_to: u64) -> Operation {
    operation((at, at), Call::WatchEnd { watch: 1, up_to }, None, None)
}

pub(crate) fn of(header: Header, mut operations: Vec<Operation>) -> History {
    for (id, operation) in (1..).zip(&mut operations) {
        operation.id = id;
        assert_eq!(operation.validate(), Ok(()), "{operation:?}");
    }
    History { header, operations, faults: Vec::new(), whole: true }
}

/// The right history passes every checker; the broken one breaks this rule of this checker, and names the operations.
#[track_caller]
pub(crate) fn rule(
    checker: &str,
    rule: &str,
    named: &[u64],
    right: Vec<Operation>,
    broken: Vec<Operation>,
) {
    let header = Header { nodes: vec![1, 2], ..Header::default() };
    rule_with(header, checker, rule, named, right, broken);
}

#[track_caller]
pub(crate) fn rule_with(
    header: Header,
    checker: &str,
    rule: &str,
    named: &[u64],
    right: Vec<Operation>,
    broken: Vec<Operation>,
) {
    let report = check(&of(header.clone(), right), &Limits::default());
    for (name, verdict) in &report.verdicts {
        assert!(matches!(verdict, Verdict::Pass { .. }), "the right one, {name}: {verdict}");
    }
    let report = check(&of(header, broken), &Limits::default());
    let verdict = report.verdict(checker).unwrap();
    let Verdict::Fail { violations, .. } = verdict else {
        panic!("{checker} does not see it: {report}")
    };
    let found = violations.iter().find(|violation| violation.rule == rule);
    let found = found.unwrap_or_else(|| panic!("{checker} sees something else: {verdict}"));
    for id in named {
        assert!(found.operations.contains(id), "{found}");
    }
}

/// Version 1 and 2 of `x`, one after the other.
fn two() -> Vec<Operation> {
    vec![set((1, 2), X, 1, (1, 1)), set((3, 4), X, 2, (2, 2))]
}

pub(crate) fn and(mut operations: Vec<Operation>, more: Vec<Operation>) -> Vec<Operation> {
    operations.extend(more);
    operations
}

#[test]
fn a_read_that_is_not_the_last_write() {
    // Concurrent with the second write, it may see either.
    let right = and(two(), vec![get((3, 5), X, Some((1, 1, 1)), 1)]);
    let broken = and(two(), vec![get((5, 6), X, Some((1, 1, 1)), 1)]);
    rule("linearizable", "no order", &[3], right.clone(), broken.clone());
    rule("revision", "stale read", &[3, 2], right, broken);
    // It names the newest revision, and is not of it.
    let right = and(two(), vec![get((5, 6), X, Some((2, 2, 2)), 2)]);
    let broken = and(two(), vec![get((5, 6), X, Some((1, 1, 1)), 2)]);
    rule("linearizable", "no order", &[3], right.clone(), broken.clone());
    rule("revision", "replay", &[3, 2], right, broken);
}

#[test]
fn a_read_of_what_is_gone_and_of_what_is_not() {
    let base = || and(two(), vec![delete((5, 6), X, (3, 3))]);
    let right = and(base(), vec![get((7, 8), X, None, 3)]);
    let broken = and(base(), vec![get((7, 8), X, Some((2, 2, 2)), 3)]);
    rule("linearizable", "no order", &[4], right.clone(), broken.clone());
    rule("revision", "replay", &[4, 3], right, broken);
    let right = and(two(), vec![get((5, 6), X, Some((2, 2, 2)), 2)]);
    let broken = and(two(), vec![get((5, 6), X, None, 2)]);
    rule("linearizable", "no order", &[3], right.clone(), broken.clone());
    rule("revision", "replay", &[3, 2], right, broken);
}

#[test]
fn two_reads_that_disagree_about_a_write_without_an_answer() {
    let lost = || vec![set((1, 2), X, 1, (1, 1)), set((3, 0), X, 2, (0, 0)).unknown()];
    let seen = Some((2, 2, 2));
    let old = Some((1, 1, 1));
    // It may happen late, or never.
    rule(
        "linearizable",
        "no order",
        &[],
        and(lost(), vec![get((5, 6), X, old, 1), get((7, 8), X, seen, 2)]),
        and(lost(), vec![get((5, 6), X, seen, 2), get((7, 8), X, old, 1)]),
    );
}

#[test]
fn refusals_tell_what_was_there() {
    let cas = |at| set(at, X, 9, (9, 9));
    let right = and(two(), vec![cas((5, 6)).expecting(1).conflict(2)]);
    let broken = and(two(), vec![cas((5, 6)).expecting(1).conflict(0)]);
    rule("linearizable", "no order", &[3], right.clone(), broken);
    // What it expected was there.
    let broken = and(two(), vec![cas((5, 6)).expecting(2).conflict(2)]);
    rule("linearizable", "no order", &[3], right.clone(), broken);
    let broken = and(two(), vec![delete((0, 1), X, (9, 9)).expecting(1).conflict(0)]);
    rule("linearizable", "no order", &[3], right, broken);
    let gone = |at| delete(at, X, (9, 9)).refused(NOT_FOUND);
    rule(
        "linearizable",
        "no order",
        &[3],
        and(vec![gone((0, 1))], two()),
        and(two(), vec![gone((5, 6))]),
    );
    // A conditional write that was done on another version.
    let right = and(two(), vec![set((5, 6), X, 3, (3, 3)).expecting(2)]);
    let broken = and(two(), vec![set((5, 6), X, 3, (3, 3)).expecting(1)]);
    rule("linearizable", "no order", &[3], right.clone(), broken.clone());
    rule("versions", "expected version", &[3, 2], right, broken);
    let created = |expected| {
        and(
            two(),
            vec![
                set((5, 6), Y, 3, (1, 3)).expecting(0),
                set((7, 8), X, 4, (3, 4)).expecting(expected),
            ],
        )
    };
    rule("versions", "expected version", &[4], created(2), created(0));
}

#[test]
fn writes_that_are_later_and_have_a_lower_revision() {
    rule(
        "revision",
        "order of time",
        &[1, 2],
        vec![set((1, 2), X, 1, (1, 1)), set((3, 4), Y, 2, (1, 2))],
        vec![set((1, 2), X, 1, (1, 2)), set((3, 4), Y, 2, (1, 1))],
    );
    // A write whose answer was lost, seen at a revision that was over before it began.
    let later = |revision| {
        vec![
            set((1, 2), Y, 1, (1, 5)),
            set((3, 0), X, 2, (0, 0)).unknown(),
            cached((5, 6), X, Some((1, revision, 2)), 6),
        ]
    };
    rule("revision", "order of time", &[1, 2], later(6), later(4));
    // A cached read shows a revision that is made only after it.
    let cached_first =
        |revision| vec![cached((1, 2), X, None, revision), set((3, 4), X, 1, (1, 3))];
    rule("revision", "order of time", &[1, 2], cached_first(2), cached_first(3));
}

#[test]
fn two_writes_of_one_revision() {
    rule(
        "revision",
        "one revision",
        &[1, 2],
        vec![set((1, 4), X, 1, (1, 1)), set((2, 4), Y, 2, (1, 2))],
        vec![set((1, 4), X, 1, (1, 1)), set((2, 4), Y, 2, (1, 1))],
    );
}

#[test]
fn what_nobody_wrote() {
    let seen = |value| {
        vec![
            set((1, 2), X, 1, (1, 1)),
            cached((3, 4), X, Some((1, 1, 1)), 1),
            set((5, 6), X, 3, (2, 2)),
            get((7, 8), X, Some((2, 2, value)), 2),
        ]
    };
    rule("versions", "one meaning", &[3, 4], seen(3), seen(4));
    rule("revision", "replay", &[4, 3], seen(3), seen(4));
    rule(
        "revision",
        "from nowhere",
        &[2],
        and(two(), vec![get((5, 6), X, Some((2, 2, 2)), 2)]),
        vec![set((1, 2), X, 1, (1, 1)), get((3, 4), X, Some((2, 2, 99)), 2)],
    );
    // A version that nobody saw, and nobody can have made.
    rule(
        "revision",
        "from nowhere",
        &[2],
        vec![
            set((1, 2), X, 1, (1, 1)),
            set((3, 4), X, 3, (3, 3)),
            set((1, 0), X, 2, (0, 0)).unknown(),
        ],
        vec![set((1, 2), X, 1, (1, 1)), set((3, 4), X, 3, (3, 3))],
    );
}

#[test]
fn what_is_done_twice() {
    let twice = || {
        vec![
            set((1, 2), X, 1, (1, 1)),
            history((5, 6), vec![entry((2, 2, 1)), entry((1, 1, 1))], 2),
        ]
    };
    let once = || vec![set((1, 2), X, 1, (1, 1)), history((5, 6), vec![entry((1, 1, 1))], 1)];
    rule("revision", "applied twice", &[1, 2], once(), twice());
    rule("counter", "counted twice", &[2], once(), twice());
    let lost = |versions, revision| {
        vec![set((1, 0), X, 1, (0, 0)).unknown(), history((5, 6), versions, revision)]
    };
    rule(
        "revision",
        "applied twice",
        &[1, 2],
        lost(vec![entry((1, 1, 1))], 1),
        lost(vec![entry((2, 2, 1)), entry((1, 1, 1))], 2),
    );
}

#[test]
fn one_request_that_was_sent_again() {
    let sent = |value, made| {
        vec![set((1, 4), X, 1, (1, 1)).under("a"), set((2, 3), X, value, made).under("a")]
    };
    rule("counter", "one answer", &[1, 2], sent(1, (1, 1)), sent(1, (2, 2)));
    rule("counter", "one request", &[1, 2], sent(1, (1, 1)), sent(2, (2, 2)));
    // The first sending is refused for sure, the second is done.
    let refused = vec![
        set((1, 4), X, 1, (1, 1)).under("a").refused("NO_LEADER"),
        set((5, 6), X, 1, (1, 1)).under("a"),
    ];
    rule("counter", "one answer", &[1, 2], refused, sent(1, (2, 2)));
}

#[test]
fn numbers_that_are_added_to() {
    let adds = || vec![add((1, 2), 1, 1, (1, 1)), add((3, 4), 2, 3, (2, 2))];
    rule(
        "counter",
        "counted twice",
        &[3],
        and(adds(), vec![get((5, 6), X, Some((2, 2, 3)), 2)]),
        and(adds(), vec![get((5, 6), X, Some((3, 3, 5)), 3)]),
    );
    rule(
        "counter",
        "lost",
        &[3],
        and(adds(), vec![get((5, 6), X, Some((2, 2, 3)), 2)]),
        and(adds(), vec![get((5, 6), X, Some((2, 2, 2)), 2)]),
    );
    rule(
        "counter",
        "lost",
        &[1, 2],
        vec![add((1, 4), 1, 1, (1, 1)), add((1, 4), 1, 2, (2, 2))],
        vec![add((1, 4), 1, 1, (1, 1)), add((1, 4), 1, 1, (2, 2))],
    );
    // Seen by others than readers of one entry.
    let listed = |sum| and(adds(), vec![list((5, 6), &[(X, (2, 2, sum))], 2)]);
    rule("counter", "lost", &[3], listed(3), listed(1));
}

#[test]
fn versions_and_their_meaning() {
    rule(
        "versions",
        "one meaning",
        &[1, 2],
        vec![set((1, 4), X, 1, (1, 1)), set((1, 4), X, 2, (2, 2))],
        vec![set((1, 4), X, 1, (1, 1)), set((1, 4), X, 2, (1, 2))],
    );
    rule(
        "versions",
        "from 1",
        &[1],
        vec![set((1, 2), X, 1, (1, 1))],
        vec![set((1, 2), X, 1, (0, 1))],
    );
    let again =
        |version| and(two(), vec![delete((5, 6), X, (3, 3)), set((7, 8), X, 3, (version, 4))]);
    rule("versions", "one meaning", &[4, 1], again(4), again(1));
    rule(
        "versions",
        "reused",
        &[1, 2],
        vec![set((1, 4), X, 1, (2, 2)), set((1, 4), X, 2, (1, 1))],
        vec![set((1, 4), X, 1, (2, 1)), set((1, 4), X, 2, (1, 2))],
    );
}

#[test]
fn histories_of_an_entry() {
    let base = || and(two(), vec![delete((5, 6), X, (3, 3))]);
    let all = || vec![deleted(3, 3), entry((2, 2, 2)), entry((1, 1, 1))];
    let without = |place: usize| {
        let mut versions = all();
        versions.remove(place);
        versions
    };
    let right = || and(base(), vec![history((7, 8), all(), 3)]);
    let of = |versions| and(base(), vec![history((7, 8), versions, 3)]);
    rule("versions", "gap", &[4], right(), of(without(1)));
    rule("versions", "forgotten", &[4], right(), of(without(2)));
    rule("versions", "forgotten", &[4, 3], right(), of(without(0)));
    rule("revision", "replay", &[4, 3], right(), of(without(0)));
    rule(
        "versions",
        "reused",
        &[4],
        right(),
        of(vec![deleted(3, 3), entry((2, 1, 2)), entry((1, 1, 1))]),
    );
    // What was before a delete may be gone; and still that is no gap.
    let recreated =
        |versions| and(base(), vec![set((7, 8), X, 4, (4, 4)), history((9, 10), versions, 4)]);
    rule(
        "versions",
        "forgotten",
        &[5],
        recreated(vec![entry((4, 4, 4)), deleted(3, 3)]),
        recreated(vec![entry((4, 4, 4))]),
    );
    // A store that keeps two.
    let header = || Header { history_limit: 2, ..Header::default() };
    let kept = |versions| and(two(), vec![set((5, 6), X, 3, (3, 3)), history((7, 8), versions, 3)]);
    let (third, second) = (entry((3, 3, 3)), entry((2, 2, 2)));
    rule_with(
        header(),
        "versions",
        "forgotten",
        &[4],
        kept(vec![third.clone(), second]),
        kept(vec![third]),
    );
    rule(
        "versions",
        "rollback",
        &[3, 1],
        and(two(), vec![rollback((5, 6), 1, 1, (3, 3))]),
        and(two(), vec![rollback((5, 6), 1, 2, (3, 3))]),
    );
}

#[test]
fn old_versions() {
    let old = |seen| {
        and(
            two(),
            vec![get((5, 6), X, Some(seen), 2).with(|operation| {
                let Call::Get { version, .. } = &mut operation.call else { unreachable!() };
                *version = Some(1);
            })],
        )
    };
    rule("revision", "replay", &[3], old((1, 1, 1)), old((2, 2, 2)));
}

#[test]
fn lists() {
    let base = || and(two(), vec![set((5, 6), Y, 3, (1, 3))]);
    let of = |seen: &[(&str, (u64, u64, i64))], revision| {
        and(base(), vec![list((7, 8), seen, revision)])
    };
    let right = || of(&[(X, (2, 2, 2)), (Y, (1, 3, 3))], 3);
    rule("revision", "replay", &[4, 2], right(), of(&[(Y, (1, 3, 3))], 3));
    rule("revision", "replay", &[4, 2], right(), of(&[(X, (1, 1, 1)), (Y, (1, 3, 3))], 3));
    rule(
        "revision",
        "replay",
        &[4],
        right(),
        of(&[(X, (2, 2, 2)), (X, (2, 2, 2)), (Y, (1, 3, 3))], 3),
    );
    let foreign = ("m/z@base", (1, 1, 1));
    rule("revision", "replay", &[4], right(), of(&[(X, (2, 2, 2)), (Y, (1, 3, 3)), foreign], 3));
    // It has what was made after the revision that it names.
    rule("revision", "replay", &[4], right(), of(&[(X, (2, 2, 2)), (Y, (1, 3, 3))], 2));
}

#[test]
fn transactions_and_what_they_compare() {
    let base = || vec![set((1, 2), X, 1, (1, 1)), set((3, 4), Y, 1, (1, 2))];
    rule(
        "txn",
        "compare",
        &[3, 1],
        and(base(), vec![txn((5, 6), 1, 5, 6, 3, wrote([2, 2]))]),
        and(base(), vec![txn((5, 6), 2, 5, 6, 3, wrote([2, 2]))]),
    );
    let seen = || got([Some((1, 1, 1)), Some((1, 2, 1))]);
    let more = || get((7, 8), X, Some((1, 1, 1)), 2);
    rule(
        "txn",
        "compare",
        &[3],
        and(base(), vec![txn((5, 6), 2, 5, 6, 2, seen()), more()]),
        and(base(), vec![txn((5, 6), 1, 5, 6, 2, seen()), more()]),
    );
    let missed = |when| and(base(), vec![txn((5, 6), when, 5, 6, 2, seen())]);
    rule("linearizable", "no order", &[3], missed(2), missed(1));
    // It reads something else than what is there.
    rule(
        "revision",
        "replay",
        &[3],
        missed(2),
        and(base(), vec![txn((5, 6), 2, 5, 6, 2, got([None, Some((1, 2, 1))]))]),
    );
}

#[test]
fn transactions_happen_as_a_whole() {
    let base = || {
        vec![
            set((1, 2), X, 1, (1, 1)),
            set((3, 4), Y, 1, (1, 2)),
            txn((5, 0), 1, 5, 6, 3, wrote([2, 2])).unknown(),
        ]
    };
    let seen = |x, y| and(base(), vec![list((7, 8), &[(X, x), (Y, y)], 4)]);
    rule("txn", "torn", &[3], seen((2, 3, 5), (2, 3, 6)), seen((2, 3, 5), (1, 2, 1)));
    rule("txn", "torn", &[3], seen((2, 3, 5), (2, 3, 6)), seen((2, 3, 5), (2, 4, 6)));
    let header = || Header {
        sums: vec![Sum { keys: vec![X.to_owned(), Y.to_owned()], total: 10 }],
        ..Header::default()
    };
    let founded = || txn((1, 2), 0, 5, 5, 1, wrote([1, 1]));
    let listed = |x, y| {
        vec![
            founded(),
            txn((3, 4), 1, x, y, 2, wrote([2, 2])),
            list((5, 6), &[(X, (2, 2, x)), (Y, (2, 2, y))], 2),
        ]
    };
    rule_with(header(), "txn", "sum", &[3], listed(4, 6), listed(4, 7));
    let read = |y| vec![founded(), txn((3, 4), 7, 0, 0, 1, got([Some((1, 1, 5)), y]))];
    rule_with(header(), "txn", "sum", &[2], read(Some((1, 1, 5))), read(None));
}

fn watched(records: Vec<Operation>) -> Vec<Operation> {
    and(
        vec![
            set((1, 2), X, 1, (1, 1)),
            txn((3, 4), 1, 2, 3, 2, wrote([2, 1])),
            set((5, 6), X, 4, (3, 3)),
        ],
        records,
    )
}

#[test]
fn watches() {
    const ONE: &[(&str, (u64, u64, i64))] = &[(X, (1, 1, 1))];
    const BOTH: &[(&str, (u64, u64, i64))] = &[(X, (2, 2, 2)), (Y, (1, 2, 3))];
    const THREE: &[(&str, (u64, u64, i64))] = &[(X, (3, 3, 4))];
    let right = || {
        watched(vec![
            open(7, 1),
            batch(8, 1, ONE),
            batch(9, 1, &[]),
            batch(9, 0, &[]),
            batch(10, 2, BOTH),
            open(11, 3),
            batch(12, 3, THREE),
            batch(13, 5, &[]),
            ended(14, 3),
        ])
    };
    let case = |name: &str, named: &[u64], records: Vec<Operation>| {
        rule("watch", name, named, right(), watched(records));
    };
    case("opened", &[4], vec![batch(8, 1, ONE)]);
    case("reliable", &[6, 2, 5], vec![open(7, 1), batch(8, 1, ONE), batch(9, 3, THREE)]);
    case("reliable", &[5, 1], vec![open(7, 1), batch(8, 2, BOTH)]);
    case("reliable", &[6, 5], vec![open(7, 1), batch(8, 1, ONE), ended(9, 3)]);
    case(
        "ordered",
        &[7, 6],
        vec![open(7, 1), batch(8, 1, ONE), batch(10, 3, THREE), batch(11, 2, BOTH)],
    );
    case("unique", &[6, 5], vec![open(7, 1), batch(8, 1, ONE), batch(9, 1, ONE)]);
    case("unique", &[7, 5], vec![open(7, 1), batch(8, 1, ONE), open(9, 2), batch(10, 1, ONE)]);
    case("unique", &[5], vec![open(7, 1), batch(8, 1, &[ONE[0], ONE[0]])]);
    case("bookmark", &[6, 2], vec![open(7, 1), batch(8, 1, ONE), batch(9, 2, &[])]);
    case("atomic", &[5, 2], vec![open(7, 2), batch(8, 2, &BOTH[..1])]);
    case("atomic", &[5], vec![open(7, 2), batch(8, 2, &[BOTH[0], BOTH[1], THREE[0]])]);
    case("content", &[5, 1], vec![open(7, 1), batch(8, 1, &[(X, (1, 1, 7))])]);
    // It asked from 3 on, and gets what is older.
    case("ordered", &[5], vec![open(7, 3), batch(8, 1, ONE)]);
    // Something of another environment.
    case("filter", &[5], vec![open(7, 1), batch(8, 1, &[ONE[0], ("n/x@edge", (1, 1, 9))])]);
    // It is told that what it asks for is forgotten, and that it is not.
    let compacted = |oldest_revision| {
        open(11, 3).refused(REVISION_COMPACTED).with(|operation| {
            operation.answer = Some(Answer::Compacted { oldest_revision });
        })
    };
    let begun = |told| watched(vec![open(7, 1), batch(8, 1, ONE), told]);
    rule("watch", "compacted", &[6, 5], begun(compacted(4)), begun(compacted(3)));
    // Opened again for something else.
    let elsewhere = open(9, 2).with(|operation| {
        let Call::WatchOpen { scope, .. } = &mut operation.call else { unreachable!() };
        scope.environment = None;
    });
    case("resumed", &[6], vec![open(7, 1), batch(8, 1, ONE), elsewhere]);
    // The one who drained it says that it never came.
    let never = ended(9, 1).with(|operation| {
        operation.outcome = Outcome::Fail;
        operation.error = Some("deadline".to_owned());
    });
    case("reliable", &[6], vec![open(7, 1), batch(8, 1, ONE), never]);
    // Before it was committed: by the time of its delivery nobody had asked for it.
    rule(
        "revision",
        "order of time",
        &[3, 2],
        vec![open(1, 1), batch(8, 1, ONE), set((7, 9), X, 1, (1, 1))],
        vec![open(1, 1), batch(3, 1, ONE), set((7, 9), X, 1, (1, 1))],
    );
}

#[test]
fn sessions() {
    let mine = |read: Operation| {
        vec![set((1, 2), X, 1, (1, 1)), set((3, 4), X, 2, (2, 2)).session(), read.session()]
    };
    let old = Some((1, 1, 1));
    let new = Some((2, 2, 2));
    rule(
        "session",
        "went back",
        &[3, 2],
        mine(cached((5, 6), X, new, 2)),
        mine(cached((5, 6), X, old, 1)),
    );
    // Without the revision that the answer names.
    let unnamed = |seen| mine(cached((5, 6), X, seen, 0).unnamed());
    rule("session", "went back", &[3, 2], unnamed(new), unnamed(old));
    rule("session", "went back", &[3, 2], unnamed(new), unnamed(None));
    // What was read before, and what was not over yet.
    let reads = |began, seen, revision| {
        and(
            two(),
            vec![
                cached((5, 8), X, new, 2).session(),
                cached((began, 10), X, seen, revision).session(),
            ],
        )
    };
    rule("session", "went back", &[4, 3], reads(7, old, 1), reads(9, old, 1));
    let lag = |again: u64| {
        vec![
            set((1, 2), X, 1, (1, 1)),
            set((3, 4), X, 2, (2, 2)),
            cached((5, 6), X, new, 2).node(3),
            cached((again, again + 1), X, old, 1).node(3),
        ]
    };
    // It may lose the last moments with its power, and nothing from before.
    rule("session", "node went back", &[4, 3], lag(10_000), lag(10_007));
}

#[test]
fn staleness() {
    let old = Some((1, 1, 1));
    let new = Some((2, 2, 2));
    let with = |read| and(two(), vec![read]);
    rule(
        "staleness",
        "too old",
        &[3, 2],
        with(bounded((10, 11), 7, old, 1)),
        with(bounded((10, 11), 5, old, 1)),
    );
    let unnamed = |bound| with(bounded((10, 11), bound, old, 0).unnamed());
    rule("staleness", "too old", &[3, 2], unnamed(7), unnamed(5));
    let least = |min_revision, seen, revision| {
        with(read(
            (10, 11),
            X,
            Read { min_revision: Some(min_revision), ..Read::CACHED },
            seen,
            revision,
        ))
    };
    rule("staleness", "min revision", &[3], least(2, new, 2), least(2, old, 1));
}

fn closing() -> Header {
    Header { nodes: vec![1, 2], closing: true, ..Header::default() }
}

#[test]
fn what_is_there_in_the_end() {
    let base = || and(two(), vec![set((5, 6), Y, 3, (1, 3))]);
    let x = (X, (2, 2, 2));
    let y = (Y, (1, 3, 3));
    let with = |one: &[(&str, (u64, u64, i64))], other: &[(&str, (u64, u64, i64))]| {
        and(base(), vec![list((7, 8), one, 3).last(), list((9, 10), other, 3).last().node(2)])
    };
    let right = || with(&[x, y], &[x, y]);
    rule_with(closing(), "durability", "lost", &[3, 4], right(), with(&[x], &[x]));
    rule_with(
        closing(),
        "durability",
        "lost",
        &[2, 5],
        right(),
        with(&[x, y], &[(X, (1, 1, 1)), y]),
    );
    rule_with(closing(), "replica", "differ", &[4, 5], right(), with(&[x, y], &[y]));
    let behind = and(
        base(),
        vec![list((7, 8), &[x, y], 3).last(), list((7, 10), &[x, y], 4).last().node(2)],
    );
    rule_with(closing(), "replica", "not converged", &[4, 5], right(), behind);
    // Somebody else's write is where the acknowledged one was.
    let replaced =
        |second| and(right(), vec![history((11, 12), vec![second, entry((1, 1, 1))], 3).last()]);
    for other in [entry((2, 2, 9)), entry((2, 3, 2)), deleted(2, 2)] {
        let right = replaced(entry((2, 2, 2)));
        rule_with(closing(), "durability", "replaced", &[2, 6], right, replaced(other));
    }
    // By other reads than lists.
    let read = |seen, revision| and(right(), vec![get((11, 12), X, seen, revision).last()]);
    rule_with(
        closing(),
        "durability",
        "lost",
        &[2, 6],
        read(Some((2, 2, 2)), 3),
        read(Some((1, 1, 1)), 3),
    );
    let past = |versions| and(right(), vec![history((11, 12), versions, 3).last()]);
    rule_with(
        closing(),
        "durability",
        "lost",
        &[2, 6],
        past(vec![entry((2, 2, 2)), entry((1, 1, 1))]),
        past(vec![entry((1, 1, 1))]),
    );
}

#[test]
fn what_was_refused() {
    let right = vec![
        set((1, 2), X, 1, (1, 1)),
        set((3, 4), X, 2, (0, 0)).refused("NO_LEADER"),
        get((5, 6), X, Some((1, 1, 1)), 1),
    ];
    let broken = vec![
        set((1, 2), X, 1, (1, 1)),
        set((3, 4), X, 2, (0, 0)).refused("NO_LEADER"),
        get((5, 6), X, Some((2, 2, 2)), 2),
    ];
    rule("aborted", "took effect", &[2, 3], right, broken);
    // The list of a transaction that was not done.
    let base = |x| {
        vec![
            set((1, 2), X, 1, (1, 1)),
            set((3, 4), Y, 1, (1, 2)),
            txn((5, 6), 7, 5, 6, 2, got([Some((1, 1, 1)), Some((1, 2, 1))])),
            get((7, 8), X, x, 3),
        ]
    };
    rule("aborted", "took effect", &[3, 4], base(Some((1, 1, 1))), base(Some((2, 3, 5))));
}

#[test]
fn unknown_is_no_pass() {
    let unknown = |header: Header, operations: Vec<Operation>, checker: &str, limits: &Limits| {
        let report = check(&of(header, operations), limits);
        assert_eq!(report.overall(), jepsen_lite::check::Overall::Unknown, "{report}");
        assert!(matches!(report.verdict(checker), Some(Verdict::Unknown { .. })), "{report}");
    };
    let limits = Limits::default();
    let x = (X, (2, 2, 2));
    unknown(closing(), two(), "replica", &limits);
    unknown(closing(), and(two(), vec![list((7, 8), &[x], 2).last()]), "replica", &limits);
    unknown(closing(), two(), "durability", &limits);
    let few = Limits { steps: 1, ..limits };
    unknown(Header::default(), two(), "linearizable", &few);
    let few = Limits { states: 1, ..limits };
    unknown(Header::default(), two(), "linearizable", &few);
    let mut cut = of(Header::default(), two());
    cut.whole = false;
    let report = check(&cut, &limits);
    assert!(matches!(report.verdict("whole"), Some(Verdict::Unknown { .. })), "{report}");
    assert_eq!(report.overall(), jepsen_lite::check::Overall::Unknown);
}
