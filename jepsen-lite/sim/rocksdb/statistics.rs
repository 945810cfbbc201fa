//! What is counted of the cache; nothing, here.

/// Names of counters.
#[derive(Debug, Clone, Copy)]
pub enum Ticker {
    /// Blocks that were in the cache.
    BlockCacheHit,
    /// Blocks that were not.
    BlockCacheMiss,
    /// Blocks that came into it.
    BlockCacheAdd,
    /// Their bytes.
    BlockCacheBytesWrite,
}
