//! Reads of any node that bound how long ago it may have heard from a leader: they see what was acknowledged before that,
//! or are refused.

use jepsen_lite::history::{Call, Read};
use rand::Rng as _;
use rand::rngs::StdRng;
use tokio::task::JoinSet;

use super::{Setting, Worker, Workload};

const CLIENTS: u64 = 3;
const KEYS: u64 = 3;
const BOUNDS_MS: [u64; 3] = [300, 1000, 3000];

pub(super) fn begin(clients: &mut JoinSet<()>, setting: &Setting, seeds: &mut StdRng) {
    for _ in 0..CLIENTS {
        clients.spawn(work(Worker::new(setting, seeds.random())));
    }
}

async fn work(mut worker: Worker) {
    while worker.goes_on() {
        let key = Workload::Staleness.key(format!("s{}", worker.chance.random_range(0..KEYS)));
        let target = worker.target();
        let call = if worker.dice() < 30 {
            let value = worker.unique();
            Call::Set { key, value, expected_version: None, idempotency_key: None }
        } else {
            let bound = BOUNDS_MS[worker.chance.random_range(0..BOUNDS_MS.len())];
            let read = Read { max_staleness_ms: Some(bound), ..Read::CACHED };
            Call::Get { key, read, version: None }
        };
        let done = worker.client.call(target, call).await;
        worker.rest(done.as_ref()).await;
    }
}
