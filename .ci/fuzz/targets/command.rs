//! Commands, as they are proposed and logged: see `llm_config_domain::fuzzing::command`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| llm_config_domain::fuzzing::command(data));
