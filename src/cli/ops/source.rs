//! Where a report has its numbers from: Prometheus, else the metrics pages of the nodes, else nowhere.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures::future::join_all;
use llm_config_client::Options;

use super::{Check, Outcome};
use crate::args::Sources;
use crate::exposition::Page;
use crate::http::{Address, Http};
use crate::prometheus::{Labels, Prometheus, Selector};

/// A page of a node has some hundreds of kilobytes.
const PAGE_BYTES_MAX: usize = 16 << 20;
/// A dead node must not keep the report waiting.
const PAGE_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(crate) enum Source {
    Prometheus(Box<Prometheus>, Selector),
    /// Of each node that answered, by its address.
    Pages(Vec<(String, Page)>),
    /// And why.
    Nowhere(String),
}

/// A value that one node has.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) instance: String,
    pub(crate) labels: Labels,
    pub(crate) value: f64,
}

/// # Errors
/// Wrong usage. A server that does not answer is a row of the report.
pub(crate) async fn open(
    options: &Options,
    sources: Sources,
    now: u64,
) -> anyhow::Result<(Source, Vec<Check>)> {
    let Sources { prometheus, metrics, job, cluster } = sources;
    if let Some(text) = prometheus {
        let address = Address::parse("--prometheus", &text)?;
        let http = Http::new(options.tls.as_ref(), address.encrypted(), options.timeout)?;
        let prometheus = Prometheus::new(http, address, now);
        return match Selector::find(&prometheus, job, cluster).await {
            Ok(selector) => Ok((Source::Prometheus(Box::new(prometheus), selector), Vec::new())),
            Err(error) if error.is::<crate::Usage>() => Err(error),
            Err(error) => {
                let reason = "Prometheus could not be asked".to_owned();
                Ok((Source::Nowhere(reason), vec![Check::broken("prometheus", &error)]))
            }
        };
    }
    if metrics.is_empty() {
        let reason = "--prometheus URL would tell; --metrics URL,… of the nodes for some of it";
        return Ok((Source::Nowhere(reason.to_owned()), Vec::new()));
    }
    pages(options, &metrics).await
}

async fn pages(options: &Options, given: &[String]) -> anyhow::Result<(Source, Vec<Check>)> {
    let addresses: Result<Vec<Address>, _> =
        given.iter().map(|text| Address::parse("--metrics", text)).collect();
    let addresses = addresses?;
    let encrypted = addresses.iter().any(Address::encrypted);
    let http = Http::new(options.tls.as_ref(), encrypted, options.timeout)?.within(PAGE_TIMEOUT);
    let asked = addresses.iter().map(|address| page(&http, address));
    let (mut pages, mut checks) = (Vec::new(), Vec::new());
    for (address, answer) in addresses.iter().zip(join_all(asked).await) {
        let name = address.as_str().trim_end_matches("/metrics").to_owned();
        let name = name.split_once("://").map_or(name.clone(), |(_, rest)| rest.to_owned());
        match answer {
            Ok(page) => {
                checks.push(Check::new("metrics", &name, Outcome::Ok, "the page answers"));
                pages.push((name, page));
            }
            Err(error) => {
                checks.push(Check::new("metrics", name, Outcome::Failed, format!("{error:#}")));
            }
        }
    }
    if pages.is_empty() {
        return Ok((Source::Nowhere("no page of --metrics answers".to_owned()), checks));
    }
    Ok((Source::Pages(pages), checks))
}

/// The address may or may not say `/metrics`.
async fn page(http: &Http, address: &Address) -> anyhow::Result<Page> {
    let url = match address.as_str().ends_with("/metrics") {
        true => address.below(""),
        false => address.below("/metrics"),
    };
    let (status, body) = http.get(&url, PAGE_BYTES_MAX).await?;
    ensure!(status == 200, "HTTP {status}");
    let text = std::str::from_utf8(&body).context("the answer is not text")?;
    let page = Page::read(text).context("that is no page of metrics")?;
    ensure!(!page.is_empty(), "the page has no metrics");
    Ok(page)
}

impl Source {
    /// A metric of every node, by node and labels.
    ///
    /// # Errors
    /// When it could not be asked for.
    pub(crate) async fn readings(&self, metric: &str) -> anyhow::Result<Vec<Reading>> {
        let mut found = match self {
            Self::Prometheus(prometheus, selector) => {
                self.ask(prometheus, &selector.of(metric, "")).await?
            }
            Self::Pages(pages) => pages
                .iter()
                .flat_map(|(instance, page)| {
                    page.of(metric).map(|sample| Reading {
                        instance: instance.clone(),
                        labels: sample.labels.clone(),
                        value: sample.value,
                    })
                })
                .collect(),
            Self::Nowhere(_) => Vec::new(),
        };
        found.sort_by(|a, b| (&a.instance, &a.labels).cmp(&(&b.instance, &b.labels)));
        Ok(found)
    }

    async fn ask(&self, prometheus: &Prometheus, text: &str) -> anyhow::Result<Vec<Reading>> {
        let samples = prometheus.query(text).await?.into_iter();
        let reading = |mut sample: crate::prometheus::Sample| Reading {
            instance: sample.labels.remove("instance").unwrap_or_default(),
            labels: sample.labels,
            value: sample.value,
        };
        Ok(samples.map(reading).collect())
    }

    /// The row of a check that only Prometheus can answer.
    pub(crate) fn needs_prometheus(&self, check: &'static str) -> Check {
        match self {
            Self::Nowhere(reason) if !reason.starts_with("--") => Check::skipped(check, reason),
            _ => Check::skipped(check, "--prometheus URL would tell"),
        }
    }
}
