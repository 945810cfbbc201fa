//! Where an entry is, as text on the command line.

use crate::Usage;

/// `NS KEY`, or `NS/KEY` where only one reading is possible.
pub(crate) fn parse(namespace: String, key: Option<String>) -> Result<(String, String), Usage> {
    if let Some(key) = key {
        return Ok((namespace, key));
    }
    match namespace.split_once('/') {
        Some((namespace, key))
            if !key.contains('/') && !namespace.is_empty() && !key.is_empty() =>
        {
            Ok((namespace.to_owned(), key.to_owned()))
        }
        Some(_) => Err(Usage(format!(
            "{namespace:?} can be read in more than one way; give the namespace and the key as two arguments"
        ))),
        None => Err(Usage(format!("{namespace:?} has no key; give a namespace and a key"))),
    }
}

/// A name as a word of a shell's command line.
pub(crate) fn quoted(name: &str) -> String {
    let plain = |char: char| char.is_ascii_alphanumeric() || "._-/:@%+=,[]".contains(char);
    if !name.is_empty() && !name.starts_with('-') && name.chars().all(plain) {
        return name.to_owned();
    }
    format!("'{}'", name.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_words_for_a_shell() {
        assert_eq!(quoted("bedrock/us.model-3:0"), "bedrock/us.model-3:0");
        assert_eq!(quoted("a b's"), r"'a b'\''s'");
        assert_eq!(quoted("$(x)"), "'$(x)'");
    }

    #[test]
    fn one_argument_has_one_reading_or_is_refused() {
        let place = |text: &str| parse(text.to_owned(), None).map_err(|error| error.0);
        assert_eq!(place("shop/model"), Ok(("shop".into(), "model".into())));
        for bad in ["shop", "shop/assistant/model", "/k", "n/", ""] {
            assert!(place(bad).is_err(), "{bad}");
        }
        let two = parse("a/b".into(), Some("c/d".into())).unwrap();
        assert_eq!(two, ("a/b".to_owned(), "c/d".to_owned()));
    }
}
