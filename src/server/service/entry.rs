//! The door: who may come in at all, who is it, and may they do that. Every refusal here leaves a trace.
//!
//! Order: an address that is banned, an address that sends too much, credentials, a principal that sends too much. What a
//! caller may do is asked by each use case (`authorize`), before it looks at anything.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderMap;
use llm_config_domain::{AuditEvent, AuditKind, AuditTarget, Command, Need, Operation, Rights};

use super::writes::not_proposed;
use super::{Context, Service, refused};
use crate::access::{Caller, Credentials};
use crate::error::ServiceError;
use crate::limits::{BanOrder, Decision};
use crate::peer::ClientCertificate;
use crate::settings::BAN_DURATION_MAX;
use llm_config_replica::wall_clock_ms;

/// How long the order to ban somebody may take.
const BAN_TIMEOUT: Duration = Duration::from_secs(2);
/// A refused request is remembered with its method and path up to here.
const WHAT_CHARS_MAX: usize = 256;

/// A request at the door.
pub struct Knock<'a> {
    /// The other end of the connection.
    pub peer: IpAddr,
    pub headers: &'a HeaderMap,
    pub certificate: Option<&'a ClientCertificate>,
    pub request_id: &'a Arc<str>,
    /// What is asked for, for the audit log: the method of HTTP, empty for a call of gRPC.
    pub verb: &'a str,
    /// And the path, without a query.
    pub path: &'a str,
}

/// Somebody who came in, and what is left of what they may send.
pub struct Entered {
    pub caller: Caller,
    pub left: Option<Decision>,
}

/// A refusal, and what is left.
pub struct TurnedAway {
    pub error: ServiceError,
    pub left: Option<Decision>,
}

impl Service {
    /// Lets a request in, or says why not.
    pub async fn enter(&self, knock: Knock<'_>) -> Result<Entered, TurnedAway> {
        let guards = &self.inner.guards;
        let client = guards.limits.client(knock.peer, knock.headers);
        let (now, now_ms) = (Instant::now(), wall_clock_ms());
        if !client.is_exempt()
            && let Some(ban) = guards.access.ban(client.bucket_key(), now_ms)
        {
            self.inner.metrics.auth_failure(crate::metrics::AuthFailure::Banned);
            let left_ms = ban.until_ms.saturating_sub(now_ms);
            let error = ServiceError::Banned {
                until_ms: ban.until_ms,
                retry_after_s: left_ms.div_ceil(1_000).max(1),
            };
            return Err(TurnedAway { error, left: None });
        }
        let of_address = guards.limits.take_of_address(client, now);
        if let Some(error) = of_address.and_then(|decision| decision.refusal()) {
            self.ban(guards.limits.note_limited(client, now), &knock).await;
            return Err(TurnedAway { error, left: of_address });
        }
        let source = Some(client.ip());
        let credentials = Credentials {
            authorization: knock.headers.get(http::header::AUTHORIZATION).map(|v| v.as_bytes()),
            certificate: knock.certificate,
        };
        let caller = match guards.access.identify(&credentials, now_ms).await {
            Ok(caller) => caller.on(source, knock.request_id),
            Err(error @ ServiceError::Unauthenticated { .. }) => {
                // A request without credentials guesses nothing.
                if credentials.authorization.is_some() || credentials.certificate.is_some() {
                    if !self.replica().recovered() || !guards.access.knows_somebody() {
                        let reason = "it has not heard of any token yet".into();
                        let error = ServiceError::NotReady { reason };
                        return Err(TurnedAway { error, left: of_address });
                    }
                    self.ban(guards.limits.note_failure(client, now), &knock).await;
                }
                let nobody = Caller::anyone().on(source, knock.request_id);
                let what = format!("{} {}", knock.verb, knock.path);
                self.record_refusal(&nobody, Vec::new(), 401, what.trim_start(), &error).await;
                return Err(TurnedAway { error, left: of_address });
            }
            // Whether the caller is known could not be found out.
            Err(error) => return Err(TurnedAway { error, left: of_address }),
        };
        let of_principal = guards.limits.take_of_principal(&caller.principal, client, now);
        if let Some(error) = of_principal.and_then(|decision| decision.refusal()) {
            self.ban(guards.limits.note_limited(client, now), &knock).await;
            return Err(TurnedAway { error, left: of_principal });
        }
        let left = match (of_address, of_principal) {
            (Some(one), Some(other)) => Some(one.tighter(other)),
            (one, other) => one.or(other),
        };
        Ok(Entered { caller, left })
    }

    /// Refuses what the caller may not do. Asked again after the policy has changed, it answers by the new one.
    pub(super) async fn authorize(
        &self,
        context: &Context,
        needs: &[Need],
    ) -> Result<(), ServiceError> {
        let caller = match self.inner.guards.access.again(&context.caller, wall_clock_ms()) {
            Ok(caller) => caller,
            Err(error) => {
                self.inner.metrics.auth_failure(crate::metrics::AuthFailure::Revoked);
                self.record_refusal(&context.caller, Vec::new(), 401, "", &error).await;
                return Err(error);
            }
        };
        match caller.lacks(needs) {
            None => Ok(()),
            Some(need) => Err(self.deny(&caller, need.to_string()).await),
        }
    }

    /// The refusal of a right, with its trace.
    pub(super) async fn deny(&self, caller: &Caller, need: String) -> ServiceError {
        self.inner.metrics.permission_denied();
        let reason = format!("{} may not: {need}", caller.name);
        let error = ServiceError::PermissionDenied { reason };
        self.record_refusal(caller, Vec::new(), 403, &need, &error).await;
        error
    }

    /// The refusal of a right by the state machine has left no trace yet.
    pub(super) async fn after_refusal(&self, context: &Context, error: &ServiceError) {
        let status = match error {
            ServiceError::PermissionDenied { .. } => 403,
            ServiceError::Unauthenticated { .. } => 401,
            _ => return,
        };
        if status == 403 {
            self.inner.metrics.permission_denied();
        } else {
            self.inner.metrics.auth_failure(crate::metrics::AuthFailure::Revoked);
        }
        self.record_refusal(&context.caller, Vec::new(), status, "", error).await;
    }

    async fn record_refusal(
        &self,
        caller: &Caller,
        targets: Vec<AuditTarget>,
        status: u16,
        what: &str,
        error: &ServiceError,
    ) {
        let what: String = what.chars().take(WHAT_CHARS_MAX).collect();
        let detail = format!("{status}: {what}; {error}");
        let event = self.event(caller, AuditKind::AccessDenied, targets, detail);
        self.inner.recorder.record(event).await;
    }

    fn event(
        &self,
        caller: &Caller,
        kind: AuditKind,
        targets: Vec<AuditTarget>,
        detail: String,
    ) -> AuditEvent {
        let detail: String = detail.chars().take(WHAT_CHARS_MAX).collect();
        AuditEvent {
            kind,
            actor: caller.name.to_string(),
            principal: caller.principal.to_string(),
            source: caller.source_text(),
            request_id: caller.request_id.to_string(),
            node: self.replica().node_id(),
            targets,
            comment: String::new(),
            detail,
        }
    }

    /// Records what is about to be done, and comes back only when the record is there: without one it is not done.
    pub(super) async fn announce(
        &self,
        context: &Context,
        kind: AuditKind,
        targets: Vec<AuditTarget>,
        detail: String,
    ) -> Result<(), ServiceError> {
        let caller = &context.caller;
        let event = self.event(caller, kind, targets, detail);
        let command = Command::new(caller.name.to_string(), Operation::Record(vec![event]))
            .from_origin(caller.origin(self.replica().node_id()))
            .with_request_id(uuid::Uuid::now_v7().to_string());
        let proposed = self.replica().propose(command, context.deadline).await;
        let applied = proposed.map_err(|error| match not_proposed(error, true) {
            // The record may be there; what it announces is certainly not done.
            ServiceError::OutcomeUnknown { .. } => ServiceError::NoLeader,
            other => other,
        })?;
        match applied.result {
            Ok(_) => {
                self.inner.metrics.audit_event(kind.as_str());
                Ok(())
            }
            Err(rejection) => {
                let error = refused(rejection, || "there is no such entry".into());
                self.after_refusal(context, &error).await;
                Err(error)
            }
        }
    }

    /// Records what is about to be done on this node alone, which has to work without a leader too: the record follows
    /// once there is one.
    pub(super) async fn note(&self, context: &Context, kind: AuditKind, detail: String) {
        let event = self.event(&context.caller, kind, Vec::new(), detail);
        self.inner.recorder.record(event).await;
    }

    /// What the caller may do by the policy that is in force now.
    pub(super) fn rights(&self, context: &Context) -> Result<Arc<Rights>, ServiceError> {
        let caller = self.inner.guards.access.again(&context.caller, wall_clock_ms())?;
        Ok(Arc::clone(&caller.rights))
    }

    async fn ban(&self, order: Option<BanOrder>, knock: &Knock<'_>) {
        let Some(order) = order else { return };
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let first_ms = ms(self.inner.guards.limits.first_ban());
        let ban = llm_config_domain::BanOrder {
            address: order.address.to_string(),
            first_ms,
            longest_ms: ms(BAN_DURATION_MAX).max(first_ms),
            reason: order.reason.as_str().into(),
        };
        let origin = Caller::anyone().on(None, knock.request_id).origin(self.replica().node_id());
        let command = Command::new("system", Operation::Ban(ban))
            .from_origin(origin)
            .with_request_id(uuid::Uuid::now_v7().to_string());
        tracing::warn!(address = %order.address, reason = order.reason.as_str(), "an address is banned");
        match self.replica().propose(command, Instant::now() + BAN_TIMEOUT).await {
            Ok(applied) if applied.result.is_ok() => {
                self.inner.metrics.audit_event(AuditKind::SecurityBan.as_str());
            }
            Ok(applied) => {
                tracing::warn!(answer = ?applied.result, "a ban was refused");
            }
            Err(error) => tracing::warn!(reason = %error, "a ban was not agreed on in time"),
        }
    }
}
