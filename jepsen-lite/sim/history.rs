//! What was asked and answered, and whether that was true.
//!
//! The truth is the change log of the store after everything: each change has a revision, and its comment names the
//! request that made it. By it are judged: every acknowledged write is there, once, where its answer said; what was
//! refused is not there; nothing is there that nobody asked for; every read shows what was there at its revision; and the
//! order of revisions is one that agrees with what ended before what began. Together that is linearizability of writes and
//! linearizable reads, since each of them names its revision.

use std::collections::BTreeMap;
use std::time::Duration;

use llm_config_domain::{Address, ChangeKind, Command, RevisionChanges};
use llm_config_simdisk::Chance;

use crate::clients::command;
use crate::node::Found;
use crate::plan::Plan;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Write { key: u64, expected: Option<u64>, deletes: bool },
    Linearizable { key: u64 },
    Session { key: u64, least: u64 },
    Stale { key: u64 },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Pending,
    Written { revision: u64, version: u64, replayed: bool },
    NotDone,
    Unknown,
    Read { revision: u64, found: Option<Found>, age: Option<Duration> },
    NotRead,
    Wrong(String),
}

#[derive(Debug, Clone)]
pub struct Event {
    pub kind: Kind,
    pub invoked: u64,
    pub completed: Option<u64>,
    pub outcome: Outcome,
}

/// What a run did, for the summary.
#[derive(Debug, Default)]
pub struct Totals {
    pub written: u64,
    pub replayed: u64,
    pub not_done: u64,
    pub unknown: u64,
    pub unknown_but_done: u64,
    pub reads: u64,
    pub not_read: u64,
}

pub struct History {
    events: Vec<Event>,
    /// What the keys were last seen at, for comparing writes that have a chance.
    versions: BTreeMap<u64, u64>,
    /// How much older than told a state may be: the leader may have been cut off together with the node.
    staleness_slack: u64,
}

/// The version of a key that came with a revision.
#[derive(Debug, Clone, Copy)]
struct Version {
    version: u64,
    operation: usize,
    live: bool,
}

type Truth = BTreeMap<u64, BTreeMap<u64, Version>>;

/// The newest revision known to be there before a tick.
struct Floor(Vec<(u64, u64)>);

impl Floor {
    fn of(mut ends: Vec<(u64, u64)>) -> Self {
        ends.sort_unstable();
        let mut newest = 0;
        for (_, revision) in &mut ends {
            newest = newest.max(*revision);
            *revision = newest;
        }
        Self(ends)
    }

    fn before(&self, tick: u64) -> u64 {
        let ended = self.0.partition_point(|(end, _)| *end < tick);
        ended.checked_sub(1).map_or(0, |last| self.0[last].1)
    }
}

impl History {
    pub fn new(plan: &Plan) -> Self {
        let lease = plan.tuning.election_timeout_max.as_millis();
        Self {
            events: Vec::new(),
            versions: BTreeMap::new(),
            staleness_slack: u64::try_from(lease).unwrap_or(0) + plan.latency_ms.1 + 10,
        }
    }

    pub fn next(&self) -> usize {
        self.events.len()
    }

    pub fn begin(&mut self, event: Event) {
        self.events.push(event);
    }

    /// Makes up a write to a key.
    pub fn write(
        &self,
        chance: &mut Chance,
        key: u64,
        address: Address,
        operation: usize,
    ) -> (Command, Kind) {
        let known = self.versions.get(&key).copied().unwrap_or(0);
        let expected = chance.percent(40).then(|| known.saturating_sub(chance.below(5) / 4));
        let deletes = chance.percent(10);
        let named = chance.percent(80);
        let command = command(address, operation, expected, deletes, named);
        (command, Kind::Write { key, expected, deletes })
    }

    pub fn end(&mut self, operation: usize, tick: u64, outcome: Outcome) {
        let Some(event) = self.events.get_mut(operation) else { return };
        let key = match event.kind {
            Kind::Write { key, .. }
            | Kind::Linearizable { key }
            | Kind::Session { key, .. }
            | Kind::Stale { key } => key,
        };
        match &outcome {
            Outcome::Written { version, .. } => {
                self.versions.insert(key, *version);
            }
            Outcome::Read { found: Some(found), .. } => {
                self.versions.insert(key, found.version);
            }
            _ => {}
        }
        event.completed = Some(tick);
        event.outcome = outcome;
    }

    /// Judges everything by what is there in the end.
    pub fn check(&self, changes: &[RevisionChanges]) -> (Totals, Vec<String>) {
        let mut wrong = Vec::new();
        let (truth, made) = self.truth(changes, &mut wrong);
        let ends = self.events.iter().filter_map(|event| {
            let revision = match event.outcome {
                Outcome::Written { revision, .. } | Outcome::Read { revision, .. } => revision,
                _ => return None,
            };
            Some((event.completed?, revision))
        });
        let floor = Floor::of(ends.collect());
        let acknowledged = self.events.iter().filter_map(|event| match event.outcome {
            Outcome::Written { revision, .. } => Some((event.completed?, revision)),
            _ => None,
        });
        let acknowledged = Floor::of(acknowledged.collect());
        let mut totals = Totals::default();
        for (operation, event) in self.events.iter().enumerate() {
            let said = format!("request {operation} {event:?}");
            match &event.outcome {
                Outcome::Wrong(what) => wrong.push(format!("{said}: {what}")),
                Outcome::Written { revision, version, replayed } => {
                    totals.written += 1;
                    totals.replayed += u64::from(*replayed);
                    match made.get(&operation) {
                        None => wrong.push(format!("{said}: acknowledged, and not there")),
                        Some(there) if *there != (*revision, *version) => wrong
                            .push(format!("{said}: it is there as revision and version {there:?}")),
                        Some(_) => {}
                    }
                    if let Kind::Write { expected: Some(expected), .. } = event.kind
                        && expected > 0
                        && *version != expected + 1
                    {
                        wrong.push(format!("{said}: it did not follow what it was compared with"));
                    }
                }
                Outcome::NotDone => {
                    totals.not_done += 1;
                    if made.contains_key(&operation) {
                        wrong.push(format!("{said}: told that it was not done, and it is there"));
                    }
                }
                Outcome::Unknown | Outcome::Pending => {
                    totals.unknown += 1;
                    totals.unknown_but_done += u64::from(made.contains_key(&operation));
                }
                Outcome::Read { revision, found, age } => {
                    totals.reads += 1;
                    let least = match event.kind {
                        Kind::Linearizable { .. } => floor.before(event.invoked),
                        Kind::Session { least, .. } => least,
                        Kind::Stale { .. } => age.map_or(0, |age| {
                            let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
                            let told = event.invoked.saturating_sub(age);
                            acknowledged.before(told.saturating_sub(self.staleness_slack))
                        }),
                        Kind::Write { .. } => 0,
                    };
                    if *revision < least {
                        wrong.push(format!("{said}: revision {least} was there before"));
                    }
                    check_content(&truth, event, *revision, found.as_ref(), &said, &mut wrong);
                }
                Outcome::NotRead => totals.not_read += 1,
            }
            if let Some((revision, _)) = made.get(&operation) {
                let before = floor.before(event.invoked);
                if *revision <= before {
                    wrong.push(format!(
                        "{said}: it is there as revision {revision}, and {before} was there before it was asked"
                    ));
                }
            }
        }
        (totals, wrong)
    }

    /// The versions of each key by revision, and where each request is.
    fn truth(
        &self,
        changes: &[RevisionChanges],
        wrong: &mut Vec<String>,
    ) -> (Truth, BTreeMap<usize, (u64, u64)>) {
        let mut truth = Truth::new();
        let mut made = BTreeMap::new();
        for change in changes.iter().flat_map(|revision| &revision.changes) {
            let entry = &change.entry;
            let operation = entry.comment.parse().unwrap_or(usize::MAX);
            let asked = self.events.get(operation).map(|event| event.kind);
            let live = change.kind == ChangeKind::Set;
            let key = match asked {
                Some(Kind::Write { key, deletes, .. }) if deletes != live => key,
                _ => {
                    wrong.push(format!("nobody asked for {entry:?}"));
                    continue;
                }
            };
            if entry.address.key.as_str() != format!("key{key}") {
                wrong.push(format!("request {operation} is elsewhere: {entry:?}"));
            }
            if let Some(first) = made.insert(operation, (entry.revision, entry.version)) {
                wrong.push(format!(
                    "request {operation} was carried out twice: as revisions {} and {}",
                    first.0, entry.revision
                ));
            }
            let version = Version { version: entry.version, operation, live };
            truth.entry(key).or_default().insert(entry.revision, version);
        }
        (truth, made)
    }
}

fn check_content(
    truth: &Truth,
    event: &Event,
    revision: u64,
    found: Option<&Found>,
    said: &str,
    wrong: &mut Vec<String>,
) {
    let (Kind::Linearizable { key } | Kind::Session { key, .. } | Kind::Stale { key }) = event.kind
    else {
        return;
    };
    let there = truth.get(&key).and_then(|versions| versions.range(..=revision).next_back());
    let expected = there.filter(|(_, version)| version.live).map(|(revision, version)| Found {
        version: version.version,
        revision: *revision,
        operation: version.operation as u64,
    });
    if expected.as_ref() != found {
        wrong.push(format!("{said}: at revision {revision} there was {expected:?}"));
    }
}

#[cfg(test)]
mod tests {
    use llm_config_domain::{Change, Entry};

    use super::*;

    const WRITE: Kind = Kind::Write { key: 0, expected: None, deletes: false };
    const READ: Kind = Kind::Linearizable { key: 0 };

    fn event(kind: Kind, invoked: u64, completed: u64, outcome: Outcome) -> Event {
        Event { kind, invoked, completed: Some(completed), outcome }
    }

    fn written(revision: u64) -> Outcome {
        Outcome::Written { revision, version: revision, replayed: false }
    }

    fn read(revision: u64, operation: u64) -> Outcome {
        let found = Found { version: revision, revision, operation };
        Outcome::Read { revision, found: Some(found), age: None }
    }

    /// The change log in which each of `operations` made the next revision.
    fn log(operations: &[usize]) -> Vec<RevisionChanges> {
        let change = |(number, operation): (usize, &usize)| {
            let address = Address::parse("sim", "key0", "base").unwrap();
            let entry = Entry {
                address,
                version: number as u64 + 1,
                revision: number as u64 + 1,
                value: Some(llm_config_domain::JsonValue::parse(b"1").unwrap().into()),
                created_at_ms: 0,
                created_by: String::new(),
                updated_at_ms: 0,
                updated_by: String::new(),
                description: String::new(),
                tags: Vec::new(),
                comment: operation.to_string(),
            };
            RevisionChanges { revision: entry.revision, changes: vec![Change::of(entry)] }
        };
        operations.iter().enumerate().map(change).collect()
    }

    fn violations(events: Vec<Event>, operations: &[usize]) -> Vec<String> {
        let history = History { events, ..History::new(&Plan::of(1, None)) };
        history.check(&log(operations)).1
    }

    #[test]
    fn what_is_true_passes() {
        let events = vec![
            event(WRITE, 1, 5, written(1)),
            event(WRITE, 2, 6, Outcome::Unknown),
            event(READ, 7, 9, read(2, 1)),
            event(WRITE, 7, 8, Outcome::NotDone),
        ];
        assert_eq!(violations(events, &[0, 1]), [""; 0]);
    }

    #[test]
    fn each_broken_promise_is_found() {
        let first = event(WRITE, 1, 5, written(1));
        let second = event(WRITE, 6, 8, written(2));
        let broken: [(&str, Vec<Event>, &[usize]); 6] = [
            ("acknowledged, and not there", vec![first.clone()], &[]),
            ("carried out twice", vec![first.clone()], &[0, 0]),
            ("nobody asked for", vec![first.clone()], &[0, 7]),
            ("it was not done", vec![event(WRITE, 1, 5, Outcome::NotDone)], &[0]),
            (
                "was there before",
                vec![first.clone(), second.clone(), event(READ, 9, 10, read(1, 0))],
                &[0, 1],
            ),
            ("there was Some", vec![first, second, event(READ, 9, 10, read(2, 0))], &[0, 1]),
        ];
        for (what, events, operations) in broken {
            let found = violations(events, operations);
            assert!(found.iter().any(|found| found.contains(what)), "{what}: {found:?}");
        }
    }

    #[test]
    fn a_write_cannot_come_before_what_ended_before_it() {
        let events = vec![event(WRITE, 1, 5, written(2)), event(WRITE, 6, 8, Outcome::Unknown)];
        let found = violations(events, &[1, 0]);
        assert!(found.iter().any(|found| found.contains("before it was asked")), "{found:?}");
    }
}
