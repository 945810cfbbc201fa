//! Faults of processes: killed, killed with their disks' power cut, stopped for a while, restarted one after the other.

use std::collections::BTreeSet;
use std::time::Duration;

use rand::Rng as _;
use rand::seq::SliceRandom as _;
use rustix::process::Signal;

use super::{Active, Evidence, LEADER_TIMEOUT, Outcome, Strike, listed, set};
use crate::lab::disk::Unsynced;
use crate::lab::run_file::Process;
use crate::lab::{Lab, control};

/// How long a restarted node may take until it serves.
const READY_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug)]
struct Down {
    places: Vec<u8>,
    killed: Vec<Process>,
    power: Option<Vec<Unsynced>>,
}

pub(super) fn kill(strike: &mut Strike<'_>) -> anyhow::Result<Outcome> {
    down(strike, false)
}

pub(super) fn power(strike: &mut Strike<'_>) -> anyhow::Result<Outcome> {
    down(strike, true)
}

fn down(strike: &mut Strike<'_>, power: bool) -> anyhow::Result<Outcome> {
    let places = strike.some();
    if places.is_empty() {
        return Strike::skipped();
    }
    let mut killed = Vec::new();
    for place in &places {
        killed.push(strike.lab.server(*place)?.identity());
    }
    let power = if power {
        Some(strike.lab.cut_power(&places)?)
    } else {
        places.iter().try_for_each(|place| strike.lab.kill(*place))?;
        None
    };
    Ok(Outcome::Installed(Box::new(Down { places, killed, power })))
}

impl Active for Down {
    fn name(&self) -> String {
        let what = if self.power.is_some() { "power cut" } else { "kill" };
        format!("{what} of {}", listed(&self.places))
    }

    fn holds(&self) -> BTreeSet<u8> {
        set(&self.places)
    }

    fn mend(self: Box<Self>, lab: &mut Lab) -> anyhow::Result<Evidence> {
        let gone = self.killed.iter().all(|process| !process.runs());
        for place in &self.places {
            lab.start(*place)?;
        }
        let lost = self.power.as_ref().is_none_or(|power| {
            power.iter().all(|unsynced| *unsynced == Unsynced::Lost) //
        });
        let words = match &self.power {
            Some(power) => format!("processes gone: {gone}; unsynced data: {power:?}"),
            None => format!("processes gone: {gone}"),
        };
        Ok(Evidence::of(gone && lost, words))
    }
}

#[derive(Debug)]
struct Paused {
    places: Vec<u8>,
    processes: Vec<Process>,
    stopped: bool,
}

pub(super) fn pause(strike: &mut Strike<'_>) -> anyhow::Result<Outcome> {
    let places = strike.some();
    if places.is_empty() {
        return Strike::skipped();
    }
    let (mut stopped, mut processes) = (true, Vec::new());
    for place in &places {
        let server = strike.lab.server(*place)?;
        server.signal(Signal::STOP)?;
        processes.push(server.identity());
    }
    for place in &places {
        stopped &= is_stopped(strike.lab, *place)?;
    }
    Ok(Outcome::Installed(Box::new(Paused { places, processes, stopped })))
}

/// The signal takes effect when the process is next scheduled.
fn is_stopped(lab: &mut Lab, place: u8) -> anyhow::Result<bool> {
    for _ in 0..200 {
        if lab.server(place)?.state() == Some('T') {
            return Ok(true);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(false)
}

impl Active for Paused {
    fn name(&self) -> String {
        format!("pause of {}", listed(&self.places))
    }

    fn holds(&self) -> BTreeSet<u8> {
        set(&self.places)
    }

    fn mend(self: Box<Self>, lab: &mut Lab) -> anyhow::Result<Evidence> {
        let mut stopped = self.stopped;
        for (place, process) in self.places.iter().zip(&self.processes) {
            let server = lab.server(*place)?;
            stopped &= server.state() == Some('T') && server.identity() == *process;
            server.signal(Signal::CONT)?;
        }
        Ok(Evidence::of(stopped, format!("stopped from the beginning to the end: {stopped}")))
    }
}

#[derive(Debug)]
struct Rolled {
    restarted: usize,
    asked: usize,
    handed: bool,
}

/// Stops and starts each free node as an operator does, waiting for each; then hands the leadership on.
pub(super) fn rolling(strike: &mut Strike<'_>) -> anyhow::Result<Outcome> {
    let mut places = strike.free();
    places.shuffle(strike.chance);
    if places.is_empty() {
        return Strike::skipped();
    }
    let asked = places.len();
    let mut restarted = 0;
    for place in places {
        let before = strike.lab.server(place)?.identity();
        strike.lab.stop(place)?;
        strike.lab.start(place)?;
        restarted += usize::from(strike.lab.server(place)?.identity() != before);
        // Not all may be up, so one that stays unready is no failure: convergence is asked for at the end of the run.
        strike.lab.settle(place, READY_TIMEOUT)?;
    }
    let handed = strike.chance.random_bool(0.5) && hand_on(strike.lab);
    Ok(Outcome::Installed(Box::new(Rolled { restarted, asked, handed })))
}

fn hand_on(lab: &mut Lab) -> bool {
    let Ok(leader) = lab.wait_leader(LEADER_TIMEOUT) else { return false };
    let Ok(node) = lab.node(leader) else { return false };
    let body = serde_json::json!({});
    control::change(node.http(), "POST", "/api/v1/cluster/transfer-leader", Some(&body)).is_ok()
}

impl Active for Rolled {
    fn name(&self) -> String {
        "rolling restart".to_owned()
    }

    fn holds(&self) -> BTreeSet<u8> {
        BTreeSet::new()
    }

    fn mend(self: Box<Self>, _lab: &mut Lab) -> anyhow::Result<Evidence> {
        let words = format!(
            "{} of {} restarted, leadership handed on: {}",
            self.restarted, self.asked, self.handed
        );
        Ok(Evidence::of(self.restarted == self.asked, words))
    }
}
