//! The first administrator's token: taken once, when a cluster is founded, from a file or made there and then.
//!
//! Every node that runs with authentication stands ready to do it, and the one that leads does. A token that was made here is
//! on this disk before the cluster knows it; when another node was faster it is taken away again.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use llm_config_domain::{
    Command, Credential, Operation, Origin, Rejection, Role, Scope, Token, query,
};
use llm_config_replica::{Replica, Role as ReplicaRole, StartError};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::token::{NewToken, fingerprint, new_token};
use crate::private_file;

/// Name of the file in the data directory.
const FILE: &str = "bootstrap-token";
/// Who the first token is for, and who made it.
const NAME: &str = "bootstrap";
const ROUND: Duration = Duration::from_millis(200);
const PROPOSE_TIMEOUT: Duration = Duration::from_secs(5);
const TEXT_BYTES_MIN: usize = 32;
const TEXT_BYTES_MAX: usize = 256;

/// Where the first token comes from.
#[derive(Debug, Clone)]
pub struct Bootstrap {
    given: Option<PathBuf>,
    data_dir: PathBuf,
}

impl Bootstrap {
    /// Checks the file that is given. One that is gone matters only to a directory that belongs to no cluster yet.
    ///
    /// # Errors
    /// [`StartError::Usage`], with the flag and the remedy.
    pub fn new(given: Option<PathBuf>, data_dir: &Path) -> Result<Self, StartError> {
        if let Some(path) = &given {
            match read_text(path) {
                Ok(_) => {}
                Err(_) if !Replica::is_unclaimed(data_dir) => {}
                Err(reason) => {
                    return Err(StartError::Usage(format!(
                        "--bootstrap-token-file {}: {reason}",
                        path.display()
                    )));
                }
            }
        }
        Ok(Bootstrap { given, data_dir: data_dir.to_owned() })
    }

    /// Waits until the cluster has its first token, and brings it about when this node leads.
    pub async fn run(self, replica: Replica, closing: CancellationToken) {
        let mut made = None;
        loop {
            tokio::select! {
                () = closing.cancelled() => return,
                () = tokio::time::sleep(ROUND) => {}
            }
            let Ok(meta) = query::meta(&replica.view()) else { continue };
            if meta.bootstrapped {
                break;
            }
            let leads = || {
                let status = replica.status();
                status.role == ReplicaRole::Leader && status.has_quorum
            };
            if meta.cluster_id.is_none() || !leads() {
                continue;
            }
            let this = self.clone();
            let token = match tokio::task::spawn_blocking(move || this.first_token()).await {
                Ok(Ok(token)) => token,
                Ok(Err(reason)) => {
                    tracing::error!("the first token cannot be taken: {reason}");
                    continue;
                }
                Err(error) => {
                    tracing::error!(%error, "the first token cannot be taken");
                    continue;
                }
            };
            made = made.or(token.made_at.clone());
            if self.propose(&replica, token).await {
                return;
            }
        }
        if let Some(path) = made {
            self.take_away(&replica, &path);
        }
    }

    /// True: this node's token is the first one.
    async fn propose(&self, replica: &Replica, first: First) -> bool {
        let NewToken { id, prefix, hash, .. } = first.token;
        let token = Token {
            id,
            name: NAME.into(),
            prefix,
            credential: Credential::Hash(hash),
            roles: Role::built_in().into_iter().take(1).map(|role| role.name).collect(),
            scope: Scope::default(),
            created_at_ms: 0,
            created_by: String::new(),
            expires_at_ms: 0,
        };
        let request_id = Uuid::now_v7().to_string();
        let origin =
            Origin { request_id: request_id.clone(), node: replica.node_id(), ..Origin::default() };
        let command = Command::new(NAME, Operation::Bootstrap(token))
            .from_origin(origin)
            .with_request_id(request_id);
        match replica.propose(command, Instant::now() + PROPOSE_TIMEOUT).await {
            Ok(applied) => match applied.result {
                Ok(_) => {
                    match &first.made_at {
                        Some(path) => tracing::info!(
                            "the first admin token is in {}; make your own with `llm-config token create`, then revoke it",
                            path.display()
                        ),
                        None => tracing::info!(
                            "the first admin token was taken from --bootstrap-token-file"
                        ),
                    }
                    true
                }
                Err(Rejection::AlreadyBootstrapped) => false,
                Err(rejection) => {
                    tracing::error!(%rejection, "the first token was refused");
                    false
                }
            },
            // Tried again in the next round.
            Err(error) => {
                tracing::warn!(reason = %error, "the first token was not taken yet");
                false
            }
        }
    }

    fn first_token(&self) -> Result<First, String> {
        let Some(path) = &self.given else {
            let path = self.data_dir.join(FILE);
            let token = kept(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            return Ok(First { token, made_at: Some(path) });
        };
        let text = read_text(path)
            .map_err(|reason| format!("--bootstrap-token-file {}: {reason}", path.display()))?;
        let known = new_token().map_err(|error| error.to_string())?;
        let hash = fingerprint(&text);
        // Its beginning may be all of what somebody has to guess.
        let token = NewToken { prefix: String::new(), text, hash, ..known };
        Ok(First { token, made_at: None })
    }

    /// Another node's token is the first one: what lies here opens nothing.
    fn take_away(&self, replica: &Replica, path: &Path) {
        let Ok(text) = read_text(path) else { return };
        let known = llm_config_domain::policy::tokens(&replica.view());
        let opens = |token: &Token| token.credential == Credential::Hash(fingerprint(&text));
        if known.is_ok_and(|tokens| !tokens.iter().any(opens))
            && let Err(error) = fs::remove_file(path)
        {
            tracing::warn!(reason = %error, path = %path.display(), "a token that opens nothing could not be deleted");
        }
    }
}

struct First {
    token: NewToken,
    /// The file that was made for it.
    made_at: Option<PathBuf>,
}

/// The token in a file of the data directory, made when it is not there.
fn kept(path: &Path) -> io::Result<NewToken> {
    let token = new_token().map_err(|error| io::Error::other(error.to_string()))?;
    if private_file::create(path, &[token.text.as_bytes(), b"\n"])? {
        return Ok(token);
    }
    let text = read_text(path).map_err(io::Error::other)?;
    let hash = fingerprint(&text);
    Ok(NewToken { prefix: prefix_of(&text), text, hash, ..token })
}

/// What comes before the secret part of a token of ours.
fn prefix_of(text: &str) -> String {
    let parts: Vec<&str> = text.splitn(3, '_').collect();
    match parts[..] {
        [scheme, id, _] => format!("{scheme}_{id}"),
        _ => String::new(),
    }
}

fn read_text(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let file = File::open(path).map_err(|error| format!("{error}; give a readable file"))?;
    file.take(64 << 10)
        .read_to_string(&mut text)
        .map_err(|error| format!("{error}; give a file with one token"))?;
    let token = text.trim();
    let sane = (TEXT_BYTES_MIN..=TEXT_BYTES_MAX).contains(&token.len())
        && token.bytes().all(|byte| byte.is_ascii_graphic())
        && !token.contains('.');
    if !sane {
        return Err(format!(
            "must hold one token of {TEXT_BYTES_MIN} to {TEXT_BYTES_MAX} visible ASCII characters without a dot, such as \
             `openssl rand -hex 32` makes"
        ));
    }
    Ok(token.to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_token_is_made_once_and_only_its_owner_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        let made = kept(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let again = kept(&path).unwrap();
        assert_eq!((again.hash, again.text), (made.hash, made.text));
    }

    #[test]
    fn a_file_holds_one_long_word() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let given = || Bootstrap::new(Some(path.clone()), folder.path());
        assert!(given().unwrap_err().to_string().contains("--bootstrap-token-file"));
        for bad in
            ["", "short", &"x".repeat(257), &format!("{} y", "x".repeat(40)), &"a.".repeat(20)]
        {
            fs::write(&path, bad).unwrap();
            assert!(given().unwrap_err().to_string().contains("32 to 256"), "{bad}");
        }
        fs::write(&path, format!("{}\n", "x".repeat(32))).unwrap();
        assert!(given().is_ok());
    }
}
