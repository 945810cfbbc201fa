//! A watch that survives the node it is on: it remembers the last revision delivered and goes on after it elsewhere.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use tokio::time::Instant;
use tonic::Streaming;

use crate::client::{Client, Effect, open_watch};
use crate::error::Error;
use crate::retry::{Failure, backoff, classify};
use crate::token::Shown;
use crate::v1::{WatchRequest, WatchResponse};

/// Nodes send a bookmark at least every 10 s; after three missed ones the stream counts as dead.
const SILENCE_MAX: Duration = Duration::from_secs(30);

type Item = Result<WatchResponse, Error>;
/// A feed at work, which comes back with what it brings.
type Work = Pin<Box<dyn Future<Output = (Box<Feed>, Option<Item>)> + Send>>;

/// A running watch, which is a [`Stream`]; see [`Client::watch`].
///
/// Each item is all events of one revision, or a bookmark without events. Revisions with events strictly grow; none is left
/// out or repeated, also across reconnects.
///
/// The first opening must succeed within [`crate::Options::timeout`]; after it, the watch waits for the cluster as long as
/// it takes. It ends (`None`) after the one error that it yields, such as `REVISION_COMPACTED`.
pub struct Watch {
    state: State,
}

enum State {
    Idle(Box<Feed>),
    Busy(Work),
    Ended,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.state {
            State::Idle(feed) => f.debug_tuple("Watch").field(feed).finish(),
            State::Busy(_) => f.write_str("Watch(waiting)"),
            State::Ended => f.write_str("Watch(ended)"),
        }
    }
}

impl Watch {
    pub(crate) fn new(client: Client, request: WatchRequest) -> Self {
        Self { state: State::Idle(Box::new(Feed::new(client, request))) }
    }

    /// The next item of the stream.
    ///
    /// Cancel safe: a dropped future loses nothing.
    pub async fn next(&mut self) -> Option<Result<WatchResponse, Error>> {
        std::future::poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }
}

impl Stream for Watch {
    type Item = Item;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Item>> {
        loop {
            self.state = match std::mem::replace(&mut self.state, State::Ended) {
                State::Idle(mut feed) => State::Busy(Box::pin(async move {
                    let item = feed.next().await;
                    (feed, item)
                })),
                State::Busy(mut work) => match work.as_mut().poll(context) {
                    Poll::Pending => {
                        self.state = State::Busy(work);
                        return Poll::Pending;
                    }
                    Poll::Ready((feed, item)) => {
                        if item.is_some() {
                            self.state = State::Idle(feed);
                        }
                        return Poll::Ready(item);
                    }
                },
                State::Ended => return Poll::Ready(None),
            };
        }
    }
}

/// Where the watch is, and the stream that it reads.
#[derive(Debug)]
struct Feed {
    client: Client,
    request: WatchRequest,
    stream: Option<Streaming<WatchResponse>>,
    /// What the stream was opened with, or something older.
    shown: Option<Shown>,
    /// Everything up to here has been delivered, or was not asked for. Known from the first opening on.
    delivered: Option<u64>,
    opened: bool,
    ended: bool,
    /// Streams that broke without having delivered anything, in a row.
    breaks: u32,
    reopen_at: Option<Instant>,
}

impl Feed {
    fn new(client: Client, request: WatchRequest) -> Self {
        Self {
            client,
            delivered: request.from_revision.checked_sub(1),
            request,
            stream: None,
            shown: None,
            opened: false,
            ended: false,
            breaks: 0,
            reopen_at: None,
        }
    }

    async fn next(&mut self) -> Option<Item> {
        loop {
            if self.ended {
                return None;
            }
            if let Err(error) = self.ensure_open().await {
                self.ended = true;
                return Some(Err(error));
            }
            let Some(stream) = self.stream.as_mut() else {
                continue;
            };
            match tokio::time::timeout(SILENCE_MAX, stream.message()).await {
                Ok(Ok(Some(response))) => {
                    self.client.keep_up();
                    if let Some(response) = self.accept(response) {
                        return Some(Ok(response));
                    }
                }
                Ok(Err(status)) => {
                    match classify(&status) {
                        // A token that expired under the watch may have a successor.
                        Failure::Rejected(rejection)
                            if !(rejection.is_unauthenticated()
                                && self.client.shows_other_than(self.shown.as_ref())) =>
                        {
                            self.ended = true;
                            return Some(Err(rejection.into()));
                        }
                        failure => self.broken(&failure.reason()),
                    }
                }
                Ok(Ok(None)) => self.broken("the node closed it"),
                Err(_) => self.broken("nothing came, no bookmark either"),
            }
        }
    }

    /// Opens the stream if there is none. An outage after the first opening is waited out.
    async fn ensure_open(&mut self) -> Result<(), Error> {
        if self.stream.is_some() {
            return Ok(());
        }
        if let Some(at) = self.reopen_at {
            tokio::time::sleep_until(at).await;
        }
        match self.open().await {
            Ok(stream) => {
                self.stream = Some(stream);
                self.opened = true;
                Ok(())
            }
            Err(Error::NotSent { reason }) if self.opened => {
                self.broken(&reason);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    async fn open(&mut self) -> Result<Streaming<WatchResponse>, Error> {
        let delivered = match self.delivered {
            Some(delivered) => delivered,
            // "From now on" is pinned to a revision first: a stream that breaks before its first answer could
            // otherwise not tell where it was.
            None => {
                let revision = self.client.status().await?.revision;
                revision.max(self.client.revision())
            }
        };
        self.delivered = Some(delivered);
        self.shown = self.client.shown();
        let request =
            WatchRequest { from_revision: delivered.saturating_add(1), ..self.request.clone() };
        let response = self.client.call(&Effect::Stream, request, open_watch).await?;
        Ok(response.into_inner())
    }

    /// Lets through what is new. A node that is behind may repeat a revision or send an old bookmark.
    fn accept(&mut self, response: WatchResponse) -> Option<WatchResponse> {
        let delivered = self.delivered.unwrap_or(0);
        let new = response.revision > delivered;
        if !(new || (response.events.is_empty() && response.revision == delivered)) {
            return None;
        }
        self.breaks = 0;
        self.delivered = Some(response.revision);
        self.client.seen(response.revision);
        Some(response)
    }

    fn broken(&mut self, reason: &str) {
        tracing::debug!(after = self.delivered, reason, "a watch broke and goes on elsewhere");
        self.stream = None;
        self.reopen_at = Some(Instant::now() + backoff(self.breaks));
        self.breaks = self.breaks.saturating_add(1);
    }
}
