//! The time that each hot function takes, by Criterion: `make bench-hot`.

use criterion::Criterion;
use llm_config_hot::{ALL, Error};

fn main() -> Result<(), Error> {
    let mut criterion = Criterion::default().configure_from_args();
    for function in ALL {
        let mut call = function.prepare()?;
        criterion.bench_function(function.name, |bencher| bencher.iter(&mut call));
    }
    criterion.final_summary();
    Ok(())
}
