//! One namespace in one environment, as an application sees it: what the typed calls begin with.
//!
//! It holds no connection and sends nothing; what can be read and written through it stands in `reads`, `writes`, `pages`,
//! `transaction` and `live`.

use std::sync::Arc;
use std::time::Duration;

use crate::client::Client;
use crate::environment::Environment;
use crate::v1::{Consistency, ReadOptions};

/// A namespace in one environment; see [`Client::namespace`]. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Namespace {
    pub(crate) client: Client,
    pub(crate) name: Arc<str>,
    pub(crate) environment: Environment,
    pub(crate) freshness: Freshness,
}

/// One entry, to be named in a transaction; see [`Namespace::key`].
#[derive(Debug, Clone)]
pub struct Key {
    pub(crate) namespace: Arc<str>,
    pub(crate) environment: Environment,
    pub(crate) key: String,
}

impl Client {
    /// A namespace, like `shop/assistant`, in the environment `base` until [`Namespace::environment`] says otherwise. A name
    /// that cannot be one is refused by the first call.
    #[must_use]
    pub fn namespace(&self, name: impl Into<String>) -> Namespace {
        Namespace {
            client: self.clone(),
            name: name.into().into(),
            environment: Environment::default(),
            freshness: Freshness::default(),
        }
    }
}

impl Namespace {
    /// The same namespace in another environment.
    #[must_use]
    pub fn environment(mut self, environment: Environment) -> Self {
        self.environment = environment;
        self
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// One entry of it, to be named in a [`Transaction`](crate::Transaction).
    #[must_use]
    pub fn key(&self, key: impl Into<String>) -> Key {
        Key { namespace: Arc::clone(&self.name), environment: self.environment, key: key.into() }
    }

    pub(crate) fn environment_name(&self) -> String {
        self.environment.as_str().to_owned()
    }
}

/// How fresh a read has to be. Says nothing by default, which is `cached`, within the client's session.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Freshness {
    pub(crate) linearizable: Option<bool>,
    pub(crate) min_revision: Option<u64>,
    pub(crate) max_staleness: Option<Duration>,
}

impl Freshness {
    pub(crate) fn options(self) -> Option<ReadOptions> {
        let consistency = match self.linearizable {
            Some(true) => Consistency::Linearizable,
            Some(false) => Consistency::Cached,
            None => Consistency::Unspecified,
        };
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let options = ReadOptions {
            consistency: consistency.into(),
            min_revision: self.min_revision,
            max_staleness_ms: self.max_staleness.map(ms),
        };
        (options != ReadOptions::default()).then_some(options)
    }
}

/// The four choices about a read, for every type that has a `freshness`.
macro_rules! freshness {
    () => {
        /// Reads what the answering node has applied, without a word to the others: the fastest, and the default. Within the
        /// client's session it never goes back.
        #[must_use = "this chooses, and reads nothing yet"]
        pub fn cached(mut self) -> Self {
            self.freshness.linearizable = Some(false);
            self
        }

        /// Reads every change that was acknowledged before, by anybody: the node confirms with the leader.
        #[must_use = "this chooses, and reads nothing yet"]
        pub fn linearizable(mut self) -> Self {
            self.freshness.linearizable = Some(true);
            self
        }

        /// The node waits until it has applied this revision.
        #[must_use = "this chooses, and reads nothing yet"]
        pub fn min_revision(mut self, revision: u64) -> Self {
            self.freshness.min_revision = Some(revision);
            self
        }

        /// Asks another node when this one has not heard from a leader for so long (in whole milliseconds); when all are
        /// like that, the call ends as [`Error::NotSent`](crate::Error::NotSent).
        #[must_use = "this chooses, and reads nothing yet"]
        pub fn max_staleness(mut self, staleness: std::time::Duration) -> Self {
            self.freshness.max_staleness = Some(staleness);
            self
        }
    };
}
pub(crate) use freshness;

impl Namespace {
    freshness!();
}
