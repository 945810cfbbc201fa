//! Client of the LLM Config Manager: finds the leader, retries safely, reads without going back in time, watches
//! without gap or duplicate.
//!
//! ```no_run
//! use llm_config_client::{Client, v1};
//!
//! # async fn example() -> Result<(), llm_config_client::Error> {
//! let client = Client::connect(["127.0.0.1:50051", "127.0.0.1:50052", "127.0.0.1:50053"])?;
//! client
//!     .set(v1::SetRequest {
//!         namespace: "chat/prod".into(),
//!         key: "temperature".into(),
//!         value: "0.2".into(),
//!         ..Default::default()
//!     })
//!     .await?;
//! let entry = client.get(v1::GetRequest {
//!     namespace: "chat/prod".into(),
//!     key: "temperature".into(),
//!     ..Default::default()
//! }).await?;
//! println!("version {}: {}", entry.version, String::from_utf8_lossy(&entry.value));
//!
//! let mut watch = client.watch(v1::WatchRequest { namespace: "chat/prod".into(), ..Default::default() });
//! while let Some(response) = watch.next().await {
//!     for event in response?.events {
//!         println!("{event:?}");
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Requests and answers are the generated messages of the public API ([`v1`]); values are JSON text.
//!
//! What each call promises:
//!
//! | call | promise |
//! |---|---|
//! | write | one idempotency key for all its attempts: it happens at most once. [`Error`] tells "refused" and "not sent" from "outcome unknown" |
//! | read | spread over the endpoints; with [`Options::session`] never older than what this client has seen or written |
//! | change of the members | safe to send again: what is done is not done twice, what is half done is completed |
//! | watch | every change once, in order, across reconnects, from [`v1::WatchRequest::from_revision`] on |
//!
//! With `https://` endpoints, or with [`Options::tls`], every connection is TLS, also those to leaders that were learned
//! from answers.
//!
//! [`Options::token`] and [`Options::token_file`] say who this client is. A call that is refused as not authenticated is
//! made again when the file has another token by now; and once in the life of a token that no node has accepted yet,
//! because a new one may not be known everywhere. A right that is missing (`PERMISSION_DENIED`) is never tried again.
//!
//! Dropping the future of a call abandons the answer, not the effect: a dropped write may still happen.
//!
//! Not done, on purpose: a local cache for when no node answers.
#![cfg_attr(not(test), warn(missing_docs))]

mod backup;
mod builder;
mod client;
mod discovery;
mod environment;
mod error;
mod export;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod live;
mod members;
mod namespace;
mod nodes;
mod options;
mod pages;
mod reads;
#[cfg(test)]
#[path = "../../.ci/fuzz/replay.rs"]
mod replay;
mod retry;
mod schemas;
mod security;
mod tls;
mod token;
mod transaction;
mod value;
mod watch;
mod writes;

pub use backup::Backup;
pub use builder::ClientBuilder;
pub use client::Client;
pub use environment::Environment;
pub use error::{Error, Rejection};
pub use export::Export;
pub use live::{Config, Live, LiveStatus, Problem, Snapshot, Source};
pub use llm_config_proto::v1;
pub use namespace::{Key, Namespace};
pub use options::Options;
pub use pages::{History, List, Pages};
pub use reads::{Get, Resolve, WatchBuilder};
pub use tls::TlsOptions;
pub use token::Token;
pub use transaction::{Compare, Operation, OperationResult, Transaction, TransactionOutcome};
pub use value::{Resolved, Versioned};
pub use watch::Watch;
pub use writes::{Delete, Rollback, Set, Written};
