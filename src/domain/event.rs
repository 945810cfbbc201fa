//! What the audit log tells of: who did what, when, why and from where. Plain data; the chain is `audit`'s.

use crate::access::{Action, Need};
use crate::limits;
use crate::names::{Address, InvalidArgument, check_line};

/// What happened, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AuditKind {
    /// An entry was written.
    ConfigSet,
    /// An entry was deleted.
    ConfigDelete,
    /// An entry got an old value again.
    ConfigRollback,
    /// Several entries changed together.
    ConfigTxn,
    /// Somebody was about to see the plaintext of a secret.
    SecretReveal,
    /// The first token was taken.
    AuthBootstrap,
    /// A token was made.
    AuthTokenCreate,
    /// A token was revoked.
    AuthTokenRevoke,
    /// A role was made or changed.
    AuthRolePut,
    /// A role was deleted.
    AuthRoleDelete,
    /// A node was about to be added.
    ClusterMemberAdd,
    /// A learner was about to get its vote.
    ClusterMemberPromote,
    /// A voter was about to lose its vote.
    ClusterMemberDemote,
    /// A member was about to be removed.
    ClusterMemberRemove,
    /// A member was about to be replaced.
    ClusterMemberReplace,
    /// Leadership was about to change.
    ClusterTransferLeader,
    /// Old changes were forgotten, or a node's storage compacted.
    AdminCompact,
    /// A backup was about to be taken.
    AdminBackup,
    /// Keys were about to be changed.
    AdminKeysRotate,
    /// How long records stay was changed.
    AdminAuditRetention,
    /// An address was banned.
    SecurityBan,
    /// A ban was lifted.
    SecurityBanLift,
    /// Somebody was refused, unknown (401) or without the right (403).
    AccessDenied,
    /// A schema was put.
    SchemaPut,
    /// A schema was deleted.
    SchemaDelete,
}

impl AuditKind {
    /// Every kind, in the order of their codes, which count from 1.
    pub const ALL: [Self; 25] = [
        Self::ConfigSet,
        Self::ConfigDelete,
        Self::ConfigRollback,
        Self::ConfigTxn,
        Self::SecretReveal,
        Self::AuthBootstrap,
        Self::AuthTokenCreate,
        Self::AuthTokenRevoke,
        Self::AuthRolePut,
        Self::AuthRoleDelete,
        Self::ClusterMemberAdd,
        Self::ClusterMemberPromote,
        Self::ClusterMemberDemote,
        Self::ClusterMemberRemove,
        Self::ClusterMemberReplace,
        Self::ClusterTransferLeader,
        Self::AdminCompact,
        Self::AdminBackup,
        Self::AdminKeysRotate,
        Self::AdminAuditRetention,
        Self::SecurityBan,
        Self::SecurityBanLift,
        Self::AccessDenied,
        Self::SchemaPut,
        Self::SchemaDelete,
    ];

    /// Its word in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ConfigSet => "config.set",
            Self::ConfigDelete => "config.delete",
            Self::ConfigRollback => "config.rollback",
            Self::ConfigTxn => "config.txn",
            Self::SecretReveal => "secret.reveal",
            Self::AuthBootstrap => "auth.bootstrap",
            Self::AuthTokenCreate => "auth.token_create",
            Self::AuthTokenRevoke => "auth.token_revoke",
            Self::AuthRolePut => "auth.role_put",
            Self::AuthRoleDelete => "auth.role_delete",
            Self::ClusterMemberAdd => "cluster.member_add",
            Self::ClusterMemberPromote => "cluster.member_promote",
            Self::ClusterMemberDemote => "cluster.member_demote",
            Self::ClusterMemberRemove => "cluster.member_remove",
            Self::ClusterMemberReplace => "cluster.member_replace",
            Self::ClusterTransferLeader => "cluster.transfer_leader",
            Self::AdminCompact => "admin.compact",
            Self::AdminBackup => "admin.backup",
            Self::AdminKeysRotate => "admin.keys_rotate",
            Self::AdminAuditRetention => "admin.audit_retention",
            Self::SecurityBan => "security.ban",
            Self::SecurityBanLift => "security.ban_lift",
            Self::AccessDenied => "access.denied",
            Self::SchemaPut => "schema.put",
            Self::SchemaDelete => "schema.delete",
        }
    }

    /// The kind of a word.
    pub fn parse(word: &str) -> Result<Self, InvalidArgument> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|kind| kind.as_str()).collect();
            let reason = format!("{word:?} is no type; there are {}", known.join(", "));
            InvalidArgument::new("type", reason)
        })
    }

    /// The number under which it is stored.
    pub fn code(self) -> u32 {
        // Far fewer than a number has values.
        let index = Self::ALL.iter().position(|kind| *kind == self).unwrap_or_default();
        u32::try_from(index + 1).unwrap_or(u32::MAX)
    }

    /// The kind stored under a number.
    pub fn from_code(code: u32) -> Option<Self> {
        let index = usize::try_from(code).ok()?.checked_sub(1)?;
        Self::ALL.get(index).copied()
    }

    /// The right that doing this needs, when a record announces what is about to be done.
    fn action(self) -> Option<Action> {
        match self {
            Self::SecretReveal => Some(Action::Reveal),
            Self::ClusterMemberAdd
            | Self::ClusterMemberPromote
            | Self::ClusterMemberDemote
            | Self::ClusterMemberRemove
            | Self::ClusterMemberReplace
            | Self::ClusterTransferLeader
            | Self::AdminCompact => Some(Action::Cluster),
            Self::AdminBackup => Some(Action::Backup),
            Self::AdminKeysRotate => Some(Action::Auth),
            _ => None,
        }
    }
}

/// An entry that something happened to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditTarget {
    /// Which entry.
    pub address: Address,
    /// Its version by then; 0 when none is meant.
    pub version: u64,
}

/// What happened, before it has a place in the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEvent {
    /// What.
    pub kind: AuditKind,
    /// Who, by name.
    pub actor: String,
    /// Who, by what never changes: the id of a token, or the subject of somebody else's. Empty without authentication.
    pub principal: String,
    /// From which network address; empty for what a node does by itself.
    pub source: String,
    /// The request, as its answer names it.
    pub request_id: String,
    /// The node that took the request.
    pub node: u64,
    /// To which entries.
    pub targets: Vec<AuditTarget>,
    /// Why, in the words of who did it.
    pub comment: String,
    /// What else there is to say.
    pub detail: String,
}

impl AuditEvent {
    pub(crate) fn validate(&self) -> Result<(), InvalidArgument> {
        check_line("actor", &self.actor, limits::ACTOR_BYTES_MAX)?;
        for (text, max) in [
            (&self.principal, limits::ACTOR_BYTES_MAX),
            (&self.source, limits::SOURCE_BYTES_MAX),
            (&self.request_id, limits::AUDIT_REQUEST_ID_BYTES_MAX),
            (&self.comment, limits::COMMENT_BYTES_MAX),
            (&self.detail, limits::AUDIT_DETAIL_BYTES_MAX),
        ] {
            if text.len() > max {
                let reason = format!("an audit record has a text of more than {max} bytes");
                return Err(InvalidArgument::new("request", reason));
            }
        }
        if self.targets.len() > limits::AUDIT_TARGETS_MAX {
            let reason =
                format!("an audit record names more than {} entries", limits::AUDIT_TARGETS_MAX);
            return Err(InvalidArgument::new("request", reason));
        }
        Ok(())
    }

    /// At least as many bytes as it takes in a command.
    pub(crate) fn size(&self) -> usize {
        let names = |target: &AuditTarget| {
            64 + target.address.namespace.as_str().len() + target.address.key.as_str().len()
        };
        let texts = [&self.actor, &self.principal, &self.source, &self.request_id];
        let texts = texts.iter().map(|text| text.len()).sum::<usize>();
        64 + texts
            + self.comment.len()
            + self.detail.len()
            + self.targets.iter().map(names).sum::<usize>()
    }

    /// What whoever announces this must be allowed to do.
    pub(crate) fn needs(&self) -> Vec<Need> {
        match self.kind.action() {
            None => Vec::new(),
            Some(action) if self.targets.is_empty() => vec![Need::Everywhere(action)],
            Some(action) => {
                self.targets.iter().map(|target| Need::at(action, &target.address)).collect()
            }
        }
    }
}

/// A link of the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRecord {
    /// Counts 1, 2, 3… without a gap.
    pub sequence: u64,
    /// When, by the leader's clock.
    pub time_ms: u64,
    /// The store's revision by then; of a change, the revision that it made.
    pub revision: u64,
    /// What happened.
    pub event: AuditEvent,
    /// The hash of the record before; of the first one, zeros.
    pub previous: [u8; 32],
    /// SHA-256 over the record's stored form without this hash.
    pub hash: [u8; 32],
}
