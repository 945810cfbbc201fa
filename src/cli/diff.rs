//! Differences for people: of two values by lines, and of what a change set would do. Writes nothing.
//!
//! Values are laid out first, so that a difference is a few lines, whatever form they were written in. A secret is never
//! part of one.

use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;
use similar::{ChangeTag, TextDiff};

use crate::args::Format;
use crate::json::{self, Tree};
use crate::output::{self, Output, Paint, cell, harmless};
use crate::yaml;

/// Afterwards a difference is found that is larger than it need be.
const SEARCH_MAX: Duration = Duration::from_millis(500);
/// Lines of context around a change.
const CONTEXT: usize = 3;

/// What becomes of one entry.
#[derive(Debug, Serialize)]
pub(crate) struct Change {
    pub(crate) action: &'static str,
    pub(crate) namespace: String,
    pub(crate) key: String,
    pub(crate) environment: String,
    /// The present version; 0 when it is not there.
    pub(crate) version: u64,
    pub(crate) secret: bool,
    /// Absent when it is not there, or a secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) before: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) after: Option<Box<RawValue>>,
}

/// What a change set would do.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Preview {
    pub(crate) changes: Vec<Change>,
    pub(crate) unchanged: usize,
}

/// An entry as it is, or would be: its version and value, and whether it is a secret.
#[derive(Debug, Clone)]
pub(crate) struct State {
    pub(crate) version: u64,
    pub(crate) value: Box<RawValue>,
    pub(crate) secret: bool,
}

impl Preview {
    /// Takes in what becomes of one entry. Whether a secret is a new value cannot be told; it counts as changed.
    pub(crate) fn add(
        &mut self,
        (namespace, key, environment): (&str, &str, &str),
        before: Option<&State>,
        after: Option<(&RawValue, bool)>,
    ) {
        let was_secret = before.is_some_and(|state| state.secret);
        let is_secret = after.map_or(was_secret, |(_, secret)| secret);
        let secret = was_secret || is_secret;
        let action = match (before, after) {
            (None, None) => return,
            (None, Some(_)) => "add",
            (Some(_), None) => "delete",
            (Some(before), Some((value, _))) if !secret && json::same(&before.value, value) => {
                self.unchanged += 1;
                return;
            }
            (Some(_), Some(_)) => "change",
        };
        self.changes.push(Change {
            action,
            namespace: namespace.to_owned(),
            key: key.to_owned(),
            environment: environment.to_owned(),
            version: before.map_or(0, |state| state.version),
            secret,
            before: before.filter(|_| !was_secret).map(|state| state.value.clone()),
            after: after.filter(|_| !is_secret).map(|(value, _)| value.to_owned()),
        });
    }

    /// Prints it on stdout as what would be done.
    pub(crate) fn print(&self, output: Output) -> anyhow::Result<()> {
        if output.format != Format::Table {
            return output.print(self, |_| output::table(&[]));
        }
        output::write(&self.text(output.paint))?;
        output::say("dry run: nothing was written");
        Ok(())
    }

    /// For people: each change with its lines, then the counts.
    pub(crate) fn text(&self, paint: Paint) -> String {
        let mut text = String::new();
        for change in &self.changes {
            text.push_str(&change.text(paint));
        }
        text.push_str(&self.counts());
        text.push('\n');
        text
    }

    /// How many of each kind.
    pub(crate) fn counts(&self) -> String {
        let count = |action| self.changes.iter().filter(|change| change.action == action).count();
        format!(
            "{} added, {} changed, {} deleted, {} unchanged",
            count("add"),
            count("change"),
            count("delete"),
            self.unchanged
        )
    }
}

impl Change {
    fn text(&self, paint: Paint) -> String {
        let place =
            format!("{} {} ({})", cell(&self.namespace), cell(&self.key), cell(&self.environment));
        let (head, was) = match self.action {
            "add" => (paint.good(&format!("+ {place}")), "new".to_owned()),
            "delete" => {
                (paint.bad(&format!("- {place}")), format!("deletes version {}", self.version))
            }
            _ => (paint.warn(&format!("~ {place}")), format!("changes version {}", self.version)),
        };
        let mut text = format!("{head} {was}\n");
        if self.secret {
            text.push_str("    (a secret: not shown)\n");
            return text;
        }
        for line in values(self.before.as_deref(), self.after.as_deref(), paint).lines() {
            text.push_str(&format!("    {line}\n"));
        }
        text
    }
}

/// The lines of two values that differ, with a few around them; a value that is not there has no lines.
pub(crate) fn values(before: Option<&RawValue>, after: Option<&RawValue>, paint: Paint) -> String {
    let trees = [before, after].map(|value| value.and_then(Tree::of));
    let form = match &trees {
        [Some(Tree::String(_)) | None, Some(Tree::String(_)) | None] => Form::Text,
        trees if trees.iter().flatten().any(Tree::has_lines) => Form::Yaml,
        _ => Form::Json,
    };
    let before = before.map(|value| form.lay_out(value)).unwrap_or_default();
    let after = after.map(|value| form.lay_out(value)).unwrap_or_default();
    lines(&before, &after, paint)
}

/// How values are laid out to be compared.
#[derive(Clone, Copy)]
enum Form {
    /// The text of a string itself, when it has several lines.
    Text,
    /// Its texts of several lines are lines.
    Yaml,
    Json,
}

impl Form {
    fn lay_out(self, value: &RawValue) -> String {
        match (self, Tree::of(value)) {
            (Self::Text, Some(Tree::String(text))) if text.contains('\n') => text,
            (Self::Yaml, Some(_)) => yaml::write(value),
            _ => json::pretty(value),
        }
    }
}

/// A difference by lines, without a head.
fn lines(before: &str, after: &str, paint: Paint) -> String {
    let end = |text: &str| match text {
        "" => String::new(),
        text if text.ends_with('\n') => text.to_owned(),
        text => format!("{text}\n"),
    };
    let (before, after) = (end(before), end(after));
    let mut search = TextDiff::configure();
    search.timeout(SEARCH_MAX);
    let diff = search.diff_lines(before.as_str(), after.as_str());
    let groups = diff.grouped_ops(CONTEXT);
    let mut text = String::new();
    for (index, group) in groups.iter().enumerate() {
        if index > 0 {
            text.push_str(&format!("{}\n", paint.faint("…")));
        }
        for op in group {
            for change in diff.iter_changes(op) {
                let value: &str = change.value();
                let line = harmless(value.trim_end_matches('\n'));
                let line = match change.tag() {
                    ChangeTag::Delete => paint.bad(&format!("- {line}")),
                    ChangeTag::Insert => paint.good(&format!("+ {line}")),
                    ChangeTag::Equal => format!("  {line}"),
                };
                text.push_str(&line);
                text.push('\n');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Paint = Paint(false);

    fn raw(text: &str) -> Box<RawValue> {
        serde_json::from_str(text).unwrap()
    }

    fn diff(before: &str, after: &str) -> String {
        values(Some(&raw(before)), Some(&raw(after)), PLAIN)
    }

    #[test]
    fn values_differ_by_lines_of_the_form_that_shows_most() {
        assert_eq!(
            diff("{\"a\":1.0,\"b\":2}", "{\"a\":1.00,\"b\":2}"),
            "  {\n-   \"a\": 1.0,\n+   \"a\": 1.00,\n    \"b\": 2\n  }\n"
        );
        assert_eq!(diff("\"x\\ny\"", "\"x\\nz\""), "  x\n- y\n+ z\n");
        assert_eq!(
            diff("{\"p\":\"x\\ny\"}", "{\"p\":\"x\\nz\"}"),
            "  p: |-\n    x\n-   y\n+   z\n"
        );
        assert_eq!(values(None, Some(&raw("1")), PLAIN), "+ 1\n");
        assert_eq!(diff("{\"a\":1}", "{ \"a\" : 1 }"), "");
    }

    #[test]
    fn colours_and_control_characters() {
        let text = values(Some(&raw("1")), Some(&raw("2")), Paint(true));
        assert!(text.contains("\u{1b}[31m- 1\u{1b}[0m"), "{text:?}");
        let text = diff("\"a\\nb\"", "\"a\\n\\u001b[2J\"");
        assert!(!text.contains('\u{1b}') && text.contains('\u{fffd}'), "{text:?}");
    }

    #[test]
    fn a_preview_counts_and_hides_secrets() {
        let state = |value: &str, secret| State { version: 3, value: raw(value), secret };
        let mut preview = Preview::default();
        let at = |key| ("n", key, "base");
        preview.add(at("new"), None, Some((&raw("1"), false)));
        preview.add(
            at("same"),
            Some(&state("{\"a\":1}", false)),
            Some((&raw("{\"a\": 1}"), false)),
        );
        preview.add(at("other"), Some(&state("1", false)), Some((&raw("2"), false)));
        preview.add(at("gone"), Some(&state("7", false)), None);
        preview.add(at("key"), Some(&state(json::MASK, true)), Some((&raw("\"hunter2\""), true)));
        preview.add(at("absent"), None, None);
        let text = preview.text(PLAIN);
        assert!(text.ends_with("1 added, 2 changed, 1 deleted, 1 unchanged\n"), "{text}");
        assert!(text.contains("~ n other (base) changes version 3\n    - 1\n    + 2\n"), "{text}");
        let json = serde_json::to_string(&preview).unwrap();
        for shown in [text, json] {
            assert!(!shown.contains("hunter2") && !shown.contains("****"), "{shown}");
        }
    }
}
