//! Reads of a node's files fail: it may stop, or say that it cannot answer; it must not answer wrongly.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rand::Rng as _;
use rustix::io::Errno;

use super::{Active, Evidence, Outcome, Strike};
use crate::lab::shim::{Page, Word};
use crate::lab::{Duty, Lab, control};

/// How long a node may take that is to open its files.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one may go without reading from its disk: what it needs may be in memory.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug)]
struct Unreadable {
    place: u8,
    every: i64,
    restarted: bool,
    before: i64,
    seen: i64,
    patience: Instant,
}

fn page(lab: &mut Lab, place: u8) -> anyhow::Result<&mut Page> {
    lab.node(place)?.page.as_mut().context("the run was begun without the shim")
}

pub(super) fn install(strike: &mut Strike<'_>) -> anyhow::Result<Outcome> {
    let Some(place) = strike.one() else { return Strike::skipped() };
    // A restarted node reads all of its log, and more.
    let restarted = strike.chance.random_bool(0.5);
    let every = [1, 3, 20, 200][strike.chance.random_range(0..4)];
    // Which read is the first to fail.
    let seen = strike.chance.random_range(0..every);
    if restarted {
        strike.lab.kill(place)?;
    }
    let page = page(strike.lab, place)?;
    let before = page.get(Word::ReadsFailed)?;
    page.set(Word::ReadsSeen, seen)?;
    page.set(Word::ReadEvery, every)?;
    page.set(Word::ReadError, i64::from(Errno::IO.raw_os_error()))?;
    if restarted {
        strike.lab.start(place)?;
    }
    strike.lab.node(place)?.duty = Duty::MayEnd;
    let patience = Instant::now() + PATIENCE;
    Ok(Outcome::Installed(Box::new(Unreadable { place, every, restarted, before, seen, patience })))
}

impl Unreadable {
    fn failed(&self, lab: &mut Lab) -> anyhow::Result<i64> {
        Ok(page(lab, self.place)?.get(Word::ReadsFailed)? - self.before)
    }
}

impl Active for Unreadable {
    fn name(&self) -> String {
        let restarted = if self.restarted { ", which is restarted," } else { "" };
        match self.every {
            1 => format!("reads of {}{restarted} fail", self.place),
            every => format!("one of {every} reads of {}{restarted} fails", self.place),
        }
    }

    fn holds(&self) -> BTreeSet<u8> {
        BTreeSet::from([self.place])
    }

    /// Asks for what is on the disk and not in memory, until something was read.
    fn is_due(&mut self, lab: &mut Lab) -> anyhow::Result<bool> {
        lab.supervise()?;
        if self.failed(lab)? > 0 || Instant::now() > self.patience {
            return Ok(true);
        }
        if lab.node(self.place)?.server.is_some() {
            // Whatever it answers: what clients may conclude is what they are told.
            let _ = control::get(lab.node(self.place)?.http(), "/api/v1/audit/verify");
        }
        Ok(false)
    }

    fn mend(self: Box<Self>, lab: &mut Lab) -> anyhow::Result<Evidence> {
        let place = self.place;
        // One that is just starting finds out whether it can.
        if self.restarted {
            lab.settle(place, START_TIMEOUT)?;
        } else {
            lab.supervise()?;
        }
        let failed = self.failed(lab)?;
        let page = page(lab, place)?;
        let seen = page.get(Word::ReadsSeen)? - self.seen;
        page.set(Word::ReadError, 0)?;
        let node = lab.node(place)?;
        let (runs, status, log) = (node.server.is_some(), node.ended, node.log_tail(4));
        let status = status.filter(|_| !runs);
        let wrong = status.filter(|status| !matches!(status.code(), Some(1 | 3)));
        let wrong = wrong.map(|status| {
            format!("node {place} could not read its files and ended with {status}: {log}")
        });
        lab.give_back(place)?;
        let end = status.map_or_else(
            || "it went on".to_owned(),
            |status| format!("{status}: {}", log.lines().last().unwrap_or_default()),
        );
        Ok(Evidence {
            bit: failed > 0,
            words: format!("{failed} of {seen} reads failed; {end}"),
            wrong,
        })
    }
}
