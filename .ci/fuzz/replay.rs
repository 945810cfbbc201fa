//! Runs a fuzzing body over its committed inputs and over mutations of them, the same ones each time.
//!
//! Unit tests of the crates include this file. It finds what a parser forgot again; the search that is led by coverage is
//! `make fuzz`.
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    reason = "inputs are files, also those of crates that touch none"
)]

use std::path::{Path, PathBuf};

/// Mutations of each committed input.
const MUTATIONS: usize = 300;
/// Longest mutated input: what is wrong shows in short ones.
const BYTES_MAX: usize = 16 << 10;
/// Bytes that parsers treat as something else than text.
const TELLING: &[u8] = b"\0\x01\x7f\x80\xff \n\r\t\"\\/%&=+,;:.-_0129eE[]{}<>*";

/// Runs `body` over what is in `.ci/fuzz/corpus/TARGET`.
///
/// # Panics
/// When the body does, naming the input.
pub(crate) fn run(target: &str, body: fn(&[u8])) {
    let folder = root().join(".ci/fuzz/corpus").join(target);
    let inputs = inputs(&folder);
    let mut chance = Chance::of(target);
    for (name, input) in &inputs {
        call(target, name, body, input);
        for _ in 0..MUTATIONS {
            let (_, other) = &inputs[chance.below(inputs.len())];
            call(target, name, body, &mutated(input, other, &mut chance));
        }
    }
}

/// Asked at run time: a target folder that two clones share may hold a test that was built in the other one.
fn root() -> PathBuf {
    let here = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo says where the crate is");
    let marked = |folder: &&Path| folder.join(".ci/fuzz/corpus").is_dir();
    Path::new(&here).ancestors().find(marked).expect("a tree with .ci/fuzz/corpus").to_path_buf()
}

fn inputs(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let files = std::fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|file| file.expect("a readable folder").path());
    let mut inputs: Vec<(String, Vec<u8>)> = files
        .map(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            (name, std::fs::read(&path).expect("a readable file"))
        })
        .collect();
    inputs.sort();
    assert!(!inputs.is_empty(), "{} holds no inputs", folder.display());
    inputs
}

fn call(target: &str, name: &str, body: fn(&[u8]), input: &[u8]) {
    if std::panic::catch_unwind(|| body(input)).is_err() {
        let shown = input.escape_ascii();
        panic!("{target}: an input like {name} fails; keep it below .ci/fuzz/corpus: b\"{shown}\"");
    }
}

/// A few changes, each of one of the kinds that libFuzzer makes.
fn mutated(input: &[u8], other: &[u8], chance: &mut Chance) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..=chance.below(4) {
        let at = chance.below(bytes.len() + 1);
        let length = chance.below(8.min(bytes.len() - at) + 1);
        match chance.below(9) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..at + length)),
            2 => bytes.insert(at, TELLING[chance.below(TELLING.len())]),
            3 => {
                let repeated = bytes[at..at + length].repeat(1 + chance.below(64));
                bytes.splice(at..at, repeated);
            }
            4 => {
                let from = chance.below(other.len() + 1);
                bytes.splice(at.., other[from..].iter().copied());
            }
            _ if at == bytes.len() => bytes.push(chance.byte()),
            5 => bytes[at] ^= 1 << chance.below(8),
            6 => bytes[at] = TELLING[chance.below(TELLING.len())],
            7 => bytes[at] = bytes[at].wrapping_add(1),
            _ => bytes[at] = chance.byte(),
        }
        bytes.truncate(BYTES_MAX);
    }
    bytes
}

/// Numbers that look like chance (xorshift64*), the same for a name on every machine.
struct Chance(u64);

impl Chance {
    fn of(name: &str) -> Self {
        let fold = |sum: u64, byte: u8| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        Self(name.bytes().fold(0xcbf2_9ce4_8422_2325, fold))
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap_or_default() % bound.max(1)
    }

    fn byte(&mut self) -> u8 {
        self.next().to_be_bytes()[0]
    }
}
