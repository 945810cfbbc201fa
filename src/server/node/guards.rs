//! What stands between callers and the store, made of the settings; and what keeps it up to date while the node runs.

use std::sync::Arc;

use llm_config_replica::StartError;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::Access;
use crate::jwt::JwtVerifier;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::schemas::Schemas;
use crate::secrets::{DataKeys, MasterKeys};
use crate::service::Guards;
use crate::settings::Settings;

/// Files are read here, so that a node with a wrong one does not start.
pub(super) fn guards(
    settings: &Settings,
    metrics: &Arc<Metrics>,
    tasks: &TaskTracker,
    closing: &CancellationToken,
) -> Result<Arc<Guards>, StartError> {
    let security = &settings.security;
    let masters = match &security.master_key_file {
        None => None,
        Some(path) => {
            let loaded = MasterKeys::load(path).map_err(usage)?;
            let masters = Arc::new(loaded);
            tasks.spawn(Arc::clone(&masters).watch(closing.clone()));
            Some(masters)
        }
    };
    let jwt = match &security.jwt {
        None => None,
        Some(issuer) => {
            let verifier = JwtVerifier::new(issuer, Arc::clone(metrics)).map_err(usage)?;
            let verifier = Arc::new(verifier);
            tasks.spawn(Arc::clone(&verifier).run(closing.clone()));
            Some(verifier)
        }
    };
    Ok(Arc::new(Guards {
        access: Access::new(settings.auth, jwt, Arc::clone(metrics)),
        limits: Limits::new(security, Arc::clone(metrics)),
        keys: DataKeys::new(masters),
        schemas: Schemas::default(),
    }))
}

/// Tokens and secrets travel over these listeners.
pub(super) fn warn_of_clear_text(settings: &Settings) {
    if !settings.auth {
        return;
    }
    let security = &settings.security;
    let listeners = settings.listeners();
    let far = |flag: &str| {
        listeners.iter().any(|(known, address)| *known == flag && !address.ip().is_loopback())
    };
    if security.tls.is_none() && (far("--http-addr") || far("--grpc-addr")) {
        tracing::warn!(
            "tokens and secrets travel in clear text beyond this machine; give --tls-cert and --tls-key, or let \
             something in front of this node speak TLS"
        );
    }
    if security.raft_tls.is_none() && far("--raft-addr") {
        tracing::warn!(
            "whoever reaches --raft-addr can pass for a node; give --raft-tls-cert, --raft-tls-key and --raft-tls-ca, or \
             let only the nodes reach it"
        );
    }
}

fn usage(error: impl std::fmt::Display) -> StartError {
    StartError::Usage(error.to_string())
}
