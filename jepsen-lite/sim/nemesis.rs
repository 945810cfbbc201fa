//! What goes wrong, and when.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use llm_config_replica::{Advertise, MemberChange};
use llm_config_simdisk::{self as disk, Chance};

use crate::cluster::Cluster;
use crate::node::{Answer, Ask, Asked, address, name, set_skew};
use crate::plan::{Plan, Rates};
use crate::trace::Trace;

/// Numbers of its own questions begin here; clients count from 1.
const OWN_NUMBERS: u64 = 1 << 40;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    Kill,
    Power,
    PowerAll,
    CrashWithin,
    SyncError,
    SlowDisk,
    Partition,
    OneWay,
    Stall,
    Loss,
    Snapshot,
    Election,
    Transfer,
    Clock,
    Members,
}

fn rates(rates: &Rates) -> [(Fault, u64); 15] {
    [
        (Fault::Kill, rates.kill),
        (Fault::Power, rates.power),
        (Fault::PowerAll, rates.power_all),
        (Fault::CrashWithin, rates.crash_within),
        (Fault::SyncError, rates.sync_error),
        (Fault::SlowDisk, rates.slow_disk),
        (Fault::Partition, rates.partition),
        (Fault::OneWay, rates.one_way),
        (Fault::Stall, rates.stall),
        (Fault::Loss, rates.loss),
        (Fault::Snapshot, rates.snapshot),
        (Fault::Election, rates.election),
        (Fault::Transfer, rates.transfer),
        (Fault::Clock, rates.clock),
        (Fault::Members, rates.members),
    ]
}

#[derive(Debug, Clone, Copy)]
enum Later {
    Start(u64),
    UsualDisk(u64),
    NoLoss,
}

pub struct Nemesis {
    plan: Plan,
    chance: Chance,
    /// When each kind of fault comes next.
    next: BTreeMap<Fault, u64>,
    later: BTreeMap<u64, Vec<Later>>,
    numbers: u64,
    /// Nodes whose removal was asked for: they may end for it.
    leaving: BTreeSet<u64>,
    /// Nodes that said that they were removed.
    pub removed: BTreeSet<u64>,
    counts: BTreeMap<Fault, u64>,
    pub violations: Vec<String>,
}

impl Nemesis {
    pub fn new(plan: &Plan, chance: &mut Chance) -> Self {
        let mut nemesis = Self {
            plan: plan.clone(),
            chance: chance.fork(),
            next: BTreeMap::new(),
            later: BTreeMap::new(),
            numbers: OWN_NUMBERS,
            leaving: BTreeSet::new(),
            removed: BTreeSet::new(),
            counts: BTreeMap::new(),
            violations: Vec::new(),
        };
        for id in 1..=plan.nodes() {
            nemesis.skew(id);
        }
        for (fault, rate) in rates(&plan.rates) {
            nemesis.schedule(fault, rate, 0);
        }
        nemesis
    }

    /// What came, and how often.
    pub fn summary(&self) -> String {
        let counts = self.counts.iter().map(|(fault, count)| format!("{fault:?} {count}"));
        counts.collect::<Vec<_>>().join(", ")
    }

    fn schedule(&mut self, fault: Fault, rate: u64, now: u64) {
        if let Some(twice_the_mean) = 120_000_u64.checked_div(rate) {
            let gap = self.chance.between(1, twice_the_mean);
            self.next.insert(fault, now + gap);
        }
    }

    fn skew(&mut self, id: u64) {
        let most = self.plan.skew_ms;
        let ahead = i64::try_from(self.chance.between(0, most)).unwrap_or(0);
        set_skew(id, if self.chance.percent(50) { ahead } else { -ahead });
    }

    fn after(&mut self, tick: u64, later: Later) {
        self.later.entry(tick).or_default().push(later);
    }

    /// How long a machine stays off: mostly shorter than an election, now and then far longer.
    fn outage(&mut self) -> u64 {
        if self.chance.percent(70) {
            self.chance.between(5, 400)
        } else {
            self.chance.between(1_000, 4_000)
        }
    }

    /// What is due, and what new faults come in this tick.
    pub fn turn(&mut self, cluster: &mut Cluster, trace: &mut Trace) {
        self.notice(cluster, trace);
        while let Some(due) = self.later.first_entry().filter(|due| *due.key() <= cluster.tick) {
            for later in due.remove() {
                trace.line(cluster.tick, format_args!("{later:?}"));
                match later {
                    Later::Start(id) => cluster.start(id),
                    Later::UsualDisk(id) => cluster.usual_disk_latency(id),
                    Later::NoLoss => cluster.set_loss(0.0),
                }
            }
        }
        if cluster.tick <= self.plan.faults_ms {
            for (fault, rate) in rates(&self.plan.rates) {
                if self.next.get(&fault).is_some_and(|next| *next <= cluster.tick) {
                    self.schedule(fault, rate, cluster.tick);
                    self.strike(fault, cluster, trace);
                }
            }
        }
        cluster.shape_links();
    }

    /// Machines that stopped in the midst of an operation, and programs that ended by themselves.
    fn notice(&mut self, cluster: &mut Cluster, trace: &mut Trace) {
        for id in cluster.running() {
            let ended = cluster.ended(id);
            if disk::is_frozen(&name(id)) {
                let power = self.chance.percent(70);
                self.stop(cluster, id, power, trace);
                continue;
            }
            let Some(reason) = ended else { continue };
            trace.line(cluster.tick, format_args!("n{id} ended: {reason}"));
            if self.leaving.contains(&id) && reason.contains("was removed from cluster") {
                cluster.stop(id, false);
                self.removed.insert(id);
            } else {
                if !cluster.disk_failed(id) {
                    self.violations.push(format!("n{id} ended by itself: {reason}"));
                }
                let power = self.chance.percent(50);
                self.stop(cluster, id, power, trace);
            }
        }
    }

    fn stop(&mut self, cluster: &mut Cluster, id: u64, power: bool, trace: &mut Trace) {
        trace.line(cluster.tick, format_args!("n{id} stops, power cut: {power}"));
        cluster.stop(id, power);
        let outage = self.outage();
        self.after(cluster.tick + outage, Later::Start(id));
    }

    fn strike(&mut self, fault: Fault, cluster: &mut Cluster, trace: &mut Trace) {
        let running = cluster.running();
        let Some(node) = self.chance.pick(&running).copied() else { return };
        let until = cluster.tick
            + if self.chance.percent(70) {
                self.chance.between(50, 1_000)
            } else {
                self.chance.between(1_000, 4_000)
            };
        *self.counts.entry(fault).or_default() += 1;
        trace.line(cluster.tick, format_args!("{fault:?} at n{node}, until {until}"));
        match fault {
            Fault::Kill => self.stop(cluster, node, false, trace),
            Fault::Power => self.stop(cluster, node, true, trace),
            Fault::PowerAll => {
                for id in running {
                    self.stop(cluster, id, true, trace);
                }
            }
            Fault::CrashWithin => disk::freeze_after(&name(node), self.chance.below(40)),
            Fault::SyncError => disk::fail_sync_after(&name(node), self.chance.below(10)),
            Fault::SlowDisk => {
                let most = Duration::from_millis(self.chance.between(20, 300));
                cluster.set_disk_latency(node, most / 4, most);
                self.after(until, Later::UsualDisk(node));
            }
            Fault::Partition => self.partition(cluster, until),
            Fault::OneWay => self.one_way(cluster, node, until),
            Fault::Stall => {
                for other in cluster.ids().into_iter().filter(|other| *other != node) {
                    cluster.hold(node, other, until);
                }
            }
            Fault::Loss => {
                cluster.set_loss(0.002);
                self.after(until, Later::NoLoss);
            }
            Fault::Snapshot => {
                self.ask(cluster, node, Ask::Snapshot(self.plan.tuning.log_entries_kept))
            }
            Fault::Election => self.ask(cluster, node, Ask::Election),
            Fault::Transfer => {
                if let Some(target) = self.chance.pick(&running).copied() {
                    for id in running {
                        self.ask(cluster, id, Ask::Transfer(target));
                    }
                }
            }
            Fault::Clock => self.skew(node),
            Fault::Members => self.change_members(cluster, node, trace),
        }
    }

    /// Some against the others, or everybody for himself.
    fn partition(&mut self, cluster: &mut Cluster, until: u64) {
        let ids = cluster.ids();
        let sides: BTreeMap<u64, u64> = if self.chance.percent(85) {
            ids.iter().map(|id| (*id, self.chance.below(2))).collect()
        } else {
            ids.iter().map(|id| (*id, *id)).collect()
        };
        for a in &ids {
            for b in ids.iter().filter(|b| sides[*b] != sides[a]) {
                cluster.cut(*a, *b, until);
            }
        }
    }

    /// A node that is not heard, or does not hear, by all or by one.
    fn one_way(&mut self, cluster: &mut Cluster, node: u64, until: u64) {
        let all = self.chance.percent(50);
        let speaks = self.chance.percent(50);
        let others: Vec<u64> = cluster.ids().into_iter().filter(|other| *other != node).collect();
        let one = self.chance.pick(&others).copied();
        for other in others.into_iter().filter(|other| all || Some(*other) == one) {
            let (from, to) = if speaks { (other, node) } else { (node, other) };
            cluster.cut(from, to, until);
        }
    }

    fn ask(&mut self, cluster: &Cluster, node: u64, ask: Ask) {
        self.numbers += 1;
        let asked = Asked { number: self.numbers, ask, timeout: Duration::from_secs(5) };
        // Nobody waits for the answer, and a node that is not there is not asked.
        let _asked = cluster.ask(node, asked);
    }

    fn change_members(&mut self, cluster: &mut Cluster, node: u64, trace: &mut Trace) {
        let Some(inside) = cluster.replica(node).map(|replica| replica.inside()) else { return };
        let voters: BTreeSet<u64> = inside.voters.iter().flatten().copied().collect();
        let learners: Vec<u64> = inside.members.difference(&voters).copied().collect();
        let mut choices = Vec::new();
        let fresh = (self.plan.founders + 1..=self.plan.nodes())
            .find(|id| !inside.members.contains(id) && !self.leaving.contains(id));
        if let Some(id) = fresh {
            let addresses = Advertise { raft: address(id), ..Advertise::default() };
            choices.push(MemberChange::Add { id, addresses });
        }
        choices.extend(learners.iter().map(|id| MemberChange::Promote { id: *id }));
        if voters.len() > 3 {
            choices.extend(voters.iter().map(|id| MemberChange::Demote { id: *id }));
        }
        if inside.members.len() > 3 {
            choices.extend(inside.members.iter().map(|id| MemberChange::Remove { id: *id }));
        }
        if let Some(new) = learners.first() {
            choices.extend(voters.iter().map(|old| MemberChange::Replace { old: *old, new: *new }));
        }
        let Some(change) = self.chance.pick(&choices).cloned() else { return };
        match &change {
            MemberChange::Add { id, .. } if !cluster.knows(*id) => cluster.add(*id),
            MemberChange::Remove { id } | MemberChange::Replace { old: id, .. } => {
                self.leaving.insert(*id);
            }
            _ => {}
        }
        trace.line(cluster.tick, format_args!("n{node} is asked for {change:?}"));
        self.ask(cluster, node, Ask::Members(change));
    }

    /// What came of its own questions.
    pub fn take(&mut self, cluster: &Cluster, answers: &[(u64, Answer)], trace: &mut Trace) {
        for (number, answer) in answers.iter().filter(|(number, _)| *number > OWN_NUMBERS) {
            trace.line(cluster.tick, format_args!("question {number}: {answer:?}"));
        }
    }

    /// Everything that is wrong is put right, and every machine is switched on.
    pub fn end(&mut self, cluster: &mut Cluster, trace: &mut Trace) {
        trace.line(cluster.tick, format_args!("the faults end"));
        self.later.clear();
        self.next.clear();
        cluster.heal_network();
        for id in cluster.ids() {
            disk::disarm(&name(id));
            cluster.usual_disk_latency(id);
            if !self.removed.contains(&id) {
                cluster.start(id);
            }
        }
    }
}
