//! PEM files, and what is in them.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::sign::CertifiedKey;

use crate::certificate::Validity;
use crate::{Error, provider};

/// Bytes of a file that are read. A chain has a few thousand, a bundle of every public CA 300,000.
const MOST: u64 = 1 << 20;

/// The PEM files of one side of connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The certificate, followed by those between it and its CA.
    pub cert: PathBuf,
    /// The private key of the certificate.
    pub key: PathBuf,
    /// The CAs that certificates of the other side must be of.
    pub ca: Option<PathBuf>,
}

/// Where a config comes from; a client may have no certificate.
#[derive(Clone, Debug)]
pub(crate) struct Sources {
    pub identity: Option<(PathBuf, PathBuf)>,
    pub ca: Option<PathBuf>,
}

/// What is in the files of [`Sources`].
#[derive(Hash)]
pub(crate) struct Contents {
    cert: Option<Vec<u8>>,
    key: Option<Vec<u8>>,
    ca: Option<Vec<u8>>,
}

/// [`Contents`], understood.
pub(crate) struct Loaded {
    pub identity: Option<CertifiedKey>,
    pub validity: Option<Validity>,
    pub roots: Option<RootCertStore>,
}

impl Sources {
    /// Reads all files, before any is looked at: they belong together.
    pub(crate) fn read(&self) -> Result<Contents, Error> {
        let (cert, key) = self.identity.as_ref().map(|(cert, key)| (cert, key)).unzip();
        let whole = |file: Option<&PathBuf>| file.map(|file| read(file)).transpose();
        Ok(Contents { cert: whole(cert)?, key: whole(key)?, ca: whole(self.ca.as_ref())? })
    }

    /// Makes sense of what was read.
    pub(crate) fn load(&self, contents: &Contents) -> Result<Loaded, Error> {
        let mut loaded = Loaded { identity: None, validity: None, roots: None };
        if let (Some((cert_file, key_file)), Some(cert), Some(key)) = (&self.identity, &contents.cert, &contents.key) {
            let chain = certificates(cert_file, cert)?;
            let validity =
                Validity::of(&chain[0]).map_err(|error| Error::new(cert_file, format!("no certificate: {error}")))?;
            validity.check(UnixTime::now()).map_err(|error| Error::new(cert_file, error))?;
            let pair = CertifiedKey::from_der(chain, private_key(key_file, key)?, &provider());
            loaded.identity = Some(pair.map_err(|error| match error {
                rustls::Error::InconsistentKeys(_) => {
                    Error::new(key_file, format!("not the key of the certificate in {}", cert_file.display()))
                }
                other => Error::new(key_file, format!("the key cannot be used: {other}")),
            })?);
            loaded.validity = Some(validity);
        }
        if let (Some(file), Some(bytes)) = (&self.ca, &contents.ca) {
            let mut roots = RootCertStore::empty();
            for ca in certificates(file, bytes)? {
                roots.add(ca).map_err(|error| Error::new(file, format!("a CA in it cannot be used: {error}")))?;
            }
            loaded.roots = Some(roots);
        }
        Ok(loaded)
    }
}

fn read(file: &Path) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let read = File::open(file).and_then(|open| open.take(MOST + 1).read_to_end(&mut bytes));
    read.map_err(|error| Error::new(file, error.to_string()))?;
    if bytes.len() as u64 > MOST {
        return Err(Error::new(file, format!("longer than {MOST} bytes: not a PEM file of certificates or a key")));
    }
    Ok(bytes)
}

/// At least one certificate.
fn certificates(file: &Path, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(bytes).collect();
    let found = found.map_err(|error| broken(file, &error))?;
    if found.is_empty() {
        return Err(Error::new(file, "no certificate in it: a PEM file with BEGIN CERTIFICATE expected"));
    }
    Ok(found)
}

fn private_key(file: &Path, bytes: &[u8]) -> Result<PrivateKeyDer<'static>, Error> {
    PrivateKeyDer::from_pem_slice(bytes).map_err(|error| match error {
        pem::Error::NoItemsFound if bytes.windows(9).any(|part| part == b"ENCRYPTED") => {
            Error::new(file, "the private key in it is encrypted: a key without a passphrase expected")
        }
        pem::Error::NoItemsFound => {
            Error::new(file, "no private key in it: a PEM file with BEGIN PRIVATE KEY expected")
        }
        other => broken(file, &other),
    })
}

/// PEM errors print bytes as numbers.
fn broken(file: &Path, error: &pem::Error) -> Error {
    Error::new(
        file,
        match error {
            pem::Error::MissingSectionEnd { .. } => {
                "the PEM in it is cut off: a line with -----END is missing".to_owned()
            }
            pem::Error::IllegalSectionStart { line } => {
                format!("broken PEM: the line '{}' begins nothing", String::from_utf8_lossy(line).escape_debug())
            }
            other => format!("broken PEM: {other}"),
        },
    )
}
