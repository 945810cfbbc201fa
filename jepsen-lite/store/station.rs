//! A place for one node: a network namespace with nothing but a loopback, a folder in memory, and the server in it.
//!
//! As in a lab, everything is named after the run, written to the run file before it is made, and taken away with it.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use crate::lab::run_file::{self, Made, RunFile};
use crate::lab::shim::{Page, Shim};
use crate::lab::{Target, command, control, net, process::Server};

const HTTP: u16 = 8080;
const METRICS: u16 = 9090;
const GRPC: u16 = 50051;
const RAFT: u16 = 50061;
/// How long a node may take until it serves: it replays its log, and elects itself.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

/// The number of the node.
pub const NODE: u64 = 1;

/// What became of a node that was started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Began {
    /// It serves.
    Serves,
    /// It ended.
    Ended(ExitStatus),
    /// Neither, for too long.
    Hangs,
}

/// A place for one node.
#[derive(Debug)]
pub struct Station {
    /// What is made in it is written down first.
    pub list: RunFile,
    namespace: String,
    folder: PathBuf,
    program: PathBuf,
    log: PathBuf,
    server: Option<Server>,
    /// A library that is loaded into the server, and the page that tells it what to do.
    shim: Option<(PathBuf, PathBuf)>,
}

impl Station {
    /// Makes the place, and moves the calling thread into its network.
    ///
    /// # Errors
    /// When the machine does not let it. What was made already is taken away.
    pub fn create(run: &str, program: &Path, log: &Path) -> anyhow::Result<Self> {
        let mut list = RunFile::create(run)?;
        let made = Self::create_in(run, &mut list);
        let (folder, namespace) = match made {
            Ok(made) => made,
            Err(error) => match list.undo() {
                Ok(()) => return Err(error),
                Err(left) => return Err(error.context(format!("and some of it stays: {left:#}"))),
            },
        };
        let (program, log) = (program.to_path_buf(), log.to_path_buf());
        Ok(Self { list, namespace, folder, program, log, server: None, shim: None })
    }

    fn create_in(run: &str, list: &mut RunFile) -> anyhow::Result<(PathBuf, String)> {
        let folder = Path::new(run_file::DIR).join(run);
        list.add(Made::Folder(folder.clone()))?;
        fs::create_dir(&folder)?;
        list.add(Made::Mount(folder.clone()))?;
        let target = folder.to_string_lossy();
        command::run("mount", ["-t", "tmpfs", "-o", "size=2g,mode=0700", run, &target])?;
        let namespace = format!("{run}-s");
        list.add(Made::Namespace(namespace.clone()))?;
        command::line(&format!("ip netns add {namespace}"))?;
        command::line(&format!("ip -n {namespace} link set lo up"))?;
        net::enter(&namespace)?;
        Ok((folder, namespace))
    }

    /// A folder in memory, which goes with the station.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where clients find the node.
    #[must_use]
    pub fn target() -> Target {
        Target { id: NODE, grpc: address(GRPC) }
    }

    /// From its next start on, the server has a library in it that can break its syncs.
    ///
    /// # Errors
    /// When there is no compiler.
    pub fn load_shim(&mut self) -> anyhow::Result<Page> {
        let shim = Shim::build(&self.folder)?;
        let page = Page::create(self.folder.join("shim.page"))?;
        self.shim = Some((shim.library().to_path_buf(), page.path().to_path_buf()));
        Ok(page)
    }

    /// Where what the server says goes, from its next start on.
    pub fn set_log(&mut self, log: PathBuf) {
        self.log = log;
    }

    /// What the server said.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The last lines of what the server said.
    #[must_use]
    pub fn log_tail(&self, lines: usize) -> String {
        let text = self.log();
        let all: Vec<_> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// Starts the server on a data directory.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&mut self, data: &Path, options: &[&str]) -> anyhow::Result<()> {
        ensure!(self.server.is_none(), "the node runs already");
        let mut command = Command::new(&self.program);
        command.env_clear().arg("serve").args(["--node-id", &NODE.to_string()]);
        command.arg("--data-dir").arg(data);
        for (flag, port) in [
            ("--http-addr", HTTP),
            ("--metrics-addr", METRICS),
            ("--grpc-addr", GRPC),
            ("--raft-addr", RAFT),
        ] {
            command.args([flag, &address(port).to_string()]);
        }
        command.args(["--initial-cluster", &format!("{NODE}={}", address(RAFT))]);
        command.args(["--auth", "off", "--backup-interval", "0"]).args(options);
        if let Some((library, page)) = &self.shim {
            command.env("LD_PRELOAD", library).env("LCJL_SHIM", page);
        }
        let server = Server::start(command, &self.namespace, &self.log)?;
        self.list.add(Made::Process(server.identity()))?;
        self.server = Some(server);
        Ok(())
    }

    /// Waits until the node serves or has ended.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn wait_began(&mut self) -> anyhow::Result<Began> {
        let deadline = Instant::now() + READY_TIMEOUT;
        while Instant::now() < deadline {
            if let Some(status) = self.ended()? {
                return Ok(Began::Ended(status));
            }
            if control::is_ready(address(HTTP)) {
                return Ok(Began::Serves);
            }
            thread::sleep(POLL);
        }
        Ok(Began::Hangs)
    }

    /// How the server ended, if it has by itself.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        let Some(server) = &mut self.server else { bail!("the node was not started") };
        let ended = server.ended()?;
        if ended.is_some() {
            server.join_log();
            self.server = None;
        }
        Ok(ended)
    }

    /// Asks the server to stop, and does not wait for it.
    ///
    /// # Errors
    /// When it is gone.
    pub fn begin_stop(&self) -> anyhow::Result<()> {
        let server = self.server.as_ref().context("the node does not run")?;
        server.signal(rustix::process::Signal::TERM)
    }

    /// Asks the server to stop, and waits for it.
    ///
    /// # Errors
    /// When it does not.
    pub fn stop(&mut self) -> anyhow::Result<ExitStatus> {
        let mut server = self.server.take().context("the node does not run")?;
        let status = server.stop()?;
        server.join_log();
        Ok(status)
    }

    /// Ends the server the hard way, if it runs.
    ///
    /// # Errors
    /// When it does not go.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        match self.server.take() {
            Some(mut server) => server.kill().map(drop),
            None => Ok(()),
        }
    }

    /// Asks the node itself for something that changes no entry, such as a compaction.
    ///
    /// # Errors
    /// When it is refused, or no answer comes.
    pub fn post(path: &str) -> anyhow::Result<()> {
        control::change(address(HTTP), "POST", path, Some(&Value::Object(serde_json::Map::new())))
    }
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

impl Drop for Station {
    fn drop(&mut self) {
        self.server = None;
        if let Err(error) = self.list.undo() {
            eprintln!(
                "not everything could be taken away; `jepsen-lite clean` tries again: {error:#}"
            );
        }
    }
}
