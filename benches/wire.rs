//! What goes over the wire beside the public API, generated from `proto/`.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    reason = "the modules are generated"
)]

/// etcd's v3 API, as far as it is needed.
pub mod etcd {
    tonic::include_proto!("etcdserverpb");
}

/// The empty server.
pub mod floor {
    tonic::include_proto!("llmconfig.bench");
}
