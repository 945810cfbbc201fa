//! YAML in and out without losing how numbers are written: JSON values go through [`Tree`], never through floating point.

use std::fmt;

use anyhow::Context as _;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_saphyr::Spanned;

use crate::json::{Tree, quoted};

/// Longer keys have a form of their own in YAML.
const KEY_CHARS_MAX: usize = 1000;

/// Writes a value as a YAML document that ends with a line break.
pub(crate) fn write(value: &RawValue) -> String {
    let Some(tree) = Tree::of(value) else {
        // Nested too deeply for lines: JSON is YAML too.
        return format!("{}\n", value.get());
    };
    let mut out = String::new();
    block(&mut out, &tree, 0);
    if !out.ends_with('\n') {
        out.push('\n');
    }
    out.trim_start_matches(['\n', ' ']).to_owned()
}

/// What follows a key or a dash, in front of a space or line break of its own.
fn block(out: &mut String, tree: &Tree, depth: usize) {
    let indent = "  ".repeat(depth);
    match tree {
        Tree::Object(members) if !members.is_empty() => {
            for (name, value) in members {
                out.push_str(&format!("\n{indent}"));
                if name.chars().count() > KEY_CHARS_MAX {
                    out.push_str(&format!("? {}\n{indent}:", escaped(name)));
                } else {
                    out.push_str(&format!("{}:", scalar(name)));
                }
                block(out, value, depth + 1);
            }
        }
        Tree::Array(items) if !items.is_empty() => {
            for item in items {
                let mut inner = String::new();
                block(&mut inner, item, depth + 1);
                // The first line of what is in it stands behind the dash.
                out.push_str(&format!("\n{indent}- {}", inner.trim_start_matches(['\n', ' '])));
            }
        }
        Tree::Object(_) => out.push_str(" {}"),
        Tree::Array(_) => out.push_str(" []"),
        Tree::Plain(text) => out.push_str(&format!(" {text}")),
        Tree::String(text) if is_literal(text) => {
            let (mark, body) =
                text.strip_suffix('\n').map_or(("|-", text.as_str()), |body| ("|", body));
            // A document of one text needs an indentation, too.
            let indent = if depth == 0 { "  " } else { &indent };
            out.push_str(&format!(" {mark}"));
            for line in body.split('\n') {
                out.push('\n');
                if !line.is_empty() {
                    out.push_str(indent);
                    out.push_str(line);
                }
            }
        }
        Tree::String(text) => out.push_str(&format!(" {}", scalar(text))),
    }
}

/// Whether a text of several lines reads back as it is from a block of lines.
fn is_literal(text: &str) -> bool {
    let body = text.strip_suffix('\n').unwrap_or(text);
    text.contains('\n')
        && !body.is_empty()
        && !body.starts_with([' ', '\n', '\t'])
        && !body.ends_with(['\n', ' ', '\t'])
        && text.chars().all(|char| char == '\n' || is_printable(char))
}

/// Plain where that reads back as the same text, else in double quotes.
fn scalar(text: &str) -> String {
    let starts = text.chars().next().is_some_and(|char| char.is_ascii_alphabetic());
    let plain = |char: char| char.is_ascii_alphanumeric() || "_-./".contains(char);
    let word = !matches!(
        text.to_ascii_lowercase().as_str(),
        "true" | "false" | "null" | "yes" | "no" | "on" | "off" | "y" | "n"
    );
    if starts && word && text.chars().all(plain) { text.to_owned() } else { escaped(text) }
}

/// In double quotes: JSON's escapes are YAML's, and what YAML does not print is escaped too.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for char in quoted(text).chars() {
        if is_printable(char) {
            out.push(char);
        } else {
            out.push_str(&format!("\\U{:08x}", u32::from(char)));
        }
    }
    out
}

fn is_printable(char: char) -> bool {
    !char.is_control()
        && !matches!(char, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

/// Reads a YAML document into compact JSON text. Integers keep all their digits, and numbers that JSON writes alike their
/// text; a number that would have to be rounded is refused.
pub(crate) fn read(text: &str) -> anyhow::Result<Tree> {
    // The parser's limits are for text from strangers and would refuse a large import; the limit on aliases, which
    // alone make a small text large, stays.
    // Of the words for a truth value, YAML 1.2 keeps `true` and `false`: `no` is a country and `on` a word.
    let options = serde_saphyr::options! {
        strict_booleans: true,
        // What is too large for a double is looked at as text.
        non_finite_float_policy: serde_saphyr::options::NonFiniteFloatPolicy::PassThrough,
        budget: serde_saphyr::budget! {
            max_events: usize::MAX,
            max_nodes: usize::MAX,
            max_total_scalar_bytes: usize::MAX,
            max_reader_input_bytes: None,
        },
    };
    let node: Spanned<Node> =
        serde_saphyr::from_str_with_options(text, options).context("not YAML that JSON can say")?;
    tree(node, text)
}

/// A node of a document, before the text of its numbers was looked at.
enum Node {
    Word(&'static str),
    Integer(String),
    Float(f64),
    String(String),
    Array(Vec<Spanned<Node>>),
    Object(Vec<(String, Spanned<Node>)>),
}

fn tree(node: Spanned<Node>, text: &str) -> anyhow::Result<Tree> {
    let line = node.defined.line();
    let span = node.defined.span();
    let written = || {
        let start = usize::try_from(span.byte_offset()?).ok()?;
        let end = start.checked_add(usize::try_from(span.byte_len()?).ok()?)?;
        let slice = text.get(start..end)?.trim();
        // Only what is a number as it stands: no tag, no anchor, no form of YAML's own.
        serde_json::from_str::<&RawValue>(slice).ok().map(RawValue::get)
    };
    Ok(match node.value {
        Node::Word(word) => Tree::Plain(word.to_owned()),
        Node::Integer(digits) => match written() {
            Some(written) if written.parse() == digits.parse::<i128>() => {
                Tree::Plain(written.to_owned())
            }
            _ => Tree::Plain(digits),
        },
        Node::Float(float) => match written() {
            Some(written) if written.parse() == Ok(float) => Tree::Plain(written.to_owned()),
            // An integer that no type of the parser holds, or a form of YAML's own: never a silent rounding.
            _ if float.is_finite() && float.abs() < EXACT_MAX => {
                Tree::Plain(serde_json::to_string(&float)?)
            }
            _ => anyhow::bail!(
                "line {line}: a number that JSON cannot say without rounding it; write it in decimal digits, or as a text"
            ),
        },
        Node::String(text) => Tree::String(text),
        Node::Array(items) => {
            Tree::Array(items.into_iter().map(|item| tree(item, text)).collect::<Result<_, _>>()?)
        }
        Node::Object(members) => Tree::Object(
            members
                .into_iter()
                .map(|(name, value)| Ok((name, tree(value, text)?)))
                .collect::<anyhow::Result<_>>()?,
        ),
    })
}

/// 2^53: below it, every integer is a double of its own.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Nodes)
    }
}

struct Nodes;

impl<'de> Visitor<'de> for Nodes {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value that JSON can say")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Word(if value { "true" } else { "false" }))
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Word("null"))
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Word("null"))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Integer(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Integer(value.to_string()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Node, E> {
        Ok(Node::Integer(value.to_string()))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Node, E> {
        Ok(Node::Integer(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Node::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut members: Vec<(String, Spanned<Node>)> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        while let Some((name, value)) = map.next_entry::<String, Spanned<Node>>()? {
            if !seen.insert(name.clone()) {
                return Err(A::Error::custom(format_args!("the key {name:?} comes twice")));
            }
            members.push((name, value));
        }
        Ok(Node::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn what_is_written_reads_back_to_the_letter() {
        for text in [
            "null",
            "0.10",
            "\"yes\"",
            "\"\"",
            "[]",
            "{}",
            "[[],[{}],[[1]]]",
            "12345678901234567890123",
            r#"{"text":["yes","1.0","null","","a: b","- no","two\nlines","ü","😀"," lead","-","~","a\u0000b","\u007f\u2028","tail ","x #y","%","a\n","\na","a\n\n","a\n\n b","\t","1e3","0x10",".5",".inf","<<","=","2026-01-01"]}"#,
            r#"{"numbers":[0.1,1e-7,1E+5,12345678901234,-3,-0,1.00,9007199254740993,123456789012345678901234567890]}"#,
            r#"{"nested":{"a":{"b":["x\ny\n",{"c":"line\n  indented\n","d":[["s"]]}]},"<<":{"k":1},"yes":1,"1":2,"a:b/c":3,"":4,"sp ace":5}}"#,
            "\"one\\ntext\\n\"",
        ] {
            let yaml = write(&raw(text));
            let back = read(&yaml).unwrap_or_else(|error| panic!("{error:#}: {yaml}"));
            assert_eq!(Some(back), Tree::of(&raw(text)), "{yaml}");
        }
        let long = format!("{{\"{}\":[1]}}", "k".repeat(3000));
        assert_eq!(read(&write(&raw(&long))).unwrap().compact(), long);
    }

    #[test]
    fn lines_of_a_text_are_lines() {
        let yaml = write(&raw(r#"{"model":"m-1","prompt":"You are\nkind.\n","max":[1,{"a":2}]}"#));
        let expected = "model: m-1\nprompt: |\n  You are\n  kind.\nmax:\n  - 1\n  - a: 2\n";
        assert_eq!(yaml, expected);
    }

    #[test]
    fn numbers_keep_their_digits_or_are_refused() {
        let text = |yaml: &str| read(yaml).map(|tree| tree.compact());
        assert_eq!(
            text("a: 12345678901234567890123\n").unwrap(),
            "{\"a\":12345678901234567890123}"
        );
        assert_eq!(text("[0.10, 1.50e-7, 0x10, +5, -0.0]").unwrap(), "[0.10,1.50e-7,16,5,-0.0]");
        assert_eq!(text("a: &x 1.10\nb: *x\n").unwrap(), "{\"a\":1.10,\"b\":1.10}");
        let large = format!("[{}1e400]", "1".repeat(400) + ", ");
        assert_eq!(text(&large).unwrap(), large.replace(' ', ""));
        assert!(text("a: .nan\n").is_err());
        assert!(text("a: .inf\n").is_err());
        assert!(text("a: +123456789012345678901234567890\n").is_err(), "it would be rounded");
    }
}
