//! HTTP/1.1 for calls that must not happen twice: a connection is made for one call (or for the few
//! requests of one session), goes through no proxy, follows no redirect, is tried once, and is cut off
//! without a trace in the kernel's queues when its caller gives up.
//!
//! Nothing here runs on its own: a connection lives and dies with the future that uses it.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{Either, Fuse, FutureExt, select};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use hyper::{HeaderMap, Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustix::net::sockopt;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::config::ConfigError;

const HTTP: &[tls::Protocol] = &[b"http/1.1"];

/// Why there is no answer, in words.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failed {
    /// Nothing can have arrived.
    #[error("cannot connect to {0}: {1}")]
    Connect(String, String),
    /// Something may have.
    #[error("{0} gave no answer: {1}")]
    NoAnswer(String, String),
    /// It said something else than was expected.
    #[error("{0}")]
    Answer(String),
}

impl From<Failed> for String {
    fn from(failed: Failed) -> Self {
        failed.to_string()
    }
}

/// Where a server is, and the path in front of all that is asked there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub https: bool,
    pub host: String,
    pub port: u16,
    /// Without a slash at its end.
    pub path: String,
}

impl Place {
    pub(crate) fn parse(url: &str) -> Result<Self, String> {
        // It is not repeated: a password may be in it.
        if url.contains('@') {
            return Err("a user in a URL given: credentials stand in options of their own".to_owned());
        }
        let refused = |what: &str| format!("'{url}' given, a URL as https://host:port/path expected: {what}");
        let uri: Uri = url.parse().map_err(|error| refused(&format!("{error}")))?;
        let https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(refused("it begins with neither https:// nor http://")),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| refused("it names no host"))?;
        if uri.query().is_some() {
            return Err(refused("it has a query"));
        }
        let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
        Ok(Self { https, host: host.to_owned(), port, path: uri.path().trim_end_matches('/').to_owned() })
    }

    /// A BMC's: a URL, or a host with or without a port, which is https then.
    pub(crate) fn of(address: &str) -> Result<Self, String> {
        if address.contains("://") { Self::parse(address) } else { Self::parse(&format!("https://{address}")) }
    }

    /// The host as a resolver and a certificate have it.
    pub(crate) fn bare(&self) -> &str {
        self.host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(&self.host)
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}:{}", if self.https { "https" } else { "http" }, self.host, self.port)
    }
}

/// Whose certificates are taken.
#[derive(Clone)]
pub(crate) enum Trust {
    /// Those of these CAs; the file is followed.
    Ca(tls::Client),
    /// Any.
    Any(TlsConnector),
    /// None: there is no https.
    None,
}

impl Trust {
    pub(crate) fn open(at: &str, ca: Option<&Path>, any: bool) -> Result<Self, ConfigError> {
        match (ca, any) {
            (Some(_), true) => {
                let what = "given beside 'danger_accept_any_certificate: true', which makes it void: keep one of them";
                Err(ConfigError::new(format!("{at}.ca"), what))
            }
            (Some(ca), false) => tls::Client::open(ca, None, HTTP)
                .map(Self::Ca)
                .map_err(|error| ConfigError::new(format!("{at}.ca"), error.to_string())),
            (None, true) => {
                let provider = Arc::new(ring::default_provider());
                let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
                    .with_safe_default_protocol_versions()
                    .map_err(|error| ConfigError::new(at, error.to_string()))?;
                let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)));
                tracing::warn!(at, "any certificate is taken: whoever stands between can read the password and lie");
                Ok(Self::Any(TlsConnector::from(Arc::new(builder.with_no_client_auth()))))
            }
            (None, false) => Ok(Self::None),
        }
    }

    /// Follows the file of CAs until dropped.
    pub(crate) async fn watch(&self) {
        match self {
            Self::Ca(client) => client.watch().await,
            Self::Any(_) | Self::None => std::future::pending().await,
        }
    }

    /// A new connection to a server.
    pub(crate) async fn connect(&self, place: &Place, most: Duration) -> Result<Session, Failed> {
        let failed = |error: String| Failed::Connect(place.to_string(), error);
        let stream = TcpStream::connect((place.bare(), place.port)).await.map_err(|error| failed(error.to_string()))?;
        stream.set_nodelay(true).map_err(|error| failed(error.to_string()))?;
        // What is not acknowledged when this side gives up is thrown away, not delivered later.
        let millis = u32::try_from(most.as_millis()).unwrap_or(u32::MAX);
        sockopt::set_socket_linger(&stream, Some(Duration::ZERO))
            .and_then(|()| sockopt::set_tcp_user_timeout(&stream, millis))
            .map_err(|error| failed(error.to_string()))?;
        let stream = if place.https {
            match self {
                Self::Ca(client) => {
                    client.connect(stream, &place.host).await.map_err(|error| failed(error.to_string()))?
                }
                Self::Any(connector) => {
                    let name =
                        ServerName::try_from(place.bare().to_owned()).map_err(|error| failed(error.to_string()))?;
                    let stream = connector.connect(name, stream).await.map_err(|error| failed(error.to_string()))?;
                    tls::Stream::Tls(Box::new(stream.into()))
                }
                Self::None => return Err(failed("it is https, and no CA is configured: set 'ca'".to_owned())),
            }
        } else {
            tls::Stream::Plain(stream)
        };
        let (send, connection) =
            Builder::new().handshake(TokioIo::new(stream)).await.map_err(|error| failed(error.to_string()))?;
        Ok(Session { place: place.clone(), send, connection: Box::pin(connection.fuse()) })
    }
}

/// A request's parts. Without `Debug`: a body may have a password.
#[derive(Clone)]
pub(crate) struct Ask {
    pub method: Method,
    /// From the root, with its query.
    pub path: String,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub body: Option<Value>,
}

impl Ask {
    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self { method: Method::GET, path: path.into(), headers: Vec::new(), body: None }
    }

    pub(crate) fn with(method: Method, path: impl Into<String>, body: Value) -> Self {
        Self { method, path: path.into(), headers: Vec::new(), body: Some(body) }
    }

    /// A header that no log shows. One that cannot stand in a header is left out, and is refused over there.
    pub(crate) fn secret(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(mut value) = HeaderValue::from_str(value) {
            value.set_sensitive(true);
            self.headers.push((name, value));
        }
        self
    }

    pub(crate) fn basic(self, user: &str, password: &str) -> Self {
        use base64::Engine;
        let both = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        self.secret(AUTHORIZATION, &format!("Basic {both}"))
    }
}

/// An answer. Without `Debug`: a header may have a token.
pub(crate) struct Said {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Said {
    /// Its JSON.
    pub(crate) fn json(&self, place: &Place) -> Result<Value, Failed> {
        serde_json::from_slice(&self.body)
            .map_err(|error| Failed::Answer(format!("{place} answered {}, and no JSON: {error}", self.status)))
    }

    /// The beginning of its text, in one line.
    pub(crate) fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.body[..self.body.len().min(400)]).into_owned();
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

type Wire = Connection<TokioIo<tls::Stream>, Full<Bytes>>;

/// One connection.
pub(crate) struct Session {
    place: Place,
    send: SendRequest<Full<Bytes>>,
    connection: Pin<Box<Fuse<Wire>>>,
}

impl Session {
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// Whether the other side still listens, as far as is known.
    pub(crate) async fn is_open(&mut self) -> bool {
        match select(&mut self.connection, Box::pin(self.send.ready())).await {
            Either::Left(_) => false,
            Either::Right((ready, _)) => ready.is_ok(),
        }
    }

    /// Asks once. The body of the answer has at most so many bytes.
    pub(crate) async fn ask(&mut self, ask: Ask, most: usize) -> Result<Said, Failed> {
        let failed = |error: String| Failed::NoAnswer(self.place.to_string(), error);
        let mut request = Request::new(Full::new(match &ask.body {
            Some(body) => Bytes::from(body.to_string()),
            None => Bytes::new(),
        }));
        *request.method_mut() = ask.method;
        *request.uri_mut() = ask.path.parse().map_err(|error| failed(format!("the path is wrong: {error}")))?;
        let headers = request.headers_mut();
        let host = format!("{}:{}", self.place.host, self.place.port);
        headers.insert(HOST, HeaderValue::from_str(&host).map_err(|error| failed(error.to_string()))?);
        if ask.body.is_some() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        headers.extend(ask.headers.into_iter().map(|(name, value)| (Some(name), value)));
        let answer = async {
            let answer = self.send.send_request(request).await.map_err(|error| error.to_string())?;
            let (parts, body) = answer.into_parts();
            let body = Limited::new(body, most).collect().await.map_err(|error| error.to_string())?;
            Ok::<_, String>(Said { status: parts.status, headers: parts.headers, body: body.to_bytes() })
        };
        let answer = match select(Box::pin(answer), &mut self.connection).await {
            Either::Left((answer, _)) => answer,
            // The other side has closed: what it said before is here.
            Either::Right((_, answer)) => answer.await,
        };
        answer.map_err(failed)
    }
}

/// Takes any certificate, and yet demands that its key signed the handshake.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
