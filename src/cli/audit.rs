//! `audit`: who did what. `list` shows some of it, `export` streams all of it, `verify` asks each endpoint whether its chain
//! of records is whole.

use std::time::Duration;

use anyhow::{Context as _, bail};
use comfy_table::Table;
use futures::future::join_all;
use llm_config_client::v1::verify_audit_response::Verdict;
use llm_config_client::{Client, Error, Options, v1};
use serde::Serialize;

use crate::Usage;
use crate::args::{Audit, AuditFilter, Global, ListAudit, Retention};
use crate::cluster::known;
use crate::endpoints;
use crate::output::{Output, cell, table};
use crate::pages::{PAGE_LIMIT, advance};

/// Longer than a node takes to walk its chain.
const WALK_TIMEOUT: Duration = Duration::from_secs(150);
/// As many as a node gives at a time.
const EXPORT_PAGE_LIMIT: u32 = 1000;

/// A record as the HTTP API shows it.
#[derive(Debug, Serialize)]
struct RecordView {
    sequence: u64,
    time: Option<String>,
    revision: u64,
    r#type: String,
    actor: String,
    principal: String,
    source: String,
    request_id: String,
    node_id: u64,
    targets: Vec<TargetView>,
    comment: String,
    detail: String,
    previous_hash: String,
    hash: String,
}

#[derive(Debug, Serialize)]
struct TargetView {
    namespace: String,
    key: String,
    env: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
}

impl From<v1::AuditRecord> for RecordView {
    fn from(record: v1::AuditRecord) -> Self {
        let target = |target: v1::AuditTarget| TargetView {
            namespace: target.namespace,
            key: target.key,
            env: target.environment,
            version: Some(target.version).filter(|version| *version != 0),
        };
        Self {
            sequence: record.sequence,
            time: record.time.map(|time| time.to_string()),
            revision: record.revision,
            r#type: record.r#type,
            actor: record.actor,
            principal: record.principal,
            source: record.source,
            request_id: record.request_id,
            node_id: record.node_id,
            targets: record.targets.into_iter().map(target).collect(),
            comment: record.comment,
            detail: record.detail,
            previous_hash: hex(&record.previous_hash),
            hash: hex(&record.hash),
        }
    }
}

impl RecordView {
    /// What it happened to, in a few words.
    fn about(&self) -> String {
        match self.targets.as_slice() {
            [] => String::new(),
            [one] => format!("{} {} {}", one.namespace, one.env, one.key),
            [first, others @ ..] => {
                let first = format!("{} {} {}", first.namespace, first.env, first.key);
                format!("{first} and {} more", others.len())
            }
        }
    }
}

pub(crate) async fn run(
    global: &Global,
    options: &Options,
    command: Audit,
    output: Output,
) -> anyhow::Result<()> {
    let client = || Client::with_options(&global.endpoints, options.clone());
    match command {
        Audit::List(args) => list(&client()?, args, output).await,
        Audit::Export(filter) => export(&client()?, filter, output).await,
        Audit::Verify => verify(global, options, output).await,
        Audit::Retention(args) => retention(&client()?, args, output).await,
    }
}

/// The request of a first page.
fn request(filter: AuditFilter) -> Result<v1::ListAuditRequest, Usage> {
    let AuditFilter { kind, actor, namespace, key, from, to } = filter;
    let mut request =
        v1::ListAuditRequest { r#type: kind, actor, namespace, key, ..Default::default() };
    let refuse = |option| Usage(format!("{option}: must be a time like 2026-01-31T12:00:00Z"));
    if let Some(from) = from {
        request.from = Some(from.parse().map_err(|_| refuse("--from"))?);
    }
    if let Some(to) = to {
        request.to = Some(to.parse().map_err(|_| refuse("--to"))?);
    }
    Ok(request)
}

async fn list(client: &Client, args: ListAudit, output: Output) -> anyhow::Result<()> {
    let ListAudit { filter, oldest_first, limit, read } = args;
    let wanted = usize::try_from(limit)?;
    let mut request = v1::ListAuditRequest {
        oldest_first,
        limit: limit.min(PAGE_LIMIT),
        read: Some(read.options()),
        ..request(filter)?
    };
    let mut records: Vec<RecordView> = Vec::new();
    // A page may be empty and have a next one: the node looked at many records that are not wanted.
    while records.len() < wanted {
        let page = client.list_audit(request.clone()).await?;
        records.extend(page.items.into_iter().map(RecordView::from));
        if !advance(&mut request.cursor, page.next_cursor)? {
            break;
        }
    }
    records.truncate(wanted);
    output.print(&records, |records| records_table(records))
}

async fn export(client: &Client, filter: AuditFilter, output: Output) -> anyhow::Result<()> {
    let mut request = v1::ListAuditRequest {
        oldest_first: true,
        limit: EXPORT_PAGE_LIMIT,
        read: Some(v1::ReadOptions {
            consistency: v1::Consistency::Linearizable.into(),
            ..Default::default()
        }),
        ..request(filter)?
    };
    loop {
        let page = client.list_audit(request.clone()).await?;
        for record in page.items {
            output.print_one_of_many(&RecordView::from(record), line)?;
        }
        if !advance(&mut request.cursor, page.next_cursor)? {
            return Ok(());
        }
    }
}

fn line(record: &RecordView) -> String {
    let text = format!(
        "{} {} {} {} {} {}",
        record.sequence,
        record.time.as_deref().unwrap_or("-"),
        cell(&record.r#type),
        known(&record.actor),
        known(&record.source),
        cell(&[record.about(), record.detail.clone()].join(" ")),
    );
    text.trim_end().to_owned()
}

fn records_table(records: &[RecordView]) -> Table {
    let mut rows = table(&["SEQUENCE", "TIME", "TYPE", "ACTOR", "FROM", "WHAT", "WHY", "DETAIL"]);
    for record in records {
        rows.add_row([
            record.sequence.to_string(),
            record.time.clone().unwrap_or_default(),
            cell(&record.r#type),
            known(&record.actor),
            known(&record.source),
            known(&record.about()),
            known(&record.comment),
            known(&record.detail),
        ]);
    }
    rows
}

/// What an endpoint says about its own chain.
#[derive(Debug, Serialize)]
struct VerdictView {
    endpoint: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    chain: Option<ChainView>,
}

#[derive(Debug, Serialize)]
struct ChainView {
    node_id: u64,
    revision: u64,
    whole: bool,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    links: Option<LinksView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    broken: Option<BreakView>,
}

#[derive(Debug, Serialize)]
struct LinksView {
    first_sequence: u64,
    last_sequence: u64,
    head: String,
}

#[derive(Debug, Serialize)]
struct BreakView {
    sequence: u64,
    reason: String,
}

/// Fails unless every endpoint says that its chain is whole; what was found is printed in any case.
async fn verify(global: &Global, options: &Options, output: Output) -> anyhow::Result<()> {
    let time = global.timeout.unwrap_or(WALK_TIMEOUT);
    // Whoever leads must not answer for an endpoint that is silent.
    let options = options.clone().timeout(time).attempt_timeout(time).follow_leader(false);
    let clients = endpoints::each(global, &options)?;
    let asked = clients.iter().map(|(endpoint, client)| async move {
        view((*endpoint).clone(), client.verify_audit(v1::VerifyAuditRequest {}).await)
    });
    let verdicts = join_all(asked).await.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    output.print(&verdicts, |verdicts| verdicts_table(verdicts))?;
    let faults: Vec<String> = verdicts.iter().filter_map(fault).collect();
    if !faults.is_empty() {
        bail!("not every endpoint has a whole audit log:\n{}", faults.join("\n"));
    }
    Ok(())
}

fn view(
    endpoint: String,
    answer: Result<v1::VerifyAuditResponse, Error>,
) -> anyhow::Result<VerdictView> {
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => {
            return Ok(VerdictView { endpoint, error: Some(error.to_string()), chain: None });
        }
    };
    let (links, broken) = match answer.verdict.context("the node's answer has no verdict")? {
        Verdict::Whole(chain) => {
            let links = LinksView {
                first_sequence: chain.first_sequence,
                last_sequence: chain.last_sequence,
                head: hex(&chain.head),
            };
            (Some(links), None)
        }
        Verdict::Broken(at) => (None, Some(BreakView { sequence: at.sequence, reason: at.reason })),
    };
    let chain = ChainView {
        node_id: answer.node_id,
        revision: answer.revision,
        whole: broken.is_none(),
        links,
        broken,
    };
    Ok(VerdictView { endpoint, error: None, chain: Some(chain) })
}

fn fault(verdict: &VerdictView) -> Option<String> {
    let what = match (&verdict.error, &verdict.chain) {
        (Some(error), _) => error.clone(),
        (None, Some(ChainView { node_id, broken: Some(at), .. })) => {
            let reason = cell(&at.reason);
            format!("the chain of node {node_id} is broken at record {}: {reason}", at.sequence)
        }
        (None, _) => return None,
    };
    Some(format!("  {}: {what}", verdict.endpoint))
}

fn verdicts_table(verdicts: &[VerdictView]) -> Table {
    let mut rows = table(&["ENDPOINT", "NODE", "CHAIN", "FIRST", "LAST", "HEAD"]);
    let dash = || "-".to_owned();
    for verdict in verdicts {
        let chain = verdict.chain.as_ref();
        let links = chain.and_then(|chain| chain.links.as_ref());
        rows.add_row([
            cell(&verdict.endpoint),
            chain.map_or_else(dash, |chain| chain.node_id.to_string()),
            match chain {
                Some(ChainView { broken: Some(at), .. }) => format!("broken at {}", at.sequence),
                Some(_) => "whole".to_owned(),
                None => dash(),
            },
            links.map_or_else(dash, |links| links.first_sequence.to_string()),
            links.map_or_else(dash, |links| links.last_sequence.to_string()),
            links.map_or_else(dash, |links| cell(&links.head)),
        ]);
    }
    rows
}

/// How long records stay.
#[derive(Debug, Serialize)]
struct RetentionView {
    max_age_ms: u64,
    max_bytes: u64,
}

async fn retention(client: &Client, args: Retention, output: Output) -> anyhow::Result<()> {
    let known = client.get_audit_retention(v1::GetAuditRetentionRequest {}).await?;
    let mut known = known.retention.context("the node's answer has no retention")?;
    let Retention { max_age, max_bytes } = args;
    if max_age.is_some() || max_bytes.is_some() {
        let asked = |age: Duration| u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        let wanted = v1::AuditRetention {
            max_age_ms: max_age.map_or(known.max_age_ms, asked),
            max_bytes: max_bytes.unwrap_or(known.max_bytes),
        };
        let request = v1::SetAuditRetentionRequest { retention: Some(wanted) };
        let set = client.set_audit_retention(request).await?;
        known = set.retention.context("the node's answer has no retention")?;
    }
    let view = RetentionView { max_age_ms: known.max_age_ms, max_bytes: known.max_bytes };
    output.print(&view, |view| {
        let mut rows = table(&["DAYS AT MOST", "BYTES AT MOST"]);
        rows.add_row([days(view.max_age_ms), view.max_bytes.to_string()]);
        rows
    })
}

/// Days with what is left of them, without a rounding that hides an hour.
fn days(ms: u64) -> String {
    const DAY_MS: u64 = 24 * 3_600_000;
    if ms.is_multiple_of(DAY_MS) {
        return (ms / DAY_MS).to_string();
    }
    format!("{:.2}", Duration::from_millis(ms).as_secs_f64() / 86_400.0)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(from: Option<&str>) -> AuditFilter {
        AuditFilter {
            kind: "config.set".into(),
            actor: String::new(),
            namespace: String::new(),
            key: String::new(),
            from: from.map(str::to_owned),
            to: None,
        }
    }

    fn record(targets: usize) -> RecordView {
        let target = v1::AuditTarget {
            namespace: "n".into(),
            key: "k".into(),
            environment: "base".into(),
            version: 1,
        };
        v1::AuditRecord {
            sequence: 7,
            r#type: "config.set".into(),
            actor: "ann".into(),
            targets: vec![target; targets],
            hash: vec![0xab; 32].into(),
            ..Default::default()
        }
        .into()
    }

    #[test]
    fn a_time_is_read_or_its_option_named() {
        let asked = request(filter(Some("2026-01-31T12:00:00Z"))).unwrap();
        assert_eq!(asked.from.unwrap().seconds, 1_769_860_800);
        let error = request(filter(Some("yesterday"))).unwrap_err();
        assert!(error.0.starts_with("--from: "), "{}", error.0);
    }

    #[test]
    fn a_record_is_one_line() {
        assert_eq!(line(&record(1)), "7 - config.set ann - n base k");
        assert!(line(&record(3)).ends_with("n base k and 2 more"), "{}", line(&record(3)));
        assert_eq!(record(0).hash, "ab".repeat(32));
        assert_eq!(records_table(&[record(1)]).to_string().lines().count(), 2);
    }

    #[test]
    fn only_a_whole_chain_is_no_fault() {
        let whole = v1::VerifyAuditResponse {
            node_id: 1,
            revision: 9,
            verdict: Some(Verdict::Whole(v1::AuditChain {
                first_sequence: 1,
                last_sequence: 5,
                ..Default::default()
            })),
        };
        let broken = v1::VerifyAuditResponse {
            verdict: Some(Verdict::Broken(v1::AuditBreak {
                sequence: 3,
                reason: "it was altered".into(),
            })),
            ..whole.clone()
        };
        let silent = Error::NotSent { reason: "no answer".into() };
        let verdicts: Vec<_> = [Ok(whole), Ok(broken), Err(silent)]
            .into_iter()
            .map(|answer| view("a:1".into(), answer).unwrap())
            .collect();
        let faults: Vec<_> = verdicts.iter().map(fault).collect();
        assert_eq!(faults[0], None);
        let broken = faults[1].as_deref().unwrap();
        assert!(broken.contains("node 1 is broken at record 3: it was altered"), "{broken}");
        assert!(faults[2].as_deref().unwrap().contains("no answer"));
        let text = verdicts_table(&verdicts).to_string();
        assert!(text.contains("whole") && text.contains("broken at 3"), "{text}");
        let json = serde_json::to_value(&verdicts[1]).unwrap();
        assert_eq!((&json["whole"], &json["broken"]["sequence"]), (&false.into(), &3.into()));
    }

    #[test]
    fn days_do_not_hide_hours() {
        assert_eq!(days(400 * 86_400_000), "400");
        assert_eq!(days(36 * 3_600_000), "1.50");
    }

    #[test]
    fn a_listing_that_does_not_advance_is_an_error() {
        let mut request = v1::ListAuditRequest::default();
        assert!(advance(&mut request.cursor, "a".into()).unwrap());
        assert!(advance(&mut request.cursor, "a".into()).is_err());
        assert!(!advance(&mut request.cursor, String::new()).unwrap());
    }
}
