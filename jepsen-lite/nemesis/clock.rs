//! Faults of the wall clock: it jumps, at one node or at all, once or all the time. The machine's clock is not touched.

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

fn asked(lab: &mut Lab, places: &[u8]) -> anyhow::Result<i64> {
    places.iter().map(|place| page(lab, *place)?.get(Word::ClockAsked)).sum()
}

pub(super) fn install(strike: &mut Strike<'_>) -> anyhow::Result<Outcome> {
    let places = strike.some();
    if places.is_empty() {
        return Strike::skipped();
    }
    let seconds = *JUMPS_SECONDS.choose(strike.chance).context("no jumps")?;
    let asked_before = asked(strike.lab, &places)?;
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
        let asked = asked(lab, &self.places)? - self.asked_before;
        Ok(Evidence::of(asked > 0, format!("the moved clock was asked {asked} times")))
    }
}
