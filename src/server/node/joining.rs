//! A node that founds nothing: it looks for its cluster before it starts, and says how to add it until that is done.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use llm_config_replica::{Advertise, Join, Replica, StartError};
use llm_config_tls::Failures;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::certificates::Certificates;
use super::listener::{IDLE_TIMEOUT, Listener};
use super::{CLIENT_CONNECTIONS_MAX, NodeError, asynchronous, browser};
use crate::metrics::Metrics;
use crate::settings::Settings;
use crate::{http, join};

/// How often a node that waits says so again.
const REMINDER_INTERVAL: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Finds the cluster to join. `None` on a founder, and on a node that belongs to a cluster already: what it was once
/// started with means nothing any more. Meanwhile probes are answered, so that a supervisor lets the node wait.
pub(super) async fn join(
    settings: &Settings,
    socket: &TcpListener,
    certificates: &Certificates,
    metrics: &Arc<Metrics>,
) -> Result<Option<Join>, NodeError> {
    if settings.join.is_empty() || !Replica::is_unclaimed(&settings.data_dir) {
        return Ok(None);
    }
    let search = join::Search::new(&settings.join, settings.security.tls_ca.as_deref())?;
    let socket = socket.try_clone().map_err(|error| {
        StartError::Runtime(format!("the http listener cannot be used: {error}"))
    })?;
    let reason = format!("it looks for its cluster at {}", settings.join.join(", "));
    let lobby = Listener {
        name: "http",
        router: browser(settings).protect(http::lobby(reason)),
        tls: certificates.clients.clone(),
        failures: Arc::new(Failures::new("http listener")),
        connections_max: CLIENT_CONNECTIONS_MAX,
        idle_timeout: IDLE_TIMEOUT,
        metrics: Arc::clone(metrics),
        tasks: TaskTracker::new(),
        closing: CancellationToken::new(),
        abort: CancellationToken::new(),
    };
    let _ends_with_the_search = lobby.closing.clone().drop_guard();
    let serving = tokio::spawn(lobby.clone().serve(asynchronous("http", socket)?));
    let cluster_id = search.cluster_id().await;
    lobby.closing.cancel();
    lobby.tasks.close();
    // Nothing that is answered here takes time; a connection that lingers is cut off.
    lobby.abort.cancel();
    lobby.tasks.wait().await;
    serving.await.map_err(|error| StartError::Runtime(error.to_string()))?;
    Ok(Some(Join { cluster_id: Some(cluster_id) }))
}

/// What an operator runs to add this node.
pub(super) fn add_command(settings: &Settings, told: &Advertise) -> String {
    format!(
        "llm-config --endpoints {} cluster add --id {} --raft {} --http {} --grpc {}",
        settings.join.join(","),
        settings.node_id,
        told.raft,
        told.http,
        told.grpc
    )
}

/// Says what has to be done until the cluster has taken this node in.
pub(super) async fn announce(replica: Replica, add: String, closing: CancellationToken) {
    if !replica.awaits_cluster() {
        return;
    }
    let added = async {
        while replica.awaits_cluster() {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    };
    tokio::pin!(added);
    loop {
        tracing::info!("this node waits to be added to the cluster; run: {add}");
        tokio::select! {
            () = closing.cancelled() => return,
            () = added.as_mut() => break,
            () = tokio::time::sleep(REMINDER_INTERVAL) => {}
        }
    }
    tracing::info!(
        node_id = replica.node_id(),
        "the cluster has added this node as a learner; `llm-config cluster promote {}` gives it a vote",
        replica.node_id()
    );
}
