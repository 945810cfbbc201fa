//! Tokens, roles and bans: who asks may hand out no more than they have.
//!
//! What is listed is the policy that is in force on this node, the same that requests are judged by.

use std::sync::Arc;

use llm_config_domain::{
    Action, AuditKind, Ban, Credential, Environment, Grant, Namespace, Operation, Rights, Role,
    Scope, Token, bans,
};

use super::{AUTH, Context, Service, query_error};
use crate::access::{Caller, NewToken, Proof, new_token};
use crate::error::ServiceError;
use llm_config_replica::wall_clock_ms;

/// Longest life of a token that ends at all: a hundred years.
const EXPIRY_SECONDS_MAX: u64 = 100 * 366 * 24 * 3_600;

/// A token to be made, as text.
#[derive(Debug, Clone, Default)]
pub struct CreateTokenRequest {
    pub name: String,
    pub roles: Vec<String>,
    pub namespaces: Vec<String>,
    pub environments: Vec<String>,
    pub expires_in_seconds: Option<u64>,
    /// Instead of a text: the name in a client certificate.
    pub certificate: Option<String>,
}

/// A token that was made.
pub struct CreatedToken {
    pub token: Token,
    /// Shown this once; nothing for one that a certificate proves.
    pub text: Option<String>,
}

/// A role to be made or changed, as text.
#[derive(Debug, Clone, Default)]
pub struct PutRoleRequest {
    pub name: String,
    pub description: String,
    pub grants: Vec<GrantRequest>,
}

#[derive(Debug, Clone, Default)]
pub struct GrantRequest {
    pub actions: Vec<String>,
    pub namespaces: Vec<String>,
    pub environments: Vec<String>,
}

/// The caller, as this node knows it.
#[derive(Debug, Clone)]
pub struct WhoAmI {
    pub name: String,
    pub principal: String,
    /// `none`, `token` or `issuer`.
    pub method: &'static str,
    pub rights: Arc<Rights>,
    pub expires_at_ms: Option<u64>,
}

impl Service {
    pub async fn create_token(
        &self,
        context: &Context,
        request: CreateTokenRequest,
    ) -> Result<CreatedToken, ServiceError> {
        let result = self.make_token(context, request).await;
        self.counted(context, "token_create", result)
    }

    async fn make_token(
        &self,
        context: &Context,
        request: CreateTokenRequest,
    ) -> Result<CreatedToken, ServiceError> {
        self.authorize(context, &[AUTH]).await?;
        let scope = scope(&request.namespaces, &request.environments)?;
        let policy = self.inner.guards.access.policy();
        if let Some(unknown) = request.roles.iter().find(|role| !policy.knows(role)) {
            let known: Vec<_> = policy.roles().map(|role| role.name.clone()).collect();
            let reason = format!("there is no role {unknown:?}; there are {}", known.join(", "));
            return Err(ServiceError::invalid("roles", reason));
        }
        self.hold(context, &policy.rights(&request.roles, scope.clone())).await?;
        let expires_at_ms = match request.expires_in_seconds {
            None => 0,
            Some(seconds) if (1..=EXPIRY_SECONDS_MAX).contains(&seconds) => {
                wall_clock_ms().saturating_add(seconds * 1_000)
            }
            Some(_) => {
                let reason = format!("must be 1 to {EXPIRY_SECONDS_MAX}, or left out for never");
                return Err(ServiceError::invalid("expires_in_seconds", reason));
            }
        };
        let NewToken { id, prefix, text, hash } = new_token()?;
        let (credential, prefix, text) = match request.certificate {
            None => (Credential::Hash(hash), prefix, Some(text)),
            Some(name) => {
                let taken = policy
                    .principals()
                    .into_iter()
                    .find(|known| known.token.credential == Credential::Certificate(name.clone()));
                if let Some(taken) = taken {
                    let reason =
                        format!("token {} is registered for it; revoke that first", taken.token.id);
                    return Err(ServiceError::invalid("certificate", reason));
                }
                (Credential::Certificate(name), String::new(), None)
            }
        };
        let mut token = Token {
            id,
            name: request.name,
            prefix,
            credential,
            roles: request.roles,
            scope,
            created_at_ms: 0,
            created_by: context.caller.name.to_string(),
            expires_at_ms,
        };
        self.administer(
            context,
            Operation::CreateToken(token.clone()),
            AuditKind::AuthTokenCreate,
            "",
        )
        .await?;
        match self.inner.guards.access.policy().by_id(&token.id) {
            Some(known) => token = known.token.clone(),
            // It was made, and this node has not heard of it yet.
            None => token.created_at_ms = wall_clock_ms(),
        }
        Ok(CreatedToken { token, text })
    }

    pub async fn tokens(&self, context: &Context) -> Result<Vec<Token>, ServiceError> {
        let allowed = self.authorize(context, &[AUTH]).await;
        let result = allowed.map(|()| {
            let known = self.inner.guards.access.policy().principals();
            known.iter().map(|known| known.token.clone()).collect()
        });
        self.counted(context, "tokens", result)
    }

    pub async fn revoke_token(&self, context: &Context, id: &str) -> Result<(), ServiceError> {
        let operation = Operation::RevokeToken(id.to_owned());
        let what = format!("there is no token {id}");
        let result = self.administer(context, operation, AuditKind::AuthTokenRevoke, &what).await;
        self.counted(context, "token_revoke", result)
    }

    pub async fn put_role(
        &self,
        context: &Context,
        request: PutRoleRequest,
    ) -> Result<Role, ServiceError> {
        let result = self.keep_role(context, request).await;
        self.counted(context, "role_put", result)
    }

    async fn keep_role(
        &self,
        context: &Context,
        request: PutRoleRequest,
    ) -> Result<Role, ServiceError> {
        self.authorize(context, &[AUTH]).await?;
        let grants = request.grants.iter().map(grant).collect::<Result<Vec<_>, _>>()?;
        let role = Role { name: request.name, description: request.description, grants };
        let given = Rights { grants: role.grants.clone(), within: Scope::default() };
        self.hold(context, &given).await?;
        self.administer(context, Operation::PutRole(role.clone()), AuditKind::AuthRolePut, "")
            .await?;
        Ok(role)
    }

    pub async fn roles(&self, context: &Context) -> Result<Vec<Role>, ServiceError> {
        let allowed = self.authorize(context, &[AUTH]).await;
        let result = allowed.map(|()| self.inner.guards.access.policy().roles().cloned().collect());
        self.counted(context, "roles", result)
    }

    pub async fn role(&self, context: &Context, name: &str) -> Result<Role, ServiceError> {
        let allowed = self.authorize(context, &[AUTH]).await;
        let result = allowed.and_then(|()| {
            self.inner.guards.access.policy().role(name).cloned().ok_or_else(|| {
                ServiceError::NotFound { what: format!("there is no role {name}"), revision: None }
            })
        });
        self.counted(context, "roles", result)
    }

    pub async fn delete_role(&self, context: &Context, name: &str) -> Result<(), ServiceError> {
        let operation = Operation::DeleteRole(name.to_owned());
        let what = format!("there is no role {name}");
        let result = self.administer(context, operation, AuditKind::AuthRoleDelete, &what).await;
        self.counted(context, "role_delete", result)
    }

    /// Who asks, and what they may do.
    pub async fn who_am_i(&self, context: &Context) -> Result<WhoAmI, ServiceError> {
        let again = self.authorize(context, &[]).await;
        let result = again.map(|()| {
            let caller = &context.caller;
            WhoAmI {
                name: caller.name.to_string(),
                principal: caller.principal.to_string(),
                method: method(caller),
                rights: Arc::clone(&caller.rights),
                expires_at_ms: caller.expires_at_ms(),
            }
        });
        self.counted(context, "whoami", result)
    }

    /// The bans that last.
    pub async fn bans(&self, context: &Context) -> Result<Vec<Ban>, ServiceError> {
        let result = self.list_bans(context).await;
        self.counted(context, "bans", result)
    }

    async fn list_bans(&self, context: &Context) -> Result<Vec<Ban>, ServiceError> {
        self.authorize(context, &[AUTH]).await?;
        let now_ms = wall_clock_ms();
        self.on_view(context, move |view, revision| {
            let all = bans::all(view).map_err(|error| {
                query_error(error.into(), revision, || "there are no bans".into())
            })?;
            Ok(all.into_iter().filter(|ban| ban.until_ms > now_ms).collect())
        })
        .await
    }

    pub async fn lift_ban(&self, context: &Context, address: &str) -> Result<(), ServiceError> {
        let what = format!("{address} is not banned");
        let operation = Operation::LiftBan(address.to_owned());
        let result = self.administer(context, operation, AuditKind::SecurityBanLift, &what).await;
        self.counted(context, "ban_lift", result)
    }

    /// Proposes what an administrator asks for; a try that is made again by itself changes nothing twice.
    pub(super) async fn administer(
        &self,
        context: &Context,
        operation: Operation,
        kind: AuditKind,
        what: &str,
    ) -> Result<(), ServiceError> {
        let key = uuid::Uuid::now_v7().to_string();
        self.propose(context, operation, Some(key), what.to_owned()).await?;
        // It holds on this node when the answer is there. If not in time, it is done all the same.
        drop(self.catch_up(context.deadline).await);
        self.inner.metrics.audit_event(kind.as_str());
        Ok(())
    }

    /// Refuses to hand out what the caller does not have.
    async fn hold(&self, context: &Context, given: &Rights) -> Result<(), ServiceError> {
        match context.caller.rights.lack(given) {
            None => Ok(()),
            Some(what) => {
                let need = format!("hand out a right that they do not have: {what}");
                Err(self.deny(&context.caller, need).await)
            }
        }
    }
}

fn method(caller: &Caller) -> &'static str {
    match caller.proof() {
        Proof::Nothing => "none",
        Proof::Token { .. } => "token",
        Proof::Issuer { .. } => "issuer",
    }
}

fn grant(request: &GrantRequest) -> Result<Grant, ServiceError> {
    let actions = request.actions.iter().map(|word| Action::parse(word));
    Ok(Grant {
        actions: actions.collect::<Result<_, _>>()?,
        scope: scope(&request.namespaces, &request.environments)?,
    })
}

/// `*` stands for all of them, as an empty list does.
fn scope(namespaces: &[String], environments: &[String]) -> Result<Scope, ServiceError> {
    let all = |list: &[String]| list.iter().any(|text| text == "*");
    let named = |list: &[String]| if all(list) { Vec::new() } else { list.to_vec() };
    let parse = |field, error: ServiceError| match error {
        ServiceError::InvalidArgument { reason, .. } => ServiceError::invalid(field, reason),
        other => other,
    };
    Ok(Scope {
        namespaces: named(namespaces)
            .iter()
            .map(|text| Namespace::parse(text).map_err(|error| parse("namespaces", error.into())))
            .collect::<Result<_, _>>()?,
        environments: named(environments)
            .iter()
            .map(|text| {
                Environment::parse(text).map_err(|error| parse("environments", error.into()))
            })
            .collect::<Result<_, _>>()?,
    })
}
