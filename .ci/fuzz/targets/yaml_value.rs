//! Values that `llm-config` writes and reads as YAML: see `llm_config_cli::fuzzing::yaml_value`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| llm_config_cli::fuzzing::yaml_value(data));
