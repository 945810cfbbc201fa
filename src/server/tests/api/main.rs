//! What a node answers over HTTP and gRPC, with the node inside the test's own process.
//!
//! One program for all of it: each test program links the whole server, which takes longer than most of its tests.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says so by failing"
)]

mod access_matrix;
mod grpc_api;
mod grpc_export;
mod grpc_security;
mod grpc_support;
mod http_access;
mod http_backup;
mod http_browser;
mod http_cluster;
mod http_contract;
mod http_inputs;
mod http_openapi;
mod http_schemas;
mod http_support;
mod http_watch;
mod metrics;
#[path = "../support/mod.rs"]
mod support;
