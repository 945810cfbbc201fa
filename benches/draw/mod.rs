//! The lines of series as pictures: one for each axis, with what an operation costs the servers on the left.

pub mod svg;

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Context as _;

use crate::curves::axes::{Axis, Work};
use crate::curves::book::{Book, Point};
use svg::{Curve, Panel, Scale, number, picture};

const MIB: f64 = (1 << 20) as f64;

/// Draws every axis into a folder; what was written.
///
/// # Errors
/// When a file cannot be written.
pub fn write(book: &Book, folder: &Path) -> anyhow::Result<Vec<String>> {
    std::fs::create_dir_all(folder)?;
    let mut names = Vec::new();
    for axis in Axis::ALL {
        let name = file_name(axis);
        let path = folder.join(&name);
        std::fs::write(&path, draw(book, axis))
            .with_context(|| format!("cannot write {}", path.display()))?;
        names.push(name);
    }
    Ok(names)
}

/// Of an axis' picture.
#[must_use]
pub fn file_name(axis: Axis) -> String {
    format!("curve-{}.svg", axis.name())
}

/// The picture of an axis.
#[must_use]
pub fn draw(book: &Book, axis: Axis) -> String {
    let points: Vec<&Point> = book.points(axis).collect();
    let (title, below) = match axis {
        Axis::Clients => {
            ("How cost grows with clients", "clients, each with one request under way")
        }
        Axis::Value => ("How cost grows with the size of a value", "size of a value"),
        Axis::Keys => ("How cost grows with keys", "keys in the store"),
        Axis::Nodes => ("How cost grows with nodes", "nodes, all with a vote"),
        Axis::Watchers => ("How cost grows with watchers", "watchers, over all nodes"),
    };
    let cost = if axis == Axis::Watchers {
        "CPU of all servers for each put, µs"
    } else {
        "CPU of all servers for each operation, µs"
    };
    let (beside, second) = match axis {
        Axis::Clients | Axis::Value | Axis::Nodes => {
            ("operations a second", each_work(axis, &points, |point| point.ops_per_second))
        }
        Axis::Keys => ("of each node, MiB", room(&points)),
        Axis::Watchers => ("until the last watcher has a put, ms", deliveries(&points)),
    };
    // Seven is less than a decade from one: what is straight looks straight on a linear axis only.
    let scale = if axis == Axis::Nodes { Scale::Linear } else { Scale::Log };
    let figures = points.iter().filter(|point| point.failed.is_none());
    let steps: BTreeSet<usize> = figures.map(|point| point.x).collect();
    let marks: Vec<(f64, String)> = steps.iter().map(|x| (place(*x), mark(axis, *x))).collect();
    let panel = |title, curves| Panel {
        title,
        below,
        marks: marks.clone(),
        scales: (scale, scale),
        curves,
    };
    let first = each_work(axis, &points, |point| point.server_cpu_us_per_op);
    picture(title, &[panel(cost, first), panel(beside, second)], &notes(axis, &points))
}

fn each_work(axis: Axis, points: &[&Point], of: impl Fn(&Point) -> Option<f64>) -> Vec<Curve> {
    let works = axis.works().iter();
    works.map(|work| curve(work.name(), points, *work, &of)).collect()
}

/// As the store was filled, before anything is written anew.
fn room(points: &[&Point]) -> Vec<Curve> {
    let each =
        |point: &Point, bytes: Option<f64>| bytes.map(|bytes| bytes / MIB / place(point.nodes));
    vec![
        curve("on the disk", points, Work::CachedGet, &|point| each(point, point.disk_bytes)),
        curve("in memory", points, Work::CachedGet, &|point| each(point, point.rss_bytes)),
    ]
}

fn deliveries(points: &[&Point]) -> Vec<Curve> {
    vec![
        curve("p99", points, Work::WatchedPut, &|point| point.last_watcher.p99_ms),
        curve("p50", points, Work::WatchedPut, &|point| point.last_watcher.p50_ms),
    ]
}

fn curve(
    name: &'static str,
    points: &[&Point],
    work: Work,
    of: &dyn Fn(&Point) -> Option<f64>,
) -> Curve {
    let own = points.iter().filter(|point| point.work == work);
    // Nothing has no place on a logarithmic axis: fewer than 10 ms of CPU in all are no figure.
    let figures = own.filter_map(|point| Some((place(point.x), of(point).filter(|y| *y > 0.0)?)));
    Curve { name, points: figures.collect() }
}

/// What the figures are of, and which are missing.
fn notes(axis: Axis, points: &[&Point]) -> Vec<String> {
    let all = |of: &dyn Fn(&Point) -> Option<String>| {
        let texts: BTreeSet<String> = points.iter().filter_map(|point| of(point)).collect();
        texts.into_iter().collect::<Vec<_>>().join(" / ")
    };
    let mut notes = vec![format!(
        "{}. The scales are {}.",
        axis.fixed(),
        match axis {
            Axis::Nodes => "linear",
            _ => "logarithmic",
        }
    )];
    if points.iter().any(|point| point.failed.is_none()) {
        notes.push(format!(
            "Version {}, measured for {} s, {} cores shared with the load, data on {}.",
            all(&|point| point.version.clone()),
            all(&|point| point.seconds.map(number)),
            all(&|point| Some(point.cores.to_string())),
            all(&|point| Some(point.file_system.clone())),
        ));
    }
    let list = |of: &dyn Fn(&Point) -> bool| {
        let those = points.iter().filter(|point| of(point));
        those.map(|point| format!("{} ({})", mark(axis, point.x), point.work.name())).collect()
    };
    let failed: Vec<String> = list(&|point| point.failed.is_some());
    if !failed.is_empty() {
        notes.push(format!("Without figures: {}.", failed.join(", ")));
    }
    let faulty: Vec<String> = list(&|point| point.errors > 0);
    if !faulty.is_empty() {
        notes.push(format!("With errors: {}.", faulty.join(", ")));
    }
    notes
}

fn mark(axis: Axis, x: usize) -> String {
    match axis {
        Axis::Value if x >= 1 << 20 => format!("{} MiB", number(place(x) / MIB)),
        Axis::Value if x >= 1 << 10 => format!("{} KiB", number(place(x) / 1024.0)),
        Axis::Value => format!("{x} B"),
        _ if x >= 1000 && x.is_multiple_of(1000) && x < 10_000 => format!("{}k", x / 1000),
        _ => number(place(x)),
    }
}

#[allow(clippy::cast_precision_loss, reason = "steps of an axis are far below 2^52")]
fn place(x: usize) -> f64 {
    x as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `llm-config-load curves` prints it, shortened.
    const FIXTURE: &str = include_str!("fixture.jsonl");
    const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/benchmarks");

    fn fixture() -> Book {
        Book::parse(FIXTURE).unwrap()
    }

    #[test]
    fn a_picture_has_axes_with_units_curves_and_what_it_is_of() {
        let svg = draw(&fixture(), Axis::Clients);
        for wanted in [
            "CPU of all servers for each operation, µs",
            "operations a second",
            "clients, each with one request under way",
            ">64</text>",
            ">put, leader</text>",
            "<title>put, leader, 64: 216</title>",
            "<title>put, leader, 64: 7355</title>",
            "3 nodes, 256 B, 1000 keys. The scales are logarithmic.",
            "Version 0.2.0, measured for 6 s, 2 cores shared with the load, data on ext4.",
            "prefers-color-scheme:dark",
        ] {
            assert!(svg.contains(wanted), "{wanted}: {svg}");
        }
        assert_eq!(svg.matches("<path class=\"c2\"").count(), 2, "puts in both panels");
        assert!(svg.len() < 16 << 10, "{} bytes", svg.len());
        assert!(!svg.contains("Without figures"));
    }

    #[test]
    fn sizes_have_units_and_gaps_are_told() {
        let svg = draw(&fixture(), Axis::Value);
        assert!(svg.contains(">64 B</text>") && svg.contains(">64 KiB</text>"), "{svg}");
        assert!(svg.contains("Without figures: 1 MiB (put, leader)."), "{svg}");
        assert!(svg.contains("With errors: 64 KiB (put, leader)."), "{svg}");
    }

    #[test]
    fn room_is_that_of_a_node_and_deliveries_are_those_of_the_last_watcher() {
        let svg = draw(&fixture(), Axis::Keys);
        assert!(svg.contains("<title>on the disk, 10k: 20</title>"), "{svg}");
        assert!(svg.contains("<title>in memory, 10k: 100</title>"), "{svg}");
        let svg = draw(&fixture(), Axis::Watchers);
        assert!(svg.contains("<title>p99, 1000: 42</title>"), "{svg}");
        assert!(draw(&fixture(), Axis::Nodes).contains("no figures"));
    }

    #[test]
    fn the_pictures_in_the_tree_are_of_the_lines_beside_them() {
        let folder = Path::new(DOCS);
        let book = Book::read(&folder.join("curves.jsonl")).unwrap();
        for axis in Axis::ALL {
            let path = folder.join(file_name(axis));
            let there = std::fs::read_to_string(&path).unwrap();
            let name = path.display();
            assert!(there == draw(&book, axis), "{name}: draw it anew: llm-config-load draw");
        }
    }

    #[test]
    fn all_axes_are_written() {
        let dir = tempfile::tempdir().unwrap();
        let names = write(&fixture(), &dir.path().join("new")).unwrap();
        assert_eq!(names.len(), Axis::ALL.len());
        let written = std::fs::read_to_string(dir.path().join("new/curve-keys.svg")).unwrap();
        assert_eq!(written, draw(&fixture(), Axis::Keys));
    }
}
