//! Asks Prometheus for the values of expressions at one time, over its HTTP API.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use crate::Usage;
use crate::http::{Address, Http};
use crate::json::quoted;

/// Answers here have a sample for each node or alert.
const ANSWER_BYTES_MAX: usize = 16 << 20;
const SAMPLES_MAX: usize = 50_000;
/// Of what an error of Prometheus says.
const REASON_CHARS_MAX: usize = 300;

pub(crate) type Labels = BTreeMap<String, String>;

/// A value and the labels that it has.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sample {
    pub(crate) labels: Labels,
    pub(crate) value: f64,
}

impl Sample {
    /// The label's value, empty when it has none, as in PromQL.
    pub(crate) fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }
}

/// One server, asked about one time.
#[derive(Debug)]
pub(crate) struct Prometheus {
    http: Http,
    address: Address,
    /// In seconds since the Unix epoch: all values of a report are of the same time.
    at: u64,
}

impl Prometheus {
    pub(crate) fn new(http: Http, address: Address, at: u64) -> Self {
        Self { http, address, at }
    }

    pub(crate) fn address(&self) -> &str {
        self.address.as_str()
    }

    /// # Errors
    /// When it does not answer, or refuses the expression.
    pub(crate) async fn query(&self, expression: &str) -> anyhow::Result<Vec<Sample>> {
        let url = format!(
            "{}?time={}&query={}",
            self.address.below("/api/v1/query"),
            self.at,
            utf8_percent_encode(expression, NON_ALPHANUMERIC)
        );
        let answer = self.http.get(&url, ANSWER_BYTES_MAX).await;
        let (status, body) = answer.with_context(|| self.address.as_str().to_owned())?;
        read(&body)
            .with_context(|| format!("{}: HTTP {status} for `{expression}`", self.address.as_str()))
    }

    /// The value of an expression that has one, if it is a number.
    pub(crate) async fn number(&self, expression: &str) -> anyhow::Result<Option<f64>> {
        let samples = self.query(expression).await?;
        if samples.len() > 1 {
            bail!("{}: `{expression}` has {} values", self.address.as_str(), samples.len());
        }
        Ok(samples.first().map(|sample| sample.value).filter(|value| value.is_finite()))
    }
}

/// Which targets are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Selector {
    pub(crate) job: String,
    /// Empty when the targets have no such label.
    pub(crate) cluster: String,
}

impl Selector {
    /// The targets of one cluster: the named one, or the only one that there is.
    pub(crate) async fn find(
        prometheus: &Prometheus,
        job: String,
        cluster: Option<String>,
    ) -> anyhow::Result<Self> {
        let expression = format!("count by (cluster) (up{{job={}}})", quoted(&job));
        let found = prometheus.query(&expression).await?;
        let known: Vec<&str> = found.iter().map(|sample| sample.label("cluster")).collect();
        let list = known.join(", ");
        let at = prometheus.address();
        let wrong = |text: String| Err(Usage(text).into());
        match (cluster, &known[..]) {
            (_, []) => bail!("{at}: no target has the job {job:?}; --job names another one"),
            (Some(cluster), known) if known.contains(&cluster.as_str()) => {
                Ok(Self { job, cluster })
            }
            (Some(cluster), _) => {
                wrong(format!("--cluster: {at} knows no cluster {cluster:?}, only {list}"))
            }
            (None, [cluster]) => Ok(Self { job, cluster: (*cluster).to_owned() }),
            (None, _) => {
                wrong(format!("{at} knows the clusters {list}; name one of them with --cluster"))
            }
        }
    }

    /// A metric of these targets; `more` are further matchers, if any.
    pub(crate) fn of(&self, metric: &str, more: &str) -> String {
        let mut matchers = format!("job={}", quoted(&self.job));
        if !self.cluster.is_empty() {
            matchers.push_str(&format!(", cluster={}", quoted(&self.cluster)));
        }
        if !more.is_empty() {
            matchers.push_str(&format!(", {more}"));
        }
        format!("{metric}{{{matchers}}}")
    }

    /// Firing alerts about these targets, and those that are about no target; not the one that always fires.
    pub(crate) fn alerts(&self) -> String {
        let or_none = |value: &str| quoted(&format!("|{}", literal(value)));
        let mut matchers = format!("job=~{}", or_none(&self.job));
        if !self.cluster.is_empty() {
            matchers.push_str(&format!(", cluster=~{}", or_none(&self.cluster)));
        }
        format!("ALERTS{{alertstate=\"firing\", alertname!=\"Watchdog\", {matchers}}}")
    }
}

/// As a regular expression that matches nothing else.
fn literal(text: &str) -> String {
    let mut out = String::new();
    for char in text.chars() {
        if char.is_ascii_punctuation() && char != '_' && char != '-' {
            out.push('\\');
        }
        out.push(char);
    }
    out
}

/// The samples in an answer of the API.
pub(crate) fn read(body: &[u8]) -> anyhow::Result<Vec<Sample>> {
    #[derive(Deserialize)]
    struct Answer {
        status: String,
        data: Option<Data>,
        #[serde(default)]
        error: String,
    }
    #[derive(Deserialize)]
    #[serde(tag = "resultType", content = "result", rename_all = "lowercase")]
    enum Data {
        Vector(Vec<Item>),
        Scalar((f64, String)),
    }
    #[derive(Deserialize)]
    struct Item {
        metric: Labels,
        value: (f64, String),
    }
    let answer: Answer = serde_json::from_slice(body).context("that is no answer of Prometheus")?;
    if answer.status != "success" {
        let reason: String = answer.error.chars().take(REASON_CHARS_MAX).collect();
        bail!("{reason}");
    }
    let items = match answer.data {
        Some(Data::Vector(items)) => items,
        Some(Data::Scalar(value)) => vec![Item { metric: Labels::new(), value }],
        None => bail!("the answer has no data"),
    };
    if items.len() > SAMPLES_MAX {
        bail!("the answer has more than {SAMPLES_MAX} samples");
    }
    let sample = |item: Item| {
        let value = number(&item.value.1)?;
        Ok(Sample { labels: item.metric, value })
    };
    items.into_iter().map(sample).collect()
}

/// A value as Prometheus writes it: `NaN` and `+Inf` are values, too.
pub(crate) fn number(text: &str) -> anyhow::Result<f64> {
    text.parse().with_context(|| {
        let shown: String = text.chars().take(40).collect();
        format!("{shown:?} is no number")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(body: &str) -> String {
        format!("{:#}", read(body.as_bytes()).unwrap_err())
    }

    #[test]
    fn vectors_and_scalars_are_read() {
        let body = r#"{"status":"success","data":{"resultType":"vector","result":[
            {"metric":{"instance":"a:1"},"value":[1700000000.1,"1.5"]},
            {"metric":{},"value":[1700000000,"NaN"]}]},"warnings":["x"]}"#;
        let samples = read(body.as_bytes()).unwrap();
        assert_eq!((samples[0].label("instance"), samples[0].value), ("a:1", 1.5));
        assert!(samples[1].value.is_nan() && samples[1].label("instance").is_empty());
        let scalar = r#"{"status":"success","data":{"resultType":"scalar","result":[1,"+Inf"]}}"#;
        assert_eq!(read(scalar.as_bytes()).unwrap()[0].value, f64::INFINITY);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let refused = r#"{"status":"error","errorType":"bad_data","error":"parse error: x"}"#;
        assert_eq!(reason(refused), "parse error: x");
        assert!(reason("<html>").contains("no answer of Prometheus"));
        assert!(reason(r#"{"status":"success"}"#).contains("no data"));
        let matrix = r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#;
        assert!(reason(matrix).contains("matrix"), "{}", reason(matrix));
        let word = r#"{"status":"success","data":{"resultType":"scalar","result":[1,"x"]}}"#;
        assert!(reason(word).contains("\"x\" is no number"));
    }

    #[test]
    fn names_cannot_leave_their_place_in_an_expression() {
        let selector = Selector { job: "a\"b".into(), cluster: String::new() };
        assert_eq!(selector.of("up", ""), r#"up{job="a\"b"}"#);
        let selector = Selector { job: "llm-config-manager".into(), cluster: "eu.1".into() };
        assert_eq!(
            selector.of("up", "x=\"y\""),
            r#"up{job="llm-config-manager", cluster="eu.1", x="y"}"#
        );
        assert!(selector.alerts().contains(r#"cluster=~"|eu\\.1""#), "{}", selector.alerts());
    }
}
