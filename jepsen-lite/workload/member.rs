//! The members, as each node sees them, again and again.

use std::time::Duration;

use jepsen_lite::history::Call;
use rand::Rng as _;
use rand::rngs::StdRng;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::{Setting, Worker};

/// Between two looks at a node.
const PAUSE: Duration = Duration::from_millis(300);

pub(super) fn begin(clients: &mut JoinSet<()>, setting: &Setting, seeds: &mut StdRng) {
    clients.spawn(work(Worker::new(setting, seeds.random())));
}

async fn work(mut worker: Worker) {
    while worker.goes_on() {
        for target in worker.client.targets() {
            worker.client.call(target, Call::Members).await;
        }
        sleep(PAUSE).await;
    }
}
