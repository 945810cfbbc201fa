//! Too little of processor, memory or file descriptors, and a log that nobody reads.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rand::Rng as _;
use rustix::process::{Pid, Resource, Rlimit};

use super::{Active, Evidence, Outcome, Strike};
use crate::lab::net::{Cut, Port};
use crate::lab::{Duty, Lab};

const PERIOD_US: u64 = 100_000;
const CONNECTIONS: usize = 12;
const PAGE_BYTES: u64 = 4096;
/// How long a node may take to need what it lacks: one that is cut off from the others has little to do.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug)]
struct Starving {
    what: Starved,
    patience: Instant,
}

#[derive(Debug)]
enum Starved {
    Processor {
        place: u8,
        percent: u64,
        before: u64,
    },
    Memory {
        place: u8,
        before: u64,
    },
    Files {
        place: u8,
        before: Rlimit,
        most: u64,
        held: Vec<TcpStream>,
        /// Whether none was left when the last connection came.
        full: bool,
    },
    /// With its peers cut off, so that it has something to say.
    Log {
        place: u8,
        cut: Cut,
    },
}

pub(super) fn install(strike: &mut Strike<'_>) -> anyhow::Result<Outcome> {
    let Some(place) = strike.one() else { return Strike::skipped() };
    let free = strike.free();
    let leader = strike.lab.leader().map(|(place, _)| place).filter(|place| free.contains(place));
    let starved = match (strike.chance.random_range(0..4), leader) {
        (1, _) => {
            let before = number(strike.lab, place, "memory", "memory.failcnt", "")?;
            let node = strike.lab.node(place)?;
            // The kernel kills it when it needs more.
            node.duty = Duty::MayEnd;
            let group = node.group.as_ref().context("no control groups")?;
            let used = group.number("memory", "memory.usage_in_bytes", "")?;
            let limit =
                |bytes: u64| group.set("memory", "memory.limit_in_bytes", &bytes.to_string());
            // The kernel refuses what it cannot reach by giving up caches; then there is nothing more from now on.
            limit(used - used / 8).or_else(|_| limit(used + PAGE_BYTES))?;
            Starved::Memory { place, before }
        }
        (2, _) => files(strike.lab, place)?,
        // A follower without its leader has little to say.
        (3, Some(leader)) => log(strike.lab, leader)?,
        _ => {
            let percent = [2, 5, 10][strike.chance.random_range(0..3)];
            quota(strike.lab, place, (percent * PERIOD_US / 100).cast_signed())?;
            let before = number(strike.lab, place, "cpu", "cpu.stat", "nr_throttled ")?;
            Starved::Processor { place, percent, before }
        }
    };
    let patience = Instant::now() + PATIENCE;
    Ok(Outcome::Installed(Box::new(Starving { what: starved, patience })))
}

fn log(lab: &mut Lab, place: u8) -> anyhow::Result<Starved> {
    lab.server(place)?.block_log()?;
    let cable = Port::Node(place).cable();
    let peers = lab.members().into_iter().filter(|peer| *peer != place);
    let rules = peers.flat_map(|peer| {
        let peer = Port::Node(peer).cable();
        let one = format!("iifname {cable} oifname {peer}");
        [one, format!("iifname {peer} oifname {cable}")]
    });
    let rules: Vec<_> = rules.collect();
    let cut = lab.network.cut(&rules)?;
    Ok(Starved::Log { place, cut })
}

fn number(lab: &mut Lab, place: u8, of: &str, file: &str, name: &str) -> anyhow::Result<u64> {
    let group = lab.node(place)?.group.as_ref().context("no control groups")?;
    group.number(of, file, name)
}

/// -1 is no quota.
fn quota(lab: &mut Lab, place: u8, us: i64) -> anyhow::Result<()> {
    let group = lab.node(place)?.group.as_ref().context("no control groups")?;
    group.set("cpu", "cpu.cfs_quota_us", &us.to_string())
}

fn pid(lab: &mut Lab, place: u8) -> anyhow::Result<Pid> {
    let pid = i32::try_from(lab.server(place)?.identity().pid)?;
    Pid::from_raw(pid).context("a process number out of range")
}

fn open_files(lab: &mut Lab, place: u8) -> anyhow::Result<u64> {
    let pid = lab.server(place)?.identity().pid;
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count() as u64)
}

/// Two more than it has, and connections that take them.
fn files(lab: &mut Lab, place: u8) -> anyhow::Result<Starved> {
    let most = open_files(lab, place)? + 2;
    let pid = pid(lab, place)?;
    let before = rustix::process::getrlimit(Resource::Nofile);
    let limit = Rlimit { current: Some(most), maximum: before.maximum };
    let before = rustix::process::prlimit(Some(pid), Resource::Nofile, limit)?;
    // What cannot be opened any more may end it.
    lab.node(place)?.duty = Duty::MayEnd;
    let http = lab.node(place)?.http();
    let open = || TcpStream::connect_timeout(&http, Duration::from_millis(300)).ok();
    let held = (0..CONNECTIONS).filter_map(|_| open()).collect();
    let full = open_files(lab, place)? >= most;
    Ok(Starved::Files { place, before, most, held, full })
}

impl Starved {
    fn place(&self) -> u8 {
        match self {
            Self::Processor { place, .. }
            | Self::Memory { place, .. }
            | Self::Files { place, .. }
            | Self::Log { place, .. } => *place,
        }
    }
}

impl Active for Starving {
    fn name(&self) -> String {
        let place = self.what.place();
        match &self.what {
            Starved::Processor { percent, .. } => format!("{percent} % of a processor for {place}"),
            Starved::Memory { .. } => format!("too little memory for {place}"),
            Starved::Files { .. } => format!("no more file descriptors for {place}"),
            Starved::Log { .. } => format!("nobody reads the log of {place}"),
        }
    }

    fn holds(&self) -> BTreeSet<u8> {
        BTreeSet::from([self.what.place()])
    }

    fn is_due(&mut self, lab: &mut Lab) -> anyhow::Result<bool> {
        let bit = match &self.what {
            Starved::Processor { place, before, .. } => {
                number(lab, *place, "cpu", "cpu.stat", "nr_throttled ")? > *before
            }
            Starved::Memory { place, before } => {
                number(lab, *place, "memory", "memory.failcnt", "")? > *before
            }
            Starved::Files { .. } => true,
            Starved::Log { place, .. } => lab.server(*place)?.waits_for_log()?,
        };
        Ok(bit || Instant::now() > self.patience)
    }

    fn mend(self: Box<Self>, lab: &mut Lab) -> anyhow::Result<Evidence> {
        lab.supervise()?;
        match self.what {
            Starved::Processor { place, before, .. } => {
                let now = number(lab, place, "cpu", "cpu.stat", "nr_throttled ")?;
                quota(lab, place, -1)?;
                let held = now - before;
                Ok(Evidence::of(held > 0, format!("held back in {held} periods")))
            }
            Starved::Memory { place, before } => {
                let now = number(lab, place, "memory", "memory.failcnt", "")?;
                let node = lab.node(place)?;
                let group = node.group.as_ref().context("no control groups")?;
                group.set("memory", "memory.limit_in_bytes", "-1")?;
                let ended = revive(lab, place)?;
                let failed = now - before;
                let words = format!("the limit was met {failed} times; {ended}");
                Ok(Evidence::of(failed > 0, words))
            }
            Starved::Files { place, before, most, held, full } => {
                let runs = lab.node(place)?.server.is_some();
                let full = full || !runs || open_files(lab, place)? >= most;
                if runs {
                    let pid = pid(lab, place)?;
                    rustix::process::prlimit(Some(pid), Resource::Nofile, before)?;
                }
                drop(held);
                let ended = revive(lab, place)?;
                Ok(Evidence::of(full, format!("all {most} descriptors in use: {full}; {ended}")))
            }
            Starved::Log { place, cut, .. } => {
                let server = lab.server(place)?;
                let waits = server.waits_for_log()?;
                server.open_log();
                lab.network.open(cut)?;
                Ok(Evidence::of(waits, format!("it waited for room in its log: {waits}")))
            }
        }
    }
}

/// Starts a node again that has ended, and tells how it had.
fn revive(lab: &mut Lab, place: u8) -> anyhow::Result<String> {
    let node = lab.node(place)?;
    let (runs, ended) = (node.server.is_some(), node.ended);
    lab.give_back(place)?;
    if runs {
        return Ok("it went on".to_owned());
    }
    Ok(ended.map_or_else(|| "it ended".to_owned(), |status| format!("it ended: {status}")))
}
