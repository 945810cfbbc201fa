//! The program with its deliberate bugs: the same as `llm-config-manager`, and one bug that the environment names.

#[path = "main.rs"]
mod program;

use std::process::ExitCode;

use llm_config_server::logging;

fn main() -> ExitCode {
    match llm_config_bugs::choose() {
        Ok(None) => {}
        Ok(Some(bug)) => {
            logging::say(&format!(
                "WARNING: this server breaks its promises on purpose: seeded bug {}",
                bug.name()
            ));
        }
        Err(unknown) => {
            logging::say(&format!("error: {unknown}"));
            return ExitCode::from(program::USAGE);
        }
    }
    program::main()
}
