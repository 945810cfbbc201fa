//! Log entries, as they are sent and stored: see `llm_config_replica::fuzzing::log_entry`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| llm_config_replica::fuzzing::log_entry(data));
