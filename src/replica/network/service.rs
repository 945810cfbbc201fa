//! Incoming node-to-node traffic: checks who it is for, converts, and hands it to the Raft core.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _};
use llm_config_domain::COMMAND_FORMAT;
use llm_config_proto::internal as pb;
use llm_config_proto::internal::replication_server::{Replication, ReplicationServer};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, StreamAppendError, StreamAppendResult,
    TransferLeaderRequest, VoteRequest, VoteResponse,
};
use openraft::storage::Snapshot;
use tokio::sync::{Mutex, watch};
use tonic::{Request, Response, Status, Streaming};

use super::client::MESSAGE_BYTES_MAX;
use super::passport;
use super::receive::{ReceiveError, Receiver};
use crate::codec::{
    CodecError, entry_from_proto, log_id_from_proto, log_id_to_proto, required_vote, vote_to_proto,
};
use crate::failpoint::crash_point;
use crate::form::{ENTRIES_FORMAT, NewerForm};
use crate::local::Sent;
use crate::node::Node;
use crate::storage::directory::Identity;
use crate::types::Types;
use crate::vacancy::StreamEnd;
use crate::{machine, membership, propose, read};

/// Longest time that a peer may let a write wait, whatever it asks for.
const PROPOSE_TIMEOUT_MAX: Duration = Duration::from_secs(60);
/// How long a snapshot may pause in transit.
const SNAPSHOT_IDLE_TIMEOUT: Duration = Duration::from_secs(15);

/// The node-to-node service.
pub(crate) struct Service {
    node: Arc<Node>,
    /// One snapshot arrives at a time.
    receiving: Mutex<()>,
    /// A waiting node joins one cluster.
    joining: Mutex<()>,
    /// An idle append stream would otherwise keep its connection, and the storage, open after the stop.
    stop: watch::Receiver<bool>,
}

impl Service {
    pub(crate) fn server(node: Arc<Node>, stop: watch::Receiver<bool>) -> ReplicationServer<Self> {
        ReplicationServer::new(Self {
            node,
            receiving: Mutex::new(()),
            joining: Mutex::new(()),
            stop,
        })
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    #[allow(clippy::result_large_err, reason = "tonic's error type is large by design")]
    fn check<T>(&self, request: &Request<T>) -> Result<u64, Status> {
        let passed = passport::check(&self.node.local, request)?;
        if passed.joins.is_some() {
            return Err(Status::failed_precondition("this node waits to join a cluster"));
        }
        Ok(passed.source)
    }

    /// As [`Self::check`], for what only a leader says: a node that waits to join a cluster joins it by the first such
    /// message. The cluster is in the identity file before anything of it is in the log.
    async fn check_leader<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let local = &self.node.local;
        if passport::check(local, request)?.joins.is_none() {
            return Ok(());
        }
        let _one_at_a_time = self.joining.lock().await;
        // Another message may have come first, and of another cluster.
        let passed = passport::check(local, request)?;
        let Some(cluster_id) = passed.joins else { return Ok(()) };
        let (node, source) = (Arc::clone(&self.node), passed.source);
        let identity = Identity { cluster_id: Some(cluster_id.clone()), ..local.identity.clone() };
        machine::spawn_blocking(move || {
            crash_point("members.join.before-identity");
            node.directory.write_identity(&identity)?;
            crash_point("members.join.after-identity");
            Ok::<_, std::io::Error>(())
        })
        .await
        .map_err(|error| Status::internal(error.to_string()))?
        .map_err(|error| Status::resource_exhausted(format!("the identity file: {error}")))?;
        tracing::info!(cluster_id, leader = source, "a cluster has taken this node in");
        local.joined(cluster_id);
        Ok(())
    }

    /// Why a snapshot was refused, for its sender. A newer form stops this node: only snapshots lead on from here.
    #[allow(clippy::result_large_err, reason = "tonic's error type is large by design")]
    fn received<T>(&self, outcome: Result<T, ReceiveError>) -> Result<T, Status> {
        outcome.map_err(|error| {
            tracing::warn!(reason = %error, "an arriving snapshot was refused");
            match &error {
                ReceiveError::Malformed(_) => Status::data_loss(error.to_string()),
                ReceiveError::Io(_) => Status::resource_exhausted(error.to_string()),
                ReceiveError::Newer(newer) => {
                    self.node.local.fail(newer.into());
                    Status::failed_precondition(error.to_string())
                }
            }
        })
    }

    async fn receive(
        &self,
        chunks: &mut Streaming<pb::SnapshotChunk>,
    ) -> Result<pb::SnapshotReply, Status> {
        let Some(pb::SnapshotChunk { part: Some(pb::snapshot_chunk::Part::Header(header)) }) =
            next_chunk(chunks).await?
        else {
            return Err(Status::invalid_argument("a snapshot must begin with its header"));
        };
        let mut receiver = self.received(Receiver::new(&self.node.directory, header))?;
        while let Some(chunk) = next_chunk(chunks).await? {
            let Some(pb::snapshot_chunk::Part::Data(data)) = chunk.part else {
                return Err(Status::invalid_argument("a snapshot has one header"));
            };
            let written = blocking(move || {
                receiver.write(&data)?;
                Ok(receiver)
            });
            receiver = self.received(written.await?)?;
        }
        let (vote, meta, folder) = self.received(blocking(move || receiver.finish()).await?)?;
        let reply = self
            .node
            .raft
            .install_full_snapshot(vote, Snapshot { meta, snapshot: folder })
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(pb::SnapshotReply { vote: Some(vote_to_proto(&reply.vote)) })
    }
}

async fn next_chunk(
    chunks: &mut Streaming<pb::SnapshotChunk>,
) -> Result<Option<pb::SnapshotChunk>, Status> {
    tokio::time::timeout(SNAPSHOT_IDLE_TIMEOUT, chunks.message())
        .await
        .map_err(|_| Status::deadline_exceeded("the snapshot stalled"))?
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ReceiveError> + Send + 'static,
) -> Result<Result<T, ReceiveError>, Status> {
    machine::spawn_blocking(work).await.map_err(|error| Status::internal(error.to_string()))
}

pub(crate) fn append_from_proto(
    message: pb::AppendRequest,
) -> Result<AppendEntriesRequest<Types>, CodecError> {
    NewerForm::refuse("a message with log entries", message.format, ENTRIES_FORMAT)?;
    Ok(AppendEntriesRequest {
        vote: required_vote(message.vote)?,
        prev_log_id: message.prev_log_id.as_ref().map(log_id_from_proto),
        entries: message.entries.into_iter().map(entry_from_proto).collect::<Result<_, _>>()?,
        leader_commit: message.leader_commit.as_ref().map(log_id_from_proto),
    })
}

fn stream_reply(result: StreamAppendResult<Types>) -> pb::AppendReply {
    use pb::append_reply::Kind;
    let (kind, log_id, vote) = match result {
        Ok(log_id) => (Kind::Success, log_id, None),
        Err(StreamAppendError::Conflict(log_id)) => (Kind::Conflict, Some(log_id), None),
        Err(StreamAppendError::HigherVote(vote)) => (Kind::HigherVote, None, Some(vote)),
    };
    pb::AppendReply {
        kind: kind.into(),
        log_id: log_id.as_ref().map(log_id_to_proto),
        vote: vote.as_ref().map(vote_to_proto),
    }
}

/// Resolves when the node stops.
async fn stopped(mut stop: watch::Receiver<bool>) {
    // An error means that the sender is gone, which is a stop as well.
    drop(stop.wait_for(|stop| *stop).await);
}

/// Reads what a leader sends. A newer form stops the node before anything of it is stored.
fn append_checked(
    node: &Node,
    message: pb::AppendRequest,
) -> Result<AppendEntriesRequest<Types>, CodecError> {
    append_from_proto(message).inspect_err(|error| {
        if let CodecError::Newer(newer) = error {
            node.local.fail(newer.into());
        }
    })
}

/// What a leader's message says of the time when it was sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Named {
    /// Absent until the leader has committed an entry of its own: until then it may know of less than was committed, and
    /// acknowledged, before it led.
    commit: Option<u64>,
    sent: Option<Sent>,
}

impl Named {
    fn by(message: &pb::AppendRequest) -> Self {
        let Some(vote) = &message.vote else { return Self::default() };
        let leader = Sent {
            term: vote.term,
            node: vote.node_id,
            ms: message.sent_ms,
            unconfirmed: Duration::from_millis(message.unconfirmed_ms),
        };
        let commit = message.leader_commit.as_ref();
        Self {
            // What the message names may be older than the message: it was made before it was sent.
            commit: commit
                .filter(|commit| (commit.term, commit.node_id) == (leader.term, leader.node))
                .map(|commit| commit.index.max(message.sent_applied)),
            sent: (leader.ms > 0).then_some(leader),
        }
    }
}

/// Messages up to the first one that does not decode. What the newest one names is kept.
fn decoded(
    node: Arc<Node>,
    messages: Streaming<pb::AppendRequest>,
    newest: Arc<parking_lot::Mutex<Named>>,
) -> impl Stream<Item = AppendEntriesRequest<Types>> + Send {
    let end = StreamEnd::new(&node);
    let state = (node, messages, newest, end);
    futures::stream::unfold(state, |(node, mut messages, newest, end)| async move {
        let message = match messages.message().await {
            Ok(Some(message)) => message,
            // The sender has ended the stream or is gone; it will open another.
            Ok(None) | Err(_) => return None,
        };
        let named = Named::by(&message);
        match append_checked(&node, message) {
            Ok(message) => {
                *newest.lock() = named;
                if let Some(sent) = named.sent {
                    end.sent_by(sent.node);
                }
                Some((message, (node, messages, newest, end)))
            }
            Err(error) => {
                tracing::error!(%error, "an append message cannot be read; the stream ends");
                None
            }
        }
    })
}

pub(crate) fn vote_from_proto(message: pb::VoteRequest) -> Result<VoteRequest<Types>, CodecError> {
    let last_log_id = message.last_log_id.as_ref().map(log_id_from_proto);
    let mut request = VoteRequest::new(required_vote(message.vote)?, last_log_id);
    request.leadership_transfer = message.leadership_transfer;
    Ok(request)
}

fn vote_reply(reply: &VoteResponse<Types>) -> Response<pb::VoteReply> {
    Response::new(pb::VoteReply {
        vote: Some(vote_to_proto(&reply.vote)),
        granted: reply.vote_granted,
        last_log_id: reply.last_log_id.as_ref().map(log_id_to_proto),
    })
}

fn unavailable(error: impl std::fmt::Display) -> Status {
    Status::unavailable(error.to_string())
}

#[tonic::async_trait]
impl Replication for Service {
    type AppendStream = BoxStream<'static, Result<pb::AppendReply, Status>>;

    async fn append(
        &self,
        request: Request<Streaming<pb::AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        self.check_leader(&request).await?;
        let node = Arc::clone(&self.node);
        // Of the newest message: a reply to an older one then proves less than it could, never more.
        let newest = Arc::new(parking_lot::Mutex::new(Named::default()));
        let messages = decoded(Arc::clone(&node), request.into_inner(), Arc::clone(&newest))
            .take_until(stopped(self.stop.clone()));
        let replies = self.node.raft.stream_append(messages).map(move |result| {
            let result = result.map_err(unavailable)?;
            if result.is_ok() {
                let Named { commit, sent } = *newest.lock();
                node.heard_from_leader(commit, sent);
            }
            Ok(stream_reply(result))
        });
        Ok(Response::new(replies.take_until(stopped(self.stop.clone())).boxed()))
    }

    async fn heartbeat(
        &self,
        request: Request<pb::AppendRequest>,
    ) -> Result<Response<pb::AppendReply>, Status> {
        use pb::append_reply::Kind;
        self.check_leader(&request).await?;
        let message = request.into_inner();
        let named = Named::by(&message);
        let message = append_checked(&self.node, message)?;
        let prev = message.prev_log_id;
        let result = self.node.raft.append_entries(message).await.map_err(unavailable)?;
        let (kind, log_id, vote) = match result {
            AppendEntriesResponse::Success => (Kind::Success, None, None),
            AppendEntriesResponse::PartialSuccess(log_id) => (Kind::PartialSuccess, log_id, None),
            AppendEntriesResponse::Conflict => (Kind::Conflict, prev, None),
            AppendEntriesResponse::HigherVote(vote) => (Kind::HigherVote, None, Some(vote)),
        };
        if vote.is_none() {
            self.node.heard_from_leader(named.commit, named.sent);
        }
        Ok(Response::new(pb::AppendReply {
            kind: kind.into(),
            log_id: log_id.as_ref().map(log_id_to_proto),
            vote: vote.as_ref().map(vote_to_proto),
        }))
    }

    async fn vote(
        &self,
        request: Request<pb::VoteRequest>,
    ) -> Result<Response<pb::VoteReply>, Status> {
        self.check(&request)?;
        let message = vote_from_proto(request.into_inner())?;
        let reply = self.node.raft.vote(message).await.map_err(unavailable)?;
        Ok(vote_reply(&reply))
    }

    async fn pre_vote(
        &self,
        request: Request<pb::VoteRequest>,
    ) -> Result<Response<pb::VoteReply>, Status> {
        self.check(&request)?;
        let message = vote_from_proto(request.into_inner())?;
        let reply = self.node.raft.pre_vote(message).await.map_err(unavailable)?;
        Ok(vote_reply(&reply))
    }

    async fn transfer_leader(
        &self,
        request: Request<pb::TransferLeaderRequest>,
    ) -> Result<Response<pb::TransferLeaderReply>, Status> {
        self.check(&request)?;
        let message = request.into_inner();
        let transfer = TransferLeaderRequest::new(
            required_vote(message.from)?,
            message.to,
            message.last_log_id.as_ref().map(log_id_from_proto),
        );
        self.node
            .raft
            .handle_transfer_leader(transfer)
            .await
            .map_err(unavailable)?
            .map_err(|refused| Status::failed_precondition(refused.to_string()))?;
        Ok(Response::new(pb::TransferLeaderReply {}))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<pb::SnapshotChunk>>,
    ) -> Result<Response<pb::SnapshotReply>, Status> {
        self.check_leader(&request).await?;
        let Ok(_one_at_a_time) = self.receiving.try_lock() else {
            return Err(Status::resource_exhausted("another snapshot is arriving"));
        };
        self.receive(&mut request.into_inner()).await.map(Response::new)
    }

    async fn propose(
        &self,
        request: Request<pb::ProposeRequest>,
    ) -> Result<Response<pb::ProposeReply>, Status> {
        self.check(&request)?;
        let message = request.into_inner();
        let timeout = Duration::from_millis(message.timeout_ms).min(PROPOSE_TIMEOUT_MAX);
        propose::on_leader(&self.node, message.command, Instant::now() + timeout)
            .await
            .map(Response::new)
    }

    async fn change_members(
        &self,
        request: Request<pb::ChangeMembersRequest>,
    ) -> Result<Response<pb::ChangeMembersReply>, Status> {
        self.check(&request)?;
        let message = request.into_inner();
        let change = message
            .change
            .map(membership::change_from_proto)
            .ok_or_else(|| Status::invalid_argument("change is missing"))?;
        let timeout = Duration::from_millis(message.timeout_ms).min(PROPOSE_TIMEOUT_MAX);
        let deadline = Instant::now() + timeout;
        let attempt =
            membership::on_leader(&self.node, change, message.force, message.actor, deadline).await;
        Ok(Response::new(membership::reply_to_proto(attempt)))
    }

    async fn read_index(
        &self,
        request: Request<pb::ReadIndexRequest>,
    ) -> Result<Response<pb::ReadIndexReply>, Status> {
        self.check(&request)?;
        match read::confirm(&self.node).await {
            Some(index) => Ok(Response::new(pb::ReadIndexReply { index })),
            None => Err(Status::unavailable("this node does not lead, or has lost its quorum")),
        }
    }

    async fn identify(
        &self,
        request: Request<pb::IdentifyRequest>,
    ) -> Result<Response<pb::IdentifyReply>, Status> {
        let local = &self.node.local;
        passport::certified(local, &request)?;
        if let Err(refused) = passport::check(local, &request) {
            // A node that was refused learns why from this reply, so it must get one.
            tracing::debug!(reason = refused.message(), "answering a stranger");
        }
        let registry = local.state.registry();
        Ok(Response::new(pb::IdentifyReply {
            node_id: local.node_id(),
            cluster_id: local.cluster_id().unwrap_or_default(),
            founding: local.identity.founding.clone(),
            incarnations: registry
                .nodes
                .into_iter()
                .map(|(id, node)| (id, node.incarnation))
                .chain(registry.removed)
                .filter(|(_, incarnation)| !incarnation.is_empty())
                .collect(),
            removed: passport::asked_by_removed(local, request.metadata()),
            release: local.release.clone(),
            command_format: COMMAND_FORMAT.into(),
            storage_full: self.node.full().is_some(),
            awaits: local.awaits_cluster(),
            incarnation: local.identity.incarnation.clone(),
            wants: local.join.as_ref().and_then(|join| join.cluster_id.clone()).unwrap_or_default(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_that_has_committed_nothing_of_its_own_proves_nothing() {
        let message = |commit: Option<(u64, u64)>| pb::AppendRequest {
            vote: Some(pb::Vote { term: 3, node_id: 2, committed: true }),
            leader_commit: commit.map(|(term, node_id)| pb::LogId { term, node_id, index: 7 }),
            sent_ms: 1,
            ..pb::AppendRequest::default()
        };
        for old in [None, Some((1, 2)), Some((3, 1))] {
            assert_eq!(Named::by(&message(old)).commit, None, "{old:?}");
        }
        assert_eq!(Named::by(&message(Some((3, 2)))).commit, Some(7));
    }

    #[test]
    fn a_message_that_waited_is_as_fresh_as_what_its_leader_had_applied_when_it_left() {
        let message = |sent_applied| pb::AppendRequest {
            vote: Some(pb::Vote { term: 3, node_id: 2, committed: true }),
            leader_commit: Some(pb::LogId { term: 3, node_id: 2, index: 7 }),
            sent_ms: 1,
            sent_applied,
            unconfirmed_ms: 40,
            ..pb::AppendRequest::default()
        };
        let named = Named::by(&message(9));
        assert_eq!(named.commit, Some(9), "7 was committed when it was made");
        assert_eq!(named.sent.map(|sent| sent.unconfirmed), Some(Duration::from_millis(40)));
        assert_eq!(Named::by(&message(0)).commit, Some(7), "an older release does not say");
    }
}
