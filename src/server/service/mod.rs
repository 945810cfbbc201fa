//! The use cases of a node, in one place for every gateway: parse, check, then propose or read.
//!
//! It renders nothing and knows no transport. Each call counts itself once, by operation and by error code.

mod audit;
mod backup;
mod cursor;
mod diff;
mod entry;
mod export;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod members;
mod pages;
mod read;
mod recorder;
mod requests;
mod schemas;
mod secrets;
mod security;
mod shared;
mod watches;
mod writes;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use llm_config_cache::CacheSize;
use llm_config_domain::{
    Action, Address, Environment, Key, Namespace, Need, QueryError, Rejection,
};
use llm_config_replica::{Replica, Status, View};

use crate::access::{Access, Caller};
use crate::admission::Admission;
use crate::backups::{BackupLimits, Backups};
use crate::error::{Effect, ServiceError};
use crate::limits::Limits;
use crate::metrics::{Metrics, StorageRead};
use crate::schemas::Schemas;
use crate::secrets::DataKeys;
use recorder::Recorder;

pub use audit::{AuditAnswer, AuditRequest, AuditVerdict};
pub use entry::{Entered, Knock, TurnedAway};
pub use export::Export;
pub use members::AddMemberRequest;
pub use requests::*;
pub use secrets::{KeyRing, KeyState, Rotation};
pub use security::{CreateTokenRequest, CreatedToken, GrantRequest, PutRoleRequest, WhoAmI};
pub use shared::{Shared, SharedLimits};

/// Every value of the label `operation`.
pub const OPERATIONS: [&str; 41] = [
    "set",
    "get",
    "delete",
    "list",
    "rollback",
    "txn",
    "watch",
    "history",
    "diff",
    "resolve",
    "namespaces",
    "cluster",
    "compact",
    "cache_clear",
    "member_add",
    "member_promote",
    "member_demote",
    "member_remove",
    "member_replace",
    "transfer_leader",
    "backup",
    "backups",
    "token_create",
    "tokens",
    "token_revoke",
    "role_put",
    "roles",
    "role_delete",
    "whoami",
    "bans",
    "ban_lift",
    "audit",
    "audit_verify",
    "audit_retention",
    "keys",
    "keys_rotate",
    "export",
    "schema_put",
    "schema_get",
    "schemas",
    "schema_delete",
];

/// What stands between a caller and the store.
pub struct Guards {
    pub access: Access,
    pub limits: Limits,
    pub keys: DataKeys,
    pub schemas: Schemas,
}

/// The bounds of the service.
#[derive(Debug, Clone, Copy)]
pub struct ServiceLimits {
    /// Longest time that a call may take.
    pub request_timeout: Duration,
    /// Calls in flight.
    pub requests: usize,
    /// Bytes of request bodies in flight.
    pub request_bytes: usize,
    pub backups: BackupLimits,
}

impl Default for ServiceLimits {
    fn default() -> Self {
        ServiceLimits {
            request_timeout: Duration::from_secs(5),
            requests: 4_096,
            request_bytes: 64 << 20,
            backups: BackupLimits::default(),
        }
    }
}

/// A handle; clones share everything.
#[derive(Clone)]
pub struct Service {
    inner: Arc<Inner>,
}

struct Inner {
    replica: Replica,
    shared: Arc<Shared>,
    metrics: Arc<Metrics>,
    admission: Admission,
    backups: Backups,
    guards: Arc<Guards>,
    recorder: Recorder,
    /// Walks along the audit log.
    walks: Arc<tokio::sync::Semaphore>,
    exports: Arc<tokio::sync::Semaphore>,
    /// Checks of values that take longer.
    checks: Arc<tokio::sync::Semaphore>,
    request_timeout: Duration,
    started: Instant,
    /// A compaction of this node's storage is under way.
    compacting: AtomicBool,
}

impl Service {
    pub fn new(
        replica: Replica,
        shared: Arc<Shared>,
        metrics: Arc<Metrics>,
        limits: ServiceLimits,
    ) -> Self {
        shared.seed(replica.applied_revision());
        let guards = Arc::clone(shared.guards());
        guards.access.reload(&replica.view());
        guards.schemas.reload(&replica.view());
        let recorder = Recorder::new(replica.clone(), metrics.clone());
        let admission = Admission::new(limits.requests, limits.request_bytes, metrics.clone());
        let backups = Backups::new(replica.clone(), metrics.clone(), limits.backups);
        let inner = Inner {
            replica,
            shared,
            metrics,
            admission,
            backups,
            guards,
            recorder,
            walks: audit::walks(),
            exports: export::slots(),
            checks: schemas::slots(),
            request_timeout: limits.request_timeout,
            started: Instant::now(),
            compacting: AtomicBool::new(false),
        };
        Service { inner: Arc::new(inner) }
    }

    /// A call of somebody that ends after `timeout`, and after the configured time at the latest.
    pub fn context(&self, caller: Caller, timeout: Option<Duration>) -> Context {
        Context { caller, begun: Instant::now(), deadline: self.deadline(timeout) }
    }

    /// When a call ends that begins now.
    pub fn deadline(&self, timeout: Option<Duration>) -> Instant {
        let timeout = timeout
            .map_or(self.inner.request_timeout, |asked| asked.min(self.inner.request_timeout));
        Instant::now() + timeout
    }

    pub fn replica(&self) -> &Replica {
        &self.inner.replica
    }

    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.inner.metrics
    }

    pub fn admission(&self) -> &Admission {
        &self.inner.admission
    }

    pub fn backups(&self) -> &Backups {
        &self.inner.backups
    }

    pub fn started(&self) -> Instant {
        self.inner.started
    }

    /// The cluster as this node sees it, for everybody who was let in.
    pub async fn cluster(&self, context: &Context) -> Result<Status, ServiceError> {
        let again = self.authorize(context, &[]).await;
        self.counted(context, "cluster", again.map(|()| self.inner.replica.status()))
    }

    /// Revisions that the cache is behind storage; it does not answer while it is.
    pub fn cache_lag(&self) -> u64 {
        self.inner.shared.lag(self.inner.replica.applied_revision())
    }

    /// Memory that the cache of entries uses and may use, and how many it holds.
    pub fn cache_size(&self) -> CacheSize {
        self.inner.shared.cache.size()
    }

    /// How many watches are taken at a time.
    pub fn watches_max(&self) -> usize {
        self.inner.shared.hub.watchers_max()
    }

    /// Ends every watch, so that their connections can be drained.
    pub fn stop_watches(&self) {
        self.inner.shared.hub.stop();
    }

    fn counted<T>(
        &self,
        context: &Context,
        operation: &'static str,
        result: Result<T, ServiceError>,
    ) -> Result<T, ServiceError> {
        self.inner.metrics.operation(operation, context.begun.elapsed());
        if let Err(error) = &result {
            self.inner.metrics.error(operation, error.code());
        }
        result
    }

    /// The same for an operation on entries of one environment.
    fn counted_in<T>(
        &self,
        context: &Context,
        operation: &'static str,
        environment: Option<Environment>,
        result: Result<T, ServiceError>,
    ) -> Result<T, ServiceError> {
        if let (Some(environment), Err(error)) = (environment, &result) {
            self.inner.metrics.environment_error(environment, error.code());
        }
        self.counted(context, operation, result)
    }

    /// The applied state, and the revision that it is at.
    fn view(&self) -> Result<(View, u64), ServiceError> {
        let view = self.inner.replica.view();
        let revision = view
            .revision()
            .map_err(|error| query_error(error, 0, || "there is no state".into()))?;
        Ok((view, revision))
    }

    /// Holds an answer from storage back until the cache has seen its revision too, so that reads of one node never go
    /// back. Storage is ahead only while one batch is being taken over.
    async fn await_published(&self, context: &Context, revision: u64) -> Result<(), ServiceError> {
        let shared = &self.inner.shared;
        if shared.abreast_of(revision).is_some() {
            return Ok(());
        }
        tokio::time::timeout_at(context.deadline.into(), shared.hub.reached(revision))
            .await
            .map_err(|_| ServiceError::Overloaded { reason: "changes are being taken over".into() })
    }

    /// Runs a read that may touch many blocks off the threads that serve connections.
    async fn on_view<T: Send + 'static>(
        &self,
        context: &Context,
        read: impl FnOnce(&View, u64) -> Result<T, ServiceError> + Send + 'static,
    ) -> Result<T, ServiceError> {
        let service = self.clone();
        let task = tokio::task::spawn_blocking(move || {
            let begun = Instant::now();
            let (view, revision) = service.view()?;
            let result = read(&view, revision);
            service.inner.metrics.storage_read(StorageRead::Scan, begun.elapsed());
            Ok::<_, ServiceError>((result, revision))
        });
        let (result, revision) = match tokio::time::timeout_at(context.deadline.into(), task).await
        {
            Ok(Ok(read)) => read?,
            Ok(Err(error)) => return Err(internal(format!("the read broke off: {error}"))),
            Err(_) => {
                return Err(ServiceError::Overloaded {
                    reason: "the read did not finish in time".into(),
                });
            }
        };
        self.await_published(context, revision).await?;
        result
    }
}

fn internal(reason: String) -> ServiceError {
    ServiceError::Internal { reason, effect: Effect::No }
}

/// Renders a refusal of the state machine; `what` says what a "not found" was about.
fn refused(rejection: Rejection, what: impl FnOnce() -> String) -> ServiceError {
    match rejection {
        Rejection::NotFound => ServiceError::NotFound { what: what(), revision: None },
        Rejection::VersionConflict { current_version } => {
            ServiceError::VersionConflict { current_version }
        }
        Rejection::Compacted { oldest_revision } => {
            ServiceError::RevisionCompacted { oldest_revision }
        }
        Rejection::IdempotencyKeyReused => ServiceError::IdempotencyKeyReused,
        Rejection::IdempotencyTableFull => ServiceError::Overloaded {
            reason: "too many idempotency keys were used in the last 10 minutes".into(),
        },
        Rejection::NotFounded => {
            ServiceError::NotReady { reason: "the cluster is being founded".into() }
        }
        Rejection::TooLarge { what, limit, .. } => {
            ServiceError::PayloadTooLarge { what: what.into(), limit }
        }
        Rejection::InvalidArgument(invalid) => invalid.into(),
        Rejection::Unauthenticated => {
            ServiceError::Unauthenticated { reason: "the token was revoked or has expired".into() }
        }
        Rejection::PermissionDenied { need } => {
            ServiceError::PermissionDenied { reason: format!("not allowed (any more): {need}") }
        }
        Rejection::EntryIsSecret => ServiceError::invalid(
            "secret",
            "the entry is a secret; send true, or false to store this value in the clear",
        ),
        // Answers to commands that only nodes propose, or that are made again.
        Rejection::AlreadyFounded { .. }
        | Rejection::NodeIdTaken { .. }
        | Rejection::NodeRemoved { .. }
        | Rejection::AlreadyBootstrapped
        | Rejection::TokenExists { .. }
        | Rejection::SealedForOther { .. }
        | Rejection::NeedsReseal { .. }
        | Rejection::UnknownKey { .. }
        | Rejection::KeyVersion { .. }
        | Rejection::KeyInUse
        | Rejection::SchemaChanged { .. } => internal(rejection.to_string()),
    }
}

fn query_error(error: QueryError, revision: u64, what: impl FnOnce() -> String) -> ServiceError {
    match error {
        QueryError::Refused(Rejection::NotFound) => {
            ServiceError::NotFound { what: what(), revision: Some(revision) }
        }
        QueryError::Refused(rejection) => refused(rejection, what),
        QueryError::Store(error) => internal(format!("storage: {error}")),
    }
}

/// The right that managing tokens, roles, bans and keys needs.
const AUTH: Need = Need::Everywhere(Action::Auth);

/// The environment that a request names, if it names one.
fn named(text: &str) -> Option<Environment> {
    environment(text).ok()
}

/// An empty environment means base.
fn environment(text: &str) -> Result<Environment, ServiceError> {
    if text.is_empty() { Ok(Environment::Base) } else { Ok(Environment::parse(text)?) }
}

impl Target {
    pub(crate) fn parse(&self) -> Result<Address, ServiceError> {
        Ok(Address {
            namespace: Namespace::parse(&self.namespace)?,
            key: Key::parse(&self.key)?,
            environment: environment(&self.environment)?,
        })
    }
}
