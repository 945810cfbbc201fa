//! The machines and the network between them, as whoever runs the simulation handles them.

use std::collections::BTreeMap;
use std::time::Duration;

use llm_config_replica::Replica;
use llm_config_simdisk as disk;

use crate::node::{Asked, Seen, Shared, Software, lock, name};
use crate::plan::Plan;

/// Segments that a connection may hold: flow control is that of HTTP/2.
const TCP_SEGMENTS: usize = 65_536;
/// How often a broken link is whole again at the next message.
const REPAIR_RATE: f64 = 0.02;

struct Machine {
    software: Software,
    running: bool,
    /// Counts the starts: what was asked before the last one is lost.
    life: u64,
    failed_syncs: u64,
}

/// What is wrong with a link, and until when.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Link {
    /// From the lower to the higher id, and back.
    cut_until: [u64; 2],
    /// Nothing arrives, nothing is lost.
    held_until: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Open,
    Held,
    Cut(bool, bool),
}

pub struct Cluster {
    sim: turmoil::Sim<'static>,
    machines: BTreeMap<u64, Machine>,
    plan: Plan,
    pub seen: Shared<Seen>,
    pub tick: u64,
    links: BTreeMap<(u64, u64), Link>,
    shapes: BTreeMap<(u64, u64), Shape>,
}

impl Cluster {
    pub fn new(plan: &Plan) -> Self {
        let (least, most) = plan.latency_ms;
        let sim = turmoil::Builder::new()
            .rng_seed(plan.seed)
            .tick_duration(Duration::from_millis(1))
            .simulation_duration(Duration::from_secs(3_600))
            .min_message_latency(Duration::from_millis(least))
            .max_message_latency(Duration::from_millis(most))
            .repair_rate(REPAIR_RATE)
            .tcp_capacity(TCP_SEGMENTS)
            .enable_random_order()
            .build();
        let mut cluster = Self {
            sim,
            machines: BTreeMap::new(),
            plan: plan.clone(),
            seen: Shared::default(),
            tick: 0,
            links: BTreeMap::new(),
            shapes: BTreeMap::new(),
        };
        for id in 1..=plan.founders {
            cluster.add(id);
        }
        cluster
    }

    /// Sets a new machine up and starts it.
    pub fn add(&mut self, id: u64) {
        disk::add(&name(id));
        let (least, most) = self.plan.disk_us;
        self.set_disk_latency(id, Duration::from_micros(least), Duration::from_micros(most));
        let software = Software::new(&self.plan, id, &self.seen);
        let starts = software.clone();
        self.sim.host(name(id), move || starts.clone().run());
        for other in self.machines.keys() {
            self.links.insert((*other.min(&id), *other.max(&id)), Link::default());
        }
        self.machines.insert(id, Machine { software, running: true, life: 1, failed_syncs: 0 });
    }

    pub fn ids(&self) -> Vec<u64> {
        self.machines.keys().copied().collect()
    }

    pub fn knows(&self, id: u64) -> bool {
        self.machines.contains_key(&id)
    }

    pub fn is_running(&self, id: u64) -> bool {
        self.machines.get(&id).is_some_and(|machine| machine.running)
    }

    pub fn running(&self) -> Vec<u64> {
        self.ids().into_iter().filter(|id| self.is_running(*id)).collect()
    }

    pub fn life(&self, id: u64) -> u64 {
        self.machines.get(&id).map_or(0, |machine| machine.life)
    }

    pub fn replica(&self, id: u64) -> Option<Replica> {
        lock(&self.machines.get(&id)?.software.slot).replica.clone()
    }

    /// Those that can be asked.
    pub fn open(&self) -> Vec<u64> {
        self.running().into_iter().filter(|id| self.replica(*id).is_some()).collect()
    }

    pub fn ask(&self, id: u64, asked: Asked) -> bool {
        self.machines.get(&id).is_some_and(|machine| lock(&machine.software.slot).ask(asked))
    }

    /// What nodes answered since the last call.
    pub fn answers(&self) -> Vec<(u64, crate::node::Answer)> {
        let slots = self.machines.values().map(|machine| &machine.software.slot);
        slots.flat_map(|slot| std::mem::take(&mut lock(slot).answers)).collect()
    }

    /// Why a program ended by itself, when it has.
    pub fn ended(&self, id: u64) -> Option<String> {
        lock(&self.machines.get(&id)?.software.slot).ended.clone()
    }

    /// Whether the disk of a node did what no disk should since its last start.
    pub fn disk_failed(&self, id: u64) -> bool {
        let failed = disk::counters(&name(id)).failed_syncs;
        disk::is_frozen(&name(id))
            || self.machines.get(&id).is_some_and(|machine| failed > machine.failed_syncs)
    }

    pub fn step(&mut self) -> Result<(), String> {
        self.sim.step().map_err(|error| error.to_string())?;
        self.tick += 1;
        Ok(())
    }

    /// Switches a machine off, in the midst of whatever it does.
    pub fn stop(&mut self, id: u64, power: bool) {
        let Some(machine) = self.machines.get_mut(&id) else { return };
        if !std::mem::replace(&mut machine.running, false) {
            return;
        }
        machine.life += 1;
        // What ends now must not reach the disk any more.
        disk::freeze(&name(id));
        lock(&machine.software.slot).clear();
        self.sim.crash(name(id));
        if power {
            disk::power_cut(&name(id));
        } else {
            disk::restart(&name(id));
        }
    }

    pub fn start(&mut self, id: u64) {
        let Some(machine) = self.machines.get_mut(&id) else { return };
        if std::mem::replace(&mut machine.running, true) {
            return;
        }
        machine.failed_syncs = disk::counters(&name(id)).failed_syncs;
        self.sim.bounce(name(id));
    }

    pub fn set_disk_latency(&self, id: u64, least: Duration, most: Duration) {
        disk::set_latency(&name(id), least, most);
    }

    pub fn usual_disk_latency(&self, id: u64) {
        let (least, most) = self.plan.disk_us;
        self.set_disk_latency(id, Duration::from_micros(least), Duration::from_micros(most));
    }

    pub fn set_loss(&mut self, rate: f64) {
        self.sim.set_fail_rate(rate);
        if rate == 0.0 {
            // What was broken by chance is not repaired by it any more.
            self.shapes.retain(|_, shape| *shape == Shape::Held);
        }
    }

    /// Cuts the way from one machine to another for a time.
    pub fn cut(&mut self, from: u64, to: u64, until: u64) {
        if let Some(link) = self.links.get_mut(&(from.min(to), from.max(to))) {
            let way = &mut link.cut_until[usize::from(from > to)];
            *way = (*way).max(until);
        }
    }

    /// Delays everything between two machines until then.
    pub fn hold(&mut self, a: u64, b: u64, until: u64) {
        if let Some(link) = self.links.get_mut(&(a.min(b), a.max(b))) {
            link.held_until = link.held_until.max(until);
        }
    }

    pub fn heal_network(&mut self) {
        for link in self.links.values_mut() {
            *link = Link::default();
        }
        self.set_loss(0.0);
    }

    /// Makes the links what they are to be now.
    pub fn shape_links(&mut self) {
        let now = self.tick;
        for (pair, link) in &self.links {
            let shape = match link.cut_until.map(|until| until > now) {
                _ if link.held_until > now => Shape::Held,
                [false, false] => Shape::Open,
                [there, back] => Shape::Cut(there, back),
            };
            let before = self.shapes.insert(*pair, shape);
            if before == Some(shape) {
                continue;
            }
            let (a, b) = (name(pair.0), name(pair.1));
            if before == Some(Shape::Held) {
                self.sim.release(a.as_str(), b.as_str());
            }
            self.sim.repair(a.as_str(), b.as_str());
            match shape {
                Shape::Open => {}
                Shape::Held => self.sim.hold(a.as_str(), b.as_str()),
                Shape::Cut(true, true) => self.sim.partition(a.as_str(), b.as_str()),
                Shape::Cut(there, _) => {
                    let (from, to) = if there { (a, b) } else { (b, a) };
                    self.sim.partition_oneway(from.as_str(), to.as_str());
                }
            }
        }
    }
}
