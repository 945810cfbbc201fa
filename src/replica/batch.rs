//! Proposals to the Raft core, in batches: what arrives while batches are under way goes with the next one.
//!
//! A batch costs an fsync on every node, a message to each follower and its answer, a write of the state, and the wake-ups
//! between all those threads, however many entries it has. Left to itself the core begins a batch with every message that
//! finds it idle, so under load there are many small ones. Nobody waits for a clock here: a proposal that finds a place
//! free goes at once, so one client, or two, wait for nothing. (Group commit: DeWitt et al., *Implementation Techniques for
//! Main Memory Database Systems*, SIGMOD 1984.)

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use llm_config_domain::Applied;
use openraft::errors::{ClientWriteError, Fatal};
use openraft::raft::WriteResult;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::node::Node;
use crate::types::{Proposal, Types};

/// Batches under way at a time: one is on its way to the disks while another is on its way back.
const UNDER_WAY_MAX: usize = 2;
/// A batch that takes longer holds up the next ones no more. Its answers are still told when they come.
const PATIENCE: Duration = Duration::from_secs(1);

/// What one batch takes at most; after these bytes, no further proposal.
const PROPOSALS_MAX: usize = 1_024;
const BYTES_MAX: usize = 1 << 20;

/// What became of a proposal.
pub(crate) enum Fate {
    Applied(Applied),
    /// This node does not lead: certainly not appended.
    NotLeader,
    /// It may be appended, or may become so.
    Unknown,
}

/// One proposal, and who waits for it.
struct Waiting {
    proposal: Proposal,
    asked: oneshot::Sender<Fate>,
}

/// The proposals of one node that are not with its core yet. As many as the node admits.
#[derive(Default)]
pub(crate) struct Batcher {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    under_way: usize,
    waiting: Vec<Waiting>,
}

impl Batcher {
    /// Takes a proposal in. True: the caller has to carry what waits.
    fn add(&self, waiting: Waiting) -> bool {
        let mut state = self.state.lock();
        state.waiting.push(waiting);
        let free = state.under_way < UNDER_WAY_MAX;
        state.under_way += usize::from(free);
        free
    }

    /// What is carried next, in the order in which it came. With nothing left the place is free.
    fn take(&self) -> Vec<Waiting> {
        let mut state = self.state.lock();
        // Who has given up is not answered, so what they asked for need not be done.
        state.waiting.retain(|waiting| !waiting.asked.is_closed());
        let mut bytes = 0;
        let fits = |waiting: &&Waiting| {
            let fits = bytes < BYTES_MAX;
            bytes += waiting.proposal.command.len();
            fits
        };
        let taken = state.waiting.iter().take(PROPOSALS_MAX).take_while(fits).count();
        let rest = state.waiting.split_off(taken);
        if taken == 0 {
            state.under_way -= 1;
        }
        std::mem::replace(&mut state.waiting, rest)
    }
}

/// Proposes to the core of this node. Dropping the future gives the answer up, not the proposal.
pub(crate) async fn propose(node: &Arc<Node>, proposal: Proposal) -> Fate {
    let (asked, answer) = oneshot::channel();
    if node.batcher.add(Waiting { proposal, asked }) {
        tokio::spawn(carry(Arc::clone(node)));
    }
    answer.await.unwrap_or(Fate::Unknown)
}

/// Carries batch after batch, until nothing waits.
async fn carry(node: Arc<Node>) {
    loop {
        let (proposals, asked): (Vec<_>, Vec<_>) =
            node.batcher.take().into_iter().map(|one| (one.proposal, one.asked)).unzip();
        if asked.is_empty() {
            return;
        }
        let answers = match node.raft.client_write_many(proposals).await {
            Ok(answers) => answers,
            Err(error) => {
                tracing::warn!(reason = %error, "proposals have no known outcome");
                continue;
            }
        };
        // A task of its own, which the end of the patience does not end.
        drop(timeout(PATIENCE, tokio::spawn(tell(answers, asked))).await);
    }
}

/// Tells each who waits what became of their proposal.
async fn tell(
    answers: BoxStream<'static, Result<WriteResult<Types>, Fatal<Types>>>,
    asked: Vec<oneshot::Sender<Fate>>,
) {
    // A core that ends answers one of them with an error and the others not at all.
    let mut answers = answers.fuse();
    for asked in asked {
        let fate = match answers.next().await {
            Some(Ok(Ok(written))) => written.response.map_or(Fate::Unknown, Fate::Applied),
            Some(Ok(Err(ClientWriteError::ForwardToLeader(_)))) => Fate::NotLeader,
            Some(Ok(Err(error))) => {
                tracing::warn!(reason = %error, "a proposal has no known outcome");
                Fate::Unknown
            }
            // The core has ended; why is told elsewhere.
            Some(Err(_)) | None => Fate::Unknown,
        };
        // Who has given up needs no answer.
        drop(asked.send(fate));
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn waiting(bytes: usize) -> (Waiting, oneshot::Receiver<Fate>) {
        let (asked, answer) = oneshot::channel();
        let proposal = Proposal { time_ms: 0, command: Bytes::from(vec![0; bytes]) };
        (Waiting { proposal, asked }, answer)
    }

    #[test]
    fn as_many_are_under_way_as_there_are_places() {
        let batcher = Batcher::default();
        let mut answers = Vec::new();
        let mut carried = 0;
        for _ in 0..10 {
            let (waiting, answer) = waiting(1);
            carried += usize::from(batcher.add(waiting));
            answers.push(answer);
        }
        assert_eq!(carried, UNDER_WAY_MAX);
        assert_eq!(batcher.take().len(), 10, "who is first takes all that waits");
        for _ in 0..UNDER_WAY_MAX {
            assert!(batcher.take().is_empty());
        }
        let (waiting, _answer) = waiting(1);
        assert!(batcher.add(waiting), "the places are free again");
    }

    #[test]
    fn a_batch_is_bounded_and_leaves_the_rest_in_order() {
        let batcher = Batcher::default();
        let mut answers = Vec::new();
        for bytes in [BYTES_MAX, 1, 2] {
            let (waiting, answer) = waiting(bytes);
            batcher.add(waiting);
            answers.push(answer);
        }
        let sizes = |taken: Vec<Waiting>| -> Vec<usize> {
            taken.iter().map(|waiting| waiting.proposal.command.len()).collect()
        };
        assert_eq!(sizes(batcher.take()), [BYTES_MAX]);
        assert_eq!(sizes(batcher.take()), [1, 2]);
        for _ in 0..=PROPOSALS_MAX {
            let (waiting, answer) = waiting(1);
            batcher.add(waiting);
            answers.push(answer);
        }
        assert_eq!(batcher.take().len(), PROPOSALS_MAX);
        assert_eq!(batcher.take().len(), 1);
    }

    #[tokio::test]
    async fn a_core_that_ends_leaves_everybody_in_doubt() {
        let ((first, one), (second, other)) = (oneshot::channel(), oneshot::channel());
        let answers = futures::stream::unfold(Some(()), |open| async move {
            open.map(|()| (Err(Fatal::Stopped), None))
        });
        tell(answers.boxed(), vec![first, second]).await;
        assert!(matches!((one.await, other.await), (Ok(Fate::Unknown), Ok(Fate::Unknown))));
    }

    #[test]
    fn what_nobody_waits_for_is_not_proposed() {
        let batcher = Batcher::default();
        let (gone, answer) = waiting(1);
        batcher.add(gone);
        drop(answer);
        assert!(batcher.take().is_empty());
    }
}
