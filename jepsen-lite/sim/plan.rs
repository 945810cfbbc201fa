//! What a seed decides before anything runs.

use std::fmt;
use std::time::Duration;

use clap::ValueEnum;
use llm_config_replica::Tuning;
use llm_config_simdisk::Chance;

/// A deliberate mistake, to prove that the simulation finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mistake {
    /// The disk says that a file is synced, and it is not.
    DiskSyncsNothing,
    /// A vote is not synced.
    VoteNotSynced,
    /// Log entries are not synced.
    EntriesNotSynced,
    /// After a restart, the last record of the log's write-ahead log is missing.
    RecoveryLacksRecord,
    /// A snapshot lacks a value.
    SnapshotsLackValues,
    /// What is called linearizable is read at once.
    ReadsUnconfirmed,
    /// A retry has another request id than the first try.
    RetriesUnmarked,
    /// The answer to a write comes when it was asked for.
    AnswersEarly,
}

/// Kinds of faults, and how often each comes in a minute of a cluster.
#[derive(Debug, Clone, Copy)]
pub struct Rates {
    pub kill: u64,
    pub power: u64,
    pub power_all: u64,
    pub crash_within: u64,
    pub sync_error: u64,
    pub slow_disk: u64,
    pub partition: u64,
    pub one_way: u64,
    pub stall: u64,
    pub loss: u64,
    pub snapshot: u64,
    pub election: u64,
    pub transfer: u64,
    pub clock: u64,
    pub members: u64,
}

/// Everything that is decided before the start.
#[derive(Debug, Clone)]
pub struct Plan {
    pub seed: u64,
    pub mistake: Option<Mistake>,
    /// Founders, and nodes that may join later.
    pub founders: u64,
    pub joiners: u64,
    pub latency_ms: (u64, u64),
    pub disk_us: (u64, u64),
    pub tuning: Tuning,
    pub clients: u64,
    pub keys: u64,
    /// Pause of a client between two requests, at most.
    pub think_ms: u64,
    /// How long faults come.
    pub faults_ms: u64,
    /// How many milliseconds the wall clocks differ at most.
    pub skew_ms: u64,
    pub rates: Rates,
}

impl Plan {
    pub fn of(seed: u64, mistake: Option<Mistake>) -> Self {
        let chance = &mut Chance::new(seed ^ 0x5eed);
        let latency_least = chance.between(1, 3);
        let latency = (latency_least, latency_least + [1, 4, 10, 30][pick(chance, 4)]);
        let heartbeat = chance.between(40, 100).max(latency.1 * 3);
        let election = heartbeat * chance.between(3, 5);
        let snapshot = [20, 60, 150, 400][pick(chance, 4)];
        // Most faults come in most runs; a run without some of them goes further than one with all.
        let mut rate = |most: u64| if chance.percent(65) { chance.between(1, most) } else { 0 };
        let rates = Rates {
            kill: rate(60),
            power: rate(60),
            power_all: rate(20),
            crash_within: rate(60),
            sync_error: rate(25),
            slow_disk: rate(30),
            partition: rate(50),
            one_way: rate(40),
            stall: rate(40),
            loss: rate(30),
            snapshot: rate(80),
            election: rate(40),
            transfer: rate(40),
            clock: rate(30),
            members: rate(60),
        };
        let founders = if chance.percent(35) { 5 } else { 3 };
        Self {
            seed,
            mistake,
            founders,
            joiners: if rates.members > 0 { 2 } else { 0 },
            latency_ms: latency,
            disk_us: (100, [500, 2_000, 8_000][pick(chance, 3)]),
            tuning: Tuning {
                heartbeat_interval: Duration::from_millis(heartbeat),
                election_timeout_min: Duration::from_millis(election),
                election_timeout_max: Duration::from_millis(election * 2),
                snapshot_log_entries: snapshot,
                log_entries_kept: snapshot / chance.between(1, 10),
                log_cache_bytes: [1 << 10, 16 << 10, 1 << 20][pick(chance, 3)],
                storage_quota_bytes: 0,
                disk_reserve_bytes: 0,
                snapshot_chunk_bytes: [512, 4096, 65_536][pick(chance, 3)],
                ..Tuning::default()
            },
            clients: chance.between(3, 6),
            keys: chance.between(2, 6),
            think_ms: [10, 40, 120][pick(chance, 3)],
            faults_ms: chance.between(6_000, 12_000),
            skew_ms: [0, 50, 5_000][pick(chance, 3)],
            rates,
        }
    }

    pub fn nodes(&self) -> u64 {
        self.founders + self.joiners
    }
}

fn pick(chance: &mut Chance, choices: u64) -> usize {
    usize::try_from(chance.below(choices)).unwrap_or(0)
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tuning = &self.tuning;
        writeln!(
            f,
            "seed {}: {} founders, {} that may join",
            self.seed, self.founders, self.joiners
        )?;
        writeln!(
            f,
            "  network {:?} ms, disk {:?} us, clocks within {} ms",
            self.latency_ms, self.disk_us, self.skew_ms
        )?;
        writeln!(
            f,
            "  heartbeat {:?}, election {:?}..{:?}, snapshot after {} entries, {} kept, cache {} B, chunks {} B",
            tuning.heartbeat_interval,
            tuning.election_timeout_min,
            tuning.election_timeout_max,
            tuning.snapshot_log_entries,
            tuning.log_entries_kept,
            tuning.log_cache_bytes,
            tuning.snapshot_chunk_bytes,
        )?;
        writeln!(
            f,
            "  {} clients, {} keys, pause up to {} ms, faults for {} ms",
            self.clients, self.keys, self.think_ms, self.faults_ms
        )?;
        write!(f, "  a minute: {:?}", self.rates)?;
        if let Some(mistake) = self.mistake {
            write!(f, "\n  deliberate mistake: {mistake:?}")?;
        }
        Ok(())
    }
}
