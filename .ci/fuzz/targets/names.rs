//! Namespaces, keys and environments: see `llm_config_domain::fuzzing::names`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| llm_config_domain::fuzzing::names(data));
