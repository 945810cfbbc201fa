//! Random histories: those of a correct store pass, whole and in parts; those of a store with a bug fail.

use std::time::Duration;

use jepsen_lite::check::{Limits, Overall, Verdict, check};
use jepsen_lite::history::{Call, History, Outcome};
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::sim::{Bug, Shape, run};

fn limits() -> Limits {
    Limits { time: Duration::from_secs(60), ..Limits::default() }
}

/// Any part of a history: watches stay whole, as what a watch leaves out is a violation.
fn part(history: &History, seed: u64) -> History {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut kept = history.clone();
    kept.header.partial = true;
    let percent = rng.random_range(5..95);
    let watches: Vec<bool> = (0..10).map(|_| rng.random_ratio(percent, 100)).collect();
    kept.operations.retain(|operation| match operation.call {
        Call::WatchOpen { watch, .. }
        | Call::WatchBatch { watch }
        | Call::WatchEnd { watch, .. } => watches[usize::try_from(watch).unwrap()],
        _ => rng.random_ratio(percent, 100),
    });
    kept
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, max_shrink_iters: 0, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_correct_store_passes(seed: u64) {
        let history = run(seed, Shape::default(), None).history;
        for operation in &history.operations {
            prop_assert_eq!(operation.validate(), Ok(()), "{:?}", operation);
        }
        let report = check(&history, &limits());
        prop_assert_eq!(report.overall(), Overall::Pass, "seed {}\n{}", seed, report);
        // What is refused need not be among them; the others are about another store.
        let elsewhere = ["aborted", "access", "secrets", "audit", "members"];
        for (name, verdict) in &report.verdicts {
            prop_assert!(matches!(verdict, Verdict::Pass { checked } if *checked > 0 || elsewhere.contains(name)), "{} looked at nothing", name);
        }
    }

    #[test]
    fn every_part_of_it_passes(seed: u64) {
        let history = part(&run(seed, Shape::default(), None).history, seed);
        let report = check(&history, &limits());
        prop_assert_eq!(report.overall(), Overall::Pass, "seed {}\n{}", seed, report);
    }

    #[test]
    fn it_passes_with_answers_lost(seed: u64) {
        let mut history = run(seed, Shape::default(), None).history;
        let mut rng = StdRng::seed_from_u64(seed);
        // The first transaction is what the sums begin with.
        for operation in history.operations.iter_mut().skip(1) {
            if operation.call.is_write() && operation.outcome == Outcome::Ok && rng.random_ratio(1, 10) {
                operation.outcome = Outcome::Unknown;
                operation.completed_ns = None;
                operation.revision = None;
                operation.answer = None;
            }
        }
        let report = check(&history, &limits());
        prop_assert_eq!(report.overall(), Overall::Pass, "seed {}\n{}", seed, report);
    }
}

/// Every bug, and the checkers that are made for it.
const BUGS: &[(Bug, &[&str])] = &[
    (Bug::FollowerRead, &["linearizable", "revision"]),
    (Bug::FollowerReadThatLies, &["linearizable", "revision"]),
    (Bug::AckBeforeCommit, &["linearizable", "revision", "versions", "durability"]),
    (Bug::LostTail, &["linearizable", "revision", "versions"]),
    (Bug::NoDedup, &["counter", "revision"]),
    (Bug::KeyReused, &["counter"]),
    (Bug::RefusedIsDone, &["aborted", "linearizable", "revision"]),
    (Bug::CasIgnoresVersion, &["linearizable", "versions"]),
    (Bug::VersionReset, &["linearizable", "versions"]),
    (Bug::SharedRevision, &["revision"]),
    (Bug::HistoryGap, &["versions"]),
    (Bug::HalfTransaction, &["linearizable", "revision", "txn"]),
    (Bug::TransactionIgnoresCompare, &["linearizable", "txn"]),
    (Bug::WatchSkips, &["watch"]),
    (Bug::WatchRepeats, &["watch"]),
    (Bug::WatchTears, &["watch"]),
    (Bug::BookmarkAhead, &["watch"]),
    (Bug::ResumeSkips, &["watch"]),
    (Bug::WatchReorders, &["watch"]),
    (Bug::SessionIgnored, &["session"]),
    (Bug::StalenessIgnored, &["staleness"]),
    (Bug::Diverges, &["replica", "revision"]),
    (Bug::LostAddition, &["counter"]),
    (Bug::DoubleAddition, &["counter"]),
    (Bug::RollbackElsewhere, &["versions"]),
];

#[test]
fn every_bug_is_found_by_the_checkers_that_are_made_for_it() {
    const SEEDS: u64 = 12;
    let mut missed = Vec::new();
    for (bug, expected) in BUGS {
        let mut struck = 0;
        let mut found = vec![0; expected.len()];
        let mut by_any = 0;
        for seed in 0..SEEDS {
            let run = run(seed, Shape::default(), Some(*bug));
            if run.bites == 0 {
                continue;
            }
            struck += 1;
            let report = check(&run.history, &limits());
            by_any += u32::from(report.overall() == Overall::Fail);
            for (count, name) in found.iter_mut().zip(*expected) {
                let failed = matches!(report.verdict(name), Some(Verdict::Fail { .. }));
                *count += u32::from(failed);
            }
        }
        println!("{bug:?}: struck in {struck} runs, found in {by_any}, {expected:?} in {found:?}");
        // A bug that strikes need not show; each checker has to find it in some run, all together in most.
        if struck == 0 || found.contains(&0) || by_any * 3 < struck * 2 {
            missed.push(format!("{bug:?}: {found:?} of {struck}, {by_any} by any"));
        }
    }
    assert!(missed.is_empty(), "{missed:#?}");
}
