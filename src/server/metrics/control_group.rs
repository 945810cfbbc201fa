//! The limits of the control group that the process is in, and of the groups around it, in both versions of cgroups.
//!
//! They are read whenever they are asked for: they can be changed while the process runs, and it can be moved.

use std::path::{Path, PathBuf};

/// Where control groups are mounted.
const MOUNT: &str = "/sys/fs/cgroup";
/// Groups within groups that are looked at; deeper ones are no setting of ours.
const DEPTH_MAX: usize = 16;

/// The least memory that the process or a group around it may use, in bytes.
pub(super) fn memory_limit_bytes() -> Option<u64> {
    memory_limit(Path::new(MOUNT), &own_groups()?)
}

/// The least processor time that the process or a group around it may use, in cores.
pub(super) fn cpu_limit_cores() -> Option<f64> {
    cpu_limit(Path::new(MOUNT), &own_groups()?)
}

fn own_groups() -> Option<String> {
    std::fs::read_to_string("/proc/self/cgroup").ok()
}

fn memory_limit(mount: &Path, groups: &str) -> Option<u64> {
    let second = folders(mount, groups, "", &["", "unified"]);
    let first = folders(mount, groups, "memory", &["memory"]);
    let second = second.iter().filter_map(|folder| number(&folder.join("memory.max")));
    let first = first.iter().filter_map(|folder| number(&folder.join("memory.limit_in_bytes")));
    // Version 1 writes "no limit" as a number that no machine has.
    second.chain(first).filter(|limit| (1..1 << 60).contains(limit)).min()
}

fn cpu_limit(mount: &Path, groups: &str) -> Option<f64> {
    let second = folders(mount, groups, "", &["", "unified"]);
    let first = folders(mount, groups, "cpu", &["cpu", "cpu,cpuacct"]);
    let second = second.iter().filter_map(|folder| cores(&text(&folder.join("cpu.max"))?));
    let first = first.iter().filter_map(|folder| {
        let quota = text(&folder.join("cpu.cfs_quota_us"))?;
        cores(&format!("{quota} {}", text(&folder.join("cpu.cfs_period_us"))?))
    });
    second.chain(first).min_by(f64::total_cmp)
}

/// The folders of the process's group and of those around it. `groups` has lines `ID:CONTROLLERS:PATH`, without
/// controllers in version 2; see cgroups(7). In a container the path may be one that only its host has, so that only the
/// mount itself, which is then the container's own group, exists.
fn folders(mount: &Path, groups: &str, controller: &str, mounts: &[&str]) -> Vec<PathBuf> {
    let path = groups.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        controllers.split(',').any(|known| known == controller).then_some(path)
    });
    let Some(path) = path else { return Vec::new() };
    let path = Path::new(path.trim_start_matches('/'));
    let around = path.ancestors().take(DEPTH_MAX).chain([Path::new("")]);
    let under =
        around.flat_map(|group| mounts.iter().map(move |name| mount.join(name).join(group)));
    under.filter(|folder| folder.is_dir()).collect()
}

fn text(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// A number, or `max`, which is none.
fn number(path: &Path) -> Option<u64> {
    text(path)?.parse().ok()
}

/// `QUOTA PERIOD` in microseconds; without a quota it is `max` or -1.
fn cores(text: &str) -> Option<f64> {
    let mut words = text.split_whitespace();
    let quota: f64 = words.next()?.parse().ok()?;
    let period: f64 = words.next()?.parse().ok()?;
    (quota > 0.0 && period > 0.0).then_some(quota / period)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn the_least_limit_of_the_groups_around_counts() {
        let root = tree(&[
            ("system.slice/memory.max", "2000\n"),
            ("system.slice/cpu.max", "max 100000\n"),
            ("system.slice/node.service/memory.max", "max\n"),
            ("system.slice/node.service/cpu.max", "150000 100000\n"),
            ("system.slice/other.service/memory.max", "7\n"),
        ]);
        let groups = "0::/system.slice/node.service\n";
        assert_eq!(memory_limit(root.path(), groups), Some(2000));
        assert_eq!(cpu_limit(root.path(), groups), Some(1.5));
    }

    #[test]
    fn version_1_has_a_tree_for_each_controller() {
        let root = tree(&[
            ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory/a/memory.limit_in_bytes", "500\n"),
            ("cpu,cpuacct/b/cpu.cfs_quota_us", "50000\n"),
            ("cpu,cpuacct/b/cpu.cfs_period_us", "100000\n"),
            ("cpu,cpuacct/cpu.cfs_quota_us", "-1\n"),
            ("cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
        ]);
        let groups = "4:memory:/a\n3:cpu,cpuacct:/b\n0::/\n";
        assert_eq!(memory_limit(root.path(), groups), Some(500));
        assert_eq!(cpu_limit(root.path(), groups), Some(0.5));
        assert_eq!(memory_limit(root.path(), "4:memory:/\n"), None, "as good as no limit");
    }

    #[test]
    fn in_a_container_the_mount_is_its_own_group() {
        let root = tree(&[("memory.max", "300\n"), ("cpu.max", "20000 100000\n")]);
        for groups in ["0::/\n", "0::/docker/0123\n", "0::/../other\n"] {
            assert_eq!(memory_limit(root.path(), groups), Some(300), "{groups}");
            assert_eq!(cpu_limit(root.path(), groups), Some(0.2), "{groups}");
        }
    }

    #[test]
    fn what_says_no_limit_is_none() {
        for text in ["max 100000", "-1 100000", "", "1 0", "x y"] {
            assert_eq!(cores(text), None, "{text}");
        }
        let root = tree(&[("memory.max", "0\n")]);
        assert_eq!(memory_limit(root.path(), "0::/\n"), None);
        assert_eq!(memory_limit(root.path(), "nonsense"), None);
    }
}
