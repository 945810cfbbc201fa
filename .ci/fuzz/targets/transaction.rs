//! Documents of `llm-config txn`: see `llm_config_cli::fuzzing::transaction`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| llm_config_cli::fuzzing::transaction(data));
