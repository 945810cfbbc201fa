//! Tokens, roles and bans of the replicated state, laid out for looking them up.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use llm_config_domain::{
    Ban, Credential, QueryError, Reader, Rights, Role, Scope, StoreError, Token, bans, policy,
    query,
};

use super::token::fingerprint;
use crate::metrics::BanSample;
use crate::peer::ClientCertificate;

/// A token and what its holder may do.
#[derive(Debug)]
pub struct Principal {
    pub token: Token,
    pub rights: Arc<Rights>,
}

/// The tokens and roles of one revision of the policy.
#[derive(Debug, Default)]
pub(crate) struct Policy {
    pub(crate) revision: u64,
    by_hash: HashMap<[u8; 32], Arc<Principal>>,
    by_certificate: HashMap<String, Arc<Principal>>,
    by_id: HashMap<String, Arc<Principal>>,
    roles: BTreeMap<String, Role>,
}

impl Policy {
    /// Lets nobody in, and stays.
    pub(super) fn of_nobody() -> Self {
        Policy { revision: u64::MAX, ..Policy::default() }
    }

    pub(super) fn read(state: &dyn Reader) -> Result<Self, StoreError> {
        let mut read = Policy { revision: policy_revision(state)?, ..Policy::default() };
        let stored = policy::roles(state)?.into_iter();
        read.roles = Role::built_in()
            .into_iter()
            .chain(stored)
            .map(|role| (role.name.clone(), role))
            .collect();
        for token in policy::tokens(state)? {
            let rights = read.rights(&token.roles, token.scope.clone());
            let known = Arc::new(Principal { token, rights: Arc::new(rights) });
            match &known.token.credential {
                Credential::Hash(hash) => read.by_hash.insert(*hash, Arc::clone(&known)),
                Credential::Certificate(name) => {
                    read.by_certificate.insert(name.clone(), Arc::clone(&known))
                }
            };
            read.by_id.insert(known.token.id.clone(), known);
        }
        Ok(read)
    }

    /// What these roles allow together.
    pub(crate) fn rights(&self, roles: &[String], within: Scope) -> Rights {
        let known = roles.iter().filter_map(|name| self.roles.get(name));
        Rights { grants: known.flat_map(|role| role.grants.clone()).collect(), within }
    }

    pub(super) fn knows_somebody(&self) -> bool {
        !self.by_id.is_empty()
    }

    pub(crate) fn knows(&self, role: &str) -> bool {
        self.roles.contains_key(role)
    }

    pub(crate) fn roles(&self) -> impl Iterator<Item = &Role> {
        self.roles.values()
    }

    pub(crate) fn role(&self, name: &str) -> Option<&Role> {
        self.roles.get(name)
    }

    pub(crate) fn by_id(&self, id: &str) -> Option<Arc<Principal>> {
        self.by_id.get(id).cloned()
    }

    /// Every token, by id.
    pub(crate) fn principals(&self) -> Vec<Arc<Principal>> {
        let mut all: Vec<_> = self.by_id.values().cloned().collect();
        all.sort_by(|a, b| a.token.id.cmp(&b.token.id));
        all
    }

    /// Looked up by the hash of the text, which nobody can aim: how long it takes says nothing about other tokens.
    pub(super) fn by_text(&self, text: &str) -> Option<Arc<Principal>> {
        let hash = fingerprint(text);
        let known = self.by_hash.get(&hash)?;
        let Credential::Hash(stored) = &known.token.credential else { return None };
        verify_slices_are_equal(stored, &hash).is_ok().then(|| Arc::clone(known))
    }

    /// The first name of the certificate that a token is registered for.
    pub(super) fn by_certificate(&self, shown: &ClientCertificate) -> Option<Arc<Principal>> {
        let names = shown.names();
        let all = names.common_name.iter().chain(&names.dns).chain(&names.uris);
        all.into_iter().find_map(|name| self.by_certificate.get(name)).cloned()
    }
}

fn policy_revision(state: &dyn Reader) -> Result<u64, StoreError> {
    match query::meta(state) {
        Ok(meta) => Ok(meta.policy_revision),
        Err(QueryError::Store(error)) => Err(error),
        Err(QueryError::Refused(refused)) => Err(StoreError::Corrupt(refused.to_string())),
    }
}

/// The addresses that are or were banned.
#[derive(Debug, Default)]
pub(super) struct BanTable(HashMap<String, Ban>);

impl BanTable {
    pub(super) fn read(state: &dyn Reader) -> Result<Self, StoreError> {
        let all = bans::all(state)?.into_iter();
        Ok(Self(all.map(|ban| (ban.address.clone(), ban)).collect()))
    }

    pub(super) fn active(&self, address: IpAddr, now_ms: u64) -> Option<Ban> {
        // Asked for each request, and nearly always of nobody.
        if self.0.is_empty() {
            return None;
        }
        self.0.get(&address.to_string()).filter(|ban| ban.until_ms > now_ms).cloned()
    }

    pub(super) fn samples(&self) -> Vec<BanSample> {
        let bans = self.0.values();
        bans.map(|ban| BanSample {
            address: ban.address.clone(),
            reason: ban.reason.clone(),
            until_ms: ban.until_ms,
        })
        .collect()
    }
}
