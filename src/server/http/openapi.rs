//! The routes of the API and the OpenAPI document, from one list.
//!
//! The documents below describe answers that `render.rs` writes as text; a contract test holds the two together.

use std::collections::{BTreeMap, HashMap};

use utoipa::openapi::path::{HttpMethod, OperationBuilder, PathItem};
use utoipa::openapi::{ContentBuilder, OpenApi as Document, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{IntoResponses, OpenApi, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::problem::{self, Problem};
use super::{
    AppState, audit, backup, cluster, configs, history, listings, members, resolve, schemas,
    security, txn, watch,
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "LLM Config Manager",
        description = "A replicated configuration store. Errors are RFC 9457 problem documents; every answer carries \
                       `X-Request-Id`, `X-Config-Node`, `X-Config-Leader` (when known) and `X-Config-Revision`.",
    ),
    components(schemas(Problem, EntryDocument)),
    tags(
        (name = "configs", description = "Entries"),
        (name = "schemas", description = "What values have to meet"),
        (name = "cluster", description = "Nodes and maintenance"),
        (name = "access", description = "Tokens, roles, bans and the keys of secrets"),
        (name = "audit", description = "Who did what"),
        (name = "health", description = "For load balancers, orchestrators and alerts"),
    )
)]
struct Base;

/// The routes under `/api/v1`, with their part of the document.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    let mut document = Base::openapi();
    describe_health(&mut document);
    OpenApiRouter::with_openapi(document)
        .routes(routes!(configs::get, configs::set, configs::delete))
        .routes(routes!(configs::rollback))
        .routes(routes!(history::history))
        .routes(routes!(history::diff))
        .routes(routes!(listings::list))
        .routes(routes!(listings::namespaces))
        .routes(routes!(resolve::resolve))
        .routes(routes!(txn::txn))
        .routes(routes!(watch::watch))
        .routes(routes!(schemas::list))
        .routes(routes!(schemas::get, schemas::put, schemas::delete))
        .routes(routes!(cluster::cluster))
        .routes(routes!(cluster::compact))
        .routes(routes!(cluster::clear_cache))
        .routes(routes!(members::add))
        .routes(routes!(members::remove))
        .routes(routes!(members::promote))
        .routes(routes!(members::demote))
        .routes(routes!(members::replace))
        .routes(routes!(members::transfer_leader))
        .routes(routes!(backup::backup))
        .routes(routes!(backup::list, backup::keep))
        .routes(routes!(security::create_token, security::tokens))
        .routes(routes!(security::revoke_token))
        .routes(routes!(security::roles))
        .routes(routes!(security::role, security::put_role, security::delete_role))
        .routes(routes!(security::who_am_i))
        .routes(routes!(security::bans))
        .routes(routes!(security::lift_ban))
        .routes(routes!(security::keys))
        .routes(routes!(security::rotate_keys))
        .routes(routes!(audit::audit))
        .routes(routes!(audit::verify))
        .routes(routes!(audit::retention, audit::set_retention))
}

/// The OpenAPI document that `/openapi.json` serves.
pub fn document() -> Document {
    routes().into_openapi()
}

fn describe_health(document: &mut Document) {
    let checks = [
        ("/health", "health", "200 healthy or degraded, 503 unhealthy"),
        ("/health/live", "live", "200 while the process answers"),
        (
            "/health/ready",
            "ready",
            "200 when the node knows a leader and has caught up, 503 before",
        ),
        ("/health/leader", "leader", "200 on the leader, 503 elsewhere"),
    ];
    for (path, id, summary) in checks {
        let answer = |description: &str| {
            let content = ContentBuilder::new().schema(Some(health_schema())).build();
            ResponseBuilder::new()
                .description(description)
                .content("application/json", content)
                .build()
        };
        let operation = OperationBuilder::new()
            .tag("health")
            .operation_id(Some(id))
            .summary(Some(summary))
            .response("200", answer("Yes"))
            .response("503", answer("No"))
            .build();
        document.paths.paths.insert(path.to_owned(), PathItem::new(HttpMethod::Get, operation));
    }
}

fn health_schema() -> utoipa::openapi::Object {
    utoipa::openapi::ObjectBuilder::new().schema_type(utoipa::openapi::Type::Object).build()
}

/// A JSON Schema that the values of a key have to meet, in every environment.
#[derive(ToSchema)]
#[schema(as = Schema)]
#[expect(dead_code, reason = "describes what schemas.rs writes")]
pub(super) struct SchemaDocument {
    namespace: String,
    key: String,
    /// A JSON Schema of the draft 2020-12.
    schema: serde_json::Value,
    /// Counts changes of schemas in the whole cluster: no two schemas share one.
    version: u64,
    /// RFC 3339, UTC.
    created_at: String,
    created_by: String,
    /// RFC 3339, UTC.
    updated_at: String,
    updated_by: String,
    /// Why the last change.
    comment: String,
}

/// A page of schemas.
#[derive(ToSchema)]
#[schema(as = SchemaPage)]
#[expect(dead_code, reason = "describes what schemas.rs writes")]
pub(super) struct SchemaPageDocument {
    items: Vec<SchemaDocument>,
    /// Null on the last page.
    next_cursor: Option<String>,
}

/// A configuration entry.
#[derive(ToSchema)]
#[schema(as = Entry)]
#[expect(dead_code, reason = "describes what render.rs writes")]
pub(super) struct EntryDocument {
    namespace: String,
    key: String,
    /// base, development, staging, production or edge
    env: String,
    /// Absent in a deleted version. Of a secret: `********`, or the plaintext where `reveal=true` asked for it.
    #[schema(required = false)]
    value: serde_json::Value,
    /// Present, and true, in a deleted version only.
    #[schema(required = false)]
    deleted: bool,
    secret: bool,
    /// Counts 1, 2, 3… per entry, and goes on after a delete.
    version: u64,
    /// The cluster's number of the change that made this version.
    revision: u64,
    /// RFC 3339, UTC
    created_at: String,
    created_by: String,
    updated_at: String,
    updated_by: String,
    description: String,
    tags: Vec<String>,
    /// Why this change.
    comment: String,
}

/// A page of entries.
#[derive(ToSchema)]
#[schema(as = EntryList)]
#[expect(dead_code, reason = "describes what listings.rs writes")]
pub(super) struct ListDocument {
    items: Vec<EntryDocument>,
    /// Null on the last page.
    next_cursor: Option<String>,
    /// The revision that the page reflects.
    revision: u64,
}

/// A page of versions, newest first.
#[derive(ToSchema)]
#[schema(as = VersionList)]
#[expect(dead_code, reason = "describes what history.rs writes")]
pub(super) struct HistoryDocument {
    items: Vec<EntryDocument>,
    /// Null on the last page.
    next_cursor: Option<String>,
}

/// Two versions, and what turns the first into the second.
#[derive(ToSchema)]
#[schema(as = Diff)]
#[expect(dead_code, reason = "describes what history.rs writes")]
pub(super) struct DiffDocument {
    from: EntryDocument,
    to: EntryDocument,
    /// RFC 6902 JSON Patch.
    patch: Vec<serde_json::Value>,
}

/// A namespace as an application sees it.
#[derive(ToSchema)]
#[schema(as = Resolved)]
#[expect(dead_code, reason = "describes what resolve.rs writes")]
pub(super) struct ResolveDocument {
    namespace: String,
    environment: String,
    values: HashMap<String, serde_json::Value>,
    /// Key → the environment that supplied its value.
    sources: HashMap<String, String>,
    revision: u64,
}

/// What a transaction did.
#[derive(ToSchema)]
#[schema(as = TxnAnswer)]
#[expect(dead_code, reason = "describes what txn.rs writes")]
pub(super) struct TxnDocument {
    /// Whether every comparison held.
    succeeded: bool,
    revision: u64,
    /// Of the list that ran, in its order.
    results: Vec<TxnResultDocument>,
}

#[derive(ToSchema)]
#[schema(as = TxnResult)]
#[expect(dead_code, reason = "describes what txn.rs writes")]
pub(super) struct TxnResultDocument {
    /// set, delete or get
    op: String,
    /// Null for a get of an entry that is not there.
    entry: Option<EntryDocument>,
}

/// The errors of reads.
pub(super) struct ReadErrors;

/// The errors of changes.
pub(super) struct WriteErrors;

/// The errors of changes of the members.
pub(super) struct MemberErrors;

const UNAUTHENTICATED: (&str, &str) = ("401", "UNAUTHENTICATED: who asks is not known");
const DENIED: (&str, &str) =
    ("403", "PERMISSION_DENIED: `detail` names the right; BANNED: the address is shut out");
const LIMITED: (&str, &str) = ("429", "RATE_LIMITED: again after `Retry-After` seconds");

const READ_ERRORS: [(&str, &str); 9] = [
    ("400", "INVALID_ARGUMENT: `detail` names the field"),
    UNAUTHENTICATED,
    DENIED,
    LIMITED,
    ("404", "NOT_FOUND"),
    ("410", "REVISION_COMPACTED: the body has `oldest_revision`"),
    ("413", "PAYLOAD_TOO_LARGE: the answer would exceed a limit"),
    ("500", "INTERNAL"),
    ("503", "NO_LEADER, NOT_READY, OVERLOADED, STALE: safe to retry after `Retry-After` seconds"),
];

const WRITE_ERRORS: [(&str, &str); 14] = [
    ("400", "INVALID_ARGUMENT: `detail` names the field"),
    UNAUTHENTICATED,
    DENIED,
    LIMITED,
    ("404", "NOT_FOUND"),
    (
        "409",
        "VERSION_CONFLICT: the body has `current_version`; IDEMPOTENCY_KEY_REUSED: another request had this key",
    ),
    ("410", "REVISION_COMPACTED: the body has `oldest_revision`"),
    ("413", "PAYLOAD_TOO_LARGE"),
    ("415", "INVALID_ARGUMENT: the body is not `application/json`"),
    ("422", "SCHEMA_VIOLATION: the body has `violations`"),
    ("500", "INTERNAL"),
    (
        "503",
        "NO_LEADER, NOT_READY, OVERLOADED: nothing was changed, safe to retry after `Retry-After` seconds",
    ),
    ("504", "OUTCOME_UNKNOWN: it may have happened; retry with the same `Idempotency-Key`"),
    ("507", "STORAGE_FULL: reads and deletes still work"),
];

const MEMBER_ERRORS: [(&str, &str); 12] = [
    ("400", "INVALID_ARGUMENT: `detail` names the field"),
    UNAUTHENTICATED,
    DENIED,
    LIMITED,
    ("404", "NOT_FOUND: no such member"),
    (
        "409",
        "MEMBERSHIP_CONFLICT: `detail` says what stands in the way; QUORUM_AT_RISK: refused unless `force`",
    ),
    ("413", "PAYLOAD_TOO_LARGE"),
    ("415", "INVALID_ARGUMENT: the body is not `application/json`"),
    ("500", "INTERNAL"),
    (
        "503",
        "NO_LEADER, NOT_READY, OVERLOADED: nothing was changed, safe to retry after `Retry-After` seconds",
    ),
    ("504", "OUTCOME_UNKNOWN: it may have happened; send it again"),
    ("507", "STORAGE_FULL"),
];

impl IntoResponses for ReadErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems(&READ_ERRORS)
    }
}

impl IntoResponses for WriteErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems(&WRITE_ERRORS)
    }
}

impl IntoResponses for MemberErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems(&MEMBER_ERRORS)
    }
}

fn problems(errors: &[(&str, &str)]) -> BTreeMap<String, RefOr<Response>> {
    let response = |description: &str| {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
        RefOr::T(
            ResponseBuilder::new()
                .description(description)
                .content(problem::MEDIA_TYPE, content)
                .build(),
        )
    };
    errors
        .iter()
        .map(|(status, description)| ((*status).to_owned(), response(description)))
        .collect()
}
