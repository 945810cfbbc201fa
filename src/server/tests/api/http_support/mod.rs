//! A node without listeners for clients: a real replica, the service and the HTTP router, called in process.

pub mod secured;

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use axum::response::Response;
use http_body_util::BodyExt;
use llm_config_replica::{Advertise, Config, Join, Replica, Tuning};
use llm_config_server::access::Access;
use llm_config_server::http::{AppState, Browser, router};
use llm_config_server::limits::Limits;
use llm_config_server::metrics::Metrics;
use llm_config_server::schemas::Schemas;
use llm_config_server::secrets::{DataKeys, MasterKeys};
use llm_config_server::service::{Guards, Service, ServiceLimits, Shared, SharedLimits};
use llm_config_server::settings::SecuritySettings;
use serde_json::Value;
use tempfile::TempDir;
use tower::ServiceExt;

pub const PATIENCE: Duration = Duration::from_secs(60);

/// What a test may want different.
#[derive(Clone)]
pub struct Options {
    pub history_limit: u64,
    pub service: ServiceLimits,
    pub shared: SharedLimits,
    pub tuning: Tuning,
    /// Set for a node that founds nothing.
    pub join: Option<Join>,
    pub browser: Browser,
    /// Callers have to say who they are.
    pub auth: bool,
    pub security: SecuritySettings,
}

impl Default for Options {
    fn default() -> Self {
        // Tests that run side by side on a small machine share its disk.
        let service =
            ServiceLimits { request_timeout: Duration::from_secs(30), ..ServiceLimits::default() };
        Options {
            history_limit: 100,
            service,
            shared: SharedLimits::default(),
            tuning: Tuning::default(),
            join: None,
            browser: Browser::default(),
            auth: false,
            security: SecuritySettings::nothing(),
        }
    }
}

impl Options {
    fn guards(&self, metrics: &Arc<Metrics>) -> Arc<Guards> {
        let masters = self.security.master_key_file.as_ref();
        let masters = masters.map(|path| Arc::new(MasterKeys::load(path).unwrap()));
        Arc::new(Guards {
            access: Access::new(self.auth, None, Arc::clone(metrics)),
            limits: Limits::new(&self.security, Arc::clone(metrics)),
            keys: DataKeys::new(masters),
            schemas: Schemas::default(),
        })
    }
}

/// One node.
pub struct Api {
    pub service: Service,
    router: Router,
    masters: Option<Arc<MasterKeys>>,
    stopped: AtomicBool,
}

impl Drop for Api {
    /// Storage has to be closed before the process ends: RocksDB's threads do not outlive its statics.
    fn drop(&mut self) {
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(self.stop()));
    }
}

impl Api {
    /// Starts a node of this cluster; it may not be ready yet.
    pub async fn start(
        id: u64,
        listener: TcpListener,
        cluster: BTreeMap<u64, String>,
        folder: &Path,
        options: &Options,
    ) -> Api {
        let advertise = Advertise {
            http: format!("127.0.0.1:{}", 8079 + id),
            grpc: format!("127.0.0.1:{}", 50050 + id),
            raft: listener.local_addr().unwrap().to_string(),
        };
        let config = Config {
            node_id: id,
            data_dir: folder.join(format!("node-{id}")),
            raft_listener: listener,
            advertise,
            initial_cluster: cluster,
            join: options.join.clone(),
            tls: None,
            history_limit: options.history_limit,
            version: "test".into(),
            tuning: options.tuning.clone(),
        };
        let metrics = Arc::new(Metrics::new());
        let guards = options.guards(&metrics);
        let masters = guards.keys.masters().cloned();
        let shared = Shared::new(options.shared, guards, metrics.clone());
        let replica = Replica::start(config, shared.clone()).await.unwrap();
        let service = Service::new(replica, shared, metrics, options.service);
        let router = router(AppState::new(service.clone()), &options.browser);
        Api { service, router, masters, stopped: AtomicBool::new(false) }
    }

    pub fn master_keys(&self) -> &MasterKeys {
        self.masters.as_ref().expect("a node with a master key")
    }

    /// Stops the replica; a second time does nothing.
    pub async fn stop(&self) {
        if !self.stopped.swap(true, Ordering::SeqCst) {
            self.service.replica().shutdown().await;
        }
    }

    pub async fn until_ready(&self) {
        wait_for("the node is ready", || self.service.replica().ready().then_some(())).await;
    }

    pub async fn send(&self, request: Request<Body>) -> Response {
        tokio::time::timeout(PATIENCE, self.router.clone().oneshot(request))
            .await
            .expect("no answer in time")
            .unwrap()
    }

    pub async fn call(&self, request: Request<Body>) -> Answer {
        let response = self.send(request).await;
        let (parts, body) = response.into_parts();
        let body =
            tokio::time::timeout(PATIENCE, body.collect()).await.expect("the answer does not end");
        let bytes = body.unwrap().to_bytes().to_vec();
        Answer { status: parts.status, headers: parts.headers, body: bytes }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call(request(Method::GET, path, &[], "")).await
    }

    pub async fn put(&self, path: &str, body: &str) -> Answer {
        self.call(request(Method::PUT, path, &[], body)).await
    }

    pub async fn post(&self, path: &str, body: &str) -> Answer {
        self.call(request(Method::POST, path, &[], body)).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.call(request(Method::DELETE, path, &[], "")).await
    }
}

/// A cluster of one, and the folder it lives in.
pub struct Alone {
    pub api: Api,
    pub folder: TempDir,
}

impl std::ops::Deref for Alone {
    type Target = Api;
    fn deref(&self) -> &Api {
        &self.api
    }
}

pub async fn alone() -> Alone {
    alone_with(&Options::default()).await
}

pub async fn alone_with(options: &Options) -> Alone {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let cluster = [(1, listener.local_addr().unwrap().to_string())].into();
    let api = Api::start(1, listener, cluster, folder.path(), options).await;
    api.until_ready().await;
    Alone { api, folder }
}

pub fn request(method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Request<Body> {
    let mut builder = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(Body::from(body.to_owned())).unwrap()
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .unwrap_or_else(|| panic!("no {name} in {:?}", self.headers))
            .to_str()
            .unwrap()
    }

    /// The body of an answer with this status.
    #[track_caller]
    pub fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text());
        if self.body.is_empty() { Value::Null } else { self.json() }
    }

    /// The problem document of a refusal with this status and code.
    #[track_caller]
    pub fn problem(&self, status: u16, code: &str) -> Value {
        let problem = self.expect(status);
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(problem["code"], code, "{problem}");
        assert_eq!(problem["status"], status, "{problem}");
        assert_eq!(problem["request_id"], self.header("x-request-id"));
        for member in ["type", "title", "detail", "instance"] {
            assert!(
                problem[member].as_str().is_some_and(|text| !text.is_empty()),
                "{member} in {problem}"
            );
        }
        assert!(problem["retryable"].is_boolean(), "{problem}");
        assert!(problem["applied"] == "no" || problem["applied"] == "unknown", "{problem}");
        problem
    }
}

pub async fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let waiting = async {
        loop {
            if let Some(value) = condition() {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting)
        .await
        .unwrap_or_else(|_| panic!("waited in vain: {what}"))
}
