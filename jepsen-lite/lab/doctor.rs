//! What this machine can do: each capability is tried, not guessed from a version.

use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

use super::disk::{Disk, Unsynced};
use super::group::Group;
use super::net::{self, Network, Port};
use super::run_file::{self, Made, RunFile};
use super::shim::Shim;
use super::wire::Weather;

/// Something that faults need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Capability {
    /// Network namespaces on a bridge.
    Network,
    /// Rules that drop packets and count them.
    Rules,
    /// A limit of what a cable carries.
    Throttle,
    /// Connections that are ended from outside.
    Reset,
    /// A cable that delays and reorders.
    Wire,
    /// Disks whose power can be cut.
    Power,
    /// Limits of disk, processor and memory.
    Groups,
    /// A library that is loaded into servers.
    Shim,
}

impl Capability {
    /// What it is, and what Debian calls the package that is missing.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Network => "network namespaces and a bridge (root; iproute2)",
            Self::Rules => "packet rules with counters on the bridge (nftables)",
            Self::Throttle => "a rate limit on a cable (iproute2, sch_tbf)",
            Self::Reset => "connections reset from outside (iproute2, INET_DIAG_DESTROY)",
            Self::Wire => "a cable that delays, reorders and doubles (/dev/net/tun)",
            Self::Power => "power cuts: a loop device, ext4 and its shutdown (e2fsprogs, mount)",
            Self::Groups => "control groups of version 1: blkio, cpu, memory",
            Self::Shim => "a library loaded into servers: clocks, reads and syncs (gcc, libc6-dev)",
        }
    }
}

/// Tries each capability; what is made for it is taken away again.
///
/// # Errors
/// When no run file can be written.
pub fn examine(run: &str) -> anyhow::Result<Vec<(Capability, anyhow::Result<()>)>> {
    let mut list = RunFile::create(run)?;
    let results = try_all(run, &mut list);
    list.undo()?;
    Ok(results)
}

fn try_all(run: &str, list: &mut RunFile) -> Vec<(Capability, anyhow::Result<()>)> {
    let ports = [Port::Node(1), Port::Node(2)];
    let (mut network, made) = match Network::create(run, &ports, list) {
        Ok(network) => (Some(network), Ok(())),
        Err(error) => (None, Err(error)),
    };
    let mut results = vec![(Capability::Network, made)];
    let mut on = |try_it: &mut dyn FnMut(&mut Network) -> anyhow::Result<()>| {
        try_it(network.as_mut().context("there is no network to try it on")?)
    };
    results.push((Capability::Rules, on(&mut try_rules)));
    results.push((Capability::Throttle, on(&mut try_throttle)));
    results.push((
        Capability::Reset,
        on(&mut |network| network.reset(Port::Node(1), Port::Node(2)).map(drop)),
    ));
    results.push((Capability::Wire, on(&mut |network| try_wire(network))));
    let folder = Path::new(run_file::DIR).join(run);
    let made = list.add(Made::Folder(folder.clone()));
    let made = made.and_then(|()| Ok(fs::create_dir(&folder)?));
    if let Err(error) = made {
        results.push((Capability::Power, Err(error)));
        return results;
    }
    results.push((Capability::Power, try_power(&folder, list)));
    results.push((Capability::Groups, try_groups(run, list)));
    results.push((Capability::Shim, Shim::build(&folder).map(drop)));
    results
}

fn try_rules(network: &mut Network) -> anyhow::Result<()> {
    let rule = "iifname v1 oifname v2 tcp dport 1 numgen random mod 100 < 10".to_owned();
    let cut = network.cut(&[rule])?;
    ensure!(network.dropped(&cut)? == 0, "a rule counts what nobody sent");
    network.open(cut)
}

fn try_throttle(network: &mut Network) -> anyhow::Result<()> {
    network.throttle(Port::Node(1), "1mbit")?;
    network.throttled(Port::Node(1))?;
    network.unthrottle(Port::Node(1))
}

/// A packet comes through, later than without it.
fn try_wire(network: &Network) -> anyhow::Result<()> {
    const DELAY: Duration = Duration::from_millis(30);
    let weather = Weather { percent: 100, delay: DELAY, jitter: Duration::ZERO, doubled: 0 };
    let wire = network.lay_wire(Port::Node(1), weather, 1)?;
    let took = net::inside(&network.namespace(Port::Node(2)), || {
        let begun = Instant::now();
        let there = SocketAddr::new(IpAddr::V4(Port::Node(1).address()), 1);
        // Nobody listens: the answer is a refusal, and it has come all the way.
        match TcpStream::connect_timeout(&there, Duration::from_secs(5)) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(begun.elapsed()),
            other => bail!("no packet comes through: {other:?}"),
        }
    });
    let counts = network.take_wire(Port::Node(1), wire)?;
    let took = took?;
    ensure!(took >= DELAY * 2 && counts.delayed > 0, "{took:?} there and back, {counts:?}");
    Ok(())
}

fn try_power(folder: &Path, list: &mut RunFile) -> anyhow::Result<()> {
    let mut disk = Disk::create(folder, "probe", 32, list)?;
    let kept = disk.path().join("kept");
    let file = fs::File::create(&kept)?;
    file.sync_all()?;
    fs::File::open(disk.path())?.sync_all()?;
    drop(file);
    let unsynced = disk.cut_power()?;
    ensure!(unsynced == Unsynced::Lost, "data that was never synced survives a power cut");
    ensure!(kept.exists(), "a file that was synced does not survive a power cut");
    disk.number().map(drop)
}

fn try_groups(run: &str, list: &mut RunFile) -> anyhow::Result<()> {
    let group = Group::create(&format!("{run}-probe"), list)?;
    group.set("cpu", "cpu.cfs_quota_us", "50000")?;
    group.set("memory", "memory.limit_in_bytes", "1073741824")?;
    group.number("cpu", "cpu.stat", "nr_throttled ").map(drop)
}
