//! The program that is shipped has none of the deliberate bugs: not one name of them is in it.

use llm_config_bugs::{Bug, VARIABLE};

/// Which of some texts are in a program. All are looked for at once: the program is large.
fn found<'t>(program: &[u8], texts: &[&'t str]) -> Vec<&'t str> {
    let mut by_first: Vec<Vec<usize>> = vec![Vec::new(); 256];
    for (number, text) in texts.iter().enumerate() {
        by_first[usize::from(text.as_bytes()[0])].push(number);
    }
    let mut seen = vec![false; texts.len()];
    for (at, byte) in program.iter().enumerate() {
        for number in &by_first[usize::from(*byte)] {
            seen[*number] |= program[at..].starts_with(texts[*number].as_bytes());
        }
    }
    texts.iter().zip(seen).filter(|(_, seen)| *seen).map(|(text, _)| *text).collect()
}

#[test]
fn the_program_that_is_shipped_knows_no_bug() {
    let program = std::fs::read(env!("CARGO_BIN_EXE_llm-config-manager")).unwrap();
    let mut names: Vec<&str> = Bug::ALL.iter().map(|bug| bug.name()).collect();
    names.push(VARIABLE);
    // That it is searched at all shows in what is in it.
    assert_eq!(found(&program, &["--initial-cluster", "no such text"]), ["--initial-cluster"]);
    if cfg!(feature = "seeded-bugs") {
        let seeded = std::fs::read(seeded()).unwrap();
        assert_eq!(found(&seeded, &names), names);
        return;
    }
    assert_eq!(found(&program, &names), Vec::<&str>::new());
}

/// There with its feature only.
fn seeded() -> &'static str {
    option_env!("CARGO_BIN_EXE_llm-config-manager-seeded").unwrap_or_default()
}
