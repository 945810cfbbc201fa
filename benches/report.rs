//! What a run gave: a line of JSON, and a row of a table.

use std::fmt::Write as _;

use serde::Serialize;

use crate::drive::{Outcome, Plan};
use crate::histogram::Quantiles;
use crate::rolling;
use crate::system::{Reads, System, Target};

/// The table's head.
pub const HEAD: &str = "| load | ops/s | p50 ms | p99 ms | p99.9 ms | server CPU µs/op | RSS MiB | entries/fsync | errors |\n\
     |---|--:|--:|--:|--:|--:|--:|--:|--:|";

/// Of one run, all that may be asked later.
#[derive(Debug, Clone, Serialize)]
pub struct Record {
    /// What was under load.
    pub system: System,
    /// The release of its servers, where they tell.
    pub version: Option<String>,
    /// Which nodes were asked.
    pub target: Target,
    /// Clients, each with one request under way.
    pub clients: usize,
    /// Connections that they shared.
    pub connections: usize,
    /// Arrivals a second; nothing in a closed loop.
    pub rate: Option<u64>,
    /// Of a hundred requests, those that read.
    pub reads_percent: u8,
    /// How fresh.
    pub reads: Reads,
    /// Size of a value.
    pub value_bytes: usize,
    /// How many keys.
    pub keys: usize,
    /// Streams that watched.
    pub watchers: usize,
    /// Measured time.
    pub seconds: f64,
    /// Successful operations in it.
    pub operations: u64,
    /// The same for each second.
    pub ops_per_second: f64,
    /// Latencies of all of them.
    pub latency: Quantiles,
    /// Of reads.
    pub read_latency: Quantiles,
    /// Of writes.
    pub write_latency: Quantiles,
    /// Operations that failed.
    pub errors: u64,
    /// The first failure.
    pub first_error: Option<String>,
    /// Operations that were due and never answered.
    pub unanswered: u64,
    /// User and system time of all servers.
    pub server_cpu_us_per_op: Option<f64>,
    /// The same of the load program.
    pub load_cpu_us_per_op: Option<f64>,
    /// Resident memory of all servers at the end.
    pub rss_bytes: Option<u64>,
    /// Of the largest.
    pub rss_bytes_largest: Option<u64>,
    /// Log entries that all servers wrote, in the whole run.
    pub log_entries: Option<f64>,
    /// Fsyncs of their logs.
    pub log_fsyncs: Option<f64>,
    /// The first by the second.
    pub entries_per_fsync: Option<f64>,
    /// From the beginning of a write until the last watcher had it.
    pub last_watcher: Quantiles,
    /// Acknowledged writes that a watcher did not get.
    pub undelivered: u64,
}

impl Record {
    /// Of a run and what came of it.
    #[must_use]
    pub fn new(plan: &Plan, version: Option<String>, outcome: &Outcome) -> Self {
        let operations = outcome.operations();
        #[allow(clippy::cast_precision_loss, reason = "operations of one run are far below 2^52")]
        let count = operations as f64;
        let per_op = |cpu_us: f64| (count > 0.0).then(|| cpu_us / count);
        let seconds = outcome.elapsed.as_secs_f64();
        Self {
            system: plan.system,
            version,
            target: plan.target,
            clients: plan.clients,
            connections: outcome.connections,
            rate: plan.rate,
            reads_percent: plan.reads_percent,
            reads: plan.reads,
            value_bytes: plan.value_bytes,
            keys: plan.keys,
            watchers: plan.watchers,
            seconds,
            operations,
            ops_per_second: count / seconds.max(f64::MIN_POSITIVE),
            latency: outcome.latencies().quantiles(),
            read_latency: outcome.reads.quantiles(),
            write_latency: outcome.writes.quantiles(),
            errors: outcome.errors,
            first_error: outcome.first_error.clone(),
            unanswered: outcome.unanswered,
            server_cpu_us_per_op: outcome.server_cpu_us.and_then(per_op),
            load_cpu_us_per_op: per_op(outcome.load_cpu_us),
            rss_bytes: outcome.memory.map(|memory| memory.total),
            rss_bytes_largest: outcome.memory.map(|memory| memory.largest),
            log_entries: outcome.log.map(|log| log.entries),
            log_fsyncs: outcome.log.map(|log| log.fsyncs),
            entries_per_fsync: outcome.log.and_then(|log| log.entries_per_fsync()),
            last_watcher: outcome.last_watcher.quantiles(),
            undelivered: outcome.undelivered,
        }
    }

    /// For programs: one line.
    ///
    /// # Errors
    /// Never: every field can be written as JSON.
    pub fn json(&self) -> anyhow::Result<String> {
        Ok(serde_json::to_string(self)?)
    }

    /// For people.
    #[must_use]
    pub fn row(&self) -> String {
        #[allow(clippy::cast_precision_loss, reason = "memory of a machine is below 2^52 bytes")]
        let mib = self.rss_bytes.map(|bytes| bytes as f64 / f64::from(1 << 20));
        format!(
            "| {} | {:.0} | {} | {} | {} | {} | {} | {} | {} |",
            self.name(),
            self.ops_per_second,
            number(self.latency.p50_ms, 2),
            number(self.latency.p99_ms, 2),
            number(self.latency.p999_ms, 2),
            number(self.server_cpu_us_per_op, 0),
            number(mib, 0),
            number(self.entries_per_fsync, 1),
            self.errors + self.unanswered + self.undelivered,
        )
    }

    fn name(&self) -> String {
        let target = match self.target {
            Target::Leader => "leader",
            Target::Followers => "followers",
            Target::All => "all nodes",
        };
        let read = match self.reads {
            Reads::Cached => "cached get",
            Reads::Linearizable => "linearizable get",
        };
        let put = format!("put {} B", self.value_bytes);
        let work = match self.reads_percent {
            0 => put,
            100 => read.to_owned(),
            percent => format!("{percent}/{} {read}/{put}", 100 - percent),
        };
        let clients = if self.clients == 1 { "client" } else { "clients" };
        let mut name =
            format!("{}: {work}, {} {clients}, {target}", self.system.name(), self.clients);
        // Writing to a string cannot fail.
        if let Some(rate) = self.rate {
            let _ = write!(name, ", {rate}/s");
        }
        if self.watchers > 0 {
            let _ = write!(name, ", {} watchers", self.watchers);
            let last = self.last_watcher;
            let (p50, p99) = (number(last.p50_ms, 1), number(last.p99_ms, 1));
            let _ = write!(name, " (last one {p50} / {p99} ms)");
        }
        name
    }
}

/// The head of the table of a rolling restart.
pub const ROLLING_HEAD: &str = "| rolling restart | writes/s | p50 ms | p99 ms | p99.9 ms | longest ms | errors | lost |\n\
     |---|--:|--:|--:|--:|--:|--:|--:|";

/// Of a rolling restart.
#[derive(Debug, Clone, Serialize)]
pub struct Rolling {
    /// Nodes stopped and started again.
    pub restarts: usize,
    /// Writers.
    pub clients: usize,
    /// Size of a value.
    pub value_bytes: usize,
    /// Acknowledged writes for each second.
    pub writes_per_second: f64,
    /// How long they waited.
    pub wait: Quantiles,
    /// Writes that the SDK gave up.
    pub errors: u64,
    /// Acknowledged writes that are not there, or twice.
    pub lost: u64,
}

impl Rolling {
    /// Of a run and what came of it.
    #[must_use]
    pub fn new(plan: rolling::Plan, outcome: &rolling::Outcome) -> Self {
        #[allow(clippy::cast_precision_loss, reason = "operations of one run are far below 2^52")]
        let writes = outcome.waits.total() as f64;
        Self {
            restarts: outcome.restarts,
            clients: plan.clients,
            value_bytes: plan.value_bytes,
            writes_per_second: writes / outcome.elapsed.as_secs_f64().max(f64::MIN_POSITIVE),
            wait: outcome.waits.quantiles(),
            errors: outcome.errors,
            lost: outcome.lost,
        }
    }

    /// For programs: one line.
    ///
    /// # Errors
    /// Never: every field can be written as JSON.
    pub fn json(&self) -> anyhow::Result<String> {
        Ok(serde_json::to_string(self)?)
    }

    /// For people.
    #[must_use]
    pub fn row(&self) -> String {
        format!(
            "| {} restarts, {} clients, {} B | {:.0} | {} | {} | {} | {} | {} | {} |",
            self.restarts,
            self.clients,
            self.value_bytes,
            self.writes_per_second,
            number(self.wait.p50_ms, 2),
            number(self.wait.p99_ms, 2),
            number(self.wait.p999_ms, 2),
            number(self.wait.max_ms, 2),
            self.errors,
            self.lost,
        )
    }
}

/// With so many decimals; a dash when there is none.
#[must_use]
pub fn number(value: Option<f64>, decimals: usize) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.decimals$}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drive::DRAIN;
    use crate::histogram::Histogram;
    use crate::servers::{Log, Memory};
    use std::time::Duration;

    fn plan() -> Plan {
        Plan {
            system: System::LlmConfig,
            nodes: Vec::new(),
            target: Target::Leader,
            clients: 64,
            connections: None,
            rate: None,
            reads_percent: 0,
            reads: Reads::Linearizable,
            value_bytes: 256,
            keys: 1,
            watchers: 0,
            warmup: Duration::ZERO,
            measured: Duration::ZERO,
            drain: DRAIN,
            seed: 1,
        }
    }

    fn outcome() -> Outcome {
        let mut writes = Histogram::default();
        for _ in 0..2000 {
            writes.record(Duration::from_micros(100));
        }
        Outcome {
            connections: 8,
            writes,
            errors: 3,
            unanswered: 1,
            elapsed: Duration::from_secs(2),
            server_cpu_us: Some(400_000.0),
            load_cpu_us: 100_000.0,
            memory: Some(Memory { total: 64 << 20, largest: 30 << 20 }),
            log: Some(Log { entries: 6000.0, fsyncs: 500.0 }),
            ..Outcome::default()
        }
    }

    #[test]
    fn a_run_is_a_row_and_a_line_of_json() {
        let record = Record::new(&plan(), Some("1.2.3".into()), &outcome());
        assert_eq!(
            record.row(),
            "| llm-config: put 256 B, 64 clients, leader | 1000 | 0.10 | 0.10 | 0.10 | 200 | 64 | 12.0 | 4 |"
        );
        let json: serde_json::Value = serde_json::from_str(&record.json().unwrap()).unwrap();
        assert!(!record.json().unwrap().contains('\n'));
        assert_eq!((&json["system"], &json["version"]), (&"llm-config".into(), &"1.2.3".into()));
        assert_eq!((&json["operations"], &json["ops_per_second"]), (&2000.into(), &1000.0.into()));
        assert_eq!(
            (&json["load_cpu_us_per_op"], &json["log_fsyncs"]),
            (&50.0.into(), &500.0.into())
        );
        assert_eq!(json["read_latency"]["p50_ms"], serde_json::Value::Null);
        assert_eq!(json["write_latency"]["count"], 2000);
    }

    #[test]
    fn without_an_operation_there_is_nothing_to_divide_by() {
        let outcome = Outcome { writes: Histogram::default(), ..outcome() };
        let record = Record::new(
            &Plan { rate: Some(200), watchers: 9, reads_percent: 95, clients: 1, ..plan() },
            None,
            &outcome,
        );
        assert_eq!(
            record.row(),
            "| llm-config: 95/5 linearizable get/put 256 B, 1 client, leader, 200/s, 9 watchers (last one – / – ms) \
             | 0 | – | – | – | – | 64 | 12.0 | 4 |"
        );
    }

    #[test]
    fn a_rolling_restart_is_a_row_and_a_line_of_json() {
        let plan = rolling::Plan { clients: 8, value_bytes: 256, rounds: 1 };
        let mut outcome = rolling::Outcome { restarts: 3, ..Default::default() };
        for _ in 0..99 {
            outcome.waits.record(Duration::from_micros(100));
        }
        outcome.waits.record(Duration::from_millis(40));
        outcome.elapsed = Duration::from_secs(10);
        let rolling = Rolling::new(plan, &outcome);
        assert_eq!(
            rolling.row(),
            "| 3 restarts, 8 clients, 256 B | 10 | 0.10 | 0.10 | 40.00 | 40.00 | 0 | 0 |"
        );
        let json: serde_json::Value = serde_json::from_str(&rolling.json().unwrap()).unwrap();
        assert_eq!((&json["wait"]["max_ms"], &json["lost"]), (&40.0.into(), &0.into()));
    }
}
