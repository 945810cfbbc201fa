//! The plaintext of a secret, on its way through this process.
//!
//! Its memory is overwritten when it is dropped. It cannot be cloned, compared, shown or serialised; who needs the bytes
//! calls `expose`, which is easily found by whoever reviews the code. What a caller copies out is the caller's.

use std::fmt;

use zeroize::Zeroizing;

/// See the module.
pub struct Plaintext(Zeroizing<Vec<u8>>);

impl Plaintext {
    /// A copy, where the bytes cannot be handed over.
    #[must_use]
    pub fn copy_of(bytes: &[u8]) -> Self {
        Self(Zeroizing::new(bytes.to_vec()))
    }

    /// The bytes, for as long as they are needed.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

/// Takes the memory over, all of which is overwritten later.
impl From<Vec<u8>> for Plaintext {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }
}

impl From<String> for Plaintext {
    fn from(text: String) -> Self {
        text.into_bytes().into()
    }
}

impl From<Zeroizing<Vec<u8>>> for Plaintext {
    fn from(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self(bytes)
    }
}

/// Shows nothing, not even the length, so that what holds one may be shown.
impl fmt::Debug for Plaintext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Plaintext(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Does not compile when the type has the trait: two implementations apply then, and neither is chosen.
    macro_rules! assert_is_not {
        ($type:ty: $($bound:path),+) => {$({
            trait Ambiguous<A> {
                fn chosen() {}
            }
            struct Has;
            impl<T: ?Sized> Ambiguous<()> for T {}
            impl<T: ?Sized + $bound> Ambiguous<Has> for T {}
            <$type as Ambiguous<_>>::chosen();
        })+};
    }

    #[test]
    fn it_is_neither_copied_nor_shown_nor_serialised() {
        assert_is_not!(
            Plaintext: Clone, std::fmt::Display, serde::Serialize, AsRef<[u8]>, std::ops::Deref, ToString
        );
    }

    #[test]
    fn what_holds_one_can_be_shown_without_it() {
        #[derive(Debug)]
        struct Holder {
            name: &'static str,
            plaintext: Plaintext,
        }
        let holder = Holder { name: "key", plaintext: Plaintext::from("hunter2".to_owned()) };
        assert_eq!(format!("{holder:?}"), r#"Holder { name: "key", plaintext: Plaintext(..) }"#);
        assert_eq!((holder.name, holder.plaintext.expose()), ("key", &b"hunter2"[..]));
    }
}
