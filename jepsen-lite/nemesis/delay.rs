//! Faults of time on the network: packets come late, in another order, or twice.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rand::Rng as _;
use rand::seq::IndexedRandom as _;

use super::{Active, Evidence, Outcome, Strike, listed, set};
use crate::lab::Lab;
use crate::lab::net::Port;
use crate::lab::wire::{Counts, Weather, Wire};

const fn weather(percent: u32, delay: u64, jitter: u64, doubled: u32) -> Weather {
    let (delay, jitter) = (Duration::from_millis(delay), Duration::from_millis(jitter));
    Weather { percent, delay, jitter, doubled }
}

const FAR_AWAY: Weather = weather(100, 20, 10, 0);
const WEATHERS: [Weather; 6] = [
    FAR_AWAY,
    // Longer than a heartbeat may take.
    weather(100, 75, 50, 0),
    weather(100, 1, 200, 0),
    weather(15, 5, 40, 0),
    weather(100, 0, 5, 10),
    weather(3, 500, 1500, 2),
];

/// How long a wire may go without enough packets to do all that it should.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug)]
struct Late {
    wires: Vec<(u8, Wire)>,
    weather: Weather,
    begun: Instant,
}

pub(super) fn install(strike: &mut Strike<'_>) -> anyhow::Result<Outcome> {
    let all = strike.chance.random_bool(0.3);
    let places = if all { strike.free() } else { strike.one().into_iter().collect() };
    if places.is_empty() {
        return Strike::skipped();
    }
    let any = *WEATHERS.choose(strike.chance).context("no weather")?;
    // With a wire at every node each packet waits twice: more would be no network at all.
    let weather = if all { FAR_AWAY } else { any };
    let mut wires = Vec::new();
    for place in places {
        let seed = strike.chance.random();
        wires.push((place, strike.lab.network.lay_wire(Port::Node(place), weather, seed)?));
    }
    Ok(Outcome::Installed(Box::new(Late { wires, weather, begun: Instant::now() })))
}

impl Late {
    fn places(&self) -> Vec<u8> {
        self.wires.iter().map(|(place, _)| *place).collect()
    }

    fn bit(&self, counts: Counts) -> bool {
        let Counts { delayed, overtaken, doubled } = counts;
        delayed > 0 && overtaken > 0 && (doubled > 0 || self.weather.doubled == 0)
    }
}

impl Active for Late {
    fn name(&self) -> String {
        let Weather { percent, delay, jitter, doubled } = self.weather;
        let twice = if doubled > 0 { format!(", {doubled} % come twice") } else { String::new() };
        format!(
            "{percent} % of the packets of {} are {}–{} ms late{twice}",
            listed(&self.places()),
            delay.as_millis(),
            (delay + jitter).as_millis()
        )
    }

    fn holds(&self) -> BTreeSet<u8> {
        set(&self.places())
    }

    fn is_due(&mut self, _lab: &mut Lab) -> anyhow::Result<bool> {
        let counts = self.wires.iter().map(|(_, wire)| wire.counts());
        Ok(self.bit(counts.sum()) || self.begun.elapsed() > PATIENCE)
    }

    fn mend(mut self: Box<Self>, lab: &mut Lab) -> anyhow::Result<Evidence> {
        let taken = std::mem::take(&mut self.wires).into_iter();
        let taken = taken.map(|(place, wire)| lab.network.take_wire(Port::Node(place), wire));
        let counts: Counts = taken.collect::<anyhow::Result<Vec<_>>>()?.into_iter().sum();
        let Counts { delayed, overtaken, doubled } = counts;
        let words = format!("{delayed} packets late, {overtaken} overtaken, {doubled} twice");
        Ok(Evidence::of(self.bit(counts), words))
    }
}
