//! The side that is called.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use rustls::sign::SingleCertAndKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use crate::files::{Files, Loaded, Sources};
use crate::live::Live;
use crate::{Error, Protocol, Stream, alpn, provider};

/// First byte of a TLS connection.
const HANDSHAKE: u8 = 0x16;
/// What a refused client may still send before its connection is cut.
const LINGER: (u64, Duration) = (64 << 10, Duration::from_secs(1));

/// Whether clients must show a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// None is asked for.
    None,
    /// One of a CA in [`Files::ca`]. Without it there is no connection.
    Required,
}

/// Takes connections with TLS. A clone shares the certificates.
#[derive(Clone)]
pub struct Server(Arc<Live<ServerConfig>>);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// What came first is no TLS.
    #[error("the client does not speak TLS")]
    Plaintext,
    /// The handshake failed.
    #[error("{0}")]
    Handshake(#[from] io::Error),
    /// It took too long.
    #[error("no handshake within {0:?}")]
    Late(Duration),
}

impl Server {
    /// Reads the files; `protocols` are offered in this order. `ClientAuth::Required` needs `files.ca`.
    pub fn open(files: &Files, auth: ClientAuth, protocols: &'static [Protocol]) -> Result<Self, Error> {
        let files = files.clone();
        let ca = match (auth, &files.ca) {
            (ClientAuth::Required, None) => {
                return Err(Error::new(
                    &files.cert,
                    "clients must show a certificate, but no CA file is named for them",
                ));
            }
            (ClientAuth::Required, ca) => ca.clone(),
            (ClientAuth::None, _) => None,
        };
        let sources = Sources { identity: Some((files.cert.clone(), files.key.clone())), ca };
        Live::open(sources, move |loaded| config(&files, loaded, protocols)).map(Self)
    }

    /// Shakes hands with a client, within a time. One that sends something else than TLS gets
    /// `answer` instead.
    pub async fn accept(&self, stream: TcpStream, within: Duration, answer: &[u8]) -> Result<Stream, Refused> {
        let shaken = tokio::time::timeout(within, self.handshake(stream, answer)).await;
        shaken.unwrap_or(Err(Refused::Late(within)))
    }

    async fn handshake(&self, mut stream: TcpStream, answer: &[u8]) -> Result<Stream, Refused> {
        let mut first = [0];
        if stream.peek(&mut first).await? == 0 {
            return Err(Refused::Handshake(io::ErrorKind::UnexpectedEof.into()));
        }
        if first != [HANDSHAKE] {
            stream.write_all(answer).await?;
            linger(stream).await;
            return Err(Refused::Plaintext);
        }
        match TlsAcceptor::from(self.0.current()).accept(stream).into_fallible().await {
            Ok(stream) => Ok(Stream::Tls(Box::new(stream.into()))),
            Err((error, stream)) => {
                linger(stream).await;
                Err(Refused::Handshake(error))
            }
        }
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

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").finish_non_exhaustive()
    }
}

/// Lets a client read why it was refused: closing with unread bytes would throw that away.
async fn linger(mut stream: TcpStream) {
    let (most, within) = LINGER;
    let _ = stream.shutdown().await;
    let mut rest = stream.take(most);
    let _ = tokio::time::timeout(within, tokio::io::copy(&mut rest, &mut tokio::io::sink())).await;
}

fn config(files: &Files, loaded: Loaded, protocols: &[Protocol]) -> Result<ServerConfig, Error> {
    let failed = |error: &dyn std::fmt::Display| Error::new(&files.cert, error.to_string());
    let identity = loaded.identity.ok_or_else(|| failed(&"no certificate"))?;
    let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| failed(&error))?;
    let builder = match loaded.roots {
        None => builder.with_no_client_auth(),
        Some(roots) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| failed(&error))?)
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(identity)));
    config.alpn_protocols = alpn(protocols);
    Ok(config)
}
