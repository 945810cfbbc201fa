//! What a connection is doing: how many requests are open on it, and how it can be cut from within one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use futures::future::BoxFuture;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::holding::hold;
use crate::peer::Peer;

/// Requests of a connection that are not answered to the end.
#[derive(Default)]
pub(super) struct Activity {
    open: AtomicUsize,
    changed: Notify,
}

impl Activity {
    /// Returns when there was no request for this long.
    pub(super) async fn idle_for(&self, limit: Duration) {
        loop {
            let changed = self.changed.notified();
            if self.open.load(Ordering::Acquire) > 0 {
                changed.await;
            } else if timeout(limit, changed).await.is_err() {
                return;
            }
        }
    }
}

/// One request in [`Activity`].
struct Open(Arc<Activity>);

impl Open {
    fn new(activity: &Arc<Activity>) -> Self {
        activity.open.fetch_add(1, Ordering::AcqRel);
        activity.changed.notify_one();
        Self(Arc::clone(activity))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::AcqRel);
        self.0.changed.notify_one();
    }
}

/// The router, for one connection: counts what is open, and tells each request who it comes from and how to cut the
/// connection.
#[derive(Clone)]
pub(super) struct Counted {
    router: Router,
    peer: Peer,
    activity: Arc<Activity>,
    cut: CancellationToken,
}

impl Counted {
    pub(super) fn new(
        router: Router,
        peer: Peer,
        activity: Arc<Activity>,
        cut: CancellationToken,
    ) -> Self {
        Self { router, peer, activity, cut }
    }
}

impl<B> tower::Service<http::Request<B>> for Counted
where
    B: axum::body::HttpBody<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    type Response = axum::response::Response;
    type Error = std::convert::Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        let open = Open::new(&self.activity);
        request.extensions_mut().insert(self.cut.clone());
        self.peer.mark(&mut request);
        let answer = self.router.clone().oneshot(request.map(Body::new));
        Box::pin(async move { Ok(hold(answer.await?, open, |_, _| {})) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_is_idle_only_while_no_request_is_open() {
        let activity = Arc::new(Activity::default());
        let limit = Duration::from_millis(20);
        let open = Open::new(&activity);
        let idle = tokio::spawn({
            let activity = Arc::clone(&activity);
            async move { activity.idle_for(limit).await }
        });
        tokio::time::sleep(limit * 3).await;
        assert!(!idle.is_finished());
        drop(open);
        idle.await.unwrap();
    }
}
