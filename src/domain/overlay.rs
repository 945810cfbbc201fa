//! Uncommitted writes over a reader, so that the commands of one batch see each other before anything is stored.
//!
//! One savepoint: a command that is refused half-way leaves nothing behind. Memory is bounded by whoever decides how
//! many commands go into one overlay.

use std::iter::Peekable;
use std::ops::ControlFlow;

use bytes::Bytes;

use crate::store::{Order, Reader, StoreError, Visit, Writes, bounds};

/// A written key, and what was written to it before (None: nothing).
type Undo = (Vec<u8>, Option<Option<Bytes>>);

/// A reader with writes on top of it.
#[derive(Debug)]
pub struct Overlay<'a, R: Reader + ?Sized> {
    base: &'a R,
    writes: Writes,
    /// While a savepoint is set: how to take back each write since, oldest first.
    undo: Option<Vec<Undo>>,
}

impl<'a, R: Reader + ?Sized> Overlay<'a, R> {
    /// No writes yet.
    pub fn new(base: &'a R) -> Self {
        Self { base, writes: Writes::new(), undo: None }
    }

    /// Sets a key.
    pub fn put(&mut self, key: Vec<u8>, value: Bytes) {
        self.write(key, Some(value));
    }

    /// Removes a key.
    pub fn delete(&mut self, key: Vec<u8>) {
        self.write(key, None);
    }

    fn write(&mut self, key: Vec<u8>, value: Option<Bytes>) {
        match &mut self.undo {
            Some(undo) => {
                let before = self.writes.insert(key.clone(), value);
                undo.push((key, before));
            }
            None => {
                self.writes.insert(key, value);
            }
        }
    }

    /// From here on writes can be taken back.
    pub(crate) fn set_savepoint(&mut self) {
        self.undo = Some(Vec::new());
    }

    /// Keeps what was written since the savepoint.
    pub(crate) fn release_savepoint(&mut self) {
        self.undo = None;
    }

    /// Takes back what was written since the savepoint.
    pub(crate) fn roll_back(&mut self) {
        for (key, before) in self.undo.take().unwrap_or_default().into_iter().rev() {
            match before {
                Some(value) => self.writes.insert(key, value),
                None => self.writes.remove(&key),
            };
        }
    }

    /// The writes, for one atomic batch.
    pub fn into_writes(self) -> Writes {
        self.writes
    }
}

impl<R: Reader + ?Sized> Reader for Overlay<'_, R> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        match self.writes.get(key) {
            Some(written) => Ok(written.clone()),
            None => self.base.get(key),
        }
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        order: Order,
        visit: Visit<'_>,
    ) -> Result<(), StoreError> {
        let Some(bounds) = bounds(from, to) else { return Ok(()) };
        let range = self.writes.range::<[u8], _>(bounds);
        match order {
            Order::Ascending => self.merge(range.peekable(), from, to, order, visit),
            Order::Descending => self.merge(range.rev().peekable(), from, to, order, visit),
        }
    }
}

impl<R: Reader + ?Sized> Overlay<'_, R> {
    /// Walks the base and the writes side by side; a write hides the base's value of its key.
    fn merge<'w>(
        &self,
        mut writes: Peekable<impl Iterator<Item = (&'w Vec<u8>, &'w Option<Bytes>)>>,
        from: &[u8],
        to: &[u8],
        order: Order,
        visit: Visit<'_>,
    ) -> Result<(), StoreError> {
        let precedes = |a: &[u8], b: &[u8]| match order {
            Order::Ascending => a < b,
            Order::Descending => a > b,
        };
        let mut ended = false;
        self.base.scan(from, to, order, &mut |key, value| {
            while let Some((written, new)) = writes.next_if(|(written, _)| precedes(written, key)) {
                if let Some(new) = new
                    && visit(written, new)?.is_break()
                {
                    ended = true;
                    return Ok(ControlFlow::Break(()));
                }
            }
            let flow = match writes.next_if(|(written, _)| written.as_slice() == key) {
                Some((_, Some(new))) => visit(key, new)?,
                Some((_, None)) => ControlFlow::Continue(()),
                None => visit(key, value)?,
            };
            ended = flow.is_break();
            Ok(flow)
        })?;
        if ended {
            return Ok(());
        }
        for (written, new) in writes {
            if let Some(new) = new
                && visit(written, new)?.is_break()
            {
                break;
            }
        }
        Ok(())
    }
}
