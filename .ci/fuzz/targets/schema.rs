//! Schemas, and values that are checked by them: see `llm_config_server::fuzzing::schema`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| llm_config_server::fuzzing::schema(data));
