//! Backups over HTTP: one whole revision, cut when it cannot be finished, bounded in number, and kept files.

use std::time::Duration;

use crate::http_support::{Alone, Api, Options, alone, alone_with, request, wait_for};
use axum::http::Method;
use http_body_util::BodyExt;
use llm_config_archive::{ArchiveError, Reader, Summary};
use llm_config_server::backups::BackupLimits;
use llm_config_server::service::ServiceLimits;

const BACKUP: &str = "/api/v1/admin/backup";
const BACKUPS: &str = "/api/v1/admin/backups";
/// More than everything between the storage and a client that does not read.
const LARGE_VALUES: usize = 24;
const VALUE_BYTES: usize = 256 << 10;

fn check(bytes: &[u8]) -> Result<Summary, ArchiveError> {
    let (_, mut reader) = Reader::open(bytes)?;
    while reader.next_pair()?.is_some() {}
    reader.into_summary()
}

async fn fill(node: &Api) {
    for n in 0..LARGE_VALUES {
        // Does not compress, so that storage and backup are about as large as what is written.
        let mut state = n as u64 + 1;
        let text: String = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            char::from(b'a' + (state >> 59) as u8 % 26)
        })
        .take(VALUE_BYTES)
        .collect();
        let path = format!("/api/v1/configs/large/k{n}");
        node.put(&path, &format!("{{\"value\": \"{text}\"}}")).await.expect(201);
    }
}

fn with(backups: BackupLimits) -> Options {
    let service = ServiceLimits { backups, ..Options::default().service };
    Options { service, ..Options::default() }
}

fn files(node: &Alone) -> Vec<String> {
    let folder = node.folder.path().join("node-1/backups");
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_a_whole_file_of_what_was_acknowledged() {
    let node = alone().await;
    let entry = node.put("/api/v1/configs/app/k", r#"{"value": "v"}"#).await.expect(201);
    for path in [BACKUP.to_owned(), format!("{BACKUP}?consistency=cached")] {
        let answer = node.post(&path, "").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.header("content-type"), "application/octet-stream");
        assert_eq!(answer.header("cache-control"), "no-store");
        let summary = check(&answer.body).unwrap();
        assert_eq!(summary.manifest.revision, entry["revision"].as_u64().unwrap());
        assert_eq!(answer.header("x-config-revision"), summary.manifest.revision.to_string());
        let name = answer.header("content-disposition");
        let end = format!("-r{}.backup\"", summary.manifest.revision);
        assert!(name.starts_with("attachment; filename=\"") && name.ends_with(&end), "{name}");
        let status = node.service.replica().status();
        assert_eq!(Some(summary.manifest.cluster_id), status.cluster_id);
        assert!(check(&answer.body[..answer.body.len() - 1]).is_err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_wrongly_is_refused() {
    let node = alone().await;
    let refused = |problem: serde_json::Value, field: &str| {
        let detail = problem["detail"].as_str().unwrap().to_owned();
        assert!(detail.starts_with(field), "{detail}");
    };
    let answer = node.post(&format!("{BACKUP}?consistency=strong"), "").await;
    refused(answer.problem(400, "INVALID_ARGUMENT"), "consistency: ");
    for path in [BACKUP, BACKUPS] {
        let answer = node.post(path, r#"{"nonsense": 1}"#).await;
        refused(answer.problem(400, "INVALID_ARGUMENT"), "nonsense: ");
    }
    node.get(BACKUP).await.problem(405, "INVALID_ARGUMENT");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_one_revision_while_writes_go_on() {
    let node = alone().await;
    fill(&node).await;
    let response = node.send(request(Method::POST, BACKUP, &[], "")).await;
    let promised: u64 = response.headers()["x-config-revision"].to_str().unwrap().parse().unwrap();
    // Changes everything that the backup has yet to read.
    for n in 0..LARGE_VALUES {
        node.put(&format!("/api/v1/configs/large/k{n}"), r#"{"value": 0}"#).await.expect(200);
    }
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let summary = check(&body).unwrap();
    assert_eq!(summary.manifest.revision, promised);
    assert!(summary.file_bytes > (LARGE_VALUES * VALUE_BYTES) as u64, "{summary:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_so_many_backups_are_read_at_once() {
    let node = alone_with(&with(BackupLimits { streams: 1, ..BackupLimits::default() })).await;
    fill(&node).await;
    let held = node.send(request(Method::POST, BACKUP, &[], "")).await;
    assert_eq!(held.status(), 200);
    let refused = node.post(BACKUP, "").await;
    assert_eq!(refused.problem(503, "OVERLOADED")["retryable"], true);
    // A client that leaves gives its place back.
    drop(held);
    let mut again = node.post(BACKUP, "").await;
    for _ in 0..1000 {
        if again.status == 200 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        again = node.post(BACKUP, "").await;
    }
    assert!(check(&again.body).is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_nothing_is_cut_off_and_cannot_mistake_it_for_the_end() {
    let limits = BackupLimits {
        streams: 1,
        stall_timeout: Duration::from_millis(100),
        ..BackupLimits::default()
    };
    let node = alone_with(&with(limits)).await;
    fill(&node).await;
    let stalled = node.send(request(Method::POST, BACKUP, &[], "")).await;
    assert_eq!(stalled.status(), 200);
    // Its place is free again while it still holds the answer.
    let mut other = node.post(BACKUP, "").await;
    for _ in 0..1000 {
        if other.status == 200 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        other = node.post(BACKUP, "").await;
    }
    assert!(check(&other.body).is_ok());
    assert!(stalled.into_body().collect().await.is_err(), "a cut answer must not look complete");
}

#[tokio::test(flavor = "multi_thread")]
async fn kept_backups_are_listed_newest_first_and_the_oldest_go() {
    let node = alone_with(&with(BackupLimits { keep: 2, ..BackupLimits::default() })).await;
    assert_eq!(node.get(BACKUPS).await.expect(200)["items"], serde_json::json!([]));
    let mut made = Vec::new();
    for n in 0..3 {
        node.put("/api/v1/configs/app/k", &format!("{{\"value\": {n}}}")).await;
        let answer = node.post(BACKUPS, "").await.expect(201);
        assert_eq!(answer["node_id"], 1);
        made.push(answer["backup"].clone());
    }
    let list = node.get(BACKUPS).await.expect(200);
    made.reverse();
    assert_eq!(list["items"], serde_json::json!(made[..2]));
    let names: Vec<_> = made[..2].iter().map(|kept| kept["name"].as_str().unwrap()).collect();
    assert_eq!(files(&node), names, "nothing else is left in the folder");
    for kept in &made[..2] {
        let name = kept["name"].as_str().unwrap();
        let path = node.folder.path().join("node-1/backups").join(name);
        let summary = llm_config_archive::verify(&path).unwrap();
        assert_eq!(Some(summary.manifest.revision), kept["revision"].as_u64());
        assert_eq!(Some(summary.file_bytes), kept["bytes"].as_u64());
    }
    let page = String::from_utf8(node.service.metrics().render().unwrap()).unwrap();
    let bytes = format!("backup_size_bytes {}\n", made[0]["bytes"]);
    assert!(page.contains(&bytes) && page.contains("backup_failures_total 0\n"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_without_room_is_refused_and_leaves_nothing() {
    let limits = BackupLimits { disk_reserve_bytes: u64::MAX, ..BackupLimits::default() };
    let node = alone_with(&with(limits)).await;
    node.post(BACKUPS, "").await.problem(507, "STORAGE_FULL");
    assert_eq!(files(&node), [""; 0]);
    let page = String::from_utf8(node.service.metrics().render().unwrap()).unwrap();
    assert!(page.contains("backup_failures_total 1\n"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_finishes_no_file() {
    let node = alone().await;
    fill(&node).await;
    node.service.backups().stop();
    node.post(BACKUPS, "").await.problem(500, "INTERNAL");
    assert_eq!(files(&node), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_makes_backups_by_itself_and_clears_what_a_crash_left() {
    let node = alone().await;
    let folder = node.folder.path().join("node-1/backups");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join(".tmp-left"), "half").unwrap();
    let closing = tokio_util::sync::CancellationToken::new();
    let backups = node.service.backups().clone();
    let running = tokio::spawn(backups.run(Some(Duration::from_secs(1)), closing.clone()));
    wait_for("two scheduled backups", || (files(&node).len() >= 2).then_some(())).await;
    closing.cancel();
    running.await.unwrap();
    assert!(files(&node).iter().all(|name| name.ends_with(".backup")), "{:?}", files(&node));
}
