//! A stored secret under another data key.
//!
//! One at a time, so that a rotation can stop anywhere and go on later. Who finds the secrets, proposes the new bytes and
//! drops the old key when nothing needs it any more is the service.

use super::keyring::DataKey;
use super::seal::{Place, SecretError, open, seal};

/// A secret as it is stored.
#[derive(Debug, Clone, Copy)]
pub struct Sealed<'a> {
    /// What it belongs to; stays the same.
    pub place: Place<'a>,
    /// The version of the data key that it is sealed with.
    pub key_version: u32,
    /// The sealed bytes.
    pub bytes: &'a [u8],
}

/// The same secret for the same place under the new key. `None`: it is so already, by a rotation that was cut off.
///
/// # Errors
/// [`SecretError::OtherDataKey`] when it is sealed with neither key, and what [`open`] and [`seal`] refuse.
pub fn reseal(
    old: &DataKey,
    new: &DataKey,
    sealed: Sealed<'_>,
) -> Result<Option<Vec<u8>>, SecretError> {
    if sealed.key_version == new.version() {
        return Ok(None);
    }
    if sealed.key_version != old.version() {
        let (found, expected) = (sealed.key_version, old.version());
        return Err(SecretError::OtherDataKey { found, expected });
    }
    let plaintext = open(old, sealed.place, sealed.bytes)?;
    seal(new, sealed.place, &plaintext).map(Some)
}

#[cfg(test)]
mod tests {
    use super::super::plaintext::Plaintext;
    use super::*;

    fn place(version: u64) -> Place<'static> {
        Place { namespace: "app", environment: 1, key: "k", version }
    }

    fn keys() -> [DataKey; 3] {
        [(1, 7), (2, 8), (3, 9)].map(|(version, byte)| DataKey::fixed(version, [byte; 32]))
    }

    #[test]
    fn a_rotation_that_was_cut_off_goes_on() {
        let [old, new, _] = keys();
        let text = |version: u64| format!("secret {version}");
        let mut stored: Vec<(Place<'_>, Vec<u8>, u32)> = (1..=5)
            .map(|version| {
                // The first ones were done before.
                let key = if version < 3 { &new } else { &old };
                let sealed = seal(key, place(version), &Plaintext::from(text(version))).unwrap();
                (place(version), sealed, key.version())
            })
            .collect();
        let mut done = 0;
        for (place, bytes, key_version) in &mut stored {
            let sealed = Sealed { place: *place, key_version: *key_version, bytes };
            if let Some(resealed) = reseal(&old, &new, sealed).unwrap() {
                (*bytes, *key_version) = (resealed, new.version());
                done += 1;
            }
        }
        assert_eq!(done, 3);
        for (place, bytes, key_version) in &stored {
            assert_eq!(*key_version, new.version());
            let plaintext = open(&new, *place, bytes).unwrap();
            assert_eq!(plaintext.expose(), text(place.version).as_bytes());
            assert_eq!(open(&old, *place, bytes).unwrap_err(), SecretError::NotAuthentic);
        }
    }

    #[test]
    fn what_the_old_key_does_not_open_is_refused() {
        let [old, new, third] = keys();
        let bytes = seal(&old, place(1), &Plaintext::from("s".to_owned())).unwrap();
        let sealed = Sealed { place: place(1), key_version: 1, bytes: &bytes };
        let moved = Sealed { place: place(2), ..sealed };
        assert_eq!(reseal(&old, &new, moved).unwrap_err(), SecretError::NotAuthentic);
        let of_third = Sealed { key_version: third.version(), ..sealed };
        let expected = SecretError::OtherDataKey { found: 3, expected: 1 };
        assert_eq!(reseal(&old, &new, of_third).unwrap_err(), expected);
    }
}
