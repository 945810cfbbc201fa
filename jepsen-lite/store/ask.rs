//! Asks a node for everything that it has: every list, the history of every entry, the change log, the audit log's chain.
//!
//! An error is an answer too: it is taken down, and the next question asked.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use jepsen_lite::history::{Entry, Scope};
use llm_config_client::v1;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use v1::config_service_client::ConfigServiceClient;
use v1::security_service_client::SecurityServiceClient;

use super::ledger::{Effect, Found, Ledger};
use crate::client::Address;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const CALL_TIMEOUT: Duration = Duration::from_secs(20);
const PAGE: u32 = 500;
const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// A node that fails is not asked a thousand questions more.
const ERRORS_MAX: usize = 20;

/// The end of an audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Its newest record.
    pub last: u64,
    /// The hash of all of it.
    pub head: Vec<u8>,
}

/// Everything that a node answered.
#[derive(Debug, Clone, Default)]
pub struct Answers {
    /// What it stores.
    pub found: Found,
    /// The end of its audit log, which was walked from the beginning. An error: it is broken.
    pub audit: Option<Result<Chain, String>>,
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Question<'a> {
    /// Lists.
    pub scopes: &'a [Scope],
    /// Histories.
    pub keys: &'a BTreeSet<String>,
    /// The change log from here on.
    pub from: u64,
    /// A revision up to which there is a change log, at least.
    pub revision: u64,
}

impl<'a> Question<'a> {
    /// Everything that a book tells of; of the change log, what comes from a revision on.
    pub fn of(ledger: &'a Ledger, scopes: &'a [Scope], from: u64) -> Self {
        Self { scopes, keys: ledger.keys(), from, revision: ledger.revision() }
    }
}

/// Asks a node for everything.
pub async fn ask(node: SocketAddr, question: &Question<'_>) -> Answers {
    let mut answers = Answers::default();
    answers.found.from = question.from;
    let channel = match connect(node).await {
        Ok(channel) => channel,
        Err(error) => {
            answers.found.errors.push(error);
            return answers;
        }
    };
    let mut asking = Asking {
        stub: ConfigServiceClient::new(channel.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX),
        answers,
    };
    for scope in question.scopes {
        asking.list(scope).await;
    }
    let listed = asking.answers.found.lists.iter().flat_map(|(_, entries)| entries.keys());
    let keys: BTreeSet<String> = listed.chain(question.keys).cloned().collect();
    for key in keys {
        if asking.answers.found.errors.len() >= ERRORS_MAX {
            break;
        }
        asking.history(&key).await;
    }
    let shown = asking.answers.found.histories.values().flatten().map(|entry| entry.revision);
    let newest = shown.max().unwrap_or(0).max(question.revision);
    asking.changes(newest).await;
    asking.audit(channel).await;
    asking.answers
}

async fn connect(node: SocketAddr) -> Result<Channel, String> {
    let endpoint =
        Endpoint::from_shared(format!("http://{node}")).map_err(|error| error.to_string())?;
    let endpoint = endpoint.connect_timeout(CONNECT_TIMEOUT);
    match timeout(CONNECT_TIMEOUT, endpoint.connect()).await {
        Ok(Ok(channel)) => Ok(channel),
        Ok(Err(error)) => Err(format!("no connection: {error}")),
        Err(_) => Err("no connection in time".to_owned()),
    }
}

struct Asking {
    stub: ConfigServiceClient<Channel>,
    answers: Answers,
}

impl Asking {
    fn error(&mut self, what: &str, status: &Status) {
        self.answers.found.errors.push(format!("{what}: {}", words(status)));
    }

    async fn list(&mut self, scope: &Scope) {
        let mut entries = BTreeMap::new();
        let mut cursor = String::new();
        loop {
            let request = v1::ListRequest {
                namespace: scope.prefix.trim_end_matches('/').to_owned(),
                environment: scope.environment.clone().unwrap_or_default(),
                limit: PAGE,
                cursor,
                read: Some(linearizable()),
                ..v1::ListRequest::default()
            };
            let page = match within(self.stub.list(request)).await.and_then(|page| {
                let items = page.items.into_iter().map(keyed).collect::<Result<Vec<_>, _>>()?;
                Ok((items, page.next_cursor))
            }) {
                Ok((items, next)) => {
                    entries.extend(items);
                    next
                }
                Err(status) => return self.error(&format!("list of {}", scope.prefix), &status),
            };
            if page.is_empty() {
                break;
            }
            cursor = page;
        }
        self.answers.found.lists.push((scope.clone(), entries));
    }

    async fn history(&mut self, key: &str) {
        let at = Address::parse(key);
        let request = v1::HistoryRequest {
            namespace: at.namespace,
            key: at.key,
            environment: at.environment,
            limit: PAGE,
            read: Some(linearizable()),
            ..v1::HistoryRequest::default()
        };
        let versions = match within(self.stub.history(request)).await {
            Ok(answer) => answer.items.into_iter().map(|item| Ok(keyed(item)?.1)).collect(),
            Err(status) if status.code() == Code::NotFound => Ok(Vec::new()),
            Err(status) => Err(status),
        };
        match versions {
            Ok(versions) => drop(self.answers.found.histories.insert(key.to_owned(), versions)),
            Err(status) => self.error(&format!("history of {key}"), &status),
        }
    }

    /// From a watch of everything, until it has come to `newest`.
    async fn changes(&mut self, newest: u64) {
        self.answers.found.upto = self.answers.found.from.saturating_sub(1);
        if newest < self.answers.found.from {
            return;
        }
        let request = v1::WatchRequest {
            from_revision: self.answers.found.from,
            ..v1::WatchRequest::default()
        };
        let mut stream = match within(self.stub.watch(request)).await {
            Ok(stream) => stream,
            Err(status) => return self.error("watch", &status),
        };
        while self.answers.found.upto < newest {
            let message = match within_stream(&mut stream).await {
                Ok(message) => message,
                Err(status) => return self.error("watch", &status),
            };
            let events = message.events.into_iter().map(|event| {
                let entry =
                    event.entry.ok_or_else(|| Status::internal("an event without its entry"))?;
                let (key, entry) = keyed(entry)?;
                Ok(Effect { key, version: entry.version, value: entry.value })
            });
            match events.collect::<Result<Vec<_>, Status>>() {
                Ok(events) if events.is_empty() => {}
                Ok(events) => drop(self.answers.found.changes.insert(message.revision, events)),
                Err(status) => return self.error("watch", &status),
            }
            self.answers.found.upto = message.revision;
        }
    }

    async fn audit(&mut self, channel: Channel) {
        let mut stub = SecurityServiceClient::new(channel);
        match within(stub.verify_audit(v1::VerifyAuditRequest {})).await {
            Ok(answer) => {
                self.answers.audit = answer.verdict.map(|verdict| match verdict {
                    v1::verify_audit_response::Verdict::Whole(chain) => {
                        Ok(Chain { last: chain.last_sequence, head: chain.head.to_vec() })
                    }
                    v1::verify_audit_response::Verdict::Broken(broken) => {
                        Err(format!("broken at record {}: {}", broken.sequence, broken.reason))
                    }
                });
            }
            Err(status) => self.error("audit", &status),
        }
    }
}

async fn within<T>(
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, Status> {
    match timeout(CALL_TIMEOUT, call).await {
        Ok(answer) => answer.map(tonic::Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded("no answer in time")),
    }
}

async fn within_stream(
    stream: &mut tonic::Streaming<v1::WatchResponse>,
) -> Result<v1::WatchResponse, Status> {
    match timeout(CALL_TIMEOUT, stream.message()).await {
        Ok(Ok(Some(message))) => Ok(message),
        Ok(Ok(None)) => Err(Status::unavailable("the stream ended")),
        Ok(Err(status)) => Err(status),
        Err(_) => Err(Status::deadline_exceeded("nothing came in time")),
    }
}

fn linearizable() -> v1::ReadOptions {
    v1::ReadOptions {
        consistency: v1::Consistency::Linearizable.into(),
        ..v1::ReadOptions::default()
    }
}

fn keyed(entry: v1::Entry) -> Result<(String, Entry), Status> {
    let address =
        Address { namespace: entry.namespace, key: entry.key, environment: entry.environment };
    let value = if entry.deleted {
        None
    } else {
        let value = serde_json::from_slice(&entry.value);
        Some(value.map_err(|error| Status::internal(format!("no JSON: {error}")))?)
    };
    let (version, revision) = (entry.version, entry.revision);
    Ok((address.to_string(), Entry { version, revision, value }))
}

fn words(status: &Status) -> String {
    let code = status
        .get_details_error_info()
        .map_or_else(|| format!("{:?}", status.code()), |info| info.reason);
    format!("{code}: {}", status.message())
}
