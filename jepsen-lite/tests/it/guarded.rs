//! A guarded store in memory: tokens and roles that come and go, secrets, an audit log, members; nodes lag behind it. Correct,
//! or with one bug.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use jepsen_lite::check::{Limits, Overall, Verdict, check};
use jepsen_lite::history::{
    Answer, AuditRecord, Call, Chain, Entry, Header, History, Keyed, MASK, Member, NOT_FOUND,
    Operation, Outcome, PERMISSION_DENIED, Policy, Read, Right, Scope, Target, UNAUTHENTICATED,
    Value, request, secret, shown,
};
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const MS: u64 = 1_000_000;
const NODES: u64 = 3;
const OPERATIONS: usize = 300;
const OPEN: &str = "open/x@base";
const CLOSED: &str = "closed/x@base";
const VAULT: &str = "vault/x@base";
/// The store lets go of older versions.
const KEPT: u64 = 8;

/// What the store does wrong, some of the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bug {
    /// A token that was revoked still writes.
    RevokedWrites,
    /// It still reads, as of now, at a node that has not heard.
    RevokedReads,
    /// A bound on the age, or on the revision, is looked at after the rights were.
    RightsBeforeFreshness,
    /// A role that lost a right is remembered as it was.
    RoleRemembered,
    /// The namespace of a token is not looked at.
    Elsewhere,
    /// A node that knows a token forgets it.
    GrantForgotten,
    AdministratorRefused,
    SecretShown,
    OtherSecret,
    NotOpened,
    /// A version that was let go of is read again.
    ComesBack,
    Unrecorded,
    RefusalUnrecorded,
    RecordedTwice,
    RefusedRecorded,
    WrongVersionRecorded,
    /// What is done by nobody is recorded.
    MadeUp,
    Reordered,
    /// A node has another log than the others.
    Forks,
    TermForgotten,
    OtherMembers,
}

struct Run {
    history: History,
    bites: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Client {
    Administrator,
    User,
    Keeper,
    Looker,
}

struct Sim {
    rng: StdRng,
    bug: Option<Bug>,
    bites: u64,
    revision: u64,
    entries: BTreeMap<&'static str, Vec<(u64, Entry)>>,
    rules: Vec<(u64, Policy)>,
    audit: Vec<AuditRecord>,
    /// Up to which time each node has applied everything.
    heard: BTreeMap<u64, u64>,
    terms: BTreeMap<u64, u64>,
    operations: Vec<Operation>,
    /// The administrator's: which token, and what is next to do with it.
    number: u64,
    step: u64,
    token: Option<String>,
    next_process: u64,
    next_id: u64,
}

fn run(seed: u64, bug: Option<Bug>) -> Run {
    let mut sim = Sim {
        rng: StdRng::seed_from_u64(seed),
        bug,
        bites: 0,
        revision: 0,
        entries: BTreeMap::new(),
        rules: Vec::new(),
        audit: Vec::new(),
        heard: (1..=NODES).map(|node| (node, 0)).collect(),
        terms: (1..=NODES).map(|node| (node, 1)).collect(),
        operations: Vec::new(),
        number: 1,
        step: 0,
        token: None,
        next_process: 100,
        next_id: 1,
    };
    let end = sim.traffic();
    sim.closing(end);
    let nodes = (1..=NODES).collect();
    let header = Header { seed, nodes, audited: true, history_limit: KEPT, ..Header::default() };
    let (operations, bites) = (sim.operations, sim.bites);
    Run { history: History { header, operations, faults: Vec::new(), whole: true }, bites }
}

impl Sim {
    fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_ratio(percent, 100)
    }

    fn bites(&mut self, bug: Bug, percent: u32) -> bool {
        let bites = self.bug == Some(bug) && self.chance(percent);
        self.bites += u64::from(bites);
        bites
    }

    fn while_ms(&mut self, most: u64) -> u64 {
        self.rng.random_range(1..=most * MS)
    }

    fn traffic(&mut self) -> u64 {
        use Client::{Administrator, Keeper, Looker, User};
        let mut clients: Vec<(u64, u64, Client)> =
            [Administrator, User, User, User, Keeper, Keeper, Looker]
                .into_iter()
                .zip(1..)
                .map(|(client, number)| (number, number, client))
                .collect();
        let mut queue: BinaryHeap<Reverse<(u64, usize)>> = BinaryHeap::new();
        let mut sent: Vec<(Operation, bool, u64)> = Vec::new();
        let mut end = 0;
        loop {
            clients.sort_unstable_by_key(|(at, number, _)| (*at, *number));
            let begins = clients[0];
            let effect = queue.peek().map(|Reverse((at, _))| *at);
            if sent.len() < OPERATIONS && effect.is_none_or(|effect| begins.0 <= effect) {
                let (now, process, client) = begins;
                let mut operation = self.begin(now, process, client);
                let unknown = operation.call.changes() && self.chance(6);
                // Whoever has a token does not know at once that it was revoked.
                let revokes =
                    matches!(operation.call, Call::Policy { change: Policy::RevokeToken { .. } });
                let rest = if revokes { 100 } else { 10 };
                let effect = now + if unknown { self.while_ms(100) } else { self.while_ms(10) };
                let done = effect + self.while_ms(10);
                operation.completed_ns = Some(done);
                clients[0] = if unknown {
                    self.next_process += 1;
                    (now + 20 * MS, self.next_process, client)
                } else {
                    (done + self.while_ms(rest), process, client)
                };
                if client == Client::Administrator {
                    self.went_on(unknown, &operation.call);
                }
                queue.push(Reverse((effect, sent.len())));
                sent.push((operation, unknown, done));
                continue;
            }
            let Some(Reverse((now, place))) = queue.pop() else { return end + MS };
            let (operation, unknown, done) = sent[place].clone();
            end = end.max(done);
            self.finish(now, operation, unknown);
        }
    }

    fn operation(&mut self, now: u64, process: u64, call: Call) -> Operation {
        self.next_id += 1;
        Operation {
            id: self.next_id - 1,
            process,
            session: None,
            token: None,
            node: self.rng.random_range(1..=NODES),
            call,
            invoked_ns: now,
            completed_ns: None,
            outcome: Outcome::Unknown,
            revision: None,
            answer: None,
            error: None,
            last: false,
        }
    }

    fn begin(&mut self, now: u64, process: u64, client: Client) -> Operation {
        let call = match client {
            Client::Administrator => Call::Policy { change: self.next_rule() },
            Client::User => self.use_it(),
            Client::Keeper => self.keep(),
            Client::Looker => Call::Members,
        };
        let mut operation = self.operation(now, process, call);
        if client == Client::User {
            operation.token.clone_from(&self.token);
        }
        operation
    }

    fn next_rule(&mut self) -> Policy {
        let (role, token) = (format!("r{}", self.number), format!("t{}", self.number));
        let grants = [vec![Right::Read, Right::Write], vec![Right::Read], vec![Right::Write]];
        let (step, goes) = (self.step, self.chance(20));
        match step {
            0 => Policy::PutRole { role, allows: grants[0].clone() },
            1 => Policy::CreateToken { token, role, namespace: "open".to_owned() },
            2..6 if goes => Policy::DeleteRole { role },
            2..6 => {
                let allows = grants[self.rng.random_range(0..grants.len())].clone();
                Policy::PutRole { role, allows }
            }
            _ => Policy::RevokeToken { token },
        }
    }

    /// Once an answer is lost, nobody knows what the rules are: the token is revoked until that is acknowledged.
    fn went_on(&mut self, unknown: bool, call: &Call) {
        match call {
            Call::Policy { change: Policy::RevokeToken { .. } } if !unknown => {
                self.number += 1;
                self.step = 0;
            }
            Call::Policy { change: Policy::CreateToken { .. } } if unknown => {
                self.number += 1;
                self.step = 0;
            }
            _ if unknown => self.step = if self.step == 0 { 0 } else { 6 },
            _ => self.step += 1,
        }
        if self.step == 0 && unknown {
            self.number += 1;
        }
    }

    fn use_it(&mut self) -> Call {
        let read = match self.rng.random_range(0..4) {
            0 => Read::LINEARIZABLE,
            1 => Read::CACHED,
            2 => Read { max_staleness_ms: Some(10), ..Read::CACHED },
            _ => Read { min_revision: Some(self.revision), ..Read::CACHED },
        };
        let key = if self.chance(10) { CLOSED } else { OPEN }.to_owned();
        match self.rng.random_range(0..10) {
            0..5 => self.set(key, None),
            _ => Call::Get { key, read, version: None },
        }
    }

    fn set(&mut self, key: String, name: Option<String>) -> Call {
        self.next_id += 1;
        let value = name.map_or_else(|| Value::from(self.next_id), |name| secret(&name));
        Call::Set { key, value, expected_version: None, idempotency_key: None }
    }

    fn keep(&mut self) -> Call {
        let key = VAULT.to_owned();
        let newest =
            self.entries.get(VAULT).and_then(|all| all.last()).map_or(0, |(_, e)| e.version);
        let reveal = Read { reveal: true, ..Read::LINEARIZABLE };
        match self.rng.random_range(0..100) {
            0..35 => {
                let name = format!("s{}", self.next_id);
                self.set(key, Some(name))
            }
            35..40 => Call::Delete { key, expected_version: None, idempotency_key: None },
            40..45 => Call::RotateKeys,
            45..65 => Call::Get { key, read: reveal, version: None },
            65..80 if newest > 1 => {
                let version = Some(self.rng.random_range(1..=newest));
                Call::Get { key, read: reveal, version }
            }
            80..90 => Call::History { key, read: Read::LINEARIZABLE },
            _ => {
                let scope = Scope { prefix: "vault/".to_owned(), environment: None };
                Call::List { scope, read: Read::CACHED }
            }
        }
    }

    fn finish(&mut self, now: u64, mut operation: Operation, unknown: bool) {
        if unknown {
            operation.completed_ns = None;
            if self.chance(50) {
                self.effect(now, &mut operation.clone());
            }
        } else {
            self.effect(now, &mut operation);
        }
        if operation.outcome == Outcome::Ok
            && let Call::Policy { change: Policy::CreateToken { token, .. } } = &operation.call
        {
            self.token = Some(token.clone());
        }
        self.operations.push(operation);
    }

    fn effect(&mut self, now: u64, operation: &mut Operation) {
        if self.chance(20) {
            self.hear(operation.node, now);
        }
        let before = self.heard[&operation.node];
        let at = self.judged_at(now, operation);
        if let Some(code) = self.denial(now, before, at, operation) {
            return self.refuse(operation, code);
        }
        if operation.token.is_none() && self.bites(Bug::AdministratorRefused, 3) {
            return self.refuse(operation, PERMISSION_DENIED);
        }
        if operation.call.is_write() && self.chance(4) {
            if self.bites(Bug::RefusedRecorded, 60) {
                self.revision += 1;
                self.record(operation, "config.set", Some((OPEN, 1)));
            }
            return refuse(operation, "NO_LEADER");
        }
        operation.outcome = Outcome::Ok;
        match operation.call.clone() {
            Call::Policy { change } => {
                self.record(operation, change.recorded_as(), None);
                self.rules.push((now, change));
                self.hear(operation.node, now);
            }
            Call::RotateKeys => self.record(operation, "admin.keys_rotate", None),
            Call::Set { key, value, .. } => self.write(now, operation, &key, Some(value)),
            Call::Delete { key, .. } => {
                if self.live(&key, now).is_none() {
                    return refuse(operation, NOT_FOUND);
                }
                self.write(now, operation, &key, None);
            }
            Call::Members => self.look(operation),
            call => self.read(at, operation, &call),
        }
    }

    fn hear(&mut self, node: u64, at: u64) {
        let heard = self.heard.entry(node).or_default();
        *heard = (*heard).max(at);
    }

    /// By the rules and the state of which time an operation is done; its node has heard of them.
    fn judged_at(&mut self, now: u64, operation: &Operation) -> u64 {
        let at = match operation.call.read() {
            Some(read) if !read.linearizable => {
                let bound = read.max_staleness_ms.map_or(0, |bound| now.saturating_sub(bound * MS));
                let least = read.min_revision.map_or(0, |revision| self.reached(revision));
                bound.max(least).max(self.heard[&operation.node])
            }
            _ => now,
        };
        if operation.call.read().is_some() {
            self.hear(operation.node, at);
        }
        at
    }

    /// When a revision was reached.
    fn reached(&self, revision: u64) -> u64 {
        let all = self.entries.values().flatten();
        all.filter(|(_, entry)| entry.revision <= revision).map(|(at, _)| *at).max().unwrap_or(0)
    }

    fn denial(
        &mut self,
        now: u64,
        before: u64,
        at: u64,
        operation: &Operation,
    ) -> Option<&'static str> {
        let token = operation.token.as_deref()?;
        let right = operation.call.needs()?;
        let key = operation.call.keys().into_iter().next()?;
        if !key.starts_with("open/") && !self.bites(Bug::Elsewhere, 30) {
            return Some(PERMISSION_DENIED);
        }
        let known = self.known(token, before);
        if known && self.bites(Bug::GrantForgotten, 30) {
            return Some(UNAUTHENTICATED);
        }
        // At the door, by what the node has heard; then by the rules that count.
        let cached = operation.call.read().is_some_and(|read| !read.linearizable);
        let may_have_waited = at > before;
        for time in [before, at] {
            if !self.known(token, time) {
                let wrong = match (&operation.call, time == before) {
                    (_, true) => false,
                    (Call::Set { .. }, _) => self.bites(Bug::RevokedWrites, 90),
                    _ if !cached => self.bites(Bug::RevokedReads, 100),
                    _ => may_have_waited && self.bites(Bug::RightsBeforeFreshness, 90),
                };
                if !wrong {
                    return Some(UNAUTHENTICATED);
                }
            }
            if !self.allows(token, right, time) {
                let allowed_once = self.rules.iter().any(|(_, rule)| {
                    matches!(rule, Policy::PutRole { allows, .. } if allows.contains(&right))
                });
                if !(allowed_once && time <= now && self.bites(Bug::RoleRemembered, 50)) {
                    return Some(PERMISSION_DENIED);
                }
            }
        }
        None
    }

    fn known(&self, wanted: &str, at: u64) -> bool {
        let heard = self.rules.iter().filter(|(time, _)| *time <= at);
        heard.fold(false, |known, (_, rule)| match rule {
            Policy::CreateToken { token, .. } if token == wanted => true,
            Policy::RevokeToken { token } if token == wanted => false,
            _ => known,
        })
    }

    fn allows(&self, token: &str, right: Right, at: u64) -> bool {
        let wanted = token.replace('t', "r");
        let heard = self.rules.iter().filter(|(time, _)| *time <= at);
        heard.fold(false, |allowed, (_, rule)| match rule {
            Policy::PutRole { role, allows } if *role == wanted => allows.contains(&right),
            Policy::DeleteRole { role } if *role == wanted => false,
            _ => allowed,
        })
    }

    fn refuse(&mut self, operation: &mut Operation, code: &str) {
        refuse(operation, code);
        if !self.bites(Bug::RefusalUnrecorded, 30) {
            self.record(operation, "access.denied", None);
        }
    }

    fn record(&mut self, operation: &Operation, what: &str, target: Option<(&str, u64)>) {
        let wrong = target.is_some() && self.bites(Bug::WrongVersionRecorded, 10);
        let target = target.map(|(key, version)| Target {
            key: key.to_owned(),
            version: version + u64::from(wrong),
        });
        if what != "access.denied" && self.bites(Bug::Unrecorded, 5) {
            return;
        }
        let times = 1 + u64::from(self.bites(Bug::RecordedTwice, 5));
        for _ in 0..times {
            self.append(what, request(operation.id, 0), target.clone());
        }
        if self.bites(Bug::MadeUp, 5) {
            self.revision += 1;
            self.append("config.set", "somebody".to_owned(), target);
        }
    }

    /// Numbers and hashes come in the end.
    fn append(&mut self, what: &str, request: String, target: Option<Target>) {
        self.audit.push(AuditRecord {
            sequence: 0,
            time_ms: 0,
            revision: self.revision,
            what: what.to_owned(),
            request,
            targets: target.into_iter().collect(),
            previous: String::new(),
            hash: String::new(),
        });
    }

    fn write(&mut self, now: u64, operation: &mut Operation, key: &str, value: Option<Value>) {
        let key = [OPEN, CLOSED, VAULT].into_iter().find(|known| *known == key).unwrap();
        self.revision += 1;
        let all = self.entries.entry(key).or_default();
        let version = all.last().map_or(0, |(_, entry)| entry.version) + 1;
        let what = if value.is_some() { "config.set" } else { "config.delete" };
        all.push((now, Entry { version, revision: self.revision, value }));
        operation.revision = Some(self.revision);
        operation.answer = Some(Answer::Written { version, value: None });
        self.record(operation, what, Some((key, version)));
    }

    /// What was kept of an entry at a time, newest first.
    fn versions(&self, key: &str, at: u64) -> Vec<Entry> {
        let all = self.entries.get(key).into_iter().flatten();
        let mut seen: Vec<Entry> =
            all.filter(|(time, _)| *time <= at).map(|(_, entry)| entry.clone()).collect();
        seen.reverse();
        seen.truncate(usize::try_from(KEPT).unwrap());
        seen
    }

    fn live(&self, key: &str, at: u64) -> Option<Entry> {
        self.versions(key, at).into_iter().next().filter(|entry| entry.value.is_some())
    }

    fn look(&mut self, operation: &mut Operation) {
        if self.chance(20) {
            *self.terms.get_mut(&operation.node).unwrap() += 1;
        }
        let mut term = self.terms[&operation.node];
        if term > 1 && self.bites(Bug::TermForgotten, 20) {
            term -= 1;
        }
        let mut members: Vec<Member> = (1..=NODES).map(|id| Member { id, votes: true }).collect();
        if operation.last && operation.node == 2 && self.bites(Bug::OtherMembers, 100) {
            members.pop();
        }
        operation.answer = Some(Answer::Members { term, leader: Some(1), members });
    }

    fn read(&mut self, at: u64, operation: &mut Operation, call: &Call) {
        let all = self.entries.values().flatten().filter(|(time, _)| *time <= at);
        operation.revision = Some(all.map(|(_, entry)| entry.revision).max().unwrap_or(0));
        let reveal = call.read().is_some_and(|read| read.reveal);
        let answer = match call {
            Call::Get { key, version, .. } => {
                let entry = match version {
                    None => self.live(key, at),
                    Some(version) => {
                        let mut kept = self.versions(key, at);
                        if self.bites(Bug::ComesBack, 30) {
                            let all = self.entries.get(key.as_str()).into_iter().flatten();
                            kept = all.map(|(_, entry)| entry.clone()).collect();
                        }
                        let found = kept.into_iter().find(|entry| entry.version == *version);
                        found.filter(|entry| entry.value.is_some())
                    }
                };
                Answer::Entry { entry: entry.map(|entry| self.show(entry, reveal)) }
            }
            Call::History { key, .. } => {
                let kept = self.versions(key, at).into_iter();
                Answer::Versions { versions: kept.map(|entry| self.show(entry, false)).collect() }
            }
            _ => {
                let entry = self.live(VAULT, at).map(|entry| self.show(entry, false));
                let entries = entry.map(|entry| Keyed { key: VAULT.to_owned(), entry });
                Answer::Entries { entries: entries.into_iter().collect() }
            }
        };
        if let (true, Answer::Entry { entry: Some(entry) }) = (reveal, &answer) {
            let version = entry.version;
            self.record(operation, "secret.reveal", Some((VAULT, version)));
        }
        operation.answer = Some(answer);
    }

    fn show(&mut self, entry: Entry, reveal: bool) -> Entry {
        let name = entry.value.as_ref().and_then(jepsen_lite::history::secret_name);
        let Some(name) = name.map(str::to_owned) else { return entry };
        let value = if reveal {
            if self.bites(Bug::NotOpened, 10) {
                Value::from(MASK)
            } else if self.bites(Bug::OtherSecret, 10) {
                secret("another")
            } else {
                secret(&name)
            }
        } else if self.bites(Bug::SecretShown, 10) {
            shown(&name)
        } else {
            Value::from(MASK)
        };
        Entry { value: Some(value), ..entry }
    }

    fn closing(&mut self, end: u64) {
        let mut now = end;
        if self.audit.len() > 4 && self.bites(Bug::Reordered, 100) {
            let place = (1..self.audit.len())
                .find(|place| self.audit[place - 1].revision < self.audit[*place].revision);
            let place = place.unwrap();
            self.audit.swap(place - 1, place);
        }
        for (sequence, record) in (1..).zip(&mut self.audit) {
            record.sequence = sequence;
            record.time_ms = sequence;
            record.previous = format!("h{}", sequence - 1);
            record.hash = format!("h{sequence}");
        }
        let last = self.audit.len() as u64;
        for node in 1..=NODES {
            let forks = node == 3 && self.bites(Bug::Forks, 100);
            let head = if forks { "other".to_owned() } else { format!("h{last}") };
            let chain = Chain { first: 1, last, head, broken: None };
            let records = self.audit.clone();
            let mut calls =
                vec![(Call::VerifyAudit, Some(Answer::Chain { chain })), (Call::Members, None)];
            if node == 1 {
                let read = Read::LINEARIZABLE;
                calls.push((Call::Audit { read }, Some(Answer::Audit { records })));
            }
            for (call, answer) in calls {
                now += MS;
                let mut operation = self.operation(now, 90, call);
                (operation.node, operation.last) = (node, true);
                operation.outcome = Outcome::Ok;
                operation.completed_ns = Some(now);
                match answer {
                    Some(answer) => operation.answer = Some(answer),
                    None => self.look(&mut operation),
                }
                self.operations.push(operation);
            }
        }
    }
}

fn refuse(operation: &mut Operation, code: &str) {
    operation.outcome = Outcome::Fail;
    operation.error = Some(code.to_owned());
}

fn limits() -> Limits {
    Limits::default()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, max_shrink_iters: 0, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_correct_guarded_store_passes(seed: u64) {
        let history = run(seed, None).history;
        for operation in &history.operations {
            prop_assert_eq!(operation.validate(), Ok(()), "{:?}", operation);
        }
        let report = check(&history, &limits());
        prop_assert_eq!(report.overall(), Overall::Pass, "seed {}\n{}", seed, report);
        for name in ["access", "secrets", "audit", "members"] {
            let verdict = report.verdict(name).unwrap();
            prop_assert!(matches!(verdict, Verdict::Pass { checked } if *checked > 0), "{} looked at nothing", name);
        }
    }

    #[test]
    fn every_part_of_a_guarded_history_passes(seed: u64) {
        let mut history = run(seed, None).history;
        let mut rng = StdRng::seed_from_u64(seed);
        let percent = rng.random_range(5..95);
        history.header.partial = true;
        history.operations.retain(|operation| {
            matches!(operation.call, Call::Policy { .. }) || rng.random_ratio(percent, 100)
        });
        let report = check(&history, &limits());
        prop_assert_eq!(report.overall(), Overall::Pass, "seed {}\n{}", seed, report);
    }
}

const BUGS: &[(Bug, &[&str])] = &[
    (Bug::RevokedWrites, &["access"]),
    (Bug::RevokedReads, &["access"]),
    (Bug::RightsBeforeFreshness, &["access"]),
    (Bug::RoleRemembered, &["access"]),
    (Bug::Elsewhere, &["access"]),
    (Bug::GrantForgotten, &["access"]),
    (Bug::AdministratorRefused, &["access"]),
    (Bug::SecretShown, &["secrets"]),
    (Bug::OtherSecret, &["versions", "linearizable"]),
    (Bug::NotOpened, &["secrets"]),
    (Bug::ComesBack, &["secrets"]),
    (Bug::Unrecorded, &["audit"]),
    (Bug::RefusalUnrecorded, &["audit"]),
    (Bug::RecordedTwice, &["audit"]),
    (Bug::RefusedRecorded, &["audit"]),
    (Bug::WrongVersionRecorded, &["audit"]),
    (Bug::MadeUp, &["audit"]),
    (Bug::Reordered, &["audit"]),
    (Bug::Forks, &["audit"]),
    (Bug::TermForgotten, &["members"]),
    (Bug::OtherMembers, &["members"]),
];

#[test]
fn every_bug_of_a_guarded_store_is_found() {
    const SEEDS: u64 = 20;
    let mut missed = Vec::new();
    for (bug, expected) in BUGS {
        let (mut struck, mut found) = (0, vec![0; expected.len()]);
        for seed in 0..SEEDS {
            let run = run(seed, Some(*bug));
            if run.bites == 0 {
                continue;
            }
            struck += 1;
            let report = check(&run.history, &limits());
            for (count, name) in found.iter_mut().zip(*expected) {
                *count += u32::from(matches!(report.verdict(name), Some(Verdict::Fail { .. })));
            }
        }
        println!("{bug:?}: struck in {struck} runs, {expected:?} found it in {found:?}");
        // One that strikes need not show.
        if struck == 0 || found.iter().any(|count| count * 3 < struck) {
            missed.push(format!("{bug:?}: {found:?} of {struck}"));
        }
    }
    assert!(missed.is_empty(), "{missed:#?}");
}
