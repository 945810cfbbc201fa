//! What is asked of every node when the faults are over: whether it serves, and everything that it has.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use jepsen_lite::history::{Call, Outcome, Read, Scope};
use tokio::time::{Instant, sleep};

use super::{ENVIRONMENT, Workload};
use crate::client::{Client, Recorder};
use crate::lab::{Target, Targets};

const CALLS: u64 = 10;
/// Every node has it in its log.
pub const NAMESPACE: &str = "jl-service";
/// One answer may be lost, for instance because a leader is just elected; a node that does not answer for this long is
/// not healed.
const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(100);

/// Asks until there is an answer.
async fn insist(client: &mut Client, target: Target, call: &Call) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let done = client.call(target, call.clone()).await;
        if done.is_some_and(|operation| operation.outcome == Outcome::Ok) {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("node {} does not answer a {} within {PATIENCE:?}", target.id, call.kind());
        }
        sleep(PAUSE).await;
    }
}

/// Writes and reads through every node.
///
/// # Errors
/// When one does not take it.
pub async fn serve(recorder: Arc<Recorder>, targets: Targets, name: u64) -> anyhow::Result<()> {
    for target in targets.now() {
        let mut client = Client::new(recorder.clone(), targets.clone());
        let key = format!("{NAMESPACE}/n{}.{name}@{ENVIRONMENT}", target.id);
        for call in 0..CALLS {
            let value = format!("{}.{name}.{call}", target.id).into();
            let set = Call::Set {
                key: key.clone(),
                value,
                expected_version: None,
                idempotency_key: None,
            };
            insist(&mut client, target, &set).await?;
            let read = Call::Get { key: key.clone(), read: Read::LINEARIZABLE, version: None };
            insist(&mut client, target, &read).await?;
        }
    }
    Ok(())
}

fn scopes(workloads: &BTreeSet<Workload>) -> Vec<Scope> {
    let service =
        Scope { prefix: format!("{NAMESPACE}/"), environment: Some(ENVIRONMENT.to_owned()) };
    let with_entries = workloads.iter().filter(|workload| workload.has_entries());
    with_entries.map(|workload| workload.scope()).chain([service]).collect()
}

/// Lists everything at every node; and before the end, asks for each entry by itself.
///
/// # Errors
/// When one does not answer.
pub async fn look(
    recorder: Arc<Recorder>,
    targets: Targets,
    workloads: BTreeSet<Workload>,
    last: bool,
) -> anyhow::Result<()> {
    let seen = Read { min_revision: Some(recorder.revision()), ..Read::CACHED };
    // In the end a node that lost what was seen has to say what it has, not to wait for the rest.
    let read = if last { Read::LINEARIZABLE } else { seen };
    for target in targets.now() {
        let mut client = Client::new(recorder.clone(), targets.clone());
        if last {
            client.close();
        }
        for scope in scopes(&workloads) {
            insist(&mut client, target, &Call::List { scope, read }).await?;
        }
        // What a node keeps in memory is another thing than what it lists.
        let single = if last { BTreeSet::new() } else { recorder.keys() };
        for key in single {
            insist(&mut client, target, &Call::Get { key, read, version: None }).await?;
        }
    }
    Ok(())
}

/// Reads the audit log, has every node walk its own, and asks it who is in the cluster.
async fn audit(recorder: Arc<Recorder>, targets: Targets) -> anyhow::Result<()> {
    let mut client = Client::new(recorder, targets.clone());
    client.close();
    for (place, target) in targets.now().into_iter().enumerate() {
        // A node that has confirmed it has all that there is to walk.
        let (scope, read) = (Workload::Member.scope(), Read::LINEARIZABLE);
        insist(&mut client, target, &Call::List { scope, read }).await?;
        if place == 0 {
            insist(&mut client, target, &Call::Audit { read }).await?;
        }
        insist(&mut client, target, &Call::VerifyAudit).await?;
        insist(&mut client, target, &Call::Members).await?;
    }
    Ok(())
}

/// Asks every node for everything: what there is, and the history of every entry that was ever asked for.
///
/// # Errors
/// When one does not answer.
pub async fn scan(
    recorder: Arc<Recorder>,
    targets: Targets,
    workloads: BTreeSet<Workload>,
) -> anyhow::Result<()> {
    look(recorder.clone(), targets.clone(), workloads, true).await?;
    audit(recorder.clone(), targets.clone()).await?;
    let keys = Arc::new(recorder.keys());
    let mut scans = tokio::task::JoinSet::new();
    for target in targets.now() {
        let mut client = Client::new(recorder.clone(), targets.clone());
        client.close();
        let keys = keys.clone();
        scans.spawn(async move {
            for key in keys.iter() {
                let read = Read::LINEARIZABLE;
                insist(&mut client, target, &Call::History { key: key.clone(), read }).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = scans.join_next().await {
        ended.context("a scan")??;
    }
    Ok(())
}
