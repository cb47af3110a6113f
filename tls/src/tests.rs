//! Two ends over a socket, with certificates made for the test.
#![allow(clippy::unwrap_used)]

mod connections;
mod files;
mod reload;

use std::path::{Path, PathBuf};
use std::time::Duration as Wait;

use rcgen::{CertificateParams, Issuer, KeyPair};
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};
use tokio::net::{TcpListener, TcpStream};

use crate::{Client, ClientAuth, ConnectError, Development, Files, H2, HTTP, Refused, Server, Stream, development};

/// Longer than any handshake.
const LONG: Wait = Wait::from_mins(1);

/// Who one of the clients is.
const OPERATOR: &str = "spiffe://test/pallium/operator/ada";

/// A development set.
struct Set(TempDir);

impl Set {
    fn new() -> Self {
        let set = Self(tempfile::tempdir().unwrap());
        set.renew();
        set
    }

    fn renew(&self) {
        let clients = vec![("operator".to_owned(), OPERATOR.to_owned())];
        let wanted = Development { nodes: 2, hosts: vec!["node.example".to_owned()], clients, overwrite: true };
        development(self.0.path(), &wanted).unwrap();
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn files(&self, name: &str, ca: &str) -> Files {
        let (cert, key) = (self.file(&format!("{name}.pem")), self.file(&format!("{name}-key.pem")));
        Files { cert, key, ca: Some(self.file(ca)) }
    }

    fn server(&self, auth: ClientAuth) -> Server {
        Server::open(&self.files("server", "ca.pem"), auth, HTTP).unwrap()
    }

    fn client(&self) -> Client {
        Client::open(&self.file("ca.pem"), None, H2).unwrap()
    }

    fn known_client(&self) -> Client {
        let (cert, key) = (self.file("client.pem"), self.file("client-key.pem"));
        Client::open(&self.file("ca.pem"), Some((&cert, &key)), H2).unwrap()
    }

    /// Puts a certificate for localhost into `server.pem`, with a span of validity from now on.
    fn put_server(&self, from: Duration, to: Duration) {
        let ca_key = KeyPair::generate().unwrap();
        let ca = CertificateParams::new(Vec::new()).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let now = OffsetDateTime::now_utc();
        (parameters.not_before, parameters.not_after) = (now + from, now + to);
        let cert = parameters.signed_by(&key, &Issuer::new(ca, ca_key)).unwrap();
        std::fs::write(self.file("server.pem"), cert.pem()).unwrap();
        std::fs::write(self.file("server-key.pem"), key.serialize_pem()).unwrap();
    }
}

/// Two ends of a socket: who called, who was called.
async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (called, accepted) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (called.unwrap(), accepted.unwrap().0)
}

/// What each end makes of a handshake.
async fn shake(
    server: &Server,
    client: &Client,
    host: &str,
) -> (Result<Stream, Refused>, Result<Stream, ConnectError>) {
    let (calling, called) = sockets().await;
    tokio::join!(server.accept(called, LONG, b""), client.connect(calling, host))
}

fn copy(from: &Path, to: &Path) {
    std::fs::copy(from, to).unwrap();
}
