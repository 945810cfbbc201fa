//! The search for an order against the plainest one there is: every order is tried, nothing is remembered or left out.

use jepsen_lite::check::{Facts, Limits, Verdict, checker};
use jepsen_lite::history::{
    Answer, Call, Entry, History, NOT_FOUND, Operation, Outcome, VERSION_CONFLICT, Value,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::sim::{Shape, run};

#[derive(Clone)]
struct Register {
    version: u64,
    value: Option<Value>,
}

impl Register {
    fn current(&self) -> u64 {
        if self.value.is_some() { self.version } else { 0 }
    }

    /// Does it, if what was answered can be the answer.
    fn take(&self, operation: &Operation) -> Option<Self> {
        let (expected, value) = match &operation.call {
            Call::Get { .. } => {
                let Some(Answer::Entry { entry }) = &operation.answer else { return None };
                let seen = entry.as_ref().map(|e| (e.version, e.value.clone()));
                let here = self.value.is_some().then(|| (self.version, self.value.clone()));
                return (seen == here).then(|| self.clone());
            }
            Call::Set { value, expected_version, .. } => (*expected_version, Some(value.clone())),
            Call::Delete { expected_version, .. } => (*expected_version, None),
            _ => return None,
        };
        let conflicts = expected.is_some_and(|expected| expected != self.current());
        let nothing = value.is_none() && self.value.is_none();
        if operation.outcome == Outcome::Fail {
            let right = match (operation.error.as_deref(), &operation.answer) {
                (Some(NOT_FOUND), _) => nothing,
                (Some(VERSION_CONFLICT), Some(Answer::Conflict { current_version })) => {
                    conflicts && !nothing && *current_version == self.current()
                }
                _ => false,
            };
            return right.then(|| self.clone());
        }
        let made = Self { version: self.version + 1, value };
        let right = match &operation.answer {
            Some(Answer::Written { version, .. }) => *version == made.version,
            _ => true,
        };
        (!conflicts && !nothing && right).then_some(made)
    }
}

/// Whether some order explains all answers.
fn has_order(register: &Register, left: &[&Operation]) -> bool {
    if left.iter().all(|operation| operation.completed_ns.is_none()) {
        return true;
    }
    let soonest = left.iter().filter_map(|operation| operation.completed_ns).min();
    (0..left.len()).any(|place| {
        let operation = left[place];
        if soonest.is_some_and(|soonest| soonest < operation.invoked_ns) {
            return false;
        }
        let Some(next) = register.take(operation) else { return false };
        let mut rest = left.to_vec();
        rest.remove(place);
        has_order(&next, &rest)
    })
}

/// Changes an answer, or loses it.
fn spoil(history: &mut History, rng: &mut StdRng) {
    let values: Vec<Value> = history
        .operations
        .iter()
        .filter_map(|operation| match &operation.call {
            Call::Set { value, .. } => Some(value.clone()),
            _ => None,
        })
        .collect();
    let place = rng.random_range(0..history.operations.len());
    let operation = &mut history.operations[place];
    let near =
        |rng: &mut StdRng, version: u64| (version + rng.random_range(0..3)).saturating_sub(1);
    match &mut operation.answer {
        Some(Answer::Entry { entry }) => {
            *entry = match entry.take() {
                Some(_) if rng.random_ratio(1, 4) => None,
                Some(entry) if rng.random_ratio(1, 2) => {
                    Some(Entry { version: near(rng, entry.version), ..entry })
                }
                _ if values.is_empty() => None,
                _ => {
                    let value = values[rng.random_range(0..values.len())].clone();
                    Some(Entry { version: rng.random_range(1..4), revision: 1, value: Some(value) })
                }
            };
        }
        Some(Answer::Written { version, .. }) if rng.random_ratio(1, 2) => {
            *version = near(rng, *version);
        }
        Some(Answer::Written { .. }) => {
            operation.outcome = Outcome::Unknown;
            operation.completed_ns = None;
            operation.answer = None;
        }
        Some(Answer::Conflict { current_version }) => {
            *current_version = near(rng, *current_version);
        }
        _ => {}
    }
}

#[test]
fn the_search_says_what_trying_everything_says() {
    let linearizable = checker("linearizable").unwrap();
    let (mut orders, mut none) = (0, 0);
    for seed in 0..4000 {
        let mut rng = StdRng::seed_from_u64(seed);
        let shape = Shape {
            clients: rng.random_range(2..5),
            registers: 1,
            operations: rng.random_range(3..9),
            unknown: 25,
            simple: true,
        };
        let mut history = run(seed, shape, None).history;
        for _ in 0..rng.random_range(0..4) {
            spoil(&mut history, &mut rng);
        }
        let all: Vec<&Operation> = history.operations.iter().collect();
        let expected = has_order(&Register { version: 0, value: None }, &all);
        let verdict = linearizable.check(&Facts::new(&history), &Limits::default());
        let found = matches!(verdict, Verdict::Pass { .. });
        assert_eq!(found, expected, "seed {seed}: {verdict}\n{:#?}", history.operations);
        if expected { orders += 1 } else { none += 1 }
    }
    // Both verdicts have to be among them, or nothing was compared.
    assert!(orders > 500 && none > 500, "{orders} with an order, {none} without");
}
