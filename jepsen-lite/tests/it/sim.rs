//! A store in memory that answers many clients at once, one effect at a time; correct, or with one bug.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};

use jepsen_lite::history::{
    Answer, Call, Compare, Entry, Header, History, Keyed, NOT_FOUND, Operation, Outcome, Read,
    Scope, Sum, TxnOp, TxnResult, VERSION_CONFLICT, Value,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const MS: u64 = 1_000_000;
const NODES: u64 = 3;
const ACCOUNTS: usize = 3;
const TOTAL: i64 = 300;

/// What the store does wrong, some of the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// A linearizable read is answered by a node that lags, as of its own revision.
    FollowerRead,
    /// The same, and the answer names the newest revision.
    FollowerReadThatLies,
    /// A write is acknowledged and not done.
    AckBeforeCommit,
    /// The store forgets its newest writes once.
    LostTail,
    /// A request that is sent again is done again.
    NoDedup,
    /// Another request under a known key is accepted.
    KeyReused,
    /// A refused write is done.
    RefusedIsDone,
    /// An expected version is not compared.
    CasIgnoresVersion,
    /// Versions begin anew after a delete.
    VersionReset,
    /// Two writes share a revision.
    SharedRevision,
    /// A history leaves a version out.
    HistoryGap,
    /// A transaction does its first step only.
    HalfTransaction,
    /// What a transaction compares is not looked at.
    TransactionIgnoresCompare,
    /// A watch leaves a revision out.
    WatchSkips,
    /// A watch delivers a revision again.
    WatchRepeats,
    /// A watch delivers a revision in two parts.
    WatchTears,
    /// A bookmark comes before what it covers.
    BookmarkAhead,
    /// A watch that is opened again starts one too late.
    ResumeSkips,
    /// Two revisions are delivered in the wrong order.
    WatchReorders,
    /// A cached read does not wait for its session.
    SessionIgnored,
    /// A bound on staleness is not looked at.
    StalenessIgnored,
    /// A node loses a change.
    Diverges,
    /// An addition overwrites another.
    LostAddition,
    /// An addition is done twice.
    DoubleAddition,
    /// A rollback takes the version before the one that was asked for.
    RollbackElsewhere,
}

/// The shape of a run.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub clients: u64,
    pub registers: usize,
    pub operations: usize,
    /// In a hundred.
    pub unknown: u32,
    /// Only registers, by linearizable reads and writes.
    pub simple: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Self { clients: 5, registers: 3, operations: 250, unknown: 6, simple: false }
    }
}

/// A history, and how often the bug struck.
pub struct Run {
    pub history: History,
    pub bites: u64,
}

/// A change of one entry.
type Changed = (String, Entry);

struct Store {
    revision: u64,
    /// Of each key, all versions.
    entries: BTreeMap<String, Vec<Entry>>,
    log: BTreeMap<u64, Vec<Changed>>,
    requests: HashMap<String, (Call, Done)>,
    /// When which revision was reached.
    times: Vec<(u64, u64)>,
}

/// What became of a call.
#[derive(Clone)]
struct Done {
    outcome: Outcome,
    revision: Option<u64>,
    answer: Option<Answer>,
    error: Option<String>,
}

impl Done {
    fn ok(revision: u64, answer: Answer) -> Self {
        Self { outcome: Outcome::Ok, revision: Some(revision), answer: Some(answer), error: None }
    }

    fn refused(code: &str, answer: Option<Answer>) -> Self {
        Self { outcome: Outcome::Fail, revision: None, answer, error: Some(code.to_owned()) }
    }
}

impl Store {
    fn at(&self, key: &str, revision: u64) -> Option<&Entry> {
        let entries = self.entries.get(key)?;
        entries.iter().rev().find(|entry| entry.revision <= revision)
    }

    fn live(&self, key: &str, revision: u64) -> Option<Entry> {
        self.at(key, revision).filter(|entry| entry.value.is_some()).cloned()
    }

    fn version(&self, key: &str) -> u64 {
        self.live(key, self.revision).map_or(0, |entry| entry.version)
    }

    fn put(&mut self, revision: u64, key: &str, value: Option<Value>, reset: bool) -> u64 {
        let entries = self.entries.entry(key.to_owned()).or_default();
        let last = entries.last();
        let version = match last {
            Some(last) if reset && last.value.is_none() => 1,
            Some(last) => last.version + 1,
            None => 1,
        };
        let entry = Entry { version, revision, value };
        entries.push(entry.clone());
        self.log.entry(revision).or_default().push((key.to_owned(), entry));
        version
    }

    fn list(&self, scope: &Scope, revision: u64) -> Vec<Keyed> {
        let keys = self.entries.keys().filter(|key| scope.contains(key));
        keys.filter_map(|key| Some(Keyed { key: key.clone(), entry: self.live(key, revision)? }))
            .collect()
    }
}

/// A call that is on its way.
struct Pending {
    operation: Operation,
    outcome_unknown: bool,
    done_at: u64,
}

struct Watcher {
    id: u64,
    scope: Scope,
    delivered: u64,
    process: u64,
}

struct Sim {
    rng: StdRng,
    bug: Option<Bug>,
    bites: u64,
    store: Store,
    /// Up to which revision each node has applied.
    nodes: BTreeMap<u64, u64>,
    /// What a node lacks.
    holes: BTreeMap<u64, u64>,
    sessions: HashMap<u64, u64>,
    operations: Vec<Operation>,
    next_id: u64,
    next_process: u64,
    next_value: u64,
    shape: Shape,
}

/// One run.
pub fn run(seed: u64, shape: Shape, bug: Option<Bug>) -> Run {
    let mut sim = Sim {
        rng: StdRng::seed_from_u64(seed),
        bug,
        bites: 0,
        store: Store {
            revision: 0,
            entries: BTreeMap::new(),
            log: BTreeMap::new(),
            requests: HashMap::new(),
            times: Vec::new(),
        },
        nodes: (1..=NODES).map(|node| (node, 0)).collect(),
        holes: BTreeMap::new(),
        sessions: HashMap::new(),
        operations: Vec::new(),
        next_id: 1,
        next_process: 100,
        next_value: 1,
        shape,
    };
    let end = sim.traffic();
    if !shape.simple {
        sim.closing(end);
    }
    let header = Header {
        workload: "simulated".to_owned(),
        seed,
        nodes: (1..=NODES).collect(),
        closing: !shape.simple,
        sums: vec![Sum { keys: (0..ACCOUNTS).map(account).collect(), total: TOTAL }],
        ..Header::default()
    };
    let (operations, bites) = (sim.operations, sim.bites);
    Run { history: History { header, operations, faults: Vec::new(), whole: true }, bites }
}

fn account(number: usize) -> String {
    format!("bank/a{number}@base")
}

fn register(number: usize) -> String {
    format!("reg/r{number}@base")
}

fn scope(prefix: &str) -> Scope {
    Scope { prefix: prefix.to_owned(), environment: Some("base".to_owned()) }
}

impl Sim {
    fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_ratio(percent, 100)
    }

    /// Whether the bug strikes now.
    fn bites(&mut self, bug: Bug, percent: u32) -> bool {
        let bites = self.bug == Some(bug) && self.chance(percent);
        self.bites += u64::from(bites);
        bites
    }

    fn while_ms(&mut self, most: u64) -> u64 {
        self.rng.random_range(1..=most * MS)
    }

    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id - 1
    }

    fn traffic(&mut self) -> u64 {
        let mut queue: BinaryHeap<Reverse<(u64, u64)>> = BinaryHeap::new();
        let mut pending: HashMap<u64, Pending> = HashMap::new();
        let mut watchers: Vec<Watcher> = Vec::new();
        let mut now = 0;
        if !self.shape.simple {
            self.found_bank();
            now = 50 * MS;
            for (id, prefix) in [(1, "reg/"), (2, "bank/"), (3, "")] {
                let scope = Scope { prefix: prefix.to_owned(), environment: None };
                let watcher = Watcher { id, scope, delivered: 0, process: 90 + id };
                self.open(&watcher, now, Some(1));
                watchers.push(watcher);
            }
        }
        let mut clients: Vec<(u64, u64)> =
            (0..self.shape.clients).map(|c| (now + c + 1, c + 1)).collect();
        let mut started = 0;
        let mut end = now;
        loop {
            // The next thing: a client begins, or an effect happens.
            clients.sort_unstable();
            let begins = clients.first().filter(|_| started < self.shape.operations).copied();
            let effect = queue.peek().map(|Reverse((at, _))| *at);
            match (begins, effect) {
                (None, None) => break,
                (Some((at, process)), effect) if effect.is_none_or(|effect| at <= effect) => {
                    now = at;
                    started += 1;
                    clients.remove(0);
                    for sent in self.begin(now, process) {
                        let unknown = sent.outcome_unknown;
                        let operation = &sent.operation;
                        let id = operation.id;
                        let first = operation.process == process;
                        let effect_at =
                            now + if unknown { self.while_ms(300) } else { self.while_ms(20) };
                        let done_at = effect_at + self.while_ms(20);
                        if first {
                            let (next, process) = if unknown {
                                self.next_process += 1;
                                (now + 30 * MS, self.next_process)
                            } else {
                                (done_at + self.while_ms(10), process)
                            };
                            clients.push((next, process));
                        }
                        queue.push(Reverse((effect_at, id)));
                        pending.insert(id, Pending { done_at, ..sent });
                    }
                    if self.chance(30) && !watchers.is_empty() {
                        let which = self.rng.random_range(0..watchers.len());
                        self.deliver(&mut watchers[which], now, None);
                    }
                }
                _ => {
                    let Some(Reverse((at, id))) = queue.pop() else { break };
                    now = at;
                    let Some(sent) = pending.remove(&id) else { continue };
                    end = end.max(sent.done_at);
                    self.finish(now, sent);
                }
            }
        }
        end = end.max(now) + MS;
        for watcher in &mut watchers {
            let revision = self.store.revision;
            while watcher.delivered < revision {
                self.deliver(watcher, end, Some(revision));
            }
            let id = self.id();
            self.operations.push(Operation {
                id,
                process: watcher.process,
                session: None,
                token: None,
                node: 0,
                call: Call::WatchEnd { watch: watcher.id, up_to: revision },
                invoked_ns: end,
                completed_ns: Some(end),
                outcome: Outcome::Ok,
                revision: None,
                answer: None,
                error: None,
                last: false,
            });
        }
        end + MS
    }

    /// All accounts in one transaction.
    fn found_bank(&mut self) {
        let success = (0..ACCOUNTS)
            .map(|number| TxnOp::Set {
                key: account(number),
                value: Value::from(TOTAL / i64::try_from(ACCOUNTS).unwrap()),
            })
            .collect();
        let call =
            Call::Txn { compare: Vec::new(), success, failure: Vec::new(), idempotency_key: None };
        let operation = self.operation(MS, 99, call);
        self.finish(2 * MS, Pending { operation, outcome_unknown: false, done_at: 3 * MS });
    }

    fn operation(&mut self, now: u64, process: u64, call: Call) -> Operation {
        Operation {
            id: self.id(),
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

    fn value(&mut self) -> Value {
        self.next_value += 1;
        Value::from(self.next_value)
    }

    /// What a client does next, once or in several sendings.
    fn begin(&mut self, now: u64, process: u64) -> Vec<Pending> {
        let key = register(self.rng.random_range(0..self.shape.registers));
        let current = self.store.version(&key);
        let highest = if self.shape.simple { 55 } else { 130 };
        let mut session = None;
        let call = match self.rng.random_range(0..highest) {
            0..20 => Call::Set {
                key,
                value: self.value(),
                expected_version: None,
                idempotency_key: None,
            },
            20..30 => {
                let expected_version = Some(current.saturating_sub(u64::from(self.chance(25))));
                Call::Set { key, value: self.value(), expected_version, idempotency_key: None }
            }
            30..35 => {
                let expected_version = self.chance(50).then_some(current);
                Call::Delete { key, expected_version, idempotency_key: None }
            }
            35..55 => Call::Get { key, read: Read::LINEARIZABLE, version: None },
            55..65 => {
                session = Some(process % 3);
                Call::Get { key, read: Read::CACHED, version: None }
            }
            65..72 => {
                let read = Read { max_staleness_ms: Some(60), ..Read::CACHED };
                Call::Get { key, read, version: None }
            }
            72..82 => return self.retried(now, process, &key),
            82..92 => self.transfer(),
            92..97 => Call::List { scope: scope("bank/"), read: Read::CACHED },
            97..102 => Call::List { scope: scope("reg/"), read: Read::LINEARIZABLE },
            102..107 => Call::History { key, read: Read::LINEARIZABLE },
            107..115 => Call::Increment {
                key: "count/c@base".to_owned(),
                by: 1 + u64::from(self.chance(30)),
            },
            115..119 => Call::Get {
                key: "count/c@base".to_owned(),
                read: Read::LINEARIZABLE,
                version: None,
            },
            119..123 if current > 1 => Call::Rollback {
                key,
                to_version: self.rng.random_range(1..=current),
                idempotency_key: None,
            },
            _ => Call::Txn {
                compare: vec![Compare { key: key.clone(), version: current }],
                success: vec![
                    TxnOp::Set { key: key.clone(), value: self.value() },
                    TxnOp::Set { key: register(self.shape.registers), value: self.value() },
                ],
                failure: vec![TxnOp::Get { key }],
                idempotency_key: None,
            },
        };
        let outcome_unknown = call.is_write() && self.chance(self.shape.unknown);
        let mut operation = self.operation(now, process, call);
        operation.session = session;
        vec![Pending { operation, outcome_unknown, done_at: 0 }]
    }

    /// The same request, several times at once.
    fn retried(&mut self, now: u64, process: u64, key: &str) -> Vec<Pending> {
        let request = format!("request-{}", self.next_id);
        let value = self.value();
        let call = Call::Set {
            key: key.to_owned(),
            value,
            expected_version: None,
            idempotency_key: Some(request.clone()),
        };
        let times = self.rng.random_range(1..=3);
        let mut sent = Vec::new();
        for time in 0..times {
            let process = if time == 0 { process } else { process + 1000 * time };
            let mut call = call.clone();
            if time > 0
                && self.bug == Some(Bug::KeyReused)
                && let Call::Set { value, .. } = &mut call
            {
                *value = self.value();
            }
            let operation = self.operation(now, process, call);
            let outcome_unknown = self.chance(20);
            sent.push(Pending { operation, outcome_unknown, done_at: 0 });
        }
        sent
    }

    /// From one account to another, if neither changed meanwhile.
    fn transfer(&mut self) -> Call {
        let from = self.rng.random_range(0..ACCOUNTS);
        let to = (from + 1) % ACCOUNTS;
        let amount = self.rng.random_range(1..20);
        let keys = [(account(from), -amount), (account(to), amount)];
        let revision = self.store.revision;
        let mut compare = Vec::new();
        let mut success = Vec::new();
        for (key, change) in keys {
            let entry = self.store.live(&key, revision).expect("accounts are never deleted");
            let balance = entry.value.and_then(|value| value.as_i64()).expect("a number");
            compare.push(Compare { key: key.clone(), version: entry.version });
            success.push(TxnOp::Set { key, value: Value::from(balance + change) });
        }
        let failure = (0..ACCOUNTS).map(|number| TxnOp::Get { key: account(number) }).collect();
        Call::Txn { compare, success, failure, idempotency_key: None }
    }

    /// The effect happens, and the answer goes back or is lost.
    fn finish(&mut self, now: u64, sent: Pending) {
        let Pending { mut operation, outcome_unknown, done_at } = sent;
        if outcome_unknown {
            if self.chance(50) {
                self.effect(now, &operation);
            }
            self.operations.push(operation);
            return;
        }
        let done = self.effect(now, &operation);
        operation.completed_ns = Some(done_at);
        operation.outcome = done.outcome;
        operation.revision = done.revision;
        operation.answer = done.answer;
        operation.error = done.error;
        if let (Some(session), Some(revision)) = (operation.session, operation.revision) {
            let seen = self.sessions.entry(session).or_default();
            *seen = (*seen).max(revision);
        }
        self.operations.push(operation);
    }

    fn effect(&mut self, now: u64, operation: &Operation) -> Done {
        let request = operation.call.idempotency_key().map(str::to_owned);
        if let Some(request) = &request
            && let Some((call, done)) = self.store.requests.get(request).cloned()
        {
            if call != operation.call {
                if !self.bites(Bug::KeyReused, 50) {
                    return Done::refused("ALREADY_EXISTS", None);
                }
            } else if !self.bites(Bug::NoDedup, 60) {
                return done;
            }
        }
        let before = self.store.revision;
        let done = self.apply(now, operation);
        if self.store.revision > before {
            self.store.times.push((now, self.store.revision));
            if self.bites(Bug::LostTail, 2) && self.store.revision > 3 {
                self.forget();
            }
        }
        if let Some(request) = request {
            self.store.requests.insert(request, (operation.call.clone(), done.clone()));
        }
        done
    }

    /// The newest two revisions never were.
    fn forget(&mut self) {
        let kept = self.store.revision - 2;
        for entries in self.store.entries.values_mut() {
            entries.retain(|entry| entry.revision <= kept);
        }
        self.store.log.retain(|revision, _| *revision <= kept);
        self.store.revision = kept;
        for applied in self.nodes.values_mut() {
            *applied = (*applied).min(kept);
        }
    }

    /// The revision that a change makes.
    fn next_revision(&mut self) -> u64 {
        if self.store.revision == 0 || !self.bites(Bug::SharedRevision, 5) {
            self.store.revision += 1;
        }
        self.store.revision
    }

    fn write(&mut self, key: &str, value: Option<Value>) -> Done {
        if self.bites(Bug::AckBeforeCommit, 5) {
            let version =
                self.store.entries.get(key).and_then(|e| e.last()).map_or(1, |e| e.version + 1);
            return Done::ok(self.store.revision + 1, Answer::Written { version, value: None });
        }
        let last = self.store.entries.get(key).and_then(|entries| entries.last());
        let resets =
            last.is_some_and(|last| last.value.is_none()) && self.bites(Bug::VersionReset, 100);
        let revision = self.next_revision();
        let version = self.store.put(revision, key, value, resets);
        Done::ok(revision, Answer::Written { version, value: None })
    }

    fn conditional(&mut self, key: &str, expected: Option<u64>, value: Option<Value>) -> Done {
        let current_version = self.store.version(key);
        if value.is_none() && current_version == 0 {
            return Done::refused(NOT_FOUND, None);
        }
        if let Some(expected) = expected
            && expected != current_version
            && !self.bites(Bug::CasIgnoresVersion, 50)
        {
            if self.bites(Bug::RefusedIsDone, 60) {
                self.write(key, value);
            }
            return Done::refused(VERSION_CONFLICT, Some(Answer::Conflict { current_version }));
        }
        self.write(key, value)
    }

    fn apply(&mut self, now: u64, operation: &Operation) -> Done {
        match &operation.call {
            Call::Set { key, value, expected_version, .. } => {
                self.conditional(key, *expected_version, Some(value.clone()))
            }
            Call::Delete { key, expected_version, .. } => {
                self.conditional(key, *expected_version, None)
            }
            Call::Rollback { key, to_version, .. } => {
                let to_version = if *to_version > 1 && self.bites(Bug::RollbackElsewhere, 60) {
                    to_version - 1
                } else {
                    *to_version
                };
                let entries = self.store.entries.get(key).cloned().unwrap_or_default();
                let old = entries.iter().find(|entry| entry.version == to_version);
                let Some(value) = old.and_then(|old| old.value.clone()) else {
                    return Done::refused(NOT_FOUND, None);
                };
                with_value(self.write(key, Some(value.clone())), value)
            }
            Call::Increment { key, by } => {
                let mut entry = self.store.live(key, self.store.revision);
                if let Some(newest) = &entry
                    && newest.version > 1
                    && self.bites(Bug::LostAddition, 20)
                {
                    entry = self.store.entries[key].iter().rev().nth(1).cloned();
                }
                let sum = entry.and_then(|entry| entry.value?.as_u64()).unwrap_or(0);
                let mut value = Value::from(sum + by);
                let done = self.write(key, Some(value.clone()));
                if self.bites(Bug::DoubleAddition, 20) {
                    value = Value::from(sum + 2 * by);
                    return with_value(self.write(key, Some(value.clone())), value);
                }
                with_value(done, value)
            }
            Call::Txn { compare, success, failure, .. } => {
                self.transaction(compare, success, failure)
            }
            Call::Get { key, read, .. } => {
                let (revision, named) = self.read_at(now, operation, *read);
                let hole = self.holes.get(&operation.node).copied();
                let entry = self.store.live(key, revision).filter(|e| Some(e.revision) != hole);
                Done::ok(named, Answer::Entry { entry })
            }
            Call::List { scope, read } => {
                let (revision, named) = self.read_at(now, operation, *read);
                Done::ok(
                    named,
                    Answer::Entries { entries: self.listed(operation.node, scope, revision) },
                )
            }
            Call::History { key, read } => {
                let (revision, named) = self.read_at(now, operation, *read);
                let entries = self.store.entries.get(key).into_iter().flatten();
                let mut versions: Vec<Entry> =
                    entries.filter(|entry| entry.revision <= revision).cloned().collect();
                versions.reverse();
                if versions.len() > 2 && self.bites(Bug::HistoryGap, 40) {
                    versions.remove(1);
                }
                Done::ok(named, Answer::Versions { versions })
            }
            other => panic!("{other:?} has no effect of its own"),
        }
    }

    fn listed(&mut self, node: u64, scope: &Scope, revision: u64) -> Vec<Keyed> {
        let mut entries = self.store.list(scope, revision);
        if let Some(hole) = self.holes.get(&node) {
            entries.retain(|keyed| keyed.entry.revision != *hole);
        }
        entries
    }

    /// The revision that a read sees, and the one that its answer names.
    fn read_at(&mut self, now: u64, operation: &Operation, read: Read) -> (u64, u64) {
        let newest = self.store.revision;
        let applied = self.nodes[&operation.node];
        if read.linearizable && !operation.last {
            if applied < newest && self.bites(Bug::FollowerRead, 100) {
                return (applied, applied);
            }
            if applied < newest && self.bites(Bug::FollowerReadThatLies, 100) {
                return (applied, newest);
            }
        }
        let mut least = applied;
        if read.linearizable {
            least = newest;
        }
        if let Some(session) = operation.session {
            // What the session had seen when this began.
            let seen = self.operations.iter().filter(|known| {
                known.session == Some(session)
                    && known.completed_ns.is_some_and(|completed| completed <= operation.invoked_ns)
            });
            let seen = seen.filter_map(|known| known.revision).max().unwrap_or(0);
            if applied < seen && self.bites(Bug::SessionIgnored, 100) {
                return (applied, applied);
            }
            least = least.max(seen);
        }
        if let Some(bound) = read.max_staleness_ms {
            let since = now.saturating_sub(bound * MS);
            let reached = self.store.times.iter().filter(|(at, _)| *at <= since);
            let reached = reached.map(|(_, revision)| *revision).max().unwrap_or(0);
            if applied < reached && self.bites(Bug::StalenessIgnored, 100) {
                return (applied, applied);
            }
            least = least.max(reached);
        }
        let least = least.min(newest);
        let revision = if self.chance(60) { least } else { self.rng.random_range(least..=newest) };
        self.nodes.insert(operation.node, revision.max(applied));
        (revision, revision)
    }

    fn transaction(&mut self, compare: &[Compare], success: &[TxnOp], failure: &[TxnOp]) -> Done {
        let held =
            compare.iter().all(|compare| self.store.version(&compare.key) == compare.version);
        let succeeded = held || self.bites(Bug::TransactionIgnoresCompare, 60);
        let done = if succeeded { success } else { failure };
        let writes = done.iter().any(|op| !matches!(op, TxnOp::Get { .. }));
        let before = self.store.revision;
        let revision = if writes { self.next_revision() } else { before };
        let half = writes && before > 0 && self.bites(Bug::HalfTransaction, 20);
        let mut results = Vec::new();
        for (place, op) in done.iter().enumerate() {
            results.push(match op {
                TxnOp::Set { key, .. } if half && place > 0 => {
                    let last = self.store.entries.get(key).and_then(|e| e.last());
                    TxnResult::Written { version: last.map_or(1, |last| last.version + 1) }
                }
                TxnOp::Set { key, value } => TxnResult::Written {
                    version: self.store.put(revision, key, Some(value.clone()), false),
                },
                TxnOp::Delete { key } => {
                    TxnResult::Written { version: self.store.put(revision, key, None, false) }
                }
                TxnOp::Get { key } => TxnResult::Got { entry: self.store.live(key, before) },
            });
        }
        Done::ok(revision, Answer::Txn { succeeded, results })
    }

    fn record(&mut self, watcher: &Watcher, now: u64, call: Call, answer: Option<Answer>) {
        let id = self.id();
        self.operations.push(Operation {
            id,
            process: watcher.process,
            session: None,
            token: None,
            node: 0,
            call,
            invoked_ns: now,
            completed_ns: Some(now),
            outcome: Outcome::Ok,
            revision: None,
            answer,
            error: None,
            last: false,
        });
    }

    fn open(&mut self, watcher: &Watcher, now: u64, from_revision: Option<u64>) {
        let (watch, scope) = (watcher.id, watcher.scope.clone());
        self.record(watcher, now, Call::WatchOpen { watch, scope, from_revision }, None);
    }

    /// Something comes from a watch: the next revision, a bookmark, or a break.
    fn deliver(&mut self, watcher: &mut Watcher, now: u64, up_to: Option<u64>) {
        if up_to.is_none() && self.chance(15) {
            self.open(watcher, now, Some(watcher.delivered + 1));
            if self.bites(Bug::ResumeSkips, 100) {
                watcher.delivered += 1;
            }
        }
        let newest = up_to.unwrap_or(self.store.revision);
        let of = |sim: &Self, revision: u64| -> Vec<Keyed> {
            let changed = sim.store.log.get(&revision).into_iter().flatten();
            changed
                .filter(|(key, _)| watcher.scope.contains(key))
                .map(|(key, entry)| Keyed { key: key.clone(), entry: entry.clone() })
                .collect()
        };
        let mut wanted = (watcher.delivered + 1..=newest).filter(|at| !of(self, *at).is_empty());
        let (next, after) = (wanted.next(), wanted.next());
        drop(wanted);
        let batch = |revision, events| Answer::Events { revision, events };
        let call = Call::WatchBatch { watch: watcher.id };
        let Some(next) = next else {
            self.record(watcher, now, call, Some(batch(newest, Vec::new())));
            watcher.delivered = newest;
            return;
        };
        let events = of(self, next);
        let later = after.map(|after| (after, of(self, after)));
        watcher.delivered = next;
        if self.bites(Bug::WatchSkips, 5) {
            return;
        }
        if self.bites(Bug::BookmarkAhead, 5) {
            self.record(watcher, now, call.clone(), Some(batch(next, Vec::new())));
        }
        if events.len() > 1 && self.bites(Bug::WatchTears, 30) {
            let (one, other) = events.split_at(1);
            self.record(watcher, now, call.clone(), Some(batch(next, one.to_vec())));
            self.record(watcher, now, call, Some(batch(next, other.to_vec())));
            return;
        }
        if let Some((after, later)) = later
            && self.bites(Bug::WatchReorders, 10)
        {
            self.record(watcher, now, call.clone(), Some(batch(after, later)));
            self.record(watcher, now, call, Some(batch(next, events)));
            watcher.delivered = after;
            return;
        }
        self.record(watcher, now, call.clone(), Some(batch(next, events.clone())));
        if self.bites(Bug::WatchRepeats, 5) {
            self.record(watcher, now, call, Some(batch(next, events)));
        }
    }

    /// Every node is asked for everything.
    fn closing(&mut self, end: u64) {
        let mut now = end;
        let revision = self.store.revision;
        let keys: Vec<String> = self.store.entries.keys().cloned().collect();
        let live = self.store.list(&Scope { prefix: String::new(), environment: None }, revision);
        if self.bites(Bug::Diverges, 100) {
            self.holes.insert(2, live[0].entry.revision);
        }
        for node in 1..=NODES {
            self.nodes.insert(node, revision);
            let mut calls = vec![Call::List {
                scope: Scope { prefix: String::new(), environment: None },
                read: Read::CACHED,
            }];
            if node == 1 {
                calls.extend(
                    keys.iter()
                        .map(|key| Call::History { key: key.clone(), read: Read::LINEARIZABLE }),
                );
                calls.extend(keys.iter().map(|key| Call::Get {
                    key: key.clone(),
                    read: Read::LINEARIZABLE,
                    version: None,
                }));
            }
            for call in calls {
                now += MS;
                let mut operation = self.operation(now, 80, call);
                operation.node = node;
                operation.last = true;
                self.finish(now, Pending { operation, outcome_unknown: false, done_at: now });
            }
        }
    }
}

fn with_value(mut done: Done, written: Value) -> Done {
    if let Some(Answer::Written { value, .. }) = &mut done.answer {
        *value = Some(written);
    }
    done
}
