//! Runs the scripts in `tests/scripts/`: blocks of commands, a line `---`, and what they must answer.
//!
//! A line that starts with `#` is a comment; blank lines separate blocks. `UPDATE=1 cargo test --test scripts` writes the
//! answers of today into the files, to be read in the diff. The language is what `Session::run` understands.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
#![expect(clippy::disallowed_methods, reason = "scripts are files; what they test touches none")]

use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use llm_config_domain::{
    AddNode, Address, CheckedSchema, Command, Compact, Compare, Delete, DeleteSchema, Entry,
    Environment, Found, JsonValue, Key, ListQuery, MemoryStore, Namespace, Node, Operation, Order,
    Outcome, Overlay, Page, PutSchema, QueryError, Reader, RemoveNode, RemovedNode, Rollback,
    Schema, Set, Txn, TxnOp, TxnResult, apply, query, schemas,
};

#[test]
fn scripts_answer_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 8, "the scripts are missing");
    let mut differing = Vec::new();
    for path in paths {
        let script = std::fs::read_to_string(&path).unwrap();
        let run = run_script(&script, &path);
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, run).unwrap();
        } else if run != script {
            differing.push(format!("{}:\n{}", path.display(), first_difference(&script, &run)));
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

fn first_difference(expected: &str, found: &str) -> String {
    let lines = expected.lines().chain(["(end)"]).zip(found.lines().chain(["(end)"]));
    let (line, (expected, found)) =
        lines.enumerate().find(|(_, (a, b))| a != b).unwrap_or((0, ("", "")));
    format!("  line {}\n  expected: {expected}\n  found:    {found}", line + 1)
}

/// The script with its answers replaced by what the commands answer now.
fn run_script(script: &str, path: &Path) -> String {
    let mut session = Session::default();
    let mut blocks = Vec::new();
    for block in script.trim().split("\n\n") {
        let asked: Vec<&str> = block.lines().take_while(|line| *line != "---").collect();
        let mut text = asked.join("\n");
        let commands: Vec<&&str> = asked.iter().filter(|line| !line.starts_with('#')).collect();
        if !commands.is_empty() {
            text.push_str("\n---");
        }
        for line in commands {
            let answer = session
                .run(line)
                .unwrap_or_else(|| panic!("{}: cannot read {line:?}", path.display()));
            for line in answer.lines() {
                write!(text, "\n{line}").unwrap();
            }
        }
        blocks.push(text);
    }
    blocks.join("\n\n") + "\n"
}

struct Session {
    store: MemoryStore,
    time_ms: u64,
    actor: String,
}

impl Default for Session {
    fn default() -> Self {
        Self { store: MemoryStore::default(), time_ms: 0, actor: "alice".into() }
    }
}

/// Splits at white space outside double quotes, so that JSON strings and comments may contain spaces.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), String::new(), false);
    for c in line.chars() {
        quoted ^= c == '"';
        if c == ' ' && !quoted {
            words.push(std::mem::take(&mut word));
        } else {
            word.push(c);
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}

/// The positional words of a command, and its `name=value` options.
struct Arguments {
    words: Vec<String>,
    options: Vec<(String, String)>,
}

impl Arguments {
    fn parse(words: &[String]) -> Self {
        const OPTIONS: [&str; 10] = [
            "expect",
            "checked",
            "comment",
            "tags",
            "description",
            "prefix",
            "after",
            "limit",
            "before",
            "repeat",
        ];
        let mut arguments = Self { words: Vec::new(), options: Vec::new() };
        for word in words {
            match word.split_once('=') {
                Some((name, value)) if OPTIONS.contains(&name) => {
                    arguments.options.push((name.into(), value.trim_matches('"').into()));
                }
                Some(_) | None => arguments.words.push(word.clone()),
            }
        }
        arguments
    }

    fn option(&self, name: &str) -> Option<&str> {
        self.options.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn text(&self, name: &str) -> String {
        self.option(name).unwrap_or_default().into()
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.option(name).map(|value| value.parse().unwrap())
    }

    fn limit(&self) -> usize {
        self.number("limit").unwrap_or(100).try_into().unwrap()
    }

    fn word(&self, index: usize) -> Option<&str> {
        self.words.get(index).map(String::as_str)
    }

    fn u64(&self, index: usize) -> Option<u64> {
        self.word(index)?.parse().ok()
    }

    fn address(&self) -> Option<Address> {
        Address::parse(self.word(0)?, self.word(1)?, self.word(2)?).ok()
    }

    fn set(&self) -> Option<Set> {
        Some(Set {
            address: self.address()?,
            value: JsonValue::parse(self.word(3)?.as_bytes()).ok()?.into(),
            description: self.text("description"),
            tags: self
                .option("tags")
                .map(|tags| tags.split(',').map(Into::into).collect())
                .unwrap_or_default(),
            comment: self.text("comment"),
            expected_version: self.number("expect"),
            declassify: false,
        })
    }

    fn delete(&self) -> Option<Delete> {
        Some(Delete {
            address: self.address()?,
            expected_version: self.number("expect"),
            comment: self.text("comment"),
        })
    }
}

/// `set NS KEY ENV JSON`, `delete NS KEY ENV` or `get NS KEY ENV`, several joined by a semicolon.
fn txn_ops(words: &[String]) -> Option<Vec<TxnOp>> {
    let ops = words.split(|word| word == ";").filter(|words| !words.is_empty());
    ops.map(|words| {
        let arguments = Arguments::parse(&words[1..]);
        match words[0].as_str() {
            "set" => arguments.set().map(TxnOp::Set),
            "delete" => arguments.delete().map(TxnOp::Delete),
            "get" => arguments.address().map(TxnOp::Get),
            _ => None,
        }
    })
    .collect()
}

/// `NS KEY ENV VERSION & … ? op ; op : op ; op`
fn txn(words: &[String]) -> Option<Txn> {
    let question = words.iter().position(|word| word == "?")?;
    let colon = words.iter().position(|word| word == ":").unwrap_or(words.len());
    let compares = words[..question].split(|word| word == "&").filter(|words| !words.is_empty());
    let compare = compares.map(|words| {
        let arguments = Arguments::parse(words);
        Some(Compare { address: arguments.address()?, version: arguments.u64(3)? })
    });
    Some(Txn {
        compare: compare.collect::<Option<_>>()?,
        success: txn_ops(&words[question + 1..colon])?,
        failure: txn_ops(words.get(colon + 1..).unwrap_or_default())?,
    })
}

fn node(arguments: &Arguments) -> Option<Node> {
    let host = arguments.word(2)?;
    Some(Node {
        id: arguments.u64(0)?,
        incarnation: arguments.word(1)?.into(),
        http: format!("{host}:8080"),
        grpc: format!("{host}:50051"),
        raft: format!("{host}:50061"),
        version: "0.1.0".into(),
    })
}

fn operation(verb: &str, words: &[String]) -> Option<Operation> {
    let arguments = Arguments::parse(words);
    Some(match verb {
        "set" => Operation::Set(arguments.set()?),
        "delete" => Operation::Delete(arguments.delete()?),
        "rollback" => Operation::Rollback(Rollback {
            address: arguments.address()?,
            version: arguments.u64(3)?,
            expected_version: arguments.number("expect"),
            comment: arguments.text("comment"),
            resealed: None,
        }),
        "txn" => Operation::Txn(txn(words)?),
        "compact" => Operation::Compact(Compact { revision: arguments.u64(0)? }),
        "found" => Operation::Found(Found {
            cluster_id: arguments.word(0)?.into(),
            history_limit: arguments.u64(1)?,
        }),
        "register" => Operation::RegisterNode(node(&arguments)?),
        "add-node" => Operation::AddNode(AddNode { node: node(&arguments)? }),
        "remove-node" => Operation::RemoveNode(RemoveNode { id: arguments.u64(0)? }),
        "put-schema" => Operation::PutSchema(PutSchema {
            namespace: Namespace::parse(arguments.word(0)?).ok()?,
            key: Key::parse(arguments.word(1)?).ok()?,
            schema: JsonValue::parse(arguments.word(2)?.as_bytes()).ok()?,
            expected_version: arguments.number("expect"),
            comment: arguments.text("comment"),
        }),
        "delete-schema" => Operation::DeleteSchema(DeleteSchema {
            namespace: Namespace::parse(arguments.word(0)?).ok()?,
            key: Key::parse(arguments.word(1)?).ok()?,
            expected_version: arguments.number("expect"),
            comment: arguments.text("comment"),
        }),
        _ => return None,
    })
}

impl Session {
    /// One line: `at MS` and `by ACTOR` set the stage; `key K` before a command gives it an idempotency key; `repeat=N`
    /// after a command does it N times and answers the last; `checked=NS/KEY@VERSION` names a schema that it was checked by. Everything else is a command or a query.
    fn run(&mut self, line: &str) -> Option<String> {
        let words = words(line);
        let (verb, rest) = words.split_first()?;
        match verb.as_str() {
            "at" => self.time_ms = rest.first()?.parse().ok()?,
            "by" => self.actor.clone_from(rest.first()?),
            "key" => return self.command(&rest[1], &rest[2..], Some(&rest[0])),
            "set" | "delete" | "rollback" | "txn" | "compact" | "found" | "register"
            | "add-node" | "remove-node" | "put-schema" | "delete-schema" => {
                return self.command(verb, rest, None);
            }
            _ => {
                let answer = self.query(verb, &Arguments::parse(rest))?;
                return Some(answer.unwrap_or_else(|error| format!("refused: {error}")));
            }
        }
        Some(String::new())
    }

    fn command(&mut self, verb: &str, words: &[String], key: Option<&String>) -> Option<String> {
        let arguments = Arguments::parse(words);
        let times = arguments.number("repeat").unwrap_or(1);
        let mut command = Command::new(self.actor.clone(), operation(verb, words)?);
        if let Some(version) = arguments.option("checked") {
            let checked = |version: &str| {
                // `NS/KEY@VERSION`; `unmet` for a value that does not meet it.
                let (name, version) = version.split_once('@').unwrap();
                let (namespace, key) = name.split_once('/').unwrap();
                CheckedSchema {
                    namespace: Namespace::parse(namespace).unwrap(),
                    key: Key::parse(key).unwrap(),
                    version: version.parse().unwrap_or(CheckedSchema::UNMET),
                }
            };
            command = command.checked_by(version.split(',').map(checked).collect());
        }
        if let Some(key) = key {
            command = command.with_request_id(key.clone());
        }
        let mut answer = String::new();
        for _ in 0..times {
            let mut overlay = Overlay::new(&self.store);
            let (applied, changes) = apply(&mut overlay, self.time_ms, &command).unwrap();
            let writes = overlay.into_writes();
            self.store.apply_writes(writes);
            answer = format!(
                "r{}{}: ",
                applied.revision,
                if applied.replayed { " replayed" } else { "" }
            );
            match &applied.result {
                Ok(outcome) => answer.push_str(&show_outcome(outcome)),
                Err(rejection) => write!(answer, "refused: {rejection}").unwrap(),
            }
            for change in changes {
                let entry = change.entry;
                let what = format!("{:?}", change.kind).to_lowercase();
                write!(
                    answer,
                    "\n  event r{} {what} {} v{}",
                    entry.revision, entry.address, entry.version
                )
                .unwrap();
            }
        }
        Some(answer)
    }

    fn query(&self, verb: &str, arguments: &Arguments) -> Option<Result<String, QueryError>> {
        let store = &self.store;
        Some(match verb {
            "get" => {
                query::get(store, &arguments.address()?).map(|entry| show_found(entry.as_ref()))
            }
            "version" => query::get_version(store, &arguments.address()?, arguments.u64(3)?)
                .map(|entry| show_entry(&entry)),
            "lookup" => {
                let Address { namespace, key, environment } = arguments.address()?;
                query::resolve_entry(store, &namespace, &key, environment)
                    .map(|entry| show_found(entry.as_ref()))
            }
            "history" => {
                let before = arguments.number("before");
                query::history(store, &arguments.address()?, before, arguments.limit())
                    .map(|page| show_page(&page, show_entry))
            }
            "list" => query::list(
                store,
                &ListQuery {
                    namespace: Namespace::parse(arguments.word(0)?).ok()?,
                    environment: Environment::parse(arguments.word(1)?).ok()?,
                    prefix: arguments.text("prefix"),
                    after: arguments.option("after").map(|after| Key::parse(after).unwrap()),
                    limit: arguments.limit(),
                },
            )
            .map(|page| show_page(&page, show_entry)),
            "namespaces" => {
                let after = arguments.option("after").map(|after| Namespace::parse(after).unwrap());
                query::namespaces(store, &arguments.text("prefix"), after, arguments.limit()).map(
                    |page| {
                        show_page(&page, |summary| {
                            format!("{}: {}", summary.namespace, summary.entries)
                        })
                    },
                )
            }
            "schema" => {
                let namespace = Namespace::parse(arguments.word(0)?).ok()?;
                let key = Key::parse(arguments.word(1)?).ok()?;
                let found = schemas::get(store, &namespace, &key);
                found
                    .map(|found| found.map_or("absent".into(), |schema| show_schema(&schema)))
                    .map_err(QueryError::from)
            }
            "schemas" => {
                let namespace = Namespace::parse(arguments.word(0)?).ok()?;
                let after = arguments.option("after").map(|after| Key::parse(after).unwrap());
                let (prefix, limit) = (arguments.text("prefix"), arguments.limit());
                schemas::list(store, &namespace, &prefix, after.as_ref(), limit)
                    .map(|page| show_page(&page, show_schema))
                    .map_err(QueryError::from)
            }
            "resolve" => self.resolve(arguments)?,
            "changes" => self.changes(arguments)?,
            "nodes" => query::nodes(store).map(|nodes| {
                let show = |node: &Node| {
                    format!(
                        "{} {} {} {} {}",
                        node.id, node.incarnation, node.http, node.grpc, node.raft
                    )
                };
                nodes.iter().map(show).collect::<Vec<_>>().join("\n")
            }),
            "removed" => query::removed_nodes(store).map(|nodes| {
                let show = |node: &RemovedNode| format!("{} {:?}", node.id, node.incarnation);
                nodes.iter().map(show).collect::<Vec<_>>().join("\n")
            }),
            "meta" => query::meta(store).map(|meta| format!("{meta:?}")),
            "tables" => Ok(self.tables()),
            "diff" => {
                let version = |index| {
                    query::get_version(store, &arguments.address()?, arguments.u64(index)?).ok()
                };
                Ok(query::diff(&version(3)?, &version(4)?).to_string())
            }
            _ => return None,
        })
    }

    fn resolve(&self, arguments: &Arguments) -> Option<Result<String, QueryError>> {
        let namespace = Namespace::parse(arguments.word(0)?).ok()?;
        let resolved =
            query::resolve(&self.store, &namespace, Environment::parse(arguments.word(1)?).ok()?);
        Some(resolved.map(|resolved| {
            let mut text = format!("r{}", resolved.revision);
            for (key, value, source) in resolved.values {
                write!(text, "\n  {key} = {} from {source}", value.json().unwrap().as_str())
                    .unwrap();
            }
            text
        }))
    }

    fn changes(&self, arguments: &Arguments) -> Option<Result<String, QueryError>> {
        let revisions = query::changes(&self.store, arguments.u64(0)?, arguments.limit());
        Some(revisions.map(|revisions| {
            let mut text = if revisions.is_empty() { "nothing".into() } else { String::new() };
            for revision in revisions {
                writeln!(text, "r{}", revision.revision).unwrap();
                for change in revision.changes {
                    writeln!(
                        text,
                        "  {:?} {}: {}",
                        change.kind,
                        change.entry.address,
                        show_entry(&change.entry)
                    )
                    .unwrap();
                }
            }
            text
        }))
    }

    /// How many rows each table has.
    fn tables(&self) -> String {
        const NAMES: [&str; 8] =
            ["heads", "versions", "changes", "namespaces", "requests", "expiry", "nodes", "meta"];
        let rows = |table: u8| {
            let mut rows = 0;
            let count = &mut |_: &[u8], _: &[u8]| {
                rows += 1;
                Ok(ControlFlow::Continue(()))
            };
            self.store.scan(&[table], &[table + 1], Order::Ascending, count).unwrap();
            rows
        };
        let show = |(table, name): (u8, &str)| format!("{name} {}", rows(table));
        (0x10..).zip(NAMES).map(show).collect::<Vec<_>>().join(", ")
    }
}

fn show_found(entry: Option<&Entry>) -> String {
    entry.map_or("absent".into(), show_entry)
}

fn show_entry(entry: &Entry) -> String {
    let value = entry.value.as_ref().map_or("deleted", |value| value.json().unwrap().as_str());
    let mut text = format!("{} v{} r{} {value}", entry.address, entry.version, entry.revision);
    write!(text, ", created {} by {}", entry.created_at_ms, entry.created_by).unwrap();
    write!(text, ", updated {} by {}", entry.updated_at_ms, entry.updated_by).unwrap();
    for (name, part) in [("description", &entry.description), ("comment", &entry.comment)] {
        if !part.is_empty() {
            write!(text, ", {name} {part:?}").unwrap();
        }
    }
    if !entry.tags.is_empty() {
        write!(text, ", tags {:?}", entry.tags).unwrap();
    }
    text
}

fn show_outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Set { entry, created } => {
            format!("{} {}", if *created { "created" } else { "changed" }, show_entry(entry))
        }
        Outcome::Deleted { entry } => format!("deleted {}", show_entry(entry)),
        Outcome::RolledBack { entry } => format!("rolled back {}", show_entry(entry)),
        Outcome::Txn { succeeded, results } => {
            let mut text = format!("succeeded {succeeded}");
            for result in results {
                let line = match result {
                    TxnResult::Set(entry) => format!("set {}", show_entry(entry)),
                    TxnResult::Delete(entry) => format!("delete {}", show_entry(entry)),
                    TxnResult::Get(entry) => format!("get {}", show_found(entry.as_deref())),
                };
                write!(text, "\n  {line}").unwrap();
            }
            text
        }
        Outcome::Compacted
        | Outcome::Founded
        | Outcome::Registered
        | Outcome::NodeAdded
        | Outcome::NodeRemoved
        | Outcome::Done
        | Outcome::SchemaPut { .. }
        | Outcome::SchemaDeleted { .. }
        | Outcome::Banned { .. } => format!("{outcome:?}"),
    }
}

fn show_schema(schema: &Schema) -> String {
    format!(
        "{}/{} v{} {}, created {} by {}, updated {} by {}, comment {:?}",
        schema.namespace,
        schema.key,
        schema.version,
        schema.schema.as_str(),
        schema.created_at_ms,
        schema.created_by,
        schema.updated_at_ms,
        schema.updated_by,
        schema.comment,
    )
}

fn show_page<T>(page: &Page<T>, show: impl Fn(&T) -> String) -> String {
    let mut lines: Vec<String> = page.items.iter().map(show).collect();
    lines.push(if page.more { "more".into() } else { "end".into() });
    lines.join("\n")
}
