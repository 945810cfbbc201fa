//! What a node refuses with, as the SDK reads it: see `llm_config_client::fuzzing::refusal`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| llm_config_client::fuzzing::refusal(data));
