//! Everything that happened, line by line: what a replay is compared by.

use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::PathBuf;

/// Lines of which only the last few, and a hash of all, are kept in memory.
pub struct Trace {
    file: Option<BufWriter<File>>,
    hash: u64,
    lines: u64,
}

impl Trace {
    pub fn new(path: Option<PathBuf>) -> io::Result<Self> {
        let file = path.map(File::create).transpose()?.map(BufWriter::new);
        Ok(Self { file, hash: 0xcbf2_9ce4_8422_2325, lines: 0 })
    }

    pub fn line(&mut self, tick: u64, what: fmt::Arguments<'_>) {
        let line = format!("{tick} {what}\n");
        // FNV-1a.
        for byte in line.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self.lines += 1;
        if let Some(file) = &mut self.file
            && let Err(error) = file.write_all(line.as_bytes())
        {
            eprintln!("error: the trace could not be written: {error}");
            self.file = None;
        }
    }

    /// The hash of all lines, and how many there are.
    pub fn finish(mut self) -> io::Result<(u64, u64)> {
        if let Some(file) = &mut self.file {
            file.flush()?;
        }
        Ok((self.hash, self.lines))
    }
}
