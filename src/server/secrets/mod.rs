//! Secrets at rest: what becomes of a plaintext before it is proposed, and how it comes back.
//!
//! A secret is sealed with the data key of its owner (a namespace), a data key is wrapped with a master key, and master keys
//! are in a file of each node (`--master-key-file`). So logs, snapshots and backups hold ciphertext only. All of it is
//! AES-256-GCM with random nonces, and each ciphertext says what it belongs to in what it authenticates, so that it cannot
//! be put elsewhere. Here are bytes and keys only: nothing of requests, rights, audit or replication.
//!
//! A sealed secret and a wrapped key are laid out alike: format (1 byte, 1), nonce (12), ciphertext, tag (16). What they
//! authenticate besides, with numbers in big endian and texts after their length in 8 bytes:
//!
//! - secret: `llm-config secret v1`, namespace, environment (1), key, version (8), version of the data key (4);
//! - data key: `llm-config data key v1`, owner, version (4), id of the master key (8).

mod digest;
mod envelope;
mod keyring;
mod master;
mod plaintext;
mod rotation;
mod seal;

pub use digest::{DIGEST_OWNER, keyed_digest};
pub use envelope::Fault;
pub use keyring::{DataKey, DataKeys, KeyError, WrappedKey, unwrap, wrap};
pub use master::{KEYS_MAX, MasterKey, MasterKeyError, MasterKeyId, MasterKeys, generate_file};
pub use plaintext::Plaintext;
pub use rotation::{Sealed, reseal};
pub use seal::{Place, SEALED_BYTES_MAX, SecretError, open, seal};
