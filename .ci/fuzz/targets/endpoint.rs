//! Addresses of nodes, as the SDK reads them: see `llm_config_client::fuzzing::endpoint`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| llm_config_client::fuzzing::endpoint(data));
