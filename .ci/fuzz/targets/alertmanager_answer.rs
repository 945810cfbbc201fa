//! An answer of Alertmanager: see `llm_config_cli::fuzzing::alertmanager_answer`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| llm_config_cli::fuzzing::alertmanager_answer(data));
