//! Backup files: see `llm_config_archive::fuzzing::backup_file`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| llm_config_archive::fuzzing::backup_file(data));
