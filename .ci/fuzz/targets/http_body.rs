//! JSON bodies: see `llm_config_server::fuzzing::http_body`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| llm_config_server::fuzzing::http_body(data));
