//! Bytes of a stopped node's files change: it must refuse to start and name the file, or serve nothing wrong.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;

use super::{Active, Evidence, Outcome, Strike};
use crate::lab::{Duty, Lab};

const PAGE_BYTES: u64 = 4096;

#[derive(Debug)]
struct Corrupted {
    place: u8,
    saved: PathBuf,
    what: String,
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
    let node = strike.lab.node(place)?;
    node.disk.unmount()?;
    let saved = node.disk.save()?;
    node.disk.mount()?;
    let what = damage(&node.data(), strike.chance)?;
    node.suspect = true;
    strike.lab.start(place)?;
    Ok(Outcome::Installed(Box::new(Corrupted { place, saved, what })))
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if entry.file_type()?.is_dir() {
            files(&entry.path(), found)?;
        } else if entry.metadata()?.len() > 0 && !name.starts_with("LOG") && name != "LOCK" {
            // The storage engine's own diary and its lock hold nothing that is read again.
            found.push(entry.path());
        }
    }
    Ok(())
}

fn damage(data: &Path, chance: &mut StdRng) -> anyhow::Result<String> {
    let mut found = Vec::new();
    files(data, &mut found)?;
    found.sort();
    let path = found.choose(chance).context("there are no files to damage")?;
    let name = path.strip_prefix(data).unwrap_or(path).display().to_string();
    let file = File::options().read(true).write(true).open(path)?;
    let size = file.metadata()?.len();
    let at = chance.random_range(0..size);
    let what = match chance.random_range(0..4) {
        0 | 1 => {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at)?;
            let bit = chance.random_range(0..8);
            file.write_all_at(&[byte[0] ^ (1 << bit)], at)?;
            format!("bit {bit} of byte {at} of {size} in {name} flipped")
        }
        2 => {
            let at = at / PAGE_BYTES * PAGE_BYTES;
            let count = PAGE_BYTES.min(size - at);
            let noise: Vec<u8> = (0..count).map(|_| chance.random()).collect();
            file.write_all_at(&noise, at)?;
            format!("{count} bytes at {at} of {size} in {name} are noise")
        }
        _ => {
            file.set_len(at)?;
            format!("{name} cut from {size} to {at} bytes")
        }
    };
    file.sync_all()?;
    Ok(what)
}

impl Active for Corrupted {
    fn name(&self) -> String {
        format!("damage at {}: {}", self.place, self.what)
    }

    fn holds(&self) -> BTreeSet<u8> {
        BTreeSet::from([self.place])
    }

    fn mend(self: Box<Self>, lab: &mut Lab) -> anyhow::Result<Evidence> {
        lab.supervise()?;
        let node = lab.node(self.place)?;
        let Some(status) = node.ended.filter(|_| node.server.is_none()) else {
            // It serves; whether rightly, the history tells. Its disk is not to be trusted: it is replaced in the end.
            node.duty = Duty::MayEnd;
            return Ok(Evidence::of(true, "it serves"));
        };
        let log = node.log_tail(4);
        let wrong = (!matches!(status.code(), Some(1 | 3))).then(|| {
            format!("node {} met a damaged file and ended with {status}: {log}", self.place)
        });
        // As if the disk had been put right by whoever keeps a copy of it: nothing was written since.
        node.disk.unmount()?;
        node.disk.restore(&self.saved)?;
        node.suspect = false;
        lab.start(self.place)?;
        let last = log.lines().last().unwrap_or_default();
        Ok(Evidence { bit: true, words: format!("refused, {status}: {last}"), wrong })
    }
}
