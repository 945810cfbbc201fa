//! Load on a cluster, measured from both sides: what clients get (`drive`, `histogram`) and what it costs the servers
//! (`servers`: CPU time from /proc, fsyncs from their metrics). `cluster` starts a cluster to measure, `rolling` restarts one under load,
//! `report` prints.
//!
//! The load is closed-loop: each client sends its next request when the last one is answered. So the rate is what the
//! cluster gives to that many waiting clients, and the latencies leave out the queue that a fixed arrival rate builds.

pub mod cluster;
pub mod drive;
pub mod histogram;
pub mod report;
pub mod rolling;
pub mod servers;
