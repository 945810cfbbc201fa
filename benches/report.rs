//! The results as a Markdown table, one row per run.

use std::fmt::Write as _;
use std::time::Duration;

use crate::drive::{Outcome, Plan, Target, Work};

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
