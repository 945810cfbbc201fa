//! Deliberate bugs: each breaks one promise of the store, so that the harness can be shown to notice.
//!
//! The product asks [`active`] where it would go wrong. Without the feature `seeded-bugs` that is `false` at compile time, and
//! nothing of it is in the program; with it, the environment names the one bug that a process has.

#[cfg(feature = "seeded-bugs")]
mod chosen;

#[cfg(feature = "seeded-bugs")]
pub use chosen::{active, chance, choose};

/// Where a process with the feature finds the name of its bug.
pub const VARIABLE: &str = "LLM_CONFIG_SEEDED_BUG";

/// Declares the bugs, their names and the list of them in one place.
macro_rules! bugs {
    ($($(#[$doc:meta])* $bug:ident = $name:literal,)+) => {
        /// A bug.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Bug { $($(#[$doc])* $bug,)+ }

        impl Bug {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$bug,)+];

            /// As it is chosen.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$bug => $name,)+ }
            }
        }
    };
}

bugs! {
    /// The log is written and not synced; only votes are.
    WalNotSynced = "wal-not-synced",
    /// A vote is granted and forgotten with the process.
    VoteNotStored = "vote-not-stored",
    /// One entry of a hundred is acknowledged and not written.
    LogEntryNotWritten = "log-entry-not-written",
    /// A failed write of the log is reported as done.
    LogErrorSwallowed = "log-error-swallowed",
    /// The applied position is not in the same batch as what it stands for.
    AppliedApartFromData = "applied-apart-from-data",
    /// The applied members are not stored.
    MembersNotStored = "members-not-stored",
    /// A snapshot is installed without one of its tables.
    SnapshotWithoutTable = "snapshot-without-table",
    /// Cache and watches are not told that a snapshot has replaced the state.
    InstallNotTold = "install-not-told",
    /// Of the commands that are applied together, cache and watches are told of the last one.
    LastOfBatchTold = "last-of-batch-told",
    /// A list shows what was applied after the revision that it names.
    ViewNotPinned = "view-not-pinned",
    /// The leader answers linearizable reads without asking whether it still leads.
    ReadWithoutQuorum = "read-without-quorum",
    /// Any node answers linearizable reads from what it has.
    LinearizableIsLocal = "linearizable-is-local",
    /// The index of a linearizable read is asked for and not waited for.
    ReadIndexNotAwaited = "read-index-not-awaited",
    /// A linearizable read that finds no leader is answered all the same.
    ReadUnconfirmed = "read-unconfirmed",
    /// Cached reads are answered before what was committed is replayed, and the replay waits for the leader.
    ReadBeforeReplay = "read-before-replay",
    /// A read does not wait for the revision that it asks for.
    MinRevisionIgnored = "min-revision-ignored",
    /// A read does not care how old its answer may be.
    StalenessIgnored = "staleness-ignored",
    /// A write whose fate is unknown is made again without a request id.
    UnknownMadeAgain = "unknown-made-again",
    /// A write whose fate is unknown is called not done.
    UnknownCalledRefused = "unknown-called-refused",
    /// Some writes are done and answered as too much.
    DoneCalledOverload = "done-called-overload",
    /// The leader answers a write when it proposes it.
    AnswerBeforeCommit = "answer-before-commit",
    /// The leader works out answer and version before it proposes.
    AnswerGuessed = "answer-guessed",
    /// Request ids are not looked up.
    RequestForgotten = "request-forgotten",
    /// A request id answers for another request than its own.
    RequestNotCompared = "request-not-compared",
    /// A node applies by chance.
    ApplyByChance = "apply-by-chance",
    /// What a refused command wrote stays.
    RefusalLeavesWrites = "refusal-leaves-writes",
    /// A write may expect an older version than the current one.
    CompareAcceptsOlder = "compare-accepts-older",
    /// Of what a transaction compares, only the first counts.
    TxnComparesFirst = "txn-compares-first",
    /// The changes of a transaction get a revision each.
    TxnSplitsRevision = "txn-splits-revision",
    /// Versions begin anew after a delete.
    DeleteResetsVersion = "delete-resets-version",
    /// A rollback takes the version before the one that was named.
    RollbackOffByOne = "rollback-off-by-one",
    /// Versions are forgotten too early.
    HistoryTooShort = "history-too-short",
    /// A list ends at the first entry that was deleted.
    ListEndsAtDeleted = "list-ends-at-deleted",
    /// The cache keeps some entries as they were.
    CacheKeepsOld = "cache-keeps-old",
    /// Watches leave out some revisions.
    WatchDrops = "watch-drops",
    /// A watch that is resumed repeats what was delivered last.
    WatchRepeats = "watch-repeats",
    /// Watches change the order of two revisions.
    WatchReorders = "watch-reorders",
    /// The changes of one revision are delivered one by one.
    WatchSplits = "watch-splits",
    /// Watches do not tell of deletions.
    WatchWithoutDeletes = "watch-without-deletes",
    /// A bookmark names what was applied, not what was delivered.
    WatchBookmarkAhead = "watch-bookmark-ahead",
    /// A watch that the ring has overtaken goes on with the newest.
    WatchSkipsToNow = "watch-skips-to-now",
}

impl Bug {
    /// The bug of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|bug| bug.name() == name)
    }
}

/// Whether this process has the bug.
#[cfg(not(feature = "seeded-bugs"))]
#[must_use]
#[inline(always)]
pub const fn active(_: Bug) -> bool {
    false
}

/// True once in so many calls, at random, if this process has the bug.
#[cfg(not(feature = "seeded-bugs"))]
#[must_use]
#[inline(always)]
pub const fn chance(_: Bug, _: u64) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_words_that_lead_back() {
        let names: BTreeSet<&str> = Bug::ALL.iter().map(|bug| bug.name()).collect();
        assert_eq!(names.len(), Bug::ALL.len());
        for bug in Bug::ALL {
            assert_eq!(Bug::named(bug.name()), Some(*bug));
            assert!(bug.name().chars().all(|c| c.is_ascii_lowercase() || c == '-'), "{bug:?}");
        }
        assert_eq!(Bug::named("no-such-bug"), None);
    }

    #[cfg(not(feature = "seeded-bugs"))]
    #[test]
    fn without_the_feature_there_are_none() {
        assert!(Bug::ALL.iter().all(|bug| !active(*bug) && !chance(*bug, 1)));
    }
}
