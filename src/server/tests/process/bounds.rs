//! The memory of a real process under floods: large writes over HTTP and gRPC, watches that nobody reads, idle connections.
//!
//! Ever so many clients must not make a node use more than [`MEMORY_MAX`]; what does not fit is refused as overload.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::{Cluster, Node, http, wait_for};
use llm_config_proto::v1;
use llm_config_proto::v1::config_service_client::ConfigServiceClient;
use tonic::transport::Endpoint;
use tonic::{Code, Request};

/// High-water mark of the resident memory that a node may reach under any of these.
const MEMORY_MAX: u64 = 1 << 30;
const MIB: usize = 1 << 20;
const CLIENTS: usize = 192;
const WRITES_OF_EACH: usize = 6;

fn peak_bytes(node: &Node) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

fn assert_bounded(node: &Node, what: &str) {
    let peak = peak_bytes(node);
    eprintln!("{what}: {} MiB at the most", peak >> 20);
    assert!(peak < MEMORY_MAX, "{what}: {} MiB", peak >> 20);
}

fn still_serves(node: &Node) {
    node.put_surely("after", "1");
    assert_eq!(node.read("after"), Some(1.into()));
}

fn started() -> Cluster {
    let mut cluster = Cluster::new(1);
    cluster.nodes[0].extra_args.push("--storage-quota=0".to_owned());
    cluster.nodes[0].start();
    cluster.nodes[0].wait_ready();
    cluster
}

fn value() -> String {
    format!("\"{}\"", "v".repeat(MIB - 64))
}

fn write_flood(address: SocketAddr) -> (usize, usize) {
    let (taken, refused) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let body = Arc::new(format!("{{\"value\":{}}}", value()));
    let writers: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let (taken, refused) = (Arc::clone(&taken), Arc::clone(&refused));
            let body = Arc::clone(&body);
            thread::spawn(move || {
                for _ in 0..WRITES_OF_EACH {
                    let path = format!("/api/v1/configs/flood/key-{}", client % 16);
                    let reply = http(address, "PUT", &path, Some(&body));
                    match reply.map(|reply| reply.status) {
                        Some(200 | 201) => taken.fetch_add(1, Ordering::Relaxed),
                        Some(503) => refused.fetch_add(1, Ordering::Relaxed),
                        // Cut off while sending, or not answered in time.
                        None | Some(504 | 400) => 0,
                        Some(status) => panic!("{status}"),
                    };
                }
            })
        })
        .collect();
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    (taken.load(Ordering::Relaxed), refused.load(Ordering::Relaxed))
}

#[test]
fn a_flood_of_large_writes_over_http_stays_within_memory() {
    let cluster = started();
    let node = &cluster.nodes[0];
    let (taken, refused) = write_flood(node.ports.http);
    assert!(taken > 0, "nothing was taken, {refused} were refused");
    assert_bounded(node, "writes over HTTP");
    still_serves(node);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_large_writes_over_grpc_stays_within_memory() {
    let cluster = started();
    let node = &cluster.nodes[0];
    let value = bytes::Bytes::from(value());
    let endpoint = Endpoint::from_shared(format!("http://{}", node.ports.grpc)).unwrap();
    let mut calls = tokio::task::JoinSet::new();
    // Few connections with many streams each.
    for connection in 0..8 {
        let channel = endpoint.connect().await.unwrap();
        for stream in 0..CLIENTS / 8 {
            let mut client = ConfigServiceClient::new(channel.clone());
            let value = value.clone();
            calls.spawn(async move {
                let mut taken = 0;
                for _ in 0..WRITES_OF_EACH {
                    let mut request = Request::new(v1::SetRequest {
                        namespace: "flood".to_owned(),
                        key: format!("key-{connection}-{}", stream % 4),
                        value: value.clone(),
                        ..Default::default()
                    });
                    request.set_timeout(Duration::from_secs(20));
                    match client.set(request).await {
                        Ok(_) => taken += 1,
                        Err(status) => assert!(
                            matches!(
                                status.code(),
                                Code::ResourceExhausted
                                    | Code::DeadlineExceeded
                                    | Code::InvalidArgument
                                    | Code::Cancelled
                                    | Code::Unavailable
                            ),
                            "{status}"
                        ),
                    }
                }
                taken
            });
        }
    }
    let taken: usize = calls.join_all().await.into_iter().sum();
    assert!(taken > 0, "nothing was taken");
    assert_bounded(node, "writes over gRPC");
    still_serves(node);
}

#[test]
fn watches_that_nobody_reads_stay_within_memory_and_do_not_stop_the_others() {
    let cluster = started();
    let node = &cluster.nodes[0];
    let stuck: Vec<TcpStream> = (0..600)
        .map(|_| {
            let mut watch = TcpStream::connect(node.ports.http).unwrap();
            write!(watch, "GET /api/v1/watch HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
            // It stands; from here on nobody reads.
            let mut first = [0; 12];
            watch.read_exact(&mut first).unwrap();
            assert_eq!(&first, b"HTTP/1.1 200");
            watch
        })
        .collect();
    for round in 0..40 {
        node.put_surely(&format!("large-{}", round % 8), &value());
    }
    assert_bounded(node, "stuck watches");
    // One that reads gets everything from now on, although the stuck ones hold what they hold.
    let mut reader = TcpStream::connect(node.ports.http).unwrap();
    reader.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    write!(reader, "GET /api/v1/watch?prefix=seen HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let mut text = Vec::new();
    let mut part = [0; 4096];
    while !String::from_utf8_lossy(&text).contains("event: bookmark") {
        let read = reader.read(&mut part).unwrap();
        assert!(read > 0);
        text.extend_from_slice(&part[..read]);
    }
    node.put_surely("seen", "1");
    while !String::from_utf8_lossy(&text).contains("event: set") {
        let read = reader.read(&mut part).unwrap();
        assert!(read > 0, "the watch that reads was ended");
        text.extend_from_slice(&part[..read]);
    }
    drop(stuck);
    still_serves(node);
}

#[test]
fn idle_connections_stay_within_memory_and_keep_nobody_out() {
    let cluster = started();
    let node = &cluster.nodes[0];
    let open = |address: SocketAddr, bytes: &[u8]| {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(bytes).unwrap();
        stream
    };
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let mut idle = Vec::new();
    for _ in 0..1000 {
        idle.push(open(node.ports.http, b"GET / HTTP/1.1\r\nhost: x\r\n"));
        idle.push(open(node.ports.http, b""));
        idle.push(open(node.ports.grpc, preface));
    }
    wait_for("all are accepted", || {
        let page = http(node.ports.metrics, "GET", "/metrics", None)?.body;
        page.lines()
            .any(|line| line == "llm_config_connections{listener=\"grpc\"} 1000")
            .then_some(())
    });
    assert_bounded(node, "idle connections");
    still_serves(node);
    drop(idle);
}
