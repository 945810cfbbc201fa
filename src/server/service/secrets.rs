//! Secrets: sealed before they are proposed, opened only for who may see them, and put under new keys while everything runs.
//!
//! A secret is sealed for the version that comes next. When another change comes first, the state machine says so, and it is
//! sealed again. A node without the right master key serves everything else.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use llm_config_domain::{
    Address, AuditKind, AuditTarget, Command, DataKey as StoredKey, DropDataKey, Entry, MASK,
    Operation, Rejection, RequestId, Reseal, ResealedVersion, Sealed, Value, key_ring, limits,
    query,
};
use llm_config_replica::{Role, View};
use tokio_util::sync::CancellationToken;

use super::schemas::Judged;
use super::writes::{Done, not_proposed};
use super::{Context, Service, internal, query_error, refused};
use crate::error::ServiceError;
use crate::metrics::SecretAccess;
use crate::secrets::{
    DIGEST_OWNER, DataKey, KeyError, MasterKeyId, Place, Plaintext, SecretError, WrappedKey,
    keyed_digest, open, reseal, seal,
};

/// Times that a change is made anew because another one came first.
pub(super) const ATTEMPTS_MAX: usize = 8;
/// Secrets that are put under a new key at a time.
const RESEAL_BATCH: usize = limits::RESEALS_PER_COMMAND_MAX;
/// Bytes of them, so that a command stays within its bound.
const RESEAL_BYTES: usize = limits::COMMAND_BYTES_MAX / 2;
/// How often the leader looks for secrets under an old key.
const ROTATION_INTERVAL: Duration = Duration::from_secs(1);
const ROTATION_TIMEOUT: Duration = Duration::from_secs(5);
/// Keys that are stored under another master key at a time.
const REWRAP_BATCH: usize = 256;
/// Who rotates when nobody asks any more.
const ACTOR: &str = "system";

/// The key ring as this node sees it.
#[derive(Debug, Clone)]
pub struct KeyRing {
    /// The master keys of this node, the current one first.
    pub master_ids: Vec<String>,
    pub keys: Vec<KeyState>,
    pub revision: u64,
}

/// One data key.
#[derive(Debug, Clone)]
pub struct KeyState {
    /// The namespace; empty for the key of request digests.
    pub owner: String,
    pub version: u32,
    pub master_id: String,
    pub created_at_ms: u64,
    /// New secrets are sealed with it.
    pub newest: bool,
    /// Whether this node can open it.
    pub usable: bool,
}

/// Which keys are exchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotation {
    /// Data keys: new ones are made, and every secret is put under them.
    Data,
    /// The master key: data keys are wrapped with the current one of this node.
    Master,
}

impl Service {
    /// The plaintext of a secret must be a JSON string: that is what a secret is.
    pub(super) fn plaintext(value: &[u8]) -> Result<Plaintext, ServiceError> {
        let json = llm_config_domain::JsonValue::parse(value)?;
        if !json.as_bytes().starts_with(b"\"") {
            return Err(ServiceError::invalid("value", "a secret must be a JSON string"));
        }
        // Somebody read it masked, changed something beside it, and wrote it back.
        if json.as_str().trim_matches('"') == MASK {
            return Err(ServiceError::invalid(
                "value",
                "is the mask that hides a secret; send the secret itself",
            ));
        }
        Ok(Plaintext::copy_of(json.as_bytes()))
    }

    /// Proposes what `build` makes of the present state, again and again while other changes come first.
    pub(super) async fn propose_sealed<F>(
        &self,
        context: &Context,
        request: Option<RequestId>,
        what: String,
        mut build: impl FnMut() -> F,
    ) -> Result<Done, ServiceError>
    where
        F: Future<Output = Result<(Operation, Judged), ServiceError>>,
    {
        for _ in 0..ATTEMPTS_MAX {
            let (operation, judged) = build().await?;
            let retried = judged.refuse_or_ask(request.is_some())?;
            let mut command = self.command(context, operation)?.checked_by(judged.schemas());
            command.request.clone_from(&request);
            command.validate()?;
            match self.submit(context, command).await? {
                Ok(done) => return Ok(done),
                Err(
                    Rejection::SealedForOther { .. }
                    | Rejection::EntryIsSecret
                    | Rejection::NeedsReseal { .. }
                    | Rejection::UnknownKey { .. },
                ) => {
                    // The state that it was sealed by is not the newest; this node may be behind.
                    self.catch_up(context.deadline).await?;
                }
                Err(Rejection::SchemaChanged { .. }) => match retried {
                    Some(violation) => return Err(violation),
                    None => self.catch_up(context.deadline).await?,
                },
                Err(rejection) => return Err(self.rejected(context, rejection, what).await),
            }
        }
        Err(ServiceError::Overloaded { reason: "the entry is being changed by others".into() })
    }

    /// A digest of a request with secrets that recognises its retry. The parts say everything that the request does.
    pub(super) async fn request_of(
        &self,
        context: &Context,
        idempotency_key: Option<String>,
        parts: &[&[u8]],
    ) -> Result<Option<RequestId>, ServiceError> {
        let Some(key) = idempotency_key else { return Ok(None) };
        let digest_key = self.newest_key(context, DIGEST_OWNER).await?;
        Ok(Some(RequestId { key, digest: keyed_digest(&digest_key, parts) }))
    }

    /// Seals for a version of an entry, with the newest key of its namespace.
    pub(super) async fn seal(
        &self,
        context: &Context,
        address: &Address,
        version: u64,
        plaintext: &Plaintext,
    ) -> Result<Sealed, ServiceError> {
        let key = self.newest_key(context, address.namespace.as_str()).await?;
        let bytes = seal(&key, place(address, version), plaintext).map_err(unreadable)?;
        Ok(Sealed { key_version: key.version(), version, bytes: bytes.into() })
    }

    /// Opens a stored secret.
    pub(super) fn open(
        &self,
        address: &Address,
        sealed: &Sealed,
    ) -> Result<Plaintext, ServiceError> {
        let owner = address.namespace.as_str();
        let (view, _) = self.view()?;
        let stored = key_ring::data_key(&view, owner, sealed.key_version)
            .map_err(|error| query_error(error.into(), 0, || "there is no key".into()))?
            .ok_or_else(|| {
                internal(format!("data key {} of {owner} is gone", sealed.key_version))
            })?;
        let key = self.unwrapped(&stored)?;
        open(&key, place(address, sealed.version), &sealed.bytes).map_err(unreadable)
    }

    /// An old or present version of an entry sealed for another version of it; nothing when it is no secret.
    pub(super) async fn sealed_again(
        &self,
        context: &Context,
        address: &Address,
        from: u64,
        version: u64,
    ) -> Result<Option<Sealed>, ServiceError> {
        let (view, revision) = self.view()?;
        let stored = key_ring::sealed_version(&view, address, from).map_err(|error| {
            query_error(error.into(), revision, || "there is no version".into())
        })?;
        let Some(sealed) = stored else { return Ok(None) };
        let plaintext = self.open(address, &sealed)?;
        self.seal(context, address, version, &plaintext).await.map(Some)
    }

    fn unwrapped(&self, stored: &StoredKey) -> Result<Arc<DataKey>, ServiceError> {
        let keys = &self.inner.guards.keys;
        keys.get(&stored.owner, stored.version, &wrapped(stored)?).map_err(unavailable)
    }

    /// The newest key of an owner, made when there is none.
    async fn newest_key(
        &self,
        context: &Context,
        owner: &str,
    ) -> Result<Arc<DataKey>, ServiceError> {
        for _ in 0..ATTEMPTS_MAX {
            let (view, _) = self.view()?;
            let newest = key_ring::latest(&view, owner)
                .map_err(|error| query_error(error.into(), 0, || "there is no key".into()))?;
            if let Some(stored) = newest {
                return self.unwrapped(&stored);
            }
            self.add_key(context.deadline, owner, 1).await?;
            self.catch_up(context.deadline).await?;
        }
        Err(ServiceError::Overloaded { reason: "the key ring is being changed".into() })
    }

    /// Makes a key. Another node that was faster has made it as well.
    async fn add_key(
        &self,
        deadline: Instant,
        owner: &str,
        version: u32,
    ) -> Result<(), ServiceError> {
        let (_, record) = self.inner.guards.keys.make(owner, version).map_err(unavailable)?;
        let key = StoredKey {
            owner: owner.to_owned(),
            version,
            master_id: record.master_id.to_bytes().to_vec().into(),
            wrapped: record.bytes.into(),
            created_at_ms: 0,
        };
        match self.by_system(deadline, Operation::AddDataKey(key)).await? {
            Ok(()) | Err(Rejection::KeyVersion { .. }) => Ok(()),
            Err(rejection) => Err(refused(rejection, || "there is no key".into())),
        }
    }

    async fn by_system(
        &self,
        deadline: Instant,
        operation: Operation,
    ) -> Result<Result<(), Rejection>, ServiceError> {
        let command =
            Command::new(ACTOR, operation).with_request_id(uuid::Uuid::now_v7().to_string());
        let applied = self.replica().propose(command, deadline).await;
        let applied = applied.map_err(|error| not_proposed(error, true))?;
        Ok(applied.result.map(drop))
    }

    /// The plaintexts of secrets, in their order, for somebody who may see them. The audit log knows before.
    pub(super) async fn reveal(
        &self,
        context: &Context,
        entries: &[(Address, Sealed)],
    ) -> Result<Vec<Plaintext>, ServiceError> {
        // Opened first: what cannot be shown is not recorded as seen.
        let opened = entries.iter().map(|(address, sealed)| self.open(address, sealed));
        let opened = opened.collect::<Result<Vec<_>, _>>()?;
        let targets: Vec<AuditTarget> = entries
            .iter()
            .map(|(address, sealed)| AuditTarget {
                address: address.clone(),
                version: sealed.version,
            })
            .collect();
        for targets in targets.chunks(limits::AUDIT_TARGETS_MAX) {
            let detail = format!("{} secrets", targets.len());
            self.announce(context, AuditKind::SecretReveal, targets.to_vec(), detail).await?;
        }
        for _ in &opened {
            self.inner.metrics.secret_access(SecretAccess::Reveal);
        }
        Ok(opened)
    }

    /// The plaintext of one entry; nothing when it is no secret.
    pub(super) async fn reveal_entry(
        &self,
        context: &Context,
        entry: &Entry,
    ) -> Result<Option<Plaintext>, ServiceError> {
        let Some(sealed) = entry.value.as_ref().and_then(Value::sealed) else { return Ok(None) };
        // From storage: what a cache holds may be under a key that is gone.
        let (view, revision) = self.view()?;
        let stored =
            key_ring::sealed_version(&view, &entry.address, entry.version).map_err(|error| {
                query_error(error.into(), revision, || "there is no version".into())
            })?;
        let sealed = stored.unwrap_or_else(|| sealed.clone());
        Ok(self.reveal(context, &[(entry.address.clone(), sealed)]).await?.pop())
    }

    /// The key ring.
    pub async fn key_ring(&self, context: &Context) -> Result<KeyRing, ServiceError> {
        let result = self.show_keys(context).await;
        self.counted(context, "keys", result)
    }

    async fn show_keys(&self, context: &Context) -> Result<KeyRing, ServiceError> {
        self.authorize(context, &[super::AUTH]).await?;
        let service = self.clone();
        self.on_view(context, move |view, revision| {
            let stored = key_ring::data_keys(view).map_err(|error| {
                query_error(error.into(), revision, || "there are no keys".into())
            })?;
            let keys = stored.iter().enumerate().map(|(index, key)| {
                let next = stored.get(index + 1);
                KeyState {
                    owner: key.owner.clone(),
                    version: key.version,
                    master_id: master_id(key).map_or_else(|_| "?".into(), |id| id.to_string()),
                    created_at_ms: key.created_at_ms,
                    newest: next.is_none_or(|next| next.owner != key.owner),
                    usable: service.unwrapped(key).is_ok(),
                }
            });
            Ok(KeyRing { master_ids: service.master_ids(), keys: keys.collect(), revision })
        })
        .await
    }

    fn master_ids(&self) -> Vec<String> {
        let masters = self.inner.guards.keys.masters();
        masters.map_or_else(Vec::new, |masters| {
            masters.ids().iter().map(ToString::to_string).collect()
        })
    }

    /// Exchanges keys. New data keys are there when it returns; secrets are put under them in the background.
    pub async fn rotate_keys(
        &self,
        context: &Context,
        rotation: Rotation,
        namespace: Option<String>,
    ) -> Result<usize, ServiceError> {
        let result = self.rotate(context, rotation, namespace).await;
        self.counted(context, "keys_rotate", result)
    }

    async fn rotate(
        &self,
        context: &Context,
        rotation: Rotation,
        namespace: Option<String>,
    ) -> Result<usize, ServiceError> {
        self.authorize(context, &[super::AUTH]).await?;
        if self.inner.guards.keys.masters().is_none() {
            return Err(unavailable(KeyError::NoMasterKey));
        }
        self.catch_up(context.deadline).await?;
        let (view, revision) = self.view()?;
        let mut stored = key_ring::data_keys(&view)
            .map_err(|error| query_error(error.into(), revision, || "there are no keys".into()))?;
        if let Some(namespace) = &namespace {
            stored.retain(|key| key.owner == *namespace);
            if stored.is_empty() {
                let what = format!("namespace {namespace} has no secrets");
                return Err(ServiceError::NotFound { what, revision: Some(revision) });
            }
        }
        let of = namespace.unwrap_or_else(|| "every namespace".into());
        let what = match rotation {
            Rotation::Data => "data keys",
            Rotation::Master => "master key",
        };
        let detail = format!("{what} of {of}");
        self.announce(context, AuditKind::AdminKeysRotate, Vec::new(), detail).await?;
        match rotation {
            Rotation::Data => self.renew_data_keys(context, &stored).await,
            Rotation::Master => self.rewrap_data_keys(context, &stored).await,
        }
    }

    async fn renew_data_keys(
        &self,
        context: &Context,
        stored: &[StoredKey],
    ) -> Result<usize, ServiceError> {
        let mut newest = BTreeMap::new();
        // Digests under two keys could not be compared, so theirs stays.
        for key in stored.iter().filter(|key| key.owner != DIGEST_OWNER) {
            newest.insert(key.owner.as_str(), key);
        }
        for key in newest.values() {
            // One that this node cannot open it could not put under another.
            self.unwrapped(key)?;
            let next = key.version.checked_add(1);
            let next = next.ok_or_else(|| internal("the key ring is used up".into()))?;
            self.add_key(context.deadline, &key.owner, next).await?;
        }
        Ok(newest.len())
    }

    async fn rewrap_data_keys(
        &self,
        context: &Context,
        stored: &[StoredKey],
    ) -> Result<usize, ServiceError> {
        let keys = &self.inner.guards.keys;
        let mut rewrapped = Vec::new();
        for key in stored {
            let record = wrapped(key)?;
            let anew = keys.rewrap(&key.owner, key.version, &record).map_err(unavailable)?;
            rewrapped.extend(anew.map(|record| StoredKey {
                master_id: record.master_id.to_bytes().to_vec().into(),
                wrapped: record.bytes.into(),
                ..key.clone()
            }));
        }
        let count = rewrapped.len();
        for chunk in rewrapped.chunks(REWRAP_BATCH) {
            let operation = Operation::RewrapDataKeys(chunk.to_vec());
            let done = self.by_system(context.deadline, operation).await?;
            done.map_err(|rejection| refused(rejection, || "there is no key".into()))?;
        }
        Ok(count)
    }

    /// While this node leads: puts secrets under the newest key of their namespace, and forgets keys that open nothing any
    /// more. What it did not finish, the next leader does.
    pub async fn run_rotation(self, closing: CancellationToken) {
        // The ring at which there was nothing to do: there is nothing again until it changes.
        let mut done = None;
        loop {
            tokio::select! {
                () = closing.cancelled() => return,
                () = tokio::time::sleep(ROTATION_INTERVAL) => {}
            }
            if self.inner.guards.keys.masters().is_none()
                || self.replica().status().role != Role::Leader
            {
                continue;
            }
            while !closing.is_cancelled() {
                match self.rotation_step(&mut done).await {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error) => {
                        tracing::warn!(reason = %error, "secrets could not be put under a new key; trying again");
                        break;
                    }
                }
            }
        }
    }

    /// Puts some secrets under the newest key. True: there may be more to do now.
    async fn rotation_step(&self, done: &mut Option<u64>) -> Result<bool, ServiceError> {
        let (view, revision) = self.view()?;
        let meta = query::meta(&view)
            .map_err(|error| query_error(error, revision, || "there are no keys".into()))?;
        if *done == Some(meta.keys_revision) {
            return Ok(false);
        }
        let service = self.clone();
        let step = tokio::task::spawn_blocking(move || service.next_step(&view, revision));
        let step = step.await.map_err(|error| internal(error.to_string()))??;
        let Some(operation) = step else {
            *done = Some(meta.keys_revision);
            return Ok(false);
        };
        let deadline = Instant::now() + ROTATION_TIMEOUT;
        match self.by_system(deadline, operation).await? {
            Ok(()) => {}
            // A secret was written under it meanwhile, by a node that had not heard of the new key.
            Err(Rejection::KeyInUse | Rejection::UnknownKey { .. }) => return Ok(false),
            Err(rejection) => return Err(refused(rejection, || "there is no key".into())),
        }
        self.catch_up(deadline).await?;
        Ok(true)
    }

    /// What to do next about keys that are not the newest of their owner.
    fn next_step(&self, view: &View, revision: u64) -> Result<Option<Operation>, ServiceError> {
        let storage = |error: llm_config_domain::StoreError| {
            query_error(error.into(), revision, || "there are no keys".into())
        };
        let stored = key_ring::data_keys(view).map_err(storage)?;
        for (index, key) in stored.iter().enumerate() {
            if stored.get(index + 1).is_none_or(|next| next.owner != key.owner) {
                continue;
            }
            let owner = key.owner.as_str();
            let sealed =
                key_ring::sealed_with(view, owner, key.version, RESEAL_BATCH).map_err(storage)?;
            let Some((address, _)) = sealed.first().cloned() else {
                return Ok(Some(Operation::DropDataKey(DropDataKey {
                    owner: key.owner.clone(),
                    version: key.version,
                })));
            };
            let newest = key_ring::latest(view, owner).map_err(storage)?;
            let newest = newest.ok_or_else(|| internal(format!("{owner} has no key")))?;
            let (old, new) = (self.unwrapped(key)?, self.unwrapped(&newest)?);
            let mut versions = Vec::new();
            let mut bytes = 0;
            let of_entry = sealed.iter().filter(|(other, _)| *other == address);
            for (_, version) in of_entry {
                let stored = key_ring::sealed_version(view, &address, *version).map_err(storage)?;
                let Some(stored) = stored else { continue };
                let one = crate::secrets::Sealed {
                    place: place(&address, *version),
                    key_version: stored.key_version,
                    bytes: &stored.bytes,
                };
                let Some(anew) = reseal(&old, &new, one).map_err(unreadable)? else { continue };
                bytes += anew.len();
                versions.push(ResealedVersion {
                    version: *version,
                    sealed: Sealed {
                        key_version: new.version(),
                        version: *version,
                        bytes: anew.into(),
                    },
                });
                if bytes >= RESEAL_BYTES {
                    break;
                }
            }
            return Ok(Some(Operation::Reseal(Reseal {
                address,
                from_key_version: key.version,
                versions,
            })));
        }
        Ok(None)
    }
}

/// The version that the next change of an entry makes, as far as this node knows.
pub(super) fn next_version(service: &Service, address: &Address) -> Result<u64, ServiceError> {
    let (view, revision) = service.view()?;
    let latest = query::latest_version(&view, address)
        .map_err(|error| query_error(error, revision, || "there is no such entry".into()))?;
    Ok(latest + 1)
}

fn place(address: &Address, version: u64) -> Place<'_> {
    Place {
        namespace: address.namespace.as_str(),
        environment: address.environment.code(),
        key: address.key.as_str(),
        version,
    }
}

fn master_id(key: &StoredKey) -> Result<MasterKeyId, ServiceError> {
    let bytes = key.master_id.as_ref().try_into();
    let bytes =
        bytes.map_err(|_| internal(format!("a key of {} names no master key", key.owner)))?;
    Ok(MasterKeyId::from_bytes(bytes))
}

fn wrapped(key: &StoredKey) -> Result<WrappedKey, ServiceError> {
    Ok(WrappedKey { master_id: master_id(key)?, bytes: key.wrapped.to_vec() })
}

/// A key that this node cannot use.
fn unavailable(error: KeyError) -> ServiceError {
    match error {
        KeyError::NoMasterKey | KeyError::OtherMasterKey { .. } => {
            ServiceError::SecretsUnavailable { reason: error.to_string() }
        }
        KeyError::NotAuthentic { .. } | KeyError::Newer { .. } | KeyError::Fault(_) => {
            internal(error.to_string())
        }
    }
}

/// A secret that cannot be sealed or opened.
fn unreadable(error: SecretError) -> ServiceError {
    match error {
        SecretError::TooLarge { .. } => ServiceError::PayloadTooLarge {
            what: "value".into(),
            limit: limits::VALUE_BYTES_MAX as u64,
        },
        other => internal(other.to_string()),
    }
}
