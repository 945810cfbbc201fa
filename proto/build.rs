//! Generates the wire contract with protox, a Protocol Buffers compiler in Rust: no `protoc` to install.

use std::path::PathBuf;

const FILES: [&str; 6] = [
    "llmconfig/v1/config.proto",
    "llmconfig/v1/cluster.proto",
    "llmconfig/v1/backup.proto",
    "llmconfig/v1/security.proto",
    "llmconfig/v1/schema.proto",
    "llmconfig/internal/v1/raft.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for file in FILES {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(FILES, ["."])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), prost::Message::encode_to_vec(&descriptors))?;
    tonic_prost_build::configure()
        .bytes(".")
        // It holds what nobody may read in a log.
        .skip_debug([".llmconfig.v1.CreateTokenResponse"])
        .compile_fds(descriptors)?;
    Ok(())
}
