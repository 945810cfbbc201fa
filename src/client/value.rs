//! Values: from the JSON text of an entry to a type of the application, and back.
//!
//! The text is read into the type directly and written from it directly, so a number has as many digits as the type can
//! hold. `serde_json::value::RawValue` holds all of them.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_path_to_error::Segment;

use crate::error::Error;
use crate::v1;

/// A value, and what the store knows about this version of it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Versioned<T> {
    /// The value itself; the string `********` for a secret that was not asked for with `reveal`.
    pub value: T,
    /// The key of the entry.
    pub key: String,
    /// The environment that the value is from, which may be one that was fallen back to.
    pub environment: String,
    /// Counts the changes of this entry, from 1.
    pub version: u64,
    /// The revision of the store that made this version.
    pub revision: u64,
    /// It is stored encrypted.
    pub secret: bool,
    /// When the entry was made, by the leader's clock.
    pub created_at: Option<SystemTime>,
    /// Who made it.
    pub created_by: String,
    /// When this version was made, by the leader's clock.
    pub updated_at: Option<SystemTime>,
    /// Who made this version.
    pub updated_by: String,
    /// What the entry is for.
    pub description: String,
    /// Its tags.
    pub tags: Vec<String>,
    /// Why this version was made.
    pub comment: String,
}

/// A namespace as an application sees it, in a type of the application.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Resolved<T> {
    /// The values, with each key as a field.
    pub value: T,
    /// What the answering node had applied.
    pub revision: u64,
    /// Which environment each key's value is from.
    pub sources: BTreeMap<String, String>,
}

impl<T> Versioned<T> {
    pub(crate) fn new(value: T, entry: v1::Entry) -> Self {
        let time = |at: Option<_>| at.and_then(|at| SystemTime::try_from(at).ok());
        Self {
            value,
            key: entry.key,
            environment: entry.environment,
            version: entry.version,
            revision: entry.revision,
            secret: entry.secret,
            created_at: time(entry.created_at),
            created_by: entry.created_by,
            updated_at: time(entry.updated_at),
            updated_by: entry.updated_by,
            description: entry.description,
            tags: entry.tags,
            comment: entry.comment,
        }
    }
}

impl<T: DeserializeOwned> Versioned<T> {
    /// An entry that is not deleted.
    pub(crate) fn of(entry: v1::Entry) -> Result<Self, Error> {
        let value = decode(&entry.value, &entry.namespace, &entry.key, entry.secret)?;
        Ok(Self::new(value, entry))
    }
}

/// Writes a value as JSON text.
pub(crate) fn encode<T: Serialize + ?Sized>(
    value: &T,
    namespace: &str,
    key: &str,
) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value).map_err(|error| Error::Serialize {
        namespace: namespace.to_owned(),
        key: key.to_owned(),
        reason: error.to_string(),
    })
}

/// Reads one value. Of a secret the error tells where it does not fit, and not what is there.
pub(crate) fn decode<T: DeserializeOwned>(
    text: &[u8],
    namespace: &str,
    key: &str,
    secret: bool,
) -> Result<T, Error> {
    read(text).map_err(|error| Error::Deserialize {
        namespace: namespace.to_owned(),
        key: key.to_owned(),
        path: if secret { ".".to_owned() } else { error.path().to_string() },
        reason: reason(error.inner(), secret),
    })
}

/// Reads a whole namespace: one object, with each key as a field.
pub(crate) fn decode_namespace<T: DeserializeOwned>(
    namespace: &str,
    values: &[v1::ResolvedValue],
) -> Result<T, Error> {
    let text = object(values);
    read(&text).map_err(|error| {
        let key = match error.path().iter().next() {
            Some(Segment::Map { key }) => key.clone(),
            _ => String::new(),
        };
        let at_value = values.iter().find(|value| value.key == key);
        // Without a key it may be any of them.
        let secret =
            at_value.map_or_else(|| values.iter().any(|value| value.secret), |value| value.secret);
        let path =
            if secret && at_value.is_some() { key.clone() } else { error.path().to_string() };
        Error::Deserialize {
            namespace: namespace.to_owned(),
            key: if at_value.is_some() { key } else { String::new() },
            path,
            reason: reason(error.inner(), secret && at_value.is_some()),
        }
    })
}

/// The values as the text of one object. Each is JSON already, and stays as it was written.
fn object(values: &[v1::ResolvedValue]) -> Vec<u8> {
    let mut text = vec![b'{'];
    for (index, value) in values.iter().enumerate() {
        if index > 0 {
            text.push(b',');
        }
        // A string that is written through `Value` cannot fail.
        text.extend_from_slice(serde_json::Value::from(value.key.as_str()).to_string().as_bytes());
        text.push(b':');
        text.extend_from_slice(&value.value);
    }
    text.push(b'}');
    text
}

fn read<T: DeserializeOwned>(
    text: &[u8],
) -> Result<T, serde_path_to_error::Error<serde_json::Error>> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let mut track = serde_path_to_error::Track::new();
    let value =
        T::deserialize(serde_path_to_error::Deserializer::new(&mut deserializer, &mut track));
    let value = value.and_then(|value| deserializer.end().map(|()| value));
    value.map_err(|error| serde_path_to_error::Error::new(track.path(), error))
}

fn reason(error: &serde_json::Error, secret: bool) -> String {
    if secret {
        return "it is a secret of another form than is asked for".to_owned();
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use serde_json::value::RawValue;

    fn value(key: &str, text: &str, secret: bool) -> v1::ResolvedValue {
        v1::ResolvedValue {
            key: key.into(),
            value: text.to_owned().into(),
            source: "base".into(),
            secret,
        }
    }

    #[derive(Debug, Deserialize)]
    struct Limits {
        #[expect(dead_code, reason = "only whether it can be read matters")]
        max_tokens: Vec<u32>,
    }

    #[test]
    fn an_error_names_namespace_key_and_path() {
        let error = decode::<Limits>(br#"{"max_tokens":[1,"x"]}"#, "n/s", "limits", false);
        let Err(Error::Deserialize { namespace, key, path, reason }) = error else {
            panic!("{error:?}")
        };
        assert_eq!((&*namespace, &*key, &*path), ("n/s", "limits", "max_tokens[1]"));
        assert!(reason.contains("u32"), "{reason}");

        let values = [value("a", "1", false), value("limits", r#"{"max_tokens":[-1]}"#, false)];
        let error = decode_namespace::<BTreeMap<String, Limits>>("n", &values[1..]).unwrap_err();
        let shown = error.to_string();
        assert!(shown.contains("n limits") && shown.contains("limits.max_tokens[0]"), "{shown}");
    }

    #[test]
    fn what_follows_a_value_is_an_error() {
        assert!(decode::<u8>(b"1 2", "n", "k", false).is_err());
        assert!(decode::<u8>(b"", "n", "k", false).is_err());
        assert_eq!(decode::<u8>(b" 1 ", "n", "k", false).unwrap(), 1);
    }

    #[test]
    fn an_error_never_shows_a_secret() {
        let error = decode::<u8>(br#""hunter2""#, "n", "k", true).unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
        let values = [value("password", r#""hunter2""#, true)];
        let error = decode_namespace::<BTreeMap<String, u8>>("n", &values).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        assert!(error.to_string().contains("password"), "{error}");
    }

    #[test]
    fn numbers_keep_their_digits() {
        let digits = "123456789012345678901234567890.12345678901234567890";
        let raw: Box<RawValue> = decode(digits.as_bytes(), "n", "k", false).unwrap();
        assert_eq!(raw.get(), digits);
        assert_eq!(encode(&raw, "n", "k").unwrap(), digits.as_bytes());
        let big = u128::MAX.to_string();
        assert_eq!(decode::<u128>(big.as_bytes(), "n", "k", false).unwrap(), u128::MAX);
        assert_eq!(decode::<f64>(b"0.1", "n", "k", false).unwrap().to_bits(), 0.1_f64.to_bits());

        let values = [value("a \" b", digits, false), value("b", &big, false)];
        let all: BTreeMap<String, Box<RawValue>> = decode_namespace("n", &values).unwrap();
        assert_eq!(all["a \" b"].get(), digits);
        assert_eq!(all["b"].get(), big);
    }
}
