//! A node that answers as scripted and remembers what it was asked. Not a model of the cluster: each test writes down
//! the answers that its law needs.

pub(crate) mod proxy;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use llm_config_client::v1::config_service_server::{ConfigService, ConfigServiceServer};
use llm_config_client::v1::schema_service_server::{SchemaService, SchemaServiceServer};
use llm_config_client::v1::{self, Entry};
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// The answer to one request.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// Success, at this revision.
    Done(u64),
    /// A refusal with this stable code.
    Refuse(&'static str),
    /// Too many requests: come back after this time.
    Limit(Duration),
    /// A status as a broken transport gives: no code of ours.
    Break,
    /// Never answers.
    Hang,
}

/// One opened watch: these responses, then its end.
#[derive(Debug, Clone)]
pub(crate) struct Script {
    pub responses: Vec<v1::WatchResponse>,
    pub end: End,
}

#[derive(Debug, Clone)]
pub(crate) enum End {
    /// The connection breaks.
    Break,
    /// The node closes the stream.
    Close,
    /// Refused with this code.
    Refuse(&'static str),
    /// Nothing more comes.
    Open,
}

/// What is scripted for answers that are not one entry, and what was asked for them.
#[derive(Debug, Default)]
pub(crate) struct Extra {
    pub lists: VecDeque<v1::ListResponse>,
    pub listed: Vec<v1::ListRequest>,
    pub histories: VecDeque<v1::HistoryResponse>,
    pub txns: VecDeque<v1::TxnResponse>,
    pub txned: Vec<v1::TxnRequest>,
    pub exports: VecDeque<(Vec<v1::ExportResponse>, End)>,
    pub exported: Vec<v1::ExportRequest>,
    pub deleted: Vec<v1::DeleteRequest>,
    pub rolled_back: Vec<v1::RollbackRequest>,
    pub resolved: Vec<v1::ResolveRequest>,
    pub schemas_put: Vec<v1::PutSchemaRequest>,
    pub schemas_deleted: Vec<v1::DeleteSchemaRequest>,
    pub schemas_listed: Vec<v1::ListSchemasRequest>,
    pub schemas_got: Vec<v1::GetSchemaRequest>,
    /// What a get answers instead of a `1`.
    pub entry: Option<Entry>,
    /// Linearizable reads of a namespace are refused.
    pub no_leader: bool,
    /// Keys of the writes that were done.
    pub effects: BTreeSet<String>,
    /// Who this node says that it is, and who the members are.
    pub status: v1::StatusResponse,
    pub status_refusal: Option<(Code, &'static str)>,
    pub statuses: usize,
}

/// A change that running watches are told of; `None` breaks them.
type Told = Option<v1::WatchResponse>;

#[derive(Debug)]
struct Live {
    /// Every change so far; watches that nothing is scripted for are served from here.
    log: Vec<v1::WatchResponse>,
    told: broadcast::Sender<Told>,
    /// Whether watches that nothing is scripted for are served.
    on: bool,
    values: BTreeMap<String, v1::ResolvedValue>,
}

impl Default for Live {
    fn default() -> Self {
        let told = broadcast::Sender::new(1024);
        Self { log: Vec::new(), told, on: false, values: BTreeMap::new() }
    }
}

#[derive(Debug, Default)]
struct State {
    extra: Extra,
    live: Live,
    replies: VecDeque<Reply>,
    watches: VecDeque<Script>,
    leader: Option<String>,
    sets: Vec<v1::SetRequest>,
    gets: Vec<v1::GetRequest>,
    watched: Vec<v1::WatchRequest>,
    /// `authorization` of every get, set and watch.
    shown: Vec<Option<String>>,
    promoted: Vec<u64>,
    revision: u64,
}

/// A running fake node.
#[derive(Debug, Clone)]
pub(crate) struct Fake {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Fake {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let fake = Self { address: listener.local_addr().unwrap(), state: Arc::default() };
        let server = tonic::transport::Server::builder()
            .add_service(ConfigServiceServer::new(fake.clone()))
            .add_service(SchemaServiceServer::new(fake.clone()))
            .add_service(v1::cluster_service_server::ClusterServiceServer::new(fake.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(server);
        fake
    }

    pub(crate) fn endpoint(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn reply(&self, replies: impl IntoIterator<Item = Reply>) -> &Self {
        self.state.lock().unwrap().replies.extend(replies);
        self
    }

    pub(crate) fn stream(&self, responses: Vec<v1::WatchResponse>, end: End) -> &Self {
        self.state.lock().unwrap().watches.push_back(Script { responses, end });
        self
    }

    /// Scripts, or looks at, what is not about single entries.
    pub(crate) fn extra<R>(&self, with: impl FnOnce(&mut Extra) -> R) -> R {
        with(&mut self.state.lock().unwrap().extra)
    }

    /// Holds this value from now on, and serves watches by itself; tells nobody.
    pub(crate) fn holds(&self, revision: u64, key: &str, value: &str) -> &Self {
        self.holds_from("base", revision, key, value)
    }

    pub(crate) fn holds_from(&self, source: &str, revision: u64, key: &str, json: &str) -> &Self {
        let mut state = self.state.lock().unwrap();
        state.revision = state.revision.max(revision);
        state.live.on = true;
        let secret = key == "password";
        let (source, value) = (source.to_owned(), json.to_owned().into());
        let resolved = v1::ResolvedValue { key: key.to_owned(), value, source, secret };
        state.live.values.insert(key.to_owned(), resolved);
        drop(state);
        self
    }

    /// Tells running and later watches of a change in this environment.
    pub(crate) fn tells(&self, environment: &str, revision: u64) -> &Self {
        let mut response = change(revision);
        for entry in response.events.iter_mut().filter_map(|event| event.entry.as_mut()) {
            entry.environment = environment.to_owned();
        }
        self.tell(response)
    }

    pub(crate) fn tell(&self, response: v1::WatchResponse) -> &Self {
        let mut state = self.state.lock().unwrap();
        state.revision = state.revision.max(response.revision);
        state.live.on = true;
        state.live.log.push(response.clone());
        // Nobody may be listening.
        let _ = state.live.told.send(Some(response));
        drop(state);
        self
    }

    /// Changes a value of the environment `base`, and tells.
    pub(crate) fn changes(&self, revision: u64, key: &str, value: &str) -> &Self {
        self.holds(revision, key, value).tells("base", revision)
    }

    /// Breaks the watches that run.
    pub(crate) fn breaks_watches(&self) {
        let _ = self.state.lock().unwrap().live.told.send(None);
    }

    /// Is this member of a cluster of these members.
    pub(crate) fn is_member(&self, id: u64, members: &[(u64, &str)]) -> &Self {
        let members = members.iter().map(|(id, address)| v1::Member {
            id: *id,
            role: "follower".into(),
            grpc: (*address).to_owned(),
            ..Default::default()
        });
        let members = members.collect();
        self.extra(|extra| {
            extra.status = v1::StatusResponse {
                cluster_id: "c".into(),
                node_id: id,
                members,
                ..Default::default()
            };
        });
        self
    }

    pub(crate) fn says_leader_is(&self, leader: &str) -> &Self {
        self.state.lock().unwrap().leader = Some(leader.to_owned());
        self
    }

    pub(crate) fn at_revision(&self, revision: u64) -> &Self {
        self.state.lock().unwrap().revision = revision;
        self
    }

    pub(crate) fn sets(&self) -> Vec<v1::SetRequest> {
        self.state.lock().unwrap().sets.clone()
    }

    pub(crate) fn gets(&self) -> Vec<v1::GetRequest> {
        self.state.lock().unwrap().gets.clone()
    }

    pub(crate) fn promoted(&self) -> Vec<u64> {
        self.state.lock().unwrap().promoted.clone()
    }

    pub(crate) fn watched(&self) -> Vec<v1::WatchRequest> {
        self.state.lock().unwrap().watched.clone()
    }

    /// What each get, set and watch showed to be let in.
    pub(crate) fn shown(&self) -> Vec<Option<String>> {
        self.state.lock().unwrap().shown.clone()
    }

    /// A watch that nothing is scripted for: all that is logged, then what comes.
    fn served(&self, from: u64) -> Option<BoxStream<'static, Result<v1::WatchResponse, Status>>> {
        let state = self.state.lock().unwrap();
        if !state.live.on {
            return None;
        }
        let told = state.live.told.subscribe();
        let log = state.live.log.iter().filter(|response| response.revision >= from);
        let log: Vec<_> = log.cloned().map(Ok).collect();
        let coming = futures::stream::unfold(Some(told), |told| async move {
            let mut told = told?;
            match told.recv().await.ok()? {
                Some(response) => Some((Ok(response), Some(told))),
                None => Some((Err(Status::unknown("h2 reset")), None)),
            }
        });
        Some(futures::stream::iter(log).chain(coming).boxed())
    }

    fn note<T>(&self, request: &Request<T>) {
        let shown = request.metadata().get("authorization");
        let shown = shown.map(|value| value.to_str().unwrap().to_owned());
        self.state.lock().unwrap().shown.push(shown);
    }

    /// Plays the next scripted reply; success when the script is over.
    async fn play<T>(&self, answer: impl FnOnce(u64) -> T) -> Result<Response<T>, Status> {
        let (reply, leader, revision) = {
            let mut state = self.state.lock().unwrap();
            let reply = state.replies.pop_front();
            (reply, state.leader.clone(), state.revision)
        };
        match reply.unwrap_or(Reply::Done(revision)) {
            Reply::Done(revision) => {
                let mut response = Response::new(answer(revision));
                let metadata = response.metadata_mut();
                metadata.insert("x-config-revision", revision.into());
                if let Some(leader) = leader {
                    metadata.insert("x-config-leader", leader.parse().unwrap());
                }
                Ok(response)
            }
            Reply::Refuse(code) => Err(refusal(code, leader.as_deref())),
            Reply::Limit(delay) => {
                let mut details = ErrorDetails::with_error_info("RATE_LIMITED", "llmconfig", []);
                details.set_retry_info(Some(delay));
                Err(Status::with_error_details(Code::ResourceExhausted, "scripted", details))
            }
            Reply::Break => Err(Status::unavailable("connection reset")),
            Reply::Hang => std::future::pending().await,
        }
    }
}

fn refusal(code: &str, leader: Option<&str>) -> Status {
    let details = HashMap::from([("current_version".to_owned(), "7".to_owned())]);
    let details = ErrorDetails::with_error_info(code, "llmconfig", details);
    let mut status = Status::with_error_details(Code::Unavailable, "scripted", details);
    if let Some(leader) = leader {
        status.metadata_mut().insert("x-config-leader", leader.parse().unwrap());
    }
    status
}

/// An entry at a revision.
pub(crate) fn entry(revision: u64) -> Entry {
    Entry { key: "k".into(), value: "1".into(), revision, version: revision, ..Default::default() }
}

/// A response with one change.
pub(crate) fn change(revision: u64) -> v1::WatchResponse {
    v1::WatchResponse {
        revision,
        events: vec![v1::WatchEvent {
            kind: v1::watch_event::Kind::Set.into(),
            entry: Some(entry(revision)),
        }],
    }
}

/// A response without changes.
pub(crate) fn bookmark(revision: u64) -> v1::WatchResponse {
    v1::WatchResponse { revision, events: Vec::new() }
}

macro_rules! unscripted {
    ($($name:ident($request:ident) -> $response:ident;)*) => {$(
        // Written as `async_trait` would expand it: it does not see into macros.
        fn $name<'s, 'f>(
            &'s self,
            _: Request<v1::$request>,
        ) -> Pin<Box<dyn Future<Output = Result<Response<v1::$response>, Status>> + Send + 'f>>
        where
            's: 'f,
            Self: 'f,
        {
            Box::pin(async { Err(Status::unimplemented("not scripted")) })
        }
    )*};
}

#[tonic::async_trait]
impl ConfigService for Fake {
    type WatchStream = BoxStream<'static, Result<v1::WatchResponse, Status>>;

    async fn get(
        &self,
        request: Request<v1::GetRequest>,
    ) -> Result<Response<v1::GetResponse>, Status> {
        self.note(&request);
        self.state.lock().unwrap().gets.push(request.into_inner());
        let scripted = self.extra(|extra| extra.entry.clone());
        self.play(|revision| v1::GetResponse {
            entry: Some(scripted.unwrap_or_else(|| entry(revision))),
        })
        .await
    }

    async fn set(
        &self,
        request: Request<v1::SetRequest>,
    ) -> Result<Response<v1::SetResponse>, Status> {
        self.note(&request);
        let request = request.into_inner();
        let key = request.idempotency_key.clone();
        self.state.lock().unwrap().sets.push(request);
        let answer = self
            .play(|revision| v1::SetResponse { entry: Some(entry(revision)), created: true })
            .await?;
        self.extra(|extra| extra.effects.insert(key));
        Ok(answer)
    }

    async fn watch(
        &self,
        request: Request<v1::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        self.note(&request);
        let script = {
            let mut state = self.state.lock().unwrap();
            let request = request.into_inner();
            let from = request.from_revision;
            state.watched.push(request);
            let script = state.watches.pop_front();
            drop(state);
            if script.is_none()
                && let Some(served) = self.served(from)
            {
                return Ok(Response::new(served));
            }
            script
        };
        let script = script.ok_or_else(|| Status::unavailable("no more watches are scripted"))?;
        let responses = futures::stream::iter(script.responses.into_iter().map(Ok));
        Ok(Response::new(ended(responses, script.end)))
    }

    type ExportStream = BoxStream<'static, Result<v1::ExportResponse, Status>>;

    async fn export(
        &self,
        request: Request<v1::ExportRequest>,
    ) -> Result<Response<Self::ExportStream>, Status> {
        let script = self.extra(|extra| {
            extra.exported.push(request.into_inner());
            extra.exports.pop_front()
        });
        let (parts, end) = script.ok_or_else(|| Status::unavailable("not scripted"))?;
        Ok(Response::new(ended(futures::stream::iter(parts.into_iter().map(Ok)), end)))
    }

    async fn delete(
        &self,
        request: Request<v1::DeleteRequest>,
    ) -> Result<Response<v1::DeleteResponse>, Status> {
        self.extra(|extra| extra.deleted.push(request.into_inner()));
        self.play(|revision| v1::DeleteResponse { version: 4, revision }).await
    }

    async fn list(
        &self,
        request: Request<v1::ListRequest>,
    ) -> Result<Response<v1::ListResponse>, Status> {
        let page = self.extra(|extra| {
            extra.listed.push(request.into_inner());
            extra.lists.pop_front()
        });
        self.play(|_| page.unwrap_or_default()).await
    }

    async fn history(
        &self,
        _: Request<v1::HistoryRequest>,
    ) -> Result<Response<v1::HistoryResponse>, Status> {
        let page = self.extra(|extra| extra.histories.pop_front());
        self.play(|_| page.unwrap_or_default()).await
    }

    async fn rollback(
        &self,
        request: Request<v1::RollbackRequest>,
    ) -> Result<Response<v1::RollbackResponse>, Status> {
        self.extra(|extra| extra.rolled_back.push(request.into_inner()));
        self.play(|revision| v1::RollbackResponse { entry: Some(entry(revision)) }).await
    }

    async fn resolve(
        &self,
        request: Request<v1::ResolveRequest>,
    ) -> Result<Response<v1::ResolveResponse>, Status> {
        let request = request.into_inner();
        let values = {
            let mut state = self.state.lock().unwrap();
            state.extra.resolved.push(request.clone());
            let linearizable = request
                .read
                .is_some_and(|read| read.consistency() == v1::Consistency::Linearizable);
            if linearizable && state.extra.no_leader {
                return Err(refusal("NO_LEADER", None));
            }
            let mut values: Vec<_> = state.live.values.values().cloned().collect();
            for value in values.iter_mut().filter(|value| value.secret && !request.reveal) {
                value.value = "\"********\"".into();
            }
            values
        };
        self.play(|revision| v1::ResolveResponse {
            namespace: request.namespace,
            environment: request.environment,
            values,
            revision,
        })
        .await
    }

    async fn txn(
        &self,
        request: Request<v1::TxnRequest>,
    ) -> Result<Response<v1::TxnResponse>, Status> {
        let answer = self.extra(|extra| {
            extra.txned.push(request.into_inner());
            extra.txns.front().cloned()
        });
        self.play(|_| answer.unwrap_or_default()).await
    }

    unscripted! {
        list_namespaces(ListNamespacesRequest) -> ListNamespacesResponse;
        diff(DiffRequest) -> DiffResponse;
    }
}

fn ended<T: Send + 'static>(
    responses: impl futures::Stream<Item = Result<T, Status>> + Send + 'static,
    end: End,
) -> BoxStream<'static, Result<T, Status>> {
    match end {
        End::Break => {
            responses.chain(futures::stream::iter([Err(Status::unknown("h2 reset"))])).boxed()
        }
        End::Close => responses.boxed(),
        End::Refuse(code) => {
            responses.chain(futures::stream::iter([Err(refusal(code, None))])).boxed()
        }
        End::Open => responses.chain(futures::stream::pending()).boxed(),
    }
}

#[tonic::async_trait]
impl SchemaService for Fake {
    async fn put_schema(
        &self,
        request: Request<v1::PutSchemaRequest>,
    ) -> Result<Response<v1::PutSchemaResponse>, Status> {
        self.extra(|extra| extra.schemas_put.push(request.into_inner()));
        self.play(|_| v1::PutSchemaResponse { schema: None, created: true }).await
    }

    async fn get_schema(
        &self,
        request: Request<v1::GetSchemaRequest>,
    ) -> Result<Response<v1::GetSchemaResponse>, Status> {
        self.extra(|extra| extra.schemas_got.push(request.into_inner()));
        self.play(|_| v1::GetSchemaResponse::default()).await
    }

    async fn list_schemas(
        &self,
        request: Request<v1::ListSchemasRequest>,
    ) -> Result<Response<v1::ListSchemasResponse>, Status> {
        self.extra(|extra| extra.schemas_listed.push(request.into_inner()));
        self.play(|_| v1::ListSchemasResponse::default()).await
    }

    async fn delete_schema(
        &self,
        request: Request<v1::DeleteSchemaRequest>,
    ) -> Result<Response<v1::DeleteSchemaResponse>, Status> {
        self.extra(|extra| extra.schemas_deleted.push(request.into_inner()));
        self.play(|_| v1::DeleteSchemaResponse { version: 2 }).await
    }
}

#[tonic::async_trait]
impl v1::cluster_service_server::ClusterService for Fake {
    async fn status(
        &self,
        _: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusResponse>, Status> {
        let mut state = self.state.lock().unwrap();
        state.extra.statuses += 1;
        if let Some((code, name)) = state.extra.status_refusal {
            let details = ErrorDetails::with_error_info(name, "llmconfig", []);
            return Err(Status::with_error_details(code, "scripted", details));
        }
        let status = state.extra.status.clone();
        Ok(Response::new(v1::StatusResponse { revision: state.revision, ..status }))
    }

    async fn member_promote(
        &self,
        request: Request<v1::MemberPromoteRequest>,
    ) -> Result<Response<v1::MemberPromoteResponse>, Status> {
        self.state.lock().unwrap().promoted.push(request.into_inner().id);
        self.play(|_| v1::MemberPromoteResponse::default()).await
    }

    unscripted! {
        member_add(MemberAddRequest) -> MemberAddResponse;
        member_demote(MemberDemoteRequest) -> MemberDemoteResponse;
        member_remove(MemberRemoveRequest) -> MemberRemoveResponse;
        member_replace(MemberReplaceRequest) -> MemberReplaceResponse;
        transfer_leader(TransferLeaderRequest) -> TransferLeaderResponse;
    }
}

/// Waits until it is so.
pub(crate) async fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
