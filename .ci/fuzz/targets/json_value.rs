//! Values: see `llm_config_domain::fuzzing::json_value`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| llm_config_domain::fuzzing::json_value(data));
