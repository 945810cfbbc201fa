//! What the nodes of `--join` answer: see `llm_config_server::fuzzing::join_answer`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| llm_config_server::fuzzing::join_answer(data));
