//! Server processes of one system on free ports of the loopback interface, with their data in a temporary directory; they
//! and it are gone when the handle is dropped.

mod nodes;
mod replace;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::ValueEnum;
use serde::Serialize;
use tempfile::TempDir;

use crate::process::{self, Process};
use crate::servers::{self, Servers};
use crate::system::{Link, Reads, Status, System};

use nodes::{How, Node};

/// As many of each system, unless it is said.
pub const NODES: usize = 3;
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// One attempt to write or to read.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(5);

/// Which servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// LLM Config Manager.
    LlmConfig,
    /// etcd.
    Etcd,
    /// Empty ones.
    Floor,
}

impl Kind {
    /// The servers that a system is.
    #[must_use]
    pub fn of(system: System) -> Self {
        match system {
            System::LlmConfig | System::Sdk | System::Http => Self::LlmConfig,
            System::Etcd => Self::Etcd,
            System::Echo | System::EchoHttp => Self::Floor,
        }
    }

    /// What is asked of such servers to see whether they serve.
    #[must_use]
    pub fn system(self) -> System {
        match self {
            Self::LlmConfig => System::LlmConfig,
            Self::Etcd => System::Etcd,
            Self::Floor => System::Echo,
        }
    }
}

/// The programs of the servers, and where their data goes.
#[derive(Debug, Clone)]
pub struct Programs {
    /// LLM Config Manager's.
    pub server: PathBuf,
    /// etcd's, if it is wanted.
    pub etcd: Option<PathBuf>,
    /// Data directories are made below it.
    pub data: PathBuf,
}

impl Programs {
    fn of(&self, kind: Kind) -> anyhow::Result<PathBuf> {
        match kind {
            Kind::LlmConfig => Ok(self.server.clone()),
            Kind::Etcd => self.etcd.clone().context("where is etcd? Give its program by --etcd"),
            Kind::Floor => std::env::current_exe().context("this program has no name"),
        }
    }
}

/// A running cluster.
#[derive(Debug)]
pub struct Cluster {
    kind: Kind,
    program: PathBuf,
    nodes: Vec<Node>,
    /// How many places there have been, so that none is used twice.
    places: usize,
    dir: TempDir,
    /// What the servers are told beside who and where they are.
    extra: &'static [&'static str],
}

impl Cluster {
    /// Starts the nodes and waits until each of them takes a write.
    ///
    /// # Errors
    /// When a process cannot be started or stops, with the end of its log, or the cluster does not serve in time.
    pub async fn start(kind: Kind, programs: &Programs) -> anyhow::Result<Self> {
        Self::start_with(kind, programs, NODES, &[]).await
    }

    /// The same with so many nodes, whose servers are told this too.
    ///
    /// # Errors
    /// As above.
    pub async fn start_with(
        kind: Kind,
        programs: &Programs,
        size: usize,
        extra: &'static [&'static str],
    ) -> anyhow::Result<Self> {
        let program = programs.of(kind)?;
        let below = &programs.data;
        let dir = TempDir::with_prefix_in("llm-config-load-", below)
            .with_context(|| format!("cannot make a data directory below {}", below.display()))?;
        let ports = nodes::ports(size)?;
        let how = How::Founder(nodes::peers(kind, (1..).zip(ports.iter().copied())));
        let nodes = (1..).zip(ports);
        let nodes = nodes.map(|(id, ports)| Node { id, ports, how: how.clone(), process: None });
        let nodes = nodes.collect();
        let mut cluster = Self { kind, program, nodes, places: size, dir, extra };
        for node in 0..cluster.size() {
            cluster.spawn(node)?;
        }
        let deadline = Instant::now() + START_TIMEOUT;
        for node in 0..cluster.size() {
            cluster.write(node, deadline).await?;
        }
        Ok(cluster)
    }

    /// Which servers.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// How many nodes there are.
    #[must_use]
    pub fn size(&self) -> usize {
        self.nodes.len()
    }

    /// Their addresses for a system of this kind.
    #[must_use]
    pub fn addresses(&self, system: System) -> Vec<String> {
        self.nodes.iter().map(|node| node.ports.of(system).to_string()).collect()
    }

    /// The kind of file system that the data is on: an fsync into memory measures nothing.
    #[must_use]
    pub fn file_system(&self) -> String {
        process::file_system(self.dir.path()).unwrap_or_else(|| "an unknown file system".to_owned())
    }

    /// What the data of all nodes takes on the disk.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn disk_bytes(&self) -> anyhow::Result<u64> {
        process::disk_bytes(self.dir.path())
    }

    /// Where to read what the cluster costs.
    ///
    /// # Errors
    /// When a node does not run.
    pub fn servers(&self) -> anyhow::Result<Servers> {
        let pids: anyhow::Result<_> = self.nodes.iter().map(Node::pid).collect();
        let addresses = self.nodes.iter().map(|node| node.ports.metrics.to_string());
        let (names, metrics) = match self.kind {
            Kind::LlmConfig => (servers::LLM_CONFIG, addresses.collect()),
            Kind::Etcd => (servers::ETCD, addresses.collect()),
            Kind::Floor => (servers::LLM_CONFIG, Vec::new()),
        };
        Ok(Servers { pids: pids?, metrics, names })
    }

    /// What a node says of itself.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn status(&self, node: usize) -> anyhow::Result<Status> {
        self.link(node).await?.status().await
    }

    /// Which node leads; it is waited for.
    ///
    /// # Errors
    /// When none does in time.
    pub async fn leader(&self) -> anyhow::Result<usize> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            for node in 0..self.size() {
                if matches!(self.status(node).await, Ok(status) if status.leads) {
                    return Ok(node);
                }
            }
            anyhow::ensure!(Instant::now() < deadline, "no node leads");
            tokio::time::sleep(POLL).await;
        }
    }

    /// A connection to a node.
    ///
    /// # Errors
    /// When it does not take one.
    pub async fn link(&self, node: usize) -> anyhow::Result<Link> {
        let system = self.kind.system();
        Link::open(system, &self.node(node)?.ports.of(system).to_string()).await
    }

    /// Asks a node to stop, and waits until its process has ended.
    ///
    /// # Errors
    /// When it does not.
    pub async fn stop(&mut self, node: usize) -> anyhow::Result<()> {
        let kind = self.kind;
        let node = self.node_mut(node)?;
        let mut process = node.process.take().context("the node does not run")?;
        let status = process.stop().await?;
        // etcd raises the signal again when it is done.
        let clean = status.success() || kind == Kind::Etcd;
        anyhow::ensure!(clean, "a server stopped with {status}:\n{}", process.tail());
        Ok(())
    }

    /// Kills a node.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self, node: usize) -> anyhow::Result<()> {
        self.node_mut(node)?.process.take().context("the node does not run")?.kill()
    }

    /// Starts a node that does not run, and does not wait for it.
    ///
    /// # Errors
    /// When there is no such program.
    pub fn spawn(&mut self, node: usize) -> anyhow::Result<()> {
        let (kind, program, extra) = (self.kind, self.program.clone(), self.extra);
        let dir = self.dir.path().to_owned();
        let node = self.node_mut(node)?;
        let mut command = Command::new(program);
        command.env_clear();
        nodes::arguments(&mut command, kind, node, &dir);
        command.args(extra);
        node.process = Some(Process::start(&mut command, &log_of(&dir, node.id))?);
        Ok(())
    }

    /// Asks a node to stop, waits until its process has ended, starts it again, and waits until it is ready.
    ///
    /// # Errors
    /// When it does not end with code 0 or is not ready in time, with the end of its log.
    pub async fn restart(&mut self, node: usize) -> anyhow::Result<()> {
        self.stop(node).await?;
        self.spawn(node)?;
        let deadline = Instant::now() + START_TIMEOUT;
        let http = self.node(node)?.ports.http.to_string();
        while let Err(error) = servers::fetch(&http, "/health/ready").await {
            self.alive(node)?;
            anyhow::ensure!(Instant::now() < deadline, "a server does not come back: {error:#}");
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Waits until a node takes a write.
    ///
    /// # Errors
    /// When it does not in time, or stops.
    pub async fn write(&mut self, node: usize, deadline: Instant) -> anyhow::Result<()> {
        self.probe(node, deadline, async |link: Link| {
            link.caller().await?.put(0, Bytes::from_static(b"\"probe\"")).await
        })
        .await
    }

    /// Waits until a node answers with a key that it has.
    ///
    /// # Errors
    /// When it does not in time, or stops.
    pub async fn read(
        &mut self,
        node: usize,
        key: usize,
        reads: Reads,
        deadline: Instant,
    ) -> anyhow::Result<()> {
        self.probe(node, deadline, async |link: Link| {
            link.caller().await?.get(key, reads).await.map(drop)
        })
        .await
    }

    async fn probe(
        &mut self,
        node: usize,
        deadline: Instant,
        attempt: impl AsyncFn(Link) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        loop {
            let once = async { attempt(self.link(node).await?).await };
            let error = match tokio::time::timeout(PROBE_TIMEOUT, once).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => error,
                Err(_) => anyhow::anyhow!("no answer in {PROBE_TIMEOUT:?}"),
            };
            self.alive(node)?;
            if Instant::now() >= deadline {
                bail!("a node does not serve in time: {error:#}");
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn alive(&mut self, node: usize) -> anyhow::Result<()> {
        self.node_mut(node)?.process.as_mut().context("the node does not run")?.alive()
    }

    fn node(&self, node: usize) -> anyhow::Result<&Node> {
        self.nodes.get(node).context("no such node")
    }

    fn node_mut(&mut self, node: usize) -> anyhow::Result<&mut Node> {
        self.nodes.get_mut(node).context("no such node")
    }
}

fn log_of(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("node-{id}.log"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_server_that_stops_is_reported_with_its_log() {
        let dir = TempDir::new().unwrap();
        let server = dir.path().join("server");
        std::fs::write(&server, "#!/bin/sh\necho no such flag\nexit 2\n").unwrap();
        std::fs::set_permissions(&server, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .unwrap();
        let programs = Programs { server, etcd: None, data: dir.path().to_owned() };
        let error = Cluster::start(Kind::LlmConfig, &programs).await.unwrap_err().to_string();
        assert!(error.contains("no such flag"), "{error}");
        let error = Cluster::start(Kind::Etcd, &programs).await.unwrap_err().to_string();
        assert!(error.contains("--etcd"), "{error}");
    }
}
