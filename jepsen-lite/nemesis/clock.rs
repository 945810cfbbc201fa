//! Faults of clocks: the wall clock jumps, at one node or at all, once or all the time; the other clock runs fast or slow.
//! The machine's clocks are not touched.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rand::Rng as _;
use rand::seq::IndexedRandom as _;

use super::{Active, Evidence, Outcome, Strike, listed, set};
use crate::lab::Lab;
use crate::lab::shim::{Page, Word};

const SECOND_NS: i64 = 1_000_000_000;
const STROBE: Duration = Duration::from_millis(100);
const JUMPS_SECONDS: [i64; 6] = [10, 120, 3600, -10, -3600, -86400];

#[derive(Debug)]
struct Jumped {
    places: Vec<u8>,
    seconds: i64,
    asked_before: i64,
    strobe: Option<Strobe>,
}

#[derive(Debug)]
struct Strobe {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<anyhow::Result<()>>,
}

fn page(lab: &mut Lab, place: u8) -> anyhow::Result<&mut Page> {
    lab.node(place)?.page.as_mut().context("the run was begun without the shim")
}

fn sum(lab: &mut Lab, places: &[u8], word: Word) -> anyhow::Result<i64> {
    places.iter().map(|place| page(lab, *place)?.get(word)).sum()
}

pub(super) fn install(strike: &mut Strike<'_>) -> anyhow::Result<Outcome> {
    let places = strike.some();
    if places.is_empty() {
        return Strike::skipped();
    }
    let seconds = *JUMPS_SECONDS.choose(strike.chance).context("no jumps")?;
    let asked_before = sum(strike.lab, &places, Word::ClockAsked)?;
    for place in &places {
        page(strike.lab, *place)?.set(Word::WallOffset, seconds * SECOND_NS)?;
    }
    let strobe = strike.chance.random_bool(0.3);
    let strobe = strobe.then(|| begin_strobe(strike.lab, &places, seconds)).transpose()?;
    Ok(Outcome::Installed(Box::new(Jumped { places, seconds, asked_before, strobe })))
}

fn begin_strobe(lab: &mut Lab, places: &[u8], seconds: i64) -> anyhow::Result<Strobe> {
    let stop = Arc::new(AtomicBool::new(false));
    let mut pages = Vec::new();
    for place in places {
        pages.push(Page::open(page(lab, *place)?.path().to_path_buf())?);
    }
    let stopped = stop.clone();
    let thread = thread::spawn(move || {
        let mut on = false;
        while !stopped.load(Ordering::Relaxed) {
            for page in &pages {
                page.set(Word::WallOffset, if on { seconds * SECOND_NS } else { 0 })?;
            }
            on = !on;
            thread::sleep(STROBE);
        }
        Ok(())
    });
    Ok(Strobe { stop, thread })
}

impl Active for Jumped {
    fn name(&self) -> String {
        let how = if self.strobe.is_some() { ", back and forth" } else { "" };
        format!("clock of {} by {} s{how}", listed(&self.places), self.seconds)
    }

    fn holds(&self) -> BTreeSet<u8> {
        set(&self.places)
    }

    fn mend(self: Box<Self>, lab: &mut Lab) -> anyhow::Result<Evidence> {
        if let Some(strobe) = self.strobe {
            strobe.stop.store(true, Ordering::Relaxed);
            let Ok(ended) = strobe.thread.join() else { bail!("the strobe panicked") };
            ended?;
        }
        for place in &self.places {
            page(lab, *place)?.set(Word::WallOffset, 0)?;
        }
        let asked = sum(lab, &self.places, Word::ClockAsked)? - self.asked_before;
        Ok(Evidence::of(asked > 0, format!("the moved clock was asked {asked} times")))
    }
}

/// In millionths.
const TRUE_RATE: i64 = 1_000_000;
const RATES: [i64; 5] = [500_000, 700_000, 900_000, 1_500_000, 2_000_000];

/// The clock by which timeouts are measured runs at another rate: the kernel's own waits of the node follow it.
#[derive(Debug)]
struct Distorted {
    places: Vec<u8>,
    rate: i64,
    gained_before: Vec<i64>,
    asked_before: i64,
}

pub(super) fn rate(strike: &mut Strike<'_>) -> anyhow::Result<Outcome> {
    let places = strike.some();
    if places.is_empty() {
        return Strike::skipped();
    }
    let rate = *RATES.choose(strike.chance).context("no rates")?;
    let asked_before = sum(strike.lab, &places, Word::RateAsked)?;
    let mut gained_before = Vec::new();
    for place in &places {
        let page = page(strike.lab, *place)?;
        gained_before.push(page.get(Word::Gained)?);
        page.set(Word::Rate, rate)?;
    }
    let distorted = Distorted { places, rate, gained_before, asked_before };
    Ok(Outcome::Installed(Box::new(distorted)))
}

impl Active for Distorted {
    fn name(&self) -> String {
        let percent = self.rate / 10_000;
        format!("clock of {} at {percent} % of its rate", listed(&self.places))
    }

    fn holds(&self) -> BTreeSet<u8> {
        set(&self.places)
    }

    fn mend(self: Box<Self>, lab: &mut Lab) -> anyhow::Result<Evidence> {
        let asked = sum(lab, &self.places, Word::RateAsked)? - self.asked_before;
        let (mut bit, mut gained) = (asked > 0, Vec::new());
        for (place, before) in self.places.iter().zip(&self.gained_before) {
            let page = page(lab, *place)?;
            let gain = page.get(Word::Gained)? - before;
            page.set(Word::Rate, TRUE_RATE)?;
            bit &= gain != 0 && (gain > 0) == (self.rate > TRUE_RATE);
            gained.push((gain / 1_000_000).to_string());
        }
        let gained = gained.join(", ");
        Ok(Evidence::of(bit, format!("asked {asked} times, {gained} ms ahead of the true clock")))
    }
}
