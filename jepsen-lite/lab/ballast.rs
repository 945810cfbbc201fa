//! What makes snapshots large, so that one takes its time: stored beside what clients do.

use std::net::SocketAddr;

use jepsen_lite::history::BALLAST;

use super::control;

const VALUES: u64 = 6;
const VALUE_BYTES: usize = 512 * 1024;
/// All of it.
pub const BYTES: u64 = VALUES * VALUE_BYTES as u64;

/// Stores it at a node. `chance` is noise, so that it stays as large as it is.
///
/// # Errors
/// When the cluster does not take it.
pub fn load(node: SocketAddr, mut chance: impl FnMut() -> u64) -> anyhow::Result<()> {
    for number in 0..VALUES {
        let mut value = String::with_capacity(VALUE_BYTES);
        while value.len() < VALUE_BYTES {
            value += &format!("{:016x}", chance());
        }
        let path = format!("/api/v1/configs/{BALLAST}/b{number}");
        let body = serde_json::json!({ "value": value, "env": "production" });
        control::change(node, "PUT", &path, Some(&body))?;
    }
    Ok(())
}
