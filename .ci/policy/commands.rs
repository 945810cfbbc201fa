//! Finds the commands in shell text, and what a command line of clap takes, by the text of its source.
//!
//! It knows quotes, comments and what separates commands; it expands nothing.

use std::collections::{BTreeMap, BTreeSet};

/// The simple commands in `text`, each as its words.
#[must_use]
pub fn commands(text: &str) -> Vec<Vec<String>> {
    let text = text.replace("\\\n", " ");
    let mut found = Vec::new();
    let mut words: Vec<String> = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\'' | '"' => {
                let inside = chars.by_ref().take_while(|&other| other != c);
                word.get_or_insert_default().extend(inside);
            }
            '#' if word.is_none() => while chars.next_if(|&other| other != '\n').is_some() {},
            '\n' | ';' | '|' | '&' | '(' | ')' | '`' => {
                words.extend(word.take());
                found.push(std::mem::take(&mut words));
            }
            c if c.is_whitespace() => words.extend(word.take()),
            // What is written to or read from a file is no word of the command.
            '<' | '>' => {
                words.extend(word.take());
                words.push(c.to_string());
            }
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    found.push(words);
    found.retain(|words| !words.is_empty());
    found
}

/// The words behind `program`, where it is run and not named: `kubectl -n NAME` names it.
#[must_use]
pub fn arguments<'a>(words: &'a [String], program: &str) -> Option<&'a [String]> {
    let runs = |index: usize| {
        let before = index.checked_sub(1).map(|before| words[before].as_str());
        // At the start of the line, behind words of the shell, or as in `kubectl exec POD -- llm-config`.
        before.is_none_or(|before| {
            matches!(before, "--" | "until" | "while" | "if" | "!" | "do" | "then" | "else")
                || before.contains('=')
                || before.starts_with("llm-config")
        })
    };
    let at = (0..words.len()).find(|&index| words[index] == program && runs(index))?;
    Some(&words[at + 1..])
}

/// What a program takes: its commands, of some of them the commands below, and the options of all together.
#[derive(Debug, Default)]
pub struct Taken {
    pub commands: BTreeMap<String, BTreeSet<String>>,
    pub options: BTreeSet<String>,
}

impl Taken {
    /// From sources that define it with clap's derive; `Command` is the enum at the top.
    #[must_use]
    pub fn read(sources: &[String]) -> Taken {
        let variants = |name: &str| sources.iter().find_map(|source| variants(source, name));
        let mut taken = Taken::default();
        for (command, below) in variants("Command").unwrap_or_default() {
            let below = below.and_then(|name| variants(&name)).unwrap_or_default();
            let below = below.into_iter().map(|(name, _)| name).collect();
            taken.commands.insert(command, below);
        }
        taken.options = sources.iter().flat_map(|source| options(source)).collect();
        taken
    }

    /// What is wrong with `arguments`, the words behind the name of the program.
    #[must_use]
    pub fn unknown(&self, arguments: &[String]) -> Option<String> {
        let mut words = arguments.iter().map(String::as_str);
        let mut path: Vec<&str> = Vec::new();
        let mut below: Option<&BTreeSet<String>> = None;
        while let Some(word) = words.next() {
            if matches!(word, "…" | "--" | "<" | ">") {
                return None;
            }
            if let Some(option) = word.strip_prefix("--") {
                let (name, value) =
                    option.split_once('=').map_or((option, None), |(n, v)| (n, Some(v)));
                if !self.options.contains(name) && !matches!(name, "help" | "version") {
                    return Some(format!("no option --{name}"));
                }
                // In front of a command an option has a value: those that have none come later.
                if path.is_empty() && value.is_none() && !matches!(name, "help" | "version") {
                    words.next();
                }
                continue;
            }
            let placeholder =
                word.chars().any(|c| c.is_uppercase() || matches!(c, '…' | '$' | '*'));
            if placeholder || path.first() == Some(&"help") {
                path.push(word);
                continue;
            }
            match (path.len(), below) {
                (0, _) if word == "help" => {}
                (0, _) => match self.commands.get(word) {
                    Some(commands) => below = Some(commands),
                    None => return Some(format!("no command {word}")),
                },
                (1, Some(commands)) if !commands.is_empty() && !commands.contains(word) => {
                    return Some(format!("no command {} {word}", path[0]));
                }
                _ => {}
            }
            path.push(word);
        }
        None
    }
}

/// The variants of `enum name`, as clap spells them, each with the enum of its commands.
fn variants(source: &str, name: &str) -> Option<Vec<(String, Option<String>)>> {
    let head = format!("enum {name} {{");
    let mut lines = source.lines().skip_while(|line| !line.ends_with(&head));
    lines.next()?;
    let mut found = Vec::new();
    let mut nested = false;
    for line in lines.take_while(|line| *line != "}") {
        let Some(line) = line.strip_prefix("    ") else { continue };
        nested |= line.starts_with("#[command(subcommand");
        if line.starts_with(|c: char| c.is_ascii_uppercase()) {
            let mut words = line.split(|c: char| !c.is_ascii_alphanumeric());
            let variant = words.next().unwrap_or_default();
            let payload = words.rfind(|word| !word.is_empty()).map(str::to_owned);
            found.push((kebab(variant), payload.filter(|_| nested)));
            nested = false;
        }
    }
    Some(found)
}

/// `TransferLeader` and `max_age` as clap spells them.
fn kebab(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !out.is_empty() {
            out.push('-');
        }
        out.push(if c == '_' { '-' } else { c.to_ascii_lowercase() });
    }
    out
}

/// The long options of fields under `#[arg(long…)]`, and of tables whose lines are `field "option" "VARIABLE"`.
fn options(source: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut long = false;
    for line in source.lines() {
        let line = line.trim();
        // An attribute may have a line for each of its parts.
        let part = line.trim_start_matches("#[arg(");
        if part.strip_prefix("long").is_some_and(|rest| rest.starts_with([',', ')', ' '])) {
            match line.split_once("long = \"") {
                Some((_, rest)) => found.extend(rest.split('"').next().map(str::to_owned)),
                None => long = true,
            }
        }
        let field = line.trim_start_matches("pub(crate) ").trim_start_matches("pub ");
        let name: String =
            field.chars().take_while(|&c| c == '_' || c.is_ascii_lowercase()).collect();
        if long && !name.is_empty() && field[name.len()..].starts_with(':') {
            found.push(kebab(&name));
            long = false;
        }
        if let Some((field, rest)) = line.split_once(" \"")
            && field.chars().all(|c| c == '_' || c.is_ascii_lowercase())
            && rest.contains("\" \"LLM_CONFIG_")
        {
            found.extend(rest.split('"').next().map(str::to_owned));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken() -> Taken {
        let source = "\
pub enum Command {
    /// Prints.
    Get(Get),
    #[command(subcommand)]
    Cluster(Members),
}
pub(crate) enum Members {
    List,
    TransferLeader {
        /// Whom.
        #[arg(long, value_name = \"ID\")]
        to: Option<u64>,
    },
}
struct Get {
    #[arg(long = \"type\")]
    kind: String,
    #[arg(long)]
    pub(crate) max_age: u64,
    #[arg(
        long,
        num_args = 2
    )]
    grant: Vec<String>,
}
options! {
    data_dir \"data-dir\" \"LLM_CONFIG_DATA_DIR\" \"DIR\"
}
";
        Taken::read(&[source.to_owned()])
    }

    fn unknown(line: &str) -> Option<String> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        taken().unknown(&words)
    }

    #[test]
    fn what_a_program_takes_is_read_from_its_source() {
        let options: Vec<_> = taken().options.into_iter().collect();
        assert_eq!(options, ["data-dir", "grant", "max-age", "to", "type"]);
        for line in [
            "",
            "get ns key",
            "--data-dir x get",
            "cluster transfer-leader --to 2",
            "cluster",
            "help get",
            "NAME",
            "get …",
            "get --type=x > --nothing",
        ] {
            assert_eq!(unknown(line), None, "{line}");
        }
        assert_eq!(unknown("put x").as_deref(), Some("no command put"));
        assert_eq!(unknown("cluster lst").as_deref(), Some("no command cluster lst"));
        assert_eq!(unknown("get --kind x").as_deref(), Some("no option --kind"));
        assert_eq!(unknown("cluster list --max_age=1").as_deref(), Some("no option --max_age"));
    }

    #[test]
    fn shell_text_is_split_into_commands() {
        let text = "until prog a 'b; c' \\\n --x; do sleep 1; done  # prog no\nv=$(prog \"d | e\") | jq .\n";
        let found = commands(text);
        let runs: Vec<_> = found.iter().filter_map(|words| arguments(words, "prog")).collect();
        assert_eq!(runs, [&["a", "b; c", "--x"][..], &["d | e"][..]]);
    }

    #[test]
    fn a_name_that_is_not_run_is_none() {
        for line in ["kubectl get pods -n prog", "systemctl status prog", "ls /x/prog"] {
            let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            assert_eq!(arguments(&words, "prog"), None, "{line}");
        }
        let words: Vec<String> =
            "kubectl exec -n prog pod -- prog x".split_whitespace().map(str::to_owned).collect();
        assert_eq!(arguments(&words, "prog"), Some(&["x".to_owned()][..]));
    }
}
