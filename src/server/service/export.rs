//! All entries of a namespace in one environment, at one revision, in parts.
//!
//! The parts are read through one view, each when the one before was taken. A view keeps old versions alive in storage, so
//! exports are few at a time, and end.

use std::sync::Arc;
use std::time::Duration;

use llm_config_domain::{Action, Entry, Environment, Key, ListQuery, Namespace, Need, query};
use llm_config_replica::View;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::pages::collect;
use super::{Context, ExportRequest, Service, environment, internal, query_error};
use crate::error::ServiceError;

/// Exports at a time.
const EXPORTS_MAX: usize = 8;
/// Longest time that one may take.
const TIME_MAX: Duration = Duration::from_secs(60);
/// Entries in one part, at most; a part ends before that once it holds enough bytes.
const PART_ENTRIES: usize = 1_000;

pub(super) fn slots() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(EXPORTS_MAX))
}

/// An export under way.
pub struct Export {
    service: Service,
    view: View,
    pub revision: u64,
    namespace: Namespace,
    environment: Environment,
    after: Option<Key>,
    more: bool,
    ends: Instant,
    _slot: OwnedSemaphorePermit,
}

impl Service {
    /// Begins an export; an error that can be told before is told here.
    pub async fn export(
        &self,
        context: &Context,
        request: ExportRequest,
    ) -> Result<Export, ServiceError> {
        let environment = super::named(&request.environment);
        let result = self.begin_export(context, request).await;
        self.counted_in(context, "export", environment, result)
    }

    async fn begin_export(
        &self,
        context: &Context,
        request: ExportRequest,
    ) -> Result<Export, ServiceError> {
        let namespace = Namespace::parse(&request.namespace)?;
        let environment = environment(&request.environment)?;
        let need = Need::At { action: Action::Read, namespace: namespace.clone(), environment };
        self.fresh(context, &request.read, &[need]).await?;
        let slot = Arc::clone(&self.inner.exports).try_acquire_owned().map_err(|_| {
            self.inner.metrics.overloaded("exports");
            ServiceError::Overloaded { reason: format!("{EXPORTS_MAX} exports are under way") }
        })?;
        let (view, revision) = self.view()?;
        self.await_published(context, revision).await?;
        Ok(Export {
            service: self.clone(),
            view,
            revision,
            namespace,
            environment,
            after: None,
            more: true,
            ends: Instant::now() + TIME_MAX,
            _slot: slot,
        })
    }
}

impl Export {
    /// The next part, which may be the last and empty; nothing after it.
    pub async fn next(&mut self) -> Result<Option<Vec<Entry>>, ServiceError> {
        if !self.more {
            return Ok(None);
        }
        let query = ListQuery {
            namespace: self.namespace.clone(),
            environment: self.environment,
            prefix: String::new(),
            after: self.after.take(),
            limit: 0,
        };
        let (view, revision) = (self.view.clone(), self.revision);
        let reading = tokio::task::spawn_blocking(move || {
            collect(
                PART_ENTRIES,
                query.after.clone(),
                Entry::size,
                |entry| entry.address.key.clone(),
                |after, limit| {
                    let part = ListQuery { after, limit, ..query.clone() };
                    query::list(&view, &part).map_err(|error| {
                        query_error(error, revision, || "there is no such namespace".into())
                    })
                },
            )
        });
        let late = |_| {
            let what = format!("an export takes at most {} s", TIME_MAX.as_secs());
            self.service.metrics().overloaded("exports");
            ServiceError::Overloaded { reason: what }
        };
        let read = tokio::time::timeout_at(self.ends, reading).await.map_err(late)?;
        let page = read.map_err(|error| internal(format!("the export broke off: {error}")))??;
        self.after = page.items.last().map(|entry| entry.address.key.clone());
        self.more = page.more;
        Ok(Some(page.items))
    }
}
