//! Faults of disks: full, slow, failing at syncs, and lying about them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rand::Rng as _;
use rustix::io::Errno;

use super::{Active, Evidence, Outcome, Strike, listed, set};
use crate::lab::disk::Unsynced;
use crate::lab::shim::{Page, Word};
use crate::lab::{Duty, Lab};

/// Less than the smallest write of the storage engine needs.
const ROOM_BYTES: u64 = 4096;

fn page(lab: &mut Lab, place: u8) -> anyhow::Result<&mut Page> {
    lab.node(place)?.page.as_mut().context("the run was begun without the shim")
}

fn touched(lab: &mut Lab, places: &[u8]) -> anyhow::Result<i64> {
    places.iter().map(|place| page(lab, *place)?.get(Word::SyncsTouched)).sum()
}

#[derive(Debug)]
struct Full {
    places: Vec<u8>,
    taken: u64,
    left: u64,
}

pub(super) fn full(strike: &mut Strike<'_>) -> anyhow::Result<Outcome> {
    let places = strike.some();
    if places.is_empty() {
        return Strike::skipped();
    }
    let (mut taken, mut left) = (0, 0);
    for place in &places {
        let node = strike.lab.node(*place)?;
        // Whoever cannot write its log may stop.
        node.duty = Duty::MayEnd;
        taken += node.disk.fill(ROOM_BYTES)?;
        left += node.disk.free()?;
    }
    Ok(Outcome::Installed(Box::new(Full { places, taken, left })))
}

impl Active for Full {
    fn name(&self) -> String {
        format!("full disk of {}", listed(&self.places))
    }

    fn holds(&self) -> BTreeSet<u8> {
        set(&self.places)
    }

    fn mend(self: Box<Self>, lab: &mut Lab) -> anyhow::Result<Evidence> {
        lab.supervise()?;
        let mut ended = 0;
        for place in &self.places {
            let node = lab.node(*place)?;
            node.disk.free_filler()?;
            ended += usize::from(node.server.is_none());
            lab.give_back(*place)?;
        }
        let room = ROOM_BYTES * 64 * self.places.len() as u64;
        let (taken, left) = (self.taken >> 20, self.left);
        let words = format!(
            "{taken} MiB taken, {left} bytes were left; {ended} nodes stopped by themselves"
        );
        Ok(Evidence::of(self.taken > 0 && self.left < room, words))
    }
}

/// How long a disk may go without a write or a sync: a node that is cut off from the others has nothing to write.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug)]
enum Slow {
    /// Each sync waits.
    Syncs { places: Vec<u8>, millis: i64, before: i64, begun: Instant },
    /// The device takes few writes a second.
    Device { place: u8, writes: u64, before: u64, begun: Instant },
}

pub(super) fn slow(strike: &mut Strike<'_>) -> anyhow::Result<Outcome> {
    if strike.chance.random_bool(0.5) {
        let places = strike.some();
        if places.is_empty() {
            return Strike::skipped();
        }
        let millis = [20, 100, 500, 2000][strike.chance.random_range(0..4)];
        let before = touched(strike.lab, &places)?;
        for place in &places {
            page(strike.lab, *place)?.set(Word::SyncDelay, millis * 1000)?;
        }
        let begun = Instant::now();
        return Ok(Outcome::Installed(Box::new(Slow::Syncs { places, millis, before, begun })));
    }
    let Some(place) = strike.one() else { return Strike::skipped() };
    let writes = [10, 30, 100][strike.chance.random_range(0..3)];
    limit(strike.lab, place, writes)?;
    let before = written(strike.lab, place)?;
    let begun = Instant::now();
    Ok(Outcome::Installed(Box::new(Slow::Device { place, writes, before, begun })))
}

/// 0 is no limit.
fn limit(lab: &mut Lab, place: u8, writes: u64) -> anyhow::Result<()> {
    let node = lab.node(place)?;
    let limit = format!("{} {writes}", node.disk.number()?);
    let group = node.group.as_ref().context("the run was begun without control groups")?;
    group.set("blkio", "blkio.throttle.write_iops_device", &limit)
}

fn written(lab: &mut Lab, place: u8) -> anyhow::Result<u64> {
    let node = lab.node(place)?;
    let name = format!("{} Write ", node.disk.number()?);
    let group = node.group.as_ref().context("the run was begun without control groups")?;
    Ok(group.number("blkio", "blkio.throttle.io_serviced", &name).unwrap_or(0))
}

impl Active for Slow {
    fn name(&self) -> String {
        match self {
            Self::Syncs { places, millis, .. } => {
                format!("syncs of {} take {millis} ms longer", listed(places))
            }
            Self::Device { place, writes, .. } => format!("{writes} writes a second for {place}"),
        }
    }

    fn holds(&self) -> BTreeSet<u8> {
        match self {
            Self::Syncs { places, .. } => set(places),
            Self::Device { place, .. } => BTreeSet::from([*place]),
        }
    }

    fn is_due(&mut self, lab: &mut Lab) -> anyhow::Result<bool> {
        let (bit, begun) = match self {
            Self::Syncs { places, before, begun, .. } => (touched(lab, places)? > *before, begun),
            Self::Device { place, before, begun, .. } => (written(lab, *place)? > *before, begun),
        };
        Ok(bit || begun.elapsed() > PATIENCE)
    }

    fn mend(self: Box<Self>, lab: &mut Lab) -> anyhow::Result<Evidence> {
        match *self {
            Self::Syncs { places, before, .. } => {
                for place in &places {
                    page(lab, *place)?.set(Word::SyncDelay, 0)?;
                }
                let touched = touched(lab, &places)? - before;
                Ok(Evidence::of(touched > 0, format!("{touched} syncs waited")))
            }
            Self::Device { place, writes, before, begun } => {
                let done = written(lab, place)?.saturating_sub(before);
                let seconds = begun.elapsed().as_secs() + 1;
                limit(lab, place, 0)?;
                // The controller lets a burst of a tenth of a second through.
                let bit = done > 0 && done <= writes * seconds + writes / 5 + 5;
                Ok(Evidence::of(bit, format!("{done} writes in {seconds} s")))
            }
        }
    }
}

#[derive(Debug)]
struct Failing {
    place: u8,
    once: bool,
    before: i64,
    begun: Instant,
}

/// A node whose disk fails a sync does not know what is on it: it must stop, and may come back with what is really there.
pub(super) fn error(strike: &mut Strike<'_>) -> anyhow::Result<Outcome> {
    let Some(place) = strike.one() else { return Strike::skipped() };
    let before = touched(strike.lab, &[place])?;
    strike.lab.node(place)?.duty = Duty::MayEnd;
    // The kernel tells of a page that it could not write once: whoever syncs again hears that all is well.
    let once = strike.chance.random_bool(0.5);
    let code = i64::from(Errno::IO.raw_os_error());
    let page = page(strike.lab, place)?;
    page.set(Word::SyncsToFail, if once { 1 } else { -1 })?;
    page.set(Word::SyncError, code)?;
    Ok(Outcome::Installed(Box::new(Failing { place, once, before, begun: Instant::now() })))
}

/// How long a node may go on after its disk failed.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

impl Active for Failing {
    fn name(&self) -> String {
        if self.once {
            format!("one sync of {} fails", self.place)
        } else {
            format!("syncs of {} fail", self.place)
        }
    }

    fn holds(&self) -> BTreeSet<u8> {
        BTreeSet::from([self.place])
    }

    fn is_due(&mut self, lab: &mut Lab) -> anyhow::Result<bool> {
        Ok(touched(lab, &[self.place])? > self.before || self.begun.elapsed() > PATIENCE)
    }

    fn mend(self: Box<Self>, lab: &mut Lab) -> anyhow::Result<Evidence> {
        let place = self.place;
        let touched = touched(lab, &[place])? - self.before;
        let deadline = Instant::now() + STOP_TIMEOUT;
        lab.supervise()?;
        while touched > 0 && lab.node(place)?.server.is_some() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
            lab.supervise()?;
        }
        let status = lab.node(place)?.ended;
        let wrong = match status {
            None if touched > 0 => Some(format!("node {place} goes on although its syncs fail")),
            Some(status) if status.code() != Some(1) => {
                Some(format!("node {place} ended with {status} instead of exit code 1"))
            }
            _ => None,
        };
        page(lab, place)?.set(Word::SyncError, 0)?;
        // What was written and not synced is gone with the disk that failed.
        let unsynced = lab.cut_power(&[place])?;
        lab.start(place)?;
        let ended = status.map_or_else(|| "ran on".to_owned(), |status| status.to_string());
        let words = format!("{touched} syncs failed; {ended}; then unsynced data: {unsynced:?}");
        Ok(Evidence { bit: touched > 0, words, wrong })
    }
}

#[derive(Debug)]
struct Lying {
    places: Vec<u8>,
    before: i64,
}

pub(super) fn lie(strike: &mut Strike<'_>) -> anyhow::Result<Outcome> {
    let places = strike.free();
    if places.len() < strike.lab.members().len() {
        return Strike::skipped();
    }
    let before = touched(strike.lab, &places)?;
    for place in &places {
        page(strike.lab, *place)?.set(Word::SyncLies, 1)?;
    }
    Ok(Outcome::Installed(Box::new(Lying { places, before })))
}

impl Active for Lying {
    fn name(&self) -> String {
        "syncs lie, then power cut of all".to_owned()
    }

    fn holds(&self) -> BTreeSet<u8> {
        set(&self.places)
    }

    fn mend(self: Box<Self>, lab: &mut Lab) -> anyhow::Result<Evidence> {
        let touched = touched(lab, &self.places)? - self.before;
        let unsynced = lab.cut_power(&self.places)?;
        for place in &self.places {
            page(lab, *place)?.set(Word::SyncLies, 0)?;
            lab.start(*place)?;
        }
        let lost = unsynced.iter().all(|unsynced| *unsynced == Unsynced::Lost);
        Ok(Evidence::of(touched > 0 && lost, format!("{touched} syncs left out; {unsynced:?}")))
    }
}
