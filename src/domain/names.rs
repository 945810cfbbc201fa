//! Namespace, key and environment: how an entry is addressed, and what a name may look like.
//!
//! A value of these types is valid by construction; storage keys (`keys.rs`) rely on names without control
//! characters, so that a zero byte can separate them.

use std::fmt;
use std::sync::Arc;

use crate::limits;

/// A request that can never succeed as it is written: which field is wrong, and what is allowed there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct InvalidArgument {
    /// The field's name as in the JSON API.
    pub field: &'static str,
    /// What is wrong with it and what is allowed.
    pub reason: String,
}

/// Every field that a refusal may name; a refusal that arrives from another node is mapped back onto these.
const FIELDS: [&str; 37] = [
    "namespace",
    "key",
    "env",
    "value",
    "description",
    "tags",
    "comment",
    "expected_version",
    "version",
    "compare",
    "success",
    "failure",
    "revision",
    "cluster_id",
    "history_limit",
    "id",
    "incarnation",
    "http",
    "grpc",
    "raft",
    "actor",
    "idempotency_key",
    "prefix",
    "limit",
    "name",
    "roles",
    "grants",
    "actions",
    "namespaces",
    "environments",
    "certificate",
    "address",
    "reason",
    "type",
    "max_age_ms",
    "max_bytes",
    "request",
];

impl InvalidArgument {
    /// Names the field and says why.
    pub fn new(field: &'static str, reason: impl Into<String>) -> Self {
        Self { field, reason: reason.into() }
    }

    /// Restores a refusal that was sent between nodes. A field this release does not know keeps its name in the reason.
    pub(crate) fn from_wire(field: &str, reason: String) -> Self {
        // The last is what an unknown field became at the node before.
        match FIELDS.iter().chain(&["request"]).find(|known| **known == field) {
            Some(known) => Self { field: known, reason },
            None => Self { field: "request", reason: format!("{field}: {reason}") },
        }
    }
}

/// `1..=max` bytes, or a refusal that says so.
fn check_length(field: &'static str, text: &str, max: usize) -> Result<(), InvalidArgument> {
    if text.is_empty() {
        return Err(InvalidArgument::new(field, format!("must not be empty; 1 to {max} bytes")));
    }
    if text.len() > max {
        return Err(InvalidArgument::new(
            field,
            format!("has {} bytes, at most {max} are allowed", text.len()),
        ));
    }
    Ok(())
}

/// Text of at most `max` bytes without control characters, or a refusal that says so.
pub(crate) fn check_line(
    field: &'static str,
    text: &str,
    max: usize,
) -> Result<(), InvalidArgument> {
    check_length(field, text, max)?;
    if text.chars().any(char::is_control) {
        return Err(InvalidArgument::new(field, "must not contain control characters"));
    }
    Ok(())
}

/// A namespace: segments of `[A-Za-z0-9._-]+` joined by `/`, 1 to 256 bytes, not `.` or `..` as a whole.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Namespace(Arc<str>);

impl Namespace {
    /// Checks the grammar.
    pub fn parse(text: &str) -> Result<Self, InvalidArgument> {
        const FIELD: &str = "namespace";
        check_length(FIELD, text, limits::NAMESPACE_BYTES_MAX)?;
        // URL parsers remove these two as path segments, so such a namespace could not be asked for again.
        if text == "." || text == ".." {
            return Err(InvalidArgument::new(FIELD, format!("must not be {text:?}")));
        }
        if text.split('/').any(str::is_empty) {
            return Err(InvalidArgument::new(
                FIELD,
                "has an empty segment; write segments joined by single slashes, as in \"team/service\"",
            ));
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/');
        match text.chars().find(|c| !allowed(*c)) {
            Some(c) => Err(InvalidArgument::new(
                FIELD,
                format!(
                    "contains {c:?}; allowed are letters, digits, '.', '_', '-', and '/' between segments"
                ),
            )),
            None => Ok(Self(text.into())),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A key: 1 to 512 bytes of UTF-8 without control characters, not `.` or `..`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

impl Key {
    /// Checks the grammar.
    pub fn parse(text: &str) -> Result<Self, InvalidArgument> {
        check_line("key", text, limits::KEY_BYTES_MAX)?;
        if text == "." || text == ".." {
            return Err(InvalidArgument::new("key", format!("must not be {text:?}")));
        }
        Ok(Self(text.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where an entry applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Environment {
    /// What every other environment falls back to.
    Base,
    /// `development`, `dev`.
    Development,
    /// `staging`, `stage`.
    Staging,
    /// `production`, `prod`.
    Production,
    /// `edge`: falls back to production, then base.
    Edge,
}

impl Environment {
    /// All of them, in the order of [`Environment::index`].
    pub const ALL: [Self; 5] =
        [Self::Base, Self::Development, Self::Staging, Self::Production, Self::Edge];

    /// Reads a name or one of the short forms `dev`, `stage`, `prod`.
    pub fn parse(text: &str) -> Result<Self, InvalidArgument> {
        match text {
            "base" => Ok(Self::Base),
            "development" | "dev" => Ok(Self::Development),
            "staging" | "stage" => Ok(Self::Staging),
            "production" | "prod" => Ok(Self::Production),
            "edge" => Ok(Self::Edge),
            _ => Err(InvalidArgument::new(
                "env",
                format!(
                    "{:?} is not an environment; allowed are base, development (dev), staging (stage), production (prod), edge",
                    text.chars().take(64).collect::<String>()
                ),
            )),
        }
    }

    /// The full name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Development => "development",
            Self::Staging => "staging",
            Self::Production => "production",
            Self::Edge => "edge",
        }
    }

    /// The number that stands for it in stored and sent bytes; never 0, so that a missing field is noticed.
    pub fn code(self) -> u8 {
        match self {
            Self::Base => 1,
            Self::Development => 2,
            Self::Staging => 3,
            Self::Production => 4,
            Self::Edge => 5,
        }
    }

    /// The inverse of [`Environment::code`].
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|environment| environment.code() == code)
    }

    /// Its place in [`Environment::ALL`], for tables with one slot per environment.
    pub fn index(self) -> usize {
        usize::from(self.code()) - 1
    }

    /// Where a lookup for this environment looks, first match wins. Production never sees staging.
    pub fn lookup_order(self) -> &'static [Self] {
        match self {
            Self::Base => &[Self::Base],
            Self::Development => &[Self::Development, Self::Base],
            Self::Staging => &[Self::Staging, Self::Base],
            Self::Production => &[Self::Production, Self::Base],
            Self::Edge => &[Self::Edge, Self::Production, Self::Base],
        }
    }
}

impl fmt::Display for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What an entry is found by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// The namespace.
    pub namespace: Namespace,
    /// The key within it.
    pub key: Key,
    /// The environment it applies to.
    pub environment: Environment,
}

impl Address {
    /// Parses all three parts.
    pub fn parse(namespace: &str, key: &str, environment: &str) -> Result<Self, InvalidArgument> {
        Ok(Self {
            namespace: Namespace::parse(namespace)?,
            key: Key::parse(key)?,
            environment: Environment::parse(environment)?,
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} in {}", self.namespace, self.key, self.environment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_follow_the_grammar() {
        for good in ["a", "team/service", "A.b_c-9", "a/..", "...", &"n".repeat(256)] {
            assert!(Namespace::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "/a", "a/", "a//b", "a b", "ä", "a\0", ".", "..", &"n".repeat(257)] {
            let error = Namespace::parse(bad).unwrap_err();
            assert_eq!(error.field, "namespace", "{bad}");
        }
    }

    #[test]
    fn keys_follow_the_grammar() {
        for good in
            ["a", "bedrock/us.anthropic.claude-3:0", "ключ 🦀", "...", " ", &"k".repeat(512)]
        {
            assert!(Key::parse(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a\nb", "a\u{85}", "\u{7f}", &"k".repeat(513)] {
            assert_eq!(Key::parse(bad).unwrap_err().field, "key", "{bad}");
        }
    }

    #[test]
    fn environments_have_aliases_and_stable_codes() {
        for (alias, name) in [("dev", "development"), ("stage", "staging"), ("prod", "production")]
        {
            assert_eq!(Environment::parse(alias), Environment::parse(name));
        }
        for (index, environment) in Environment::ALL.into_iter().enumerate() {
            assert_eq!(Environment::parse(environment.as_str()), Ok(environment));
            assert_eq!(Environment::from_code(environment.code()), Some(environment));
            assert_eq!(environment.index(), index);
            assert_eq!(environment.lookup_order()[0], environment);
        }
        assert_eq!(Environment::from_code(0), None);
        assert_eq!(Environment::parse("Production").unwrap_err().field, "env");
    }

    #[test]
    fn a_field_survives_the_wire() {
        for field in FIELDS {
            assert_eq!(
                InvalidArgument::from_wire(field, "x".into()),
                InvalidArgument::new(field, "x")
            );
        }
        let unknown = InvalidArgument::from_wire("later", "x".into());
        assert_eq!(unknown.to_string(), "request: later: x");
        assert_eq!(InvalidArgument::from_wire(unknown.field, unknown.reason.clone()), unknown);
    }
}
