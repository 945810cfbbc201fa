//! Counters of two labels, all of whose values are known beforehand.
//!
//! Counting finds its cell by position and takes no lock. The crate's own vectors hold one while a page is made, and a
//! request that brings a new pair of labels would wait for it.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::proto::MetricFamily;

use super::family;

pub(super) struct Grid {
    name: &'static str,
    help: &'static str,
    labels: [&'static str; 2],
    rows: &'static [&'static str],
    columns: &'static [&'static str],
    /// Columns that are shown before their first event.
    known: &'static [&'static str],
    cells: Box<[AtomicU64]>,
}

impl Grid {
    pub(super) fn new(
        (name, help): (&'static str, &'static str),
        labels: [&'static str; 2],
        rows: &'static [&'static str],
        columns: &'static [&'static str],
        known: &'static [&'static str],
    ) -> Self {
        let cells = (0..rows.len() * columns.len()).map(|_| AtomicU64::new(0)).collect();
        Self { name, help, labels, rows, columns, known, cells }
    }

    /// What is in no list is a mistake of this program, and counts nowhere.
    pub(super) fn inc(&self, row: &str, column: &str) {
        let at = |list: &[&str], word: &str| list.iter().position(|known| *known == word);
        let cell = at(self.rows, row)
            .zip(at(self.columns, column))
            .and_then(|(row, column)| self.cells.get(row * self.columns.len() + column));
        debug_assert!(cell.is_some(), "{} has no {row}, {column}", self.name);
        if let Some(cell) = cell {
            cell.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn family(&self) -> MetricFamily {
        let pairs =
            self.rows.iter().flat_map(|row| self.columns.iter().map(move |column| (row, column)));
        let samples = pairs.zip(&self.cells).filter_map(|((row, column), cell)| {
            let count = cell.load(Ordering::Relaxed);
            (count > 0 || self.known.contains(column)).then(|| {
                let [first, second] = self.labels;
                (vec![(first, (*row).to_owned()), (second, (*column).to_owned())], count as f64)
            })
        });
        family::counters_of(self.name, self.help, samples)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(grid: &Grid) -> Vec<(String, f64)> {
        let mut family = grid.family();
        let metrics = family.take_metric();
        let text = |metric: &prometheus::proto::Metric| {
            metric.get_label().iter().map(|pair| pair.value()).collect::<Vec<_>>().join(" ")
        };
        metrics.iter().map(|metric| (text(metric), metric.get_counter().get_value())).collect()
    }

    #[test]
    fn known_columns_show_at_zero_and_others_with_their_first_event() {
        let grid = Grid::new(("n", "h"), ["a", "b"], &["x", "y"], &["ok", "bad"], &["ok"]);
        assert_eq!(shown(&grid), [("x ok".to_owned(), 0.0), ("y ok".to_owned(), 0.0)]);
        grid.inc("y", "bad");
        grid.inc("y", "bad");
        grid.inc("x", "ok");
        let all = [("x ok".to_owned(), 1.0), ("y ok".to_owned(), 0.0), ("y bad".to_owned(), 2.0)];
        assert_eq!(shown(&grid), all);
    }
}
