//! `jepsen-lite corrupt`: one file of a stopped node is damaged, the node is started on what is left, and asked for
//! everything: at once, after it has compacted its files, and after another start.
//!
//! It may refuse to start, stop, or answer with errors, as long as it says so. What it answers without an error has to be
//! right.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use anyhow::Context as _;
use jepsen_lite::history::{Call, Header};
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use tokio::runtime::Runtime;

use super::ask::{Question, ask};
use super::damage::{Damage, Harm, KINDS, copy, damage, mend};
use super::ledger::Ledger;
use super::origin::{Origin, prepare, scarce};
use super::station::{Began, Station};
use super::writers::scopes;
use super::{lock, runtime, table};
use crate::client::{Client, Recorder};
use crate::lab::{REFUSED, Targets};
use crate::report::Verdict;

/// The exit code of a server that ends because of a fault at run time.
const FAULT: i32 = 1;
/// Writes that are made on the damaged directory, each time it serves.
const WRITES: u64 = 6;
const PROGRESS: u64 = 25;

/// What is wanted.
#[derive(Debug, Clone)]
pub struct Wish {
    /// The name of the run.
    pub run: String,
    /// How many corruptions.
    pub count: u64,
    /// What everything is derived from.
    pub seed: u64,
    /// The number of the first.
    pub from: u64,
    /// How many at the same time.
    pub jobs: u64,
    /// The server program.
    pub server: PathBuf,
    /// Where everything is written that stays.
    pub out: PathBuf,
}

/// What a node did with a damaged directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    /// It did not start, and said why. With the file put right, it served everything.
    Refused,
    /// It did not start, and said why, and did not either with the file put right.
    ForGood,
    /// It ended when it met the damage, and said so.
    Stopped,
    /// It answered some questions with errors, and the others rightly.
    Errors,
    /// Everything was right.
    Harmless,
    /// It did not start and did not say what is damaged or what to do about it, or ended in another way than it should.
    Unclear,
    /// It neither served nor ended.
    Hung,
    /// It gave a wrong answer without an error, or lost what it had acknowledged.
    Wrong,
}

impl Outcome {
    const ALL: [Self; 8] = [
        Self::Refused,
        Self::ForGood,
        Self::Stopped,
        Self::Errors,
        Self::Harmless,
        Self::Unclear,
        Self::Hung,
        Self::Wrong,
    ];

    fn words(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::ForGood => "refused for good",
            Self::Stopped => "stopped",
            Self::Errors => "errors",
            Self::Harmless => "harmless",
            Self::Unclear => "UNCLEAR",
            Self::Hung => "HUNG",
            Self::Wrong => "WRONG",
        }
    }

    fn is_fine(self) -> bool {
        matches!(
            self,
            Self::Refused | Self::ForGood | Self::Stopped | Self::Errors | Self::Harmless
        )
    }
}

/// One corruption and what came of it.
#[derive(Debug, Clone)]
struct Case {
    number: u64,
    origin: &'static str,
    kind: &'static str,
    harm: Harm,
    what: String,
    outcome: Outcome,
    words: String,
}

/// Which corruption has which number: every kind with every harm on every directory, in an order of chance.
struct Plan {
    seed: u64,
    all: Vec<(usize, &'static str, Harm)>,
}

impl Plan {
    fn new(seed: u64, origins: usize) -> Self {
        let kinds = (0..origins).flat_map(|origin| KINDS.map(|kind| (origin, kind)));
        let mut all: Vec<_> =
            kinds.flat_map(|(origin, kind)| Harm::ALL.map(|harm| (origin, kind, harm))).collect();
        all.shuffle(&mut StdRng::seed_from_u64(seed));
        Self { seed, all }
    }

    /// The choices for a number; some may not be possible.
    fn of(&self, number: u64) -> (usize, &'static str, Harm, StdRng) {
        let at = usize::try_from(number % self.all.len() as u64).unwrap_or(0);
        let (origin, kind, harm) = self.all[at];
        let seed = self.seed.wrapping_mul(1_000_003).wrapping_add(number);
        (origin, kind, harm, StdRng::seed_from_u64(seed))
    }
}

/// Makes the corruptions.
///
/// # Errors
/// When the harness fails; what the product did wrong makes the verdict.
pub fn corrupt(wish: &Wish, interrupted: &AtomicBool) -> anyhow::Result<Verdict> {
    fs::create_dir_all(&wish.out).with_context(|| format!("cannot make {}", wish.out.display()))?;
    let begun = Instant::now();
    let history = wish.out.join("origins.jsonl");
    let log = wish.out.join("origins.log");
    // Kept until the end: the directories are in its folder.
    let (_station, origins) = {
        let run = format!("{}o", wish.run);
        let (server, seed) = (wish.server.clone(), wish.seed);
        // On a thread of its own, as it moves into another network.
        let making = thread::spawn(move || -> anyhow::Result<(Station, Vec<Origin>)> {
            let mut station = Station::create(&run, &server, &log)?;
            let runtime = runtime()?;
            let origins = prepare(&mut station, &runtime, seed, &history)?;
            Ok((station, origins))
        });
        making.join().map_err(|_| anyhow::anyhow!("preparing panicked"))??
    };
    for origin in &origins {
        println!("directory {:?}: {} revisions", origin.name, origin.ledger.count());
    }
    let plan = Plan::new(wish.seed, origins.len());
    let next = AtomicU64::new(wish.from);
    let cases = Mutex::new(Vec::new());
    thread::scope(|scope| {
        let shared = Shared {
            wish,
            plan: &plan,
            origins: &origins,
            next: &next,
            cases: &cases,
            interrupted,
        };
        let jobs: Vec<_> =
            (0..wish.jobs).map(|job| scope.spawn(move || Job::work(shared, job))).collect();
        jobs.into_iter().try_for_each(|job| match job.join() {
            Ok(done) => done,
            Err(_) => anyhow::bail!("a job panicked"),
        })
    })?;
    let cases = cases.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let (verdict, mut text) = judge(&cases, wish.count);
    text += &format!(
        "{} corruptions in {} s\n{}",
        cases.len(),
        begun.elapsed().as_secs(),
        verdict.word()
    );
    println!("{text}");
    let each: String = cases.iter().map(line).collect();
    fs::write(wish.out.join("report.txt"), format!("{text}\n\n{each}"))?;
    Ok(verdict)
}

fn line(case: &Case) -> String {
    let Case { number, origin, what, outcome, words, .. } = case;
    format!("{number:>5}  {:<9} {origin}: {what}: {words}\n", outcome.words())
}

fn judge(cases: &[Case], wanted: u64) -> (Verdict, String) {
    let mut cells: BTreeMap<(&str, Harm), BTreeMap<Outcome, u64>> = BTreeMap::new();
    let mut sums: BTreeMap<Outcome, u64> = BTreeMap::new();
    for case in cases {
        *cells.entry((case.kind, case.harm)).or_default().entry(case.outcome).or_default() += 1;
        *sums.entry(case.outcome).or_default() += 1;
    }
    let cell = |kind, harm| match cells.get(&(kind, harm)) {
        None => "–".to_owned(),
        Some(counts) => {
            let words =
                counts.iter().map(|(outcome, count)| format!("{count} {}", outcome.words()));
            words.collect::<Vec<_>>().join(", ")
        }
    };
    let row = |kind: &&'static str| {
        let cells = Harm::ALL.map(|harm| cell(*kind, harm));
        [(*kind).to_owned()].into_iter().chain(cells).collect::<Vec<_>>()
    };
    let rows: Vec<_> = KINDS.iter().map(row).collect();
    let head: Vec<&str> = ["file"].into_iter().chain(Harm::ALL.map(Harm::words)).collect();
    let mut text = table(&head, &rows);
    text.push('\n');
    for outcome in Outcome::ALL {
        text += &format!("{:>6} {}\n", sums.get(&outcome).copied().unwrap_or(0), outcome.words());
    }
    let bad: Vec<&Case> = cases.iter().filter(|case| !case.outcome.is_fine()).collect();
    text.extend(bad.iter().map(|case| line(case)));
    // A rig that damages nothing finds nothing.
    let noticed = sums.iter().filter(|(outcome, _)| **outcome != Outcome::Harmless);
    let noticed: u64 = noticed.map(|(_, count)| count).sum();
    let verdict = if !bad.is_empty() {
        Verdict::Fail
    } else if (cases.len() as u64) < wanted || (wanted >= 50 && noticed * 5 < wanted) {
        text += "invalid: too few corruptions were made or noticed\n";
        Verdict::Invalid
    } else {
        Verdict::Pass
    };
    (verdict, text)
}

#[derive(Clone, Copy)]
struct Shared<'a> {
    wish: &'a Wish,
    plan: &'a Plan,
    origins: &'a [Origin],
    next: &'a AtomicU64,
    cases: &'a Mutex<Vec<Case>>,
    interrupted: &'a AtomicBool,
}

/// One after the other, in a station of its own.
struct Job<'a> {
    shared: Shared<'a>,
    station: Station,
    runtime: Runtime,
    data: PathBuf,
    log: PathBuf,
}

impl Job<'_> {
    fn work(shared: Shared<'_>, job: u64) -> anyhow::Result<()> {
        let wish = shared.wish;
        let log = wish.out.join(format!("node-{job}.log"));
        let station = Station::create(&format!("{}{job}", wish.run), &wish.server, &log)?;
        let data = station.folder().join("data");
        let mut job = Job { shared, station, runtime: runtime()?, data, log };
        // Some combinations do not exist; more than a whole round of them without one that does is a mistake.
        while (lock(shared.cases).len() as u64) < wish.count {
            anyhow::ensure!(!shared.interrupted.load(Ordering::Relaxed), "interrupted");
            let number = shared.next.fetch_add(1, Ordering::Relaxed);
            anyhow::ensure!(
                number - wish.from < 10 * wish.count + 1000,
                "hardly anything can be damaged"
            );
            let Some(case) = job.corrupt(number)? else { continue };
            if !case.outcome.is_fine() {
                job.keep(&case)?;
            }
            let mut cases = lock(shared.cases);
            cases.push(case);
            let count = cases.len() as u64;
            if count.is_multiple_of(PROGRESS) {
                let bad = cases.iter().filter(|case| !case.outcome.is_fine()).count();
                println!("{count:>6} of {} corruptions, {bad} bad", wish.count);
            }
        }
        Ok(())
    }

    /// Copies a directory and damages it; the number says how, so that it can be done again.
    fn damaged(&self, number: u64, to: &Path) -> anyhow::Result<Option<(Damage, StdRng)>> {
        let (origin, kind, harm, mut chance) = self.shared.plan.of(number);
        let origin = &self.shared.origins[origin];
        match fs::remove_dir_all(to) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        copy(&origin.data, to)?;
        let damage = damage(to, &origin.older, kind, harm, &mut chance)?;
        Ok(damage.map(|damage| (damage, chance)))
    }

    fn corrupt(&mut self, number: u64) -> anyhow::Result<Option<Case>> {
        let (origin, kind, harm, _) = self.shared.plan.of(number);
        let origin = &self.shared.origins[origin];
        let data = self.data.clone();
        let Some((damage, mut chance)) = self.damaged(number, &data)? else { return Ok(None) };
        let _ = fs::remove_file(&self.log);
        let tidies = chance.random_bool(0.5);
        let mut trial =
            Trial { job: self, ledger: origin.ledger.clone(), origin, number, errors: Vec::new() };
        let (mut outcome, mut words) = trial.run(tidies)?;
        if outcome == Outcome::Refused {
            mend(&data, &origin.data, &damage)?;
            (outcome, words) = trial.run_mended(words)?;
        }
        self.station.kill()?;
        let what = damage.what;
        Ok(Some(Case { number, origin: origin.name, kind, harm, what, outcome, words }))
    }

    /// Keeps what shows a bad outcome: the directory as it was damaged, as it is now, and what the node said.
    fn keep(&self, case: &Case) -> anyhow::Result<()> {
        let kept = self.shared.wish.out.join(format!("case-{}", case.number));
        self.damaged(case.number, &kept.join("damaged"))?;
        copy(&self.data, &kept.join("now"))?;
        fs::copy(&self.log, kept.join("node.log"))?;
        let again = format!(
            "jepsen-lite corrupt --seed {} --from {} --count 1",
            self.shared.wish.seed, case.number
        );
        let text = format!("{}\nagain: {again}\n", line(case));
        println!("{text}");
        fs::write(kept.join("case.txt"), text)?;
        Ok(())
    }
}

/// One damaged directory.
struct Trial<'j, 'a> {
    job: &'j mut Job<'a>,
    origin: &'a Origin,
    ledger: Ledger,
    number: u64,
    /// Answers that were errors.
    errors: Vec<String>,
}

/// What is known when it is known how it ends.
type End = Option<(Outcome, String)>;

impl Trial<'_, '_> {
    fn run(&mut self, tidies: bool) -> anyhow::Result<(Outcome, String)> {
        for (start, tidies) in [("first", tidies), ("second", false)] {
            let options =
                if tidies { scarce(self.job.station.folder())?.to_vec() } else { Vec::new() };
            let options: Vec<&str> = options.iter().map(String::as_str).collect();
            let data = self.job.data.clone();
            self.job.station.start(&data, &options)?;
            match self.job.station.wait_began()? {
                Began::Serves => {}
                Began::Hangs => return Ok((Outcome::Hung, format!("the {start} start hangs"))),
                Began::Ended(status) => {
                    let (outcome, words) = self.ended(status, true);
                    // What it had written meanwhile cannot be put right from a copy.
                    let late = outcome == Outcome::Refused && start == "second";
                    let outcome = if late { Outcome::ForGood } else { outcome };
                    return Ok((outcome, format!("{start} start: {words}")));
                }
            }
            if let Some(end) = self.serve(start)? {
                return Ok(end);
            }
            // It may have ended just now.
            let status = match self.job.station.ended()? {
                Some(status) => status,
                None => self.job.station.stop()?,
            };
            if !status.success() {
                return Ok(self.ended(status, false));
            }
        }
        Ok(match self.errors.first() {
            Some(first) => (Outcome::Errors, first.clone()),
            None => (Outcome::Harmless, "everything is right".to_owned()),
        })
    }

    /// After a refusal, with the file put right: the refusal must not have spoilt anything, so that whoever follows its
    /// advice has everything again.
    fn run_mended(&mut self, refusal: String) -> anyhow::Result<(Outcome, String)> {
        let data = self.job.data.clone();
        self.job.station.start(&data, &[])?;
        match self.job.station.wait_began()? {
            Began::Hangs => return Ok((Outcome::Hung, "hangs with the file put right".to_owned())),
            Began::Ended(status) => {
                let (outcome, words) = self.ended(status, true);
                let outcome = if outcome == Outcome::Refused { Outcome::ForGood } else { outcome };
                return Ok((outcome, format!("{refusal}; with the file put right: {words}")));
            }
            Began::Serves => {}
        }
        if let Some((outcome, words)) = self.compare("mended")? {
            return Ok((outcome, words));
        }
        match self.errors.first() {
            Some(first) => Ok((Outcome::Wrong, format!("with the file put right: {first}"))),
            None => Ok((Outcome::Refused, refusal)),
        }
    }

    /// Asks for everything, writes, has it compact its files, and asks again.
    fn serve(&mut self, start: &str) -> anyhow::Result<End> {
        if let Some(end) = self.compare(start)? {
            return Ok(Some(end));
        }
        if let Err(twice) = self.write(start)? {
            return Ok(Some((Outcome::Wrong, twice)));
        }
        for path in ["/api/v1/admin/compact", "/api/v1/admin/cache/clear"] {
            self.errors.extend(Station::post(path).err().map(|error| format!("{error:#}")));
        }
        self.compare(&format!("{start}, compacted"))
    }

    fn compare(&mut self, when: &str) -> anyhow::Result<End> {
        let scopes = scopes();
        let question = Question::of(&self.ledger, &scopes, 1);
        let answers = self.job.runtime.block_on(ask(Station::target().grpc, &question));
        let mut wrong = self.ledger.settle(&answers.found);
        match answers.audit {
            Some(Ok(chain)) if chain.last < self.origin.audit.last => {
                wrong.push(format!(
                    "the audit log ends at {}, not {}",
                    chain.last, self.origin.audit.last
                ));
            }
            Some(Ok(chain))
                if chain.last == self.origin.audit.last && chain != self.origin.audit =>
            {
                wrong.push("the audit log is another one".to_owned());
            }
            Some(Ok(_)) => {}
            // Its own word that something is wrong with it.
            Some(Err(broken)) => self.errors.push(format!("audit: {broken}")),
            None if answers.found.errors.is_empty() => wrong.push("no audit log".to_owned()),
            None => {}
        }
        self.errors.extend(answers.found.errors);
        let first =
            wrong.first().map(|first| format!("{when} start: {first} ({} findings)", wrong.len()));
        Ok(first.map(|first| (Outcome::Wrong, first)))
    }

    /// Values of its own, to new entries and to old ones. The outer result is the harness's.
    fn write(&mut self, start: &str) -> anyhow::Result<Result<(), String>> {
        let path = self.job.log.with_extension("jsonl");
        let recorder = Arc::new(Recorder::create(&path, &Header::default())?);
        let mut client = Client::new(recorder.clone(), Targets::default());
        let old: Vec<String> = self.ledger.keys().iter().take(3).cloned().collect();
        let calls = (0..WRITES).map(|write| {
            let key = match old.get(usize::try_from(write / 2).unwrap_or(0)) {
                Some(key) if write % 2 == 0 => key.clone(),
                _ => format!("jl-store-a/new{write}@production"),
            };
            let value = format!("{}.{start}.{write}", self.number).into();
            Call::Set { key, value, expected_version: None, idempotency_key: None }
        });
        let calls: Vec<_> = calls.collect();
        let made = self.job.runtime.block_on(async {
            let mut made = Vec::new();
            for call in calls {
                made.extend(client.call(Station::target(), call).await);
            }
            made
        });
        recorder.finish()?;
        for operation in &made {
            if let Err(twice) = self.ledger.note(operation) {
                return Ok(Err(twice));
            }
            self.errors.extend(operation.error.clone());
        }
        Ok(Ok(()))
    }

    fn ended(&self, status: ExitStatus, at_start: bool) -> (Outcome, String) {
        ended(status, at_start, &self.job.station.log(), &self.job.data)
    }
}

/// Whether a node ended as it should, by what it said last.
fn ended(status: ExitStatus, at_start: bool, log: &str, data: &Path) -> (Outcome, String) {
    let said = log.lines().rfind(|line| line.contains("error: ")).unwrap_or_default();
    let said = said.split_once("error: ").map_or(said, |(_, said)| said);
    let words = format!("{status}: {said}");
    if log.contains("panicked at") || status.signal().is_some() || said.is_empty() {
        return (Outcome::Unclear, words);
    }
    let names = said.contains(&format!("{}/", data.display()));
    let advice = ["replace", "restore", "use "].iter().any(|word| said.contains(word));
    match (status.code(), at_start) {
        (Some(REFUSED), true) if names && advice => (Outcome::Refused, words),
        (Some(REFUSED), false) if names && advice => (Outcome::Stopped, words),
        (Some(FAULT), false) => (Outcome::Stopped, words),
        _ => (Outcome::Unclear, words),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(kind: &'static str, harm: Harm, outcome: Outcome) -> Case {
        let (what, words) = ("x flipped".to_owned(), "because".to_owned());
        Case { number: 7, origin: "young", kind, harm, what, outcome, words }
    }

    fn exit(code: i32) -> ExitStatus {
        ExitStatus::from_raw(code << 8)
    }

    #[test]
    fn every_bad_outcome_fails_and_too_few_prove_nothing() {
        let fine = [Outcome::Refused, Outcome::Stopped, Outcome::Errors, Outcome::Harmless];
        let cases: Vec<Case> =
            fine.iter().map(|outcome| case(KINDS[0], Harm::Flip, *outcome)).collect();
        let (verdict, text) = judge(&cases, 4);
        assert_eq!(verdict, Verdict::Pass);
        assert!(
            text.contains("| identity | 1 refused, 1 stopped, 1 errors, 1 harmless | – |"),
            "{text}"
        );
        assert_eq!(judge(&cases, 5).0, Verdict::Invalid);
        for outcome in [Outcome::Unclear, Outcome::Hung, Outcome::Wrong] {
            let mut cases = cases.clone();
            cases.push(case(KINDS[1], Harm::Cut, outcome));
            assert_eq!(judge(&cases, 5).0, Verdict::Fail, "{outcome:?}");
        }
        let harmless = vec![case(KINDS[0], Harm::Flip, Outcome::Harmless); 60];
        assert_eq!(judge(&harmless, 60).0, Verdict::Invalid);
    }

    #[test]
    fn a_refusal_names_a_file_and_says_what_to_do() {
        let data = Path::new("/run/x/data");
        let of = |code, at_start, log: &str| ended(exit(code), at_start, log, data).0;
        let good = "INFO starting\nerror: /run/x/data/log: Corruption: bad; restore it, or replace the node\n";
        assert_eq!(of(3, true, good), Outcome::Refused);
        assert_eq!(of(3, false, good), Outcome::Stopped);
        assert_eq!(of(1, true, good), Outcome::Unclear);
        assert_eq!(of(2, true, good), Outcome::Unclear);
        assert_eq!(of(3, true, "error: Corruption: bad; replace the node"), Outcome::Unclear);
        assert_eq!(of(3, true, "error: /run/x/data/log: Corruption: bad"), Outcome::Unclear);
        assert_eq!(of(3, true, "INFO starting"), Outcome::Unclear);
        assert_eq!(of(1, false, "error: the state machine met a damaged table"), Outcome::Stopped);
        assert_eq!(of(1, false, "thread 'x' panicked at y\nerror: z"), Outcome::Unclear);
        let killed = ExitStatus::from_raw(9);
        assert_eq!(ended(killed, false, good, data).0, Outcome::Unclear);
    }

    #[test]
    fn a_number_is_the_same_damage_each_time() {
        let (one, two) = (Plan::new(5, 4), Plan::new(5, 4));
        for number in 0..600 {
            let (a, b) = (one.of(number), two.of(number));
            assert_eq!((a.0, a.1, a.2), (b.0, b.1, b.2));
            let (mut a, mut b) = (a.3, b.3);
            assert_eq!(a.random::<u64>(), b.random::<u64>());
        }
        let whole: std::collections::BTreeSet<_> =
            (0..504).map(|number| one.of(number)).map(|(a, b, c, _)| (a, b, c)).collect();
        assert_eq!(whole.len(), 504);
    }
}
