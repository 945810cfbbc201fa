//! Lets a call in before its message is read: first there must be room, then the caller must be one that may come in.
//!
//! A message in arrival takes room like one that has arrived. The first five bytes of a gRPC message say how long it is.
//! What does not fit is refused on them alone; what fits is read here, within the time of a request. The room is given
//! back when the answer has been taken by the connection.

use std::net::{IpAddr, Ipv4Addr};

use bytes::{Bytes, BytesMut};
use http::Response;
use http::request::Parts;
use http_body::Body;
use http_body_util::BodyExt as _;
use tokio::time::timeout_at;
use tonic::body::Body as TonicBody;

use super::{REQUEST_BYTES_MAX, error};
use crate::access::Caller;
use crate::admission::Permit;
use crate::error::ServiceError;
use crate::limits::Decision;
use crate::peer::{ClientCertificate, PeerAddress};
use crate::request_id::RequestId;
use crate::service::{Entered, Knock, Service, TurnedAway};

/// Compression flag and length of a message.
const PREFIX_BYTES: usize = 5;
/// Health and reflection are always answered; their messages are a few bytes, and what is above is refused by the codec.
const BOUNDED: &str = "/llmconfig.v1.";
/// Its answer does not end, so it is bounded elsewhere.
const WATCH: &str = "/llmconfig.v1.ConfigService/Watch";

/// A call that was let in.
pub(super) struct Let {
    pub(super) caller: Caller,
    /// The message, with its prefix.
    pub(super) message: Bytes,
    pub(super) permit: Permit,
    pub(super) left: Option<Decision>,
}

/// Whether calls of this path are counted and let in one by one.
pub(super) fn bounded(path: &str) -> bool {
    path.starts_with(BOUNDED)
}

/// Whether the answer to this path does not end.
pub(super) fn streams(path: &str) -> bool {
    path == WATCH
}

pub(super) async fn enter<B>(
    service: &Service,
    parts: &Parts,
    body: B,
    id: &RequestId,
) -> Result<Let, TurnedAway>
where
    B: Body<Data = Bytes> + Unpin,
{
    let refuse = |left| move |error| TurnedAway { error, left };
    let mut permit = service.admission().enter(0).map_err(refuse(None))?;
    // Before the message: who may not come in makes this node hold nothing.
    let Entered { caller, left } = knock(service, parts, id).await?;
    let deadline = service.deadline(None);
    let read = match timeout_at(deadline.into(), read(&mut permit, body)).await {
        Ok(read) => read,
        Err(_) => Err(ServiceError::invalid("message", "did not arrive in time")),
    };
    let message = read.map_err(refuse(left))?;
    Ok(Let { caller, message, permit, left })
}

async fn knock(service: &Service, parts: &Parts, id: &RequestId) -> Result<Entered, TurnedAway> {
    let peer = parts.extensions.get::<PeerAddress>();
    let knock = Knock {
        // Without a connection there is only this process.
        peer: peer.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |peer| peer.0.ip()),
        headers: &parts.headers,
        certificate: parts.extensions.get::<ClientCertificate>(),
        request_id: id.text(),
        verb: "",
        path: parts.uri.path(),
    };
    service.enter(knock).await
}

pub(super) fn turn_away(refusal: TurnedAway) -> Response<TonicBody> {
    let mut response = error::status(&refusal.error, None).into_http();
    if let Some(left) = refusal.left {
        left.write(response.headers_mut());
    }
    response
}

async fn read<B>(permit: &mut Permit, mut body: B) -> Result<Bytes, ServiceError>
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut message = Message::default();
    let mut wanted = PREFIX_BYTES;
    while message.len() < wanted && !body.is_end_stream() {
        let Some(frame) = body.frame().await else { break };
        let frame =
            frame.map_err(|_| ServiceError::invalid("message", "broke off before its end"))?;
        let Ok(data) = frame.into_data() else { continue };
        message.push(data);
        if wanted == PREFIX_BYTES
            && let Some(&[_, a, b, c, d]) = message.as_slice().first_chunk()
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
    Ok(message.into_bytes())
}

/// A message in arrival. One that comes in a single piece, as most do, is not copied.
enum Message {
    Whole(Bytes),
    Pieces(BytesMut),
}

impl Default for Message {
    fn default() -> Self {
        Self::Whole(Bytes::new())
    }
}

impl Message {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Whole(bytes) => bytes,
            Self::Pieces(bytes) => bytes,
        }
    }

    fn len(&self) -> usize {
        self.as_slice().len()
    }

    fn push(&mut self, data: Bytes) {
        match self {
            Self::Whole(first) if first.is_empty() => *first = data,
            Self::Whole(first) => {
                let mut pieces = BytesMut::with_capacity(first.len() + data.len());
                pieces.extend_from_slice(first);
                pieces.extend_from_slice(&data);
                *self = Self::Pieces(pieces);
            }
            Self::Pieces(pieces) => pieces.extend_from_slice(&data),
        }
    }

    fn into_bytes(self) -> Bytes {
        match self {
            Self::Whole(bytes) => bytes,
            Self::Pieces(pieces) => pieces.freeze(),
        }
    }
}
