//! Reads a query of Prometheus into the metrics that it asks for, and the labels that it matches on them.
//!
//! It works on words and brackets, enough to find names; promtool says whether the query is right.

use std::iter::Peekable;
use std::str::Chars;

/// A metric that a query asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    pub metric: String,
    /// Labels between the braces behind it.
    pub labels: Vec<String>,
}

/// Words in front of a list of labels.
const GROUPINGS: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];
const KEYWORDS: [&str; 7] = ["and", "or", "unless", "bool", "offset", "inf", "nan"];

/// Every metric in `query`, in order, as often as it is asked for.
#[must_use]
pub fn asked(query: &str) -> Vec<Asked> {
    let mut found: Vec<Asked> = Vec::new();
    let mut chars = query.chars().peekable();
    while let Some(first) = chars.next() {
        match first {
            '"' | '\'' | '`' => skip_string(&mut chars, first),
            '[' => chars.by_ref().take_while(|&c| c != ']').for_each(drop),
            '{' => {
                let labels = labels(&mut chars);
                if let Some(last) = found.last_mut() {
                    last.labels.extend(labels);
                }
            }
            _ if first.is_ascii_digit() => drop(word(&mut chars, first)),
            _ if is_name(first) => {
                let name = word(&mut chars, first);
                let next = chars.clone().find(|c| !c.is_whitespace());
                if GROUPINGS.contains(&name.as_str()) {
                    if next == Some('(') {
                        chars.by_ref().take_while(|&c| c != ')').for_each(drop);
                    }
                } else if next != Some('(')
                    && !KEYWORDS.contains(&name.as_str())
                    && !before_grouping(chars.clone())
                {
                    found.push(Asked { metric: name, labels: Vec::new() });
                }
            }
            _ => {}
        }
    }
    found
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == ':'
}

fn word(chars: &mut Peekable<Chars>, first: char) -> String {
    let mut word = String::from(first);
    while let Some(next) = chars.next_if(|&c| is_name(c) || c == '.') {
        word.push(next);
    }
    word
}

/// Whether `by` or `without` comes next, as behind `sum`.
fn before_grouping(chars: Peekable<Chars>) -> bool {
    let next: String =
        chars.skip_while(|c| c.is_whitespace()).take_while(|&c| is_name(c)).collect();
    next == "by" || next == "without"
}

fn skip_string(chars: &mut Peekable<Chars>, end: char) {
    while let Some(c) = chars.next() {
        if c == '\\' && end != '`' {
            chars.next();
        } else if c == end {
            return;
        }
    }
}

fn labels(chars: &mut Peekable<Chars>) -> Vec<String> {
    let mut labels = Vec::new();
    while let Some(c) = chars.next() {
        match c {
            '}' => break,
            '"' | '\'' | '`' => skip_string(chars, c),
            _ if is_name(c) => labels.push(word(chars, c)),
            _ => {}
        }
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(query: &str) -> Vec<String> {
        asked(query).into_iter().map(|asked| asked.metric).collect()
    }

    #[test]
    fn metrics_are_told_from_everything_else() {
        assert_eq!(
            names("up == 0 and on (instance) rate(a:b_total[5m]) > 1e3"),
            ["up", "a:b_total"]
        );
        assert_eq!(
            names("sum by (job, le) (rate(x_bucket{le=\"up\"}[1h] offset 5m))"),
            ["x_bucket"]
        );
        assert_eq!(
            names("max without (a) (b) / ignoring(c) group_left d or vector(1)"),
            ["b", "d"]
        );
        assert_eq!(names("quantile(0.5, x) < bool 3.5 * 1024"), ["x"]);
        assert_eq!(names("label_values(x{job=~\"$job\"}, instance)"), ["x", "instance"]);
    }

    #[test]
    fn labels_belong_to_the_metric_in_front() {
        let query = r#"a{job="x", route!~"{b}\"c="} / b"#;
        let labels = vec!["job".to_owned(), "route".to_owned()];
        assert_eq!(
            asked(query),
            [
                Asked { metric: "a".to_owned(), labels },
                Asked { metric: "b".to_owned(), labels: Vec::new() }
            ]
        );
    }
}
