//! A disk that is full, and a log that is damaged: told clearly, and nothing lost silently.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::server::{Server, run};
use crate::spec::{create, host, uuid};

/// Asks for `count` claims from number `first` on; gives how many were answered.
async fn claim(server: &Server, first: u64, count: u64) -> u64 {
    let mut answered = 0;
    for n in first..first + count {
        let answer = server.hook(&create(&uuid(n), &["a".to_owned()], 1, 512)).await;
        assert_eq!(answer.hosts(), ["a"]);
        answered += 1;
    }
    answered
}

async fn claims(server: &Server) -> Vec<String> {
    let list = server.get("/v1/instances?host=a&page_size=1000").await.json();
    list["instances"].as_array().expect("a list").iter().map(|i| i["uuid"].as_str().expect("text").to_owned()).collect()
}

/// The segment of the log that has the most in it, and where its last record ends.
fn segment(data_dir: &Path) -> (PathBuf, usize) {
    let segments = fs::read_dir(data_dir.join("log")).expect("the log").map(|entry| entry.expect("an entry").path());
    let used = |path: &Path| fs::read(path).expect("readable").iter().rposition(|&byte| byte != 0).unwrap_or(0);
    let wal = segments.filter(|path| path.extension().is_some_and(|end| end == "wal"));
    wal.map(|path| (used(&path), path)).max().map(|(end, path)| (path, end)).expect("a segment")
}

fn damage(path: &Path, at: usize) {
    let mut bytes = fs::read(path).expect("readable");
    bytes[at] ^= 0x55;
    fs::write(path, bytes).expect("writable");
}

#[test]
fn a_damaged_older_record_is_refused_with_what_to_do() {
    run(async {
        let dir = tempfile::tempdir().expect("a folder");
        let mut server = Server::start(dir.path());
        server.apply(&[host("a", 100_000, 100_000_000)]).await;
        claim(&server, 0, 40).await;
        server.kill();
        let (path, end) = segment(dir.path());
        damage(&path, end / 2);
        let log = Server::try_start(dir.path(), &[]).err().expect("it refuses to start");
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        assert!(log.contains(&name), "the file is named: {log}");
        assert!(log.contains("index"), "the index is named: {log}");
        assert!(!log.contains("panicked"), "{log}");
        // The loud way out is in the message, ready to be typed.
        let (_, index) = log.split_once("--accept-loss-from ").expect("the way out is named");
        let index: String = index.chars().take_while(char::is_ascii_digit).collect();
        let server = Server::start_with(dir.path(), &["--accept-loss-from", &index]);
        let claims = claims(&server).await;
        let kept = claims.len() as u64;
        assert!(kept < 40 && (0..kept).all(|n| claims.contains(&uuid(n))), "what was before the damage stays");
    });
}

#[test]
fn a_damaged_last_record_is_told_and_costs_nothing_before_it() {
    run(async {
        let dir = tempfile::tempdir().expect("a folder");
        let mut server = Server::start(dir.path());
        server.apply(&[host("a", 100_000, 100_000_000)]).await;
        claim(&server, 0, 40).await;
        server.kill();
        let (path, end) = segment(dir.path());
        damage(&path, end);
        // Rot and a torn write cannot be told apart at the very end: it starts and says so, or it
        // knows that the record was acknowledged, and refuses.
        match Server::try_start(dir.path(), &[]) {
            Ok(server) => {
                let claims = claims(&server).await;
                assert!((0..39).all(|n| claims.contains(&uuid(n))), "{}", claims.len());
                assert!(server.log().contains("index"), "it warns: {}", server.log());
            }
            Err(log) => assert!(log.contains("index") && !log.contains("panicked"), "{log}"),
        }
    });
}

struct Mount(PathBuf);

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// A file system of so many MiB; `None` where it cannot be mounted.
fn small_disk(at: &Path, mib: u32) -> Option<Mount> {
    let size = format!("size={mib}m");
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "pallium-test"]).arg(at).status();
    mounted.is_ok_and(|status| status.success()).then(|| Mount(at.to_owned()))
}

#[test]
fn a_full_disk_is_told_and_loses_no_answered_claim() {
    run(async {
        let dir = tempfile::tempdir().expect("a folder");
        // The first segment is small, the next ones do not fit.
        let Some(_disk) = small_disk(dir.path(), 12) else {
            println!("skipped: a tmpfs cannot be mounted here (root is needed)");
            return;
        };
        let mut server = Server::start(dir.path());
        server.apply(&[host("a", 100_000, 100_000_000)]).await;
        let mut answered = claim(&server, 0, 20).await;
        // Large reports fill the log.
        let traits: Vec<String> = (0..4000).map(|n| format!("CUSTOM_A_RATHER_LONG_TRAIT_NAME_{n:05}")).collect();
        let mut refused = None;
        for n in 0..200 {
            let mut large = host("a", 100_000, 100_000_000);
            large.name = format!("large-{n}");
            large.hypervisor_hostname = None;
            large.traits = Some(traits.clone());
            let body = serde_json::json!({"hosts": [large]}).to_string();
            match server.send("POST", "/v1/hosts", body).await {
                Ok(answer) if answer.status == 200 => answered += claim(&server, answered, 1).await,
                other => {
                    refused = Some(other);
                    break;
                }
            }
        }
        // Either the refusal reached us, or the process had ended by then; the reason is in its log.
        if let Ok(answer) = refused.expect("the disk is full at some time") {
            assert!(answer.status.is_server_error(), "{}", answer.text);
            answer.error_code();
        }
        assert_eq!(server.wait().code(), Some(1), "a node that cannot write ends: {}", server.log());
        let log = server.log();
        assert!(log.contains("space") && log.contains(dir.path().to_str().expect("UTF-8")), "{log}");
        assert!(!log.contains("panicked"), "{log}");

        let remount = ["-o", "remount,size=400m"];
        assert!(Command::new("mount").args(remount).arg(dir.path()).status().is_ok_and(|status| status.success()));
        let server = Server::start(dir.path());
        let claims = claims(&server).await;
        assert!((0..answered).all(|n| claims.contains(&uuid(n))), "{} of {answered}", claims.len());
    });
}
