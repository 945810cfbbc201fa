//! The calls: each is one loop of attempts under one deadline (`Client::call`), with the request filled in before it
//! (idempotency key, session revision) and the answer's revision remembered after it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use tracing::Instrument as _;

use crate::discovery::Discovery;
use crate::error::{Error, Rejection};
use crate::nodes::Nodes;
use crate::options::Options;
use crate::retry::{Failure, backoff, classify};
use crate::token::{Again, Bearer, Shown};
use crate::v1::config_service_client::ConfigServiceClient;
use crate::v1::{self, Consistency, Entry, ReadOptions};
use crate::watch::Watch;

/// The largest answer accepted: a full page of the largest values, with room to spare.
pub(crate) const ANSWER_BYTES_MAX: usize = 160 << 20;

/// A handle to a cluster. Cloning is cheap and shares connections and session.
#[derive(Debug, Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    nodes: Arc<Nodes>,
    options: Options,
    /// What the nodes are shown, when there is something to show.
    bearer: Option<Arc<Bearer>>,
    /// Absent when members are not followed.
    discovery: Option<Discovery>,
    /// The highest revision seen in any answer.
    revision: AtomicU64,
}

/// What a call does to the cluster; decides where it goes and what its failure means.
#[derive(Debug, Clone)]
pub(crate) enum Effect {
    Read,
    /// A read that the leader knows most about; any other node will do.
    ReadOfLeader,
    /// Opens a stream: its deadline is for the opening only.
    Stream,
    Write {
        idempotency_key: String,
    },
    /// Changes the cluster itself; recognised without a key.
    Change,
}

macro_rules! reads {
    ($($(#[$doc:meta])* $name:ident($request:ident) -> $response:ident;)*) => {$(
        $(#[$doc])*
        ///
        /// # Errors
        /// [`Error::Rejected`], or [`Error::NotSent`] when no node answered before the deadline.
        pub async fn $name(&self, mut request: v1::$request) -> Result<v1::$response, Error> {
            request.read = self.in_session(request.read);
            let response = self
                .call(&Effect::Read, request, |channel, request| async move {
                    config(channel).$name(request).await
                })
                .await?;
            Ok(response.into_inner())
        }
    )*};
}

impl Client {
    /// A client of the cluster that these endpoints belong to, with default [`Options`].
    ///
    /// Each endpoint is a node's client gRPC or HTTP address, `HOST:PORT` with or without `http://` or `https://`. Connections are
    /// opened when they are first needed, so this succeeds without a running cluster.
    ///
    /// # Errors
    /// [`Error::InvalidEndpoint`], [`Error::InvalidTls`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn connect<E: AsRef<str>>(endpoints: impl IntoIterator<Item = E>) -> Result<Self, Error> {
        Self::with_options(endpoints, Options::default())
    }

    /// Like [`Client::connect`], with chosen options.
    ///
    /// # Errors
    /// [`Error::InvalidEndpoint`], [`Error::InvalidTls`], [`Error::InvalidToken`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn with_options<E: AsRef<str>>(
        endpoints: impl IntoIterator<Item = E>,
        options: Options,
    ) -> Result<Self, Error> {
        let bearer = options.token.as_ref().map(Bearer::new).transpose()?;
        let follow = options.follow_leader && options.follow_members;
        let discovery =
            follow.then(|| Discovery::new(options.members_interval, options.attempt_timeout));
        Ok(Self {
            shared: Arc::new(Shared {
                nodes: Arc::new(Nodes::new(endpoints, &options)?),
                bearer: bearer.map(Arc::new),
                discovery,
                revision: AtomicU64::new(options.starting_revision),
                options,
            }),
        })
    }

    /// The highest revision that any answer carried: what the session's reads are at least as new as.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.shared.revision.load(Ordering::Acquire)
    }

    /// Reads one entry; `NOT_FOUND` when there is none (see [`Error::is_not_found`]). A secret is masked unless
    /// [`v1::GetRequest::reveal`] asks for its plaintext.
    ///
    /// # Errors
    /// [`Error::Rejected`], or [`Error::NotSent`] when no node answered before the deadline.
    pub async fn get(&self, mut request: v1::GetRequest) -> Result<Entry, Error> {
        request.read = self.in_session(request.read);
        let response = self
            .call(&Effect::Read, request, |channel, request| async move {
                config(channel).get(request).await
            })
            .await?;
        self.seen_entry(response.into_inner().entry)
    }

    reads! {
        /// Reads one page of a namespace's entries in one environment, sorted by key.
        list(ListRequest) -> ListResponse;
        /// Reads one page of the namespaces.
        list_namespaces(ListNamespacesRequest) -> ListNamespacesResponse;
        /// Reads one page of an entry's versions, newest first.
        history(HistoryRequest) -> HistoryResponse;
        /// Compares two versions, or two environments, of an entry.
        diff(DiffRequest) -> DiffResponse;
        /// Reads a whole namespace as an application in one environment sees it. Secrets are masked unless
        /// [`v1::ResolveRequest::reveal`] asks for their plaintext.
        resolve(ResolveRequest) -> ResolveResponse;
    }

    /// Writes one entry, as a secret if [`v1::SetRequest::secret`] says so. An empty idempotency key is replaced by a
    /// fresh one.
    ///
    /// # Errors
    /// [`Error::Rejected`], [`Error::NotSent`] or [`Error::OutcomeUnknown`].
    pub async fn set(&self, mut request: v1::SetRequest) -> Result<v1::SetResponse, Error> {
        let effect = write_effect(&mut request.idempotency_key);
        let response =
            self.call(&effect, request, |channel, request| async move {
                config(channel).set(request).await
            })
            .await?
            .into_inner();
        self.seen(response.entry.as_ref().map_or(0, |entry| entry.revision));
        Ok(response)
    }

    /// Deletes one entry. An empty idempotency key is replaced by a fresh one.
    ///
    /// # Errors
    /// [`Error::Rejected`], [`Error::NotSent`] or [`Error::OutcomeUnknown`].
    pub async fn delete(
        &self,
        mut request: v1::DeleteRequest,
    ) -> Result<v1::DeleteResponse, Error> {
        let effect = write_effect(&mut request.idempotency_key);
        let response = self
            .call(&effect, request, |channel, request| async move {
                config(channel).delete(request).await
            })
            .await?
            .into_inner();
        self.seen(response.revision);
        Ok(response)
    }

    /// Makes a new version with an old version's value. An empty idempotency key is replaced by a fresh one.
    ///
    /// # Errors
    /// [`Error::Rejected`], [`Error::NotSent`] or [`Error::OutcomeUnknown`].
    pub async fn rollback(&self, mut request: v1::RollbackRequest) -> Result<Entry, Error> {
        let effect = write_effect(&mut request.idempotency_key);
        let response = self
            .call(&effect, request, |channel, request| async move {
                config(channel).rollback(request).await
            })
            .await?;
        self.seen_entry(response.into_inner().entry)
    }

    /// Runs one of two lists of operations, all or nothing, depending on comparisons. An empty idempotency key is
    /// replaced by a fresh one.
    ///
    /// # Errors
    /// [`Error::Rejected`], [`Error::NotSent`] or [`Error::OutcomeUnknown`].
    pub async fn txn(&self, mut request: v1::TxnRequest) -> Result<v1::TxnResponse, Error> {
        let effect = write_effect(&mut request.idempotency_key);
        let response =
            self.call(&effect, request, |channel, request| async move {
                config(channel).txn(request).await
            })
            .await?
            .into_inner();
        self.seen(response.revision);
        Ok(response)
    }

    /// Watches changes; nothing is sent before the first [`Watch::next`].
    #[must_use]
    pub fn watch(&self, request: v1::WatchRequest) -> Watch {
        Watch::new(self.clone(), request)
    }

    /// Attempts until one succeeds, is rejected, or the deadline passes.
    pub(crate) async fn call<Req, Resp, F, Fut>(
        &self,
        effect: &Effect,
        request: Req,
        attempt: F,
    ) -> Result<Response<Resp>, Error>
    where
        Req: Clone,
        F: Fn(Channel, Request<Req>) -> Fut,
        Fut: Future<Output = Result<Response<Resp>, Status>>,
    {
        // The message's name says which call it is, and nothing of what is in it.
        let message = std::any::type_name::<Req>().rsplit("::").next().unwrap_or_default();
        let span = tracing::debug_span!("llm_config_call", message);
        self.attempts(effect, request, attempt).instrument(span).await
    }

    async fn attempts<Req, Resp, F, Fut>(
        &self,
        effect: &Effect,
        request: Req,
        attempt: F,
    ) -> Result<Response<Resp>, Error>
    where
        Req: Clone,
        F: Fn(Channel, Request<Req>) -> Fut,
        Fut: Future<Output = Result<Response<Resp>, Status>>,
    {
        let options = &self.shared.options;
        let deadline = Instant::now() + options.timeout;
        let mut lost = false;
        let mut failures: u32 = 0;
        loop {
            let budget =
                deadline.saturating_duration_since(Instant::now()).min(options.attempt_timeout);
            let shown = self.shown();
            let attempted =
                self.attempt(effect, request.clone(), &attempt, budget, shown.as_ref()).await;
            let failure = match attempted {
                Ok(response) => return Ok(response),
                Err(failure) => failure,
            };
            lost |= matches!(failure, Failure::Lost(_));
            let reason = failure.reason();
            let mut wait = failure.wait();
            if let Failure::Rejected(rejection) = failure {
                match self.after_rejection(&rejection, shown.as_ref()) {
                    Again::After(time) => wait = time,
                    // A write that an earlier attempt may still bring about is not "refused", whatever came later.
                    Again::No if lost => return Err(unanswered(effect, lost, reason)),
                    Again::No => return Err(rejection.into()),
                }
            }
            // Jitter on top, so that callers who were told the same time do not come back together.
            let pause = wait + backoff(failures);
            failures = failures.saturating_add(1);
            let pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
            tracing::debug!(failures, pause_ms, %reason, "an attempt failed");
            if Instant::now() + pause >= deadline {
                return Err(unanswered(effect, lost, reason));
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// One attempt at one node; keeps the books on who leads and who is silent.
    async fn attempt<Req, Resp, F, Fut>(
        &self,
        effect: &Effect,
        request: Req,
        attempt: &F,
        budget: Duration,
        shown: Option<&Shown>,
    ) -> Result<Response<Resp>, Failure>
    where
        F: Fn(Channel, Request<Req>) -> Fut,
        Fut: Future<Output = Result<Response<Resp>, Status>>,
    {
        let nodes = &self.shared.nodes;
        let to_leader =
            !matches!(effect, Effect::Read | Effect::Stream) && self.shared.options.follow_leader;
        let Some(node) = nodes.pick(to_leader) else {
            return Err(Failure::Unreachable("no endpoint".to_owned()));
        };
        let mut request = Request::new(request);
        if !matches!(effect, Effect::Stream) {
            request.set_timeout(budget);
        }
        if let Some(shown) = shown {
            request.metadata_mut().insert("authorization", shown.value.clone());
        }
        tracing::trace!(node = %node.address, "an attempt");
        let failure = match tokio::time::timeout(budget, attempt(node.channel, request)).await {
            Ok(Ok(response)) => {
                nodes.answered(&node.address);
                if let (Some(bearer), Some(shown)) = (&self.shared.bearer, shown) {
                    bearer.accepted(shown);
                }
                self.observe(response.metadata());
                self.keep_up();
                return Ok(response);
            }
            Ok(Err(status)) => {
                let failure = classify(&status);
                match &failure {
                    Failure::Unreachable(_) | Failure::Lost(_) => nodes.silent(&node.address),
                    // An overloaded leader is still the leader.
                    load if load.is_of_load() => nodes.answered(&node.address),
                    Failure::Refused { .. } => nodes.not_leading(&node.address),
                    Failure::Rejected(_) => nodes.answered(&node.address),
                }
                self.observe(status.metadata());
                failure
            }
            Err(_) => {
                nodes.silent(&node.address);
                Failure::Lost(format!("no answer within {budget:?}"))
            }
        };
        Err(failure.at(&node.address))
    }

    /// A node has just answered: a good time to ask who the others are.
    pub(crate) fn keep_up(&self) {
        if let Some(discovery) = &self.shared.discovery {
            discovery.keep_up(&self.shared.nodes, self.shared.bearer.as_ref());
        }
    }

    /// What to show the nodes now.
    pub(crate) fn shown(&self) -> Option<Shown> {
        self.shared.bearer.as_deref().map(Bearer::shown)
    }

    /// Whether there is something else to show by now than this, which was refused.
    pub(crate) fn shows_other_than(&self, shown: Option<&Shown>) -> bool {
        match (&self.shared.bearer, shown) {
            (Some(bearer), Some(shown)) => bearer.has_other_than(shown),
            _ => false,
        }
    }

    fn after_rejection(&self, rejection: &Rejection, shown: Option<&Shown>) -> Again {
        match (&self.shared.bearer, shown) {
            (Some(bearer), Some(shown)) if rejection.is_unauthenticated() => bearer.refused(shown),
            _ => Again::No,
        }
    }

    /// Learns from the metadata of any answer, also of a refusal.
    fn observe(&self, metadata: &MetadataMap) {
        let text = |name| metadata.get(name).and_then(|value| value.to_str().ok());
        if self.shared.options.follow_leader
            && let Some(leader) = text("x-config-leader")
        {
            self.shared.nodes.learn_leader(leader);
        }
        if let Some(revision) = text("x-config-revision").and_then(|value| value.parse().ok()) {
            self.seen(revision);
        }
    }

    pub(crate) fn seen(&self, revision: u64) {
        self.shared.revision.fetch_max(revision, Ordering::AcqRel);
    }

    fn seen_entry(&self, entry: Option<Entry>) -> Result<Entry, Error> {
        let entry = entry.ok_or(Error::Malformed { missing: "entry" })?;
        self.seen(entry.revision);
        Ok(entry)
    }

    /// Whether reads see at least what this client has seen or written.
    pub(crate) fn has_session(&self) -> bool {
        self.shared.options.session
    }

    /// A cached read waits for what this session has seen; a linearizable one sees it anyway.
    pub(crate) fn in_session(&self, read: Option<ReadOptions>) -> Option<ReadOptions> {
        let seen = self.revision();
        let linearizable = read.is_some_and(|read| read.consistency() == Consistency::Linearizable);
        if !self.shared.options.session || linearizable || seen == 0 {
            return read;
        }
        let read = read.unwrap_or_default();
        Some(ReadOptions { min_revision: Some(read.min_revision.unwrap_or(0).max(seen)), ..read })
    }
}

pub(crate) fn config(channel: Channel) -> ConfigServiceClient<Channel> {
    ConfigServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX)
}

/// Opens a watch on one node.
pub(crate) async fn open_watch(
    channel: Channel,
    request: Request<v1::WatchRequest>,
) -> Result<Response<tonic::Streaming<v1::WatchResponse>>, Status> {
    config(channel).watch(request).await
}

/// Gives a write its idempotency key: the caller's, or a fresh one that sorts by time.
pub(crate) fn write_effect(idempotency_key: &mut String) -> Effect {
    if idempotency_key.is_empty() {
        *idempotency_key = uuid::Uuid::now_v7().to_string();
    }
    Effect::Write { idempotency_key: idempotency_key.clone() }
}

/// The error of a call that got no final answer.
fn unanswered(effect: &Effect, lost: bool, reason: String) -> Error {
    match effect {
        Effect::Write { idempotency_key } if lost => {
            Error::OutcomeUnknown { idempotency_key: idempotency_key.clone(), reason }
        }
        Effect::Change if lost => Error::OutcomeUnknown { idempotency_key: String::new(), reason },
        Effect::Write { .. }
        | Effect::Change
        | Effect::Read
        | Effect::ReadOfLeader
        | Effect::Stream => Error::NotSent { reason },
    }
}
