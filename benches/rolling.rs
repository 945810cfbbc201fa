//! A rolling restart under load: how long a write waits at most while every node is stopped and started again.
//!
//! Each client counts up an entry of its own through the SDK, retries included, so that a write that was acknowledged and
//! lost, or done twice, shows as a wrong version.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use llm_config_client::{Client, Options, v1};
use tokio::task::JoinSet;

use crate::cluster::Cluster;
use crate::histogram::Histogram;
use crate::system::System;

const NAMESPACE: &str = "bench/rolling";
/// Clients that share a connection to each node.
const CLIENTS_PER_CONNECTION: usize = 8;
/// Load before the first restart and after each one.
const SETTLE: Duration = Duration::from_secs(2);

/// One run.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Writers, each with one write under way.
    pub clients: usize,
    /// Size of a value's JSON text.
    pub value_bytes: usize,
    /// How often every node is restarted.
    pub rounds: usize,
}

/// What a run gave.
#[derive(Debug, Default)]
pub struct Outcome {
    /// How long each acknowledged write waited, from the call of the SDK to its answer.
    pub waits: Histogram,
    /// Writes that the SDK gave up.
    pub errors: u64,
    /// The first of them.
    pub first_error: Option<String>,
    /// Acknowledged writes that the cluster does not know, or did twice.
    pub lost: u64,
    /// Nodes stopped and started again.
    pub restarts: usize,
    /// Time under load.
    pub elapsed: Duration,
}

struct Tally {
    key: String,
    acknowledged: u64,
    outcome: Outcome,
}

/// Restarts every node in turn while the clients write.
///
/// # Errors
/// When a node does not end cleanly or does not come back.
pub async fn run(cluster: &mut Cluster, plan: Plan) -> anyhow::Result<Outcome> {
    let over = Arc::new(AtomicBool::new(false));
    let mut tasks = JoinSet::new();
    let mut client = None;
    let begun = Instant::now();
    for number in 0..plan.clients {
        if number % CLIENTS_PER_CONNECTION == 0 {
            // Half of them ask the leader, as the SDK does by itself; the others any node, as plain programs do.
            let follow = (number / CLIENTS_PER_CONNECTION).is_multiple_of(2);
            let options = Options::default().session(false).follow_leader(follow);
            client = Some(Client::with_options(cluster.addresses(System::Sdk), options)?);
        }
        let client = client.clone().context("no client")?;
        tasks.spawn(write(client, number, plan.value_bytes, Arc::clone(&over)));
    }
    let mut all = Outcome::default();
    tokio::time::sleep(SETTLE).await;
    for _ in 0..plan.rounds {
        for node in 0..cluster.size() {
            cluster.restart(node).await?;
            all.restarts += 1;
            tokio::time::sleep(SETTLE).await;
        }
    }
    over.store(true, Ordering::Release);
    all.elapsed = begun.elapsed();
    let reader = Client::connect(cluster.addresses(System::Sdk))?;
    while let Some(tally) = tasks.join_next().await {
        let Tally { key, acknowledged, outcome } = tally.context("a client stopped")?;
        all.waits.merge(&outcome.waits);
        all.errors += outcome.errors;
        all.first_error = all.first_error.or(outcome.first_error);
        all.lost += outcome.lost;
        // A write that was given up may still have been done.
        let known = version(&reader, &key).await?;
        all.lost += acknowledged.saturating_sub(known);
        all.lost += known.saturating_sub(acknowledged + outcome.errors);
    }
    Ok(all)
}

async fn write(client: Client, number: usize, value_bytes: usize, over: Arc<AtomicBool>) -> Tally {
    let key = format!("client-{number}");
    let value = format!("\"{}\"", "x".repeat(value_bytes.saturating_sub(2)));
    let mut outcome = Outcome::default();
    let (mut acknowledged, mut version) = (0, 0);
    while !over.load(Ordering::Acquire) {
        let started = Instant::now();
        let request = v1::SetRequest {
            namespace: NAMESPACE.to_owned(),
            key: key.clone(),
            value: value.clone().into(),
            ..Default::default()
        };
        match client.set(request).await {
            Ok(answer) => {
                outcome.waits.record(started.elapsed());
                acknowledged += 1;
                let found = answer.entry.map_or(0, |entry| entry.version);
                if found <= version {
                    outcome.lost += 1;
                }
                version = found;
            }
            Err(error) => {
                outcome.errors += 1;
                outcome.first_error.get_or_insert_with(|| error.to_string());
            }
        }
    }
    Tally { key, acknowledged, outcome }
}

async fn version(client: &Client, key: &str) -> anyhow::Result<u64> {
    let request = v1::GetRequest {
        namespace: NAMESPACE.to_owned(),
        key: key.to_owned(),
        read: Some(v1::ReadOptions {
            consistency: v1::Consistency::Linearizable.into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    match client.get(request).await {
        Ok(entry) => Ok(entry.version),
        Err(error) if error.is_not_found() => Ok(0),
        Err(error) => Err(error).with_context(|| format!("{key} cannot be read back")),
    }
}
