//! JSON text without losing how numbers are written: a number's text is data (`0.10`, `2.0e-6` in a price list), so
//! values are compared and made compact as text, never through floating point.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

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

/// Equal as JSON values; numbers only when written alike, objects in any order.
pub(crate) fn same(a: &RawValue, b: &RawValue) -> bool {
    if a.get() == b.get() {
        return true;
    }
    match (Shape::of(a), Shape::of(b)) {
        (Some(Shape::Object(a)), Some(Shape::Object(b))) => {
            a.len() == b.len()
                && a.iter().zip(&b).all(|((ka, va), (kb, vb))| ka == kb && same(va, vb))
        }
        (Some(Shape::Array(a)), Some(Shape::Array(b))) => {
            a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| same(a, b))
        }
        (Some(Shape::String(a)), Some(Shape::String(b))) => a == b,
        // Numbers, true, false, null: equal only as text, which was compared above.
        _ => false,
    }
}

enum Shape<'a> {
    Object(BTreeMap<String, &'a RawValue>),
    Array(Vec<&'a RawValue>),
    String(String),
}

impl<'a> Shape<'a> {
    fn of(value: &'a RawValue) -> Option<Self> {
        let text = value.get();
        match text.as_bytes().first() {
            Some(b'{') => serde_json::from_str(text).ok().map(Self::Object),
            Some(b'[') => serde_json::from_str(text).ok().map(Self::Array),
            Some(b'"') => serde_json::from_str(text).ok().map(Self::String),
            _ => None,
        }
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
}
