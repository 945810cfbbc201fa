//! Commands that read or write whole documents: import, export, txn, edit, schema, and the file of contexts.

use clap::{Args, Subcommand, ValueEnum};

use super::{Read, Target};

pub(super) const EDIT_EXAMPLES: &str = "\
Examples:
  llm-config edit shop/assistant model
  llm-config edit shop/assistant prompt --text      a text as it is, without quotes and escapes
  EDITOR='code --wait' llm-config edit shop/assistant model --env production";

pub(super) const TXN_EXAMPLES: &str = "\
Examples:
  llm-config txn --compare shop/assistant model 4 --set shop/assistant model '{\"name\": \"claude\"}' \\
      --delete shop/assistant fallback
  llm-config txn change.yaml --dry-run
  llm-config txn - < change.json

change.yaml:
  compare:
    - {namespace: shop/assistant, key: model, env: production, version: 4}
  success:
    - {op: set, namespace: shop/assistant, key: model, env: production, value: {name: claude}}
    - {op: delete, namespace: shop/assistant, key: fallback, env: production}
  failure:
    - {op: get, namespace: shop/assistant, key: model, env: production}";

pub(super) const IMPORT_EXAMPLES: &str = "\
Examples:
  llm-config import models.yaml --namespace shop/assistant --env production --dry-run
  llm-config import models.yaml --namespace shop/assistant --env production --comment 'prices of May'
  llm-config import models.yaml --namespace shop/assistant --replace
  llm-config export --namespace a --env staging | llm-config import - --namespace a --env production";

pub(super) const EXPORT_EXAMPLES: &str = "\
Examples:
  llm-config export --namespace shop/assistant --env production > models.json
  llm-config export --namespace shop/assistant --output yaml > models.yaml";

pub(super) const MAN_EXAMPLES: &str = "\
Examples:
  llm-config man ~/.local/share/man/man1
  llm-config man | man -l -";

pub(super) const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  llm-config completions bash > ~/.local/share/bash-completion/completions/llm-config
  llm-config completions zsh > \"${fpath[1]}/_llm-config\"
  llm-config completions fish > ~/.config/fish/completions/llm-config.fish";

const SCHEMA_EXAMPLES: &str = "\
Examples:
  llm-config schema put shop/assistant temperature - <<< '{\"type\": \"number\", \"maximum\": 2}'
  llm-config schema put shop/assistant model model.schema.yaml --comment 'max_tokens is required'";

const CONTEXT_EXAMPLES: &str = "\
Examples:
  llm-config context set prod --endpoints https://a:50051,https://b:50051 --token-file ~/.token --env production
  llm-config context set prod --output json
  llm-config context set prod --unset output";

#[derive(Debug, Args)]
pub(crate) struct Import {
    /// JSON or YAML file; `-` reads stdin.
    #[arg(value_name = "FILE")]
    pub(crate) file: String,
    /// The namespace.
    #[arg(long, value_name = "NS")]
    pub(crate) namespace: String,
    /// The file's format [default: by its name, else by its first character].
    #[arg(long, value_enum)]
    pub(crate) format: Option<FileFormat>,
    /// Why this change; kept with each version.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) comment: String,
    /// Show what would change, and write nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Delete the keys that the file lacks, secrets included; it asks first.
    #[arg(long)]
    pub(crate) replace: bool,
    /// Do not ask before deleting.
    #[arg(long, requires = "replace")]
    pub(crate) yes: bool,
    /// Write what is too much for one transaction in several: each is atomic, all together are not.
    #[arg(long)]
    pub(crate) in_parts: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FileFormat {
    Json,
    Yaml,
}

#[derive(Debug, Args)]
pub(crate) struct Export {
    /// The namespace.
    #[arg(long, value_name = "NS")]
    pub(crate) namespace: String,
}

#[derive(Debug, Args)]
pub(crate) struct Txn {
    /// JSON or YAML file with `compare`, `success` and `failure`; `-` reads stdin.
    #[arg(value_name = "FILE", required_unless_present_any = ["set", "delete", "read"])]
    pub(crate) file: Option<String>,
    /// The file's format [default: by its name, else by its first character].
    #[arg(long, value_enum, requires = "file")]
    pub(crate) format: Option<FileFormat>,
    /// The entry must be at this version; 0: must not exist. May be repeated, as the following.
    #[arg(
        long,
        num_args = 3,
        value_names = ["NS", "KEY", "VERSION"],
        conflicts_with = "file"
    )]
    pub(crate) compare: Vec<String>,
    /// Write this value, JSON. All writes come before the deletes, these before the reads.
    #[arg(
        long,
        num_args = 3,
        value_names = ["NS", "KEY", "VALUE"],
        conflicts_with = "file",
        allow_negative_numbers = true
    )]
    pub(crate) set: Vec<String>,
    /// Delete this entry.
    #[arg(long, num_args = 2, value_names = ["NS", "KEY"], conflicts_with = "file")]
    pub(crate) delete: Vec<String>,
    /// Read this entry.
    #[arg(long, num_args = 2, value_names = ["NS", "KEY"], conflicts_with = "file")]
    pub(crate) read: Vec<String>,
    /// Why this change; kept with each version whose operation has no comment of its own.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) comment: String,
    /// Show what would happen, and write nothing. The entries are read one after the other.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Sent again with the same key within ten minutes, the same transaction happens only once.
    #[arg(long, value_name = "KEY", default_value = "", hide_default_value = true)]
    pub(crate) idempotency_key: String,
}

#[derive(Debug, Args)]
pub(crate) struct Edit {
    /// The namespace; or `NS/KEY` where neither has another `/`.
    #[arg(value_name = "NS")]
    pub(crate) namespace: String,
    /// The key in it.
    #[arg(value_name = "KEY")]
    pub(crate) key: Option<String>,
    /// Edit a value that is a string as the text that it is.
    #[arg(long)]
    pub(crate) text: bool,
    /// Edit the plaintext of a secret; it needs the right to, and leaves an audit record.
    #[arg(long)]
    pub(crate) reveal: bool,
    /// Why this change; kept with the version.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) comment: String,
    /// Show what would change, and write nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Schemas {
    /// Put the schema that every later value of a key has to meet, in every environment.
    ///
    /// Values that are there already stay, whether or not they meet it.
    #[command(after_help = SCHEMA_EXAMPLES)]
    Put(PutSchema),
    /// Print the schema of a key.
    Get(SchemaTarget),
    /// List the schemas of a namespace, sorted by key.
    List(ListSchemas),
    /// Delete the schema of a key: its later values may be anything.
    Delete(DeleteSchema),
}

#[derive(Debug, Args)]
pub(crate) struct PutSchema {
    #[command(flatten)]
    pub(crate) target: Target,
    /// JSON or YAML file with the schema; `-` reads stdin.
    #[arg(value_name = "FILE")]
    pub(crate) file: String,
    /// The file's format [default: by its name, else by its first character].
    #[arg(long, value_enum)]
    pub(crate) format: Option<FileFormat>,
    #[command(flatten)]
    pub(crate) write: super::Write,
}

#[derive(Debug, Args)]
pub(crate) struct SchemaTarget {
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(flatten)]
    pub(crate) read: Read,
}

#[derive(Debug, Args)]
pub(crate) struct ListSchemas {
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
pub(crate) struct DeleteSchema {
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(flatten)]
    pub(crate) write: super::Write,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Contexts {
    /// List the contexts.
    List,
    /// Show a context; a token that is in it is masked.
    Show {
        /// Its name [default: that of the current one].
        #[arg(value_name = "NAME")]
        name: Option<String>,
    },
    /// Make a context the current one: it counts when none is named.
    Use {
        /// Its name.
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Make a context, or change one: of what is given, by --endpoints, --token-file, --tls-ca, --tls-cert, --tls-key,
    /// --env and --output. The first one is current at once.
    #[command(after_help = CONTEXT_EXAMPLES)]
    Set(SetContext),
    /// Delete a context.
    Delete {
        /// Its name.
        #[arg(value_name = "NAME")]
        name: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct SetContext {
    /// Its name: 1 to 64 letters, digits, '.', '_' or '-'.
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// Make it the current one.
    #[arg(long)]
    pub(crate) r#use: bool,
    /// Keep the text of --token in the file, which only its owner can read.
    #[arg(long)]
    pub(crate) store_token: bool,
    /// Remove a field first; may be repeated.
    #[arg(long, value_name = "FIELD", value_enum)]
    pub(crate) unset: Vec<ContextField>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ContextField {
    Endpoints,
    /// The token and the token file.
    Token,
    TlsCa,
    TlsCert,
    TlsKey,
    Env,
    Output,
}
