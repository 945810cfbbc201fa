//! A write's way to the leader and back.
//!
//! Everything turns on one distinction: an attempt that was certainly not appended may be made again; one that may have
//! been appended may be made again only with a request id, because the state machine then answers it from memory instead
//! of doing it twice. Without one, the caller is told that the outcome is unknown.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use llm_config_bugs::{Bug, active};
use llm_config_domain::limits::COMMAND_BYTES_MAX;
use llm_config_domain::{Applied, Command, Operation, Overlay, apply};
use llm_config_proto::internal as pb;
use tonic::{Code, Status};

use crate::batch::{self, Fate};
use crate::error::ProposeError;
use crate::node::{Counters, Node, wall_clock_ms};
use crate::read;
use crate::types::Proposal;

/// What one attempt came to.
#[allow(
    clippy::large_enum_variant,
    reason = "lives for one call; a box would cost an allocation per write"
)]
enum Attempt {
    Answered(Applied),
    /// Certainly not appended.
    NotProposed(ProposeError),
    /// Maybe appended.
    Unknown,
}

/// Metadata of a reply that promises that nothing was appended.
const NOT_PROPOSED: &str = "x-not-proposed";
/// Time that a forwarded write leaves for its answer to travel back.
const REPLY_MARGIN: Duration = Duration::from_millis(20);

/// Proposes from any node.
pub(crate) async fn propose(
    node: &Arc<Node>,
    command: &Command,
    deadline: Instant,
) -> Result<Applied, ProposeError> {
    // Every node must be able to read what is appended: one that cannot would stop.
    command.validate().map_err(|error| ProposeError::Invalid(error.to_string()))?;
    let repeatable = command.request.is_some();
    let encoded = command.encode();
    if encoded.len() > COMMAND_BYTES_MAX {
        let reason =
            format!("the command has {} bytes, more than {COMMAND_BYTES_MAX}", encoded.len());
        return Err(ProposeError::Invalid(reason));
    }
    let _admitted = admit(node, &command.operation, encoded.len())?;
    let mut maybe_proposed = false;
    loop {
        if let Some(failure) = node.local.failure() {
            return Err(ending(maybe_proposed, ProposeError::Failed(failure.message().to_owned())));
        }
        let leader = node.leader();
        let attempt = match &leader {
            Some((id, _)) if *id == node.local.node_id() => {
                locally(node, encoded.clone(), deadline).await
            }
            Some((id, address)) => {
                let attempt = forward(node, *id, address, encoded.clone(), deadline).await;
                if let Attempt::Answered(applied) = &attempt {
                    catch_up(node, applied.revision, deadline).await;
                }
                attempt
            }
            None => Attempt::NotProposed(ProposeError::NoLeader),
        };
        let refusal = match attempt {
            Attempt::Answered(applied)
                if active(Bug::DoneCalledOverload) && applied.revision.is_multiple_of(32) =>
            {
                return Err(ProposeError::Overloaded);
            }
            Attempt::Answered(applied) => return Ok(applied),
            Attempt::NotProposed(refusal) => refusal,
            Attempt::Unknown if active(Bug::UnknownCalledRefused) => {
                return Err(ProposeError::NoLeader);
            }
            Attempt::Unknown => {
                maybe_proposed = true;
                if !repeatable && !active(Bug::UnknownMadeAgain) {
                    return Err(ProposeError::OutcomeUnknown);
                }
                ProposeError::OutcomeUnknown
            }
        };
        let again = matches!(refusal, ProposeError::NoLeader | ProposeError::OutcomeUnknown);
        if again {
            node.wait_for_leader(leader.map(|(id, _)| id), deadline).await;
        }
        // Not tried when no time is left: an attempt that is cut off at once would turn a clear refusal into a doubt.
        if !again || Instant::now() >= deadline {
            return Err(ending(maybe_proposed, refusal));
        }
    }
}

/// Once an attempt may have been appended, no later refusal makes that untrue.
fn ending(maybe_proposed: bool, error: ProposeError) -> ProposeError {
    if maybe_proposed { ProposeError::OutcomeUnknown } else { error }
}

/// Waits a moment until this node has applied what it passed on, so that who wrote through a node reads it there. A node
/// that is slow to follow delays the answer no further: the answer is true without it.
async fn catch_up(node: &Node, revision: u64, deadline: Instant) {
    let patience = Instant::now() + node.local.tuning.heartbeat_interval * 2;
    drop(read::wait_revision(node, revision, deadline.min(patience)).await);
}

/// Holds a place and a share of the byte budget while a write is in flight.
fn admit(
    node: &Node,
    operation: &Operation,
    bytes: usize,
) -> Result<(tokio::sync::OwnedSemaphorePermit, tokio::sync::OwnedSemaphorePermit), ProposeError> {
    node.room_for(operation)?;
    let full = |_| ProposeError::Overloaded;
    let slot = Arc::clone(&node.slots).try_acquire_owned().map_err(full)?;
    let units = u32::try_from(bytes.div_ceil(Node::BYTES_UNIT)).unwrap_or(u32::MAX);
    let share = Arc::clone(&node.bytes).try_acquire_many_owned(units).map_err(full)?;
    Ok((slot, share))
}

/// Proposes to the Raft core of this node.
async fn locally(node: &Arc<Node>, command: Bytes, deadline: Instant) -> Attempt {
    Counters::add(&node.counters.proposals);
    let guessed = guess(node, &command);
    let proposal = Proposal { time_ms: wall_clock_ms(), command };
    if active(Bug::AnswerBeforeCommit)
        && let Some(guessed) = guessed
    {
        let raft = node.raft.clone();
        tokio::spawn(async move { drop(raft.client_write(proposal).await) });
        return Attempt::Answered(guessed);
    }
    match tokio::time::timeout_at(deadline.into(), batch::propose(node, proposal)).await {
        Ok(Fate::Applied(applied)) => Attempt::Answered(guessed.unwrap_or(applied)),
        Ok(Fate::NotLeader) => Attempt::NotProposed(ProposeError::NoLeader),
        Ok(Fate::Unknown) | Err(_) => Attempt::Unknown,
    }
}

/// What the command would come to if nothing came before it: for the bugs that answer so.
fn guess(node: &Node, command: &Bytes) -> Option<Applied> {
    let leads = active(Bug::AnswerBeforeCommit) && node.leads();
    if !active(Bug::AnswerGuessed) && !leads {
        return None;
    }
    let command = Command::decode(command.clone()).ok()?;
    let view = node.local.state.view();
    Some(apply(&mut Overlay::new(&view), wall_clock_ms(), &command).ok()?.0)
}

/// Proposes on behalf of another node. Decodes first: what is appended must be a command on every node.
pub(crate) async fn on_leader(
    node: &Arc<Node>,
    command: Bytes,
    deadline: Instant,
) -> Result<pb::ProposeReply, Status> {
    // A node that has just handed over, and may be about to end, does not begin what its core could not answer.
    if node.leader().is_some_and(|(id, _)| id != node.local.node_id()) {
        return Err(not_proposed(Status::unavailable(ProposeError::NoLeader.to_string())));
    }
    let decoded = Command::decode(command.clone())
        .map_err(|error| not_proposed(Status::invalid_argument(error.to_string())))?;
    let _admitted = match admit(node, &decoded.operation, command.len()) {
        Ok(admitted) => admitted,
        Err(ProposeError::StorageFull(reason)) => {
            return Err(not_proposed(Status::failed_precondition(reason)));
        }
        Err(error) => return Err(not_proposed(Status::resource_exhausted(error.to_string()))),
    };
    match locally(node, command, deadline).await {
        Attempt::Answered(applied) => Ok(pb::ProposeReply { applied: applied.encode() }),
        Attempt::NotProposed(error) => Err(not_proposed(Status::unavailable(error.to_string()))),
        Attempt::Unknown => Err(Status::unknown("proposed, but not answered in time")),
    }
}

fn not_proposed(mut status: Status) -> Status {
    status.metadata_mut().insert(NOT_PROPOSED, tonic::metadata::MetadataValue::from_static("1"));
    status
}

async fn forward(
    node: &Node,
    leader: u64,
    address: &str,
    command: Bytes,
    deadline: Instant,
) -> Attempt {
    let left = deadline.saturating_duration_since(Instant::now());
    if left <= REPLY_MARGIN {
        // Sent now, it could only come back as a doubt.
        return Attempt::NotProposed(ProposeError::NoLeader);
    }
    let Ok(mut peer) = node.peer(leader, address) else {
        return Attempt::NotProposed(ProposeError::NoLeader);
    };
    Counters::add(&node.counters.forwarded);
    let timeout_ms =
        u64::try_from(left.saturating_sub(REPLY_MARGIN).as_millis()).unwrap_or(u64::MAX);
    let request = node.request(leader, pb::ProposeRequest { command, timeout_ms }, left);
    match tokio::time::timeout_at(deadline.into(), peer.propose(request)).await {
        Err(_) => Attempt::Unknown,
        Ok(Ok(reply)) => match Applied::decode(reply.into_inner().applied) {
            Ok(applied) => Attempt::Answered(applied),
            Err(error) => {
                tracing::error!(%error, leader, "the leader's answer could not be read");
                Attempt::Unknown
            }
        },
        Ok(Err(status)) if never_sent(&status) => Attempt::NotProposed(ProposeError::NoLeader),
        Ok(Err(status)) if status.metadata().contains_key(NOT_PROPOSED) => {
            Attempt::NotProposed(match status.code() {
                Code::ResourceExhausted => ProposeError::Overloaded,
                Code::FailedPrecondition => ProposeError::StorageFull(status.message().to_owned()),
                Code::InvalidArgument => ProposeError::Invalid(status.message().to_owned()),
                _ => ProposeError::NoLeader,
            })
        }
        // The passport check runs before anything else.
        Ok(Err(status)) if status.code() == Code::FailedPrecondition => {
            Attempt::NotProposed(ProposeError::NoLeader)
        }
        Ok(Err(status)) => {
            tracing::warn!(%status, leader, "a forwarded write has no known outcome");
            Attempt::Unknown
        }
    }
}

/// Whether a request failed before a connection existed to send it on.
pub(crate) fn never_sent(status: &Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}
