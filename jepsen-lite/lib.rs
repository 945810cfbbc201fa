//! Breaks a real cluster and proves what it answered: the record of what clients asked and heard, and the checkers of it.

pub mod check;
pub mod history;
pub mod judge;
pub mod shrink;
pub mod timeline;
