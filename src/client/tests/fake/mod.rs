//! A node that answers as scripted and remembers what it was asked. Not a model of the cluster: each test writes down
//! the answers that its law needs.
#![allow(dead_code, reason = "each test program uses its part")]

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use llm_config_client::v1::config_service_server::{ConfigService, ConfigServiceServer};
use llm_config_client::v1::{self, Entry};
use tokio::net::TcpListener;
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

#[derive(Debug, Default)]
struct State {
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
        self.play(|revision| v1::GetResponse { entry: Some(entry(revision)) }).await
    }

    async fn set(
        &self,
        request: Request<v1::SetRequest>,
    ) -> Result<Response<v1::SetResponse>, Status> {
        self.note(&request);
        self.state.lock().unwrap().sets.push(request.into_inner());
        self.play(|revision| v1::SetResponse { entry: Some(entry(revision)), created: true }).await
    }

    async fn watch(
        &self,
        request: Request<v1::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        self.note(&request);
        let script = {
            let mut state = self.state.lock().unwrap();
            state.watched.push(request.into_inner());
            state.watches.pop_front()
        };
        let script = script.ok_or_else(|| Status::unavailable("no more watches are scripted"))?;
        let responses = futures::stream::iter(script.responses.into_iter().map(Ok));
        Ok(Response::new(match script.end {
            End::Break => {
                responses.chain(futures::stream::iter([Err(Status::unknown("h2 reset"))])).boxed()
            }
            End::Close => responses.boxed(),
            End::Refuse(code) => {
                responses.chain(futures::stream::iter([Err(refusal(code, None))])).boxed()
            }
            End::Open => responses.chain(futures::stream::pending()).boxed(),
        }))
    }

    unscripted! {
        delete(DeleteRequest) -> DeleteResponse;
        list(ListRequest) -> ListResponse;
        list_namespaces(ListNamespacesRequest) -> ListNamespacesResponse;
        history(HistoryRequest) -> HistoryResponse;
        diff(DiffRequest) -> DiffResponse;
        rollback(RollbackRequest) -> RollbackResponse;
        resolve(ResolveRequest) -> ResolveResponse;
        txn(TxnRequest) -> TxnResponse;
    }
}

#[tonic::async_trait]
impl v1::cluster_service_server::ClusterService for Fake {
    async fn status(
        &self,
        _: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusResponse>, Status> {
        let revision = self.state.lock().unwrap().revision;
        Ok(Response::new(v1::StatusResponse { revision, ..Default::default() }))
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
