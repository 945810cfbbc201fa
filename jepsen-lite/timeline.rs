//! A history as a picture: one HTML file that needs nothing else. A row for each process, a bar for each operation, from
//! left to right by what came after what; operations that a violation names are marked.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::check::Violation;
use crate::history::{
    Answer, Call, Entry, Fault, History, Operation, Outcome, Policy, TxnOp, TxnResult, Value,
};

/// More bars than this nobody reads: only those around what is wrong are drawn.
const OPERATIONS_MAX: usize = 600;
const ROW_PX: usize = 30;
const BAR_PX: usize = 22;
const LEFT_PX: usize = 120;
/// A picture is at least so wide, if its bars may grow for that.
const WIDTH_PX: usize = 1200;
/// About as wide as a character of a label.
const CHAR_PX: usize = 7;
const VALUE_CHARS_MAX: usize = 60;

const STYLE: &str = "
:root { color-scheme: light dark; --bar: #8fb8de; --fail: #c9c9c9; --unknown: #e8d48a; --named: #d9534f; --fault: #d9534f33; }
body { font: 14px/1.4 system-ui, sans-serif; margin: 1.5rem; }
.wrong { border-left: 4px solid var(--named); padding: .3rem .8rem; margin: .5rem 0; }
.picture { overflow-x: auto; border: 1px solid #8886; }
svg text { font: 11px system-ui, sans-serif; fill: #111; }
svg text.axis, svg text.name { fill: #888; }
rect.ok { fill: var(--bar); } rect.fail { fill: var(--fail); } rect.unknown { fill: var(--unknown); stroke: #a88a20; stroke-dasharray: 4 3; }
rect.named { stroke: var(--named); stroke-width: 3; }
rect.fault { fill: var(--fault); } rect.shade { fill: var(--fault); opacity: .35; }
.key span { display: inline-block; border-radius: 3px; padding: 0 .5rem; margin-right: .5rem; color: #111; }
line { stroke: #8884; }
table { border-collapse: collapse; margin-top: 1rem; } td, th { text-align: left; padding: .15rem .7rem; border-bottom: 1px solid #8884; vertical-align: top; }
tr.named td { background: #d9534f22; }
";

/// Draws a history, and what is wrong with it.
#[must_use]
pub fn html(history: &History, violations: &[(&str, &Violation)]) -> String {
    let named: BTreeSet<u64> =
        violations.iter().flat_map(|(_, violation)| violation.operations.iter().copied()).collect();
    let drawn = around(history, &named);
    let mut page = String::new();
    let title = format!("{}, seed {}", history.header.workload, history.header.seed);
    page.push_str("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>");
    page.push_str(&escape(&title));
    page.push_str("</title><style>");
    page.push_str(STYLE);
    page.push_str("</style></head><body>\n<h1>");
    page.push_str(&escape(&title));
    page.push_str("</h1>\n");
    for (checker, violation) in violations {
        let text = escape(&format!("{checker}: {violation}"));
        page.push_str(&format!("<p class=\"wrong\">{text}</p>\n"));
    }
    let all = history.operations.len();
    if drawn.len() < all {
        page.push_str(&format!("<p>{} of {all} operations are drawn.</p>\n", drawn.len()));
    }
    picture(&mut page, history, &drawn, &named);
    table(&mut page, &drawn, &named);
    for (name, note) in &history.header.notes {
        page.push_str(&format!("<p>{}: {}</p>\n", escape(name), escape(note)));
    }
    page.push_str("</body></html>\n");
    page
}

/// All operations, or those next to what is named.
fn around<'h>(history: &'h History, named: &BTreeSet<u64>) -> Vec<&'h Operation> {
    let mut operations: Vec<&Operation> = history.operations.iter().collect();
    operations.sort_by_key(|operation| (operation.invoked_ns, operation.id));
    if operations.len() <= OPERATIONS_MAX {
        return operations;
    }
    let places: Vec<usize> =
        (0..operations.len()).filter(|place| named.contains(&operations[*place].id)).collect();
    let places = if places.is_empty() { vec![0] } else { places };
    let each = OPERATIONS_MAX / places.len() / 2;
    let mut kept: BTreeSet<usize> = BTreeSet::new();
    for place in places {
        kept.extend(place.saturating_sub(each)..(place + each + 1).min(operations.len()));
    }
    kept.into_iter().map(|place| operations[place]).collect()
}

/// Places on the axis: moments in their order, each as wide as the next. Time itself would hide what is short.
struct Axis {
    moments: Vec<u64>,
    step: usize,
}

impl Axis {
    fn of(drawn: &[&Operation]) -> Self {
        let begins = drawn.iter().map(|operation| operation.invoked_ns);
        let ends = drawn.iter().filter_map(|operation| operation.completed_ns);
        let moments: BTreeSet<u64> = begins.chain(ends).collect();
        let moments: Vec<u64> = moments.into_iter().collect();
        let step = (WIDTH_PX / moments.len().max(1)).clamp(14, 160);
        Self { moments, step }
    }

    fn x(&self, moment: u64) -> usize {
        LEFT_PX + self.moments.partition_point(|known| *known < moment) * self.step
    }

    fn end(&self) -> usize {
        LEFT_PX + (self.moments.len() + 1) * self.step
    }
}

fn picture(page: &mut String, history: &History, drawn: &[&Operation], named: &BTreeSet<u64>) {
    let axis = Axis::of(drawn);
    let rows: BTreeMap<u64, usize> = drawn
        .iter()
        .map(|operation| operation.process)
        .collect::<BTreeSet<_>>()
        .into_iter()
        .zip(1..)
        .collect();
    let faults = seen(history, &axis);
    let top = faults.len() * ROW_PX;
    let (width, height) = (axis.end() + 20, top + (rows.len() + 2) * ROW_PX);
    let mut svg = format!(
        "<div class=\"picture\"><svg width=\"{width}\" height=\"{height}\" xmlns=\"http://www.w3.org/2000/svg\">\n"
    );
    for (row, fault) in faults.iter().enumerate() {
        let (from, to) = (axis.x(fault.from_ns), fault.to_ns.map_or(axis.end(), |to| axis.x(to)));
        let nodes: Vec<String> = fault.nodes.iter().map(u64::to_string).collect();
        let title = format!("{} of {} {}", fault.name, nodes.join(", "), fault.detail);
        let (y, wide) = (row * ROW_PX + 4, to.saturating_sub(from).max(3));
        let _ = writeln!(
            svg,
            "<rect class=\"shade\" x=\"{from}\" y=\"{top}\" width=\"{wide}\" height=\"{}\"/>\
             <rect class=\"fault\" x=\"{from}\" y=\"{y}\" width=\"{wide}\" height=\"{BAR_PX}\" rx=\"3\"><title>{}</title></rect>\
             <text class=\"name\" x=\"{}\" y=\"{}\">{}</text>",
            height - top,
            escape(&title),
            from + 3,
            y + 15,
            escape(&fault.name)
        );
    }
    let each = (axis.moments.len() / 40).max(1);
    let first = axis.moments.first().copied().unwrap_or(0);
    for moment in axis.moments.iter().step_by(each) {
        let _ = write!(
            svg,
            "<text class=\"axis\" x=\"{}\" y=\"{}\">{:.1}</text>",
            axis.x(*moment),
            height - 6,
            (moment - first) as f64 / 1e6
        );
    }
    for (process, row) in &rows {
        let y = top + (row - 1) * ROW_PX;
        let _ = writeln!(
            svg,
            "<line x1=\"0\" x2=\"{width}\" y1=\"{y}\" y2=\"{y}\"/><text class=\"axis\" x=\"4\" y=\"{}\">process {process}</text>",
            y + 17
        );
    }
    for operation in drawn {
        let y = top + (rows.get(&operation.process).copied().unwrap_or(1) - 1) * ROW_PX;
        let from = axis.x(operation.invoked_ns);
        let to = operation.completed_ns.map_or(axis.end(), |completed| axis.x(completed));
        let width = to.saturating_sub(from).max(8);
        let mark = if named.contains(&operation.id) { " named" } else { "" };
        let label: String =
            short(operation).chars().take(width.saturating_sub(4) / CHAR_PX).collect();
        let _ = writeln!(
            svg,
            "<rect class=\"{}{mark}\" x=\"{from}\" y=\"{}\" width=\"{width}\" height=\"{BAR_PX}\" rx=\"3\"><title>{}</title></rect>\
             <text x=\"{}\" y=\"{}\" pointer-events=\"none\">{}</text>",
            outcome(operation.outcome),
            y + 4,
            escape(&long(operation)),
            from + 3,
            y + 19,
            escape(&label)
        );
    }
    svg.push_str("</svg></div>\n<p class=\"key\"><span style=\"background: var(--bar)\">answered</span>\
        <span style=\"background: var(--fail)\">refused</span><span style=\"background: var(--unknown)\">no answer</span>\
        <span style=\"border: 3px solid var(--named); color: inherit\">named</span>Moments are drawn in their order, in equal steps; below is the time in ms.</p>\n");
    page.push_str(&svg);
}

/// The faults that last when something is drawn.
fn seen<'h>(history: &'h History, axis: &Axis) -> Vec<&'h Fault> {
    let first = axis.moments.first().copied().unwrap_or(0);
    let last = axis.moments.last().copied().unwrap_or(0);
    let meets = |fault: &&Fault| fault.from_ns <= last && fault.to_ns.is_none_or(|to| to >= first);
    history.faults.iter().filter(meets).collect()
}

fn table(page: &mut String, drawn: &[&Operation], named: &BTreeSet<u64>) {
    page.push_str("<table><tr><th>operation</th><th>process</th><th>node</th><th>from, ms</th><th>to, ms</th><th>what</th></tr>\n");
    let first = drawn.first().map_or(0, |operation| operation.invoked_ns);
    let ms = |moment: u64| format!("{:.3}", moment.saturating_sub(first) as f64 / 1e6);
    for operation in drawn {
        let mark = if named.contains(&operation.id) { " class=\"named\"" } else { "" };
        let _ = writeln!(
            page,
            "<tr{mark}><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            operation.id,
            operation.process,
            operation.node,
            ms(operation.invoked_ns),
            operation.completed_ns.map_or_else(|| "–".to_owned(), ms),
            escape(&long(operation)),
        );
    }
    page.push_str("</table>\n");
}

fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Ok => "ok",
        Outcome::Fail => "fail",
        Outcome::Unknown => "unknown",
    }
}

/// A bar's label.
fn short(operation: &Operation) -> String {
    let mut text = format!("{} {}", operation.id, asked(&operation.call));
    if let Some(answer) = &operation.answer {
        let _ = write!(text, " → {}", answered(answer));
    }
    text
}

/// Everything, for who points at it.
fn long(operation: &Operation) -> String {
    let keys: Vec<&str> = operation.call.keys().into_iter().collect();
    let mut text = format!("{} {}", asked(&operation.call), keys.join(" "));
    if let Some(read) = operation.call.read() {
        text.push_str(if read.linearizable { ", linearizable" } else { ", cached" });
        for (name, bound) in
            [("at least revision", read.min_revision), ("at most ms old", read.max_staleness_ms)]
        {
            if let Some(bound) = bound {
                let _ = write!(text, ", {name} {bound}");
            }
        }
    }
    let _ = write!(text, ": {}", outcome(operation.outcome));
    if let Some(answer) = &operation.answer {
        let _ = write!(text, ", {}", answered(answer));
    }
    if let Some(revision) = operation.revision {
        let _ = write!(text, ", revision {revision}");
    }
    if let Some(session) = operation.session {
        let _ = write!(text, ", session {session}");
    }
    if let Some(token) = &operation.token {
        let _ = write!(text, ", token {token}");
    }
    if let Some(error) = &operation.error {
        let _ = write!(text, ", {error}");
    }
    text
}

fn asked(call: &Call) -> String {
    match call {
        Call::Get { version: Some(version), .. } => format!("get version {version}"),
        Call::Set { value, expected_version, .. } => {
            format!("set {}{}", value_text(value), expected(*expected_version))
        }
        Call::Delete { expected_version, .. } => format!("delete{}", expected(*expected_version)),
        Call::Rollback { to_version, .. } => format!("rollback to {to_version}"),
        Call::Increment { by, .. } => format!("add {by}"),
        Call::Txn { compare, success, failure, .. } => {
            let compare: Vec<String> =
                compare.iter().map(|c| format!("{} is {}", c.key, c.version)).collect();
            format!(
                "txn if {} then {} else {}",
                compare.join(" and "),
                steps(success),
                steps(failure)
            )
        }
        Call::List { scope, .. } => format!("list {}", scope.prefix),
        Call::WatchOpen { watch, scope, from_revision } => {
            let from = from_revision.map_or_else(|| "now".to_owned(), |from| from.to_string());
            format!("open watch {watch} of {} from {from}", scope.prefix)
        }
        Call::WatchBatch { watch } => format!("watch {watch}"),
        Call::WatchEnd { watch, up_to } => format!("end watch {watch} at {up_to}"),
        Call::Other { name } => name.clone(),
        Call::Get { read, .. } if read.reveal => "reveal".to_owned(),
        Call::Policy { change } => policy(change),
        Call::Get { .. }
        | Call::History { .. }
        | Call::RotateKeys
        | Call::Audit { .. }
        | Call::VerifyAudit
        | Call::Members => call.kind().to_owned(),
    }
}

fn expected(version: Option<u64>) -> String {
    version.map_or_else(String::new, |version| format!(" if version {version}"))
}

fn steps(steps: &[TxnOp]) -> String {
    let steps: Vec<String> = steps
        .iter()
        .map(|step| match step {
            TxnOp::Set { key, value } => format!("set {key} {}", value_text(value)),
            TxnOp::Delete { key } => format!("delete {key}"),
            TxnOp::Get { key } => format!("get {key}"),
        })
        .collect();
    format!("[{}]", steps.join(", "))
}

fn answered(answer: &Answer) -> String {
    let keyed = |entries: &[crate::history::Keyed]| {
        let entries: Vec<String> =
            entries.iter().map(|k| format!("{} {}", k.key, entry(Some(&k.entry)))).collect();
        format!("[{}]", entries.join(", "))
    };
    match answer {
        Answer::Entry { entry: found } => entry(found.as_ref()),
        Answer::Written { version, value } => {
            let value = value.as_ref().map_or_else(String::new, |v| format!(" {}", value_text(v)));
            format!("version {version}{value}")
        }
        Answer::Conflict { current_version } => format!("it is at version {current_version}"),
        Answer::Txn { succeeded, results } => {
            let results: Vec<String> = results
                .iter()
                .map(|result| match result {
                    TxnResult::Written { version } => format!("version {version}"),
                    TxnResult::Got { entry: found } => entry(found.as_ref()),
                })
                .collect();
            let held = if *succeeded { "held" } else { "did not hold" };
            format!("{held} [{}]", results.join(", "))
        }
        Answer::Entries { entries } => keyed(entries),
        Answer::Versions { versions } => {
            let versions: Vec<String> =
                versions.iter().map(|version| entry(Some(version))).collect();
            format!("[{}]", versions.join(", "))
        }
        Answer::Events { revision, events } if events.is_empty() => format!("bookmark {revision}"),
        Answer::Events { revision, events } => format!("revision {revision} {}", keyed(events)),
        Answer::Compacted { oldest_revision } => format!("it begins with {oldest_revision}"),
        Answer::Audit { records } => format!("{} records", records.len()),
        Answer::Chain { chain } => match &chain.broken {
            Some(broken) => broken.clone(),
            None => format!("records {} to {}, {}", chain.first, chain.last, chain.head),
        },
        Answer::Members { term, leader, members } => {
            let leader = leader.map_or_else(|| "nobody".to_owned(), |leader| leader.to_string());
            format!("{leader} leads in term {term} of {members:?}")
        }
    }
}

fn policy(change: &Policy) -> String {
    match change {
        Policy::CreateToken { token, role, .. } => format!("make token {token} for {role}"),
        Policy::RevokeToken { token } => format!("revoke token {token}"),
        Policy::PutRole { role, allows } => {
            let allows: Vec<_> = allows.iter().map(|right| right.word()).collect();
            format!("let {role} {}", allows.join(", "))
        }
        Policy::DeleteRole { role } => format!("delete role {role}"),
    }
}

fn entry(entry: Option<&Entry>) -> String {
    let Some(entry) = entry else { return "nothing".to_owned() };
    let value = entry.value.as_ref().map_or_else(|| "deleted".to_owned(), value_text);
    format!("v{} r{} {value}", entry.version, entry.revision)
}

fn value_text(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= VALUE_CHARS_MAX {
        return text;
    }
    let start: String = text.chars().take(VALUE_CHARS_MAX).collect();
    format!("{start}…")
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}
