//! Reading from key to key.

use std::marker::PhantomData;
use std::ops::Bound;
use std::sync::Arc;

use crate::{Error, Map, ReadOptions};

type Pair = (Arc<[u8]>, Arc<[u8]>);
type PairRef<'m> = (&'m Arc<[u8]>, &'m Arc<[u8]>);

/// A place between the bounds that it was made with.
pub struct DBRawIteratorWithThreadMode<'a, D> {
    map: Arc<Map>,
    options: ReadOptions,
    at: Option<Pair>,
    of: PhantomData<&'a D>,
}

impl<D> DBRawIteratorWithThreadMode<'_, D> {
    pub(crate) fn new(map: Arc<Map>, options: ReadOptions) -> Self {
        Self { map, options, at: None, of: PhantomData }
    }

    /// Narrows `from..to` to the bounds; `None` when nothing is left.
    fn pairs(
        &self,
        from: Bound<&Arc<[u8]>>,
        to: Bound<&Arc<[u8]>>,
    ) -> Option<impl DoubleEndedIterator<Item = PairRef<'_>>> {
        let lower = self.options.lower.as_ref();
        let from = match (from, lower) {
            (Bound::Unbounded, Some(lower)) => Bound::Included(lower),
            (Bound::Included(key) | Bound::Excluded(key), Some(lower)) if key < lower => {
                Bound::Included(lower)
            }
            (from, _) => from,
        };
        let upper = self.options.upper.as_ref();
        let to = match (to, upper) {
            (Bound::Unbounded, Some(upper)) => Bound::Excluded(upper),
            (to, _) => to,
        };
        let empty = match (from, to) {
            (Bound::Included(from), Bound::Included(to)) => from > to,
            (Bound::Included(from) | Bound::Excluded(from), Bound::Excluded(to))
            | (Bound::Excluded(from), Bound::Included(to)) => from >= to,
            (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        };
        (!empty).then(|| self.map.range::<Arc<[u8]>, _>((from, to)))
    }

    fn first(&self, from: Bound<&Arc<[u8]>>) -> Option<Pair> {
        let (key, value) = self.pairs(from, Bound::Unbounded)?.next()?;
        Some((Arc::clone(key), Arc::clone(value)))
    }

    fn last(&self, to: Bound<&Arc<[u8]>>) -> Option<Pair> {
        let (key, value) = self.pairs(Bound::Unbounded, to)?.next_back()?;
        Some((Arc::clone(key), Arc::clone(value)))
    }

    /// To the first key.
    pub fn seek_to_first(&mut self) {
        self.at = self.first(Bound::Unbounded);
    }

    /// To the last key.
    pub fn seek_to_last(&mut self) {
        self.at = self.last(Bound::Unbounded);
    }

    /// To the first key that is not before `key`.
    pub fn seek(&mut self, key: impl AsRef<[u8]>) {
        self.at = self.first(Bound::Included(&key.as_ref().into()));
    }

    /// To the next key.
    pub fn next(&mut self) {
        if let Some((key, _)) = self.at.take() {
            self.at = self.first(Bound::Excluded(&key));
        }
    }

    /// To the key before.
    pub fn prev(&mut self) {
        if let Some((key, _)) = self.at.take() {
            self.at = self.last(Bound::Excluded(&key));
        }
    }

    /// What is here; nothing behind the end.
    #[must_use]
    pub fn item(&self) -> Option<(&[u8], &[u8])> {
        self.at.as_ref().map(|(key, value)| (&key[..], &value[..]))
    }

    /// Whether all could be read.
    ///
    /// # Errors
    /// Never, here.
    pub fn status(&self) -> Result<(), Error> {
        Ok(())
    }
}
