//! Tokens of an issuer, and its key set: see `llm_config_server::fuzzing::jwt`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| llm_config_server::fuzzing::jwt(data));
