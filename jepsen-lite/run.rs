//! One run: a cluster is founded, works in peace, is broken for a while, is mended, has to heal and serve, loses power at
//! all nodes at once, and is asked for everything it acknowledged.

use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use jepsen_lite::history::{self, Fault, Header};
use jepsen_lite::{check, judge};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use crate::client::Recorder;
use crate::lab::disk::Unsynced;
use crate::lab::leak::Needles;
use crate::lab::net::Port;
use crate::lab::{self, Lab, ballast, command, net};
use crate::nemesis::{self, Active, Class, Outcome, Plan, Planned};
use crate::report::{Checked, Report, Struck, Verdict};
use crate::workload::{self, Work, Workload};

const HEALTHY: Duration = Duration::from_secs(5);
/// Fewer answers a second than this, and the faults would have nothing to disturb.
const RATE_MIN: u64 = 50;
/// How long faults that have to wait for the cluster may do so after the last one began.
const WAIT_MAX: Duration = Duration::from_secs(45);
const STOP_PATIENCE: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_millis(50);
const PROGRESS: Duration = Duration::from_secs(10);
/// Versions that are kept of an entry, by default.
const HISTORY_LIMIT: u64 = 100;
/// Nodes that join.
const SPARES: u8 = 2;

/// What is wanted of a run.
#[derive(Debug, Clone)]
pub struct Wish {
    /// Its name.
    pub run: String,
    /// What everything is derived from.
    pub seed: u64,
    /// Founding nodes.
    pub nodes: u8,
    /// How long faults are made.
    pub time: Duration,
    /// Which.
    pub faults: Vec<Class>,
    /// What clients do.
    pub workloads: BTreeSet<Workload>,
    /// How long clients rest, in hundredths of the usual.
    pub pace: u64,
    /// The server program.
    pub server: PathBuf,
    /// What it finds in its environment.
    pub environment: Vec<(&'static str, String)>,
    /// How long the cluster may take to come together again.
    pub heal: Duration,
    /// How long a failing history is made smaller.
    pub shrink: Duration,
    /// Where everything is written that stays.
    pub out: PathBuf,
    /// The command that runs it again.
    pub command: String,
}

/// Makes a run.
///
/// # Errors
/// When the harness fails; what the product did wrong is in the report.
pub fn run(wish: &Wish) -> anyhow::Result<Report> {
    let mut wish = wish.clone();
    if wish.faults.contains(&Class::ClockRate) {
        // The age of an answer is by the clock of the node that gives it: no promise is made for one that runs wrong.
        wish.workloads.remove(&Workload::Staleness);
    }
    ensure!(!wish.workloads.is_empty(), "these faults leave no workload");
    let wish = &wish;
    fs::create_dir_all(&wish.out).with_context(|| format!("cannot make {}", wish.out.display()))?;
    let version = command::run(&wish.server.to_string_lossy(), ["--version"])?.trim().to_owned();
    let needs = |what| wish.faults.iter().any(|class| class.needs().contains(&what));
    let lab = Lab::create(lab::Settings {
        run: wish.run.clone(),
        founders: wish.nodes,
        spares: SPARES,
        server: wish.server.clone(),
        out: wish.out.clone(),
        shim: needs(lab::doctor::Capability::Shim),
        groups: needs(lab::doctor::Capability::Groups),
        environment: wish.environment.clone(),
        snapshots: wish.faults.iter().any(|class| class.needs_snapshots()),
    })?;
    net::enter(&lab.namespace(Port::Control))?;
    let runtime = clients_runtime(&lab)?;
    let header = Header {
        workload: names(wish),
        seed: wish.seed,
        closing: true,
        audited: true,
        history_limit: if forgets(wish) { 1 } else { HISTORY_LIMIT },
        sums: wish.workloads.iter().flat_map(|workload| workload.sums()).collect(),
        ..Header::default()
    };
    let path = wish.out.join("history.jsonl");
    let recorder = Arc::new(Recorder::create(&path, &header)?);
    let mut drive = Drive {
        wish,
        interrupted: listen(&runtime)?,
        runtime,
        recorder,
        begun: Instant::now(),
        report: Report {
            run: wish.run.clone(),
            command: wish.command.clone(),
            seed: wish.seed,
            nodes: wish.nodes,
            server: version,
            ..Report::default()
        },
        cut_off: false,
        lab,
    };
    let whole = drive.drive()?;
    let Drive { mut report, lab, runtime, recorder, begun, cut_off, .. } = drive;
    [report.power_cuts, report.power_cuts_of_all] = lab.power_cuts;
    let nodes = lab.targets.now().iter().map(|target| target.id).collect();
    drop(lab);
    drop(runtime);
    report.seconds = begun.elapsed().as_secs();
    let counts = recorder.counts();
    (report.ok, report.failed, report.unknown) = (counts.ok, counts.failed, counts.unknown);
    report.wrong.extend(panics(&wish.out)?);
    if recorder.compacted() > 0 && !forgets(wish) {
        let times = recorder.compacted();
        report.wrong.push(format!("{times} watches were refused as compacted, without need"));
    }
    recorder.finish()?;
    report.wrong.extend(leaks(&wish.out, &Needles::of(&recorder.vault().hidden()))?);
    let mut history = history::read_file(&path)?;
    history.header.nodes = nodes;
    history.header.closing = whole;
    history.header.partial = cut_off;
    history.header.audited = whole;
    history.header.notes.insert("command".to_owned(), wish.command.clone());
    history.header.notes.insert("server".to_owned(), report.server.clone());
    history::write_file(&path, &history)?;
    let found = check::check(&history, &check::Limits::default());
    report.checks = checked(&found);
    let options = judge::Options { shrink_time: wish.shrink, ..judge::Options::default() };
    for file in judge::explain(&history, &found, &options, &path)? {
        println!("see {}", file.display());
    }
    report.save(&wish.out.join("report.json"))?;
    fs::write(wish.out.join("report.txt"), report.text())?;
    Ok(report)
}

/// Whether the store may let go of the change log and of the history of deleted entries: it does so when it is full.
fn forgets(wish: &Wish) -> bool {
    wish.faults.contains(&Class::DiskFull)
}

fn names(wish: &Wish) -> String {
    let names = wish.workloads.iter().map(|workload| format!("{workload:?}").to_lowercase());
    names.collect::<Vec<_>>().join(",")
}

/// Every thread of it lives in the clients' namespace.
fn clients_runtime(lab: &Lab) -> anyhow::Result<Runtime> {
    let namespace = lab.namespace(Port::Clients);
    let place = namespace.clone();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        // Whether it worked is asked below.
        .on_thread_start(move || drop(net::enter(&place)))
        .enable_all()
        .build()?;
    let inode = |path: &str| fs::metadata(path).map(|found| found.ino());
    let there =
        runtime.block_on(runtime.spawn(async move { inode("/proc/thread-self/ns/net") }))??;
    let wanted = inode(&format!("/run/netns/{namespace}"))?;
    ensure!(there == wanted, "clients are not in the namespace {namespace}");
    Ok(runtime)
}

/// Becomes true when somebody wants the run to end.
///
/// # Errors
/// When signals cannot be caught.
pub fn listen(runtime: &Runtime) -> anyhow::Result<Arc<AtomicBool>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    let _inside = runtime.enter();
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        let (mut signals, flag) = (signal(kind)?, interrupted.clone());
        runtime.spawn(async move {
            while signals.recv().await.is_some() {
                flag.store(true, Ordering::Relaxed);
            }
        });
    }
    Ok(interrupted)
}

fn panics(out: &Path) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    for file in fs::read_dir(out)? {
        let path = file?.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            let text = fs::read(&path)?;
            let text = String::from_utf8_lossy(&text);
            let lines = text.lines().filter(|line| line.contains("panicked at"));
            found.extend(lines.map(|line| format!("{}: {line}", path.display())));
        }
    }
    Ok(found)
}

/// What must not get out, in the logs of nodes and in the history, which both are kept.
fn leaks(out: &Path, needles: &Needles) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    for file in fs::read_dir(out)? {
        let path = file?.path();
        if path.extension().is_some_and(|extension| extension == "log" || extension == "jsonl") {
            found.extend(needles.file(&path)?);
        }
    }
    Ok(found)
}

struct Drive<'a> {
    wish: &'a Wish,
    lab: Lab,
    runtime: Runtime,
    recorder: Arc<Recorder>,
    interrupted: Arc<AtomicBool>,
    begun: Instant,
    report: Report,
    /// Some calls were given up, and nobody took them down.
    cut_off: bool,
}

/// A fault in force, and when it is to be mended.
struct InForce {
    fault: Box<dyn Active>,
    class: Class,
    due: Instant,
    from_ns: u64,
    nodes: Vec<u64>,
}

impl Drive<'_> {
    /// True when the closing scan was made.
    fn drive(&mut self) -> anyhow::Result<bool> {
        if let Err(error) = self.lab.found(self.wish.heal) {
            self.note_crashes();
            // Without a crash, the machine may be too slow for it.
            ensure!(!self.report.wrong.is_empty(), error);
            return Ok(false);
        }
        if self.wish.faults.contains(&Class::Snapshot) {
            let mut chance = StdRng::seed_from_u64(self.wish.seed);
            let leader = self.lab.wait_leader(self.wish.heal)?;
            ballast::load(self.lab.node(leader)?.http(), || chance.random())?;
        }
        self.say("the cluster serves");
        let mut work = {
            let _inside = self.runtime.enter();
            let (wish, targets) = (self.wish, &self.lab.targets);
            Work::begin(&wish.workloads, &self.recorder, targets, wish.seed, wish.pace)
        };
        self.work_in_peace()?;
        self.break_it()?;
        let healed = self.heal()?;
        if healed {
            self.check_service()?;
        }
        let stopped = self.runtime.block_on(work.stop(STOP_PATIENCE));
        if !healed {
            // Whoever still waits for an answer leaves nothing behind; the checkers have to know.
            self.cut_off = stopped.is_err();
            return Ok(false);
        }
        stopped?;
        self.say("clients have stopped");
        let revision = self.recorder.revision();
        self.runtime.block_on(work.drain_watches(revision))?;
        let closed = self.close()?;
        self.note_crashes();
        Ok(closed)
    }

    fn say(&self, what: &str) {
        let counts = self.recorder.counts();
        println!(
            "{:>7.1} s  {what}  [{} ok, {} refused, {} unknown]",
            self.begun.elapsed().as_secs_f64(),
            counts.ok,
            counts.failed,
            counts.unknown
        );
    }

    fn check_interrupted(&self) -> anyhow::Result<()> {
        ensure!(!self.interrupted.load(Ordering::Relaxed), "interrupted");
        Ok(())
    }

    fn pause(&self, time: Duration) -> anyhow::Result<()> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.check_interrupted()?;
            thread::sleep(TICK.min(until.saturating_duration_since(Instant::now())));
        }
        Ok(())
    }

    fn work_in_peace(&mut self) -> anyhow::Result<()> {
        let before = self.recorder.counts();
        self.pause(HEALTHY)?;
        let after = self.recorder.counts();
        let rate = (after.ok - before.ok) / HEALTHY.as_secs();
        self.report.healthy_rate = rate;
        if rate < RATE_MIN {
            let invalid = format!("only {rate} answers a second before the first fault");
            self.report.invalid.push(invalid);
        }
        self.say("faults begin");
        Ok(())
    }

    fn break_it(&mut self) -> anyhow::Result<()> {
        let plan = Plan::of(self.wish.seed, &self.wish.faults, self.wish.time);
        let mut left: VecDeque<Planned> = plan.0.into();
        let mut in_force: Vec<InForce> = Vec::new();
        let begun = Instant::now();
        // What takes long to put into force moves what follows.
        let mut delay = Duration::ZERO;
        let mut said = Instant::now();
        while !left.is_empty() || !in_force.is_empty() {
            self.check_interrupted()?;
            self.lab.supervise()?;
            self.note_crashes();
            let mut at = 0;
            while at < in_force.len() {
                if Instant::now() >= in_force[at].due && in_force[at].fault.is_due(&mut self.lab)? {
                    let over = in_force.swap_remove(at);
                    self.mend(over)?;
                } else {
                    at += 1;
                }
            }
            if left.front().is_some_and(|next| begun.elapsed() >= next.at + delay)
                && let Some(next) = left.pop_front()
            {
                let started = Instant::now();
                in_force.extend(self.install(&next, &in_force)?);
                delay += started.elapsed();
            }
            // The rest is for what has to wait for the others.
            if left.is_empty()
                && begun.elapsed() > self.wish.time + WAIT_MAX.max(self.wish.time) + delay
            {
                break;
            }
            if said.elapsed() > PROGRESS {
                said = Instant::now();
                self.say("…");
            }
            thread::sleep(TICK);
        }
        // Changes of the members need the rest in order.
        in_force.sort_by_key(|over| over.class == Class::Member);
        in_force.into_iter().try_for_each(|over| self.mend(over))
    }

    fn install(
        &mut self,
        planned: &Planned,
        in_force: &[InForce],
    ) -> anyhow::Result<Option<InForce>> {
        let held: BTreeSet<u8> = in_force.iter().flat_map(|over| over.fault.holds()).collect();
        let mut chance = StdRng::seed_from_u64(planned.seed);
        let from_ns = self.recorder.now();
        let outcome = nemesis::install(&mut self.lab, planned, &mut chance, &held);
        let outcome = outcome.with_context(|| format!("cannot install {:?}", planned.class))?;
        match outcome {
            Outcome::Installed(fault) => {
                self.say(&format!("+ {}", fault.name()));
                let holds = fault.holds();
                let struck = self.lab.nodes.iter().filter(|node| holds.contains(&node.place));
                Ok(Some(InForce {
                    nodes: struck.map(|node| node.id).collect(),
                    fault,
                    class: planned.class,
                    due: Instant::now() + planned.hold,
                    from_ns,
                }))
            }
            Outcome::Skipped(why) => {
                self.report.faults.push(Struck {
                    class: class_name(planned.class),
                    name: String::new(),
                    from_ms: from_ns / 1_000_000,
                    to_ms: from_ns / 1_000_000,
                    bit: None,
                    words: why,
                });
                Ok(None)
            }
        }
    }

    fn mend(&mut self, over: InForce) -> anyhow::Result<()> {
        let InForce { fault, class, from_ns, nodes, .. } = over;
        let name = fault.name();
        let evidence = fault.mend(&mut self.lab).with_context(|| format!("cannot mend: {name}"))?;
        let to_ns = self.recorder.now();
        let bit = if evidence.bit { "" } else { "DID NOT BITE: " };
        self.say(&format!("- {name}: {bit}{}", evidence.words));
        if !evidence.bit {
            self.report.invalid.push(format!("{name} did not bite: {}", evidence.words));
        }
        self.report.wrong.extend(evidence.wrong);
        let struck = Struck {
            class: class_name(class),
            name: name.clone(),
            from_ms: from_ns / 1_000_000,
            to_ms: to_ns / 1_000_000,
            bit: Some(evidence.bit),
            words: evidence.words.clone(),
        };
        self.report.faults.push(struck);
        let detail = evidence.words;
        self.recorder.fault(&Fault { name, nodes, from_ns, to_ns: Some(to_ns), detail });
        Ok(())
    }

    fn note_crashes(&mut self) {
        for crash in self.lab.crashes.drain(..) {
            let wrong = format!("node {} ended with {}:\n{}", crash.id, crash.status, crash.log);
            println!("{wrong}");
            self.report.wrong.push(wrong);
        }
    }

    /// Whether the cluster came together again.
    fn heal(&mut self) -> anyhow::Result<bool> {
        let begun = Instant::now();
        self.lab.supervise()?;
        self.note_crashes();
        let ended: Vec<u8> = {
            let ended = |node: &&lab::Node| node.member && node.server.is_none() && !node.suspect;
            self.lab.nodes.iter().filter(ended).map(|node| node.place).collect()
        };
        ended.iter().try_for_each(|place| self.lab.start(*place))?;
        if let Some(wrong) = nemesis::replace_suspects(&mut self.lab)? {
            self.report.wrong.push(wrong);
            return Ok(false);
        }
        let converged = self.lab.wait_converged(self.wish.heal);
        self.report.healed_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.report.term = self.lab.leader().map_or(0, |(_, term)| term);
        self.note_crashes();
        match converged {
            Ok(_) => self.say("everything is mended, the cluster has healed"),
            Err(error) => {
                self.report.wrong.push(format!("the cluster does not heal: {error:#}"));
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn block_on(
        &self,
        task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) -> anyhow::Result<()> {
        // On a thread of the runtime, and so in the clients' namespace.
        self.runtime.block_on(self.runtime.spawn(task))?
    }

    fn check_service(&mut self) -> anyhow::Result<()> {
        let (recorder, targets) = (self.recorder.clone(), self.lab.targets.clone());
        if let Err(error) = self.block_on(workload::serve(recorder, targets, 1)) {
            self.report.wrong.push(format!("healed, and yet: {error:#}"));
        }
        Ok(())
    }

    /// The power of all goes at once; then everything has to be there.
    fn close(&mut self) -> anyhow::Result<bool> {
        let look = |drive: &Self| {
            let (recorder, targets) = (drive.recorder.clone(), drive.lab.targets.clone());
            drive.block_on(workload::look(recorder, targets, drive.wish.workloads.clone(), false))
        };
        if let Err(error) = look(self) {
            self.report.wrong.push(format!("healed, and yet: {error:#}"));
            return Ok(false);
        }
        let places = self.lab.members();
        let from_ns = self.recorder.now();
        let unsynced = self.lab.cut_power(&places)?;
        let lost = unsynced.iter().all(|unsynced| *unsynced == Unsynced::Lost);
        if !lost {
            self.report.invalid.push(format!("the last power cut was none: {unsynced:?}"));
        }
        places.iter().try_for_each(|place| self.lab.start(*place))?;
        let name = "power cut of all".to_owned();
        let nodes = self.lab.targets.now().iter().map(|target| target.id).collect();
        let to_ns = Some(self.recorder.now());
        let detail = format!("{unsynced:?}");
        self.recorder.fault(&Fault { name, nodes, from_ns, to_ns, detail });
        self.say("all nodes had their power cut, and start again");
        if let Err(error) = self.lab.wait_converged(self.wish.heal) {
            self.note_crashes();
            let wrong =
                format!("after a power cut of all, the cluster does not come back: {error:#}");
            self.report.wrong.push(wrong);
            return Ok(false);
        }
        self.check_interrupted()?;
        let (recorder, targets) = (self.recorder.clone(), self.lab.targets.clone());
        let scan = workload::scan(recorder, targets, self.wish.workloads.clone());
        if let Err(error) = self.block_on(scan) {
            self.report.wrong.push(format!("after a power cut of all: {error:#}"));
            return Ok(false);
        }
        self.say("the closing scan is made");
        let hidden = Needles::of(&self.recorder.vault().hidden());
        let plain = Needles::of(&[workload::PLAIN.to_owned()]);
        let (found, blind) = self.lab.leaks(&hidden, &plain)?;
        self.report.wrong.extend(found);
        self.report.invalid.extend(blind);
        self.lab.supervise()?;
        Ok(true)
    }
}

/// As on the command line.
pub fn class_name(class: Class) -> String {
    use clap::ValueEnum as _;
    class.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

fn checked(found: &check::Report) -> Vec<Checked> {
    let checked = |(name, verdict): &(&'static str, check::Verdict)| Checked {
        name: (*name).to_owned(),
        verdict: match verdict {
            check::Verdict::Pass { .. } => Verdict::Pass,
            check::Verdict::Fail { .. } => Verdict::Fail,
            check::Verdict::Unknown { .. } => Verdict::Unknown,
        },
        words: verdict.to_string(),
    };
    found.verdicts.iter().map(checked).collect()
}
