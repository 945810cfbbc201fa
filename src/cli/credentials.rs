//! `--token` and `--token-file`, their environment variables, and those of the context: which of them counts.

use std::ffi::OsString;
use std::path::PathBuf;

use llm_config_client::Options;

use crate::Usage;
use crate::args::{Credentials, TokenText};

const TOKEN: &str = "LLM_CONFIG_TOKEN";
const TOKEN_FILE: &str = "LLM_CONFIG_TOKEN_FILE";

/// The options with what is to be shown, if anything.
pub(crate) fn add(options: Options, given: &Credentials) -> Options {
    match (&given.token, &given.token_file) {
        (Some(token), _) => options.token(token.0.as_str()),
        (None, Some(path)) => options.token_file(path),
        (None, None) => options,
    }
}

/// What was given on the command line, else in the environment, else in the context. Of one place, never of two: who
/// names a token means no other.
pub(crate) fn complete(
    given: &mut Credentials,
    set: impl Fn(&str) -> Option<OsString>,
    token: Option<TokenText>,
    token_file: Option<PathBuf>,
) -> Result<(), Usage> {
    if given.token.is_some() || given.token_file.is_some() {
        return Ok(());
    }
    (given.token, given.token_file) = match (set(TOKEN), set(TOKEN_FILE)) {
        (None, None) => (token, token_file),
        (Some(token), None) => match token.into_string() {
            Ok(token) => (Some(TokenText(token)), None),
            Err(_) => return Err(Usage(format!("{TOKEN}: it is not text"))),
        },
        (None, Some(path)) => (None, Some(path.into())),
        (Some(_), Some(_)) => {
            return Err(Usage(format!("{TOKEN} and {TOKEN_FILE} are both set; unset one of them")));
        }
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(
        token: Option<&str>,
        file: Option<&str>,
        environment: &[(&str, &str)],
    ) -> Result<String, Usage> {
        let mut given = Credentials {
            token: token.map(|text| TokenText(text.to_owned())),
            token_file: file.map(PathBuf::from),
        };
        let variable = |name: &str| {
            let found = environment.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).into())
        };
        complete(&mut given, variable, None, Some("c".into()))?;
        let options = add(Options::default(), &given);
        Ok(options.token.map_or_else(|| "none".to_owned(), |token| format!("{token:?}")))
    }

    #[test]
    fn the_command_line_goes_before_the_environment_before_the_context() {
        let both = [(TOKEN, "x"), (TOKEN_FILE, "g")];
        assert_eq!(chosen(None, None, &[]).unwrap(), "Token(in c)");
        assert_eq!(chosen(Some("t"), None, &both).unwrap(), "Token(..)");
        assert_eq!(chosen(None, Some("f"), &both).unwrap(), "Token(in f)");
        assert_eq!(chosen(None, None, &both[..1]).unwrap(), "Token(..)");
        assert_eq!(chosen(None, None, &both[1..]).unwrap(), "Token(in g)");
        let error = chosen(None, None, &both).unwrap_err().0;
        assert!(error.contains(TOKEN) && error.contains(TOKEN_FILE), "{error}");
        let nothing = add(Options::default(), &Credentials::default());
        assert!(nothing.token.is_none());
    }
}
