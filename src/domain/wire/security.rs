//! Who asks, and what is replicated of tokens, roles, bans, keys and the audit log. Most of these are stored in the same
//! form (`record.rs`).

use bytes::Bytes;
use prost::Message;

use super::{Address, address, required};
use crate::access::{self, Action, Credential};
use crate::command::{self, DecodeError};
use crate::event::{self, AuditKind, AuditTarget};
use crate::names::{Environment, InvalidArgument, Namespace};
use crate::sealed;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Sealed {
    #[prost(uint32, tag = "1")]
    key_version: u32,
    #[prost(uint64, tag = "2")]
    version: u64,
    #[prost(bytes = "bytes", tag = "3")]
    bytes: Bytes,
}

impl Sealed {
    pub(crate) fn key_version(&self) -> u32 {
        self.key_version
    }
}

impl From<&sealed::Sealed> for Sealed {
    fn from(sealed: &sealed::Sealed) -> Self {
        let sealed::Sealed { key_version, version, bytes } = sealed.clone();
        Self { key_version, version, bytes }
    }
}

impl TryFrom<Sealed> for sealed::Sealed {
    type Error = InvalidArgument;

    fn try_from(sealed: Sealed) -> Result<Self, InvalidArgument> {
        // Copied: a slice would keep a whole message alive.
        let bytes = Bytes::copy_from_slice(&sealed.bytes);
        let sealed = Self { key_version: sealed.key_version, version: sealed.version, bytes };
        sealed::validate_sealed(&sealed)?;
        Ok(sealed)
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ResealedVersion {
    #[prost(uint64, tag = "1")]
    version: u64,
    #[prost(message, optional, tag = "2")]
    sealed: Option<Sealed>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Reseal {
    #[prost(message, optional, tag = "1")]
    address: Option<Address>,
    #[prost(uint32, tag = "2")]
    from_key_version: u32,
    #[prost(message, repeated, tag = "3")]
    versions: Vec<ResealedVersion>,
}

impl From<&command::Reseal> for Reseal {
    fn from(reseal: &command::Reseal) -> Self {
        let versions = reseal.versions.iter().map(|resealed| ResealedVersion {
            version: resealed.version,
            sealed: Some((&resealed.sealed).into()),
        });
        Self {
            address: Some((&reseal.address).into()),
            from_key_version: reseal.from_key_version,
            versions: versions.collect(),
        }
    }
}

impl TryFrom<Reseal> for command::Reseal {
    type Error = DecodeError;

    fn try_from(reseal: Reseal) -> Result<Self, DecodeError> {
        let version = |resealed: ResealedVersion| {
            Ok::<_, DecodeError>(sealed::ResealedVersion {
                version: resealed.version,
                sealed: required(resealed.sealed, "a secret")?.try_into()?,
            })
        };
        Ok(Self {
            address: address(reseal.address)?,
            from_key_version: reseal.from_key_version,
            versions: reseal.versions.into_iter().map(version).collect::<Result<_, _>>()?,
        })
    }
}

/// Also the stored form of a data key.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct DataKey {
    #[prost(string, tag = "1")]
    owner: String,
    #[prost(uint32, tag = "2")]
    pub(crate) version: u32,
    #[prost(bytes = "bytes", tag = "3")]
    master_id: Bytes,
    #[prost(bytes = "bytes", tag = "4")]
    wrapped: Bytes,
    #[prost(uint64, tag = "5")]
    created_at_ms: u64,
}

impl From<&sealed::DataKey> for DataKey {
    fn from(key: &sealed::DataKey) -> Self {
        let sealed::DataKey { owner, version, master_id, wrapped, created_at_ms } = key.clone();
        Self { owner, version, master_id, wrapped, created_at_ms }
    }
}

impl From<DataKey> for sealed::DataKey {
    fn from(key: DataKey) -> Self {
        Self {
            owner: key.owner,
            version: key.version,
            master_id: Bytes::copy_from_slice(&key.master_id),
            wrapped: Bytes::copy_from_slice(&key.wrapped),
            created_at_ms: key.created_at_ms,
        }
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct DataKeys {
    #[prost(message, repeated, tag = "1")]
    pub(crate) keys: Vec<DataKey>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct DropDataKey {
    #[prost(string, tag = "1")]
    pub(crate) owner: String,
    #[prost(uint32, tag = "2")]
    pub(crate) version: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Scope {
    #[prost(string, repeated, tag = "1")]
    namespaces: Vec<String>,
    #[prost(uint32, repeated, tag = "2")]
    environments: Vec<u32>,
}

impl From<&access::Scope> for Scope {
    fn from(scope: &access::Scope) -> Self {
        let namespaces = scope.namespaces.iter().map(|name| name.as_str().to_owned());
        let environments = scope.environments.iter().map(|environment| environment.code().into());
        Self { namespaces: namespaces.collect(), environments: environments.collect() }
    }
}

impl TryFrom<Scope> for access::Scope {
    type Error = InvalidArgument;

    fn try_from(scope: Scope) -> Result<Self, InvalidArgument> {
        let environment = |code: u32| {
            let known = u8::try_from(code).ok().and_then(Environment::from_code);
            let unknown = || InvalidArgument::new("environments", format!("{code} is none"));
            known.ok_or_else(unknown)
        };
        let namespaces = scope.namespaces.iter().map(|name| Namespace::parse(name));
        Ok(Self {
            namespaces: namespaces.collect::<Result<_, _>>()?,
            environments: scope
                .environments
                .into_iter()
                .map(environment)
                .collect::<Result<_, _>>()?,
        })
    }
}

/// Also the stored form of a token.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Token {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(string, tag = "3")]
    prefix: String,
    #[prost(bytes = "vec", tag = "4")]
    hash: Vec<u8>,
    #[prost(string, tag = "5")]
    certificate: String,
    #[prost(string, repeated, tag = "6")]
    roles: Vec<String>,
    #[prost(message, optional, tag = "7")]
    scope: Option<Scope>,
    #[prost(uint64, tag = "8")]
    created_at_ms: u64,
    #[prost(string, tag = "9")]
    created_by: String,
    #[prost(uint64, tag = "10")]
    expires_at_ms: u64,
}

impl From<&access::Token> for Token {
    fn from(token: &access::Token) -> Self {
        let (hash, certificate) = match &token.credential {
            Credential::Hash(hash) => (hash.to_vec(), String::new()),
            Credential::Certificate(name) => (Vec::new(), name.clone()),
        };
        Self {
            id: token.id.clone(),
            name: token.name.clone(),
            prefix: token.prefix.clone(),
            hash,
            certificate,
            roles: token.roles.clone(),
            scope: Some((&token.scope).into()),
            created_at_ms: token.created_at_ms,
            created_by: token.created_by.clone(),
            expires_at_ms: token.expires_at_ms,
        }
    }
}

impl TryFrom<Token> for access::Token {
    type Error = InvalidArgument;

    fn try_from(token: Token) -> Result<Self, InvalidArgument> {
        let credential = match (<[u8; 32]>::try_from(token.hash), token.certificate.is_empty()) {
            (Ok(hash), true) => Credential::Hash(hash),
            (Err(none), false) if none.is_empty() => Credential::Certificate(token.certificate),
            _ => return Err(InvalidArgument::new("id", "a token that proves nothing")),
        };
        Ok(Self {
            id: token.id,
            name: token.name,
            prefix: token.prefix,
            credential,
            roles: token.roles,
            scope: token.scope.unwrap_or_default().try_into()?,
            created_at_ms: token.created_at_ms,
            created_by: token.created_by,
            expires_at_ms: token.expires_at_ms,
        })
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Grant {
    #[prost(uint32, repeated, tag = "1")]
    actions: Vec<u32>,
    #[prost(message, optional, tag = "2")]
    scope: Option<Scope>,
}

/// Also the stored form of a role.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Role {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    description: String,
    #[prost(message, repeated, tag = "3")]
    grants: Vec<Grant>,
}

impl From<&access::Role> for Role {
    fn from(role: &access::Role) -> Self {
        let grant = |grant: &access::Grant| Grant {
            actions: grant.actions.iter().map(|action| action.code()).collect(),
            scope: Some((&grant.scope).into()),
        };
        Self {
            name: role.name.clone(),
            description: role.description.clone(),
            grants: role.grants.iter().map(grant).collect(),
        }
    }
}

impl TryFrom<Role> for access::Role {
    type Error = InvalidArgument;

    fn try_from(role: Role) -> Result<Self, InvalidArgument> {
        let action = |code: u32| {
            let unknown = || InvalidArgument::new("actions", format!("{code} is no action"));
            Action::from_code(code).ok_or_else(unknown)
        };
        let grant = |grant: Grant| {
            Ok::<_, InvalidArgument>(access::Grant {
                actions: grant.actions.into_iter().map(action).collect::<Result<_, _>>()?,
                scope: grant.scope.unwrap_or_default().try_into()?,
            })
        };
        Ok(Self {
            name: role.name,
            description: role.description,
            grants: role.grants.into_iter().map(grant).collect::<Result<_, _>>()?,
        })
    }
}

/// Also the stored form of a ban.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Ban {
    #[prost(string, tag = "1")]
    address: String,
    #[prost(uint64, tag = "2")]
    until_ms: u64,
    #[prost(uint32, tag = "3")]
    strikes: u32,
    #[prost(string, tag = "4")]
    reason: String,
    #[prost(uint64, tag = "5")]
    since_ms: u64,
}

impl From<&command::Ban> for Ban {
    fn from(ban: &command::Ban) -> Self {
        let command::Ban { address, until_ms, strikes, reason, since_ms } = ban.clone();
        Self { address, until_ms, strikes, reason, since_ms }
    }
}

impl From<Ban> for command::Ban {
    fn from(ban: Ban) -> Self {
        let Ban { address, until_ms, strikes, reason, since_ms } = ban;
        Self { address, until_ms, strikes, reason, since_ms }
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct BanOrder {
    #[prost(string, tag = "1")]
    address: String,
    #[prost(uint64, tag = "2")]
    first_ms: u64,
    #[prost(uint64, tag = "3")]
    longest_ms: u64,
    #[prost(string, tag = "4")]
    reason: String,
}

impl From<&command::BanOrder> for BanOrder {
    fn from(order: &command::BanOrder) -> Self {
        let command::BanOrder { address, first_ms, longest_ms, reason } = order.clone();
        Self { address, first_ms, longest_ms, reason }
    }
}

impl From<BanOrder> for command::BanOrder {
    fn from(order: BanOrder) -> Self {
        let BanOrder { address, first_ms, longest_ms, reason } = order;
        Self { address, first_ms, longest_ms, reason }
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Target {
    #[prost(message, optional, tag = "1")]
    address: Option<Address>,
    #[prost(uint64, tag = "2")]
    version: u64,
}

/// Also part of the stored form of an audit record.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct AuditEvent {
    #[prost(uint32, tag = "1")]
    kind: u32,
    #[prost(string, tag = "2")]
    actor: String,
    #[prost(string, tag = "3")]
    principal: String,
    #[prost(string, tag = "4")]
    source: String,
    #[prost(string, tag = "5")]
    request_id: String,
    #[prost(uint64, tag = "6")]
    node: u64,
    #[prost(message, repeated, tag = "7")]
    targets: Vec<Target>,
    #[prost(string, tag = "8")]
    comment: String,
    #[prost(string, tag = "9")]
    detail: String,
}

impl From<event::AuditEvent> for AuditEvent {
    fn from(event: event::AuditEvent) -> Self {
        let target = |target: AuditTarget| Target {
            address: Some((&target.address).into()),
            version: target.version,
        };
        Self {
            kind: event.kind.code(),
            actor: event.actor,
            principal: event.principal,
            source: event.source,
            request_id: event.request_id,
            node: event.node,
            targets: event.targets.into_iter().map(target).collect(),
            comment: event.comment,
            detail: event.detail,
        }
    }
}

impl From<&event::AuditEvent> for AuditEvent {
    fn from(event: &event::AuditEvent) -> Self {
        event.clone().into()
    }
}

impl TryFrom<AuditEvent> for event::AuditEvent {
    type Error = DecodeError;

    fn try_from(event: AuditEvent) -> Result<Self, DecodeError> {
        let target = |target: Target| {
            Ok::<_, DecodeError>(AuditTarget {
                address: address(target.address)?,
                version: target.version,
            })
        };
        let unknown = || DecodeError::Malformed(format!("{} is no kind of event", event.kind));
        Ok(Self {
            kind: AuditKind::from_code(event.kind).ok_or_else(unknown)?,
            actor: event.actor,
            principal: event.principal,
            source: event.source,
            request_id: event.request_id,
            node: event.node,
            targets: event.targets.into_iter().map(target).collect::<Result<_, _>>()?,
            comment: event.comment,
            detail: event.detail,
        })
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct AuditEvents {
    #[prost(message, repeated, tag = "1")]
    pub(crate) events: Vec<AuditEvent>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct AuditRetention {
    #[prost(uint64, tag = "1")]
    pub(crate) max_age_ms: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) max_bytes: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Authority {
    #[prost(uint64, tag = "1")]
    policy_revision: u64,
    #[prost(string, tag = "2")]
    token_id: String,
    #[prost(string, repeated, tag = "3")]
    roles: Vec<String>,
    #[prost(uint64, tag = "4")]
    expires_at_ms: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Origin {
    #[prost(string, tag = "1")]
    principal: String,
    #[prost(string, tag = "2")]
    source: String,
    #[prost(string, tag = "3")]
    request_id: String,
    #[prost(uint64, tag = "4")]
    node: u64,
    #[prost(message, optional, tag = "5")]
    authority: Option<Authority>,
}

impl From<&command::Origin> for Origin {
    fn from(origin: &command::Origin) -> Self {
        let authority = origin.authority.as_ref().map(|authority| Authority {
            policy_revision: authority.policy_revision,
            token_id: authority.token_id.clone().unwrap_or_default(),
            roles: authority.roles.clone(),
            expires_at_ms: authority.expires_at_ms,
        });
        Self {
            principal: origin.principal.clone(),
            source: origin.source.clone(),
            request_id: origin.request_id.clone(),
            node: origin.node,
            authority,
        }
    }
}

impl From<Origin> for command::Origin {
    fn from(origin: Origin) -> Self {
        let authority = origin.authority.map(|authority| command::Authority {
            policy_revision: authority.policy_revision,
            token_id: Some(authority.token_id).filter(|id| !id.is_empty()),
            roles: authority.roles,
            expires_at_ms: authority.expires_at_ms,
        });
        Self {
            principal: origin.principal,
            source: origin.source,
            request_id: origin.request_id,
            node: origin.node,
            authority,
        }
    }
}
