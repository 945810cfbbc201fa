//! Reads documents from files: JSON keeps its text, YAML becomes JSON without rounding a number.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use anyhow::{Context as _, bail};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::args::FileFormat;
use crate::yaml;

pub(crate) type Entries = Vec<(String, Box<RawValue>)>;

/// The entries of the file, in its order.
pub(crate) fn parse(
    text: &[u8],
    format: Option<FileFormat>,
    name: &str,
) -> anyhow::Result<Entries> {
    let text = json(text, format, name)?;
    let object: Object = serde_json::from_str(&text).context("not an object key -> value")?;
    Ok(object.0)
}

/// The document in a file as JSON text, whichever of the two it is; numbers keep their text.
pub(crate) fn json<'a>(
    text: &'a [u8],
    format: Option<FileFormat>,
    name: &str,
) -> anyhow::Result<Cow<'a, str>> {
    let text = std::str::from_utf8(text).context("is not UTF-8 text")?;
    match format.unwrap_or_else(|| guess(text, name)) {
        FileFormat::Json => Ok(text.into()),
        FileFormat::Yaml if text.trim().is_empty() => {
            bail!("is empty; an object without entries is {{}}")
        }
        FileFormat::Yaml => Ok(yaml::read(text)?.compact().into()),
    }
}

fn guess(text: &str, name: &str) -> FileFormat {
    let name = name.to_ascii_lowercase();
    if name.ends_with(".yaml") || name.ends_with(".yml") {
        FileFormat::Yaml
    } else if name.ends_with(".json") || text.trim_start().starts_with(['{', '[']) {
        FileFormat::Json
    } else {
        FileFormat::Yaml
    }
}

/// A JSON object in its order, refusing a key that comes twice: one of the two values would silently be lost.
struct Object(Entries);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object key -> value")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let (mut entries, mut seen) = (Vec::new(), HashSet::new());
                while let Some((key, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    if !seen.insert(key.clone()) {
                        return Err(A::Error::custom(format_args!("the key {key:?} comes twice")));
                    }
                    entries.push((key, value));
                }
                Ok(Object(entries))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str, name: &str) -> Vec<(String, String)> {
        parse(text.as_bytes(), None, name)
            .unwrap()
            .into_iter()
            .map(|(key, value)| (key, value.get().to_owned()))
            .collect()
    }

    fn fails(text: &str, name: &str) -> String {
        format!("{:#}", parse(text.as_bytes(), None, name).unwrap_err())
    }

    #[test]
    fn json_keeps_order_and_the_text_of_numbers() {
        let entries = texts("{\"b\": 1.10, \"a/x:0\": {\"n\": 2e-7}}", "f.json");
        assert_eq!(entries[0], ("b".into(), "1.10".into()));
        assert_eq!(entries[1], ("a/x:0".into(), "{\"n\": 2e-7}".into()));
    }

    #[test]
    fn yaml_becomes_json() {
        let entries = texts("a: [1, yes please, null]\nb:\n  c: 0.5\n", "f.yml");
        assert_eq!(entries[0], ("a".into(), "[1,\"yes please\",null]".into()));
        assert_eq!(entries[1], ("b".into(), "{\"c\":0.5}".into()));
    }

    #[test]
    fn yaml_words_are_not_truth_values() {
        let entries = texts("a: [no, on, y, NO]\nb: [true, false]\n", "f.yml");
        assert_eq!(entries[0].1, "[\"no\",\"on\",\"y\",\"NO\"]");
        assert_eq!(entries[1].1, "[true,false]");
    }

    #[test]
    fn the_format_follows_the_name_then_the_text() {
        assert_eq!(guess("a: 1", "-"), FileFormat::Yaml);
        assert_eq!(guess(" \n{\"a\":1}", "-"), FileFormat::Json);
        assert_eq!(guess("{a: 1}", "x.YAML"), FileFormat::Yaml);
        assert_eq!(guess("", "x.json"), FileFormat::Json);
    }

    #[test]
    fn what_is_not_an_object_is_refused() {
        for (text, name) in [
            ("[1]", "f.json"),
            ("", "f.json"),
            ("", "f.yaml"),
            ("- a", "f.yaml"),
            ("{\"a\":1} x", "f.json"),
        ] {
            assert!(parse(text.as_bytes(), None, name).is_err(), "{text:?}");
        }
        assert!(parse(&[0xff, 0xfe], None, "f.json").is_err());
    }

    #[test]
    fn a_key_that_comes_twice_is_refused() {
        assert!(fails("{\"a\":1,\"a\":2}", "f.json").contains("\"a\" comes twice"));
        assert!(parse(b"a: 1\na: 2\n", None, "f.yaml").is_err());
    }

    #[test]
    fn yaml_values_that_json_cannot_say_are_refused() {
        assert!(parse(b"a: .nan\n", None, "f.yaml").is_err());
    }

    #[test]
    fn a_large_yaml_file_is_read_and_an_alias_bomb_is_not() {
        let large: String =
            (0..60_000).map(|i| format!("key-{i}: {{a: {i}, b: [x, y]}}\n")).collect();
        assert_eq!(texts(&large, "f.yaml").len(), 60_000);
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for i in 1..12 {
            let aliases = vec![format!("*a{}", i - 1); 10].join(", ");
            bomb.push_str(&format!("a{i}: &a{i} [{aliases}]\n"));
        }
        assert!(parse(bomb.as_bytes(), None, "f.yaml").is_err());
    }
}
