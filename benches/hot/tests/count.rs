//! What is recorded is what can be counted, and the program that is counted says what it cannot do.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::process::{Command, Output};

use llm_config_hot::names;

fn count(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_llm-config-count")).args(arguments).output().unwrap()
}

/// Standard error of a call that has to fail.
fn refusal(arguments: &[&str]) -> String {
    let output = count(arguments);
    assert!(!output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn every_function_that_it_lists_can_be_called() {
    let output = count(&["list"]);
    let listed = String::from_utf8(output.stdout).unwrap();
    assert_eq!(listed.lines().collect::<Vec<_>>(), names());
    for name in listed.lines() {
        let output = count(&[name, "2"]);
        assert!(output.status.success(), "{name}: {output:?}");
    }
}

#[test]
fn what_it_does_not_know_is_refused_with_what_it_knows() {
    let said = refusal(&["apply-nothing", "1"]);
    assert!(said.starts_with("error: there is no function `apply-nothing`; there are: apply-set"));
    assert!(refusal(&["apply-set", "many"]).contains("`many` is no number of calls"));
    assert!(refusal(&[]).contains("usage: llm-config-count NAME CALLS"));
}

#[test]
fn what_is_recorded_is_what_there_is() {
    let recorded = include_str!("../recorded.toml");
    let (_, table) = recorded.split_once("\n[instructions]\n").unwrap();
    let recorded = table.lines().map(|line| {
        let (name, instructions) = line.split_once(" = ").unwrap();
        assert!(instructions.parse::<u64>().unwrap() > 0, "{line}");
        name
    });
    assert_eq!(recorded.collect::<Vec<_>>(), names());
}
