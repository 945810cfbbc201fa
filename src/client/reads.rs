//! Typed reads of a namespace: one entry, a secret, or all of it as an application sees it.

use std::future::IntoFuture;
use std::marker::PhantomData;
use std::pin::Pin;

use serde::de::DeserializeOwned;

use crate::error::Error;
use crate::namespace::{Freshness, Namespace, freshness};
use crate::v1;
use crate::value::{Resolved, Versioned, decode_namespace};
use crate::watch::Watch;

/// What a typed call turns into when it is awaited.
pub(crate) type Answer<T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send>>;

/// A read of one entry; see [`Namespace::get`]. Awaited, it is `Option<Versioned<T>>`.
#[derive(Debug)]
#[must_use = "nothing is sent before it is awaited"]
pub struct Get<T> {
    namespace: Namespace,
    request: v1::GetRequest,
    freshness: Freshness,
    type_: PhantomData<fn() -> T>,
}

/// A read of a whole namespace; see [`Namespace::resolve`]. Awaited, it is [`Resolved<T>`].
#[derive(Debug)]
#[must_use = "nothing is sent before it is awaited"]
pub struct Resolve<T> {
    namespace: Namespace,
    reveal: bool,
    freshness: Freshness,
    type_: PhantomData<fn() -> T>,
}

/// A watch about to be opened; see [`Namespace::watch`] and [`Client::watch_namespaces`](crate::Client::watch_namespaces).
#[derive(Debug)]
#[must_use = "nothing is watched before `start`"]
pub struct WatchBuilder {
    client: crate::Client,
    request: v1::WatchRequest,
}

impl Namespace {
    /// Reads one entry of this very environment; `None` when there is none. A secret is masked: see [`Namespace::reveal`].
    ///
    /// ```no_run
    /// # use llm_config_client::{Error, Namespace};
    /// # async fn example(app: &Namespace) -> Result<(), Error> {
    /// let limit = app.get::<u32>("max_tokens").with_fallback().linearizable().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn get<T: DeserializeOwned>(&self, key: impl Into<String>) -> Get<T> {
        let request = v1::GetRequest {
            namespace: self.name().to_owned(),
            key: key.into(),
            environment: self.environment_name(),
            ..Default::default()
        };
        Get { namespace: self.clone(), request, freshness: self.freshness, type_: PhantomData }
    }

    /// Like [`Namespace::get`], with the plaintext of a secret. Needs the right to reveal, and leaves an audit record.
    pub fn reveal<T: DeserializeOwned>(&self, key: impl Into<String>) -> Get<T> {
        let mut get = self.get(key);
        get.request.reveal = true;
        get
    }

    /// Reads the whole namespace as an application in this environment sees it, with each key as a field of `T`. What the
    /// environment does not have comes from the one that it falls back to.
    pub fn resolve<T: DeserializeOwned>(&self) -> Resolve<T> {
        Resolve {
            namespace: self.clone(),
            reveal: false,
            freshness: self.freshness,
            type_: PhantomData,
        }
    }

    /// Watches the namespace in this environment, from the next change on.
    pub fn watch(&self) -> WatchBuilder {
        let request = v1::WatchRequest {
            namespace: self.name().to_owned(),
            environment: self.environment_name(),
            ..Default::default()
        };
        WatchBuilder { client: self.client.clone(), request }
    }
}

impl crate::Client {
    /// Watches every namespace whose name begins with this (an empty one: all), in all environments, from the next change
    /// on.
    pub fn watch_namespaces(&self, prefix: impl Into<String>) -> WatchBuilder {
        let request = v1::WatchRequest { namespace_prefix: prefix.into(), ..Default::default() };
        WatchBuilder { client: self.clone(), request }
    }
}

impl<T> Get<T> {
    freshness!();

    /// An entry that this environment does not have comes from the one that it falls back to.
    pub fn with_fallback(mut self) -> Self {
        self.request.resolve = true;
        self
    }

    /// An old version instead of the current one.
    pub fn version(mut self, version: u64) -> Self {
        self.request.version = Some(version);
        self
    }
}

impl<T: DeserializeOwned + Send + 'static> IntoFuture for Get<T> {
    type Output = Result<Option<Versioned<T>>, Error>;
    type IntoFuture = Answer<Option<Versioned<T>>>;

    fn into_future(mut self) -> Self::IntoFuture {
        self.request.read = self.freshness.options();
        Box::pin(async move {
            match self.namespace.client.get(self.request).await {
                Ok(entry) if entry.deleted => Ok(None),
                Ok(entry) => Versioned::of(entry).map(Some),
                Err(error) if error.is_not_found() => Ok(None),
                Err(error) => Err(error),
            }
        })
    }
}

impl<T> Resolve<T> {
    freshness!();

    /// With the plaintext of secrets. Needs the right to reveal in every environment that the answer may come from, and
    /// leaves an audit record.
    pub fn reveal(mut self) -> Self {
        self.reveal = true;
        self
    }
}

impl<T: DeserializeOwned + Send + 'static> IntoFuture for Resolve<T> {
    type Output = Result<Resolved<T>, Error>;
    type IntoFuture = Answer<Resolved<T>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let namespace = &self.namespace;
            let request = v1::ResolveRequest {
                namespace: namespace.name().to_owned(),
                environment: namespace.environment_name(),
                read: self.freshness.options(),
                reveal: self.reveal,
            };
            let answer = namespace.client.resolve(request).await?;
            namespace.client.seen(answer.revision);
            Ok(Resolved {
                value: decode_namespace(namespace.name(), &answer.values)?,
                revision: answer.revision,
                sources: answer.values.into_iter().map(|value| (value.key, value.source)).collect(),
            })
        })
    }
}

impl WatchBuilder {
    /// Only keys that begin with this.
    pub fn key_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.request.prefix = prefix.into();
        self
    }

    /// Only this environment.
    pub fn environment(mut self, environment: crate::Environment) -> Self {
        self.request.environment = environment.as_str().to_owned();
        self
    }

    /// All environments.
    pub fn all_environments(mut self) -> Self {
        self.request.environment.clear();
        self
    }

    /// From this revision on, itself included; 0 is the next change. One that is no longer kept ends the watch as
    /// `REVISION_COMPACTED`.
    pub fn from_revision(mut self, revision: u64) -> Self {
        self.request.from_revision = revision;
        self
    }

    /// The watch, which opens when it is first polled.
    #[must_use]
    pub fn start(self) -> Watch {
        self.client.watch(self.request)
    }
}
