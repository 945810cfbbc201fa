//! HTTP/1.1: each caller has a connection of its own, kept open.

use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::net::TcpStream;

use super::{Reads, Status};
use crate::values::{NAMESPACE, key as name, stamp};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Of an event stream; one event is a value and little more.
const LINE_BYTES_MAX: usize = 4 << 20;

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Pages {
    /// Entries, by `/api/v1`.
    LlmConfig,
    /// The same requests of a server that answers each with nothing.
    Empty,
}

#[derive(Debug, Clone)]
pub(super) struct Link {
    address: String,
    pages: Pages,
}

impl Link {
    pub(super) fn new(address: &str, pages: Pages) -> Self {
        Self { address: address.to_owned(), pages }
    }

    pub(super) async fn caller(&self) -> anyhow::Result<Caller> {
        Ok(Caller { link: self.clone(), sender: self.connect().await? })
    }

    pub(super) async fn status(&self) -> anyhow::Result<Status> {
        #[derive(Deserialize)]
        struct Cluster {
            node_id: u64,
            leader_id: Option<u64>,
        }
        #[derive(Deserialize)]
        struct Health {
            version: String,
        }
        let mut caller = self.caller().await?;
        let cluster: Cluster = serde_json::from_slice(&caller.page("/api/v1/cluster").await?)?;
        let health: Health = serde_json::from_slice(&caller.page("/health").await?)?;
        Ok(Status { leads: cluster.leader_id == Some(cluster.node_id), version: health.version })
    }

    pub(super) async fn watch(&self) -> anyhow::Result<Watching> {
        let mut caller = self.caller().await?;
        let path = format!("/api/v1/watch?namespace={}", escaped(NAMESPACE));
        let answer = caller.send(Method::GET, &path, Bytes::new()).await?;
        anyhow::ensure!(answer.status().is_success(), "a watch is answered {}", answer.status());
        Ok(Watching { body: answer.into_body(), lines: Lines::default(), _caller: caller })
    }

    async fn connect(&self) -> anyhow::Result<SendRequest<Full<Bytes>>> {
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(&self.address))
            .await
            .with_context(|| format!("{} does not answer", self.address))?
            .with_context(|| format!("cannot connect to {}", self.address))?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Ends with the sender; what breaks it is what the sender's requests fail with.
        tokio::spawn(async move { drop(connection.await) });
        Ok(sender)
    }
}

#[derive(Debug)]
pub(super) struct Caller {
    link: Link,
    sender: SendRequest<Full<Bytes>>,
}

impl Caller {
    pub(super) async fn put(&mut self, key: usize, value: &Bytes) -> anyhow::Result<()> {
        let body = [b"{\"value\":", &value[..], b"}"].concat();
        let answer = self.send(Method::PUT, &path(key), body.into()).await?;
        whole(answer).await.map(drop)
    }

    pub(super) async fn get(&mut self, key: usize, reads: Reads) -> anyhow::Result<Bytes> {
        let consistency = match reads {
            Reads::Cached => "",
            Reads::Linearizable => "?consistency=linearizable",
        };
        let body = self.page(&format!("{}{consistency}", path(key))).await?;
        if let (true, Pages::LlmConfig) = (body.is_empty(), self.link.pages) {
            bail!("an answer without an entry");
        }
        Ok(body)
    }

    async fn page(&mut self, path: &str) -> anyhow::Result<Bytes> {
        whole(self.send(Method::GET, path, Bytes::new()).await?).await
    }

    async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> anyhow::Result<Response<Incoming>> {
        if self.sender.is_closed() {
            self.sender = self.link.connect().await?;
        }
        self.sender.ready().await?;
        let mut request =
            Request::builder().method(method).uri(path).header(HOST, &self.link.address);
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        Ok(self.sender.send_request(request.body(Full::new(body))?).await?)
    }
}

/// The whole body, so that the connection is free again.
async fn whole(answer: Response<Incoming>) -> anyhow::Result<Bytes> {
    let status = answer.status();
    let body = answer.into_body().collect().await?.to_bytes();
    if !status.is_success() {
        let text = String::from_utf8_lossy(body.get(..body.len().min(200)).unwrap_or_default());
        bail!("answered {status}: {text}");
    }
    Ok(body)
}

/// Server-sent events.
#[derive(Debug)]
pub(super) struct Watching {
    body: Incoming,
    lines: Lines,
    /// The connection ends with its sender.
    _caller: Caller,
}

impl Watching {
    pub(super) async fn next(&mut self, stamps: &mut Vec<u64>) -> anyhow::Result<()> {
        let frame = self.body.frame().await.context("the watch has ended")??;
        match frame.into_data() {
            Ok(data) => self.lines.add(&data, stamps),
            Err(_) => Ok(()),
        }
    }
}

/// Lines that arrive in pieces.
#[derive(Debug, Default)]
struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    fn add(&mut self, data: &[u8], stamps: &mut Vec<u64>) -> anyhow::Result<()> {
        self.rest.extend_from_slice(data);
        let whole = self.rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let lines = self.rest.get(..whole).unwrap_or_default().split(|byte| *byte == b'\n');
        stamps.extend(lines.filter_map(stamp_of));
        self.rest.drain(..whole);
        anyhow::ensure!(self.rest.len() < LINE_BYTES_MAX, "an event without an end");
        Ok(())
    }
}

/// Of the value of the entry that a line of data holds.
fn stamp_of(line: &[u8]) -> Option<u64> {
    #[derive(Deserialize)]
    struct Entry<'a> {
        #[serde(borrow)]
        value: &'a RawValue,
    }
    let data = line.strip_prefix(b"data:")?;
    stamp(serde_json::from_slice::<Entry<'_>>(data).ok()?.value.get().as_bytes())
}

fn path(key: usize) -> String {
    format!("/api/v1/configs/{}/{}", escaped(NAMESPACE), name(key))
}

fn escaped(namespace: &str) -> String {
    namespace.replace('/', "%2F")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_found_however_they_are_cut() {
        let text = b"id: 7\nevent: set\ndata: {\"key\":\"key-1\",\"value\":\"00000000000000ffabc\",\"version\":1}\n\n\
            event: bookmark\ndata: {\"revision\":9}\n\nevent: set\ndata:{\"value\":\"0000000000000001\"}\n\n";
        for size in [1, 2, 3, 50, text.len()] {
            let (mut lines, mut stamps) = (Lines::default(), Vec::new());
            for piece in text.chunks(size) {
                lines.add(piece, &mut stamps).unwrap();
            }
            assert_eq!(stamps, [255, 1], "in pieces of {size}");
        }
        let mut lines = Lines::default();
        assert!(lines.add(&vec![b'x'; LINE_BYTES_MAX], &mut Vec::new()).is_err());
    }

    #[test]
    fn a_key_is_one_segment_of_the_path() {
        assert_eq!(path(3), "/api/v1/configs/bench%2Fload/key-3");
    }
}
