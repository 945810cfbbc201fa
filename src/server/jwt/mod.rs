//! Tokens of an OpenID Connect issuer: who signed them, for whom, until when, and which roles they name.
//!
//! A token is believed for its signature by a key of the issuer's set and for nothing else: the key decides which
//! algorithms fit, never the token. What a role may do is decided elsewhere.

mod claims;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod keys;
mod source;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use parking_lot::RwLock;
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::settings::{JwtSettings, SettingsError};
use keys::KeySet;
use source::{Source, Stamp};

/// Longest token that is looked at.
const TOKEN_BYTES_MAX: usize = 8 << 10;
/// How far the clocks of the issuer and of this node may be apart.
const LEEWAY: Duration = Duration::from_secs(60);

/// How often the key set is read.
#[derive(Debug, Clone, Copy)]
struct Intervals {
    /// From an address.
    refresh: Duration,
    /// From an address after a failure; and the least time between two readings that tokens of unknown keys cause.
    retry: Duration,
    /// Between two looks at whether a file has changed.
    look: Duration,
}

const INTERVALS: Intervals = Intervals {
    refresh: Duration::from_secs(300),
    retry: Duration::from_secs(30),
    look: Duration::from_secs(5),
};

/// Whom a token of the issuer speaks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtIdentity {
    /// The claim `sub`: 1 to 200 bytes without control characters.
    pub subject: String,
    /// What the roles claim lists, each name once; empty when the token has no such claim.
    pub roles: Vec<String>,
    /// From then on the token is refused, in milliseconds since the Unix epoch: its `exp`, and what clocks may be apart.
    pub expires_at_ms: u64,
}

/// Why a token was refused. No sentence holds any part of the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JwtError {
    #[error("the token is longer than {TOKEN_BYTES_MAX} bytes")]
    TooLong,
    #[error("the token has not the form of a JWT")]
    Malformed,
    #[error(
        "the token is signed with an algorithm that is not accepted; accepted are RS256, RS384, RS512, PS256, PS384, \
         PS512, ES256, ES384 and EdDSA"
    )]
    AlgorithmRefused,
    #[error("the token names no key (kid), and its issuer has more than one")]
    KeyNotNamed,
    #[error("the token names a key (kid) that its issuer does not have")]
    KeyUnknown,
    #[error("the token names a key (kid) that is not for the algorithm it is signed with")]
    KeyUnfit,
    #[error("the signature of the token is wrong")]
    SignatureWrong,
    #[error("the token comes from another issuer (claim iss)")]
    IssuerWrong,
    #[error("the token is for somebody else (claim aud)")]
    AudienceWrong,
    #[error("the token has expired (claim exp)")]
    Expired,
    #[error("the token is not valid yet (claim nbf)")]
    NotYetValid,
    #[error("the claim {claim} of the token {reason}")]
    Claim {
        /// Its name, or what it is for.
        claim: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    #[error("the keys of the token's issuer could not be read yet")]
    NoKeys,
}

impl JwtError {
    /// Whether it is this node that cannot judge the token now, and not the token that is bad.
    #[must_use]
    pub fn is_of_node(self) -> bool {
        self == Self::NoKeys
    }
}

/// Judges tokens by the issuer's key set, and keeps that set up to date.
pub struct JwtVerifier {
    settings: JwtSettings,
    source: Source,
    keys: RwLock<Arc<KeySet>>,
    /// Held by the one who reads the set.
    reading: tokio::sync::Mutex<Reading>,
    intervals: Intervals,
    metrics: Arc<Metrics>,
}

/// What is known of the last reading.
#[derive(Default)]
struct Reading {
    at: Option<Instant>,
    stamp: Option<Stamp>,
    failed: bool,
}

impl std::fmt::Debug for JwtVerifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JwtVerifier").field("issuer", &self.settings.issuer).finish_non_exhaustive()
    }
}

impl JwtVerifier {
    /// Reads the set when it is in a file, which has to be there and right. A set at an address is read by [`Self::run`],
    /// or for the first token: the issuer may be started after this node.
    pub fn new(settings: &JwtSettings, metrics: Arc<Metrics>) -> Result<Self, SettingsError> {
        Self::with(settings, metrics, INTERVALS)
    }

    fn with(
        settings: &JwtSettings,
        metrics: Arc<Metrics>,
        intervals: Intervals,
    ) -> Result<Self, SettingsError> {
        let explain = |reason: String| SettingsError::new(format!("--jwt-keys {reason}"));
        let source = Source::new(&settings.keys).map_err(explain)?;
        let mut reading = Reading::default();
        let mut keys = KeySet::default();
        if let Source::File(path) = &source {
            reading = Reading { at: None, stamp: source::stamp(path), failed: false };
            keys = source::read_now(path)
                .and_then(|text| KeySet::parse(&text))
                .map_err(|reason| explain(format!("{}: {reason}", path.display())))?;
            metrics.jwt_keys_refresh(true);
        }
        Ok(Self {
            settings: settings.clone(),
            source,
            keys: RwLock::new(Arc::new(keys)),
            reading: tokio::sync::Mutex::new(reading),
            intervals,
            metrics,
        })
    }

    /// Judges a token. One that names an unknown key makes this node read the set again, now and then.
    pub async fn verify(&self, token: &str) -> Result<JwtIdentity, JwtError> {
        let head = Head::read(token)?;
        match self.check(token, &head) {
            Err(JwtError::KeyUnknown | JwtError::NoKeys) => {
                self.read_for_unknown_key().await;
                self.check(token, &head)
            }
            checked => checked,
        }
    }

    /// Keeps the key set up to date until closing.
    pub async fn run(self: Arc<Self>, closing: CancellationToken) {
        let mut pause = Duration::ZERO;
        loop {
            tokio::select! {
                () = closing.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            let mut reading = self.reading.lock().await;
            pause = match &self.source {
                Source::File(path) => {
                    let stamp = source::stamp_of(path).await;
                    if stamp != reading.stamp {
                        self.read(&mut reading).await;
                    }
                    self.intervals.look
                }
                Source::Url(_) => {
                    self.read(&mut reading).await;
                    if reading.failed { self.intervals.retry } else { self.intervals.refresh }
                }
            };
        }
    }

    fn check(&self, token: &str, head: &Head) -> Result<JwtIdentity, JwtError> {
        let keys = Arc::clone(&self.keys.read());
        let key = keys.find(head.key_id.as_deref(), head.algorithm)?;
        let claims = self.signed_claims(token, key, head.algorithm)?;
        claims::identity(&claims, &self.settings, LEEWAY)
    }

    /// The claims, once the signature and the common ones were found right.
    fn signed_claims(
        &self,
        token: &str,
        key: &DecodingKey,
        algorithm: Algorithm,
    ) -> Result<Map<String, Value>, JwtError> {
        let mut validation = Validation::new(algorithm);
        validation.leeway = LEEWAY.as_secs();
        validation.validate_nbf = true;
        validation.set_issuer(&[&self.settings.issuer]);
        validation.set_audience(&[&self.settings.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        match jsonwebtoken::decode(token, key, &validation) {
            Ok(token) => Ok(token.claims),
            Err(error) => Err(refusal(error.kind())),
        }
    }

    /// One reads, the others wait for what comes of it. Who sends made-up key names makes nobody ask the issuer more often.
    async fn read_for_unknown_key(&self) {
        let mut reading = self.reading.lock().await;
        if reading.at.is_none_or(|at| at.elapsed() >= self.intervals.retry) {
            self.read(&mut reading).await;
        }
    }

    /// Reads the set. When that fails, the last good one stays in force.
    async fn read(&self, reading: &mut Reading) {
        if let Source::File(path) = &self.source {
            // Taken before the text: what is written meanwhile is read the next time.
            reading.stamp = source::stamp_of(path).await;
        }
        let text = self.source.read().await;
        // Afterwards: an issuer that takes its time is left in peace as long as any other.
        reading.at = Some(Instant::now());
        let keys = text.and_then(|text| KeySet::parse(&text));
        self.metrics.jwt_keys_refresh(keys.is_ok());
        reading.failed = keys.is_err();
        match keys {
            Ok(keys) => *self.keys.write() = Arc::new(keys),
            Err(reason) => tracing::warn!(
                source = %self.source,
                known = self.keys.read().len(),
                "--jwt-keys: {reason}; the keys that are known stay in force"
            ),
        }
    }
}

/// What a token says about itself before anything of it is believed.
struct Head {
    algorithm: Algorithm,
    key_id: Option<String>,
}

/// The header of a token. Two fields of one name are refused by the parser.
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    /// Extensions that must be understood; none is.
    crit: Option<Value>,
}

impl Head {
    fn read(token: &str) -> Result<Self, JwtError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(JwtError::TooLong);
        }
        let mut parts = token.split('.');
        let (Some(header), Some(_), Some(_), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(JwtError::Malformed);
        };
        let header = URL_SAFE_NO_PAD.decode(header).map_err(|_| JwtError::Malformed)?;
        let header: Header = serde_json::from_slice(&header).map_err(|_| JwtError::Malformed)?;
        if header.crit.is_some() {
            return Err(JwtError::Malformed);
        }
        let algorithm = keys::accepted(&header.alg).ok_or(JwtError::AlgorithmRefused)?;
        Ok(Self { algorithm, key_id: header.kid })
    }
}

/// Only the kind is looked at: the words of some errors hold pieces of what was decoded.
fn refusal(kind: &ErrorKind) -> JwtError {
    let claim = |name: &str, reason| JwtError::Claim {
        claim: match name {
            "exp" => "exp",
            "nbf" => "nbf",
            "iss" => "iss",
            "aud" => "aud",
            _ => "sub",
        },
        reason,
    };
    match kind {
        ErrorKind::InvalidSignature => JwtError::SignatureWrong,
        ErrorKind::ExpiredSignature => JwtError::Expired,
        ErrorKind::ImmatureSignature => JwtError::NotYetValid,
        ErrorKind::InvalidIssuer => JwtError::IssuerWrong,
        ErrorKind::InvalidAudience => JwtError::AudienceWrong,
        ErrorKind::MissingRequiredClaim(name) => claim(name, "is missing or has the wrong form"),
        ErrorKind::InvalidClaimFormat(name) => claim(name, "has the wrong form"),
        _ => JwtError::Malformed,
    }
}
