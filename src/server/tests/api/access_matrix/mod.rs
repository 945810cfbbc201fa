//! Who may do what: every route and every RPC, as every role, in and outside of what a token is restricted to.
//!
//! The table is committed, `table.txt`; `UPDATE=1 cargo test -p llm-config-server --test api table` writes it anew. A route or
//! RPC that has no probe here fails the test, so that nobody adds a door without deciding who may pass.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::http_support::secured::{ROOT, with_token};
use crate::http_support::{Alone, secured};
use axum::body::Body;
use futures::StreamExt as _;
use futures::stream;
use http::{Method, Request};
use http_body_util::BodyExt as _;
use llm_config_proto::FILE_DESCRIPTOR_SET;
use llm_config_proto::v1;
use llm_config_server::{grpc, http as door};
use prost::Message as _;
use prost_types::FileDescriptorSet;
use serde_json::json;
use tower::ServiceExt as _;

const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/api/access_matrix/table.txt");
/// The built-in roles, and two that are made here: each action is in one of them alone.
const ROLES: [&str; 6] = ["admin", "editor", "viewer", "auditor", "revealer", "operator"];
/// Where the restricted tokens hold, and what lies beside it.
const INSIDE: (&str, &str) = ("team/app", "production");
const OTHER_NAMESPACE: (&str, &str) = ("teams", "production");
const OTHER_ENVIRONMENT: (&str, &str) = ("team/app", "staging");
const KEY: &str = "matrix";
/// Requests at a time.
const AT_ONCE: usize = 16;

/// One way to ask, at a namespace and in an environment.
struct Probe {
    name: String,
    ask: Ask,
}

enum Ask {
    /// Method, path and body, with `{ns}` and `{env}` in the last two.
    Http(Method, &'static str, String),
    /// Path and message.
    Grpc(String, fn(&str, &str) -> Vec<u8>),
}

fn http_probes() -> Vec<Probe> {
    let body = |value: serde_json::Value| value.to_string();
    let set = body(json!({"value": 1, "env": "{env}"}));
    let op = |op: &str| {
        let mut op = json!({"op": op, "namespace": "{ns}", "key": KEY, "env": "{env}"});
        if op["op"] == "set" {
            op["value"] = json!(1);
        }
        op
    };
    let success = |one: &str| body(json!({"success": [op(one)]}));
    let compare = json!({"namespace": "{ns}", "key": KEY, "env": "{env}", "version": 9_999});
    let rows: Vec<(Method, &'static str, &'static str, String)> = vec![
        (Method::GET, "/api/v1/configs/{ns}/{key}", "?env={env}", String::new()),
        (Method::GET, "/api/v1/configs/{ns}/{key}", "?env={env}&resolve=true", String::new()),
        (Method::GET, "/api/v1/configs/{ns}/{key}", "?env={env}&reveal=true", String::new()),
        (Method::PUT, "/api/v1/configs/{ns}/{key}", "", set.clone()),
        (Method::POST, "/api/v1/configs/{ns}/{key}", "", set),
        (
            Method::DELETE,
            "/api/v1/configs/{ns}/{key}",
            "?env={env}&expected_version=9999",
            String::new(),
        ),
        (
            Method::POST,
            "/api/v1/configs/{ns}/{key}/rollback/{version}",
            "?env={env}",
            String::new(),
        ),
        (Method::GET, "/api/v1/configs/{ns}/{key}/history", "?env={env}", String::new()),
        (Method::GET, "/api/v1/configs/{ns}/{key}/diff", "?env={env}&from=1", String::new()),
        (
            Method::GET,
            "/api/v1/configs/{ns}/{key}/diff",
            "?env_from={env}&env_to={env}",
            String::new(),
        ),
        (Method::GET, "/api/v1/configs/{ns}", "?env={env}", String::new()),
        (Method::GET, "/api/v1/namespaces", "", String::new()),
        (Method::GET, "/api/v1/resolve/{ns}", "?env={env}", String::new()),
        (Method::GET, "/api/v1/resolve/{ns}", "?env={env}&reveal=true", String::new()),
        (Method::POST, "/api/v1/txn", "get", success("get")),
        (Method::POST, "/api/v1/txn", "set", success("set")),
        (Method::POST, "/api/v1/txn", "compare", body(json!({"compare": [compare]}))),
        (
            Method::POST,
            "/api/v1/txn",
            "delete in the branch not taken",
            body(json!({"failure": [op("delete")]})),
        ),
        (Method::GET, "/api/v1/watch", "?namespace={ns}&env={env}", String::new()),
        (Method::GET, "/api/v1/watch", "", String::new()),
        (Method::GET, "/api/v1/watch", "?namespace_prefix=team", String::new()),
        (Method::GET, "/api/v1/schemas/{ns}", "", String::new()),
        (Method::GET, "/api/v1/schemas/{ns}/{key}", "", String::new()),
        (
            Method::PUT,
            "/api/v1/schemas/{ns}/{key}",
            "",
            body(json!({"schema": true, "expected_version": 9_999})),
        ),
        (Method::DELETE, "/api/v1/schemas/{ns}/{key}", "?expected_version=9999", String::new()),
        (Method::GET, "/api/v1/cluster", "", String::new()),
        (Method::POST, "/api/v1/admin/compact", "", String::new()),
        (Method::POST, "/api/v1/admin/cache/clear", "", String::new()),
        (
            Method::POST,
            "/api/v1/cluster/members",
            "",
            body(
                json!({"id": 1, "raft": "127.0.0.1:1", "http": "127.0.0.1:2", "grpc": "127.0.0.1:3"}),
            ),
        ),
        (Method::DELETE, "/api/v1/cluster/members/{id}", "", String::new()),
        (Method::POST, "/api/v1/cluster/members/{id}/promote", "", String::new()),
        (Method::POST, "/api/v1/cluster/members/{id}/demote", "", String::new()),
        (Method::POST, "/api/v1/cluster/members/{id}/replace", "", body(json!({"with": 78}))),
        (Method::POST, "/api/v1/cluster/transfer-leader", "", body(json!({"to": 77}))),
        (Method::POST, "/api/v1/admin/backup", "", String::new()),
        (Method::GET, "/api/v1/admin/backups", "", String::new()),
        (Method::POST, "/api/v1/admin/backups", "", String::new()),
        (
            Method::POST,
            "/api/v1/auth/tokens",
            "",
            body(
                json!({"name": "made", "roles": ["viewer"], "namespaces": ["{ns}"], "environments": ["{env}"]}),
            ),
        ),
        (Method::GET, "/api/v1/auth/tokens", "", String::new()),
        (Method::DELETE, "/api/v1/auth/tokens/{id}", "", String::new()),
        (Method::GET, "/api/v1/auth/roles", "", String::new()),
        (Method::GET, "/api/v1/auth/roles/{name}", "", String::new()),
        (
            Method::PUT,
            "/api/v1/auth/roles/{name}",
            "",
            body(
                json!({"grants": [{"actions": ["read"], "namespaces": ["{ns}"], "environments": ["{env}"]}]}),
            ),
        ),
        (Method::DELETE, "/api/v1/auth/roles/{name}", "", String::new()),
        (Method::GET, "/api/v1/auth/whoami", "", String::new()),
        (Method::GET, "/api/v1/security/bans", "", String::new()),
        (Method::DELETE, "/api/v1/security/bans/{ip}", "", String::new()),
        (Method::GET, "/api/v1/admin/keys", "", String::new()),
        (Method::POST, "/api/v1/admin/keys/rotate", "", body(json!({"target": "master"}))),
        (Method::GET, "/api/v1/audit", "?limit=1", String::new()),
        (Method::GET, "/api/v1/audit/verify", "", String::new()),
        (Method::GET, "/api/v1/audit/retention", "", String::new()),
        (
            Method::PUT,
            "/api/v1/audit/retention",
            "",
            body(json!({"max_age_ms": 34_560_000_000_u64, "max_bytes": 536_870_912})),
        ),
    ];
    rows.into_iter()
        .map(|(method, route, variant, body)| {
            let name = format!("{method} {route} {variant}").trim_end().to_owned();
            let query = if variant.starts_with('?') { variant } else { "" };
            let path: &'static str = Box::leak(format!("{route}{query}").into_boxed_str());
            Probe { name, ask: Ask::Http(method, path, body) }
        })
        .collect()
}

#[expect(
    clippy::needless_update,
    reason = "the same words make requests of few and of many fields"
)]
fn grpc_probes() -> Vec<Probe> {
    type Make = fn(&str, &str) -> Vec<u8>;
    macro_rules! entry {
        ($request:ident { $($field:ident: $value:expr),* $(,)? }) => {
            |namespace: &str, environment: &str| v1::$request {
                namespace: namespace.into(),
                key: KEY.into(),
                environment: environment.into(),
                $($field: $value,)*
                ..Default::default()
            }.encode_to_vec()
        };
    }
    macro_rules! plain {
        ($request:ident { $($field:ident: $value:expr),* $(,)? }) => {
            |_: &str, _: &str| v1::$request { $($field: $value,)* ..Default::default() }.encode_to_vec()
        };
    }
    let config: Vec<(&str, &str, Make)> = vec![
        ("Get", "", entry!(GetRequest {})),
        ("Get", "resolve", entry!(GetRequest { resolve: true })),
        ("Get", "reveal", entry!(GetRequest { reveal: true })),
        ("Set", "", entry!(SetRequest { value: b"1".to_vec().into() })),
        ("Delete", "", entry!(DeleteRequest { expected_version: Some(9_999) })),
        ("List", "", |namespace, environment| {
            v1::ListRequest {
                namespace: namespace.into(),
                environment: environment.into(),
                ..Default::default()
            }
            .encode_to_vec()
        }),
        ("ListNamespaces", "", plain!(ListNamespacesRequest {})),
        ("History", "", entry!(HistoryRequest {})),
        ("Diff", "", entry!(DiffRequest { from: Some(1) })),
        ("Rollback", "", entry!(RollbackRequest { version: 9_999 })),
        ("Resolve", "", resolve_masked),
        ("Resolve", "reveal", resolve_revealed),
        ("Txn", "", |namespace, environment| {
            let get = v1::txn_op::Get {
                namespace: namespace.into(),
                key: KEY.into(),
                environment: environment.into(),
            };
            let op = v1::TxnOp { op: Some(v1::txn_op::Op::Get(get)) };
            v1::TxnRequest { success: vec![op], ..Default::default() }.encode_to_vec()
        }),
        ("Export", "", |namespace, environment| {
            v1::ExportRequest {
                namespace: namespace.into(),
                environment: environment.into(),
                ..Default::default()
            }
            .encode_to_vec()
        }),
        ("Watch", "", |namespace, environment| {
            v1::WatchRequest {
                namespace: namespace.into(),
                environment: environment.into(),
                ..Default::default()
            }
            .encode_to_vec()
        }),
    ];
    let cluster: Vec<(&str, &str, Make)> = vec![
        ("Status", "", plain!(StatusRequest {})),
        (
            "MemberAdd",
            "",
            plain!(MemberAddRequest {
                id: 1,
                raft: "127.0.0.1:1".into(),
                http: "127.0.0.1:2".into(),
                grpc: "127.0.0.1:3".into(),
            }),
        ),
        ("MemberPromote", "", plain!(MemberPromoteRequest { id: 77 })),
        ("MemberDemote", "", plain!(MemberDemoteRequest { id: 77 })),
        ("MemberRemove", "", plain!(MemberRemoveRequest { id: 77 })),
        ("MemberReplace", "", plain!(MemberReplaceRequest { old_id: 77, new_id: 78 })),
        ("TransferLeader", "", plain!(TransferLeaderRequest { to: Some(77) })),
    ];
    let backup: Vec<(&str, &str, Make)> = vec![
        ("Create", "", plain!(CreateBackupRequest {})),
        ("List", "", plain!(ListBackupsRequest {})),
        ("Keep", "", plain!(KeepBackupRequest {})),
    ];
    let security: Vec<(&str, &str, Make)> = vec![
        (
            "CreateToken",
            "",
            plain!(CreateTokenRequest { name: "made".into(), roles: vec!["viewer".into()] }),
        ),
        ("ListTokens", "", plain!(ListTokensRequest {})),
        ("RevokeToken", "", plain!(RevokeTokenRequest { id: "nobody".into() })),
        ("PutRole", "", |_, _| {
            let grants = vec![v1::Grant { actions: vec!["read".into()], ..Default::default() }];
            let role = v1::Role { name: "made".into(), grants, ..Default::default() };
            v1::PutRoleRequest { role: Some(role) }.encode_to_vec()
        }),
        ("GetRole", "", plain!(GetRoleRequest { name: "viewer".into() })),
        ("ListRoles", "", plain!(ListRolesRequest {})),
        ("DeleteRole", "", plain!(DeleteRoleRequest { name: "nobody".into() })),
        ("WhoAmI", "", plain!(WhoAmIRequest {})),
        ("ListBans", "", plain!(ListBansRequest {})),
        ("LiftBan", "", plain!(LiftBanRequest { ip: "192.0.2.9".into() })),
        ("ListAudit", "", plain!(ListAuditRequest { limit: 1 })),
        ("VerifyAudit", "", plain!(VerifyAuditRequest {})),
        ("GetAuditRetention", "", plain!(GetAuditRetentionRequest {})),
        ("SetAuditRetention", "", |_, _| {
            let (max_age_ms, max_bytes) = (34_560_000_000, 536_870_912);
            let retention = Some(v1::AuditRetention { max_age_ms, max_bytes });
            v1::SetAuditRetentionRequest { retention }.encode_to_vec()
        }),
        ("ListKeys", "", plain!(ListKeysRequest {})),
        ("RotateKeys", "", plain!(RotateKeysRequest { target: v1::RotationTarget::Master.into() })),
    ];
    macro_rules! schema {
        ($request:ident { $($field:ident: $value:expr),* $(,)? }) => {
            |namespace: &str, _: &str| v1::$request {
                namespace: namespace.into(),
                $($field: $value,)*
                ..Default::default()
            }.encode_to_vec()
        };
    }
    let schema: Vec<(&str, &str, Make)> = vec![
        (
            "PutSchema",
            "",
            schema!(PutSchemaRequest {
                key: KEY.into(),
                schema: b"true".to_vec().into(),
                expected_version: Some(9_999),
            }),
        ),
        ("GetSchema", "", schema!(GetSchemaRequest { key: KEY.into() })),
        ("ListSchemas", "", schema!(ListSchemasRequest {})),
        (
            "DeleteSchema",
            "",
            schema!(DeleteSchemaRequest { key: KEY.into(), expected_version: Some(9_999) }),
        ),
    ];
    let services = [
        ("SchemaService", schema),
        ("ConfigService", config),
        ("ClusterService", cluster),
        ("BackupService", backup),
        ("SecurityService", security),
    ];
    let rows = services.into_iter().flat_map(|(service, rows)| {
        rows.into_iter().map(move |(method, variant, make)| (service, method, variant, make))
    });
    rows.map(|(service, method, variant, make)| {
        let path = format!("/llmconfig.v1.{service}/{method}");
        let name = format!("rpc {service}/{method} {variant}").trim_end().to_owned();
        Probe { name, ask: Ask::Grpc(path, make) }
    })
    .collect()
}

fn resolve_masked(namespace: &str, environment: &str) -> Vec<u8> {
    resolve(namespace, environment, false)
}

fn resolve_revealed(namespace: &str, environment: &str) -> Vec<u8> {
    resolve(namespace, environment, true)
}

fn resolve(namespace: &str, environment: &str, reveal: bool) -> Vec<u8> {
    v1::ResolveRequest {
        namespace: namespace.into(),
        environment: environment.into(),
        reveal,
        read: None,
    }
    .encode_to_vec()
}

/// What must have a probe.
fn doors() -> BTreeSet<String> {
    let mut doors = BTreeSet::new();
    for (route, item) in door::document().paths.paths {
        let methods = [
            ("GET", item.get),
            ("PUT", item.put),
            ("POST", item.post),
            ("DELETE", item.delete),
            ("PATCH", item.patch),
        ];
        let open = !route.starts_with("/api/");
        assert!(!open || route.starts_with("/health"), "{route} is open to everybody");
        for (method, _) in methods.into_iter().filter(|(_, known)| !open && known.is_some()) {
            doors.insert(format!("{method} {route}"));
        }
    }
    let files = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap().file;
    for file in files.iter().filter(|file| file.package() == "llmconfig.v1") {
        for service in &file.service {
            for method in &service.method {
                doors.insert(format!("rpc {}/{}", service.name(), method.name()));
            }
        }
    }
    doors
}

struct Server {
    node: Alone,
    grpc: grpc::Gateway,
}

impl Server {
    async fn start() -> Self {
        let (options, _master_key) = secured::options();
        let node = secured::secured(&options).await;
        let (grpc, _) = grpc::gateway(&node.service);
        Server { node, grpc }
    }

    async fn status(&self, method: &Method, path: &str, token: &str, body: &str) -> u16 {
        self.node.send(with_token(method.clone(), path, token, body)).await.status().as_u16()
    }

    async fn rpc(&self, path: &str, message: &[u8], token: &str) -> i32 {
        let mut framed = vec![0];
        framed.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
        framed.extend(message);
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(Body::from(framed)).unwrap();
        let response = self.grpc.clone().oneshot(request).await.unwrap();
        let code = |headers: &http::HeaderMap| {
            headers.get("grpc-status").map(|code| code.to_str().unwrap().parse().unwrap())
        };
        if let Some(code) = code(response.headers()) {
            return code;
        }
        if path.ends_with("/Watch") {
            // It goes on until it is dropped.
            return 0;
        }
        let body = response.into_body().collect().await.unwrap();
        code(body.trailers().expect("trailers")).expect("a status")
    }

    /// The text of a new token.
    async fn token(&self, role: &str, restricted: bool) -> String {
        let restriction = match restricted {
            true => json!({"namespaces": ["team"], "environments": ["base", "production"]}),
            false => json!({}),
        };
        self.node.make_token(role, restriction).await.1
    }

    async fn probe(
        &self,
        probe: &Probe,
        token: &str,
        (namespace, environment): (&str, &str),
    ) -> Verdict {
        match &probe.ask {
            Ask::Http(method, path, body) => {
                let path = path
                    .replace("{ns}", &namespace.replace('/', "%2F"))
                    .replace("{key}", KEY)
                    .replace("{env}", environment)
                    .replace("{version}", "9999")
                    .replace("{ip}", "192.0.2.9")
                    .replace("{name}", if *method == Method::GET { "viewer" } else { "made" });
                let path = if path.contains("/auth/tokens/") {
                    path.replace("{id}", "nobody")
                } else {
                    path.replace("{id}", "77")
                };
                let body = body.replace("{ns}", namespace).replace("{env}", environment);
                let status = self.status(method, &path, token, &body).await;
                match status {
                    401 => Verdict::Unknown,
                    403 => Verdict::Refused,
                    // Anything else was judged by what was asked, and not by who did.
                    200..=299 | 404 | 409 => Verdict::Allowed,
                    other => panic!("{}: {path} answers {other} to {body}", probe.name),
                }
            }
            Ask::Grpc(path, make) => {
                match self.rpc(path, &make(namespace, environment), token).await {
                    16 => Verdict::Unknown,
                    7 => Verdict::Refused,
                    // OK, not found, failed precondition, aborted.
                    0 | 5 | 9 | 10 => Verdict::Allowed,
                    other => panic!("{}: status {other}", probe.name),
                }
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    Allowed,
    Refused,
    Unknown,
}

impl Verdict {
    fn sign(self) -> char {
        match self {
            Verdict::Allowed => '+',
            Verdict::Refused => '-',
            Verdict::Unknown => '?',
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_door_opens_for_whom_the_table_says() {
    let probes: Vec<_> = http_probes().into_iter().chain(grpc_probes()).collect();
    let covered: BTreeSet<String> = probes
        .iter()
        .map(|probe| probe.name.split(' ').take(2).collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(
        covered,
        doors(),
        "every route and RPC has a probe, and no probe is of one that is gone"
    );

    let server = Server::start().await;
    for (role, actions) in [("revealer", ["read", "reveal"]), ("operator", ["cluster", "backup"])] {
        let body = json!({"grants": [{"actions": actions}]}).to_string();
        let path = format!("/api/v1/auth/roles/{role}");
        assert_eq!(server.status(&Method::PUT, &path, ROOT, &body).await, 200);
    }
    for (namespace, environment) in [INSIDE, OTHER_NAMESPACE, OTHER_ENVIRONMENT] {
        let path = format!("/api/v1/configs/{}/{KEY}", namespace.replace('/', "%2F"));
        let body = json!({"value": 0, "env": environment}).to_string();
        assert!(server.status(&Method::PUT, &path, ROOT, &body).await < 300);
    }
    let mut tokens = BTreeMap::new();
    for role in ROLES {
        tokens.insert(role, (server.token(role, false).await, server.token(role, true).await));
    }

    let mut table = String::from(
        "# Who may do what. One line for each route and RPC (and way to use it), one group for each role:\n\
         #   unrestricted; restricted to namespace team in base and production: inside, in another namespace, in another\n\
         #   environment. + allowed, - PERMISSION_DENIED. Nobody is without a token: UNAUTHENTICATED everywhere.\n\
         # Written by `UPDATE=1 cargo test -p llm-config-server --test api table`.\n",
    );
    for probe in &probes {
        assert_eq!(server.probe(probe, "", INSIDE).await, Verdict::Unknown, "{}", probe.name);
        assert_eq!(server.probe(probe, "wrong", INSIDE).await, Verdict::Unknown, "{}", probe.name);
        let asked = ROLES.iter().flat_map(|role| {
            let (all, some) = &tokens[role];
            [(all, INSIDE), (some, INSIDE), (some, OTHER_NAMESPACE), (some, OTHER_ENVIRONMENT)]
        });
        let verdicts: Vec<Verdict> = stream::iter(asked)
            .map(|(token, place)| server.probe(probe, token, place))
            .buffered(AT_ONCE)
            .collect()
            .await;
        assert!(!verdicts.contains(&Verdict::Unknown), "{}: {verdicts:?}", probe.name);
        write!(table, "{:<70}", probe.name).unwrap();
        for (role, signs) in ROLES.iter().zip(verdicts.chunks(4)) {
            let signs: String = signs.iter().map(|verdict| verdict.sign()).collect();
            write!(table, " {role} {signs}").unwrap();
        }
        table.push('\n');
    }
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(TABLE, &table).unwrap();
    }
    let committed = std::fs::read_to_string(TABLE).unwrap_or_default();
    for (shown, expected) in table.lines().zip(committed.lines()) {
        assert_eq!(shown, expected, "the table says something else; see the top of this file");
    }
    assert_eq!(table.lines().count(), committed.lines().count(), "a line of the table is missing");
}
