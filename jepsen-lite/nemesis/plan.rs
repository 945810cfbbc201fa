//! When which fault begins and how long it lasts: all of it from the seed.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};

use super::Class;

const HOLD_MIN_MS: u64 = 2000;
const HOLD_MAX_MS: u64 = 8000;
const GAP_MIN_MS: u64 = 300;
const GAP_MAX_MS: u64 = 2500;

/// One planned fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// Its class.
    pub class: Class,
    /// When it begins, after the first healthy seconds.
    pub at: Duration,
    /// How long it lasts.
    pub hold: Duration,
    /// What its own choices are derived from.
    pub seed: u64,
}

/// All faults of a run, by the time at which they begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan(pub Vec<Planned>);

impl Plan {
    /// One fault after the other until `time` is over, each class at least once if there is time for it; every third fault
    /// begins before its predecessor ends.
    #[must_use]
    pub fn of(seed: u64, classes: &[Class], time: Duration) -> Self {
        let mut chance = StdRng::seed_from_u64(seed);
        let mut planned = Vec::new();
        let mut at = Duration::ZERO;
        let mut left: Vec<Class> = Vec::new();
        while let (true, Some(any)) = (at < time, classes.choose(&mut chance)) {
            if left.is_empty() && planned.is_empty() {
                left = classes.to_vec();
            }
            let class = if left.is_empty() {
                *any
            } else {
                left.swap_remove(chance.random_range(0..left.len()))
            };
            let hold = Duration::from_millis(chance.random_range(HOLD_MIN_MS..HOLD_MAX_MS));
            planned.push(Planned { class, at, hold, seed: chance.random() });
            let gap = Duration::from_millis(chance.random_range(GAP_MIN_MS..GAP_MAX_MS));
            at += if chance.random_range(0..3) == 0 { hold / 2 } else { hold + gap };
        }
        Self(planned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_one_plan() {
        let plan = |seed| Plan::of(seed, &Class::HONEST, Duration::from_secs(300));
        assert_eq!(plan(1), plan(1));
        assert_ne!(plan(1), plan(2));
    }

    #[test]
    fn every_class_comes_up() {
        let plan = Plan::of(3, &Class::HONEST, Duration::from_secs(300));
        for class in Class::HONEST {
            assert!(plan.0.iter().any(|planned| planned.class == class), "{class:?}");
        }
    }

    #[test]
    fn without_classes_nothing_is_planned() {
        assert!(Plan::of(1, &[], Duration::from_secs(10)).0.is_empty());
    }
}
