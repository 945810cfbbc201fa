//! One port for both kinds of clients.

use std::convert::Infallible;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use futures::future::BoxFuture;
use http::{Request, Response};
use hyper::body::Incoming;
use tower::Service;

use crate::grpc::{Gateway, is_grpc};

/// What says it is gRPC goes there, everything else is HTTP.
#[derive(Clone)]
pub(super) struct Both {
    pub(super) http: Router,
    pub(super) grpc: Gateway,
}

impl Service<Request<Incoming>> for Both {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        if is_grpc(request.headers()) {
            let answer = self.grpc.call(request);
            Box::pin(async move { Ok(answer.await?.map(Body::new)) })
        } else {
            Box::pin(self.http.call(request))
        }
    }
}
