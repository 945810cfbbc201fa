//! The data directory: what lies where, who owns it, and how a pointer is moved.
//!
//! ```text
//! LOCK              held while a node runs
//! identity          which node and cluster this directory belongs to
//! removed           there when the cluster has removed this node: why it does not start
//! watermark         what was durable once (see `watermark`)
//! log/              RocksDB of the Raft log
//! state-<id>/       RocksDB of the applied state; CURRENT-STATE names the live one
//! snapshot-<id>/    the last snapshot; CURRENT-SNAPSHOT names it
//! receive-<id>/     a snapshot in arrival, deleted at the next start when it was not finished
//! restore-<id>/     a backup that is being restored (see `restore`): no node starts before that is finished
//! ```
//!
//! A pointer is a file with the name of a folder and its own format, replaced by rename after everything that it names is
//! durable. Folders that no pointer names are left-overs of a crash and are deleted when the directory is opened.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use tokio::sync::watch;
use uuid::Uuid;

use crate::error::StartError;
use crate::failpoint::crash_point;
use crate::form::{DIRECTORY_FORMAT, NewerForm, POINTER_FORMAT};
use crate::machine::fs::{self, File, OpenOptions, TryLockError};

pub(crate) const STATE_POINTER: &str = "CURRENT-STATE";
pub(crate) const SNAPSHOT_POINTER: &str = "CURRENT-SNAPSHOT";
/// How the folders begin that hold a state.
const STATE_PREFIX: &str = "state-";
/// How the folders begin that hold a snapshot.
const SNAPSHOT_PREFIX: &str = "snapshot-";
/// How the folder begins in which a backup is restored.
pub(crate) const RESTORE_PREFIX: &str = "restore-";
/// How the founding text of a node begins whose directory was restored: it must not take part in a founding with one
/// that was not.
pub(crate) const RESTORED: &str = "restored:";
const IDENTITY: &str = "identity";
const REMOVED: &str = "removed";

/// Which node and cluster a directory belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) node_id: u64,
    /// Made once for each directory: tells a disk from another that claims the same node id.
    pub(crate) incarnation: String,
    /// Absent until this node has heard of a founded cluster.
    pub(crate) cluster_id: Option<String>,
    /// The founding list that this node was first started with, so that it is known when the flag is gone. Empty: none.
    pub(crate) founding: String,
}

/// An open, locked data directory.
#[derive(Debug)]
pub(crate) struct Directory {
    root: PathBuf,
    /// The first damage that was met while the node runs.
    damage: watch::Sender<Option<String>>,
    _lock: File,
}

impl Directory {
    /// Whether nothing was ever stored here.
    pub(crate) fn is_new(root: &Path) -> bool {
        !exists(&root.join(IDENTITY)) && !exists(&root.join("log"))
    }

    /// Whether nothing here says yet which cluster it belongs to. What cannot be read counts as claimed: opening it says
    /// what is wrong.
    pub(crate) fn is_unclaimed(root: &Path) -> bool {
        match fs::read_to_string(root.join(IDENTITY)) {
            Ok(text) => parse_identity(&text).is_ok_and(|identity| identity.cluster_id.is_none()),
            Err(error) => error.kind() == io::ErrorKind::NotFound && Self::is_new(root),
        }
    }

    /// Opens or creates a directory for `node_id`, and refuses one in use or of another node.
    pub(crate) fn open(root: &Path, node_id: u64) -> Result<(Self, Identity), StartError> {
        let directory = Self::lock(root)?;
        match fs::read_to_string(root.join(REMOVED)) {
            Ok(reason) => return Err(StartError::DataDir(format!("{}: {reason}", root.display()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(StartError::DataDir(format!(
                    "{}: {error}; --data-dir must be a directory that this user may read",
                    root.join(REMOVED).display()
                )));
            }
        }
        let identity = directory.read_or_make_identity(node_id)?;
        Ok((directory, identity))
    }

    /// Locks a directory, which is created when it is absent, without asking whose it is.
    pub(crate) fn lock(root: &Path) -> Result<Self, StartError> {
        let unusable = |error: io::Error| {
            StartError::DataDir(format!(
                "{}: {error}; --data-dir must be a directory that this user may write",
                root.display()
            ))
        };
        fs::create_dir_all(root).map_err(unusable)?;
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(root.join("LOCK"))
            .map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StartError::DataDir(format!(
                    "{}: another process uses this data directory; stop it, or give this node its own --data-dir",
                    root.display()
                )));
            }
            Err(TryLockError::Error(error)) => return Err(unusable(error)),
        }
        Ok(Self { root: root.to_owned(), damage: watch::Sender::new(None), _lock: lock })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Something in here is not what was written. The node must not go on with it, nor be started on it again.
    pub(crate) fn note_damage(&self, what: &str) {
        self.damage.send_if_modified(|known| {
            let first = known.is_none();
            if first {
                *known = Some(format!(
                    "{}: {what}. This node cannot go on with it: restore the directory, or replace the node",
                    self.root.display()
                ));
            }
            first
        });
    }

    /// The same, when that is what an error says.
    pub(crate) fn noted(&self, error: &io::Error) {
        if error.kind() == io::ErrorKind::InvalidData && NewerForm::within(error).is_none() {
            self.note_damage(&error.to_string());
        }
    }

    /// The damage that was met.
    pub(crate) fn damage(&self) -> Option<String> {
        self.damage.borrow().clone()
    }

    pub(crate) fn watch_damage(&self) -> watch::Receiver<Option<String>> {
        self.damage.subscribe()
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.root.join("log")
    }

    pub(crate) fn watermark(&self) -> PathBuf {
        self.root.join("watermark")
    }

    /// A path for something new, not named by any pointer yet.
    pub(crate) fn fresh(&self, prefix: &str) -> PathBuf {
        self.root.join(format!("{prefix}-{}", Uuid::new_v4().simple()))
    }

    pub(crate) fn pointer(&self, name: &str) -> io::Result<Option<PathBuf>> {
        let path = self.root.join(name);
        let content = match fs::read(&path) {
            Ok(content) => content,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(named(&path, error)),
        };
        let damaged = || {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{}: the pointer is damaged", path.display()),
            )
        };
        let content = std::str::from_utf8(&content).map_err(|_| damaged())?;
        let (target, rest) = content.split_once('\n').unwrap_or((content, ""));
        // The first form had no line for it.
        let format = match rest.lines().next() {
            None => POINTER_FORMAT,
            Some(line) => line
                .strip_prefix("format=")
                .and_then(|format| format.parse().ok())
                .ok_or_else(damaged)?,
        };
        let form = format!("the pointer file {name}");
        NewerForm::refuse(&form, format, POINTER_FORMAT)?;
        // A pointer in the place of another one names a folder that exists, but not one of its own.
        let own = if name == STATE_POINTER { STATE_PREFIX } else { SNAPSHOT_PREFIX };
        let id = target.strip_prefix(own).ok_or_else(damaged)?;
        if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(damaged());
        }
        Ok(Some(self.root.join(target)))
    }

    /// Points `name` at `target`, which must already be durable.
    pub(crate) fn point(&self, name: &str, target: &Path) -> io::Result<()> {
        let target = target
            .file_name()
            .and_then(|name| name.to_str())
            .ok_or_else(|| io::Error::other("a pointer needs the name of a folder"))?;
        write_durably(&self.root, name, &format!("{target}\nformat={POINTER_FORMAT}\n"))
    }

    /// Deletes folders that a crash left behind.
    pub(crate) fn sweep(&self) -> io::Result<()> {
        let live = [self.pointer(STATE_POINTER)?, self.pointer(SNAPSHOT_POINTER)?];
        for entry in fs::read_dir(&self.root)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let ours = [STATE_PREFIX, SNAPSHOT_PREFIX, "receive-", RESTORE_PREFIX]
                .iter()
                .any(|start| name.starts_with(start));
            if ours && is_folder(&path) && !live.iter().flatten().any(|live| *live == path) {
                fs::remove_dir_all(&path)?;
            }
        }
        Ok(())
    }

    /// Keeps this node from ever starting on this directory again.
    pub(crate) fn mark_removed(&self, reason: &str) -> io::Result<()> {
        crash_point("members.removed.before-file");
        write_durably(&self.root, REMOVED, reason)?;
        crash_point("members.removed.after-file");
        Ok(())
    }

    pub(crate) fn write_identity(&self, identity: &Identity) -> io::Result<()> {
        let mut text = format!(
            "format={DIRECTORY_FORMAT}\nnode_id={}\nincarnation={}\n",
            identity.node_id, identity.incarnation
        );
        if !identity.founding.is_empty() {
            text.push_str(&format!("founding={}\n", identity.founding));
        }
        if let Some(cluster_id) = &identity.cluster_id {
            text.push_str(&format!("cluster_id={cluster_id}\n"));
        }
        let crc = crc32fast::hash(text.as_bytes());
        text.push_str(&format!("crc32={crc:08x}\n"));
        write_durably(&self.root, IDENTITY, &text)
    }

    /// Whose directory this is; None when it says nothing about that.
    pub(crate) fn read_identity(&self) -> Result<Option<Identity>, StartError> {
        let path = self.root.join(IDENTITY);
        let refuse = |reason: String| StartError::DataDir(format!("{}: {reason}", path.display()));
        match fs::read(&path) {
            Ok(text) => {
                let text = String::from_utf8_lossy(&text);
                Ok(Some(parse_identity(&text).map_err(refuse)?))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(refuse(format!("{error}; restore it, or replace this node"))),
        }
    }

    /// Whether a restore was begun here and not finished.
    fn restore_is_unfinished(&self) -> io::Result<bool> {
        for entry in fs::read_dir(&self.root)? {
            if entry?.file_name().to_string_lossy().starts_with(RESTORE_PREFIX) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn read_or_make_identity(&self, node_id: u64) -> Result<Identity, StartError> {
        let path = self.root.join(IDENTITY);
        let refuse = |reason: String| StartError::DataDir(format!("{}: {reason}", path.display()));
        let identity = match self.read_identity()? {
            Some(identity) => identity,
            None => {
                if self.restore_is_unfinished().map_err(|error| refuse(error.to_string()))? {
                    return Err(StartError::DataDir(format!(
                        "{}: a backup was being restored here and that is not finished; repeat the restore",
                        self.root.display()
                    )));
                }
                if exists(&self.log())
                    || self.pointer(STATE_POINTER).is_ok_and(|state| state.is_some())
                {
                    return Err(refuse(
                        "the file is missing but the directory holds data; restore it, or replace this node".into(),
                    ));
                }
                let identity = Identity {
                    node_id,
                    incarnation: Uuid::new_v4().simple().to_string(),
                    cluster_id: None,
                    founding: String::new(),
                };
                self.write_identity(&identity).map_err(|error| refuse(error.to_string()))?;
                return Ok(identity);
            }
        };
        if identity.node_id != node_id {
            return Err(refuse(format!(
                "this data directory belongs to node {}, not to node {node_id}; check --node-id and --data-dir",
                identity.node_id
            )));
        }
        Ok(identity)
    }
}

fn parse_identity(text: &str) -> Result<Identity, String> {
    let damaged = || "the file is damaged; restore it, or replace this node".to_owned();
    let fields: BTreeMap<&str, &str> =
        text.lines().filter_map(|line| line.split_once('=')).collect();
    // Before the checksum, so that a newer format may check itself in another way.
    let format = fields.get("format").and_then(|format| format.parse().ok()).ok_or_else(damaged)?;
    NewerForm::refuse("the identity file", format, DIRECTORY_FORMAT)
        .map_err(|newer| newer.to_string())?;
    let (body, _) = text.rsplit_once("crc32=").ok_or_else(damaged)?;
    let crc = format!("{:08x}", crc32fast::hash(body.as_bytes()));
    if fields.get("crc32") != Some(&crc.as_str()) {
        return Err(damaged());
    }
    let field = |name: &str| fields.get(name).map(|value| (*value).to_owned());
    Ok(Identity {
        node_id: field("node_id").and_then(|id| id.parse().ok()).ok_or_else(damaged)?,
        incarnation: field("incarnation").ok_or_else(damaged)?,
        cluster_id: field("cluster_id"),
        founding: field("founding").unwrap_or_default(),
    })
}

/// Replaces a small file: a reader sees the old content or the new, also after a power cut.
fn write_durably(dir: &Path, name: &str, content: &str) -> io::Result<()> {
    let temporary = dir.join(format!("{name}.new"));
    let mut file = File::create(&temporary)?;
    file.write_all(content.as_bytes())?;
    file.sync_all()?;
    crash_point("pointer.before-rename");
    fs::rename(&temporary, dir.join(name))?;
    sync_dir(dir)?;
    crash_point("pointer.after-rename");
    Ok(())
}

fn exists(path: &Path) -> bool {
    fs::exists(path).unwrap_or(false)
}

pub(crate) fn is_folder(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_dir())
}

/// Says which file or folder an error is about. What a newer release wrote is told apart by its type, and stays as it is.
pub(crate) fn named(path: &Path, error: io::Error) -> io::Error {
    if NewerForm::within(&error).is_some() {
        return error;
    }
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

pub(crate) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(result: Result<(Directory, Identity), StartError>) -> String {
        match result {
            Err(StartError::DataDir(message)) => message,
            other => panic!("expected a refusal, got {other:?}"),
        }
    }

    #[test]
    fn a_directory_keeps_its_identity() {
        let root = tempfile::tempdir().unwrap();
        let (directory, mut identity) = Directory::open(root.path(), 7).unwrap();
        identity.cluster_id = Some("c".into());
        directory.write_identity(&identity).unwrap();
        drop(directory);
        assert_eq!(Directory::open(root.path(), 7).unwrap().1, identity);
    }

    #[test]
    fn another_nodes_directory_is_refused() {
        let root = tempfile::tempdir().unwrap();
        drop(Directory::open(root.path(), 1).unwrap());
        let message = refusal(Directory::open(root.path(), 2));
        assert!(message.contains("belongs to node 1"), "{message}");
    }

    #[test]
    fn a_directory_in_use_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let _held = Directory::open(root.path(), 1).unwrap();
        assert!(refusal(Directory::open(root.path(), 1)).contains("another process"));
    }

    #[test]
    fn a_damaged_or_missing_identity_is_refused() {
        let root = tempfile::tempdir().unwrap();
        drop(Directory::open(root.path(), 1).unwrap());
        let path = root.path().join(IDENTITY);
        let whole = fs::read_to_string(&path).unwrap();
        fs::write(&path, whole.replace("node_id=1", "node_id=3")).unwrap();
        assert!(refusal(Directory::open(root.path(), 3)).contains("damaged"));
        fs::write(&path, whole.replace("format=1", "format=9")).unwrap();
        assert!(refusal(Directory::open(root.path(), 1)).contains("has format 9"));
        fs::write(&path, b"format=1\nnode_id=\xff\n").unwrap();
        assert!(refusal(Directory::open(root.path(), 1)).contains("damaged; restore it"));
        fs::remove_file(&path).unwrap();
        fs::create_dir(root.path().join("log")).unwrap();
        assert!(refusal(Directory::open(root.path(), 1)).contains("holds data"));
    }

    #[test]
    fn the_directory_of_a_removed_node_is_refused_and_says_why() {
        let root = tempfile::tempdir().unwrap();
        let (directory, _) = Directory::open(root.path(), 1).unwrap();
        directory.mark_removed("node 1 was removed").unwrap();
        drop(directory);
        assert!(refusal(Directory::open(root.path(), 1)).contains("node 1 was removed"));
    }

    #[test]
    fn left_overs_are_swept_and_live_folders_kept() {
        let root = tempfile::tempdir().unwrap();
        let (directory, _) = Directory::open(root.path(), 1).unwrap();
        let live = directory.fresh("state");
        let left = directory.fresh("receive");
        for path in [&live, &left] {
            fs::create_dir(path).unwrap();
        }
        directory.point(STATE_POINTER, &live).unwrap();
        directory.sweep().unwrap();
        assert!(live.exists() && !left.exists());
    }

    #[test]
    fn pointers_of_the_first_form_are_read_and_newer_ones_refused() {
        let root = tempfile::tempdir().unwrap();
        let (directory, _) = Directory::open(root.path(), 1).unwrap();
        let write = |content: &str| fs::write(root.path().join(STATE_POINTER), content).unwrap();
        for whole in ["state-1\n", "state-1", "state-1\nformat=1\n"] {
            write(whole);
            assert_eq!(
                directory.pointer(STATE_POINTER).unwrap(),
                Some(root.path().join("state-1"))
            );
        }
        write("state-1\nformat=2\nmore\n");
        let error = directory.pointer(STATE_POINTER).unwrap_err();
        assert!(NewerForm::within(&error).is_some(), "{error}");
        for damaged in [
            "",
            "\n",
            "a/b\n",
            "state-1\nform",
            "state-1\nformat=\n",
            "state-\n",
            "state-1/2\n",
            "state-1\0\n",
            "snapshot-1\n",
        ] {
            write(damaged);
            let error = directory.pointer(STATE_POINTER).unwrap_err();
            assert!(error.to_string().contains("damaged"), "{damaged:?}: {error}");
        }
        fs::write(root.path().join(STATE_POINTER), b"state-\xff\n").unwrap();
        let error = directory.pointer(STATE_POINTER).unwrap_err().to_string();
        assert!(error.contains("CURRENT-STATE: the pointer is damaged"), "{error}");
    }
}
