//! Tokens, roles, bans and the keys of secrets.

use axum::extract::State;
use axum::response::IntoResponse;
use http::StatusCode;
use llm_config_domain::{Ban, Credential, Grant, Rights, Role, Scope, Token};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::body::{ENTRY_BODY_BYTES_MAX, JsonBody};
use super::caller::Asking;
use super::openapi::{ReadErrors, WriteErrors};
use super::params::{Nothing, Query};
use super::path::Segments;
use super::render;
use super::{Answer, AppState};
use crate::service::{
    CreateTokenRequest, GrantRequest, KeyRing, KeyState, PutRoleRequest, Rotation, WhoAmI,
};

/// A token to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TokenBody {
    /// Who it is for: what its changes are signed with.
    name: String,
    /// What it may do, 1 to 16 roles.
    roles: Vec<String>,
    /// Only there and below; everywhere when absent or `*`.
    #[serde(default)]
    namespaces: Vec<String>,
    /// Only in these environments; in all of them when absent or `*`.
    #[serde(default)]
    environments: Vec<String>,
    /// Until when; for ever when absent.
    expires_in_seconds: Option<u64>,
    /// Instead of a text: a name in the client certificate that proves it.
    certificate: Option<String>,
}

/// A token. Its text is shown once, when it is made.
#[derive(Serialize, ToSchema)]
pub(super) struct TokenView {
    id: String,
    /// The text, in the answer that made it only.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    name: String,
    /// How its text begins.
    prefix: String,
    /// The name in the client certificate that proves it; null for one with a text.
    certificate: Option<String>,
    roles: Vec<String>,
    /// Empty: everywhere.
    namespaces: Vec<String>,
    /// Empty: in all of them.
    environments: Vec<&'static str>,
    /// RFC 3339, UTC
    created_at: String,
    created_by: String,
    /// RFC 3339, UTC; null for never.
    expires_at: Option<String>,
}

/// The tokens that are in force.
#[derive(Serialize, ToSchema)]
pub(super) struct TokenList {
    items: Vec<TokenView>,
}

/// A role to be made or changed.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RoleBody {
    #[serde(default)]
    description: String,
    /// What it allows, and where; 1 to 32.
    grants: Vec<GrantBody>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct GrantBody {
    /// read, write, delete, rollback, reveal, audit, auth, cluster, backup
    actions: Vec<String>,
    /// There and below; everywhere when absent or `*`.
    #[serde(default)]
    namespaces: Vec<String>,
    /// All of them when absent or `*`.
    #[serde(default)]
    environments: Vec<String>,
}

/// A role.
#[derive(Serialize, ToSchema)]
pub(super) struct RoleView {
    name: String,
    description: String,
    /// Whether it is always there and never changes.
    built_in: bool,
    grants: Vec<GrantView>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct GrantView {
    actions: Vec<&'static str>,
    /// Empty: everywhere.
    namespaces: Vec<String>,
    /// Empty: in all of them.
    environments: Vec<&'static str>,
}

/// The roles.
#[derive(Serialize, ToSchema)]
pub(super) struct RoleList {
    items: Vec<RoleView>,
}

/// Who asks.
#[derive(Serialize, ToSchema)]
pub(super) struct WhoAmIView {
    name: String,
    /// The id of its token, or the subject of somebody else's; empty without authentication.
    principal: String,
    /// none, token or issuer
    method: &'static str,
    grants: Vec<GrantView>,
    /// Holds for every grant; empty: everywhere.
    namespaces: Vec<String>,
    /// Holds for every grant; empty: in all of them.
    environments: Vec<&'static str>,
    /// RFC 3339, UTC; null for never.
    expires_at: Option<String>,
}

/// An address that is shut out.
#[derive(Serialize, ToSchema)]
pub(super) struct BanView {
    /// As it is counted: an IPv6 network of 64 bits stands for all of its addresses.
    ip: String,
    reason: String,
    /// How often in a row: each ban lasts twice as long as the one before.
    strikes: u32,
    /// RFC 3339, UTC
    since: String,
    /// RFC 3339, UTC
    until: String,
}

/// The bans that last.
#[derive(Serialize, ToSchema)]
pub(super) struct BanList {
    items: Vec<BanView>,
}

/// The keys of secrets, as the answering node sees them. No key is shown.
#[derive(Serialize, ToSchema)]
pub(super) struct KeysView {
    node_id: u64,
    /// The master keys in this node's file, the current one first.
    master_keys: Vec<String>,
    data_keys: Vec<DataKeyView>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct DataKeyView {
    /// Empty for the key of request digests.
    namespace: String,
    version: u32,
    /// The master key that wraps it.
    master_key: String,
    /// RFC 3339, UTC
    created_at: String,
    /// Whether new secrets are sealed with it. An older one goes once no secret is left under it.
    newest: bool,
    /// Whether this node can open it.
    usable: bool,
}

/// Which keys are exchanged.
#[derive(Deserialize, ToSchema, Clone, Copy)]
#[serde(rename_all = "lowercase")]
pub(super) enum RotationTarget {
    Data,
    Master,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RotateBody {
    /// data: a new key for each namespace, and every secret under it. master: every data key under the first master key
    /// in the answering node's file.
    target: RotationTarget,
    /// Only of this namespace; of all when absent.
    namespace: Option<String>,
}

/// What was exchanged.
#[derive(Serialize, ToSchema)]
pub(super) struct RotateView {
    /// Data keys that were made, or that are wrapped anew.
    keys: usize,
}

fn environments(scope: &Scope) -> Vec<&'static str> {
    scope.environments.iter().map(|environment| environment.as_str()).collect()
}

fn namespaces(scope: &Scope) -> Vec<String> {
    scope.namespaces.iter().map(ToString::to_string).collect()
}

fn expiry(milliseconds: u64) -> Option<String> {
    (milliseconds != 0).then(|| render::timestamp(milliseconds))
}

impl TokenView {
    fn of(token: Token, text: Option<String>) -> Self {
        let certificate = match &token.credential {
            Credential::Hash(_) => None,
            Credential::Certificate(name) => Some(name.clone()),
        };
        TokenView {
            token: text,
            certificate,
            namespaces: namespaces(&token.scope),
            environments: environments(&token.scope),
            created_at: render::timestamp(token.created_at_ms),
            expires_at: expiry(token.expires_at_ms),
            id: token.id,
            name: token.name,
            prefix: token.prefix,
            roles: token.roles,
            created_by: token.created_by,
        }
    }
}

impl From<&Grant> for GrantView {
    fn from(grant: &Grant) -> Self {
        GrantView {
            actions: grant.actions.iter().map(|action| action.as_str()).collect(),
            namespaces: namespaces(&grant.scope),
            environments: environments(&grant.scope),
        }
    }
}

impl From<Role> for RoleView {
    fn from(role: Role) -> Self {
        RoleView {
            built_in: Role::is_built_in(&role.name),
            grants: role.grants.iter().map(Into::into).collect(),
            name: role.name,
            description: role.description,
        }
    }
}

impl From<WhoAmI> for WhoAmIView {
    fn from(known: WhoAmI) -> Self {
        let Rights { grants, within } = known.rights.as_ref();
        WhoAmIView {
            method: known.method,
            grants: grants.iter().map(Into::into).collect(),
            namespaces: namespaces(within),
            environments: environments(within),
            expires_at: known.expires_at_ms.map(render::timestamp),
            name: known.name,
            principal: known.principal,
        }
    }
}

impl From<Ban> for BanView {
    fn from(ban: Ban) -> Self {
        BanView {
            ip: ban.address,
            reason: ban.reason,
            strikes: ban.strikes,
            since: render::timestamp(ban.since_ms),
            until: render::timestamp(ban.until_ms),
        }
    }
}

impl From<KeyState> for DataKeyView {
    fn from(key: KeyState) -> Self {
        DataKeyView {
            namespace: key.owner,
            version: key.version,
            master_key: key.master_id,
            created_at: render::timestamp(key.created_at_ms),
            newest: key.newest,
            usable: key.usable,
        }
    }
}

impl From<GrantBody> for GrantRequest {
    fn from(body: GrantBody) -> Self {
        GrantRequest {
            actions: body.actions,
            namespaces: body.namespaces,
            environments: body.environments,
        }
    }
}

/// Makes a token
///
/// Nobody can hand out more than they may do themselves. The text is shown in this answer and never again.
#[utoipa::path(
    post, path = "/api/v1/auth/tokens", tag = "access", operation_id = "createToken",
    params(Nothing),
    request_body(content = TokenBody, content_type = "application/json"),
    responses((status = 201, description = "Made", body = TokenView), WriteErrors)
)]
pub(super) async fn create_token(
    State(state): State<AppState>,
    Asking(caller): Asking,
    _query: Query<Nothing>,
    body: JsonBody<ENTRY_BODY_BYTES_MAX>,
) -> Answer {
    let TokenBody { name, roles, namespaces, environments, expires_in_seconds, certificate } =
        body.required()?;
    let request = CreateTokenRequest {
        name,
        roles,
        namespaces,
        environments,
        expires_in_seconds,
        certificate,
    };
    let context = state.service.context(caller, None);
    let made = state.service.create_token(&context, request).await?;
    let view = TokenView::of(made.token, made.text);
    Ok(render::serialized(StatusCode::CREATED, revision(&state), &view))
}

/// The tokens
#[utoipa::path(
    get, path = "/api/v1/auth/tokens", tag = "access", operation_id = "tokens",
    params(Nothing),
    responses((status = 200, description = "Those in force on this node", body = TokenList), ReadErrors)
)]
pub(super) async fn tokens(
    State(state): State<AppState>,
    Asking(caller): Asking,
    _query: Query<Nothing>,
) -> Answer {
    let tokens = state.service.tokens(&state.service.context(caller, None)).await?;
    let items = tokens.into_iter().map(|token| TokenView::of(token, None)).collect();
    Ok(render::serialized(StatusCode::OK, revision(&state), &TokenList { items }))
}

/// Revokes a token
#[utoipa::path(
    delete, path = "/api/v1/auth/tokens/{id}", tag = "access", operation_id = "revokeToken",
    params(("id" = String, Path, description = "The token's id, not its text"), Nothing),
    responses((status = 204, description = "It is void on every node that hears of it"), WriteErrors)
)]
pub(super) async fn revoke_token(
    State(state): State<AppState>,
    Asking(caller): Asking,
    path: Segments,
    _query: Query<Nothing>,
) -> Answer {
    let context = state.service.context(caller, None);
    state.service.revoke_token(&context, &path.name("id")?).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// The roles
#[utoipa::path(
    get, path = "/api/v1/auth/roles", tag = "access", operation_id = "roles",
    params(Nothing),
    responses((status = 200, description = "The built-in ones too", body = RoleList), ReadErrors)
)]
pub(super) async fn roles(
    State(state): State<AppState>,
    Asking(caller): Asking,
    _query: Query<Nothing>,
) -> Answer {
    let roles = state.service.roles(&state.service.context(caller, None)).await?;
    let items = roles.into_iter().map(Into::into).collect();
    Ok(render::serialized(StatusCode::OK, revision(&state), &RoleList { items }))
}

/// One role
#[utoipa::path(
    get, path = "/api/v1/auth/roles/{name}", tag = "access", operation_id = "role",
    params(("name" = String, Path, description = "The role"), Nothing),
    responses((status = 200, description = "The role", body = RoleView), ReadErrors)
)]
pub(super) async fn role(
    State(state): State<AppState>,
    Asking(caller): Asking,
    path: Segments,
    _query: Query<Nothing>,
) -> Answer {
    let context = state.service.context(caller, None);
    let role = state.service.role(&context, &path.name("name")?).await?;
    Ok(render::serialized(StatusCode::OK, revision(&state), &RoleView::from(role)))
}

/// Makes or changes a role
///
/// Tokens that have it may do what it says from then on. Nobody can hand out more than they may do themselves.
#[utoipa::path(
    put, path = "/api/v1/auth/roles/{name}", tag = "access", operation_id = "putRole",
    params(("name" = String, Path, description = "The role"), Nothing),
    request_body(content = RoleBody, content_type = "application/json"),
    responses((status = 200, description = "Made or changed", body = RoleView), WriteErrors)
)]
pub(super) async fn put_role(
    State(state): State<AppState>,
    Asking(caller): Asking,
    path: Segments,
    _query: Query<Nothing>,
    body: JsonBody<ENTRY_BODY_BYTES_MAX>,
) -> Answer {
    let RoleBody { description, grants } = body.required()?;
    let grants = grants.into_iter().map(Into::into).collect();
    let request = PutRoleRequest { name: path.name("name")?, description, grants };
    let context = state.service.context(caller, None);
    let role = state.service.put_role(&context, request).await?;
    Ok(render::serialized(StatusCode::OK, revision(&state), &RoleView::from(role)))
}

/// Deletes a role
#[utoipa::path(
    delete, path = "/api/v1/auth/roles/{name}", tag = "access", operation_id = "deleteRole",
    params(("name" = String, Path, description = "The role"), Nothing),
    responses((status = 204, description = "Tokens that have it may do less from then on"), WriteErrors)
)]
pub(super) async fn delete_role(
    State(state): State<AppState>,
    Asking(caller): Asking,
    path: Segments,
    _query: Query<Nothing>,
) -> Answer {
    let context = state.service.context(caller, None);
    state.service.delete_role(&context, &path.name("name")?).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Who asks, and what they may do
#[utoipa::path(
    get, path = "/api/v1/auth/whoami", tag = "access", operation_id = "whoAmI",
    params(Nothing),
    responses((status = 200, description = "The caller", body = WhoAmIView), ReadErrors)
)]
pub(super) async fn who_am_i(
    State(state): State<AppState>,
    Asking(caller): Asking,
    _query: Query<Nothing>,
) -> Answer {
    let known = state.service.who_am_i(&state.service.context(caller, None)).await?;
    Ok(render::serialized(StatusCode::OK, revision(&state), &WhoAmIView::from(known)))
}

/// The addresses that are shut out
#[utoipa::path(
    get, path = "/api/v1/security/bans", tag = "access", operation_id = "bans",
    params(Nothing),
    responses((status = 200, description = "The bans that last", body = BanList), ReadErrors)
)]
pub(super) async fn bans(
    State(state): State<AppState>,
    Asking(caller): Asking,
    _query: Query<Nothing>,
) -> Answer {
    let bans = state.service.bans(&state.service.context(caller, None)).await?;
    let items = bans.into_iter().map(Into::into).collect();
    Ok(render::serialized(StatusCode::OK, revision(&state), &BanList { items }))
}

/// Lets an address in again
#[utoipa::path(
    delete, path = "/api/v1/security/bans/{ip}", tag = "access", operation_id = "liftBan",
    params(("ip" = String, Path, description = "As the list shows it, percent-encoded"), Nothing),
    responses((status = 204, description = "Lifted, and its past forgotten"), WriteErrors)
)]
pub(super) async fn lift_ban(
    State(state): State<AppState>,
    Asking(caller): Asking,
    path: Segments,
    _query: Query<Nothing>,
) -> Answer {
    let context = state.service.context(caller, None);
    state.service.lift_ban(&context, &path.name("ip")?).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// The keys of secrets
#[utoipa::path(
    get, path = "/api/v1/admin/keys", tag = "access", operation_id = "keys",
    params(Nothing),
    responses((status = 200, description = "As this node sees them; no key is shown", body = KeysView), ReadErrors)
)]
pub(super) async fn keys(
    State(state): State<AppState>,
    Asking(caller): Asking,
    _query: Query<Nothing>,
) -> Answer {
    let ring = state.service.key_ring(&state.service.context(caller, None)).await?;
    let KeyRing { master_ids, keys, revision } = ring;
    let view = KeysView {
        node_id: state.service.replica().node_id(),
        master_keys: master_ids,
        data_keys: keys.into_iter().map(Into::into).collect(),
    };
    Ok(render::serialized(StatusCode::OK, revision, &view))
}

/// Exchanges the keys of secrets
///
/// Online: new data keys are in use when this answers, and the leader puts the secrets under them in the background; an
/// old key goes once it opens nothing any more. Sent again, it goes on where it was.
#[utoipa::path(
    post, path = "/api/v1/admin/keys/rotate", tag = "access", operation_id = "rotateKeys",
    params(Nothing),
    request_body(content = RotateBody, content_type = "application/json"),
    responses((status = 200, description = "Begun, or done", body = RotateView), WriteErrors)
)]
pub(super) async fn rotate_keys(
    State(state): State<AppState>,
    Asking(caller): Asking,
    _query: Query<Nothing>,
    body: JsonBody<ENTRY_BODY_BYTES_MAX>,
) -> Answer {
    let RotateBody { target, namespace } = body.required()?;
    let rotation = match target {
        RotationTarget::Data => Rotation::Data,
        RotationTarget::Master => Rotation::Master,
    };
    let context = state.service.context(caller, None);
    let keys = state.service.rotate_keys(&context, rotation, namespace).await?;
    Ok(render::serialized(StatusCode::OK, revision(&state), &RotateView { keys }))
}

/// What these answers reflect: the policy that this node has applied.
fn revision(state: &AppState) -> u64 {
    state.service.replica().applied_revision()
}
