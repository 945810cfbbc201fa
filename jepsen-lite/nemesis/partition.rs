//! Faults of the network: who cannot reach whom, what gets lost, and how slowly the rest comes.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rand::Rng as _;
use rand::seq::SliceRandom as _;

use super::{Active, Evidence, Outcome, Strike, listed};
use crate::lab::net::{Cut, Port};
use crate::lab::{Lab, RAFT};

/// How long rules may go without a packet that they apply to, and a limit without being met: a node may be cut off, or
/// stopped, by another fault.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug)]
struct Blocked {
    name: String,
    cut: Cut,
    begun: Instant,
}

fn block(strike: &mut Strike<'_>, name: String, rules: &[String]) -> anyhow::Result<Outcome> {
    let cut = strike.lab.network.cut(rules)?;
    Ok(Outcome::Installed(Box::new(Blocked { name, cut, begun: Instant::now() })))
}

impl Active for Blocked {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn holds(&self) -> BTreeSet<u8> {
        BTreeSet::new()
    }

    fn is_due(&mut self, lab: &mut Lab) -> anyhow::Result<bool> {
        Ok(lab.network.dropped(&self.cut)? > 0 || self.begun.elapsed() > PATIENCE)
    }

    fn mend(self: Box<Self>, lab: &mut Lab) -> anyhow::Result<Evidence> {
        let dropped = lab.network.dropped(&self.cut)?;
        lab.network.open(self.cut)?;
        Ok(Evidence::of(dropped > 0, format!("{dropped} packets dropped")))
    }
}

/// From each of these to each of those.
fn from_to(from: &[Port], to: &[Port]) -> Vec<String> {
    let rule = |from: &Port, to: &Port| {
        format!("iifname {} oifname {}", from.cable(), to.cable()) //
    };
    from.iter().flat_map(|one| to.iter().map(move |other| rule(one, other))).collect()
}

fn between(these: &[Port], those: &[Port]) -> Vec<String> {
    let mut rules = from_to(these, those);
    rules.extend(from_to(those, these));
    rules
}

fn ports(places: &[u8]) -> Vec<Port> {
    places.iter().map(|place| Port::Node(*place)).collect()
}

/// The leader if there is one, else any member.
fn leader(strike: &mut Strike<'_>) -> Option<u8> {
    let members = strike.lab.members();
    let any = members.first().copied();
    strike.lab.leader().map(|(place, _)| place).or(any)
}

pub(super) fn install(strike: &mut Strike<'_>) -> anyhow::Result<Outcome> {
    let mut members = strike.lab.members();
    let Some(leader) = leader(strike) else { return Strike::skipped() };
    members.shuffle(strike.chance);
    let others: Vec<u8> = members.iter().copied().filter(|place| *place != leader).collect();
    let minority = members.len().div_ceil(2) - 1;
    let (name, rules) = match strike.chance.random_range(0..12) {
        // With its clients, so that it is asked and must not answer for the others.
        0 | 1 => (format!("leader {leader} alone"), between(&ports(&[leader]), &ports(&others))),
        2 => {
            let mut side = ports(&others);
            side.push(Port::Clients);
            (format!("leader {leader} alone, without clients"), between(&ports(&[leader]), &side))
        }
        3 => {
            let (few, many) = members.split_at(minority.max(1));
            (format!("minority {}", listed(few)), between(&ports(few), &ports(many)))
        }
        4 => {
            // With the leader on the smaller side.
            let (with, rest) = others.split_at(minority.saturating_sub(1));
            let mut few = with.to_vec();
            few.push(leader);
            (
                format!("halves {} and {}", listed(&few), listed(rest)),
                between(&ports(&few), &ports(rest)),
            )
        }
        5 => ring(&members),
        6 => {
            // Both halves reach one node, and not each other.
            let rest = &members[1..];
            let (left, right) = rest.split_at(rest.len() / 2);
            let name =
                format!("bridge {} between {} and {}", members[0], listed(left), listed(right));
            (name, between(&ports(left), &ports(right)))
        }
        7 => (
            format!("clients without leader {leader}"),
            between(&[Port::Clients], &ports(&[leader])),
        ),
        8 => {
            let one = &members[..1];
            (format!("clients without {}", listed(one)), between(&[Port::Clients], &ports(one)))
        }
        9 => {
            let (one, rest) = members.split_at(1);
            (format!("{} without its peers", listed(one)), between(&ports(one), &ports(rest)))
        }
        10 => {
            // Each of them is asked, and none may answer for the others.
            let rules = members.iter().enumerate().flat_map(|(at, one)| {
                between(&ports(&[*one]), &ports(&members[at + 1..])) //
            });
            ("nodes without their peers".to_owned(), rules.collect())
        }
        _ => ("clients without nodes".to_owned(), between(&[Port::Clients], &ports(&members))),
    };
    block(strike, name, &rules)
}

/// Each node reaches the next ones in a circle that make a majority with it, and no two the same. Of three nodes each
/// reaches both others, so one cable is cut then.
fn ring(members: &[u8]) -> (String, Vec<String>) {
    let count = members.len();
    let reach = (count / 2).div_ceil(2);
    let mut rules = Vec::new();
    for (at, place) in members.iter().enumerate() {
        for distance in reach + 1..count - reach {
            let other = members[(at + distance) % count];
            rules.extend(from_to(&ports(&[*place]), &ports(&[other])));
        }
    }
    if rules.is_empty() {
        rules = between(&ports(&members[..1]), &ports(&members[1..2]));
    }
    (format!("ring {}", listed(members)), rules)
}

pub(super) fn one_way(strike: &mut Strike<'_>) -> anyhow::Result<Outcome> {
    let Some(leader) = leader(strike) else { return Strike::skipped() };
    let members = strike.lab.members();
    let others: Vec<u8> = members.iter().copied().filter(|place| *place != leader).collect();
    let (from, to, what) = match strike.chance.random_range(0..3) {
        0 => (vec![leader], others, format!("leader {leader} is not heard")),
        1 => (others, vec![leader], format!("leader {leader} does not hear")),
        _ => {
            let one = others.get(strike.chance.random_range(0..others.len().max(1))).copied();
            let Some(one) = one else { return Strike::skipped() };
            let rest = members.iter().copied().filter(|place| *place != one).collect();
            (vec![one], rest, format!("node {one} is not heard"))
        }
    };
    if strike.chance.random_bool(0.5) {
        let rules = from_to(&ports(&from), &ports(&to));
        return block(strike, format!("{what}: packets"), &rules);
    }
    // Calls only: both directions of the connections that were opened from one side.
    let with = |rules: Vec<String>, end: &str| {
        rules.into_iter().map(|rule| format!("{rule} tcp {end} {RAFT}")).collect::<Vec<_>>()
    };
    let mut rules = with(from_to(&ports(&from), &ports(&to)), "dport");
    rules.extend(with(from_to(&ports(&to), &ports(&from)), "sport"));
    block(strike, format!("{what}: calls"), &rules)
}

pub(super) fn network(strike: &mut Strike<'_>) -> anyhow::Result<Outcome> {
    let members = strike.lab.members();
    let Some(one) = strike.one() else { return Strike::skipped() };
    let others: Vec<u8> = members.iter().copied().filter(|place| *place != one).collect();
    match strike.chance.random_range(0..4) {
        0 => {
            let percent = [2, 10, 30][strike.chance.random_range(0..3)];
            let rules = members.iter().map(|place| {
                let cable = Port::Node(*place).cable();
                format!("iifname {cable} ip protocol tcp numgen random mod 100 < {percent}")
            });
            let rules: Vec<_> = rules.collect();
            block(strike, format!("{percent} % of all packets lost"), &rules)
        }
        1 => {
            let cable = Port::Node(one).cable();
            let rules: Vec<_> = ["iifname", "oifname"]
                .map(|direction| {
                    format!("{direction} {cable} limit rate over 40/second burst 10 packets")
                })
                .into();
            block(strike, format!("40 packets a second for {one}"), &rules)
        }
        2 => {
            let rate = ["256kbit", "1mbit"][strike.chance.random_range(0..2)];
            strike.lab.network.throttle(Port::Node(one), rate)?;
            Ok(Outcome::Installed(Box::new(Slow { place: one, rate, begun: Instant::now() })))
        }
        _ => {
            let mut ended = 0;
            for other in &others {
                ended += strike.lab.network.reset(Port::Node(one), Port::Node(*other))?;
            }
            ended += strike.lab.network.reset(Port::Node(one), Port::Clients)?;
            if ended == 0 {
                return Ok(Outcome::Skipped(format!("nobody is connected to {one}")));
            }
            Ok(Outcome::Installed(Box::new(Reset { place: one, ended })))
        }
    }
}

#[derive(Debug)]
struct Slow {
    place: u8,
    rate: &'static str,
    begun: Instant,
}

impl Active for Slow {
    fn name(&self) -> String {
        format!("{} for {}", self.rate, self.place)
    }

    fn holds(&self) -> BTreeSet<u8> {
        BTreeSet::from([self.place])
    }

    fn is_due(&mut self, lab: &mut Lab) -> anyhow::Result<bool> {
        let met = lab.network.throttled(Port::Node(self.place))? > 0;
        Ok(met || self.begun.elapsed() > PATIENCE)
    }

    fn mend(self: Box<Self>, lab: &mut Lab) -> anyhow::Result<Evidence> {
        let waited = lab.network.throttled(Port::Node(self.place))?;
        lab.network.unthrottle(Port::Node(self.place))?;
        Ok(Evidence::of(waited > 0, format!("the limit was met {waited} times")))
    }
}

#[derive(Debug)]
struct Reset {
    place: u8,
    ended: usize,
}

impl Active for Reset {
    fn name(&self) -> String {
        format!("connections of {} reset", self.place)
    }

    fn holds(&self) -> BTreeSet<u8> {
        BTreeSet::new()
    }

    fn mend(self: Box<Self>, _lab: &mut Lab) -> anyhow::Result<Evidence> {
        Ok(Evidence::of(self.ended > 0, format!("{} connections ended", self.ended)))
    }
}
