//! What a command works with: command line, else environment variable, else context, else default, each by itself.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

use crate::Usage;
use crate::args::{Format, Global};
use crate::contexts::file::{self, Context, File};
use crate::credentials;

const ENDPOINTS: &str = "LLM_CONFIG_ENDPOINTS";
const CONTEXT: &str = "LLM_CONFIG_CONTEXT";
const TLS_CA: &str = "LLM_CONFIG_TLS_CA";
const TLS_CERT: &str = "LLM_CONFIG_TLS_CERT";
const TLS_KEY: &str = "LLM_CONFIG_TLS_KEY";
const ENDPOINT_DEFAULT: &str = "127.0.0.1:50051";

/// What the process was started with.
pub(crate) fn variable(name: &str) -> Option<OsString> {
    env::var_os(name)
}

/// Fills in what the command line leaves open.
///
/// # Errors
/// A context that is named and not there, a file of contexts that cannot be read, a variable that is not text.
pub(crate) fn complete(
    mut global: Global,
    variable: impl Fn(&str) -> Option<OsString>,
) -> anyhow::Result<Global> {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    let context = context(&global, set)?;
    if global.endpoints.is_empty()
        && let Some(given) = set(ENDPOINTS)
    {
        global.endpoints = text(ENDPOINTS, given)?.split(',').map(str::to_owned).collect();
    }
    if global.endpoints.is_empty() {
        global.endpoints = context.endpoints;
    }
    if global.endpoints.is_empty() {
        global.endpoints = vec![ENDPOINT_DEFAULT.to_owned()];
    }
    let tls = &mut global.tls;
    let path = |name| set(name).map(PathBuf::from);
    tls.tls_ca = tls.tls_ca.take().or_else(|| path(TLS_CA)).or(context.tls_ca);
    // A certificate and its key come from one place.
    for (cert, key) in [(path(TLS_CERT), path(TLS_KEY)), (context.tls_cert, context.tls_key)] {
        if tls.tls_cert.is_none() && tls.tls_key.is_none() {
            (tls.tls_cert, tls.tls_key) = (cert, key);
        }
    }
    credentials::complete(&mut global.credentials, set, context.token, context.token_file)?;
    global.context_environment = context.environment;
    global.output = Some(global.output.or(context.output).unwrap_or(Format::Table));
    Ok(global)
}

fn context(global: &Global, set: impl Fn(&str) -> Option<OsString>) -> anyhow::Result<Context> {
    let named = match &global.context {
        Some(name) => Some(name.clone()),
        None => set(CONTEXT).map(|name| text(CONTEXT, name)).transpose()?,
    };
    let Some(path) = file::path(&set) else {
        return match named {
            None => Ok(Context::default()),
            Some(_) => {
                Err(Usage(format!("there is no file of contexts; set HOME or {}", file::FILE))
                    .into())
            }
        };
    };
    let file = File::read(&path)?;
    match named.or_else(|| file.current.clone()) {
        Some(name) => Ok(file.named(&name, &path)?.clone()),
        None => Ok(Context::default()),
    }
}

fn text(name: &str, value: OsString) -> Result<String, Usage> {
    value.into_string().map_err(|_| Usage(format!("{name}: it is not text")))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::Cli;

    const CONTEXTS: &str = "current: a\ncontexts:\n  a:\n    endpoints: [ctx:1]\n    token_file: /t\n    tls_cert: /c\n    tls_key: /k\n    environment: staging\n    output: yaml\n  b:\n    endpoints: [other:1]\n";

    fn complete_from(line: &str, variables: &[(&str, &str)]) -> anyhow::Result<Global> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.yaml");
        std::fs::write(&path, CONTEXTS).unwrap();
        let line = format!("llm-config {line} status");
        let cli = Cli::try_parse_from(line.split_whitespace()).unwrap();
        complete(cli.global, |name| {
            if name == file::FILE {
                return Some(path.clone().into());
            }
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).into())
        })
    }

    #[test]
    fn the_command_line_goes_before_variables_before_the_context_before_the_default() {
        let endpoint = |line: &str, variables: &[(&str, &str)]| {
            complete_from(line, variables).unwrap().endpoints.join(" ")
        };
        let variables = [(ENDPOINTS, "env:1,env:2")];
        assert_eq!(endpoint("--endpoints flag:1", &variables), "flag:1");
        assert_eq!(endpoint("", &variables), "env:1 env:2");
        assert_eq!(endpoint("", &[]), "ctx:1");
        assert_eq!(endpoint("", &[(ENDPOINTS, "")]), "ctx:1");
        assert_eq!(endpoint("--context b", &[(CONTEXT, "a")]), "other:1");
        assert_eq!(endpoint("", &[(CONTEXT, "b")]), "other:1");
        let bare =
            complete(Cli::try_parse_from(["llm-config", "status"]).unwrap().global, |_| None)
                .unwrap();
        assert_eq!(
            (bare.endpoints, bare.output),
            (vec![ENDPOINT_DEFAULT.to_owned()], Some(Format::Table))
        );
    }

    #[test]
    fn each_field_is_looked_up_by_itself_and_pairs_stay_together() {
        let global = complete_from("--env prod --tls-cert /mine --tls-key /my-key", &[]).unwrap();
        assert_eq!(global.environment(), "prod");
        assert_eq!(global.tls.tls_key, Some("/my-key".into()));
        assert_eq!(global.credentials.token_file, Some("/t".into()));
        assert_eq!(global.output, Some(Format::Yaml));
        let global =
            complete_from("--output json", &[("LLM_CONFIG_TOKEN", "x"), (TLS_CERT, "/e")]).unwrap();
        assert_eq!((global.env.clone(), global.environment()), (None, "staging".to_owned()));
        assert!(global.credentials.token.is_some() && global.credentials.token_file.is_none());
        assert_eq!((global.tls.tls_cert, global.tls.tls_key), (Some("/e".into()), None));
        assert_eq!(global.output, Some(Format::Json));
    }

    #[test]
    fn a_context_that_is_not_there_is_wrong_usage() {
        let error = complete_from("--context c", &[]).unwrap_err();
        assert!(error.is::<Usage>() && error.to_string().contains("a, b"), "{error}");
    }
}
