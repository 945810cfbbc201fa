//! A log: see `llm_config_cli::fuzzing::log_lines`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| llm_config_cli::fuzzing::log_lines(data));
