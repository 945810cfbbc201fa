//! Load on a cluster, measured from both sides: what clients get and what it costs the servers; and the comparison with
//! etcd, which runs both under the same load.
//!
//! `drive` makes one run: clients (`client`) that send in a closed or an open loop (`pace`) over the callers of a `system`,
//! values that they write (`values`), those who watch (`delivery`), latencies (`histogram`), and the servers' cost
//! (`servers`). `cluster` starts servers (`process`), among them empty ones (`floor`); `rolling` restarts them under load.
//! `compare` has the rows, the rounds and the ratios; `curves` the series along axes, which `draw` makes pictures of. `report`
//! prints.

mod client;
pub mod cluster;
pub mod compare;
pub mod curves;
pub mod delivery;
pub mod draw;
pub mod drive;
pub mod floor;
pub mod histogram;
pub mod pace;
pub mod process;
pub mod report;
pub mod rolling;
pub mod servers;
pub mod system;
pub mod values;
mod wire;
