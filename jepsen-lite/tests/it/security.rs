//! One history for each rule about rights, secrets, the audit log and the members, right and broken.

use jepsen_lite::check::{Limits, Overall, Verdict, check};
use jepsen_lite::history::{
    Answer, AuditRecord, Call, Chain, Entry, Header, History, MASK, Member, NOT_FOUND, Operation,
    Outcome, PERMISSION_DENIED, Policy, Read, Right, Scope, Target, TxnOp, TxnResult,
    UNAUTHENTICATED, Value, request, requester, secret, shown,
};

use crate::hand::{With, X, Y, and, get, of, operation, rule, rule_with, set};

const HERE: &str = "n";
const REVEAL: Read = Read { reveal: true, ..Read::LINEARIZABLE };

/// With a token, as far as it goes.
trait By: Sized {
    fn by(self, token: &str) -> Operation;
    fn denied(self, code: &str) -> Operation;
}

impl By for Operation {
    fn by(mut self, token: &str) -> Operation {
        self.token = Some(token.to_owned());
        self
    }
    fn denied(self, code: &str) -> Operation {
        self.refused(code)
    }
}

fn policy(at: (u64, u64), change: Policy) -> Operation {
    operation(at, Call::Policy { change }, None, None)
}

fn role(at: (u64, u64), allows: &[Right]) -> Operation {
    policy(at, Policy::PutRole { role: "r".to_owned(), allows: allows.to_vec() })
}

fn delete_role(at: (u64, u64)) -> Operation {
    policy(at, Policy::DeleteRole { role: "r".to_owned() })
}

fn token(at: (u64, u64)) -> Operation {
    let (token, role, namespace) = ("t".to_owned(), "r".to_owned(), HERE.to_owned());
    policy(at, Policy::CreateToken { token, role, namespace })
}

fn revoke(at: (u64, u64)) -> Operation {
    policy(at, Policy::RevokeToken { token: "t".to_owned() })
}

/// Token `t` with role `r`, which may read and write.
fn granted() -> Vec<Operation> {
    vec![role((1, 2), &[Right::Read, Right::Write]), token((3, 4))]
}

fn with(read: Read, at: (u64, u64), revision: u64) -> Operation {
    let call = Call::Get { key: X.to_owned(), read, version: None };
    operation(at, call, Some(revision), Some(Answer::Entry { entry: None })).by("t")
}

#[test]
fn a_token_that_was_revoked() {
    let after = |done: Operation| and(granted(), vec![revoke((5, 6)), done.by("t")]);
    // At the same time is not after.
    rule(
        "access",
        "revoked",
        &[4, 3],
        after(set((6, 8), X, 1, (1, 1))),
        after(set((7, 8), X, 1, (1, 1))),
    );
    rule(
        "access",
        "revoked",
        &[4, 3],
        after(get((6, 8), X, None, 0)),
        after(get((7, 8), X, None, 0)),
    );
    // Nobody knows whether it is revoked, and then somebody does.
    let twice = |at| {
        let lost = revoke((5, 0)).unknown();
        and(granted(), vec![lost, revoke((10, 20)), set(at, X, 1, (1, 1)).by("t")])
    };
    rule("access", "revoked", &[5, 4], twice((7, 8)), twice((21, 22)));
}

#[test]
fn a_cached_read_by_what_its_node_has_heard() {
    let mut stale = Read::CACHED;
    stale.max_staleness_ms = Some(20);
    let bounded = |at| and(granted(), vec![revoke((5, 6)), with(stale, at, 0)]);
    rule("access", "revoked", &[4, 3], bounded((25, 26)), bounded((27, 28)));
    // A write that was asked for after the revocation is there.
    let mut least = Read::CACHED;
    least.min_revision = Some(1);
    let waited = |written: (u64, u64)| {
        let read = with(least, (30, 31), 1);
        let read = read.with(|read| read.node = 2);
        and(granted(), vec![revoke((5, 8)), set(written, Y, 1, (1, 1)), read])
    };
    rule("access", "revoked", &[5, 3], waited((7, 9)), waited((9, 10)));
    // The node has shown it before; another one has not.
    let shown = |node| {
        let seen = get((11, 12), Y, Some((1, 1, 1)), 1).node(node);
        let read = with(Read::CACHED, (13, 14), 1).node(2);
        and(granted(), vec![revoke((5, 8)), set((9, 10), Y, 1, (1, 1)), seen, read])
    };
    rule("access", "revoked", &[6, 3], shown(1), shown(2));
}

#[test]
fn a_role_that_allows_less_or_more() {
    let less = |change: Operation, at| and(granted(), vec![change, set(at, X, 1, (1, 1)).by("t")]);
    let named = &[4, 3];
    let read = || role((5, 6), &[Right::Read]);
    rule("access", "not allowed", named, less(read(), (6, 8)), less(read(), (7, 8)));
    let gone = || delete_role((5, 6));
    rule("access", "not allowed", named, less(gone(), (6, 8)), less(gone(), (7, 8)));
    // Never: a delete.
    let delete = || crate::hand::delete((9, 10), X, (2, 2)).by("t");
    let allowed = |rights: &[Right]| {
        vec![role((1, 2), rights), token((3, 4)), set((5, 6), X, 1, (1, 1)), delete()]
    };
    rule(
        "access",
        "not allowed",
        &[4],
        allowed(&[Right::Write, Right::Delete]),
        allowed(&[Right::Write, Right::Read]),
    );
    // A change whose answer was lost may come at any time; one before it, that was over, not.
    let lost = |first: &[Right], second: &[Right]| {
        let (one, other) = (role((1, 2), first), role((5, 0), second).unknown());
        vec![one, token((3, 4)), other, role((6, 7), &[]), set((20, 21), X, 1, (1, 1)).by("t")]
    };
    rule(
        "access",
        "not allowed",
        &[5],
        lost(&[], &[Right::Write]),
        lost(&[Right::Write], &[Right::Read]),
    );
}

#[test]
fn what_a_token_is_not_good_for() {
    let listed = |prefix: &str| {
        let scope = Scope { prefix: prefix.to_owned(), environment: None };
        let call = Call::List { scope, read: Read::CACHED };
        let answer = Answer::Entries { entries: Vec::new() };
        and(granted(), vec![operation((5, 6), call, Some(0), Some(answer)).by("t")])
    };
    rule("access", "elsewhere", &[3, 2], listed("n/"), listed("m/"));
    rule("access", "elsewhere", &[3, 2], listed("n/"), listed("nn/"));
}

#[test]
fn what_was_granted_and_is_refused() {
    let heard = |node: u64, denied: Operation| {
        let seen = get((7, 8), Y, Some((1, 1, 1)), 1).node(2);
        and(granted(), vec![set((5, 6), Y, 1, (1, 1)), seen, denied.by("t").node(node)])
    };
    let write = |at| set(at, X, 1, (2, 2)).denied(PERMISSION_DENIED);
    // A node that has shown nothing may not have heard of it.
    rule("access", "refused", &[5, 2], heard(1, write((9, 10))), heard(2, write((9, 10))));
    let read = |at| get(at, X, None, 1).denied(UNAUTHENTICATED);
    rule("access", "refused", &[5, 2], heard(2, read((7, 9))), heard(2, read((9, 10))));
    // Whoever is about to lose it may be refused.
    let going = |change: Operation| and(heard(2, write((9, 20))), vec![change]);
    let broken = || heard(2, write((9, 20)));
    rule("access", "refused", &[5, 2], going(revoke((10, 30))), broken());
    rule("access", "refused", &[5, 2], going(delete_role((10, 30))), broken());
    // What needs two rights has both.
    let reveal = |rights: &[Right]| {
        let mut all = heard(2, with(REVEAL, (9, 10), 1).denied(PERMISSION_DENIED));
        all[0] = role((1, 2), rights);
        all
    };
    let both = [Right::Reveal, Right::Read];
    rule("access", "refused", &[5, 2], reveal(&both[..1]), reveal(&both));
    let administrator = |code: &str| vec![set((1, 2), X, 1, (1, 1)).refused(code)];
    rule(
        "access",
        "administrator",
        &[1],
        administrator("NO_LEADER"),
        administrator(PERMISSION_DENIED),
    );
}

fn keep(at: (u64, u64), name: &str, made: (u64, u64)) -> Operation {
    set(at, X, 0, made).with(|operation| {
        let Call::Set { value, .. } = &mut operation.call else { unreachable!() };
        *value = secret(name);
    })
}

fn version(version: u64, revision: u64, value: Value) -> Entry {
    Entry { version, revision, value: Some(value) }
}

fn see(at: (u64, u64), read: Read, entry: Option<Entry>, revision: u64) -> Operation {
    let call = Call::Get { key: X.to_owned(), read, version: None };
    operation(at, call, Some(revision), Some(Answer::Entry { entry }))
}

fn past(at: (u64, u64), versions: Vec<Entry>, revision: u64) -> Operation {
    let call = Call::History { key: X.to_owned(), read: Read::LINEARIZABLE };
    operation(at, call, Some(revision), Some(Answer::Versions { versions }))
}

#[test]
fn secrets() {
    let masked = || Value::from(MASK);
    let kept = |seen: Operation| vec![keep((1, 2), "a", (1, 1)), keep((3, 4), "b", (2, 2)), seen];
    let newest = |read, value| kept(see((5, 6), read, Some(version(2, 2, value)), 2));
    let right = || newest(REVEAL, secret("b"));
    rule(
        "secrets",
        "shown",
        &[3],
        newest(Read::CACHED, masked()),
        newest(Read::CACHED, shown("b")),
    );
    rule(
        "secrets",
        "shown",
        &[3],
        newest(Read::CACHED, masked()),
        newest(Read::CACHED, secret("b")),
    );
    rule("secrets", "not opened", &[3], right(), newest(REVEAL, masked()));
    // Another one than it is.
    rule("versions", "one meaning", &[3], right(), newest(REVEAL, secret("a")));
    rule("linearizable", "no order", &[3], right(), newest(REVEAL, secret("a")));
    // Masked or not, it is the newest.
    let old = |value| kept(see((5, 6), Read::LINEARIZABLE, Some(version(1, 1, value)), 1));
    let new = newest(Read::LINEARIZABLE, masked());
    rule("linearizable", "no order", &[3], new.clone(), old(masked()));
    rule("revision", "stale read", &[3], new, old(masked()));
    // In lists, pasts, watches and transactions.
    let history = |value: Value| {
        kept(past((5, 6), vec![version(2, 2, value.clone()), version(1, 1, value)], 2))
    };
    rule("secrets", "shown", &[3], history(masked()), history(shown("a")));
    let txn = |value: Value| {
        let call = Call::Txn {
            compare: Vec::new(),
            success: vec![TxnOp::Get { key: X.to_owned() }],
            failure: Vec::new(),
            idempotency_key: None,
        };
        let results = vec![TxnResult::Got { entry: Some(version(2, 2, value)) }];
        kept(operation((5, 6), call, Some(2), Some(Answer::Txn { succeeded: true, results })))
    };
    rule("secrets", "shown", &[3], txn(masked()), txn(shown("b")));
    // A rollback that does not say what it wrote, and what it wrote.
    let back = |name: &str| {
        let back = crate::hand::rollback((5, 6), 1, 0, (3, 3)).with(|operation| {
            operation.answer = Some(Answer::Written { version: 3, value: Some(Value::from(MASK)) });
        });
        let seen = see((7, 8), REVEAL, Some(version(3, 3, secret(name))), 3);
        and(kept(back), vec![seen])
    };
    rule("versions", "rollback", &[3], back("a"), back("b"));
}

#[test]
fn what_is_gone_stays_gone() {
    let gone = |seen: Operation| {
        let two = vec![keep((1, 2), "a", (1, 1)), crate::hand::delete((3, 4), X, (2, 2))];
        let deleted = || Entry { version: 2, revision: 2, value: None };
        and(two, vec![past((5, 6), vec![deleted()], 2), seen])
    };
    let old = |at, found: bool| {
        let entry = found.then(|| version(1, 1, secret("a")));
        let call = Call::Get { key: X.to_owned(), read: REVEAL, version: Some(1) };
        operation(at, call, Some(2), Some(Answer::Entry { entry }))
    };
    rule("secrets", "came back", &[4, 3], gone(old((6, 8), true)), gone(old((7, 8), true)));
    rule("secrets", "came back", &[4, 3], gone(old((7, 8), false)), gone(old((7, 8), true)));
    // By the version itself; what was not there yet is not gone.
    let absent = |first| vec![keep((1, 2), "a", (1, 1)), first, old((7, 8), true)];
    let before = old((1, 3), false).with(|operation| operation.revision = Some(0));
    rule("secrets", "came back", &[3, 2], absent(before), absent(old((3, 4), false)));
}

fn record(sequence: u64, what: &str, request: String, target: Option<(u64, u64)>) -> AuditRecord {
    let (version, revision) = target.unwrap_or((0, 0));
    let targets = target.map(|_| Target { key: X.to_owned(), version });
    AuditRecord {
        sequence,
        time_ms: 1000 + sequence,
        revision,
        what: what.to_owned(),
        request,
        targets: targets.into_iter().collect(),
        previous: format!("h{}", sequence - 1),
        hash: format!("h{sequence}"),
    }
}

fn log(at: (u64, u64), records: Vec<AuditRecord>) -> Operation {
    let call = Call::Audit { read: Read::LINEARIZABLE };
    operation(at, call, None, Some(Answer::Audit { records }))
}

fn walk(at: (u64, u64), node: u64, last: u64, head: &str, broken: Option<&str>) -> Operation {
    let broken = broken.map(str::to_owned);
    let chain = Chain { first: 1, last, head: head.to_owned(), broken };
    operation(at, Call::VerifyAudit, None, Some(Answer::Chain { chain })).node(node)
}

/// Two writes, one that was refused, and what the log says of them: operations 1, 2 and 3, and the log is 4.
fn logged(change: impl FnOnce(&mut Vec<AuditRecord>)) -> Vec<Operation> {
    let mut records = vec![
        record(1, "auth.bootstrap", String::new(), None),
        record(2, "config.set", request(1, 0), Some((1, 1))),
        record(3, "config.set", request(2, 1), Some((2, 2))),
        record(4, "access.denied", request(3, 0), None),
    ];
    records[3].revision = 2;
    change(&mut records);
    let denied = get((2, 3), X, None, 1).denied(PERMISSION_DENIED).by("t");
    vec![set((1, 2), X, 1, (1, 1)), set((3, 4), X, 2, (2, 2)), denied, log((9, 10), records)]
}

#[test]
fn names_of_requests() {
    assert_eq!(requester(&request(17, 3)), Some(17));
    for text in ["", "jl-", "jl-1", "jl-1.", "jl-.1", "jl-x.1", "1.1", "jl-1.x"] {
        assert_eq!(requester(text), None, "{text}");
    }
}

#[test]
fn the_audit_log_is_a_chain() {
    let right = || logged(|_| {});
    let case = |name: &str, change: fn(&mut Vec<AuditRecord>)| {
        rule("audit", name, &[4], right(), logged(change));
    };
    case("chain", |records| drop(records.remove(0)));
    case("chain", |records| drop(records.remove(1)));
    case("chain", |records| records[2].previous = "h9".to_owned());
    case("order", |records| records[3].revision = 1);
    case("order", |records| records[3].time_ms = 1);
    let walks = |walks: Vec<Operation>| and(logged(|_| {}), walks);
    let whole = || walks(vec![walk((11, 12), 1, 4, "h4", None), walk((11, 12), 2, 2, "h2", None)]);
    let broken = walks(vec![walk((11, 12), 1, 0, "", Some("record 3: it was altered"))]);
    rule("audit", "chain", &[5], whole(), broken);
    rule("audit", "differ", &[4, 5], whole(), walks(vec![walk((11, 12), 2, 3, "h9", None)]));
    // Beyond the end of the list, by the nodes alone.
    let beyond = |head: &str| {
        walks(vec![walk((11, 12), 1, 7, "h7", None), walk((11, 12), 2, 7, head, None)])
    };
    rule("audit", "differ", &[5, 6], beyond("h7"), beyond("h9"));
    let ends = |last: u64| {
        let one = walk((11, 12), 1, 4, "h4", None).last();
        walks(vec![one, walk((11, 12), 2, last, &format!("h{last}"), None).last()])
    };
    rule("audit", "differ", &[5, 6], ends(4), ends(3));
    let twice = |change: fn(&mut Vec<AuditRecord>)| {
        let mut again = logged(change).pop().unwrap();
        again.node = 2;
        and(logged(|_| {}), vec![again])
    };
    rule(
        "audit",
        "differ",
        &[4, 5],
        twice(|records| drop(records.pop())),
        twice(|records| records[1].time_ms += 1),
    );
}

#[test]
fn what_was_done_is_recorded_once_and_nothing_else() {
    let right = || logged(|_| {});
    let case = |name: &str, named: &[u64], change: fn(&mut Vec<AuditRecord>)| {
        let renumbered = |records: &mut Vec<AuditRecord>| {
            change(records);
            for (sequence, record) in (1..).zip(records) {
                record.sequence = sequence;
                (record.previous, record.hash) =
                    (format!("h{}", sequence - 1), format!("h{sequence}"));
                record.time_ms = 1000 + sequence;
            }
        };
        rule("audit", name, named, right(), logged(renumbered));
    };
    case("missing", &[2, 4], |records| drop(records.remove(2)));
    case("missing", &[3, 4], |records| drop(records.remove(3)));
    case("twice", &[4], |records| records.insert(2, records[1].clone()));
    case("twice", &[1, 4], |records| {
        records.insert(2, records[1].clone());
        records[2].what = "auth.role_put".to_owned();
    });
    case("twice", &[3, 4], |records| records.push(records[3].clone()));
    case("another", &[2, 4], |records| records[2].what = "config.delete".to_owned());
    case("another", &[2, 4], |records| records[2].targets[0].version = 1);
    case("another", &[2, 4], |records| records[2].targets.clear());
    case("another", &[3, 4], |records| {
        records[3].what = "config.set".to_owned();
        records[3].revision = 3;
    });
    case("from nowhere", &[4], |records| {
        records.push(record(5, "config.set", request(99, 0), Some((3, 3))))
    });
    case("from nowhere", &[4], |records| {
        records.push(record(5, "auth.role_put", "x".to_owned(), Some((3, 3))))
    });
    // What was refused, and is said to be done.
    let refused = |what: &str| {
        let mut all = logged(|_| {});
        let set = set((5, 6), X, 3, (3, 3)).refused("NO_LEADER");
        all[2] = set;
        let Some(Answer::Audit { records }) = &mut all[3].answer else { unreachable!() };
        records[3].what = what.to_owned();
        if what == "config.set" {
            records[3].revision = 3;
        }
        all
    };
    rule("audit", "not done", &[3, 4], refused("access.denied"), refused("config.set"));
    // A refusal that waited long for its record was answered without.
    let slow = |completed: u64, after: u64| {
        let mut all = logged(|records| drop(records.pop()));
        all[2].completed_ns = Some(completed);
        (all[1].invoked_ns, all[1].completed_ns) = (completed + after, Some(completed + after + 1));
        all[3].invoked_ns = 2_000_000_000;
        all[3].completed_ns = Some(2_000_000_000);
        all
    };
    rule("audit", "missing", &[3, 4], slow(1_000_000_000, 0), slow(500_000_000, 0));
    // So was that of a node which stopped; this one did not.
    let (later, soon) = (slow(500_000_000, 400_000_000), slow(500_000_000, 200_000_000));
    rule("audit", "missing", &[3, 4], later, soon);
}

#[test]
fn other_things_that_are_recorded() {
    let with = |what: &str, done: Operation, target: Option<(u64, u64)>| {
        let mut all = logged(|_| {});
        all[2] = done;
        let Some(Answer::Audit { records }) = &mut all[3].answer else { unreachable!() };
        records[3] = record(4, what, request(3, 0), target);
        records[3].revision = 2;
        all
    };
    let change = || Policy::PutRole { role: "r".to_owned(), allows: vec![Right::Read] };
    let put = || policy((5, 6), change());
    let (right, other) =
        (with("auth.role_put", put(), None), with("auth.role_delete", put(), None));
    rule("audit", "missing", &[3, 4], right.clone(), other.clone());
    rule("audit", "another", &[3, 4], right, other);
    let rotated = || operation((5, 6), Call::RotateKeys, None, None);
    rule(
        "audit",
        "missing",
        &[3, 4],
        with("admin.keys_rotate", rotated(), None),
        with("admin.compact", rotated(), None),
    );
    let revealed = || see((5, 6), REVEAL, Some(version(2, 2, Value::from(2))), 2);
    let right = || with("secret.reveal", revealed(), Some((2, 2)));
    rule("audit", "missing", &[3, 4], right(), with("access.denied", revealed(), None));
    rule("audit", "another", &[3, 4], right(), with("secret.reveal", revealed(), Some((1, 2))));
    // There is nothing to show of a delete.
    let deleted = Entry { version: 2, revision: 2, value: None };
    let mut nothing = with("access.denied", see((5, 6), REVEAL, Some(deleted), 2), None);
    nothing[1] = crate::hand::delete((3, 4), X, (2, 2));
    let Some(Answer::Audit { records }) = &mut nothing[3].answer else { unreachable!() };
    records[2].what = "config.delete".to_owned();
    records.truncate(3);
    let report = check(&of(Header::default(), nothing), &Limits::default());
    assert!(matches!(report.verdict("audit"), Some(Verdict::Pass { .. })), "{report}");
    // Announced, and then not done.
    let denied = revealed().refused(PERMISSION_DENIED).with(|operation| {
        (operation.invoked_ns, operation.completed_ns) = (2_000_000, Some(3_000_000));
    });
    let failed = with("secret.reveal", denied, Some((2, 2)));
    let report = check(&of(Header::default(), failed), &Limits::default());
    assert!(
        matches!(report.verdict("audit"), Some(Verdict::Fail { .. })),
        "no record of the refusal"
    );
}

fn members(
    at: (u64, u64),
    node: u64,
    term: u64,
    leader: Option<u64>,
    list: &[(u64, bool)],
) -> Operation {
    let members = list.iter().map(|(id, votes)| Member { id: *id, votes: *votes }).collect();
    operation(at, Call::Members, None, Some(Answer::Members { term, leader, members })).node(node)
}

#[test]
fn members_agree_and_remember() {
    let seen = |at, term, leader| members(at, 1, term, leader, &[(1, true), (2, true)]);
    let two = |at, term, leader| vec![seen((1, 2), 5, Some(2)), seen(at, term, leader)];
    rule("members", "older term", &[2, 1], two((3, 4), 5, None), two((3, 4), 4, None));
    rule("members", "older term", &[2, 1], two((2, 4), 4, None), two((3, 4), 4, None));
    rule("members", "older leader", &[2, 1], two((3, 4), 5, Some(3)), two((3, 4), 5, Some(1)));
    let header = || Header { nodes: vec![1, 2], ..Header::default() };
    let both = [(1, true), (2, true)];
    let end = |one: &[(u64, bool)], other: &[(u64, bool)]| {
        [(1, one), (2, other)]
            .map(|(node, list)| members((1, 2), node, 5, Some(1), list).last())
            .to_vec()
    };
    rule_with(header(), "members", "agree", &[2, 1], end(&both, &both), end(&both, &both[..1]));
    rule_with(header(), "members", "voters", &[1], end(&both, &both), end(&both[..1], &both[..1]));
    let learns = [(1, true), (2, false)];
    rule_with(header(), "members", "voters", &[1], end(&both, &both), end(&learns, &learns));
}

#[test]
fn what_was_not_asked_in_the_end_is_not_known() {
    let header = || Header { nodes: vec![1, 2], audited: true, ..Header::default() };
    let verdict = |header: Header, operations: Vec<Operation>, name: &str| {
        let report = check(&of(header, operations), &Limits::default());
        report.verdict(name).unwrap().clone()
    };
    let log = || {
        logged(|_| {})
            .into_iter()
            .map(|operation| {
                let is_log = matches!(operation.call, Call::Audit { .. });
                operation.with(|operation| operation.last = is_log)
            })
            .collect::<Vec<_>>()
    };
    let walk = |node| walk((11, 12), node, 4, "h4", None).last();
    let unknown = |verdict: &Verdict| matches!(verdict, Verdict::Unknown { .. });
    assert!(unknown(&verdict(header(), logged(|_| {}), "audit")));
    assert!(unknown(&verdict(header(), and(log(), vec![walk(1)]), "audit")));
    let all = and(log(), vec![walk(1), walk(2)]);
    assert!(matches!(verdict(header(), all, "audit"), Verdict::Pass { .. }));
    let closing = || Header { nodes: vec![1, 2], closing: true, ..Header::default() };
    let one = vec![members((1, 2), 1, 5, None, &[(1, true), (2, true)]).last()];
    assert!(unknown(&verdict(closing(), one, "members")));
}

/// A part of a history has all changes of the rules and whole logs; the rest may be by others.
#[test]
fn parts_are_not_blamed() {
    let mut part = of(Header::default(), logged(|_| {}));
    part.header.partial = true;
    part.operations.retain(|operation| matches!(operation.call, Call::Audit { .. }));
    let report = check(&part, &Limits::default());
    assert_eq!(report.overall(), Overall::Pass, "{report}");
    let _: &History = &part;
    let gone = set((1, 2), X, 1, (1, 1)).refused(NOT_FOUND);
    assert_eq!(gone.outcome, Outcome::Fail);
}
