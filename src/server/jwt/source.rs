//! Where the issuer's key set comes from: a file, or an address that is asked over HTTPS (or HTTP on this machine).
//!
//! It reads bytes within bounds of size and time. What they mean, and how often to ask, is decided elsewhere.

use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use http::Uri;
use http_body_util::{BodyExt as _, Limited};

use crate::outbound::{self, Http, causes, of_the_system};
use crate::settings::JwtKeys;

/// Largest key set that is read; 64 keys with their certificates are far below.
const SET_BYTES_MAX: usize = 1 << 20;
/// How long the issuer may take to answer, connecting included.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// See the module.
pub(super) enum Source {
    File(PathBuf),
    Url(Box<Address>),
}

pub(super) struct Address {
    uri: Uri,
    client: Http,
}

/// Tells whether a file is still the one that was read.
pub(super) type Stamp = (SystemTime, u64);

impl Source {
    /// Opens nothing yet.
    pub(super) fn new(keys: &JwtKeys) -> Result<Self, String> {
        match keys {
            JwtKeys::File(path) => Ok(Self::File(path.clone())),
            JwtKeys::Url(url) => {
                let uri: Uri = url.parse().map_err(|_| format!("{url:?} is no URL"))?;
                let client = client(uri.scheme_str() == Some("https"))
                    .map_err(|reason| format!("{url}: {reason}"))?;
                Ok(Self::Url(Box::new(Address { uri, client })))
            }
        }
    }

    /// The bytes of the set, or why there are none.
    pub(super) async fn read(&self) -> Result<Vec<u8>, String> {
        match self {
            Self::File(path) => {
                let path = path.clone();
                let read = tokio::task::spawn_blocking(move || read_now(&path)).await;
                read.unwrap_or_else(|error| Err(error.to_string()))
            }
            Self::Url(address) => match tokio::time::timeout(ANSWER_TIMEOUT, address.get()).await {
                Ok(answer) => answer,
                Err(_) => Err(format!("did not answer within {ANSWER_TIMEOUT:?}")),
            },
        }
    }
}

/// Names the source in the log; of an address the host alone, as some carry a password or a key.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Url(address) => write!(f, "{}", address.uri.host().unwrap_or_default()),
        }
    }
}

impl Address {
    async fn get(&self) -> Result<Vec<u8>, String> {
        let response = self.client.get(self.uri.clone()).await.map_err(|error| causes(&error))?;
        // Redirects are not followed: the settings say where the keys are.
        let status = response.status();
        if status != http::StatusCode::OK {
            return Err(format!("answered {status}"));
        }
        let body = Limited::new(response.into_body(), SET_BYTES_MAX).collect().await;
        let body = body.map_err(|error| {
            format!("the answer broke off or is larger than {SET_BYTES_MAX} bytes: {error}")
        })?;
        Ok(body.to_bytes().to_vec())
    }
}

/// The file as it is now.
pub(super) fn read_now(path: &Path) -> Result<Vec<u8>, String> {
    let unreadable = |error: std::io::Error| {
        format!("cannot be read ({error}); give the issuer's key set (JWKS)")
    };
    let mut text = Vec::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(SET_BYTES_MAX as u64 + 1).read_to_end(&mut text).map_err(unreadable)?;
    if text.len() > SET_BYTES_MAX {
        return Err(format!("is larger than {SET_BYTES_MAX} bytes, which is no key set"));
    }
    Ok(text)
}

/// `None`: there is no such file now.
pub(super) fn stamp(path: &Path) -> Option<Stamp> {
    let file = std::fs::metadata(path).ok()?;
    Some((file.modified().ok()?, file.len()))
}

pub(super) async fn stamp_of(path: &Path) -> Option<Stamp> {
    let path = path.to_owned();
    tokio::task::spawn_blocking(move || stamp(&path)).await.ok().flatten()
}

/// Plain HTTP asks nobody to vouch for anyone, so it works on a machine without authorities of its own.
fn client(encrypted: bool) -> Result<Http, String> {
    let config = of_the_system(encrypted).map_err(|error| {
        format!(
            "this machine has no certificates of authorities to check the issuer by ({error}); install them \
             (package ca-certificates)"
        )
    })?;
    Ok(outbound::client(config, encrypted))
}
