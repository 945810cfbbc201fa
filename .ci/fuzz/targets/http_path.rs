//! Names and numbers in the path of a request: see `llm_config_server::fuzzing::http_path`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| llm_config_server::fuzzing::http_path(data));
