//! Who may do what over gRPC, on a real node that wants tokens; and the command line client against it.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use crate::grpc_support::{Alone, PATIENCE, RawGet, channel, get, raw, reason, set};
use llm_config_domain::query;
use llm_config_proto::v1;
use llm_config_proto::v1::config_service_client::ConfigServiceClient;
use llm_config_proto::v1::security_service_client::SecurityServiceClient;
use llm_config_proto::v1::verify_audit_response::Verdict;
use llm_config_server::secrets;
use llm_config_server::settings::{BanSettings, LimitSettings, Settings};
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

/// The first administrator's token, brought along.
const ADMIN: &str = "an-admin-token-of-enough-characters-0123456789";
const SECRET: &str = "hunter2-the-secret";

/// Shows a token with each call.
#[derive(Clone)]
struct Bearer(String);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let value = format!("Bearer {}", self.0).parse().unwrap();
        request.metadata_mut().insert("authorization", value);
        Ok(request)
    }
}

type Shown = InterceptedService<Channel, Bearer>;

fn guarded(settings: &mut Settings) {
    let folder = settings.data_dir.parent().unwrap().to_owned();
    let (token, key) = (folder.join("admin"), folder.join("master.key"));
    std::fs::write(&token, ADMIN).unwrap();
    secrets::generate_file(&key).unwrap();
    settings.auth = true;
    settings.security.bootstrap_token_file = Some(token);
    settings.security.master_key_file = Some(key);
}

impl Alone {
    /// A node that wants tokens, once it knows the first one.
    async fn guarded(change: impl FnOnce(&mut Settings)) -> Self {
        let alone = Self::start_with(|settings| {
            guarded(settings);
            change(settings);
        })
        .await;
        // Asked with the token only once it is there: too many refusals would ban this address.
        let replica = alone.node.service().replica();
        let taken = async {
            while !query::meta(&replica.view()).is_ok_and(|meta| meta.bootstrapped) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, taken).await.expect("the first token is taken");
        let known = async {
            while alone.security(ADMIN).await.who_am_i(v1::WhoAmIRequest {}).await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(PATIENCE, known).await.expect("the first token is known");
        alone
    }

    async fn shown(&self, token: &str) -> ConfigServiceClient<Shown> {
        let channel = channel(self.ports.grpc).await;
        ConfigServiceClient::with_interceptor(channel, Bearer(token.to_owned()))
    }

    async fn security(&self, token: &str) -> SecurityServiceClient<Shown> {
        let channel = channel(self.ports.grpc).await;
        SecurityServiceClient::with_interceptor(channel, Bearer(token.to_owned()))
    }

    /// A new token with these roles.
    async fn token(&self, request: v1::CreateTokenRequest) -> v1::CreateTokenResponse {
        self.security(ADMIN).await.create_token(request).await.unwrap().into_inner()
    }

    async fn records(&self, kind: &str) -> Vec<v1::AuditRecord> {
        let request = v1::ListAuditRequest { r#type: kind.to_owned(), ..Default::default() };
        self.security(ADMIN).await.list_audit(request).await.unwrap().into_inner().items
    }
}

fn with_roles(name: &str, roles: &[&str]) -> v1::CreateTokenRequest {
    v1::CreateTokenRequest {
        name: name.to_owned(),
        roles: roles.iter().map(|role| (*role).to_owned()).collect(),
        ..Default::default()
    }
}

/// The paths of every method of the public API.
fn public_methods() -> Vec<String> {
    let descriptors = FileDescriptorSet::decode(llm_config_proto::FILE_DESCRIPTOR_SET).unwrap();
    let public = descriptors.file.iter().filter(|file| file.package() == "llmconfig.v1");
    let services = public.flat_map(|file| &file.service);
    let paths = services.flat_map(|service| {
        let path = |method: &prost_types::MethodDescriptorProto| {
            format!("/llmconfig.v1.{}/{}", service.name(), method.name())
        };
        service.method.iter().map(path)
    });
    paths.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_let_in_without_a_token_by_any_method_and_health_answers_everybody() {
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_client::HealthClient;

    let alone = Alone::guarded(|settings| settings.security.bans.failures = 0).await;
    let channel = channel(alone.ports.grpc).await;
    let methods = public_methods();
    assert!(methods.len() > 30, "{methods:?}");
    for path in &methods {
        for token in [None, Some("Bearer wrong"), Some("Basic wrong")] {
            let mut request = Request::new(RawGet { namespace: b"\xff".to_vec() });
            request.metadata_mut().insert("x-request-id", "mine-7".parse().unwrap());
            if let Some(token) = token {
                request.metadata_mut().insert("authorization", token.parse().unwrap());
            }
            let status = raw(channel.clone(), path, request).await.expect_err(path);
            let code = (status.code(), reason(&status));
            assert_eq!(code, (Code::Unauthenticated, "UNAUTHENTICATED".into()), "{path}");
            assert_eq!(status.metadata().get("x-request-id").unwrap(), "mine-7", "{path}");
            assert!(!status.message().contains("wrong"), "{status:?}");
        }
    }
    let records = alone.records("access.denied").await;
    assert!(records.iter().any(|record| record.request_id == "mine-7"), "{records:?}");
    assert!(records.iter().any(|record| record.detail.contains("Service/")), "{records:?}");
    HealthClient::new(channel).check(HealthCheckRequest::default()).await.unwrap();
    alone.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_may_what_its_roles_say_until_it_is_revoked() {
    let alone = Alone::guarded(|_| {}).await;
    let narrow = v1::CreateTokenRequest {
        namespaces: vec!["ns".to_owned()],
        environments: vec!["base".to_owned()],
        ..with_roles("ci", &["editor"])
    };
    let made = alone.token(narrow).await;
    let info = made.info.clone().unwrap();
    assert!(made.token.starts_with(&info.prefix) && !format!("{made:?}").contains(&made.token));
    let mut client = alone.shown(&made.token).await;
    let entry = client.set(set("k", "1")).await.unwrap().into_inner().entry.unwrap();
    assert_eq!((entry.updated_by.as_str(), entry.secret), ("ci", false));
    client.get(get("k")).await.unwrap();

    let elsewhere = v1::SetRequest { namespace: "other".to_owned(), ..set("k", "1") };
    let in_production = v1::SetRequest { environment: "production".to_owned(), ..set("k", "1") };
    for request in [elsewhere, in_production] {
        let status = client.set(request).await.unwrap_err();
        assert_eq!(
            (status.code(), reason(&status)),
            (Code::PermissionDenied, "PERMISSION_DENIED".into())
        );
    }
    let mut security = alone.security(&made.token).await;
    let more = security.create_token(with_roles("more", &["admin"])).await.unwrap_err();
    assert_eq!(more.code(), Code::PermissionDenied);
    let who = security.who_am_i(v1::WhoAmIRequest {}).await.unwrap().into_inner();
    assert_eq!(
        (who.name.as_str(), who.method.as_str(), who.principal),
        ("ci", "token", info.id.clone())
    );
    assert_eq!(
        (who.namespaces, who.environments),
        (info.namespaces.clone(), info.environments.clone())
    );

    let mut admin = alone.security(ADMIN).await;
    let listed = admin.list_tokens(v1::ListTokensRequest {}).await.unwrap().into_inner().items;
    assert!(listed.contains(&info), "{listed:?}");
    let request = v1::WatchRequest {
        namespace: "ns".to_owned(),
        environment: "base".to_owned(),
        ..Default::default()
    };
    let mut watch = client.watch(request).await.unwrap().into_inner();
    admin.revoke_token(v1::RevokeTokenRequest { id: info.id.clone() }).await.unwrap();
    let status = client.get(get("k")).await.unwrap_err();
    assert_eq!((status.code(), reason(&status)), (Code::Unauthenticated, "UNAUTHENTICATED".into()));
    let ended = async {
        loop {
            if let Err(status) = watch.message().await {
                return status;
            }
        }
    };
    let ended = timeout(PATIENCE, ended).await.expect("a watch ends with its token");
    assert_eq!(reason(&ended), "UNAUTHENTICATED");
    let again = admin.revoke_token(v1::RevokeTokenRequest { id: info.id }).await.unwrap_err();
    assert_eq!(reason(&again), "NOT_FOUND");
    alone.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_are_made_shown_and_deleted() {
    let alone = Alone::guarded(|_| {}).await;
    let mut admin = alone.security(ADMIN).await;
    let grant = |actions: &[&str]| v1::Grant {
        actions: actions.iter().map(|action| (*action).to_owned()).collect(),
        namespaces: vec!["ns".to_owned()],
        environments: Vec::new(),
    };
    let role = v1::Role {
        name: "ops".to_owned(),
        description: "x".to_owned(),
        grants: vec![grant(&["read", "write"]), grant(&["delete"])],
        built_in: false,
    };
    let put = v1::PutRoleRequest { role: Some(role.clone()) };
    let kept = admin.put_role(put).await.unwrap().into_inner().role;
    assert_eq!(kept, Some(role.clone()));
    let name = || "ops".to_owned();
    let got = admin.get_role(v1::GetRoleRequest { name: name() }).await.unwrap().into_inner();
    assert_eq!(got.role, Some(role));
    let listed = admin.list_roles(v1::ListRolesRequest {}).await.unwrap().into_inner().items;
    let names: Vec<_> = listed.iter().map(|role| (role.name.as_str(), role.built_in)).collect();
    assert!(names.contains(&("ops", false)) && names.contains(&("admin", true)), "{names:?}");

    let made = alone.token(with_roles("o", &["ops"])).await;
    let mut client = alone.shown(&made.token).await;
    client.set(set("k", "1")).await.unwrap();
    admin.delete_role(v1::DeleteRoleRequest { name: name() }).await.unwrap();
    assert_eq!(client.set(set("k", "2")).await.unwrap_err().code(), Code::PermissionDenied);

    let cases = [
        (admin.put_role(v1::PutRoleRequest { role: None }).await.unwrap_err(), "INVALID_ARGUMENT"),
        (admin.get_role(v1::GetRoleRequest { name: name() }).await.unwrap_err(), "NOT_FOUND"),
        (admin.create_token(with_roles("x", &["nobody"])).await.unwrap_err(), "INVALID_ARGUMENT"),
    ];
    for (status, expected) in &cases {
        assert_eq!(reason(status), *expected, "{status:?}");
    }
    alone.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_masked_in_every_answer_but_one() {
    let alone = Alone::guarded(|_| {}).await;
    let mut admin = alone.shown(ADMIN).await;
    let text = format!("\"{SECRET}\"");
    let first = admin.set(v1::SetRequest { secret: Some(true), ..set("k", &text) }).await.unwrap();
    let first = first.into_inner().entry.unwrap();
    assert_eq!((&first.value[..], first.secret), (&br#""********""#[..], true));
    // Without a word about it, it stays a secret.
    let txn = v1::TxnRequest {
        success: vec![
            v1::TxnOp {
                op: Some(v1::txn_op::Op::Set(v1::txn_op::Set {
                    namespace: "ns".to_owned(),
                    key: "k".to_owned(),
                    value: text.clone().into(),
                    ..Default::default()
                })),
            },
            v1::TxnOp {
                op: Some(v1::txn_op::Op::Get(v1::txn_op::Get {
                    namespace: "ns".to_owned(),
                    key: "k".to_owned(),
                    ..Default::default()
                })),
            },
        ],
        ..Default::default()
    };
    let results = admin.txn(txn).await.unwrap().into_inner().results;
    let (ns, k) = (|| "ns".to_owned(), || "k".to_owned());
    let mut shown: Vec<v1::Entry> = results.into_iter().filter_map(|result| result.entry).collect();
    shown.push(admin.get(get("k")).await.unwrap().into_inner().entry.unwrap());
    let list = v1::ListRequest { namespace: ns(), ..Default::default() };
    shown.extend(admin.list(list).await.unwrap().into_inner().items);
    let history = v1::HistoryRequest { namespace: ns(), key: k(), ..Default::default() };
    shown.extend(admin.history(history).await.unwrap().into_inner().items);
    let diff = v1::DiffRequest {
        namespace: ns(),
        key: k(),
        from: Some(1),
        to: Some(2),
        ..Default::default()
    };
    let diff = admin.diff(diff).await.unwrap().into_inner();
    assert!(!String::from_utf8_lossy(&diff.patch).contains(SECRET));
    shown.extend([diff.from.unwrap(), diff.to.unwrap()]);
    let rollback =
        v1::RollbackRequest { namespace: ns(), key: k(), version: 1, ..Default::default() };
    shown.push(admin.rollback(rollback).await.unwrap().into_inner().entry.unwrap());
    let request =
        v1::WatchRequest { namespace: ns(), from_revision: first.revision, ..Default::default() };
    let mut watch = admin.watch(request).await.unwrap().into_inner();
    let event = timeout(PATIENCE, watch.message()).await.expect("an event in time").unwrap();
    shown.extend(event.unwrap().events.into_iter().filter_map(|event| event.entry));
    assert!(shown.len() >= 9, "{shown:?}");
    for entry in &shown {
        assert_eq!((&entry.value[..], entry.secret), (&br#""********""#[..], true), "{entry:?}");
    }
    let resolve = |reveal| v1::ResolveRequest { namespace: ns(), reveal, ..Default::default() };
    let masked = admin.resolve(resolve(false)).await.unwrap().into_inner().values;
    assert_eq!((&masked[0].value[..], masked[0].secret), (&br#""********""#[..], true));

    let viewer = alone.token(with_roles("v", &["viewer"])).await.token;
    let mut viewer = alone.shown(&viewer).await;
    let reveal = || v1::GetRequest { reveal: true, ..get("k") };
    assert_eq!(viewer.get(get("k")).await.unwrap().into_inner().entry.unwrap().value, first.value);
    assert_eq!(viewer.get(reveal()).await.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!(viewer.resolve(resolve(true)).await.unwrap_err().code(), Code::PermissionDenied);
    assert!(alone.records("secret.reveal").await.is_empty());

    let revealed = admin.get(reveal()).await.unwrap().into_inner().entry.unwrap();
    assert_eq!((&revealed.value[..], revealed.secret), (text.as_bytes(), true));
    let resolved = admin.resolve(resolve(true)).await.unwrap().into_inner().values;
    assert_eq!(&resolved[0].value[..], text.as_bytes());
    let records = alone.records("secret.reveal").await;
    assert_eq!(records.len(), 2, "{records:?}");
    assert_eq!((records[0].targets[0].key.as_str(), records[0].actor.as_str()), ("k", "bootstrap"));

    let mut security = alone.security(ADMIN).await;
    let ring = security.list_keys(v1::ListKeysRequest {}).await.unwrap().into_inner();
    assert_eq!((ring.node_id, ring.master_keys.len()), (1, 1));
    assert!(ring.data_keys.iter().any(|key| key.namespace == "ns" && key.newest && key.usable));
    let rotate = v1::RotateKeysRequest { namespace: ns(), ..Default::default() };
    assert_eq!(security.rotate_keys(rotate).await.unwrap().into_inner().keys, 1);
    assert_eq!(
        &admin.get(reveal()).await.unwrap().into_inner().entry.unwrap().value[..],
        text.as_bytes()
    );
    let unknown = v1::RotateKeysRequest { target: 9, ..Default::default() };
    assert_eq!(reason(&security.rotate_keys(unknown).await.unwrap_err()), "INVALID_ARGUMENT");

    // In the clear on purpose.
    let plain = v1::SetRequest { secret: Some(false), ..set("k", "5") };
    let plain = admin.set(plain).await.unwrap().into_inner().entry.unwrap();
    assert_eq!((&plain.value[..], plain.secret), (&b"5"[..], false));
    alone.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_log_is_read_in_pages_checked_and_kept_as_long_as_told() {
    let alone = Alone::guarded(|_| {}).await;
    let mut client = alone.shown(ADMIN).await;
    for n in 0..3 {
        client.set(v1::SetRequest { comment: format!("c{n}"), ..set("k", "1") }).await.unwrap();
    }
    let mut admin = alone.security(ADMIN).await;
    let mut request = v1::ListAuditRequest {
        r#type: "config.set".to_owned(),
        actor: "bootstrap".to_owned(),
        namespace: "ns".to_owned(),
        key: "k".to_owned(),
        from: Some(prost_types::Timestamp { seconds: 1, nanos: 0 }),
        oldest_first: true,
        limit: 2,
        ..Default::default()
    };
    let mut comments = Vec::new();
    loop {
        let page = admin.list_audit(request.clone()).await.unwrap().into_inner();
        assert!(page.items.len() <= 2 && page.revision > 0);
        comments.extend(page.items.into_iter().map(|record| record.comment));
        if page.next_cursor.is_empty() {
            break;
        }
        request.cursor = page.next_cursor;
    }
    assert_eq!(comments, ["c0", "c1", "c2"]);
    let past = prost_types::Timestamp { seconds: 2, nanos: 0 };
    let none = v1::ListAuditRequest { to: Some(past), ..Default::default() };
    assert!(admin.list_audit(none).await.unwrap().into_inner().items.is_empty());
    let wrong = v1::ListAuditRequest { r#type: "no.such".to_owned(), ..Default::default() };
    assert_eq!(reason(&admin.list_audit(wrong).await.unwrap_err()), "INVALID_ARGUMENT");

    let walked = admin.verify_audit(v1::VerifyAuditRequest {}).await.unwrap().into_inner();
    let Some(Verdict::Whole(chain)) = walked.verdict else { panic!("{walked:?}") };
    assert!(chain.last_sequence >= 4 && chain.head.len() == 32, "{chain:?}");

    let known = admin.get_audit_retention(v1::GetAuditRetentionRequest {}).await.unwrap();
    let wanted =
        v1::AuditRetention { max_age_ms: 7_200_000, ..known.into_inner().retention.unwrap() };
    let set = v1::SetAuditRetentionRequest { retention: Some(wanted) };
    assert_eq!(admin.set_audit_retention(set).await.unwrap().into_inner().retention, Some(wanted));
    let short = v1::AuditRetention { max_age_ms: 1, ..wanted };
    for retention in [None, Some(short)] {
        let status = admin.set_audit_retention(v1::SetAuditRetentionRequest { retention }).await;
        assert_eq!(reason(&status.unwrap_err()), "INVALID_ARGUMENT");
    }
    let auditor = alone.token(with_roles("a", &["auditor"])).await.token;
    let mut auditor = alone.security(&auditor).await;
    auditor.verify_audit(v1::VerifyAuditRequest {}).await.unwrap();
    let set = v1::SetAuditRetentionRequest { retention: Some(wanted) };
    assert_eq!(auditor.set_audit_retention(set).await.unwrap_err().code(), Code::PermissionDenied);
    alone.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sends_too_much_is_told_what_is_left_and_when_to_come_back() {
    let alone = Alone::guarded(|settings| {
        settings.security.limits = LimitSettings { principal: 20, address: 0 };
        settings.security.bans = BanSettings { failures: 0, duration: Duration::from_secs(60) };
    })
    .await;
    let made = alone.token(with_roles("v", &["viewer"])).await;
    let mut security = alone.security(&made.token).await;
    let mut left = u64::MAX;
    let refused = async {
        loop {
            match security.who_am_i(v1::WhoAmIRequest {}).await {
                Ok(answer) => {
                    let header = answer.metadata().get("ratelimit-remaining").unwrap();
                    left = left.min(header.to_str().unwrap().parse().unwrap());
                }
                Err(status) => return status,
            }
        }
    };
    let refused = timeout(PATIENCE, refused).await.expect("the limit is met");
    assert_eq!(
        (refused.code(), reason(&refused)),
        (Code::ResourceExhausted, "RATE_LIMITED".into())
    );
    assert!(left < 40 && refused.metadata().contains_key("ratelimit-limit"), "{refused:?}");
    assert!(refused.get_details_retry_info().unwrap().retry_delay.is_some());
    alone.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_guesses_is_banned_and_let_in_again_by_an_administrator() {
    let alone = Alone::guarded(|settings| {
        settings.security.bans = BanSettings { failures: 3, duration: Duration::from_secs(600) };
    })
    .await;
    let guesser = Ipv4Addr::new(127, 0, 0, 77);
    let endpoint = Endpoint::from_shared(format!("http://{}", alone.ports.grpc)).unwrap();
    let channel = endpoint.local_address(Some(IpAddr::V4(guesser))).connect().await.unwrap();
    let guess = Bearer("lcm_guess".to_owned());
    let mut client = ConfigServiceClient::with_interceptor(channel.clone(), guess);
    let banned = async {
        loop {
            let status = client.get(get("k")).await.unwrap_err();
            if reason(&status) == "BANNED" {
                return status;
            }
            assert_eq!(status.code(), Code::Unauthenticated);
        }
    };
    let banned = timeout(PATIENCE, banned).await.expect("a guesser is banned");
    assert_eq!(banned.code(), Code::PermissionDenied);
    // With a good token too: it is the address that is shut out.
    let mut known = ConfigServiceClient::with_interceptor(channel, Bearer(ADMIN.to_owned()));
    assert_eq!(reason(&known.get(get("k")).await.unwrap_err()), "BANNED");

    let mut admin = alone.security(ADMIN).await;
    let bans = admin.list_bans(v1::ListBansRequest {}).await.unwrap().into_inner().items;
    assert_eq!((bans.len(), bans[0].ip.as_str(), bans[0].strikes), (1, "127.0.0.77", 1));
    assert!(bans[0].until.unwrap().seconds > bans[0].since.unwrap().seconds);
    admin.lift_ban(v1::LiftBanRequest { ip: guesser.to_string() }).await.unwrap();
    assert_eq!(reason(&known.get(get("k")).await.unwrap_err()), "NOT_FOUND");
    alone.node.stop().await;
}

/// Runs the command line client, which lies beside the server.
async fn llm_config(alone: &Alone, token_file: &Path, line: &str, stdin: &str) -> Output {
    let program = Path::new(env!("CARGO_BIN_EXE_llm-config-manager")).with_file_name("llm-config");
    assert!(program.exists(), "{} is missing: cargo build -p llm-config-cli", program.display());
    let mut command = tokio::process::Command::new(program);
    command
        .args(line.split_whitespace())
        .env("LLM_CONFIG_ENDPOINTS", alone.ports.grpc.to_string())
        .env_remove("LLM_CONFIG_TOKEN")
        .env("LLM_CONFIG_TOKEN_FILE", token_file)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(stdin.as_bytes()).await.unwrap();
    child.wait_with_output().await.unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_does_all_of_it() {
    let alone = Alone::guarded(|_| {}).await;
    let admin = alone.folder.path().join("admin");
    let done = async |line: &str, stdin: &str| {
        let output = llm_config(&alone, &admin, line, stdin).await;
        assert!(output.status.success(), "{line}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    let json = async |line: &str| -> serde_json::Value {
        serde_json::from_str(&done(&format!("{line} --output json"), "").await).unwrap()
    };
    assert_eq!(json("whoami").await["name"], "bootstrap");
    done("set ns k - --string --secret", SECRET).await;
    assert_eq!(done("get ns k", "").await, "\"********\"\n");
    assert_eq!(done("get ns k --reveal", "").await, format!("\"{SECRET}\"\n"));
    assert!(done("resolve ns --reveal", "").await.contains(SECRET));
    assert_eq!(done("export --namespace ns", "").await, "{}\n");

    done("role put ops --grant read@ns", "").await;
    let made = done("token create ci --role ops --expires-in 1h", "").await;
    let token = alone.folder.path().join("ci");
    std::fs::write(&token, &made).unwrap();
    let narrow = async |line: &str| llm_config(&alone, &token, line, "").await;
    assert!(narrow("get ns k").await.status.success());
    for line in ["get ns k --reveal", "set ns k 1", "token list", "audit list"] {
        let output = narrow(line).await;
        assert_eq!(output.status.code(), Some(1), "{line}");
        assert!(text(&output.stderr).contains("PERMISSION_DENIED"), "{line}: {output:?}");
    }
    let tokens = json("token list").await;
    let ci = tokens.as_array().unwrap().iter().find(|token| token["name"] == "ci").unwrap();
    done(&format!("token revoke {}", ci["id"].as_str().unwrap()), "").await;
    let gone = narrow("get ns k").await;
    assert!(text(&gone.stderr).contains("UNAUTHENTICATED"), "{gone:?}");
    assert!(!text(&gone.stderr).contains(made.trim()));
    done("role delete ops", "").await;

    let denied = json("audit list --type access.denied").await;
    assert!(denied.as_array().unwrap().iter().any(|record| record["actor"] == "ci"), "{denied}");
    assert!(json("audit list --type secret.reveal").await[0]["targets"][0]["key"] == "k");
    assert!(done("audit export --output json", "").await.lines().count() > 5);
    assert_eq!(json("audit verify").await[0]["whole"], true);
    assert_eq!(json("audit retention --max-age 30d").await["max_age_ms"], 2_592_000_000_u64);
    assert!(json("ban list").await.as_array().unwrap().is_empty());
    assert_eq!(json("keys list").await["data_keys"].as_array().unwrap().len(), 2);
    done("keys rotate data", "").await;
    done("keys rotate master", "").await;
    alone.node.stop().await;
}
