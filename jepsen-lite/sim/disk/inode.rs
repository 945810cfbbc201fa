//! What a file holds: for whoever reads it, and after a power cut.

use crate::chance::Chance;

#[derive(Debug, Clone)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Resize(usize),
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes } => {
                let end = offset + bytes.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[*offset..end].copy_from_slice(bytes);
            }
            Self::Resize(length) => content.resize(*length, 0),
        }
    }
}

/// A file, whatever its names are.
#[derive(Debug, Default)]
pub(crate) struct Inode {
    pub(crate) content: Vec<u8>,
    synced: Vec<u8>,
    /// What was changed and not synced, oldest first.
    pending: Vec<Change>,
    pub(crate) locked: bool,
}

impl Inode {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.content);
        self.pending.push(change);
    }

    pub(crate) fn write(&mut self, offset: usize, bytes: &[u8]) {
        self.change(Change::Write { offset, bytes: bytes.to_vec() });
    }

    pub(crate) fn resize(&mut self, length: usize) {
        self.change(Change::Resize(length));
    }

    pub(crate) fn sync(&mut self) {
        for change in self.pending.drain(..) {
            change.apply(&mut self.synced);
        }
    }

    /// As Linux does it: what could not be written is no longer owed, and whoever reads sees it as if it were there.
    pub(crate) fn fail_sync(&mut self, chance: &mut Chance) {
        let kept = chance.below(self.pending.len() as u64 + 1);
        for change in self.pending.drain(..).take(usize::try_from(kept).unwrap_or(0)) {
            change.apply(&mut self.synced);
        }
    }

    pub(crate) fn is_synced(&self) -> bool {
        self.pending.is_empty()
    }

    /// Returns how many changes were lost, and whether one was left in part.
    pub(crate) fn power_cut(&mut self, chance: &mut Chance) -> (u64, bool) {
        let all = self.pending.len() as u64;
        let kept = chance.below(all + 1);
        let mut pending = self.pending.drain(..);
        for change in pending.by_ref().take(usize::try_from(kept).unwrap_or(0)) {
            change.apply(&mut self.synced);
        }
        let mut torn = false;
        if let Some(Change::Write { offset, bytes }) = pending.next()
            && chance.percent(50)
        {
            let part = usize::try_from(chance.below(bytes.len() as u64)).unwrap_or(0);
            torn = part > 0;
            Change::Write { offset, bytes: bytes[..part].to_vec() }.apply(&mut self.synced);
        }
        drop(pending);
        self.content.clone_from(&self.synced);
        self.locked = false;
        (all - kept, torn)
    }
}
