//! Keeps up with who is a member of the cluster, so that reads go to all of them and to no other.
//!
//! Now and then, while the client is used, one node is asked for the members, and those whose address is new are asked who
//! they are. It is done beside the calls by one task at a time, which ends with the client, and none of it can make a call
//! fail: a client that may not ask, or gets no answer, goes on with the endpoints that it was given and the leaders that
//! answers name.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::{AbortHandle, JoinSet};
use tonic::transport::Channel;
use tonic::{Code, Request};

use crate::nodes::{Member, Nodes, Picked};
use crate::token::Bearer;
use crate::v1::cluster_service_client::ClusterServiceClient;
use crate::v1::{StatusRequest, StatusResponse};

/// The first time waits a little: a program that makes one call and ends needs no members.
const FIRST_DELAY: Duration = Duration::from_millis(500);
/// Shortest interval, whatever is asked for.
const INTERVAL_MIN: Duration = Duration::from_millis(10);
/// A node that refuses to tell is not asked again for this long.
const REFUSED_PAUSE: Duration = Duration::from_secs(300);
/// Nodes that are asked for the members before the next time is waited for.
const TRIES: usize = 3;

#[derive(Debug)]
struct Turn {
    /// The next time; nothing is running then.
    due: Instant,
    running: bool,
    task: Option<AbortHandle>,
}

/// When the members are asked for; see the module.
#[derive(Debug)]
pub(crate) struct Discovery {
    interval: Duration,
    answer_timeout: Duration,
    turn: Arc<Mutex<Turn>>,
}

enum Told {
    Members(StatusResponse),
    Refused,
    Nothing,
}

impl Discovery {
    pub(crate) fn new(interval: Duration, answer_timeout: Duration) -> Self {
        let interval = interval.max(INTERVAL_MIN);
        let due = Instant::now() + FIRST_DELAY.min(interval);
        let turn = Turn { due, running: false, task: None };
        Self { interval, answer_timeout, turn: Arc::new(Mutex::new(turn)) }
    }

    /// Asks in the background if it is time. Called whenever a node has answered, so that an idle client is silent.
    pub(crate) fn keep_up(&self, nodes: &Arc<Nodes>, bearer: Option<&Arc<Bearer>>) {
        let now = Instant::now();
        let mut turn = lock(&self.turn);
        // The first call of a client makes the task, which waits for the first time itself: there may be no second call.
        let first = turn.task.is_none();
        if turn.running || (turn.due > now && !first) {
            return;
        }
        turn.running = true;
        let delay = turn.due.saturating_duration_since(now);
        let (nodes, bearer) = (Arc::clone(nodes), bearer.cloned());
        let (mine, interval, timeout) =
            (Arc::clone(&self.turn), self.interval, self.answer_timeout);
        let task = tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            let told = members(&nodes, bearer.as_deref(), timeout).await;
            // Jitter, so that many clients that started together do not ask together.
            let mut pause = interval.mul_f64(rand::random_range(0.75..=1.0));
            match told {
                Told::Members(status) => learn(&nodes, bearer.as_ref(), status, timeout).await,
                Told::Refused => pause = pause.max(REFUSED_PAUSE),
                Told::Nothing => {}
            }
            let mut turn = lock(&mine);
            turn.due = Instant::now() + pause;
            turn.running = false;
        });
        turn.task = Some(task.abort_handle());
    }
}

impl Drop for Discovery {
    fn drop(&mut self) {
        if let Some(task) = lock(&self.turn).task.take() {
            task.abort();
        }
    }
}

fn lock(turn: &Mutex<Turn>) -> MutexGuard<'_, Turn> {
    // Nothing panics while holding the lock; a poisoned turn would still be whole.
    turn.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn members(nodes: &Nodes, bearer: Option<&Bearer>, timeout: Duration) -> Told {
    for _ in 0..TRIES {
        let Some(node) = nodes.pick(false) else { return Told::Nothing };
        let address = Arc::clone(&node.address);
        match ask(node, bearer, timeout).await {
            Ok(status) => return Told::Members(status),
            // What may not be asked here may not be asked elsewhere.
            Err(Some(Code::PermissionDenied | Code::Unauthenticated | Code::Unimplemented)) => {
                return Told::Refused;
            }
            Err(Some(_)) => {}
            Err(None) => nodes.silent(&address),
        }
    }
    Told::Nothing
}

/// Takes over the members, and asks those that have not said who they are.
async fn learn(
    nodes: &Arc<Nodes>,
    bearer: Option<&Arc<Bearer>>,
    status: StatusResponse,
    timeout: Duration,
) {
    let cluster = status.cluster_id;
    let members: Vec<Member> = status
        .members
        .into_iter()
        .map(|member| Member {
            id: member.id,
            address: member.grpc,
            votes: member.role != "learner",
        })
        .collect();
    let mut asked = JoinSet::new();
    for node in nodes.learn_members(&members) {
        let (nodes, bearer, cluster) = (Arc::clone(nodes), bearer.cloned(), cluster.clone());
        asked.spawn(async move {
            let address = Arc::clone(&node.address);
            match ask(node, bearer.as_deref(), timeout).await {
                Ok(status) if status.cluster_id == cluster => {
                    nodes.is_member(&address, status.node_id);
                }
                Ok(_) => {
                    tracing::warn!(node = %address, "belongs to another cluster, left alone");
                    nodes.is_stranger(&address);
                }
                Err(_) => nodes.silent(&address),
            }
        });
    }
    while asked.join_next().await.is_some() {}
}

/// One question to one node. The code of a refusal; none when there was no answer.
async fn ask(
    node: Picked,
    bearer: Option<&Bearer>,
    timeout: Duration,
) -> Result<StatusResponse, Option<Code>> {
    let mut request = Request::new(StatusRequest {});
    request.set_timeout(timeout);
    if let Some(bearer) = bearer {
        request.metadata_mut().insert("authorization", bearer.shown().value);
    }
    let mut client: ClusterServiceClient<Channel> = ClusterServiceClient::new(node.channel);
    match tokio::time::timeout(timeout, client.status(request)).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) if status.code() == Code::Unavailable => Err(None),
        Ok(Err(status)) => Err(Some(status.code())),
        Err(_) => Err(None),
    }
}
