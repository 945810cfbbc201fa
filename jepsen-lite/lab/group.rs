//! Control groups (version 1): what a server may have of processor, memory and disk.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::run_file::{Made, RunFile};

const ROOT: &str = "/sys/fs/cgroup";
/// The controllers that faults use.
pub const CONTROLLERS: [&str; 3] = ["blkio", "cpu", "memory"];

/// The group of one node, in each controller.
#[derive(Debug)]
pub struct Group {
    name: String,
}

impl Group {
    /// Makes it.
    ///
    /// # Errors
    /// When the machine has no such controller.
    pub fn create(name: &str, list: &mut RunFile) -> anyhow::Result<Self> {
        let group = Self { name: name.to_owned() };
        for controller in CONTROLLERS {
            let path = group.path(controller);
            list.add(Made::Group(path.clone()))?;
            fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        }
        Ok(group)
    }

    fn path(&self, controller: &str) -> PathBuf {
        Path::new(ROOT).join(controller).join(&self.name)
    }

    /// Puts a process with all its threads into it.
    ///
    /// # Errors
    /// When it is gone.
    pub fn add(&self, pid: u32) -> anyhow::Result<()> {
        CONTROLLERS.iter().try_for_each(|controller| {
            self.set(controller, "cgroup.procs", &pid.to_string()) //
        })
    }

    /// Sets a limit.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn set(&self, controller: &str, file: &str, value: &str) -> anyhow::Result<()> {
        let path = self.path(controller).join(file);
        fs::write(&path, value).with_context(|| format!("{value} > {}", path.display()))
    }

    /// A number in a line of a file: behind `name`, or the whole of it.
    ///
    /// # Errors
    /// When there is none.
    pub fn number(&self, controller: &str, file: &str, name: &str) -> anyhow::Result<u64> {
        let path = self.path(controller).join(file);
        let text = fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|line| line.trim().parse().ok());
        number.with_context(|| format!("no {name:?} in {}", path.display()))
    }
}
