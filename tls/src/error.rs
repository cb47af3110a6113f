//! What is wrong with a file, and what a failed handshake means, in words.

use std::io;
use std::path::{Path, PathBuf};

use rustls::{AlertDescription, CertificateError, InvalidMessage};

use crate::certificate::date;

/// A file that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {what}", file.display())]
pub struct Error {
    /// The file.
    pub file: PathBuf,
    /// What is wrong with it.
    pub what: String,
}

impl Error {
    pub(crate) fn new(file: &Path, what: impl Into<String>) -> Self {
        Self { file: file.to_owned(), what: what.into() }
    }
}

/// What a TLS error on a client's connection means; `None` when TLS is not the cause.
pub(crate) fn words(error: &io::Error) -> Option<String> {
    error.get_ref()?.downcast_ref().map(told)
}

fn told(error: &rustls::Error) -> String {
    use AlertDescription as Alert;
    match error {
        rustls::Error::InvalidCertificate(error) => format!("the server's certificate {}", refused(error)),
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "the server does not speak TLS there".to_owned()
        }
        rustls::Error::AlertReceived(Alert::CertificateRequired) => "the server wants a client certificate".to_owned(),
        rustls::Error::AlertReceived(Alert::UnknownCA) => {
            "the server does not know the CA of the client certificate".to_owned()
        }
        rustls::Error::AlertReceived(Alert::CertificateExpired) => {
            "the server refuses the client certificate: it has expired, or is not valid yet, by the server's clock"
                .to_owned()
        }
        rustls::Error::AlertReceived(
            alert @ (Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateUnknown
            | Alert::DecryptError
            | Alert::AccessDenied),
        ) => format!("the server refuses the client certificate ({alert:?})"),
        rustls::Error::AlertReceived(Alert::NoApplicationProtocol) | rustls::Error::NoApplicationProtocol => {
            "the server speaks none of the protocols that were offered (HTTP/2)".to_owned()
        }
        rustls::Error::AlertReceived(Alert::ProtocolVersion) | rustls::Error::PeerIncompatible(_) => {
            format!("the server and this program have no version or cipher of TLS in common ({error})")
        }
        other => other.to_string(),
    }
}

fn refused(error: &CertificateError) -> String {
    match error {
        // A CA of the same name with another key shows as a bad signature.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => "is of no CA in the CA file".to_owned(),
        CertificateError::ExpiredContext { not_after, .. } => format!("expired at {}", date(*not_after)),
        CertificateError::Expired => "has expired".to_owned(),
        CertificateError::NotValidYetContext { not_before, .. } => {
            format!("is not valid before {}", date(*not_before))
        }
        CertificateError::NotValidYet => "is not valid yet".to_owned(),
        CertificateError::NotValidForNameContext { expected, presented } => {
            let names: Vec<&str> = presented.iter().map(|name| plain(name)).collect();
            let names = if names.is_empty() { "no name at all".to_owned() } else { names.join(", ") };
            format!("is not for {}, but for {names}", expected.to_str())
        }
        CertificateError::NotValidForName => "is for another name".to_owned(),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "is not one for servers (extended key usage)".to_owned()
        }
        other => format!("is refused: {other}"),
    }
}

/// A name without the wrapping that webpki prints: `DnsName("localhost")`.
fn plain(name: &str) -> &str {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.map_or(name, |inner| inner.trim_matches('"'))
}
