//! What the answers of a run have to be, and whether they are: checkers, each for itself, over one history.
//!
//! A verdict is one of three, and *unknown* is not a pass. Every checker also holds for a part of a history (see
//! [`Header::partial`](crate::history::Header::partial)): what the operations at hand do not explain may have been done by
//! others, and only what nothing could explain is a violation. That is what makes a failing history smaller without making up a failure.

mod aborted;
mod access;
mod audit;
mod counter;
mod durability;
mod facts;
mod members;
mod replica;
mod revision;
mod secrets;
mod session;
mod staleness;
mod txn;
mod versions;
mod watch;
mod wgl;

use std::fmt;
use std::time::Duration;

pub use facts::Facts;

use crate::history::History;

/// How many violations a verdict names; the others are counted.
const VIOLATIONS_MAX: usize = 20;
/// How many operations a violation names.
const NAMED_MAX: usize = 12;

/// How far the search for an order goes before it gives up.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Steps for one key.
    pub steps: u64,
    /// States that are remembered for one key.
    pub states: usize,
    /// For all keys together.
    pub time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { steps: 50_000_000, states: 4_000_000, time: Duration::from_secs(120) }
    }
}

/// What a checker found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is wrong with this many things that were looked at.
    Pass { checked: u64 },
    /// These are wrong, and so many more.
    Fail { violations: Vec<Violation>, more: u64 },
    /// It cannot be told.
    Unknown { why: String },
}

/// Something that no correct store answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which rule is broken; one word or a few.
    pub rule: &'static str,
    /// The entry, if it is about one.
    pub key: Option<String>,
    /// The operations that show it.
    pub operations: Vec<u64>,
    /// What they show.
    pub sentence: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.sentence)?;
        if let Some(key) = &self.key {
            write!(f, " [{key}]")?;
        }
        if !self.operations.is_empty() {
            let ids: Vec<_> = self.operations.iter().map(u64::to_string).collect();
            write!(f, " (operations {})", ids.join(", "))?;
        }
        Ok(())
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pass { checked } => write!(f, "pass ({checked} checked)"),
            Self::Unknown { why } => write!(f, "unknown: {why}"),
            Self::Fail { violations, more } => {
                write!(f, "FAIL")?;
                for violation in violations {
                    write!(f, "\n    {violation}")?;
                }
                if *more > 0 {
                    write!(f, "\n    and {more} more")?;
                }
                Ok(())
            }
        }
    }
}

/// Collects what a checker finds.
#[derive(Debug, Default)]
struct Findings {
    checked: u64,
    violations: Vec<Violation>,
    more: u64,
}

impl Findings {
    fn fail(
        &mut self,
        rule: &'static str,
        key: Option<&str>,
        operations: impl IntoIterator<Item = u64>,
        sentence: String,
    ) {
        if self.violations.len() == VIOLATIONS_MAX {
            self.more += 1;
            return;
        }
        let mut named: Vec<u64> = Vec::new();
        for id in operations {
            if !named.contains(&id) && named.len() < NAMED_MAX {
                named.push(id);
            }
        }
        self.violations.push(Violation {
            rule,
            key: key.map(str::to_owned),
            operations: named,
            sentence,
        });
    }

    fn verdict(self) -> Verdict {
        if self.violations.is_empty() {
            return Verdict::Pass { checked: self.checked };
        }
        Verdict::Fail { violations: self.violations, more: self.more }
    }
}

/// One checker.
#[derive(Clone, Copy)]
pub struct Checker {
    /// Its name.
    pub name: &'static str,
    /// What it proves, in one line.
    pub proves: &'static str,
    check: fn(&Facts<'_>, &Limits) -> Verdict,
}

impl fmt::Debug for Checker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl Checker {
    /// Looks at a history.
    #[must_use]
    pub fn check(&self, facts: &Facts<'_>, limits: &Limits) -> Verdict {
        (self.check)(facts, limits)
    }
}

/// All of them.
pub const CHECKERS: &[Checker] = &[
    Checker {
        name: "linearizable",
        proves: "of each entry, some order of its operations explains every answer (revisions are not trusted)",
        check: wgl::check,
    },
    Checker {
        name: "revision",
        proves: "over the whole store, the order of revisions is the order of time and explains every answer",
        check: revision::check,
    },
    Checker {
        name: "counter",
        proves: "every acknowledged write counts once, however often it was sent",
        check: counter::check,
    },
    Checker {
        name: "versions",
        proves: "versions count from 1 without gap or repeat and mean one value for ever",
        check: versions::check,
    },
    Checker {
        name: "txn",
        proves: "transactions happen as a whole, on what they compared, and keep their sums",
        check: txn::check,
    },
    Checker {
        name: "watch",
        proves: "watches deliver every change once, in order, a revision at a time",
        check: watch::check,
    },
    Checker {
        name: "session",
        proves: "a session reads what it wrote and never goes back, and no node does",
        check: session::check,
    },
    Checker {
        name: "staleness",
        proves: "a read with a bound is not older than the bound",
        check: staleness::check,
    },
    Checker {
        name: "durability",
        proves: "every acknowledged write is there at the end",
        check: durability::check,
    },
    Checker {
        name: "replica",
        proves: "all nodes hold the same at the same revision",
        check: replica::check,
    },
    Checker {
        name: "aborted",
        proves: "what was refused never takes effect",
        check: aborted::check,
    },
    Checker {
        name: "access",
        proves: "what was granted works, and what was taken away does not, on every node that can know of it",
        check: access::check,
    },
    Checker {
        name: "secrets",
        proves: "secrets are shown to who asks for them only, and what is gone stays gone",
        check: secrets::check,
    },
    Checker {
        name: "audit",
        proves: "the audit log has everything that was done once, in order, on every node",
        check: audit::check,
    },
    Checker {
        name: "members",
        proves: "nodes remember their votes, and agree in the end who is a member",
        check: members::check,
    },
];

/// The checker of this name.
#[must_use]
pub fn checker(name: &str) -> Option<&'static Checker> {
    CHECKERS.iter().find(|checker| checker.name == name)
}

/// What all checkers found.
#[derive(Debug, Clone)]
pub struct Report {
    /// By the name of the checker.
    pub verdicts: Vec<(&'static str, Verdict)>,
    /// How many operations were looked at.
    pub operations: u64,
}

/// The verdicts, taken together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overall {
    Pass,
    Fail,
    Unknown,
}

impl fmt::Display for Overall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pass => "pass",
            Self::Fail => "FAIL",
            Self::Unknown => "unknown, which is no pass",
        })
    }
}

impl Report {
    /// A failure outweighs what cannot be told, which outweighs a pass.
    #[must_use]
    pub fn overall(&self) -> Overall {
        let any = |wanted: fn(&Verdict) -> bool| self.verdicts.iter().any(|(_, v)| wanted(v));
        if any(|verdict| matches!(verdict, Verdict::Fail { .. })) {
            Overall::Fail
        } else if any(|verdict| matches!(verdict, Verdict::Unknown { .. })) {
            Overall::Unknown
        } else {
            Overall::Pass
        }
    }

    /// The verdict of one checker.
    #[must_use]
    pub fn verdict(&self, name: &str) -> Option<&Verdict> {
        self.verdicts.iter().find(|(checker, _)| *checker == name).map(|(_, verdict)| verdict)
    }

    /// The first violation, with the checker that found it.
    #[must_use]
    pub fn first_violation(&self) -> Option<(&'static str, &Violation)> {
        self.verdicts.iter().find_map(|(name, verdict)| match verdict {
            Verdict::Fail { violations, .. } => Some((*name, violations.first()?)),
            Verdict::Pass { .. } | Verdict::Unknown { .. } => None,
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, verdict) in &self.verdicts {
            writeln!(f, "{name:<14}{verdict}")?;
        }
        write!(f, "{} operations: {}", self.operations, self.overall())
    }
}

/// Looks at a history with every checker.
#[must_use]
pub fn check(history: &History, limits: &Limits) -> Report {
    let facts = Facts::new(history);
    let mut verdicts: Vec<_> =
        CHECKERS.iter().map(|checker| (checker.name, checker.check(&facts, limits))).collect();
    if !history.whole {
        let why = "the history was cut off: what came after is not known".to_owned();
        verdicts.push(("whole", Verdict::Unknown { why }));
    }
    Report { verdicts, operations: history.operations.len() as u64 }
}
