//! Generates etcd's wire contract, as far as the load needs it, and that of the empty server.

const FILES: [&str; 2] = ["proto/etcd.proto", "proto/floor.proto"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for file in FILES {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(FILES, ["."])?;
    // As the stubs of the other system are generated, so that both cost the load the same.
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
