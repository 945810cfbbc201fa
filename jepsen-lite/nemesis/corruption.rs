//! The files of a stopped node are damaged, or replaced by older ones: it must refuse to start and name the file, or
//! serve nothing wrong.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rand::Rng as _;

use super::damage::{age, damage};
use super::{Active, Evidence, Outcome, Strike};
use crate::lab::{Duty, Lab, command};

/// How long a node may take to find out whether it can serve from what it found.
const START_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug)]
struct Corrupted {
    place: u8,
    saved: PathBuf,
    what: String,
}

/// A copy was made; what comes after it will be missing.
#[derive(Debug)]
struct Aging {
    place: u8,
    old: PathBuf,
    log: bool,
}

pub(super) fn install(strike: &mut Strike<'_>) -> anyhow::Result<Outcome> {
    // One damaged disk at a time: of a majority nothing but a refusal can be expected.
    if strike.lab.nodes.iter().any(|node| node.suspect) {
        return Ok(Outcome::Skipped("another disk is damaged already".to_owned()));
    }
    let Some(place) = strike.one() else { return Strike::skipped() };
    if strike.chance.random_bool(0.5) {
        strike.lab.kill(place)?;
    } else {
        strike.lab.stop(place)?;
    }
    if strike.chance.random_bool(0.2) {
        let node = strike.lab.node(place)?;
        let old = node.disk.path().with_extension("old");
        remove(&old)?;
        command::run("cp", ["-a".as_ref(), node.data().as_os_str(), old.as_os_str()])?;
        strike.lab.start(place)?;
        // From now on, so that no other disk is damaged meanwhile; until then it has to run.
        strike.lab.node(place)?.suspect = true;
        let log = strike.chance.random_bool(0.5);
        return Ok(Outcome::Installed(Box::new(Aging { place, old, log })));
    }
    let saved = save(strike.lab, place)?;
    let node = strike.lab.node(place)?;
    let what = damage(&node.data(), strike.chance)?;
    node.suspect = true;
    strike.lab.start(place)?;
    Ok(Outcome::Installed(Box::new(Corrupted { place, saved, what })))
}

fn remove(path: &Path) -> anyhow::Result<()> {
    command::run("rm", ["-rf".as_ref(), path.as_os_str()]).map(drop)
}

/// A copy of a stopped node's disk, for when it has refused what became of it.
fn save(lab: &mut Lab, place: u8) -> anyhow::Result<PathBuf> {
    let disk = &mut lab.node(place)?.disk;
    disk.unmount()?;
    let saved = disk.save()?;
    disk.mount()?;
    Ok(saved)
}

/// What a node made of what it found.
fn judge(lab: &mut Lab, place: u8, saved: &Path) -> anyhow::Result<Evidence> {
    // A cluster that is busy with other faults may leave it waiting: then it has at least not refused.
    lab.settle(place, START_TIMEOUT)?;
    let node = lab.node(place)?;
    let Some(status) = node.ended.filter(|_| node.server.is_none()) else {
        // Whether it serves rightly, the history tells. Its disk is not to be trusted: it is replaced in the end.
        node.duty = Duty::MayEnd;
        return Ok(Evidence::of(true, "it serves"));
    };
    let log = node.log_tail(4);
    let wrong = (!matches!(status.code(), Some(1 | 3)))
        .then(|| format!("node {place} met damaged files and ended with {status}: {log}"));
    // As if the disk had been put right by whoever keeps a copy of it: nothing was written since.
    node.disk.unmount()?;
    node.disk.restore(saved)?;
    node.suspect = false;
    lab.start(place)?;
    let last = log.lines().last().unwrap_or_default();
    Ok(Evidence { bit: true, words: format!("refused, {status}: {last}"), wrong })
}

impl Active for Corrupted {
    fn name(&self) -> String {
        format!("damage at {}: {}", self.place, self.what)
    }

    fn holds(&self) -> BTreeSet<u8> {
        BTreeSet::from([self.place])
    }

    fn mend(self: Box<Self>, lab: &mut Lab) -> anyhow::Result<Evidence> {
        judge(lab, self.place, &self.saved)
    }
}

impl Active for Aging {
    fn name(&self) -> String {
        let part = if self.log { "log" } else { "state" };
        format!("an old copy of the {part} of {}", self.place)
    }

    fn holds(&self) -> BTreeSet<u8> {
        BTreeSet::from([self.place])
    }

    fn mend(self: Box<Self>, lab: &mut Lab) -> anyhow::Result<Evidence> {
        lab.kill(self.place)?;
        let saved = save(lab, self.place)?;
        let node = lab.node(self.place)?;
        let what = age(&node.data(), &self.old, self.log)?;
        lab.start(self.place)?;
        let mut evidence = judge(lab, self.place, &saved)?;
        evidence.words = format!("{what}; {}", evidence.words);
        remove(&self.old)?;
        Ok(evidence)
    }
}
