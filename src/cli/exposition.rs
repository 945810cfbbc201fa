//! Reads the metrics page of a node, the text format 0.0.4 of Prometheus, for when there is no Prometheus to ask.

use anyhow::{Context as _, bail, ensure};

use crate::prometheus::{Labels, Sample, number};

/// A node has some hundreds of series.
const SAMPLES_MAX: usize = 50_000;

/// A page's samples by the names of their metrics.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Page(Vec<(String, Sample)>);

impl Page {
    /// # Errors
    /// When it is no page of metrics: names the line.
    pub(crate) fn read(text: &str) -> anyhow::Result<Self> {
        let mut samples = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            ensure!(samples.len() < SAMPLES_MAX, "it has more than {SAMPLES_MAX} samples");
            samples.push(sample(line).with_context(|| format!("line {}", index + 1))?);
        }
        Ok(Self(samples))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn of(&self, name: &str) -> impl Iterator<Item = &Sample> {
        self.0.iter().filter(move |(metric, _)| metric == name).map(|(_, sample)| sample)
    }

    /// The value of a metric without labels.
    pub(crate) fn one(&self, name: &str) -> Option<f64> {
        self.of(name).map(|sample| sample.value).next().filter(|value| value.is_finite())
    }

    /// The sum of the samples that are wanted; nothing when there are none.
    pub(crate) fn sum(&self, name: &str, wanted: impl Fn(&Sample) -> bool) -> Option<f64> {
        let values = self.of(name).filter(|sample| wanted(sample)).map(|sample| sample.value);
        values.reduce(|sum, value| sum + value)
    }
}

fn sample(line: &str) -> anyhow::Result<(String, Sample)> {
    let end = line.find(|char: char| !is_name(char)).context("a name without a value")?;
    let (name, mut rest) = line.split_at(end);
    ensure!(!name.is_empty(), "it does not begin with a name");
    let mut labels = Labels::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = read_labels(inside, &mut labels)?;
    }
    // A time may follow.
    let value = rest.split_whitespace().next().context("a name without a value")?;
    Ok((name.to_owned(), Sample { labels, value: number(value)? }))
}

/// What stands behind the closing brace.
fn read_labels<'a>(mut rest: &'a str, labels: &mut Labels) -> anyhow::Result<&'a str> {
    loop {
        rest = rest.trim_start_matches([' ', ',']);
        if let Some(behind) = rest.strip_prefix('}') {
            return Ok(behind);
        }
        let (name, value) = rest.split_once('=').context("a label without a value")?;
        ensure!(!name.is_empty() && name.chars().all(is_name), "a label without a name");
        let mut value = value.strip_prefix('"').context("a label's value without quotes")?.chars();
        let mut text = String::new();
        loop {
            match value.next() {
                Some('"') => break,
                Some('\\') => match value.next() {
                    Some('n') => text.push('\n'),
                    Some(char) => text.push(char),
                    None => bail!("a label's value has no end"),
                },
                Some(char) => text.push(char),
                None => bail!("a label's value has no end"),
            }
        }
        labels.insert(name.to_owned(), text);
        rest = value.as_str();
    }
}

fn is_name(char: char) -> bool {
    char.is_ascii_alphanumeric() || char == '_' || char == ':'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read() {
        let page = Page::read(
            "# HELP a Help.\n# TYPE a counter\na 3\n\nb{x=\"1\",y=\"say \\\"}\\\\\\n\"} 0.5\n\
             b{x=\"2\"} 2e3 1700000000\nc{} NaN\n",
        )
        .unwrap();
        assert_eq!((page.one("a"), page.one("c"), page.one("d")), (Some(3.0), None, None));
        let b: Vec<&Sample> = page.of("b").collect();
        assert_eq!((b[0].label("y"), b[1].value), ("say \"}\\\n", 2000.0));
        assert_eq!(page.sum("b", |sample| sample.label("x") == "2"), Some(2000.0));
        assert_eq!(page.sum("b", |sample| sample.label("x") == "3"), None);
    }

    #[test]
    fn what_is_no_page_names_its_line() {
        for bad in
            ["<html>", "a", "a{x=\"1\" 3", "a{x=1} 3", "a{x=\"1} 3", "a x", "a{=\"1\"} 3", "{} 1"]
        {
            let error = format!("{:#}", Page::read(&format!("ok 1\n{bad}\n")).unwrap_err());
            assert!(error.starts_with("line 2: "), "{bad}: {error}");
        }
    }
}
