//! Refusals on their way into the audit log: many of them in one command, so that whoever knocks often does not make the
//! cluster agree as often.
//!
//! Bounded: what finds no room is counted, and the next record that gets in says how many there were.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use llm_config_domain::{AuditEvent, AuditKind, Command, Operation, limits};
use llm_config_replica::{ProposeError, Replica};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::metrics::Metrics;

/// Refusals that wait.
const QUEUE_MAX: usize = 1_024;
/// Longest time that a command may take; the queue waits meanwhile.
const PROPOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause before events that could not be recorded are tried again: there is no leader.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// How long a refusal waits for its record: it says no either way.
const WAIT_MAX: Duration = Duration::from_secs(1);
/// Who records.
const ACTOR: &str = "system";

struct Waiting {
    event: AuditEvent,
    recorded: oneshot::Sender<()>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    /// A task takes from it. There is one only while something waits, so that none outlives the node.
    writing: bool,
}

/// The way in.
pub(super) struct Recorder {
    writer: Arc<Writer>,
}

impl Recorder {
    pub(super) fn new(replica: Replica, metrics: Arc<Metrics>) -> Self {
        let (queue, dropped) = (Mutex::default(), AtomicU64::new(0));
        Recorder { writer: Arc::new(Writer { replica, metrics, queue, dropped }) }
    }

    /// Returns when the event is recorded, or after a short while.
    pub(super) async fn record(&self, event: AuditEvent) {
        let (recorded, wait) = oneshot::channel();
        match self.writer.push(Waiting { event, recorded }) {
            Pushed::Full => {
                self.writer.metrics.audit_dropped();
                return;
            }
            Pushed::First => drop(tokio::spawn(Arc::clone(&self.writer).run())),
            Pushed::Behind => {}
        }
        // An error means that it was given up.
        drop(tokio::time::timeout(WAIT_MAX, wait).await);
    }
}

enum Pushed {
    /// Nobody takes from the queue yet.
    First,
    Behind,
    Full,
}

struct Writer {
    replica: Replica,
    metrics: Arc<Metrics>,
    queue: Mutex<Queue>,
    dropped: AtomicU64,
}

impl Writer {
    fn push(&self, one: Waiting) -> Pushed {
        let mut queue = self.queue.lock();
        if queue.waiting.len() >= QUEUE_MAX {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return Pushed::Full;
        }
        queue.waiting.push_back(one);
        if std::mem::replace(&mut queue.writing, true) { Pushed::Behind } else { Pushed::First }
    }

    /// What fits into one command; nothing when there is nothing left to do.
    fn take(&self) -> Option<(Vec<AuditEvent>, Vec<oneshot::Sender<()>>)> {
        let mut queue = self.queue.lock();
        let fits = queue.waiting.len().min(limits::AUDIT_EVENTS_PER_COMMAND_MAX - 1);
        queue.writing = fits > 0;
        let taken = queue.waiting.drain(..fits).map(|one| (one.event, one.recorded));
        (fits > 0).then(|| taken.unzip())
    }

    async fn run(self: Arc<Self>) {
        while let Some((mut events, answers)) = self.take() {
            let missed = self.dropped.swap(0, Ordering::Relaxed);
            if missed > 0 {
                events.push(self.summary(missed));
            }
            self.write(events).await;
            for answer in answers {
                // Who has waited long enough is gone.
                let _gone = answer.send(());
            }
        }
    }

    /// Tries until it is recorded: the queue fills meanwhile, and what finds no room is counted.
    async fn write(&self, events: Vec<AuditEvent>) {
        let key = Uuid::now_v7().to_string();
        let count = events.len();
        let kinds: Vec<_> = events.iter().map(|event| event.kind).collect();
        let command = Command::new(ACTOR, Operation::Record(events)).with_request_id(key);
        loop {
            let proposed = self.replica.propose(command.clone(), Instant::now() + PROPOSE_TIMEOUT);
            match proposed.await {
                Ok(applied) => {
                    match applied.result {
                        Ok(_) => {
                            kinds.iter().for_each(|kind| self.metrics.audit_event(kind.as_str()));
                        }
                        Err(rejection) => {
                            tracing::error!(%rejection, count, "refusals could not be recorded");
                        }
                    }
                    return;
                }
                // The node stops.
                Err(error @ ProposeError::Failed(_)) => {
                    tracing::warn!(reason = %error, count, "refusals were not recorded");
                    return;
                }
                Err(_) => tokio::time::sleep(RETRY_PAUSE).await,
            }
        }
    }

    fn summary(&self, missed: u64) -> AuditEvent {
        AuditEvent {
            kind: AuditKind::AccessDenied,
            actor: ACTOR.into(),
            principal: String::new(),
            source: String::new(),
            request_id: String::new(),
            node: self.replica.node_id(),
            targets: Vec::new(),
            comment: String::new(),
            detail: format!("{missed} refusals found no room to be recorded one by one"),
        }
    }
}
