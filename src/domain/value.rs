//! A configuration value: JSON text, validated once, with insignificant white space removed.
//!
//! Numbers and strings stay as they were written (`1.10`, `1e2`, 30-digit integers), so this is a scanner rather
//! than a parse into a tree. It is stricter than JSON where readers of JSON disagree: no duplicate object keys, no
//! lone surrogates, no number beyond the range of an f64, bounded depth.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use bytes::Bytes;

use crate::limits;
use crate::names::InvalidArgument;

/// Valid, compact JSON text of at most [`limits::VALUE_BYTES_MAX`] bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct JsonValue(Bytes);

/// Why bytes are not a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// The compact form is above the limit (or the input is above twice the limit, which is not even parsed).
    #[error("value: has {size} bytes, at most {} are allowed", limits::VALUE_BYTES_MAX)]
    TooLarge {
        /// Bytes of the compact form, or of the input when that was refused unparsed.
        size: usize,
    },
    /// Not JSON, or JSON that readers would disagree about.
    #[error(transparent)]
    Invalid(#[from] InvalidArgument),
}

impl JsonValue {
    /// Validates JSON text and removes white space between its tokens. The result never shares memory with the input.
    ///
    /// Input above twice the limit is refused without a look at it: white space may double a document, not more.
    pub fn parse(text: &[u8]) -> Result<Self, ValueError> {
        if text.len() > 2 * limits::VALUE_BYTES_MAX {
            return Err(ValueError::TooLarge { size: text.len() });
        }
        let text =
            std::str::from_utf8(text).map_err(|error| invalid(error.valid_up_to(), "not UTF-8"))?;
        let compact = Scanner::new(text).document()?;
        if compact.len() > limits::VALUE_BYTES_MAX {
            return Err(ValueError::TooLarge { size: compact.len() });
        }
        Ok(Self(compact.into()))
    }

    /// Takes bytes that [`JsonValue::parse`] made before they were stored; only UTF-8 is checked again.
    pub(crate) fn from_stored(text: Bytes) -> Result<Self, std::str::Utf8Error> {
        std::str::from_utf8(&text)?;
        Ok(Self(text))
    }

    /// The text as bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        // Both constructors checked it, so the default is never taken.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The text, shared.
    pub fn bytes(&self) -> Bytes {
        self.0.clone()
    }

    /// The value as a tree. Numbers become i64, u64 or f64 here: long ones lose digits that the text keeps.
    pub fn to_json(&self) -> serde_json::Value {
        // What parse accepts is a subset of what serde_json accepts (a property test holds that), so null is never taken.
        serde_json::from_slice(&self.0).unwrap_or_default()
    }
}

impl fmt::Debug for JsonValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JsonValue({})", self.as_str())
    }
}

fn invalid(at: usize, what: impl fmt::Display) -> InvalidArgument {
    InvalidArgument::new("value", format!("not acceptable JSON at byte {at}: {what}"))
}

type Step<T> = Result<T, InvalidArgument>;

/// One pass over the text; what is kept is copied in runs between white space.
struct Scanner<'a> {
    text: &'a str,
    at: usize,
    kept_from: usize,
    compact: Vec<u8>,
}

impl<'a> Scanner<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, at: 0, kept_from: 0, compact: Vec::with_capacity(text.len()) }
    }

    fn document(mut self) -> Step<Vec<u8>> {
        self.value(0)?;
        self.skip_white_space();
        if self.at < self.text.len() {
            return Err(invalid(self.at, "text after the end of the value"));
        }
        self.keep_up_to(self.at);
        Ok(self.compact)
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn keep_up_to(&mut self, end: usize) {
        self.compact.extend_from_slice(&self.text.as_bytes()[self.kept_from..end]);
        self.kept_from = end;
    }

    fn skip_white_space(&mut self) {
        let start = self.at;
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
        if self.at > start {
            self.keep_up_to(start);
            self.kept_from = self.at;
        }
    }

    /// `depth` containers are open around this value; it recurses at most [`limits::VALUE_DEPTH_MAX`] deep.
    fn value(&mut self, depth: usize) -> Step<()> {
        self.skip_white_space();
        match self.peek() {
            Some(b'{' | b'[') if depth == limits::VALUE_DEPTH_MAX => Err(invalid(
                self.at,
                format_args!("nested deeper than {} levels", limits::VALUE_DEPTH_MAX),
            )),
            Some(b'{') => self.object(depth + 1),
            Some(b'[') => self.array(depth + 1),
            Some(b'"') => self.string().map(drop),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word("true"),
            Some(b'f') => self.word("false"),
            Some(b'n') => self.word("null"),
            Some(_) => Err(invalid(self.at, "expected a value")),
            None => Err(invalid(self.at, "expected a value, found the end")),
        }
    }

    fn object(&mut self, depth: usize) -> Step<()> {
        let mut keys = BTreeSet::new();
        self.at += 1;
        self.skip_white_space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.skip_white_space();
            let key_at = self.at;
            if self.peek() != Some(b'"') {
                return Err(invalid(key_at, "expected an object key in double quotes"));
            }
            if !keys.insert(self.string()?) {
                return Err(invalid(key_at, "this key occurs twice in its object"));
            }
            self.skip_white_space();
            if self.peek() != Some(b':') {
                return Err(invalid(self.at, "expected ':' after an object key"));
            }
            self.at += 1;
            self.value(depth)?;
            if self.closes(b'}')? {
                return Ok(());
            }
        }
    }

    fn array(&mut self, depth: usize) -> Step<()> {
        self.at += 1;
        self.skip_white_space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.value(depth)?;
            if self.closes(b']')? {
                return Ok(());
            }
        }
    }

    /// After a member: true for the closing bracket, false for a comma.
    fn closes(&mut self, bracket: u8) -> Step<bool> {
        self.skip_white_space();
        let found = self.peek();
        if found != Some(bracket) && found != Some(b',') {
            return Err(invalid(
                self.at,
                format_args!("expected ',' or '{}'", char::from(bracket)),
            ));
        }
        self.at += 1;
        Ok(found == Some(bracket))
    }

    fn word(&mut self, word: &str) -> Step<()> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return Err(invalid(self.at, format_args!("expected {word}")));
        }
        self.at += word.len();
        Ok(())
    }

    fn digits(&mut self) -> Step<()> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start { Err(invalid(start, "expected a digit")) } else { Ok(()) }
    }

    fn number(&mut self) -> Step<()> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
            if matches!(self.peek(), Some(b'0'..=b'9')) {
                return Err(invalid(self.at, "a number must not start with 0"));
            }
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        match self.text[start..self.at].parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(()),
            Ok(_) | Err(_) => Err(invalid(start, "a number beyond the range of a 64-bit float")),
        }
    }

    /// Reads a string and returns what it means, for telling object keys apart.
    fn string(&mut self) -> Step<Cow<'a, str>> {
        let start = self.at;
        let mut escaped = false;
        self.at += 1;
        loop {
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(0..=0x1f) => {
                    return Err(invalid(
                        self.at,
                        "a control character in a string; write it as \\u00XX",
                    ));
                }
                Some(_) => self.at += 1,
                None => return Err(invalid(self.at, "a string without its closing quote")),
            }
        }
        self.at += 1;
        let text = self.text;
        if !escaped {
            return Ok(Cow::Borrowed(&text[start + 1..self.at - 1]));
        }
        let decoded: String =
            serde_json::from_str(&text[start..self.at]).map_err(|error| invalid(start, error))?;
        Ok(Cow::Owned(decoded))
    }

    fn escape(&mut self) -> Step<()> {
        let start = self.at;
        self.at += 1;
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 1;
                Ok(())
            }
            Some(b'u') => {
                let unit = self.unicode_unit()?;
                let paired = match unit {
                    0xd800..=0xdbff if self.text.as_bytes()[self.at..].starts_with(b"\\u") => {
                        self.at += 1;
                        matches!(self.unicode_unit()?, 0xdc00..=0xdfff)
                    }
                    0xd800..=0xdfff => false,
                    _ => true,
                };
                if paired { Ok(()) } else { Err(invalid(start, "half of a surrogate pair")) }
            }
            _ => Err(invalid(start, "an unknown escape sequence")),
        }
    }

    /// At the `u` of `uXXXX`.
    fn unicode_unit(&mut self) -> Step<u16> {
        let digits = self.text.as_bytes().get(self.at + 1..self.at + 5);
        let unit = digits
            .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u16::from_str_radix(digits, 16).ok())
            .ok_or_else(|| invalid(self.at, "expected four hexadecimal digits after \\u"))?;
        self.at += 5;
        Ok(unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compact(text: &str) -> String {
        JsonValue::parse(text.as_bytes()).unwrap().as_str().to_owned()
    }

    fn refusal(text: impl AsRef<[u8]>) -> String {
        JsonValue::parse(text.as_ref()).unwrap_err().to_string()
    }

    #[test]
    fn white_space_goes_and_everything_else_stays() {
        assert_eq!(
            compact(" { \"a b\" :\t[ 1.10 , 1E+2,-0 ,123456789012345678901234567890 ]\r\n} "),
            r#"{"a b":[1.10,1E+2,-0,123456789012345678901234567890]}"#
        );
        assert_eq!(compact("\n\"\\u00e9 \\ud83e\\udd80 \\/\""), r#""\u00e9 \ud83e\udd80 \/""#);
        for unchanged in ["null", "true", "false", "{}", "[]", "0", "\"ü\"", "1e-400", "[[],{}]"] {
            assert_eq!(compact(unchanged), unchanged);
        }
    }

    #[test]
    fn what_readers_disagree_about_is_refused_with_its_place() {
        let table: [(&str, &str); 22] = [
            ("", "byte 0: expected a value, found the end"),
            ("{\"a\":1,\"a\":2}", "byte 7: this key occurs twice"),
            ("{\"a\":1,\"\\u0061\":2}", "byte 7: this key occurs twice"),
            ("1e400", "byte 0: a number beyond"),
            ("[-1e999999999999999999]", "byte 1: a number beyond"),
            ("01", "byte 1: a number must not start with 0"),
            ("-", "byte 1: expected a digit"),
            ("1.", "byte 2: expected a digit"),
            (".5", "byte 0: expected a value"),
            ("+1", "byte 0: expected a value"),
            ("NaN", "byte 0: expected a value"),
            ("nul", "byte 0: expected null"),
            ("1 2", "byte 2: text after the end"),
            ("[1,]", "byte 3: expected a value"),
            ("{\"a\":1,}", "byte 7: expected an object key"),
            ("{a:1}", "byte 1: expected an object key"),
            ("{\"a\" 1}", "byte 5: expected ':'"),
            ("[1", "byte 2: expected ',' or ']'"),
            ("\"a", "byte 2: a string without"),
            ("\"\n\"", "byte 1: a control character"),
            ("\"\\ud800x\"", "byte 1: half of a surrogate pair"),
            ("\"\\x\"", "byte 1: an unknown escape"),
        ];
        for (text, expected) in table {
            let refusal = refusal(text);
            assert!(
                refusal.starts_with("value: ") && refusal.contains(expected),
                "{text}: {refusal}"
            );
        }
        assert!(refusal(b"\"\xff\"").contains("byte 1: not UTF-8"));
        assert!(refusal("\u{feff}1").contains("byte 0: expected a value"));
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        assert!(JsonValue::parse(nested(limits::VALUE_DEPTH_MAX).as_bytes()).is_ok());
        assert!(
            refusal(nested(limits::VALUE_DEPTH_MAX + 1)).contains("byte 64: nested deeper than 64")
        );
        assert!(refusal("[".repeat(1 << 20)).contains("byte 64: nested deeper"));
        assert!(refusal("{\"a\":".repeat(100_000)).contains("nested deeper"));
    }

    #[test]
    fn size_counts_the_compact_form() {
        let largest = format!("\"{}\"", "x".repeat(limits::VALUE_BYTES_MAX - 2));
        assert_eq!(
            JsonValue::parse(format!("  {largest}\n").as_bytes()).unwrap().as_bytes().len(),
            limits::VALUE_BYTES_MAX
        );
        let above = format!("\"{}\"", "x".repeat(limits::VALUE_BYTES_MAX - 1));
        assert_eq!(
            JsonValue::parse(above.as_bytes()),
            Err(ValueError::TooLarge { size: limits::VALUE_BYTES_MAX + 1 })
        );
        let absurd = vec![b' '; 2 * limits::VALUE_BYTES_MAX + 1];
        assert_eq!(JsonValue::parse(&absurd), Err(ValueError::TooLarge { size: absurd.len() }));
    }
}
