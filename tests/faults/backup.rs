//! Backups, restores, a survivor's recovery and `verify`, through the real binary.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use scheduler::HostReport;
use serde_json::Value;

use crate::server::{BINARY, Server, run};
use crate::spec::{create, host, uuid};

const HOSTS: [&str; 2] = ["a", "b"];

fn fleet() -> Vec<HostReport> {
    HOSTS.map(|name| host(name, 100_000, 100_000_000)).into()
}

/// Claims for instance `n`; the host.
async fn claim(server: &Server, n: u64) -> String {
    let hosts = HOSTS.map(str::to_owned);
    server.hook(&create(&uuid(n), &hosts, 1, 512)).await.hosts()[0].clone()
}

/// instance → host.
async fn claims(server: &Server) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    for host in HOSTS {
        let list = server.get(&format!("/v1/instances?host={host}&page_size=1000")).await.json();
        for place in list["instances"].as_array().expect("a list") {
            out.insert(place["uuid"].as_str().expect("a uuid").to_owned(), host.to_owned());
        }
    }
    out
}

struct Done {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Done {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}{}", self.out, self.err))
    }
}

fn pallium(arguments: &[&str], stdin: &str) -> Done {
    let mut child = Command::new(BINARY)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    child.stdin.take().expect("piped").write_all(stdin.as_bytes()).expect("read");
    let done = child.wait_with_output().expect("it ends");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let done = Done { code: done.status.code(), out: text(&done.stdout), err: text(&done.stderr) };
    assert!(!done.err.contains("panicked"), "{}", done.err);
    done
}

fn path(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn verify(what: &Path) -> Done {
    pallium(&["verify", path(what), "-o", "json"], "")
}

/// Every file of a folder with its bytes.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut out = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let at = entry.expect("an entry").path();
        if at.is_dir() {
            out.extend(files(&at));
        } else {
            out.insert(path(&at).to_owned(), fs::read(&at).expect("readable"));
        }
    }
    out
}

fn is_a(name: &str, kind: &str) -> bool {
    Path::new(name).extension().is_some_and(|end| end == kind)
}

fn flip(file: &Path, at: usize) {
    let mut bytes = fs::read(file).expect("readable");
    bytes[at] ^= 4;
    fs::write(file, bytes).expect("writable");
}

#[test]
fn a_backup_of_a_busy_server_begins_a_new_cluster_with_all_it_had_acknowledged() {
    run(async {
        let dir = tempfile::tempdir().expect("a folder");
        let (old, new, backup) = (dir.path().join("old"), dir.path().join("new"), dir.path().join("x.backup"));
        let server = Server::start(&old);
        server.apply(&fleet()).await;
        let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        let mut before = BTreeMap::new();
        for _ in 0..30 {
            let n = next.fetch_add(1, Ordering::Relaxed);
            before.insert(uuid(n), claim(&server, n).await);
        }
        let taking = async {
            let ctl = ["ctl", "--server", &server.url, "backup", path(&backup), "-o", "json"].map(str::to_owned);
            let done = tokio::task::spawn_blocking(move || pallium(&ctl.each_ref().map(String::as_str), ""));
            let done = done.await.expect("it ends");
            stop.store(true, Ordering::Relaxed);
            done
        };
        let load = async {
            let mut meanwhile = BTreeMap::new();
            while !stop.load(Ordering::Relaxed) {
                let n = next.fetch_add(1, Ordering::Relaxed);
                meanwhile.insert(uuid(n), claim(&server, n).await);
            }
            meanwhile
        };
        let (taken, meanwhile) = futures::future::join(taking, load).await;
        assert_eq!(taken.code, Some(0), "{}", taken.err);
        assert!(!meanwhile.is_empty(), "the server goes on");
        assert!(!dir.path().join("x.backup.unfinished").exists());
        let again = pallium(&["ctl", "--server", &server.url, "backup", path(&backup)], "");
        assert_eq!(again.code, Some(1), "a file is not replaced unasked");
        assert!(again.err.contains("--force"), "{}", again.err);

        let running = verify(&old);
        assert_eq!(running.code, Some(1));
        assert!(running.err.contains("another process"), "{}", running.err);
        let whole = verify(&backup);
        assert_eq!(whole.code, Some(0), "{}", whole.err);
        assert_eq!(whole.json()["state"]["checksum"], taken.json()["checksum"]);
        drop(server);

        let restored = pallium(&["ctl", "restore", path(&backup), "--data-dir", path(&new), "-o", "json"], "");
        assert_eq!(restored.code, Some(0), "{}", restored.err);
        let restored = restored.json();
        assert_eq!((&restored["epoch"], &restored["from"]), (&Value::from(1), &taken.json()["cluster"]));
        assert_ne!(restored["cluster"], taken.json()["cluster"]);
        let refused = pallium(&["ctl", "restore", path(&backup), "--data-dir", path(&new)], "");
        assert!(refused.code == Some(1) && refused.err.contains("not empty"), "{}", refused.err);
        assert_eq!(verify(&new).code, Some(0));

        for start in 0..2 {
            let mut server = Server::start(&new);
            let found = claims(&server).await;
            for (instance, host) in &before {
                assert_eq!(found.get(instance), Some(host), "start {start}: what was acknowledged before is there");
            }
            for (instance, host) in found.iter().filter(|(instance, _)| !before.contains_key(*instance)) {
                let known = meanwhile.get(instance).is_some_and(|at| at == host);
                assert!(known || start == 1, "nothing else is there: {instance}");
            }
            assert_eq!(&claim(&server, 0).await, &before[&uuid(0)], "a repeat keeps its claim");
            claim(&server, 1_000_000).await;
            server.kill();
        }
        let verified = verify(&new);
        assert_eq!(verified.code, Some(0), "{}", verified.err);
        assert_eq!(verified.json()["state"]["epoch"], 1);
        assert_eq!(verified.json()["cluster"], restored["cluster"]);
    });
}

#[test]
fn a_survivor_begins_a_new_cluster_in_its_place() {
    run(async {
        let dir = tempfile::tempdir().expect("a folder");
        let data = dir.path().join("data");
        let mut server = Server::start(&data);
        server.apply(&fleet()).await;
        let mut answered = BTreeMap::new();
        for n in 0..30 {
            answered.insert(uuid(n), claim(&server, n).await);
        }
        server.kill();
        let was = files(&data);
        let cluster = verify(&data).json()["cluster"].clone();
        let unasked = pallium(&["ctl", "recover", "--data-dir", path(&data)], "");
        assert_eq!(unasked.code, Some(2), "it must be said loudly: {}", unasked.err);
        let recover = ["ctl", "recover", "--data-dir", path(&data), "--i-lost-the-majority", "-o", "json"];
        let wrong = pallium(&recover, "no\n");
        assert!(wrong.code == Some(1) && wrong.err.contains("MAY LOSE"), "{}", wrong.err);
        assert!(files(&data) == was, "neither looking nor refusing changes anything");

        let done = pallium(&recover, &format!("{}\n", cluster.as_str().expect("text")));
        assert_eq!(done.code, Some(0), "{}", done.err);
        assert_eq!((&done.json()["epoch"], &done.json()["from"]), (&Value::from(1), &cluster));
        assert_ne!(done.json()["cluster"], cluster);
        assert_eq!(files(&dir.path().join("data.before-recovery")).len(), was.len());
        let server = Server::start(&data);
        assert_eq!(claims(&server).await, answered);
        claim(&server, 100).await;
    });
}

#[test]
fn damage_is_found_named_and_changed_by_nobody() {
    run(async {
        let dir = tempfile::tempdir().expect("a folder");
        let (data, new, backup) = (dir.path().join("data"), dir.path().join("new"), dir.path().join("x.backup"));
        let mut server = Server::start(&data);
        server.apply(&fleet()).await;
        for n in 0..30 {
            claim(&server, n).await;
        }
        assert_eq!(pallium(&["ctl", "--server", &server.url, "backup", path(&backup)], "").code, Some(0));
        server.kill();

        let was = files(&data);
        let whole = verify(&data);
        assert_eq!(whole.code, Some(0), "{}", whole.err);
        assert_eq!(whole.json()["state"]["hosts"], 2);
        assert!(files(&data) == was, "verify changes nothing");
        let log = was
            .iter()
            .filter(|(name, _)| is_a(name, "wal"))
            .max_by_key(|(_, bytes)| bytes.iter().rposition(|&byte| byte != 0));
        let (log, bytes) = log.expect("a segment");
        let end = bytes.iter().rposition(|&byte| byte != 0).expect("records");
        flip(Path::new(log), end / 2);
        let damaged = files(&data);
        let found = verify(&data);
        assert_eq!(found.code, Some(1));
        for word in [log.as_str(), "offset", "index", "join again"] {
            assert!(found.err.contains(word), "'{word}' in: {}", found.err);
        }
        assert!(files(&data) == damaged, "damage is left as it is");

        assert_eq!(pallium(&["ctl", "restore", path(&backup), "--data-dir", path(&new)], "").code, Some(0));
        let snapshot = files(&new).into_iter().find(|(name, _)| is_a(name, "snapshot")).expect("a snapshot").0;
        let middle = fs::metadata(&snapshot).expect("there").len() as usize / 2;
        flip(Path::new(&snapshot), middle);
        let found = verify(&new);
        assert!(found.code == Some(1) && found.err.contains(&snapshot), "{}", found.err);
        assert!(found.err.contains("offset"), "{}", found.err);

        flip(&backup, 1000);
        let (found, refused) = (verify(&backup), dir.path().join("refused"));
        assert!(found.code == Some(1) && found.err.contains("offset"), "{}", found.err);
        let restored = pallium(&["ctl", "restore", path(&backup), "--data-dir", path(&refused)], "");
        assert!(restored.code == Some(1) && restored.err.contains("offset"), "{}", restored.err);
        assert!(!refused.exists(), "nothing was begun");
    });
}
