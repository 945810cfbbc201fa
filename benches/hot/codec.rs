//! Commands and answers as they travel: what a node does for each before it is applied, and for each answer after.

use bytes::Bytes;
use llm_config_domain::{Applied, Command};

use crate::state::{State, retryable};
use crate::turns::in_turn;
use crate::{Call, Error};

fn commands() -> Result<Vec<Command>, Error> {
    let written = State::new()?.written.into_iter().enumerate();
    Ok(written.map(|(n, written)| retryable(&written.set, &format!("write-{n}"))).collect())
}

fn answers() -> Result<Vec<Applied>, Error> {
    Ok(State::new()?.written.into_iter().map(|written| written.applied).collect())
}

pub(crate) fn command_encode() -> Result<Call, Error> {
    Ok(in_turn(commands()?, Command::encode, |bytes| !bytes.is_empty()))
}

pub(crate) fn command_decode() -> Result<Call, Error> {
    let encoded: Vec<Bytes> = commands()?.iter().map(Command::encode).collect();
    Ok(in_turn(encoded, |bytes| Command::decode(bytes.clone()), Result::is_ok))
}

pub(crate) fn command_validate() -> Result<Call, Error> {
    Ok(in_turn(commands()?, Command::validate, Result::is_ok))
}

pub(crate) fn answer_encode() -> Result<Call, Error> {
    Ok(in_turn(answers()?, Applied::encode, |bytes| !bytes.is_empty()))
}

pub(crate) fn answer_decode() -> Result<Call, Error> {
    let encoded: Vec<Bytes> = answers()?.iter().map(Applied::encode).collect();
    Ok(in_turn(encoded, |bytes| Applied::decode(bytes.clone()), Result::is_ok))
}
