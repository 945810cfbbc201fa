//! A call that takes one of many inputs after the other, so that none is the only one that a branch predictor or a hash
//! table ever sees.

use std::hint::black_box;

use crate::Call;

/// Hands each of the inputs to `work` in turn. What `work` makes is not optimised away.
pub(crate) fn in_turn<T: 'static, R>(
    inputs: Vec<T>,
    work: impl Fn(&T) -> R + 'static,
    fine: impl Fn(&R) -> bool + 'static,
) -> Call {
    let mut next = 0;
    Box::new(move || {
        let Some(input) = inputs.get(next) else { return false };
        next = if next + 1 == inputs.len() { 0 } else { next + 1 };
        fine(&black_box(work(black_box(input))))
    })
}
