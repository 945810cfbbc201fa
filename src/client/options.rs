//! What a caller may choose about a [`crate::Client`], with defaults that fit a cluster in one region.

use std::path::PathBuf;
use std::time::Duration;

use crate::tls::TlsOptions;
use crate::token::Token;

/// Choices for a [`crate::Client`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// Total time for one call with all its retries; afterwards the call fails. Default 15 s: longer than an election.
    pub timeout: Duration,
    /// Time for one attempt, so that a node that hangs does not use up the whole call. Default 4 s.
    pub attempt_timeout: Duration,
    /// Time to open a connection. Default 1 s.
    pub connect_timeout: Duration,
    /// Cached reads wait for the highest revision that this client has seen, so they never go back, whichever node
    /// answers, and always see this client's own writes. Default on.
    pub session: bool,
    /// Writes go straight to the leader once it is known. Off: writes rotate over the endpoints like reads, and the
    /// nodes forward them. Default on.
    pub follow_leader: bool,
    /// The members of the cluster are asked for now and then, so that reads are spread over all of them, also those that
    /// were not given as endpoints. Off, or without [`Options::follow_leader`]: this client talks to the given endpoints
    /// (and to leaders) only. Default on.
    pub follow_members: bool,
    /// How often the members are asked for, at most: only while there are calls or watches. At least 10 ms. Default 30 s.
    pub members_interval: Duration,
    /// The revision that this client's session begins at: what [`crate::Client::revision`] of another one told, for
    /// whoever hands a request on to another process. Default 0.
    pub starting_revision: u64,
    /// TLS towards the nodes. Default: that of [`TlsOptions::default`] for `https://` endpoints, none for others.
    pub tls: Option<TlsOptions>,
    /// What each call shows to be let in. Default: nothing.
    pub token: Option<Token>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(15),
            attempt_timeout: Duration::from_secs(4),
            connect_timeout: Duration::from_secs(1),
            session: true,
            follow_leader: true,
            follow_members: true,
            members_interval: Duration::from_secs(30),
            starting_revision: 0,
            tls: None,
            token: None,
        }
    }
}

impl Options {
    /// Sets [`Options::timeout`].
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets [`Options::attempt_timeout`].
    #[must_use]
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.attempt_timeout = timeout;
        self
    }

    /// Sets [`Options::connect_timeout`].
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Sets [`Options::session`].
    #[must_use]
    pub fn session(mut self, session: bool) -> Self {
        self.session = session;
        self
    }

    /// Sets [`Options::follow_leader`].
    #[must_use]
    pub fn follow_leader(mut self, follow: bool) -> Self {
        self.follow_leader = follow;
        self
    }

    /// Sets [`Options::follow_members`].
    #[must_use]
    pub fn follow_members(mut self, follow: bool) -> Self {
        self.follow_members = follow;
        self
    }

    /// Sets [`Options::members_interval`].
    #[must_use]
    pub fn members_interval(mut self, interval: Duration) -> Self {
        self.members_interval = interval;
        self
    }

    /// Sets [`Options::starting_revision`].
    #[must_use]
    pub fn starting_revision(mut self, revision: u64) -> Self {
        self.starting_revision = revision;
        self
    }

    /// Sets [`Options::tls`]: endpoints without a scheme are `https://` then, and `http://` is refused.
    #[must_use]
    pub fn tls(mut self, tls: TlsOptions) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Shows this token with each call ([`Options::token`]): one of the cluster's own, or of an issuer that it believes.
    /// Without TLS whoever listens on the way learns it.
    #[must_use]
    pub fn token(mut self, text: impl Into<String>) -> Self {
        self.token = Some(Token::text(text.into()));
        self
    }

    /// Shows the token in this file with each call ([`Options::token`]). The file is read again when it has changed, at the
    /// latest when the token is refused, so that it can be exchanged while the client runs.
    #[must_use]
    pub fn token_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.token = Some(Token::file(path.into()));
        self
    }
}
