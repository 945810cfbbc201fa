//! Certificates of a test's own authority: what is refused and in which words, real handshakes, and the exchange of files.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::authority::{Authority, Issued};
use crate::{File, Files, Names, NodeTls, Reloads, ServerTls, TlsError, outgoing, refusal};

fn file(option: &'static str, path: &Path) -> File {
    File { option, path: path.to_owned() }
}

/// A folder with `own.pem`, `own-key.pem` and `ca.pem`.
struct Folder(TempDir);

impl Folder {
    fn new(authority: &Authority, own: &Issued) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.put(own);
        folder.write("ca.pem", authority.pem());
        folder
    }

    fn put(&self, own: &Issued) {
        own.write(self.0.path(), "own");
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        std::fs::write(self.0.path().join(name), text).unwrap();
    }

    fn files(&self) -> Files {
        Files {
            certificate: file("--tls-cert", &self.0.path().join("own.pem")),
            key: file("--tls-key", &self.0.path().join("own-key.pem")),
        }
    }

    fn ca(&self) -> File {
        file("--tls-client-ca", &self.0.path().join("ca.pem"))
    }

    fn clients(&self) -> Result<Arc<ServerTls>, TlsError> {
        ServerTls::for_clients(self.files(), Some(self.ca()))
    }

    fn node(&self, id: u64) -> Result<Arc<NodeTls>, TlsError> {
        NodeTls::for_nodes(id, self.files(), self.ca())
    }
}

/// What the client, and what the server says of a connection of the two; each of them the names of the other.
async fn connect(
    acceptor: tokio_rustls::TlsAcceptor,
    connector: TlsConnector,
    name: &str,
) -> (std::io::Result<Vec<u8>>, std::io::Result<Option<Names>>) {
    let (near, far) = tokio::io::duplex(64 << 10);
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let client = async move {
        let mut stream = connector.connect(name, near).await?;
        let mut word = [0; 2];
        // In TLS 1.3 a client learns only now that its certificate was refused.
        stream.read_exact(&mut word).await?;
        let shown = stream.get_ref().1.peer_certificates().unwrap();
        Ok(shown[0].to_vec())
    };
    let server = async move {
        let mut stream = acceptor.accept(far).await?;
        stream.write_all(b"ok").await?;
        stream.flush().await?;
        let shown = stream.get_ref().1.peer_certificates();
        Ok(shown.map(|chain| Names::of(&chain[0]).unwrap()))
    };
    tokio::join!(client, server)
}

fn plain_client(folder: &Folder) -> TlsConnector {
    let config = outgoing("--tls-ca", &folder.ca().path).unwrap();
    TlsConnector::from(Arc::new(config))
}

/// As a client that shows a certificate.
fn client_with(authority: &Authority, own: &Issued) -> TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap()).unwrap();
    let chain = vec![CertificateDer::from_pem_slice(own.certificate.as_bytes()).unwrap()];
    let key = rustls::pki_types::PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
    let config = ClientConfig::builder_with_provider(crate::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .unwrap();
    TlsConnector::from(Arc::new(config))
}

#[test]
fn every_refusal_names_the_option_the_file_and_the_remedy() {
    let authority = Authority::new("a");
    let own = authority.issue("server", &["localhost"]);
    let other = authority.issue("other", &["localhost"]);
    let refused = |change: &dyn Fn(&Folder)| {
        let folder = Folder::new(&authority, &own);
        change(&folder);
        let error = folder.clients().expect_err("this cannot work");
        error.to_string()
    };
    let expect = |change: &dyn Fn(&Folder), parts: &[&str]| {
        let message = refused(change);
        for part in parts {
            assert!(message.contains(part), "{part:?} is not in: {message}");
        }
    };
    let remove = |name: &'static str| {
        move |folder: &Folder| std::fs::remove_file(folder.0.path().join(name)).unwrap()
    };
    expect(&remove("own.pem"), &["--tls-cert ", "own.pem", "give the path"]);
    expect(&remove("own-key.pem"), &["--tls-key ", "own-key.pem", "give the path"]);
    expect(&remove("ca.pem"), &["--tls-client-ca ", "ca.pem", "give the path"]);
    let write = |name: &'static str, text: String| move |folder: &Folder| folder.write(name, &text);
    expect(&write("own.pem", "x".into()), &["--tls-cert ", "no certificate in PEM"]);
    expect(&write("own.pem", own.key.clone()), &["--tls-cert ", "no certificate in PEM"]);
    expect(&write("own-key.pem", String::new()), &["--tls-key ", "no private key in PEM"]);
    expect(&write("own-key.pem", own.certificate.clone()), &["no private key", "passphrase"]);
    expect(&write("ca.pem", String::new()), &["--tls-client-ca ", "authorities"]);
    expect(&write("own.pem", "x".repeat(2 << 20)), &["--tls-cert ", "larger than"]);
    expect(
        &write("own.pem", "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n".into()),
        &["--tls-cert ", "cannot be read", "give the certificate"],
    );
    expect(&write("own-key.pem", other.key.clone()), &["is not the key of", "made together"]);
    // A key in the wrong file must not end up in a message.
    let message = refused(&write(
        "own-key.pem",
        format!("{}\n-----BEGIN x", own.key.replace("-----END", "-x")),
    ));
    let secret: Vec<_> = own.key.lines().filter(|line| !line.starts_with('-')).collect();
    assert!(secret.iter().all(|line| !message.contains(line)), "{message}");
}

#[test]
fn the_certificate_of_a_node_names_that_node_and_no_other() {
    let authority = Authority::new("a");
    let refused = |own: &Issued| {
        let error = Folder::new(&authority, own).node(2).expect_err("not that of node 2");
        assert!(matches!(error, TlsError::WrongNode { .. }), "{error}");
        error.to_string()
    };
    assert!(Folder::new(&authority, &authority.node(2)).node(2).is_ok());
    let message = refused(&authority.node(1));
    assert!(message.contains("node 1") && message.contains("node-2.llm-config"), "{message}");
    refused(&authority.issue("node 2", &["localhost"]));
    refused(&authority.issue("both", &["node-1.llm-config", "node-2.llm-config"]));
}

#[test]
fn an_expired_certificate_is_used_and_its_end_is_known() {
    let authority = Authority::new("a");
    let own = authority.issue_until(2001, "old", &["localhost"]);
    let tls = Folder::new(&authority, &own).clients().unwrap();
    // The last day of 2001.
    assert_eq!(tls.expires_at_s(), 1_009_756_800);
}

#[test]
fn names_are_those_of_the_certificate() {
    let authority = Authority::new("a");
    let own = authority.issue("robot", &["a.example", "127.0.0.1", "spiffe://example/robot"]);
    let names = Names::of(&CertificateDer::from_pem_slice(own.certificate.as_bytes()).unwrap());
    let expected = Names {
        common_name: Some("robot".into()),
        dns: vec!["a.example".into()],
        uris: vec!["spiffe://example/robot".into()],
    };
    assert_eq!(names, Ok(expected));
    assert!(Names::of(&CertificateDer::from(vec![1, 2, 3])).is_err());
}

#[tokio::test]
async fn clients_may_show_a_certificate_and_a_foreign_one_ends_the_handshake() {
    let (authority, foreign) = (Authority::new("a"), Authority::new("a"));
    let folder = Folder::new(&authority, &authority.issue("server", &["localhost"]));
    let tls = folder.clients().unwrap();

    let (client, server) = connect(tls.acceptor(), plain_client(&folder), "localhost").await;
    client.unwrap();
    assert_eq!(server.unwrap(), None);

    let robot = client_with(&authority, &authority.issue("robot", &[]));
    let (client, server) = connect(tls.acceptor(), robot, "localhost").await;
    client.unwrap();
    assert_eq!(server.unwrap().unwrap().common_name.as_deref(), Some("robot"));

    let stranger = client_with(&authority, &foreign.issue("robot", &[]));
    let (client, server) = connect(tls.acceptor(), stranger, "localhost").await;
    assert!(client.is_err());
    assert!(refusal(&server.unwrap_err()).unwrap().contains("no authority"));

    let (client, _) = connect(tls.acceptor(), plain_client(&folder), "other.example").await;
    assert!(refusal(&client.unwrap_err()).unwrap().contains("cannot be accepted"));
}

#[tokio::test]
async fn nodes_show_each_other_who_they_are() {
    let (authority, foreign) = (Authority::new("a"), Authority::new("a"));
    let one = Folder::new(&authority, &authority.node(1)).node(1).unwrap();
    let two = Folder::new(&authority, &authority.node(2)).node(2).unwrap();
    let stranger = Folder::new(&foreign, &foreign.node(2)).node(2).unwrap();

    let (client, server) = connect(two.acceptor(), one.connector(), "node-2.llm-config").await;
    assert_eq!(Names::of(&client.unwrap().into()).unwrap().node_id(), Some(2));
    assert_eq!(server.unwrap().unwrap().node_id(), Some(1));

    // The right authority, another node.
    let (client, _) = connect(two.acceptor(), one.connector(), "node-3.llm-config").await;
    assert!(client.is_err());
    // Another authority, in both directions.
    let (client, _) = connect(stranger.acceptor(), one.connector(), "node-2.llm-config").await;
    assert!(refusal(&client.unwrap_err()).unwrap().contains("no authority"));
    let (_, server) = connect(one.acceptor(), stranger.connector(), "node-1.llm-config").await;
    assert!(server.is_err());
    // No certificate at all.
    let folder = Folder::new(&authority, &authority.node(2));
    let (client, server) =
        connect(two.acceptor(), plain_client(&folder), "node-2.llm-config").await;
    assert!(client.is_err());
    assert!(refusal(&server.unwrap_err()).unwrap().contains("no certificate"));
}

#[tokio::test]
async fn an_exchanged_certificate_is_taken_up_and_a_broken_one_is_not() {
    let authority = Authority::new("a");
    let folder = Folder::new(&authority, &authority.issue("first", &["localhost"]));
    let tls = folder.clients().unwrap();
    let served = async || {
        let (client, _) = connect(tls.acceptor(), plain_client(&folder), "localhost").await;
        Names::of(&client.unwrap().into()).unwrap().common_name.unwrap()
    };
    tls.look();
    assert_eq!((served().await.as_str(), tls.reloads()), ("first", Reloads::default()));

    let second = authority.issue_until(2998, "second", &["localhost"]);
    folder.put(&second);
    tls.look();
    assert_eq!(served().await, "first", "the files may still be being written");
    let before = tls.expires_at_s();
    tls.look();
    assert_eq!((served().await.as_str(), tls.reloads()), ("second", Reloads { ok: 1, failed: 0 }));
    assert!(tls.expires_at_s() < before);

    folder.write("own-key.pem", authority.issue("x", &[]).key);
    for _ in 0..4 {
        tls.look();
    }
    assert_eq!((served().await.as_str(), tls.reloads()), ("second", Reloads { ok: 1, failed: 1 }));
    std::fs::remove_file(folder.files().key.path).unwrap();
    for _ in 0..4 {
        tls.look();
    }
    assert_eq!((served().await.as_str(), tls.reloads()), ("second", Reloads { ok: 1, failed: 2 }));

    folder.put(&authority.issue("third", &["localhost"]));
    tls.look();
    tls.look();
    assert_eq!((served().await.as_str(), tls.reloads()), ("third", Reloads { ok: 2, failed: 2 }));
}

#[tokio::test]
async fn watching_looks_until_it_is_told_to_stop() {
    let authority = Authority::new("a");
    let folder = Folder::new(&authority, &authority.issue("first", &["localhost"]));
    let tls = folder.clients().unwrap();
    let interval = Duration::from_millis(10);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let watching = tokio::spawn(Arc::clone(&tls).watch_every(interval, async {
        // Either end of the channel ends the watch.
        let _stopped = stopped.await;
    }));
    folder.put(&authority.issue("second", &["localhost"]));
    let taken = async {
        while tls.reloads().ok == 0 {
            tokio::time::sleep(interval).await;
        }
    };
    timeout(Duration::from_secs(60), taken).await.expect("the files are looked at");
    stop.send(()).unwrap();
    timeout(Duration::from_secs(60), watching).await.expect("it ends").unwrap();
}
