//! The command line client, thin over the SDK: `args` says what can be asked, `commands` asks it, `output` prints it.
//!
//! Data goes to stdout, words to stderr. Exit codes: 0 done, 1 not there or refused or not answered, 2 wrong usage.

/// Words on stderr, like `eprintln!`, which panics when nobody reads them any more.
macro_rules! say {
    ($($words:tt)*) => { $crate::output::say(&format!($($words)*)) };
}

mod args;
mod audit;
mod backup;
mod bans;
mod baseline;
mod cluster;
mod commands;
mod contexts;
mod credentials;
mod diff;
mod document;
mod edit;
mod endpoints;
mod export;
mod exposition;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod health;
mod http;
mod import;
mod json;
mod keys;
mod man;
mod ops;
mod output;
mod pages;
mod place;
mod prometheus;
#[cfg(test)]
#[path = "../../.ci/fuzz/replay.rs"]
mod replay;
mod roles;
mod schema;
mod scope;
mod settings;
mod status;
mod tls;
mod tokens;
mod txn;
mod view;
mod watch;
mod yaml;

use std::fmt;
use std::io;

pub use args::Cli;

/// Wrong use of the program: exit code 2.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// Runs one command and says its exit code.
pub async fn run(cli: Cli) -> u8 {
    match commands::run(cli).await {
        Ok(()) => 0,
        Err(error) => report(&error),
    }
}

fn report(error: &anyhow::Error) -> u8 {
    // The reader of stdout has what it wanted (`| head`): not a fault.
    let broken_pipe = error.chain().any(|cause| {
        cause.downcast_ref::<io::Error>().is_some_and(|io| io.kind() == io::ErrorKind::BrokenPipe)
    });
    if broken_pipe {
        return 0;
    }
    say!("error: {error:#}");
    // The first one is in the message already.
    for violation in violations(error).iter().skip(1) {
        say!("       and at \"{}\", {}", violation.path, violation.message);
    }
    exit_code(error)
}

/// What a value does not meet, when that is the error.
fn violations(error: &anyhow::Error) -> &[llm_config_client::Violation] {
    let rejection = error.chain().find_map(|cause| {
        cause.downcast_ref::<llm_config_client::Error>().and_then(|error| error.rejection())
    });
    rejection.map_or(&[], |rejection| &rejection.violations)
}

fn exit_code(error: &anyhow::Error) -> u8 {
    let usage = error.chain().any(|cause| {
        cause.is::<Usage>()
            || matches!(
                cause.downcast_ref(),
                Some(
                    llm_config_client::Error::InvalidEndpoint { .. }
                        | llm_config_client::Error::InvalidTls { .. }
                        | llm_config_client::Error::InvalidToken { .. }
                )
            )
    });
    if usage { 2 } else { 1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;
    use llm_config_client::Error;

    #[test]
    fn exit_codes_tell_usage_from_refusal() {
        let usage = anyhow::Error::new(Usage("no".into())).context("outer");
        assert_eq!(exit_code(&usage), 2);
        let endpoint: anyhow::Result<()> =
            Err(Error::InvalidEndpoint { endpoint: "x".into(), reason: "y".into() })
                .context("outer");
        assert_eq!(exit_code(&endpoint.unwrap_err()), 2);
        let token = anyhow::Error::new(Error::InvalidToken { reason: "it is empty".into() });
        assert_eq!(exit_code(&token), 2);
        let refused = anyhow::Error::new(Error::NotSent { reason: "no leader".into() });
        assert_eq!(exit_code(&refused), 1);
    }

    #[test]
    fn a_broken_pipe_is_quiet() {
        let pipe = anyhow::Error::new(io::Error::from(io::ErrorKind::BrokenPipe)).context("stdout");
        assert_eq!(report(&pipe), 0);
    }
}
