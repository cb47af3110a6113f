//! The side that calls.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use rustls::sign::SingleCertAndKey;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::error::words;
use crate::files::{Loaded, Sources};
use crate::live::Live;
use crate::{Error, Protocol, Stream, alpn, provider};

/// Makes connections with TLS. A clone shares the certificates.
#[derive(Clone)]
pub struct Client(Arc<Live<ClientConfig>>);

/// Why there is no connection, in words.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConnectError(String);

impl Client {
    /// Reads the files: `ca` has the CAs that servers' certificates must be of, `identity` the
    /// certificate and the key that this side shows.
    pub fn open(ca: &Path, identity: Option<(&Path, &Path)>, protocols: &'static [Protocol]) -> Result<Self, Error> {
        let sources = Sources {
            identity: identity.map(|(cert, key)| (cert.to_owned(), key.to_owned())),
            ca: Some(ca.to_owned()),
        };
        let ca = ca.to_owned();
        Live::open(sources, move |loaded| config(&ca, loaded, protocols)).map(Self)
    }

    /// Shakes hands with a server, whose certificate must be for `host`: a name or an address, as it
    /// stands in a URL. Has no time limit: give it one.
    pub async fn connect(&self, stream: TcpStream, host: &str) -> Result<Stream, ConnectError> {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let name = ServerName::try_from(bare.to_owned())
            .map_err(|_| ConnectError(format!("'{host}' given, a host name or an address expected")))?;
        let connected = TlsConnector::from(self.0.current()).connect(name, stream).await;
        let stream = connected.map_err(|error| ConnectError(told(&error)))?;
        Ok(Stream::Tls(Box::new(stream.into())))
    }

    /// Takes what is in the files now. With an error, which the log has too, the old ones stay.
    pub async fn reload(&self) -> Result<(), Error> {
        let live = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || live.reload()).await.unwrap_or(Ok(()))
    }

    /// Follows the files until dropped: what changed is taken within a few seconds.
    pub async fn watch(&self) {
        Arc::clone(&self.0).watch().await;
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

fn told(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => {
            "the server closed the connection during the TLS handshake".to_owned()
        }
        _ => words(error).unwrap_or_else(|| error.to_string()),
    }
}

fn config(ca: &Path, loaded: Loaded, protocols: &[Protocol]) -> Result<ClientConfig, Error> {
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| Error::new(ca, error.to_string()))?;
    let builder = builder.with_root_certificates(loaded.roots.unwrap_or_else(rustls::RootCertStore::empty));
    let mut config = match loaded.identity {
        None => builder.with_no_client_auth(),
        Some(identity) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity))),
    };
    config.alpn_protocols = alpn(protocols);
    Ok(config)
}
