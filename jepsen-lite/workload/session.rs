//! Clients that go from node to node with the highest revision they know: they see their own writes, and never go back.

use jepsen_lite::history::{Call, Read};
use rand::Rng as _;
use rand::rngs::StdRng;
use tokio::task::JoinSet;

use super::{Setting, Worker, Workload};

const CLIENTS: u64 = 3;
const KEYS: u64 = 6;
const CALLS_OF_A_SESSION: u64 = 200;

pub(super) fn begin(clients: &mut JoinSet<()>, setting: &Setting, seeds: &mut StdRng) {
    for _ in 0..CLIENTS {
        clients.spawn(work(Worker::new(setting, seeds.random())));
    }
}

async fn work(mut worker: Worker) {
    let (mut calls, mut seen) = (0u64, 0u64);
    while worker.goes_on() {
        if calls.is_multiple_of(CALLS_OF_A_SESSION) {
            worker.client.begin_session();
            seen = 0;
        }
        calls += 1;
        let key = Workload::Session.key(format!("s{}", worker.chance.random_range(0..KEYS)));
        let target = worker.target();
        let call = match worker.dice() {
            0..30 => {
                let (value, request) = (worker.unique(), worker.request());
                Call::Set { key, value, expected_version: None, idempotency_key: Some(request) }
            }
            30..40 => Call::List { scope: Workload::Session.scope(), read: at_least(seen) },
            _ => Call::Get { key, read: at_least(seen), version: None },
        };
        let done = worker.client.call(target, call).await;
        if let Some(revision) = done.as_ref().and_then(|operation| operation.revision) {
            seen = seen.max(revision);
        }
        worker.rest(done.as_ref()).await;
    }
}

fn at_least(revision: u64) -> Read {
    Read { min_revision: Some(revision), ..Read::CACHED }
}
