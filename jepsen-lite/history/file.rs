//! Histories as files: a header, a line for each operation and fault, and a last line that tells a whole file from one
//! that was cut off.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read as _, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{FORMAT, Fault, Header, History, Operation};

/// The longest line that is read: a list of many large values.
const LINE_BYTES_MAX: u64 = 64 << 20;
/// More than any run makes, and what a machine can still hold.
const OPERATIONS_MAX: usize = 20_000_000;

/// A line.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Header(Header),
    Operation(Operation),
    Fault(Fault),
    End(End),
}

/// A line, without a copy of what is in it.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum LineRef<'a> {
    Header(&'a Header),
    Operation(&'a Operation),
    Fault(&'a Fault),
    End(End),
}

/// What has to have come before.
#[derive(Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct End {
    operations: u64,
    faults: u64,
}

/// Writes a history while it happens.
pub struct Writer<W: Write> {
    out: W,
    end: End,
}

impl<W: Write> Writer<W> {
    /// Writes the header.
    ///
    /// # Errors
    /// What the file says.
    pub fn new(mut out: W, header: &Header) -> io::Result<Self> {
        line(&mut out, &LineRef::Header(header))?;
        Ok(Self { out, end: End::default() })
    }

    /// Writes down an operation that has ended, or whose outcome stays unknown.
    ///
    /// # Errors
    /// What the file says; `InvalidInput` when the operation is no sound record (see [`Operation::validate`]).
    pub fn operation(&mut self, operation: &Operation) -> io::Result<()> {
        if let Err(reason) = operation.validate() {
            let reason = format!("operation {}: {reason}", operation.id);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        }
        line(&mut self.out, &LineRef::Operation(operation))?;
        self.end.operations += 1;
        Ok(())
    }

    /// Writes down a fault that is over.
    ///
    /// # Errors
    /// What the file says.
    pub fn fault(&mut self, fault: &Fault) -> io::Result<()> {
        line(&mut self.out, &LineRef::Fault(fault))?;
        self.end.faults += 1;
        Ok(())
    }

    /// Writes the last line, and returns what was written to.
    ///
    /// # Errors
    /// What the file says.
    pub fn finish(mut self) -> io::Result<W> {
        line(&mut self.out, &LineRef::End(self.end))?;
        self.out.flush()?;
        Ok(self.out)
    }
}

fn line(out: &mut impl Write, line: &LineRef<'_>) -> io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    out.write_all(b"\n")
}

/// Writes a whole history to a file.
///
/// # Errors
/// What the file says, and what [`Writer::operation`] says.
pub fn write_file(path: &Path, history: &History) -> io::Result<()> {
    let mut writer = Writer::new(BufWriter::new(File::create(path)?), &history.header)?;
    for operation in &history.operations {
        writer.operation(operation)?;
    }
    for fault in &history.faults {
        writer.fault(fault)?;
    }
    if history.whole {
        writer.finish()?;
    } else {
        writer.out.flush()?;
    }
    Ok(())
}

/// Why a history cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A line is not what it should be.
    #[error("line {line}: {reason}")]
    Line {
        /// Counted from 1.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
}

/// Reads a history from a file.
///
/// # Errors
/// [`ReadError`]. A file without its last line, as of a run that was killed, is read and is not `whole`.
pub fn read_file(path: &Path) -> Result<History, ReadError> {
    read(BufReader::new(File::open(path)?))
}

/// Reads a history.
///
/// # Errors
/// As [`read_file`].
pub fn read(mut input: impl BufRead) -> Result<History, ReadError> {
    let mut history = History::default();
    let mut ids = HashSet::new();
    let mut bytes = Vec::new();
    let mut number = 0;
    loop {
        bytes.clear();
        let length = (&mut input).take(LINE_BYTES_MAX).read_until(b'\n', &mut bytes)?;
        if length == 0 {
            break;
        }
        number += 1;
        let fault = |reason: String| ReadError::Line { line: number, reason };
        if history.whole {
            return Err(fault("something follows the last line".to_owned()));
        }
        if bytes.last() != Some(&b'\n') {
            if bytes.len() as u64 == LINE_BYTES_MAX {
                return Err(fault(format!("it is longer than {LINE_BYTES_MAX} bytes")));
            }
            // Whoever wrote it was killed at it.
            break;
        }
        let parsed = serde_json::from_slice(&bytes).map_err(|error| fault(error.to_string()))?;
        match parsed {
            Line::Header(header) if number == 1 => {
                if header.format != FORMAT {
                    return Err(fault(format!("format {} is not {FORMAT}", header.format)));
                }
                history.header = header;
            }
            Line::Header(_) => return Err(fault("a second header".to_owned())),
            _ if number == 1 => return Err(fault("the first line is no header".to_owned())),
            Line::Operation(operation) => {
                operation
                    .validate()
                    .map_err(|reason| fault(format!("operation {}: {reason}", operation.id)))?;
                if !ids.insert(operation.id) {
                    return Err(fault(format!("a second operation {}", operation.id)));
                }
                if history.operations.len() == OPERATIONS_MAX {
                    return Err(fault(format!("more than {OPERATIONS_MAX} operations")));
                }
                history.operations.push(operation);
            }
            Line::Fault(struck) => history.faults.push(struck),
            Line::End(end) => {
                let found = End {
                    operations: history.operations.len() as u64,
                    faults: history.faults.len() as u64,
                };
                if end != found {
                    return Err(fault(format!(
                        "{} operations and {} faults were written, {} and {} are here",
                        end.operations, end.faults, found.operations, found.faults
                    )));
                }
                history.whole = true;
            }
        }
    }
    if number == 0 {
        return Err(ReadError::Line { line: 1, reason: "the file is empty".to_owned() });
    }
    Ok(history)
}
