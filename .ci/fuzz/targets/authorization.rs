//! The header `Authorization`: see `llm_config_server::fuzzing::authorization`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| llm_config_server::fuzzing::authorization(data));
