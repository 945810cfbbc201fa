//! Who a caller is, and what they may do: the policy of the replicated state in memory, and the callers known by it.
//!
//! The state is the only source: it is read again whenever a command has changed it, before anybody can see that command's
//! effect. Nothing is remembered of a caller between two requests, so what is revoked is revoked with the next one.

mod bootstrap;
mod caller;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod policy;
mod sight;
mod token;

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use llm_config_domain::{Authority, Reader, Scope};
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use crate::error::ServiceError;
use crate::jwt::{JwtIdentity, JwtVerifier};
use crate::metrics::{AuthFailure, Metrics};
use crate::peer::ClientCertificate;
use policy::{BanTable, Policy};

pub use bootstrap::Bootstrap;
pub use caller::{Caller, Proof};
pub use sight::Sight;
pub use token::{NewToken, TOKEN_TEXT_BYTES_MAX, fingerprint, new_token};

/// What a caller shows to be let in.
#[derive(Clone, Copy, Debug, Default)]
pub struct Credentials<'a> {
    /// The header `Authorization`.
    pub authorization: Option<&'a [u8]>,
    /// A client certificate that the connection was opened with.
    pub certificate: Option<&'a ClientCertificate>,
}

/// Who may do what on this node. Clones share everything.
#[derive(Clone)]
pub struct Access {
    inner: Arc<Inner>,
}

struct Inner {
    /// Without authentication everybody may do everything.
    required: bool,
    policy: RwLock<Arc<Policy>>,
    bans: RwLock<Arc<BanTable>>,
    /// Held while the state is read, so that an older reading does not replace a newer one.
    reading: Mutex<()>,
    revision: watch::Sender<u64>,
    jwt: Option<Arc<JwtVerifier>>,
    metrics: Arc<Metrics>,
}

impl Access {
    /// Knows nobody until [`Self::reload`].
    pub fn new(required: bool, jwt: Option<Arc<JwtVerifier>>, metrics: Arc<Metrics>) -> Self {
        Access {
            inner: Arc::new(Inner {
                required,
                policy: RwLock::default(),
                bans: RwLock::default(),
                reading: Mutex::new(()),
                revision: watch::Sender::new(0),
                jwt,
                metrics,
            }),
        }
    }

    /// Takes over what the state says. A state that cannot be read leaves nobody with a right: it stops the node anyway.
    pub fn reload(&self, state: &dyn Reader) {
        let _one_at_a_time = self.inner.reading.lock();
        let read = Policy::read(state).and_then(|policy| Ok((policy, BanTable::read(state)?)));
        let (policy, bans) = read.unwrap_or_else(|error| {
            tracing::error!(%error, "tokens and roles could not be read; nobody is let in");
            (Policy::of_nobody(), BanTable::default())
        });
        if policy.revision < self.policy().revision {
            return;
        }
        self.inner.metrics.bans(bans.samples());
        let revision = policy.revision;
        *self.inner.bans.write() = Arc::new(bans);
        *self.inner.policy.write() = Arc::new(policy);
        self.inner.revision.send_replace(revision);
    }

    /// Whether anybody can be known at all.
    pub fn knows_somebody(&self) -> bool {
        self.inner.jwt.is_some() || self.policy().knows_somebody()
    }

    /// The policy that is in force.
    pub(crate) fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.inner.policy.read())
    }

    /// Told of every change of the policy.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.revision.subscribe()
    }

    /// The ban of an address, while it lasts.
    pub fn ban(&self, address: IpAddr, now_ms: u64) -> Option<llm_config_domain::Ban> {
        self.inner.bans.read().active(address, now_ms)
    }

    /// Finds out who shows these credentials.
    ///
    /// # Errors
    /// [`ServiceError::Unauthenticated`], with a reason that says what to do and nothing about what others may do.
    pub async fn identify(
        &self,
        credentials: &Credentials<'_>,
        now_ms: u64,
    ) -> Result<Caller, ServiceError> {
        if !self.inner.required {
            return Ok(Caller::anyone());
        }
        let policy = self.policy();
        let refuse = |reason: AuthFailure, words: &str| {
            self.inner.metrics.auth_failure(reason);
            Err(ServiceError::Unauthenticated { reason: words.into() })
        };
        let Some(header) = credentials.authorization else {
            let Some(certificate) = credentials.certificate else {
                return refuse(
                    AuthFailure::Missing,
                    "send a token: `Authorization: Bearer TOKEN`; an administrator makes one with `llm-config token create`",
                );
            };
            return match policy.by_certificate(certificate) {
                Some(known) if !known.token.is_expired(now_ms) => {
                    Ok(Caller::of_token(&known, policy.revision))
                }
                Some(_) => {
                    refuse(AuthFailure::Expired, "the certificate's registration has expired")
                }
                None => refuse(
                    AuthFailure::Certificate,
                    "no token is registered for the names of this certificate",
                ),
            };
        };
        let Some(text) = token::bearer(header) else {
            return refuse(
                AuthFailure::Malformed,
                "the Authorization header must be `Bearer TOKEN`",
            );
        };
        if let Some(verifier) = self.inner.jwt.as_ref().filter(|_| token::looks_like_jwt(text)) {
            return match verifier.verify(text).await {
                Ok(identity) => Ok(self.of_issuer(identity, &policy)),
                // Whoever shows a token must not suffer for an issuer that cannot be reached.
                Err(error) if error.is_of_node() => {
                    Err(ServiceError::NotReady { reason: error.to_string() })
                }
                Err(error) => refuse(AuthFailure::Jwt, &error.to_string()),
            };
        }
        match policy.by_text(text) {
            Some(known) if !known.token.is_expired(now_ms) => {
                Ok(Caller::of_token(&known, policy.revision))
            }
            Some(_) => refuse(AuthFailure::Expired, "the token has expired"),
            None => {
                refuse(AuthFailure::Unknown, "the token is not known; it may have been revoked")
            }
        }
    }

    fn of_issuer(&self, identity: JwtIdentity, policy: &Policy) -> Caller {
        let JwtIdentity { subject, roles, expires_at_ms } = identity;
        // A role that this store does not know grants nothing, and one with an odd name cannot be known.
        let roles: Vec<String> = roles.into_iter().filter(|role| policy.knows(role)).collect();
        let rights = policy.rights(&roles, Scope::default());
        Caller::of_issuer(subject, roles, rights, expires_at_ms, policy.revision)
    }

    /// The same caller by the policy that is in force now.
    ///
    /// # Errors
    /// [`ServiceError::Unauthenticated`] when the token was revoked or has expired since.
    pub fn again<'c>(
        &self,
        caller: &'c Caller,
        now_ms: u64,
    ) -> Result<Cow<'c, Caller>, ServiceError> {
        if caller.is_expired(now_ms) {
            return Err(gone());
        }
        let Some(authority) = caller.authority() else { return Ok(Cow::Borrowed(caller)) };
        let policy = self.policy();
        if authority.policy_revision == policy.revision {
            return Ok(Cow::Borrowed(caller));
        }
        match &caller.proof {
            Proof::Nothing => Ok(Cow::Borrowed(caller)),
            Proof::Token { id } => match policy.by_id(id) {
                Some(known) => {
                    Ok(Cow::Owned(caller.renewed(Caller::of_token(&known, policy.revision))))
                }
                None => Err(gone()),
            },
            Proof::Issuer { roles } => {
                let rights = policy.rights(roles, Scope::default());
                let authority = Authority { policy_revision: policy.revision, ..authority.clone() };
                Ok(Cow::Owned(Caller {
                    rights: Arc::new(rights),
                    authority: Some(Arc::new(authority)),
                    ..caller.clone()
                }))
            }
        }
    }
}

fn gone() -> ServiceError {
    ServiceError::Unauthenticated { reason: "the token was revoked or has expired".into() }
}
