//! Client of the LLM Config Manager: an application gets its configuration as a struct of its own, which follows the store,
//! and keeps working when nodes, or all of them, go away.
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
//! let config = app.live::<Settings>().await?;
//!
//! println!("{} at {}", config.get().model, config.get().temperature);
//! # Ok(())
//! # }
//! ```
//!
//! There are two layers. [`Namespace`] has the typed calls: [`get`](Namespace::get), [`set`](Namespace::set),
//! [`list`](Namespace::list), [`history`](Namespace::history), [`rollback`](Namespace::rollback),
//! [`resolve`](Namespace::resolve), [`watch`](Namespace::watch), [`live`](Namespace::live), and beside it
//! [`Client::transaction`]. [`Client`] has all calls of the public API, message by message ([`v1`]); values are JSON text
//! there. The guide is `docs/sdk-rust.md`, and programs to run are in `src/client/examples`.
//!
//! What each promises:
//!
//! | call | promise |
//! |---|---|
//! | write | one idempotency key for all its attempts: it happens at most once. [`Error`] tells "refused" and "not sent" from "outcome unknown" |
//! | read | spread over the members that answer; with [`Options::session`] never older than what this client has seen or written |
//! | change of the members | safe to send again: what is done is not done twice, what is half done is completed |
//! | watch | every change once, in order, across reconnects, from [`v1::WatchRequest::from_revision`] on |
//! | live configuration | the last good values, whatever happens; what keeps them from being the newest is told ([`Config::status`]) |
//! | cache file | served only when no node answers, only whole, only for the same namespace and environment; revealed secrets only encrypted |
//! | members | one endpoint that answers is enough; removed members are left alone, given endpoints are never forgotten |
//! | the end | nothing runs on in the background when the last handle is dropped |
//!
//! With `https://` endpoints, or with [`Options::tls`], every connection is TLS, also those to addresses that were learned
//! from answers.
//!
//! [`Options::token`] and [`Options::token_file`] say who this client is. A call that is refused as not authenticated is
//! made again when the file has another token by now; and once in the life of a token that no node has accepted yet,
//! because a new one may not be known everywhere. A right that is missing (`PERMISSION_DENIED`) is never tried again.
//!
//! Dropping the future of a call abandons the answer, not the effect: a dropped write may still happen.
//!
//! With `tracing`, each call is a span at the level debug, and leaders, members and live configurations that change are
//! events at info; tokens and values are in none of them, but a warning about a value that does not fit may quote it,
//! unless it is a secret.
//!
//! The crate brings 98 crates with it, itself included, none of them the server or a storage engine. They are counted by
//! `cargo tree -p llm-config-client -e normal --prefix none | sed 's/ (\*)$//' | sort -u | wc -l`.
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
