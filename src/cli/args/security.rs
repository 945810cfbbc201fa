//! Tokens, roles, bans, the audit log, keys: what can be asked about who may do what.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

#[derive(Debug, Subcommand)]
pub(crate) enum Tokens {
    /// Make a token and print its text, which is shown this once.
    ///
    /// Nobody hands out a right that they do not have.
    Create(CreateToken),
    /// List the tokens; their texts are kept nowhere.
    List,
    /// Revoke a token: nobody is let in with it any more.
    Revoke {
        /// The token's id.
        #[arg(value_name = "ID")]
        id: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct CreateToken {
    /// Who it is for: what is done with it is done under this name.
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// A role; may be repeated.
    #[arg(long = "role", value_name = "ROLE", required = true)]
    pub(crate) roles: Vec<String>,
    #[command(flatten)]
    pub(crate) scope: Scope,
    /// It expires after this time, like 90d, 12h or 30m [default: never].
    #[arg(long, value_name = "TIME", value_parser = age)]
    pub(crate) expires_in: Option<Duration>,
    /// A name in the client certificates that prove it, instead of a text.
    #[arg(long, value_name = "NAME")]
    pub(crate) certificate: Option<String>,
}

/// Where something holds.
#[derive(Debug, Args)]
pub(crate) struct Scope {
    /// Good for this namespace and everything below it only; may be repeated [default: all].
    #[arg(long = "namespace", value_name = "NS")]
    pub(crate) namespaces: Vec<String>,
    /// Good for these environments only, separated by commas [default: that of --env, else all].
    #[arg(long, value_name = "ENV[,ENV…]", value_delimiter = ',')]
    pub(crate) environments: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Roles {
    /// List the roles, built-in ones included.
    List,
    /// Show a role.
    Get {
        /// The role's name.
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Make a role, or replace it.
    Put(PutRole),
    /// Delete a role. Who has it loses what it allows.
    Delete {
        /// The role's name.
        #[arg(value_name = "NAME")]
        name: String,
    },
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true))]
pub(crate) struct PutRole {
    /// The role's name.
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// What it is for.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) description: String,
    /// What it allows, and where, like read,write@team/app:production,staging; may be repeated. Actions: read, write,
    /// delete, rollback, reveal, audit, auth, cluster, backup. Without namespaces or environments it holds in all of
    /// them.
    #[arg(
        long = "grant",
        value_name = "ACTION[,ACTION…][@NS[,NS…]][:ENV[,ENV…]]",
        value_parser = grant,
        group = "what"
    )]
    pub(crate) grants: Vec<Grant>,
    /// The whole role as JSON, as `role get --output json` prints it; `-` reads stdin.
    #[arg(long, value_name = "FILE", group = "what", conflicts_with = "description")]
    pub(crate) file: Option<PathBuf>,
}

/// Actions, and where they are allowed. An empty list is all namespaces, or all environments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) actions: Vec<String>,
    pub(crate) namespaces: Vec<String>,
    pub(crate) environments: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Bans {
    /// List the addresses that are shut out.
    List,
    /// Let an address in again.
    Lift {
        /// The address, as it is listed.
        #[arg(value_name = "ADDRESS")]
        address: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// List what happened, newest first.
    List(ListAudit),
    /// Print all that happened, oldest first: one line of JSON, or one YAML document, for each record.
    Export(AuditFilter),
    /// Walk the chain of records on each endpoint. Exit code 1 when one is broken, or cannot be asked.
    Verify,
    /// Show how long records stay; with an option, change it.
    Retention(Retention),
}

#[derive(Debug, Args)]
pub(crate) struct ListAudit {
    #[command(flatten)]
    pub(crate) filter: AuditFilter,
    /// Oldest first.
    #[arg(long)]
    pub(crate) oldest_first: bool,
    /// How many records at most.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) limit: u32,
    #[command(flatten)]
    pub(crate) read: super::Read,
}

#[derive(Debug, Args)]
pub(crate) struct AuditFilter {
    /// Only this type, like config.set, secret.reveal or access.denied.
    #[arg(long = "type", value_name = "TYPE", default_value = "", hide_default_value = true)]
    pub(crate) kind: String,
    /// Only what was done under this name.
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    pub(crate) actor: String,
    /// Only what happened to entries of this namespace.
    #[arg(long, value_name = "NS", default_value = "", hide_default_value = true)]
    pub(crate) namespace: String,
    /// Only what happened to entries with this key.
    #[arg(long, value_name = "KEY", default_value = "", hide_default_value = true)]
    pub(crate) key: String,
    /// From this time on, like 2026-01-31T12:00:00Z.
    #[arg(long, value_name = "TIME")]
    pub(crate) from: Option<String>,
    /// Before this time.
    #[arg(long, value_name = "TIME")]
    pub(crate) to: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Retention {
    /// Records stay at most this long, like 400d.
    #[arg(long, value_name = "TIME", value_parser = age)]
    pub(crate) max_age: Option<Duration>,
    /// Records take at most this much room, like 512MiB.
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub(crate) max_bytes: Option<u64>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Keys {
    /// List the data keys and which master key wraps each, as the answering node knows them.
    List,
    /// Exchange keys while the cluster serves.
    Rotate(RotateKeys),
}

#[derive(Debug, Args)]
pub(crate) struct RotateKeys {
    /// Which keys.
    #[arg(value_enum, value_name = "TARGET")]
    pub(crate) target: RotationTarget,
    /// Only those of this namespace.
    #[arg(long, value_name = "NS", default_value = "", hide_default_value = true)]
    pub(crate) namespace: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RotationTarget {
    /// Each namespace gets a new data key, and its secrets are put under it.
    Data,
    /// Data keys are wrapped with the answering node's current master key.
    Master,
}

/// Neither `@` nor `:` can be in a name.
fn grant(text: &str) -> Result<Grant, String> {
    let (rest, environments) = text.split_once(':').map_or((text, None), |(a, b)| (a, Some(b)));
    let (actions, namespaces) = rest.split_once('@').map_or((rest, None), |(a, b)| (a, Some(b)));
    let list = |text: Option<&str>| -> Result<Vec<String>, String> {
        let words: Vec<_> = text.into_iter().flat_map(|text| text.split(',')).collect();
        if words.contains(&"") {
            return Err("must be like read,write@team/app:production,staging".to_owned());
        }
        Ok(words.into_iter().map(str::to_owned).collect())
    };
    Ok(Grant {
        actions: list(Some(actions))?,
        namespaces: list(namespaces)?,
        environments: list(environments)?,
    })
}

/// A time as a number with a unit.
pub(super) fn age(text: &str) -> Result<Duration, String> {
    let refuse = || "must be a whole number with a unit, like 90d, 12h, 30m or 45s".to_owned();
    let (digits, unit) = split(text).ok_or_else(refuse)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 24 * 3_600,
        _ => return Err(refuse()),
    };
    let n: u64 = digits.parse().map_err(|_| refuse())?;
    n.checked_mul(seconds).filter(|n| *n > 0).map(Duration::from_secs).ok_or_else(refuse)
}

/// A size in bytes, or with a unit.
fn bytes(text: &str) -> Result<u64, String> {
    let refuse = || "must be a number of bytes, or one with a unit, like 512MiB or 2GiB".to_owned();
    let (digits, unit) = split(text).ok_or_else(refuse)?;
    let shift = match unit {
        "" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return Err(refuse()),
    };
    let n: u64 = digits.parse().map_err(|_| refuse())?;
    n.checked_mul(1 << shift).ok_or_else(refuse)
}

fn split(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|char: char| !char.is_ascii_digit()).unwrap_or(text.len());
    text.split_at_checked(end).filter(|(digits, _)| !digits.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_says_what_and_where() {
        let parts = |text: &str| {
            let Grant { actions, namespaces, environments } = grant(text).unwrap();
            [actions, namespaces, environments].map(|words| words.join("+"))
        };
        assert_eq!(parts("read"), ["read", "", ""]);
        assert_eq!(
            parts("read,write@team/app,x:prod,edge"),
            ["read+write", "team/app+x", "prod+edge"]
        );
        assert_eq!(parts("read:prod"), ["read", "", "prod"]);
        for bad in ["", "read,", "@ns", "read@", "read@ns:", "read:"] {
            assert!(grant(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_and_sizes_have_units() {
        assert_eq!(age("90d"), Ok(Duration::from_secs(90 * 86_400)));
        assert_eq!(age("45s"), Ok(Duration::from_secs(45)));
        assert_eq!(bytes("512MiB"), Ok(512 << 20));
        assert_eq!(bytes("1000"), Ok(1_000));
        for bad in ["", "d", "5", "5w", "0h", "-1h", "1.5h", "99999999999999999999s"] {
            assert!(age(bad).is_err(), "{bad}");
        }
        for bad in ["", "MiB", "5MB", "-1", "99999999999999999999"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }
}
