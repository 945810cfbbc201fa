//! A client that makes each call once, at one node, and takes down what it may conclude: it happened, it did not, or
//! nobody knows. It never retries by itself.

mod convert;
mod recorder;
mod watching;

use std::collections::HashMap;
use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use jepsen_lite::history::{Answer, Call, NOT_FOUND, Operation, Outcome, VERSION_CONFLICT};
use llm_config_client::v1;
use tokio::time::timeout;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};
use tonic::{ConnectError, Response, Status};
use tonic_types::StatusExt as _;
use v1::config_service_client::ConfigServiceClient;

use crate::lab::{Target, Targets};
pub use convert::Address;
pub use recorder::Recorder;
pub use watching::Watcher;

const CONNECT_TIMEOUT: Duration = Duration::from_millis(800);
/// Shorter than the server's own, so that answers do get lost.
const CALL_TIMEOUT: Duration = Duration::from_millis(2500);
/// One page holds a whole namespace of any workload.
const PAGE: u32 = 1000;

/// The stub of one node.
type Stub = ConfigServiceClient<Channel>;

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
    stubs: HashMap<u64, (Target, Stub)>,
    last: bool,
}

impl Client {
    /// A client of the nodes that `targets` names.
    #[must_use]
    pub fn new(recorder: Arc<Recorder>, targets: Targets) -> Self {
        let process = recorder.process();
        Self { recorder, targets, process, session: None, stubs: HashMap::new(), last: false }
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
        let (invoked, attempt) = self.attempt(target, &call).await;
        self.conclude(target.id, call, invoked, attempt)
    }

    /// Makes a call and takes down nothing: a part of a larger operation.
    async fn attempt(&mut self, target: Target, call: &Call) -> (u64, Attempt) {
        let invoked = self.recorder.now();
        let mut stub = match self.stub(target).await {
            Ok(stub) => stub,
            Err(reason) => return (invoked, Attempt::NotSent(reason)),
        };
        let made = timeout(CALL_TIMEOUT, make(&mut stub, call)).await;
        let attempt = made.unwrap_or_else(|_| Attempt::Lost("no answer in time".to_owned()));
        if matches!(attempt, Attempt::Lost(_) | Attempt::NotSent(_)) {
            // What it waited for must not come back with the next answer; and no retry hides in a reconnect.
            self.stubs.remove(&target.id);
        }
        (invoked, attempt)
    }

    async fn stub(&mut self, target: Target) -> Result<Stub, String> {
        if let Some((known, stub)) = self.stubs.get(&target.id)
            && *known == target
        {
            return Ok(stub.clone());
        }
        let endpoint = Endpoint::from_shared(format!("http://{}", target.grpc));
        let endpoint = endpoint.map_err(|error| error.to_string())?;
        let endpoint = endpoint.connect_timeout(CONNECT_TIMEOUT);
        let opened = timeout(CONNECT_TIMEOUT, endpoint.connect()).await;
        let channel = opened.map_err(|_| "no connection in time".to_owned())?;
        let channel = channel.map_err(|error| chain(&error))?;
        let stub = ConfigServiceClient::new(channel).max_decoding_message_size(64 * 1024 * 1024);
        self.stubs.insert(target.id, (target, stub.clone()));
        Ok(stub)
    }

    fn conclude(
        &mut self,
        node: u64,
        call: Call,
        invoked: u64,
        attempt: Attempt,
    ) -> Option<Operation> {
        let (outcome, revision, answer, error) = match attempt {
            Attempt::Answered { revision, answer } => (Outcome::Ok, revision, answer, None),
            Attempt::Refused { .. } | Attempt::NotSent(_) | Attempt::Lost(_)
                if !call.is_write() =>
            {
                return None;
            }
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
            id: self.recorder.operation(),
            process: self.process,
            session: self.session,
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
        let invoked = self.recorder.now();
        let node = 0;
        let call = Call::Increment { key: key.to_owned(), by: 1 };
        let mut sent: Option<(Call, u64)> = None;
        let mut lost = None;
        for _ in 0..attempts {
            let target = choose(&self.targets.now());
            let (write, sum) = match sent.take() {
                Some(sent) => sent,
                None => match self.prepare_increment(target, key, invoked).await {
                    Some(prepared) => prepared,
                    None => {
                        tokio::time::sleep(PAUSE).await;
                        continue;
                    }
                },
            };
            let (_, attempt) = self.attempt(target, &write).await;
            match attempt {
                Attempt::Answered { revision, answer: Some(Answer::Written { version, .. }) } => {
                    let answer = Answer::Written { version, value: Some(sum.into()) };
                    let answered = Attempt::Answered { revision, answer: Some(answer) };
                    return self.conclude(node, call, invoked, answered);
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
        self.conclude(node, call, invoked, ended)
    }

    async fn prepare_increment(
        &mut self,
        target: Target,
        key: &str,
        salt: u64,
    ) -> Option<(Call, u64)> {
        let read = jepsen_lite::history::Read::LINEARIZABLE;
        let get = Call::Get { key: key.to_owned(), read, version: None };
        let (_, attempt) = self.attempt(target, &get).await;
        let Attempt::Answered { answer: Some(Answer::Entry { entry }), .. } = attempt else {
            return None;
        };
        let version = entry.as_ref().map_or(0, |entry| entry.version);
        let sum =
            entry.and_then(|entry| entry.value).and_then(|value| value.as_u64()).unwrap_or(0) + 1;
        let request = format!("{}-{salt}-{}", self.process, self.recorder.now());
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

async fn make(stub: &mut Stub, call: &Call) -> Attempt {
    match try_make(stub, call).await {
        Ok((revision, answer)) => Attempt::Answered { revision, answer },
        Err(status) => classify(&status, call),
    }
}

async fn try_make(stub: &mut Stub, call: &Call) -> Result<(Option<u64>, Option<Answer>), Status> {
    match call {
        Call::Get { key, read, version } => {
            let request = convert::get(key, *read, *version);
            let response = stub.get(request).await?;
            let revision = revision_of(response.metadata());
            let entry = convert::present(response.into_inner().entry)?;
            Ok((revision, Some(Answer::Entry { entry: Some(entry) })))
        }
        Call::Set { key, value, expected_version, idempotency_key } => {
            let at = Address::parse(key);
            let request = v1::SetRequest {
                namespace: at.namespace,
                key: at.key,
                environment: at.environment,
                value: value.to_string().into(),
                expected_version: *expected_version,
                idempotency_key: idempotency_key.clone().unwrap_or_default(),
                ..v1::SetRequest::default()
            };
            let entry = convert::present(stub.set(request).await?.into_inner().entry)?;
            Ok(written(entry.version, entry.revision))
        }
        Call::Delete { key, expected_version, idempotency_key } => {
            let at = Address::parse(key);
            let request = v1::DeleteRequest {
                namespace: at.namespace,
                key: at.key,
                environment: at.environment,
                expected_version: *expected_version,
                idempotency_key: idempotency_key.clone().unwrap_or_default(),
                ..v1::DeleteRequest::default()
            };
            let deleted = stub.delete(request).await?.into_inner();
            Ok(written(deleted.version, deleted.revision))
        }
        Call::Rollback { key, to_version, idempotency_key } => {
            let at = Address::parse(key);
            let request = v1::RollbackRequest {
                namespace: at.namespace,
                key: at.key,
                environment: at.environment,
                version: *to_version,
                idempotency_key: idempotency_key.clone().unwrap_or_default(),
                ..v1::RollbackRequest::default()
            };
            let entry = convert::present(stub.rollback(request).await?.into_inner().entry)?;
            let answer = Answer::Written { version: entry.version, value: entry.value };
            Ok((Some(entry.revision), Some(answer)))
        }
        Call::Txn { compare, success, failure, idempotency_key } => {
            let request = convert::txn(compare, success, failure, idempotency_key.as_deref());
            let done = stub.txn(request).await?.into_inner();
            let steps = if done.succeeded { success } else { failure };
            let results = convert::results(steps, done.results)?;
            let answer = Answer::Txn { succeeded: done.succeeded, results };
            Ok((Some(done.revision), Some(answer)))
        }
        Call::List { scope, read } => {
            let request = v1::ListRequest {
                namespace: scope.prefix.trim_end_matches('/').to_owned(),
                environment: scope.environment.clone().unwrap_or_default(),
                limit: PAGE,
                read: Some(convert::read(*read)),
                ..v1::ListRequest::default()
            };
            let page = stub.list(request).await?.into_inner();
            if !page.next_cursor.is_empty() {
                return Err(Status::internal("more entries than a workload may make"));
            }
            let entries = page.items.into_iter().map(convert::keyed).collect::<Result<_, _>>()?;
            Ok((Some(page.revision), Some(Answer::Entries { entries })))
        }
        Call::History { key, read } => {
            let at = Address::parse(key);
            let request = v1::HistoryRequest {
                namespace: at.namespace,
                key: at.key,
                environment: at.environment,
                limit: PAGE,
                read: Some(convert::read(*read)),
                ..v1::HistoryRequest::default()
            };
            let response: Response<v1::HistoryResponse> = stub.history(request).await?;
            let revision = revision_of(response.metadata());
            let items = response.into_inner().items;
            let versions = items.into_iter().map(convert::entry).collect::<Result<_, _>>()?;
            Ok((revision, Some(Answer::Versions { versions })))
        }
        Call::Increment { .. }
        | Call::WatchOpen { .. }
        | Call::WatchBatch { .. }
        | Call::WatchEnd { .. }
        | Call::Other { .. } => Err(Status::internal("not one call")),
    }
}

fn written(version: u64, revision: u64) -> (Option<u64>, Option<Answer>) {
    (Some(revision), Some(Answer::Written { version, value: None }))
}

fn revision_of(metadata: &MetadataMap) -> Option<u64> {
    metadata.get("x-config-revision")?.to_str().ok()?.parse().ok()
}

fn classify(status: &Status, call: &Call) -> Attempt {
    let Some(info) = status.get_details_error_info() else {
        return if is_connect_error(status) {
            Attempt::NotSent(chain(status))
        } else {
            Attempt::Lost(format!("{:?}: {}", status.code(), chain(status)))
        };
    };
    let revision = revision_of(status.metadata());
    match (info.reason.as_str(), call) {
        (NOT_FOUND, Call::Get { .. }) => {
            Attempt::Answered { revision, answer: Some(Answer::Entry { entry: None }) }
        }
        (NOT_FOUND, Call::History { .. }) => {
            Attempt::Answered { revision, answer: Some(Answer::Versions { versions: Vec::new() }) }
        }
        _ if info.metadata.get("applied").is_some_and(|applied| applied == "no") => {
            let conflict = info.metadata.get("current_version").and_then(|text| text.parse().ok());
            Attempt::Refused { code: info.reason, conflict }
        }
        _ => Attempt::Lost(format!("{}: {}", info.reason, status.message())),
    }
}

fn is_connect_error(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
