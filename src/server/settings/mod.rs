//! Settings of `serve`: flags, then environment, then the file, then defaults; checked as a whole before anything starts.
//!
//! Nothing is opened or bound here: a `Settings` value is a promise that the configuration makes sense, not that the
//! machine agrees with it.

#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod options;
mod parse;
mod security;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::ArgMatches;
use llm_config_domain::limits;
use serde::Serialize;
use tracing::level_filters::{LevelFilter, STATIC_MAX_LEVEL};

use crate::address::advertised;
use crate::logging::Format;
use options::{Chosen, Given};

pub use options::{Flags, OPTION_NAMES};
pub use security::{
    BAN_DURATION_MAX, BanSettings, CertificateFiles, ClientTls, JwtKeys, JwtSettings,
    LimitSettings, RaftTls, SecuritySettings,
};

const DATA_DIR_DEFAULT: &str = "/var/lib/llm-config";
const HTTP_ADDR_DEFAULT: &str = "127.0.0.1:8080";
const METRICS_ADDR_DEFAULT: &str = "127.0.0.1:9090";
const GRPC_ADDR_DEFAULT: &str = "127.0.0.1:50051";
const RAFT_ADDR_DEFAULT: &str = "127.0.0.1:50061";
/// Memory for cached entries when nothing is said.
pub const CACHE_BYTES_DEFAULT: u64 = 64 << 20;
/// Bytes that a node may store when nothing is said: what fits into a restart and a snapshot in minutes.
pub const STORAGE_QUOTA_DEFAULT: u64 = 8 << 30;
/// Below it the files that an empty store keeps open would already fill the quota.
const STORAGE_QUOTA_MIN: u64 = 64 << 20;
/// Free bytes of the disk that are kept when nothing is said.
pub const DISK_RESERVE_DEFAULT: u64 = 256 << 20;
const STORAGE_BYTES_MAX: u64 = 1 << 50;
const CACHE_BYTES_MIN: u64 = 1 << 20;
const CACHE_BYTES_MAX: u64 = 1 << 40;
/// Longest wait of a request when nothing is said.
pub const REQUEST_TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
const REQUEST_TIMEOUT_MIN: Duration = Duration::from_millis(100);
const REQUEST_TIMEOUT_MAX: Duration = Duration::from_secs(300);
/// Time between two backups when nothing is said.
pub const BACKUP_INTERVAL_DEFAULT: Duration = Duration::from_secs(24 * 3600);
const BACKUP_INTERVAL_MIN: Duration = Duration::from_secs(1);
const BACKUP_INTERVAL_MAX: Duration = Duration::from_secs(366 * 24 * 3600);
/// Backups kept when nothing is said.
pub const BACKUP_KEEP_DEFAULT: usize = 7;
const BACKUP_KEEP_MAX: u64 = 1_000;

/// Why the configuration cannot work, in one sentence that says where and what to do. Exit code 2.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SettingsError(String);

impl SettingsError {
    /// One sentence that says where and what to do.
    #[must_use]
    pub fn new(sentence: String) -> Self {
        Self(sentence)
    }
}

/// Everything that one node needs to know to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Non-zero.
    pub node_id: u64,
    /// Everything that the node stores.
    pub data_dir: PathBuf,
    /// REST API and health; takes gRPC too.
    pub http_addr: SocketAddr,
    /// `GET /metrics`.
    pub metrics_addr: SocketAddr,
    /// Client gRPC.
    pub grpc_addr: SocketAddr,
    /// Node-to-node gRPC.
    pub raft_addr: SocketAddr,
    /// HTTP address told to others; `None` is the bound address.
    pub advertise_http: Option<String>,
    /// Client gRPC address told to others; `None` is the bound address.
    pub advertise_grpc: Option<String>,
    /// Node-to-node address told to others; `None` is the bound address.
    pub advertise_raft: Option<String>,
    /// Founding members by id; empty when the node was founded before.
    pub initial_cluster: BTreeMap<u64, String>,
    /// HTTP addresses of nodes of the cluster to join, as `http://HOST:PORT` or `https://HOST:PORT`; empty on a founder.
    pub join: Vec<String>,
    /// Versions kept of each entry, taken at founding.
    pub history_limit: u64,
    /// Whether clients need a token.
    pub auth: bool,
    /// Whether `auth: false` is accepted on listeners that other machines can reach.
    pub insecure: bool,
    /// Form of the log lines.
    pub log_format: Format,
    /// Least severe level that is logged.
    pub log_level: LevelFilter,
    /// Memory for the cache of entries.
    pub cache_bytes: u64,
    /// Longest time a request may wait for its answer.
    pub request_timeout: Duration,
    /// Time between two backups into the data directory; `None`: none are made by themselves.
    pub backup_interval: Option<Duration>,
    /// Backups kept there.
    pub backup_keep: usize,
    /// Bytes that the node may store before the cluster refuses writes; 0 is no bound.
    pub storage_quota: u64,
    /// Free bytes of the disk below which the cluster refuses writes.
    pub disk_reserve: u64,
    /// Tokens, keys, limits and certificates.
    pub security: SecuritySettings,
}

impl Settings {
    /// Puts the sources in order and checks the result. `matches` is what clap found for `serve`: it tells flags from
    /// environment variables.
    pub fn load(
        flags: Flags,
        matches: &ArgMatches,
        file: Option<&Path>,
    ) -> Result<Self, SettingsError> {
        let chosen = Chosen::merge(flags, matches, file)?;
        let settings = Self::interpret(&chosen)?;
        settings.check_membership(&chosen)?;
        settings.check_advertised()?;
        settings.check_auth()?;
        Ok(settings)
    }

    fn interpret(chosen: &Chosen) -> Result<Self, SettingsError> {
        let node_id = required(
            &chosen.node_id,
            "--node-id is missing: give each node its own number from 1 up",
        )?;
        let initial_cluster =
            optional(&chosen.initial_cluster, parse::members)?.unwrap_or_default();
        let node_id = interpret(node_id, parse::node_id)?;
        let advertise_raft = optional(&chosen.advertise_raft, advertised)?
            .or_else(|| initial_cluster.get(&node_id).cloned());
        let auth = optional(&chosen.auth, parse::switch)?.unwrap_or(true);
        Ok(Self {
            node_id,
            data_dir: optional(&chosen.data_dir, data_dir)?
                .unwrap_or_else(|| PathBuf::from(DATA_DIR_DEFAULT)),
            http_addr: listen(&chosen.http_addr, HTTP_ADDR_DEFAULT)?,
            metrics_addr: listen(&chosen.metrics_addr, METRICS_ADDR_DEFAULT)?,
            grpc_addr: listen(&chosen.grpc_addr, GRPC_ADDR_DEFAULT)?,
            raft_addr: listen(&chosen.raft_addr, RAFT_ADDR_DEFAULT)?,
            advertise_http: optional(&chosen.advertise_http, advertised)?,
            advertise_grpc: optional(&chosen.advertise_grpc, advertised)?,
            advertise_raft,
            initial_cluster,
            join: optional(&chosen.join, parse::join)?.unwrap_or_default(),
            history_limit: optional(&chosen.history_limit, |text| {
                parse::number(text, 1, limits::HISTORY_LIMIT_MAX)
            })?
            .unwrap_or(limits::HISTORY_LIMIT_DEFAULT),
            auth,
            insecure: optional(&chosen.insecure, parse::switch)?.unwrap_or(false),
            log_format: optional(&chosen.log_format, Format::from_str)?.unwrap_or(Format::Text),
            log_level: optional(&chosen.log_level, log_level)?.unwrap_or(LevelFilter::INFO),
            cache_bytes: optional(&chosen.cache_bytes, |text| {
                parse::bytes(text, CACHE_BYTES_MIN, CACHE_BYTES_MAX)
            })?
            .unwrap_or(CACHE_BYTES_DEFAULT),
            request_timeout: optional(&chosen.request_timeout, |text| {
                parse::duration(text, REQUEST_TIMEOUT_MIN, REQUEST_TIMEOUT_MAX)
            })?
            .unwrap_or(REQUEST_TIMEOUT_DEFAULT),
            backup_interval: optional(&chosen.backup_interval, backup_interval)?
                .unwrap_or(Some(BACKUP_INTERVAL_DEFAULT)),
            backup_keep: optional(&chosen.backup_keep, |text| {
                parse::number(text, 1, BACKUP_KEEP_MAX)
            })?
            .map_or(BACKUP_KEEP_DEFAULT, |keep| usize::try_from(keep).unwrap_or(usize::MAX)),
            storage_quota: optional(&chosen.storage_quota, storage_quota)?
                .unwrap_or(STORAGE_QUOTA_DEFAULT),
            disk_reserve: optional(&chosen.disk_reserve, |text| {
                parse::bytes(text, 0, STORAGE_BYTES_MAX)
            })?
            .unwrap_or(DISK_RESERVE_DEFAULT),
            security: SecuritySettings::interpret(chosen, auth)?,
        })
    }

    fn check_membership(&self, chosen: &Chosen) -> Result<(), SettingsError> {
        let Some(given) = &chosen.initial_cluster else { return Ok(()) };
        if let Some(join) = &chosen.join {
            return Err(SettingsError(format!(
                "{} and {} exclude each other: a founding node has the list of all founders, a node that is added later \
                 has --join; remove one of the two",
                join.origin, given.origin
            )));
        }
        if self.initial_cluster.contains_key(&self.node_id) {
            return Ok(());
        }
        Err(SettingsError(format!(
            "{}: node {} is not in the list; add {}=HOST:RAFTPORT, or correct --node-id",
            given.origin, self.node_id, self.node_id
        )))
    }

    /// Others cannot connect to a wildcard, so it must not be what they are told.
    fn check_advertised(&self) -> Result<(), SettingsError> {
        let listeners = [
            ("http", self.http_addr, &self.advertise_http),
            ("grpc", self.grpc_addr, &self.advertise_grpc),
            ("raft", self.raft_addr, &self.advertise_raft),
        ];
        for (name, address, advertised) in listeners {
            if address.ip().is_unspecified() && advertised.is_none() {
                return Err(SettingsError(format!(
                    "--{name}-addr {address} listens on every interface, which is no address to tell others; \
                     add --advertise-{name} HOST:{}",
                    address.port()
                )));
            }
        }
        Ok(())
    }

    fn check_auth(&self) -> Result<(), SettingsError> {
        if self.auth {
            return Ok(());
        }
        if self.insecure {
            return Ok(());
        }
        match self.listeners().into_iter().find(|(_, address)| !address.ip().is_loopback()) {
            None => Ok(()),
            Some((flag, address)) => Err(SettingsError(format!(
                "--auth off lets everyone who reaches {flag} {address} change everything; listen on 127.0.0.1, \
                 or add --insecure when only trusted machines reach it"
            ))),
        }
    }

    /// The four listeners, with the flag that sets each.
    #[must_use]
    pub fn listeners(&self) -> [(&'static str, SocketAddr); 4] {
        [
            ("--http-addr", self.http_addr),
            ("--metrics-addr", self.metrics_addr),
            ("--grpc-addr", self.grpc_addr),
            ("--raft-addr", self.raft_addr),
        ]
    }

    /// The effective settings as a configuration file. Reading it back gives the same settings.
    pub fn to_yaml(&self) -> Result<String, SettingsError> {
        let printed = Printed {
            node_id: self.node_id,
            data_dir: &self.data_dir,
            http_addr: self.http_addr,
            metrics_addr: self.metrics_addr,
            grpc_addr: self.grpc_addr,
            raft_addr: self.raft_addr,
            advertise_http: shown(self.advertise_http.as_deref(), self.http_addr),
            advertise_grpc: shown(self.advertise_grpc.as_deref(), self.grpc_addr),
            advertise_raft: shown(self.advertise_raft.as_deref(), self.raft_addr),
            initial_cluster: self.members_text(),
            join: (!self.join.is_empty()).then(|| self.join.join(",")),
            history_limit: self.history_limit,
            auth: if self.auth { "on" } else { "off" },
            insecure: self.insecure,
            log_format: self.log_format.as_str(),
            log_level: self.log_level.to_string(),
            cache_bytes: self.cache_bytes,
            request_timeout: format!("{}ms", self.request_timeout.as_millis()),
            backup_interval: self
                .backup_interval
                .map_or_else(|| "0".to_owned(), |interval| format!("{}s", interval.as_secs())),
            backup_keep: self.backup_keep,
            storage_quota: self.storage_quota,
            disk_reserve: self.disk_reserve,
            security: self.security.printed(),
        };
        serde_saphyr::to_string(&printed)
            .map_err(|error| SettingsError(format!("--print-config: {error}")))
    }

    fn members_text(&self) -> Option<String> {
        let members: Vec<_> =
            self.initial_cluster.iter().map(|(id, address)| format!("{id}={address}")).collect();
        if members.is_empty() { None } else { Some(members.join(",")) }
    }
}

/// The file that `--print-config` writes; field for field the table in `options.rs`.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Printed<'a> {
    node_id: u64,
    data_dir: &'a Path,
    http_addr: SocketAddr,
    metrics_addr: SocketAddr,
    grpc_addr: SocketAddr,
    raft_addr: SocketAddr,
    advertise_http: Option<String>,
    advertise_grpc: Option<String>,
    advertise_raft: Option<String>,
    initial_cluster: Option<String>,
    join: Option<String>,
    history_limit: u64,
    auth: &'static str,
    insecure: bool,
    log_format: &'static str,
    log_level: String,
    cache_bytes: u64,
    request_timeout: String,
    backup_interval: String,
    backup_keep: usize,
    storage_quota: u64,
    disk_reserve: u64,
    #[serde(flatten)]
    security: security::Printed<'a>,
}

/// What others will be told; a port chosen by the system is not known yet.
fn shown(advertised: Option<&str>, bound: SocketAddr) -> Option<String> {
    match advertised {
        Some(address) => Some(address.to_owned()),
        None if bound.port() == 0 => None,
        None => Some(bound.to_string()),
    }
}

fn required<'a>(given: &'a Option<Given>, missing: &str) -> Result<&'a Given, SettingsError> {
    given.as_ref().ok_or_else(|| SettingsError(missing.to_owned()))
}

fn interpret<T>(
    given: &Given,
    meaning: impl FnOnce(&str) -> Result<T, String>,
) -> Result<T, SettingsError> {
    meaning(given.text.trim())
        .map_err(|reason| SettingsError(format!("{}: {reason}", given.origin)))
}

fn optional<T>(
    given: &Option<Given>,
    meaning: impl FnOnce(&str) -> Result<T, String>,
) -> Result<Option<T>, SettingsError> {
    given.as_ref().map(|given| interpret(given, meaning)).transpose()
}

fn listen(given: &Option<Given>, default: &str) -> Result<SocketAddr, SettingsError> {
    match given {
        Some(given) => interpret(given, parse::listen),
        None => parse::listen(default).map_err(SettingsError),
    }
}

/// A size, or 0 for no bound.
fn storage_quota(text: &str) -> Result<u64, String> {
    match text {
        "0" => Ok(0),
        _ => parse::bytes(text, STORAGE_QUOTA_MIN, STORAGE_BYTES_MAX)
            .map_err(|reason| format!("{reason}, or 0 for no bound")),
    }
}

fn data_dir(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() {
        Err("is empty; give a directory".to_owned())
    } else {
        Ok(PathBuf::from(text))
    }
}

/// A time, or `0` for never. Whole seconds: anything finer means nothing here.
fn backup_interval(text: &str) -> Result<Option<Duration>, String> {
    if text == "0" {
        return Ok(None);
    }
    let interval = parse::duration(text, BACKUP_INTERVAL_MIN, BACKUP_INTERVAL_MAX)
        .map_err(|reason| format!("{reason}, or 0 for no backups by themselves"))?;
    Ok(Some(Duration::from_secs(interval.as_secs())))
}

/// The members of `--initial-cluster` for a command other than `serve`.
pub fn members(text: &str) -> Result<BTreeMap<u64, String>, String> {
    parse::members(text)
}

/// The value of `--node-id` for a command other than `serve`.
pub fn node_id(text: &str) -> Result<u64, String> {
    parse::node_id(text)
}

/// A level, unless this build has no messages below another one.
pub fn log_level(text: &str) -> Result<LevelFilter, String> {
    let level = match text {
        "error" => LevelFilter::ERROR,
        "warn" => LevelFilter::WARN,
        "info" => LevelFilter::INFO,
        "debug" => LevelFilter::DEBUG,
        "trace" => LevelFilter::TRACE,
        _ => return Err(format!("{text:?} is no level; give error, warn, info, debug or trace")),
    };
    if level > STATIC_MAX_LEVEL {
        return Err(format!(
            "this build has no messages below {STATIC_MAX_LEVEL}; give error, warn or info"
        ));
    }
    Ok(level)
}
