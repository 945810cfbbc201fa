//! What a leader sends to be appended: see `llm_config_replica::fuzzing::append`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| llm_config_replica::fuzzing::append(data));
