//! The certificates of a node: loaded before anything on the disk is touched, looked at while it runs, shown in the metrics.

use std::sync::Arc;

use llm_config_tls::{File, Files, NodeTls, Reloading, ServerTls, TlsError};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::metrics::{CertificateSample, Metrics};
use crate::settings::{CertificateFiles, Settings};

/// See the module.
pub(super) struct Certificates {
    /// For the listeners of clients.
    pub(super) clients: Option<Arc<ServerTls>>,
    /// For both ends between nodes.
    pub(super) nodes: Option<Arc<NodeTls>>,
}

impl Certificates {
    pub(super) fn load(settings: &Settings) -> Result<Self, TlsError> {
        let security = &settings.security;
        let clients = security.tls.as_ref().map(|tls| {
            let ca = tls.client_ca.clone();
            let ca = ca.map(|path| File { option: "--tls-client-ca", path });
            ServerTls::for_clients(files(&tls.files, ["--tls-cert", "--tls-key"]), ca)
        });
        let nodes = security.raft_tls.as_ref().map(|tls| {
            let files = files(&tls.files, ["--raft-tls-cert", "--raft-tls-key"]);
            let ca = File { option: "--raft-tls-ca", path: tls.ca.clone() };
            NodeTls::for_nodes(settings.node_id, files, ca)
        });
        Ok(Self { clients: clients.transpose()?, nodes: nodes.transpose()? })
    }

    /// Until closing.
    pub(super) fn watch(
        &self,
        metrics: &Metrics,
        tasks: &TaskTracker,
        closing: &CancellationToken,
    ) {
        if let Some(tls) = &self.clients {
            watch("client", tls, metrics, tasks, closing);
        }
        if let Some(tls) = &self.nodes {
            watch("node", tls, metrics, tasks, closing);
        }
    }
}

fn watch<T: Send + Sync + 'static>(
    name: &'static str,
    tls: &Arc<Reloading<T>>,
    metrics: &Metrics,
    tasks: &TaskTracker,
    closing: &CancellationToken,
) {
    let shown = Arc::clone(tls);
    metrics.certificate(name, move || {
        let reloads = shown.reloads();
        CertificateSample {
            expires_at_s: shown.expires_at_s(),
            reloads: reloads.ok,
            reloads_failed: reloads.failed,
        }
    });
    tasks.spawn(Arc::clone(tls).watch(closing.clone().cancelled_owned()));
}

fn files(files: &CertificateFiles, [certificate, key]: [&'static str; 2]) -> Files {
    Files {
        certificate: File { option: certificate, path: files.certificate.clone() },
        key: File { option: key, path: files.key.clone() },
    }
}
