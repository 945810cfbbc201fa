//! An answer of Prometheus: see `llm_config_cli::fuzzing::prometheus_answer`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| llm_config_cli::fuzzing::prometheus_answer(data));
