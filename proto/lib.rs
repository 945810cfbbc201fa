//! The wire contract, generated from the `.proto` files beside this one, and nothing else.
//!
//! `llmconfig.v1` is the public API. `llmconfig.internal.v1` is what nodes of one cluster say to each other.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    reason = "the modules are generated; the .proto files carry the documentation"
)]

/// The public API.
pub mod v1 {
    tonic::include_proto!("llmconfig.v1");

    /// Without the text of the token.
    impl std::fmt::Debug for CreateTokenResponse {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_struct("CreateTokenResponse").field("info", &self.info).finish_non_exhaustive()
        }
    }
}

/// Node-to-node messages.
pub mod internal {
    tonic::include_proto!("llmconfig.internal.v1");
}

/// The encoded `FileDescriptorSet` of every service, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
