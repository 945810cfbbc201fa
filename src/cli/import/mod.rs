//! `import`: makes a namespace hold what a file says, in one transaction against the versions that were seen.
//!
//! Safe to interrupt and to run again: a transaction happens as a whole or not at all, keeps one idempotency key through
//! all its retries, and what is already as wanted is not written.

mod plan;

use std::collections::HashSet;

use anyhow::{Context as _, bail};
use llm_config_client::{Client, v1};

use crate::Usage;
use crate::args::Import;
use crate::document;
use crate::export::{self, Snapshot};
use crate::output::{self, Output, cell};
use plan::{Place, Plan, Step, parts, plan};

/// A file that fills the largest store that is meant to be.
const FILE_BYTES_MAX: u64 = 1 << 30;
/// How often it is all compared again because somebody changed an entry in between.
const TRIES: usize = 5;
/// Keys that a message names before it only counts them.
const KEYS_SHOWN: usize = 10;

/// What was written so far.
#[derive(Debug, Default)]
struct Done {
    keys: HashSet<String>,
    added: usize,
    changed: usize,
    deleted: usize,
    revision: u64,
}

pub(crate) async fn run(
    client: &Client,
    import: &Import,
    environment: &str,
    output: Output,
) -> anyhow::Result<()> {
    let text = output::read_file(&import.file, FILE_BYTES_MAX)?;
    let wanted = document::parse(&text, import.format, &import.file)
        .map_err(|error| Usage(format!("{}: {error:#}", import.file)))?;
    let place = Place { namespace: &import.namespace, environment, comment: &import.comment };
    let mut done = Done::default();
    let mut seen = snapshot(client, place).await?;
    let mut tries = 0;
    let mut may_delete = import.yes;
    loop {
        let plan = plan(&wanted, &seen, place, import.replace, &done.keys);
        if !plan.unknown.is_empty() {
            bail!(
                "the file has the mask of a secret and not its value for {}; nothing was written for them",
                list(plan.unknown.iter().map(String::as_str))
            );
        }
        if import.dry_run {
            plan.preview.print(output)?;
            masked(&plan);
            return Ok(());
        }
        if plan.deletes() > 0 && !may_delete {
            may_delete = ask(&plan, place)?;
        }
        let (unchanged, words) = (plan.preview.unchanged, masked_words(&plan));
        let parts = parts(plan.steps);
        if parts.len() > 1 && !import.in_parts {
            let operations: usize = parts.iter().map(Vec::len).sum();
            bail!(
                "{operations} entries differ, which is more than one transaction takes ({} operations, 4 MiB); \
                 --in-parts writes them in {} atomic parts",
                crate::txn::OPERATIONS_MAX,
                parts.len()
            );
        }
        if write(client, place, parts, &mut done).await? {
            let at = if done.revision == 0 { seen.revision } else { done.revision };
            output::say(&format!(
                "{} added, {} changed, {} deleted, {unchanged} unchanged, at revision {at}",
                done.added, done.changed, done.deleted
            ));
            if let Some(words) = words {
                output::say(&words);
            }
            return Ok(());
        }
        let now = snapshot(client, place).await?;
        let who = changed(&seen, &now);
        tries += 1;
        if tries == TRIES {
            let state = if done.keys.is_empty() {
                "nothing was written".to_owned()
            } else {
                format!("{} written in earlier parts stay", output::entries(done.keys.len()))
            };
            bail!(
                "others changed entries while this was going on, {TRIES} times in a row; {state}:\n{who}"
            );
        }
        output::say(&format!("others changed entries meanwhile; comparing again:\n{who}"));
        seen = now;
    }
}

async fn snapshot(client: &Client, place: Place<'_>) -> anyhow::Result<Snapshot> {
    export::snapshot(client, place.namespace, place.environment)
        .await
        .context("cannot read what is already there")
}

/// False when a comparison did not hold: what is left is not written.
async fn write(
    client: &Client,
    place: Place<'_>,
    parts: Vec<Vec<Step>>,
    done: &mut Done,
) -> anyhow::Result<bool> {
    let count = parts.len();
    for (index, part) in parts.into_iter().enumerate() {
        let keys: Vec<String> = part.iter().map(|step| step.key.clone()).collect();
        let new = part.iter().filter(|step| step.compare.version == 0).count();
        let deletes = part
            .iter()
            .filter(|step| matches!(step.op.op, Some(v1::txn_op::Op::Delete(_))))
            .count();
        let (compare, success) = part.into_iter().map(|step| (step.compare, step.op)).unzip();
        let request = v1::TxnRequest { compare, success, ..Default::default() };
        let answer = client.txn(request).await.with_context(|| match (done.keys.len(), count) {
            (0, _) => format!("the entries of {:?} were not written", place.namespace),
            (written, _) => {
                format!("{written} entries were written in earlier parts, the others not")
            }
        })?;
        if !answer.succeeded {
            return Ok(false);
        }
        done.added += new;
        done.deleted += deletes;
        done.changed += keys.len() - new - deletes;
        done.revision = answer.revision;
        if count > 1 {
            output::say(&format!(
                "part {} of {count}: {}, at revision {}",
                index + 1,
                output::entries(keys.len()),
                answer.revision
            ));
        }
        done.keys.extend(keys);
    }
    Ok(true)
}

fn ask(plan: &Plan, place: Place<'_>) -> anyhow::Result<bool> {
    let goes = plan.preview.changes.iter().filter(|change| change.action == "delete");
    let keys = list(goes.map(|change| change.key.as_str()));
    let what = format!("delete {} of {:?} ({})", keys, place.namespace, place.environment);
    if output::confirm(&format!("{what}?"))? {
        return Ok(true);
    }
    bail!("--replace would {what}; nothing was written; --yes agrees to it, --dry-run shows it")
}

fn masked_words(plan: &Plan) -> Option<String> {
    (plan.masked > 0)
        .then(|| format!("{} masked in the file: these secrets stay as they are", plan.masked))
}

fn masked(plan: &Plan) {
    if let Some(words) = masked_words(plan) {
        output::say(&words);
    }
}

/// Who changed what between two revisions.
fn changed(before: &Snapshot, now: &Snapshot) -> String {
    let mut lines = Vec::new();
    let mut more = 0;
    let mut line = |text: String| {
        if lines.len() < KEYS_SHOWN {
            lines.push(text);
        } else {
            more += 1;
        }
    };
    for (key, current) in &now.entries {
        let entry = &current.entry;
        let was = before.entries.get(key).map_or(0, |before| before.entry.version);
        if entry.version != was {
            let who = if entry.updated_by.is_empty() { "somebody" } else { &entry.updated_by };
            let at = entry.updated_at.map(|time| format!(" at {time}")).unwrap_or_default();
            line(format!("  {key:?}: version {}, by {}{at}", entry.version, cell(who)));
        }
    }
    for key in before.entries.keys().filter(|key| !now.entries.contains_key(*key)) {
        line(format!("  {key:?}: deleted"));
    }
    if more > 0 {
        lines.push(format!("  … and {more} more"));
    }
    if lines.is_empty() {
        lines.push("  (they are as they were again)".to_owned());
    }
    lines.join("\n")
}

/// The first keys by name, the others by number.
fn list<'a>(keys: impl Iterator<Item = &'a str>) -> String {
    let keys: Vec<&str> = keys.collect();
    let mut text: Vec<String> =
        keys.iter().take(KEYS_SHOWN).map(|key| format!("{key:?}")).collect();
    if keys.len() > KEYS_SHOWN {
        text.push(format!("… and {} more", keys.len() - KEYS_SHOWN));
    }
    text.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_named_up_to_a_number() {
        assert_eq!(list(["a", "b"].into_iter()), "\"a\", \"b\"");
        let many: Vec<String> = (0..KEYS_SHOWN + 3).map(|i| format!("k{i}")).collect();
        assert!(list(many.iter().map(String::as_str)).ends_with(", … and 3 more"));
    }

    #[test]
    fn who_changed_what_is_said() {
        let snapshot = |entries: &[(&str, u64)]| {
            let entry = |(key, version): &(&str, u64)| {
                let entry =
                    v1::Entry { version: *version, updated_by: "ann".into(), ..Default::default() };
                let value = crate::view::raw(b"1").unwrap();
                ((*key).to_owned(), export::Current { entry, value })
            };
            Snapshot { revision: 1, entries: entries.iter().map(entry).collect() }
        };
        let text =
            changed(&snapshot(&[("a", 1), ("b", 1), ("c", 1)]), &snapshot(&[("a", 1), ("b", 2)]));
        assert_eq!(text, "  \"b\": version 2, by ann\n  \"c\": deleted");
    }
}
