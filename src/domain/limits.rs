//! Every bound of the state machine, named with its unit.
//!
//! All nodes must agree on these: they are part of what a command does. Changing one changes the replicated
//! format, so it belongs into a release note.

/// Largest value, in bytes of compact JSON.
pub const VALUE_BYTES_MAX: usize = 1 << 20;
/// Deepest nesting of arrays and objects in a value.
pub const VALUE_DEPTH_MAX: usize = 64;
/// Longest namespace.
pub const NAMESPACE_BYTES_MAX: usize = 256;
/// Longest key.
pub const KEY_BYTES_MAX: usize = 512;
/// Longest idempotency key.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 64;
/// Longest description of an entry.
pub const DESCRIPTION_BYTES_MAX: usize = 4096;
/// Longest comment of a change.
pub const COMMENT_BYTES_MAX: usize = 4096;
/// Most tags on an entry.
pub const TAGS_MAX: usize = 32;
/// Longest tag.
pub const TAG_BYTES_MAX: usize = 128;
/// Longest name of who makes a change.
pub const ACTOR_BYTES_MAX: usize = 256;
/// Most comparisons in a transaction.
pub const TXN_COMPARES_MAX: usize = 10_000;
/// Most operations in each branch of a transaction: a whole file of entries may change together.
pub const TXN_OPS_MAX: usize = 10_000;
/// Most bytes of values a transaction may answer with (its `get` operations could otherwise add up to 128 MiB).
pub const TXN_RESULT_BYTES_MAX: usize = 8 << 20;
/// Largest encoded command.
pub const COMMAND_BYTES_MAX: usize = 4 << 20;
/// Longest cluster id, node incarnation, address or version a node registers with.
pub const NODE_TEXT_BYTES_MAX: usize = 512;
/// Most nodes ever known, removed ones included (ids are never reused).
pub const NODES_MAX: usize = 4096;

/// Items on a page when the caller names no limit.
pub const PAGE_LIMIT_DEFAULT: usize = 100;
/// Most items on a page.
pub const PAGE_LIMIT_MAX: usize = 1000;

/// Versions shown and kept per entry, when founding names no other number.
pub const HISTORY_LIMIT_DEFAULT: u64 = 100;
/// Most versions per entry that founding may ask for.
pub const HISTORY_LIMIT_MAX: u64 = 10_000;

/// Most changes in the change log, from which watches resume.
pub const CHANGE_LOG_ENTRIES_MAX: u64 = 100_000;
/// Most bytes of version records the change log keeps from being forgotten.
pub const CHANGE_LOG_BYTES_MAX: u64 = 256 << 20;
/// Bytes of changes after which a page of the change log ends (always with a whole revision).
pub const CHANGES_PAGE_BYTES: usize = 8 << 20;

/// How long an idempotency key is remembered, in milliseconds of log time.
pub const IDEMPOTENCY_WINDOW_MS: u64 = 600_000;
/// Most idempotency keys remembered at once.
pub const IDEMPOTENCY_ENTRIES_MAX: u64 = 2_000_000;
/// Records that one command may evict from each bounded table, beyond as many as it adds.
pub const EVICTIONS_PER_COMMAND_MAX: usize = 64;

/// Most entries in a resolved namespace.
pub const RESOLVE_ENTRIES_MAX: usize = 100_000;
/// Most bytes of keys and values in a resolved namespace.
pub const RESOLVE_BYTES_MAX: usize = 64 << 20;

/// Largest schema, in bytes of compact JSON.
pub const SCHEMA_BYTES_MAX: usize = 64 << 10;
/// Most schemas.
pub const SCHEMAS_MAX: u64 = 10_000;
/// Most schemas that one command names as those its values were checked by.
pub const SCHEMAS_CHECKED_MAX: usize = 2 * TXN_OPS_MAX;

/// Bytes that encryption may add to a secret.
pub const SEAL_OVERHEAD_BYTES_MAX: usize = 256;
/// Longest wrapped data key, and longest name of a master key.
pub const WRAPPED_KEY_BYTES_MAX: usize = 512;
/// Most data keys.
pub const DATA_KEYS_MAX: u64 = 65_536;
/// Most versions that one command puts under another key.
pub const RESEALS_PER_COMMAND_MAX: usize = 64;

/// Most tokens; expired ones give way.
pub const TOKENS_MAX: u64 = 10_000;
/// Longest id of a token, and longest beginning of its text that is kept.
pub const TOKEN_ID_BYTES_MAX: usize = 64;
/// Longest name of a token: it is the actor of what is done with it.
pub const TOKEN_NAME_BYTES_MAX: usize = 128;
/// Longest name in a client certificate that a token is bound to.
pub const CERTIFICATE_NAME_BYTES_MAX: usize = 256;
/// Most roles of a principal.
pub const PRINCIPAL_ROLES_MAX: usize = 64;
/// Most roles beside those that are built in.
pub const ROLES_MAX: u64 = 1_000;
/// Longest name of a role.
pub const ROLE_NAME_BYTES_MAX: usize = 64;
/// Most grants of a role.
pub const ROLE_GRANTS_MAX: usize = 32;
/// Most namespaces in a scope.
pub const SCOPE_NAMESPACES_MAX: usize = 64;

/// Most addresses that are banned, or were and count for the length of the next ban.
pub const BANS_MAX: u64 = 10_000;
/// How long a ban that is over makes the next one longer, in milliseconds.
pub const BAN_MEMORY_MS: u64 = 24 * 3_600_000;
/// Longest network address.
pub const SOURCE_BYTES_MAX: usize = 64;

/// Longest request id in an audit record.
pub const AUDIT_REQUEST_ID_BYTES_MAX: usize = 128;
/// Longest remark in an audit record.
pub const AUDIT_DETAIL_BYTES_MAX: usize = 1024;
/// Most entries that an audit record names; of a longer transaction, the first ones and the count.
pub const AUDIT_TARGETS_MAX: usize = 128;
/// Most events that one command records.
pub const AUDIT_EVENTS_PER_COMMAND_MAX: usize = 256;
/// How long audit records stay when nothing else was set, in milliseconds: 400 days.
pub const AUDIT_AGE_MS_DEFAULT: u64 = 400 * 24 * 3_600_000;
/// Bytes of audit records that stay when nothing else was set.
pub const AUDIT_BYTES_DEFAULT: u64 = 512 << 20;
/// Fewest bytes that may be set.
pub const AUDIT_BYTES_MIN: u64 = 1 << 20;
/// Shortest age that may be set, in milliseconds: one hour.
pub const AUDIT_AGE_MS_MIN: u64 = 3_600_000;
/// Most records that one page of the audit log looks at.
pub const AUDIT_SCAN_MAX: usize = 20_000;
