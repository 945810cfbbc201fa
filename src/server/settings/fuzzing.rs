//! Body of the fuzz target for the configuration file.
//!
//! What is accepted is written by `--print-config` so that it can be read again. The target is in `.ci/fuzz`; the test below
//! runs the body over its inputs.

use std::path::Path;

use clap::ArgMatches;

use super::options::{Chosen, Flags, decode};
use super::{Settings, SettingsError};

/// A file, from its text to the settings.
pub fn config_file(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Some(settings) = settings(text) else { return };
    assert!(settings.node_id > 0);
    let Ok(printed) = settings.to_yaml() else { panic!("settings that cannot be printed") };
    let again = self::settings(&printed).and_then(|settings| settings.to_yaml().ok());
    assert_eq!(again.as_ref(), Some(&printed), "--print-config reads back differently");
}

fn settings(text: &str) -> Option<Settings> {
    read(text)
        .inspect_err(|error| {
            let error = error.to_string();
            // A refusal may repeat the text that is wrong, once, with every character of it escaped.
            assert!(error.len() <= 1024 + 8 * text.len(), "a refusal of {} bytes", error.len());
            assert!(!error.contains('\n'), "a refusal of several lines: {error}");
        })
        .ok()
}

fn read(text: &str) -> Result<Settings, SettingsError> {
    let file = decode(text, Path::new("file"))?;
    let mut chosen = Chosen::of(Flags::default(), &ArgMatches::default(), "file", file);
    // These may be names, and a name that is no address is asked of the network.
    for listener in [
        &mut chosen.http_addr,
        &mut chosen.metrics_addr,
        &mut chosen.grpc_addr,
        &mut chosen.raft_addr,
    ] {
        let _name = listener.take_if(|given| given.text.parse::<std::net::SocketAddr>().is_err());
    }
    let settings = Settings::interpret(&chosen)?;
    settings.check_membership(&chosen)?;
    settings.check_advertised()?;
    settings.check_auth()?;
    Ok(settings)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_inputs_of_the_target_pass() {
        crate::replay::run("config_file", super::config_file);
    }
}
