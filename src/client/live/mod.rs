//! A live configuration: a namespace as a type of the application, which follows the store while the application runs.
//!
//! The namespace is resolved once and deserialised; then a watch tells that something in it has changed, and it is resolved
//! again, at least at the revision of the change, so that what an environment falls back to is the node's to say. A value
//! that does not fit leaves the last one that did in place. Every failure is tried again, with growing pauses, until the
//! last handle is dropped; then the task in the background ends.
//!
//! Not done here: applying single events, and any write.

mod cache_file;

use std::collections::BTreeMap;
use std::future::IntoFuture;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use self::cache_file::{CacheFile, CacheKey, Unusable};
use crate::environment::Environment;
use crate::error::Error;
use crate::namespace::{Freshness, Namespace};
use crate::reads::Answer;
use crate::retry::backoff_within;
use crate::v1::{ResolveRequest, ResolveResponse, ResolvedValue, WatchRequest, WatchResponse};
use crate::value::decode_namespace;

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use self::cache_file::fuzz as fuzz_cache_file;

/// How long a start waits for a node before it takes the file.
const START_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest pause between two attempts in the background.
const PAUSE_MAX: Duration = Duration::from_secs(15);

/// A live configuration about to be started; see [`Namespace::live`]. Awaited, it is [`Config<T>`].
#[derive(Debug)]
#[must_use = "nothing is read before it is awaited"]
pub struct Live<T> {
    namespace: Namespace,
    reveal: bool,
    start_timeout: Duration,
    cache_file: Option<PathBuf>,
    cache_key: Option<CacheKey>,
    type_: PhantomData<fn() -> T>,
}

/// A live configuration. Cloning is cheap: clones share what is behind it, and each has its own view of what is
/// [new](Config::changed). It follows the store until the last clone is dropped.
#[derive(Debug)]
pub struct Config<T> {
    state: watch::Receiver<State<T>>,
    clock: Arc<Clock>,
    task: Arc<Task>,
}

/// Where values are from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// A node's answer.
    Node,
    /// The cache file: no node has answered since the start.
    File,
}

/// Values, and where they are from: all of it belongs together.
#[derive(Debug)]
#[non_exhaustive]
pub struct Snapshot<T> {
    /// The values.
    pub value: Arc<T>,
    /// The revision of the store that they are of.
    pub revision: u64,
    /// Where they are from.
    pub source: Source,
    /// Which environment each key's value is from.
    pub sources: Arc<BTreeMap<String, String>>,
}

/// How a live configuration is doing.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LiveStatus {
    /// The revision that the values are of.
    pub revision: u64,
    /// Where the values are from.
    pub source: Source,
    /// How old the last word of a node is. When none has spoken since the start, how old the file is.
    pub last_contact_age: Duration,
    /// Why the values are not the newest ones; absent while all is well.
    pub problem: Option<Problem>,
    /// Why the cache file could not be used or written; absent while all is well.
    pub cache_problem: Option<Error>,
}

/// Why the values are not the newest ones.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Problem {
    /// What went wrong. [`Error::Deserialize`]: the store has a value that does not fit, and the last one that did is in
    /// place.
    pub error: Error,
    /// The revision that it is about; 0 when there was no answer to have one.
    pub revision: u64,
}

#[derive(Debug)]
struct State<T> {
    value: Arc<T>,
    values: Arc<[ResolvedValue]>,
    sources: Arc<BTreeMap<String, String>>,
    revision: u64,
    source: Source,
    problem: Option<Problem>,
    cache_problem: Option<Error>,
}

/// When a node was heard last, in milliseconds since this clock was made; negative for before.
#[derive(Debug)]
struct Clock {
    epoch: Instant,
    heard_ms: AtomicI64,
}

/// Ends with the last handle.
#[derive(Debug)]
struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Namespace {
    /// A live configuration: the namespace as a type of the application, with each key as a field, that follows the store.
    ///
    /// ```no_run
    /// # use llm_config_client::{Client, Environment, Error};
    /// #[derive(serde::Deserialize)]
    /// struct Settings {
    ///     model: String,
    ///     temperature: f64,
    /// }
    ///
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// let app = client.namespace("shop/assistant").environment(Environment::Production);
    /// let config = app.live::<Settings>().cache_file("/var/cache/assistant/config").await?;
    /// println!("{} at {}", config.get().model, config.get().temperature);
    /// # Ok(())
    /// # }
    /// ```
    pub fn live<T: DeserializeOwned + Send + Sync + 'static>(&self) -> Live<T> {
        Live {
            namespace: self.clone(),
            reveal: false,
            start_timeout: START_TIMEOUT,
            cache_file: None,
            cache_key: None,
            type_: PhantomData,
        }
    }
}

impl<T> Live<T> {
    /// With the plaintext of secrets. Needs the right to reveal in every environment that values may come from; each time
    /// the namespace is resolved leaves an audit record.
    pub fn reveal(mut self) -> Self {
        self.reveal = true;
        self
    }

    /// How long the start waits for a node. Default 5 s.
    pub fn start_timeout(mut self, timeout: Duration) -> Self {
        self.start_timeout = timeout;
        self
    }

    /// Keeps the last good values in this file (mode 0600), and starts with them when no node answers within
    /// [`Live::start_timeout`]. One file for one namespace in one environment: one of another is never taken, and never
    /// overwritten. With [`Live::reveal`] a [`Live::cache_key`] is needed.
    pub fn cache_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.cache_file = Some(path.into());
        self
    }

    /// Encrypts the cache file with AES-256-GCM under this key, which stays the application's to keep. With a key, a file
    /// that is not encrypted under it is never taken.
    pub fn cache_key(mut self, key: [u8; 32]) -> Self {
        self.cache_key = Some(CacheKey(key));
        self
    }

    fn check(&self) -> Result<(), Error> {
        match (&self.cache_file, &self.cache_key) {
            (Some(_), None) if self.reveal => Err(Error::InvalidArgument {
                field: "cache_key",
                reason:
                    "secrets that are revealed are cached encrypted only; give a key of 32 bytes"
                        .to_owned(),
            }),
            (None, Some(_)) => Err(Error::InvalidArgument {
                field: "cache_key",
                reason: "there is no file for it; give a cache_file too".to_owned(),
            }),
            _ => Ok(()),
        }
    }
}

impl<T: DeserializeOwned + Send + Sync + 'static> IntoFuture for Live<T> {
    type Output = Result<Config<T>, Error>;
    type IntoFuture = Answer<Config<T>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(start(self))
    }
}

impl<T> Clone for Config<T> {
    fn clone(&self) -> Self {
        let (state, clock) = (self.state.clone(), Arc::clone(&self.clock));
        Self { state, clock, task: Arc::clone(&self.task) }
    }
}

impl<T> Config<T> {
    /// The values as of now. It never waits; what was taken stays as it is, however often the store changes.
    #[must_use]
    pub fn get(&self) -> Arc<T> {
        Arc::clone(&self.state.borrow().value)
    }

    /// The values as of now, with their revision and where they are from.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot<T> {
        let state = self.state.borrow();
        Snapshot {
            value: Arc::clone(&state.value),
            revision: state.revision,
            source: state.source,
            sources: Arc::clone(&state.sources),
        }
    }

    /// How it is doing: how old the last word of a node is, and why the values are not the newest ones, if they are not.
    #[must_use]
    pub fn status(&self) -> LiveStatus {
        let state = self.state.borrow();
        LiveStatus {
            revision: state.revision,
            source: state.source,
            last_contact_age: self.clock.age(),
            problem: state.problem.clone(),
            cache_problem: state.cache_problem.clone(),
        }
    }

    /// Waits until the values or the problem are others than when this handle was made or last told: one answer may stand
    /// for several changes.
    ///
    /// Cancel safe: a dropped future loses nothing.
    ///
    /// # Errors
    /// [`Error::Stopped`] when there will be no more changes: the runtime ended, or `T`'s `Deserialize` panicked. The last
    /// values stay.
    pub async fn changed(&mut self) -> Result<(), Error> {
        let stopped = |_| Error::Stopped { what: "the live configuration" };
        self.state.changed().await.map_err(stopped)
    }
}

impl Clock {
    fn new() -> Self {
        Self { epoch: Instant::now(), heard_ms: AtomicI64::new(0) }
    }

    fn hear(&self) {
        let ms = i64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(i64::MAX);
        self.heard_ms.fetch_max(ms, Ordering::AcqRel);
    }

    /// Nothing was heard since then.
    fn begin_at(&self, time: SystemTime) {
        let age = SystemTime::now().duration_since(time).unwrap_or_default();
        let ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        self.heard_ms.store(ms.saturating_neg(), Ordering::Release);
    }

    fn age(&self) -> Duration {
        let now = i64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(i64::MAX);
        let age = now.saturating_sub(self.heard_ms.load(Ordering::Acquire));
        Duration::from_millis(u64::try_from(age).unwrap_or(0))
    }
}

/// What is asked for, and where the answer is kept.
#[derive(Debug)]
struct Reader {
    namespace: Namespace,
    reveal: bool,
    file: Option<Arc<CacheFile>>,
    clock: Arc<Clock>,
}

impl Reader {
    async fn resolve(&self, freshness: Freshness) -> Result<ResolveResponse, Error> {
        let namespace = &self.namespace;
        let request = ResolveRequest {
            namespace: namespace.name().to_owned(),
            environment: namespace.environment_name(),
            read: freshness.options(),
            reveal: self.reveal,
        };
        let answer = namespace.client.resolve(request).await?;
        namespace.client.seen(answer.revision);
        self.clock.hear();
        Ok(answer)
    }

    /// What is in the file. One that is not this configuration's own is not written to either.
    async fn load(&mut self) -> Result<Option<cache_file::Saved>, Error> {
        let Some(file) = self.file.clone() else { return Ok(None) };
        let path = file.path.clone();
        let unusable = match off_the_runtime(move || file.load()).await? {
            Ok(saved) => return Ok(Some(saved)),
            Err(unusable) => unusable,
        };
        let reason = match unusable {
            Unusable::Absent => return Ok(None),
            Unusable::Damaged(reason) => reason,
            Unusable::Foreign(reason) => {
                self.file = None;
                reason
            }
        };
        tracing::warn!(file = %path.display(), %reason, "the cache file is not used");
        Err(Error::CacheFile { path, reason })
    }

    async fn save(&self, values: ResolveResponse) -> Option<Error> {
        let file = self.file.clone()?;
        let path = file.path.clone();
        let saved = off_the_runtime(move || file.save(&values)).await;
        let reason = match saved {
            Ok(Ok(())) => return None,
            Ok(Err(reason)) => reason,
            Err(error) => error.to_string(),
        };
        tracing::warn!(file = %path.display(), %reason, "the cache file was not written");
        Some(Error::CacheFile { path, reason })
    }
}

/// Disks may be slow.
async fn off_the_runtime<R: Send + 'static>(
    work: impl FnOnce() -> R + Send + 'static,
) -> Result<R, Error> {
    let stopped = |_| Error::Stopped { what: "the runtime" };
    tokio::task::spawn_blocking(work).await.map_err(stopped)
}

impl<T: DeserializeOwned> State<T> {
    fn of(answer: &ResolveResponse, source: Source) -> Result<Self, Error> {
        Ok(Self {
            value: Arc::new(decode_namespace(&answer.namespace, &answer.values)?),
            values: answer.values.as_slice().into(),
            sources: Arc::new(sources(&answer.values)),
            revision: answer.revision,
            source,
            problem: None,
            cache_problem: None,
        })
    }
}

fn sources(values: &[ResolvedValue]) -> BTreeMap<String, String> {
    values.iter().map(|value| (value.key.clone(), value.source.clone())).collect()
}

async fn start<T>(live: Live<T>) -> Result<Config<T>, Error>
where
    T: DeserializeOwned + Send + Sync + 'static,
{
    live.check()?;
    let Live { namespace, reveal, start_timeout, cache_file, cache_key, .. } = live;
    let file = cache_file.map(|path| {
        Arc::new(CacheFile {
            path,
            namespace: namespace.name().to_owned(),
            environment: namespace.environment.as_str(),
            revealed: reveal,
            key: cache_key,
        })
    });
    let clock = Arc::new(Clock::new());
    let mut reader = Reader { namespace, reveal, file, clock: Arc::clone(&clock) };
    let loaded = reader.load().await;
    let answer = tokio::time::timeout(start_timeout, reader.resolve(reader.namespace.freshness));
    let answer = answer.await.unwrap_or_else(|_| {
        Err(Error::NotSent { reason: format!("no node answered within {start_timeout:?}") })
    });
    let (state, next) = match (answer, loaded) {
        (Ok(answer), loaded) => {
            let mut state = State::of(&answer, Source::Node)?;
            let revision = answer.revision;
            state.cache_problem = reader.save(answer).await.or(loaded.err());
            (state, Next::Watch { after: revision })
        }
        (Err(error), Ok(Some(saved))) if error.is_outage() => {
            let mut state = State::of(&saved.values, Source::File)?;
            let revision = saved.values.revision;
            tracing::warn!(revision, reason = %error, "no node answers, the values are from the cache file");
            state.problem = Some(Problem { error, revision: 0 });
            clock.begin_at(saved.saved_at);
            (state, Next::Catch { at_least: revision, newest: true })
        }
        (Err(error), Err(unusable)) if error.is_outage() => {
            return Err(Error::NotSent { reason: format!("{error}; and {unusable}") });
        }
        (Err(error), _) => return Err(error),
    };
    let (sender, receiver) = watch::channel(state);
    let task = tokio::spawn(follow(reader, sender, next)).abort_handle();
    Ok(Config { state: receiver, clock, task: Arc::new(Task(task)) })
}

/// What the task does next.
#[derive(Debug, Clone, Copy)]
enum Next {
    /// Resolve, at least at this revision; or at whatever is newest now, which is less after a restored backup.
    Catch { at_least: u64, newest: bool },
    /// Watch what comes after this revision.
    Watch { after: u64 },
}

async fn follow<T: DeserializeOwned>(
    reader: Reader,
    state: watch::Sender<State<T>>,
    mut next: Next,
) {
    let mut failures: u32 = 0;
    loop {
        let result = match next {
            Next::Catch { at_least, newest } => {
                let caught = catch_up(&reader, &state, at_least, newest).await;
                caught.map(|after| Next::Watch { after }).map_err(|error| {
                    // Without a leader nobody knows what is newest; a node that has what the file had will do.
                    (error, Next::Catch { at_least, newest: !newest })
                })
            }
            Next::Watch { after } => match next_change(&reader, after).await {
                Ok(Some(revision)) => Ok(Next::Catch { at_least: revision, newest: false }),
                // Too much has happened meanwhile: the watch cannot go on, so everything is read anew.
                Ok(None) => Ok(Next::Catch { at_least: after, newest: false }),
                Err(error) => Err((error, Next::Catch { at_least: after, newest: false })),
            },
        };
        match result {
            Ok(then) => {
                failures = 0;
                next = then;
            }
            Err((error, then)) => {
                let pause = backoff_within(failures, PAUSE_MAX);
                failures = failures.saturating_add(1);
                tell(&state, Problem { error, revision: 0 });
                tokio::time::sleep(pause).await;
                next = then;
            }
        }
    }
}

/// Resolves and swaps. A value that does not fit is told, and the last good one stays.
async fn catch_up<T: DeserializeOwned>(
    reader: &Reader,
    state: &watch::Sender<State<T>>,
    at_least: u64,
    newest: bool,
) -> Result<u64, Error> {
    let freshness = if newest {
        Freshness { linearizable: Some(true), ..Freshness::default() }
    } else {
        Freshness { min_revision: Some(at_least), ..reader.namespace.freshness }
    };
    let answer = reader.resolve(freshness).await?;
    let revision = answer.revision;
    if revision < at_least && !newest {
        return Err(Error::NotSent {
            reason: format!("a node answered revision {revision}, and {at_least} was asked for"),
        });
    }
    let same = {
        let now = state.borrow();
        *now.values == *answer.values && now.source == Source::Node
    };
    if same {
        // Another environment, or the same value again: nothing to wake anybody for, unless a problem is over.
        state.send_if_modified(|now| {
            now.revision = revision;
            now.problem.take().is_some()
        });
        return Ok(revision);
    }
    match State::of(&answer, Source::Node) {
        Ok(fresh) => {
            // A file that is left as it is stays a problem.
            let cache_problem = match &reader.file {
                Some(_) => reader.save(answer).await,
                None => state.borrow().cache_problem.clone(),
            };
            tracing::info!(revision, "the live configuration has new values");
            state.send_replace(State { cache_problem, ..fresh });
        }
        Err(error) => {
            tell(state, Problem { error, revision });
        }
    }
    Ok(revision)
}

/// Waits for a change that may matter, and tells its revision; `None` when the node no longer knows what has changed.
async fn next_change(reader: &Reader, after: u64) -> Result<Option<u64>, Error> {
    let namespace = &reader.namespace;
    let mut watch = namespace.client.watch(WatchRequest {
        namespace: namespace.name().to_owned(),
        from_revision: after.saturating_add(1),
        ..Default::default()
    });
    loop {
        match watch.next().await {
            Some(Ok(response)) => {
                reader.clock.hear();
                if matters(&response, namespace.environment) {
                    return Ok(Some(response.revision));
                }
            }
            Some(Err(error)) => {
                let compacted = |error: &Error| {
                    error.rejection().is_some_and(|refused| refused.code == "REVISION_COMPACTED")
                };
                return if compacted(&error) { Ok(None) } else { Err(error) };
            }
            None => return Err(Error::Stopped { what: "the watch" }),
        }
    }
}

/// Whether something changed where values of this environment may come from.
fn matters(response: &WatchResponse, environment: Environment) -> bool {
    let chain = environment.fallback();
    let entries = response.events.iter().filter_map(|event| event.entry.as_ref());
    entries.into_iter().any(|entry| chain.iter().any(|link| link.as_str() == entry.environment))
}

/// Tells of a problem; who waits is woken for a new one, not for the same again.
fn tell<T>(state: &watch::Sender<State<T>>, problem: Problem) {
    let revision = problem.revision;
    let error = &problem.error;
    state.send_if_modified(|now| {
        let same = now.problem.as_ref().is_some_and(|known| {
            known.revision == revision
                && std::mem::discriminant(&known.error) == std::mem::discriminant(error)
        });
        if !same {
            let kept = now.revision;
            tracing::warn!(reason = %error, revision, kept, "the live configuration keeps its last good values");
        }
        now.problem = Some(problem.clone());
        !same
    });
}
