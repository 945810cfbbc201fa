//! The `llm-config-count` program: calls one function so many times, and does as little else as it can.
//!
//! It is run twice under callgrind, with n calls and with 2n; the difference is n calls and nothing of the start.

use std::process::ExitCode;

use llm_config_hot::{Error, find, names};

const USAGE: &str = "usage: llm-config-count NAME CALLS, or llm-config-count list";

fn run(arguments: &[String]) -> Result<String, Error> {
    match arguments {
        [word] if word == "list" => Ok(names().join("\n") + "\n"),
        [name, calls] => {
            let calls: u64 =
                calls.parse().map_err(|_| format!("`{calls}` is no number of calls; {USAGE}"))?;
            let mut call = find(name)?.prepare()?;
            for n in 1..=calls {
                if !call() {
                    return Err(format!("{name}: call {n} did not do what it is for").into());
                }
            }
            Ok(String::new())
        }
        _ => Err(USAGE.into()),
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(said) => {
            print!("{said}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
