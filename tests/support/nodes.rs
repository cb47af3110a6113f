//! Nodes of a cluster to be, and what is waited for of them.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::server::Server;

/// A node: its folder, and how it is started.
pub struct Node {
    pub dir: TempDir,
    pub arguments: Vec<String>,
}

impl Node {
    /// Adds lines to its configuration.
    pub fn configure(&self, lines: &str) {
        let mut text = std::fs::read_to_string(&self.arguments[1]).expect("its configuration");
        text.push_str(lines);
        std::fs::write(&self.arguments[1], text).expect("written");
    }

    pub fn start(&self) -> Server {
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        Server::start_with(&self.dir.path().join("data"), &arguments)
    }
}

/// A port that nobody listens at, below those that the system gives to whoever asks for any: until its server starts another test
/// must not be given it.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 10_000 + (std::process::id() % 200) as u16 * 100;
    let port = || first + NEXT.fetch_add(1, Ordering::Relaxed) % 2_000;
    let free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    std::iter::repeat_with(port).take(2_000).find(free).expect("a free port")
}

/// Three nodes to be; with a folder of certificates they trust nobody without one.
pub fn three(certificates: Option<&Path>) -> Vec<Node> {
    at([(); 3].map(|()| (std::net::Ipv4Addr::LOCALHOST, free_port()).into()), certificates)
}

/// Three nodes that reach each other at these addresses.
pub fn at(addresses: [SocketAddr; 3], certificates: Option<&Path>) -> Vec<Node> {
    let peers: Vec<String> = (1..).zip(addresses).map(|(id, address)| format!("{id}: \"{address}\"")).collect();
    (1..)
        .zip(addresses)
        .map(|(id, address)| {
            let dir = tempfile::tempdir().expect("a folder");
            let config = dir.path().join("config.yaml");
            let mut text = format!(
                "node_id: {id}\npeer_listen: {address}\npeers: {{{}}}\nbootstrap: {}\n",
                peers.join(", "),
                id == 1
            );
            if let Some(dir) = certificates {
                let file = |name: &str| dir.join(name).display().to_string();
                let (cert, key) = (file(&format!("peer-{id}.pem")), file(&format!("peer-{id}-key.pem")));
                let ca = file("peer-ca.pem");
                let _ = writeln!(text, "tls: {{peer: {{cert: {cert}, key: {key}, ca: {ca}}}}}");
            }
            std::fs::write(&config, text).expect("written");
            Node { arguments: vec!["--config".to_owned(), config.display().to_string()], dir }
        })
        .collect()
}

/// Waits until something holds.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited too long for: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub async fn ready(server: &Server) {
    until("a ready server", async || (server.get("/readyz").await.status == 200).then_some(())).await;
}

async fn status(server: &Server) -> Value {
    server.get("/v1/cluster").await.json()
}

/// The node that leads, once every member says so and all states are the same.
pub async fn settled(server: &Server, members: usize) -> u64 {
    until("a cluster of one mind", async || {
        let status = status(server).await;
        let same = status["checksums_equal"] == true && status["members"].as_array()?.len() == members;
        let one = |key: &str| status["members"].as_array().map(|all| all.iter().all(|m| m[key] == all[0][key]));
        (same && one("applied_index")? && one("term")?).then(|| status["leader"].as_u64()).flatten()
    })
    .await
}
