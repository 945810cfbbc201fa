//! A body that keeps something until it has been sent, and is otherwise the body that it was.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame, SizeHint};

/// See the module.
pub struct Holding<B, T> {
    body: B,
    held: T,
    sent: fn(&mut T, usize),
}

/// Makes a response keep `held` until its body is dropped. `sent` is told of each piece that leaves.
pub fn hold<B, T>(
    response: Response<B>,
    held: T,
    sent: fn(&mut T, usize),
) -> Response<Holding<B, T>> {
    response.map(|body| Holding { body, held, sent })
}

impl<B, T> Body for Holding<B, T>
where
    B: Body<Data = Bytes> + Unpin,
    T: Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
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
        assert_eq!(response.body().size_hint().exact(), Some(5));
        assert_eq!(Arc::strong_count(&held), 2);
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello");
        assert_eq!(Arc::strong_count(&held), 1);
    }
}
