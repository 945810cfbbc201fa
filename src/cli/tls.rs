//! The files of `--tls-ca`, `--tls-cert` and `--tls-key`. What is in them is the SDK's to judge.

use std::path::{Path, PathBuf};

use llm_config_client::TlsOptions;

use crate::Usage;
use crate::args::Tls;

/// None without any of them: the endpoints say then whether connections are secured.
pub(crate) fn options(tls: &Tls) -> Result<Option<TlsOptions>, Usage> {
    let mut options = TlsOptions::default();
    match (given(&tls.tls_cert), given(&tls.tls_key)) {
        (Some(certificate), Some(key)) => {
            options = options.identity(read("--tls-cert", certificate)?, read("--tls-key", key)?);
        }
        (None, None) => {}
        (Some(_), None) => return Err(Usage("--tls-cert needs --tls-key too".to_owned())),
        (None, Some(_)) => return Err(Usage("--tls-key needs --tls-cert too".to_owned())),
    }
    if let Some(ca) = given(&tls.tls_ca) {
        options = options.ca_pem(read("--tls-ca", ca)?);
    }
    let any = options.ca_pem.is_some() || options.identity.is_some();
    Ok(any.then_some(options))
}

/// An empty environment variable counts as not set.
fn given(path: &Option<PathBuf>) -> Option<&Path> {
    path.as_deref().filter(|path| !path.as_os_str().is_empty())
}

fn read(option: &str, path: &Path) -> Result<Vec<u8>, Usage> {
    std::fs::read(path).map_err(|error| {
        Usage(format!("{option} {}: {error}; give the path of a readable file", path.display()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificate_and_key_come_together() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.pem");
        std::fs::write(&path, "x").unwrap();
        let tls = |ca, certificate, key| {
            let path = |given: bool| given.then(|| path.clone());
            Tls { tls_ca: path(ca), tls_cert: path(certificate), tls_key: path(key) }
        };
        assert!(options(&tls(false, false, false)).unwrap().is_none());
        assert!(options(&tls(true, false, false)).unwrap().unwrap().ca_pem.is_some());
        assert!(options(&tls(false, true, true)).unwrap().unwrap().identity.is_some());
        assert!(options(&tls(true, true, false)).unwrap_err().0.contains("--tls-key"));
        assert!(options(&tls(true, false, true)).unwrap_err().0.contains("--tls-cert"));
        let empty = Tls { tls_ca: Some(PathBuf::new()), tls_cert: None, tls_key: None };
        assert!(options(&empty).unwrap().is_none());
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let tls = Tls { tls_ca: Some("/nowhere".into()), tls_cert: None, tls_key: None };
        let error = options(&tls).unwrap_err().0;
        assert!(error.starts_with("--tls-ca /nowhere: "), "{error}");
    }
}
