//! `dev`: a whole cluster in one process on this machine, for trying things out.
//!
//! The same nodes as in production, on loopback and without authentication; nothing here is a different code path. Lost
//! with the machine, so not a way to run anything that matters.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::{join_all, select_all, try_join_all};
use llm_config_domain::limits;
use llm_config_replica::StartError;
use tracing::level_filters::LevelFilter;

use crate::logging::{self, Format};
use crate::node::{Node, NodeError, Sockets};
use crate::secrets::generate_file;
use crate::settings::{
    BACKUP_INTERVAL_DEFAULT, BACKUP_KEEP_DEFAULT, CACHE_BYTES_DEFAULT, DISK_RESERVE_DEFAULT,
    REQUEST_TIMEOUT_DEFAULT, STORAGE_QUOTA_DEFAULT, SecuritySettings, Settings,
};

/// Where the nodes keep their data when nothing is said: beside the person's work, easy to see and to delete.
pub const DATA_DIR_DEFAULT: &str = "llm-config-dev";
/// The key that wraps the keys of secrets, beside the nodes' own folders.
const MASTER_KEY_FILE: &str = "master-key";
const HTTP_PORT: u16 = 8080;
const METRICS_PORT: u16 = 9090;
const GRPC_PORT: u16 = 50051;
const RAFT_PORT: u16 = 50061;
/// How long the cluster may take to elect a leader before the wait is reported as a fault.
const SERVE_TIMEOUT: Duration = Duration::from_secs(60);
const PROBE_INTERVAL: Duration = Duration::from_millis(50);

/// A cluster in this process.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<(u64, Node)>,
}

impl Cluster {
    /// Starts `nodes` nodes, each in its own folder of `data_dir`. Waits until every node answers linearizable reads.
    pub async fn start(nodes: u16, data_dir: &Path) -> Result<Self, NodeError> {
        check_size(nodes, data_dir)?;
        generate_file(&data_dir.join(MASTER_KEY_FILE))
            .map_err(|error| StartError::DataDir(error.to_string()))?;
        let settings: Vec<_> = (1..=nodes).map(|n| settings(n, nodes, data_dir)).collect();
        let sockets = settings.iter().map(bind).collect::<Result<Vec<_>, _>>()?;
        let started = settings.iter().zip(sockets).map(|(settings, sockets)| async move {
            let started = Node::start(settings, sockets).await;
            started.map(|node| (settings.node_id, node))
        });
        let cluster = Self { nodes: try_join_all(started).await? };
        match cluster.serves().await {
            Ok(()) => Ok(cluster),
            Err(error) => {
                cluster.stop().await;
                Err(error)
            }
        }
    }

    async fn serves(&self) -> Result<(), NodeError> {
        let deadline = Instant::now() + SERVE_TIMEOUT;
        for (id, node) in &self.nodes {
            let replica = node.service().replica();
            while let Err(error) = replica.linearizable(deadline).await {
                if Instant::now() >= deadline {
                    let message =
                        format!("node {id} does not serve after {SERVE_TIMEOUT:?}: {error}");
                    return Err(StartError::Runtime(message).into());
                }
                tokio::time::sleep(PROBE_INTERVAL).await;
            }
        }
        Ok(())
    }

    /// Who listens where, who leads, and a line to try.
    #[must_use]
    pub fn welcome(&self, data_dir: &Path) -> String {
        let mut lines = vec![format!(
            "{} nodes serve; their data is in {}",
            self.nodes.len(),
            data_dir.display()
        )];
        for (id, node) in &self.nodes {
            let at = node.addresses();
            lines.push(format!(
                "  node {id}: HTTP http://{}  gRPC {}  metrics http://{}/metrics  raft {}",
                at.http, at.grpc, at.metrics, at.raft
            ));
        }
        if let Some((_, first)) = self.nodes.first() {
            if let Some(leader) = first.service().replica().status().leader_id {
                lines.push(format!("node {leader} leads; every node takes reads and writes"));
            }
            let api = format!("http://{}/api/v1/configs/demo/model", first.addresses().http);
            lines.push("try:".to_owned());
            lines.push(format!(
                "  curl -X PUT {api} -H 'content-type: application/json' -d '{{\"value\": \"gpt-4o\", \"env\": \"dev\"}}'"
            ));
            lines.push(format!("  curl '{api}?env=dev'"));
        }
        lines.push(
            "Ctrl-C stops the cluster; the same command goes on with the same data".to_owned(),
        );
        lines.join("\n")
    }

    /// Resolves when one of the nodes can no longer be trusted.
    pub async fn failure(&self) -> NodeError {
        let (error, _, _) =
            select_all(self.nodes.iter().map(|(_, node)| node.failure().boxed())).await;
        error
    }

    /// Stops all nodes at once: one after the other, the last would wait for a majority that is gone.
    pub async fn stop(self) {
        join_all(self.nodes.into_iter().map(|(_, node)| node.stop())).await;
    }
}

/// A cluster keeps the number of nodes that it was founded with.
fn check_size(nodes: u16, data_dir: &Path) -> Result<(), StartError> {
    let founded = (1..=u16::MAX).take_while(|n| folder(data_dir, *n).exists()).count();
    if founded == 0 || founded == usize::from(nodes) {
        return Ok(());
    }
    Err(StartError::Usage(format!(
        "{} holds a cluster of {founded}; pass --nodes {founded} to go on with it, or another --data-dir to begin anew",
        data_dir.display()
    )))
}

/// `dev` has no flags for addresses, so the message names none.
fn bind(settings: &Settings) -> Result<Sockets, NodeError> {
    Sockets::bind(settings).map_err(|error| match error {
        NodeError::Bind { address, source, .. } => {
            let message = format!(
                "node {} cannot listen on {address} ({source}); stop what uses the address, perhaps another `dev`",
                settings.node_id
            );
            StartError::Runtime(message).into()
        }
        NodeError::Tls(_) | NodeError::Replica(_) => error,
    })
}

fn settings(n: u16, nodes: u16, data_dir: &Path) -> Settings {
    let at = |port: u16, n: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port + n - 1));
    let initial_cluster: BTreeMap<_, _> =
        (1..=nodes).map(|n| (u64::from(n), at(RAFT_PORT, n).to_string())).collect();
    Settings {
        node_id: u64::from(n),
        data_dir: folder(data_dir, n),
        http_addr: at(HTTP_PORT, n),
        metrics_addr: at(METRICS_PORT, n),
        grpc_addr: at(GRPC_PORT, n),
        raft_addr: at(RAFT_PORT, n),
        advertise_http: None,
        advertise_grpc: None,
        advertise_raft: None,
        initial_cluster,
        join: Vec::new(),
        history_limit: limits::HISTORY_LIMIT_DEFAULT,
        auth: false,
        insecure: false,
        log_format: Format::Text,
        log_level: LevelFilter::WARN,
        cache_bytes: CACHE_BYTES_DEFAULT,
        request_timeout: REQUEST_TIMEOUT_DEFAULT,
        backup_interval: Some(BACKUP_INTERVAL_DEFAULT),
        backup_keep: BACKUP_KEEP_DEFAULT,
        storage_quota: STORAGE_QUOTA_DEFAULT,
        disk_reserve: DISK_RESERVE_DEFAULT,
        security: SecuritySettings::of_dev(data_dir.join(MASTER_KEY_FILE)),
    }
}

fn folder(data_dir: &Path, n: u16) -> PathBuf {
    data_dir.join(format!("node-{n}"))
}

/// Prints the welcome on stdout; a reader that is gone is no reason to stop.
pub fn greet(cluster: &Cluster, data_dir: &Path) {
    use std::io::Write;
    let shown = writeln!(std::io::stdout(), "{}", cluster.welcome(data_dir));
    if let Err(error) = shown {
        logging::say(&format!("the welcome could not be shown on stdout: {error}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_have_the_documented_ports_and_their_own_folders() {
        let third = settings(3, 3, Path::new("d"));
        assert_eq!(third.listeners().map(|(_, a)| a.port()), [8082, 9092, 50053, 50063]);
        assert!(third.listeners().iter().all(|(_, a)| a.ip().is_loopback()));
        assert_eq!(third.data_dir, Path::new("d/node-3"));
        assert_eq!(third.initial_cluster[&1], "127.0.0.1:50061");
        assert_eq!(third.initial_cluster.len(), 3);
    }

    #[test]
    fn another_number_of_nodes_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(check_size(5, folder.path()).is_ok());
        for n in 1..=3 {
            std::fs::create_dir(super::folder(folder.path(), n)).unwrap();
        }
        assert!(check_size(3, folder.path()).is_ok());
        assert!(check_size(5, folder.path()).unwrap_err().to_string().contains("--nodes 3"));
    }
}
