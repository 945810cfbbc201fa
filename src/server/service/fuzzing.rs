//! Body of the fuzz target for page cursors: the caller gives back what it was given, or something else.
//!
//! The target is in `.ci/fuzz`; the test below runs the body over its inputs.

use super::cursor::Listing;

const LISTING: Listing<'_> = Listing(&["list", "app", "base", ""]);
const OTHER: Listing<'_> = Listing(&["list", "app", "production", ""]);

/// A cursor that is accepted is one that this listing makes, and no other does.
pub fn cursor(data: &[u8]) {
    let made = LISTING.cursor(data);
    match LISTING.position(&made) {
        Ok(position) => assert_eq!(position, data),
        Err(_) => assert!(data.len() > llm_config_domain::limits::KEY_BYTES_MAX),
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(position) = LISTING.position(text) else { return };
    assert_eq!(LISTING.cursor(&position), text.to_ascii_lowercase());
    assert!(OTHER.position(text).is_err(), "a cursor of another listing was accepted");
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_inputs_of_the_target_pass() {
        crate::replay::run("cursor", super::cursor);
    }
}
