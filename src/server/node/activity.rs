//! What a connection is doing: how many requests are open on it, and how it can be cut from within one.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::HttpBody;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tower::{Service, ServiceExt as _};

use crate::holding::{Holding, hold};
use crate::peer::Peer;

/// What answers the requests of a connection; always ready.
pub(super) trait Answering:
    Service<
        Request<Incoming>,
        Response = Response<<Self as Answering>::Body>,
        Error = Infallible,
        Future: Send + 'static,
    > + Clone
    + Send
    + Sync
    + 'static
{
    /// What it answers with.
    type Body: HttpBody<Data = Bytes, Error: Into<axum::BoxError>> + Send + Unpin + 'static;
}

impl<S, B> Answering for S
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send + 'static,
    B: HttpBody<Data = Bytes, Error: Into<axum::BoxError>> + Send + Unpin + 'static,
{
    type Body = B;
}

/// Requests of a connection that are not answered to the end. Each request counts itself here, so that costs no more than
/// that: nobody is woken by it.
pub(super) struct Activity {
    open: AtomicUsize,
    made: Instant,
    /// When the last request ended, in milliseconds after `made`.
    ended_ms: AtomicU64,
}

impl Activity {
    pub(super) fn new() -> Self {
        Self { open: AtomicUsize::new(0), made: Instant::now(), ended_ms: AtomicU64::new(0) }
    }

    /// Returns when there was no request for this long.
    pub(super) async fn idle_for(&self, limit: Duration) {
        loop {
            let ended = Duration::from_millis(self.ended_ms.load(Ordering::Acquire));
            let idle = match self.open.load(Ordering::Acquire) {
                0 => self.made.elapsed().saturating_sub(ended),
                _ => Duration::ZERO,
            };
            if idle >= limit {
                return;
            }
            sleep(limit - idle).await;
        }
    }
}

/// One request in [`Activity`].
pub(super) struct Open(Arc<Activity>);

impl Open {
    fn new(activity: &Arc<Activity>) -> Self {
        activity.open.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(activity))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let now_ms = u64::try_from(self.0.made.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.ended_ms.fetch_max(now_ms, Ordering::AcqRel);
        self.0.open.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A service, for one connection: counts what is open, and tells each request who it comes from and how to cut the
/// connection.
#[derive(Clone)]
pub(super) struct Counted<S> {
    inner: S,
    peer: Peer,
    activity: Arc<Activity>,
    cut: CancellationToken,
}

impl<S> Counted<S> {
    pub(super) fn new(
        inner: S,
        peer: Peer,
        activity: Arc<Activity>,
        cut: CancellationToken,
    ) -> Self {
        Self { inner, peer, activity, cut }
    }
}

impl<S: Answering> Service<Request<Incoming>> for Counted<S> {
    type Response = Response<Holding<S::Body, Open>>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Incoming>) -> Self::Future {
        let open = Open::new(&self.activity);
        request.extensions_mut().insert(self.cut.clone());
        self.peer.mark(&mut request);
        let answer = self.inner.clone().oneshot(request);
        Box::pin(async move { Ok(hold(answer.await?, open, |_, _| {})) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_is_idle_only_while_no_request_is_open() {
        let activity = Arc::new(Activity::new());
        let limit = Duration::from_millis(20);
        let open = Open::new(&activity);
        let idle = tokio::spawn({
            let activity = Arc::clone(&activity);
            async move { activity.idle_for(limit).await }
        });
        sleep(limit * 3).await;
        assert!(!idle.is_finished());
        let ended = Instant::now();
        drop(open);
        idle.await.unwrap();
        assert!(
            ended.elapsed() >= limit - Duration::from_millis(1),
            "idle since the request ended"
        );
    }
}
