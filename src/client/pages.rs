//! Listings as streams: the next page is asked for when the last one has been taken, so one page is in memory.

use std::collections::VecDeque;
use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use serde::de::DeserializeOwned;

use crate::error::Error;
use crate::namespace::{Freshness, Namespace, freshness};
use crate::reads::Answer;
use crate::v1;
use crate::value::Versioned;

/// A listing about to be read; see [`Namespace::list`].
#[derive(Debug)]
#[must_use = "nothing is sent before the stream is polled"]
pub struct List<T> {
    namespace: Namespace,
    request: v1::ListRequest,
    freshness: Freshness,
    type_: PhantomData<fn() -> T>,
}

/// A history about to be read; see [`Namespace::history`].
#[derive(Debug)]
#[must_use = "nothing is sent before the stream is polled"]
pub struct History<T> {
    namespace: Namespace,
    request: v1::HistoryRequest,
    freshness: Freshness,
    type_: PhantomData<fn() -> T>,
}

impl Namespace {
    /// Reads all entries of this very environment, sorted by key. Pages are read one after the other: what changes meanwhile
    /// may be in it or not. For one moment of all entries there is [`Client::export`](crate::Client::export).
    pub fn list<T: DeserializeOwned>(&self) -> List<T> {
        let request = v1::ListRequest {
            namespace: self.name().to_owned(),
            environment: self.environment_name(),
            ..Default::default()
        };
        List { namespace: self.clone(), request, freshness: self.freshness, type_: PhantomData }
    }

    /// Reads the versions of an entry that are kept, newest first. A version that deleted it has no value.
    pub fn history<T: DeserializeOwned>(&self, key: impl Into<String>) -> History<T> {
        let request = v1::HistoryRequest {
            namespace: self.name().to_owned(),
            key: key.into(),
            environment: self.environment_name(),
            ..Default::default()
        };
        History { namespace: self.clone(), request, freshness: self.freshness, type_: PhantomData }
    }
}

impl<T> List<T> {
    freshness!();

    /// Only keys that begin with this.
    pub fn key_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.request.prefix = prefix.into();
        self
    }

    /// Entries in one page, 1 to 1000; 100 without.
    pub fn page_size(mut self, entries: u32) -> Self {
        self.request.limit = entries;
        self
    }
}

impl<T> History<T> {
    freshness!();

    /// Versions in one page, 1 to 1000; 100 without.
    pub fn page_size(mut self, versions: u32) -> Self {
        self.request.limit = versions;
        self
    }
}

impl<T: DeserializeOwned> List<T> {
    /// The entries. The stream ends after the first error.
    pub fn stream(self) -> Pages<Versioned<T>> {
        let Self { namespace, mut request, freshness, .. } = self;
        request.read = freshness.options();
        Pages::new(
            move |cursor| {
                let client = namespace.client.clone();
                let request = v1::ListRequest { cursor, ..request.clone() };
                Box::pin(async move {
                    let page = client.list(request).await?;
                    Ok((page.items, page.next_cursor))
                })
            },
            Versioned::of,
        )
    }
}

impl<T: DeserializeOwned> History<T> {
    /// The versions. The stream ends after the first error.
    pub fn stream(self) -> Pages<Versioned<Option<T>>> {
        let Self { namespace, mut request, freshness, .. } = self;
        request.read = freshness.options();
        Pages::new(
            move |cursor| {
                let client = namespace.client.clone();
                let request = v1::HistoryRequest { cursor, ..request.clone() };
                Box::pin(async move {
                    let page = client.history(request).await?;
                    Ok((page.items, page.next_cursor))
                })
            },
            |entry| {
                if entry.deleted {
                    return Ok(Versioned::new(None, entry));
                }
                Versioned::of(entry)
            },
        )
    }
}

type Page = (Vec<v1::Entry>, String);

/// The items of all pages, in order; a [`Stream`]. Made by [`List::stream`] and [`History::stream`].
#[must_use = "a stream does nothing before it is polled"]
pub struct Pages<I> {
    read: Box<dyn Fn(String) -> Answer<Page> + Send>,
    turn: fn(v1::Entry) -> Result<I, Error>,
    at_hand: VecDeque<v1::Entry>,
    /// Where the page that comes next begins; `None` after the last.
    next: Option<String>,
    reading: Option<Answer<Page>>,
}

impl<I> fmt::Debug for Pages<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at_hand = self.at_hand.len();
        f.debug_struct("Pages").field("at_hand", &at_hand).field("next", &self.next).finish()
    }
}

impl<I> Pages<I> {
    fn new(
        read: impl Fn(String) -> Answer<Page> + Send + 'static,
        turn: fn(v1::Entry) -> Result<I, Error>,
    ) -> Self {
        Self {
            read: Box::new(read),
            turn,
            at_hand: VecDeque::new(),
            next: Some(String::new()),
            reading: None,
        }
    }

    /// The next item; `None` after the last one, and after an error.
    ///
    /// Cancel safe: a dropped future loses nothing.
    pub async fn next(&mut self) -> Option<Result<I, Error>> {
        std::future::poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }

    /// All items that are left.
    ///
    /// # Errors
    /// The first error of the stream, with what came before it thrown away; [`Error::InvalidArgument`] when there are more
    /// than `max`.
    pub async fn collect_at_most(mut self, max: usize) -> Result<Vec<I>, Error> {
        let mut all = Vec::new();
        while let Some(item) = self.next().await {
            if all.len() >= max {
                return Err(Error::InvalidArgument {
                    field: "max",
                    reason: format!("there are more than {max}; take the stream one by one"),
                });
            }
            all.push(item?);
        }
        Ok(all)
    }

    fn end(&mut self) {
        self.next = None;
        self.at_hand.clear();
    }
}

impl<I> Stream for Pages<I> {
    type Item = Result<I, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(entry) = self.at_hand.pop_front() {
                let item = (self.turn)(entry);
                if item.is_err() {
                    self.end();
                }
                return Poll::Ready(Some(item));
            }
            let Some(cursor) = self.next.clone() else { return Poll::Ready(None) };
            let mut reading = match self.reading.take() {
                Some(reading) => reading,
                None => (self.read)(cursor.clone()),
            };
            match reading.as_mut().poll(context) {
                Poll::Pending => {
                    self.reading = Some(reading);
                    return Poll::Pending;
                }
                Poll::Ready(Ok((_, next))) if !next.is_empty() && next == cursor => {
                    // It would go on for ever.
                    self.end();
                    return Poll::Ready(Some(Err(Error::Malformed { missing: "next page" })));
                }
                Poll::Ready(Ok((items, next))) => {
                    self.at_hand = items.into();
                    self.next = (!next.is_empty()).then_some(next);
                }
                Poll::Ready(Err(error)) => {
                    self.end();
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
    }
}
