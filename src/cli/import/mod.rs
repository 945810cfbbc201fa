//! `import`: writes an object key -> value, a bounded number of writes at a time.
//!
//! Safe to interrupt and to run again: entries that already have the wanted value are not written, and inside a run
//! every write keeps one idempotency key through all its retries, so a change of leader half-way neither loses nor
//! doubles one.

pub(crate) mod parse;
mod plan;
mod progress;

use std::io::Read as _;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, bail};
use futures::StreamExt as _;
use llm_config_client::{Client, Error, v1};

use crate::Usage;
use crate::args::Import;
use crate::export;
use plan::{Plan, Write};
use progress::Progress;

const WRITES_IN_FLIGHT: usize = 32;
const FAILURES_SHOWN: usize = 10;

/// What became of the writes.
#[derive(Debug, Default)]
struct Tally {
    written: usize,
    failed: usize,
    reasons: Vec<String>,
}

pub(crate) async fn run(client: &Client, import: &Import, environment: &str) -> anyhow::Result<()> {
    let text = read(&import.file)?;
    let entries = parse::parse(&text, import.format, &import.file)
        .map_err(|error| Usage(format!("{}: {error:#}", import.file)))?;
    let existing = export::current(client, &import.namespace, environment)
        .await
        .context("cannot read what is already there")?;
    let Plan { writes, unchanged, masked, unknown } = plan::plan(entries, &existing);
    let mut tally = write_all(client, import, environment, writes).await;
    for key in unknown {
        tally.count(&key, Err("the file has the mask of a secret and not its value".to_owned()));
    }
    eprintln!("{} written, {unchanged} unchanged, {} failed", tally.written, tally.failed);
    if masked > 0 {
        eprintln!("{masked} masked in the file: these secrets stay as they are");
    }
    if tally.failed > 0 {
        bail!("{} of the entries were not written:\n{}", tally.failed, tally.summary());
    }
    Ok(())
}

fn read(file: &str) -> anyhow::Result<Vec<u8>> {
    let mut text = Vec::new();
    if file == "-" {
        std::io::stdin().read_to_end(&mut text).context("cannot read stdin")?;
        return Ok(text);
    }
    std::fs::read(file).map_err(|error| Usage(format!("cannot read {file}: {error}")).into())
}

async fn write_all(
    client: &Client,
    import: &Import,
    environment: &str,
    writes: Vec<Write>,
) -> Tally {
    let mut progress = Progress::new(writes.len());
    let mut tally = Tally::default();
    // Without a cluster every remaining entry would wait out its own timeout: the first such failure ends the run.
    let given_up = AtomicBool::new(false);
    let mut results = futures::stream::iter(writes)
        .map(|write| {
            let given_up = &given_up;
            async move {
                if given_up.load(Ordering::Relaxed) {
                    return (write.key, Err("not tried: the cluster does not answer".to_owned()));
                }
                let result = client.set(request(import, environment, &write)).await;
                if matches!(result, Err(Error::NotSent { .. } | Error::OutcomeUnknown { .. })) {
                    given_up.store(true, Ordering::Relaxed);
                }
                (write.key, result.map(drop).map_err(|error| error.to_string()))
            }
        })
        .buffer_unordered(WRITES_IN_FLIGHT);
    while let Some((key, result)) = results.next().await {
        tally.count(&key, result);
        progress.advance();
    }
    progress.finish();
    tally
}

fn request(import: &Import, environment: &str, write: &Write) -> v1::SetRequest {
    v1::SetRequest {
        namespace: import.namespace.clone(),
        key: write.key.clone(),
        environment: environment.to_owned(),
        value: write.value.clone().into(),
        comment: import.comment.clone(),
        ..Default::default()
    }
}

impl Tally {
    fn count(&mut self, key: &str, result: Result<(), String>) {
        match result {
            Ok(()) => self.written += 1,
            Err(reason) => {
                self.failed += 1;
                if self.reasons.len() < FAILURES_SHOWN {
                    self.reasons.push(format!("  {key:?}: {reason}"));
                }
            }
        }
    }

    fn summary(&self) -> String {
        let mut text = self.reasons.join("\n");
        if self.failed > self.reasons.len() {
            text.push_str(&format!("\n  … and {} more", self.failed - self.reasons.len()));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_names_the_first_failures_and_counts_the_rest() {
        let mut tally = Tally::default();
        tally.count("good", Ok(()));
        for i in 0..FAILURES_SHOWN + 3 {
            tally.count(&format!("k{i}"), Err("refused".into()));
        }
        let summary = tally.summary();
        assert_eq!((tally.written, tally.failed), (1, FAILURES_SHOWN + 3));
        assert!(
            summary.contains("\"k0\": refused") && summary.ends_with("… and 3 more"),
            "{summary}"
        );
    }
}
