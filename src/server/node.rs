//! One running node: binds the listeners, starts the replica and the service, serves, and stops in order.
//!
//! All sockets are bound before anything on the disk is touched. It decides nothing about requests.

mod activity;
mod both;
mod certificates;
mod guards;
mod joining;
mod listener;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use llm_config_domain::query;
use llm_config_replica::{Advertise, Config, Replica, StartError, Tuning};
use llm_config_tls::{Failures, ServerTls, TlsError};
use parking_lot::Mutex;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::Bootstrap;
use crate::backups::BackupLimits;
use crate::join::SearchError;
use crate::metrics::{self, HealthSample, Metrics, NodeSample, UsageSample};
use crate::service::{Service, ServiceLimits, Shared, SharedLimits};
use crate::settings::Settings;
use crate::{grpc, health, http};
use activity::Answering;
use both::Both;
use certificates::Certificates;
use listener::{IDLE_TIMEOUT, Listener};

/// Connections of clients on each of the two client listeners.
const CLIENT_CONNECTIONS_MAX: usize = 8_192;
const METRICS_CONNECTIONS_MAX: usize = 64;
/// Largest log database, whatever the quota.
const LOG_BYTES_MAX: u64 = 1 << 30;
/// How long requests in flight may take once the node is asked to stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the replica may take to hand over leadership, flush and close.
const REPLICA_STOP_TIMEOUT: Duration = Duration::from_secs(15);

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// A listener's address is taken or not of this machine.
    #[error(
        "{flag} {address}: cannot listen there ({source}); stop what uses the address or choose another one"
    )]
    Bind {
        /// The flag that sets the address.
        flag: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system answered.
        source: std::io::Error,
    },
    /// A certificate, a key or an authority cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The replica refused.
    #[error(transparent)]
    Replica(#[from] StartError),
}

impl NodeError {
    /// The program's exit code: 1 a fault of the machine, 2 usage, 3 the data directory.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Bind { .. } | Self::Replica(StartError::Runtime(_)) => 1,
            Self::Tls(_) | Self::Replica(StartError::Usage(_)) => 2,
            Self::Replica(StartError::DataDir(_)) => 3,
        }
    }
}

impl From<SearchError> for NodeError {
    fn from(error: SearchError) -> Self {
        match error {
            SearchError::Tls(error) => Self::Tls(error),
            SearchError::Authorities(error) => Self::Replica(error),
        }
    }
}

/// Where a node listens, after the system has chosen ports that were given as 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// REST API and health; takes gRPC too.
    pub http: SocketAddr,
    /// `GET /metrics`.
    pub metrics: SocketAddr,
    /// Client gRPC.
    pub grpc: SocketAddr,
    /// Node-to-node gRPC.
    pub raft: SocketAddr,
}

/// The four bound sockets of a node.
#[derive(Debug)]
pub struct Sockets {
    http: TcpListener,
    metrics: TcpListener,
    grpc: TcpListener,
    raft: TcpListener,
    addresses: Addresses,
}

impl Sockets {
    /// Binds all four, or says which one could not be.
    pub fn bind(settings: &Settings) -> Result<Self, NodeError> {
        let mut bound = Vec::with_capacity(4);
        for (flag, address) in settings.listeners() {
            let open = || {
                let listener = TcpListener::bind(address)?;
                listener.set_nonblocking(true)?;
                let local = listener.local_addr()?;
                Ok((listener, local))
            };
            bound.push(open().map_err(|source| NodeError::Bind { flag, address, source })?);
        }
        let Ok([http, metrics, grpc, raft]) = <[_; 4]>::try_from(bound) else {
            unreachable!("settings have four listeners");
        };
        Ok(Self {
            addresses: Addresses { http: http.1, metrics: metrics.1, grpc: grpc.1, raft: raft.1 },
            http: http.0,
            metrics: metrics.0,
            grpc: grpc.0,
            raft: raft.0,
        })
    }

    /// Where they listen.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }
}

/// A node that serves.
pub struct Node {
    addresses: Addresses,
    replica: Replica,
    service: Service,
    health: grpc::HealthReporter,
    tasks: TaskTracker,
    closing: CancellationToken,
    abort: CancellationToken,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

impl Node {
    /// Opens the data directory and serves. The cluster may still be without a leader when this returns.
    pub async fn start(settings: &Settings, sockets: Sockets) -> Result<Self, NodeError> {
        let Sockets { http, metrics: metrics_socket, grpc, raft, addresses } = sockets;
        let metrics = Arc::new(Metrics::new());
        let (tasks, closing) = (TaskTracker::new(), CancellationToken::new());
        let ends_with_the_start = closing.clone().drop_guard();
        let certificates = Certificates::load(settings)?;
        certificates.watch(&metrics, &tasks, &closing);
        guards::warn_of_clear_text(settings);
        let guards = guards::guards(settings, &metrics, &tasks, &closing)?;
        let bootstrap = if settings.auth {
            let given = settings.security.bootstrap_token_file.clone();
            Some(Bootstrap::new(given, &settings.data_dir)?)
        } else {
            None
        };
        let cache_bytes = usize::try_from(settings.cache_bytes).unwrap_or(usize::MAX);
        let shared = Shared::new(
            SharedLimits { cache_bytes, ..SharedLimits::default() },
            guards,
            Arc::clone(&metrics),
        );
        let mut config = replica_config(settings, addresses, raft);
        config.tls = certificates.nodes.clone();
        config.join = joining::join(settings, &http, &certificates, &metrics).await?;
        let add = joining::add_command(settings, &config.advertise);
        let replica = Replica::start(config, shared.clone()).await?;
        let backups = BackupLimits {
            keep: settings.backup_keep,
            disk_reserve_bytes: settings.disk_reserve,
            ..BackupLimits::default()
        };
        let limits = ServiceLimits {
            request_timeout: settings.request_timeout,
            backups,
            ..ServiceLimits::default()
        };
        let service = Service::new(replica.clone(), shared, Arc::clone(&metrics), limits);
        let looked = Arc::new(Mutex::new(Looked::default()));
        metrics.sample_with({
            let (service, looked) = (service.clone(), Arc::clone(&looked));
            move || sample(&service, *looked.lock())
        });
        tasks.spawn(look(service.clone(), looked, closing.clone()));
        let (gateway, health) = grpc::gateway(&service);
        show_routes(&metrics);
        let node = Self {
            addresses,
            replica,
            service,
            health,
            tasks,
            closing,
            abort: CancellationToken::new(),
        };
        let tls = certificates.clients;
        let state = http::AppState::new(node.service.clone());
        let router = http::router(state, &browser(settings));
        let both = Both { http: router, grpc: gateway.clone() };
        node.serve("http", http, both, tls.clone(), CLIENT_CONNECTIONS_MAX)?;
        node.serve("grpc", grpc, gateway, tls, CLIENT_CONNECTIONS_MAX)?;
        // In clear text whatever the others do: scrapers have no certificates, and the numbers no secrets.
        let metrics_router = http::Browser::default().protect(metrics::router(metrics));
        node.serve("metrics", metrics_socket, metrics_router, None, METRICS_CONNECTIONS_MAX)?;
        node.tasks.spawn(grpc::report_health(
            node.replica.clone(),
            node.health.clone(),
            node.closing.clone(),
        ));
        node.tasks.spawn(joining::announce(node.replica.clone(), add, node.closing.clone()));
        if let Some(bootstrap) = bootstrap {
            node.tasks.spawn(bootstrap.run(node.replica.clone(), node.closing.clone()));
        }
        node.tasks.spawn(node.service.clone().run_rotation(node.closing.clone()));
        let backups = node.service.backups().clone();
        node.tasks.spawn(backups.run(settings.backup_interval, node.closing.clone()));
        tracing::info!(node_id = settings.node_id, http = %addresses.http, metrics = %addresses.metrics,
            grpc = %addresses.grpc, raft = %addresses.raft, data_dir = %settings.data_dir.display(), "the node serves");
        // What has begun goes on until the node stops.
        ends_with_the_start.disarm();
        Ok(node)
    }

    fn serve(
        &self,
        name: &'static str,
        socket: TcpListener,
        router: impl Answering,
        tls: Option<Arc<ServerTls>>,
        connections_max: usize,
    ) -> Result<(), StartError> {
        let socket = asynchronous(name, socket)?;
        let listener = Listener {
            name,
            router,
            tls,
            failures: Arc::new(Failures::new(format!("{name} listener"))),
            connections_max,
            idle_timeout: IDLE_TIMEOUT,
            metrics: Arc::clone(self.service.metrics()),
            tasks: self.tasks.clone(),
            closing: self.closing.clone(),
            abort: self.abort.clone(),
        };
        self.tasks.spawn(listener.serve(socket));
        Ok(())
    }

    /// Where the node listens.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// What the node serves.
    #[must_use]
    pub fn service(&self) -> &Service {
        &self.service
    }

    /// Resolves when the node can no longer be trusted and the process has to end.
    pub async fn failure(&self) -> NodeError {
        self.replica.failure().await.into()
    }

    /// Takes no more work, hands over leadership, lets what is in flight finish for a bounded time, closes the storage.
    ///
    /// Leadership goes first: a client that is slow to finish would otherwise keep it on a node that is about to end, and
    /// writes that are in flight here finish at the next leader.
    pub async fn stop(self) {
        self.closing.cancel();
        self.service.stop_watches();
        self.service.backups().stop();
        grpc::end_health_watches(self.health).await;
        self.tasks.close();
        let (_, drained) =
            tokio::join!(self.replica.hand_over(), timeout(DRAIN_TIMEOUT, self.tasks.wait()));
        if drained.is_err() {
            tracing::warn!(
                open = self.tasks.len(),
                "requests were still open after {DRAIN_TIMEOUT:?} and are cut off"
            );
            self.abort.cancel();
            self.tasks.wait().await;
        }
        self.service.metrics().stop_sampling();
        if timeout(REPLICA_STOP_TIMEOUT, self.replica.shutdown()).await.is_err() {
            tracing::warn!(
                "the replica did not close within {REPLICA_STOP_TIMEOUT:?}; its log is safe without"
            );
        }
    }
}

/// What browsers are told on the client listeners.
fn browser(settings: &Settings) -> http::Browser {
    http::Browser::new(&settings.security.cors_origins, settings.security.tls.is_some())
}

fn asynchronous(name: &str, socket: TcpListener) -> Result<tokio::net::TcpListener, StartError> {
    tokio::net::TcpListener::from_std(socket).map_err(|error| {
        StartError::Runtime(format!("the {name} listener cannot be used: {error}"))
    })
}

/// Wildcards were refused by the settings, so a bound address means something to others too.
fn replica_config(settings: &Settings, addresses: Addresses, raft: TcpListener) -> Config {
    let told = |advertised: &Option<String>, bound: SocketAddr| {
        advertised.clone().unwrap_or_else(|| bound.to_string())
    };
    Config {
        node_id: settings.node_id,
        data_dir: settings.data_dir.clone(),
        raft_listener: raft,
        advertise: Advertise {
            http: told(&settings.advertise_http, addresses.http),
            grpc: told(&settings.advertise_grpc, addresses.grpc),
            raft: told(&settings.advertise_raft, addresses.raft),
        },
        initial_cluster: settings.initial_cluster.clone(),
        join: None,
        tls: None,
        history_limit: settings.history_limit,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        tuning: tuning(settings),
    }
}

/// A quarter of the quota for the log leaves the rest to the state.
fn log_bytes_max(storage_quota: u64) -> u64 {
    match storage_quota {
        0 => LOG_BYTES_MAX,
        quota => (quota / 4).min(LOG_BYTES_MAX),
    }
}

/// Builds for tests take snapshots more often when told to, so that a test reaches one without many thousand writes.
fn tuning(settings: &Settings) -> Tuning {
    let tuning = Tuning {
        storage_quota_bytes: settings.storage_quota,
        disk_reserve_bytes: settings.disk_reserve,
        log_bytes_max: log_bytes_max(settings.storage_quota),
        ..Tuning::default()
    };
    #[cfg(debug_assertions)]
    if let Some(entries) = std::env::var("LLM_CONFIG_TEST_SNAPSHOT_ENTRIES")
        .ok()
        .and_then(|entries| entries.parse::<u64>().ok())
    {
        return Tuning { snapshot_log_entries: entries, log_entries_kept: entries / 4, ..tuning };
    }
    tuning
}

/// How often a node looks at its own health and counts its entries.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What a node found when it looked at itself last.
#[derive(Debug, Clone, Copy, Default)]
struct Looked {
    active: Option<[u64; 5]>,
    health: Option<HealthSample>,
}

/// Reads from storage, so that a scrape does not have to: it must take no lock that a request waits for.
async fn look(service: Service, looked: Arc<Mutex<Looked>>, closing: CancellationToken) {
    loop {
        let asked = service.clone();
        let looking = tokio::task::spawn_blocking(move || Looked {
            active: query::meta(&asked.replica().view()).ok().map(|meta| meta.active),
            health: Some(health::levels(&asked)),
        });
        match looking.await {
            Ok(found) => *looked.lock() = found,
            Err(error) => tracing::error!(%error, "the node could not look at its health"),
        }
        tokio::select! {
            () = closing.cancelled() => return,
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
        }
    }
}

fn sample(service: &Service, looked: Looked) -> NodeSample {
    let replica = service.replica();
    let [(requests, requests_max), (request_bytes, request_bytes_max)] =
        service.admission().usage();
    let cache = service.cache_size();
    NodeSample {
        status: replica.status(),
        stats: replica.stats(),
        readings: replica.readings(),
        ready: replica.ready(),
        leader_contact_age: replica.leader_contact_age(),
        active: looked.active,
        health: looked.health,
        usage: UsageSample {
            requests,
            requests_max,
            request_bytes,
            request_bytes_max,
            watchers_max: service.watches_max(),
            cache_entries: cache.entries,
            cache_bytes: cache.bytes,
            cache_bytes_max: cache.bytes_max,
        },
    }
}

/// The routes of the API document, so that their series exist before the first request.
fn show_routes(metrics: &Metrics) {
    for (route, item) in http::document().paths.paths {
        let methods =
            [("GET", item.get), ("PUT", item.put), ("POST", item.post), ("DELETE", item.delete)];
        for (method, _) in methods.into_iter().filter(|(_, operation)| operation.is_some()) {
            metrics.http_known_route(method, &route);
        }
    }
}
