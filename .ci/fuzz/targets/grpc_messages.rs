//! gRPC messages on their way to the service: see `llm_config_server::fuzzing::grpc_messages`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| llm_config_server::fuzzing::grpc_messages(data));
