//! What a long-lived stream may show: judged anew whenever the policy changes, and over when the caller is nobody any more.

use llm_config_domain::{Action, Address, Environment, Namespace};
use tokio::sync::watch;

use super::{Access, Caller};
use crate::error::ServiceError;

/// What somebody may see of the entries that they watch.
pub struct Sight {
    access: Access,
    caller: Caller,
    namespace: Option<Namespace>,
    environment: Option<Environment>,
    changes: watch::Receiver<u64>,
}

impl Sight {
    /// Of a namespace and an environment, or of all of them.
    #[must_use]
    pub fn new(
        access: Access,
        caller: Caller,
        namespace: Option<Namespace>,
        environment: Option<Environment>,
    ) -> Self {
        let changes = access.changes();
        Sight { access, caller, namespace, environment, changes }
    }

    /// What is missing when nothing can be seen.
    #[must_use]
    pub fn blind(&self) -> Option<String> {
        let rights = &self.caller.rights;
        let sees = match (&self.namespace, self.environment) {
            (Some(namespace), Some(environment)) => {
                rights.allow(Action::Read, namespace, environment)
            }
            (Some(namespace), None) => rights.allow_in_some(Action::Read, namespace),
            (None, environment) => rights.allow_anywhere(Action::Read, environment),
        };
        let environment = self.environment.map_or("any", Environment::as_str);
        let namespace = self.namespace.as_ref().map_or("any", Namespace::as_str);
        (!sees).then(|| format!("read in namespace {namespace}, environment {environment}"))
    }

    /// Looks at the policy again.
    ///
    /// # Errors
    /// [`ServiceError::Unauthenticated`] when the caller is nobody any more, [`ServiceError::PermissionDenied`] when
    /// there is nothing left to see.
    pub fn check(&mut self, now_ms: u64) -> Result<(), ServiceError> {
        let changed = self.changes.has_changed().unwrap_or(false);
        if !changed && !self.caller.is_expired(now_ms) {
            return Ok(());
        }
        self.changes.mark_unchanged();
        self.caller = self.access.again(&self.caller, now_ms)?.into_owned();
        match self.blind() {
            None => Ok(()),
            Some(need) => Err(ServiceError::PermissionDenied {
                reason: format!("{} may not any more: {need}", self.caller.name),
            }),
        }
    }

    /// Whether an entry may be shown.
    #[must_use]
    pub fn sees(&self, address: &Address) -> bool {
        self.caller.rights.allow(Action::Read, &address.namespace, address.environment)
    }

    /// Returns when it is time to look again.
    pub async fn changed(&mut self) {
        // Without a sender the node ends, and every stream with it.
        if self.changes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        // `check` is to see it.
        self.changes.mark_changed();
    }
}
