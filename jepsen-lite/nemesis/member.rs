//! Changes of the members: a new node takes the place of an old one, whose disk is never used again under its number.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rand::seq::IndexedRandom as _;

use super::{Active, Evidence, Outcome, Strike};
use crate::lab::{Duty, Lab, control};

/// How long a change may take before the other faults are mended.
const PATIENCE: Duration = Duration::from_secs(4);
/// And when nothing else is wrong any more.
const TIMEOUT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(200);

/// One node for another: each step may be repeated.
#[derive(Debug)]
struct Replacement {
    old: u8,
    old_id: u64,
    new: u8,
    new_id: u64,
    led: bool,
    done: bool,
}

pub(super) fn install(strike: &mut Strike<'_>) -> anyhow::Result<Outcome> {
    let Some(old) = strike.one() else { return Strike::skipped() };
    let spares = strike.lab.nodes.iter().filter(|node| !node.member && node.server.is_none());
    let spares: Vec<u8> =
        spares.map(|node| node.place).filter(|place| !strike.held.contains(place)).collect();
    let Some(new) = spares.choose(strike.chance).copied() else {
        return Ok(Outcome::Skipped("there is no spare place".to_owned()));
    };
    let mut replacement = Replacement::begin(strike.lab, old, new)?;
    replacement.go_on(strike.lab, PATIENCE)?;
    Ok(Outcome::Installed(Box::new(replacement)))
}

impl Replacement {
    fn begin(lab: &mut Lab, old: u8, new: u8) -> anyhow::Result<Self> {
        let new_id = lab.new_id();
        let old_id = lab.node(old)?.id;
        let led = lab.leader().is_some_and(|(leader, _)| leader == old);
        let node = lab.node(new)?;
        node.disk.wipe()?;
        node.id = new_id;
        node.suspect = false;
        lab.start(new)?;
        Ok(Self { old, old_id, new, new_id, led, done: false })
    }

    /// Takes the steps until all are done or the time is over, and tells the last refusal; one that is refused is tried
    /// again, at another node.
    fn go_on(&mut self, lab: &mut Lab, patience: Duration) -> anyhow::Result<String> {
        let deadline = Instant::now() + patience;
        let mut refused = String::new();
        while !self.done {
            lab.supervise()?;
            for (place, view) in lab.views() {
                if place == self.new || self.done {
                    continue;
                }
                match self.step(lab, place, &view) {
                    Ok(done) => self.done = done,
                    Err(error) => refused = format!("{error:#}"),
                }
            }
            if !self.done && Instant::now() > deadline {
                return Ok(refused);
            }
            if !self.done {
                std::thread::sleep(PAUSE);
            }
        }
        self.settle(lab)?;
        Ok(refused)
    }

    /// What it means when nothing else is wrong any more, and yet it is not done.
    fn wrong(&self, lab: &Lab, refused: &str) -> Option<String> {
        (!self.done).then(|| {
            let (old, new, views) = (self.old_id, self.new_id, lab.views());
            format!("node {old} is not replaced by {new} within {TIMEOUT:?}: {refused}: {views:#?}")
        })
    }

    /// The next step, asked of the node at `place`; true when there is none left.
    fn step(&self, lab: &mut Lab, place: u8, view: &control::View) -> anyhow::Result<bool> {
        let asked = lab.node(place)?.http();
        let new = view.members.iter().find(|member| member.id == self.new_id);
        let old = view.members.iter().find(|member| member.id == self.old_id);
        match (new, old) {
            (None, _) => {
                let node = lab.node(self.new)?;
                let body = serde_json::json!({
                    "id": self.new_id,
                    "raft": node.raft().to_string(),
                    "http": node.http().to_string(),
                    "grpc": node.grpc().to_string(),
                });
                control::change(asked, "POST", "/api/v1/cluster/members", Some(&body))?;
            }
            (Some(new), _) if !new.votes() => {
                let path = format!("/api/v1/cluster/members/{}/promote", self.new_id);
                control::change(asked, "POST", &path, Some(&serde_json::json!({})))?;
            }
            (Some(_), Some(_)) => {
                let node = lab.node(self.new)?;
                node.member = true;
                // A node that was removed stops by itself.
                lab.node(self.old)?.duty = Duty::MayEnd;
                let path = format!("/api/v1/cluster/members/{}", self.old_id);
                control::change(asked, "DELETE", &path, None)?;
            }
            (Some(_), None) => return Ok(true),
        }
        Ok(false)
    }

    /// The old node is gone for good.
    fn settle(&self, lab: &mut Lab) -> anyhow::Result<()> {
        lab.node(self.new)?.member = true;
        lab.kill(self.old)?;
        let old = lab.node(self.old)?;
        old.member = false;
        old.suspect = false;
        lab.tell_targets();
        Ok(())
    }
}

impl Active for Replacement {
    fn name(&self) -> String {
        let led = if self.led { ", which led" } else { "" };
        format!("node {} for {}{led}", self.new_id, self.old_id)
    }

    fn holds(&self) -> BTreeSet<u8> {
        BTreeSet::from([self.old, self.new])
    }

    fn is_due(&mut self, lab: &mut Lab) -> anyhow::Result<bool> {
        if !self.done {
            self.go_on(lab, PATIENCE)?;
        }
        Ok(self.done)
    }

    fn mend(mut self: Box<Self>, lab: &mut Lab) -> anyhow::Result<Evidence> {
        let refused = if self.done { String::new() } else { self.go_on(lab, TIMEOUT)? };
        let wrong = self.wrong(lab, &refused);
        let words = if self.done { "the members are others" } else { "the members are the same" };
        Ok(Evidence { bit: self.done, words: words.to_owned(), wrong })
    }
}

/// Gives the places of nodes with damaged disks to new ones, and tells what the cluster did wrong about it.
///
/// # Errors
/// When a new one cannot be started.
pub fn replace_suspects(lab: &mut Lab) -> anyhow::Result<Option<String>> {
    let suspect = |node: &&crate::lab::Node| node.suspect && node.member;
    let suspects: Vec<u8> = lab.nodes.iter().filter(suspect).map(|node| node.place).collect();
    for old in suspects {
        let spare = lab.nodes.iter().find(|node| !node.member && node.server.is_none());
        let new = spare.map(|node| node.place).context("no spare place for a damaged node")?;
        let mut replacement = Replacement::begin(lab, old, new)?;
        let refused = replacement.go_on(lab, TIMEOUT)?;
        if let Some(wrong) = replacement.wrong(lab, &refused) {
            return Ok(Some(wrong));
        }
    }
    Ok(None)
}
