//! The machine that a node runs on: its files, what may block, its disk space, its wall clock and its wire.
//!
//! Everything else of this crate takes these from here, so that a simulation can put its own in their place. A program
//! gets those of the system, at no cost.

#[cfg(not(feature = "simulation"))]
mod real;
#[cfg(feature = "simulation")]
pub(crate) mod simulated;

#[cfg(not(feature = "simulation"))]
pub use real::Listener;
#[cfg(not(feature = "simulation"))]
pub(crate) use real::*;
#[cfg(feature = "simulation")]
pub use simulated::Listener;
#[cfg(feature = "simulation")]
pub(crate) use simulated::*;
