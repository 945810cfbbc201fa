//! `--token` and `--token-file`, and their environment variables: which of them counts.

use std::env;
use std::path::PathBuf;

use llm_config_client::Options;

use crate::Usage;
use crate::args::Credentials;

const TOKEN: &str = "LLM_CONFIG_TOKEN";
const TOKEN_FILE: &str = "LLM_CONFIG_TOKEN_FILE";

/// The options with what was given: on the command line, else in the environment.
pub(crate) fn add(options: Options, given: &Credentials) -> Result<Options, Usage> {
    add_from(options, given, |name| env::var_os(name))
}

fn add_from(
    options: Options,
    given: &Credentials,
    variable: impl Fn(&str) -> Option<std::ffi::OsString>,
) -> Result<Options, Usage> {
    if let Some(token) = &given.token {
        return Ok(options.token(token.0.as_str()));
    }
    if let Some(path) = &given.token_file {
        return Ok(options.token_file(path));
    }
    // An empty one counts as not set.
    let variable = |name| variable(name).filter(|value| !value.is_empty());
    match (variable(TOKEN), variable(TOKEN_FILE)) {
        (None, None) => Ok(options),
        (Some(token), None) => match token.into_string() {
            Ok(token) => Ok(options.token(token)),
            Err(_) => Err(Usage(format!("{TOKEN}: it is not text"))),
        },
        (None, Some(path)) => Ok(options.token_file(PathBuf::from(path))),
        (Some(_), Some(_)) => {
            Err(Usage(format!("{TOKEN} and {TOKEN_FILE} are both set; unset one of them")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::TokenText;

    fn chosen(
        token: Option<&str>,
        file: Option<&str>,
        environment: &[(&str, &str)],
    ) -> Result<String, Usage> {
        let given = Credentials {
            token: token.map(|text| TokenText(text.to_owned())),
            token_file: file.map(PathBuf::from),
        };
        let variable = |name: &str| {
            let found = environment.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).into())
        };
        let options = add_from(Options::default(), &given, variable)?;
        Ok(options.token.map_or_else(|| "none".to_owned(), |token| format!("{token:?}")))
    }

    #[test]
    fn the_command_line_goes_before_the_environment() {
        let both = [(TOKEN, "x"), (TOKEN_FILE, "g")];
        assert_eq!(chosen(None, None, &[]).unwrap(), "none");
        assert_eq!(chosen(Some("t"), None, &both).unwrap(), "Token(..)");
        assert_eq!(chosen(None, Some("f"), &both).unwrap(), "Token(in f)");
        assert_eq!(chosen(None, None, &both[..1]).unwrap(), "Token(..)");
        assert_eq!(chosen(None, None, &both[1..]).unwrap(), "Token(in g)");
        assert_eq!(chosen(None, None, &[(TOKEN, ""), (TOKEN_FILE, "g")]).unwrap(), "Token(in g)");
        let error = chosen(None, None, &both).unwrap_err().0;
        assert!(error.contains(TOKEN) && error.contains(TOKEN_FILE), "{error}");
    }
}
