//! Answers to commands that were passed on to the leader: see `llm_config_domain::fuzzing::applied`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| llm_config_domain::fuzzing::applied(data));
