//! The smaller messages between nodes: see `llm_config_replica::fuzzing::peer_messages`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| llm_config_replica::fuzzing::peer_messages(data));
