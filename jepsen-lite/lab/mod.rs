//! A cluster to break: real servers, each in a network namespace and on a disk of its own.
//!
//! Everything is named after the run, written to the run file before it is made, and taken away when the lab is dropped.

pub mod ballast;
pub mod command;
pub mod control;
pub mod disk;
pub mod doctor;
pub mod group;
pub mod leak;
pub mod net;
pub mod process;
pub mod run_file;
pub mod shim;
pub mod wire;

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

use control::View;
use disk::{Disk, Unsynced};
use group::Group;
use leak::Needles;
use net::{Network, Port};
use process::Server;
use run_file::{Made, RunFile};
use shim::{Page, Shim};

const HTTP: u16 = 8080;
const METRICS: u16 = 9090;
const GRPC: u16 = 50051;
/// The port on which nodes talk to each other.
pub const RAFT: u16 = 50061;
/// The size of a node's disk. The file that it is has holes where nothing was written.
const DISK_MEBIBYTES: u64 = 384;
/// What a node keeps free of its disk; the default is made for real disks.
const DISK_RESERVE: &str = "32MiB";
/// Log entries between two snapshots, where there are to be many: builds for tests take notice of it.
const SNAPSHOT_ENTRIES: (&str, &str) = ("LLM_CONFIG_TEST_SNAPSHOT_ENTRIES", "300");
/// The token that the cluster is founded with. It opens nothing else, and the lab's network leads nowhere.
pub const ADMINISTRATOR: &str = "lcjl-administrator-of-a-cluster-that-nobody-else-reaches";
const ADMINISTRATOR_FILE: &str = "administrator";
const MASTER_KEY_FILE: &str = "master-key";
/// What its secrets are sealed under in the end.
const MASTER_KEY: &str = "bGNqbCBtYXN0ZXIga2V5IG9mIGEgdGVzdCBjbHVzdGU=";
const POLL: Duration = Duration::from_millis(50);
/// The exit code of a server that does not start on what it finds on its disk.
pub const REFUSED: i32 = 3;
/// How long a fault that is over may still end a node: what failed is noticed, the node drains and closes its files.
const RECOVER: Duration = Duration::from_secs(20);

/// Which lab is wanted.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The name of the run, with which all names begin.
    pub run: String,
    /// Nodes that found the cluster.
    pub founders: u8,
    /// Places for nodes that join later.
    pub spares: u8,
    /// The server program.
    pub server: PathBuf,
    /// Where logs go.
    pub out: PathBuf,
    /// Whether servers are started with the shim.
    pub shim: bool,
    /// Whether servers are put into control groups.
    pub groups: bool,
    /// What servers find in their environment.
    pub environment: Vec<(&'static str, String)>,
    /// Whether servers make snapshots all the time, and forget the log behind them.
    pub snapshots: bool,
}

/// A node that clients may talk to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// Its number in the cluster.
    pub id: u64,
    /// Its address for gRPC clients.
    pub grpc: SocketAddr,
}

/// The nodes that clients may talk to, as the lab last said.
#[derive(Debug, Clone, Default)]
pub struct Targets(Arc<RwLock<Vec<Target>>>);

impl Targets {
    /// All of them now.
    #[must_use]
    pub fn now(&self) -> Vec<Target> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, targets: Vec<Target>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = targets;
    }
}

/// What a node is meant to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duty {
    /// Run; if it ends, it crashed.
    Run,
    /// Run or end: a fault takes from it what it cannot do without.
    MayEnd,
    /// Run; if it ends before this time, that is still the fault's doing, and it is started again as its supervisor would.
    Recover(Instant),
    /// Nothing: it was ended on purpose.
    Rest,
}

/// One place on the bridge, and the node that lives there.
#[derive(Debug)]
pub struct Node {
    /// The number of the place.
    pub place: u8,
    /// The number of the node in the cluster; another one after each wipe.
    pub id: u64,
    /// Its disk.
    pub disk: Disk,
    /// Its control groups, if the run needs them.
    pub group: Option<Group>,
    /// Its page of the shim, if the run needs one.
    pub page: Option<Page>,
    /// Its process, while it has one.
    pub server: Option<Server>,
    /// Whether it is in the cluster, as far as the lab has seen to it.
    pub member: bool,
    /// What it is meant to do.
    pub duty: Duty,
    /// How its last server ended by itself.
    pub ended: Option<ExitStatus>,
    /// Its disk was damaged and it serves nevertheless. It may stop when it meets the damage, and is replaced in the end.
    pub suspect: bool,
    log: PathBuf,
}

impl Node {
    fn address(&self, port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(Port::Node(self.place).address()), port)
    }

    /// Where it serves HTTP.
    #[must_use]
    pub fn http(&self) -> SocketAddr {
        self.address(HTTP)
    }

    /// Where it serves gRPC clients.
    #[must_use]
    pub fn grpc(&self) -> SocketAddr {
        self.address(GRPC)
    }

    /// Where it shows its metrics.
    #[must_use]
    pub fn metrics(&self) -> SocketAddr {
        self.address(METRICS)
    }

    /// Where other nodes reach it.
    #[must_use]
    pub fn raft(&self) -> SocketAddr {
        self.address(RAFT)
    }

    /// The folder that it stores everything in.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.disk.path().join("data")
    }

    /// What it wrote to its standard error since it was last started.
    #[must_use]
    pub fn log_tail(&self, lines: usize) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let all: Vec<_> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

/// The end of a server that should have gone on.
#[derive(Debug, Clone)]
pub struct Crash {
    /// The node.
    pub id: u64,
    /// How it ended.
    pub status: ExitStatus,
    /// The last lines of its log.
    pub log: String,
}

/// The cluster.
#[derive(Debug)]
pub struct Lab {
    settings: Settings,
    list: RunFile,
    /// The network.
    pub network: Network,
    /// The places, members or not.
    pub nodes: Vec<Node>,
    /// Whom clients may talk to.
    pub targets: Targets,
    /// Servers that ended without being told to.
    pub crashes: Vec<Crash>,
    /// Nodes that lost what was not synced, and how often all members did at once.
    pub power_cuts: [u64; 2],
    shim: Option<Shim>,
    next_id: u64,
}

impl Lab {
    /// Makes the network and the disks; no server runs yet.
    ///
    /// # Errors
    /// When the machine does not let it. What was made already is taken away.
    pub fn create(settings: Settings) -> anyhow::Result<Self> {
        let mut list = RunFile::create(&settings.run)?;
        match Self::create_in(&settings, &mut list) {
            Ok((network, nodes, shim)) => Ok(Self {
                next_id: u64::from(settings.founders) + 1,
                settings,
                list,
                network,
                nodes,
                targets: Targets::default(),
                crashes: Vec::new(),
                power_cuts: [0; 2],
                shim,
            }),
            Err(error) => match list.undo() {
                Ok(()) => Err(error),
                Err(left) => Err(error.context(format!("and some of it stays: {left:#}"))),
            },
        }
    }

    fn create_in(
        settings: &Settings,
        list: &mut RunFile,
    ) -> anyhow::Result<(Network, Vec<Node>, Option<Shim>)> {
        let folder = Path::new(run_file::DIR).join(&settings.run);
        list.add(Made::Folder(folder.clone()))?;
        fs::create_dir(&folder)?;
        list.add(Made::Mount(folder.clone()))?;
        let options = "size=4g,mode=0700,nr_inodes=4096";
        let target = folder.to_string_lossy();
        command::run("mount", ["-t", "tmpfs", "-o", options, &settings.run, &target])?;
        let places: Vec<u8> = (1..=settings.founders + settings.spares).collect();
        let mut ports = vec![Port::Clients, Port::Control];
        ports.extend(places.iter().map(|place| Port::Node(*place)));
        let network = Network::create(&settings.run, &ports, list)?;
        let shim = settings.shim.then(|| Shim::build(&folder)).transpose()?;
        for (file, text) in [(ADMINISTRATOR_FILE, ADMINISTRATOR), (MASTER_KEY_FILE, MASTER_KEY)] {
            fs::write(folder.join(file), text)?;
            fs::set_permissions(folder.join(file), fs::Permissions::from_mode(0o600))?;
        }
        let mut nodes = Vec::new();
        for place in places {
            let name = format!("n{place}");
            let disk = Disk::create(&folder, &name, DISK_MEBIBYTES, list)?;
            let page = shim.as_ref().map(|_| Page::create(folder.join(format!("{name}.page"))));
            let group = settings.groups.then(|| {
                Group::create(&format!("{}-{name}", settings.run), list) //
            });
            nodes.push(Node {
                place,
                id: u64::from(place),
                disk,
                group: group.transpose()?,
                page: page.transpose()?,
                server: None,
                member: place <= settings.founders,
                duty: Duty::Rest,
                suspect: false,
                ended: None,
                log: settings.out.join(format!("{name}.log")),
            });
        }
        Ok((network, nodes, shim))
    }

    /// The name of the namespace of a port.
    #[must_use]
    pub fn namespace(&self, port: Port) -> String {
        self.network.namespace(port)
    }

    /// Starts the founders, and waits until each of them serves.
    ///
    /// # Errors
    /// When they do not in time.
    pub fn found(&mut self, timeout: Duration) -> anyhow::Result<()> {
        let founders: Vec<u8> = self.members();
        for place in founders {
            self.start(place)?;
        }
        self.tell_targets();
        self.wait_converged(timeout).map(drop)
    }

    /// The places whose nodes are in the cluster.
    #[must_use]
    pub fn members(&self) -> Vec<u8> {
        self.nodes.iter().filter(|node| node.member).map(|node| node.place).collect()
    }

    /// The members whose servers run.
    #[must_use]
    pub fn running(&self) -> Vec<u8> {
        let runs = |node: &&Node| node.member && node.server.is_some();
        self.nodes.iter().filter(runs).map(|node| node.place).collect()
    }

    /// Tells clients who is there.
    pub fn tell_targets(&self) {
        self.tell_targets_but(None);
    }

    /// Tells clients who is there, and nothing of one of them.
    pub fn tell_targets_but(&self, place: Option<u8>) {
        let told = |node: &&Node| node.member && Some(node.place) != place;
        let members = self.nodes.iter().filter(told);
        self.targets
            .set(members.map(|node| Target { id: node.id, grpc: node.address(GRPC) }).collect());
    }

    /// The node at a place.
    ///
    /// # Errors
    /// When there is no such place.
    pub fn node(&mut self, place: u8) -> anyhow::Result<&mut Node> {
        let node = self.nodes.iter_mut().find(|node| node.place == place);
        node.with_context(|| format!("there is no place {place}"))
    }

    /// Its server.
    ///
    /// # Errors
    /// When it has none.
    pub fn server(&mut self, place: u8) -> anyhow::Result<&mut Server> {
        self.node(place)?.server.as_mut().with_context(|| format!("node {place} does not run"))
    }

    fn command(&self, place: u8) -> anyhow::Result<Command> {
        let node = self.nodes.iter().find(|node| node.place == place).context("no such place")?;
        let mut command = Command::new(&self.settings.server);
        command.env_clear().envs(self.settings.environment.iter().cloned());
        let listen = |port: u16| node.address(port).to_string();
        command.arg("serve").args(["--node-id", &node.id.to_string()]);
        command.arg("--data-dir").arg(node.data());
        command.args(["--http-addr", &listen(HTTP), "--metrics-addr", &listen(METRICS)]);
        command.args(["--grpc-addr", &listen(GRPC), "--raft-addr", &listen(RAFT)]);
        command.args(["--disk-reserve", DISK_RESERVE, "--backup-interval", "0"]);
        let folder = Path::new(run_file::DIR).join(&self.settings.run);
        command.arg("--bootstrap-token-file").arg(folder.join(ADMINISTRATOR_FILE));
        command.arg("--master-key-file").arg(folder.join(MASTER_KEY_FILE));
        // Clients have one address, and some of them use tokens that were revoked.
        command.args(["--limit-exempt", net::SUBNET]);
        if node.id <= u64::from(self.settings.founders) {
            let founders = self.nodes.iter().take(usize::from(self.settings.founders));
            let founders = founders.map(|node| format!("{}={}", node.place, node.address(RAFT)));
            let founders = founders.collect::<Vec<_>>().join(",");
            command.args(["--initial-cluster", &founders]);
        } else {
            let others = self.nodes.iter().filter(|other| other.member && other.place != place);
            let others = others.map(|other| format!("http://{}", other.http()));
            command.args(["--join", &others.collect::<Vec<_>>().join(",")]);
        }
        if self.settings.snapshots {
            command.env(SNAPSHOT_ENTRIES.0, SNAPSHOT_ENTRIES.1);
        }
        if let (Some(shim), Some(page)) = (&self.shim, &node.page) {
            command.env("LD_PRELOAD", shim.library()).env("LCJL_SHIM", page.path());
            command.env("LCJL_DATA", node.data());
        }
        Ok(command)
    }

    /// Starts the server at a place.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&mut self, place: u8) -> anyhow::Result<()> {
        let command = self.command(place)?;
        let namespace = self.network.namespace(Port::Node(place));
        let node = self.node(place)?;
        ensure!(node.server.is_none(), "node {place} runs already");
        node.disk.mount()?;
        let server = Server::start(command, &namespace, &node.log)?;
        if let Some(group) = &node.group {
            group.add(server.identity().pid)?;
        }
        let identity = server.identity();
        node.server = Some(server);
        node.ended = None;
        node.duty = if node.suspect { Duty::MayEnd } else { Duty::Run };
        self.list.add(Made::Process(identity))
    }

    /// Ends a server the hard way.
    ///
    /// # Errors
    /// When it does not go.
    pub fn kill(&mut self, place: u8) -> anyhow::Result<()> {
        self.supervise()?;
        let node = self.node(place)?;
        node.duty = Duty::Rest;
        if let Some(mut server) = node.server.take() {
            server.kill()?;
        }
        Ok(())
    }

    /// Asks a server to stop.
    ///
    /// # Errors
    /// When it can be neither stopped nor killed.
    pub fn stop(&mut self, place: u8) -> anyhow::Result<()> {
        self.supervise()?;
        let node = self.node(place)?;
        node.duty = Duty::Rest;
        let Some(mut server) = node.server.take() else { return Ok(()) };
        let stopped = server.stop();
        let why = stopped.as_ref().err().map(|error| format!("{error:#}\n")).unwrap_or_default();
        // One that does not stop has done wrong; the run goes on without it.
        let status = stopped.or_else(|_| server.kill())?;
        if !status.success() {
            let (id, log) = (node.id, why + &node.log_tail(15));
            self.crashes.push(Crash { id, status, log });
        }
        Ok(())
    }

    /// Kills the servers at some places, and cuts the power of their disks together.
    ///
    /// # Errors
    /// When the kernel does not let it.
    pub fn cut_power(&mut self, places: &[u8]) -> anyhow::Result<Vec<Unsynced>> {
        for place in places {
            self.kill(*place)?;
        }
        let cut = places.iter().map(|place| self.node(*place)?.disk.cut_power());
        let cut = cut.collect::<anyhow::Result<Vec<_>>>()?;
        let lost = |(_, cut): &(&u8, &Unsynced)| **cut == Unsynced::Lost;
        let lost: Vec<_> = places.iter().zip(&cut).filter(lost).map(|(place, _)| *place).collect();
        self.power_cuts[0] += lost.len() as u64;
        self.power_cuts[1] += u64::from(self.members().iter().all(|place| lost.contains(place)));
        Ok(cut)
    }

    /// Notices servers that ended.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn supervise(&mut self) -> anyhow::Result<()> {
        let mut again = Vec::new();
        for node in &mut self.nodes {
            let Some(server) = &mut node.server else { continue };
            let Some(status) = server.ended()? else { continue };
            node.server = None;
            node.ended = Some(status);
            match node.duty {
                Duty::Recover(until) if Instant::now() < until => again.push(node.place),
                Duty::Run | Duty::Recover(_) => {
                    let log = node.log_tail(15);
                    self.crashes.push(Crash { id: node.id, status, log });
                    if status.code() == Some(REFUSED) {
                        keep(
                            &node.data(),
                            &self.settings.out.join(format!("n{}.data", node.place)),
                        )?;
                    }
                }
                Duty::MayEnd | Duty::Rest => {}
            }
            node.duty = Duty::Rest;
        }
        again.into_iter().try_for_each(|place| self.start(place))
    }

    /// Says that what a fault took from a node is there again; it may still stop because of it for a while.
    ///
    /// # Errors
    /// When there is no such place.
    pub fn give_back(&mut self, place: u8) -> anyhow::Result<()> {
        let node = self.node(place)?;
        if node.server.is_none() {
            return self.start(place);
        }
        node.duty = Duty::Recover(Instant::now() + RECOVER);
        Ok(())
    }

    /// What each running member says of the cluster.
    #[must_use]
    pub fn views(&self) -> Vec<(u8, View)> {
        let running = self.nodes.iter().filter(|node| node.member && node.server.is_some());
        let view = |node: &Node| Some((node.place, control::view(node.http()).ok()?));
        running.filter_map(view).collect()
    }

    /// The place of the leader: of the one with the highest term, if several think so.
    #[must_use]
    pub fn leader(&self) -> Option<(u8, u64)> {
        let views = self.views();
        let leaders = views.iter().filter(|(_, view)| view.role == "leader");
        leaders.max_by_key(|(_, view)| view.term).map(|(place, view)| (*place, view.term))
    }

    /// Waits for a leader.
    ///
    /// # Errors
    /// When there is none in time.
    pub fn wait_leader(&self, timeout: Duration) -> anyhow::Result<u8> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some((place, _)) = self.leader() {
                return Ok(place);
            }
            ensure!(Instant::now() < deadline, "no leader within {timeout:?}");
            thread::sleep(POLL);
        }
    }

    /// Waits until a node is ready or has ended; one that is neither in time is no failure here.
    ///
    /// # Errors
    /// When there is no such place.
    pub fn settle(&mut self, place: u8, timeout: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + timeout;
        self.supervise()?;
        while self.node(place)?.server.is_some()
            && !control::is_ready(self.node(place)?.http())
            && Instant::now() < deadline
        {
            thread::sleep(POLL);
            self.supervise()?;
        }
        Ok(())
    }

    /// Waits until all members run, are ready, and have applied the same; tells the revision.
    ///
    /// # Errors
    /// When they have not in time, with what each says.
    pub fn wait_converged(&mut self, timeout: Duration) -> anyhow::Result<u64> {
        let deadline = Instant::now() + timeout;
        let members = self.members();
        loop {
            self.supervise()?;
            let views = self.views();
            let ready = self
                .nodes
                .iter()
                .filter(|node| node.member)
                .all(|node| control::is_ready(node.http()));
            let mut applied = views.iter().map(|(_, view)| (view.applied_index, view.revision));
            let first = applied.next();
            let equal = applied.all(|other| Some(other) == first);
            if let Some((_, revision)) =
                first.filter(|_| ready && equal && views.len() == members.len())
            {
                return Ok(revision);
            }
            if Instant::now() > deadline {
                let running = self.running();
                bail!(
                    "not converged within {timeout:?}: members {members:?}, running {running:?}, ready {ready}: {views:#?}"
                );
            }
            thread::sleep(POLL);
        }
    }

    /// What is found on the disks of what must not get out, and why the search proves nothing. `plain` has to be on the disk
    /// of each member: a search that does not find that one would find nothing. A store that lost it lacks it, too, which is
    /// for the checkers to say.
    ///
    /// # Errors
    /// When a disk cannot be read.
    pub fn leaks(
        &self,
        hidden: &Needles,
        plain: &Needles,
    ) -> anyhow::Result<(Vec<String>, Vec<String>)> {
        let (mut found, mut blind) = (Vec::new(), Vec::new());
        for node in &self.nodes {
            let disk = node.disk.written()?;
            found.extend(hidden.file(disk)?);
            if node.member && plain.file(disk)?.is_empty() {
                let id = node.id;
                blind.push(format!("what node {id} stores in the clear is not found on its disk"));
            }
        }
        Ok((found, blind))
    }

    /// A number that no node has had.
    pub fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id - 1
    }
}

/// Copies what a node did not want to start on, for whoever has to find out why; the first time only.
fn keep(data: &Path, copy: &Path) -> anyhow::Result<()> {
    if copy.exists() || !data.exists() {
        return Ok(());
    }
    command::run("cp", ["-a".as_ref(), data.as_os_str(), copy.as_os_str()]).map(drop)
}

impl Drop for Lab {
    fn drop(&mut self) {
        // They use what is about to be taken away.
        self.nodes.clear();
        self.shim = None;
        if let Err(error) = self.list.undo() {
            eprintln!(
                "not everything could be taken away; `jepsen-lite clean` tries again: {error:#}"
            );
        }
    }
}
