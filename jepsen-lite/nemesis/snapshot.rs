//! A snapshot on its way is cut off: a follower is held back until the others have forgotten what it lacks, let go under
//! load and over a slow cable, and struck when a part of the snapshot has come.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rand::Rng as _;
use rand::seq::IndexedRandom as _;

use super::{Active, Evidence, Outcome, Strike};
use crate::lab::disk::Unsynced;
use crate::lab::net::{Cut, Port};
use crate::lab::{Lab, ballast, control};

/// Slow enough that a snapshot takes seconds, fast enough for heartbeats beside it.
const RATE: &str = "6mbit";
/// How long one look waits for a transfer to get as far as wanted.
const PATIENCE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(5);
/// How long what was struck stays down.
const DOWN: Duration = Duration::from_secs(1);
const PURGED: &str = "llm_config_raft_purged_index";

/// What ends the transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Kill,
    Power,
    Leader,
    Partition,
}

/// How far it has come.
#[derive(Debug)]
enum Stage {
    /// Cut off from the others, or killed.
    Held(Option<Cut>),
    /// The snapshot may come.
    Open,
    /// It was cut off; and what is down until when.
    Struck { until: Instant, down: Option<u8>, cut: Option<Cut> },
}

#[derive(Debug)]
struct Interrupted {
    place: u8,
    leader: u8,
    how: How,
    stage: Stage,
    /// The last entry of its log when it was held back.
    had: u64,
    /// How much of it is to come.
    wanted: u64,
    bit: bool,
    words: String,
}

pub(super) fn install(strike: &mut Strike<'_>) -> anyhow::Result<Outcome> {
    let free = strike.free();
    let leader = strike.lab.leader().map(|(place, _)| place).filter(|place| free.contains(place));
    let Some(leader) = leader else {
        return Ok(Outcome::Skipped("there is no leader that is free".to_owned()));
    };
    let followers: Vec<u8> = free.into_iter().filter(|place| *place != leader).collect();
    let Some(place) = followers.choose(strike.chance).copied() else { return Strike::skipped() };
    let all = [How::Kill, How::Power, How::Leader, How::Partition];
    let how = *all.choose(strike.chance).context("no way to end a transfer")?;
    let wanted = ballast::BYTES * strike.chance.random_range(5..60) / 100;
    let killed = strike.chance.random_bool(0.5);
    let had = control::view(strike.lab.node(place)?.http()).map_or(0, |view| view.last_log_index);
    let held = if killed {
        strike.lab.kill(place)?;
        None
    } else {
        Some(cut_off(strike.lab, place)?)
    };
    // Clients that wait for its answers would bring the others too little to forget.
    strike.lab.tell_targets_but(Some(place));
    Ok(Outcome::Installed(Box::new(Interrupted {
        place,
        leader,
        how,
        stage: Stage::Held(held),
        had,
        wanted,
        bit: false,
        words: "the others had forgotten nothing that it lacked".to_owned(),
    })))
}

/// Its peers only: clients still reach it.
fn cut_off(lab: &mut Lab, place: u8) -> anyhow::Result<Cut> {
    let cable = Port::Node(place).cable();
    let peers = lab.members().into_iter().filter(|peer| *peer != place);
    let rules = peers.flat_map(|peer| {
        let peer = Port::Node(peer).cable();
        [format!("iifname {cable} oifname {peer}"), format!("iifname {peer} oifname {cable}")]
    });
    let rules: Vec<_> = rules.collect();
    lab.network.cut(&rules)
}

/// How much of a snapshot has come that is not complete; nothing when none is coming.
fn arrived(data: &Path) -> Option<u64> {
    let entries = fs::read_dir(data).ok()?.flatten();
    let mut coming =
        entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("receive-"));
    let files = fs::read_dir(coming.next()?.path()).ok()?.flatten();
    Some(files.filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum())
}

impl Interrupted {
    /// Whether the leader has purged what the follower would need next.
    fn is_forgotten(&mut self, lab: &mut Lab) -> anyhow::Result<bool> {
        let node = lab.node(self.place)?;
        if node.server.is_some()
            && let Ok(view) = control::view(node.http())
        {
            self.had = self.had.max(view.last_log_index);
        }
        let Some((leader, _)) = lab.leader() else { return Ok(false) };
        let purged = control::metric(lab.node(leader)?.metrics(), PURGED);
        Ok(leader != self.place && purged.is_ok_and(|purged| purged > self.had as f64))
    }

    fn let_go(&mut self, lab: &mut Lab) -> anyhow::Result<()> {
        lab.tell_targets();
        lab.network.throttle(Port::Node(self.place), RATE)?;
        match std::mem::replace(&mut self.stage, Stage::Open) {
            Stage::Held(Some(cut)) => lab.network.open(cut),
            _ => lab.start(self.place),
        }
    }

    /// Strikes as soon as as much has come as is wanted.
    fn watch(&mut self, lab: &mut Lab) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let data = lab.node(self.place)?.data();
        while Instant::now() < deadline {
            if arrived(&data).is_some_and(|bytes| bytes >= self.wanted) {
                return self.strike(lab, &data);
            }
            std::thread::sleep(POLL);
        }
        "no snapshot came".clone_into(&mut self.words);
        lab.supervise()
    }

    fn strike(&mut self, lab: &mut Lab, data: &Path) -> anyhow::Result<()> {
        let leads = lab.leader().is_some_and(|(leader, _)| leader == self.leader);
        let (mut down, mut cut) = (None, None);
        match self.how {
            How::Leader if leads => {
                lab.kill(self.leader)?;
                down = Some(self.leader);
            }
            How::Partition => cut = Some(cut_off(lab, self.place)?),
            How::Kill | How::Power | How::Leader => {
                lab.kill(self.place)?;
                down = Some(self.place);
            }
        }
        // Less than the ballast alone, and more is missing than the network may still hold: it was not complete.
        let bytes = arrived(data).unwrap_or(0);
        self.bit = bytes > 0 && bytes < ballast::BYTES;
        let by = match (down, self.how) {
            (None, _) => "cut off from the others".to_owned(),
            (Some(place), How::Power) => {
                format!("power of {place} cut: {:?}", self.cut(lab, place)?)
            }
            (Some(place), _) => format!("{place} killed"),
        };
        self.words = format!("{bytes} bytes of a snapshot had come, it was not complete; {by}");
        self.stage = Stage::Struck { until: Instant::now() + DOWN, down, cut };
        Ok(())
    }

    fn cut(&mut self, lab: &mut Lab, place: u8) -> anyhow::Result<Vec<Unsynced>> {
        let cut = lab.cut_power(&[place])?;
        self.bit &= cut.iter().all(|unsynced| *unsynced == Unsynced::Lost);
        Ok(cut)
    }
}

impl Active for Interrupted {
    fn name(&self) -> String {
        let how = match self.how {
            How::Kill => "kill of the receiver",
            How::Power => "power cut of the receiver",
            How::Leader => "kill of the leader",
            How::Partition => "a partition",
        };
        format!("a snapshot for {} interrupted by {how}", self.place)
    }

    fn holds(&self) -> BTreeSet<u8> {
        BTreeSet::from([self.place, self.leader])
    }

    fn is_due(&mut self, lab: &mut Lab) -> anyhow::Result<bool> {
        match &self.stage {
            Stage::Held(_) => {
                if self.is_forgotten(lab)? {
                    self.let_go(lab)?;
                    self.watch(lab)?;
                }
                Ok(false)
            }
            Stage::Open => {
                self.watch(lab)?;
                Ok(false)
            }
            Stage::Struck { until, .. } => Ok(Instant::now() >= *until),
        }
    }

    fn mend(mut self: Box<Self>, lab: &mut Lab) -> anyhow::Result<Evidence> {
        if matches!(self.stage, Stage::Held(_)) {
            self.let_go(lab)?;
        }
        lab.network.unthrottle(Port::Node(self.place))?;
        if let Stage::Struck { down, cut, .. } = self.stage {
            down.map_or(Ok(()), |place| lab.start(place))?;
            cut.map_or(Ok(()), |cut| lab.network.open(cut))?;
        }
        Ok(Evidence::of(self.bit, self.words))
    }
}
