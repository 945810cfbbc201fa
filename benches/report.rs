//! The results as a Markdown table, one row per run.

use std::fmt::Write as _;
use std::time::Duration;

use crate::drive::{Outcome, Plan, Target, Work};
use crate::rolling;

/// The table's head.
pub const HEAD: &str = "| work | ops/s | p50 ms | p99 ms | p99.9 ms | server CPU µs/op | entries/fsync | errors |\n\
     |---|--:|--:|--:|--:|--:|--:|--:|";

/// One row.
#[must_use]
pub fn row(plan: &Plan, outcome: &Outcome) -> String {
    #[allow(clippy::cast_precision_loss, reason = "operations of one run are far below 2^52")]
    let ops = outcome.latencies.total() as f64;
    let quantile = |q| millis(outcome.latencies.quantile(q));
    let per_op = outcome.cost.cpu_us.filter(|_| ops > 0.0).map(|cpu_us| cpu_us / ops);
    format!(
        "| {} | {:.0} | {} | {} | {} | {} | {} | {} |",
        name(plan),
        ops / outcome.elapsed.as_secs_f64(),
        quantile(0.5),
        quantile(0.99),
        quantile(0.999),
        number(per_op, 0),
        number(outcome.cost.entries_per_fsync, 1),
        outcome.errors,
    )
}

/// The head of the table of a rolling restart.
pub const ROLLING_HEAD: &str = "| rolling restart | writes/s | p50 ms | p99 ms | p99.9 ms | longest ms | errors | lost |\n\
     |---|--:|--:|--:|--:|--:|--:|--:|";

/// The row of a rolling restart.
#[must_use]
pub fn rolling_row(plan: rolling::Plan, outcome: &rolling::Outcome) -> String {
    let quantile = |q| millis(outcome.waits.quantile(q));
    format!(
        "| {} restarts, {} clients, {} B | {:.0} | {} | {} | {} | {} | {} | {} |",
        outcome.restarts,
        plan.clients,
        plan.value_bytes,
        rate(outcome),
        quantile(0.5),
        quantile(0.99),
        quantile(0.999),
        millis(Some(outcome.longest)),
        outcome.errors,
        outcome.lost,
    )
}

/// The same for programs: one line of JSON.
#[must_use]
pub fn rolling_json(plan: rolling::Plan, outcome: &rolling::Outcome) -> String {
    let quantile = |q| {
        outcome
            .waits
            .quantile(q)
            .map_or_else(|| "null".to_owned(), |wait| number(Some(wait.as_secs_f64() * 1e3), 2))
    };
    format!(
        "{{\"restarts\":{},\"clients\":{},\"value_bytes\":{},\"writes\":{},\"writes_per_second\":{:.0},\"p50_ms\":{},\
         \"p99_ms\":{},\"p999_ms\":{},\"longest_ms\":{:.2},\"errors\":{},\"lost\":{}}}",
        outcome.restarts,
        plan.clients,
        plan.value_bytes,
        outcome.waits.total(),
        rate(outcome),
        quantile(0.5),
        quantile(0.99),
        quantile(0.999),
        outcome.longest.as_secs_f64() * 1e3,
        outcome.errors,
        outcome.lost,
    )
}

fn rate(outcome: &rolling::Outcome) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "operations of one run are far below 2^52")]
    let writes = outcome.waits.total() as f64;
    writes / outcome.elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
}

fn name(plan: &Plan) -> String {
    let work = match plan.work {
        Work::Write => "write",
        Work::ReadCached => "cached read",
        Work::ReadLinearizable => "linearizable read",
    };
    let target = match plan.target {
        Target::Leader => "leader",
        Target::Followers => "followers",
        Target::All => "all nodes",
    };
    let mut name = work.to_owned();
    if plan.work == Work::Write {
        // Writing to a string cannot fail.
        let _ = write!(name, " {} B", plan.value_bytes);
    }
    let clients = if plan.clients == 1 { "client" } else { "clients" };
    format!("{name}, {} {clients}, {target}", plan.clients)
}

fn millis(latency: Option<Duration>) -> String {
    number(latency.map(|latency| latency.as_secs_f64() * 1e3), 2)
}

fn number(value: Option<f64>, decimals: usize) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.decimals$}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::histogram::Histogram;
    use crate::servers::Cost;

    #[test]
    fn a_rolling_restart_is_a_row_and_a_line_of_json() {
        let plan = rolling::Plan { clients: 8, value_bytes: 256, rounds: 1 };
        let mut outcome = rolling::Outcome { restarts: 3, ..Default::default() };
        assert!(rolling_json(plan, &outcome).contains("\"p999_ms\":null"));
        for _ in 0..100 {
            outcome.waits.record(Duration::from_micros(100));
        }
        outcome.longest = Duration::from_millis(40);
        outcome.elapsed = Duration::from_secs(10);
        assert_eq!(
            rolling_row(plan, &outcome),
            "| 3 restarts, 8 clients, 256 B | 10 | 0.10 | 0.10 | 0.10 | 40.00 | 0 | 0 |"
        );
        assert_eq!(
            rolling_json(plan, &outcome),
            "{\"restarts\":3,\"clients\":8,\"value_bytes\":256,\"writes\":100,\"writes_per_second\":10,\"p50_ms\":0.10,\
             \"p99_ms\":0.10,\"p999_ms\":0.10,\"longest_ms\":40.00,\"errors\":0,\"lost\":0}"
        );
    }

    #[test]
    fn a_row_says_what_was_run_and_what_it_gave() {
        let plan = Plan {
            endpoints: Vec::new(),
            work: Work::Write,
            target: Target::Leader,
            clients: 64,
            value_bytes: 256,
            keys: 1,
            warmup: Duration::ZERO,
            measured: Duration::ZERO,
        };
        let mut latencies = Histogram::default();
        for _ in 0..2000 {
            latencies.record(Duration::from_micros(100));
        }
        let mut outcome = Outcome {
            latencies,
            errors: 3,
            first_error: None,
            elapsed: Duration::from_secs(2),
            cost: Cost { cpu_us: Some(400_000.0), entries_per_fsync: Some(12.34) },
        };
        assert_eq!(
            row(&plan, &outcome),
            "| write 256 B, 64 clients, leader | 1000 | 0.10 | 0.10 | 0.10 | 200 | 12.3 | 3 |"
        );
        outcome.latencies = Histogram::default();
        assert_eq!(
            row(&plan, &outcome),
            "| write 256 B, 64 clients, leader | 0 | – | – | – | – | 12.3 | 3 |"
        );
    }
}
