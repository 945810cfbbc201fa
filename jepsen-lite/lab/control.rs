//! What the harness itself asks a node, over HTTP and from its own place on the bridge: none of it is part of a history.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::Deserialize;
use serde_json::Value;

use super::ADMINISTRATOR;

const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
const STATUS_TIMEOUT: Duration = Duration::from_secs(1);
/// A change of the members waits for two rounds through the log.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(15);
const ANSWER_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The cluster as one node sees it.
#[derive(Debug, Clone, Deserialize)]
pub struct View {
    /// `leader`, `follower`, `candidate` or `learner`.
    pub role: String,
    /// The current term.
    pub term: u64,
    /// The last entry of its log.
    pub last_log_index: u64,
    /// The last one that it has applied.
    pub applied_index: u64,
    /// The revision that it has applied.
    pub revision: u64,
    /// Who is in the cluster.
    pub members: Vec<Member>,
}

/// A member as another node sees it.
#[derive(Debug, Clone, Deserialize)]
pub struct Member {
    /// Its number.
    pub id: u64,
    /// As in [`View::role`].
    pub role: String,
}

impl Member {
    /// Whether its vote counts.
    #[must_use]
    pub fn votes(&self) -> bool {
        self.role != "learner"
    }
}

/// An answer: its status, and its body.
pub type Answer = (u16, Vec<u8>);

/// Asks a node for something.
///
/// # Errors
/// When no answer comes.
pub fn get(node: SocketAddr, path: &str) -> anyhow::Result<Answer> {
    exchange(node, "GET", path, None, STATUS_TIMEOUT)
}

/// The cluster as a node sees it.
///
/// # Errors
/// When it does not answer as it should.
pub fn view(node: SocketAddr) -> anyhow::Result<View> {
    let (status, body) = get(node, "/api/v1/cluster")?;
    anyhow::ensure!(status == 200, "/cluster of {node} answers {status}");
    serde_json::from_slice(&body).with_context(|| format!("/cluster of {node}"))
}

/// Whether a node knows a leader and has caught up, by its own word.
#[must_use]
pub fn is_ready(node: SocketAddr) -> bool {
    get(node, "/health/ready").is_ok_and(|(status, _)| status == 200)
}

/// A metric without labels, from a node's page of them.
///
/// # Errors
/// When there is no answer, or no such metric.
pub fn metric(metrics: SocketAddr, name: &str) -> anyhow::Result<f64> {
    let (_, body) = get(metrics, "/metrics")?;
    let text = String::from_utf8_lossy(&body);
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let value = value.and_then(|value| value.trim().parse().ok());
    value.with_context(|| format!("no {name} at {metrics}"))
}

/// Asks for a change of the cluster.
///
/// # Errors
/// When it is refused, or no answer comes.
pub fn change(
    node: SocketAddr,
    method: &str,
    path: &str,
    body: Option<&Value>,
) -> anyhow::Result<()> {
    let body = body.map(Value::to_string);
    let (status, answer) = exchange(node, method, path, body.as_deref(), CHANGE_TIMEOUT)?;
    if !(200..300).contains(&status) {
        bail!("{method} {path}: {status}: {}", String::from_utf8_lossy(&answer));
    }
    Ok(())
}

/// HTTP/1.0, so that the answer ends with the connection.
fn exchange(
    node: SocketAddr,
    method: &str,
    path: &str,
    body: Option<&str>,
    timeout: Duration,
) -> anyhow::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&node, CONNECT_TIMEOUT)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    let mut request = format!(
        "{method} {path} HTTP/1.0\r\nHost: {node}\r\nAuthorization: Bearer {ADMINISTRATOR}\r\nConnection: close\r\n"
    );
    if let Some(body) = body {
        request += &format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
    }
    request += "\r\n";
    request += body.unwrap_or_default();
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n");
    let end = end.context("an answer without an end of its head")?;
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.with_context(|| format!("not HTTP: {head:?}"))?;
    Ok((status, answer.split_off(end + 4)))
}
