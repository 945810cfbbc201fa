//! Two rigs for the disk of one node: [`power`] cuts its power again and again, [`corrupt`] damages its files.
//!
//! Both start the real server, and compare everything that it answers with a book of what it has acknowledged.

mod ask;
pub mod corrupt;
mod damage;
mod ledger;
mod origin;
pub mod power;
mod station;
mod writers;

use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::runtime::Runtime;

/// The runtime of a job. Its threads are born in the network of whoever calls.
fn runtime() -> anyhow::Result<Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    Ok(builder.worker_threads(1).enable_all().build()?)
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A Markdown table.
fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut text = format!("| {} |\n|{}\n", head.join(" | "), "---|".repeat(head.len()));
    for row in rows {
        // A text that cannot be written to a string does not exist.
        let _ = writeln!(text, "| {} |", row.join(" | "));
    }
    text
}
