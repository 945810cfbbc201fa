//! Reads of single entries and of a namespace as an application sees it, at the freshness that was asked for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use llm_config_bugs::{Bug, active};
use llm_config_cache::{Lookup, Slot, Ticket};
use llm_config_domain::{Action, Address, Entry, Environment, Namespace, Need, Value, query};
use llm_config_replica::ReadError;
use sha2::{Digest, Sha256};

use super::{Consistency, environment, query_error};
use super::{Context, GetAnswer, GetRequest, ReadOptions, ResolveAnswer, ResolveRequest, Service};
use crate::error::ServiceError;
use crate::hex::hex;
use crate::metrics::StorageRead;

/// What there is, or that it is not there, and the revision at which that was seen.
type Found = (Result<GetAnswer, ServiceError>, u64);

/// What the cache could tell about the candidates of a read.
enum Cached {
    Found(Arc<Entry>, u64),
    Absent(u64),
    /// Storage must be asked; the ticket allows to keep what it says about this address.
    Unknown(Option<(Address, Ticket)>),
}

impl Service {
    pub async fn get(
        &self,
        context: &Context,
        request: GetRequest,
    ) -> Result<GetAnswer, ServiceError> {
        let environment = super::named(&request.target.environment);
        let result = self.get_entry(context, request).await;
        self.counted_in(context, "get", environment, result)
    }

    async fn get_entry(
        &self,
        context: &Context,
        request: GetRequest,
    ) -> Result<GetAnswer, ServiceError> {
        let address: Address = request.target.parse()?;
        let order = address.environment.lookup_order();
        let environments = if request.resolve { order } else { &order[..1] };
        let needs = needs(&address.namespace, environments, request.reveal);
        let (result, revision) =
            self.find(context, &request, &address, environments, &needs).await?;
        self.await_published(context, revision).await?;
        let mut answer = result?;
        if request.reveal {
            answer.revealed = self.reveal_entry(context, &answer.entry).await?;
        }
        Ok(answer)
    }

    async fn find(
        &self,
        context: &Context,
        request: &GetRequest,
        address: &Address,
        environments: &[Environment],
        needs: &[Need],
    ) -> Result<Found, ServiceError> {
        match request.version {
            Some(_) if request.resolve => Err(ServiceError::invalid(
                "version",
                "it cannot be combined with resolve; name the environment instead",
            )),
            Some(0) => Err(ServiceError::invalid("version", "versions count from 1")),
            Some(version) => {
                self.fresh(context, &request.read, needs).await?;
                self.old_version(address, version)
            }
            None => {
                self.fresh(context, &request.read, needs).await?;
                self.current(address, environments)
            }
        }
    }

    /// Returns when what this node has applied is as fresh as asked, for somebody who may read it; or refuses. Whoever
    /// waited is asked again: what arrived meanwhile may have taken the right away.
    pub(super) async fn fresh(
        &self,
        context: &Context,
        read: &ReadOptions,
        needs: &[Need],
    ) -> Result<(), ServiceError> {
        self.authorize(context, needs).await?;
        self.inner.metrics.read(read.consistency);
        self.await_freshness(context, read).await?;
        if read.consistency == Consistency::Linearizable || read.min_revision.is_some() {
            self.authorize(context, needs).await?;
        }
        Ok(())
    }

    /// Returns when this node has applied what was committed before.
    pub(super) async fn catch_up(&self, deadline: Instant) -> Result<(), ServiceError> {
        self.replica().linearizable(deadline).await.map_err(read_error)?;
        Ok(())
    }

    /// Returns when what this node has applied is as fresh as asked, or refuses.
    async fn await_freshness(
        &self,
        context: &Context,
        read: &ReadOptions,
    ) -> Result<(), ServiceError> {
        let replica = self.replica();
        if read.consistency == Consistency::Linearizable {
            self.catch_up(context.deadline).await?;
        } else if !replica.recovered() {
            return Err(ServiceError::NotReady { reason: "it is replaying its log".into() });
        }
        if let Some(revision) = read.min_revision
            && replica.applied_revision() < revision
            && !active(Bug::MinRevisionIgnored)
        {
            replica.wait_revision(revision, context.deadline).await.map_err(read_error)?;
        }
        match read.max_staleness_ms {
            Some(limit_ms) if read.consistency == Consistency::Cached => {
                self.check_staleness(limit_ms)
            }
            _ => Ok(()),
        }
    }

    fn check_staleness(&self, limit_ms: u64) -> Result<(), ServiceError> {
        match self.replica().staleness() {
            _ if active(Bug::StalenessIgnored) => Ok(()),
            Some(age) if age.as_millis() <= u128::from(limit_ms) => Ok(()),
            Some(age) => Err(ServiceError::Stale {
                reason: format!(
                    "it has what was committed {} ms ago, max_staleness_ms is {limit_ms}",
                    age.as_millis()
                ),
            }),
            None => Err(ServiceError::Stale {
                reason: "it has not caught up with a leader since it started".into(),
            }),
        }
    }

    fn old_version(&self, address: &Address, version: u64) -> Result<Found, ServiceError> {
        let begun = Instant::now();
        let (view, revision) = self.view()?;
        let found = query::get_version(&view, address, version)
            .map(|entry| GetAnswer { entry: Arc::new(entry), revealed: None, revision })
            .map_err(|error| {
                query_error(error, revision, || {
                    format!("there is no version {version} of {address}")
                })
            });
        self.inner.metrics.storage_read(StorageRead::Get, begun.elapsed());
        Ok((found, revision))
    }

    /// The entry in the first of these environments that has one.
    fn current(
        &self,
        address: &Address,
        environments: &[Environment],
    ) -> Result<Found, ServiceError> {
        let (entry, revision) = match self.cached(address, environments) {
            Cached::Found(entry, revision) => (Some(entry), revision),
            Cached::Absent(revision) => (None, revision),
            Cached::Unknown(ticket) => self.stored(address, environments, ticket)?,
        };
        let missing = || ServiceError::NotFound {
            what: format!("there is no entry {address}"),
            revision: Some(revision),
        };
        let answer = entry.map(|entry| GetAnswer { entry, revealed: None, revision });
        Ok((answer.ok_or_else(missing), revision))
    }

    fn cached(&self, address: &Address, environments: &[Environment]) -> Cached {
        let shared = &self.inner.shared;
        let Some(seen) = shared.abreast_of(self.replica().applied_revision()) else {
            return Cached::Unknown(None);
        };
        let mut revision = seen;
        let mut found = None;
        for environment in environments {
            let candidate = Address { environment: *environment, ..address.clone() };
            match shared.cache.lookup(&candidate) {
                Lookup::Miss(ticket) => return Cached::Unknown(Some((candidate, ticket))),
                Lookup::Hit(Slot::Absent { revision: since }) => revision = revision.max(since),
                Lookup::Hit(Slot::Present(entry)) => {
                    revision = revision.max(entry.revision);
                    found = Some(entry);
                    break;
                }
            }
        }
        // Several lookups are one state only when nothing was applied between them.
        if environments.len() > 1 && !shared.unchanged_since(seen) {
            return Cached::Unknown(None);
        }
        match found {
            Some(entry) => Cached::Found(entry, revision),
            None => Cached::Absent(revision),
        }
    }

    fn stored(
        &self,
        address: &Address,
        environments: &[Environment],
        ticket: Option<(Address, Ticket)>,
    ) -> Result<(Option<Arc<Entry>>, u64), ServiceError> {
        let begun = Instant::now();
        // Taken after the ticket: whatever was applied before the ticket is in the view.
        let (view, revision) = self.view()?;
        for environment in environments {
            let candidate = Address { environment: *environment, ..address.clone() };
            let found = query::get(&view, &candidate).map_err(|error| {
                query_error(error, revision, || format!("there is no entry {candidate}"))
            })?;
            let entry = found.map(Arc::new);
            if let Some((missed, ticket)) = &ticket
                && *missed == candidate
            {
                let slot = entry.clone().map_or(Slot::Absent { revision }, Slot::Present);
                self.inner.shared.cache.fill(ticket, candidate, slot);
            }
            if entry.is_some() {
                self.inner.metrics.storage_read(StorageRead::Get, begun.elapsed());
                return Ok((entry, revision));
            }
        }
        self.inner.metrics.storage_read(StorageRead::Get, begun.elapsed());
        Ok((None, revision))
    }

    pub async fn resolve(
        &self,
        context: &Context,
        request: ResolveRequest,
    ) -> Result<ResolveAnswer, ServiceError> {
        let environment = super::named(&request.environment);
        let result = self.resolve_namespace(context, request).await;
        self.counted_in(context, "resolve", environment, result)
    }

    async fn resolve_namespace(
        &self,
        context: &Context,
        request: ResolveRequest,
    ) -> Result<ResolveAnswer, ServiceError> {
        let namespace = Namespace::parse(&request.namespace)?;
        let environment = environment(&request.environment)?;
        let needs = needs(&namespace, environment.lookup_order(), request.reveal);
        self.fresh(context, &request.read, &needs).await?;
        let resolving = self.on_view(context, move |view, revision| {
            let resolved = query::resolve(view, &namespace, environment).map_err(|error| {
                query_error(error, revision, || format!("there is no namespace {namespace}"))
            })?;
            let mut answer = ResolveAnswer {
                namespace,
                environment,
                values: resolved.values,
                revealed: BTreeMap::new(),
                revision: resolved.revision,
                digest: String::new(),
            };
            answer.digest = digest(&answer, request.reveal);
            Ok(answer)
        });
        let mut answer = resolving.await?;
        if request.reveal {
            let secrets = answer.values.iter().filter_map(|(key, value, environment)| {
                let address = Address {
                    namespace: answer.namespace.clone(),
                    key: key.clone(),
                    environment: *environment,
                };
                value.sealed().map(|sealed| (address, sealed.clone()))
            });
            let secrets: Vec<_> = secrets.collect();
            let opened = self.reveal(context, &secrets).await?;
            let keys = secrets.into_iter().map(|(address, _)| address.key);
            answer.revealed = keys.zip(opened).collect();
        }
        Ok(answer)
    }
}

/// The rights that reading these environments of a namespace needs: every one that the answer may come from.
fn needs(namespace: &Namespace, environments: &[Environment], reveal: bool) -> Vec<Need> {
    let actions: &[Action] = if reveal { &[Action::Read, Action::Reveal] } else { &[Action::Read] };
    let at = |action: &Action, environment: &Environment| Need::At {
        action: *action,
        namespace: namespace.clone(),
        environment: *environment,
    };
    environments.iter().flat_map(|env| actions.iter().map(move |action| at(action, env))).collect()
}

/// A hash of everything in the answer but the revision, which moves with changes elsewhere. Of a secret it is the sealed
/// form that counts: a digest of the secret itself could be guessed at.
fn digest(answer: &ResolveAnswer, reveal: bool) -> String {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    part(answer.namespace.as_str().as_bytes());
    part(answer.environment.as_str().as_bytes());
    for (key, value, source) in &answer.values {
        part(key.as_str().as_bytes());
        match value {
            Value::Json(json) => part(json.as_bytes()),
            Value::Sealed(sealed) => {
                part(if reveal { b"revealed" } else { b"masked" });
                part(&sealed.bytes);
            }
        }
        part(source.as_str().as_bytes());
    }
    hex(&hash.finalize())
}

fn read_error(error: ReadError) -> ServiceError {
    match error {
        ReadError::NoLeader => ServiceError::NoLeader,
        ReadError::NotReady => ServiceError::NotReady { reason: "it is replaying its log".into() },
        ReadError::Behind { .. } => ServiceError::Stale { reason: error.to_string() },
        ReadError::Failed(reason) => {
            ServiceError::NotReady { reason: format!("it is stopping: {reason}") }
        }
    }
}

#[cfg(test)]
mod tests {
    use llm_config_domain::{JsonValue, Key};

    use super::*;

    fn answer(values: &[(&str, &str, Environment)], revision: u64) -> ResolveAnswer {
        ResolveAnswer {
            namespace: Namespace::parse("app").unwrap(),
            environment: Environment::Production,
            values: values
                .iter()
                .map(|(key, value, source)| {
                    let value = JsonValue::parse(value.as_bytes()).unwrap().into();
                    (Key::parse(key).unwrap(), value, *source)
                })
                .collect(),
            revealed: BTreeMap::new(),
            revision,
            digest: String::new(),
        }
    }

    #[test]
    fn a_digest_follows_the_content_and_not_the_revision() {
        let base = [("a", "1", Environment::Base), ("b", "2", Environment::Base)];
        let same = digest(&answer(&base, 9), false);
        assert_eq!(digest(&answer(&base, 7), false), same);
        let others = [
            vec![("a", "1", Environment::Base)],
            vec![("a", "1", Environment::Base), ("b", "3", Environment::Base)],
            vec![("a", "1", Environment::Base), ("b", "2", Environment::Production)],
            vec![("a", "1", Environment::Base), ("c", "2", Environment::Base)],
            vec![],
        ];
        for other in others {
            assert_ne!(digest(&answer(&other, 7), false), same, "{other:?}");
        }
    }

    #[test]
    fn every_read_error_is_safe_to_retry() {
        let errors = [
            ReadError::NoLeader,
            ReadError::NotReady,
            ReadError::Behind { wanted: 9, applied: 3 },
            ReadError::Failed("disk".into()),
        ];
        let codes: Vec<_> = errors.into_iter().map(|error| read_error(error).code()).collect();
        assert_eq!(codes, ["NO_LEADER", "NOT_READY", "STALE", "NOT_READY"]);
    }
}
