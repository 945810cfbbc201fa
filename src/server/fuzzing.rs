//! Bodies of the fuzz targets that belong to no gateway, and the way to those that do.
//!
//! The targets are in `.ci/fuzz`. What a gateway reads is in its own `fuzzing`, beside what it calls.

pub use crate::access::fuzzing::authorization;
pub use crate::grpc::fuzzing::{grpc_messages, grpc_timeout};
pub use crate::http::fuzzing::{http_body, http_headers, http_path, http_query};
pub use crate::join::fuzzing::join_answer;
pub use crate::jwt::fuzzing::jwt;
pub use crate::limits::fuzzing::forwarded_for;
pub use crate::schemas::fuzzing::schema;
pub use crate::service::fuzzing::cursor;
pub use crate::settings::fuzzing::config_file;
