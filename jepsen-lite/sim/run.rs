//! One seed from its plan to its verdict.
//!
//! First everything goes wrong that the plan has; then everything is put right, and the cluster must serve and agree; then
//! the power of all machines is cut at once, and it must do so again; then everything that was promised is looked up.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use llm_config_domain::{QueryError, RevisionChanges, query};
use llm_config_replica::Replica;
use llm_config_replica::simulation::set_world;
use llm_config_simdisk as disk;
use llm_config_simdisk::Chance;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use crate::clients::{Clients, probe};
use crate::cluster::Cluster;
use crate::history::Totals;
use crate::invariants::Invariants;
use crate::nemesis::Nemesis;
use crate::node::{Answer, Asked, Surroundings, name};
use crate::plan::{Mistake, Plan};
use crate::trace::Trace;

/// How long a cluster may take to serve and to agree after everything was put right.
const RECOVERY_MS: u64 = 60_000;
/// How often the states of the nodes are compared while they change.
const COMPARE_MS: u64 = 250;
/// Numbers of the questions whether it serves begin here.
const PROBE_NUMBERS: u64 = 1 << 50;
/// Violations that are shown.
const SHOWN_MAX: usize = 10;

struct Run {
    plan: Plan,
    cluster: Cluster,
    clients: Clients,
    nemesis: Nemesis,
    invariants: Invariants,
    trace: Trace,
    violations: Vec<String>,
    probes: u64,
}

/// What a run came to.
struct Verdict {
    totals: Totals,
    violations: Vec<String>,
}

/// Runs a seed and prints what came of it.
pub fn run(
    seed: u64,
    mistake: Option<Mistake>,
    trace: Option<PathBuf>,
    log: Option<tracing::Level>,
) -> Result<ExitCode, String> {
    if let Some(level) = log {
        tracing_subscriber::fmt().with_max_level(level).without_time().with_ansi(false).init();
    }
    let plan = Plan::of(seed, mistake);
    println!("{plan}");
    mad_turmoil::rand::set_rng(StdRng::seed_from_u64(seed));
    let _clocks = mad_turmoil::time::SimClocksGuard::init();
    set_world(Box::new(Surroundings));
    disk::seed(seed);
    make_mistake(mistake);
    let trace = Trace::new(trace).map_err(|error| format!("the trace: {error}"))?;
    let mut run = Run::new(plan, trace);
    let verdict = match std::panic::catch_unwind(AssertUnwindSafe(|| run.all())) {
        Ok(verdict) => verdict,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or_default();
            Verdict { totals: Totals::default(), violations: vec![format!("panic: {text}")] }
        }
    };
    println!("faults: {}", run.nemesis.summary());
    println!(
        "{} ms, {} entries committed, {} elections, {} snapshots installed, disks {:?}",
        run.cluster.tick,
        run.invariants.committed_entries(),
        run.invariants.elections,
        run.invariants.installs,
        disks(&run.cluster),
    );
    println!("{:?}", verdict.totals);
    let (hash, lines) = run.trace.finish().map_err(|error| format!("the trace: {error}"))?;
    println!("trace: {hash:016x}, {lines} lines");
    if verdict.violations.is_empty() {
        println!("verdict: pass");
        return Ok(ExitCode::SUCCESS);
    }
    for violation in verdict.violations.iter().take(SHOWN_MAX) {
        println!("violation: {violation}");
    }
    println!("verdict: VIOLATION ({})", verdict.violations.len());
    Ok(ExitCode::FAILURE)
}

fn make_mistake(mistake: Option<Mistake>) {
    use rocksdb::simulated::{Defect, set_defect};
    match mistake {
        Some(Mistake::DiskSyncsNothing) => disk::set_defect(Some(disk::Defect::SyncsNothing)),
        Some(Mistake::VoteNotSynced) => set_defect(Some(Defect::VoteNotSynced)),
        Some(Mistake::EntriesNotSynced) => set_defect(Some(Defect::EntriesNotSynced)),
        Some(Mistake::RecoveryLacksRecord) => set_defect(Some(Defect::RecoveryLacksRecord)),
        Some(Mistake::SnapshotsLackValues) => set_defect(Some(Defect::CheckpointsLackValues)),
        // Made where answers are given, and where questions are asked.
        Some(Mistake::ReadsUnconfirmed | Mistake::RetriesUnmarked | Mistake::AnswersEarly)
        | None => {}
    }
}

fn disks(cluster: &Cluster) -> disk::Counters {
    cluster.ids().into_iter().fold(disk::Counters::default(), |sum, id| {
        let one = disk::counters(&name(id));
        disk::Counters {
            operations: sum.operations + one.operations,
            failed_syncs: sum.failed_syncs + one.failed_syncs,
            lost: sum.lost + one.lost,
            torn: sum.torn + one.torn,
        }
    })
}

impl Run {
    fn new(plan: Plan, trace: Trace) -> Self {
        let mut chance = Chance::new(plan.seed);
        Self {
            clients: Clients::new(&plan, &mut chance),
            nemesis: Nemesis::new(&plan, &mut chance),
            cluster: Cluster::new(&plan),
            invariants: Invariants::default(),
            trace,
            violations: Vec::new(),
            probes: PROBE_NUMBERS,
            plan,
        }
    }

    fn all(&mut self) -> Verdict {
        let totals = self.phases().unwrap_or_else(|violation| {
            self.violations.push(violation);
            Totals::default()
        });
        let mut violations = std::mem::take(&mut self.invariants.violations);
        violations.append(&mut self.nemesis.violations);
        violations.append(&mut self.violations);
        Verdict { totals, violations }
    }

    /// An error is a violation that makes all further phases pointless.
    fn phases(&mut self) -> Result<Totals, String> {
        while self.cluster.tick < self.plan.faults_ms {
            self.tick()?;
        }
        self.nemesis.end(&mut self.cluster, &mut self.trace);
        self.recover("after the faults")?;
        for id in self.cluster.running() {
            self.cluster.stop(id, true);
        }
        self.trace.line(self.cluster.tick, format_args!("all power is cut"));
        for _ in 0..self.plan.tuning.election_timeout_max.as_millis() {
            self.step()?;
        }
        for id in self.cluster.ids() {
            if !self.nemesis.removed.contains(&id) {
                self.cluster.start(id);
            }
        }
        self.recover("after the power cut of all")?;
        self.look_up()
    }

    fn step(&mut self) -> Result<Vec<(u64, Answer)>, String> {
        self.cluster.step()?;
        let answers = self.cluster.answers();
        self.invariants.check(&self.cluster, &mut self.trace);
        if self.invariants.violations.is_empty() && self.nemesis.violations.is_empty() {
            Ok(answers)
        } else {
            Err(format!("all that is in tick {}", self.cluster.tick))
        }
    }

    fn tick(&mut self) -> Result<Vec<(u64, Answer)>, String> {
        let answers = self.step()?;
        self.clients.turn(&self.cluster, &answers, &mut self.trace);
        self.nemesis.take(&self.cluster, &answers, &mut self.trace);
        self.nemesis.turn(&mut self.cluster, &mut self.trace);
        if self.cluster.tick.is_multiple_of(COMPARE_MS) {
            self.compare_states();
        }
        Ok(answers)
    }

    fn compare_states(&mut self) {
        for id in self.cluster.open() {
            if let Some(replica) = self.cluster.replica(id) {
                self.invariants.compare_state(id, &replica);
            }
        }
    }

    /// Waits until every member serves and all agree.
    fn recover(&mut self, when: &str) -> Result<(), String> {
        let limit = self.cluster.tick + RECOVERY_MS;
        let mut unproved = self.members();
        let mut waits: Vec<(u64, u64, u64)> = Vec::new();
        let mut turn = 0_u64;
        self.clients.resting = false;
        loop {
            let answers = self.tick()?;
            if self.cluster.tick > limit {
                return Err(format!(
                    "{when}, members {unproved:?} did not serve within {RECOVERY_MS} ms: {}",
                    self.describe()
                ));
            }
            for (number, answer) in &answers {
                if matches!(answer, Answer::Written { .. } | Answer::Refused(_))
                    && let Some((_, id, _)) = waits.iter().find(|(asked, _, _)| asked == number)
                {
                    unproved.remove(id);
                }
            }
            let now = self.cluster.tick;
            waits.retain(|(_, _, until)| *until > now);
            turn += 1;
            if turn.is_multiple_of(100) {
                let members = self.members();
                if unproved.is_empty() && !members.is_empty() {
                    break;
                }
                if unproved.is_empty() {
                    unproved = members;
                }
                let asked: Vec<u64> = unproved.iter().copied().collect();
                for id in asked {
                    if self.nemesis.removed.contains(&id) {
                        unproved.remove(&id);
                    } else if !waits.iter().any(|(_, waiting, _)| *waiting == id) {
                        self.probes += 1;
                        let timeout = Duration::from_millis(2_000);
                        let asked = Asked { number: self.probes, ask: probe(), timeout };
                        if self.cluster.ask(id, asked) {
                            waits.push((self.probes, id, now + 2_500));
                        }
                    }
                }
            }
        }
        self.clients.resting = true;
        loop {
            self.tick()?;
            if self.clients.idle() && self.agree() {
                break;
            }
            if self.cluster.tick > limit {
                return Err(format!(
                    "{when}, the members did not agree within {RECOVERY_MS} ms: {}",
                    self.describe()
                ));
            }
        }
        self.compare_states();
        Ok(())
    }

    fn leader(&self) -> Option<Replica> {
        let replicas = self.cluster.open().into_iter().filter_map(|id| self.cluster.replica(id));
        replicas
            .filter(|replica| replica.inside().leads)
            .max_by_key(|replica| replica.inside().vote)
    }

    /// The members, as the leader knows them.
    fn members(&self) -> BTreeSet<u64> {
        self.leader().map(|leader| leader.inside().members).unwrap_or_default()
    }

    /// Whether every member has applied everything that is committed.
    fn agree(&self) -> bool {
        let Some(leader) = self.leader().map(|leader| leader.inside()) else { return false };
        leader.members.iter().filter(|id| !self.nemesis.removed.contains(id)).all(|id| {
            self.cluster.replica(*id).is_some_and(|replica| {
                let inside = replica.inside();
                inside.applied == leader.committed
                    && inside.committed == leader.committed
                    && self.invariants.has_compared(*id)
            })
        })
    }

    fn describe(&self) -> String {
        let nodes = self.cluster.ids().into_iter().map(|id| {
            let inside = self.cluster.replica(id).map(|replica| replica.inside());
            format!("n{id} running {}: {inside:?}", self.cluster.is_running(id))
        });
        nodes.collect::<Vec<_>>().join("; ")
    }

    /// Looks up everything that was promised.
    fn look_up(&mut self) -> Result<Totals, String> {
        let leader = self.leader().ok_or("there is no leader in the end")?;
        let changes = changes(&leader).map_err(|error| format!("the change log: {error}"))?;
        let (totals, mut wrong) = self.clients.history.check(&changes);
        self.violations.append(&mut wrong);
        if totals.written == 0 {
            return Err("no write was acknowledged: the run proves nothing".into());
        }
        Ok(totals)
    }
}

/// Every change since the beginning.
fn changes(replica: &Replica) -> Result<Vec<RevisionChanges>, QueryError> {
    let view = replica.view();
    let mut all: Vec<RevisionChanges> = Vec::new();
    loop {
        let from = all.last().map_or(1, |last| last.revision + 1);
        let page = query::changes(&view, from, 1_000)?;
        if page.is_empty() {
            return Ok(all);
        }
        all.extend(page);
    }
}
