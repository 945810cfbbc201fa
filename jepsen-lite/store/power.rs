//! `jepsen-lite power`: a node on a disk of its own loses its power again and again, at any moment of its life, and has to
//! start and to hold everything that it acknowledged, each time.
//!
//! A lineage is one disk from its founding on. What the node acknowledged before a cut, it has to show after it, exactly;
//! what it refused, never; and a write whose answer was lost, once or never.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use jepsen_lite::history::{Header, Operation, Outcome};
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{Rng as _, SeedableRng as _};
use tokio::runtime::Runtime;

use super::ask::{Question, ask};
use super::ledger::Ledger;
use super::station::{Began, Station};
use super::writers::{Style, Writers, scopes};
use super::{damage, lock, runtime, table};
use crate::client::{Client, Recorder};
use crate::lab::disk::{Disk, Unsynced};
use crate::lab::shim::{Page, Word};
use crate::lab::{Targets, command};
use crate::report::Verdict;

/// Cuts of one disk; the next lineage begins with an empty one.
const LINEAGE_CUTS: u64 = 20;
const DISK_MEBIBYTES: u64 = 320;
/// More than half of the disk is kept free, so that the node always finds a reason to tidy up: soon after each start it
/// makes a snapshot, purges its log and compacts its files.
const OPTIONS: [&str; 4] = ["--disk-reserve", "160MiB", "--history-limit", "20"];
const HISTORY_LIMIT: usize = 20;
/// The node looks for something to tidy up a second after its start.
const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(6);
const POLL: Duration = Duration::from_millis(2);
/// Acknowledged writes that are sent again after the cut.
const SENT_AGAIN: usize = 4;
/// Fewer acknowledged writes than this for each cut, and there was not much to lose.
const WRITES_MIN: u64 = 20;
const PROGRESS: u64 = 10;
/// What a node logs when it cuts such a record off.
const TORN: &str = "the log was not written to its end";

/// When the power is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Moment {
    /// While the node founds its cluster, on an empty disk.
    Founding,
    /// While it starts: again before it has recovered from the cut before.
    Recovery,
    /// While clients write.
    Work,
    /// While it makes a snapshot, purges its log, or compacts.
    Snapshot,
    /// While it stops.
    Stop,
}

impl Moment {
    fn words(self) -> &'static str {
        match self {
            Self::Founding => "founding",
            Self::Recovery => "start and recovery",
            Self::Work => "work",
            Self::Snapshot => "snapshot, purge, compaction",
            Self::Stop => "stop",
        }
    }

    fn choose(chance: &mut StdRng) -> Self {
        match chance.random_range(0..100) {
            0..40 => Self::Work,
            40..65 => Self::Recovery,
            65..90 => Self::Snapshot,
            _ => Self::Stop,
        }
    }
}

/// What is wanted.
#[derive(Debug, Clone)]
pub struct Wish {
    /// The name of the run.
    pub run: String,
    /// How many cuts.
    pub cuts: u64,
    /// What everything is derived from.
    pub seed: u64,
    /// Lineages at the same time.
    pub jobs: u64,
    /// The server program.
    pub server: PathBuf,
    /// Where everything is written that stays.
    pub out: PathBuf,
    /// Syncs do nothing from the second start of a node on: then this has to fail.
    pub lying_sync: bool,
}

/// What came of the cuts at one kind of moment.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    cuts: u64,
    acknowledged: u64,
    unknown: u64,
    /// Bytes of the node's own files that it had written and that were gone after the cut.
    lost_bytes: u64,
    /// Cuts before which the kernel had written back some of the files.
    written_back: u64,
}

/// What came of all of it.
#[derive(Debug, Default)]
struct Sum {
    tallies: BTreeMap<Moment, Tally>,
    happened: u64,
    vanished: u64,
    compared: u64,
    /// Starts that found a record whose bytes were not all written, and cut it off.
    torn: u64,
    slowest_start: Duration,
    wrong: Vec<String>,
    invalid: Vec<String>,
}

impl Sum {
    fn cuts(&self) -> u64 {
        self.tallies.values().map(|tally| tally.cuts).sum()
    }

    fn acknowledged(&self) -> u64 {
        self.tallies.values().map(|tally| tally.acknowledged).sum()
    }

    fn judge(&mut self, wanted: u64) -> Verdict {
        if self.wrong.is_empty() && self.cuts() < wanted {
            self.invalid.push(format!("only {} of {wanted} cuts were made", self.cuts()));
        }
        if self.acknowledged() < self.cuts() * WRITES_MIN {
            let (writes, cuts) = (self.acknowledged(), self.cuts());
            self.invalid.push(format!("only {writes} acknowledged writes for {cuts} cuts"));
        }
        if wanted >= LINEAGE_CUTS && !self.tallies.contains_key(&Moment::Snapshot) {
            self.invalid.push("no cut met a snapshot".to_owned());
        }
        if !self.wrong.is_empty() {
            Verdict::Fail
        } else if !self.invalid.is_empty() {
            Verdict::Invalid
        } else {
            Verdict::Pass
        }
    }

    fn text(&self) -> String {
        let row = |(moment, tally): (&Moment, &Tally)| {
            vec![
                moment.words().to_owned(),
                tally.cuts.to_string(),
                tally.acknowledged.to_string(),
                tally.unknown.to_string(),
                tally.lost_bytes.to_string(),
                tally.written_back.to_string(),
            ]
        };
        let rows: Vec<_> = self.tallies.iter().map(row).collect();
        let head = [
            "power cut during",
            "cuts",
            "acknowledged",
            "without an answer",
            "bytes of the node's files lost",
            "cuts after which some unsynced files were there",
        ];
        format!(
            "{}\n{} writes without an answer had happened, {} had not; {} revisions compared; {} starts found a torn \
             record; the slowest took {} ms\n",
            table(&head, &rows),
            self.happened,
            self.vanished,
            self.compared,
            self.torn,
            self.slowest_start.as_millis()
        )
    }
}

/// Makes the cuts.
///
/// # Errors
/// When the harness fails; what the product did wrong makes the verdict.
pub fn power(wish: &Wish, interrupted: &AtomicBool) -> anyhow::Result<Verdict> {
    fs::create_dir_all(&wish.out).with_context(|| format!("cannot make {}", wish.out.display()))?;
    let sum = Mutex::new(Sum::default());
    let next = AtomicU64::new(0);
    let begun = Instant::now();
    thread::scope(|scope| {
        let jobs: Vec<_> = (0..wish.jobs)
            .map(|job| {
                let (sum, next) = (&sum, &next);
                scope.spawn(move || work(wish, job, next, sum, interrupted))
            })
            .collect();
        jobs.into_iter().try_for_each(|job| match job.join() {
            Ok(done) => done,
            Err(_) => anyhow::bail!("a job panicked"),
        })
    })?;
    let mut sum = sum.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let verdict = sum.judge(wish.cuts);
    let mut text = sum.text();
    text += &format!(
        "{} cuts in {} s: {:.1} s each\n",
        sum.cuts(),
        begun.elapsed().as_secs(),
        begun.elapsed().as_secs_f64() / sum.cuts().max(1) as f64
    );
    text.extend(sum.invalid.iter().map(|why| format!("invalid: {why}\n")));
    text.extend(sum.wrong.iter().map(|wrong| format!("WRONG: {wrong}\n")));
    text += verdict.word();
    println!("{text}");
    fs::write(wish.out.join("report.txt"), text)?;
    Ok(verdict)
}

/// One job: a station, and lineages on it until there are enough.
fn work(
    wish: &Wish,
    job: u64,
    next: &AtomicU64,
    sum: &Mutex<Sum>,
    interrupted: &AtomicBool,
) -> anyhow::Result<()> {
    let log = wish.out.join(format!("node-{job}.log"));
    let mut station = Station::create(&format!("{}{job}", wish.run), &wish.server, &log)?;
    let folder = station.folder().to_path_buf();
    let mut disk = Disk::create(&folder, "n1", DISK_MEBIBYTES, &mut station.list)?;
    let page = wish.lying_sync.then(|| station.load_shim()).transpose()?;
    let runtime = runtime()?;
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let cuts = wish.cuts.saturating_sub(number * LINEAGE_CUTS).min(LINEAGE_CUTS);
        if cuts == 0 || !lock(sum).wrong.is_empty() {
            return Ok(());
        }
        disk.wipe()?;
        let _ = fs::remove_file(&log);
        let seed = wish.seed.wrapping_add(number);
        let mut lineage = Lineage {
            chance: StdRng::seed_from_u64(seed),
            history: wish.out.join(format!("history-{job}.jsonl")),
            ledger: Ledger::new(HISTORY_LIMIT),
            settled: 0,
            recent: Vec::new(),
            life: 0,
            station: &mut station,
            disk: &mut disk,
            page: page.as_ref(),
            runtime: &runtime,
            seed,
            sum,
            wish,
        };
        let wrong = lineage.live(cuts, interrupted)?;
        if !wrong.is_empty() {
            let kept = lineage.keep(cuts, &wrong)?;
            let first = wrong.first().cloned().unwrap_or_default();
            lock(sum).wrong.push(format!("seed {seed}: {first}; see {}", kept.display()));
        }
        let ledger = lineage.ledger;
        station.kill()?;
        let torn = station.log().matches(TORN).count() as u64;
        let mut sum = lock(sum);
        sum.torn += torn;
        sum.happened += ledger.happened;
        sum.vanished += ledger.vanished;
    }
}

/// One disk and its node, from the founding on.
struct Lineage<'a> {
    wish: &'a Wish,
    seed: u64,
    chance: StdRng,
    station: &'a mut Station,
    disk: &'a mut Disk,
    page: Option<&'a Page>,
    runtime: &'a Runtime,
    ledger: Ledger,
    /// Everything up to this revision was compared before.
    settled: u64,
    /// Acknowledged writes of the last lives that may be sent again.
    recent: Vec<Operation>,
    history: PathBuf,
    /// How often the node was started.
    life: u64,
    sum: &'a Mutex<Sum>,
}

/// What the product did wrong; nothing is good.
type Wrong = Vec<String>;

impl Lineage<'_> {
    fn data(&self) -> PathBuf {
        self.disk.path().join("data")
    }

    /// Cuts the power so often, and looks at everything in the end.
    fn live(&mut self, cuts: u64, interrupted: &AtomicBool) -> anyhow::Result<Wrong> {
        for cut in 0..cuts {
            anyhow::ensure!(!interrupted.load(Ordering::Relaxed), "interrupted");
            let moment = if cut == 0 { Moment::Founding } else { Moment::choose(&mut self.chance) };
            let wrong = self.life(moment)?;
            if !wrong.is_empty() {
                return Ok(wrong);
            }
        }
        self.start()?;
        let wrong = self.check(1)?;
        if !wrong.is_empty() {
            return Ok(wrong);
        }
        let status = self.station.stop()?;
        Ok(if status.success() { Vec::new() } else { vec![self.ended(&format!("{status}"))] })
    }

    fn start(&mut self) -> anyhow::Result<()> {
        self.life += 1;
        if let Some(page) = self.page {
            page.set(Word::SyncLies, i64::from(self.life > 1))?;
        }
        self.disk.mount()?;
        let data = self.data();
        self.station.start(&data, &OPTIONS)
    }

    fn ended(&self, status: &str) -> String {
        format!("life {}: the node ended with {status}:\n{}", self.life, self.station.log_tail(12))
    }

    fn write(&mut self) -> anyhow::Result<Writers> {
        let name = format!("{}.{}", self.seed, self.life);
        let seed = self.chance.random();
        let _inside = self.runtime.enter();
        Writers::begin(Style::ENDLESS, &name, seed, &self.history)
    }

    /// From a start to the cut.
    fn life(&mut self, moment: Moment) -> anyhow::Result<Wrong> {
        self.start()?;
        let before = snapshots(&self.data());
        if matches!(moment, Moment::Work | Moment::Stop) {
            let wrong = self.check(self.settled + 1)?;
            if !wrong.is_empty() {
                return Ok(wrong);
            }
        }
        let writers = self.write()?;
        let mut met = moment;
        let pause = match moment {
            Moment::Founding => self.chance.random_range(0..900),
            Moment::Recovery => self.chance.random_range(0..700),
            Moment::Work => self.chance.random_range(50..1200),
            Moment::Stop => self.chance.random_range(100..400),
            Moment::Snapshot => {
                let deadline = Instant::now() + SNAPSHOT_PATIENCE;
                while before == snapshots(&self.data()) && Instant::now() < deadline {
                    thread::sleep(POLL);
                }
                if before == snapshots(&self.data()) {
                    met = Moment::Work;
                }
                self.chance.random_range(0..200)
            }
        };
        thread::sleep(Duration::from_millis(pause));
        if moment == Moment::Stop {
            self.station.begin_stop()?;
            thread::sleep(Duration::from_millis(self.chance.random_range(0..600)));
        }
        let mut wrong = Vec::new();
        if let Some(status) = self.station.ended()?
            && !(moment == Moment::Stop && status.success())
        {
            wrong.push(self.ended(&format!("{status}")));
        }
        let tally = self.cut(writers, &mut wrong)?;
        self.count(met, tally);
        Ok(wrong)
    }

    fn cut(&mut self, writers: Writers, wrong: &mut Wrong) -> anyhow::Result<Tally> {
        // As the kernel may: at any moment, in any order, and never all of it.
        let while_it_ran = self.chance.random_bool(0.3) && self.write_back()?;
        writers.tell_to_stop();
        self.station.kill()?;
        let after_it_ended = self.chance.random_bool(0.3) && self.write_back()?;
        let before = sizes(&self.data()).context("before the cut")?;
        let unsynced = self.disk.cut_power().context("cutting the power")?;
        if unsynced != Unsynced::Lost {
            let life = self.life;
            lock(self.sum)
                .invalid
                .push(format!("life {life}: that was no power cut: {unsynced:?}"));
        }
        let after = sizes(&self.data()).context("after the cut")?;
        // Kept as the cut left it, should the next start show something.
        self.disk.unmount()?;
        self.disk.save()?;
        let operations = self.runtime.block_on(writers.join())?;
        let count =
            |outcome| operations.iter().filter(|made| made.outcome == outcome).count() as u64;
        let tally = Tally {
            cuts: 1,
            acknowledged: count(Outcome::Ok),
            unknown: count(Outcome::Unknown),
            lost_bytes: lost(&before, &after),
            written_back: u64::from(while_it_ran || after_it_ended),
        };
        for operation in &operations {
            wrong.extend(self.ledger.note(operation).err());
        }
        let named =
            |made: &Operation| made.outcome == Outcome::Ok && made.call.idempotency_key().is_some();
        let named: Vec<Operation> = operations.into_iter().filter(named).collect();
        let chosen = named.choose_multiple(&mut self.chance, SENT_AGAIN).cloned();
        self.recent.extend(chosen);
        Ok(tally)
    }

    /// Writes some of the node's files to the disk, and with each the metadata of all.
    fn write_back(&mut self) -> anyhow::Result<bool> {
        let mut paths: Vec<PathBuf> = sizes(&self.data())?.into_keys().collect();
        paths.shuffle(&mut self.chance);
        paths.truncate(self.chance.random_range(1..=4));
        // The node may be deleting it.
        let files = paths.iter().filter_map(|path| File::open(path).ok());
        Ok(files.map(|file| file.sync_data()).filter(Result::is_ok).count() > 0)
    }

    /// Waits until the node serves, and compares all that it has, its changes from a revision on.
    fn check(&mut self, from: u64) -> anyhow::Result<Wrong> {
        let begun = Instant::now();
        match self.station.wait_began()? {
            Began::Serves => {}
            Began::Ended(status) => return Ok(vec![self.ended(&format!("{status}"))]),
            Began::Hangs => return Ok(vec![self.ended("nothing: it does not serve")]),
        }
        let started = begun.elapsed();
        let scopes = scopes();
        let question = Question::of(&self.ledger, &scopes, from);
        let answers = self.runtime.block_on(ask(Station::target().grpc, &question));
        let mut wrong = self.ledger.settle(&answers.found);
        wrong.extend(answers.found.errors);
        match answers.audit {
            Some(Ok(_)) => {}
            Some(Err(broken)) => wrong.push(format!("the audit log: {broken}")),
            None => wrong.push("the audit log is not answered".to_owned()),
        }
        wrong.extend(self.send_again()?);
        self.settled = self.ledger.revision();
        let mut sum = lock(self.sum);
        sum.slowest_start = sum.slowest_start.max(started);
        sum.compared += answers.found.changes.len() as u64;
        Ok(wrong.into_iter().map(|wrong| format!("life {}: {wrong}", self.life)).collect())
    }

    /// A request that is sent again under its idempotency key gets the answer that it had.
    fn send_again(&mut self) -> anyhow::Result<Wrong> {
        let again = std::mem::take(&mut self.recent);
        let path = self.history.with_extension("again.jsonl");
        let recorder = std::sync::Arc::new(Recorder::create(&path, &Header::default())?);
        let mut client = Client::new(recorder.clone(), Targets::default());
        let answers = self.runtime.block_on(async {
            let mut answers = Vec::new();
            for first in again {
                let second = client.call(Station::target(), first.call.clone()).await;
                answers.push((first, second));
            }
            answers
        });
        recorder.finish()?;
        let differs = answers.into_iter().filter_map(|(first, second)| {
            let same = second.as_ref().is_some_and(|second| {
                (second.outcome, second.revision, &second.answer)
                    == (first.outcome, first.revision, &first.answer)
            });
            let now = second.map(|second| (second.outcome, second.revision, second.error));
            (!same).then(|| {
                format!(
                    "{} of revision {:?}, sent again, is {now:?}",
                    first.call.kind(),
                    first.revision
                )
            })
        });
        Ok(differs.collect())
    }

    fn count(&self, moment: Moment, tally: Tally) {
        let mut sum = lock(self.sum);
        let known = sum.tallies.entry(moment).or_default();
        known.cuts += tally.cuts;
        known.acknowledged += tally.acknowledged;
        known.unknown += tally.unknown;
        known.lost_bytes += tally.lost_bytes;
        known.written_back += tally.written_back;
        let (cuts, writes) = (sum.cuts(), sum.acknowledged());
        if cuts.is_multiple_of(PROGRESS) || cuts == self.wish.cuts {
            println!("{cuts:>6} of {} cuts, {writes} acknowledged writes", self.wish.cuts);
        }
    }

    /// Keeps what shows a failure: the disk as the last cut left it, and as it is now, the log, and how to do it again.
    fn keep(&mut self, cuts: u64, wrong: &[String]) -> anyhow::Result<PathBuf> {
        let kept = self.wish.out.join(format!("seed-{}", self.seed));
        fs::create_dir_all(&kept)?;
        self.station.kill()?;
        self.disk.unmount()?;
        let folder = self.station.folder();
        for (from, to) in [("n1.saved", "after-the-cut.img"), ("n1.img", "now.img")] {
            let (from, to) = (folder.join(from), kept.join(to));
            if from.exists() {
                command::run("cp", ["--sparse=always".as_ref(), from.as_os_str(), to.as_os_str()])?;
            }
        }
        self.disk.mount()?;
        fs::write(kept.join("node.log"), self.station.log())?;
        let lying = if self.wish.lying_sync { " --lying-sync" } else { "" };
        let again = format!("jepsen-lite power --cuts {cuts} --seed {}{lying}", self.seed);
        fs::write(kept.join("wrong.txt"), format!("{}\n\nagain: {again}\n", wrong.join("\n")))?;
        println!("WRONG, life {}: {}\nagain: {again}", self.life, wrong.join("\n"));
        Ok(kept)
    }
}

/// The names of the snapshots in a data directory.
fn snapshots(data: &Path) -> Vec<String> {
    let entries = fs::read_dir(data).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<_> = names.filter(|name| name.starts_with("snapshot-")).collect();
    names.sort();
    names
}

/// All files of a folder, by their length. What vanishes meanwhile is left out.
fn sizes(folder: &Path) -> anyhow::Result<BTreeMap<PathBuf, u64>> {
    let paths = damage::files(folder)?.into_iter().map(|inside| folder.join(inside));
    Ok(paths.filter_map(|path| Some((path.clone(), fs::metadata(path).ok()?.len()))).collect())
}

/// Bytes that were there before and are not there after.
fn lost(before: &BTreeMap<PathBuf, u64>, after: &BTreeMap<PathBuf, u64>) -> u64 {
    let one =
        |(path, size): (&PathBuf, &u64)| size.saturating_sub(after.get(path).copied().unwrap_or(0));
    before.iter().map(one).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(cuts: u64, moments: &[Moment]) -> Sum {
        let tally = Tally { cuts, acknowledged: cuts * WRITES_MIN, ..Tally::default() };
        Sum { tallies: moments.iter().map(|moment| (*moment, tally)).collect(), ..Sum::default() }
    }

    #[test]
    fn only_cuts_that_could_have_shown_something_count() {
        assert_eq!(sum(20, &[Moment::Work, Moment::Snapshot]).judge(40), Verdict::Pass);
        assert_eq!(sum(20, &[Moment::Work, Moment::Snapshot]).judge(41), Verdict::Invalid);
        assert_eq!(sum(40, &[Moment::Work]).judge(40), Verdict::Invalid);
        assert_eq!(sum(5, &[Moment::Work]).judge(5), Verdict::Pass);
        let mut idle = sum(5, &[Moment::Work]);
        idle.tallies.values_mut().for_each(|tally| tally.acknowledged = 3);
        assert_eq!(idle.judge(5), Verdict::Invalid);
    }

    #[test]
    fn a_wrong_answer_counts_whatever_else_is_missing() {
        let mut sum = sum(1, &[Moment::Work]);
        sum.wrong.push("revision 1 is gone".to_owned());
        assert_eq!(sum.judge(40), Verdict::Fail);
    }

    #[test]
    fn lost_bytes_are_those_that_were_there_before() {
        let path = |name: &str| PathBuf::from(name);
        let before = BTreeMap::from([(path("a"), 10), (path("b"), 20), (path("c"), 5)]);
        let after = BTreeMap::from([(path("a"), 4), (path("c"), 5), (path("d"), 9)]);
        assert_eq!(lost(&before, &after), 26);
    }
}
