//! Real processes over TLS: clients, their certificates, the exchange of files, the other nodes, and joining.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::authority::{Authority, Written};
use crate::support::{Cluster, Node, Ports, finish, http, own_ip, wait_for};
use llm_config_client::{Client, Options, TlsOptions, v1};
use llm_config_tls::pki_types::pem::PemObject as _;
use llm_config_tls::pki_types::{CertificateDer, PrivateKeyDer};
use llm_config_tls::{Names, outgoing, provider};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::json;

/// What a client finds at the other end of a connection.
struct Found {
    /// The common name in the server's certificate.
    server: String,
    /// The protocol that was agreed on.
    protocol: Option<String>,
    answer: String,
}

/// One request over TLS; the server must be `localhost` or have its address in the certificate.
fn https(address: SocketAddr, config: ClientConfig, path: &str) -> io::Result<Found> {
    let socket = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    socket.set_read_timeout(Some(Duration::from_secs(15)))?;
    socket.set_write_timeout(Some(Duration::from_secs(15)))?;
    let name = "localhost".try_into().unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(connection, socket);
    write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    stream.flush()?;
    let mut answer = String::new();
    let ended = stream.read_to_string(&mut answer);
    let shown = stream.conn.peer_certificates().and_then(<[_]>::first);
    let server = shown.map(|shown| Names::of(shown).unwrap().common_name.unwrap());
    let protocol = stream.conn.alpn_protocol();
    let protocol = protocol.map(|protocol| String::from_utf8_lossy(protocol).into_owned());
    ended?;
    Ok(Found { server: server.unwrap(), protocol, answer })
}

/// A client that believes the authority in a file.
fn trusting(ca: &Path) -> ClientConfig {
    outgoing("--tls-ca", ca).unwrap()
}

/// The same, with a certificate to show.
fn showing(ca: &str, own: &crate::authority::Issued) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
    ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![CertificateDer::from_pem_slice(own.certificate.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap(),
        )
        .unwrap()
}

fn tls_args(written: &Written) -> Vec<String> {
    vec![
        format!("--tls-cert={}", written.certificate.display()),
        format!("--tls-key={}", written.key.display()),
    ]
}

fn raft_args(authority: &Authority, id: u64, folder: &Path) -> Vec<String> {
    let written = authority.node(id).write(folder, &format!("raft-{id}"));
    let ca = folder.join("raft-ca.pem");
    std::fs::write(&ca, authority.pem()).unwrap();
    vec![
        format!("--raft-tls-cert={}", written.certificate.display()),
        format!("--raft-tls-key={}", written.key.display()),
        format!("--raft-tls-ca={}", ca.display()),
    ]
}

/// A node of its own cluster whose clients need TLS.
struct Secured {
    cluster: Cluster,
    authority: Authority,
    ca: std::path::PathBuf,
}

impl Secured {
    fn new() -> Self {
        let (cluster, authority) = (Cluster::new(1), Authority::new("clients"));
        let ca = cluster.folder.path().join("ca.pem");
        std::fs::write(&ca, authority.pem()).unwrap();
        let mut secured = Self { cluster, authority, ca };
        let written = secured.put("first");
        secured.node().extra_args.extend(tls_args(&written));
        secured
    }

    fn node(&mut self) -> &mut Node {
        &mut self.cluster.nodes[0]
    }

    /// Writes a certificate with this common name, over what is there.
    fn put(&self, name: &str) -> Written {
        let ip = self.cluster.nodes[0].ports.http.ip().to_string();
        self.authority.issue(name, &["localhost", &ip]).write(self.cluster.folder.path(), "server")
    }

    fn start(&mut self) {
        self.node().start();
        let ca = self.ca.clone();
        let node = self.node();
        wait_for("the node is ready", || {
            assert!(node.running(), "node 1 ended:\n{}", node.log());
            let found = https(node.ports.http, trusting(&ca), "/health/ready").ok()?;
            found.answer.starts_with("HTTP/1.1 200").then_some(())
        });
    }

    fn ask(&self, config: ClientConfig) -> io::Result<Found> {
        https(self.cluster.nodes[0].ports.http, config, "/health/ready")
    }

    fn metric(&self, series: &str) -> Option<f64> {
        metric(&self.cluster.nodes[0], series)
    }
}

/// The metrics are in clear text, whatever the other listeners are.
fn metric(node: &Node, series: &str) -> Option<f64> {
    let page = http(node.ports.metrics, "GET", "/metrics", None)?.body;
    let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
    line.parse().ok()
}

fn client(endpoint: SocketAddr, tls: TlsOptions) -> Client {
    let options = Options::default().timeout(Duration::from_secs(30)).tls(tls);
    Client::with_options([format!("https://{endpoint}")], options).unwrap()
}

fn set(key: &str) -> v1::SetRequest {
    v1::SetRequest {
        namespace: "test".into(),
        key: key.into(),
        value: "1".into(),
        ..Default::default()
    }
}

#[test]
fn https_is_for_clients_that_know_the_authority() {
    let mut secured = Secured::new();
    secured.start();
    let found = secured.ask(trusting(&secured.ca)).unwrap();
    assert_eq!(found.server, "first");

    let stranger = Authority::new("clients");
    let foreign = secured.cluster.folder.path().join("foreign.pem");
    std::fs::write(&foreign, stranger.pem()).unwrap();
    assert!(secured.ask(trusting(&foreign)).is_err());

    let failures = "tls_handshake_failures_total{listener=\"http\"}";
    let before = secured.metric(failures).unwrap();
    let address = secured.node().ports.http;
    assert!(http(address, "GET", "/health/ready", None).is_none(), "clear text is not answered");
    wait_for("the failure is counted", || (secured.metric(failures)? > before).then_some(()));
    wait_for("the log says what is wrong", || {
        secured.cluster.nodes[0].log().contains("a TLS handshake failed").then_some(())
    });
    let expiry = secured.metric("tls_certificate_expiry_timestamp_seconds{certificate=\"client\"}");
    assert!(expiry.unwrap() > 32e9, "{expiry:?}");
}

#[test]
fn a_listener_without_tls_says_so_when_it_hears_tls() {
    let cluster = Cluster::started(1);
    let authority = Authority::new("clients");
    let ca = cluster.folder.path().join("ca.pem");
    std::fs::write(&ca, authority.pem()).unwrap();
    assert!(https(cluster.nodes[0].ports.http, trusting(&ca), "/health/ready").is_err());
    wait_for("the log says what is wrong", || {
        cluster.nodes[0].log().contains("a client speaks TLS").then_some(())
    });
}

#[test]
fn both_protocols_are_agreed_on_and_the_sdk_speaks_grpc_on_both_ports() {
    let mut secured = Secured::new();
    secured.start();
    for (offered, agreed) in [(&["h2", "http/1.1"][..], "h2"), (&["http/1.1"][..], "http/1.1")] {
        let mut config = trusting(&secured.ca);
        config.alpn_protocols = offered.iter().map(|name| name.as_bytes().to_vec()).collect();
        let address = secured.node().ports.http;
        // With HTTP/2 agreed on, what this helper sends is no request; the handshake is what counts.
        match https(address, config, "/health/ready") {
            Ok(found) => assert_eq!(found.protocol.as_deref(), Some(agreed)),
            Err(error) => panic!("{offered:?}: {error}"),
        }
    }

    let ports = secured.node().ports.clone();
    let ca = secured.authority.pem();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        for endpoint in [ports.grpc, ports.http] {
            let client = client(endpoint, TlsOptions::default().ca_pem(ca.clone()));
            let key = format!("by-{endpoint}").replace(':', "-");
            client.set(set(&key)).await.unwrap();
            // The second one goes to the leader's address that the first answer named.
            client.set(set(&key)).await.unwrap();
            let get = v1::GetRequest { namespace: "test".into(), key, ..v1::GetRequest::default() };
            assert_eq!(client.get(get).await.unwrap().version, 2);
        }
        // Another name than that of the certificate, and no authority that knows it.
        let impatient = |tls| {
            let options = Options::default().timeout(Duration::from_secs(2)).tls(tls);
            Client::with_options([ports.grpc.to_string()], options).unwrap()
        };
        let own = TlsOptions::default().ca_pem(ca.clone());
        let elsewhere = impatient(own.clone().domain("other.example"));
        let refused = elsewhere.set(set("x")).await.unwrap_err().to_string();
        assert!(refused.contains("certificate"), "{refused}");
        let unknown = TlsOptions::default().ca_pem(Authority::new("clients").pem());
        assert!(impatient(unknown).set(set("x")).await.is_err());
        assert!(impatient(own.domain("localhost")).set(set("x")).await.is_ok());
    });
}

#[test]
fn a_client_certificate_may_be_shown_and_must_not_be_foreign() {
    let mut secured = Secured::new();
    let authority = Authority::new("robots");
    let ca = secured.cluster.folder.path().join("robots.pem");
    std::fs::write(&ca, authority.pem()).unwrap();
    secured.node().extra_args.push(format!("--tls-client-ca={}", ca.display()));
    secured.start();
    let known = secured.authority.pem();
    let ask = |own: &crate::authority::Issued| secured.ask(showing(&known, own));
    assert!(ask(&authority.issue("robot", &[])).unwrap().answer.starts_with("HTTP/1.1 200"));
    assert!(secured.ask(trusting(&secured.ca)).is_ok(), "none need be shown");

    let failures = "tls_handshake_failures_total{listener=\"http\"}";
    let before = secured.metric(failures).unwrap();
    assert!(ask(&Authority::new("robots").issue("robot", &[])).is_err());
    assert!(ask(&authority.issue_until(2001, "robot", &[])).is_err(), "expired");
    wait_for("both are counted", || (secured.metric(failures)? >= before + 2.0).then_some(()));
}

#[test]
fn a_certificate_that_is_replaced_on_disk_is_served_without_a_restart() {
    let mut secured = Secured::new();
    secured.start();
    let serves = |secured: &Secured| secured.ask(trusting(&secured.ca)).unwrap().server;
    let pid = secured.node().pid();
    secured.put("second");
    wait_for("the second certificate is served", || (serves(&secured) == "second").then_some(()));
    assert_eq!(secured.metric("tls_reloads_total{result=\"ok\"}"), Some(1.0));

    let written = secured.put("third");
    std::fs::write(&written.key, "no key").unwrap();
    wait_for("the broken files are noticed", || {
        (secured.metric("tls_reloads_total{result=\"failed\"}")? >= 1.0).then_some(())
    });
    assert_eq!(serves(&secured), "second");
    let log = secured.node().log();
    assert!(log.contains("ERROR") && log.contains("--tls-key"), "{log}");

    secured.put("fourth");
    wait_for("the fourth certificate is served", || (serves(&secured) == "fourth").then_some(()));
    assert_eq!(secured.node().pid(), pid);
}

#[test]
fn files_that_cannot_be_used_are_named_and_nothing_starts() {
    let cluster = Cluster::new(1);
    let folder = cluster.folder.path();
    let authority = Authority::new("a");
    let written = authority.node(1).write(folder, "one");
    let other = authority.node(2).write(folder, "two");
    let ca = folder.join("ca.pem");
    std::fs::write(&ca, authority.pem()).unwrap();
    let show = |path: &Path| path.display().to_string();
    let raft = |files: &Written| {
        vec![
            format!("--raft-tls-cert={}", show(&files.certificate)),
            format!("--raft-tls-key={}", show(&files.key)),
            format!("--raft-tls-ca={}", show(&ca)),
        ]
    };
    let mixed = Written { certificate: written.certificate.clone(), key: other.key.clone() };
    let missing = Written { certificate: folder.join("none.pem"), key: written.key.clone() };
    for (args, parts) in [
        (tls_args(&missing), vec!["--tls-cert", "none.pem", "give the path"]),
        (tls_args(&mixed), vec!["--tls-key", "two-key.pem", "made together"]),
        (raft(&other), vec!["--raft-tls-cert", "two.pem", "node-1.llm-config"]),
    ] {
        let mut command = cluster.nodes[0].command();
        let (code, _, error) = finish(command.args(args));
        assert_eq!(code, Some(2), "{error}");
        for part in parts {
            assert!(error.contains(part), "{part:?} is not in: {error}");
        }
        assert!(!cluster.nodes[0].data_dir.exists(), "nothing was begun");
    }
}

#[test]
fn three_nodes_over_tls_take_a_fourth_that_asks_over_https() {
    let (mut cluster, authority) = (Cluster::new(3), Authority::new("nodes"));
    let folder = cluster.folder.path().to_owned();
    for node in &mut cluster.nodes {
        node.extra_args.extend(raft_args(&authority, node.id, &folder));
    }
    // The first one also serves its clients over TLS.
    let ca = folder.join("ca.pem");
    std::fs::write(&ca, authority.pem()).unwrap();
    let first = cluster.nodes[0].ports.clone();
    let server = authority.issue("server", &["localhost", &first.http.ip().to_string()]);
    cluster.nodes[0].extra_args.extend(tls_args(&server.write(&folder, "server")));
    cluster.nodes.iter_mut().for_each(Node::start);
    cluster.nodes[1].wait_ready();
    cluster.nodes[1].put_surely("by-2", "2");
    cluster.nodes[2].put_surely("by-3", "3");

    let mut fourth = Node::new(4, Ports::free(own_ip()), &folder, String::new());
    fourth.join = format!("https://{}", first.http);
    fourth.extra_args = raft_args(&authority, 4, &folder);
    fourth.extra_args.push(format!("--tls-ca={}", ca.display()));
    fourth.start();
    wait_for("the fourth waits to be added", || {
        assert!(fourth.running(), "node 4 ended:\n{}", fourth.log());
        let health = fourth.get("/health").filter(|reply| reply.status == 503)?.json();
        health["checks"]["raft"].as_str()?.contains("cluster add").then_some(())
    });
    let member = json!({
        "id": 4,
        "raft": fourth.ports.raft.to_string(),
        "http": fourth.ports.http.to_string(),
        "grpc": fourth.ports.grpc.to_string(),
    });
    let (members, member) = ("/api/v1/cluster/members", member.to_string());
    wait_for("the fourth is added", || {
        let reply = http(cluster.nodes[1].ports.http, "POST", members, Some(&member))?;
        (reply.status < 300).then_some(())
    });
    fourth.wait_ready();
    wait_for("it has what was written", || fourth.read("by-3").filter(|value| *value == json!(3)));
    let expiry = "tls_certificate_expiry_timestamp_seconds{certificate=\"node\"}";
    assert!(metric(&fourth, expiry).unwrap() > 32e9);
    assert_eq!(metric(&fourth, "tls_handshake_failures_total{listener=\"raft\"}"), Some(0.0));
}

#[test]
fn a_founder_in_clear_text_stays_outside_and_the_others_say_why() {
    let (mut cluster, authority) = (Cluster::new(3), Authority::new("nodes"));
    let folder = cluster.folder.path().to_owned();
    for node in &mut cluster.nodes[..2] {
        node.extra_args.extend(raft_args(&authority, node.id, &folder));
    }
    cluster.nodes.iter_mut().for_each(Node::start);
    cluster.nodes[0].wait_ready();
    cluster.nodes[0].put_surely("with-two", "1");
    wait_for("a log says what is wrong", || {
        cluster.nodes[..2]
            .iter()
            .any(|node| node.log().contains("does not speak TLS"))
            .then_some(())
    });
    let outside = cluster.nodes[2].get("/health").unwrap();
    assert_eq!(outside.status, 503, "{}", outside.body);
    assert_eq!(outside.json()["cluster_id"], json!(null), "{}", outside.body);
}
