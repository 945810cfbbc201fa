//! Typed writes of one entry. Each is one write, however often it has to be sent.

use std::future::IntoFuture;
use std::time::SystemTime;

use serde::Serialize;

use crate::error::Error;
use crate::namespace::Namespace;
use crate::reads::Answer;
use crate::v1;
use crate::value::encode;

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Written {
    /// The entry's version now.
    pub version: u64,
    /// The revision of the store that the write made.
    pub revision: u64,
    /// The entry did not exist before.
    pub created: bool,
    /// When it was made, by the leader's clock; absent for a delete.
    pub updated_at: Option<SystemTime>,
}

impl Written {
    pub(crate) fn of(entry: &v1::Entry, created: bool) -> Self {
        Self {
            version: entry.version,
            revision: entry.revision,
            created,
            updated_at: entry.updated_at.and_then(|at| SystemTime::try_from(at).ok()),
        }
    }
}

/// A write of one entry; see [`Namespace::set`]. Awaited, it is [`Written`].
#[derive(Debug)]
#[must_use = "nothing is sent before it is awaited"]
pub struct Set {
    namespace: Namespace,
    request: Result<v1::SetRequest, Error>,
}

/// A delete of one entry; see [`Namespace::delete`]. Awaited, it is [`Written`].
#[derive(Debug)]
#[must_use = "nothing is sent before it is awaited"]
pub struct Delete {
    namespace: Namespace,
    request: v1::DeleteRequest,
}

/// A rollback of one entry; see [`Namespace::rollback`]. Awaited, it is [`Written`].
#[derive(Debug)]
#[must_use = "nothing is sent before it is awaited"]
pub struct Rollback {
    namespace: Namespace,
    request: v1::RollbackRequest,
}

impl Namespace {
    /// Writes one entry, as JSON.
    ///
    /// Awaited, it fails as [`Error::Rejected`], [`Error::NotSent`] (nothing happened) or [`Error::OutcomeUnknown`]; or as
    /// [`Error::Serialize`] before anything is sent.
    ///
    /// ```no_run
    /// # use llm_config_client::{Error, Namespace};
    /// # async fn example(app: &Namespace) -> Result<(), Error> {
    /// let written = app.set("temperature", &0.2).comment("less lively").expected_version(3).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn set<T: Serialize + ?Sized>(&self, key: impl Into<String>, value: &T) -> Set {
        let key = key.into();
        let request = encode(value, self.name(), &key).map(|value| v1::SetRequest {
            namespace: self.name().to_owned(),
            key,
            environment: self.environment_name(),
            value: value.into(),
            ..Default::default()
        });
        Set { namespace: self.clone(), request }
    }

    /// Deletes one entry of this very environment; `NOT_FOUND` when there is none (see [`Error::is_not_found`]).
    pub fn delete(&self, key: impl Into<String>) -> Delete {
        let request = v1::DeleteRequest {
            namespace: self.name().to_owned(),
            key: key.into(),
            environment: self.environment_name(),
            ..Default::default()
        };
        Delete { namespace: self.clone(), request }
    }

    /// Makes a new version of an entry, with the value of an old one.
    pub fn rollback(&self, key: impl Into<String>, version: u64) -> Rollback {
        let request = v1::RollbackRequest {
            namespace: self.name().to_owned(),
            key: key.into(),
            environment: self.environment_name(),
            version,
            ..Default::default()
        };
        Rollback { namespace: self.clone(), request }
    }
}

impl Set {
    fn with(mut self, change: impl FnOnce(&mut v1::SetRequest)) -> Self {
        if let Ok(request) = &mut self.request {
            change(request);
        }
        self
    }

    /// Why this change.
    pub fn comment(self, comment: impl Into<String>) -> Self {
        self.with(|request| request.comment = comment.into())
    }

    /// What the entry is for.
    pub fn description(self, description: impl Into<String>) -> Self {
        self.with(|request| request.description = description.into())
    }

    /// Its tags.
    pub fn tags<S: Into<String>>(self, tags: impl IntoIterator<Item = S>) -> Self {
        self.with(|request| request.tags = tags.into_iter().map(Into::into).collect())
    }

    /// Whether the value, which has to be a string then, is stored encrypted. Without a word it stays as the entry is.
    pub fn secret(self, secret: bool) -> Self {
        self.with(|request| request.secret = Some(secret))
    }

    /// Only if the entry has this version, else `VERSION_CONFLICT` (see [`Error::is_version_conflict`]). 0: it must not
    /// exist.
    pub fn expected_version(self, version: u64) -> Self {
        self.with(|request| request.expected_version = Some(version))
    }

    /// Only if the entry does not exist.
    pub fn if_absent(self) -> Self {
        self.expected_version(0)
    }

    /// The key that tells this write from others, at most 64 bytes: sent again with the same one within ten minutes, also by
    /// another process, it is done once. A fresh one without.
    pub fn idempotency_key(self, key: impl Into<String>) -> Self {
        self.with(|request| request.idempotency_key = key.into())
    }
}

impl IntoFuture for Set {
    type Output = Result<Written, Error>;
    type IntoFuture = Answer<Written>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let response = self.namespace.client.set(self.request?).await?;
            let entry = response.entry.ok_or(Error::Malformed { missing: "entry" })?;
            Ok(Written::of(&entry, response.created))
        })
    }
}

macro_rules! common_choices {
    () => {
        /// Why this change.
        pub fn comment(mut self, comment: impl Into<String>) -> Self {
            self.request.comment = comment.into();
            self
        }

        /// Only if the entry has this version, else `VERSION_CONFLICT`.
        pub fn expected_version(mut self, version: u64) -> Self {
            self.request.expected_version = Some(version);
            self
        }

        /// As [`Set::idempotency_key`].
        pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
            self.request.idempotency_key = key.into();
            self
        }
    };
}

impl Delete {
    common_choices!();
}

impl IntoFuture for Delete {
    type Output = Result<Written, Error>;
    type IntoFuture = Answer<Written>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let v1::DeleteResponse { version, revision } =
                self.namespace.client.delete(self.request).await?;
            Ok(Written { version, revision, created: false, updated_at: None })
        })
    }
}

impl Rollback {
    common_choices!();
}

impl IntoFuture for Rollback {
    type Output = Result<Written, Error>;
    type IntoFuture = Answer<Written>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let entry = self.namespace.client.rollback(self.request).await?;
            Ok(Written::of(&entry, false))
        })
    }
}
