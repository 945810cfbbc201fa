//! Data directories to damage: of a node that wrote thousands of records, made snapshots, purged and compacted its log,
//! and was stopped or killed.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use tokio::runtime::Runtime;

use super::ask::{Chain, Question, ask};
use super::damage::copy;
use super::ledger::Ledger;
use super::station::{Began, Station};
use super::writers::{Style, Writers, scopes};

/// Versions that are kept of an entry, by default.
const HISTORY_LIMIT: usize = 100;
const STYLE: Style = Style { writers: 4, keys: 30, writes: 150 };
/// How long a node may take to find something to tidy up, and to do it.
const TIDY_PATIENCE: Duration = Duration::from_secs(20);
/// The watermark trails the log by a second at most.
const QUIET: Duration = Duration::from_millis(1500);
const QUIET_PATIENCE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);
const POINTER: &str = "CURRENT-SNAPSHOT";

/// How the node that wrote a directory ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Stop,
    /// When all that it had written was in its watermark too: what is cut after that can be noticed.
    Kill,
}

/// A directory, and what is in it.
#[derive(Debug)]
pub struct Origin {
    /// How it came about.
    pub name: &'static str,
    /// The directory.
    pub data: PathBuf,
    /// The same directory a while before.
    pub older: PathBuf,
    /// What the node acknowledged.
    pub ledger: Ledger,
    /// The end of its audit log.
    pub audit: Chain,
}

/// How directories come about: how often the node was started, whether it tidied up each time, and how it ended.
const LIVES: [(&str, u64, bool, End); 4] = [
    ("young, stopped", 1, false, End::Stop),
    ("young, killed", 1, false, End::Kill),
    ("grown, stopped", 3, true, End::Stop),
    ("grown, killed", 3, true, End::Kill),
];

/// How much of the disk a node is told to keep free, so that it finds that there is little left and tidies up soon after
/// its start.
///
/// # Errors
/// When the file system does not tell how large it is.
pub fn scarce(folder: &Path) -> anyhow::Result<[String; 2]> {
    let disk = rustix::fs::statvfs(folder)?;
    let mebibytes = disk.f_bavail * disk.f_frsize / (1 << 20) * 7 / 10;
    Ok(["--disk-reserve".to_owned(), format!("{mebibytes}MiB")])
}

/// Makes all of them in the station's folder.
///
/// # Errors
/// When a node does not do what it is to.
pub fn prepare(
    station: &mut Station,
    runtime: &Runtime,
    seed: u64,
    history: &Path,
) -> anyhow::Result<Vec<Origin>> {
    let mut origins = Vec::new();
    for (number, (name, lives, tidies, end)) in LIVES.into_iter().enumerate() {
        let folder = station.folder().join(format!("origin-{number}"));
        fs::create_dir(&folder)?;
        let mut growing = Growing {
            data: folder.join("data"),
            older: folder.join("older"),
            ledger: Ledger::new(HISTORY_LIMIT),
            audit: None,
            station: &mut *station,
            runtime,
            history,
        };
        for life in 0..lives {
            let last = life + 1 == lives;
            let lived = growing.live(&Life {
                name: format!("{number}.{life}"),
                seed: seed.wrapping_add(life),
                tidies,
                last,
                end: if last { end } else { End::Stop },
            });
            lived.with_context(|| format!("the node that is to be {name:?}"))?;
        }
        let Growing { data, older, ledger, audit, .. } = growing;
        let audit = audit.context("no audit log")?;
        origins.push(Origin { name, data, older, ledger, audit });
    }
    Ok(origins)
}

/// From a start to its end.
struct Life {
    name: String,
    seed: u64,
    tidies: bool,
    last: bool,
    end: End,
}

struct Growing<'a> {
    station: &'a mut Station,
    runtime: &'a Runtime,
    history: &'a Path,
    data: PathBuf,
    older: PathBuf,
    ledger: Ledger,
    audit: Option<Chain>,
}

impl Growing<'_> {
    fn live(&mut self, life: &Life) -> anyhow::Result<()> {
        let Life { name, seed, tidies, last, end } = life;
        let options = if *tidies { scarce(self.station.folder())?.to_vec() } else { Vec::new() };
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let before = fs::read(self.data.join(POINTER)).ok();
        self.station.set_log(self.history.with_file_name(format!("origin-{name}.log")));
        self.station.start(&self.data, &options)?;
        let began = self.station.wait_began()?;
        ensure!(began == Began::Serves, "{began:?}: {}", self.station.log_tail(5));
        self.write(&format!("{name}a"), *seed)?;
        if *tidies {
            self.wait_tidied(before.as_deref())?;
        }
        if *last {
            // In the middle of what the last life writes.
            self.write(&format!("{name}b"), seed + 100)?;
            copy(&self.data, &self.older)?;
        }
        self.write(&format!("{name}c"), seed + 200)?;
        self.compare()?;
        match end {
            End::Stop => {
                let status = self.station.stop()?;
                ensure!(status.success(), "the stop ended with {status}");
            }
            End::Kill => {
                self.wait_quiet()?;
                self.station.kill()?;
            }
        }
        Ok(())
    }

    fn write(&mut self, name: &str, seed: u64) -> anyhow::Result<()> {
        let writers = {
            let _inside = self.runtime.enter();
            Writers::begin(STYLE, name, seed, self.history)?
        };
        for operation in self.runtime.block_on(writers.join())? {
            self.ledger.note(&operation).map_err(anyhow::Error::msg)?;
        }
        Ok(())
    }

    /// A directory that is wrong before it is damaged proves nothing.
    fn compare(&mut self) -> anyhow::Result<()> {
        let scopes = scopes();
        let question = Question::of(&self.ledger, &scopes, 1);
        let answers = self.runtime.block_on(ask(Station::target().grpc, &question));
        let wrong = self.ledger.settle(&answers.found);
        ensure!(wrong.is_empty(), "wrong without any damage: {}", wrong.join("; "));
        ensure!(answers.found.errors.is_empty(), "{}", answers.found.errors.join("; "));
        match answers.audit {
            Some(Ok(chain)) => self.audit = Some(chain),
            other => bail!("the audit log: {other:?}"),
        }
        Ok(())
    }

    /// A snapshot is named, and the log behind it was compacted into tables.
    fn wait_tidied(&self, before: Option<&[u8]>) -> anyhow::Result<()> {
        let deadline = Instant::now() + TIDY_PATIENCE;
        let table = |path: PathBuf| path.extension().is_some_and(|extension| extension == "sst");
        loop {
            let named = fs::read(self.data.join(POINTER)).ok();
            let log = fs::read_dir(self.data.join("log")).into_iter().flatten().flatten();
            if named.is_some()
                && named.as_deref() != before
                && log.map(|entry| entry.path()).any(table)
                && self.station.log().contains("the storage was tidied up")
            {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "no snapshot within {TIDY_PATIENCE:?}");
            thread::sleep(POLL);
        }
    }

    /// Until the watermark has stopped following the log.
    fn wait_quiet(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + QUIET_PATIENCE;
        let read = || fs::read(self.data.join("watermark")).unwrap_or_default();
        let mut known = (read(), Instant::now());
        while known.1.elapsed() < QUIET {
            ensure!(Instant::now() < deadline, "the watermark never rests");
            thread::sleep(POLL);
            let now = read();
            if now != known.0 {
                known = (now, Instant::now());
            }
        }
        Ok(())
    }
}
