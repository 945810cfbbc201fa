//! A node that keeps entries in memory and, if told to, loses answers or lets somebody else be quicker: enough to write,
//! list and read back. It keeps the promises that matter here: a write sent again with its idempotency key happens once,
//! and a transaction happens as a whole or not at all.

mod health;
mod members;
pub(crate) mod monitoring;
mod schemas;
pub(crate) mod security;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::ops::Bound;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use futures::StreamExt as _;
use futures::stream::BoxStream;
use llm_config_client::v1::cluster_service_server::ClusterServiceServer;
use llm_config_client::v1::config_service_server::{ConfigService, ConfigServiceServer};
use llm_config_client::v1::schema_service_server::SchemaServiceServer;
use llm_config_client::v1::security_service_server::SecurityServiceServer;
use llm_config_client::v1::txn_op::Op;
use llm_config_client::v1::{self, Entry};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

type Id = (String, String, String);

#[derive(Debug, Default)]
struct State {
    entries: BTreeMap<Id, Entry>,
    /// All versions that there were, deletes included.
    versions: BTreeMap<(Id, u64), Entry>,
    /// The answer of each transaction and the revision of each write, by idempotency key.
    answers: HashMap<String, v1::TxnResponse>,
    revision: u64,
    calls: u64,
    /// Every so many writes the answer is lost after the write happened.
    lose_every: Option<u64>,
    refuse: Option<String>,
    /// How often somebody else writes this entry before a transaction.
    interfere: Option<(Id, u64)>,
}

impl State {
    fn version(&self, id: &Id) -> u64 {
        self.entries.get(id).map_or(0, |entry| entry.version)
    }

    fn last_version(&self, id: &Id) -> u64 {
        let versions = self.versions.range((id.clone(), 0)..=(id.clone(), u64::MAX));
        versions.last().map_or(0, |((_, version), _)| *version)
    }

    /// A new version under the present revision.
    fn put(&mut self, id: &Id, entry: Entry) -> Entry {
        let entry = Entry {
            namespace: id.0.clone(),
            environment: id.1.clone(),
            key: id.2.clone(),
            version: self.last_version(id) + 1,
            revision: self.revision,
            ..entry
        };
        self.versions.insert((id.clone(), entry.version), entry.clone());
        if entry.deleted {
            self.entries.remove(id);
        } else {
            self.entries.insert(id.clone(), entry.clone());
        }
        entry
    }

    fn set(&mut self, id: &Id, set: v1::txn_op::Set) -> Entry {
        let was_secret = self.entries.get(id).is_some_and(|entry| entry.secret);
        let entry = Entry {
            value: set.value,
            secret: set.secret.unwrap_or(was_secret),
            description: set.description,
            tags: set.tags,
            comment: set.comment,
            ..Default::default()
        };
        self.put(id, entry)
    }

    fn somebody_else(&mut self) {
        let Some((id, times)) = &mut self.interfere else { return };
        if *times == 0 {
            return;
        }
        *times -= 1;
        let (id, times) = (id.clone(), *times);
        self.revision += 1;
        let value = format!("\"meanwhile {times}\"");
        let entry =
            Entry { value: value.into(), updated_by: "mallory".to_owned(), ..Default::default() };
        self.put(&id, entry);
    }

    fn run(&mut self, ops: Vec<v1::TxnOp>) -> Result<Vec<v1::TxnResult>, Status> {
        let mut results = Vec::new();
        for op in ops {
            let (name, entry) = match op.op.unwrap() {
                Op::Set(set) => {
                    let id = id(&set.namespace, &set.environment, &set.key);
                    expect(set.expected_version, self.version(&id))?;
                    if self.refuse.as_ref() == Some(&set.key) {
                        return Err(refusal(tonic::Code::InvalidArgument, "INVALID_ARGUMENT"));
                    }
                    ("set", Some(self.set(&id, set)))
                }
                Op::Delete(delete) => {
                    let id = id(&delete.namespace, &delete.environment, &delete.key);
                    if self.version(&id) == 0 {
                        return Err(refusal(tonic::Code::NotFound, "NOT_FOUND"));
                    }
                    let gone =
                        Entry { deleted: true, comment: delete.comment, ..Default::default() };
                    ("delete", Some(self.put(&id, gone)))
                }
                Op::Get(get) => {
                    let id = id(&get.namespace, &get.environment, &get.key);
                    ("get", self.entries.get(&id).map(masked))
                }
            };
            results.push(v1::TxnResult { op: name.to_owned(), entry });
        }
        Ok(results)
    }

    /// As a whole or not at all.
    fn txn(&mut self, txn: v1::TxnRequest) -> Result<v1::TxnResponse, Status> {
        if let Some(answer) = self.answers.get(&txn.idempotency_key) {
            return Ok(answer.clone());
        }
        let succeeded = txn.compare.iter().all(|compare| {
            let id = id(&compare.namespace, &compare.environment, &compare.key);
            self.version(&id) == compare.version
        });
        let before = (self.entries.clone(), self.versions.clone(), self.revision);
        let ops = if succeeded { txn.success } else { txn.failure };
        let changes = ops.iter().any(|op| !matches!(op.op, Some(Op::Get(_))));
        self.revision += u64::from(changes);
        let results = match self.run(ops) {
            Ok(results) => results,
            Err(refusal) => {
                (self.entries, self.versions, self.revision) = before;
                return Err(refusal);
            }
        };
        let answer = v1::TxnResponse { succeeded, revision: self.revision, results };
        self.answers.insert(txn.idempotency_key, answer.clone());
        Ok(answer)
    }

    /// Whether the answer of this call is lost.
    fn loses(&mut self) -> Result<(), Status> {
        self.calls += 1;
        if self.lose_every.is_some_and(|every| self.calls.is_multiple_of(every)) {
            return Err(Status::unavailable("the connection broke"));
        }
        Ok(())
    }
}

/// As the API calls environments.
fn id(namespace: &str, environment: &str, key: &str) -> Id {
    let environment = match environment {
        "" => "base",
        "prod" => "production",
        other => other,
    };
    (namespace.to_owned(), environment.to_owned(), key.to_owned())
}

fn expect(expected: Option<u64>, there: u64) -> Result<(), Status> {
    use tonic_types::{ErrorDetails, StatusExt as _};
    match expected {
        Some(expected) if expected != there => {
            let current = HashMap::from([("current_version".to_owned(), there.to_string())]);
            let details = ErrorDetails::with_error_info("VERSION_CONFLICT", "llmconfig", current);
            Err(Status::with_error_details(tonic::Code::Aborted, "as told", details))
        }
        _ => Ok(()),
    }
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
            .layer(tower::layer::layer_fn(health::Health))
            .add_service(
                ConfigServiceServer::new(store.clone()).max_decoding_message_size(16 << 20),
            )
            .add_service(ClusterServiceServer::new(members::Members::new(store.address)))
            .add_service(SchemaServiceServer::new(schemas::Schemas::default()))
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

    /// Before each of the next transactions, somebody else writes this entry of the base environment.
    pub(crate) fn interfere(&self, namespace: &str, key: &str, times: u64) {
        self.state.lock().unwrap().interfere = Some((id(namespace, "base", key), times));
    }

    /// How many changes happened.
    pub(crate) fn revision(&self) -> u64 {
        self.state.lock().unwrap().revision
    }

    /// An entry as it is kept, of the base environment.
    pub(crate) fn entry(&self, namespace: &str, key: &str) -> Option<Entry> {
        self.state.lock().unwrap().entries.get(&id(namespace, "base", key)).cloned()
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

type Answers<T> = BoxStream<'static, Result<T, Status>>;

#[tonic::async_trait]
impl ConfigService for Store {
    type ExportStream = Answers<v1::ExportResponse>;
    type WatchStream = Answers<v1::WatchResponse>;

    async fn get(
        &self,
        request: Request<v1::GetRequest>,
    ) -> Result<Response<v1::GetResponse>, Status> {
        let get = request.into_inner();
        let state = self.state.lock().unwrap();
        let id = id(&get.namespace, &get.environment, &get.key);
        let entry = match get.version {
            Some(version) => state.versions.get(&(id, version)),
            None => state.entries.get(&id),
        };
        match entry {
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
        let set = v1::TxnRequest {
            idempotency_key: set.idempotency_key,
            success: vec![v1::TxnOp {
                op: Some(Op::Set(v1::txn_op::Set {
                    namespace: set.namespace,
                    key: set.key,
                    environment: set.environment,
                    value: set.value,
                    description: set.description,
                    tags: set.tags,
                    comment: set.comment,
                    expected_version: set.expected_version,
                    secret: set.secret,
                })),
            }],
            ..Default::default()
        };
        let mut answer = state.txn(set)?;
        state.loses()?;
        let entry = answer.results.remove(0).entry.as_ref().map(masked);
        found(v1::SetResponse { entry, created: true })
    }

    async fn list(
        &self,
        request: Request<v1::ListRequest>,
    ) -> Result<Response<v1::ListResponse>, Status> {
        let list = request.into_inner();
        let state = self.state.lock().unwrap();
        let (namespace, environment, _) = id(&list.namespace, &list.environment, "");
        let after = (namespace.clone(), environment.clone(), list.cursor);
        let mut items: Vec<Entry> = state
            .entries
            .range((Bound::Excluded(after), Bound::Unbounded))
            .take_while(|((ns, env, _), _)| *ns == namespace && *env == environment)
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

    async fn txn(
        &self,
        request: Request<v1::TxnRequest>,
    ) -> Result<Response<v1::TxnResponse>, Status> {
        let txn = request.into_inner();
        let mut state = self.state.lock().unwrap();
        state.somebody_else();
        let answer = state.txn(txn)?;
        state.loses()?;
        found(answer)
    }

    /// A hundred entries a message; one without any for a namespace that is empty.
    async fn export(
        &self,
        request: Request<v1::ExportRequest>,
    ) -> Result<Response<Self::ExportStream>, Status> {
        let export = request.into_inner();
        let state = self.state.lock().unwrap();
        let (namespace, environment, _) = id(&export.namespace, &export.environment, "");
        let items: Vec<Entry> = state
            .entries
            .iter()
            .filter(|((ns, env, _), _)| *ns == namespace && *env == environment)
            .map(|(_, entry)| masked(entry))
            .collect();
        let revision = state.revision;
        let mut pages: Vec<_> = items
            .chunks(100)
            .map(|page| Ok(v1::ExportResponse { revision, items: page.to_vec() }))
            .collect();
        if pages.is_empty() {
            pages.push(Ok(v1::ExportResponse { revision, items: Vec::new() }));
        }
        found(futures::stream::iter(pages).boxed())
    }

    async fn rollback(
        &self,
        request: Request<v1::RollbackRequest>,
    ) -> Result<Response<v1::RollbackResponse>, Status> {
        let rollback = request.into_inner();
        let mut state = self.state.lock().unwrap();
        let id = id(&rollback.namespace, &rollback.environment, &rollback.key);
        let old = state.versions.get(&(id.clone(), rollback.version)).cloned();
        let old = old.ok_or_else(|| refusal(tonic::Code::NotFound, "NOT_FOUND"))?;
        state.revision += 1;
        found(v1::RollbackResponse { entry: Some(state.put(&id, old)) })
    }

    async fn diff(
        &self,
        request: Request<v1::DiffRequest>,
    ) -> Result<Response<v1::DiffResponse>, Status> {
        let diff = request.into_inner();
        let state = self.state.lock().unwrap();
        let id = id(&diff.namespace, &diff.environment, &diff.key);
        let version = |version: Option<u64>| {
            state.versions.get(&(id.clone(), version.unwrap_or_default())).map(masked)
        };
        let patch = "[{\"op\":\"replace\",\"path\":\"\",\"value\":2.0}]".into();
        found(v1::DiffResponse { from: version(diff.from), to: version(diff.to), patch })
    }

    /// Tells of what is there as of changes, in one revision, and stays open.
    async fn watch(
        &self,
        request: Request<v1::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let watch = request.into_inner();
        let state = self.state.lock().unwrap();
        let events = state
            .entries
            .values()
            .filter(|entry| watch.namespace.is_empty() || entry.namespace == watch.namespace)
            .filter(|entry| entry.namespace.starts_with(&watch.namespace_prefix))
            .filter(|entry| watch.environment.is_empty() || entry.environment == watch.environment)
            .map(|entry| v1::WatchEvent {
                kind: v1::watch_event::Kind::Set.into(),
                entry: Some(masked(entry)),
            })
            .collect();
        let changes = v1::WatchResponse { revision: state.revision, events };
        let open = futures::stream::iter([Ok(changes)]).chain(futures::stream::pending());
        found(open.boxed())
    }

    absent! {
        delete(DeleteRequest) -> DeleteResponse;
        list_namespaces(ListNamespacesRequest) -> ListNamespacesResponse;
        history(HistoryRequest) -> HistoryResponse;
        resolve(ResolveRequest) -> ResolveResponse;
    }
}
