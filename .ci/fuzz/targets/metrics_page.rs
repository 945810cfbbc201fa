//! A metrics page of a node: see `llm_config_cli::fuzzing::metrics_page`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| llm_config_cli::fuzzing::metrics_page(data));
