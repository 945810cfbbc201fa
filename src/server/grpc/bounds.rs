//! Lets a call in before its message is read: a message in arrival takes room like one that has arrived.
//!
//! The first five bytes of a gRPC message say how long it is. What does not fit is refused on them alone; what fits is
//! read here, within the time of a request. The room is given back when the answer has been taken by the connection.

use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use tokio::time::timeout_at;

use super::{REQUEST_BYTES_MAX, error};
use crate::admission::Permit;
use crate::error::ServiceError;
use crate::holding::hold;
use crate::service::Service;

/// Compression flag and length of a message.
const PREFIX_BYTES: usize = 5;
/// Health and reflection are always answered; their messages are a few bytes, and what is above is refused by the codec.
const BOUNDED: &str = "/llmconfig.v1.";
/// Its answer does not end, so it is bounded elsewhere.
const WATCH: &str = "/llmconfig.v1.ConfigService/Watch";

pub(super) async fn enter(
    State(service): State<Service>,
    request: Request,
    next: Next,
) -> Response {
    if !request.uri().path().starts_with(BOUNDED) {
        return next.run(request).await;
    }
    let streams = request.uri().path() == WATCH;
    let (parts, body) = request.into_parts();
    let deadline = service.context(None).deadline;
    let read = match timeout_at(deadline.into(), read(&service, body)).await {
        Ok(read) => read,
        Err(_) => Err(ServiceError::invalid("message", "did not arrive in time")),
    };
    let (permit, message) = match read {
        Ok(read) => read,
        Err(refusal) => return error::status(&refusal, None).into_http(),
    };
    let response = next.run(Request::from_parts(parts, Body::from(message))).await;
    if streams {
        return response;
    }
    hold(response, permit, |permit, bytes| permit.charge(bytes))
}

async fn read(service: &Service, mut body: Body) -> Result<(Permit, Bytes), ServiceError> {
    let mut permit = service.admission().enter(0)?;
    let mut message = BytesMut::new();
    let mut wanted = PREFIX_BYTES;
    while message.len() < wanted && !body.is_end_stream() {
        let Some(frame) = body.frame().await else { break };
        let frame =
            frame.map_err(|_| ServiceError::invalid("message", "broke off before its end"))?;
        let Ok(data) = frame.into_data() else { continue };
        message.extend_from_slice(&data);
        if wanted == PREFIX_BYTES
            && let Some(&[_, a, b, c, d]) = message.first_chunk()
        {
            let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
            if length > REQUEST_BYTES_MAX {
                // The codec refuses it on these bytes.
                break;
            }
            permit.grow(length)?;
            wanted += length;
        }
    }
    Ok((permit, message.freeze()))
}
