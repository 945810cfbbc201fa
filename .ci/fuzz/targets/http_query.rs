//! Query strings: see `llm_config_server::fuzzing::http_query`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| llm_config_server::fuzzing::http_query(data));
