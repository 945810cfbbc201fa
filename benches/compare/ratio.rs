//! Ratios of what was measured in turn: one for each round, because what is near in time had the same machine.

use serde::Serialize;

/// What the ratios of all rounds come to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Ratio {
    /// Half of them are at or below it.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

impl Ratio {
    /// Ours by theirs, round by round; nothing without rounds, or when something was not measured in one of them.
    #[must_use]
    pub fn of(ours: &[Option<f64>], theirs: &[Option<f64>]) -> Option<Self> {
        if ours.len() != theirs.len() {
            return None;
        }
        let ratio = |(ours, theirs): (&Option<f64>, &Option<f64>)| {
            let (ours, theirs) = ((*ours)?, (*theirs)?);
            (theirs > 0.0).then(|| ours / theirs)
        };
        let ratios: Option<Vec<f64>> = ours.iter().zip(theirs).map(ratio).collect();
        let mut ratios = ratios?;
        ratios.sort_by(f64::total_cmp);
        Some(Self { median: median(&ratios)?, min: *ratios.first()?, max: *ratios.last()? })
    }
}

/// Of sorted values; between the two in the middle when their number is even.
fn median(sorted: &[f64]) -> Option<f64> {
    let upper = *sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    let lower = *sorted.get(sorted.len() / 2 - 1)?;
    Some(f64::midpoint(lower, upper))
}

/// Of values in any order, those that are there.
#[must_use]
pub fn median_of(values: &[Option<f64>]) -> Option<f64> {
    let mut values: Vec<f64> = values.iter().copied().flatten().collect();
    values.sort_by(f64::total_cmp);
    median(&values)
}

/// What a ratio has to be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// Not more than this.
    AtMost(f64),
    /// Not less.
    AtLeast(f64),
    /// Whatever it is.
    Shown,
}

impl Bound {
    /// Whether the median is within it; nothing when there is no bound, or no ratio.
    #[must_use]
    pub fn met(self, ratio: Option<Ratio>) -> Option<bool> {
        let median = ratio?.median;
        match self {
            Self::AtMost(bound) => Some(median <= bound),
            Self::AtLeast(bound) => Some(median >= bound),
            Self::Shown => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(values: &[f64]) -> Vec<Option<f64>> {
        values.iter().copied().map(Some).collect()
    }

    #[test]
    fn each_round_has_its_own_ratio() {
        // The machine was twice as slow in the second round, for both.
        let ratio = Ratio::of(&some(&[10.0, 24.0, 9.0]), &some(&[40.0, 80.0, 30.0]));
        assert_eq!(ratio, Some(Ratio { median: 0.3, min: 0.25, max: 0.3 }));
        let even = Ratio::of(&some(&[1.0, 3.0]), &some(&[1.0, 1.0]));
        assert_eq!(even, Some(Ratio { median: 2.0, min: 1.0, max: 3.0 }));
    }

    #[test]
    fn what_was_not_measured_has_no_ratio() {
        assert_eq!(Ratio::of(&[], &[]), None);
        assert_eq!(Ratio::of(&some(&[1.0]), &[None]), None);
        assert_eq!(Ratio::of(&some(&[1.0]), &some(&[0.0])), None);
        assert_eq!(Ratio::of(&some(&[1.0, 2.0]), &some(&[1.0])), None);
        assert_eq!((median_of(&[]), median_of(&[Some(3.0), None, Some(1.0)])), (None, Some(2.0)));
    }

    #[test]
    fn a_bound_is_met_by_the_median() {
        let ratio = Some(Ratio { median: 0.3, min: 0.1, max: 0.9 });
        assert_eq!(Bound::AtMost(0.3).met(ratio), Some(true));
        assert_eq!(Bound::AtMost(0.29).met(ratio), Some(false));
        assert_eq!(Bound::AtLeast(1.0).met(ratio), Some(false));
        assert_eq!(Bound::AtLeast(0.3).met(ratio), Some(true));
        assert_eq!((Bound::Shown.met(ratio), Bound::AtMost(1.0).met(None)), (None, None));
    }
}
