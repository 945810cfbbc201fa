//! A node that keeps entries in memory and, if told to, loses answers: enough to write, list and read back. It keeps
//! the promise that matters here: a write sent again with its idempotency key happens once.

mod members;
pub(crate) mod security;

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::ops::Bound;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use llm_config_client::v1::cluster_service_server::ClusterServiceServer;
use llm_config_client::v1::config_service_server::{ConfigService, ConfigServiceServer};
use llm_config_client::v1::security_service_server::SecurityServiceServer;
use llm_config_client::v1::{self, Entry};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

type Id = (String, String, String);

#[derive(Debug, Default)]
struct State {
    entries: BTreeMap<Id, Entry>,
    keys: HashSet<String>,
    revision: u64,
    calls: u64,
    /// Every so many writes the answer is lost after the write happened.
    lose_every: Option<u64>,
    refuse: Option<String>,
}

#[derive(Debug, Clone)]
pub(crate) struct Store {
    pub(crate) address: SocketAddr,
    pub(crate) security: security::Security,
    state: Arc<Mutex<State>>,
}

impl Store {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let store = Self {
            address: listener.local_addr().unwrap(),
            security: security::Security::default(),
            state: Arc::default(),
        };
        let server = tonic::transport::Server::builder()
            .add_service(ConfigServiceServer::new(store.clone()))
            .add_service(ClusterServiceServer::new(members::Members::new()))
            .add_service(SecurityServiceServer::new(store.security.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(server);
        store
    }

    pub(crate) fn lose_every(&self, writes: u64) {
        self.state.lock().unwrap().lose_every = Some(writes);
    }

    /// Refuses writes of this key.
    pub(crate) fn refuse(&self, key: &str) {
        self.state.lock().unwrap().refuse = Some(key.to_owned());
    }

    /// How many writes happened.
    pub(crate) fn revision(&self) -> u64 {
        self.state.lock().unwrap().revision
    }
}

fn masked(entry: &Entry) -> Entry {
    let value = if entry.secret { "\"********\"".into() } else { entry.value.clone() };
    Entry { value, ..entry.clone() }
}

fn found<T>(answer: T) -> Result<Response<T>, Status> {
    Ok(Response::new(answer))
}

fn refusal(code: tonic::Code, reason: &str) -> Status {
    use tonic_types::{ErrorDetails, StatusExt as _};
    let details =
        ErrorDetails::with_error_info(reason, "llmconfig", std::collections::HashMap::new());
    Status::with_error_details(code, "as told", details)
}

macro_rules! absent {
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
            Box::pin(async { Err(Status::unimplemented("not part of this store")) })
        }
    )*};
}

#[tonic::async_trait]
impl ConfigService for Store {
    type WatchStream = tokio_stream::Empty<Result<v1::WatchResponse, Status>>;

    async fn get(
        &self,
        request: Request<v1::GetRequest>,
    ) -> Result<Response<v1::GetResponse>, Status> {
        let get = request.into_inner();
        let state = self.state.lock().unwrap();
        match state.entries.get(&(get.namespace, get.environment, get.key)) {
            Some(entry) if get.reveal => found(v1::GetResponse { entry: Some(entry.clone()) }),
            Some(entry) => found(v1::GetResponse { entry: Some(masked(entry)) }),
            None => Err(refusal(tonic::Code::NotFound, "NOT_FOUND")),
        }
    }

    async fn set(
        &self,
        request: Request<v1::SetRequest>,
    ) -> Result<Response<v1::SetResponse>, Status> {
        let set = request.into_inner();
        let mut state = self.state.lock().unwrap();
        state.calls += 1;
        if state.refuse.as_ref() == Some(&set.key) {
            return Err(refusal(tonic::Code::InvalidArgument, "INVALID_ARGUMENT"));
        }
        let id = (set.namespace.clone(), set.environment.clone(), set.key.clone());
        if state.keys.insert(set.idempotency_key) {
            state.revision += 1;
            let entry = Entry {
                namespace: set.namespace,
                environment: set.environment,
                key: set.key,
                value: set.value,
                secret: set
                    .secret
                    .unwrap_or_else(|| state.entries.get(&id).is_some_and(|entry| entry.secret)),
                version: state.entries.get(&id).map_or(1, |entry| entry.version + 1),
                revision: state.revision,
                ..Default::default()
            };
            state.entries.insert(id.clone(), entry);
        }
        if state.lose_every.is_some_and(|every| state.calls.is_multiple_of(every)) {
            return Err(Status::unavailable("the connection broke"));
        }
        found(v1::SetResponse { entry: state.entries.get(&id).cloned(), created: true })
    }

    async fn list(
        &self,
        request: Request<v1::ListRequest>,
    ) -> Result<Response<v1::ListResponse>, Status> {
        let list = request.into_inner();
        let state = self.state.lock().unwrap();
        let after = (list.namespace.clone(), list.environment.clone(), list.cursor);
        let mut items: Vec<Entry> = state
            .entries
            .range((Bound::Excluded(after), Bound::Unbounded))
            .take_while(|((ns, env, _), _)| *ns == list.namespace && *env == list.environment)
            .map(|(_, entry)| masked(entry))
            .take(list.limit as usize + 1)
            .collect();
        let more = items.len() > list.limit as usize;
        items.truncate(list.limit as usize);
        let next_cursor = if more { items.last().map(|entry| entry.key.clone()) } else { None };
        found(v1::ListResponse {
            items,
            next_cursor: next_cursor.unwrap_or_default(),
            revision: state.revision,
        })
    }

    async fn watch(
        &self,
        _: Request<v1::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("not part of this store"))
    }

    absent! {
        delete(DeleteRequest) -> DeleteResponse;
        list_namespaces(ListNamespacesRequest) -> ListNamespacesResponse;
        history(HistoryRequest) -> HistoryResponse;
        diff(DiffRequest) -> DiffResponse;
        rollback(RollbackRequest) -> RollbackResponse;
        resolve(ResolveRequest) -> ResolveResponse;
        txn(TxnRequest) -> TxnResponse;
    }
}
