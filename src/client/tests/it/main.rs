//! The laws of the SDK, held against nodes that answer as scripted. One program, so that it is linked once.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

mod calls;
mod fake;
mod live;
mod members;
mod network;
mod token;
mod typed;
mod watch;
