//! Rights that come and go: an administrator makes a role and a token of it, changes the role, and revokes the token, while
//! others use the token everywhere, also for a while when it is good for nothing any more.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jepsen_lite::history::{Call, NOT_FOUND, Outcome, Policy, Read, Right};
use rand::Rng as _;
use rand::rngs::StdRng;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::{Setting, Worker, Workload};
use crate::client::Badge;

const GROUPS: u64 = 2;
const CLIENTS: u64 = 2;
const KEYS: u64 = 3;
const CHANGES_OF_A_ROLE: u32 = 3;
/// How long a rule stays, in milliseconds.
const STAYS_MS: std::ops::Range<u64> = 100..1000;
const BOUNDS_MS: [u64; 2] = [300, 1000];
/// What a role may be changed to; nothing stands for its end.
const GRANTS: [&[Right]; 4] =
    [&[Right::Read, Right::Write], &[Right::Read], &[Right::Write, Right::Delete], &[]];

/// The token that the clients of a group use.
type Shared = Arc<Mutex<Option<Badge>>>;

pub(super) fn begin(clients: &mut JoinSet<()>, setting: &Setting, seeds: &mut StdRng) {
    for group in 0..GROUPS {
        let shared = Shared::default();
        let administrator = Worker::new(setting, seeds.random());
        clients.spawn(administer(administrator, group, shared.clone()));
        for _ in 0..CLIENTS {
            let worker = Worker::new(setting, seeds.random());
            clients.spawn(use_it(worker, shared.clone()));
        }
    }
}

async fn administer(mut worker: Worker, group: u64, shared: Shared) {
    let mut number = 0u64;
    while worker.goes_on() {
        number += 1;
        let (role, token) = (format!("jl-{group}.{number}"), format!("t{group}.{number}"));
        if grant(&mut worker, &role, GRANTS[0]).await != Some(Outcome::Ok) {
            continue;
        }
        let namespace = Workload::Access.namespace().to_owned();
        let made = Policy::CreateToken { token: token.clone(), role: role.clone(), namespace };
        if change(&mut worker, made).await != Some(Outcome::Ok) {
            continue;
        }
        *shared.lock().unwrap_or_else(PoisonError::into_inner) =
            worker.setting.recorder.vault().badge(&token);
        for _ in 0..CHANGES_OF_A_ROLE {
            stay(&mut worker).await;
            let allows = GRANTS[worker.chance.random_range(0..GRANTS.len())];
            // Once an answer is lost, nobody knows what the role allows.
            if grant(&mut worker, &role, allows).await == Some(Outcome::Unknown) {
                break;
            }
        }
        if worker.dice() < 50 {
            grant(&mut worker, &role, GRANTS[0]).await;
        }
        stay(&mut worker).await;
        revoke(&mut worker, &token).await;
        stay(&mut worker).await;
    }
}

async fn stay(worker: &mut Worker) {
    sleep(Duration::from_millis(worker.chance.random_range(STAYS_MS))).await;
}

async fn grant(worker: &mut Worker, role: &str, allows: &[Right]) -> Option<Outcome> {
    let role = role.to_owned();
    let changed = if allows.is_empty() {
        Policy::DeleteRole { role }
    } else {
        Policy::PutRole { role, allows: allows.to_vec() }
    };
    change(worker, changed).await
}

async fn change(worker: &mut Worker, change: Policy) -> Option<Outcome> {
    let target = worker.target();
    let done = worker.client.call(target, Call::Policy { change }).await;
    worker.rest(done.as_ref()).await;
    done.map(|operation| operation.outcome)
}

/// Until it is known to be revoked.
async fn revoke(worker: &mut Worker, token: &str) {
    while worker.goes_on() {
        let call = Call::Policy { change: Policy::RevokeToken { token: token.to_owned() } };
        let target = worker.target();
        let done = worker.client.call(target, call).await;
        let over = done.as_ref().is_some_and(|operation| {
            operation.outcome == Outcome::Ok || operation.error.as_deref() == Some(NOT_FOUND)
        });
        worker.rest(done.as_ref()).await;
        if over {
            return;
        }
    }
}

async fn use_it(mut worker: Worker, shared: Shared) {
    while worker.goes_on() {
        let badge = shared.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(badge) = badge else {
            worker.rest(None).await;
            continue;
        };
        worker.client.wear(badge);
        let target = worker.target();
        let call = choose(&mut worker);
        let done = worker.client.call(target, call).await;
        worker.rest(done.as_ref()).await;
    }
}

fn choose(worker: &mut Worker) -> Call {
    let number = worker.chance.random_range(0..KEYS);
    let key = Workload::Access.key(format!("a{number}"));
    let read = match worker.dice() {
        0..35 => Read::LINEARIZABLE,
        35..60 => Read::CACHED,
        60..80 => {
            let bound = BOUNDS_MS[worker.chance.random_range(0..BOUNDS_MS.len())];
            Read { max_staleness_ms: Some(bound), ..Read::CACHED }
        }
        _ => {
            let min_revision = Some(worker.setting.recorder.revision());
            Read { min_revision, ..Read::CACHED }
        }
    };
    match worker.dice() {
        0..30 => {
            let value = worker.unique();
            Call::Set { key, value, expected_version: None, idempotency_key: None }
        }
        30..35 => Call::Delete { key, expected_version: None, idempotency_key: None },
        // No token is good for what is elsewhere.
        35..38 => Call::Get { key: Workload::Session.key("s0"), read, version: None },
        38..50 => Call::List { scope: Workload::Access.scope(), read },
        _ => Call::Get { key, read, version: None },
    }
}
