//! Secrets: written, shown to who asks, hidden from who does not, rolled back, deleted, and put under new keys meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jepsen_lite::history::{self, Call, Read};
use rand::Rng as _;
use rand::rngs::StdRng;
use tokio::task::JoinSet;

use super::register::version;
use super::{Setting, Worker, Workload};

const CLIENTS: u64 = 3;
const CALLS_OF_A_KEY: u64 = 200;
/// The keys are exchanged every so many calls, all clients together.
const CALLS_OF_A_DATA_KEY: u64 = 150;
const REVEAL: Read = Read { reveal: true, ..Read::CACHED };
const REVEAL_NEWEST: Read = Read { reveal: true, ..Read::LINEARIZABLE };

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
    while worker.goes_on() {
        let number = shared.calls.fetch_add(1, Ordering::Relaxed);
        let key = Workload::Secret.key(format!("s{}", number / CALLS_OF_A_KEY));
        if number.is_multiple_of(CALLS_OF_A_KEY) {
            shared.seen.store(0, Ordering::Relaxed);
        }
        let target = worker.target();
        let call = if number % CALLS_OF_A_DATA_KEY == CALLS_OF_A_DATA_KEY - 1 {
            Call::RotateKeys
        } else {
            choose(&mut worker, key, shared.seen.load(Ordering::Relaxed))
        };
        let done = worker.client.call(target, call).await;
        if let Some(version) = done.as_ref().and_then(version) {
            shared.seen.store(version, Ordering::Relaxed);
        }
        worker.rest(done.as_ref()).await;
    }
}

fn choose(worker: &mut Worker, key: String, seen: u64) -> Call {
    let secret = |worker: &mut Worker| {
        let name = worker.unique();
        history::secret(name.as_str().unwrap_or_default())
    };
    match worker.dice() {
        0..22 => {
            let value = secret(worker);
            let idempotency_key = (worker.dice() < 50).then(|| worker.request());
            Call::Set { key, value, expected_version: None, idempotency_key }
        }
        22..32 => {
            let value = secret(worker);
            Call::Set { key, value, expected_version: Some(seen), idempotency_key: None }
        }
        32..38 => Call::Delete { key, expected_version: None, idempotency_key: None },
        38..44 if seen > 1 => {
            let to_version = worker.chance.random_range(1..seen);
            Call::Rollback { key, to_version, idempotency_key: Some(worker.request()) }
        }
        44..64 => Call::Get { key, read: REVEAL_NEWEST, version: None },
        64..72 => Call::Get { key, read: REVEAL, version: None },
        72..80 if seen > 1 => {
            let version = Some(worker.chance.random_range(1..=seen));
            Call::Get { key, read: REVEAL, version }
        }
        80..86 => Call::Get { key, read: Read::LINEARIZABLE, version: None },
        86..93 => Call::List { scope: Workload::Secret.scope(), read: Read::CACHED },
        _ => Call::History { key, read: Read::LINEARIZABLE },
    }
}
