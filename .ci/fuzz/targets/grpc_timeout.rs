//! The header `grpc-timeout`: see `llm_config_server::fuzzing::grpc_timeout`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| llm_config_server::fuzzing::grpc_timeout(data));
