//! Clients: each asks one thing at a time, of any node, and tries again where that is safe.

use std::time::Duration;

use llm_config_domain::{Address, Command, Delete, JsonValue, Operation, Set};
use llm_config_simdisk::Chance;

use crate::cluster::Cluster;
use crate::history::{Event, History, Kind, Outcome};
use crate::node::{Answer, Ask, Asked};
use crate::plan::{Mistake, Plan};
use crate::trace::Trace;

/// Tries of a write that has a request id.
const TRIES_MAX: u32 = 8;

/// A question that waits for its answer.
struct Pending {
    /// In the history.
    operation: usize,
    /// Of this try.
    number: u64,
    ask: Ask,
    node: u64,
    life: u64,
    tries: u32,
    repeatable: bool,
    /// A try before may have been carried out.
    doubtful: bool,
}

enum State {
    Rests {
        until: u64,
    },
    Waits(Pending),
    /// Asks again.
    Retries {
        from: u64,
        pending: Pending,
    },
}

struct Client {
    state: State,
    chance: Chance,
    /// The newest revision that it has seen.
    session: u64,
}

pub struct Clients {
    clients: Vec<Client>,
    plan: Plan,
    numbers: u64,
    pub history: History,
    /// Nothing new is asked.
    pub resting: bool,
}

fn key_address(key: u64) -> Address {
    Address::parse("sim", &format!("key{key}"), "base").expect("a valid address")
}

impl Clients {
    pub fn new(plan: &Plan, chance: &mut Chance) -> Self {
        let client =
            |_| Client { state: State::Rests { until: 0 }, chance: chance.fork(), session: 0 };
        Self {
            clients: (0..plan.clients).map(client).collect(),
            plan: plan.clone(),
            numbers: 0,
            history: History::new(plan),
            resting: false,
        }
    }

    /// Whether nobody waits for anything.
    pub fn idle(&self) -> bool {
        self.clients.iter().all(|client| matches!(client.state, State::Rests { .. }))
    }

    /// Takes the answers of a tick, and asks what is to be asked.
    pub fn turn(&mut self, cluster: &Cluster, answers: &[(u64, Answer)], trace: &mut Trace) {
        for number in 0..self.clients.len() {
            self.turn_of(number, cluster, answers, trace);
        }
    }

    fn turn_of(
        &mut self,
        number: usize,
        cluster: &Cluster,
        answers: &[(u64, Answer)],
        trace: &mut Trace,
    ) {
        let tick = cluster.tick;
        let state = std::mem::replace(&mut self.clients[number].state, State::Rests { until: 0 });
        let next = match state {
            State::Rests { until } if until > tick || self.resting => State::Rests { until },
            State::Rests { .. } => self.begin(number, cluster, trace),
            State::Retries { from, pending } if from > tick => State::Retries { from, pending },
            State::Retries { pending, .. } => self.send(number, cluster, pending),
            State::Waits(pending) => {
                let answer = answers.iter().find(|(asked, _)| *asked == pending.number);
                match answer {
                    Some((_, answer)) => self.take(number, tick, pending, answer.clone(), trace),
                    // The node is gone, and with it what it would have said.
                    None if cluster.life(pending.node) != pending.life => {
                        let lost = match &pending.ask {
                            Ask::Write(_) => Answer::Unknown,
                            _ => Answer::NotRead("the node stopped".into()),
                        };
                        self.take(number, tick, pending, lost, trace)
                    }
                    None => State::Waits(pending),
                }
            }
        };
        self.clients[number].state = next;
    }

    fn rest(&mut self, number: usize, tick: u64) -> State {
        let think = self.plan.think_ms;
        State::Rests { until: tick + self.clients[number].chance.between(1, think) }
    }

    fn begin(&mut self, number: usize, cluster: &Cluster, trace: &mut Trace) -> State {
        let operation = self.history.next();
        let keys = self.plan.keys;
        let client = &mut self.clients[number];
        let key = client.chance.below(keys);
        let address = key_address(key);
        let (ask, kind) = match client.chance.below(100) {
            0..45 => {
                let (command, kind) =
                    self.history.write(&mut client.chance, key, address, operation);
                (Ask::Write(Box::new(command)), kind)
            }
            45..75 => (Ask::Linearizable(address), Kind::Linearizable { key }),
            75..88 => {
                let least = client.session;
                (Ask::Session(address, least), Kind::Session { key, least })
            }
            _ => (Ask::Stale(address), Kind::Stale { key }),
        };
        let repeatable = matches!(&ask, Ask::Write(command) if command.request.is_some());
        trace.line(cluster.tick, format_args!("c{number} asks {operation}: {kind:?}"));
        self.history.begin(Event {
            kind,
            invoked: cluster.tick,
            completed: None,
            outcome: Outcome::Pending,
        });
        let pending = Pending {
            operation,
            number: 0,
            ask,
            node: 0,
            life: 0,
            tries: 0,
            repeatable,
            doubtful: false,
        };
        self.send(number, cluster, pending)
    }

    fn send(&mut self, number: usize, cluster: &Cluster, mut pending: Pending) -> State {
        let client = &mut self.clients[number];
        let Some(node) = client.chance.pick(&cluster.open()).copied() else {
            return State::Retries { from: cluster.tick + 20, pending };
        };
        self.numbers += 1;
        pending.number = self.numbers;
        (pending.node, pending.life) = (node, cluster.life(node));
        pending.tries += 1;
        let timeout = Duration::from_millis(client.chance.between(150, 2_000));
        if self.plan.mistake == Some(Mistake::RetriesUnmarked)
            && let Ask::Write(command) = &mut pending.ask
            && pending.tries > 1
        {
            let unmarked = Command::new(command.actor.clone(), command.operation.clone());
            **command =
                unmarked.with_request_id(format!("{}-{}", pending.operation, pending.tries));
        }
        let asked = Asked { number: pending.number, ask: pending.ask.clone(), timeout };
        if cluster.ask(node, asked) {
            State::Waits(pending)
        } else {
            State::Retries { from: cluster.tick + 20, pending }
        }
    }

    fn take(
        &mut self,
        number: usize,
        tick: u64,
        mut pending: Pending,
        answer: Answer,
        trace: &mut Trace,
    ) -> State {
        trace.line(
            tick,
            format_args!("c{number} n{} answers {}: {answer:?}", pending.node, pending.operation),
        );
        let unsure = matches!(answer, Answer::Unknown | Answer::NotDone(_));
        if pending.repeatable && unsure && pending.tries < TRIES_MAX {
            pending.doubtful |= answer == Answer::Unknown;
            let pause = self.clients[number].chance.between(1, 100);
            return State::Retries { from: tick + pause, pending };
        }
        let outcome = match answer {
            Answer::Written { revision, version, replayed } => {
                self.see(number, revision);
                Outcome::Written { revision, version, replayed }
            }
            // An earlier try may be carried out yet.
            Answer::NotDone(_) | Answer::Refused(_) if pending.doubtful => Outcome::Unknown,
            Answer::NotDone(_) | Answer::Refused(_) => Outcome::NotDone,
            Answer::Unknown => Outcome::Unknown,
            Answer::Read { revision, found, age } => {
                self.see(number, revision);
                Outcome::Read { revision, found, age }
            }
            Answer::NotRead(_) => Outcome::NotRead,
            Answer::Wrong(what) => Outcome::Wrong(what),
            Answer::Done | Answer::MembersRefused(_) => Outcome::NotRead,
        };
        self.history.end(pending.operation, tick, outcome);
        self.rest(number, tick)
    }

    fn see(&mut self, number: usize, revision: u64) {
        let session = &mut self.clients[number].session;
        *session = (*session).max(revision);
    }
}

/// What a write says: its own number, so that it can be told from every other.
pub fn command(
    address: Address,
    operation: usize,
    expected_version: Option<u64>,
    deletes: bool,
    named: bool,
) -> Command {
    let comment = operation.to_string();
    let asked = if deletes {
        Operation::Delete(Delete { address, expected_version, comment })
    } else {
        let value = JsonValue::parse(comment.as_bytes()).expect("a number is JSON");
        Operation::Set(Set {
            address,
            value: value.into(),
            description: String::new(),
            tags: Vec::new(),
            comment,
            expected_version,
            declassify: false,
        })
    };
    let command = Command::new("client", asked);
    if named { command.with_request_id(format!("request-{operation}")) } else { command }
}

/// A write that changes nothing, to see whether a node serves: there is nothing to delete at its address.
pub fn probe() -> Ask {
    let address = Address::parse("sim", "probe", "base").expect("a valid address");
    Ask::Write(Box::new(command(address, 0, None, true, false)))
}
