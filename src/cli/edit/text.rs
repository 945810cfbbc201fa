//! A value as text in an editor, and back. No files and no processes here.

use serde_json::value::RawValue;

use crate::Usage;
use crate::json::{self, Tree, quoted};

/// How a line begins that explains; only at the top, where no JSON value begins like that.
const WORDS: &str = "# ";

/// The form in which a value is edited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Json,
    /// A string as the text that it is; whether the file got a line break at its end that the text has not.
    Text {
        line_break_added: bool,
    },
}

impl Form {
    pub(super) fn of(value: &RawValue, text: bool) -> Result<Self, Usage> {
        match (text, Tree::of(value)) {
            (false, _) => Ok(Self::Json),
            (true, Some(Tree::String(text))) => {
                Ok(Self::Text { line_break_added: !text.ends_with('\n') })
            }
            (true, _) => {
                Err(Usage("--text: this value is no string; leave the option out".to_owned()))
            }
        }
    }

    pub(super) fn extension(self) -> &'static str {
        match self {
            Self::Json => ".json",
            Self::Text { .. } => ".txt",
        }
    }

    /// What is in the editor at first.
    pub(super) fn show(self, value: &RawValue) -> String {
        match (self, Tree::of(value)) {
            (Self::Text { line_break_added }, Some(Tree::String(mut text))) => {
                if line_break_added {
                    text.push('\n');
                }
                text
            }
            _ => format!("{}\n", json::pretty(value)),
        }
    }

    /// The value that was typed, or what is wrong with it.
    pub(super) fn read(self, typed: &str) -> Result<Box<RawValue>, String> {
        let json = match self {
            Self::Text { line_break_added } => {
                let text = if line_break_added {
                    typed.strip_suffix('\n').unwrap_or(typed)
                } else {
                    typed
                };
                quoted(text)
            }
            Self::Json => without_words(typed).to_owned(),
        };
        if json.trim().is_empty() {
            return Err("the text is empty".to_owned());
        }
        serde_json::from_str(&json).map_err(|error| format!("this is not JSON: {error}"))
    }

    /// The text once more, with what is wrong above it.
    pub(super) fn complain(self, typed: &str, reason: &str) -> String {
        let reason: String =
            reason.chars().map(|char| if char.is_control() { ' ' } else { char }).collect();
        format!(
            "{WORDS}{reason}\n{WORDS}Mend it below; saved as it is, or empty, nothing is written.\n{}",
            without_words(typed)
        )
    }
}

/// Without the lines at the top that explain. Lines of an error are counted from the first one of the value.
fn without_words(typed: &str) -> &str {
    let mut rest = typed;
    while rest.starts_with('#') {
        rest = rest.split_once('\n').map_or("", |(_, rest)| rest);
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn what_is_shown_reads_back_as_what_it_was() {
        for (text, as_text) in [
            ("{\"a\":[1.10,{}]}", false),
            ("\"x\\ny\"", false),
            ("\"x\\ny\"", true),
            ("\"x\\n\"", true),
            ("\"# no comment\"", true),
        ] {
            let value = raw(text);
            let form = Form::of(&value, as_text).unwrap();
            let back = form.read(&form.show(&value)).unwrap();
            assert!(json::same(&value, &back), "{text} became {back}");
        }
        assert!(Form::of(&raw("1"), true).is_err());
    }

    #[test]
    fn an_editor_that_adds_no_line_break_changes_nothing() {
        let value = raw("\"x\"");
        assert_eq!(Form::of(&value, true).unwrap().read("x").unwrap().get(), "\"x\"");
    }

    #[test]
    fn a_complaint_stands_above_the_text_and_is_not_part_of_it() {
        let reason = Form::Json.read("{\"a\":}").unwrap_err();
        assert!(reason.contains("not JSON"), "{reason}");
        let again = Form::Json.complain("{\"a\":}", &reason);
        assert!(again.starts_with("# this is not JSON") && again.ends_with("{\"a\":}"), "{again}");
        let twice = Form::Json.complain(&again, "still not");
        assert_eq!(twice.lines().count(), 3, "{twice}");
        let mended = again.replace(":}", ":1}");
        assert_eq!(Form::Json.read(&mended).unwrap().get(), "{\"a\":1}");
        assert!(Form::Json.read("# only words").is_err());
    }
}
