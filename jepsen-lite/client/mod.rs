//! A client that makes each call once, at one node, and takes down what it may conclude: it happened, it did not, or
//! nobody knows. It never retries by itself.

mod calls;
mod convert;
mod recorder;
mod security;
mod vault;
mod watching;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jepsen_lite::history::{
    self, Answer, Call, Operation, Outcome, PERMISSION_DENIED, UNAUTHENTICATED, VERSION_CONFLICT,
};
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};

use crate::lab::{Target, Targets};
use calls::{Envelope, chain, make};
pub use convert::Address;
pub use recorder::Recorder;
pub use vault::{Badge, Vault};
pub use watching::Watcher;

const CONNECT_TIMEOUT: Duration = Duration::from_millis(800);
/// Shorter than the server's own, so that answers do get lost.
const CALL_TIMEOUT: Duration = Duration::from_millis(2500);
/// The audit log is many pages, and a walk along it reads all of it.
const LONG_CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// What one attempt brought.
#[derive(Debug)]
enum Attempt {
    Answered {
        revision: Option<u64>,
        answer: Option<Answer>,
    },
    /// The cluster's word that nothing happened.
    Refused {
        code: String,
        conflict: Option<u64>,
    },
    /// No connection was there to send it on.
    NotSent(String),
    Lost(String),
}

/// A client: one thing at a time.
#[derive(Debug)]
pub struct Client {
    recorder: Arc<Recorder>,
    targets: Targets,
    process: u64,
    session: Option<u64>,
    badge: Badge,
    channels: HashMap<u64, (Target, Channel)>,
    last: bool,
}

impl Client {
    /// A client of the nodes that `targets` names.
    #[must_use]
    pub fn new(recorder: Arc<Recorder>, targets: Targets) -> Self {
        let process = recorder.process();
        let badge = Badge::administrator();
        let channels = HashMap::new();
        Self { recorder, targets, process, session: None, badge, channels, last: false }
    }

    /// From now on its calls are made with this token.
    pub fn wear(&mut self, badge: Badge) {
        self.badge = badge;
    }

    /// From now on its calls belong to a session of their own.
    pub fn begin_session(&mut self) {
        self.session = Some(self.recorder.process());
    }

    /// From now on its calls are part of the closing scan.
    pub fn close(&mut self) {
        self.last = true;
    }

    /// The nodes there are.
    #[must_use]
    pub fn targets(&self) -> Vec<Target> {
        self.targets.now()
    }

    /// Makes a call at a node and takes it down. Gives back what was taken down; nothing for a read without an answer.
    pub async fn call(&mut self, target: Target, call: Call) -> Option<Operation> {
        let (id, invoked) = (self.recorder.operation(), self.recorder.now());
        let attempt = self.attempt(target, &call, history::request(id, 0)).await;
        self.conclude(id, target.id, call, invoked, attempt)
    }

    /// Makes a call and takes down nothing: a part of a larger operation.
    async fn attempt(&mut self, target: Target, call: &Call, request: String) -> Attempt {
        let channel = match self.channel(target).await {
            Ok(channel) => channel,
            Err(reason) => return Attempt::NotSent(reason),
        };
        let patience = match call {
            Call::Audit { .. } | Call::VerifyAudit => LONG_CALL_TIMEOUT,
            _ => CALL_TIMEOUT,
        };
        let made = timeout(patience, make(channel, call, &self.envelope(request))).await;
        let attempt = made.unwrap_or_else(|_| Attempt::Lost("no answer in time".to_owned()));
        if matches!(attempt, Attempt::Lost(_) | Attempt::NotSent(_)) {
            // What it waited for must not come back with the next answer; and no retry hides in a reconnect.
            self.channels.remove(&target.id);
        }
        attempt
    }

    fn envelope(&self, request: String) -> Envelope<'_> {
        Envelope { vault: self.recorder.vault(), badge: &self.badge, request }
    }

    async fn channel(&mut self, target: Target) -> Result<Channel, String> {
        if let Some((known, channel)) = self.channels.get(&target.id)
            && *known == target
        {
            return Ok(channel.clone());
        }
        let endpoint = Endpoint::from_shared(format!("http://{}", target.grpc));
        let endpoint = endpoint.map_err(|error| error.to_string())?;
        let endpoint = endpoint.connect_timeout(CONNECT_TIMEOUT);
        let opened = timeout(CONNECT_TIMEOUT, endpoint.connect()).await;
        let channel = opened.map_err(|_| "no connection in time".to_owned())?;
        let channel = channel.map_err(|error| chain(&error))?;
        self.channels.insert(target.id, (target, channel.clone()));
        Ok(channel)
    }

    fn conclude(
        &mut self,
        id: u64,
        node: u64,
        call: Call,
        invoked: u64,
        attempt: Attempt,
    ) -> Option<Operation> {
        let (outcome, revision, answer, error) = match attempt {
            Attempt::Answered { revision, answer } => (Outcome::Ok, revision, answer, None),
            Attempt::NotSent(_) | Attempt::Lost(_) if !call.changes() => return None,
            Attempt::Refused { code, .. } if !call.changes() && !is_denial(&code) => return None,
            Attempt::Refused { code, conflict } => {
                let answer = conflict.map(|current_version| Answer::Conflict { current_version });
                (Outcome::Fail, None, answer, Some(code))
            }
            Attempt::NotSent(reason) => {
                (Outcome::Fail, None, None, Some(format!("NOT_SENT: {reason}")))
            }
            Attempt::Lost(reason) => (Outcome::Unknown, None, None, Some(reason)),
        };
        let operation = Operation {
            id,
            process: self.process,
            session: self.session,
            token: self.badge.name().map(str::to_owned),
            node,
            call,
            invoked_ns: invoked,
            completed_ns: (outcome != Outcome::Unknown).then(|| self.recorder.now()),
            outcome,
            revision,
            answer,
            error,
            last: self.last,
        };
        self.recorder.record(&operation);
        if outcome == Outcome::Unknown {
            // The old process never learns what became of it; whoever goes on is another one.
            self.process = self.recorder.process();
        }
        Some(operation)
    }

    /// Adds to a number until it is known to have happened once, at nodes that `choose` picks, giving up at the deadline.
    /// Each request is sent again under its idempotency key when its answer was lost.
    pub async fn increment(
        &mut self,
        key: &str,
        mut choose: impl FnMut(&[Target]) -> Target,
        attempts: u32,
    ) -> Option<Operation> {
        let (id, invoked) = (self.recorder.operation(), self.recorder.now());
        let node = 0;
        let mut requests = (0..).map(|attempt| history::request(id, attempt));
        let mut request = || requests.next().unwrap_or_default();
        let call = Call::Increment { key: key.to_owned(), by: 1 };
        let mut sent: Option<(Call, u64)> = None;
        let mut lost = None;
        for _ in 0..attempts {
            let target = choose(&self.targets.now());
            let (write, sum) = match sent.take() {
                Some(sent) => sent,
                None => match self.prepare_increment(target, key, id, request()).await {
                    Some(prepared) => prepared,
                    None => {
                        tokio::time::sleep(PAUSE).await;
                        continue;
                    }
                },
            };
            match self.attempt(target, &write, request()).await {
                Attempt::Answered { revision, answer: Some(Answer::Written { version, .. }) } => {
                    let answer = Answer::Written { version, value: Some(sum.into()) };
                    let answered = Attempt::Answered { revision, answer: Some(answer) };
                    return self.conclude(id, node, call, invoked, answered);
                }
                // Versions only grow: a request that met another one once never takes effect, not even a copy on its way.
                Attempt::Refused { code, .. } if code == VERSION_CONFLICT => lost = None,
                Attempt::Refused { .. } | Attempt::NotSent(_) => {
                    sent = Some((write, sum));
                    tokio::time::sleep(PAUSE).await;
                }
                Attempt::Answered { .. } => lost = Some("an answer of another kind".to_owned()),
                Attempt::Lost(reason) => {
                    lost = Some(reason);
                    sent = Some((write, sum));
                }
            }
        }
        let ended = match lost {
            Some(reason) => Attempt::Lost(reason),
            None => Attempt::NotSent("given up".to_owned()),
        };
        self.conclude(id, node, call, invoked, ended)
    }

    async fn prepare_increment(
        &mut self,
        target: Target,
        key: &str,
        id: u64,
        request: String,
    ) -> Option<(Call, u64)> {
        let read = jepsen_lite::history::Read::LINEARIZABLE;
        let get = Call::Get { key: key.to_owned(), read, version: None };
        let attempt = self.attempt(target, &get, request).await;
        let Attempt::Answered { answer: Some(Answer::Entry { entry }), .. } = attempt else {
            return None;
        };
        let version = entry.as_ref().map_or(0, |entry| entry.version);
        let sum =
            entry.and_then(|entry| entry.value).and_then(|value| value.as_u64()).unwrap_or(0) + 1;
        let request = format!("{}-{id}-{}", self.process, self.recorder.now());
        let set = Call::Set {
            key: key.to_owned(),
            value: sum.into(),
            expected_version: Some(version),
            idempotency_key: Some(request),
        };
        Some((set, sum))
    }
}

/// Between two attempts at a cluster that refuses.
const PAUSE: Duration = Duration::from_millis(50);

/// Whether a refusal says something of who asked.
fn is_denial(code: &str) -> bool {
    code == UNAUTHENTICATED || code == PERMISSION_DENIED
}
