//! The header `X-Forwarded-For`: see `llm_config_server::fuzzing::forwarded_for`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| llm_config_server::fuzzing::forwarded_for(data));
