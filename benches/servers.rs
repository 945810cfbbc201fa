//! What a run costs the servers: CPU time of their processes, and log entries and fsyncs from their metrics.

use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const ENTRIES: &str = "llm_config_raft_log_entries_appended_total";
const FSYNCS: &str = "llm_config_raft_log_fsync_duration_seconds_count";
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(5);
const SCRAPE_BYTES_MAX: u64 = 16 << 20;

/// Where to look: process ids on this machine, and addresses that serve `/metrics`. Either may be empty.
#[derive(Debug, Clone, Default)]
pub struct Servers {
    /// Server processes.
    pub pids: Vec<i32>,
    /// `HOST:PORT` of each node's metrics.
    pub metrics: Vec<String>,
}

/// Sums over all servers at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    cpu_us: Option<f64>,
    log: Option<Log>,
}

#[derive(Debug, Clone, Copy)]
struct Log {
    entries: f64,
    fsyncs: f64,
}

/// What happened between two samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    /// User and system time of all server processes.
    pub cpu_us: Option<f64>,
    /// Log entries that one fsync made durable, on average; nothing when the log did not grow.
    pub entries_per_fsync: Option<f64>,
}

impl Servers {
    /// Takes a sample. A process or metric that cannot be read is an error: a silent gap would be a wrong number.
    pub async fn sample(&self) -> anyhow::Result<Sample> {
        let log = self.log().await?;
        Ok(Sample { cpu_us: cpu_us(&self.pids)?, log })
    }

    async fn log(&self) -> anyhow::Result<Option<Log>> {
        if self.metrics.is_empty() {
            return Ok(None);
        }
        let mut log = Log { entries: 0.0, fsyncs: 0.0 };
        for address in &self.metrics {
            let text = fetch(address, "/metrics").await?;
            let value =
                |name| sum(&text, name).with_context(|| format!("{address} has no metric {name}"));
            log.entries += value(ENTRIES)?;
            log.fsyncs += value(FSYNCS)?;
        }
        Ok(Some(log))
    }
}

impl Sample {
    /// The cost from this sample to a later one.
    #[must_use]
    pub fn until(&self, later: &Self) -> Cost {
        let entries_per_fsync = self.log.zip(later.log).and_then(|(from, to)| {
            let (entries, fsyncs) = (to.entries - from.entries, to.fsyncs - from.fsyncs);
            (entries > 0.0 && fsyncs > 0.0).then(|| entries / fsyncs)
        });
        Cost {
            cpu_us: self.cpu_us.zip(later.cpu_us).map(|(from, to)| to - from),
            entries_per_fsync,
        }
    }
}

fn cpu_us(pids: &[i32]) -> anyhow::Result<Option<f64>> {
    if pids.is_empty() {
        return Ok(None);
    }
    let mut ticks = 0;
    for &pid in pids {
        let stat = procfs::process::Process::new(pid)
            .and_then(|process| process.stat())
            .with_context(|| format!("cannot read the CPU time of process {pid}"))?;
        ticks += stat.utime + stat.stime;
    }
    #[allow(clippy::cast_precision_loss, reason = "ticks of a process are far below 2^52")]
    Ok(Some(ticks as f64 * 1e6 / procfs::ticks_per_second() as f64))
}

/// The body of a page that answers 200.
pub(crate) async fn fetch(address: &str, path: &str) -> anyhow::Result<String> {
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

    #[test]
    fn metrics_are_summed_over_their_series() {
        assert_eq!(sum(TEXT, FSYNCS), Some(10.0));
        assert_eq!(sum(TEXT, ENTRIES), Some(42.0));
        assert_eq!(sum(TEXT, "absent"), None);
    }

    #[test]
    fn the_cost_is_the_difference() {
        let at =
            |cpu, entries, fsyncs| Sample { cpu_us: Some(cpu), log: Some(Log { entries, fsyncs }) };
        let cost = at(100.0, 10.0, 5.0).until(&at(350.0, 50.0, 15.0));
        assert_eq!((cost.cpu_us, cost.entries_per_fsync), (Some(250.0), Some(4.0)));
        assert_eq!(at(0.0, 1.0, 1.0).until(&at(0.0, 1.0, 2.0)).entries_per_fsync, None);
    }

    #[test]
    fn cpu_time_of_this_process_is_readable_and_a_missing_one_is_an_error() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(cpu_us(&[own]).unwrap().is_some());
        assert_eq!(cpu_us(&[]).unwrap(), None);
        assert!(cpu_us(&[i32::MAX]).is_err());
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
        let servers = Servers { metrics: vec![address], ..Servers::default() };
        let log = servers.log().await.unwrap().unwrap();
        assert_eq!((log.entries, log.fsyncs), (42.0, 10.0));
    }
}
