//! Between the messages of the wire and the service's plain requests and answers.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use llm_config_domain::{Change, ChangeKind, Entry, MASK, TxnResult, Value};
use llm_config_proto::v1;
use prost_types::Timestamp;
use tonic::metadata::MetadataMap;

use crate::error::ServiceError;
use crate::secrets::Plaintext;
use crate::service::{
    CompareRequest, Consistency, ReadOptions, Target, TxnOpRequest, WatchFrom, WatchRequest,
};
use crate::watch::WatchBatch;

pub(super) fn target(namespace: String, key: String, environment: String) -> Target {
    Target { namespace, key, environment }
}

/// An empty text on the wire is an absent one.
pub(super) fn given(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

/// A limit of 0 is an absent one.
pub(super) fn limit(limit: u32) -> Option<u64> {
    (limit != 0).then_some(u64::from(limit))
}

pub(super) fn read_options(read: Option<v1::ReadOptions>) -> Result<ReadOptions, ServiceError> {
    let Some(read) = read else { return Ok(ReadOptions::default()) };
    let consistency = match v1::Consistency::try_from(read.consistency) {
        Ok(v1::Consistency::Unspecified | v1::Consistency::Cached) => Consistency::Cached,
        Ok(v1::Consistency::Linearizable) => Consistency::Linearizable,
        Err(_) => {
            return Err(ServiceError::invalid(
                "read.consistency",
                format!("{} is not one of 0, 1 and 2", read.consistency),
            ));
        }
    };
    Ok(ReadOptions {
        consistency,
        min_revision: read.min_revision,
        max_staleness_ms: read.max_staleness_ms,
    })
}

pub(super) fn compare(compare: v1::Compare) -> CompareRequest {
    CompareRequest {
        target: target(compare.namespace, compare.key, compare.environment),
        version: compare.version,
    }
}

pub(super) fn txn_op(op: v1::TxnOp) -> Result<TxnOpRequest, ServiceError> {
    use v1::txn_op::Op;
    match op.op {
        Some(Op::Set(set)) => Ok(TxnOpRequest::Set {
            target: target(set.namespace, set.key, set.environment),
            value: set.value,
            secret: set.secret,
            description: set.description,
            tags: set.tags,
            comment: set.comment,
            expected_version: set.expected_version,
        }),
        Some(Op::Delete(delete)) => Ok(TxnOpRequest::Delete {
            target: target(delete.namespace, delete.key, delete.environment),
            expected_version: delete.expected_version,
            comment: delete.comment,
        }),
        Some(Op::Get(get)) => {
            Ok(TxnOpRequest::Get { target: target(get.namespace, get.key, get.environment) })
        }
        None => Err(ServiceError::invalid("op", "is missing; give set, delete or get")),
    }
}

pub(super) fn txn_result(result: TxnResult) -> v1::TxnResult {
    let (op, of) = match result {
        TxnResult::Set(of) => ("set", Some(of)),
        TxnResult::Delete(of) => ("delete", Some(of)),
        TxnResult::Get(of) => ("get", of),
    };
    v1::TxnResult { op: op.to_owned(), entry: of.map(shared) }
}

pub(super) fn watch(request: v1::WatchRequest) -> WatchRequest {
    WatchRequest {
        namespace: given(request.namespace),
        namespace_prefix: request.namespace_prefix,
        prefix: request.prefix,
        environment: given(request.environment),
        from: match request.from_revision {
            0 => WatchFrom::Now,
            revision => WatchFrom::Revision(revision),
        },
    }
}

pub(super) fn watch_batch(batch: WatchBatch) -> v1::WatchResponse {
    v1::WatchResponse {
        revision: batch.revision,
        events: batch.changes.into_iter().map(event).collect(),
    }
}

fn event(change: Change) -> v1::WatchEvent {
    let kind = match change.kind {
        ChangeKind::Set => v1::watch_event::Kind::Set,
        ChangeKind::Delete => v1::watch_event::Kind::Delete,
    };
    v1::WatchEvent { kind: kind.into(), entry: Some(shared(change.entry)) }
}

/// An entry, masked when it is a secret.
pub(super) fn entry(entry: Entry) -> v1::Entry {
    shown(entry, None)
}

/// The same for one that others hold too.
pub(super) fn shared(of: Arc<Entry>) -> v1::Entry {
    entry(Arc::unwrap_or_clone(of))
}

/// An entry with the plaintext that the caller may see.
pub(super) fn shown(entry: Entry, revealed: Option<&Plaintext>) -> v1::Entry {
    v1::Entry {
        namespace: entry.address.namespace.as_str().to_owned(),
        key: entry.address.key.as_str().to_owned(),
        environment: entry.address.environment.as_str().to_owned(),
        deleted: entry.value.is_none(),
        secret: entry.value.as_ref().is_some_and(Value::is_secret),
        value: entry.value.map(|of| value(&of, revealed)).unwrap_or_default(),
        version: entry.version,
        revision: entry.revision,
        created_at: Some(timestamp(entry.created_at_ms)),
        created_by: entry.created_by,
        updated_at: Some(timestamp(entry.updated_at_ms)),
        updated_by: entry.updated_by,
        description: entry.description,
        tags: entry.tags,
        comment: entry.comment,
    }
}

/// JSON text: as it is stored, or of a secret its plaintext or else its mask.
pub(super) fn value(value: &Value, revealed: Option<&Plaintext>) -> Bytes {
    match (value, revealed) {
        (Value::Json(json), _) => json.bytes(),
        (Value::Sealed(_), Some(plaintext)) => Bytes::copy_from_slice(plaintext.expose()),
        (Value::Sealed(_), None) => format!("\"{MASK}\"").into(),
    }
}

/// A time of 0 is one that never comes.
pub(super) fn time_unless_never(ms: u64) -> Option<Timestamp> {
    (ms != 0).then(|| timestamp(ms))
}

/// A time as milliseconds since 1970, rounded down.
pub(super) fn milliseconds(field: &'static str, time: Timestamp) -> Result<u64, ServiceError> {
    let refuse = || ServiceError::invalid(field, "must be a time since 1970");
    let seconds = u64::try_from(time.seconds).map_err(|_| refuse())?;
    let nanos = u64::try_from(time.nanos).map_err(|_| refuse())?;
    let ms = seconds.checked_mul(1_000).and_then(|ms| ms.checked_add(nanos / 1_000_000));
    ms.ok_or_else(refuse)
}

pub(super) fn timestamp(ms: u64) -> Timestamp {
    Timestamp {
        seconds: i64::try_from(ms / 1000).unwrap_or(i64::MAX),
        // Below 1000 million.
        nanos: i32::try_from(ms % 1000).unwrap_or(0) * 1_000_000,
    }
}

/// Time that an answer gets to travel back before the caller stops waiting for it.
const REPLY_MARGIN_MAX: Duration = Duration::from_millis(100);

/// How long this node may take: a little less than the caller waits, so that a refusal still arrives as one. A call that
/// the caller cuts off leaves it in doubt.
pub(super) fn timeout(metadata: &MetadataMap) -> Option<Duration> {
    let patience = caller_timeout(metadata)?;
    Some(patience - (patience / 10).min(REPLY_MARGIN_MAX))
}

/// How long the caller waits, from the `grpc-timeout` header. What is not of its form is not a limit.
fn caller_timeout(metadata: &MetadataMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    // The protocol allows 8 digits, so no product below overflows.
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let n: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(n * 3600)),
        "M" => Some(Duration::from_secs(n * 60)),
        "S" => Some(Duration::from_secs(n)),
        "m" => Some(Duration::from_millis(n)),
        "u" => Some(Duration::from_micros(n)),
        "n" => Some(Duration::from_nanos(n)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_leaves_before_the_caller_stops_waiting() {
        let of = |text: &str| {
            let mut metadata = MetadataMap::new();
            metadata.insert("grpc-timeout", text.parse().unwrap());
            timeout(&metadata)
        };
        assert_eq!(of("10S"), Some(Duration::from_millis(9_900)));
        assert_eq!(of("100m"), Some(Duration::from_millis(90)));
        assert_eq!(of(""), None);
    }

    #[test]
    fn timeouts_of_the_protocol() {
        let of = |text: &str| {
            let mut metadata = MetadataMap::new();
            metadata.insert("grpc-timeout", text.parse().unwrap());
            caller_timeout(&metadata)
        };
        assert_eq!(of("1H"), Some(Duration::from_secs(3600)));
        assert_eq!(of("250m"), Some(Duration::from_millis(250)));
        assert_eq!(of("99999999u"), Some(Duration::from_micros(99_999_999)));
        for text in ["", "S", "1", "1x", "-1S", "+1S", "999999999S", "1.5S"] {
            assert_eq!(of(text), None, "{text:?}");
        }
        assert_eq!(timeout(&MetadataMap::new()), None);
    }

    #[test]
    fn times_keep_their_milliseconds() {
        assert_eq!(timestamp(1_234_567), Timestamp { seconds: 1234, nanos: 567_000_000 });
    }

    #[test]
    fn times_come_back_as_they_went_out() {
        for ms in [0, 1, 1_234_567] {
            assert_eq!(milliseconds("from", timestamp(ms)).unwrap(), ms);
        }
        for (seconds, nanos) in [(-1, 0), (0, -1), (i64::MAX, 0)] {
            let error = milliseconds("from", Timestamp { seconds, nanos }).unwrap_err();
            assert!(error.to_string().starts_with("from: "), "{error}");
        }
        assert_eq!(time_unless_never(0), None);
    }

    #[test]
    fn a_secret_is_masked_unless_it_is_revealed() {
        let sealed = Value::Sealed(llm_config_domain::Sealed {
            key_version: 1,
            version: 1,
            bytes: Bytes::from_static(b"sealed"),
        });
        assert_eq!(&value(&sealed, None)[..], br#""********""#);
        let plaintext = Plaintext::from("\"hunter2\"".to_owned());
        assert_eq!(&value(&sealed, Some(&plaintext))[..], br#""hunter2""#);
    }

    #[test]
    fn an_unknown_consistency_is_named() {
        let read = v1::ReadOptions { consistency: 9, min_revision: None, max_staleness_ms: None };
        assert!(read_options(Some(read)).unwrap_err().to_string().contains("read.consistency"));
    }
}
