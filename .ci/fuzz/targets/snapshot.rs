//! Snapshots in arrival: see `llm_config_replica::fuzzing::snapshot`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| llm_config_replica::fuzzing::snapshot(data));
