//! The checkers, checked: histories with known verdicts, and random ones of a store that keeps its promises or breaks one.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test stops at what it did not expect"
)]

mod files;
mod guarded;
mod hand;
mod random;
mod security;
mod sim;
mod small;
