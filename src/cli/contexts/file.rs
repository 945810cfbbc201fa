//! The file of contexts: where it is, what may stand in it, and how it is replaced. Nothing of it is asked of a cluster.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use serde::{Deserialize, Serialize};

use crate::args::{Format, TokenText};
use crate::{Usage, yaml};

/// Names another file.
pub(crate) const FILE: &str = "LLM_CONFIG_FILE";

/// A file of people: more is a mistake.
const BYTES_MAX: u64 = 1 << 20;
const NAME_CHARS_MAX: usize = 64;

/// Clusters by name, and which of them is meant when none is named.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct File {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) current: Option<String>,
    #[serde(default)]
    pub(crate) contexts: BTreeMap<String, Context>,
}

/// How one cluster is reached, and what is meant there when nothing else is said.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Context {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) endpoints: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token_file: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<TokenText>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tls_ca: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tls_cert: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tls_key: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) environment: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) output: Option<Format>,
}

/// Where the file is, whether or not it is there; nothing without a home.
pub(crate) fn path(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let set = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(path) = set(FILE) {
        return Some(path);
    }
    // A relative one counts as not set, as the standard for it says.
    let home = || set("HOME").map(|home| home.join(".config"));
    let folder = set("XDG_CONFIG_HOME").filter(|path| path.is_absolute()).or_else(home)?;
    Some(folder.join("llm-config").join("config.yaml"))
}

impl File {
    /// What is in the file; nothing when there is none.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let wrong = |reason: String| Usage(format!("{}: {reason}", path.display()));
        match std::fs::metadata(path) {
            Ok(about) if about.len() > BYTES_MAX => {
                return Err(wrong(format!("is larger than {BYTES_MAX} bytes")).into());
            }
            Ok(_) => {}
            // In a folder that cannot be entered there is none for this user, as under `sudo`.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::PermissionDenied
                ) =>
            {
                return Ok(Self::default());
            }
            Err(error) => return Err(wrong(error.to_string()).into()),
        }
        let bytes = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
        Self::parse(&bytes).map_err(|error| wrong(format!("{error:#}")).into())
    }

    pub(crate) fn parse(bytes: &[u8]) -> anyhow::Result<Self> {
        let text = std::str::from_utf8(bytes).context("is not UTF-8 text")?;
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let file: Self = serde_saphyr::from_str(text)
            .map_err(|error| anyhow!("{error}"))
            .context("is not a file of contexts")?;
        for (name, context) in &file.contexts {
            check_name(name).map_err(|error| anyhow!(error.0))?;
            if context.token.is_some() && context.token_file.is_some() {
                return Err(anyhow!(
                    "context {name:?} has token and token_file; leave one of them"
                ));
            }
        }
        if let Some(current) = &file.current
            && !file.contexts.contains_key(current)
        {
            return Err(anyhow!("current is {current:?}, and there is no such context"));
        }
        Ok(file)
    }

    /// Replaces the file as a whole, readable for its owner only.
    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        // Through a link, so that a file that is kept elsewhere stays there.
        let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
        let replaced = || -> anyhow::Result<()> {
            // Made with mode 0600.
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            file.write_all(yaml::write(&serde_json::value::to_raw_value(self)?).as_bytes())?;
            file.as_file().sync_all()?;
            file.persist(&path)?;
            Ok(())
        };
        replaced().with_context(|| format!("cannot write {}", path.display()))
    }

    /// The context of this name.
    pub(crate) fn named(&self, name: &str, path: &Path) -> Result<&Context, Usage> {
        self.contexts.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.contexts.keys().map(String::as_str).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            Usage(format!("there is no context {name:?} in {}; there is: {known}", path.display()))
        })
    }
}

pub(crate) fn check_name(name: &str) -> Result<(), Usage> {
    let fits = |char: char| char.is_ascii_alphanumeric() || "._-".contains(char);
    if name.is_empty() || name.len() > NAME_CHARS_MAX || !name.chars().all(fits) {
        return Err(Usage(format!(
            "{name:?} is no name of a context: 1 to {NAME_CHARS_MAX} letters, digits, '.', '_' or '-'"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fails(text: &str) -> String {
        format!("{:#}", File::parse(text.as_bytes()).unwrap_err())
    }

    #[test]
    fn the_place_of_the_file_follows_the_standard() {
        let place = |set: &[(&str, &str)]| {
            path(|name| {
                set.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).into())
            })
        };
        let home = ("HOME", "/h");
        assert_eq!(place(&[]), None);
        assert_eq!(place(&[home]), Some("/h/.config/llm-config/config.yaml".into()));
        assert_eq!(
            place(&[home, ("XDG_CONFIG_HOME", "/x")]),
            Some("/x/llm-config/config.yaml".into())
        );
        assert_eq!(
            place(&[home, ("XDG_CONFIG_HOME", "relative")]),
            Some("/h/.config/llm-config/config.yaml".into())
        );
        assert_eq!(place(&[home, (FILE, "f")]), Some("f".into()));
    }

    #[test]
    fn what_is_unknown_or_contradicts_itself_is_named() {
        assert!(fails("contexts:\n  a:\n    endpoint: x\n").contains("endpoint"));
        assert!(fails("context: {}\n").contains("context"));
        assert!(fails("current: a\n").contains("no such context"));
        assert!(fails("contexts:\n  a: {token: t, token_file: f}\n").contains("token_file"));
        assert!(fails("contexts:\n  \"a b\": {}\n").contains("a b"));
        assert!(fails("contexts:\n  a: {output: xml}\n").contains("xml"));
        assert_eq!(File::parse(b" \n").unwrap(), File::default());
    }

    #[test]
    fn a_file_is_replaced_for_its_owner_only_and_reads_back() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/config.yaml");
        assert_eq!(File::read(&path).unwrap(), File::default());
        let context = Context {
            endpoints: vec!["a:1".into(), "https://b:2".into()],
            token_file: Some("/t".into()),
            environment: Some("production".into()),
            output: Some(Format::Json),
            ..Default::default()
        };
        let file = File { current: Some("p".into()), contexts: [("p".to_owned(), context)].into() };
        file.write(&path).unwrap();
        assert_eq!(File::read(&path).unwrap(), file);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

        let link = folder.path().join("link.yaml");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        File::default().write(&link).unwrap();
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(File::read(&path).unwrap(), File::default());
    }

    #[test]
    fn a_token_does_not_show_in_debug_output() {
        let file = File::parse(b"contexts: {a: {token: lcm_hidden}}").unwrap();
        assert!(!format!("{file:?}").contains("hidden"));
    }
}
