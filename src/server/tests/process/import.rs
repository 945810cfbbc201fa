//! The main job on real input with real processes: an import survives the death of the leader, and what was imported
//! survives the death of all.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::support::{Cluster, Node};
use serde_json::{Map, Value};

/// Names another file to import instead of the sample.
const MODELS: &str = "LLM_CONFIG_TEST_MODELS";
/// The sample is imported this often, under other keys: a file of an ordinary size.
const COPIES: usize = 5;
const LIST: &str = "/api/v1/configs/llm%2Fmodels?env=base&limit=1000";

/// The command line client lies beside the server: `cargo test --workspace` and `make test` build both.
fn client() -> Command {
    let program = Path::new(env!("CARGO_BIN_EXE_llm-config-manager")).with_file_name("llm-config");
    assert!(program.exists(), "{} is missing: cargo build -p llm-config-cli", program.display());
    let mut command = Command::new(program);
    command.env_remove("LLM_CONFIG_ENDPOINTS");
    command
}

fn input(folder: &Path) -> (PathBuf, Map<String, Value>) {
    if let Ok(path) = std::env::var(MODELS) {
        let models = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        return (path.into(), models);
    }
    let sample: Map<String, Value> =
        serde_json::from_str(include_str!("data/llm-models-sample.json")).unwrap();
    let copies = (0..COPIES).flat_map(|copy| {
        sample.iter().map(move |(key, value)| (format!("copy-{copy}/{key}"), value.clone()))
    });
    let models: Map<String, Value> = copies.collect();
    let path = folder.join("models.json");
    std::fs::write(&path, serde_json::to_vec(&models).unwrap()).unwrap();
    (path, models)
}

fn endpoints(cluster: &Cluster) -> String {
    cluster.nodes.iter().map(|node| node.ports.grpc.to_string()).collect::<Vec<_>>().join(",")
}

fn import(cluster: &Cluster, file: &Path) -> Child {
    client()
        .args(["--endpoints", &endpoints(cluster), "--timeout", "60", "import"])
        .arg(file)
        .args(["--namespace", "llm/models", "--env", "base"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn revision(node: &Node) -> Option<u64> {
    node.get("/health")?.header("x-config-revision")?.parse().ok()
}

/// Every entry of the namespace with its version, as one node lists it.
fn listed(node: &Node, consistency: &str) -> BTreeMap<String, (u64, Value)> {
    let mut entries = BTreeMap::new();
    let mut cursor = String::new();
    loop {
        let reply = node.get(&format!("{LIST}&consistency={consistency}{cursor}")).unwrap();
        assert_eq!(reply.status, 200, "{}", reply.body);
        let page = reply.json();
        for item in page["items"].as_array().unwrap() {
            let key = item["key"].as_str().unwrap().to_owned();
            let twice =
                entries.insert(key, (item["version"].as_u64().unwrap(), item["value"].clone()));
            assert!(twice.is_none(), "{item} is listed twice");
        }
        match page["next_cursor"].as_str() {
            Some(next) if !next.is_empty() => cursor = format!("&cursor={next}"),
            _ => return entries,
        }
    }
}

fn assert_holds(node: &Node, consistency: &str, models: &Map<String, Value>) {
    let entries = listed(node, consistency);
    assert_eq!(entries.len(), models.len(), "node {} {consistency}", node.id);
    for (key, value) in models {
        let (version, stored) = &entries[key];
        assert_eq!(stored, value, "node {} {consistency}: {key}", node.id);
        assert_eq!(*version, 1, "node {} {consistency}: {key} was written more than once", node.id);
    }
}

/// Each entry by its own address, percent-encoded, from the node's cache and confirmed.
fn assert_gets(node: &Node, models: &Map<String, Value>) {
    for (key, value) in models.iter().step_by(37) {
        let encoded: String = key
            .bytes()
            .map(|byte| match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
                    char::from(byte).to_string()
                }
                other => format!("%{other:02X}"),
            })
            .collect();
        for consistency in ["cached", "linearizable"] {
            let path = format!("/api/v1/configs/llm%2Fmodels/{encoded}?consistency={consistency}");
            let reply = node.get(&path).unwrap();
            assert_eq!(reply.status, 200, "{path}: {}", reply.body);
            assert_eq!(reply.json()["value"], *value, "{path}");
        }
    }
}

#[test]
fn an_import_survives_the_death_of_the_leader_and_then_of_all_nodes() {
    let mut cluster = Cluster::started(3);
    let (file, models) = input(cluster.folder.path());
    let leader = cluster.leader();
    // It finds a leader that dies, or none, and goes on with the next one.
    let importing = import(&cluster, &file);
    cluster.nodes[leader].kill();
    let finished = importing.wait_with_output().unwrap();
    let words = String::from_utf8_lossy(&finished.stderr);
    assert!(finished.status.success(), "{words}");
    // All of it in one change: nobody ever saw a part.
    assert_eq!(revision(&cluster.nodes[(leader + 1) % 3]), Some(1), "{words}");

    cluster.nodes[leader].start();
    cluster.nodes[leader].wait_ready();
    for node in &cluster.nodes {
        assert_holds(node, "linearizable", &models);
        assert_holds(node, "cached", &models);
        assert_gets(node, &models);
    }

    cluster.nodes.iter_mut().for_each(Node::kill);
    cluster.nodes.iter_mut().for_each(Node::start);
    cluster.nodes.iter_mut().for_each(Node::wait_ready);
    for node in &cluster.nodes {
        assert_holds(node, "cached", &models);
        assert_holds(node, "linearizable", &models);
    }

    // Once more: everything is there already, so nothing is written.
    let before = revision(&cluster.nodes[0]);
    assert!(import(&cluster, &file).wait().unwrap().success());
    assert_eq!(revision(&cluster.nodes[0]), before);

    let exported = client()
        .args([
            "--endpoints",
            &endpoints(&cluster),
            "export",
            "--namespace",
            "llm/models",
            "--env",
            "base",
        ])
        .output()
        .unwrap();
    assert!(exported.status.success());
    let exported: Map<String, Value> = serde_json::from_slice(&exported.stdout).unwrap();
    assert_eq!(exported, models);
}
