//! Prometheus, Alertmanager and metrics pages, as far as they are asked here: HTTP answers by what is asked for.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use percent_encoding::percent_decode_str;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

type Answer = (u16, String);

/// Answers until it is dropped.
pub(crate) struct Web {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    serving: JoinHandle<()>,
}

impl Drop for Web {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Web {
    /// `answer` is given the path and the decoded parameter `query`.
    pub(crate) async fn start(
        answer: impl Fn(&str, &str) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (answer, heard) = (Arc::new(answer), Arc::clone(&asked));
        let serving = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                serve(stream, &*answer, &heard).await;
            }
        });
        Self { address, asked, serving }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The queries that came.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

async fn serve(
    mut stream: TcpStream,
    answer: &(impl Fn(&str, &str) -> Answer + ?Sized),
    asked: &Mutex<Vec<String>>,
) {
    let mut head = Vec::new();
    let mut buffer = [0; 4096];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(length) => head.extend_from_slice(&buffer[..length]),
        }
    }
    let head = String::from_utf8(head).unwrap();
    let target = head.split(' ').nth(1).unwrap();
    let (path, parameters) = target.split_once('?').unwrap_or((target, ""));
    let query = parameters.split('&').find_map(|pair| pair.strip_prefix("query="));
    let query = percent_decode_str(query.unwrap_or("")).decode_utf8().unwrap().into_owned();
    let (status, body) = answer(path, &query);
    asked.lock().unwrap().push(query);
    let head = format!(
        "HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let _gone = stream.write_all(format!("{head}{body}").as_bytes()).await;
}

pub(crate) type Series = (&'static [(&'static str, &'static str)], f64);

fn vector(series: &[Series]) -> Answer {
    let result: Vec<_> = series
        .iter()
        .map(|(labels, value)| {
            let labels: serde_json::Map<_, _> =
                labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
            json!({"metric": labels, "value": [1_769_860_800.0, value.to_string()]})
        })
        .collect();
    let data = json!({"resultType": "vector", "result": result});
    (200, json!({"status": "success", "data": data}).to_string())
}

/// What a query is answered with whose text has this in it; the first one counts.
pub(crate) type Said = (&'static str, Vec<Series>);

const NODE: &[(&str, &str)] = &[("instance", "a:9090")];

/// One node of the cluster `c` on a good day.
fn good_day(now: f64) -> Vec<Said> {
    let one = |value| vec![(&[] as &[_], value)];
    vec![
        ("count by (cluster) (up", vec![(&[("cluster", "c")], 1.0)]),
        // As many as a week has, and more than less has.
        ("count_over_time((count by (job, cluster)", one(2016.0)),
        ("ALERTS{", vec![]),
        ("max_over_time((avg by (job, cluster) (avg_over_time(job_le", one(1500.0)),
        ("max_over_time((1000 * histogram_quantile", one(48.0)),
        ("min_over_time((100 * avg by (job, cluster) (avg_over_time(job:cache", one(82.0)),
        ("max_over_time(", one(1.0)),
        ("avg_over_time(job_le", one(1000.0)),
        ("1000 * histogram_quantile", one(45.0)),
        ("avg_over_time(job:cache_hit_rate", one(85.0)),
        ("avg_over_time(instance:cpu_usage", one(40.0)),
        ("avg_over_time(process_resident", one(1.5)),
        ("avg_over_time(job:error_rate", one(0.05)),
        ("avg_over_time(up", one(100.0)),
        ("avg_over_time(job:http_success", one(99.95)),
        ("deriv(llm_config_storage_free", vec![(NODE, -1e3)]),
        ("deriv(storage_size", vec![(NODE, 1e3)]),
        ("up{", vec![(NODE, 1.0)]),
        ("backup_last_success", vec![(NODE, now - 3_600.0)]),
        ("llm_config_storage_free_bytes{", vec![(NODE, 6e11)]),
        ("storage_capacity_bytes{", vec![(NODE, 1e12)]),
        ("storage_size_bytes{", vec![(NODE, 1e9)]),
        ("storage_quota_bytes{", vec![(NODE, 1e11)]),
        (
            "tls_certificate_expiry",
            vec![(&[("instance", "a:9090"), ("certificate", "client")], now + 90.0 * 86_400.0)],
        ),
    ]
}

pub(crate) fn now() -> f64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64()
}

/// Prometheus on a good day, but for what `differs`.
pub(crate) async fn prometheus(differs: Vec<Said>) -> Web {
    let said: Vec<Said> = differs.into_iter().chain(good_day(now())).collect();
    Web::start(move |path, query| {
        if path != "/api/v1/query" {
            return (404, String::new());
        }
        match said.iter().find(|(part, _)| query.contains(part)) {
            Some((_, series)) => vector(series),
            None => {
                (400, json!({"status": "error", "error": format!("unknown: {query}")}).to_string())
            }
        }
    })
    .await
}
