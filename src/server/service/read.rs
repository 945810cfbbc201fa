//! Reads of single entries and of a namespace as an application sees it, at the freshness that was asked for.

use std::sync::Arc;

use llm_config_domain::{Address, Entry, Environment, Namespace, query};
use llm_config_replica::ReadError;
use sha2::{Digest, Sha256};

use super::cursor::hex;
use super::{Consistency, environment, query_error};
use super::{Context, GetAnswer, GetRequest, ReadOptions, ResolveAnswer, ResolveRequest, Service};
use crate::cache::{Lookup, Slot, Ticket};
use crate::error::ServiceError;

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
        let result = self.get_entry(context, request).await;
        self.counted("get", result)
    }

    async fn get_entry(
        &self,
        context: &Context,
        request: GetRequest,
    ) -> Result<GetAnswer, ServiceError> {
        let address = request.target.parse()?;
        let (result, revision) = self.find(context, &request, &address).await?;
        self.await_published(context, revision).await?;
        result
    }

    async fn find(
        &self,
        context: &Context,
        request: &GetRequest,
        address: &Address,
    ) -> Result<Found, ServiceError> {
        match request.version {
            Some(_) if request.resolve => Err(ServiceError::invalid(
                "version",
                "it cannot be combined with resolve; name the environment instead",
            )),
            Some(0) => Err(ServiceError::invalid("version", "versions count from 1")),
            Some(version) => {
                self.await_freshness(context, &request.read).await?;
                self.old_version(address, version)
            }
            None => {
                self.await_freshness(context, &request.read).await?;
                let order = address.environment.lookup_order();
                let environments = if request.resolve { order } else { &order[..1] };
                self.current(address, environments)
            }
        }
    }

    /// Returns when what this node has applied is as fresh as asked, or refuses.
    pub(super) async fn await_freshness(
        &self,
        context: &Context,
        read: &ReadOptions,
    ) -> Result<(), ServiceError> {
        let replica = self.replica();
        if read.consistency == Consistency::Linearizable {
            replica.linearizable(context.deadline).await.map_err(read_error)?;
        } else if !replica.recovered() {
            return Err(ServiceError::NotReady { reason: "it is replaying its log".into() });
        }
        if let Some(revision) = read.min_revision
            && replica.applied_revision() < revision
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
        let (view, revision) = self.view()?;
        let found = query::get_version(&view, address, version)
            .map(|entry| GetAnswer { entry, revision })
            .map_err(|error| {
                query_error(error, revision, || {
                    format!("there is no version {version} of {address}")
                })
            });
        Ok((found, revision))
    }

    /// The entry in the first of these environments that has one.
    fn current(
        &self,
        address: &Address,
        environments: &[Environment],
    ) -> Result<Found, ServiceError> {
        let (entry, revision) = match self.cached(address, environments) {
            Cached::Found(entry, revision) => (Some(Arc::unwrap_or_clone(entry)), revision),
            Cached::Absent(revision) => (None, revision),
            Cached::Unknown(ticket) => self.stored(address, environments, ticket)?,
        };
        let missing = || ServiceError::NotFound {
            what: format!("there is no entry {address}"),
            revision: Some(revision),
        };
        Ok((entry.map(|entry| GetAnswer { entry, revision }).ok_or_else(missing), revision))
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
    ) -> Result<(Option<Entry>, u64), ServiceError> {
        // Taken after the ticket: whatever was applied before the ticket is in the view.
        let (view, revision) = self.view()?;
        for environment in environments {
            let candidate = Address { environment: *environment, ..address.clone() };
            let entry = query::get(&view, &candidate).map_err(|error| {
                query_error(error, revision, || format!("there is no entry {candidate}"))
            })?;
            if let Some((missed, ticket)) = &ticket
                && *missed == candidate
            {
                let slot = entry
                    .clone()
                    .map_or(Slot::Absent { revision }, |entry| Slot::Present(Arc::new(entry)));
                self.inner.shared.cache.fill(ticket, candidate, slot);
            }
            if entry.is_some() {
                return Ok((entry, revision));
            }
        }
        Ok((None, revision))
    }

    pub async fn resolve(
        &self,
        context: &Context,
        request: ResolveRequest,
    ) -> Result<ResolveAnswer, ServiceError> {
        let result = self.resolve_namespace(context, request).await;
        self.counted("resolve", result)
    }

    async fn resolve_namespace(
        &self,
        context: &Context,
        request: ResolveRequest,
    ) -> Result<ResolveAnswer, ServiceError> {
        let namespace = Namespace::parse(&request.namespace)?;
        let environment = environment(&request.environment)?;
        self.await_freshness(context, &request.read).await?;
        self.on_view(context, move |view, revision| {
            let resolved = query::resolve(view, &namespace, environment).map_err(|error| {
                query_error(error, revision, || format!("there is no namespace {namespace}"))
            })?;
            let mut answer = ResolveAnswer {
                namespace,
                environment,
                values: resolved.values,
                revision: resolved.revision,
                digest: String::new(),
            };
            answer.digest = digest(&answer);
            Ok(answer)
        })
        .await
    }
}

/// A hash of everything in the answer but the revision, which moves with changes elsewhere.
fn digest(answer: &ResolveAnswer) -> String {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    part(answer.namespace.as_str().as_bytes());
    part(answer.environment.as_str().as_bytes());
    for (key, value, source) in &answer.values {
        part(key.as_str().as_bytes());
        part(value.as_bytes());
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
                    (Key::parse(key).unwrap(), JsonValue::parse(value.as_bytes()).unwrap(), *source)
                })
                .collect(),
            revision,
            digest: String::new(),
        }
    }

    #[test]
    fn a_digest_follows_the_content_and_not_the_revision() {
        let base = [("a", "1", Environment::Base), ("b", "2", Environment::Base)];
        let same = digest(&answer(&base, 9));
        assert_eq!(digest(&answer(&base, 7)), same);
        let others = [
            vec![("a", "1", Environment::Base)],
            vec![("a", "1", Environment::Base), ("b", "3", Environment::Base)],
            vec![("a", "1", Environment::Base), ("b", "2", Environment::Production)],
            vec![("a", "1", Environment::Base), ("c", "2", Environment::Base)],
            vec![],
        ];
        for other in others {
            assert_ne!(digest(&answer(&other, 7)), same, "{other:?}");
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
