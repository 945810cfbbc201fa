//! The table of `serve`'s options: one line gives a flag, an environment variable and a field of the file.
//!
//! It says where each text was written, and which place wins. What a text means is decided in `mod.rs`.

use std::fmt;
use std::path::Path;

use clap::ArgMatches;
use clap::parser::ValueSource;
use serde::Deserialize;
use serde_saphyr::Spanned;

use super::SettingsError;

/// A configuration file is small; anything larger is the wrong file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Where a text was written, in the words of an error message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    Flag(&'static str),
    Environment(&'static str),
    File { path: String, line: u64, field: &'static str },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) => write!(f, "--{name}"),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::File { path, line, field } => write!(f, "{path} line {line}, field {field}"),
        }
    }
}

/// A text and where it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) text: String,
    pub(super) origin: Origin,
}

macro_rules! options {
    ($( $field:ident $flag:tt $env:tt $value_name:tt $help:tt [$($extra:tt)*] )*) => {
        /// Options of `serve` that a configuration file may also set.
        #[derive(Debug, Clone, Default, clap::Args)]
        pub struct Flags {
            $(
                #[arg(long = $flag, env = $env, value_name = $value_name, help = $help, hide_env_values = true, $($extra)*)]
                $field: Option<String>,
            )*
        }

        /// The configuration file: the same names as the flags, all optional.
        #[derive(Debug, Default, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(super) struct File {
            $(
                #[serde(rename = $flag, default)]
                $field: Option<Spanned<String>>,
            )*
        }

        /// For each option, the text that won, if it was given anywhere.
        #[derive(Debug, Default)]
        pub(super) struct Chosen {
            $( pub(super) $field: Option<Given>, )*
        }

        /// Names of all options as they stand in the file.
        pub const OPTION_NAMES: &[&str] = &[$($flag),*];

        impl Chosen {
            /// Flags, then environment (clap has put those two in order), then the file.
            pub(super) fn merge(flags: Flags, matches: &ArgMatches, file: Option<&Path>) -> Result<Self, SettingsError> {
                Ok(match file {
                    Some(path) => Self::of(flags, matches, &path.display().to_string(), read(path)?),
                    None => Self::of(flags, matches, "", File::default()),
                })
            }

            /// The same, of a file that was read from `path`.
            pub(super) fn of(flags: Flags, matches: &ArgMatches, path: &str, file: File) -> Self {
                Self {
                    $(
                        $field: from_command_line(flags.$field, matches, stringify!($field), $flag, $env)
                            .or_else(|| file.$field.map(|spanned| Given {
                                origin: Origin::File { path: path.to_owned(), line: spanned.referenced.line(), field: $flag },
                                text: spanned.value,
                            })),
                    )*
                }
            }
        }
    };
}

options! {
    node_id "node-id" "LLM_CONFIG_NODE_ID" "N"
        "Number of this node: 1 or more, unique in the cluster, never used again by another disk" []
    data_dir "data-dir" "LLM_CONFIG_DATA_DIR" "DIR"
        "Everything this node stores [default: /var/lib/llm-config]" []
    http_addr "http-addr" "LLM_CONFIG_HTTP_ADDR" "HOST:PORT"
        "REST API, health and leadership; gRPC clients are served here too [default: 127.0.0.1:8080]" []
    metrics_addr "metrics-addr" "LLM_CONFIG_METRICS_ADDR" "HOST:PORT"
        "GET /metrics [default: 127.0.0.1:9090]" []
    grpc_addr "grpc-addr" "LLM_CONFIG_GRPC_ADDR" "HOST:PORT"
        "Client gRPC [default: 127.0.0.1:50051]" []
    raft_addr "raft-addr" "LLM_CONFIG_RAFT_ADDR" "HOST:PORT"
        "Node-to-node gRPC [default: 127.0.0.1:50061]" []
    advertise_http "advertise-http" "LLM_CONFIG_ADVERTISE_HTTP" "HOST:PORT"
        "HTTP address that others are told [default: the bound address]" []
    advertise_grpc "advertise-grpc" "LLM_CONFIG_ADVERTISE_GRPC" "HOST:PORT"
        "Client gRPC address that others are told [default: the bound address]" []
    advertise_raft "advertise-raft" "LLM_CONFIG_ADVERTISE_RAFT" "HOST:PORT"
        "Node-to-node address that others are told [default: this node's address in --initial-cluster, else the bound address]" []
    initial_cluster "initial-cluster" "LLM_CONFIG_INITIAL_CLUSTER" "ID=HOST:RAFTPORT,…"
        "The founding nodes, the same list on each of them; needed until the cluster is founded" []
    join "join" "LLM_CONFIG_JOIN" "URL[,URL…]"
        "HTTP addresses of nodes of a running cluster: this node is no founder and waits to be added to it" []
    history_limit "history-limit" "LLM_CONFIG_HISTORY_LIMIT" "VERSIONS"
        "Versions kept of each entry; taken at founding [default: 100]" []
    auth "auth" "LLM_CONFIG_AUTH" "on|off"
        "Whether clients need a token [default: on]" []
    insecure "insecure" "LLM_CONFIG_INSECURE" "true|false"
        "Accept --auth off on listeners that other machines can reach"
        [num_args = 0..=1, require_equals = true, default_missing_value = "true"]
    log_format "log-format" "LLM_CONFIG_LOG_FORMAT" "text|json"
        "Form of the log lines on stderr [default: text]" []
    log_level "log-level" "LLM_CONFIG_LOG_LEVEL" "LEVEL"
        "Least severe level that is logged: error, warn, info, debug or trace [default: info]" []
    cache_bytes "cache-bytes" "LLM_CONFIG_CACHE_BYTES" "SIZE"
        "Memory for the cache of entries, such as 64MiB [default: 64MiB]" []
    request_timeout "request-timeout" "LLM_CONFIG_REQUEST_TIMEOUT" "TIME"
        "Longest time a request may wait for its answer, such as 5s or 500ms [default: 5s]" []
    backup_interval "backup-interval" "LLM_CONFIG_BACKUP_INTERVAL" "TIME"
        "Time between two backups into DIR/backups, such as 24h or 30m; 0: none are made by themselves [default: 24h]" []
    backup_keep "backup-keep" "LLM_CONFIG_BACKUP_KEEP" "N"
        "Backups kept in DIR/backups; older ones are deleted once a newer one is complete [default: 7]" []
    storage_quota "storage-quota" "LLM_CONFIG_STORAGE_QUOTA" "SIZE"
        "What this node may store before the cluster refuses writes, such as 8GiB; 0 is no bound [default: 8GiB]" []
    disk_reserve "disk-reserve" "LLM_CONFIG_DISK_RESERVE" "SIZE"
        "Free space of the disk below which the cluster refuses writes [default: 256MiB]" []
    bootstrap_token_file "bootstrap-token-file" "LLM_CONFIG_BOOTSTRAP_TOKEN_FILE" "FILE"
        "The first admin token, taken at founding [default: made then and written to DIR/bootstrap-token]" []
    master_key_file "master-key-file" "LLM_CONFIG_MASTER_KEY_FILE" "FILE"
        "The key that wraps the keys of secrets: 32 bytes in base64, older ones on the lines below; without it this node serves everything but secrets" []
    jwt_keys "jwt-keys" "LLM_CONFIG_JWT_KEYS" "FILE|URL"
        "Key set (JWKS) of an OpenID Connect issuer whose tokens are accepted too" []
    jwt_issuer "jwt-issuer" "LLM_CONFIG_JWT_ISSUER" "URL"
        "What the claim iss of such a token must be; needed with --jwt-keys" []
    jwt_audience "jwt-audience" "LLM_CONFIG_JWT_AUDIENCE" "TEXT"
        "What the claim aud of such a token must hold; needed with --jwt-keys" []
    jwt_roles_claim "jwt-roles-claim" "LLM_CONFIG_JWT_ROLES_CLAIM" "NAME"
        "The claim that lists the roles, such as groups or realm_access.roles [default: roles]" []
    rate_limit "rate-limit" "LLM_CONFIG_RATE_LIMIT" "N"
        "Requests a second that each principal may make to this node, twice as many at once; 0 is no limit [default: 20000, with --auth off 0]" []
    rate_limit_address "rate-limit-address" "LLM_CONFIG_RATE_LIMIT_ADDRESS" "N"
        "Requests a second that may come from each address, twice as many at once; 0 is no limit [default: 20000, with --auth off 0]" []
    ban_failures "ban-failures" "LLM_CONFIG_BAN_FAILURES" "N"
        "Failed authentications within a minute after which an address is banned; 0 bans nobody [default: 10]" []
    ban_duration "ban-duration" "LLM_CONFIG_BAN_DURATION" "TIME"
        "How long the first ban of an address lasts; each further one twice as long, up to a day [default: 1m]" []
    limit_exempt "limit-exempt" "LLM_CONFIG_LIMIT_EXEMPT" "CIDR[,CIDR…]"
        "Addresses that are neither limited nor banned" []
    trusted_proxies "trusted-proxies" "LLM_CONFIG_TRUSTED_PROXIES" "CIDR[,CIDR…]"
        "Proxies whose X-Forwarded-For names the client [default: none is believed]" []
    cors_origins "cors-origins" "LLM_CONFIG_CORS_ORIGINS" "URL[,URL…]"
        "Origins whose web pages may use the HTTP API [default: none]" []
    tls_cert "tls-cert" "LLM_CONFIG_TLS_CERT" "FILE"
        "Certificate chain (PEM) for clients, HTTP and gRPC; read again when the file changes" []
    tls_key "tls-key" "LLM_CONFIG_TLS_KEY" "FILE"
        "Private key (PEM) of --tls-cert" []
    tls_client_ca "tls-client-ca" "LLM_CONFIG_TLS_CLIENT_CA" "FILE"
        "Authorities (PEM) whose client certificates are accepted in place of a token" []
    tls_ca "tls-ca" "LLM_CONFIG_TLS_CA" "FILE"
        "Authorities (PEM) that vouch for the nodes of https --join addresses [default: those of the system]" []
    raft_tls_cert "raft-tls-cert" "LLM_CONFIG_RAFT_TLS_CERT" "FILE"
        "Certificate chain (PEM) of this node towards other nodes; names it as node-ID.llm-config" []
    raft_tls_key "raft-tls-key" "LLM_CONFIG_RAFT_TLS_KEY" "FILE"
        "Private key (PEM) of --raft-tls-cert" []
    raft_tls_ca "raft-tls-ca" "LLM_CONFIG_RAFT_TLS_CA" "FILE"
        "Authorities (PEM) that vouch for the other nodes" []
}

/// An empty environment variable counts as not set: compose files and unit files write them that way.
fn from_command_line(
    text: Option<String>,
    matches: &ArgMatches,
    id: &str,
    flag: &'static str,
    env: &'static str,
) -> Option<Given> {
    let text = text?;
    match matches.value_source(id) {
        Some(ValueSource::EnvVariable) if text.is_empty() => None,
        Some(ValueSource::EnvVariable) => Some(Given { text, origin: Origin::Environment(env) }),
        _ => Some(Given { text, origin: Origin::Flag(flag) }),
    }
}

fn read(path: &Path) -> Result<File, SettingsError> {
    let shown = path.display();
    let unreadable = |error: std::io::Error| {
        SettingsError::new(format!(
            "--config {shown}: {error}; give the path of a readable YAML file"
        ))
    };
    let size = std::fs::metadata(path).map_err(unreadable)?.len();
    if size > FILE_BYTES_MAX {
        return Err(SettingsError::new(format!(
            "--config {shown}: {size} bytes is too large for a configuration file; is it the right file?"
        )));
    }
    decode(&std::fs::read_to_string(path).map_err(unreadable)?, path)
}

/// What the text of a file says; `path` is for the refusal.
pub(super) fn decode(text: &str, path: &Path) -> Result<File, SettingsError> {
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(File::default());
    }
    serde_saphyr::from_str(text).map_err(|error| {
        let line = error.location().map_or(0, |location| location.line());
        SettingsError::new(format!(
            "--config {}: line {line}{}: {}; see --help for the names and forms of the options",
            path.display(),
            field_of(text, line),
            reason(&error),
        ))
    })
}

/// The field that stands on a line, if the line has the form of one.
fn field_of(text: &str, line: u64) -> String {
    let index = usize::try_from(line).unwrap_or(0).checked_sub(1);
    let name = index
        .and_then(|index| text.lines().nth(index)?.split_once(':'))
        .map(|(name, _)| name.trim());
    match name {
        Some(name) if OPTION_NAMES.contains(&name) => format!(", field {name}"),
        _ => String::new(),
    }
}

/// The parser's reason in one line, without the place (it stands in front) and without advice to programmers.
fn reason(error: &serde_saphyr::Error) -> String {
    if let serde_saphyr::Error::DuplicateMappingKey { .. } = error.without_snippet() {
        return "the field is set twice; keep one of the two lines".to_owned();
    }
    let rendered = error.without_snippet().render().replace('\n', " ");
    let reason = rendered.split(" at line ").next().unwrap_or_default();
    match reason.trim_start_matches("error: ") {
        "expected string scalar" => "the value must be a single text or number".to_owned(),
        reason => reason.to_owned(),
    }
}
