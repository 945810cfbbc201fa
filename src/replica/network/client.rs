//! Outgoing replication: openraft's network traits over tonic.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _};
use llm_config_proto::internal as pb;
use llm_config_proto::internal::replication_client::ReplicationClient;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::impls::BasicNode;
use openraft::network::{
    Backoff, NetBackoff, NetSnapshot, NetStreamAppend, NetTransferLeader, NetVote, RPCOption,
    RaftNetworkFactory,
};
use openraft::raft::{
    AppendEntriesRequest, SnapshotResponse, StreamAppendError, StreamAppendResult,
    TransferLeaderRequest, VoteRequest, VoteResponse,
};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use super::{passport, secure};
use crate::codec::{
    entry_to_proto, log_id_from_proto, log_id_to_proto, required_vote, vote_to_proto,
};
use crate::form::ENTRIES_FORMAT;
use crate::local::Local;
use crate::machine;
use crate::storage::snapshot::SnapshotDir;
use crate::timings::{PeerTimings, Rpc};
use crate::types::{Types, Vote};

type Snapshot = openraft::storage::Snapshot<
    openraft::alias::CommittedLeaderIdOf<Types>,
    u64,
    BasicNode,
    SnapshotDir,
>;
/// openraft's own name for what a transfer answers is an inner result; the outer one is the transport's.
type TransferLeaderResponse = openraft::raft::TransferLeaderResponse<Types>;

/// The answers to a stream of appends, in order.
type Answers<'s> = BoxStream<'s, Result<StreamAppendResult<Types>, RPCError<Types>>>;

/// Bytes of one message between nodes, above every bound on what goes into one.
pub(crate) const MESSAGE_BYTES_MAX: usize = 16 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_millis(400);
const KEEP_ALIVE: Duration = Duration::from_secs(1);
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

/// What a connection is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Append,
    /// Heartbeats, votes, and everything small.
    Control,
    Snapshot,
}

/// A lazily opened connection to a node: made at once, connected by the first call.
pub(crate) fn connect(
    local: &Local,
    target: u64,
    address: &str,
) -> Result<Channel, Unreachable<Types>> {
    // The scheme says http with TLS too: what secures the connection is the connector, not the endpoint.
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| Unreachable::from_string(format!("address {address}: {error}")))?
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    Ok(match &local.secure {
        None => machine::channel(&endpoint.connect_timeout(CONNECT_TIMEOUT), address),
        Some(tls) => {
            let endpoint = endpoint.connect_timeout(secure::CONNECT_TIMEOUT);
            secure::channel(&endpoint, Arc::clone(tls), target, address)
        }
    })
}

pub(crate) fn client(channel: Channel) -> ReplicationClient<Channel> {
    ReplicationClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

/// Makes a connection for each peer and purpose.
pub(crate) struct Network {
    local: Arc<Local>,
}

impl Network {
    pub(crate) fn new(local: Arc<Local>) -> Self {
        Self { local }
    }

    fn peer(&self, target: u64, node: &BasicNode, purpose: Purpose) -> Peer {
        Peer {
            local: Arc::clone(&self.local),
            target,
            address: node.addr.clone(),
            purpose,
            channel: None,
            timings: self.local.peers.of(target),
        }
    }
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Peer {
        self.peer(target, node, Purpose::Append)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &BasicNode) -> Peer {
        self.peer(target, node, Purpose::Control)
    }

    async fn new_snapshot_client(&mut self, target: u64, node: &BasicNode) -> Peer {
        self.peer(target, node, Purpose::Snapshot)
    }
}

/// One connection to one peer.
pub(crate) struct Peer {
    local: Arc<Local>,
    target: u64,
    address: String,
    purpose: Purpose,
    channel: Option<Channel>,
    timings: Arc<PeerTimings>,
}

impl Peer {
    fn client(&mut self) -> Result<ReplicationClient<Channel>, Unreachable<Types>> {
        let channel = match &self.channel {
            Some(channel) => channel.clone(),
            None => {
                let channel = connect(&self.local, self.target, &self.address)?;
                self.channel = Some(channel.clone());
                channel
            }
        };
        Ok(client(channel))
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        passport::stamp(&self.local, self.target, &mut request);
        request
    }

    /// Counts a message that went out at `begun`.
    fn count(&self, rpc: Rpc, answered: bool, begun: Instant) {
        if answered {
            self.timings.answered(rpc, begun.elapsed());
        } else {
            self.timings.failed(rpc);
        }
    }

    /// How long an answer may take while one is owed: a half-open connection must not stall a follower for ever.
    fn idle_timeout(&self) -> Duration {
        self.local.tuning.election_timeout_min * 2
    }

    async fn heartbeats<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> Result<Answers<'s>, RPCError<Types>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + Send + Unpin + 'static,
    {
        let client = self.client()?;
        let peer: &'s Self = self;
        let answers = futures::stream::unfold(Some((client, input)), move |state| {
            let limit = option.hard_ttl();
            async move {
                let (mut client, mut input) = state?;
                let message = input.next().await?;
                let last = last_log_id(&message);
                let request = peer.request(append_to_proto(message, &peer.local));
                let begun = Instant::now();
                let answer = match tokio::time::timeout(limit, client.heartbeat(request)).await {
                    Ok(Ok(reply)) => append_from_proto(reply.into_inner(), last),
                    Ok(Err(status)) => Err(rpc_error(&status)),
                    Err(_) => Err(unanswered("a heartbeat")),
                };
                peer.count(Rpc::Heartbeat, answer.is_ok(), begun);
                let next = matches!(answer, Ok(Ok(_))).then_some((client, input));
                Some((answer, next))
            }
        });
        Ok(answers.boxed())
    }

    async fn pipeline<'s, S>(&'s mut self, input: S) -> Result<Answers<'s>, RPCError<Types>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + Send + Unpin + 'static,
    {
        // openraft sleeps off its backoff where the first message is taken; a call that fails to connect before it takes
        // one would be repeated without a pause.
        let mut input = input;
        let Some(first) = input.next().await else {
            return Ok(futures::stream::empty().boxed());
        };
        let input = futures::stream::iter([first]).chain(input);
        let mut client = self.client()?;
        let idle = self.idle_timeout();
        // When each message went out that is not answered yet; answers come in the same order.
        let owed = Arc::new(Mutex::new(VecDeque::new()));
        let noted = Arc::clone(&owed);
        let local = Arc::clone(&self.local);
        // Ends the request when the answers end: the Raft core may have nothing to send for long, and a request left open
        // keeps the stream, and with it the peer's connection, alive.
        let (answering, answered) = oneshot::channel::<()>();
        let messages = input
            .map(move |message| {
                noted.lock().push_back(Instant::now());
                append_to_proto(message, &local)
            })
            .take_until(answered);
        let call = client.append(self.request(messages));
        let opened = tokio::time::timeout(idle, call)
            .await
            .map_err(|_| unanswered("opening the append stream"))
            .and_then(|opened| opened.map_err(|status| rpc_error(&status)));
        let timings = Arc::clone(&self.timings);
        let replies = opened.inspect_err(|_| timings.failed(Rpc::Append))?.into_inner();
        let answers = futures::stream::unfold(
            Some((replies, owed, answering, timings)),
            move |state| async move {
                let (mut replies, owed, answering, timings) = state?;
                loop {
                    let waited = !owed.lock().is_empty();
                    let answer = match tokio::time::timeout(idle, replies.message()).await {
                        Err(_) if !waited => continue,
                        Err(_) => Err(unanswered("an append")),
                        Ok(Ok(None)) => return None,
                        Ok(Ok(Some(reply))) => {
                            if let Some(sent) = owed.lock().pop_front() {
                                timings.answered(Rpc::Append, Instant::elapsed(&sent));
                            }
                            append_from_proto(reply, None)
                        }
                        Ok(Err(status)) => Err(rpc_error(&status)),
                    };
                    if answer.is_err() {
                        timings.failed(Rpc::Append);
                    }
                    let next =
                        matches!(answer, Ok(Ok(_))).then_some((replies, owed, answering, timings));
                    return Some((answer, next));
                }
            },
        );
        Ok(answers.boxed())
    }
}

fn last_log_id(message: &AppendEntriesRequest<Types>) -> Option<crate::types::LogId> {
    message.entries.last().map(|entry| entry.log_id).or(message.prev_log_id)
}

fn append_to_proto(message: AppendEntriesRequest<Types>, local: &Local) -> pb::AppendRequest {
    // The time first: what is acknowledged by then has been applied by then.
    let sent_ms = local.contacts.now();
    let sent_applied = local.state.progress().index;
    let unconfirmed = local.unconfirmed().and_then(|age| u64::try_from(age.as_millis()).ok());
    pb::AppendRequest {
        vote: Some(vote_to_proto(&message.vote)),
        prev_log_id: message.prev_log_id.as_ref().map(log_id_to_proto),
        entries: message.entries.iter().map(entry_to_proto).collect(),
        leader_commit: message.leader_commit.as_ref().map(log_id_to_proto),
        format: ENTRIES_FORMAT,
        sent_ms,
        sent_applied,
        unconfirmed_ms: unconfirmed.unwrap_or(u64::MAX),
    }
}

/// `last` completes a unary success, which does not repeat what was sent.
fn append_from_proto(
    reply: pb::AppendReply,
    last: Option<crate::types::LogId>,
) -> Result<StreamAppendResult<Types>, RPCError<Types>> {
    use pb::append_reply::Kind;
    let log_id = reply.log_id.as_ref().map(log_id_from_proto);
    match reply.kind() {
        Kind::Success => Ok(Ok(log_id.or(last))),
        Kind::PartialSuccess => Ok(Ok(log_id)),
        Kind::Conflict => match log_id {
            Some(log_id) => Ok(Err(StreamAppendError::Conflict(log_id))),
            None => Err(malformed("a conflict names no log id")),
        },
        Kind::HigherVote => match required_vote(reply.vote) {
            Ok(vote) => Ok(Err(StreamAppendError::HigherVote(vote))),
            Err(error) => Err(malformed(&error.to_string())),
        },
        Kind::Unspecified => Err(malformed("the reply has no kind")),
    }
}

fn malformed(what: &str) -> RPCError<Types> {
    RPCError::Network(NetworkError::from_string(format!("malformed reply: {what}")))
}

fn unanswered(what: &str) -> RPCError<Types> {
    RPCError::Unreachable(Unreachable::from_string(format!("{what} was not answered in time")))
}

/// Every transport error backs off: a peer that refuses is not helped by an immediate retry either.
pub(crate) fn rpc_error(status: &Status) -> RPCError<Types> {
    RPCError::Unreachable(Unreachable::from_string(format!(
        "{}: {}",
        status.code(),
        status.message()
    )))
}

impl NetBackoff<Types> for Peer {
    fn backoff(&self) -> Option<Backoff> {
        let steps = [20, 40, 80].map(Duration::from_millis);
        Some(Backoff::new(steps.into_iter().chain(std::iter::repeat(Duration::from_millis(150)))))
    }
}

impl NetStreamAppend<Types> for Peer {
    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<Answers<'s>, RPCError<Types>>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + Send + Unpin + 'static,
    {
        Box::pin(async move {
            match self.purpose {
                Purpose::Control => self.heartbeats(input, option).await,
                Purpose::Append | Purpose::Snapshot => self.pipeline(input).await,
            }
        })
    }
}

impl NetVote<Types> for Peer {
    async fn vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let mut client = self.client()?;
        let begun = Instant::now();
        let call = client.vote(self.request(vote_request_to_proto(&rpc)));
        let reply = vote_reply(tokio::time::timeout(option.hard_ttl(), call).await);
        self.count(Rpc::Vote, reply.is_ok(), begun);
        reply
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let mut client = self.client()?;
        let begun = Instant::now();
        let call = client.pre_vote(self.request(vote_request_to_proto(&rpc)));
        let reply = vote_reply(tokio::time::timeout(option.hard_ttl(), call).await);
        self.count(Rpc::Vote, reply.is_ok(), begun);
        reply
    }
}

fn vote_request_to_proto(rpc: &VoteRequest<Types>) -> pb::VoteRequest {
    pb::VoteRequest {
        vote: Some(vote_to_proto(&rpc.vote)),
        last_log_id: rpc.last_log_id.as_ref().map(log_id_to_proto),
        leadership_transfer: rpc.leadership_transfer,
    }
}

fn vote_reply(
    outcome: Result<Result<tonic::Response<pb::VoteReply>, Status>, tokio::time::error::Elapsed>,
) -> Result<VoteResponse<Types>, RPCError<Types>> {
    let reply = outcome
        .map_err(|_| unanswered("a vote request"))?
        .map_err(|status| rpc_error(&status))?
        .into_inner();
    let vote = required_vote(reply.vote).map_err(|error| malformed(&error.to_string()))?;
    Ok(VoteResponse::new(vote, reply.last_log_id.as_ref().map(log_id_from_proto), reply.granted))
}

impl NetTransferLeader<Types> for Peer {
    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse, RPCError<Types>> {
        let mut client = self.client()?;
        let message = pb::TransferLeaderRequest {
            from: Some(vote_to_proto(req.from_leader())),
            to: *req.to_node_id(),
            last_log_id: req.last_log_id().map(log_id_to_proto),
        };
        tokio::time::timeout(option.hard_ttl(), client.transfer_leader(self.request(message)))
            .await
            .map_err(|_| unanswered("a leadership transfer"))?
            .map_err(|status| rpc_error(&status))?;
        Ok(Ok(()))
    }
}

impl NetSnapshot<Types> for Peer {
    type SnapshotData = SnapshotDir;

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let begun = Instant::now();
        let sent = self.send_snapshot(vote, snapshot, cancel).await;
        // One that openraft calls off has not failed.
        if !matches!(sent, Err(StreamingError::Closed(_))) {
            self.local.snapshots_sent.ended(sent.is_ok(), begun.elapsed());
            if sent.is_err() {
                self.timings.failed(Rpc::Snapshot);
            }
        }
        sent
    }
}

impl Peer {
    async fn send_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let mut client = self.client()?;
        let failed = Arc::new(Mutex::new(None));
        let chunks = super::send::chunks(
            vote,
            snapshot,
            self.local.tuning.snapshot_chunk_bytes,
            Arc::clone(&failed),
        );
        tokio::pin!(cancel);
        // The first chunk before the call: reading the files for their checksums may take longer than the receiver waits.
        let mut chunks = Box::pin(chunks);
        let first = tokio::select! {
            closed = &mut cancel => return Err(StreamingError::Closed(closed)),
            first = chunks.next() => first,
        };
        let call =
            client.install_snapshot(self.request(futures::stream::iter(first).chain(chunks)));
        let outcome = tokio::select! {
            closed = &mut cancel => return Err(StreamingError::Closed(closed)),
            outcome = call => outcome,
        };
        if let Some(error) = failed.lock().take() {
            tracing::error!(%error, target = self.target, "a snapshot could not be read");
            return Err(StreamingError::Network(NetworkError::from_string(error)));
        }
        let reply =
            outcome.map_err(|status| StreamingError::from(rpc_error(&status)))?.into_inner();
        let vote = required_vote(reply.vote)
            .map_err(|error| StreamingError::from(malformed(&error.to_string())))?;
        Ok(SnapshotResponse::new(vote))
    }
}
