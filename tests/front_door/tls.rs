//! TLS: who gets in, what the others are told, and certificates that change under a running server.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::command_line::{pallium, text};
use crate::server::{Server, run};
use crate::spec;

/// Longest wait for something that must come.
const WAIT: Duration = Duration::from_mins(1);

/// Certificates, and a server that uses them.
struct Estate {
    dir: tempfile::TempDir,
    server: Server,
}

/// What `pallium certs` made in a folder, and what it said.
pub fn certs(dir: &Path, more: &[&str]) -> String {
    let made = pallium(&[&["certs", dir.to_str().expect("UTF-8")], more].concat());
    assert_eq!(made.status.code(), Some(0), "{}", text(&made.stderr));
    text(&made.stdout)
}

/// The config for a node, as `pallium certs` prints it; with `mutual` clients must show a certificate.
pub fn config(dir: &Path, said: &str, mutual: bool) -> PathBuf {
    let (_, config) = said.split_once("In the config file of node 1:\n\n").expect("the config");
    let (config, rest) = config.split_once("\n\n").expect("its end");
    let (_, ca) = rest.split_once("add under client:\n\n").expect("the CA of clients");
    let (ca, _) = ca.split_once('\n').expect("its end");
    let config = if mutual { config.replacen("client:\n", &format!("client:\n{ca}\n"), 1) } else { config.to_owned() };
    let file = dir.join("pallium.yaml");
    fs::write(&file, config).expect("written");
    file
}

/// `pallium ctl` at a URL, with options whose values are names of certificate files.
pub fn ctl(url: &str, options: &[(&str, &Path)], command: &[&str]) -> (Option<i32>, String) {
    let mut arguments = vec!["ctl", "--server", url];
    for (option, file) in options {
        arguments.extend([*option, file.to_str().expect("UTF-8")]);
    }
    arguments.extend(command);
    let output = pallium(&arguments);
    (output.status.code(), text(&output.stdout) + &text(&output.stderr))
}

impl Estate {
    fn new(mutual: bool) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let said = certs(&dir.path().join("certs"), &[]);
        let config = config(dir.path(), &said, mutual);
        let server = Server::start_with(&dir.path().join("data"), &["--config", config.to_str().expect("UTF-8")]);
        assert!(server.url.starts_with("https://127.0.0.1:"), "{}", server.url);
        Self { dir, server }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join("certs").join(name)
    }

    fn address(&self) -> &str {
        self.server.url.trim_start_matches("https://")
    }

    async fn connect(&self) -> Connection {
        Connection::open(&self.server.url, &self.file("ca.pem"), None).await
    }

    /// Waits for a line of the log that has all of these words.
    async fn logged(&self, words: &[&str]) {
        let start = Instant::now();
        while !self.server.log().lines().any(|line| words.iter().all(|word| line.contains(word))) {
            assert!(start.elapsed() < WAIT, "{words:?} is not in the log:\n{}", self.server.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A connection that stays, and the certificate that the server showed for it.
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    shown: Vec<u8>,
}

impl Connection {
    /// To an https:// address, with a certificate and its key or without.
    pub async fn open(url: &str, ca: &Path, identity: Option<(&Path, &Path)>) -> Self {
        let client = tls::Client::open(ca, identity, &[b"http/1.1"]).expect("certificates");
        let stream = TcpStream::connect(url.trim_start_matches("https://")).await.expect("a connection");
        let stream = client.connect(stream, "127.0.0.1").await.expect("a certificate of the CA");
        let shown = stream.certificate().expect("a certificate").to_vec();
        let (sender, connection) = handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
        tokio::spawn(connection);
        Self { sender, shown }
    }

    pub async fn send(&mut self, method: &str, path: &str, body: String) -> (StatusCode, String) {
        self.sender.ready().await.expect("an open connection");
        let request = Request::builder().method(method).uri(path).header("host", "x");
        let request = request.header("content-type", "application/json").body(Full::new(body.into()));
        let answer = self.sender.send_request(request.expect("a request")).await.expect("an answer");
        let status = answer.status();
        let body = answer.into_body().collect().await.expect("a body").to_bytes();
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    async fn healthy(&mut self) {
        let (status, body) = self.send("GET", "/healthz", String::new()).await;
        assert_eq!(status, 200, "{body}");
    }
}

#[test]
fn the_hook_and_ctl_work_over_tls() {
    run(async {
        let estate = Estate::new(false);
        let body = spec::request("07");
        // One that connects and says nothing keeps nobody waiting.
        let _silent = TcpStream::connect(estate.address()).await.expect("a connection");
        let fleet = estate.dir.path().join("fleet.json");
        let hosts = simulation::fixtures::fleet_for(&body);
        let document = serde_json::json!({"domain": "nova", "hosts": hosts});
        fs::write(&fleet, document.to_string()).expect("written");
        let ca = estate.file("ca.pem");
        let (code, printed) = ctl(&estate.server.url, &[("--ca", &ca)], &["import", fleet.to_str().expect("UTF-8")]);
        assert_eq!(code, Some(0), "{printed}");
        assert!(printed.contains(&format!("{} added", hosts.len())), "{printed}");
        let mut connection = estate.connect().await;
        let (status, answer) = connection.send("POST", "/scheduler/nova/external", body.to_string()).await;
        assert_eq!(status, 200, "{answer}");
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        let best = answer["hosts"][0].as_str().expect("a host");
        let (_, printed) = ctl(&estate.server.url, &[("--ca", &ca)], &["instances", "--host", best]);
        assert!(printed.contains(&spec::instance(&body)), "{printed}");
    });
}

#[test]
fn who_is_not_trusted_is_told_why() {
    let (estate, other) = (Estate::new(false), tempfile::tempdir().expect("a folder"));
    certs(other.path(), &[]);
    let (ca, stranger) = (estate.file("ca.pem"), other.path().join("ca.pem"));
    let url = &estate.server.url;
    let plain = url.replace("https", "http");
    for (url, options, want) in [
        (url, &[][..], "the CA of the server's certificate is needed"),
        (url, &[("--ca", stranger.as_path())][..], "the server's certificate is of no CA in the CA file"),
        (url, &[("--ca", other.path())], "Is a directory"),
        (url, &[("--ca", &ca), ("--cert", &ca)], "--cert is given without --key"),
        (&plain, &[], "give an https:// address"),
    ] {
        let (code, printed) = ctl(url, options, &["hosts"]);
        assert!(matches!(code, Some(1 | 2)) && printed.contains(want), "wanted '{want}', got {code:?} {printed}");
    }
    let mut stream = std::net::TcpStream::connect(estate.address()).expect("a connection");
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n") && answer.contains("use https://"), "{answer}");
    let body = answer.split_once("\r\n\r\n").expect("a body").1;
    let body: Value = serde_json::from_str(body).expect("JSON");
    assert!(body["error"]["code"] == "bad_request" && body["error"]["request_id"].is_string(), "{body}");
    run(async {
        let own = rcgen::generate_simple_self_signed(["elsewhere.example".to_owned()]).expect("a certificate");
        fs::write(estate.file("server.pem"), own.cert.pem()).expect("written");
        fs::write(estate.file("server-key.pem"), own.signing_key.serialize_pem()).expect("written");
        estate.server.hang_up();
        // The files of the peer port are others, and have a line of their own.
        estate.logged(&["certificates reloaded", "server.pem"]).await;
    });
    let (code, printed) = ctl(url, &[("--ca", &estate.file("server.pem"))], &["hosts"]);
    let want = "the server's certificate is not for 127.0.0.1, but for elsewhere.example";
    assert!(code == Some(1) && printed.contains(want), "{printed}");
    let data = tempfile::tempdir().expect("a folder");
    let lone = Server::start(data.path());
    let (code, printed) = ctl(&lone.url.replace("http", "https"), &[("--ca", &ca)], &["hosts"]);
    assert!(code == Some(1) && printed.contains("the server does not speak TLS there"), "{printed}");
}

#[test]
fn clients_without_a_certificate_are_refused_when_one_is_wanted() {
    let (estate, other) = (Estate::new(true), tempfile::tempdir().expect("a folder"));
    certs(other.path(), &[]);
    let url = &estate.server.url;
    let ca = estate.file("ca.pem");
    let shown = |dir: &Path| [dir.join("client.pem"), dir.join("client-key.pem")];
    let (known, stranger) = (shown(&estate.dir.path().join("certs")), shown(other.path()));
    let hosts = |options: &[(&str, &Path)]| ctl(url, &[&[("--ca", ca.as_path())], options].concat(), &["hosts"]);
    let (code, printed) = hosts(&[("--cert", &known[0]), ("--key", &known[1])]);
    assert_eq!(code, Some(0), "{printed}");
    let (code, printed) = hosts(&[]);
    assert!(code == Some(1) && printed.contains("the server wants a client certificate"), "{printed}");
    let (code, printed) = hosts(&[("--cert", &stranger[0]), ("--key", &stranger[1])]);
    assert!(code == Some(1) && printed.contains("does not know the CA of the client certificate"), "{printed}");
}

#[test]
fn a_new_certificate_is_used_without_a_restart() {
    run(async {
        let estate = Estate::new(false);
        let mut old = estate.connect().await;
        assert_eq!(estate.connect().await.shown, old.shown);
        // Nobody tells the server.
        certs(&estate.dir.path().join("certs"), &["--force"]);
        // The files of the peer port are others, and have a line of their own.
        estate.logged(&["certificates reloaded", "server.pem"]).await;
        let new = estate.connect().await;
        assert_ne!(new.shown, old.shown);
        old.healthy().await;

        // Told, it looks at once; what makes no sense changes nothing.
        fs::write(estate.file("server.pem"), "hello").expect("written");
        estate.server.hang_up();
        estate.logged(&["certificates not reloaded"]).await;
        assert!(estate.server.log().contains("server.pem: no certificate in it"), "{}", estate.server.log());
        let mut same = estate.connect().await;
        assert_eq!(same.shown, new.shown);
        same.healthy().await;
        old.healthy().await;
    });
}

#[test]
fn what_others_could_read_is_not_served() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = dir.path().join("data").to_str().expect("UTF-8").to_owned();
    for option in ["--listen", "--peer-listen"] {
        let refused = pallium(&["serve", "--data-dir", &data, option, "0.0.0.0:0"]);
        let printed = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(1), "{printed}");
        assert!(printed.contains("is not a loopback address, and there is no TLS"), "{printed}");
    }
    let folder = dir.path().join("certs");
    let config = config(dir.path(), &certs(&folder, &[]), false);
    let again = pallium(&["certs", folder.to_str().expect("UTF-8")]);
    assert!(again.status.code() == Some(1) && text(&again.stderr).contains("--force"), "{}", text(&again.stderr));
    fs::remove_file(folder.join("peer-1-key.pem")).expect("removed");
    let refused = pallium(&["serve", "--data-dir", &data, "--config", config.to_str().expect("UTF-8")]);
    let printed = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{printed}");
    assert!(printed.contains("tls.peer: ") && printed.contains("peer-1-key.pem: No such file"), "{printed}");
}
