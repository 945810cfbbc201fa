//! Lets a call in before its message is read: first there must be room, then the caller must be one that may come in.
//!
//! A message in arrival takes room like one that has arrived. The first five bytes of a gRPC message say how long it is.
//! What does not fit is refused on them alone; what fits is read here, within the time of a request. The room is given
//! back when the answer has been taken by the connection.

use std::net::{IpAddr, Ipv4Addr};

use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http_body_util::BodyExt;
use tokio::time::timeout_at;

use super::answer::RequestId;
use super::{REQUEST_BYTES_MAX, error};
use crate::admission::Permit;
use crate::error::ServiceError;
use crate::holding::hold;
use crate::peer::{ClientCertificate, PeerAddress};
use crate::service::{Entered, Knock, Service, TurnedAway};

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
    let (mut parts, body) = request.into_parts();
    let mut permit = match service.admission().enter(0) {
        Ok(permit) => permit,
        Err(refusal) => return turn_away(TurnedAway { error: refusal, left: None }),
    };
    // Before the message: who may not come in makes this node hold nothing.
    let Entered { caller, left } = match knock(&service, &parts).await {
        Ok(entered) => entered,
        Err(refusal) => return turn_away(refusal),
    };
    let deadline = service.deadline(None);
    let read = match timeout_at(deadline.into(), read(&mut permit, body)).await {
        Ok(read) => read,
        Err(_) => Err(ServiceError::invalid("message", "did not arrive in time")),
    };
    let message = match read {
        Ok(message) => message,
        Err(error) => return turn_away(TurnedAway { error, left }),
    };
    parts.extensions.insert(caller);
    let mut response = next.run(Request::from_parts(parts, Body::from(message))).await;
    if let Some(left) = left {
        left.write(response.headers_mut());
    }
    if streams {
        return response;
    }
    hold(response, permit, |permit, bytes| permit.charge(bytes))
}

async fn knock(service: &Service, parts: &Parts) -> Result<Entered, TurnedAway> {
    let peer = parts.extensions.get::<PeerAddress>();
    let request_id = parts.extensions.get::<RequestId>();
    let knock = Knock {
        // Without a connection there is only this process.
        peer: peer.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |peer| peer.0.ip()),
        headers: &parts.headers,
        certificate: parts.extensions.get::<ClientCertificate>(),
        request_id: request_id.map_or("", |id| &id.0),
        what: parts.uri.path(),
    };
    service.enter(knock).await
}

fn turn_away(refusal: TurnedAway) -> Response {
    let mut response = error::status(&refusal.error, None).into_http();
    if let Some(left) = refusal.left {
        left.write(response.headers_mut());
    }
    response
}

async fn read(permit: &mut Permit, mut body: Body) -> Result<Bytes, ServiceError> {
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
    Ok(message.freeze())
}
