//! Node-to-node traffic over gRPC.
//!
//! Three connections to each peer, so that a full append stream delays no heartbeat and a snapshot delays neither.

pub(crate) mod client;
pub(crate) mod passport;
pub(crate) mod receive;
pub(crate) mod secure;
pub(crate) mod send;
pub(crate) mod service;
