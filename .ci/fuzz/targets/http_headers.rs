//! Headers that change what a call does: see `llm_config_server::fuzzing::http_headers`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| llm_config_server::fuzzing::http_headers(data));
