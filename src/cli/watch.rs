//! `watch`: prints each change as it happens; one line of JSON or one YAML document per change.

use llm_config_client::v1::watch_event::Kind;
use llm_config_client::{Client, v1};
use serde::Serialize;

use crate::args;
use crate::output::{Output, Paint, cell};
use crate::view::EntryView;

#[derive(Debug, Serialize)]
struct EventView {
    revision: u64,
    event: &'static str,
    entry: EntryView,
}

/// Runs until an error; interrupting the program is the ordinary end.
pub(crate) async fn run(
    client: &Client,
    args: args::Watch,
    environment: Option<String>,
    output: Output,
) -> anyhow::Result<()> {
    let mut watch = client.watch(v1::WatchRequest {
        // Neither of the two means every namespace.
        namespace: args.namespace.unwrap_or_default(),
        namespace_prefix: args.namespace_prefix.unwrap_or_default(),
        prefix: args.prefix,
        environment: environment.unwrap_or_default(),
        from_revision: args.from_revision,
    });
    while let Some(response) = watch.next().await {
        let response = response?;
        for event in response.events {
            if let Some(view) = view(response.revision, event)? {
                output.print_one_of_many(&view, |view| text(view, output.paint))?;
            }
        }
    }
    Ok(())
}

/// Kinds of later versions are left out rather than misnamed.
fn view(revision: u64, event: v1::WatchEvent) -> anyhow::Result<Option<EventView>> {
    let name = match event.kind() {
        Kind::Set => "set",
        Kind::Delete => "delete",
        Kind::Unspecified => return Ok(None),
    };
    let Some(entry) = event.entry else { return Ok(None) };
    let entry = EntryView::new(v1::Entry { deleted: entry.deleted || name == "delete", ..entry })?;
    Ok(Some(EventView { revision, event: name, entry }))
}

fn text(view: &EventView, paint: Paint) -> String {
    let entry = &view.entry;
    let event = if view.event == "delete" { paint.bad(view.event) } else { paint.good(view.event) };
    let line = format!(
        "{} {event} {} {} {} v{} {}",
        view.revision,
        cell(&entry.namespace),
        cell(&entry.environment),
        cell(&entry.key),
        entry.version,
        cell(entry.value_text()),
    );
    line.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: Kind, value: &str) -> v1::WatchEvent {
        v1::WatchEvent {
            kind: kind.into(),
            entry: Some(v1::Entry {
                namespace: "n".into(),
                environment: "base".into(),
                key: "k".into(),
                version: 3,
                value: value.to_owned().into(),
                ..Default::default()
            }),
        }
    }

    #[test]
    fn a_change_is_one_line() {
        let set = view(7, event(Kind::Set, "0.20")).unwrap().unwrap();
        assert_eq!(text(&set, Paint(false)), "7 set n base k v3 0.20");
        let delete = view(8, event(Kind::Delete, "")).unwrap().unwrap();
        assert_eq!(text(&delete, Paint(false)), "8 delete n base k v3");
        assert!(serde_json::to_string(&set).unwrap().contains("\"value\":0.20"));
    }

    #[test]
    fn an_unknown_kind_is_left_out() {
        assert!(view(7, event(Kind::Unspecified, "1")).unwrap().is_none());
    }
}
