//! Real nodes full of secrets: none of them is written anywhere as it is, whatever is done with it; and the first token.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::canary::{Canaries, Scan};
use crate::support::{Cluster, Node, Reply, http_with, run, wait_for};
use llm_config_server::secrets::generate_file;
use serde_json::{Value, json};

const SECRETS: usize = 24;

/// Each with something that other programs would spell differently.
fn planted() -> Vec<String> {
    (0..SECRETS)
        .map(|n| {
            format!(
                "sk-Canary/{n:02}?\"<ü🦀>+{:016x}",
                0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(n as u64 + 1)
            )
        })
        .collect()
}

struct Secured {
    cluster: Cluster,
    token: String,
}

impl Secured {
    fn start() -> Self {
        let mut cluster = Cluster::new(3);
        let key_file = cluster.folder.path().join("keys/master-key");
        generate_file(&key_file).unwrap();
        for node in &mut cluster.nodes {
            node.auth = true;
            node.extra_args = vec![
                format!("--master-key-file={}", key_file.display()),
                "--log-level=trace".to_owned(),
                "--log-format=json".to_owned(),
                "--ban-failures=0".to_owned(),
            ];
            node.env.push(("LLM_CONFIG_TEST_SNAPSHOT_ENTRIES", "40".to_owned()));
        }
        cluster.nodes.iter_mut().for_each(Node::start);
        cluster.nodes.iter_mut().for_each(Node::wait_ready);
        let token = first_token(&cluster);
        Secured { cluster, token }
    }

    fn ask(&self, node: usize, method: &str, path: &str, body: Option<&Value>) -> Reply {
        self.ask_as(node, &self.token, method, path, body)
    }

    fn ask_as(
        &self,
        node: usize,
        token: &str,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Reply {
        let bearer = format!("authorization: Bearer {token}");
        let body = body.map(Value::to_string);
        let address = self.cluster.nodes[node].ports.http;
        wait_for(&format!("{method} {path} is answered"), || {
            let reply = http_with(address, method, path, &[&bearer], body.as_deref())?;
            (reply.status != 503).then_some(reply)
        })
    }
}

/// The file that a founder made, and the only one.
fn first_token(cluster: &Cluster) -> String {
    let path = wait_for("the first token is in one data directory", || {
        let paths = cluster.nodes.iter().map(|node| node.data_dir.join("bootstrap-token"));
        let found: Vec<_> = paths.filter(|path| path.exists()).collect();
        let [only] = &found[..] else { return None };
        let text = fs::read_to_string(only).ok()?;
        let bearer = format!("authorization: Bearer {}", text.trim());
        let known = cluster.nodes.iter().all(|node| {
            let asked = http_with(node.ports.http, "GET", "/api/v1/auth/whoami", &[&bearer], None);
            asked.is_some_and(|reply| reply.status == 200)
        });
        known.then(|| only.clone())
    });
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    fs::read_to_string(path).unwrap().trim().to_owned()
}

#[test]
fn no_secret_is_left_anywhere_as_it_is() {
    let secrets = planted();
    let canaries = Canaries::new(&secrets);
    let mut scan = canaries.scan();
    let mut system = Secured::start();
    for (n, secret) in secrets.iter().enumerate() {
        let path = format!("/api/v1/configs/vault/key-{}", n % 8);
        let body =
            json!({"value": secret, "secret": true, "description": "a key", "comment": "planted"});
        let reply = system.ask(n % 3, "PUT", &path, Some(&body));
        assert!(matches!(reply.status, 200 | 201), "{}", reply.body);
        look(&mut scan, &path, &reply);
        let other =
            system.ask(n % 3, "PUT", "/api/v1/configs/plain/key", Some(&json!({"value": n})));
        assert!(matches!(other.status, 200 | 201), "{}", other.body);
    }
    let op = json!({"op": "set", "namespace": "vault", "key": "txn", "value": secrets[0], "secret": true});
    look(&mut scan, "txn", &system.ask(0, "POST", "/api/v1/txn", Some(&json!({"success": [op]}))));
    let rollback = system.ask(1, "POST", "/api/v1/configs/vault/key-0/rollback/1", None);
    assert_eq!(rollback.status, 200, "{}", rollback.body);
    look(&mut scan, "rollback", &rollback);
    let rotated =
        system.ask(2, "POST", "/api/v1/admin/keys/rotate", Some(&json!({"target": "data"})));
    assert_eq!(rotated.status, 200, "{}", rotated.body);
    // Mistakes with a secret in hand.
    for (path, body) in [
        ("/api/v1/configs/vault/key-0", json!({"value": {"wrapped": secrets[0]}, "secret": true})),
        (
            "/api/v1/configs/vault/key-0",
            json!({"value": secrets[0], "secret": true, "expected_version": 77}),
        ),
        ("/api/v1/configs/vault/key-0", json!({"value": secrets[0], "secret": secrets[1]})),
        (
            "/api/v1/configs/vault/key-0",
            json!({"value": secrets[0], "secret": true, "env": "moon"}),
        ),
    ] {
        let refused = system.ask(0, "PUT", path, Some(&body));
        assert!((400..500).contains(&refused.status), "{}", refused.body);
        // Only what somebody put beside the value may come back, as in any error that shows what it is about.
        if body["secret"] == true {
            look(&mut scan, "refused", &refused);
        }
    }
    let unknown = system.ask_as(
        0,
        "no-such-token",
        "PUT",
        "/api/v1/configs/vault/key-0",
        Some(&json!({"value": secrets[2], "secret": true})),
    );
    assert_eq!(unknown.status, 401);
    for path in [
        "/api/v1/configs/vault/key-1",
        "/api/v1/configs/vault/key-1?version=1",
        "/api/v1/configs/vault/key-1/history",
        "/api/v1/configs/vault/key-1/diff?from=1&to=2",
        "/api/v1/configs/vault",
        "/api/v1/resolve/vault",
        "/api/v1/audit?limit=1000",
        "/api/v1/admin/keys",
        "/api/v1/cluster",
        "/health",
    ] {
        for node in 0..3 {
            let reply = system.ask(node, "GET", path, None);
            assert_eq!(reply.status, 200, "{path}: {}", reply.body);
            look(&mut scan, path, &reply);
        }
    }
    // The secrets are there: whoever may see one sees it.
    let shown = system.ask(1, "GET", "/api/v1/configs/vault/key-7?reveal=true&version=3", None);
    assert_eq!(shown.json()["value"], secrets[23].as_str());
    for node in 0..3 {
        let metrics =
            crate::support::http(system.cluster.nodes[node].ports.metrics, "GET", "/metrics", None);
        look(&mut scan, "metrics", &metrics.unwrap());
        let kept = system.ask(node, "POST", "/api/v1/admin/backups", None);
        assert_eq!(kept.status, 201, "{}", kept.body);
    }
    // The old data keys are gone when every secret is under a new one.
    wait_for("secrets are under the new key", || {
        let ring = system.ask(0, "GET", "/api/v1/admin/keys", None).json();
        let keys = ring["data_keys"].as_array()?.clone();
        keys.iter()
            .filter(|key| key["namespace"] == "vault")
            .all(|key| key["newest"] == true)
            .then_some(())
    });
    // Snapshots, replayed logs, and what a crash leaves.
    system.cluster.nodes[1].kill();
    system.cluster.nodes[1].start();
    system.cluster.nodes[1].wait_ready();
    let shown = system.ask(1, "GET", "/api/v1/configs/vault/key-7?reveal=true&version=3", None);
    assert_eq!(shown.json()["value"], secrets[23].as_str());
    let verdict = system.ask(1, "GET", "/api/v1/audit/verify", None);
    assert_eq!(verdict.status, 200, "{}", verdict.body);
    for node in &mut system.cluster.nodes {
        node.signal("TERM");
        node.wait_exit();
    }
    let folder = system.cluster.folder.path();
    scan.folder(folder);
    assert!(scan.databases(folder) >= 6, "two databases of each node");
    scan.assert_clean();
    // What is looked for is found where it is: the search itself works on this folder.
    fs::write(folder.join("leak"), &secrets[3]).unwrap();
    let mut again = canaries.scan();
    again.folder(folder);
    assert!(
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| again.assert_clean())).is_err()
    );
}

fn look(scan: &mut Scan<'_>, place: &str, reply: &Reply) {
    scan.bytes(place, reply.head.as_bytes());
    scan.bytes(place, reply.body.as_bytes());
}

#[test]
fn another_master_key_opens_nothing_and_says_so() {
    let mut system = Secured::start();
    let path = "/api/v1/configs/vault/key";
    let made =
        system.ask(0, "PUT", path, Some(&json!({"value": "sk-opened-by-one-key", "secret": true})));
    assert_eq!(made.status, 201, "{}", made.body);
    let other = system.cluster.folder.path().join("keys/other");
    generate_file(&other).unwrap();
    let node = &mut system.cluster.nodes[2];
    node.signal("TERM");
    node.wait_exit();
    node.extra_args[0] = format!("--master-key-file={}", other.display());
    node.start();
    node.wait_ready();
    let address = node.ports.http;
    let bearer = format!("authorization: Bearer {}", system.token);
    let reply = wait_for("the node answers", || {
        http_with(address, "GET", &format!("{path}?reveal=true"), &[&bearer], None)
    });
    assert_eq!(reply.status, 503, "{}", reply.body);
    assert_eq!(reply.json()["code"], "SECRETS_UNAVAILABLE");
    let detail = reply.json()["detail"].to_string();
    assert!(detail.contains("master"), "{detail}");
    let masked = http_with(address, "GET", path, &[&bearer], None).unwrap();
    assert_eq!((masked.status, &masked.json()["value"]), (200, &json!("********")));
    let ring = http_with(address, "GET", "/api/v1/admin/keys", &[&bearer], None).unwrap().json();
    assert!(
        ring["data_keys"].as_array().unwrap().iter().all(|key| key["usable"] == false),
        "{ring}"
    );
}

#[test]
fn the_first_token_may_be_brought_along() {
    let mut cluster = Cluster::new(1);
    let file = cluster.folder.path().join("root-token");
    let text = "brought-along-0123456789-abcdefghijklmnop";
    fs::write(&file, format!("{text}\n")).unwrap();
    let node = &mut cluster.nodes[0];
    node.auth = true;
    node.extra_args = vec![format!("--bootstrap-token-file={}", file.display())];
    node.start();
    node.wait_ready();
    let bearer = format!("authorization: Bearer {text}");
    wait_for("the token is known", || {
        let reply = http_with(node.ports.http, "GET", "/api/v1/auth/whoami", &[&bearer], None)?;
        (reply.status == 200).then_some(())
    });
    assert!(!node.data_dir.join("bootstrap-token").exists());
    // Taken once: after a restart with another file, the first one still holds and the other does not.
    node.signal("TERM");
    node.wait_exit();
    fs::write(&file, "quite-another-0123456789-abcdefghijklmnop").unwrap();
    node.start();
    node.wait_ready();
    let asked = |token: &str| {
        let bearer = format!("authorization: Bearer {token}");
        let path = "/api/v1/auth/whoami";
        wait_for("an answer", || http_with(node.ports.http, "GET", path, &[&bearer], None)).status
    };
    assert_eq!(asked(text), 200);
    assert_eq!(asked("quite-another-0123456789-abcdefghijklmnop"), 401);
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let short = folder.path().join("short");
    fs::write(&short, "short").unwrap();
    let serve = |option: &str, file: &Path| {
        let data = format!("--data-dir={}", folder.path().join("data").display());
        let option = format!("{option}={}", file.display());
        run(&[
            "serve",
            "--node-id=1",
            "--initial-cluster=1=127.0.0.1:1",
            "--raft-addr=127.0.0.1:0",
            "--http-addr=127.0.0.1:0",
            "--grpc-addr=127.0.0.1:0",
            "--metrics-addr=127.0.0.1:0",
            &data,
            &option,
        ])
    };
    for option in ["--master-key-file", "--bootstrap-token-file"] {
        for file in [&short, &folder.path().join("gone")] {
            let (code, _, stderr) = serve(option, file);
            assert_eq!(code, Some(2), "{stderr}");
            assert!(stderr.contains(option), "{stderr}");
        }
    }
}
