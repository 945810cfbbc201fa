//! How the edge learns what was applied.

use llm_config_domain::{Change, Reader};

/// Told of every change, in log order, after it is in storage and before its writer gets an answer.
///
/// Called on the thread that applies: it must not block.
pub trait Observer: Send + Sync + 'static {
    /// One command changed something; all its changes share the revision.
    fn applied(&self, revision: u64, changes: &[Change]);

    /// Tokens, roles, bans or keys may have changed, as `state` shows; told before anything else of the same batch. Also
    /// told when a snapshot has replaced the state.
    fn rules(&self, state: &dyn Reader);

    /// A snapshot replaced the state: whatever was derived from it is void.
    fn reset(&self, revision: u64);
}
