//! A piece of work that nobody changes: when its count moves, the compiler, a library or the machine is another one, and the
//! counts beside it moved for that reason too.

use std::hint::black_box;

use sha2::{Digest, Sha256};

use crate::{Call, Error};

const BYTES: usize = 4096;
const NUMBERS: usize = 512;

pub(crate) fn work() -> Result<Call, Error> {
    // A linear congruence, Knuth's: numbers without an order, the same for ever.
    let step = |last: &u64| {
        Some(last.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407))
    };
    let numbers: Vec<u64> = std::iter::successors(Some(1), step).take(NUMBERS).collect();
    let bytes: Vec<u8> =
        numbers.iter().flat_map(|number| number.to_be_bytes()).take(BYTES).collect();
    Ok(Box::new(move || {
        let digest: [u8; 32] = Sha256::digest(black_box(&bytes)).into();
        let mut sorted = black_box(&numbers).clone();
        sorted.sort_unstable();
        black_box(digest) != [0; 32] && black_box(sorted).len() == NUMBERS
    }))
}
