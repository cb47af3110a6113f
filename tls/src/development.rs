//! Certificates for development: two CAs and what they sign. For tests and first steps; a real
//! cluster has its certificates from a CA that somebody guards.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose as Purpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::pki_types::ServerName;
use time::{Duration, OffsetDateTime};

use crate::Error;

/// What a set is made for.
#[derive(Clone, Debug)]
pub struct Development {
    /// Nodes of the cluster, each with a certificate of its own.
    pub nodes: u32,
    /// Names and addresses of the machines, besides this one.
    pub hosts: Vec<String>,
    /// Clients that say who they are: what their files are called, and the URI in their certificate.
    pub clients: Vec<(String, String)>,
    /// Write over what is there.
    pub overwrite: bool,
}

type Failed = rcgen::Error;

/// Makes a set in `dir`, valid for a year, and names its files:
///
/// - `ca.pem`, `ca-key.pem`, and of it `server.pem`, `client.pem` and those of `clients` with their keys;
/// - `peer-ca.pem`, `peer-ca-key.pem`, and of it `peer-1.pem`, … with their keys. Nodes have a CA of
///   their own, because whoever shows a certificate of it to a node is a node.
///
/// Keys can be read by their owner only. When a file exists already and `overwrite` is not set,
/// nothing is written.
pub fn development(dir: &Path, set: &Development) -> Result<Vec<PathBuf>, Error> {
    for host in &set.hosts {
        let name = host.strip_prefix("*.").unwrap_or(host);
        ServerName::try_from(name)
            .map_err(|_| Error::new(dir, format!("no certificate for '{host}': a host name or an address expected")))?;
    }
    let made = make(set).map_err(|error| Error::new(dir, format!("no certificate could be made: {error}")))?;
    let files: Vec<(PathBuf, String)> = made.into_iter().map(|(name, text)| (dir.join(name), text)).collect();
    if let Some((file, _)) = files.iter().find(|(file, _)| !set.overwrite && file.exists()) {
        return Err(Error::new(file, "exists already"));
    }
    fs::create_dir_all(dir).map_err(|error| Error::new(dir, error.to_string()))?;
    for (file, text) in &files {
        write(file, text).map_err(|error| Error::new(file, error.to_string()))?;
    }
    Ok(files.into_iter().map(|(file, _)| file).collect())
}

fn make(set: &Development) -> Result<Vec<(String, String)>, Failed> {
    let mut made = Vec::new();
    let clients = authority("ca", "clients", &mut made)?;
    let peers = authority("peer-ca", "nodes", &mut made)?;
    signed("server", &clients, names(set), None, &[Purpose::ServerAuth], &mut made)?;
    signed("client", &clients, Vec::new(), None, &[Purpose::ClientAuth], &mut made)?;
    for (name, uri) in &set.clients {
        signed(name, &clients, Vec::new(), Some(uri), &[Purpose::ClientAuth], &mut made)?;
    }
    for node in 1..=set.nodes {
        let both = [Purpose::ServerAuth, Purpose::ClientAuth];
        signed(&format!("peer-{node}"), &peers, names(set), None, &both, &mut made)?;
    }
    Ok(made)
}

fn names(set: &Development) -> Vec<String> {
    let mut names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
    names.extend(set.hosts.iter().filter(|host| !names.contains(host)).cloned().collect::<Vec<_>>());
    names
}

fn parameters(names: Vec<String>) -> Result<CertificateParams, Failed> {
    let mut parameters = CertificateParams::new(names)?;
    // Clocks of machines differ.
    parameters.not_before = OffsetDateTime::now_utc() - Duration::HOUR;
    parameters.not_after = parameters.not_before + Duration::days(366);
    Ok(parameters)
}

fn authority(name: &str, whose: &str, made: &mut Vec<(String, String)>) -> Result<Issuer<'static, KeyPair>, Failed> {
    let key = KeyPair::generate()?;
    let mut parameters = parameters(Vec::new())?;
    // Another set has another name: a CA with the name of one and the key of another confuses everybody.
    let id = parameters.key_identifier(&key).iter().take(4).fold(0, |id: u32, byte| id << 8 | u32::from(*byte));
    let subject = format!("pallium development CA of {whose} {id:08x}");
    parameters.distinguished_name.push(DnType::CommonName, subject);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    made.push((format!("{name}.pem"), parameters.self_signed(&key)?.pem()));
    made.push((format!("{name}-key.pem"), key.serialize_pem()));
    Ok(Issuer::new(parameters, key))
}

fn signed(
    name: &str,
    issuer: &Issuer<'_, KeyPair>,
    names: Vec<String>,
    uri: Option<&String>,
    purposes: &[Purpose],
    made: &mut Vec<(String, String)>,
) -> Result<(), Failed> {
    let key = KeyPair::generate()?;
    let mut parameters = parameters(names)?;
    parameters.distinguished_name.push(DnType::CommonName, format!("pallium {name}"));
    if let Some(uri) = uri {
        parameters.subject_alt_names.push(SanType::URI(uri.as_str().try_into()?));
    }
    parameters.use_authority_key_identifier_extension = true;
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = purposes.to_vec();
    made.push((format!("{name}.pem"), parameters.signed_by(&key, issuer)?.pem()));
    made.push((format!("{name}-key.pem"), key.serialize_pem()));
    Ok(())
}

/// Puts a whole file in place of what was there: a server that looks just now never reads half of it.
fn write(file: &Path, text: &str) -> std::io::Result<()> {
    let secret = text.contains("PRIVATE KEY");
    let fresh = file.with_extension("pem.new");
    // One that a run left behind has its old mode.
    let _ = fs::remove_file(&fresh);
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true).mode(if secret { 0o600 } else { 0o644 });
    options.open(&fresh)?.write_all(text.as_bytes())?;
    fs::rename(&fresh, file)
}
