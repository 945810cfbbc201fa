//! Everything that a node serves over gRPC, as one service: which part a call is for, and what surrounds every call.
//!
//! A call passes here on its way to every read and write, so it is told by its path alone and passes no router: the calls
//! of the public services go to their server at once, the few others (health, reflection, unknown ones) by tonic's routes.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body::Body;
use http_body_util::Full;
use llm_config_proto::v1::backup_service_server::{self as backup_server, BackupServiceServer};
use llm_config_proto::v1::cluster_service_server::{self as cluster_server, ClusterServiceServer};
use llm_config_proto::v1::config_service_server::{self as config_server, ConfigServiceServer};
use llm_config_proto::v1::schema_service_server::{self as schema_server, SchemaServiceServer};
use llm_config_proto::v1::security_service_server::{
    self as security_server, SecurityServiceServer,
};
use tonic::body::Body as TonicBody;
use tonic::service::Routes;
use tower::Service as _;

use super::answer::Answers;
use super::bounds::{self, Let};
use super::{ANSWER_BYTES_MAX, HealthReporter, REQUEST_BYTES_MAX};
use super::{backup, cluster, config, schema, security};
use crate::admission::Permit;
use crate::holding::{Holding, hold};
use crate::request_id::RequestId;
use crate::service::Service;

/// Names of the services whose health can be asked; the empty one is the node as a whole.
pub(super) const HEALTH_NAMES: [&str; 6] = [
    "",
    config_server::SERVICE_NAME,
    cluster_server::SERVICE_NAME,
    backup_server::SERVICE_NAME,
    security_server::SERVICE_NAME,
    schema_server::SERVICE_NAME,
];

/// What a call is answered with; keeps the call's room until it has been sent.
pub type Answer = Response<Holding<TonicBody, Option<Permit>>>;

/// All gRPC services of a node. Clones share them.
#[derive(Clone)]
pub struct Gateway {
    inner: Arc<Inner>,
}

struct Inner {
    service: Service,
    answers: Answers,
    config: ConfigServiceServer<config::ConfigGateway>,
    cluster: ClusterServiceServer<cluster::ClusterGateway>,
    backup: BackupServiceServer<backup::BackupGateway>,
    security: SecurityServiceServer<security::SecurityGateway>,
    schema: SchemaServiceServer<schema::SchemaGateway>,
    /// Health and reflection; refuses what is unknown.
    others: Routes,
}

/// All gRPC services of a node, and the handle through which the health service is told about the node.
pub fn gateway(service: &Service) -> (Gateway, HealthReporter) {
    let (health, health_service) = tonic_health::server::health_reporter();
    let mut others = Routes::new(health_service);
    match reflection() {
        Ok(reflection) => others = others.add_service(reflection),
        // The descriptors are part of the program: a unit test builds the service from them.
        Err(error) => tracing::error!(%error, "server reflection is off"),
    }
    let inner = Inner {
        answers: Answers::new(service.clone()),
        config: ConfigServiceServer::new(config::ConfigGateway::new(service.clone()))
            .max_decoding_message_size(REQUEST_BYTES_MAX)
            .max_encoding_message_size(ANSWER_BYTES_MAX),
        cluster: ClusterServiceServer::new(cluster::ClusterGateway::new(service.clone())),
        backup: BackupServiceServer::new(backup::BackupGateway::new(service.clone())),
        security: SecurityServiceServer::new(security::SecurityGateway::new(service.clone()))
            .max_encoding_message_size(ANSWER_BYTES_MAX),
        schema: SchemaServiceServer::new(schema::SchemaGateway::new(service.clone()))
            .max_encoding_message_size(ANSWER_BYTES_MAX),
        others: others.prepare(),
        service: service.clone(),
    };
    (Gateway { inner: Arc::new(inner) }, health)
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

impl Inner {
    async fn answer<B>(&self, request: Request<B>) -> Answer
    where
        B: Body<Data = Bytes, Error: Into<axum::BoxError>> + Send + Unpin + 'static,
    {
        let begun = Instant::now();
        let id = RequestId::of(request.headers());
        let method = super::answer::method(request.uri().path());
        let mut answer = if bounds::bounded(request.uri().path()) {
            self.bounded(request, &id).await
        } else {
            let request = request.map(TonicBody::new);
            hold(answered(self.others.clone().call(request).await), None, charge)
        };
        self.answers.complete(answer.headers_mut(), method, id, begun);
        answer
    }

    /// A call of a public service, once it was let in and has arrived.
    async fn bounded<B>(&self, request: Request<B>, id: &RequestId) -> Answer
    where
        B: Body<Data = Bytes, Error: Into<axum::BoxError>> + Send + Unpin,
    {
        let streams = bounds::streams(request.uri().path());
        let (mut parts, body) = request.into_parts();
        let Let { caller, message, permit, left } =
            match bounds::enter(&self.service, &parts, body, id).await {
                Ok(entered) => entered,
                Err(refusal) => return hold(bounds::turn_away(refusal), None, charge),
            };
        parts.extensions.insert(caller);
        let mut response = self.route(Request::from_parts(parts, Full::new(message))).await;
        if let Some(left) = left {
            left.write(response.headers_mut());
        }
        // An answer that does not end is bounded elsewhere.
        hold(response, (!streams).then_some(permit), charge)
    }

    async fn route(&self, request: Request<Full<Bytes>>) -> Response<TonicBody> {
        let path = request.uri().path();
        let service = path.strip_prefix('/').and_then(|path| path.split_once('/'));
        let answer = match service.map(|(service, _)| service) {
            Some(config_server::SERVICE_NAME) => self.config.clone().call(request).await,
            Some(cluster_server::SERVICE_NAME) => self.cluster.clone().call(request).await,
            Some(backup_server::SERVICE_NAME) => self.backup.clone().call(request).await,
            Some(security_server::SERVICE_NAME) => self.security.clone().call(request).await,
            Some(schema_server::SERVICE_NAME) => self.schema.clone().call(request).await,
            _ => return answered(self.others.clone().call(request.map(TonicBody::new)).await),
        };
        answered(answer)
    }
}

fn answered<T>(answer: Result<T, Infallible>) -> T {
    match answer {
        Ok(answer) => answer,
        Err(never) => match never {},
    }
}

fn charge(permit: &mut Option<Permit>, bytes: usize) {
    if let Some(permit) = permit {
        permit.charge(bytes);
    }
}

impl<B> tower::Service<Request<B>> for Gateway
where
    B: Body<Data = Bytes, Error: Into<axum::BoxError>> + Send + Unpin + 'static,
{
    type Response = Answer;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Answer, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let inner = Arc::clone(&self.inner);
        Box::pin(async move { Ok(inner.answer(request).await) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reflection_is_built_from_the_programs_own_descriptors() {
        assert!(reflection().is_ok());
    }
}
