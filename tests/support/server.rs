//! A `pallium serve` process for a test, and a small HTTP client for it.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use scheduler::HostReport;
use serde_json::{Value, json};

pub const BINARY: &str = env!("CARGO_BIN_EXE_pallium");

/// Longest wait for a server to say that it is ready.
const START: Duration = Duration::from_mins(1);

pub type Http = Client<HttpConnector, Full<Bytes>>;

pub struct Server {
    child: Child,
    pub url: String,
    /// What it said when it was ready.
    pub ready: Value,
    http: Http,
    stderr: PathBuf,
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }

    /// Host names of a hook answer; asserts its exact form.
    pub fn hosts(&self) -> Vec<String> {
        assert_eq!(self.status, 200, "{}", self.text);
        let body = self.json();
        let keys: Vec<&String> = body.as_object().expect("an object").keys().collect();
        assert_eq!(keys, ["hosts"], "exactly one key");
        let hosts = body["hosts"].as_array().expect("never null").iter();
        hosts.map(|host| host.as_str().expect("strings only").to_owned()).collect()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub fn error_code(&self) -> String {
        let body = self.json();
        assert!(body["error"]["message"].as_str().is_some_and(|text| !text.is_empty()), "{body}");
        assert!(body["error"]["request_id"].is_string(), "{body}");
        body["error"]["code"].as_str().expect("a code").to_owned()
    }
}

impl Server {
    /// Starts a server on a free port and waits until it is ready.
    pub fn start(data_dir: &Path) -> Self {
        Self::start_with(data_dir, &[])
    }

    pub fn start_with(data_dir: &Path, arguments: &[&str]) -> Self {
        match Self::try_start(data_dir, arguments) {
            Ok(server) => server,
            Err(log) => panic!("the server did not start:\n{log}"),
        }
    }

    /// Starts a server; `Err` has what it wrote when it ended instead.
    pub fn try_start(data_dir: &Path, arguments: &[&str]) -> Result<Self, String> {
        let loopback = std::net::Ipv4Addr::LOCALHOST.into();
        Self::try_start_at(Command::new(BINARY), loopback, data_dir, arguments)
    }

    /// The same by a command that begins with the binary, where it may be run elsewhere, at its address there.
    pub fn try_start_at(
        mut binary: Command,
        at: std::net::IpAddr,
        data_dir: &Path,
        arguments: &[&str],
    ) -> Result<Self, String> {
        let log = tempfile::NamedTempFile::new().expect("a log file").into_temp_path().keep().expect("kept");
        let mut child = binary
            .args(["serve", "--listen", &format!("{at}:0"), "--data-dir"])
            .arg(data_dir)
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&log).expect("a log file"))
            .spawn()
            .expect("the binary runs");
        let stdout = child.stdout.take().expect("piped");
        let (send, receive) = mpsc::channel();
        std::thread::spawn(move || {
            let mut reader = BufReader::new(stdout);
            let mut line = String::new();
            let _ = reader.read_line(&mut line);
            let _ = send.send(line);
            // Whatever comes later is read, so that the pipe never fills.
            let _ = reader.read_to_end(&mut Vec::new());
        });
        let line = receive.recv_timeout(START).unwrap_or_default();
        let Ok(ready) = serde_json::from_str::<Value>(&line) else {
            let _ = child.kill();
            let _ = child.wait();
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            let _ = std::fs::remove_file(&log);
            return Err(text);
        };
        let url = ready["url"].as_str().expect("the URL").to_owned();
        let http = Client::builder(TokioExecutor::new()).build_http();
        Ok(Self { child, url, ready, http, stderr: log })
    }

    /// kill -9.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGHUP.
    pub fn hang_up(&self) {
        self.signal("-HUP");
    }

    /// SIGSTOP, or SIGCONT.
    pub fn pause(&self, paused: bool) {
        self.signal(if paused { "-STOP" } else { "-CONT" });
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(sent.expect("kill runs").success());
    }

    /// What it wrote to stderr so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.stderr).unwrap_or_default()
    }

    /// Waits for the process to end by itself.
    pub fn wait(&mut self) -> std::process::ExitStatus {
        self.child.wait().expect("a child")
    }

    pub async fn send(&self, method: &str, path: &str, body: impl Into<Bytes>) -> Result<Answer, String> {
        self.send_with(method, path, &[], body).await
    }

    pub async fn send_with(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Answer, String> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.url));
        for (name, value) in [("content-type", "application/json")].iter().chain(headers) {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).expect("a request");
        let response = self.http.request(request).await.map_err(|e| e.to_string())?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.into_body().collect().await.map_err(|e| e.to_string())?.to_bytes();
        Ok(Answer { status, headers, text: String::from_utf8_lossy(&body).into_owned() })
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, Bytes::new()).await.expect("an answer")
    }

    /// What `pallium ctl` prints against this server; `Err` has what it complains of.
    pub fn ctl(&self, arguments: &[&str]) -> Result<String, String> {
        let done = Command::new(BINARY).args(["ctl", "--server", &self.url]).args(arguments).output().expect("it runs");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        if done.status.success() { Ok(text(done.stdout)) } else { Err(text(done.stderr)) }
    }

    /// SIGTERM, and waits for the end.
    pub fn stop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("a signal");
        assert!(self.wait().success(), "{}", self.log());
    }

    /// The hook.
    pub async fn hook(&self, body: &Value) -> Answer {
        self.hook_of("nova", body).await
    }

    /// The hook of a service.
    pub async fn hook_of(&self, service: &str, body: &Value) -> Answer {
        let path = format!("/scheduler/{service}/external");
        self.send("POST", &path, body.to_string()).await.expect("an answer")
    }

    /// Loads hosts.
    pub async fn apply(&self, hosts: &[HostReport]) {
        let body = json!({ "hosts": hosts });
        let answer = self.send("POST", "/v1/hosts", body.to_string()).await.expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text);
    }

    /// All places of an instance: (host, purpose, phase).
    pub async fn places(&self, uuid: &str) -> Vec<(String, String, String)> {
        let answer = self.get(&format!("/v1/instances?uuid={uuid}")).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let mut places: Vec<_> = answer.json()["instances"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|place| {
                let text = |key: &str| place[key].as_str().unwrap_or_else(|| panic!("{key}: {place}")).to_owned();
                (text("host"), text("purpose"), text("phase"))
            })
            .collect();
        places.sort();
        places
    }

    /// Everything of one decision; `hosts=*` tells the story of every host.
    pub async fn explain(&self, answer: &Answer) -> Value {
        let id = answer.header("x-pallium-decision").expect("a decision id");
        let explained = self.get(&format!("/v1/decisions/{id}?host=*")).await;
        assert_eq!(explained.status, 200, "{}", explained.text);
        explained.json()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_file(&self.stderr);
    }
}

/// A runtime for one test.
pub fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(test)
}
