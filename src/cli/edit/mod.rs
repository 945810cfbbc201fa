//! `edit`: a value in the user's editor and back, written only if nobody changed the entry meanwhile.
//!
//! The text is in a folder that only its owner can enter, which is removed however this ends; a secret's is in memory
//! where the machine has such a place. What somebody typed is not lost: where it cannot be written it is kept in a file,
//! a secret excepted.

mod editor;
mod text;

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use llm_config_client::{Client, Error, v1};
use serde_json::value::RawValue;

use crate::Usage;
use crate::args::Edit;
use crate::diff::{self, Preview, State};
use crate::json;
use crate::output::{self, Output, Paint};
use crate::place;
use crate::view::{EntryView, entries_table, raw};
use editor::Desk;
use text::Form;

pub(crate) async fn run(
    client: &Client,
    args: Edit,
    environment: String,
    output: Output,
    words: Paint,
) -> anyhow::Result<()> {
    let (namespace, key) = place::parse(args.namespace, args.key)?;
    let request = v1::GetRequest {
        namespace,
        key,
        environment,
        read: Some(v1::ReadOptions {
            consistency: v1::Consistency::Linearizable.into(),
            ..Default::default()
        }),
        reveal: args.reveal,
        ..Default::default()
    };
    let entry = client.get(request).await?;
    if entry.secret && !args.reveal {
        return Err(Usage(
            "this is a secret; --reveal shows its plaintext in the editor".to_owned(),
        )
        .into());
    }
    let before = raw(&entry.value)?;
    let form = Form::of(&before, args.text)?;
    let desk = Desk::new(entry.secret, form.extension())?;
    let Some(after) = edit(&desk, &form, &before).await? else {
        output::say("unchanged: nothing was written");
        return Ok(());
    };
    if args.dry_run {
        return preview(&entry, before, &after, output);
    }
    if !entry.secret {
        output::say(diff::values(Some(&before), Some(&after), words).trim_end());
    }
    match client.set(write(&entry, &after, args.comment)).await {
        Ok(response) => {
            let entry = EntryView::new(response.entry.context("the node's answer has no entry")?)?;
            output.print(&entry, |entry| entries_table(std::slice::from_ref(entry)))
        }
        Err(error) => Err(kept(error, &entry, &form, &after)),
    }
}

/// The new value; nothing when it is the old one. Opens the editor again while what comes out of it is no value.
async fn edit(
    desk: &Desk,
    form: &Form,
    before: &RawValue,
) -> anyhow::Result<Option<Box<RawValue>>> {
    let mut shown = form.show(before);
    loop {
        let typed = desk.edit(&shown).await?;
        // The second time with the same mistake is giving up.
        let given_up = typed == shown;
        match form.read(&typed) {
            Ok(after) if json::same(before, &after) => return Ok(None),
            Ok(after) => return Ok(Some(after)),
            Err(reason) if given_up || typed.trim().is_empty() => {
                let where_to = if typed.trim().is_empty() { None } else { desk.keep(&typed)? };
                bail!("{reason}; nothing was written{}", told(where_to));
            }
            Err(reason) => {
                output::say(&format!("{reason}; opening the editor again"));
                shown = form.complain(&typed, &reason);
            }
        }
    }
}

fn preview(
    entry: &v1::Entry,
    before: Box<RawValue>,
    after: &RawValue,
    output: Output,
) -> anyhow::Result<()> {
    let state = State { version: entry.version, value: before, secret: entry.secret };
    let mut preview = Preview::default();
    let at = (entry.namespace.as_str(), entry.key.as_str(), entry.environment.as_str());
    preview.add(at, Some(&state), Some((after, entry.secret)));
    preview.print(output)
}

/// What else the entry has stays as it is.
fn write(entry: &v1::Entry, after: &RawValue, comment: String) -> v1::SetRequest {
    v1::SetRequest {
        namespace: entry.namespace.clone(),
        key: entry.key.clone(),
        environment: entry.environment.clone(),
        value: json::compact(after).into(),
        description: entry.description.clone(),
        tags: entry.tags.clone(),
        comment,
        expected_version: Some(entry.version),
        secret: Some(entry.secret),
        idempotency_key: String::new(),
    }
}

/// The error, and where the text is that was not written.
fn kept(error: Error, entry: &v1::Entry, form: &Form, after: &RawValue) -> anyhow::Error {
    let conflict = error.rejection().is_some_and(|rejection| rejection.code == "VERSION_CONFLICT");
    let file =
        if entry.secret { Ok(None) } else { editor::keep(&form.show(after), form.extension()) };
    let mut words = match file {
        Ok(file) => told(file),
        Err(failure) => format!("; your text could not be kept: {failure:#}"),
    };
    if conflict {
        words.push_str(&next_step(&error, entry));
    }
    anyhow::Error::new(error).context(format!("not written{words}"))
}

/// How to go on after somebody else was quicker.
fn next_step(error: &Error, entry: &v1::Entry) -> String {
    let place = format!(
        "{} {} --env {}",
        place::quoted(&entry.namespace),
        place::quoted(&entry.key),
        entry.environment
    );
    let seen = entry.version;
    match error.rejection().and_then(|rejection| rejection.current_version()) {
        Some(0) => format!("; the entry was deleted while you edited version {seen}"),
        Some(now) => format!(
            "; the entry was changed while you edited version {seen}: see `llm-config diff {place} --from {seen} --to {now}`, \
             then edit again"
        ),
        None => format!(
            "; the entry was changed while you edited version {seen}: see `llm-config history {place}`, then edit again"
        ),
    }
}

fn told(file: Option<PathBuf>) -> String {
    match file {
        Some(path) => format!("; your text is in {}", path.display()),
        None => String::new(),
    }
}
