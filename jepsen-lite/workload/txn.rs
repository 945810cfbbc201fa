//! Amounts that are moved between entries: each transaction compares the versions that it read, and changes all of its
//! entries or none, so their sum stays.

use jepsen_lite::history::{
    Answer, Call, Compare, Operation, Outcome, Read, Sum, TxnOp, TxnResult,
};
use rand::Rng as _;
use rand::rngs::StdRng;
use tokio::task::JoinSet;

use super::{Setting, Worker, Workload};

const BANKS: u64 = 3;
const ACCOUNTS: u64 = 4;
const OPENING: i64 = 100;
const CLIENTS: u64 = 3;

fn account(bank: u64, account: u64) -> String {
    Workload::Txn.key(format!("b{bank}.{account}"))
}

pub(super) fn sums() -> Vec<Sum> {
    let keys = |bank| (0..ACCOUNTS).map(|number| account(bank, number)).collect();
    let total = OPENING * ACCOUNTS.cast_signed();
    (0..BANKS).map(|bank| Sum { keys: keys(bank), total }).collect()
}

pub(super) fn begin(clients: &mut JoinSet<()>, setting: &Setting, seeds: &mut StdRng) {
    for _ in 0..CLIENTS {
        clients.spawn(work(Worker::new(setting, seeds.random())));
    }
}

async fn work(mut worker: Worker) {
    while worker.goes_on() {
        let bank = worker.chance.random_range(0..BANKS);
        let keys: Vec<String> = (0..ACCOUNTS).map(|number| account(bank, number)).collect();
        if worker.dice() < 10 {
            let target = worker.target();
            let list = Call::List { scope: Workload::Txn.scope(), read: Read::LINEARIZABLE };
            let done = worker.client.call(target, list).await;
            worker.rest(done.as_ref()).await;
            continue;
        }
        if worker.dice() < 5 {
            let target = worker.target();
            let call = broken(&mut worker);
            let done = worker.client.call(target, call).await;
            worker.rest(done.as_ref()).await;
            continue;
        }
        let target = worker.target();
        let success = keys.iter().map(|key| TxnOp::Get { key: key.clone() }).collect();
        let read =
            Call::Txn { compare: Vec::new(), success, failure: Vec::new(), idempotency_key: None };
        let read = worker.client.call(target, read).await;
        let Some(found) = read.as_ref().and_then(balances) else {
            worker.rest(read.as_ref()).await;
            continue;
        };
        let change = change(&mut worker, &keys, &found);
        let target = worker.target();
        let done = worker.client.call(target, change).await;
        worker.rest(done.as_ref()).await;
    }
}

/// A transaction that has to be refused at its second step, and so must not have done the first.
fn broken(worker: &mut Worker) -> Call {
    let key = Workload::Txn.key(format!("x{}", worker.chance.random_range(0..ACCOUNTS)));
    let set = TxnOp::Set { key, value: worker.unique() };
    let missing = TxnOp::Delete { key: Workload::Txn.key("nothing") };
    let success = vec![set, missing];
    Call::Txn { compare: Vec::new(), success, failure: Vec::new(), idempotency_key: None }
}

/// Version and amount of each account; version 0 is one that is not there.
fn balances(operation: &Operation) -> Option<Vec<(u64, i64)>> {
    let Some(Answer::Txn { results, .. }) = &operation.answer else { return None };
    let balance = |result: &TxnResult| match result {
        TxnResult::Got { entry: Some(entry) } => {
            Some((entry.version, entry.value.as_ref().and_then(serde_json::Value::as_i64)?))
        }
        TxnResult::Got { entry: None } => Some((0, 0)),
        TxnResult::Written { .. } => None,
    };
    (operation.outcome == Outcome::Ok).then(|| results.iter().map(balance).collect())?
}

fn change(worker: &mut Worker, keys: &[String], found: &[(u64, i64)]) -> Call {
    let opened = found.iter().all(|(version, _)| *version > 0);
    let mut touched: Vec<(usize, i64)> = Vec::new();
    if opened {
        let from = worker.chance.random_range(0..keys.len());
        let to = (from + worker.chance.random_range(1..keys.len())) % keys.len();
        let amount = worker.chance.random_range(1..10);
        touched.push((from, found[from].1 - amount));
        touched.push((to, found[to].1 + amount));
    } else {
        touched.extend((0..keys.len()).map(|at| (at, OPENING)));
    }
    let compare =
        touched.iter().map(|(at, _)| Compare { key: keys[*at].clone(), version: found[*at].0 });
    let set =
        |(at, value): &(usize, i64)| TxnOp::Set { key: keys[*at].clone(), value: (*value).into() };
    let failure = keys.iter().map(|key| TxnOp::Get { key: key.clone() }).collect();
    let idempotency_key = (worker.dice() < 50).then(|| worker.request());
    Call::Txn {
        compare: compare.collect(),
        success: touched.iter().map(set).collect(),
        failure,
        idempotency_key,
    }
}
