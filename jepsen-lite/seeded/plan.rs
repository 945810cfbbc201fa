//! For each bug, the run that shows it, and who has to notice.

use std::fmt;

use clap::ValueEnum as _;
use llm_config_bugs::Bug;

use crate::nemesis::Class::{self, DiskError, Kill, Partition, Rolling};
use crate::report::{Report, Verdict};
use crate::run::class_name;
use crate::workload::Workload;

/// Found at the first attempt, in few seconds: one of each kind.
pub const SHORT: [Bug; 3] = [Bug::WalNotSynced, Bug::LinearizableIsLocal, Bug::WatchDrops];

/// A bug that keeps a cluster from coming together need not be waited for long.
const HEAL_SECONDS: u64 = 20;

/// Who notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// A checker of the history.
    Checker(&'static str),
    /// What is seen without one, by some of its words.
    Wrong(&'static str),
}

use Sign::{Checker, Wrong};

/// A node that stops by itself.
const ENDED: Sign = Wrong("ended with");

impl fmt::Display for Sign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Checker(name) => f.write_str(name),
            Wrong(words) => write!(f, "“{words}”"),
        }
    }
}

/// The run that shows a bug.
#[derive(Debug)]
pub struct Plan {
    /// What the bug does, in a sentence.
    pub wrong: &'static str,
    /// Any of these is enough.
    pub signs: &'static [Sign],
    pub faults: &'static [Class],
    /// Seconds with faults; without any, the run is over after the first healthy seconds.
    pub time: u64,
    /// All when empty.
    pub workloads: &'static [Workload],
    pub nodes: u8,
    /// Log entries between two snapshots.
    pub snapshots: Option<u64>,
    /// The first one that is tried.
    pub seed: u64,
}

impl Plan {
    /// No fault: the bug shows while everything is well, or when the power is cut in the end.
    const fn peace(wrong: &'static str, signs: &'static [Sign]) -> Self {
        Self {
            wrong,
            signs,
            faults: &[],
            time: 0,
            workloads: &[],
            nodes: 3,
            snapshots: None,
            seed: 1,
        }
    }

    const fn under(self, faults: &'static [Class], time: u64) -> Self {
        Self { faults, time, ..self }
    }

    const fn seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    const fn snapshots(self, entries: u64) -> Self {
        Self { snapshots: Some(entries), ..self }
    }

    /// The options of `jepsen-lite run`.
    pub fn options(&self, bug: Bug, seed: u64) -> Vec<String> {
        let mut options = vec![
            "--seeded-bug".to_owned(),
            bug.name().to_owned(),
            format!(
                "--seed {seed} --nodes {} --time {} --heal {HEAL_SECONDS}",
                self.nodes, self.time
            ),
        ];
        if !self.faults.is_empty() {
            let faults: Vec<_> = self.faults.iter().map(|class| class_name(*class)).collect();
            options.push(format!("--faults {}", faults.join(",")));
        }
        if !self.workloads.is_empty() {
            let values = self.workloads.iter().filter_map(|workload| workload.to_possible_value());
            let names: Vec<_> = values.map(|value| value.get_name().to_owned()).collect();
            options.push(format!("--workloads {}", names.join(",")));
        }
        if let Some(entries) = self.snapshots {
            options.push(format!("--snapshots {entries}"));
        }
        options.iter().flat_map(|option| option.split(' ')).map(str::to_owned).collect()
    }

    /// Which of those who have to notice did.
    pub fn caught(&self, report: &Report) -> Option<String> {
        let failed = |name: &str| {
            let failed = |check: &&crate::report::Checked| {
                check.name == name && check.verdict == Verdict::Fail
            };
            report.checks.iter().find(failed).is_some()
        };
        let noticed = |sign: &&Sign| match sign {
            Checker(name) => failed(name),
            Wrong(words) => report.wrong.iter().any(|wrong| wrong.contains(words)),
        };
        let noticed: Vec<_> = self.signs.iter().filter(noticed).map(Sign::to_string).collect();
        (!noticed.is_empty()).then(|| noticed.join(", "))
    }
}

/// The run that shows this bug.
#[rustfmt::skip]
pub const fn plan(bug: Bug) -> Plan {
    match bug {
        Bug::WalNotSynced => Plan::peace("the log is written and not synced", &[Checker("durability")]),
        Bug::VoteNotStored => Plan::peace("votes are not stored", &[ENDED]).under(&[Kill], 5),
        Bug::LogEntryNotWritten => Plan::peace("one log entry of a hundred is not written", &[ENDED]).under(&[Kill], 5),
        Bug::LogErrorSwallowed => Plan::peace("a failed write of the log is called done", &[Wrong("goes on although its syncs fail"), Checker("durability")]).under(&[DiskError], 5),
        Bug::AppliedApartFromData => Plan::peace("the applied position is stored apart from the data", &[Checker("replica"), Checker("counter"), Checker("revision")]).under(&[Rolling], 3),
        Bug::MembersNotStored => Plan::peace("the applied members are not stored", &[Wrong("does not heal"), ENDED]).under(&[Rolling], 3).snapshots(100),
        Bug::SnapshotWithoutTable => Plan::peace("a snapshot is installed without a table", &[Checker("replica"), Checker("durability"), Checker("revision")]).under(&[Kill], 5).snapshots(100),
        Bug::InstallNotTold => Plan::peace("cache and watches are not told of an installed snapshot", &[Checker("revision"), Checker("watch"), Checker("linearizable")]).under(&[Partition], 12).snapshots(100),
        Bug::LastOfBatchTold => Plan::peace("of a batch only the last change is told", &[Checker("watch"), Checker("revision")]),
        Bug::ViewNotPinned => Plan::peace("a list is newer than its revision", &[Checker("revision"), Checker("txn"), Checker("replica")]),
        Bug::ReadWithoutQuorum => Plan::peace("the leader does not ask whether it still leads", &[Checker("linearizable"), Checker("revision")]).under(&[Partition], 10),
        Bug::LinearizableIsLocal => Plan::peace("linearizable reads are local", &[Checker("linearizable"), Checker("revision")]),
        Bug::ReadIndexNotAwaited => Plan::peace("the read index is not waited for", &[Checker("linearizable"), Checker("revision")]),
        Bug::ReadUnconfirmed => Plan::peace("a linearizable read without a leader is answered", &[Checker("linearizable"), Checker("revision")]).under(&[Partition], 10),
        Bug::ReadBeforeReplay => Plan::peace("reads are answered before the replay", &[Checker("session")]).under(&[Kill], 12),
        Bug::MinRevisionIgnored => Plan::peace("`min_revision` is ignored", &[Checker("session"), Checker("staleness")]),
        Bug::StalenessIgnored => Plan::peace("`max_staleness_ms` is ignored", &[Checker("staleness")]).under(&[Partition], 10),
        Bug::UnknownMadeAgain => Plan::peace("a write without a key is made again", &[Checker("revision"), Checker("counter")]).under(&[Partition], 20),
        Bug::UnknownCalledRefused => Plan::peace("a write that may happen is called refused", &[Checker("aborted")]).under(&[Kill], 10),
        Bug::DoneCalledOverload => Plan::peace("a write that happened is called refused", &[Checker("aborted")]),
        Bug::AnswerBeforeCommit => Plan::peace("a write is answered before it is committed", &[Checker("linearizable"), Checker("revision"), Checker("durability")]),
        Bug::AnswerGuessed => Plan::peace("an answer is worked out before the order is known", &[Checker("versions"), Checker("revision")]),
        Bug::RequestForgotten => Plan::peace("a retry happens again", &[Checker("counter"), Checker("revision")]).under(&[Kill], 10),
        Bug::RequestNotCompared => Plan::peace("a key is accepted for another request", &[Checker("counter")]),
        Bug::ApplyByChance => Plan::peace("nodes apply by chance", &[Checker("replica"), Checker("revision"), Wrong("does not heal")]),
        Bug::RefusalLeavesWrites => Plan::peace("a refused transaction leaves a part behind", &[Checker("aborted")]),
        Bug::CompareAcceptsOlder => Plan::peace("an older expected version is accepted", &[Checker("versions"), Checker("linearizable")]),
        Bug::TxnComparesFirst => Plan::peace("only the first comparison counts", &[Checker("txn")]),
        Bug::TxnSplitsRevision => Plan::peace("a transaction takes several revisions", &[Checker("watch"), Checker("txn"), Checker("revision")]),
        Bug::DeleteResetsVersion => Plan::peace("versions begin anew after a delete", &[Checker("versions"), Checker("linearizable")]),
        Bug::RollbackOffByOne => Plan::peace("a rollback takes the version before", &[Checker("versions")]),
        Bug::HistoryTooShort => Plan::peace("versions are forgotten too early", &[Checker("versions")]),
        Bug::ListEndsAtDeleted => Plan::peace("a list ends at a deleted entry", &[Checker("durability"), Checker("revision")]),
        Bug::CacheKeepsOld => Plan::peace("the cache keeps old entries", &[Checker("linearizable"), Checker("revision")]),
        Bug::WatchDrops => Plan::peace("a watch leaves out a revision", &[Checker("watch")]),
        Bug::WatchRepeats => Plan::peace("a resumed watch repeats", &[Checker("watch")]).under(&[Kill], 5),
        Bug::WatchReorders => Plan::peace("a watch changes the order", &[Checker("watch")]).under(&[Kill], 5),
        Bug::WatchSplits => Plan::peace("a watch splits a revision", &[Checker("watch")]),
        Bug::WatchWithoutDeletes => Plan::peace("a watch leaves out deletions", &[Checker("watch")]),
        Bug::WatchBookmarkAhead => Plan::peace("a bookmark is ahead of what was delivered", &[Checker("watch")]).under(&[Rolling], 3),
        Bug::WatchSkipsToNow => Plan::peace("a watch that is behind goes on with the newest", &[Checker("watch")]).under(&[Partition], 12).snapshots(100),
    }
    .seed(1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::report::Checked;

    #[test]
    fn every_bug_has_its_run_and_somebody_to_notice() {
        let mut wrong = BTreeSet::new();
        for bug in Bug::ALL {
            let plan = plan(*bug);
            assert!(wrong.insert(plan.wrong), "{bug:?}: {} twice", plan.wrong);
            assert_eq!(plan.faults.is_empty(), plan.time == 0, "{bug:?}");
            assert!(!plan.signs.is_empty(), "{bug:?}");
            for sign in plan.signs {
                let Checker(name) = sign else { continue };
                assert!(jepsen_lite::check::checker(name).is_some(), "{bug:?}: {name}");
            }
        }
    }

    #[test]
    fn only_who_has_to_notice_counts() {
        let failed = |name: &str| Checked {
            name: name.to_owned(),
            verdict: Verdict::Fail,
            words: String::new(),
        };
        let plan = plan(Bug::WatchDrops);
        let mut report = Report { checks: vec![failed("counter")], ..Report::default() };
        assert_eq!(plan.caught(&report), None);
        report.checks.push(failed("watch"));
        assert_eq!(plan.caught(&report).as_deref(), Some("watch"));
    }
}
