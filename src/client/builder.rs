//! A client, made step by step: the endpoints and what is chosen about it.

use std::path::PathBuf;
use std::time::Duration;

use crate::client::Client;
use crate::error::Error;
use crate::options::Options;
use crate::tls::TlsOptions;

/// Makes a [`Client`]; see [`Client::builder`]. Each choice is explained, with its default, in [`Options`].
#[derive(Debug, Clone, Default)]
#[must_use = "nothing happens before `build`"]
pub struct ClientBuilder {
    endpoints: Vec<String>,
    options: Options,
}

impl Client {
    /// A client, made step by step.
    ///
    /// ```no_run
    /// # use llm_config_client::{Client, Error};
    /// # fn main() -> Result<(), Error> {
    /// let client = Client::builder()
    ///     .endpoints(["10.0.0.1:50051", "10.0.0.2:50051"])
    ///     .token_file("/run/secrets/llm-config-token")
    ///     .build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }
}

impl ClientBuilder {
    /// Adds endpoints: client gRPC or HTTP addresses of any nodes, `HOST:PORT` with or without `http://` or `https://`. One that
    /// answers is enough; the others are learned from it.
    pub fn endpoints<E: Into<String>>(mut self, endpoints: impl IntoIterator<Item = E>) -> Self {
        self.endpoints.extend(endpoints.into_iter().map(Into::into));
        self
    }

    /// Adds one endpoint.
    pub fn endpoint(self, endpoint: impl Into<String>) -> Self {
        self.endpoints([endpoint])
    }

    /// Replaces all options at once, those already chosen too.
    pub fn options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// Shows this token with each call; see [`Options::token`].
    pub fn token(mut self, text: impl Into<String>) -> Self {
        self.options = self.options.token(text);
        self
    }

    /// Shows the token in this file with each call; see [`Options::token_file`].
    pub fn token_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.options = self.options.token_file(path);
        self
    }

    /// Sets [`Options::tls`].
    pub fn tls(mut self, tls: TlsOptions) -> Self {
        self.options = self.options.tls(tls);
        self
    }

    /// Sets [`Options::timeout`].
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options = self.options.timeout(timeout);
        self
    }

    /// Sets [`Options::attempt_timeout`].
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.options = self.options.attempt_timeout(timeout);
        self
    }

    /// Sets [`Options::connect_timeout`].
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.options = self.options.connect_timeout(timeout);
        self
    }

    /// Sets [`Options::session`].
    pub fn session(mut self, session: bool) -> Self {
        self.options = self.options.session(session);
        self
    }

    /// Sets [`Options::starting_revision`].
    pub fn starting_revision(mut self, revision: u64) -> Self {
        self.options = self.options.starting_revision(revision);
        self
    }

    /// Sets [`Options::follow_leader`].
    pub fn follow_leader(mut self, follow: bool) -> Self {
        self.options = self.options.follow_leader(follow);
        self
    }

    /// Sets [`Options::follow_members`].
    pub fn follow_members(mut self, follow: bool) -> Self {
        self.options = self.options.follow_members(follow);
        self
    }

    /// Sets [`Options::members_interval`].
    pub fn members_interval(mut self, interval: Duration) -> Self {
        self.options = self.options.members_interval(interval);
        self
    }

    /// The client. It connects when it is first used, so this succeeds without a running cluster.
    ///
    /// # Errors
    /// [`Error::InvalidEndpoint`], also when there is none; [`Error::InvalidTls`], [`Error::InvalidToken`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn build(self) -> Result<Client, Error> {
        Client::with_options(self.endpoints, self.options)
    }
}
