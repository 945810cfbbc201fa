//! A watch that is resumed at another node whenever it breaks, and taken down message by message.

use std::sync::Arc;
use std::time::Duration;

use jepsen_lite::history::{self, Answer, Call, Operation, Outcome, REVISION_COMPACTED, Scope};
use llm_config_client::v1;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tonic::Status;
use tonic_types::StatusExt as _;

use super::{Client, Recorder, convert};
use crate::lab::{Target, Targets};

/// A bookmark comes every ten seconds at the latest; a stream that is silent for longer is cut off.
const SILENCE_MAX: Duration = Duration::from_secs(13);
const OPEN_TIMEOUT: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(100);
/// A stream is left after so long, so that every watch is resumed, with and without a fault.
const STREAM_MAX: Duration = Duration::from_secs(6);
/// How far ahead of the newest revision a watch begins that asks for what is yet to come.
const AHEAD: u64 = 40;

/// One watch.
#[derive(Debug)]
pub struct Watcher {
    client: Client,
    watch: u64,
    scope: Scope,
    /// Everything up to here has been delivered.
    seen: u64,
}

impl Watcher {
    /// A watch of `scope` from revision 1 on.
    #[must_use]
    pub fn new(recorder: Arc<Recorder>, targets: Targets, scope: Scope) -> Self {
        let watch = recorder.process();
        Self { client: Client::new(recorder, targets), watch, scope, seen: 0 }
    }

    fn record(&self, node: u64, call: Call, invoked: u64, answer: Option<Answer>) {
        self.record_as(node, call, invoked, answer, None);
    }

    fn record_as(
        &self,
        node: u64,
        call: Call,
        invoked: u64,
        answer: Option<Answer>,
        error: Option<String>,
    ) {
        let recorder = &self.client.recorder;
        recorder.record(&Operation {
            id: recorder.operation(),
            process: self.client.process,
            session: None,
            token: None,
            node,
            call,
            invoked_ns: invoked,
            completed_ns: Some(recorder.now()),
            outcome: if error.is_some() { Outcome::Fail } else { Outcome::Ok },
            revision: None,
            answer,
            error,
            last: false,
        });
    }

    /// Asks again and again for what is yet to come, until `until` names a revision.
    pub async fn look_ahead(
        mut self,
        mut choose: impl FnMut(&[Target]) -> Target,
        mut until: tokio::sync::watch::Receiver<Option<u64>>,
    ) {
        while until.borrow_and_update().is_none() {
            self.watch = self.client.recorder.process();
            self.seen = self.client.recorder.revision() + AHEAD;
            let target = choose(&self.client.targets());
            self.follow_at(target, &mut until).await;
            sleep(PAUSE).await;
        }
    }

    /// Follows the changes until `until` names a revision and everything up to it has come, or the deadline is over.
    pub async fn follow(
        mut self,
        mut choose: impl FnMut(&[Target]) -> Target,
        mut until: tokio::sync::watch::Receiver<Option<u64>>,
        patience: Duration,
    ) {
        let mut deadline = None;
        loop {
            let goal = *until.borrow_and_update();
            if let Some(goal) = goal {
                let deadline = *deadline.get_or_insert_with(|| Instant::now() + patience);
                let came = self.seen >= goal;
                if came || Instant::now() >= deadline {
                    self.end(goal, came);
                    return;
                }
            }
            let target = choose(&self.client.targets());
            self.follow_at(target, &mut until).await;
            sleep(PAUSE).await;
        }
    }

    /// Until the stream breaks, or the goal is known and reached.
    async fn follow_at(
        &mut self,
        target: Target,
        until: &mut tokio::sync::watch::Receiver<Option<u64>>,
    ) {
        let invoked = self.client.recorder.now();
        let Ok(channel) = self.client.channel(target).await else { return };
        let from = self.seen + 1;
        let request = v1::WatchRequest {
            namespace: self.scope.prefix.trim_end_matches('/').to_owned(),
            environment: self.scope.environment.clone().unwrap_or_default(),
            from_revision: from,
            ..v1::WatchRequest::default()
        };
        let name = history::request(self.client.recorder.operation(), 0);
        let request = self.client.envelope(name).around(request);
        let mut stub = super::calls::config(channel);
        let stream = match timeout(OPEN_TIMEOUT, stub.watch(request)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(status)) => return self.broken(target, from, invoked, &status),
            Err(_) => {
                self.client.channels.remove(&target.id);
                return;
            }
        };
        let call = Call::WatchOpen {
            watch: self.watch,
            scope: self.scope.clone(),
            from_revision: Some(from),
        };
        self.record(target.id, call, invoked, None);
        let mut stream = stream.into_inner();
        let mut silent_until = Instant::now() + SILENCE_MAX;
        let left = Instant::now() + STREAM_MAX;
        loop {
            let invoked = self.client.recorder.now();
            let goal = *until.borrow_and_update();
            if goal.is_some_and(|goal| self.seen >= goal) {
                return;
            }
            let message = tokio::select! {
                () = sleep_until(left) => return,
                message = timeout_at(silent_until, stream.message()) => message,
                changed = until.changed() => {
                    if changed.is_err() { return; }
                    continue;
                }
            };
            let message = match message {
                Ok(Ok(Some(message))) => message,
                Ok(Err(status)) => {
                    return self.broken(target, self.seen + 1, invoked, &status);
                }
                Ok(Ok(None)) | Err(_) => {
                    self.client.channels.remove(&target.id);
                    return;
                }
            };
            silent_until = Instant::now() + SILENCE_MAX;
            let Ok(mut answer) = events(message) else { return };
            self.client.recorder.vault().hide(&mut answer, false);
            if let Answer::Events { revision, .. } = &answer {
                self.seen = self.seen.max(*revision);
            }
            self.record(target.id, Call::WatchBatch { watch: self.watch }, invoked, Some(answer));
        }
    }

    /// What comes next may be forgotten. Then the watch is at its end, and another one begins where there is something; whether
    /// the store had a reason to forget, the run knows.
    fn broken(&mut self, target: Target, from: u64, invoked: u64, status: &Status) {
        self.client.channels.remove(&target.id);
        let Some(info) = status.get_details_error_info() else { return };
        let oldest = info.metadata.get("oldest_revision").and_then(|text| text.parse::<u64>().ok());
        if let Some(oldest) = oldest.filter(|_| info.reason == REVISION_COMPACTED) {
            self.client.recorder.note_compacted();
            let (watch, scope) = (self.watch, self.scope.clone());
            let call = Call::WatchOpen { watch, scope, from_revision: Some(from) };
            let answer = Some(Answer::Compacted { oldest_revision: oldest });
            self.record_as(target.id, call, invoked, answer, Some(info.reason));
            self.watch = self.client.recorder.process();
            self.seen = self.seen.max(oldest.saturating_sub(1));
        }
    }

    fn end(&self, up_to: u64, came: bool) {
        let recorder = &self.client.recorder;
        let now = recorder.now();
        recorder.record(&Operation {
            id: recorder.operation(),
            process: self.client.process,
            session: None,
            token: None,
            node: 0,
            call: Call::WatchEnd { watch: self.watch, up_to },
            invoked_ns: now,
            completed_ns: Some(now),
            outcome: if came { Outcome::Ok } else { Outcome::Fail },
            revision: None,
            answer: None,
            error: (!came).then(|| format!("nothing came after revision {}", self.seen)),
            last: false,
        });
    }
}

fn events(message: v1::WatchResponse) -> Result<Answer, Status> {
    let events = message.events.into_iter().map(|event| {
        let entry = event.entry.ok_or_else(|| Status::internal("an event without its entry"))?;
        convert::keyed(entry)
    });
    Ok(Answer::Events { revision: message.revision, events: events.collect::<Result<_, _>>()? })
}
