//! The `tls` section of the config file, the certificates that a server goes by, and what it refuses
//! to do without them.

use std::net::SocketAddr;
use std::path::PathBuf;

use operators::reader::{Fields, Place, Reader};
use schemars::JsonSchema;
use serde::Serialize;
use tls::{ClientAuth, Files};
use tokio::signal::unix::Signal;

use super::config::Config;
use crate::cli::Failure;

/// PEM files for connections with TLS.
#[derive(Debug, Default, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Section {
    /// For the port of clients.
    pub client: Option<Side>,
    /// For connections between the nodes of a cluster, both ways.
    #[schemars(with = "Option<PeerSide>")]
    pub peer: Option<Side>,
}

/// Files for the port of clients.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Side {
    /// The certificate, followed by those between it and its CA.
    cert: PathBuf,
    /// The private key of the certificate.
    key: PathBuf,
    /// CAs of clients' certificates: given, only clients that show one are let in.
    pub ca: Option<PathBuf>,
}

/// Files for connections between nodes.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "a schema, never a value")]
struct PeerSide {
    /// The certificate of this node, followed by those between it and its CA.
    cert: PathBuf,
    /// The private key of the certificate.
    key: PathBuf,
    /// CAs of the nodes' certificates. Whoever shows a certificate of one is a node.
    ca: PathBuf,
}

impl From<Side> for Files {
    fn from(side: Side) -> Self {
        Self { cert: side.cert, key: side.key, ca: side.ca }
    }
}

impl Section {
    /// Reads the section.
    pub fn read(reader: &mut Reader, fields: Fields<'_, '_>) -> Self {
        let Some(map) = reader.map(fields, "tls") else { return Self::default() };
        let place = Place::Key(fields.at, "tls");
        let fields = Fields { map, at: &place };
        let faults = reader.faults.len();
        reader.only(fields, &["client", "peer"]);
        if reader.faults.len() == faults && fields.get("client").or(fields.get("peer")).is_none() {
            reader.fault(&place, "nothing in it: client, peer or both expected");
        }
        Self { client: side(reader, fields, "client", false), peer: side(reader, fields, "peer", true) }
    }
}

fn side(reader: &mut Reader, fields: Fields<'_, '_>, key: &str, mutual: bool) -> Option<Side> {
    let map = reader.map(fields, key)?;
    let place = Place::Key(fields.at, key);
    let fields = Fields { map, at: &place };
    reader.only(fields, &["cert", "key", "ca"]);
    let (cert, key) = (reader.required(fields, "cert"), reader.required(fields, "key"));
    let ca = if mutual { reader.required(fields, "ca") } else { reader.text(fields, "ca") };
    Some(Side { cert: cert?.into(), key: key?.into(), ca: ca.map(PathBuf::from) })
}

/// Refuses an address that others can reach when what is said there can be read and changed.
pub fn guard(key: &str, address: SocketAddr, tls: bool, insecure: bool) -> Result<(), Failure> {
    if address.ip().is_loopback() || tls || insecure {
        return Ok(());
    }
    let section = if key == "peer_listen" { "tls.peer" } else { "tls.client" };
    Err(Failure::new(format!(
        "{key}: {address} is not a loopback address, and there is no TLS: what is sent could be read and changed on the \
         way; give {section} in the config file ('pallium certs' makes certificates), use 127.0.0.1, or accept that with \
         --insecure-plaintext"
    )))
}

/// The certificates of a running server.
#[derive(Clone, Debug)]
pub struct Certificates {
    /// For the port of clients.
    pub client: Option<tls::Server>,
    /// For connections between nodes: those that come, those that are made.
    pub peer: Option<(tls::Server, tls::Client)>,
}

impl Certificates {
    /// Reads the files that a config names.
    pub fn open(config: &Config) -> Result<Self, Failure> {
        let named = |key: &'static str| move |error: tls::Error| Failure::new(format!("{key}: {error}"));
        let client = config.client_tls.as_ref().map(|files| {
            let auth = if files.ca.is_some() { ClientAuth::Required } else { ClientAuth::None };
            tls::Server::open(files, auth, tls::HTTP).map_err(named("tls.client"))
        });
        let peer = config.peer_tls.as_ref().map(|files| {
            let server = tls::Server::open(files, ClientAuth::Required, tls::H2).map_err(named("tls.peer"))?;
            let ca = files.ca.as_deref().unwrap_or(&files.cert);
            let client = tls::Client::open(ca, Some((&files.cert, &files.key)), tls::H2).map_err(named("tls.peer"))?;
            Ok((server, client))
        });
        Ok(Self { client: client.transpose()?, peer: peer.transpose()? })
    }

    /// Follows the files from now on: every few seconds, and at once when the process is told to hang up.
    pub fn follow(&self, mut hangup: Signal) {
        let servers: Vec<tls::Server> =
            self.client.iter().chain(self.peer.iter().map(|(server, _)| server)).cloned().collect();
        let client = self.peer.as_ref().map(|(_, client)| client.clone());
        for server in servers.clone() {
            tokio::spawn(async move { server.watch().await });
        }
        if let Some(client) = client.clone() {
            tokio::spawn(async move { client.watch().await });
        }
        tokio::spawn(async move {
            while hangup.recv().await.is_some() {
                if servers.is_empty() {
                    tracing::info!("SIGHUP: there are no certificates to be read again");
                }
                // The log has the outcome of each.
                for server in &servers {
                    let _ = server.reload().await;
                }
                if let Some(client) = &client {
                    let _ = client.reload().await;
                }
            }
        });
    }
}
