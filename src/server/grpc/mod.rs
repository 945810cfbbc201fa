//! gRPC: the public services, health and reflection, and what every answer carries.
//!
//! Decodes, calls the service, encodes. It decides nothing: rights, rules, limits and errors are the service's, the same
//! as over HTTP.

mod answer;
mod backup;
mod bounds;
mod call;
mod cluster;
mod config;
mod convert;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod gateway;
mod schema;
mod security;

use std::time::Duration;

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use llm_config_domain::limits;
use llm_config_replica::Replica;
use tokio_util::sync::CancellationToken;
use tonic_health::ServingStatus;

pub use gateway::{Answer, Gateway, gateway};
pub use tonic_health::server::HealthReporter;

/// Metadata of every answer: the store revision that it was made from.
const REVISION: &str = "x-config-revision";
/// The largest command and what surrounds it in a message.
const REQUEST_BYTES_MAX: usize = limits::COMMAND_BYTES_MAX + (64 << 10);
/// The largest resolved namespace and what surrounds it in a message.
const ANSWER_BYTES_MAX: usize = limits::RESOLVE_BYTES_MAX + (16 << 20);
/// How often the health service looks at the replica.
const HEALTH_INTERVAL: Duration = Duration::from_millis(250);

/// Whether a request says that it is gRPC.
#[must_use]
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// Keeps the health service at what the replica says, until closing.
pub async fn report_health(replica: Replica, health: HealthReporter, closing: CancellationToken) {
    let mut shown = None;
    loop {
        let ready = replica.ready();
        if shown != Some(ready) {
            set_health(
                &health,
                if ready { ServingStatus::Serving } else { ServingStatus::NotServing },
            )
            .await;
            shown = Some(ready);
        }
        tokio::select! {
            () = closing.cancelled() => return,
            () = tokio::time::sleep(HEALTH_INTERVAL) => {}
        }
    }
}

/// Tells health watchers that the node goes, and ends their streams so that connections can drain.
pub async fn end_health_watches(mut health: HealthReporter) {
    set_health(&health, ServingStatus::NotServing).await;
    for name in gateway::HEALTH_NAMES {
        health.clear_service_status(name).await;
    }
}

async fn set_health(health: &HealthReporter, status: ServingStatus) {
    for name in gateway::HEALTH_NAMES {
        health.set_service_status(name, status).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_is_told_by_its_content_type() {
        let with = |value: &'static str| {
            HeaderMap::from_iter([(CONTENT_TYPE, http::HeaderValue::from_static(value))])
        };
        assert!(is_grpc(&with("application/grpc")));
        assert!(is_grpc(&with("application/grpc+proto")));
        assert!(!is_grpc(&with("application/json")));
        assert!(!is_grpc(&HeaderMap::new()));
    }
}
