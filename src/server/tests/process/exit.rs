//! How real processes end: signals, taken ports, data directories of others.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::support::{Cluster, Node, finish, refused, wait_for};
use serde_json::json;

#[test]
fn signals_stop_a_node_cleanly_and_it_starts_again() {
    let mut cluster = Cluster::started(1);
    cluster.nodes[0].put_surely("kept", "\"yes\"");
    for signal in ["TERM", "INT"] {
        let node = &mut cluster.nodes[0];
        node.signal(signal);
        assert_eq!(node.wait_exit().code(), Some(0), "SIG{signal}: {}", node.log());
        assert!(refused(node.ports.http) && refused(node.ports.raft));
        node.start();
        node.wait_ready();
        assert_eq!(node.read("kept"), Some(json!("yes")));
    }
}

#[test]
fn a_whole_cluster_stops_cleanly_at_once() {
    let mut cluster = Cluster::started(3);
    cluster.nodes.iter().for_each(|node| node.signal("TERM"));
    for node in &mut cluster.nodes {
        assert_eq!(node.wait_exit().code(), Some(0), "{}", node.log());
    }
}

#[test]
fn an_open_watch_does_not_hold_up_the_stop() {
    let mut cluster = Cluster::started(1);
    let node = &mut cluster.nodes[0];
    let mut watch = TcpStream::connect(node.ports.http).unwrap();
    watch.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    write!(watch, "GET /api/v1/watch HTTP/1.1\r\nhost: x\r\naccept: text/event-stream\r\n\r\n")
        .unwrap();
    let mut lines = BufReader::new(watch);
    let mut first = String::new();
    lines.read_line(&mut first).unwrap();
    assert!(first.starts_with("HTTP/1.1 200"), "{first}");
    let begun = Instant::now();
    node.signal("TERM");
    assert_eq!(node.wait_exit().code(), Some(0), "{}", node.log());
    // The drain alone may take 10 s; a watch that ends at once leaves it unused.
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    let mut rest = String::new();
    lines.read_to_string(&mut rest).unwrap();
}

#[test]
fn a_taken_port_is_named_with_its_flag() {
    let cluster = Cluster::new(1);
    let node = &cluster.nodes[0];
    let flags = [
        ("--http-addr", node.ports.http),
        ("--metrics-addr", node.ports.metrics),
        ("--grpc-addr", node.ports.grpc),
        ("--raft-addr", node.ports.raft),
    ];
    for (flag, address) in flags {
        let _taken = TcpListener::bind(address).unwrap();
        let (code, _, stderr) = finish(&mut node.command());
        assert_eq!(code, Some(1), "{stderr}");
        assert!(stderr.contains(&format!("error: {flag} {address}")), "{stderr}");
        assert!(!node.data_dir.exists(), "nothing is touched before the listeners are bound");
    }
}

#[test]
fn the_data_directory_of_another_node_is_refused() {
    let mut cluster = Cluster::started(1);
    cluster.nodes[0].signal("TERM");
    assert_eq!(cluster.nodes[0].wait_exit().code(), Some(0));
    let first = &cluster.nodes[0];
    let list = format!(
        "{},2={}",
        first.initial_cluster,
        crate::support::free_port(crate::support::own_ip())
    );
    let mut other = Node::new(2, first.ports.clone(), cluster.folder.path(), list);
    other.data_dir.clone_from(&first.data_dir);
    let (code, _, stderr) = finish(&mut other.command());
    assert_eq!(code, Some(3), "{stderr}");
    assert!(
        stderr.contains("error: ") && stderr.contains(&*first.data_dir.to_string_lossy()),
        "{stderr}"
    );
}

/// A node that ran, wrote and was stopped, and the newest write-ahead log of its Raft log.
fn stopped_node() -> (Cluster, PathBuf) {
    let mut cluster = Cluster::started(1);
    for number in 0..50 {
        cluster.nodes[0].put_surely(&format!("key-{number}"), "\"acknowledged\"");
    }
    cluster.nodes[0].signal("TERM");
    assert_eq!(cluster.nodes[0].wait_exit().code(), Some(0));
    let is_wal = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "log");
    let files = std::fs::read_dir(cluster.nodes[0].data_dir.join("log")).unwrap();
    let wal = files.map(|file| file.unwrap().path()).filter(is_wal).max().unwrap();
    (cluster, wal)
}

fn refused_data(node: &Node) -> String {
    let (code, _, stderr) = finish(&mut node.command());
    assert_eq!(code, Some(3), "{stderr}");
    assert!(
        stderr.contains("error: ") && stderr.contains(&*node.data_dir.to_string_lossy()),
        "{stderr}"
    );
    stderr
}

#[test]
fn a_damaged_log_is_refused() {
    let (cluster, wal) = stopped_node();
    let mut content = std::fs::read(&wal).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 1;
    std::fs::write(&wal, content).unwrap();
    let stderr = refused_data(&cluster.nodes[0]);
    assert!(stderr.to_lowercase().contains("corruption"), "{stderr}");
}

#[test]
fn a_log_that_lost_acknowledged_writes_is_refused() {
    let (cluster, wal) = stopped_node();
    std::fs::remove_file(wal).unwrap();
    let stderr = refused_data(&cluster.nodes[0]);
    assert!(stderr.contains("acknowledged data is missing"), "{stderr}");
}

#[test]
fn a_data_directory_in_use_is_refused() {
    let cluster = Cluster::started(1);
    let first = &cluster.nodes[0];
    let mut second = Cluster::new(1);
    second.nodes[0].data_dir.clone_from(&first.data_dir);
    let (code, _, stderr) = finish(&mut second.nodes[0].command());
    assert_eq!(code, Some(3), "{stderr}");
    assert!(stderr.contains(&*first.data_dir.to_string_lossy()), "{stderr}");
}

#[test]
fn a_node_without_data_and_without_a_founding_list_is_told_what_to_do() {
    let cluster = Cluster::new(1);
    let node = &cluster.nodes[0];
    let mut command = crate::support::program();
    command
        .args(["serve", "--auth=off", "--node-id=1"])
        .arg(format!("--data-dir={}", node.data_dir.display()))
        .args(node.ports.args());
    let (code, _, stderr) = finish(&mut command);
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("--initial-cluster"), "{stderr}");
}

fn members(node: &Node) -> Option<usize> {
    node.cluster().map(|cluster| cluster["members"].as_array().unwrap().len())
}

#[test]
fn a_new_node_pointed_at_a_cluster_with_another_founding_list_never_joins_it() {
    let founded = Cluster::started(1);
    founded.nodes[0].put_surely("mine", "1");
    let mut stray = Cluster::new(1);
    let node = &mut stray.nodes[0];
    node.id = 2;
    node.initial_cluster = format!("{},2={}", founded.nodes[0].initial_cluster, node.ports.raft);
    node.start();
    wait_for("the log says that the two lists differ", || {
        (founded.nodes[0].log() + &node.log()).contains("--initial-cluster").then_some(())
    });
    let health = wait_for("the stray node answers", || node.get("/health"));
    assert_eq!(health.status, 503, "{}", health.body);
    assert!(
        health.json()["checks"]["raft"].as_str().unwrap().contains("--initial-cluster"),
        "{}",
        health.body
    );
    assert_eq!(members(&founded.nodes[0]), Some(1));
    assert_eq!(founded.nodes[0].read("mine"), Some(json!(1)));
}

#[test]
fn a_node_of_one_cluster_pointed_at_another_stays_with_its_own() {
    let founded = Cluster::started(1);
    let mut other = Cluster::started(1);
    let node = &mut other.nodes[0];
    node.put_surely("own", "1");
    let own = node.cluster().unwrap()["cluster_id"].clone();
    node.signal("TERM");
    assert_eq!(node.wait_exit().code(), Some(0), "{}", node.log());
    // Both nodes are number 1, so a list that names the founded node in that place leads there.
    node.initial_cluster.clone_from(&founded.nodes[0].initial_cluster);
    node.start();
    node.wait_ready();
    assert_eq!(node.cluster().unwrap()["cluster_id"], own);
    assert_ne!(founded.nodes[0].cluster().unwrap()["cluster_id"], own);
    assert_eq!(node.read("own"), Some(json!(1)));
    assert_eq!(members(&founded.nodes[0]), Some(1));
}

#[test]
fn a_reader_of_the_log_that_stopped_reading_blocks_neither_service_nor_stop() {
    let mut cluster = Cluster::new(1);
    let (reader, writer) = std::io::pipe().unwrap();
    let mut filler = writer.try_clone().unwrap();
    // Fills the pipe and then waits in the system call, so that the pipe stays full; ends when the reader is dropped.
    let filling = std::thread::spawn(move || filler.write_all(&vec![b'x'; 8 << 20]));
    let node = &mut cluster.nodes[0];
    node.start_with_stderr(writer.into());
    node.wait_ready();
    node.put_surely("k", "1");
    node.signal("TERM");
    assert_eq!(node.wait_exit().code(), Some(0));
    drop(reader);
    assert!(filling.join().unwrap().is_err(), "the pipe was full to the end");
}
