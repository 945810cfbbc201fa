//! The command line: flags, their environment variables and defaults. Parsing only; nothing is asked here.

mod documents;
mod operations;
mod security;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use llm_config_client::v1;
use serde::{Deserialize, Serialize};

pub(crate) use documents::{
    ContextField, Contexts, DeleteSchema, Edit, Export, FileFormat, Import, ListSchemas, PutSchema,
    SchemaTarget, Schemas, SetContext, Txn,
};
pub(crate) use operations::{
    Baseline, CompareBaseline, Daily, JOB, Ops, RecordBaseline, Sources, Weekly,
};
pub(crate) use security::{
    Audit, AuditFilter, Bans, CreateToken, Grant, Keys, ListAudit, PutRole, Retention, Roles,
    RotateKeys, RotationTarget, Scope, Tokens,
};

/// Command line client of the LLM Config Manager.
///
/// Data is printed on stdout, words on stderr. Exit code 0: done; 1: not there, refused or not answered; 2: wrong usage.
/// Which cluster is meant is said by --endpoints, by LLM_CONFIG_ENDPOINTS, or by a context (`llm-config help context`).
#[derive(Debug, Parser)]
#[command(name = "llm-config", version, after_help = FIRST_STEPS)]
pub struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const FIRST_STEPS: &str = "\
Examples:
  llm-config context set prod --endpoints a:50051,b:50051 --token-file ~/.token --env production
  llm-config status
  llm-config set shop/assistant model '{\"name\": \"claude\"}' --comment 'first rollout'
  llm-config get shop/assistant model
  llm-config edit shop/assistant model
  llm-config history shop/assistant model
  llm-config import models.yaml --namespace shop/assistant --dry-run
  llm-config watch shop/assistant";

const GET_EXAMPLES: &str = "\
Examples:
  llm-config get shop/assistant model
  llm-config get shop/assistant model --version 3
  llm-config get shop/assistant model --env production --resolve --output json
  llm-config get shop/assistant api-key --reveal";

const SET_EXAMPLES: &str = "\
Examples:
  llm-config set shop/assistant temperature 0.2
  llm-config set shop/assistant greeting --string 'Good day'
  llm-config set shop/assistant prompt - --string < prompt.txt
  llm-config set shop/assistant temperature 0.3 --expected-version 4
  llm-config set shop/assistant api-key - --string --secret < key.txt";

const DELETE_EXAMPLES: &str = "\
Examples:
  llm-config delete shop/assistant temperature --comment 'back to the default'
  llm-config delete shop/assistant temperature --expected-version 4";

const LIST_EXAMPLES: &str = "\
Examples:
  llm-config list shop/assistant --env production
  llm-config list shop/assistant --prefix bedrock/ --output json";

const ROLLBACK_EXAMPLES: &str = "\
Examples:
  llm-config rollback shop/assistant model 3 --dry-run
  llm-config rollback shop/assistant model 3 --comment 'version 4 was too slow'";

const DIFF_EXAMPLES: &str = "\
Examples:
  llm-config diff shop/assistant model --from 3 --to 4
  llm-config diff shop/assistant model --env-from staging --env-to production
  llm-config diff shop/assistant model --from 3 --to 4 --output json";

const WATCH_EXAMPLES: &str = "\
Examples:
  llm-config watch shop/assistant
  llm-config watch shop/assistant --env production --from-revision 120 --output json
  llm-config watch --namespace-prefix shop/
  llm-config watch --all-namespaces";

const STATUS_EXAMPLES: &str = "\
Examples:
  llm-config status
  llm-config status --watch
  llm-config status --output json";

#[derive(Debug, Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Global {
    /// Client gRPC or HTTP addresses of any nodes, separated by commas [env: LLM_CONFIG_ENDPOINTS] [default:
    /// 127.0.0.1:50051].
    #[arg(long, global = true, value_name = "URL[,URL…]", value_delimiter = ',')]
    pub(crate) endpoints: Vec<String>,
    /// A set of endpoints, credentials and defaults, by name [env: LLM_CONFIG_CONTEXT] [default: the current one].
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) context: Option<String>,
    #[command(flatten)]
    pub(crate) tls: Tls,
    #[command(flatten)]
    pub(crate) credentials: Credentials,
    /// Environment: base, development (dev), staging (stage), production (prod) or edge [default: that of the context,
    /// else base; `watch`: all].
    #[arg(long, global = true, value_name = "ENV")]
    pub(crate) env: Option<String>,
    /// The environment of the context, which counts where none was given.
    #[arg(skip)]
    pub(crate) context_environment: Option<String>,
    /// How data is printed [default: that of the context, else table].
    #[arg(long, global = true, value_enum)]
    pub(crate) output: Option<Format>,
    /// Whether to use colours; auto does on a terminal, unless NO_COLOR is set.
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value_t = Color::Auto)]
    pub(crate) color: Color,
    /// Time for each request with all its retries, in seconds [default: 10; import, txn,
    /// cluster, baseline and ops: 60].
    #[arg(long, global = true, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) timeout: Option<Duration>,
}

/// Any of them makes every connection TLS, as https:// in front of an endpoint does. The names of the fields are those of
/// the options: a global one must not have the name of another command's.
#[derive(Debug, Default, Args)]
pub(crate) struct Tls {
    /// Authorities (PEM) that vouch for the nodes of https endpoints [env: LLM_CONFIG_TLS_CA] [default: those of the
    /// system].
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) tls_ca: Option<PathBuf>,
    /// Certificate chain (PEM) to show to the nodes [env: LLM_CONFIG_TLS_CERT].
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Private key (PEM) of --tls-cert [env: LLM_CONFIG_TLS_KEY].
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) tls_key: Option<PathBuf>,
}

/// The environment is looked at elsewhere: what is given on the command line goes before it, whichever of the two it is.
#[derive(Debug, Default, Args)]
pub(crate) struct Credentials {
    /// The token to be let in with; others see it in the list of processes, so rather use --token-file
    /// [env: LLM_CONFIG_TOKEN].
    #[arg(long, global = true, value_name = "TOKEN", conflicts_with = "token_file")]
    pub(crate) token: Option<TokenText>,
    /// A file with the token; it is read again when it changes [env: LLM_CONFIG_TOKEN_FILE].
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
}

/// Not shown in any message.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct TokenText(pub(crate) String);

impl From<String> for TokenText {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for TokenText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenText(..)")
    }
}

impl Global {
    /// The environment in the words of the API, base when none was given.
    pub(crate) fn environment(&self) -> String {
        let given = self.env.clone().or_else(|| self.context_environment.clone());
        given.unwrap_or_else(|| "base".to_owned())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    /// For people.
    Table,
    /// The shapes of the HTTP API.
    Json,
    /// The same shapes, as YAML.
    Yaml,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print an entry: its value, or with --output json|yaml the whole entry.
    #[command(after_help = GET_EXAMPLES)]
    Get(Get),
    /// Write an entry.
    ///
    /// The value is JSON: a text is written in double quotes, or with --string. Numbers are stored as they are written.
    #[command(after_help = SET_EXAMPLES)]
    Set(Set),
    /// Change an entry in your editor ($VISUAL, else $EDITOR, else vi).
    ///
    /// What is saved is checked, shown as a difference, and written only if nobody changed the entry meanwhile; if
    /// somebody did, your text is kept in a file. Saving it unchanged writes nothing. A text that is not JSON opens the
    /// editor again; leaving that one unchanged gives up.
    #[command(after_help = documents::EDIT_EXAMPLES)]
    Edit(Edit),
    /// Delete an entry; its history stays.
    #[command(after_help = DELETE_EXAMPLES)]
    Delete(Delete),
    /// List a namespace's entries in one environment, sorted by key.
    #[command(after_help = LIST_EXAMPLES)]
    List(List),
    /// List the namespaces.
    Namespaces(Namespaces),
    /// Show an entry's versions, newest first, deletes included.
    History(History),
    /// Make a new version with an old version's value.
    #[command(after_help = ROLLBACK_EXAMPLES)]
    Rollback(Rollback),
    /// Show the difference between two versions, or two environments: by lines, or with --output json|yaml as a JSON
    /// Patch (RFC 6902).
    #[command(after_help = DIFF_EXAMPLES)]
    Diff(Diff),
    /// Show a whole namespace as an application in the environment sees it.
    Resolve(Resolve),
    /// Print changes as they happen, until interrupted; survives the loss of the node it is connected to.
    #[command(after_help = WATCH_EXAMPLES)]
    Watch(Watch),
    /// Run operations that depend on versions: all of them, or none.
    ///
    /// When every comparison holds, the operations of `success` run, else those of `failure`; all under one revision.
    /// They come from a file, JSON or YAML, of the form of HTTP's `POST /txn`, or from options. Exit code 1 tells that
    /// a comparison did not hold.
    #[command(after_help = documents::TXN_EXAMPLES)]
    Txn(Txn),
    /// Make a namespace hold what a JSON or YAML object key -> value says, in one atomic change.
    ///
    /// The entries are read at one revision and compared with the file; what differs is written in one transaction that
    /// holds only if nobody changed one of these entries meanwhile, else it is all done again, a few times. Entries that
    /// are equal are left alone, descriptions and tags stay. A secret stays one and is always written; where the file
    /// has the mask of one, the entry is left alone. One transaction takes 10,000 entries or 4 MiB.
    #[command(after_help = documents::IMPORT_EXAMPLES)]
    Import(Import),
    /// Print a namespace's entries as an object key -> value, sorted by key; `import` reads it. Secrets are left out.
    ///
    /// All entries are as they were at one revision, which is named on stderr; everything acknowledged before is in it.
    #[command(after_help = documents::EXPORT_EXAMPLES)]
    Export(Export),
    /// Show and change the JSON Schemas (2020-12) that later values have to meet.
    #[command(subcommand)]
    Schema(Schemas),
    /// Make, list and check backups of the whole store, and say how one is restored.
    #[command(subcommand)]
    Backup(Backup),
    /// Show the cluster at a glance: who leads, who is healthy, who lags, and whether it survives a loss.
    #[command(after_help = STATUS_EXAMPLES)]
    Status(Status),
    /// Show and change the members of the cluster.
    ///
    /// Any endpoint will do: the leader carries a change out. A change may be given again: what is done is not done
    /// twice, what is half done is completed.
    #[command(subcommand)]
    Cluster(Cluster),
    /// Show who the cluster takes you for, and what you may do.
    Whoami,
    /// Make, list and revoke tokens.
    #[command(subcommand)]
    Token(Tokens),
    /// Show and change roles: what the holders of tokens may do.
    #[command(subcommand)]
    Role(Roles),
    /// List and lift bans of addresses.
    #[command(subcommand)]
    Ban(Bans),
    /// Read and check the log of who did what.
    #[command(subcommand)]
    Audit(Audit),
    /// List and exchange the keys that secrets are encrypted with.
    #[command(subcommand)]
    Keys(Keys),
    /// Record what is normal, from Prometheus, and compare with it.
    #[command(subcommand)]
    Baseline(Baseline),
    /// Do the checks of an operator's day and week, and print what was found.
    #[command(subcommand)]
    Ops(Ops),
    /// Show and change contexts: clusters by name, with endpoints, credentials and defaults.
    ///
    /// They are kept in $XDG_CONFIG_HOME/llm-config/config.yaml (~/.config by default), or in the file that
    /// LLM_CONFIG_FILE names. What is given on the command line goes before environment variables, these before the
    /// context, that before the defaults.
    #[command(subcommand)]
    Context(Contexts),
    /// Write the manual pages: all of them into a folder, or that of the program to stdout.
    #[command(after_help = documents::MAN_EXAMPLES)]
    Man {
        /// The folder, made if it is missing; then `man -M` or MANPATH of its parent finds them in `man1`.
        #[arg(value_name = "DIR")]
        folder: Option<PathBuf>,
    },
    /// Print a completion script for a shell.
    #[command(after_help = documents::COMPLETIONS_EXAMPLES)]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Consistency {
    /// What the answering node has applied.
    Cached,
    /// Confirmed with the leader.
    Linearizable,
}

#[derive(Debug, Args)]
pub(crate) struct Read {
    /// How fresh the answer must be.
    #[arg(long, value_enum, default_value_t = Consistency::Cached)]
    pub(crate) consistency: Consistency,
}

impl Read {
    pub(crate) fn options(&self) -> v1::ReadOptions {
        let consistency = match self.consistency {
            Consistency::Cached => v1::Consistency::Cached,
            Consistency::Linearizable => v1::Consistency::Linearizable,
        };
        v1::ReadOptions { consistency: consistency.into(), ..Default::default() }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Target {
    /// The namespace, like `chat/prod`.
    #[arg(value_name = "NS")]
    pub(crate) namespace: String,
    /// The key in it.
    #[arg(value_name = "KEY")]
    pub(crate) key: String,
}

#[derive(Debug, Args)]
pub(crate) struct Write {
    /// Why this change; kept with the version.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) comment: String,
    /// Refuse unless the entry is at this version; 0: unless it does not exist.
    #[arg(long, value_name = "N")]
    pub(crate) expected_version: Option<u64>,
    /// Sent again with the same key within ten minutes, the same write happens only once.
    #[arg(long, value_name = "KEY", default_value = "", hide_default_value = true)]
    pub(crate) idempotency_key: String,
}

#[derive(Debug, Args)]
pub(crate) struct Get {
    #[command(flatten)]
    pub(crate) target: Target,
    /// An old version instead of the current one.
    #[arg(long, value_name = "N", conflicts_with = "resolve")]
    pub(crate) version: Option<u64>,
    /// Fall back to the environments that --env falls back to.
    #[arg(long)]
    pub(crate) resolve: bool,
    /// Show the plaintext of a secret; it needs the right to, and leaves an audit record.
    #[arg(long)]
    pub(crate) reveal: bool,
    #[command(flatten)]
    pub(crate) read: Read,
}

#[derive(Debug, Args)]
pub(crate) struct Set {
    #[command(flatten)]
    pub(crate) target: Target,
    /// The value as JSON; `-` reads it from stdin.
    #[arg(value_name = "VALUE", allow_negative_numbers = true)]
    pub(crate) value: String,
    /// Take VALUE as a string instead of JSON.
    #[arg(long)]
    pub(crate) string: bool,
    /// Store the value, a JSON string, encrypted; `=false` in the clear [default: as the entry is].
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    pub(crate) secret: Option<bool>,
    /// What the entry is for.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) description: String,
    /// A tag; may be repeated.
    #[arg(long = "tag", value_name = "TAG")]
    pub(crate) tags: Vec<String>,
    #[command(flatten)]
    pub(crate) write: Write,
}

#[derive(Debug, Args)]
pub(crate) struct Delete {
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(flatten)]
    pub(crate) write: Write,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// The namespace.
    #[arg(value_name = "NS")]
    pub(crate) namespace: String,
    /// Only keys that begin with this.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) prefix: String,
    #[command(flatten)]
    pub(crate) read: Read,
}

#[derive(Debug, Args)]
pub(crate) struct Namespaces {
    /// Only namespaces that begin with this.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) prefix: String,
    #[command(flatten)]
    pub(crate) read: Read,
}

#[derive(Debug, Args)]
pub(crate) struct History {
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(flatten)]
    pub(crate) read: Read,
}

#[derive(Debug, Args)]
pub(crate) struct Rollback {
    #[command(flatten)]
    pub(crate) target: Target,
    /// The version whose value comes back.
    #[arg(value_name = "VERSION")]
    pub(crate) version: u64,
    /// Show what would change, and write nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) write: Write,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true))]
pub(crate) struct Diff {
    #[command(flatten)]
    pub(crate) target: Target,
    /// From this version.
    #[arg(long, value_name = "N", requires = "to", group = "what", conflicts_with_all = ["env_from", "env_to"])]
    pub(crate) from: Option<u64>,
    /// To this version.
    #[arg(long, value_name = "N", requires = "from", group = "what")]
    pub(crate) to: Option<u64>,
    /// From the current value in this environment.
    #[arg(long, value_name = "ENV", requires = "env_to", group = "what")]
    pub(crate) env_from: Option<String>,
    /// To the current value in this environment.
    #[arg(long, value_name = "ENV", requires = "env_from", group = "what")]
    pub(crate) env_to: Option<String>,
    #[command(flatten)]
    pub(crate) read: Read,
}

#[derive(Debug, Args)]
pub(crate) struct Resolve {
    /// The namespace.
    #[arg(value_name = "NS")]
    pub(crate) namespace: String,
    /// Show the plaintext of secrets; it needs the right to, and leaves an audit record.
    #[arg(long)]
    pub(crate) reveal: bool,
    #[command(flatten)]
    pub(crate) read: Read,
}

#[derive(Debug, Args)]
pub(crate) struct Watch {
    /// The namespace.
    #[arg(value_name = "NS", required_unless_present_any = ["namespace_prefix", "all_namespaces"])]
    pub(crate) namespace: Option<String>,
    /// All namespaces that begin with this.
    #[arg(long, value_name = "PREFIX", conflicts_with = "namespace")]
    pub(crate) namespace_prefix: Option<String>,
    /// All namespaces.
    #[arg(long, conflicts_with_all = ["namespace", "namespace_prefix"])]
    pub(crate) all_namespaces: bool,
    /// Only keys that begin with this.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) prefix: String,
    /// Begin with this revision instead of the next change.
    #[arg(long, value_name = "R", default_value_t = 0, hide_default_value = true)]
    pub(crate) from_revision: u64,
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    /// Keep it up to date, every 2 seconds or as often as said, until interrupted.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2", value_parser = seconds)]
    pub(crate) watch: Option<Duration>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Cluster {
    /// Show the members as the leader sees them.
    List,
    /// Add a node that was started with --join, as a learner: it follows without a vote.
    Add(AddMember),
    /// Give a learner that has caught up its vote.
    Promote {
        /// The learner's node id.
        #[arg(value_name = "ID", value_parser = node_id())]
        id: u64,
        #[command(flatten)]
        force: Force,
    },
    /// Take a voter's vote; it goes on as a learner.
    Demote {
        /// The voter's node id.
        #[arg(value_name = "ID", value_parser = node_id())]
        id: u64,
        #[command(flatten)]
        force: Force,
    },
    /// Remove a member for ever: its id is never used again, and the node stops.
    Remove {
        /// The member's node id.
        #[arg(value_name = "ID", value_parser = node_id())]
        id: u64,
        #[command(flatten)]
        force: Force,
    },
    /// Let a learner that has caught up take a member's place, which may be dead, and remove that member.
    Replace(ReplaceMember),
    /// Make another voter the leader.
    TransferLeader {
        /// The voter's node id [default: the best candidate].
        #[arg(long, value_name = "ID", value_parser = node_id())]
        to: Option<u64>,
        #[command(flatten)]
        force: Force,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Force {
    /// Do it although the cluster may lose its quorum by it.
    #[arg(long)]
    pub(crate) force: bool,
}

/// The log of the waiting node has this line ready.
#[derive(Debug, Args)]
pub(crate) struct AddMember {
    /// The node's --node-id.
    #[arg(long, value_name = "N", value_parser = node_id())]
    pub(crate) id: u64,
    /// Its node-to-node address, as the other nodes reach it.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) raft: String,
    /// Its HTTP address, as clients reach it.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) http: String,
    /// Its client gRPC address, as clients reach it.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) grpc: String,
    #[command(flatten)]
    pub(crate) force: Force,
}

#[derive(Debug, Args)]
pub(crate) struct ReplaceMember {
    /// Node id of the member that goes.
    #[arg(value_name = "OLD", value_parser = node_id())]
    pub(crate) old: u64,
    /// Node id of the learner that takes its place.
    #[arg(long, value_name = "NEW", value_parser = node_id())]
    pub(crate) with: u64,
    #[command(flatten)]
    pub(crate) force: Force,
}

fn node_id() -> clap::builder::RangedU64ValueParser<u64> {
    clap::value_parser!(u64).range(1..)
}

#[derive(Debug, Subcommand)]
pub(crate) enum Backup {
    /// Write a backup of the whole store into a file; it gets its name only when it is complete and checked.
    Create(CreateBackup),
    /// List the backups that the nodes of --endpoints keep in their own data directories, newest first.
    List,
    /// Make a backup in the data directory of the node that answers, like its scheduled ones.
    Keep,
    /// Read a backup to its end, check all of it, and show what it holds. Needs no cluster.
    Verify {
        /// The file; `-` reads stdin.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Check a backup and print the commands that make a new cluster of it. A restore is done on the machines of the
    /// new nodes, by `llm-config-manager restore`, while no node runs there.
    Restore(RestoreBackup),
}

#[derive(Debug, Args)]
pub(crate) struct CreateBackup {
    /// The file, replaced if it is there; `-` writes to stdout.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// linearizable: everything acknowledged before is in it; cached: what the answering node has, needs no leader.
    #[arg(long, value_enum, default_value_t = Consistency::Linearizable)]
    pub(crate) consistency: Consistency,
}

#[derive(Debug, Args)]
pub(crate) struct RestoreBackup {
    /// The backup.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// The founding nodes of the new cluster, the same list for each of them.
    #[arg(long, value_name = "ID=HOST:RAFTPORT,…")]
    pub(crate) initial_cluster: String,
    /// Directory of each new node.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/llm-config")]
    pub(crate) data_dir: PathBuf,
    /// Any text, the same for each founding node: tells apart two clusters from one backup with the same list.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(crate) cluster_token: String,
}

/// A day: nothing waits longer.
const TIMEOUT_SECONDS_MAX: f64 = 86_400.0;

fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 =
        text.parse().map_err(|_| "must be a number of seconds, like 5 or 0.5".to_owned())?;
    if !(number > 0.0 && number <= TIMEOUT_SECONDS_MAX) {
        return Err(format!("must be above 0 and at most {TIMEOUT_SECONDS_MAX} seconds"));
    }
    Ok(Duration::from_secs_f64(number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("llm-config").chain(line.split_whitespace()))
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_documented_forms_parse() {
        for line in [
            "get ns key",
            "get ns key --version 3 --output json",
            "get ns key --resolve --env prod --consistency linearizable",
            "set ns key 0.2",
            "set ns key -5",
            "set ns key -",
            "set ns key --string hello",
            "delete ns key --expected-version 4",
            "list ns --prefix a/",
            "namespaces",
            "history ns key",
            "rollback ns key 3 --comment back",
            "diff ns key --from 1 --to 2",
            "diff ns key --env-from staging --env-to production",
            "resolve ns --env edge",
            "watch ns --prefix a --from-revision 9",
            "import models.json --namespace ns --env prod",
            "import - --namespace ns --format yaml",
            "import f.yaml --namespace ns --dry-run --replace --yes --in-parts --comment why",
            "export --namespace ns --env prod",
            "edit ns key --reveal",
            "edit ns/key --text --dry-run",
            "txn change.yaml --dry-run",
            "txn -",
            "txn --compare ns key 3 --set ns key -1 --delete ns other --read ns third",
            "schema put ns key -",
            "schema put ns key schema.json --expected-version 0",
            "schema get ns key",
            "schema list ns --prefix a",
            "schema delete ns key",
            "watch --namespace-prefix a/",
            "watch --all-namespaces",
            "rollback ns key 3 --dry-run",
            "status --watch",
            "status --watch 5",
            "context list",
            "context show",
            "context show prod",
            "context use prod",
            "context set prod --endpoints a:1 --token-file f --env prod --output json --use",
            "context set prod --unset token --unset tls-ca",
            "context delete prod",
            "get ns key --context prod --color never",
            "man",
            "man pages",
            "backup create store.backup",
            "backup create - --consistency cached",
            "backup list",
            "backup keep",
            "backup verify store.backup",
            "backup restore store.backup --initial-cluster 1=a:1,2=b:1 --cluster-token again",
            "status --endpoints a:1,b:2 --timeout 0.5",
            "cluster list --output yaml",
            "cluster add --id 4 --raft h:1 --http h:2 --grpc h:3",
            "cluster promote 4",
            "cluster demote 3 --force",
            "cluster remove 3 --force",
            "cluster replace 3 --with 4",
            "cluster transfer-leader",
            "cluster transfer-leader --to 2",
            "status --endpoints https://a:1 --tls-ca ca.pem --tls-cert c.pem --tls-key k.pem",
            "get ns key --reveal --token t",
            "resolve ns --reveal --token-file f",
            "set ns key - --string --secret",
            "set ns key --secret=false 1",
            "whoami",
            "token create ci --role viewer --role auditor --namespace team/app --environments prod,staging",
            "token create ci --role viewer --expires-in 90d --certificate ci.example",
            "token list",
            "token revoke abc",
            "role list --output yaml",
            "role get ops",
            "role put ops --grant read,write@team:prod --grant read --description x",
            "role put ops --file -",
            "role delete ops",
            "ban list",
            "ban lift 192.0.2.1",
            "audit list --type config.set --actor ann --namespace ns --key k --limit 5 --oldest-first",
            "audit list --from 2026-01-31T12:00:00Z --to 2026-02-01T00:00:00Z",
            "audit export --output json",
            "audit verify",
            "audit retention --max-age 400d --max-bytes 512MiB",
            "keys list",
            "keys rotate data --namespace ns",
            "keys rotate master",
            "completions bash",
            "baseline record --prometheus http://p:9090 --window 7d --file b.yml --rules r.yml --job j --cluster c",
            "baseline compare --prometheus p:9090 --file - --window 1d",
            "ops daily",
            "ops daily --prometheus p:1 --alertmanager a:1 --log f,g --data-dir d --since 1d --job j --cluster c",
            "ops daily --metrics a:9090,b:9090 --output json",
            "ops weekly --prometheus p:1 --file b.yml --runbook alerts.md",
        ] {
            if let Err(error) = parse(line) {
                panic!("{line}: {error}");
            }
        }
    }

    #[test]
    fn wrong_forms_are_refused() {
        for line in [
            "",
            "get ns",
            "get ns key --version x",
            "get ns key --version 1 --resolve",
            "set ns key",
            "diff ns key",
            "diff ns key --from 1",
            "diff ns key --from 1 --to 2 --env-from a --env-to b",
            "import f.json",
            "txn",
            "txn f --set n k 1",
            "txn --set n k",
            "schema put ns key",
            "watch",
            "watch ns --namespace-prefix n",
            "edit",
            "context",
            "context set",
            "get n k --color maybe",
            "cluster",
            "cluster add --id 4",
            "cluster promote 0",
            "cluster remove",
            "cluster replace 3",
            "backup",
            "backup create",
            "backup restore store.backup",
            "get ns key --token t --token-file f",
            "set ns key 1 --secret=maybe",
            "token create ci",
            "token create --role viewer",
            "token create ci --role viewer --expires-in 5",
            "role put ops",
            "role put ops --grant read --file f",
            "role put ops --grant @ns",
            "role put ops --file f --description x",
            "audit list --limit 0",
            "keys rotate",
            "keys rotate all",
            "baseline",
            "baseline record --prometheus p:1",
            "baseline record --window 7d",
            "baseline record --prometheus p:1 --window 1m",
            "baseline compare",
            "ops",
            "ops daily --prometheus p:1 --metrics a:1",
            "ops daily --cluster c",
            "ops daily --since 1y",
            "status --timeout 0",
            "status --timeout nan",
            "status --output xml",
        ] {
            let error = parse(line).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn a_token_is_not_shown_by_what_holds_it() {
        let cli = parse("status --token lcm_hidden").unwrap();
        assert!(!format!("{cli:?}").contains("hidden"));
        let error = parse("status --token lcm_hidden --token-file f").unwrap_err().to_string();
        assert!(!error.contains("hidden"), "{error}");
    }

    #[test]
    fn a_secret_is_one_only_when_it_is_said() {
        let secret = |line| match parse(line).unwrap().command {
            Command::Set(set) => set.secret,
            other => panic!("{other:?}"),
        };
        assert_eq!(secret("set n k 1"), None);
        assert_eq!(secret("set n k 1 --secret"), Some(true));
        assert_eq!(secret("set n k --secret 1"), Some(true));
        assert_eq!(secret("set n k 1 --secret=false"), Some(false));
    }

    #[test]
    fn endpoints_are_split_and_base_is_the_default() {
        let cli = parse("status --endpoints a:1,b:2").unwrap();
        assert_eq!(cli.global.endpoints, ["a:1", "b:2"]);
        assert!(cli.global.output.is_none() && cli.global.color == Color::Auto);
        assert_eq!(cli.global.environment(), "base");
    }
}
