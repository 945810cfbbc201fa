//! One call at one node, and what its answer means.

use std::error::Error as _;

use jepsen_lite::history::{Answer, Call, NOT_FOUND};
use llm_config_client::v1;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{ConnectError, Request, Response, Status};
use tonic_types::StatusExt as _;
use v1::config_service_client::ConfigServiceClient;

use super::{Address, Attempt, Badge, Vault, convert, security};

/// One page holds a whole namespace of any workload.
pub(super) const PAGE: u32 = 1000;
const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What goes with every call: who asks, and the name of the request.
pub(super) struct Envelope<'a> {
    pub(super) vault: &'a Vault,
    pub(super) badge: &'a Badge,
    pub(super) request: String,
}

impl Envelope<'_> {
    pub(super) fn around<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let texts = [
            ("authorization", format!("Bearer {}", self.badge.text())),
            ("x-request-id", self.request.clone()),
        ];
        for (name, text) in texts {
            // Neither has a character that no header takes.
            if let Ok(value) = text.parse() {
                request.metadata_mut().insert(name, value);
            }
        }
        request
    }
}

pub(super) async fn make(channel: Channel, call: &Call, envelope: &Envelope<'_>) -> Attempt {
    let made = match call {
        Call::Policy { .. }
        | Call::RotateKeys
        | Call::Audit { .. }
        | Call::VerifyAudit
        | Call::Members => security::make(channel, call, envelope).await,
        _ => try_make(channel, call, envelope).await,
    };
    match made {
        Ok((revision, mut answer)) => {
            let reveal = call.read().is_some_and(|read| read.reveal);
            if let Some(answer) = &mut answer {
                envelope.vault.hide(answer, reveal);
            }
            Attempt::Answered { revision, answer }
        }
        Err(status) => classify(&status, call),
    }
}

/// The revision and what was answered.
pub(super) type Made = Result<(Option<u64>, Option<Answer>), Status>;

pub(super) fn config(channel: Channel) -> ConfigServiceClient<Channel> {
    ConfigServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX)
}

async fn try_make(channel: Channel, call: &Call, envelope: &Envelope<'_>) -> Made {
    let mut stub = config(channel);
    match call {
        Call::Get { key, read, version } => {
            let request = convert::get(key, *read, *version);
            let response = stub.get(envelope.around(request)).await?;
            let revision = revision_of(response.metadata());
            let entry = convert::present(response.into_inner().entry)?;
            Ok((revision, Some(Answer::Entry { entry: Some(entry) })))
        }
        Call::Set { key, value, expected_version, idempotency_key } => {
            let at = Address::parse(key);
            let (value, secret) = envelope.vault.sent(value);
            let request = v1::SetRequest {
                namespace: at.namespace,
                key: at.key,
                environment: at.environment,
                value: value.into(),
                secret,
                expected_version: *expected_version,
                idempotency_key: idempotency_key.clone().unwrap_or_default(),
                ..v1::SetRequest::default()
            };
            let entry =
                convert::present(stub.set(envelope.around(request)).await?.into_inner().entry)?;
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
            let deleted = stub.delete(envelope.around(request)).await?.into_inner();
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
            let entry = convert::present(
                stub.rollback(envelope.around(request)).await?.into_inner().entry,
            )?;
            let answer = Answer::Written { version: entry.version, value: entry.value };
            Ok((Some(entry.revision), Some(answer)))
        }
        Call::Txn { compare, success, failure, idempotency_key } => {
            let key = idempotency_key.as_deref();
            let request = convert::txn(compare, success, failure, key, envelope.vault);
            let done = stub.txn(envelope.around(request)).await?.into_inner();
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
            let page = stub.list(envelope.around(request)).await?.into_inner();
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
            let response: Response<v1::HistoryResponse> =
                stub.history(envelope.around(request)).await?;
            let revision = revision_of(response.metadata());
            let items = response.into_inner().items;
            let versions = items.into_iter().map(convert::entry).collect::<Result<_, _>>()?;
            Ok((revision, Some(Answer::Versions { versions })))
        }
        Call::Increment { .. }
        | Call::WatchOpen { .. }
        | Call::WatchBatch { .. }
        | Call::WatchEnd { .. }
        | Call::Policy { .. }
        | Call::RotateKeys
        | Call::Audit { .. }
        | Call::VerifyAudit
        | Call::Members
        | Call::Other { .. } => Err(Status::internal("not one call")),
    }
}

fn written(version: u64, revision: u64) -> (Option<u64>, Option<Answer>) {
    (Some(revision), Some(Answer::Written { version, value: None }))
}

pub(super) fn revision_of(metadata: &MetadataMap) -> Option<u64> {
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

pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
