//! What a run costs the servers: CPU time and memory of their processes, and log entries and fsyncs from their metrics.

use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const SCRAPE_TIMEOUT: Duration = Duration::from_secs(5);
const SCRAPE_BYTES_MAX: u64 = 16 << 20;

/// The metrics in which a server counts what it makes durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Names {
    /// Log entries.
    pub entries: &'static str,
    /// Fsyncs of the log.
    pub fsyncs: &'static str,
}

/// Those of LLM Config Manager.
pub const LLM_CONFIG: Names = Names {
    entries: "llm_config_raft_log_entries_appended_total",
    fsyncs: "llm_config_raft_log_fsync_duration_seconds_count",
};

/// Those of etcd: each node counts what it has applied, which it has written to its log before.
pub const ETCD: Names = Names {
    entries: "etcd_server_proposals_applied_total",
    fsyncs: "etcd_disk_wal_fsync_duration_seconds_count",
};

/// Where to look: process ids on this machine, and addresses that serve `/metrics`. Either may be empty.
#[derive(Debug, Clone)]
pub struct Servers {
    /// Server processes.
    pub pids: Vec<i32>,
    /// `HOST:PORT` of each node's metrics.
    pub metrics: Vec<String>,
    /// What they are called there.
    pub names: Names,
}

/// Log entries and fsyncs of all servers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Log {
    /// Entries written.
    pub entries: f64,
    /// Fsyncs.
    pub fsyncs: f64,
}

impl Log {
    /// What was added since.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self { entries: self.entries - earlier.entries, fsyncs: self.fsyncs - earlier.fsyncs }
    }

    /// Entries that one fsync made durable, on average; nothing when the log did not grow.
    #[must_use]
    pub fn entries_per_fsync(self) -> Option<f64> {
        (self.entries > 0.0 && self.fsyncs > 0.0).then(|| self.entries / self.fsyncs)
    }
}

/// Memory of processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Resident bytes of all of them.
    pub total: u64,
    /// Of the largest.
    pub largest: u64,
}

impl Servers {
    /// User and system time of all server processes so far, in microseconds; nothing without processes. One that cannot
    /// be read is an error: a silent gap would be a wrong number.
    ///
    /// # Errors
    /// When a process is gone.
    pub fn cpu_us(&self) -> anyhow::Result<Option<f64>> {
        let mut sum = None;
        for &pid in &self.pids {
            sum = Some(sum.unwrap_or(0.0) + cpu_us(pid)?);
        }
        Ok(sum)
    }

    /// Resident memory of all server processes now; nothing without processes.
    ///
    /// # Errors
    /// When a process is gone.
    pub fn memory(&self) -> anyhow::Result<Option<Memory>> {
        let mut all = Vec::with_capacity(self.pids.len());
        for &pid in &self.pids {
            let status = procfs::process::Process::new(pid)
                .and_then(|process| process.status())
                .with_context(|| format!("cannot read the memory of process {pid}"))?;
            all.push(status.vmrss.context("a process without memory")? * 1024);
        }
        let largest = all.iter().copied().max();
        Ok(largest.map(|largest| Memory { total: all.iter().sum(), largest }))
    }

    /// What the servers have counted so far; nothing without addresses.
    ///
    /// # Errors
    /// When one does not answer, or lacks the metrics.
    pub async fn log(&self) -> anyhow::Result<Option<Log>> {
        if self.metrics.is_empty() {
            return Ok(None);
        }
        let mut log = Log { entries: 0.0, fsyncs: 0.0 };
        for address in &self.metrics {
            let text = fetch(address, "/metrics").await?;
            let value =
                |name| sum(&text, name).with_context(|| format!("{address} has no metric {name}"));
            log.entries += value(self.names.entries)?;
            log.fsyncs += value(self.names.fsyncs)?;
        }
        Ok(Some(log))
    }
}

/// User and system time of this program, in microseconds.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn own_cpu_us() -> anyhow::Result<f64> {
    cpu_us(i32::try_from(std::process::id()).context("no process id")?)
}

fn cpu_us(pid: i32) -> anyhow::Result<f64> {
    let stat = procfs::process::Process::new(pid)
        .and_then(|process| process.stat())
        .with_context(|| format!("cannot read the CPU time of process {pid}"))?;
    let ticks = stat.utime + stat.stime;
    #[allow(clippy::cast_precision_loss, reason = "ticks of a process are far below 2^52")]
    Ok(ticks as f64 * 1e6 / procfs::ticks_per_second() as f64)
}

/// The body of a page that answers 200.
///
/// # Errors
/// When it does not come, or says something else.
pub async fn fetch(address: &str, path: &str) -> anyhow::Result<String> {
    tokio::time::timeout(SCRAPE_TIMEOUT, scrape(address, path))
        .await
        .with_context(|| format!("{address} does not answer"))?
        .with_context(|| format!("cannot read http://{address}{path}"))
}

/// HTTP/1.0, so that the body comes in one piece and ends with the connection.
async fn scrape(address: &str, path: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(SCRAPE_BYTES_MAX).read_to_end(&mut answer).await?;
    let answer = String::from_utf8(answer).context("is not text")?;
    let (head, body) = answer.split_once("\r\n\r\n").context("is not an HTTP answer")?;
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        bail!("answered {status:?}");
    }
    Ok(body.to_owned())
}

/// The sum over all series of a metric, in Prometheus' text format.
fn sum(text: &str, name: &str) -> Option<f64> {
    text.lines()
        .filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let value = match rest.strip_prefix('{') {
                // Label values may contain anything, but never an unescaped quote, so the last brace ends them.
                Some(labels) => labels.rsplit_once('}')?.1,
                None => rest.strip_prefix(' ')?,
            };
            value.split_whitespace().next()?.parse::<f64>().ok()
        })
        .reduce(|a, b| a + b)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP llm_config_raft_log_fsync_duration_seconds words\n# TYPE llm_config_raft_log_fsync_duration_seconds histogram\n\
        llm_config_raft_log_fsync_duration_seconds_count 10\nllm_config_raft_log_fsync_duration_seconds_count_other 99\n\
        llm_config_raft_log_entries_appended_total{kind=\"a}b\"} 30\nllm_config_raft_log_entries_appended_total{kind=\"c\"} 12 1700000000\n";

    fn servers(pids: Vec<i32>, metrics: Vec<String>) -> Servers {
        Servers { pids, metrics, names: LLM_CONFIG }
    }

    #[test]
    fn metrics_are_summed_over_their_series() {
        assert_eq!(sum(TEXT, LLM_CONFIG.fsyncs), Some(10.0));
        assert_eq!(sum(TEXT, LLM_CONFIG.entries), Some(42.0));
        assert_eq!(sum(TEXT, "absent"), None);
    }

    #[test]
    fn the_log_grows_by_the_difference() {
        let at = |entries, fsyncs| Log { entries, fsyncs };
        assert_eq!(at(50.0, 15.0).since(at(10.0, 5.0)), at(40.0, 10.0));
        assert_eq!(at(40.0, 10.0).entries_per_fsync(), Some(4.0));
        assert_eq!(at(0.0, 1.0).entries_per_fsync(), None);
    }

    #[test]
    fn this_process_has_cpu_time_and_memory_and_a_missing_one_is_an_error() {
        let own = servers(vec![i32::try_from(std::process::id()).unwrap()], Vec::new());
        assert!(own.cpu_us().unwrap().is_some());
        let memory = own.memory().unwrap().unwrap();
        assert!(memory.total > 100_000 && memory.total == memory.largest, "{memory:?}");
        let none = servers(Vec::new(), Vec::new());
        assert!(none.cpu_us().unwrap().is_none() && none.memory().unwrap().is_none());
        let missing = servers(vec![i32::MAX], Vec::new());
        assert!(missing.cpu_us().is_err() && missing.memory().is_err());
    }

    #[tokio::test]
    async fn metrics_are_fetched_over_http() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let read = socket.read(&mut request).await.unwrap();
            assert!(request[..read].starts_with(b"GET /metrics "));
            let answer = format!("HTTP/1.0 200 OK\r\ncontent-type: text/plain\r\n\r\n{TEXT}");
            socket.write_all(answer.as_bytes()).await.unwrap();
        });
        let log = servers(Vec::new(), vec![address]).log().await.unwrap().unwrap();
        assert_eq!((log.entries, log.fsyncs), (42.0, 10.0));
    }
}
