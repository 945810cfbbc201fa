//! The audit log: what is in it, and whether it is whole.

use std::sync::Arc;
use std::time::{Duration, Instant};

use llm_config_domain::audit::{self, AuditBreak, AuditChain};
use llm_config_domain::{
    Action, AuditKind, AuditQuery, AuditRecord, AuditRetention, Namespace, Need, Operation, limits,
    query,
};
use tokio::sync::Semaphore;

use super::cursor::Listing;
use super::{Context, ReadOptions, Service, query_error};
use crate::error::ServiceError;

const NEED: Need = Need::Everywhere(Action::Audit);
/// How long a walk along the chain may take, whatever the time of a request.
const VERIFY_TIMEOUT: Duration = Duration::from_secs(120);

/// Which records, as text. What is absent is not looked at.
#[derive(Debug, Clone, Default)]
pub struct AuditRequest {
    pub kind: Option<String>,
    pub actor: Option<String>,
    pub namespace: Option<String>,
    pub key: Option<String>,
    pub from_ms: Option<u64>,
    pub to_ms: Option<u64>,
    pub oldest_first: bool,
    pub limit: Option<u64>,
    pub cursor: Option<String>,
    pub read: ReadOptions,
}

#[derive(Debug, Clone)]
pub struct AuditAnswer {
    pub items: Vec<AuditRecord>,
    /// A page may be empty and still have a next one: it looked at many records.
    pub next_cursor: Option<String>,
    pub revision: u64,
}

/// A chain that was walked.
#[derive(Debug, Clone)]
pub struct AuditVerdict {
    pub chain: Result<AuditChain, AuditBreak>,
    pub revision: u64,
}

/// One walk at a time: it reads the whole table.
pub(super) fn walks() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(1))
}

impl Service {
    pub async fn audit(
        &self,
        context: &Context,
        request: AuditRequest,
    ) -> Result<AuditAnswer, ServiceError> {
        let result = self.list_records(context, request).await;
        self.counted(context, "audit", result)
    }

    async fn list_records(
        &self,
        context: &Context,
        request: AuditRequest,
    ) -> Result<AuditAnswer, ServiceError> {
        self.authorize(context, &[NEED]).await?;
        let kind = request.kind.as_deref().map(AuditKind::parse).transpose()?;
        if let Some(namespace) = &request.namespace {
            Namespace::parse(namespace)?;
        }
        let limit = super::pages::page_limit(request.limit)?;
        let scope = scope(&request);
        let listing: Vec<&str> = scope.iter().map(String::as_str).collect();
        let after = request.cursor.as_deref().filter(|cursor| !cursor.is_empty());
        let after = after.map(|cursor| position(&Listing(&listing), cursor)).transpose()?;
        self.fresh(context, &request.read, &[NEED]).await?;
        let query = AuditQuery {
            kind,
            actor: request.actor,
            namespace: request.namespace,
            key: request.key,
            from_ms: request.from_ms,
            to_ms: request.to_ms,
            oldest_first: request.oldest_first,
            after,
            limit,
        };
        self.on_view(context, move |view, revision| {
            let found = audit::records(view, &query)
                .map_err(|error| query_error(error, revision, || "there is no audit log".into()))?;
            let listing: Vec<&str> = scope.iter().map(String::as_str).collect();
            let next = found.looked_at.filter(|_| found.page.more);
            let next_cursor = next.map(|at| Listing(&listing).cursor(at.to_string().as_bytes()));
            Ok(AuditAnswer { items: found.page.items, next_cursor, revision })
        })
        .await
    }

    /// Walks this node's chain from the oldest record to the newest.
    pub async fn verify_audit(&self, context: &Context) -> Result<AuditVerdict, ServiceError> {
        let result = self.walk(context).await;
        self.counted(context, "audit_verify", result)
    }

    async fn walk(&self, context: &Context) -> Result<AuditVerdict, ServiceError> {
        self.authorize(context, &[NEED]).await?;
        let turn = self.inner.walks.acquire();
        let turn = tokio::time::timeout_at(context.deadline.into(), turn).await;
        let Ok(Ok(_one_at_a_time)) = turn else {
            return Err(ServiceError::Overloaded {
                reason: "the audit log is being walked".into(),
            });
        };
        let deadline = Instant::now() + VERIFY_TIMEOUT;
        let patient = Context { deadline, ..context.clone() };
        self.on_view(&patient, move |view, revision| {
            let verdict = audit::verify(view, &|| Instant::now() < deadline)
                .map_err(|error| query_error(error, revision, || "there is no audit log".into()))?;
            match verdict {
                Some(chain) => Ok(AuditVerdict { chain, revision }),
                None => Err(ServiceError::Overloaded {
                    reason: "the audit log could not be walked in time".into(),
                }),
            }
        })
        .await
    }

    /// How long records stay.
    pub async fn audit_retention(&self, context: &Context) -> Result<AuditRetention, ServiceError> {
        let result = self.retention(context).await;
        self.counted(context, "audit_retention", result)
    }

    async fn retention(&self, context: &Context) -> Result<AuditRetention, ServiceError> {
        self.authorize(context, &[NEED]).await?;
        let (view, revision) = self.view()?;
        let meta = query::meta(&view)
            .map_err(|error| query_error(error, revision, || "there is no audit log".into()))?;
        Ok(AuditRetention { max_age_ms: meta.audit.max_age_ms, max_bytes: meta.audit.max_bytes })
    }

    pub async fn set_audit_retention(
        &self,
        context: &Context,
        retention: AuditRetention,
    ) -> Result<AuditRetention, ServiceError> {
        let operation = Operation::SetAuditRetention(retention);
        let done = self.administer(context, operation, AuditKind::AdminAuditRetention, "").await;
        self.counted(context, "audit_retention", done.map(|()| retention))
    }
}

/// Everything that selects records: a cursor belongs to one selection.
fn scope(request: &AuditRequest) -> Vec<String> {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let number = |number: Option<u64>| number.map_or_else(String::new, |n| n.to_string());
    vec![
        "audit".into(),
        text(&request.kind),
        text(&request.actor),
        text(&request.namespace),
        text(&request.key),
        number(request.from_ms),
        number(request.to_ms),
        request.oldest_first.to_string(),
    ]
}

fn position(listing: &Listing<'_>, cursor: &str) -> Result<u64, ServiceError> {
    let damaged = || ServiceError::invalid("cursor", "it is damaged");
    let position = listing.position(cursor)?;
    std::str::from_utf8(&position).ok().and_then(|text| text.parse().ok()).ok_or_else(damaged)
}

/// Page sizes are those of every listing.
const _: () = assert!(limits::PAGE_LIMIT_MAX <= limits::AUDIT_SCAN_MAX);
