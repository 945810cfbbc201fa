//! Bodies of the fuzz targets for gRPC calls: the time that a caller grants, and messages on their way to the service.
//!
//! Reading protobuf is prost's; what is made of the messages is ours. The targets are in `.ci/fuzz`; the tests below run
//! the bodies over its inputs.

use std::time::Duration;

use llm_config_proto::v1;
use prost::Message as _;
use tonic::metadata::{AsciiMetadataValue, MetadataMap};

use super::convert;
use crate::error::ServiceError;
use crate::service::{Target, TxnOpRequest, WatchFrom};

/// Most bytes of a refusal: over gRPC it is a header.
const REFUSAL_BYTES_MAX: usize = 1024;
/// Of eight digits and the largest unit.
const TIMEOUT_MAX: Duration = Duration::from_secs(99_999_999 * 3600);

fn accepted<T>(parsed: Result<T, ServiceError>) -> Option<T> {
    let error = match parsed {
        Ok(parsed) => return Some(parsed),
        Err(error) => error,
    };
    let status = super::error::status(&error, None);
    assert!(status.message().len() <= REFUSAL_BYTES_MAX, "{} bytes", status.message().len());
    assert!(status.message().contains(": "), "names no field: {}", status.message());
    None
}

/// The header `grpc-timeout`.
pub fn grpc_timeout(data: &[u8]) {
    let Ok(value) = AsciiMetadataValue::try_from(data) else { return };
    let mut metadata = MetadataMap::new();
    metadata.insert("grpc-timeout", value);
    let Some(timeout) = convert::timeout(&metadata) else { return };
    assert!(timeout <= TIMEOUT_MAX && data.len() <= 9, "{timeout:?}");
}

/// Messages of the public services; the first byte says which.
pub fn grpc_messages(data: &[u8]) {
    let Some((kind, data)) = data.split_first() else { return };
    match kind {
        0 => {
            if let Ok(message) = v1::TxnRequest::decode(data) {
                transaction(message);
            }
        }
        1 => {
            let Ok(message) = v1::WatchRequest::decode(data) else { return };
            let from_now = message.from_revision == 0;
            let watch = convert::watch(message);
            assert_eq!(matches!(watch.from, WatchFrom::Now), from_now);
            assert!(watch.namespace.is_none_or(|namespace| !namespace.is_empty()));
        }
        _ => {
            let Ok(message) = v1::GetRequest::decode(data) else { return };
            accepted(convert::read_options(message.read));
            let target = convert::target(message.namespace, message.key, message.environment);
            accepted(target.parse());
        }
    }
}

fn transaction(message: v1::TxnRequest) {
    for compare in message.compare {
        accepted(convert::compare(compare).target.parse());
    }
    for op in message.success {
        if let Some(op) = accepted(convert::txn_op(op)) {
            accepted(target(&op).parse());
        }
    }
}

fn target(op: &TxnOpRequest) -> &Target {
    match op {
        TxnOpRequest::Set { target, .. }
        | TxnOpRequest::Delete { target, .. }
        | TxnOpRequest::Get { target } => target,
    }
}

#[cfg(test)]
mod tests {
    use crate::replay::run;

    #[test]
    fn the_inputs_of_each_target_pass() {
        run("grpc_timeout", super::grpc_timeout);
        run("grpc_messages", super::grpc_messages);
    }
}
