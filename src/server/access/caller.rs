//! Somebody who was let in, for the time of one request.

use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use llm_config_domain::{Authority, Grant, Need, Origin, Rights, Role, Scope};

use super::policy::Principal;

/// The actor of what is done without authentication.
const ANYONE: &str = "anonymous";

/// What a caller is known by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Nobody is asked.
    Nothing,
    /// A token of the store, by its text or by a certificate.
    Token {
        /// Its id.
        id: Arc<str>,
    },
    /// A token of somebody else, whose roles the store knows.
    Issuer {
        /// The roles.
        roles: Arc<[String]>,
    },
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Caller {
    /// What its changes are signed with.
    pub name: Arc<str>,
    /// What never changes: the id of a token, or the subject of somebody else's. Empty without authentication.
    pub principal: Arc<str>,
    /// What it may do.
    pub rights: Arc<Rights>,
    pub(super) proof: Proof,
    pub(super) authority: Option<Arc<Authority>>,
    /// Where it calls from, as far as that is known.
    pub source: Option<IpAddr>,
    /// The request, as its answer names it.
    pub request_id: Arc<str>,
}

impl Caller {
    /// Whoever calls a node without authentication: may do everything.
    #[must_use]
    pub fn anyone() -> Self {
        // Each request asks for it on a node without authentication.
        static KNOWN: LazyLock<Caller> = LazyLock::new(|| {
            let admin = Role::built_in().into_iter().take(1);
            let grants: Vec<Grant> = admin.flat_map(|role| role.grants).collect();
            Caller {
                name: ANYONE.into(),
                principal: "".into(),
                rights: Arc::new(Rights { grants, within: Scope::default() }),
                proof: Proof::Nothing,
                authority: None,
                source: None,
                request_id: "".into(),
            }
        });
        KNOWN.clone()
    }

    pub(super) fn of_token(known: &Principal, policy_revision: u64) -> Self {
        let token = &known.token;
        Caller {
            name: token.name.as_str().into(),
            principal: token.id.as_str().into(),
            rights: Arc::clone(&known.rights),
            proof: Proof::Token { id: token.id.as_str().into() },
            authority: Some(Arc::new(Authority {
                policy_revision,
                token_id: Some(token.id.clone()),
                roles: Vec::new(),
                expires_at_ms: token.expires_at_ms,
            })),
            source: None,
            request_id: "".into(),
        }
    }

    pub(super) fn of_issuer(
        subject: String,
        roles: Vec<String>,
        rights: Rights,
        expires_at_ms: u64,
        policy_revision: u64,
    ) -> Self {
        // Without a role there is no right either; the commands want one to look up.
        let named = if roles.is_empty() { vec!["none".to_owned()] } else { roles.clone() };
        Caller {
            principal: format!("jwt:{subject}").into(),
            name: subject.into(),
            rights: Arc::new(rights),
            proof: Proof::Issuer { roles: roles.into() },
            authority: Some(Arc::new(Authority {
                policy_revision,
                token_id: None,
                roles: named,
                expires_at_ms,
            })),
            source: None,
            request_id: "".into(),
        }
    }

    /// The same caller, on this request.
    #[must_use]
    pub fn on(self, source: Option<IpAddr>, request_id: &Arc<str>) -> Self {
        Caller { source, request_id: Arc::clone(request_id), ..self }
    }

    /// What is known anew of somebody, on the request that it came with.
    pub(super) fn renewed(&self, known: Self) -> Self {
        Caller { source: self.source, request_id: Arc::clone(&self.request_id), ..known }
    }

    /// What it is known by.
    #[must_use]
    pub fn proof(&self) -> &Proof {
        &self.proof
    }

    /// By what right; nothing without authentication.
    #[must_use]
    pub fn authority(&self) -> Option<&Authority> {
        self.authority.as_deref()
    }

    /// From when on it is nobody any more, in milliseconds since 1970.
    #[must_use]
    pub fn expires_at_ms(&self) -> Option<u64> {
        self.authority.as_ref().map(|authority| authority.expires_at_ms).filter(|at| *at != 0)
    }

    /// Whether what it is known by is void at a time.
    #[must_use]
    pub fn is_expired(&self, now_ms: u64) -> bool {
        self.expires_at_ms().is_some_and(|at| at <= now_ms)
    }

    /// The first right that is missing.
    #[must_use]
    pub fn lacks<'n>(&self, needs: &'n [Need]) -> Option<&'n Need> {
        needs.iter().find(|need| !self.rights.meet(need))
    }

    /// Where it calls from, as it is recorded: empty when that is not known.
    #[must_use]
    pub fn source_text(&self) -> String {
        self.source.map_or_else(String::new, |source| source.to_string())
    }

    /// Where a command of this caller comes from.
    #[must_use]
    pub fn origin(&self, node: u64) -> Origin {
        Origin {
            principal: self.principal.to_string(),
            source: self.source_text(),
            request_id: self.request_id.to_string(),
            node,
            authority: self.authority.as_deref().cloned(),
        }
    }
}
