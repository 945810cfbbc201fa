//! Single entries, each written and read by few clients and left alone after some hundred calls: what comes out is checked
//! for linearizability, whose cost grows fast with both.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jepsen_lite::history::{Answer, Call, Operation, Read};
use rand::Rng as _;
use rand::rngs::StdRng;
use tokio::task::JoinSet;

use super::{Setting, Worker, Workload};

const GROUPS: u64 = 2;
const CLIENTS: u64 = 4;
const CALLS_OF_A_KEY: u64 = 200;

/// What the clients of one entry have in common.
#[derive(Debug, Default)]
struct Group {
    number: u64,
    calls: AtomicU64,
    /// The version that somebody saw last: a guess for compare-and-set.
    seen: AtomicU64,
}

pub(super) fn begin(clients: &mut JoinSet<()>, setting: &Setting, seeds: &mut StdRng) {
    for number in 0..GROUPS {
        let group = Arc::new(Group { number, ..Group::default() });
        for _ in 0..CLIENTS {
            clients.spawn(work(Worker::new(setting, seeds.random()), group.clone()));
        }
    }
}

async fn work(mut worker: Worker, group: Arc<Group>) {
    while worker.goes_on() {
        let call = group.calls.fetch_add(1, Ordering::Relaxed);
        let key = Workload::Register.key(format!("k{}.{}", group.number, call / CALLS_OF_A_KEY));
        if call.is_multiple_of(CALLS_OF_A_KEY) {
            group.seen.store(0, Ordering::Relaxed);
        }
        let target = worker.target();
        let call = choose(&mut worker, key, group.seen.load(Ordering::Relaxed));
        let done = worker.client.call(target, call).await;
        if let Some(version) = done.as_ref().and_then(version) {
            group.seen.store(version, Ordering::Relaxed);
        }
        worker.rest(done.as_ref()).await;
    }
}

fn choose(worker: &mut Worker, key: String, seen: u64) -> Call {
    let guess = |worker: &mut Worker| match worker.dice() {
        0..80 => seen,
        80..90 => seen.saturating_sub(1),
        _ => seen + 1,
    };
    match worker.dice() {
        0..40 => Call::Get { key, read: Read::LINEARIZABLE, version: None },
        40..50 => Call::Get { key, read: Read::CACHED, version: None },
        50..72 => {
            let value = worker.unique();
            Call::Set { key, value, expected_version: None, idempotency_key: None }
        }
        72..92 => {
            let (value, guess) = (worker.unique(), guess(worker));
            Call::Set { key, value, expected_version: Some(guess), idempotency_key: None }
        }
        92..96 => {
            let guess = guess(worker);
            Call::Delete { key, expected_version: Some(guess), idempotency_key: None }
        }
        _ => Call::Delete { key, expected_version: None, idempotency_key: None },
    }
}

/// The version of the entry, as far as an answer tells.
pub(super) fn version(operation: &Operation) -> Option<u64> {
    match operation.answer.as_ref()? {
        Answer::Entry { entry } => entry.as_ref().map(|entry| entry.version),
        Answer::Written { version, .. } => Some(*version),
        Answer::Conflict { current_version } => Some(*current_version),
        _ => None,
    }
}
