//! The file of baselines: see `llm_config_cli::fuzzing::baseline_file`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| llm_config_cli::fuzzing::baseline_file(data));
