//! `man`: the manual pages, made of the same words as --help.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_mangen::Man;

use crate::Cli;
use crate::output;

/// Into a folder a page for each command, else that of the program to stdout.
pub(crate) fn run(folder: Option<&Path>) -> anyhow::Result<()> {
    let Some(folder) = folder else {
        let mut page = Vec::new();
        Man::new(Cli::command()).render(&mut page)?;
        return output::write(&String::from_utf8_lossy(&page));
    };
    let shown = folder.display();
    fs::create_dir_all(folder).with_context(|| format!("cannot make {shown}"))?;
    clap_mangen::generate_to(Cli::command(), folder)
        .with_context(|| format!("cannot write the pages into {shown}"))?;
    output::say(&format!("the pages are in {shown}"));
    Ok(())
}
