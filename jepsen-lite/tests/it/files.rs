//! Histories as files, what is wrong with damaged ones, smaller ones and pictures.

use std::time::{Duration, Instant};

use jepsen_lite::check::{Limits, Overall, Verdict, check};
use jepsen_lite::history::{Answer, Call, Fault, History, Outcome, read, read_file, write_file};
use jepsen_lite::judge::{Options, judge_file};
use jepsen_lite::shrink::shrink;
use jepsen_lite::timeline::html;

use crate::sim::{Bug, Shape, run};

fn written(history: &History) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("history.jsonl");
    write_file(&path, history).unwrap();
    std::fs::read_to_string(path).unwrap()
}

fn fault() -> Fault {
    Fault {
        name: "kill".to_owned(),
        nodes: vec![2],
        from_ns: 1,
        to_ns: Some(70_000_000),
        detail: "<the leader>".to_owned(),
    }
}

#[test]
fn what_is_written_is_read() {
    let mut history = run(1, Shape::default(), None).history;
    history.faults.push(fault());
    let text = written(&history);
    assert_eq!(read(text.as_bytes()).unwrap(), history);
    history.whole = false;
    assert_eq!(read(written(&history).as_bytes()).unwrap(), history);
}

#[test]
fn a_damaged_file_is_refused_with_its_line() {
    let text = written(&run(1, Shape::default(), None).history);
    let lines: Vec<&str> = text.lines().collect();
    let refused = |lines: &[&str], words: &[&str]| {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let error = read(text.as_bytes()).unwrap_err().to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    };
    let with = |place: usize, line: &str| {
        let mut lines = lines.clone();
        let line: &'static str = line.to_owned().leak();
        lines[place] = line;
        lines
    };
    refused(&[], &["line 1", "empty"]);
    refused(&lines[1..], &["line 1", "no header"]);
    refused(&with(1, lines[0]), &["line 2", "second header"]);
    refused(&with(2, lines[1]), &["line 3", "second operation"]);
    refused(&with(3, "{"), &["line 4"]);
    refused(&with(3, &lines[3].replacen("\"process\"", "\"proces\"", 1)), &["line 4", "proces"]);
    refused(
        &with(0, &lines[0].replacen("\"format\":1", "\"format\":2", 1)),
        &["line 1", "format 2"],
    );
    let mut short = lines.clone();
    short.remove(5);
    refused(&short, &["were written"]);
    let mut long = lines.clone();
    long.push(lines[5]);
    refused(&long, &["follows the last line"]);
    // Cut off in a line, as by a kill: what was whole is there.
    let cut = read(&text.as_bytes()[..text.len() - 20]).unwrap();
    assert!(!cut.whole);
    assert_eq!(cut.operations.len(), lines.len() - 2);
}

#[test]
fn an_operation_that_is_no_sound_record_is_refused() {
    let history = run(1, Shape::default(), None).history;
    let sound = |wanted: fn(&Call) -> bool| {
        let mut found = history.operations.iter();
        found.find(|op| op.outcome == Outcome::Ok && wanted(&op.call)).unwrap().clone()
    };
    let set = sound(|call| matches!(call, Call::Set { .. }));
    let get = sound(|call| matches!(call, Call::Get { .. }));
    let txn = sound(|call| matches!(call, Call::Txn { .. }));
    assert_eq!(set.validate(), Ok(()));
    let mut cases = Vec::new();
    let mut case = |operation: &jepsen_lite::history::Operation,
                    change: fn(&mut jepsen_lite::history::Operation)| {
        let mut broken = operation.clone();
        change(&mut broken);
        cases.push(broken);
    };
    case(&set, |op| op.completed_ns = Some(op.invoked_ns - 1));
    case(&set, |op| op.completed_ns = None);
    case(&set, |op| op.revision = None);
    case(&set, |op| op.answer = None);
    case(&set, |op| op.answer = Some(Answer::Entry { entry: None }));
    case(&set, |op| op.outcome = Outcome::Fail);
    case(&set, |op| op.outcome = Outcome::Unknown);
    case(&get, |op| {
        op.outcome = Outcome::Unknown;
        op.answer = None;
    });
    case(&txn, |op| op.answer = Some(Answer::Txn { succeeded: true, results: Vec::new() }));
    case(&set, |op| {
        op.outcome = Outcome::Fail;
        op.error = Some("NO_LEADER".to_owned());
    });
    for broken in cases {
        assert!(broken.validate().is_err(), "{broken:?}");
        let text = format!(
            "{}\n{{\"operation\":{}}}\n",
            written(&history).lines().next().unwrap(),
            serde_json::to_string(&broken).unwrap()
        );
        let error = read(text.as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with("line 2: operation"), "{error}");
    }
}

#[test]
fn a_failing_history_becomes_small_and_still_fails() {
    let cases = [
        (Bug::FollowerRead, "linearizable", 4),
        (Bug::FollowerRead, "revision", 4),
        (Bug::CasIgnoresVersion, "linearizable", 4),
        (Bug::VersionReset, "versions", 4),
        (Bug::SharedRevision, "revision", 4),
        (Bug::SessionIgnored, "session", 4),
        (Bug::StalenessIgnored, "staleness", 4),
        (Bug::LostAddition, "counter", 4),
        (Bug::Diverges, "replica", 4),
    ];
    for (bug, checker, most) in cases {
        let (history, rule) = failing(bug, checker);
        let limits = Limits::default();
        let small = shrink(&history, checker, &rule, &limits, Duration::from_secs(300)).unwrap();
        assert!(small.minimal, "{bug:?}");
        assert_eq!(small.violation.rule, rule);
        let left = small.history.operations.len();
        assert!(
            left <= most,
            "{bug:?}, {checker}: {left} of {} are left",
            history.operations.len()
        );
        let again = read(written(&small.history).as_bytes()).unwrap();
        let report = check(&again, &limits);
        assert!(matches!(report.verdict(checker), Some(Verdict::Fail { .. })), "{report}");
    }
    // What only the whole shows: reads go, and answers are forgotten.
    for (bug, checker) in [(Bug::RefusedIsDone, "aborted"), (Bug::DoubleAddition, "counter")] {
        let (history, rule) = failing(bug, checker);
        let limits = Limits::default();
        let small = shrink(&history, checker, &rule, &limits, Duration::from_secs(300)).unwrap();
        assert!(small.history.operations.len() < history.operations.len(), "{bug:?}");
        assert_eq!(small.violation.rule, rule);
    }
    let sound = run(1, Shape::default(), None).history;
    let none = shrink(&sound, "linearizable", "no order", &Limits::default(), Duration::ZERO);
    assert!(none.is_none());
}

/// A history with this bug that this checker fails, and the rule.
fn failing(bug: Bug, checker: &str) -> (History, String) {
    for seed in 0..20 {
        let history = run(seed, Shape::default(), Some(bug)).history;
        if let Some(Verdict::Fail { violations, .. }) =
            check(&history, &Limits::default()).verdict(checker)
        {
            return (history, violations[0].rule.to_owned());
        }
    }
    panic!("{bug:?} is not found by {checker}")
}

#[test]
fn a_picture_marks_what_is_wrong_and_needs_nothing_else() {
    let (mut history, _) = failing(Bug::FollowerRead, "linearizable");
    history.faults.push(fault());
    history.header.notes.insert("commit".to_owned(), "<b>".to_owned());
    let report = check(&history, &Limits::default());
    let (checker, violation) = report.first_violation().unwrap();
    let page = html(&history, &[(checker, violation)]);
    for id in &violation.operations {
        assert!(page.contains(&format!("<tr class=\"named\"><td>{id}</td>")), "operation {id}");
    }
    assert_eq!(page.matches("named\" x=").count(), violation.operations.len());
    assert!(page.contains("&lt;the leader&gt;") && page.contains("&lt;b&gt;"), "it is escaped");
    assert_eq!(page.matches("http").count(), 1, "only the name space of SVG");
    assert!(!page.contains("<script") && !page.contains("<the"));
    // One that is too large is drawn around what is wrong.
    let shape = Shape { operations: 3000, ..Shape::default() };
    let large = run(3, shape, Some(Bug::FollowerRead)).history;
    let report = check(&large, &Limits::default());
    let (checker, violation) = report.first_violation().unwrap();
    let page = html(&large, &[(checker, violation)]);
    assert!(page.contains("operations are drawn"));
    assert!(page.contains(&format!("<tr class=\"named\"><td>{}</td>", violation.operations[0])));
}

#[test]
fn a_file_is_judged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.jsonl");
    let judge = |history: &History, options: &Options| {
        write_file(&path, history).unwrap();
        let mut out = Vec::new();
        let overall = judge_file(&path, options, &mut out).unwrap();
        (overall, String::from_utf8(out).unwrap())
    };
    let options = Options { stats: true, ..Options::default() };
    let (overall, out) = judge(&run(1, Shape::default(), None).history, &options);
    assert_eq!(overall, Overall::Pass, "{out}");
    assert!(out.contains("checks/s") && out.ends_with("operations: pass\n"), "{out}");
    assert!(!folder.path().join("run.jsonl.html").exists());

    let (history, _) = failing(Bug::FollowerRead, "linearizable");
    let (overall, out) = judge(&history, &Options::default());
    assert_eq!(overall, Overall::Fail, "{out}");
    let small = read_file(&folder.path().join("run.jsonl.minimal.jsonl")).unwrap();
    assert!(small.operations.len() < 10, "{} are left", small.operations.len());
    assert!(
        std::fs::read_to_string(folder.path().join("run.jsonl.html")).unwrap().contains("named")
    );

    std::fs::write(&path, "{}\n").unwrap();
    let error = judge_file(&path, &options, &mut Vec::new()).unwrap_err().to_string();
    assert!(error.contains("run.jsonl") && error.contains("line 1"), "{error}");
}

/// Not a test of anything: `cargo test -p jepsen-lite --test it --release -- --ignored --nocapture speed`.
#[test]
#[ignore = "prints how fast the search is"]
fn speed() {
    for (clients, operations, unknown, seeds) in
        [(5, 200, 5, 20), (5, 200, 10, 20), (8, 200, 5, 20), (10, 1000, 5, 20), (5, 10_000, 5, 2)]
    {
        let shape = Shape { clients, registers: 1, operations, unknown, simple: true };
        let histories: Vec<History> =
            (0..seeds).map(|seed| run(seed, shape, None).history).collect();
        let begun = Instant::now();
        let mut undecided = 0;
        for history in &histories {
            let report = check(history, &Limits::default());
            assert_ne!(report.overall(), Overall::Fail, "{report}");
            undecided += u32::from(report.overall() == Overall::Unknown);
        }
        let rate = (operations * histories.len()) as f64 / begun.elapsed().as_secs_f64();
        println!(
            "{clients} clients, {operations} operations of a key, {unknown} % unknown: {rate:.0} operations/s by all \
             checkers, {undecided} of {seeds} undecided"
        );
    }
}
