//! Progress on stderr: a bar on a terminal, a plain line every few seconds elsewhere.

use std::io::{self, IsTerminal as _};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;

const LINE_EVERY: Duration = Duration::from_secs(5);

pub(super) enum Progress {
    Bar(ProgressBar),
    Lines { done: usize, total: usize, last: Instant },
}

impl Progress {
    pub(super) fn new(total: usize) -> Self {
        if io::stderr().is_terminal() {
            Self::Bar(ProgressBar::new(total as u64))
        } else {
            Self::Lines { done: 0, total, last: Instant::now() }
        }
    }

    pub(super) fn advance(&mut self) {
        match self {
            Self::Bar(bar) => bar.inc(1),
            Self::Lines { done, total, last } => {
                *done += 1;
                if last.elapsed() >= LINE_EVERY {
                    eprintln!("{done} of {total} entries");
                    *last = Instant::now();
                }
            }
        }
    }

    pub(super) fn finish(self) {
        match self {
            Self::Bar(bar) => bar.finish_and_clear(),
            Self::Lines { .. } => {}
        }
    }
}
