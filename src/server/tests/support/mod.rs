//! Real processes of `llm-config-manager` for tests: start, ask over HTTP, kill, restart.
//!
//! Each node has a loopback address of its own, so tests run side by side without sharing ports.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

pub const BINARY: &str = env!("CARGO_BIN_EXE_llm-config-manager");
/// Elections take about a second; the rest is room for a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(25);

/// Waits until `condition` gives a value, or fails with what was waited for.
pub fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain: {what}");
        thread::sleep(POLL);
    }
}

/// An address on loopback that no other node of any test uses.
pub fn own_ip() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    // 256 for each process number, from 127.64.0.0 on; a program that takes more goes on in the next one's.
    let first = (std::process::id() & 0x7fff) << 8;
    let offset = (first + NEXT.fetch_add(1, Ordering::Relaxed)) & 0x7f_ffff;
    Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 64, 0, 0)) + offset)
}

pub fn free_port(ip: Ipv4Addr) -> SocketAddr {
    TcpListener::bind((ip, 0)).unwrap().local_addr().unwrap()
}

/// The program with none of the caller's own settings.
pub fn program() -> Command {
    program_as(BINARY)
}

fn program_as(program: &str) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("LLM_CONFIG_") {
            command.env_remove(name);
        }
    }
    command
}

/// Runs the program to its end and gives code, stdout and stderr.
pub fn run(args: &[&str]) -> (Option<i32>, String, String) {
    finish(program().args(args))
}

pub fn finish(command: &mut Command) -> (Option<i32>, String, String) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[derive(Debug, Clone)]
pub struct Ports {
    pub http: SocketAddr,
    pub metrics: SocketAddr,
    pub grpc: SocketAddr,
    pub raft: SocketAddr,
}

impl Ports {
    pub fn free(ip: Ipv4Addr) -> Self {
        // Held until all four are known, so that they differ.
        let held: Vec<_> = (0..4).map(|_| TcpListener::bind((ip, 0)).unwrap()).collect();
        let at = |n: usize| held[n].local_addr().unwrap();
        Self { http: at(0), metrics: at(1), grpc: at(2), raft: at(3) }
    }

    pub fn args(&self) -> Vec<String> {
        [("http", self.http), ("metrics", self.metrics), ("grpc", self.grpc), ("raft", self.raft)]
            .iter()
            .map(|(name, address)| format!("--{name}-addr={address}"))
            .collect()
    }
}

/// One node: its settings stay, its process comes and goes.
#[derive(Debug)]
pub struct Node {
    pub id: u64,
    pub ports: Ports,
    pub data_dir: PathBuf,
    pub initial_cluster: String,
    /// Where a node that founds nothing asks for its cluster; empty on a founder.
    pub join: String,
    /// Environment variables of the next start.
    pub env: Vec<(&'static str, String)>,
    /// Further options of `serve`.
    pub extra_args: Vec<String>,
    /// Callers have to say who they are.
    pub auth: bool,
    /// Larger files cannot be written, as on a full disk.
    pub file_bytes_max: Option<u64>,
    log: PathBuf,
    child: Option<Child>,
}

impl Node {
    pub fn new(id: u64, ports: Ports, folder: &Path, initial_cluster: String) -> Self {
        let data_dir = folder.join(format!("node-{id}"));
        Self {
            id,
            ports,
            data_dir,
            initial_cluster,
            join: String::new(),
            env: Vec::new(),
            extra_args: Vec::new(),
            auth: false,
            file_bytes_max: None,
            log: folder.join(format!("node-{id}.log")),
            child: None,
        }
    }

    pub fn command(&self) -> Command {
        let mut command = match self.file_bytes_max {
            // An ignored signal leaves the error of the write; the limit counts in units of 512 bytes.
            Some(bytes) => {
                let mut shell = program_as("sh");
                let limit = format!("trap '' XFSZ; ulimit -f {}; exec \"$0\" \"$@\"", bytes / 512);
                shell.args(["-c", &limit, BINARY]);
                shell
            }
            None => program(),
        };
        command
            .args(["serve", if self.auth { "--auth=on" } else { "--auth=off" }])
            .arg(format!("--node-id={}", self.id))
            .arg(format!("--data-dir={}", self.data_dir.display()))
            .args(self.ports.args())
            .args(&self.extra_args)
            .envs(self.env.iter().map(|(name, value)| (name, value)));
        match self.join.as_str() {
            "" => command.arg(format!("--initial-cluster={}", self.initial_cluster)),
            join => command.arg(format!("--join={join}")),
        };
        command
    }

    /// A node with an empty disk and a number of its own that looks for its cluster at these addresses.
    pub fn joining(id: u64, folder: &Path, cluster: &[Node]) -> Self {
        let urls: Vec<_> =
            cluster.iter().map(|node| format!("http://{}", node.ports.http)).collect();
        let mut node = Self::new(id, Ports::free(own_ip()), folder, String::new());
        node.join = urls.join(",");
        node
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    pub fn start(&mut self) {
        let log = File::options().create(true).append(true).open(&self.log).unwrap();
        self.start_with_stderr(log.into());
    }

    pub fn start_with_stderr(&mut self, stderr: Stdio) {
        assert!(self.child.is_none(), "node {} runs", self.id);
        self.child = Some(
            self.command()
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(stderr)
                .spawn()
                .unwrap(),
        );
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.as_ref().unwrap().id();
        // The shell's own `kill`: minimal systems have no other.
        let sent =
            Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).status().unwrap();
        assert!(sent.success());
    }

    pub fn wait_exit(&mut self) -> ExitStatus {
        let mut child = self.child.take().unwrap();
        let log = self.log.clone();
        let id = self.id;
        wait_for(&format!("node {id} ends; its log is {}", log.display()), || {
            child.try_wait().unwrap()
        })
    }

    pub fn running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// What the node itself says about a member: `role`, `reachable`, …; `None` when it knows no such member.
    pub fn member(&self, id: u64) -> Option<Value> {
        let members = self.cluster()?["members"].clone();
        members.as_array()?.iter().find(|member| member["id"] == id).cloned()
    }

    pub fn get(&self, path: &str) -> Option<Reply> {
        http(self.ports.http, "GET", path, None)
    }

    pub fn put(&self, key: &str, value: &str) -> Option<Reply> {
        http(
            self.ports.http,
            "PUT",
            &format!("/api/v1/configs/test/{key}"),
            Some(&format!("{{\"value\":{value}}}")),
        )
    }

    /// Writes, again and again while the cluster has no leader. A repeated write of the same value is harmless here.
    pub fn put_surely(&self, key: &str, value: &str) {
        wait_for(
            &format!("node {} takes a write of {key}; its log:\n{}", self.id, self.log()),
            || self.put(key, value).filter(|reply| matches!(reply.status, 200 | 201)),
        );
    }

    /// The value, read with a confirmation from the leader.
    pub fn read(&self, key: &str) -> Option<Value> {
        let reply = self.get(&format!("/api/v1/configs/test/{key}?consistency=linearizable"))?;
        if reply.status == 200 { Some(reply.json()["value"].clone()) } else { None }
    }

    pub fn cluster(&self) -> Option<Value> {
        self.get("/api/v1/cluster").filter(|reply| reply.status == 200).map(|reply| reply.json())
    }

    pub fn wait_ready(&mut self) {
        let id = self.id;
        wait_for(&format!("node {id} is ready"), || {
            assert!(self.running(), "node {id} ended:\n{}", self.log());
            self.get("/health/ready").filter(|reply| reply.status == 200)
        });
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // The process may be gone already; what counts is that nothing outlives the test.
            let _gone = child.kill();
            let _gone = child.wait();
        }
        if thread::panicking() {
            eprintln!("--- log of node {}\n{}", self.id, self.log());
        }
    }
}

/// Nodes with one founding list, in one folder that goes with them.
#[derive(Debug)]
pub struct Cluster {
    pub nodes: Vec<Node>,
    pub folder: tempfile::TempDir,
}

impl Cluster {
    pub fn new(size: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ports: Vec<_> = (1..=size).map(|id| (id, Ports::free(own_ip()))).collect();
        let list: Vec<_> = ports.iter().map(|(id, ports)| format!("{id}={}", ports.raft)).collect();
        let nodes = ports
            .into_iter()
            .map(|(id, ports)| Node::new(id, ports, folder.path(), list.join(",")))
            .collect();
        Self { nodes, folder }
    }

    pub fn started(size: u64) -> Self {
        let mut cluster = Self::new(size);
        cluster.nodes.iter_mut().for_each(Node::start);
        cluster.nodes.iter_mut().for_each(Node::wait_ready);
        cluster
    }

    /// Position of the node that the running nodes agree leads.
    pub fn leader(&mut self) -> usize {
        wait_for("the running nodes agree on a leader", || {
            let mut seen = Vec::new();
            for node in &mut self.nodes {
                if node.running() {
                    seen.push(node.cluster()?["leader_id"].as_u64()?);
                }
            }
            let leader = *seen.first()?;
            let place = self.nodes.iter().position(|node| node.id == leader)?;
            (seen.iter().all(|id| *id == leader) && self.nodes[place].running()).then_some(place)
        })
    }
}

#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {}", self.body))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }
}

/// One request on a connection of its own; `None` when the node cannot be reached or does not finish its answer.
pub fn http(address: SocketAddr, method: &str, path: &str, body: Option<&str>) -> Option<Reply> {
    http_with(address, method, path, &[], body)
}

/// The same with further header lines.
pub fn http_with(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[&str],
    body: Option<&str>,
) -> Option<Reply> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(15))).ok()?;
    stream.set_write_timeout(Some(Duration::from_secs(15))).ok()?;
    let body = body.unwrap_or_default();
    let headers: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-type: application/json\r\n\
         {headers}content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).ok()?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split_whitespace().nth(1)?.parse().ok()?;
    Some(Reply { status, head: head.to_owned(), body: body.to_owned() })
}

/// Whether nothing listens at the address.
pub fn refused(address: SocketAddr) -> bool {
    TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_err()
}
