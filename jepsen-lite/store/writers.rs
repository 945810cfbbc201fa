//! Clients that write as fast as they can, values of many sizes, each of which is written once only.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use jepsen_lite::history::{
    Answer, Call, Compare, Header, Operation, Outcome, Scope, TxnOp, Value,
};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::task::JoinSet;

use super::station::Station;
use crate::client::{Client, Recorder};
use crate::lab::Targets;

const NAMESPACES: [&str; 2] = ["jl-store-a", "jl-store-b"];
const ENVIRONMENTS: [&str; 2] = ["production", "staging"];
/// Entries of each namespace in each environment.
const KEYS: u64 = 12;
/// After a call that failed.
const PAUSE: Duration = Duration::from_millis(15);
/// Calls end within seconds whatever happens.
const STOP_PATIENCE: Duration = Duration::from_secs(30);

/// How writers work.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    /// How many of them.
    pub writers: u64,
    /// Entries of each namespace in each environment.
    pub keys: u64,
    /// Writes that each makes at most.
    pub writes: u64,
}

impl Style {
    /// Until they are stopped.
    pub const ENDLESS: Self = Self { writers: 6, keys: KEYS, writes: u64::MAX };
}

/// Where all entries are.
#[must_use]
pub fn scopes() -> Vec<Scope> {
    let pairs = NAMESPACES.iter().flat_map(|namespace| ENVIRONMENTS.map(|env| (namespace, env)));
    let scope = |(namespace, environment): (&&str, &str)| Scope {
        prefix: format!("{namespace}/"),
        environment: Some(environment.to_owned()),
    };
    pairs.map(scope).collect()
}

/// Writers at work.
#[derive(Debug)]
pub struct Writers {
    recorder: Arc<Recorder>,
    stop: Arc<AtomicBool>,
    tasks: JoinSet<Vec<Operation>>,
}

impl Writers {
    /// Puts them to work, on the runtime of whoever calls. `name` is part of every value: no two groups have the same.
    ///
    /// # Errors
    /// When the history cannot be written.
    pub fn begin(style: Style, name: &str, seed: u64, history: &Path) -> anyhow::Result<Self> {
        let header = Header { workload: "store".to_owned(), seed, ..Header::default() };
        let recorder = Arc::new(Recorder::create(history, &header)?);
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for number in 0..style.writers {
            let writer = Writer {
                client: Client::new(recorder.clone(), Targets::default()),
                chance: StdRng::seed_from_u64(seed.wrapping_mul(31).wrapping_add(number)),
                name: format!("{name}.{number}"),
                style,
                value: 0,
                known: BTreeMap::new(),
            };
            tasks.spawn(writer.run(stop.clone()));
        }
        Ok(Self { recorder, stop, tasks })
    }

    /// From now on nobody begins a new call.
    pub fn tell_to_stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Waits until everybody has finished what he was at; gives back what they may conclude.
    ///
    /// # Errors
    /// When one does not end.
    pub async fn join(mut self) -> anyhow::Result<Vec<Operation>> {
        let mut operations = Vec::new();
        let all = async {
            while let Some(ended) = self.tasks.join_next().await {
                operations.extend(ended.context("a writer")?);
            }
            anyhow::Ok(())
        };
        let ended = tokio::time::timeout(STOP_PATIENCE, all).await;
        ended.context("writers do not end")??;
        self.recorder.finish()?;
        Ok(operations)
    }
}

struct Writer {
    client: Client,
    chance: StdRng,
    name: String,
    style: Style,
    value: u64,
    /// The version that an entry had when this writer last heard of it; 0: none.
    known: BTreeMap<String, u64>,
}

impl Writer {
    async fn run(mut self, stop: Arc<AtomicBool>) -> Vec<Operation> {
        let mut operations = Vec::new();
        let mut left = self.style.writes;
        while left > 0 && !stop.load(Ordering::Relaxed) {
            let call = self.next();
            let Some(made) = self.client.call(Station::target(), call).await else { continue };
            self.learn(&made);
            if made.outcome == Outcome::Ok {
                left -= 1;
            } else if made.answer.is_none() {
                tokio::time::sleep(PAUSE).await;
            }
            operations.push(made);
        }
        operations
    }

    fn next(&mut self) -> Call {
        let key = self.key();
        let known = self.known.get(&key).copied();
        match self.chance.random_range(0..100) {
            0..62 => self.set(key, None),
            62..76 => self.set(key, Some(known.unwrap_or(0))),
            76..86 => Call::Delete { key, expected_version: None, idempotency_key: self.request() },
            _ => self.transaction(key, known),
        }
    }

    fn set(&mut self, key: String, expected_version: Option<u64>) -> Call {
        Call::Set { key, value: self.unique(), expected_version, idempotency_key: self.request() }
    }

    fn transaction(&mut self, first: String, known: Option<u64>) -> Call {
        let count = self.chance.random_range(1..=3);
        let keys: BTreeSet<String> =
            (0..count).map(|_| self.key()).chain([first.clone()]).collect();
        let success =
            keys.into_iter().map(|key| TxnOp::Set { key, value: self.unique() }).collect();
        let compare = match known {
            Some(version) if self.chance.random_bool(0.5) => {
                vec![Compare { key: first.clone(), version }]
            }
            _ => Vec::new(),
        };
        let failure = vec![TxnOp::Set { key: first, value: self.unique() }];
        Call::Txn { compare, success, failure, idempotency_key: self.request() }
    }

    fn key(&mut self) -> String {
        let namespace = NAMESPACES[self.chance.random_range(0..NAMESPACES.len())];
        let environment = ENVIRONMENTS[self.chance.random_range(0..ENVIRONMENTS.len())];
        format!("{namespace}/k{}@{environment}", self.chance.random_range(0..self.style.keys))
    }

    /// A value that nobody else ever writes, most of them small.
    fn unique(&mut self) -> Value {
        self.value += 1;
        let padding = match self.chance.random_range(0..1000) {
            0..700 => self.chance.random_range(0..100),
            700..930 => self.chance.random_range(100..4_000),
            930..995 => self.chance.random_range(4_000..40_000),
            _ => self.chance.random_range(40_000..300_000),
        };
        let letter = char::from(b'a' + self.chance.random_range(0..26));
        format!("{}.{}:{}", self.name, self.value, letter.to_string().repeat(padding)).into()
    }

    fn request(&mut self) -> Option<String> {
        self.value += 1;
        self.chance.random_bool(0.4).then(|| format!("{}.{}", self.name, self.value))
    }

    fn learn(&mut self, made: &Operation) {
        match (&made.call, &made.answer) {
            (Call::Set { key, .. }, Some(Answer::Written { version, .. }))
            | (Call::Set { key, .. }, Some(Answer::Conflict { current_version: version })) => {
                self.known.insert(key.clone(), *version);
            }
            (Call::Delete { key, .. }, _) => drop(self.known.insert(key.clone(), 0)),
            _ => {}
        }
    }
}
