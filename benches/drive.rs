//! One run: so many clients, in a closed or an open loop, and those who watch what they write.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::task::JoinSet;

use crate::client::{Client, Shared, Tally, lock};
use crate::delivery::Deliveries;
use crate::histogram::Histogram;
use crate::pace::{Arrivals, Schedule, Window};
use crate::servers::{Log, Memory, Servers, own_cpu_us};
use crate::system::{Link, Reads, System, Target, Watching, choose};
use crate::values::Values;

/// Clients that share a connection unless it is said: one connection for all would measure its flow control.
const CLIENTS_PER_CONNECTION: usize = 8;
const PRELOAD_IN_FLIGHT: usize = 64;
const PRELOAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long answers and deliveries that come after the end are waited for, unless it is said.
pub const DRAIN: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(10);
const PROGRESS: Duration = Duration::from_secs(1);
/// Between the last preparation and the first request.
const LEAD: Duration = Duration::from_millis(20);
/// Writes of one run with watchers, in memory.
const STAMPS_MAX: u64 = 1 << 22;

/// What to run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What is under load.
    pub system: System,
    /// Addresses of its nodes, for its protocol.
    pub nodes: Vec<String>,
    /// Which of them are asked.
    pub target: Target,
    /// How many clients: each has one request under way.
    pub clients: usize,
    /// Connections that they share; nothing is one for 8.
    pub connections: Option<usize>,
    /// Requests a second, whatever comes back (open loop); nothing is as many as are answered (closed loop).
    pub rate: Option<u64>,
    /// Of a hundred requests, how many read.
    pub reads_percent: u8,
    /// How fresh.
    pub reads: Reads,
    /// Size of a value's JSON text.
    pub value_bytes: usize,
    /// How many keys there are.
    pub keys: usize,
    /// Streams that watch all of them, spread over all nodes; only with a rate.
    pub watchers: usize,
    /// Unmeasured time before.
    pub warmup: Duration,
    /// Measured time.
    pub measured: Duration,
    /// How long answers and deliveries that come after it are waited for.
    pub drain: Duration,
    /// Which keys are drawn: the same seed draws the same.
    pub seed: u64,
}

/// What a run gave.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Connections that the clients shared.
    pub connections: usize,
    /// Latencies of successful reads.
    pub reads: Histogram,
    /// Latencies of successful writes.
    pub writes: Histogram,
    /// Operations that failed.
    pub errors: u64,
    /// The first failure.
    pub first_error: Option<String>,
    /// Operations that were due and had no answer even at the end of the drain.
    pub unanswered: u64,
    /// The measured time.
    pub elapsed: Duration,
    /// CPU time of all server processes.
    pub server_cpu_us: Option<f64>,
    /// CPU time of this program.
    pub load_cpu_us: f64,
    /// Memory of the server processes at the end.
    pub memory: Option<Memory>,
    /// What the servers' logs grew by in the whole run, also before and after the measured time.
    pub log: Option<Log>,
    /// From the moment a write was meant to begin until the last watcher had it.
    pub last_watcher: Histogram,
    /// Acknowledged writes that a watcher did not get.
    pub undelivered: u64,
}

impl Outcome {
    /// Successful operations.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.reads.total() + self.writes.total()
    }

    fn add(&mut self, tally: &Tally) {
        self.reads.merge(&tally.reads);
        self.writes.merge(&tally.writes);
        self.errors += tally.errors;
        self.first_error = self.first_error.take().or_else(|| tally.first_error.clone());
    }

    /// Latencies of all successful operations.
    #[must_use]
    pub fn latencies(&self) -> Histogram {
        let mut all = self.reads.clone();
        all.merge(&self.writes);
        all
    }
}

/// Runs the plan; `progress` is called every second with the operations so far.
///
/// # Errors
/// When the nodes to talk to cannot be found, a watch ends, or the servers' cost cannot be read.
pub async fn run(
    plan: &Plan,
    servers: &Servers,
    progress: impl Fn(u64),
) -> anyhow::Result<Outcome> {
    let values = Arc::new(Values::new(plan.value_bytes, plan.watchers > 0)?);
    let links = connect(plan, plan.target, plan.clients, plan.connections).await?;
    let mut callers = Vec::with_capacity(plan.clients);
    for index in 0..plan.clients {
        callers.push(links.get(index % links.len()).context("no connection")?.caller().await?);
    }
    let watching = open_watches(plan).await?;
    let log_before = servers.log().await?;

    let first = Instant::now() + LEAD;
    let from = first + plan.warmup;
    let window = Window { from, to: from + plan.measured };
    let schedule = plan.rate.map(|rate| Schedule::new(first, window.to, rate));
    let deliveries = deliveries(plan, schedule, first, window)?;
    let mut watches = Watches::default();
    if let Some(deliveries) = &deliveries {
        for watching in watching {
            watches.0.spawn(follow(watching, deliveries.clone()));
        }
    }
    let arrivals = schedule.map(Arrivals::new);
    let mut clients = JoinSet::new();
    let mut tallies = Vec::with_capacity(plan.clients);
    for (number, caller) in (0..).zip(callers) {
        let client = Client {
            caller,
            rng: StdRng::seed_from_u64(plan.seed.wrapping_add(number)),
            keys: plan.keys,
            reads_percent: plan.reads_percent,
            reads: plan.reads,
            values: values.clone(),
            deliveries: deliveries.clone(),
            window,
            tally: Shared::default(),
        };
        tallies.push(client.tally.clone());
        match &arrivals {
            Some(arrivals) => clients.spawn(client.open(arrivals.clone())),
            None => clients.spawn(client.closed(first)),
        };
    }
    let pacer = arrivals.map(|arrivals| arrivals.start(plan.clients)).transpose()?;

    let tick = || progress(tallies.iter().map(|tally| lock(tally).operations()).sum());
    watches.hold_until(window.from, tick).await?;
    let (server_before, load_before) = (servers.cpu_us()?, own_cpu_us()?);
    watches.hold_until(window.to, tick).await?;
    let (server_after, load_after) = (servers.cpu_us()?, own_cpu_us()?);
    let mut outcome = Outcome {
        connections: links.len(),
        elapsed: window.length(),
        server_cpu_us: server_before.zip(server_after).map(|(from, to)| to - from),
        load_cpu_us: load_after - load_before,
        memory: servers.memory()?,
        ..Outcome::default()
    };

    let deadline = window.to + plan.drain;
    let hung = drain(&mut clients, deadline).await?;
    if let Some(deliveries) = &deliveries {
        while deliveries.undelivered() > 0 && Instant::now() < deadline {
            watches.hold_until(Instant::now() + POLL, || ()).await?;
        }
        outcome.undelivered = deliveries.undelivered();
        outcome.last_watcher = deliveries.last();
    }
    if let Some(pacer) = pacer {
        anyhow::ensure!(pacer.join().is_ok(), "the arrivals stopped");
    }
    outcome.log = log_before.zip(servers.log().await?).map(|(from, to)| to.since(from));
    for tally in &tallies {
        outcome.add(&lock(tally));
    }
    outcome.unanswered = match schedule {
        Some(schedule) => {
            schedule.within(window).saturating_sub(outcome.operations() + outcome.errors)
        }
        None => hung,
    };
    Ok(outcome)
}

/// Writes every key once, so that reads find something.
///
/// # Errors
/// The first write that fails.
pub async fn preload(
    system: System,
    nodes: &[String],
    keys: usize,
    value_bytes: usize,
) -> anyhow::Result<()> {
    if system.is_floor() {
        return Ok(());
    }
    let values = &Values::new(value_bytes, false)?;
    let callers = PRELOAD_IN_FLIGHT.min(keys);
    let links = open_links(system, nodes, callers.div_ceil(CLIENTS_PER_CONNECTION)).await?;
    let mut writers = Vec::with_capacity(callers);
    for first in 0..callers {
        let mut caller = links.get(first % links.len()).context("no connection")?.caller().await?;
        writers.push(async move {
            for key in (first..keys).step_by(callers) {
                let value = values.any(&mut rand::rng(), None);
                let written = tokio::time::timeout(PRELOAD_TIMEOUT, caller.put(key, value)).await;
                written.context("a write is not answered")?.context("cannot write the keys")?;
            }
            anyhow::Ok(())
        });
    }
    futures::future::try_join_all(writers).await.map(drop)
}

/// Each connection is bound to one node: the run decides who talks to whom.
async fn connect(
    plan: &Plan,
    target: Target,
    clients: usize,
    connections: Option<usize>,
) -> anyhow::Result<Vec<Link>> {
    let nodes = choose(plan.system, &plan.nodes, target).await?;
    let connections = match connections {
        Some(connections) => connections.min(clients),
        // HTTP/1.1 carries one request at a time.
        None if plan.system.is_http() => clients,
        None => clients.div_ceil(CLIENTS_PER_CONNECTION).max(nodes.len().min(clients)),
    };
    open_links(plan.system, &nodes, connections).await
}

async fn open_links(
    system: System,
    nodes: &[String],
    connections: usize,
) -> anyhow::Result<Vec<Link>> {
    let mut links = Vec::with_capacity(connections);
    for node in nodes.iter().cycle().take(connections) {
        links.push(Link::open(system, node).await?);
    }
    anyhow::ensure!(!links.is_empty(), "no nodes to talk to");
    Ok(links)
}

async fn open_watches(plan: &Plan) -> anyhow::Result<Vec<Watching>> {
    if plan.watchers == 0 {
        return Ok(Vec::new());
    }
    let links = connect(plan, Target::All, plan.watchers, None).await?;
    let mut watching = Vec::with_capacity(plan.watchers);
    for link in links.iter().cycle().take(plan.watchers) {
        watching.push(link.watch().await?);
    }
    Ok(watching)
}

fn deliveries(
    plan: &Plan,
    schedule: Option<Schedule>,
    first: Instant,
    window: Window,
) -> anyhow::Result<Option<Arc<Deliveries>>> {
    if plan.watchers == 0 {
        return Ok(None);
    }
    let schedule = schedule.context("watchers need a rate of arrivals")?;
    let writes = schedule.total();
    anyhow::ensure!(writes <= STAMPS_MAX, "at most {STAMPS_MAX} requests in a run with watchers");
    let (writes, watchers) = (usize::try_from(writes)?, u32::try_from(plan.watchers)?);
    Ok(Some(Arc::new(Deliveries::new(first, window, writes, watchers))))
}

/// Waits for the clients to end; how many still hang at the deadline.
async fn drain(clients: &mut JoinSet<()>, deadline: Instant) -> anyhow::Result<u64> {
    while !clients.is_empty() {
        match tokio::time::timeout_at(deadline.into(), clients.join_next()).await {
            Ok(ended) => ended.transpose().context("a client stopped").map(drop)?,
            Err(_) => break,
        }
    }
    let hung = clients.len() as u64;
    clients.shutdown().await;
    Ok(hung)
}

/// The tasks that watch; each ends only by an error.
#[derive(Debug, Default)]
struct Watches(JoinSet<anyhow::Error>);

impl Watches {
    /// Sleeps, with a tick every second; an error as soon as one of them ends.
    async fn hold_until(&mut self, moment: Instant, tick: impl Fn()) -> anyhow::Result<()> {
        loop {
            let wake = moment.min(Instant::now() + PROGRESS);
            tokio::select! {
                Some(ended) = self.0.join_next() => return Err(ended.context("a watch stopped")?),
                () = tokio::time::sleep_until(wake.into()) => {}
            }
            if Instant::now() >= moment {
                return Ok(());
            }
            tick();
        }
    }
}

async fn follow(mut watching: Watching, deliveries: Arc<Deliveries>) -> anyhow::Error {
    let mut stamps = Vec::new();
    loop {
        if let Err(error) = watching.next(&mut stamps).await {
            return error.context("a watch broke");
        }
        let now = Instant::now();
        for number in stamps.drain(..) {
            deliveries.seen(number, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::floor;
    use crate::process::free_ports;
    use crate::servers;

    fn plan(system: System, nodes: Vec<String>) -> Plan {
        Plan {
            system,
            nodes,
            target: Target::All,
            clients: 4,
            connections: None,
            rate: None,
            reads_percent: 50,
            reads: Reads::Cached,
            value_bytes: 64,
            keys: 10,
            watchers: 0,
            warmup: Duration::ZERO,
            measured: Duration::from_millis(300),
            drain: DRAIN,
            seed: 1,
        }
    }

    fn nobody() -> Servers {
        Servers { pids: Vec::new(), metrics: Vec::new(), names: servers::LLM_CONFIG }
    }

    /// The empty servers, in this process, at fresh ports: gRPC and HTTP.
    async fn floor() -> [String; 2] {
        let ports = free_ports(2).unwrap();
        let (grpc, http) = (ports[0], ports[1]);
        tokio::spawn(floor::listen(grpc, http));
        let nodes = [grpc.to_string(), http.to_string()];
        for (system, node) in [(System::Echo, &nodes[0]), (System::EchoHttp, &nodes[1])] {
            let deadline = Instant::now() + Duration::from_secs(20);
            while let Err(error) = async { Link::open(system, node).await?.caller().await }.await {
                assert!(Instant::now() < deadline, "{error:#}");
                tokio::time::sleep(POLL).await;
            }
        }
        nodes
    }

    #[tokio::test]
    async fn a_closed_loop_is_answered_and_counted() {
        for (system, node) in [System::Echo, System::EchoHttp].into_iter().zip(floor().await) {
            let plan = Plan { measured: Duration::from_secs(1), ..plan(system, vec![node]) };
            let outcome = run(&plan, &nobody(), |_| ()).await.unwrap();
            assert!(outcome.reads.total() > 0 && outcome.writes.total() > 0, "{outcome:?}");
            assert_eq!((outcome.errors, outcome.unanswered), (0, 0), "{outcome:?}");
            assert_eq!(outcome.connections, if system.is_http() { 4 } else { 1 });
            assert_eq!((outcome.server_cpu_us, outcome.log), (None, None));
        }
    }

    #[tokio::test]
    async fn an_open_loop_makes_exactly_the_requests_of_its_schedule() {
        let [node, _] = floor().await;
        let plan = Plan { rate: Some(1000), ..plan(System::Echo, vec![node]) };
        let outcome = run(&plan, &nobody(), |_| ()).await.unwrap();
        assert_eq!((outcome.operations(), outcome.unanswered), (300, 0), "{outcome:?}");
    }

    #[tokio::test]
    async fn a_server_that_never_answers_is_told_by_what_is_unanswered() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let node = listener.local_addr().unwrap().to_string();
        let accepting = tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok(accepted) = listener.accept().await {
                held.push(accepted);
            }
        });
        let drain = Duration::from_millis(100);
        let plan = Plan { rate: Some(100), drain, ..plan(System::EchoHttp, vec![node]) };
        let outcome = run(&plan, &nobody(), |_| ()).await.unwrap();
        assert_eq!((outcome.operations(), outcome.errors, outcome.unanswered), (0, 0, 30));
        accepting.abort();
    }

    #[tokio::test]
    async fn watchers_want_a_rate_and_values_with_room_for_a_number() {
        let [node, _] = floor().await;
        let plan = Plan { watchers: 1, value_bytes: 17, ..plan(System::Echo, vec![node]) };
        let error = run(&plan, &nobody(), |_| ()).await.unwrap_err().to_string();
        assert!(error.contains("at least 18 bytes"), "{error}");
        let window = Window { from: Instant::now(), to: Instant::now() };
        let error = deliveries(&plan, None, window.from, window).unwrap_err().to_string();
        assert!(error.contains("rate"), "{error}");
    }
}
