//! The SDK's cache file: see `llm_config_client::fuzzing::cache_file`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| llm_config_client::fuzzing::cache_file(data));
