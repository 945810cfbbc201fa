//! The closed loop: so many clients, each with one request under way, for so long.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use futures::StreamExt as _;
use llm_config_client::{Client, Error, Options, v1};
use rand::Rng as _;
use tokio::task::JoinSet;

use crate::histogram::Histogram;
use crate::servers::{Cost, Servers};

/// Clients that share a connection: one connection for all would measure its flow control.
const CLIENTS_PER_CHANNEL: usize = 8;
const NAMESPACE: &str = "bench/load";
const POOL_BYTES: usize = 1 << 16;
const PRELOAD_IN_FLIGHT: usize = 64;

/// What the clients do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Work {
    /// Set a random one of the keys.
    Write,
    /// Get a random key from what the node has applied.
    ReadCached,
    /// Get a random key, confirmed with the leader.
    ReadLinearizable,
}

/// Which nodes the clients talk to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Target {
    /// The leader only.
    Leader,
    /// Every node but the leader.
    Followers,
    /// The given endpoints, evenly.
    All,
}

/// One run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// `HOST:PORT` of nodes; with another target than all, any of them will do.
    pub endpoints: Vec<String>,
    /// What to do.
    pub work: Work,
    /// At which nodes.
    pub target: Target,
    /// How many clients.
    pub clients: usize,
    /// Size of a value's JSON text.
    pub value_bytes: usize,
    /// How many keys there are.
    pub keys: usize,
    /// Unmeasured time before.
    pub warmup: Duration,
    /// Measured time.
    pub measured: Duration,
}

/// What a run gave.
#[derive(Debug)]
pub struct Outcome {
    /// Latencies of the successful operations; their number is the number of operations.
    pub latencies: Histogram,
    /// Operations that failed in the measured time.
    pub errors: u64,
    /// The first of them.
    pub first_error: Option<String>,
    /// The measured time.
    pub elapsed: Duration,
    /// What it cost the servers.
    pub cost: Cost,
}

const WARMING_UP: u8 = 0;
const MEASURING: u8 = 1;
const OVER: u8 = 2;

#[derive(Debug, Default)]
struct Tally {
    latencies: Histogram,
    errors: u64,
    first_error: Option<String>,
}

/// Runs the plan.
///
/// # Errors
/// When the nodes to talk to cannot be found or the servers' cost cannot be read.
pub async fn run(plan: &Plan, servers: &Servers) -> anyhow::Result<Outcome> {
    let clients = connect(plan).await?;
    let values = Arc::new(Values::new(plan.value_bytes)?);
    let phase = Arc::new(AtomicU8::new(WARMING_UP));
    let mut tasks = JoinSet::new();
    for index in 0..plan.clients {
        let client = clients.get(index % clients.len()).context("no connection")?.clone();
        tasks.spawn(one_client(client, plan.work, plan.keys, values.clone(), phase.clone()));
    }
    tokio::time::sleep(plan.warmup).await;
    let before = servers.sample().await?;
    let started = Instant::now();
    phase.store(MEASURING, Ordering::Release);
    tokio::time::sleep(plan.measured).await;
    phase.store(OVER, Ordering::Release);
    let elapsed = started.elapsed();
    let after = servers.sample().await?;

    let mut all = Tally::default();
    while let Some(tally) = tasks.join_next().await {
        let tally = tally.context("a client stopped")?;
        all.latencies.merge(&tally.latencies);
        all.errors += tally.errors;
        all.first_error = all.first_error.or(tally.first_error);
    }
    Ok(Outcome {
        latencies: all.latencies,
        errors: all.errors,
        first_error: all.first_error,
        elapsed,
        cost: before.until(&after),
    })
}

/// Writes every key once, so that reads find something.
///
/// # Errors
/// The first write that fails.
pub async fn preload(endpoints: &[String], keys: usize, value_bytes: usize) -> anyhow::Result<()> {
    let client = Client::connect(endpoints)?;
    let values = Values::new(value_bytes)?;
    let mut writes = futures::stream::iter(0..keys)
        .map(|key| client.set(set(key, values.any())))
        .buffer_unordered(PRELOAD_IN_FLIGHT);
    while let Some(written) = writes.next().await {
        written.context("cannot write the keys to read")?;
    }
    Ok(())
}

/// One client handle per connection, each bound to one node: the run decides who talks to whom, not the SDK.
async fn connect(plan: &Plan) -> anyhow::Result<Vec<Client>> {
    let endpoints = nodes(plan).await?;
    let channels =
        plan.clients.div_ceil(CLIENTS_PER_CHANNEL).max(endpoints.len().min(plan.clients));
    let options = Options::default().session(false).follow_leader(false);
    endpoints
        .iter()
        .cycle()
        .take(channels)
        .map(|endpoint| Ok(Client::with_options([endpoint], options.clone())?))
        .collect()
}

async fn nodes(plan: &Plan) -> anyhow::Result<Vec<String>> {
    if plan.target == Target::All {
        return Ok(plan.endpoints.clone());
    }
    let status = Client::connect(&plan.endpoints)?.status().await?;
    let leader = status.leader_id.context("the cluster has no leader")?;
    let nodes: Vec<String> = status
        .members
        .into_iter()
        .filter(|member| (member.id == leader) == (plan.target == Target::Leader))
        .map(|member| member.grpc)
        .collect();
    if nodes.is_empty() {
        bail!("the cluster has no {:?}", plan.target);
    }
    Ok(nodes)
}

async fn one_client(
    client: Client,
    work: Work,
    keys: usize,
    values: Arc<Values>,
    phase: Arc<AtomicU8>,
) -> Tally {
    let mut tally = Tally::default();
    loop {
        let key = rand::rng().random_range(0..keys);
        let started = Instant::now();
        let result = operate(&client, work, key, &values).await;
        match phase.load(Ordering::Acquire) {
            WARMING_UP => {}
            MEASURING => match result {
                Ok(()) => tally.latencies.record(started.elapsed()),
                Err(error) => {
                    tally.errors += 1;
                    tally.first_error.get_or_insert_with(|| error.to_string());
                }
            },
            _ => return tally,
        }
    }
}

async fn operate(client: &Client, work: Work, key: usize, values: &Values) -> Result<(), Error> {
    match work {
        Work::Write => client.set(set(key, values.any())).await.map(drop),
        Work::ReadCached => client.get(get(key, v1::Consistency::Cached)).await.map(drop),
        Work::ReadLinearizable => {
            client.get(get(key, v1::Consistency::Linearizable)).await.map(drop)
        }
    }
}

fn set(key: usize, value: String) -> v1::SetRequest {
    v1::SetRequest {
        namespace: NAMESPACE.to_owned(),
        key: format!("key-{key}"),
        value: value.into(),
        ..Default::default()
    }
}

fn get(key: usize, consistency: v1::Consistency) -> v1::GetRequest {
    v1::GetRequest {
        namespace: NAMESPACE.to_owned(),
        key: format!("key-{key}"),
        read: Some(v1::ReadOptions { consistency: consistency.into(), ..Default::default() }),
        ..Default::default()
    }
}

/// Values that differ and do not compress: JSON strings cut out of random letters.
#[derive(Debug)]
struct Values {
    pool: String,
    letters: usize,
}

impl Values {
    fn new(value_bytes: usize) -> anyhow::Result<Self> {
        let letters = value_bytes
            .checked_sub(2)
            .context("a value has at least 2 bytes: the quotes of a JSON string")?;
        let random = rand::rng().sample_iter(rand::distr::Alphanumeric);
        Ok(Self { pool: random.take(POOL_BYTES + letters).map(char::from).collect(), letters })
    }

    fn any(&self) -> String {
        let start = rand::rng().random_range(0..POOL_BYTES);
        let letters = self.pool.get(start..start + self.letters).unwrap_or_default();
        format!("\"{letters}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_the_wanted_size_and_differ() {
        let values = Values::new(256).unwrap();
        let (a, b) = (values.any(), values.any());
        assert_eq!((a.len(), b.len()), (256, 256));
        assert_ne!(a, b);
        assert_eq!(Values::new(2).unwrap().any(), "\"\"");
        assert!(Values::new(1).is_err());
    }

    #[tokio::test]
    async fn connections_are_spread_over_the_nodes() {
        let plan = |clients| Plan {
            endpoints: vec!["a:1".into(), "b:1".into(), "c:1".into()],
            work: Work::Write,
            target: Target::All,
            clients,
            value_bytes: 8,
            keys: 1,
            warmup: Duration::ZERO,
            measured: Duration::ZERO,
        };
        assert_eq!(connect(&plan(64)).await.unwrap().len(), 8);
        assert_eq!(connect(&plan(3)).await.unwrap().len(), 3);
        assert_eq!(connect(&plan(1)).await.unwrap().len(), 1);
    }
}
