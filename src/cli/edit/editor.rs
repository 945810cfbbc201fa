//! The editor as a process, and the file that it works on.

use std::env;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

const EDITOR: &str = "vi";
/// Memory that looks like a disk: what is in it is gone with the machine's power.
const IN_MEMORY: &str = "/dev/shm";
/// A value is at most 1 MiB; laid out, it may be a few times that.
const BYTES_MAX: u64 = 64 << 20;

/// A folder for one file, entered by its owner only and removed when this is dropped. A folder, because editors leave
/// files of their own beside the one they edit.
pub(super) struct Desk {
    folder: TempDir,
    extension: &'static str,
    secret: bool,
}

impl Desk {
    pub(super) fn new(secret: bool, extension: &'static str) -> anyhow::Result<Self> {
        let folder = make(secret).context("cannot make a folder for the text")?;
        Ok(Self { folder, extension, secret })
    }

    /// Lets the user edit this text.
    pub(super) async fn edit(&self, text: &str) -> anyhow::Result<String> {
        let file = self.folder.path().join(format!("value{}", self.extension));
        let written = || -> std::io::Result<()> {
            let mut options = fs::OpenOptions::new();
            let options = options.write(true).create(true).truncate(true).mode(0o600);
            options.open(&file)?.write_all(text.as_bytes())
        };
        written().with_context(|| format!("cannot write {}", file.display()))?;
        run(&file).await?;
        let shown = || format!("cannot read back {}", file.display());
        let length = fs::metadata(&file).with_context(shown)?.len();
        if length > BYTES_MAX {
            bail!("the text is {length} bytes now, which no value can be; nothing was written");
        }
        fs::read_to_string(&file).with_context(shown)
    }

    /// Keeps a text where its owner finds it; that of a secret nowhere.
    pub(super) fn keep(&self, text: &str) -> anyhow::Result<Option<PathBuf>> {
        if self.secret { Ok(None) } else { keep(text, self.extension) }
    }

    #[cfg(test)]
    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// Keeps a text in a file of its own, for its owner only.
pub(super) fn keep(text: &str, extension: &str) -> anyhow::Result<Option<PathBuf>> {
    let mut file =
        tempfile::Builder::new().prefix("llm-config-edit-").suffix(extension).tempfile()?;
    file.write_all(text.as_bytes())?;
    let (_, path) = file.keep()?;
    Ok(Some(path))
}

fn make(secret: bool) -> std::io::Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    let builder = builder.prefix("llm-config-").permissions(fs::Permissions::from_mode(0o700));
    if secret {
        let memory =
            [Some(PathBuf::from(IN_MEMORY)), env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from)];
        for place in memory.into_iter().flatten() {
            if let Ok(folder) = builder.tempdir_in(place) {
                return Ok(folder);
            }
        }
    }
    builder.tempdir()
}

/// What the user likes to edit with, in the words of a shell.
fn chosen() -> String {
    let set = |name| env::var(name).ok().filter(|value| !value.trim().is_empty());
    set("VISUAL").or_else(|| set("EDITOR")).unwrap_or_else(|| EDITOR.to_owned())
}

/// Waits for the editor as long as it takes. Ctrl-C is the editor's; being told to end ends it, too.
async fn run(file: &Path) -> anyhow::Result<()> {
    let editor = chosen();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let mut child = Command::new("sh")
        .arg("-c")
        .arg(format!("{editor} \"$@\""))
        .arg(&editor)
        .arg(file)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start the editor {editor:?}"))?;
    loop {
        tokio::select! {
            ended = child.wait() => {
                let status = ended.context("cannot wait for the editor")?;
                if !status.success() {
                    bail!("the editor {editor:?} ended with {status}; nothing was written; $VISUAL or $EDITOR names another");
                }
                return Ok(());
            }
            _ = interrupt.recv() => {}
            _ = terminate.recv() => bail!("told to end; nothing was written"),
            _ = hang_up.recv() => bail!("the terminal is gone; nothing was written"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_is_its_owners_and_goes() {
        let desk = Desk::new(false, ".json").unwrap();
        let path = desk.path().to_owned();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        drop(desk);
        assert!(!path.exists());
    }

    #[test]
    fn a_secret_is_not_on_a_disk_where_there_is_memory_and_is_never_kept() {
        let desk = Desk::new(true, ".json").unwrap();
        if Path::new(IN_MEMORY).is_dir() {
            assert!(desk.path().starts_with(IN_MEMORY), "{}", desk.path().display());
        }
        assert_eq!(desk.keep("x").unwrap(), None);
    }

    #[test]
    fn a_kept_text_is_its_owners() {
        let path = keep("x", ".txt").unwrap().unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        let text = fs::read_to_string(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!((mode & 0o777, text.as_str()), (0o600, "x"));
    }
}
