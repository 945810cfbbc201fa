//! Tokens and roles as replicated state: how commands change them, and whether a command's author may still do what it asks.
//!
//! Whoever takes a request judges it by what that node has applied, and names in the command the revision of the policy
//! that it judged by. When the policy has not changed since, the judgement stands; otherwise it is made again here, where
//! every node sees the same policy. So a right that was taken away before a command commits stops it.

use bytes::Bytes;

use crate::access::{Grant, Rights, Role, Scope, Token, built_in_refusal, check_role_name};
use crate::command::{Authority, Command};
use crate::keys;
use crate::limits;
use crate::outcome::{Outcome, Rejection};
use crate::overlay::Overlay;
use crate::query::{Meta, QueryResult};
use crate::record::Record as _;
use crate::store::{self, Reader, StoreError};
use crate::wire;
use crate::writer::Writer;

/// Refuses a command whose author has lost the right since it was judged.
pub(crate) fn check_authority<R: Reader + ?Sized>(
    reader: &R,
    meta: &Meta,
    command: &Command,
) -> QueryResult<()> {
    let Some(authority) = command.origin.as_ref().and_then(|origin| origin.authority.as_ref())
    else {
        return Ok(());
    };
    if authority.expires_at_ms != 0 && authority.expires_at_ms <= meta.last_time_ms {
        return Err(Rejection::Unauthenticated.into());
    }
    if authority.policy_revision == meta.policy_revision {
        return Ok(());
    }
    let rights = rights_of(reader, authority)?.ok_or(Rejection::Unauthenticated)?;
    match command.operation.needs().iter().find(|need| !rights.meet(need)) {
        Some(need) => Err(Rejection::PermissionDenied { need: need.to_string() }.into()),
        None => Ok(()),
    }
}

/// `None`: the token was revoked.
fn rights_of<R: Reader + ?Sized>(
    reader: &R,
    authority: &Authority,
) -> Result<Option<Rights>, StoreError> {
    let Some(id) = &authority.token_id else {
        let grants = grants(reader, &authority.roles)?;
        return Ok(Some(Rights { grants, within: Scope::default() }));
    };
    let Some(token) = token(reader, id)? else { return Ok(None) };
    Ok(Some(Rights { grants: grants(reader, &token.roles)?, within: token.scope }))
}

/// A role that does not exist grants nothing.
fn grants<R: Reader + ?Sized>(reader: &R, roles: &[String]) -> Result<Vec<Grant>, StoreError> {
    let built_in = Role::built_in();
    let mut grants = Vec::new();
    for name in roles {
        let known = built_in.iter().find(|role| role.name == *name).cloned();
        let role = match known {
            Some(role) => Some(role),
            None => role(reader, name)?,
        };
        grants.extend(role.into_iter().flat_map(|role| role.grants));
    }
    Ok(grants)
}

/// The first token of a cluster; only once.
pub(crate) fn bootstrap<R: Reader + ?Sized>(
    writer: &mut Writer<'_, '_, R>,
    token: &Token,
) -> QueryResult<Outcome> {
    if writer.meta.bootstrapped {
        return Err(Rejection::AlreadyBootstrapped.into());
    }
    writer.meta.bootstrapped = true;
    create_token(writer, token)
}

pub(crate) fn create_token<R: Reader + ?Sized>(
    writer: &mut Writer<'_, '_, R>,
    token: &Token,
) -> QueryResult<Outcome> {
    if self::token(&*writer.store, &token.id)?.is_some() {
        return Err(Rejection::TokenExists { id: token.id.clone() }.into());
    }
    if writer.meta.tokens >= limits::TOKENS_MAX {
        forget_expired(writer.store, &mut writer.meta)?;
    }
    if writer.meta.tokens >= limits::TOKENS_MAX {
        let (size, limit) = (writer.meta.tokens + 1, limits::TOKENS_MAX);
        return Err(Rejection::TooLarge { what: "the table of tokens".into(), size, limit }.into());
    }
    let kept = Token {
        created_at_ms: writer.meta.last_time_ms,
        created_by: writer.actor().to_owned(),
        ..token.clone()
    };
    writer.store.put(keys::token(&kept.id), wire::Token::from(&kept).to_bytes());
    writer.meta.tokens += 1;
    writer.meta.policy_revision += 1;
    Ok(Outcome::Done)
}

/// Makes room for a token: lets go of some that have expired.
fn forget_expired<R: Reader + ?Sized>(
    store: &mut Overlay<'_, R>,
    meta: &mut Meta,
) -> Result<(), StoreError> {
    let now_ms = meta.last_time_ms;
    let expired = tokens(store)?.into_iter().filter(|token| token.is_expired(now_ms));
    let gone: Vec<Token> = expired.take(limits::EVICTIONS_PER_COMMAND_MAX).collect();
    for token in gone {
        store.delete(keys::token(&token.id));
        meta.tokens = meta.tokens.saturating_sub(1);
    }
    Ok(())
}

pub(crate) fn revoke_token<R: Reader + ?Sized>(
    writer: &mut Writer<'_, '_, R>,
    id: &str,
) -> QueryResult<Outcome> {
    if token(&*writer.store, id)?.is_none() {
        return Err(Rejection::NotFound.into());
    }
    writer.store.delete(keys::token(id));
    writer.meta.tokens = writer.meta.tokens.saturating_sub(1);
    writer.meta.policy_revision += 1;
    Ok(Outcome::Done)
}

pub(crate) fn put_role<R: Reader + ?Sized>(
    writer: &mut Writer<'_, '_, R>,
    role: &Role,
) -> QueryResult<Outcome> {
    if self::role(&*writer.store, &role.name)?.is_none() {
        if writer.meta.roles >= limits::ROLES_MAX {
            let (size, limit) = (writer.meta.roles + 1, limits::ROLES_MAX);
            let what = "the table of roles".into();
            return Err(Rejection::TooLarge { what, size, limit }.into());
        }
        writer.meta.roles += 1;
    }
    writer.store.put(keys::role(&role.name), wire::Role::from(role).to_bytes());
    writer.meta.policy_revision += 1;
    Ok(Outcome::Done)
}

pub(crate) fn delete_role<R: Reader + ?Sized>(
    writer: &mut Writer<'_, '_, R>,
    name: &str,
) -> QueryResult<Outcome> {
    if Role::is_built_in(name) {
        return Err(Rejection::from(built_in_refusal(name)).into());
    }
    check_role_name("name", name).map_err(Rejection::from)?;
    if role(&*writer.store, name)?.is_none() {
        return Err(Rejection::NotFound.into());
    }
    writer.store.delete(keys::role(name));
    writer.meta.roles = writer.meta.roles.saturating_sub(1);
    writer.meta.policy_revision += 1;
    Ok(Outcome::Done)
}

/// A token by its id.
pub fn token<R: Reader + ?Sized>(reader: &R, id: &str) -> Result<Option<Token>, StoreError> {
    reader.get(&keys::token(id))?.map(stored_token).transpose()
}

fn stored_token(bytes: Bytes) -> Result<Token, StoreError> {
    let token = wire::Token::from_bytes(bytes)?;
    token
        .try_into()
        .map_err(|error| StoreError::Corrupt(format!("a record of the tokens table: {error}")))
}

/// A role by its name, unless it is built in.
pub fn role<R: Reader + ?Sized>(reader: &R, name: &str) -> Result<Option<Role>, StoreError> {
    reader.get(&keys::role(name))?.map(stored_role).transpose()
}

fn stored_role(bytes: Bytes) -> Result<Role, StoreError> {
    let role = wire::Role::from_bytes(bytes)?;
    role.try_into()
        .map_err(|error| StoreError::Corrupt(format!("a record of the roles table: {error}")))
}

/// Every token, bounded by [`limits::TOKENS_MAX`], by id.
pub fn tokens<R: Reader + ?Sized>(reader: &R) -> Result<Vec<Token>, StoreError> {
    store::all(reader, keys::tokens(), stored_token)
}

/// Every role that is not built in, bounded by [`limits::ROLES_MAX`], by name.
pub fn roles<R: Reader + ?Sized>(reader: &R) -> Result<Vec<Role>, StoreError> {
    store::all(reader, keys::roles(), stored_role)
}
