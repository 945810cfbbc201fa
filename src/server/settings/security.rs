//! Settings of who may do what: tokens, keys, limits, bans, and certificates.
//!
//! Paths and numbers only. What is in the files is read by whoever uses it, so that `--print-config` shows no secret.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Uri;
use ipnet::IpNet;
use serde::Serialize;

use super::options::{Chosen, Given};
use super::{SettingsError, interpret, optional, parse};

/// Requests a second when nothing is said: well above what one node serves to one application.
const RATE_LIMIT_DEFAULT: u32 = 20_000;
const RATE_LIMIT_MAX: u64 = 100_000_000;
const BAN_FAILURES_DEFAULT: u32 = 10;
const BAN_FAILURES_MAX: u64 = 1_000_000;
const BAN_DURATION_DEFAULT: Duration = Duration::from_secs(60);
const BAN_DURATION_MIN: Duration = Duration::from_secs(1);
/// Longest ban, however often an address comes back.
pub const BAN_DURATION_MAX: Duration = Duration::from_secs(24 * 3600);
const JWT_ROLES_CLAIM_DEFAULT: &str = "roles";
/// Networks and origins that one option may list.
const LIST_MAX: usize = 256;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecuritySettings {
    /// The first admin token, brought along; made at founding when absent.
    pub bootstrap_token_file: Option<PathBuf>,
    /// The keys that wrap the keys of secrets.
    pub master_key_file: Option<PathBuf>,
    /// Tokens of an OpenID Connect issuer.
    pub jwt: Option<JwtSettings>,
    /// How many requests one caller may make.
    pub limits: LimitSettings,
    /// Who is shut out after failed authentications.
    pub bans: BanSettings,
    /// Addresses that are neither limited nor banned.
    pub limit_exempt: Vec<IpNet>,
    /// Proxies that are believed when they name a client.
    pub trusted_proxies: Vec<IpNet>,
    /// Origins, as a browser sends them, whose pages may use the API.
    pub cors_origins: Vec<String>,
    /// TLS for clients.
    pub tls: Option<ClientTls>,
    /// Authorities of the nodes that this one asks over HTTPS.
    pub tls_ca: Option<PathBuf>,
    /// TLS between nodes.
    pub raft_tls: Option<RaftTls>,
}

/// Requests a second; 0 is no limit. Twice as many may come at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitSettings {
    /// Of each principal.
    pub principal: u32,
    /// From each address.
    pub address: u32,
}

/// When an address is banned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BanSettings {
    /// Failed authentications within a minute; 0 bans nobody.
    pub failures: u32,
    /// Length of the first ban.
    pub duration: Duration,
}

/// Whose tokens are accepted beside those of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtSettings {
    /// Where the issuer's keys are.
    pub keys: JwtKeys,
    /// The claim `iss`.
    pub issuer: String,
    /// The claim `aud`.
    pub audience: String,
    /// The claim that lists the roles; a dot leads into an object.
    pub roles_claim: String,
}

/// Where a key set is read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JwtKeys {
    /// A file, read again when it changes.
    File(PathBuf),
    /// An address, asked again now and then: https, or http on loopback.
    Url(String),
}

/// A certificate chain and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The chain.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// TLS of the client listeners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientTls {
    /// What the node shows.
    pub files: CertificateFiles,
    /// Who vouches for client certificates; none are asked for when absent.
    pub client_ca: Option<PathBuf>,
}

/// TLS between nodes, in both directions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RaftTls {
    /// What the node shows.
    pub files: CertificateFiles,
    /// Who vouches for the others.
    pub ca: PathBuf,
}

/// The part of `--print-config` that is about this: paths, never what is in them.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Printed<'a> {
    bootstrap_token_file: Option<&'a Path>,
    master_key_file: Option<&'a Path>,
    jwt_keys: Option<String>,
    jwt_issuer: Option<&'a str>,
    jwt_audience: Option<&'a str>,
    jwt_roles_claim: Option<&'a str>,
    rate_limit: u32,
    rate_limit_address: u32,
    ban_failures: u32,
    ban_duration: String,
    limit_exempt: Option<String>,
    trusted_proxies: Option<String>,
    cors_origins: Option<String>,
    tls_cert: Option<&'a Path>,
    tls_key: Option<&'a Path>,
    tls_client_ca: Option<&'a Path>,
    tls_ca: Option<&'a Path>,
    raft_tls_cert: Option<&'a Path>,
    raft_tls_key: Option<&'a Path>,
    raft_tls_ca: Option<&'a Path>,
}

impl SecuritySettings {
    /// What `dev` runs with: nothing but a master key.
    #[must_use]
    pub fn of_dev(master_key_file: PathBuf) -> Self {
        Self { master_key_file: Some(master_key_file), ..Self::nothing() }
    }

    /// No authentication, no limits, no TLS, no secrets.
    #[must_use]
    pub fn nothing() -> Self {
        Self {
            bootstrap_token_file: None,
            master_key_file: None,
            jwt: None,
            limits: LimitSettings { principal: 0, address: 0 },
            bans: BanSettings { failures: BAN_FAILURES_DEFAULT, duration: BAN_DURATION_DEFAULT },
            limit_exempt: Vec::new(),
            trusted_proxies: Vec::new(),
            cors_origins: Vec::new(),
            tls: None,
            tls_ca: None,
            raft_tls: None,
        }
    }

    /// Without authentication every caller is the same principal, so nobody is limited unless that is asked for.
    pub(super) fn interpret(chosen: &Chosen, auth: bool) -> Result<Self, SettingsError> {
        let limit_default = if auth { RATE_LIMIT_DEFAULT } else { 0 };
        let limit = |given: &Option<Given>| {
            let number = optional(given, |text| small(text, RATE_LIMIT_MAX))?;
            Ok::<_, SettingsError>(number.unwrap_or(limit_default))
        };
        Ok(Self {
            bootstrap_token_file: optional(&chosen.bootstrap_token_file, file)?,
            master_key_file: optional(&chosen.master_key_file, file)?,
            jwt: jwt(chosen)?,
            limits: LimitSettings {
                principal: limit(&chosen.rate_limit)?,
                address: limit(&chosen.rate_limit_address)?,
            },
            bans: BanSettings {
                failures: optional(&chosen.ban_failures, |text| small(text, BAN_FAILURES_MAX))?
                    .unwrap_or(BAN_FAILURES_DEFAULT),
                duration: optional(&chosen.ban_duration, |text| {
                    parse::duration(text, BAN_DURATION_MIN, BAN_DURATION_MAX)
                })?
                .unwrap_or(BAN_DURATION_DEFAULT),
            },
            limit_exempt: optional(&chosen.limit_exempt, networks)?.unwrap_or_default(),
            trusted_proxies: optional(&chosen.trusted_proxies, networks)?.unwrap_or_default(),
            cors_origins: optional(&chosen.cors_origins, origins)?.unwrap_or_default(),
            tls: client_tls(chosen)?,
            tls_ca: optional(&chosen.tls_ca, file)?,
            raft_tls: raft_tls(chosen)?,
        })
    }

    pub(super) fn printed(&self) -> Printed<'_> {
        let (tls, raft) = (self.tls.as_ref(), self.raft_tls.as_ref());
        let jwt = self.jwt.as_ref();
        Printed {
            bootstrap_token_file: self.bootstrap_token_file.as_deref(),
            master_key_file: self.master_key_file.as_deref(),
            jwt_keys: jwt.map(|jwt| match &jwt.keys {
                JwtKeys::File(path) => path.display().to_string(),
                JwtKeys::Url(url) => url.clone(),
            }),
            jwt_issuer: jwt.map(|jwt| jwt.issuer.as_str()),
            jwt_audience: jwt.map(|jwt| jwt.audience.as_str()),
            jwt_roles_claim: jwt.map(|jwt| jwt.roles_claim.as_str()),
            rate_limit: self.limits.principal,
            rate_limit_address: self.limits.address,
            ban_failures: self.bans.failures,
            ban_duration: format!("{}ms", self.bans.duration.as_millis()),
            limit_exempt: joined(&self.limit_exempt),
            trusted_proxies: joined(&self.trusted_proxies),
            cors_origins: joined(&self.cors_origins),
            tls_cert: tls.map(|tls| tls.files.certificate.as_path()),
            tls_key: tls.map(|tls| tls.files.key.as_path()),
            tls_client_ca: tls.and_then(|tls| tls.client_ca.as_deref()),
            tls_ca: self.tls_ca.as_deref(),
            raft_tls_cert: raft.map(|tls| tls.files.certificate.as_path()),
            raft_tls_key: raft.map(|tls| tls.files.key.as_path()),
            raft_tls_ca: raft.map(|tls| tls.ca.as_path()),
        }
    }
}

fn joined<T: ToString>(items: &[T]) -> Option<String> {
    let texts: Vec<_> = items.iter().map(ToString::to_string).collect();
    (!texts.is_empty()).then(|| texts.join(","))
}

fn file(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() {
        return Err("is empty; give the path of a file".to_owned());
    }
    Ok(PathBuf::from(text))
}

fn small(text: &str, max: u64) -> Result<u32, String> {
    let number = parse::number(text, 0, max)?;
    u32::try_from(number).map_err(|_| format!("{text:?} is not a whole number from 0 to {max}"))
}

/// `CIDR,CIDR,…`; a single address is a network of one.
fn networks(text: &str) -> Result<Vec<IpNet>, String> {
    list(text, |part| {
        let single = || part.parse::<std::net::IpAddr>().map(IpNet::from).ok();
        part.parse::<IpNet>()
            .ok()
            .or_else(single)
            .ok_or_else(|| format!("{part:?} is no network; write such as 10.0.0.0/8 or 192.0.2.7"))
    })
}

/// `URL,URL,…` with scheme and host only: what a browser sends as `Origin`.
fn origins(text: &str) -> Result<Vec<String>, String> {
    list(text, |part| {
        let explain = || format!("{part:?} is no origin; write such as https://console.example");
        let uri: Uri = part.parse().map_err(|_| explain())?;
        let plain = uri.path_and_query().is_none_or(|path| path == "/") && !part.ends_with('/');
        match (uri.scheme_str(), uri.authority()) {
            (Some("http" | "https"), Some(authority))
                if plain && !authority.as_str().contains('@') =>
            {
                Ok(part.to_owned())
            }
            _ => Err(explain()),
        }
    })
}

fn list<T>(text: &str, each: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    let parts: Vec<&str> = text.split(',').map(str::trim).collect();
    if parts.len() > LIST_MAX {
        return Err(format!("lists {}, at most {LIST_MAX} are allowed", parts.len()));
    }
    parts.into_iter().map(each).collect()
}

fn jwt(chosen: &Chosen) -> Result<Option<JwtSettings>, SettingsError> {
    let Some(keys) = optional(&chosen.jwt_keys, jwt_keys)? else {
        let alone = [&chosen.jwt_issuer, &chosen.jwt_audience, &chosen.jwt_roles_claim];
        return match alone.into_iter().flatten().next() {
            Some(given) => Err(SettingsError(format!(
                "{} means nothing without --jwt-keys, the issuer's key set; add it or remove this",
                given.origin
            ))),
            None => Ok(None),
        };
    };
    let needed = |given: &Option<Given>, flag: &str| match given {
        Some(given) => interpret(given, |text| match text {
            "" => Err("is empty; say what the token must claim".to_owned()),
            text => Ok(text.to_owned()),
        }),
        None => Err(SettingsError(format!(
            "--jwt-keys needs {flag} too: a token of another issuer, or for somebody else, must not be accepted"
        ))),
    };
    Ok(Some(JwtSettings {
        keys,
        issuer: needed(&chosen.jwt_issuer, "--jwt-issuer")?,
        audience: needed(&chosen.jwt_audience, "--jwt-audience")?,
        roles_claim: optional(&chosen.jwt_roles_claim, |text| match text {
            "" => Err("is empty; name the claim that lists the roles".to_owned()),
            text => Ok(text.to_owned()),
        })?
        .unwrap_or_else(|| JWT_ROLES_CLAIM_DEFAULT.to_owned()),
    }))
}

/// Keys that somebody on the way could exchange would let them in, so plain http is for this machine only.
fn jwt_keys(text: &str) -> Result<JwtKeys, String> {
    let is_url = text.starts_with("http://") || text.starts_with("https://");
    if !is_url {
        return file(text).map(JwtKeys::File);
    }
    let uri: Uri = text.parse().map_err(|_| format!("{text:?} is no URL"))?;
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let local = host == "localhost"
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    if uri.scheme_str() == Some("http") && !local {
        return Err(format!("{text:?}: keys are fetched over https, or from this machine"));
    }
    Ok(JwtKeys::Url(text.to_owned()))
}

fn client_tls(chosen: &Chosen) -> Result<Option<ClientTls>, SettingsError> {
    let files = certificate(&chosen.tls_cert, "--tls-cert", &chosen.tls_key, "--tls-key")?;
    let client_ca = optional(&chosen.tls_client_ca, file)?;
    match (files, &chosen.tls_client_ca) {
        (Some(files), _) => Ok(Some(ClientTls { files, client_ca })),
        (None, None) => Ok(None),
        (None, Some(given)) => Err(SettingsError(format!(
            "{} means nothing without --tls-cert and --tls-key; add them or remove this",
            given.origin
        ))),
    }
}

fn raft_tls(chosen: &Chosen) -> Result<Option<RaftTls>, SettingsError> {
    let files = certificate(
        &chosen.raft_tls_cert,
        "--raft-tls-cert",
        &chosen.raft_tls_key,
        "--raft-tls-key",
    )?;
    match (files, optional(&chosen.raft_tls_ca, file)?) {
        (Some(files), Some(ca)) => Ok(Some(RaftTls { files, ca })),
        (None, None) => Ok(None),
        (Some(_), None) => Err(SettingsError(
            "--raft-tls-cert needs --raft-tls-ca too, the authorities that vouch for the other nodes".to_owned(),
        )),
        (None, Some(_)) => Err(SettingsError(
            "--raft-tls-ca needs --raft-tls-cert and --raft-tls-key too: nodes show their certificates to each other".to_owned(),
        )),
    }
}

fn certificate(
    certificate: &Option<Given>,
    certificate_flag: &str,
    key: &Option<Given>,
    key_flag: &str,
) -> Result<Option<CertificateFiles>, SettingsError> {
    match (optional(certificate, file)?, optional(key, file)?) {
        (Some(certificate), Some(key)) => Ok(Some(CertificateFiles { certificate, key })),
        (None, None) => Ok(None),
        (Some(_), None) => Err(SettingsError(format!("{certificate_flag} needs {key_flag} too"))),
        (None, Some(_)) => Err(SettingsError(format!("{key_flag} needs {certificate_flag} too"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_and_addresses_are_taken_and_anything_else_is_explained() {
        assert_eq!(networks("10.0.0.0/8, ::1").unwrap().len(), 2);
        for bad in ["", "10.0.0.0/33", "host", "10.0.0.0/8,"] {
            assert!(networks(bad).unwrap_err().contains("is no network"), "{bad:?}");
        }
        let many = vec!["10.0.0.1"; LIST_MAX + 1].join(",");
        assert!(networks(&many).unwrap_err().contains("at most"));
    }

    #[test]
    fn an_origin_has_a_scheme_and_a_host_and_nothing_else() {
        assert!(origins("https://a.example,http://localhost:3000").is_ok());
        for bad in
            ["*", "a.example", "https://a.example/", "https://a.example/x", "ftp://a", "null"]
        {
            assert!(origins(bad).unwrap_err().contains("is no origin"), "{bad:?}");
        }
    }

    #[test]
    fn keys_of_an_issuer_come_from_a_file_or_a_safe_address() {
        assert_eq!(jwt_keys("/etc/jwks.json"), Ok(JwtKeys::File("/etc/jwks.json".into())));
        for good in ["https://id.example/keys", "http://127.0.0.1:8/keys", "http://[::1]:8/keys"] {
            assert_eq!(jwt_keys(good), Ok(JwtKeys::Url(good.to_owned())), "{good}");
        }
        assert!(jwt_keys("http://id.example/keys").unwrap_err().contains("https"));
    }
}
