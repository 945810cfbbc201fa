//! The SDK's examples against three real processes: each checks what it claims, and says so by its exit code.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Cluster, finish};

/// They lie beside the server: `cargo test --workspace` and `make test` build both.
fn example(name: &str) -> PathBuf {
    let program = Path::new(crate::support::BINARY).with_file_name("examples").join(name);
    let make = "cargo build -p llm-config-client --examples";
    assert!(program.exists(), "{} is missing: {make}", program.display());
    program
}

#[test]
fn every_example_of_the_sdk_does_what_it_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../client/examples");
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .filter_map(|file| Some(file.unwrap().path().file_stem()?.to_str()?.to_owned()))
        .collect();
    names.sort();
    assert!(names.len() >= 5, "{names:?}");
    let cluster = Cluster::started(3);
    let endpoints: Vec<String> =
        cluster.nodes.iter().map(|node| node.ports.grpc.to_string()).collect();
    // Twice: what one leaves behind must not be in the way of the next.
    for name in names.iter().chain(&names) {
        let mut command = Command::new(example(name));
        command.arg(format!("examples/{name}")).env_remove("LLM_CONFIG_TOKEN");
        let (code, words, errors) =
            finish(command.env("LLM_CONFIG_ENDPOINTS", endpoints.join(",")));
        assert_eq!(code, Some(0), "{name}: {words}{errors}");
    }
}
