//! Real processes of `llm-config-manager`: started, asked, killed and started again.
//!
//! One program for all of it: each test program links the whole server, which takes longer than most of its tests.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says so by failing"
)]

#[path = "../../../tls/tests/authority/mod.rs"]
mod authority;
mod backup;
mod bounds;
mod canary;
mod canary_scan;
mod cli_args;
mod cluster;
mod disk_full;
mod examples;
mod exit;
mod forms;
mod import;
mod members;
mod members_crash;
mod rolling;
mod sdk;
mod secrets;
mod seeded_bugs;
mod stored_forms;
#[path = "../support/mod.rs"]
mod support;
mod tls;
