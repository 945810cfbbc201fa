//! Client of the LLM Config Manager: finds the leader, retries safely, reads without going back in time, watches
//! without gap or duplicate.
//!
//! An application gets its configuration in three lines, and has it from then on:
//!
//! ```no_run
//! use llm_config_client::{Client, Environment};
//!
//! #[derive(serde::Deserialize)]
//! struct Settings {
//!     model: String,
//!     temperature: f64,
//! }
//!
//! # async fn example() -> Result<(), llm_config_client::Error> {
//! let client = Client::builder().endpoints(["127.0.0.1:50051", "127.0.0.1:50052"]).build()?;
//! let app = client.namespace("shop/assistant").environment(Environment::Production);
//! let config = app.live::<Settings>().cache_file("/var/cache/assistant/config").await?;
//! println!("{} at {}", config.get().model, config.get().temperature);
//! # Ok(())
//! # }
//! ```
//!
//! [`Config`] follows every change, keeps the last good value when a new one does not fit, and starts from the file when no
//! node answers. [`Namespace`] has the typed calls: get, set, delete, list, history, rollback, resolve and watch;
//! [`Client::transaction`] changes several entries at once. Below them lie the calls of the API itself, message by message
//! ([`v1`]), as methods of [`Client`]; values are JSON text there. `docs/sdk-rust.md` is the guide.
//!
//! What each call promises:
//!
//! | call | promise |
//! |---|---|
//! | write | one idempotency key for all its attempts: it happens at most once. [`Error`] tells "refused" and "not sent" from "outcome unknown" |
//! | read | spread over the nodes that answer; with [`Options::session`] never older than what this client has seen or written |
//! | change of the members | safe to send again: what is done is not done twice, what is half done is completed |
//! | live configuration | the last good values, whatever happens to the nodes; what is wrong is told, by [`Config::status`] |
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
//! The nodes are found from any one that answers; leadership and membership are followed. Nothing runs in the background
//! but live configurations, each until its last handle is dropped.
//!
//! 98 crates, this one included, none of them a storage engine or a server:
//! `cargo tree -p llm-config-client -e normal --prefix none | sed 's/ (\*)//' | sort -u | wc -l`.
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
pub use error::{Error, Rejection, Violation};
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
