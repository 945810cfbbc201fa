//! Three server processes on free ports of the loopback interface, with their data in a temporary directory; they and
//! it are gone when the handle is dropped.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use llm_config_client::{Client, Options, v1};
use tempfile::TempDir;

use crate::servers::{self, Servers};

const NODES: usize = 3;
const START_TIMEOUT: Duration = Duration::from_secs(60);
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(10);
const LOG_TAIL_LINES: usize = 15;

/// A running cluster.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Node>,
    dir: TempDir,
}

#[derive(Debug)]
struct Node {
    server: PathBuf,
    id: usize,
    founders: String,
    process: Child,
    ports: Ports,
    log: PathBuf,
}

/// The listeners of one node.
#[derive(Debug, Clone, Copy)]
struct Ports {
    http: SocketAddr,
    metrics: SocketAddr,
    grpc: SocketAddr,
    raft: SocketAddr,
}

impl Cluster {
    /// Starts the nodes below `parent` and waits until a write succeeds.
    ///
    /// # Errors
    /// When a process cannot be started or stops, with the end of its log, or the cluster does not serve in time.
    pub async fn start(server: &Path, parent: &Path) -> anyhow::Result<Self> {
        let dir = TempDir::with_prefix_in("llm-config-load-", parent)
            .with_context(|| format!("cannot make a data directory below {}", parent.display()))?;
        let ports = free_ports()?;
        let founders: Vec<String> =
            (1..).zip(&ports).map(|(id, ports)| format!("{id}={}", ports.raft)).collect();
        let mut cluster = Self { nodes: Vec::with_capacity(NODES), dir };
        for (id, ports) in (1..).zip(ports) {
            let node = Node::start(server, cluster.dir.path(), id, ports, &founders.join(","))?;
            cluster.nodes.push(node);
        }
        cluster.serving().await?;
        Ok(cluster)
    }

    /// Client gRPC addresses.
    #[must_use]
    pub fn endpoints(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.ports.grpc.to_string()).collect()
    }

    /// How many nodes there are.
    #[must_use]
    pub fn size(&self) -> usize {
        self.nodes.len()
    }

    /// Asks a node to stop, waits until its process has ended, starts it again, and waits until it is ready.
    ///
    /// # Errors
    /// When it does not end with code 0 or is not ready in time, with the end of its log.
    pub async fn restart(&mut self, node: usize) -> anyhow::Result<()> {
        let node = self.nodes.get_mut(node).context("no such node")?;
        let deadline = Instant::now() + START_TIMEOUT;
        let kill = format!("kill -TERM {}", node.process.id());
        anyhow::ensure!(Command::new("sh").args(["-c", &kill]).status()?.success(), "{kill}");
        let status = loop {
            match node.process.try_wait()? {
                Some(status) => break status,
                None if Instant::now() >= deadline => bail!("a server does not stop"),
                None => tokio::time::sleep(POLL).await,
            }
        };
        if !status.success() {
            bail!("a server stopped with {status}; its log ends with:\n{}", tail(&node.log));
        }
        node.process = spawn(&node.server, self.dir.path(), node.id, node.ports, &node.founders)?;
        let http = node.ports.http.to_string();
        while let Err(error) = servers::fetch(&http, "/health/ready").await {
            if let Some(status) = node.process.try_wait()? {
                bail!("a server stopped ({status}); its log ends with:\n{}", tail(&node.log));
            }
            anyhow::ensure!(Instant::now() < deadline, "a server does not come back: {error:#}");
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Where to read what the cluster costs.
    #[must_use]
    pub fn servers(&self) -> Servers {
        Servers {
            pids: self
                .nodes
                .iter()
                .filter_map(|node| i32::try_from(node.process.id()).ok())
                .collect(),
            metrics: self.nodes.iter().map(|node| node.ports.metrics.to_string()).collect(),
        }
    }

    /// The kind of file system that the data is on: an fsync into memory measures nothing.
    #[must_use]
    pub fn file_system(&self) -> String {
        file_system(self.dir.path()).unwrap_or_else(|| "an unknown file system".to_owned())
    }

    async fn serving(&mut self) -> anyhow::Result<()> {
        let options = Options::default().timeout(PROBE_TIMEOUT);
        let client = Client::with_options(self.endpoints(), options)?;
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            let probe = v1::SetRequest {
                namespace: "bench/start".into(),
                key: "probe".into(),
                value: "true".into(),
                ..Default::default()
            };
            let Err(error) = client.set(probe).await else {
                return Ok(());
            };
            for node in &mut self.nodes {
                if let Some(status) = node.process.try_wait()? {
                    bail!("a server stopped ({status}); its log ends with:\n{}", tail(&node.log));
                }
            }
            if Instant::now() >= deadline {
                bail!("the cluster does not serve after {START_TIMEOUT:?}: {error}");
            }
        }
    }
}

impl Node {
    fn start(
        server: &Path,
        dir: &Path,
        id: usize,
        ports: Ports,
        founders: &str,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            server: server.to_owned(),
            id,
            founders: founders.to_owned(),
            process: spawn(server, dir, id, ports, founders)?,
            ports,
            log: log_of(dir, id),
        })
    }
}

fn log_of(dir: &Path, id: usize) -> PathBuf {
    dir.join(format!("node-{id}.log"))
}

fn spawn(
    server: &Path,
    dir: &Path,
    id: usize,
    ports: Ports,
    founders: &str,
) -> anyhow::Result<Child> {
    let output = File::options().create(true).append(true).open(log_of(dir, id))?;
    Command::new(server)
        .arg("serve")
        .args(["--node-id", &id.to_string()])
        .arg("--data-dir")
        .arg(dir.join(format!("node-{id}")))
        .args(["--http-addr", &ports.http.to_string()])
        .args(["--metrics-addr", &ports.metrics.to_string()])
        .args(["--grpc-addr", &ports.grpc.to_string()])
        .args(["--raft-addr", &ports.raft.to_string()])
        .args(["--initial-cluster", founders])
        .args(["--auth", "off"])
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()
        .with_context(|| format!("cannot start {}", server.display()))
}

impl Drop for Node {
    fn drop(&mut self) {
        // Its data goes too, so there is nothing to flush. Both calls fail only for a process that is already gone.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Ports that were free a moment ago. All are held until all are known, so that no two are the same.
fn free_ports() -> anyhow::Result<Vec<Ports>> {
    let mut held = Vec::new();
    let mut free = || -> anyhow::Result<SocketAddr> {
        let listener = TcpListener::bind("127.0.0.1:0").context("no free port")?;
        let address = listener.local_addr()?;
        held.push(listener);
        Ok(address)
    };
    (0..NODES)
        .map(|_| Ok(Ports { http: free()?, metrics: free()?, grpc: free()?, raft: free()? }))
        .collect()
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(LOG_TAIL_LINES)..).unwrap_or_default().join("\n")
}

fn file_system(path: &Path) -> Option<String> {
    let path = path.canonicalize().ok()?;
    let mounts = procfs::process::Process::myself().ok()?.mountinfo().ok()?;
    mounts
        .into_iter()
        .filter(|mount| path.starts_with(&mount.mount_point))
        .max_by_key(|mount| mount.mount_point.as_os_str().len())
        .map(|mount| mount.fs_type)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn ports_are_distinct() {
        let ports = free_ports().unwrap();
        let all: HashSet<SocketAddr> =
            ports.iter().flat_map(|p| [p.http, p.metrics, p.grpc, p.raft]).collect();
        assert_eq!((ports.len(), all.len()), (NODES, NODES * 4));
    }

    #[test]
    fn the_file_system_of_proc_is_known() {
        assert_eq!(file_system(Path::new("/proc")).as_deref(), Some("proc"));
    }

    #[tokio::test]
    async fn a_server_that_stops_is_reported_with_its_log() {
        let dir = TempDir::new().unwrap();
        let server = dir.path().join("server");
        std::fs::write(&server, "#!/bin/sh\necho no such flag\nexit 2\n").unwrap();
        std::fs::set_permissions(&server, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .unwrap();
        let error = Cluster::start(&server, dir.path()).await.unwrap_err().to_string();
        assert!(error.contains("no such flag"), "{error}");
    }
}
