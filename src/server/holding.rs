//! A body that keeps something until it has been sent, and is otherwise the body that it was.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http_body::{Frame, SizeHint};

/// See the module.
pub struct Holding<T> {
    body: Body,
    held: T,
    sent: fn(&mut T, usize),
}

/// Makes a response keep `held` until its body is dropped. `sent` is told of each piece that leaves.
pub fn hold<T: Send + Unpin + 'static>(
    response: axum::response::Response,
    held: T,
    sent: fn(&mut T, usize),
) -> axum::response::Response {
    let (parts, body) = response.into_parts();
    axum::response::Response::from_parts(parts, Body::new(Holding { body, held, sent }))
}

impl<T: Unpin> HttpBody for Holding<T> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &frame
            && let Some(data) = frame.data_ref()
        {
            let this = &mut *self;
            (this.sent)(&mut this.held, data.len());
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::response::IntoResponse as _;
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn a_body_keeps_its_length_and_what_it_holds() {
        let held = Arc::new(());
        let response = hold("hello".into_response(), Arc::clone(&held), |_, _| {});
        assert_eq!(HttpBody::size_hint(response.body()).exact(), Some(5));
        assert_eq!(Arc::strong_count(&held), 2);
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello");
        assert_eq!(Arc::strong_count(&held), 1);
    }
}
