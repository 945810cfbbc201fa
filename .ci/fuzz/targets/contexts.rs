//! The file of contexts of `llm-config`: see `llm_config_cli::fuzzing::contexts`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| llm_config_cli::fuzzing::contexts(data));
