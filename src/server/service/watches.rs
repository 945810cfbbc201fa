//! Opening a watch: which changes, from where, out of the replica's change log.

use std::sync::Arc;

use llm_config_domain::{Environment, Namespace, limits, query};
use llm_config_replica::Replica;

use super::pages::check_prefix;
use super::{Context, Service, WatchRequest, query_error};
use crate::access::Sight;
use crate::error::ServiceError;
use crate::watch::{ChangeLog, Filter, PULL_BYTES, WatchBatch, Watcher};

/// The change log of the replicated state.
struct ReplicatedLog(Replica);

impl ChangeLog for ReplicatedLog {
    fn revision(&self) -> Result<u64, ServiceError> {
        let unreadable = |error| query_error(error, 0, || "there is no state".into());
        self.0.view().revision().map_err(unreadable)
    }

    fn changes(&self, from: u64, limit: usize) -> Result<Vec<WatchBatch>, ServiceError> {
        let view = self.0.view();
        let found = query::changes_within(&view, from, limit, PULL_BYTES)
            .map_err(|error| query_error(error, from, || "there is no such revision".into()))?;
        Ok(found
            .into_iter()
            .map(|made| WatchBatch { revision: made.revision, changes: made.changes })
            .collect())
    }
}

impl Service {
    /// Errors that can be told before the stream begins are told here.
    pub async fn watch(
        &self,
        context: &Context,
        request: WatchRequest,
    ) -> Result<Watcher, ServiceError> {
        let result = self.open_watch(context, request).await;
        self.counted(context, "watch", result)
    }

    async fn open_watch(
        &self,
        context: &Context,
        request: WatchRequest,
    ) -> Result<Watcher, ServiceError> {
        let filter = filter(&request)?;
        self.authorize(context, &[]).await?;
        let sight = Sight::new(
            self.inner.guards.access.clone(),
            context.caller.clone(),
            filter.namespace.clone(),
            filter.environment,
        );
        if let Some(need) = sight.blind() {
            return Err(self.deny(&context.caller, need).await);
        }
        if !self.replica().recovered() {
            return Err(ServiceError::NotReady { reason: "it is replaying its log".into() });
        }
        let log = Arc::new(ReplicatedLog(self.replica().clone()));
        let opening = self.inner.shared.hub.watch(log, filter, sight, request.from);
        match tokio::time::timeout_at(context.deadline.into(), opening).await {
            Ok(result) => result,
            Err(_) => Err(ServiceError::Overloaded {
                reason: "the change log could not be read in time".into(),
            }),
        }
    }
}

fn filter(request: &WatchRequest) -> Result<Filter, ServiceError> {
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    check_prefix("prefix", &request.prefix, limits::KEY_BYTES_MAX)?;
    check_prefix("namespace_prefix", &request.namespace_prefix, limits::NAMESPACE_BYTES_MAX)?;
    if given(&request.namespace).is_some() && !request.namespace_prefix.is_empty() {
        let reason = "cannot be combined with namespace; give one of both";
        return Err(ServiceError::invalid("namespace_prefix", reason));
    }
    Ok(Filter {
        namespace: given(&request.namespace).map(|text| Namespace::parse(&text)).transpose()?,
        namespace_prefix: request.namespace_prefix.clone(),
        prefix: request.prefix.clone(),
        environment: given(&request.environment)
            .map(|text| Environment::parse(&text))
            .transpose()?,
    })
}
