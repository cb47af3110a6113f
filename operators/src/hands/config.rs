//! What the hands are given: where Nova is, and the credentials of Nova and of BMCs. Passwords stand in
//! files of their own, which are read when they are used: never in the configuration, the log, the state or
//! an answer.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::http::{Place, Trust};

/// Bytes of a password file.
const MOST: u64 = 4096;
/// Bytes of a password of IPMI 2.0.
const IPMI: usize = 20;

/// Why the hands cannot work with this configuration: where, what was given, what was expected, what to do.
#[derive(Debug, thiserror::Error)]
#[error("{at}: {what}")]
pub struct ConfigError {
    at: String,
    what: String,
}

impl ConfigError {
    pub(crate) fn new(at: impl Into<String>, what: impl Into<String>) -> Self {
        Self { at: at.into(), what: what.into() }
    }
}

/// What acts in a failover. What is left out is not acted by: without `nova` nothing is evacuated.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Nova, which evacuates.
    pub nova: Option<Nova>,
    /// BMCs that speak Redfish.
    pub redfish: Option<Redfish>,
    /// BMCs that speak IPMI over LAN+.
    pub ipmi: Option<Ipmi>,
}

/// Nova, and who pallium is in Keystone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Nova {
    /// Keystone's v3 API, as in `OS_AUTH_URL`: `https://keystone.example:5000/v3`.
    pub auth_url: String,
    /// Name of the user.
    pub user: String,
    /// Domain of the user, by name.
    #[serde(default = "default_domain")]
    pub user_domain: String,
    /// File with the user's password, and nothing else.
    pub password_file: PathBuf,
    /// Project that the token is for, by name.
    pub project: String,
    /// Domain of the project, by name.
    #[serde(default = "default_domain")]
    pub project_domain: String,
    /// Region of Nova's endpoint in the catalog; needed where the catalog has several.
    pub region: Option<String>,
    /// Which of Nova's endpoints in the catalog.
    #[serde(default)]
    pub interface: Interface,
    /// Nova's endpoint, in place of the catalog's: `https://nova.example:8774/v2.1`.
    pub endpoint: Option<String>,
    /// PEM file with the CAs of Keystone and Nova; needed for https.
    pub ca: Option<PathBuf>,
    /// Takes any certificate of Keystone and Nova: whoever stands between reads the password. Not beside `ca`.
    #[serde(default)]
    pub danger_accept_any_certificate: bool,
}

/// Which endpoint of a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Interface {
    /// For everybody.
    Public,
    /// For services of the cloud.
    #[default]
    Internal,
    /// For operators.
    Admin,
}

impl Interface {
    /// As the catalog has it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Internal => "internal",
            Self::Admin => "admin",
        }
    }
}

/// Credentials for Redfish: for all BMCs, and others for single hosts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Redfish {
    /// User; it needs power control and login, nothing else.
    pub user: String,
    /// File with its password, and nothing else.
    pub password_file: PathBuf,
    /// How it says who it is.
    #[serde(default)]
    pub auth: RedfishAuth,
    /// PEM file with the CAs of the BMCs' certificates; needed for https. A certificate that a BMC signed
    /// itself may stand there too.
    pub ca: Option<PathBuf>,
    /// Takes any certificate of a BMC: whoever stands between reads the password and says what he likes of
    /// the power state, by which instances are started elsewhere. Not beside `ca`.
    #[serde(default)]
    pub danger_accept_any_certificate: bool,
    /// Other credentials, by Nova's name of the host.
    #[serde(default)]
    pub hosts: BTreeMap<String, Login>,
}

/// How Redfish is told who asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RedfishAuth {
    /// With each request.
    #[default]
    Basic,
    /// By a session, which is ended after its few requests: for BMCs that take nothing else.
    Session,
}

/// Credentials for IPMI: for all BMCs, and others for single hosts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ipmi {
    /// User.
    pub user: String,
    /// File with its password (at most 20 bytes, as IPMI has it), and nothing else.
    pub password_file: PathBuf,
    /// Privilege that a session asks for.
    #[serde(default)]
    pub privilege: Privilege,
    /// Cipher suite: 17 is HMAC-SHA256 with AES; 3 is HMAC-SHA1 with AES, for BMCs that have no 17.
    #[serde(default = "default_suite")]
    pub cipher_suite: u8,
    /// The program; ipmitool 1.8.19 or newer.
    #[serde(default = "default_program")]
    pub ipmitool: PathBuf,
    /// Other credentials, by Nova's name of the host.
    #[serde(default)]
    pub hosts: BTreeMap<String, Login>,
}

/// Privilege of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Privilege {
    /// Enough to switch power.
    #[default]
    Operator,
    /// For BMCs that let operators do too little.
    Administrator,
}

/// Credentials of one host's BMC, and where it is when the inventory's address is not the one for this.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// User.
    pub user: String,
    /// File with its password, and nothing else.
    pub password_file: PathBuf,
    /// Address in place of the inventory's.
    pub address: Option<String>,
}

fn default_domain() -> String {
    "Default".to_owned()
}

fn default_suite() -> u8 {
    17
}

fn default_program() -> PathBuf {
    "ipmitool".into()
}

impl Config {
    /// Reads every password once and refuses what cannot work.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if let Some(nova) = &self.nova {
            Place::parse(&nova.auth_url).map_err(|why| ConfigError::new("nova.auth_url", why))?;
            if let Some(endpoint) = &nova.endpoint {
                Place::parse(endpoint).map_err(|why| ConfigError::new("nova.endpoint", why))?;
            }
            secret("nova.password_file", &nova.password_file)?;
            let urls = [Some(&nova.auth_url), nova.endpoint.as_ref()];
            let https = urls.iter().flatten().find(|url| url.starts_with("https:"));
            if let Some(url) = https.filter(|_| nova.ca.is_none() && !nova.danger_accept_any_certificate) {
                let what = format!(
                    "no CA given, and {url} is https: name the PEM file with its CA \
                     (on Debian the public ones are in /etc/ssl/certs/ca-certificates.crt)"
                );
                return Err(ConfigError::new("nova.ca", what));
            }
        }
        if let Some(redfish) = &self.redfish {
            secret("redfish.password_file", &redfish.password_file)?;
            for (host, login) in &redfish.hosts {
                secret(&format!("redfish.hosts.{host}.password_file"), &login.password_file)?;
            }
        }
        if let Some(ipmi) = &self.ipmi {
            let logins = ipmi.hosts.iter().map(|(host, login)| (format!("ipmi.hosts.{host}"), &login.password_file));
            for (at, file) in logins.chain([("ipmi".to_owned(), &ipmi.password_file)]) {
                let at = format!("{at}.password_file");
                let length = secret(&at, file)?.expose().len();
                if length > IPMI {
                    let what = format!("a password of {length} bytes given, IPMI has at most {IPMI}");
                    return Err(ConfigError::new(at, what));
                }
            }
            if !matches!(ipmi.cipher_suite, 3 | 17) {
                let what = format!("{} given, 17 or 3 expected: the others do not encrypt", ipmi.cipher_suite);
                return Err(ConfigError::new("ipmi.cipher_suite", what));
            }
        }
        Ok(())
    }
}

impl Nova {
    pub(super) fn trust(&self) -> Result<Trust, ConfigError> {
        Trust::open("nova", self.ca.as_deref(), self.danger_accept_any_certificate)
    }
}

impl Redfish {
    pub(super) fn trust(&self) -> Result<Trust, ConfigError> {
        Trust::open("redfish", self.ca.as_deref(), self.danger_accept_any_certificate)
    }
}

/// A password. It has no way into a log.
pub(crate) struct Secret(String);

impl Secret {
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(secret)")
    }
}

/// The password in a file: all of it but the line's end.
pub(crate) fn secret(at: &str, path: &Path) -> Result<Secret, ConfigError> {
    let refused = |what: String| ConfigError::new(at, format!("{}: {what}", path.display()));
    let file = File::open(path).map_err(|error| refused(format!("cannot be read: {error}")))?;
    let mut text = String::new();
    file.take(MOST + 1)
        .read_to_string(&mut text)
        .map_err(|error| refused(format!("a password as UTF-8 text expected: {error}")))?;
    let password = text.trim_end_matches(['\r', '\n']);
    if password.is_empty() || password.contains('\n') || text.len() as u64 > MOST {
        return Err(refused("one line with the password expected, and nothing else".to_owned()));
    }
    Ok(Secret(password.to_owned()))
}
