//! The edge of a node: HTTP and gRPC in, the replica behind, health and metrics beside.
//!
//! Dependencies inside the crate point one way: `http, grpc → service → {admission, backups, watch} → error`.
//! A gateway decides nothing: parsing, limits, consistency and errors are the service's, so both doors answer alike.

pub mod access;
mod address;
pub mod admission;
pub mod backups;
pub mod dev;
pub mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod grpc;
pub mod health;
mod hex;
pub mod holding;
pub mod http;
mod join;
pub mod jwt;
pub mod limits;
pub mod logging;
pub mod metrics;
pub mod node;
pub mod offline;
mod outbound;
pub mod peer;
mod private_file;
#[cfg(test)]
#[path = "../../.ci/fuzz/replay.rs"]
mod replay;
mod request_id;
pub mod schemas;
pub mod secrets;
pub mod service;
pub mod settings;
pub mod watch;
