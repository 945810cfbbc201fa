//! What is read: records of the state, values and documents that come in.

use llm_config_domain::{JsonValue, query};

use crate::state::State;
use crate::turns::in_turn;
use crate::{Call, Error, models};

/// An entry of the state, which has two records: where it stands and its newest version.
pub(crate) fn entry() -> Result<Call, Error> {
    let State { store, written, .. } = State::new()?;
    let addresses = written.into_iter().map(|written| written.set.address).collect();
    Ok(in_turn(
        addresses,
        move |address| query::get(&store, address),
        |found| found.as_ref().is_ok_and(Option::is_some),
    ))
}

/// The changes of one revision, as a watch that lags reads them.
pub(crate) fn changes() -> Result<Call, Error> {
    let State { store, written, .. } = State::new()?;
    let revisions = written.into_iter().map(|written| written.applied.revision).collect();
    Ok(in_turn(
        revisions,
        move |revision| query::changes(&store, *revision, 1),
        |found| found.as_ref().is_ok_and(|found| found.len() == 1),
    ))
}

/// A value that comes in.
pub(crate) fn value() -> Result<Call, Error> {
    let parse = |text: &String| JsonValue::parse(text.as_bytes());
    Ok(in_turn(models::texts()?, parse, Result::is_ok))
}

/// The same into a tree, for what looks inside: schemas and comparisons.
pub(crate) fn document() -> Result<Call, Error> {
    let parse = |text: &String| serde_json::from_str::<serde_json::Value>(text);
    Ok(in_turn(models::texts()?, parse, Result::is_ok))
}
