//! The lines of a series, one for each work at each step. A later one takes the place of an earlier one of the same name, so
//! that a part can be measured anew.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::axes::{Axis, Work};
use crate::report::Record;

/// One work at one step.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    /// What grows.
    pub axis: Axis,
    /// How far.
    pub x: usize,
    /// What was done.
    pub work: Work,
    /// Nodes of the cluster.
    pub nodes: usize,
    /// Cores of the machine, which the load shares.
    pub cores: usize,
    /// That the data was on.
    pub file_system: String,
    /// What the machine did in the minute before.
    pub load_before: f32,
    /// What came of it.
    #[serde(flatten)]
    pub gave: Gave,
}

/// What came of a run.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum Gave {
    /// Figures.
    Figures {
        /// What the data of all nodes took on the disk at the end.
        disk_bytes: u64,
        /// All that any run tells.
        #[serde(flatten)]
        record: Box<Record>,
    },
    /// None.
    Nothing {
        /// Why.
        failed: String,
    },
}

/// What is read of a line again.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Point {
    /// What grows.
    pub axis: Axis,
    /// How far.
    pub x: usize,
    /// What was done.
    pub work: Work,
    /// Nodes of the cluster.
    pub nodes: usize,
    /// Cores of the machine.
    pub cores: usize,
    /// That the data was on.
    pub file_system: String,
    /// Why there are no figures.
    pub failed: Option<String>,
    /// The release of the servers.
    pub version: Option<String>,
    /// Measured time.
    pub seconds: Option<f64>,
    /// Successful operations a second.
    pub ops_per_second: Option<f64>,
    /// Server CPU of each.
    pub server_cpu_us_per_op: Option<f64>,
    /// Resident memory of all nodes.
    pub rss_bytes: Option<f64>,
    /// Their data on the disk.
    pub disk_bytes: Option<f64>,
    /// What did not come back, and what did not come through.
    #[serde(default)]
    pub errors: u64,
    /// From the beginning of a write until the last watcher had it.
    #[serde(default)]
    pub last_watcher: Millis,
}

/// Of the quantiles, those that are drawn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
pub struct Millis {
    /// Half stay at or below it.
    pub p50_ms: Option<f64>,
    /// 99 %.
    pub p99_ms: Option<f64>,
}

/// All lines, in the order of axes, steps and works.
#[derive(Debug, Default)]
pub struct Book(BTreeMap<(Axis, usize, Work), (String, Point)>);

impl Book {
    /// Those of a file; none when there is no file.
    ///
    /// # Errors
    /// When it cannot be read, or a line is no line of a series.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&text).with_context(|| path.display().to_string()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Those of a text.
    ///
    /// # Errors
    /// When one is no line of a series.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let mut book = Self::default();
        for (number, line) in (1..).zip(text.lines()) {
            if !line.is_empty() {
                book.add(line).with_context(|| format!("line {number}"))?;
            }
        }
        Ok(book)
    }

    /// Takes a line in.
    ///
    /// # Errors
    /// When it is none of a series.
    pub fn add(&mut self, line: &str) -> anyhow::Result<()> {
        let point: Point = serde_json::from_str(line)?;
        self.0.insert((point.axis, point.x, point.work), (line.to_owned(), point));
        Ok(())
    }

    /// Writes them all, or leaves the file as it was.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, path: &Path) -> anyhow::Result<()> {
        let new = path.with_extension("new");
        let text: String = self.0.values().map(|(line, _)| format!("{line}\n")).collect();
        std::fs::write(&new, text)
            .and_then(|()| std::fs::rename(&new, path))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// What was measured along an axis.
    pub fn points(&self, axis: Axis) -> impl Iterator<Item = &Point> {
        self.0.values().map(|(_, point)| point).filter(move |point| point.axis == axis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(axis: Axis, x: usize, failed: &str) -> String {
        let line = Line {
            axis,
            x,
            work: Work::Put,
            nodes: 3,
            cores: 2,
            file_system: "ext4".into(),
            load_before: 0.5,
            gave: Gave::Nothing { failed: failed.into() },
        };
        serde_json::to_string(&line).unwrap()
    }

    #[test]
    fn a_later_line_takes_the_place_of_an_earlier_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("curves.jsonl");
        let mut book = Book::read(&path).unwrap();
        for (axis, x, failed) in [
            (Axis::Keys, 10, "a"),
            (Axis::Clients, 2, "b"),
            (Axis::Keys, 9, "c"),
            (Axis::Keys, 10, "d"),
        ] {
            book.add(&line(axis, x, failed)).unwrap();
        }
        book.save(&path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let all =
            [line(Axis::Clients, 2, "b"), line(Axis::Keys, 9, "c"), line(Axis::Keys, 10, "d")];
        assert_eq!(text, all.map(|line| format!("{line}\n")).concat());
        let book = Book::read(&path).unwrap();
        let keys: Vec<_> = book.points(Axis::Keys).map(|p| (p.x, p.failed.as_deref())).collect();
        assert_eq!(keys, [(9, Some("c")), (10, Some("d"))]);
        assert!(book.points(Axis::Nodes).next().is_none());
    }

    #[test]
    fn what_is_no_line_is_named() {
        let text = format!("{}\n\nnonsense\n", line(Axis::Keys, 1, "a"));
        let error = format!("{:#}", Book::parse(&text).unwrap_err());
        assert!(error.contains("line 3"), "{error}");
    }
}
