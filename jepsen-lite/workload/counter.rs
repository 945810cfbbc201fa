//! Additions to a number: each is a compare-and-set under one idempotency key, sent again to any node until it is known to
//! have happened. However often it was sent, it counts once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jepsen_lite::history::{Call, Read};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::task::JoinSet;

use super::{Setting, Worker, Workload, choose};

const CLIENTS: u64 = 3;
const ADDITIONS_OF_A_KEY: u64 = 150;
const ATTEMPTS: u32 = 60;

pub(super) fn begin(clients: &mut JoinSet<()>, setting: &Setting, seeds: &mut StdRng) {
    let calls = Arc::new(AtomicU64::new(0));
    for _ in 0..CLIENTS {
        clients.spawn(work(Worker::new(setting, seeds.random()), calls.clone()));
    }
}

async fn work(mut worker: Worker, calls: Arc<AtomicU64>) {
    let mut chance = StdRng::seed_from_u64(worker.chance.random());
    while worker.goes_on() {
        let call = calls.fetch_add(1, Ordering::Relaxed);
        let key = Workload::Counter.key(format!("c{}", call / ADDITIONS_OF_A_KEY));
        let done = if worker.dice() < 15 {
            let target = worker.target();
            let read = Call::Get { key, read: Read::LINEARIZABLE, version: None };
            worker.client.call(target, read).await
        } else {
            let anyone = |targets: &[_]| choose(targets, &mut chance);
            worker.client.increment(&key, anyone, ATTEMPTS).await
        };
        worker.rest(done.as_ref()).await;
    }
}
