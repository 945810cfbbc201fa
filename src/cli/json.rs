//! JSON text without losing how numbers are written: a number's text is data (`0.10`, `2.0e-6` in a price list), so
//! values are compared and laid out as text, never through floating point.

use serde_json::value::RawValue;

/// What is shown instead of a secret.
pub(crate) const MASK: &str = "\"********\"";

const INDENT: &str = "  ";
/// Deeper than any node takes.
const DEPTH_MAX: usize = 128;

/// A JSON value whose numbers are text. Objects keep their order, and all their members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Tree {
    /// `null`, `true`, `false` or a number, as it is written.
    Plain(String),
    String(String),
    Array(Vec<Tree>),
    Object(Vec<(String, Tree)>),
}

impl Tree {
    /// The value of a JSON text; nothing when it is nested too deeply.
    pub(crate) fn of(value: &RawValue) -> Option<Self> {
        Reader { rest: value.get() }.value(0)
    }

    /// As compact JSON text.
    pub(crate) fn compact(&self) -> String {
        let mut out = String::new();
        self.write(&mut out, None);
        out
    }

    /// As JSON text on lines, indented by two spaces.
    pub(crate) fn pretty(&self) -> String {
        let mut out = String::new();
        self.write(&mut out, Some(0));
        out
    }

    fn write(&self, out: &mut String, depth: Option<usize>) {
        match self {
            Self::Plain(text) => out.push_str(text),
            Self::String(text) => out.push_str(&quoted(text)),
            Self::Array(items) => list(out, depth, ('[', ']'), items, |out, item, depth| {
                item.write(out, depth);
            }),
            Self::Object(members) => {
                list(out, depth, ('{', '}'), members, |out, (name, value), depth| {
                    out.push_str(&quoted(name));
                    out.push_str(if depth.is_some() { ": " } else { ":" });
                    value.write(out, depth);
                });
            }
        }
    }

    fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Array(a), Self::Array(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.same(b))
            }
            (Self::Object(a), Self::Object(b)) => {
                let (a, b) = (sorted(a), sorted(b));
                a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| a.0 == b.0 && a.1.same(&b.1))
            }
            _ => self == other,
        }
    }

    /// Whether a text of several lines is in it.
    pub(crate) fn has_lines(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::String(text) => text.contains('\n'),
            Self::Array(items) => items.iter().any(Self::has_lines),
            Self::Object(members) => members.iter().any(|(_, value)| value.has_lines()),
        }
    }
}

/// By name; of members with one name the last, as everywhere.
fn sorted(members: &[(String, Tree)]) -> Vec<&(String, Tree)> {
    let mut sorted: Vec<_> = members.iter().rev().collect();
    sorted.sort_by(|a, b| a.0.cmp(&b.0));
    sorted.dedup_by(|a, b| a.0 == b.0);
    sorted
}

fn list<T>(
    out: &mut String,
    depth: Option<usize>,
    (open, close): (char, char),
    items: &[T],
    mut write: impl FnMut(&mut String, &T, Option<usize>),
) {
    let line = |out: &mut String, depth: Option<usize>| {
        if let Some(depth) = depth {
            out.push('\n');
            out.push_str(&INDENT.repeat(depth));
        }
    };
    out.push(open);
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        let inner = depth.map(|depth| depth + 1);
        line(out, inner);
        write(out, item, inner);
    }
    if !items.is_empty() {
        line(out, depth);
    }
    out.push(close);
}

/// A text as a JSON string.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Reads text that is known to be JSON; gives up where it is not, rather than guess.
struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn value(&mut self, depth: usize) -> Option<Tree> {
        if depth > DEPTH_MAX {
            return None;
        }
        self.space();
        match self.rest.as_bytes().first()? {
            b'{' => {
                let members = self.list('}', |reader| {
                    reader.space();
                    let name = reader.string()?;
                    reader.token(':')?;
                    Some((name, reader.value(depth + 1)?))
                })?;
                Some(Tree::Object(members))
            }
            b'[' => Some(Tree::Array(self.list(']', |reader| reader.value(depth + 1))?)),
            b'"' => self.string().map(Tree::String),
            _ => {
                let ends = |char: char| ",]}".contains(char) || char.is_ascii_whitespace();
                let end = self.rest.find(ends).unwrap_or(self.rest.len());
                self.take(end).filter(|text| !text.is_empty()).map(|text| Tree::Plain(text.into()))
            }
        }
    }

    /// Items up to `close`, separated by commas.
    fn list<T>(&mut self, close: char, item: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let mut items = Vec::new();
        self.take(1)?;
        if self.token(close).is_some() {
            return Some(items);
        }
        loop {
            items.push(item(self)?);
            if self.token(',').is_none() {
                return self.token(close).map(|()| items);
            }
        }
    }

    fn string(&mut self) -> Option<String> {
        let mut escaped = false;
        let inside = self.rest.strip_prefix('"')?;
        let end = inside.find(|char| {
            let ends = char == '"' && !escaped;
            escaped = !escaped && char == '\\';
            ends
        })?;
        serde_json::from_str(self.take(end + 2)?).ok()
    }

    fn token(&mut self, token: char) -> Option<()> {
        self.space();
        self.rest = self.rest.strip_prefix(token)?;
        Some(())
    }

    fn space(&mut self) {
        self.rest = self.rest.trim_start_matches(|char: char| char.is_ascii_whitespace());
    }

    fn take(&mut self, bytes: usize) -> Option<&'a str> {
        let (taken, rest) = self.rest.split_at_checked(bytes)?;
        self.rest = rest;
        Some(taken)
    }
}

/// The text without insignificant white space.
pub(crate) fn compact(value: &RawValue) -> String {
    let mut compact = String::with_capacity(value.get().len());
    let (mut in_string, mut escaped) = (false, false);
    for char in value.get().chars() {
        if in_string {
            in_string = escaped || char != '"';
            escaped = !escaped && char == '\\';
        } else if char.is_ascii_whitespace() {
            continue;
        } else {
            in_string = char == '"';
        }
        compact.push(char);
    }
    compact
}

/// On lines, as people like to read it; as it is where it is nested too deeply for that.
pub(crate) fn pretty(value: &RawValue) -> String {
    Tree::of(value).map_or_else(|| value.get().to_owned(), |tree| tree.pretty())
}

/// Equal as JSON values; numbers only when written alike, objects in any order.
pub(crate) fn same(a: &RawValue, b: &RawValue) -> bool {
    if a.get() == b.get() {
        return true;
    }
    match (Tree::of(a), Tree::of(b)) {
        (Some(a), Some(b)) => a.same(&b),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn compact_touches_nothing_inside_strings_or_numbers() {
        let value = raw("{ \"a b\" : [ 1.10 , 1E5 , \"x \\\" y\\\\\" , null ] ,\n\"c\":\t\" \" }");
        assert_eq!(compact(&value), r#"{"a b":[1.10,1E5,"x \" y\\",null],"c":" "}"#);
    }

    #[test]
    fn values_are_compared_as_json_and_numbers_as_written() {
        for (a, b, equal) in [
            ("{\"a\":1,\"b\":[true]}", "{ \"b\": [ true ], \"a\": 1 }", true),
            ("\"\\u0041\"", "\"A\"", true),
            ("1.0", "1.0", true),
            ("1.0", "1.00", false),
            ("12345678901234567890123", "12345678901234567890124", false),
            ("{\"a\":1}", "{\"a\":1,\"b\":null}", false),
            ("[1,2]", "[2,1]", false),
            ("\"1\"", "1", false),
        ] {
            assert_eq!(same(&raw(a), &raw(b)), equal, "{a} {b}");
        }
    }

    #[test]
    fn pretty_keeps_order_and_numbers() {
        let value = raw(r#"{"z":[1.10,{}],"a":{"e":2E-7,"q\"":"\u0041\n"},"n":[]}"#);
        let text = "{\n  \"z\": [\n    1.10,\n    {}\n  ],\n  \"a\": {\n    \"e\": 2E-7,\n    \
                    \"q\\\"\": \"A\\n\"\n  },\n  \"n\": []\n}";
        assert_eq!(pretty(&value), text);
        assert!(same(&value, &raw(text)));
    }

    #[test]
    fn what_is_nested_too_deeply_is_left_as_it_is() {
        let deep = raw(&format!("{}{}", "[".repeat(20_000), "]".repeat(20_000)));
        assert!(Tree::of(&deep).is_none());
        assert_eq!(pretty(&deep), deep.get());
    }
}
