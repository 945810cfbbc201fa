//! Carrying out commands. What they write is thrown away, so that each call meets the same state.

use llm_config_domain::{
    Address, Applied, Batch, Change, Command, Compare, MemoryStore, Operation, Outcome, Rejection,
    Set, StoreError, Txn, TxnOp, Writes,
};

use crate::state::{ROUNDS, State, Written, recorded, retryable};
use crate::turns::in_turn;
use crate::{Call, Error};

/// Operations of one transaction.
const TXN_OPS: usize = 8;

type Done = Result<((Applied, Vec<Change>), Writes), StoreError>;

fn carry_out(store: &MemoryStore, time_ms: u64, command: &Command) -> Done {
    let mut batch = Batch::new(store);
    let done = batch.apply(time_ms, command)?;
    Ok((done, batch.into_writes()))
}

/// Applies what `commands` makes of the state; each has to lead to an answer that is `right`.
fn applied(
    commands: impl FnOnce(&State) -> Result<Vec<Command>, Error>,
    right: fn(&Applied) -> bool,
) -> Result<Call, Error> {
    let state = State::new()?;
    let commands = commands(&state)?;
    let State { store, time_ms, .. } = state;
    Ok(in_turn(
        commands,
        move |command| carry_out(&store, time_ms, command),
        move |done: &Done| done.as_ref().is_ok_and(|((applied, _), _)| right(applied)),
    ))
}

fn of_each(state: &State, command: impl Fn(usize, Set) -> Command) -> Vec<Command> {
    let sets = state.written.iter().map(|written| written.set.clone());
    sets.enumerate().map(|(number, set)| command(number, set)).collect()
}

fn is_changed(applied: &Applied) -> bool {
    matches!(applied.result, Ok(Outcome::Set { created: false, .. })) && !applied.replayed
}

/// A write of an entry that exists, with its audit record.
pub(crate) fn set() -> Result<Call, Error> {
    let command = |_, set| recorded(Operation::Set(set));
    applied(|state| Ok(of_each(state, command)), is_changed)
}

/// The same under an idempotency key: what the SDK sends.
pub(crate) fn set_retryable() -> Result<Call, Error> {
    let command = |number: usize, set: Set| retryable(&set, &format!("write-{number}"));
    applied(|state| Ok(of_each(state, command)), is_changed)
}

/// The same without an audit record, and so without a hash.
pub(crate) fn set_unrecorded() -> Result<Call, Error> {
    let command = |_, set| Command::new("model-registry", Operation::Set(set));
    applied(|state| Ok(of_each(state, command)), is_changed)
}

/// The first write of an entry.
pub(crate) fn create() -> Result<Call, Error> {
    let commands = |state: &State| {
        let new = |written: &Written| -> Result<Command, Error> {
            let Address { namespace, key, environment } = &written.set.address;
            let key = format!("{}-next", key.as_str());
            let address = Address::parse(namespace.as_str(), &key, environment.as_str())?;
            Ok(recorded(Operation::Set(Set { address, ..written.set.clone() })))
        };
        state.written.iter().map(new).collect()
    };
    applied(commands, |applied| matches!(applied.result, Ok(Outcome::Set { created: true, .. })))
}

/// Compares some entries and writes them all.
pub(crate) fn txn() -> Result<Call, Error> {
    let command = |sets: &[Written]| {
        let compare =
            |written: &Written| Compare { address: written.set.address.clone(), version: ROUNDS };
        let compare = sets.iter().map(compare).collect();
        let success = sets.iter().map(|written| TxnOp::Set(written.set.clone())).collect();
        recorded(Operation::Txn(Txn { compare, success, failure: Vec::new() }))
    };
    applied(
        |state| Ok(state.written.chunks(TXN_OPS).map(command).collect()),
        |applied| match &applied.result {
            Ok(Outcome::Txn { succeeded, results }) => *succeeded && results.len() == TXN_OPS,
            _ => false,
        },
    )
}

/// A retry of what was carried out: answered from what is remembered.
pub(crate) fn replay() -> Result<Call, Error> {
    applied(
        |state| Ok(state.written.iter().map(|written| written.command.clone()).collect()),
        |applied| applied.replayed && applied.result.is_ok(),
    )
}

/// A write that expects a version which is no more: refused.
pub(crate) fn conflict() -> Result<Call, Error> {
    let command =
        |_, set| recorded(Operation::Set(Set { expected_version: Some(ROUNDS - 1), ..set }));
    applied(
        |state| Ok(of_each(state, command)),
        |applied| matches!(applied.result, Err(Rejection::VersionConflict { .. })),
    )
}
