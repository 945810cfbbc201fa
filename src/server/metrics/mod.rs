//! What a node counts and measures, and the page that Prometheus reads.
//!
//! One registry for each node, nothing global: several nodes may live in one process. Numbers that belong to the
//! replica or to the process are read when the page is asked for. `monitoring/METRICS.md` explains every name here.

mod backup;
mod control_group;
mod family;
mod grid;
mod http;
mod node;
mod process;
mod security;
mod tls;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use llm_config_cache::Counts;
use llm_config_domain::Environment;
use parking_lot::RwLock;
use prometheus::proto::MetricFamily;
use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::service::{Consistency, OPERATIONS};
use backup::BackupNumbers;
use family::{counter, gauge};
use grid::Grid;
use http::HttpRequests;
use process::Process;
use security::SecurityNumbers;
use tls::TlsNumbers;

pub use node::{HealthSample, NodeSample, UsageSample};
pub use security::{AuthFailure, BanSample, LimitScope, SecretAccess};
pub use tls::CertificateSample;

/// Content type of the page.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// From a cached read (tens of microseconds) to the longest default wait, with the target (100 ms) and the alert (200 ms)
/// among the bounds: between two bounds a quantile is a guess.
const DURATION_BUCKETS: [f64; 14] =
    [0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 2.5, 5.0];

/// Codes that alerts look at: their series exist from the start, so that the first error is an increase.
const ALERTED_CODES: [&str; 7] = [
    "INTERNAL",
    "NO_LEADER",
    "NOT_READY",
    "OUTCOME_UNKNOWN",
    "OVERLOADED",
    "STALE",
    "STORAGE_FULL",
];

/// Every stable code of the API; see `crate::error`.
const CODES: [&str; 21] = [
    "BANNED",
    "IDEMPOTENCY_KEY_REUSED",
    "INTERNAL",
    "INVALID_ARGUMENT",
    "MEMBERSHIP_CONFLICT",
    "NOT_FOUND",
    "NOT_READY",
    "NO_LEADER",
    "OUTCOME_UNKNOWN",
    "OVERLOADED",
    "PAYLOAD_TOO_LARGE",
    "PERMISSION_DENIED",
    "QUORUM_AT_RISK",
    "RATE_LIMITED",
    "REVISION_COMPACTED",
    "SCHEMA_VIOLATION",
    "SECRETS_UNAVAILABLE",
    "STALE",
    "STORAGE_FULL",
    "UNAUTHENTICATED",
    "VERSION_CONFLICT",
];

/// Names of the environments, in the order of [`Environment::ALL`].
static ENVIRONMENTS: std::sync::LazyLock<[&'static str; Environment::ALL.len()]> =
    std::sync::LazyLock::new(|| Environment::ALL.map(Environment::as_str));

/// What a request may be refused for want of; see `crate::admission`.
const BOUNDS: [&str; 6] =
    ["requests", "request_bytes", "watches", "watch_bytes", "backups", "exports"];

/// Reads the numbers of the replica.
type Sampler = Box<dyn Fn() -> NodeSample + Send + Sync>;

/// Counters, gauges and histograms of one node.
pub struct Metrics {
    registry: Registry,
    process: Process,
    sampler: RwLock<Option<Sampler>>,
    http_requests: HttpRequests,
    http_duration: HistogramVec,
    /// Filled by the gateway, which knows the methods.
    grpc_requests: OnceLock<Grid>,
    grpc_duration: HistogramVec,
    /// Those of the known methods, found without the lock of the vector.
    grpc_durations: OnceLock<Vec<(&'static str, Histogram)>>,
    connections: IntGaugeVec,
    connections_max: IntGaugeVec,
    /// In the order of [`OPERATIONS`].
    operations: [(IntCounter, Histogram); OPERATIONS.len()],
    errors: Grid,
    environment_errors: Grid,
    reads: [IntCounter; 2],
    /// In the order of [`Environment::ALL`].
    changes: [IntCounter; Environment::ALL.len()],
    storage_reads: [Histogram; StorageRead::ALL.len()],
    overloaded: IntCounterVec,
    watchers: IntGauge,
    watch_events: IntCounter,
    watches_compacted: IntCounter,
    /// Processor time that the last page took.
    render_micros: AtomicU64,
    cache: CacheCounters,
    backup: BackupNumbers,
    security: SecurityNumbers,
    tls: TlsNumbers,
}

/// How the storage engine was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StorageRead {
    /// One entry that the cache did not have.
    Get,
    /// Many records.
    Scan,
}

impl StorageRead {
    const ALL: [Self; 2] = [Self::Get, Self::Scan];

    fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Scan => "scan",
        }
    }
}

/// Tier `l1`. Plain atomics: they are counted on the hottest path of the node.
#[derive(Default)]
struct CacheCounters {
    hits: AtomicU64,
    misses: AtomicU64,
    evictions: AtomicU64,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Metrics of a node that has not started. Without [`Metrics::sample_with`] the page lacks the replica's numbers.
    #[must_use]
    pub fn new() -> Self {
        let registry = Registry::new();
        let storage_reads = histograms(
            &registry,
            "storage_operation_duration_seconds",
            "Reads of the storage engine",
            &["operation"],
        );
        let reads = counters(
            &registry,
            "config_reads_total",
            "Reads of entries, by the consistency that was asked for",
            &["consistency"],
        );
        let operations = counters(
            &registry,
            "config_operations_total",
            "Operations that this node took from clients, over HTTP or gRPC",
            &["operation"],
        );
        let operation_duration = histograms(
            &registry,
            "config_operation_duration_seconds",
            "Time that an operation took in the service",
            &["operation"],
        );
        let changes = counters(
            &registry,
            "config_changes_total",
            "Changes of entries that the node applied; the same on every node",
            &["environment"],
        );
        let metrics = Self {
            http_requests: HttpRequests::default(),
            http_duration: histograms(
                &registry,
                "http_request_duration_seconds",
                "Time from the head of a request to the head of its answer",
                &["method", "route"],
            ),
            grpc_requests: OnceLock::new(),
            grpc_duration: histograms(
                &registry,
                "grpc_request_duration_seconds",
                "Time from the head of a gRPC call to the head of its answer",
                &["method"],
            ),
            grpc_durations: OnceLock::new(),
            connections: gauges(
                &registry,
                "llm_config_connections",
                "Open client connections",
                &["listener"],
            ),
            connections_max: gauges(
                &registry,
                "llm_config_connections_max",
                "Client connections that are taken at a time",
                &["listener"],
            ),
            reads: [Consistency::Cached, Consistency::Linearizable]
                .map(|consistency| reads.with_label_values(&[consistency.as_str()])),
            changes: Environment::ALL
                .map(|environment| changes.with_label_values(&[environment.as_str()])),
            storage_reads: StorageRead::ALL
                .map(|read| storage_reads.with_label_values(&[read.as_str()])),
            operations: OPERATIONS.map(|operation| {
                let of = &[operation];
                (operations.with_label_values(of), operation_duration.with_label_values(of))
            }),
            errors: Grid::new(
                ("config_errors_total", "Operations that ended with an error, by stable code"),
                ["operation", "code"],
                &OPERATIONS,
                &CODES,
                &ALERTED_CODES,
            ),
            environment_errors: Grid::new(
                (
                    "config_environment_errors_total",
                    "Operations on entries that failed through no fault of the caller",
                ),
                ["environment", "code"],
                ENVIRONMENTS.as_slice(),
                &ALERTED_CODES,
                &ALERTED_CODES,
            ),
            overloaded: counters(
                &registry,
                "llm_config_overloaded_total",
                "Requests refused because a bound of this node was reached",
                &["bound"],
            ),
            watchers: single_gauge(&registry, "llm_config_watchers", "Open watches"),
            watch_events: single_counter(
                &registry,
                "llm_config_watch_events_total",
                "Changes given to watchers",
            ),
            watches_compacted: single_counter(
                &registry,
                "llm_config_watches_compacted_total",
                "Watches that were further behind than the change log reaches",
            ),
            render_micros: AtomicU64::new(0),
            process: Process::new(),
            sampler: RwLock::new(None),
            cache: CacheCounters::default(),
            backup: BackupNumbers::default(),
            security: SecurityNumbers::new(&registry),
            tls: TlsNumbers::default(),
            registry,
        };
        let build = gauges(
            &metrics.registry,
            "llm_config_build_info",
            "Always 1; the version is a label",
            &["version"],
        );
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        metrics.show_known_series();
        metrics
    }

    /// A series that appears with its first event hides that event from `increase()`, so what is known is shown at once.
    fn show_known_series(&self) {
        for bound in BOUNDS {
            self.overloaded.with_label_values(&[bound]);
        }
        for method in http::METHODS {
            self.http_known_route(method, "unmatched");
        }
    }

    /// Names the source of the replica's numbers.
    pub fn sample_with(&self, sampler: impl Fn() -> NodeSample + Send + Sync + 'static) {
        *self.sampler.write() = Some(Box::new(sampler));
    }

    /// Lets go of the source: it holds the replica, which (through its observer) holds these metrics.
    pub fn stop_sampling(&self) {
        *self.sampler.write() = None;
    }

    /// Shows a route's series before its first request.
    pub fn http_known_route(&self, method: &str, route: &str) {
        self.http_requests.show(method, route);
        self.http_duration.with_label_values(&[http::known_method(method), route]);
    }

    /// Counts an HTTP answer. `route` is a template, never a path: labels stay bounded.
    pub fn http(&self, method: &str, route: &str, status: u16, took: Duration) {
        self.http_requests.count(method, route, status);
        let method = http::known_method(method);
        self.http_duration.with_label_values(&[method, route]).observe(took.as_secs_f64());
    }

    /// Names the methods and codes that there are, and shows the methods before their first call.
    pub fn grpc_known(&self, methods: &'static [&'static str], codes: &'static [&'static str]) {
        let of = ("grpc_requests_total", "gRPC calls answered");
        self.grpc_requests
            .get_or_init(|| Grid::new(of, ["method", "code"], methods, codes, &["OK"]));
        self.grpc_durations.get_or_init(|| {
            let of =
                |method: &&'static str| (*method, self.grpc_duration.with_label_values(&[method]));
            methods.iter().map(of).collect()
        });
    }

    /// Counts a gRPC answer; a stream counts when it opens.
    pub fn grpc(&self, method: &'static str, code: &'static str, took: Duration) {
        if let Some(requests) = self.grpc_requests.get() {
            requests.inc(method, code);
        }
        let mut known = self.grpc_durations.get().into_iter().flatten();
        if let Some((_, durations)) = known.find(|(known, _)| *known == method) {
            durations.observe(took.as_secs_f64());
        }
    }

    /// Counts a connection of a listener until the guard is dropped.
    #[must_use]
    pub fn connection(&self, listener: &'static str) -> ConnectionGuard {
        let gauge = self.connections.with_label_values(&[listener]);
        gauge.inc();
        ConnectionGuard(gauge)
    }

    /// Shows a listener's gauges before its first connection.
    pub fn known_listener(&self, listener: &'static str, connections_max: usize) {
        self.connections.with_label_values(&[listener]).set(0);
        let max = i64::try_from(connections_max).unwrap_or(i64::MAX);
        self.connections_max.with_label_values(&[listener]).set(max);
    }

    /// Counts an operation, on the node that took the request.
    pub fn operation(&self, operation: &'static str, took: Duration) {
        let at = OPERATIONS.iter().position(|known| *known == operation);
        debug_assert!(at.is_some(), "{operation} is not in the list");
        if let Some((count, durations)) = at.and_then(|at| self.operations.get(at)) {
            count.inc();
            durations.observe(took.as_secs_f64());
        }
    }

    /// Counts an operation's error.
    pub fn error(&self, operation: &'static str, code: &'static str) {
        self.errors.inc(operation, code);
    }

    /// Counts an error of an operation on entries of this environment, unless it is the caller's.
    pub fn environment_error(&self, environment: Environment, code: &'static str) {
        if ALERTED_CODES.contains(&code) {
            self.environment_errors.inc(environment.as_str(), code);
        }
    }

    /// Counts a read by the consistency that was asked for.
    pub fn read(&self, consistency: Consistency) {
        let [cached, linearizable] = &self.reads;
        match consistency {
            Consistency::Cached => cached.inc(),
            Consistency::Linearizable => linearizable.inc(),
        }
    }

    /// Counts changes that were applied.
    pub fn changes(&self, environments: impl Iterator<Item = Environment>) {
        for environment in environments {
            if let Some(count) = self.changes.get(environment.index()) {
                count.inc();
            }
        }
    }

    /// Counts a read of the storage engine.
    pub fn storage_read(&self, read: StorageRead, took: Duration) {
        if let Some(histogram) = self.storage_reads.get(read as usize) {
            histogram.observe(took.as_secs_f64());
        }
    }

    /// Counts changes given to a watcher.
    pub fn watch_events(&self, changes: usize) {
        self.watch_events.inc_by(changes as u64);
    }

    /// Counts a watch that was further behind than the change log reaches.
    pub fn watch_compacted(&self) {
        self.watches_compacted.inc();
    }

    /// Open watches now.
    pub fn watchers(&self, open: usize) {
        self.watchers.set(i64::try_from(open).unwrap_or(i64::MAX));
    }

    /// Counts a request refused for want of `bound`.
    pub fn overloaded(&self, bound: &'static str) {
        self.overloaded.with_label_values(&[bound]).inc();
    }

    /// The newest backup that was there when the node started.
    pub fn backup_found(&self, made_at_s: u64, bytes: u64) {
        self.backup.found(made_at_s, bytes);
    }

    /// A backup into the data directory is complete.
    pub fn backup_made(&self, made_at_s: u64, bytes: u64, took: Duration) {
        self.backup.made(made_at_s, bytes, took);
    }

    /// A backup into the data directory failed or was skipped.
    pub fn backup_failed(&self) {
        self.backup.failed();
    }

    /// Names the source of the numbers of a certificate: `client`, or `node`.
    pub fn certificate(
        &self,
        name: &'static str,
        read: impl Fn() -> CertificateSample + Send + Sync + 'static,
    ) {
        self.tls.certificate(name, read);
    }

    /// Counts a TLS handshake that failed on a listener of clients.
    pub fn tls_handshake_failed(&self, listener: &'static str) {
        self.tls.handshake_failed(listener);
    }

    /// The page. Reads the process table and the replica: not for the thread of a runtime.
    pub fn render(&self) -> prometheus::Result<Vec<u8>> {
        let begun = processor_time();
        let page = self.page()?;
        let took = processor_time().saturating_sub(begun);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.render_micros.store(micros, Ordering::Relaxed);
        Ok(page)
    }

    fn page(&self) -> prometheus::Result<Vec<u8>> {
        let mut families = self.registry.gather();
        families.push(self.http_requests.family());
        families.extend(self.grpc_requests.get().map(Grid::family));
        families.extend([&self.errors, &self.environment_errors].map(Grid::family));
        families.push(self.security.bans());
        families.extend(self.security.ban_expiries());
        families.push(gauge(
            "metrics_render_duration_seconds",
            "Processor time that the page before this one took",
            self.render_micros.load(Ordering::Relaxed) as f64 / 1e6,
        ));
        families.extend(self.process.families());
        families.push(counter(
            "llm_config_log_lines_dropped_total",
            "Log lines dropped because stderr was not read fast enough",
            crate::logging::dropped_lines() as f64,
        ));
        let sample = self.sampler.read().as_ref().map(|sample| sample());
        families.extend(self.cache.families(sample.as_ref()));
        families.extend(self.backup.families());
        families.extend(self.tls.families(sample.as_ref()));
        if let Some(sample) = &sample {
            families.extend(sample.families());
        }
        families.sort_by(|a, b| a.name().cmp(b.name()));
        let mut page = Vec::with_capacity(256 << 10);
        TextEncoder::new().encode(&families, &mut page)?;
        Ok(page)
    }
}

/// Of the cache of entries.
impl Counts for Metrics {
    fn hit(&self) {
        self.cache.hits.fetch_add(1, Ordering::Relaxed);
    }

    fn miss(&self) {
        self.cache.misses.fetch_add(1, Ordering::Relaxed);
    }

    fn evicted(&self, slots: u64) {
        self.cache.evictions.fetch_add(slots, Ordering::Relaxed);
    }
}

impl CacheCounters {
    /// Both tiers. An `l1` miss goes on to `l2`, which counts blocks, not entries.
    fn families(&self, sample: Option<&NodeSample>) -> Vec<MetricFamily> {
        let stats = sample.map(|sample| sample.stats).unwrap_or_default();
        let both = |name, help, l1: &AtomicU64, l2: u64| {
            family::counters(
                name,
                help,
                "tier",
                [
                    ("l1".to_owned(), l1.load(Ordering::Relaxed) as f64),
                    ("l2".to_owned(), l2 as f64),
                ],
            )
        };
        vec![
            both(
                "cache_hits_total",
                "Lookups that the tier answered",
                &self.hits,
                stats.block_cache_hits,
            ),
            both(
                "cache_misses_total",
                "Lookups that the tier passed on",
                &self.misses,
                stats.block_cache_misses,
            ),
            both(
                "cache_evictions_total",
                "Items that left the tier for want of room",
                &self.evictions,
                stats.block_cache_evictions,
            ),
        ]
    }
}

/// An open connection in the gauge.
#[derive(Debug)]
pub struct ConnectionGuard(IntGauge);

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Serves the page on its own listener.
pub fn router(metrics: Arc<Metrics>) -> axum::Router {
    axum::Router::new().route("/metrics", axum::routing::get(page)).with_state(metrics)
}

async fn page(
    axum::extract::State(metrics): axum::extract::State<Arc<Metrics>>,
) -> axum::response::Response {
    use axum::response::IntoResponse;
    let page = tokio::task::spawn_blocking(move || metrics.render()).await;
    match page {
        Ok(Ok(page)) => ([(::http::header::CONTENT_TYPE, CONTENT_TYPE)], page).into_response(),
        Ok(Err(error)) => {
            (::http::StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response()
        }
        Err(error) => {
            (::http::StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response()
        }
    }
}

/// What this thread has used so far: a page must not cost more because others run.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    Duration::new(seconds, nanos)
}

fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    register(registry, IntCounterVec::new(Opts::new(name, help), labels))
}

fn gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    register(registry, IntGaugeVec::new(Opts::new(name, help), labels))
}

fn single_gauge(registry: &Registry, name: &str, help: &str) -> IntGauge {
    register(registry, IntGauge::new(name, help))
}

fn single_counter(registry: &Registry, name: &str, help: &str) -> IntCounter {
    register(registry, IntCounter::new(name, help))
}

fn histograms(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> HistogramVec {
    register(
        registry,
        HistogramVec::new(
            HistogramOpts::new(name, help).buckets(DURATION_BUCKETS.to_vec()),
            labels,
        ),
    )
}

/// Fails only for a wrong or repeated definition above, which every test of this module would hit.
fn register<M: prometheus::core::Collector + Clone + 'static>(
    registry: &Registry,
    metric: prometheus::Result<M>,
) -> M {
    match metric.and_then(|metric| registry.register(Box::new(metric.clone())).map(|()| metric)) {
        Ok(metric) => metric,
        Err(error) => unreachable!("a metric is defined wrongly: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(metrics: &Metrics) -> String {
        String::from_utf8(metrics.render().unwrap()).unwrap()
    }

    #[test]
    fn series_exist_before_the_first_request() {
        let page = page(&Metrics::new());
        for line in [
            "config_operations_total{operation=\"set\"} 0",
            "config_errors_total{code=\"NO_LEADER\",operation=\"get\"} 0",
            "cache_hits_total{tier=\"l1\"} 0",
            "cache_misses_total{tier=\"l2\"} 0",
            "http_requests_total{method=\"GET\",route=\"unmatched\",status=\"200\"} 0",
        ] {
            assert!(page.contains(line), "{line} is not in\n{page}");
        }
    }

    #[test]
    fn requests_are_counted_by_template_and_known_method() {
        let metrics = Metrics::new();
        metrics.http("GET", "/health", 503, Duration::from_millis(3));
        metrics.http("BREW", "unmatched", 405, Duration::from_millis(3));
        let page = page(&metrics);
        assert!(
            page.contains("http_requests_total{method=\"GET\",route=\"/health\",status=\"503\"} 1"),
            "{page}"
        );
        assert!(
            page.contains(
                "http_requests_total{method=\"OTHER\",route=\"unmatched\",status=\"405\"} 1"
            ),
            "{page}"
        );
        assert!(
            page.contains(
                "http_request_duration_seconds_count{method=\"GET\",route=\"/health\"} 1"
            ),
            "{page}"
        );
    }

    #[test]
    fn connections_are_counted_while_they_live() {
        let metrics = Metrics::new();
        let one = metrics.connection("http");
        let two = metrics.connection("http");
        assert!(page(&metrics).contains("llm_config_connections{listener=\"http\"} 2"));
        drop((one, two));
        assert!(page(&metrics).contains("llm_config_connections{listener=\"http\"} 0"));
    }

    #[test]
    fn processor_time_is_not_rounded_to_seconds() {
        let metrics = Metrics::new();
        let mut waste = 0_u64;
        // Ends when the process has used a fraction of a second, however fast the machine is.
        for round in 0..u64::MAX {
            waste = waste.wrapping_mul(31).wrapping_add(round);
            if round % 1_000_000 == 0 {
                let page = page(&metrics);
                let line =
                    page.lines().find(|l| l.starts_with("process_cpu_seconds_total ")).unwrap();
                let seconds: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
                if seconds.fract() > 0.0 {
                    return;
                }
            }
        }
        panic!("processor time has no fraction ({waste})");
    }
}
