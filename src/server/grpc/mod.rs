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
mod schema;
mod security;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use llm_config_domain::limits;
use llm_config_proto::v1::backup_service_server::BackupServiceServer;
use llm_config_proto::v1::cluster_service_server::ClusterServiceServer;
use llm_config_proto::v1::config_service_server::ConfigServiceServer;
use llm_config_proto::v1::schema_service_server::SchemaServiceServer;
use llm_config_proto::v1::security_service_server::SecurityServiceServer;
use llm_config_replica::Replica;
use tokio_util::sync::CancellationToken;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic_health::ServingStatus;

use crate::service::Service;
use answer::Answers;

pub use tonic_health::server::HealthReporter;

/// Metadata of every answer: the store revision that it was made from.
const REVISION: &str = "x-config-revision";
/// The largest command and what surrounds it in a message.
const REQUEST_BYTES_MAX: usize = limits::COMMAND_BYTES_MAX + (64 << 10);
/// The largest resolved namespace and what surrounds it in a message.
const ANSWER_BYTES_MAX: usize = limits::RESOLVE_BYTES_MAX + (16 << 20);
/// How often the health service looks at the replica.
const HEALTH_INTERVAL: Duration = Duration::from_millis(250);

/// Names of the services whose health can be asked; the empty one is the node as a whole.
const HEALTH_NAMES: [&str; 6] = [
    "",
    ConfigServiceServer::<config::ConfigGateway>::NAME,
    ClusterServiceServer::<cluster::ClusterGateway>::NAME,
    BackupServiceServer::<backup::BackupGateway>::NAME,
    SecurityServiceServer::<security::SecurityGateway>::NAME,
    SchemaServiceServer::<schema::SchemaGateway>::NAME,
];

/// All gRPC services of a node, and the handle through which the health service is told about the node.
pub fn router(service: &Service) -> (Router, HealthReporter) {
    let (health, health_service) = tonic_health::server::health_reporter();
    let config = ConfigServiceServer::new(config::ConfigGateway::new(service.clone()))
        .max_decoding_message_size(REQUEST_BYTES_MAX)
        .max_encoding_message_size(ANSWER_BYTES_MAX);
    let cluster = ClusterServiceServer::new(cluster::ClusterGateway::new(service.clone()));
    let backup = BackupServiceServer::new(backup::BackupGateway::new(service.clone()));
    let security = SecurityServiceServer::new(security::SecurityGateway::new(service.clone()))
        .max_encoding_message_size(ANSWER_BYTES_MAX);
    let schema = SchemaServiceServer::new(schema::SchemaGateway::new(service.clone()))
        .max_encoding_message_size(ANSWER_BYTES_MAX);
    let mut routes = Routes::new(config)
        .add_service(cluster)
        .add_service(backup)
        .add_service(security)
        .add_service(schema)
        .add_service(health_service);
    match reflection() {
        Ok(reflection) => routes = routes.add_service(reflection),
        // The descriptors are part of the program: a unit test builds the service from them.
        Err(error) => tracing::error!(%error, "server reflection is off"),
    }
    let answers = Arc::new(Answers::new(service.clone()));
    let router = routes
        .into_axum_router()
        .layer(axum::middleware::from_fn_with_state(service.clone(), bounds::enter))
        .layer(axum::middleware::from_fn_with_state(answers, answer::complete));
    (router, health)
}

fn reflection() -> Result<
    tonic_reflection::server::v1::ServerReflectionServer<
        impl tonic_reflection::server::v1::ServerReflection,
    >,
    tonic_reflection::server::Error,
> {
    // Named one by one, so that the node-to-node service in the same descriptors is not advertised.
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(llm_config_proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .with_service_name(HEALTH_NAMES[1])
        .with_service_name(HEALTH_NAMES[2])
        .with_service_name(HEALTH_NAMES[3])
        .with_service_name(HEALTH_NAMES[4])
        .with_service_name(HEALTH_NAMES[5])
        .with_service_name("grpc.health.v1.Health")
        .with_service_name("grpc.reflection.v1.ServerReflection")
        .build_v1()
}

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
    for name in HEALTH_NAMES {
        health.clear_service_status(name).await;
    }
}

async fn set_health(health: &HealthReporter, status: ServingStatus) {
    for name in HEALTH_NAMES {
        health.set_service_status(name, status).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reflection_is_built_from_the_programs_own_descriptors() {
        assert!(reflection().is_ok());
    }

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
