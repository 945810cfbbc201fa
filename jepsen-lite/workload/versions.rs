//! Few entries with long histories: every version is there once, and is for ever what it was.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jepsen_lite::history::{Call, Outcome, Read};
use rand::Rng as _;
use rand::rngs::StdRng;
use tokio::task::JoinSet;

use super::register::version;
use super::{Setting, Worker, Workload};

const CLIENTS: u64 = 3;
const CALLS_OF_A_KEY: u64 = 250;

#[derive(Debug, Default)]
struct Shared {
    calls: AtomicU64,
    seen: AtomicU64,
}

pub(super) fn begin(clients: &mut JoinSet<()>, setting: &Setting, seeds: &mut StdRng) {
    let shared = Arc::new(Shared::default());
    for _ in 0..CLIENTS {
        clients.spawn(work(Worker::new(setting, seeds.random()), shared.clone()));
    }
}

async fn work(mut worker: Worker, shared: Arc<Shared>) {
    let mut used = None;
    while worker.goes_on() {
        let call = shared.calls.fetch_add(1, Ordering::Relaxed);
        let key = Workload::Versions.key(format!("v{}", call / CALLS_OF_A_KEY));
        if call.is_multiple_of(CALLS_OF_A_KEY) {
            shared.seen.store(0, Ordering::Relaxed);
        }
        let target = worker.target();
        let call = match used.take() {
            Some(request) if worker.dice() < 3 => again(&mut worker, key, request),
            _ => choose(&mut worker, key, shared.seen.load(Ordering::Relaxed)),
        };
        let done = worker.client.call(target, call).await;
        let fine = done.as_ref().filter(|operation| operation.outcome == Outcome::Ok);
        used = fine.and_then(|operation| operation.call.idempotency_key()).map(str::to_owned);
        if let Some(version) = done.as_ref().and_then(version) {
            shared.seen.store(version, Ordering::Relaxed);
        }
        worker.rest(done.as_ref()).await;
    }
}

/// Another request under the key of the last one, which has to be refused.
fn again(worker: &mut Worker, key: String, request: String) -> Call {
    let value = worker.unique();
    Call::Set { key, value, expected_version: None, idempotency_key: Some(request) }
}

fn choose(worker: &mut Worker, key: String, seen: u64) -> Call {
    match worker.dice() {
        0..45 => {
            let (value, request) = (worker.unique(), worker.request());
            Call::Set { key, value, expected_version: None, idempotency_key: Some(request) }
        }
        45..55 => {
            let request = worker.request();
            Call::Delete { key, expected_version: None, idempotency_key: Some(request) }
        }
        55..70 if seen > 1 => {
            let (back, request) = (worker.chance.random_range(1..seen), worker.request());
            Call::Rollback { key, to_version: back, idempotency_key: Some(request) }
        }
        70..85 => Call::History { key, read: Read::LINEARIZABLE },
        85..92 if seen > 1 => {
            let version = Some(worker.chance.random_range(1..=seen));
            Call::Get { key, read: Read::CACHED, version }
        }
        _ => Call::History { key, read: Read::CACHED },
    }
}
