//! Backups of real processes: made under load, by the clock and by hand, restored into a new cluster, and saved from the
//! last node of a cluster that lost its majority.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::support::{Cluster, Node, Reply, finish, http, program, wait_for};
use serde_json::Value;

/// Keys of one writer; each is written again and again.
const KEYS: u64 = 8;
/// How often the test that kills a node tries to find it writing.
const KILLS_MAX: usize = 30;

/// The command line client lies beside the server: `cargo test --workspace` and `make test` build both.
fn client(cluster: &Cluster) -> Command {
    let path = Path::new(env!("CARGO_BIN_EXE_llm-config-manager")).with_file_name("llm-config");
    assert!(path.exists(), "{} is missing: cargo build -p llm-config-cli", path.display());
    let endpoints: Vec<_> = cluster.nodes.iter().map(|node| node.ports.grpc.to_string()).collect();
    let mut command = Command::new(path);
    command.args(["--endpoints", &endpoints.join(","), "--timeout", "60"]);
    command
}

fn create(cluster: &Cluster, file: &Path) {
    let (code, stdout, stderr) = finish(client(cluster).args(["backup", "create"]).arg(file));
    assert_eq!((code, stdout.as_str()), (Some(0), ""), "{stderr}");
}

fn verify(file: &Path) -> (Option<i32>, String, String) {
    finish(program().args(["backup", "verify"]).arg(file))
}

fn restore(file: &Path, node: &Node) -> (Option<i32>, String, String) {
    finish(
        program()
            .arg("restore")
            .arg(file)
            .arg(format!("--data-dir={}", node.data_dir.display()))
            .arg(format!("--node-id={}", node.id))
            .arg(format!("--initial-cluster={}", node.initial_cluster)),
    )
}

/// A new cluster of three made of a backup, as an operator makes it.
fn restored(file: &Path) -> Cluster {
    let mut cluster = Cluster::new(3);
    for node in &cluster.nodes {
        let (code, stdout, stderr) = restore(file, node);
        assert_eq!(code, Some(0), "{stderr}");
        assert!(stdout.contains("new cluster"), "{stdout}");
    }
    cluster.nodes.iter_mut().for_each(Node::start);
    cluster.nodes.iter_mut().for_each(Node::wait_ready);
    cluster
}

/// Writes that were acknowledged: key, version, revision, value.
type Acknowledged = Arc<Mutex<Vec<(String, u64, u64, u64)>>>;

/// Writers over all nodes, until they are stopped.
struct Load {
    acknowledged: Acknowledged,
    stop: Arc<AtomicBool>,
    writers: Vec<thread::JoinHandle<()>>,
}

impl Load {
    fn start(addresses: &[SocketAddr]) -> Self {
        let (acknowledged, stop) = (Acknowledged::default(), Arc::new(AtomicBool::new(false)));
        let value = Arc::new(AtomicU64::new(1));
        let writers = addresses.iter().enumerate().map(|(writer, address)| {
            let (acknowledged, stop) = (acknowledged.clone(), stop.clone());
            let (address, value) = (*address, value.clone());
            thread::spawn(move || {
                let mut n = 0;
                while !stop.load(Ordering::SeqCst) {
                    let key = format!("w{writer}-{}", n % KEYS);
                    let written = value.fetch_add(1, Ordering::SeqCst);
                    let path = format!("/api/v1/configs/test/{key}");
                    let body = format!("{{\"value\":{written}}}");
                    n += 1;
                    let reply = http(address, "PUT", &path, Some(&body));
                    let Some(reply) = reply.filter(|r| matches!(r.status, 200 | 201)) else {
                        continue;
                    };
                    let entry = reply.json();
                    let number = |name: &str| entry[name].as_u64().unwrap();
                    let write = (key, number("version"), number("revision"), written);
                    acknowledged.lock().unwrap().push(write);
                }
            })
        });
        let writers = writers.collect();
        Self { acknowledged, stop, writers }
    }

    fn count(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }

    fn wait_for_more(&self, writes: usize) {
        let goal = self.count() + writes;
        wait_for("writes are acknowledged", || (self.count() >= goal).then_some(()));
    }

    fn stop(self) -> Vec<(String, u64, u64, u64)> {
        self.stop.store(true, Ordering::SeqCst);
        self.writers.into_iter().for_each(|writer| writer.join().unwrap());
        self.acknowledged.lock().unwrap().clone()
    }
}

fn history(node: &Node, key: &str) -> Vec<Value> {
    let path = format!("/api/v1/configs/test/{key}/history?limit=1000");
    let reply = node.get(&path).unwrap();
    assert_eq!(reply.status, 200, "{}", reply.body);
    reply.json()["items"].as_array().unwrap().clone()
}

fn cluster_ids(cluster: &Cluster) -> Vec<String> {
    let id = |node: &Node| node.cluster().unwrap()["cluster_id"].as_str().unwrap().to_owned();
    cluster.nodes.iter().map(id).collect()
}

/// The first events of a watch that begins in the past.
fn first_event_id(node: &Node, from_revision: u64) -> u64 {
    let mut stream = TcpStream::connect(node.ports.http).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let path = format!("/api/v1/watch?namespace=test&from_revision={from_revision}");
    write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let mut id = 0;
    for line in BufReader::new(stream).lines() {
        let line = line.unwrap();
        if let Some(found) = line.strip_prefix("id: ") {
            id = found.parse().unwrap();
        }
        if line == "event: set" {
            return id;
        }
    }
    panic!("the watch ended without an event");
}

#[test]
fn a_backup_made_under_load_becomes_a_new_cluster_with_every_version() {
    let mut old = Cluster::started(3);
    old.leader();
    let addresses: Vec<_> = old.nodes.iter().map(|node| node.ports.http).collect();
    let load = Load::start(&addresses);
    load.wait_for_more(150);
    let before = load.acknowledged.lock().unwrap().clone();
    let file = old.folder.path().join("store.backup");
    create(&old, &file);
    load.wait_for_more(50);
    let writes = load.stop();

    let summary = llm_config_archive::verify(&file).unwrap();
    let revision = summary.manifest.revision;
    assert!(before.iter().all(|(_, _, of, _)| *of <= revision), "acknowledged before it began");
    assert!(writes.iter().any(|(_, _, of, _)| *of > revision), "writes went on meanwhile");
    let (code, stdout, stderr) = verify(&file);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains(&summary.digest_hex()), "{stdout}");
    let (code, stdout, stderr) = finish(client(&old).args(["backup", "verify"]).arg(&file));
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains(&summary.digest_hex()), "{stdout}");

    let new = restored(&file);
    let (old_ids, new_ids) = (cluster_ids(&old), cluster_ids(&new));
    assert!(new_ids.iter().all(|id| *id == new_ids[0] && *id != old_ids[0]), "{new_ids:?}");
    for node in &new.nodes {
        for (key, version, of, value) in &writes {
            let path = format!("/api/v1/configs/test/{key}?version={version}");
            let reply = node.get(&path).unwrap();
            if *of > revision {
                assert_eq!(reply.status, 404, "{key} {version} is younger than the backup");
            } else {
                assert_eq!(reply.json()["value"], *value, "node {}: {key} {version}", node.id);
            }
        }
    }
    for key in ["w0-0", "w1-3", "w2-7"] {
        let mut expected = history(&old.nodes[0], key);
        expected.retain(|version| version["revision"].as_u64().unwrap() <= revision);
        assert!(!expected.is_empty());
        assert_eq!(history(&new.nodes[2], key), expected, "{key}");
    }
    let versions = history(&new.nodes[0], "w0-0")[0]["version"].as_u64().unwrap();
    let reply = new.nodes[1].put("w0-0", "\"after\"").filter(|reply| reply.status == 200).unwrap();
    let entry = reply.json();
    assert_eq!(entry["version"], versions + 1, "versions go on");
    assert!(entry["revision"].as_u64().unwrap() > revision, "revisions go on");
    let early = writes.iter().map(|(_, _, of, _)| *of).min().unwrap();
    assert_eq!(first_event_id(&new.nodes[0], early), early, "a watch goes on where it was");
    // The old cluster does not notice.
    assert_eq!(old.nodes[0].put("w0-0", "0").unwrap().status, 200);
}

#[test]
fn stdout_takes_a_backup_too_and_the_client_prints_how_to_restore_it() {
    let cluster = Cluster::started(1);
    cluster.nodes[0].put_surely("k", "1");
    let output = client(&cluster).args(["backup", "create", "-"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let file = cluster.folder.path().join("with space.backup");
    std::fs::write(&file, output.stdout).unwrap();
    assert!(llm_config_archive::verify(&file).is_ok());

    let target = Cluster::new(2);
    let list = &target.nodes[0].initial_cluster;
    let (code, stdout, stderr) = finish(
        client(&cluster)
            .args(["backup", "restore"])
            .arg(&file)
            .args(["--initial-cluster", list, "--data-dir"])
            .arg(target.folder.path().join("new"))
            .args(["--cluster-token", "it's new"]),
    );
    assert_eq!((code, stdout.lines().count()), (Some(0), 2), "{stderr}");
    // Word for word, as a person would paste it, with the program on the path.
    let folder = Path::new(crate::support::BINARY).parent().unwrap();
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
    let line = stdout.lines().next().unwrap();
    let (code, stdout, stderr) = finish(Command::new("sh").args(["-c", line]).env("PATH", path));
    assert_eq!(code, Some(0), "{line}: {stderr}");
    assert!(stdout.contains("new cluster"), "{stdout}");
}

fn backups(node: &Node) -> PathBuf {
    node.data_dir.join("backups")
}

/// Names in the folder of kept backups, sorted.
fn names(node: &Node) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(backups(node)) else { return Vec::new() };
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn listed(node: &Node) -> Vec<Value> {
    let reply: Reply = node.get("/api/v1/admin/backups").unwrap();
    assert_eq!(reply.status, 200, "{}", reply.body);
    reply.json()["items"].as_array().unwrap().clone()
}

#[test]
fn scheduled_backups_appear_newest_first_and_only_so_many_stay() {
    let mut cluster = Cluster::new(1);
    cluster.nodes[0].extra_args = vec!["--backup-interval=1s".into(), "--backup-keep=2".into()];
    cluster.nodes[0].start();
    cluster.nodes[0].wait_ready();
    let node = &cluster.nodes[0];
    let first = wait_for("a first backup", || names(node).first().cloned());
    node.put_surely("k", "1");
    wait_for("the first one made room for newer ones", || {
        let names = names(node);
        (names.len() >= 2 && !names.contains(&first)).then_some(())
    });
    let items = wait_for("two that hold the write", || {
        let items = listed(node);
        let newest = items.first()?["revision"].as_u64()?;
        (items.len() == 2 && newest > 0 && items[1]["revision"] == newest).then_some(items)
    });
    let name = |item: &Value| item["name"].as_str().unwrap().to_owned();
    assert!(name(&items[0]) < name(&items[1]), "sorted by name, the newest comes first");
    assert!(items[0]["created_at"].as_str() > items[1]["created_at"].as_str(), "{items:?}");
    let page = http(node.ports.metrics, "GET", "/metrics", None).unwrap().body;
    let value = |name: &str| -> f64 {
        let line = page.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().parse().unwrap()
    };
    assert!(value("backup_last_success_timestamp_seconds") > 1.7e9);
    assert!(value("backup_size_bytes") > 0.0);
    assert!(value("backup_failures_total") == 0.0);
    let (code, stdout, stderr) = finish(client(&cluster).args(["backup", "list"]));
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.lines().count() >= 2 && stdout.contains(".backup"), "{stdout}");
}

#[test]
fn a_node_killed_while_it_writes_a_backup_leaves_nothing_that_looks_like_one() {
    let mut cluster = Cluster::new(1);
    cluster.nodes[0].extra_args = vec!["--backup-interval=1s".into(), "--backup-keep=3".into()];
    cluster.nodes[0].start();
    cluster.nodes[0].wait_ready();
    let large = format!("\"{}\"", "x".repeat(1_000_000));
    for n in 0..48 {
        cluster.nodes[0].put_surely(&format!("large-{n}"), &large);
    }
    let half = |node: &Node| names(node).into_iter().find(|name| name.starts_with(".tmp-"));
    let mut kills = 0;
    while half(&cluster.nodes[0]).is_none() || cluster.nodes[0].running() {
        assert!(kills < KILLS_MAX, "the node was never found writing a backup");
        if !cluster.nodes[0].running() {
            cluster.nodes[0].start();
            cluster.nodes[0].wait_ready();
        }
        wait_for("a backup is being written", || half(&cluster.nodes[0]));
        cluster.nodes[0].kill();
        kills += 1;
    }
    let complete = |node: &Node| {
        let mut names = names(node);
        names.retain(|name| name.ends_with(".backup"));
        names
    };
    for name in complete(&cluster.nodes[0]) {
        let summary = llm_config_archive::verify(&backups(&cluster.nodes[0]).join(&name));
        assert!(summary.is_ok(), "{name}: {summary:?}");
    }
    let left = half(&cluster.nodes[0]).unwrap();
    cluster.nodes[0].start();
    cluster.nodes[0].wait_ready();
    wait_for("the half-written file goes", || {
        (!names(&cluster.nodes[0]).contains(&left)).then_some(())
    });
    for item in listed(&cluster.nodes[0]) {
        let name = item["name"].as_str().unwrap();
        assert!(name.ends_with(".backup"), "{item}");
    }
}

#[test]
fn a_file_that_is_no_whole_backup_is_refused_before_anything_is_touched() {
    let cluster = Cluster::started(1);
    cluster.nodes[0].put_surely("k", "1");
    let folder = cluster.folder.path();
    let good = folder.join("good.backup");
    create(&cluster, &good);
    let bytes = std::fs::read(&good).unwrap();
    let write = |name: &str, content: &[u8]| {
        let path = folder.join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let changed = |at: usize, value: u8| {
        let mut changed = bytes.clone();
        changed[at] = value;
        changed
    };
    let middle = bytes.len() / 2;
    let cases = [
        (write("cut", &bytes[..middle]), "cut off"),
        (write("without-end", &bytes[..bytes.len() - 1]), "cut off"),
        (write("empty", b""), "not a backup"),
        (write("foreign", b"{\"value\": 1}\n"), "not a backup"),
        (write("altered", &changed(middle, bytes[middle] ^ 1)), "damaged"),
        (write("longer", &[&bytes[..], b"x"].concat()), "damaged"),
        (write("newer", &changed(15, 9)), "format 9"),
    ];
    let target = Cluster::new(3);
    for (path, reason) in &cases {
        let node = &target.nodes[0];
        for (code, stdout, stderr) in [verify(path), restore(path, node)] {
            assert_eq!((code, stdout.as_str()), (Some(3), ""), "{path:?}: {stderr}");
            assert!(stderr.starts_with("error: ") && stderr.contains(reason), "{path:?}: {stderr}");
            assert!(stderr.contains(&*path.to_string_lossy()), "{stderr}");
        }
        assert!(!node.data_dir.exists(), "{path:?} touched the data directory");
        let (code, _, stderr) = finish(client(&cluster).args(["backup", "verify"]).arg(path));
        assert_eq!(code, Some(1), "{path:?}: {stderr}");
    }
    let absent = folder.join("absent");
    assert_eq!(verify(&absent).0, Some(2));
    assert_eq!(restore(&absent, &target.nodes[0]).0, Some(2));
    assert_eq!(finish(client(&cluster).args(["backup", "verify"]).arg(&absent)).0, Some(2));

    // A directory that is in use or holds something is not touched either.
    let mut other = Node::new(1, target.nodes[0].ports.clone(), folder, String::new());
    other.initial_cluster.clone_from(&target.nodes[0].initial_cluster);
    assert_eq!(restore(&good, &other).0, Some(3), "{:?} is the running node's", other.data_dir);
    let node = &target.nodes[0];
    std::fs::create_dir(&node.data_dir).unwrap();
    std::fs::write(node.data_dir.join("precious"), "text").unwrap();
    let (code, _, stderr) = restore(&good, node);
    assert_eq!(code, Some(3), "{stderr}");
    assert!(stderr.contains("not empty"), "{stderr}");
    assert_eq!(std::fs::read(node.data_dir.join("precious")).unwrap(), b"text");
    assert_eq!(std::fs::read_dir(&node.data_dir).unwrap().count(), 1);
}

fn recover(data_dir: &Path, more: &[&str]) -> (Option<i32>, String, String) {
    let data_dir = format!("--data-dir={}", data_dir.display());
    finish(program().args(["recover", &data_dir]).args(more))
}

#[test]
fn what_the_last_node_of_a_lost_majority_holds_becomes_a_new_cluster() {
    let mut old = Cluster::started(3);
    old.leader();
    let addresses: Vec<_> = old.nodes.iter().map(|node| node.ports.http).collect();
    let load = Load::start(&addresses);
    load.wait_for_more(100);
    old.nodes.iter_mut().for_each(Node::kill);
    let writes = load.stop();
    // The one that knows most, by the rule that the report gives, is the one that is left: it was in every majority that
    // counts.
    let known = |node: &Node| {
        let (code, stdout, stderr) = recover(&node.data_dir, &[]);
        assert_eq!(code, Some(0), "{stderr}");
        let line = stdout.lines().find_map(|line| line.strip_prefix("last")).unwrap().to_owned();
        let numbers: Vec<u64> =
            line.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect();
        (numbers[1], numbers[0])
    };
    let survivor = (0..3).max_by_key(|n| known(&old.nodes[*n])).unwrap();
    for other in (0..3).filter(|other| *other != survivor) {
        std::fs::remove_dir_all(&old.nodes[other].data_dir).unwrap();
    }
    let id = {
        let (code, stdout, stderr) = recover(&old.nodes[survivor].data_dir, &[]);
        assert_eq!(code, Some(0), "{stderr}");
        for word in ["MAY BE LOST", "MAY APPEAR", "Nothing was written", "committed"] {
            assert!(stdout.contains(word), "{word} is not in\n{stdout}");
        }
        let line = stdout.lines().find_map(|line| line.strip_prefix("cluster")).unwrap();
        line.trim().to_owned()
    };
    let file = old.folder.path().join("saved.backup");
    let output = format!("--output={}", file.display());
    assert_eq!(recover(&old.nodes[survivor].data_dir, &[&output]).0, Some(0));
    assert!(!file.exists(), "nothing is written without --yes");
    let (code, stdout, stderr) = recover(&old.nodes[survivor].data_dir, &[&output, "--yes"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("wrote "), "{stdout}");
    let again = recover(&old.nodes[survivor].data_dir, &[&output, "--yes"]);
    assert_eq!(again.0, Some(2), "nothing is overwritten: {}", again.2);
    let summary = llm_config_archive::verify(&file).unwrap();
    assert_eq!(summary.manifest.cluster_id, id);

    let new = restored(&file);
    assert!(cluster_ids(&new).iter().all(|new| *new != id));
    for node in &new.nodes {
        for (key, version, _, value) in &writes {
            let reply = node.get(&format!("/api/v1/configs/test/{key}?version={version}")).unwrap();
            assert_eq!(reply.status, 200, "node {}: {key} {version} is lost", node.id);
            assert_eq!(reply.json()["value"], *value, "node {}: {key} {version}", node.id);
        }
    }
    new.nodes[0].put_surely("after", "1");
}

#[test]
fn a_recovery_touches_no_running_node_and_no_other_directory() {
    let cluster = Cluster::started(1);
    let (code, _, stderr) = recover(&cluster.nodes[0].data_dir, &[]);
    assert_eq!(code, Some(3), "{stderr}");
    assert!(stderr.contains("another process"), "{stderr}");
    let absent = cluster.folder.path().join("absent");
    assert_eq!(recover(&absent, &[]).0, Some(3));
    assert!(!absent.exists());
}
