//! Real processes on a disk that fills up: writes are refused in time, and a disk that is full after all damages nothing.
//!
//! Root gets a small disk of its own (tmpfs). Without the right to mount one, the size of files is limited instead, which
//! fails the same writes; either way something is tested.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::{Cluster, Node, http, wait_for};

const MIB: usize = 1 << 20;

/// A small disk, mounted where a node keeps its data.
struct Disk {
    at: PathBuf,
}

impl Disk {
    fn mount(at: &Path, mib: u64) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"])
            .arg(at)
            .stderr(Stdio::null())
            .status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self { at: at.to_owned() });
        }
        eprintln!("this user may not mount a disk: the size of files is limited instead");
        None
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a process that failed to end must not keep the test from cleaning up.
        let unmounted = Command::new("umount").arg("-l").arg(&self.at).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "{} stays", self.at.display());
    }
}

fn large(number: usize) -> String {
    format!("\"{number:08}{}\"", "x".repeat(MIB - 64))
}

fn put_large(node: &Node, number: usize) -> Option<crate::support::Reply> {
    node.put(&format!("key-{number}"), &large(number))
}

fn delete(node: &Node, key: &str) -> Option<u16> {
    let path = format!("/api/v1/configs/test/{key}");
    Some(http(node.ports.http, "DELETE", &path, None)?.status)
}

/// Writes large values, from this number on, until that is refused for want of room; how many there are then.
fn fill(node: &Node, from: usize, more_than_fits: usize) -> usize {
    for number in from..more_than_fits {
        let reply = put_large(node, number).expect("the node answers");
        match reply.status {
            200 | 201 => {}
            507 => {
                assert_eq!(reply.json()["code"], "STORAGE_FULL", "{}", reply.body);
                return number;
            }
            _ => panic!("{}", reply.body),
        }
    }
    panic!("{more_than_fits} MiB fit");
}

fn metric(node: &Node, line: &str) -> bool {
    let page = http(node.ports.metrics, "GET", "/metrics", None).expect("the page");
    page.body.lines().any(|found| found == line)
}

/// Deletes everything, and waits until a value is taken again.
fn empty(node: &Node, values: usize) {
    for number in 0..values {
        assert_eq!(delete(node, &format!("key-{number}")), Some(204));
    }
    wait_for("the space comes back", || {
        node.put("small", "1").filter(|reply| matches!(reply.status, 200 | 201))
    });
}

#[test]
fn at_its_quota_a_node_refuses_values_serves_on_and_empties() {
    let mut cluster = Cluster::new(1);
    cluster.nodes[0].extra_args.push("--storage-quota=96MiB".to_owned());
    let node = &mut cluster.nodes[0];
    node.start();
    node.wait_ready();
    let mut values = fill(node, 0, 1000);
    assert!(node.read("key-0").is_some());
    // A full node tidies up at once and may have room again before it is asked: then it gets more.
    wait_for("the node is full and says so", || {
        let health = node.get("/health")?;
        let storage = health.json()["checks"]["storage"].as_str()?.to_owned();
        let said = storage.contains("--storage-quota")
            && (health.status, &health.json()["status"]) == (200, &"degraded".into())
            && metric(node, "storage_quota_near 1")
            && metric(node, "llm_config_storage_full{cause=\"quota\"} 1");
        if !said {
            values = fill(node, values, 1000);
        }
        said.then_some(())
    });
    assert!(metric(node, &format!("storage_quota_bytes {}", 96 * MIB)));
    empty(node, values);
    wait_for("the warning ends", || metric(node, "storage_quota_near 0").then_some(()));
}

#[test]
fn the_reserve_refuses_before_the_disk_is_full() {
    let mut cluster = Cluster::new(1);
    let disk = Disk::mount(&cluster.nodes[0].data_dir, 320);
    // Without a disk of its own the reserve is more than any disk has.
    let reserve = if disk.is_some() { "128MiB" } else { "1000000GiB" };
    cluster.nodes[0].extra_args.push("--storage-quota=0".to_owned());
    cluster.nodes[0].extra_args.push(format!("--disk-reserve={reserve}"));
    let node = &mut cluster.nodes[0];
    node.start();
    node.wait_ready();
    let values = fill(node, 0, 320);
    let health = node.get("/health").unwrap().json();
    assert!(health["checks"]["disk"].as_str().unwrap().contains("in reserve"), "{health}");
    assert!(metric(node, "llm_config_storage_full{cause=\"disk\"} 1"));
    if disk.is_some() {
        assert!(values > 10, "{values}");
        empty(node, values);
    } else {
        assert_eq!((values, delete(node, "key-0")), (0, Some(404)));
    }
    node.signal("TERM");
    assert_eq!(node.wait_exit().code(), Some(0), "{}", node.log());
}

#[test]
fn a_full_disk_stops_a_node_and_takes_nothing_that_was_acknowledged() {
    let mut cluster = Cluster::new(1);
    let disk = Disk::mount(&cluster.nodes[0].data_dir, 256);
    let node = &mut cluster.nodes[0];
    node.extra_args = vec!["--storage-quota=0".to_owned(), "--disk-reserve=0".to_owned()];
    let filler = node.data_dir.join("filler");
    if disk.is_none() {
        node.file_bytes_max = Some(16 * MIB as u64);
    }
    node.start();
    node.wait_ready();
    for number in 0..8 {
        assert_eq!(put_large(node, number).map(|reply| reply.status), Some(201));
    }
    if disk.is_some() {
        // Fills what is left, to the last block.
        let written = Command::new("dd")
            .args(["if=/dev/zero", &format!("of={}", filler.display()), "bs=64k"])
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(!written.success(), "the disk was not full");
    }
    let mut acknowledged = 8;
    while node.running() && acknowledged < 200 {
        match put_large(node, acknowledged) {
            Some(reply) if reply.status == 201 => acknowledged += 1,
            // No answer, or none that promises anything.
            _ => std::thread::sleep(std::time::Duration::from_millis(50)),
        }
    }
    assert_eq!(node.wait_exit().code(), Some(1), "{}", node.log());
    drop(std::fs::remove_file(&filler));
    node.file_bytes_max = None;
    node.start();
    node.wait_ready();
    for number in 0..acknowledged {
        let value = node.read(&format!("key-{number}")).expect("an acknowledged value");
        assert!(value.as_str().unwrap().starts_with(&format!("{number:08}x")));
    }
    node.put_surely("after", "1");
}
