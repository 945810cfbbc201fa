//! Files of `llm-config import`: see `llm_config_cli::fuzzing::import`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| llm_config_cli::fuzzing::import(data));
