//! The config file of a server: read, merged with the flags, checked. Every error names line and
//! key; a key of a capability that does not exist yet is refused, not ignored.

pub mod failover;
pub mod peers;
mod scheduling;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use operators::document::{Documents, path_text};
use operators::reader::{Fault, Fields, Place, Reader};
use scheduler::Settings;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Args, certificates};
use crate::cli::Failure;

/// Everything that a server is started with.
#[derive(Clone, Debug)]
pub struct Config {
    /// Folder of the log and the snapshots.
    pub data_dir: PathBuf,
    /// Node id.
    pub node_id: u64,
    /// Address for clients.
    pub listen: SocketAddr,
    /// Address for Masakari's API alone.
    pub masakari_listen: Option<SocketAddr>,
    /// Address for the other nodes of a cluster; none: a lone node that stays alone.
    pub peer_listen: Option<SocketAddr>,
    /// What becomes of an empty folder.
    pub begin: raft::Begin,
    /// Times of the replication.
    pub raft: Replication,
    /// Certificates for the port of clients.
    pub client_tls: Option<tls::Files>,
    /// Certificates for connections between nodes; the CA is always there.
    pub peer_tls: Option<tls::Files>,
    /// Settings of the decision path.
    pub scheduling: Settings,
    /// Limits.
    pub limits: Limits,
    /// Failover.
    pub failover: failover::Section,
    /// Start although the log is damaged, and forget everything from this index on.
    pub accept_loss_from: Option<u64>,
    /// Logging.
    pub log: Log,
}

/// What a server takes at most.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bytes of a request body. More: 413.
    #[schemars(range(min = 1))]
    pub body_bytes: usize,
    /// Bytes of all request bodies that are worked on at one time. More: 503.
    #[schemars(range(min = 1))]
    pub bodies_bytes: usize,
    /// Milliseconds from the head of a request to its decision. Later: 504.
    #[schemars(range(min = 1))]
    pub deadline_ms: u64,
    /// Requests that wait for a decision. More: 503.
    #[schemars(range(min = 1))]
    pub queue: usize,
    /// Requests that are worked on at one time. More: 503.
    #[schemars(range(min = 1))]
    pub concurrency: usize,
    /// Connections at one time. More wait to be accepted.
    #[schemars(range(min = 1))]
    pub connections: usize,
    /// Readers of watches at one time. More: 503.
    #[schemars(range(min = 1))]
    pub watchers: usize,
    /// Milliseconds that running requests get when the server stops.
    #[schemars(range(min = 1))]
    pub drain_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        let api = api::ApiConfig::default();
        Self {
            body_bytes: api.body,
            bodies_bytes: api.bodies,
            deadline_ms: api.deadline.as_millis() as u64,
            queue: raft::Limits::default().queue,
            concurrency: api.concurrency,
            connections: api.connections,
            watchers: api.watchers,
            drain_ms: api.drain.as_millis() as u64,
        }
    }
}

impl Limits {
    /// The part that the API keeps.
    pub fn api(&self) -> api::ApiConfig {
        api::ApiConfig {
            body: self.body_bytes,
            bodies: self.bodies_bytes,
            deadline: Duration::from_millis(self.deadline_ms),
            concurrency: self.concurrency,
            connections: self.connections,
            watchers: self.watchers,
            drain: Duration::from_millis(self.drain_ms),
            ..api::ApiConfig::default()
        }
    }
}

/// Times and rates of the replication.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Replication {
    /// Milliseconds between two heartbeats of a leader.
    #[schemars(range(min = 1))]
    pub heartbeat_ms: u64,
    /// Milliseconds without one after which a node stands for election: at least. More than two
    /// heartbeats.
    #[schemars(range(min = 1))]
    pub election_min_ms: u64,
    /// The same: at most. Each node takes a random time between the two.
    #[schemars(range(min = 1))]
    pub election_max_ms: u64,
    /// Bytes of a snapshot that are sent to a joining node in a second; 0 = as many as go.
    pub snapshot_bytes_per_s: u64,
}

impl Default for Replication {
    fn default() -> Self {
        let options = raft::Options::new("", 1);
        Self {
            heartbeat_ms: options.heartbeat,
            election_min_ms: options.election.0,
            election_max_ms: options.election.1,
            snapshot_bytes_per_s: options.snapshot_rate,
        }
    }
}

/// Logging.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// Form of the lines.
    pub format: LogFormat,
    /// error, warn, info, debug, trace, or a filter as in info,raft=debug.
    pub level: String,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: "info".to_owned() }
    }
}

/// Form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The config file, as the schema shows it. [`File::read`] reads it.
#[derive(Debug, Default, JsonSchema, Serialize)]
#[schemars(deny_unknown_fields)]
struct File {
    /// Number of this node in its cluster, at least 1; 1 when absent.
    node_id: Option<u64>,
    /// Folder of the log and the snapshots.
    data_dir: Option<PathBuf>,
    /// Address for clients; port 0 takes a free one; 127.0.0.1:8080 when absent.
    listen: Option<String>,
    /// Address for Masakari's monitors and clients (Masakari's own is port 15868); without it they are
    /// served at /ha/v1 of `listen`.
    masakari_listen: Option<String>,
    /// Address for the other nodes of a cluster; 127.0.0.1:8081 when absent. A lone node opens it
    /// only when it is given.
    peer_listen: Option<String>,
    /// The initial voters: node id to the address of its peer port, this node among them. Later
    /// changes go through `pallium ctl cluster`.
    peers: Option<BTreeMap<u64, String>>,
    /// Begin a new cluster of `peers` in an empty folder: on exactly one of them. False without
    /// `peers`: wait to be added to a cluster. Ignored once there is data.
    bootstrap: Option<bool>,
    /// Times and rates of the replication.
    #[schemars(with = "Option<Replication>")]
    raft: Replication,
    /// Serve on other addresses than loopback although there is no TLS.
    insecure_plaintext: Option<bool>,
    /// Certificates.
    #[schemars(with = "Option<certificates::Section>")]
    tls: certificates::Section,
    /// How decisions are made.
    #[schemars(with = "Option<scheduling::Scheduling>")]
    scheduling: Settings,
    /// Limits.
    #[schemars(with = "Option<Limits>")]
    limits: Limits,
    /// Failover.
    #[schemars(with = "Option<failover::Section>")]
    ha: failover::Section,
    /// Logging.
    #[schemars(with = "Option<Log>")]
    log: Log,
}

const KEYS: [&str; 14] = [
    "node_id",
    "data_dir",
    "listen",
    "masakari_listen",
    "peer_listen",
    "peers",
    "bootstrap",
    "raft",
    "insecure_plaintext",
    "tls",
    "scheduling",
    "limits",
    "ha",
    "log",
];

/// Keys of capabilities that do not exist yet.
const LATER: [(&str, &str); 10] = [
    ("host_id", "what a voter stands on is given under ha.voters"),
    ("chassis", "what a voter stands on is given under ha.voters"),
    ("power_domain", "what a voter stands on is given under ha.voters"),
    ("auth", "authentication does not exist yet: serve on loopback behind a proxy that authenticates"),
    ("placement", "the Placement API does not exist yet"),
    ("placement_listen", "the Placement API does not exist yet"),
    ("placement_profile", "the Placement API does not exist yet"),
    ("openstack", "nothing of pallium calls OpenStack yet"),
    ("kubernetes", "the Kubernetes controllers do not exist yet"),
    (
        "pipelines",
        "pipelines are replicated and no part of a node's configuration: load them with pallium ctl pipelines apply FILE",
    ),
];

/// JSON Schema of the config file.
pub fn schema() -> Value {
    let mut schema = schemars::schema_for!(File).to_value();
    schema["title"] = "pallium server config".into();
    if let Some(map) = schema.as_object_mut() {
        map.remove("required");
    }
    schema
}

impl File {
    fn read(text: &str) -> Result<Self, Vec<String>> {
        let documents = Documents::parse(text).map_err(|error| vec![told(error.line, "", &error.message)])?;
        let empty = Value::Object(Map::new());
        let tree = documents.trees.first().unwrap_or(&empty);
        let mut reader = Reader::default();
        let mut file = Self::default();
        if documents.trees.len() > 1 {
            reader.tree = 1;
            reader.fault(&Place::Root, "one document expected, several given");
            reader.tree = 0;
        }
        let root = Place::Root;
        if let Some(fields) = reader.fields(tree, &root) {
            file = Self::of(&mut reader, fields);
        }
        if reader.faults.is_empty() {
            return Ok(file);
        }
        let place = |fault: &Fault| documents.line(fault.tree, &fault.path);
        let mut errors: Vec<(Option<usize>, &Fault)> =
            reader.faults.iter().map(|fault| (place(fault), fault)).collect();
        errors.sort_by_key(|&(line, _)| line);
        Err(errors.into_iter().map(|(line, fault)| told(line, &path_text(&fault.path), &fault.message)).collect())
    }

    fn of(reader: &mut Reader, fields: Fields<'_, '_>) -> Self {
        for (key, why) in LATER {
            if fields.map.contains_key(key) {
                reader.fault(&Place::Key(fields.at, key), format!("{why}; take this key out"));
            }
        }
        let known: Vec<&str> = KEYS.iter().copied().chain(LATER.iter().map(|(key, _)| *key)).collect();
        for key in fields.map.keys().filter(|key| !known.contains(&key.as_str())) {
            reader.fault(&Place::Key(fields.at, key), format!("unknown key, {}", operators::nearest::hint(key, &KEYS)));
        }
        let node_id = reader.whole(fields, "node_id");
        Self {
            node_id,
            data_dir: reader.text(fields, "data_dir").map(PathBuf::from),
            listen: reader.text(fields, "listen"),
            masakari_listen: reader.text(fields, "masakari_listen"),
            peer_listen: reader.text(fields, "peer_listen"),
            peers: peers::read(reader, fields, node_id.unwrap_or(1)),
            bootstrap: reader.flag(fields, "bootstrap"),
            raft: replication(reader, fields),
            insecure_plaintext: reader.flag(fields, "insecure_plaintext"),
            tls: certificates::Section::read(reader, fields),
            scheduling: section(reader, fields, "scheduling"),
            limits: limits(reader, fields),
            ha: failover::Section::read(reader, fields),
            log: section(reader, fields, "log"),
        }
    }
}

fn replication(reader: &mut Reader, fields: Fields<'_, '_>) -> Replication {
    let raft: Replication = section(reader, fields, "raft");
    let place = Place::Key(fields.at, "raft");
    if raft.heartbeat_ms == 0 || raft.election_min_ms <= 2 * raft.heartbeat_ms {
        let message = format!(
            "election_min_ms {} given, more than two heartbeats ({} ms each) expected",
            raft.election_min_ms, raft.heartbeat_ms
        );
        reader.fault(&place, message);
    }
    if raft.election_max_ms <= raft.election_min_ms {
        let message = format!(
            "election_max_ms {} given, more than election_min_ms ({}) expected: equal times split votes",
            raft.election_max_ms, raft.election_min_ms
        );
        reader.fault(&place, message);
    }
    raft
}

fn limits(reader: &mut Reader, fields: Fields<'_, '_>) -> Limits {
    let limits: Limits = section(reader, fields, "limits");
    let place = Place::Key(fields.at, "limits");
    if let Ok(Value::Object(map)) = serde_json::to_value(&limits) {
        for (key, _) in map.iter().filter(|(_, value)| value.as_u64() == Some(0)) {
            reader.fault(&Place::Key(&place, key), "0 given, at least 1 expected");
        }
    }
    limits
}

/// A section under a key: its defaults with what is given. Keys and types are checked one by one,
/// so that each error names its key.
fn section<T: Default + Serialize + DeserializeOwned>(reader: &mut Reader, fields: Fields<'_, '_>, key: &str) -> T {
    let Some(given) = reader.map(fields, key) else { return T::default() };
    let Ok(Value::Object(defaults)) = serde_json::to_value(T::default()) else { return T::default() };
    let known: Vec<&str> = defaults.keys().map(String::as_str).collect();
    let place = Place::Key(fields.at, key);
    reader.only(Fields { map: given, at: &place }, &known);
    let mut good = Map::new();
    for (key, value) in given.iter().filter(|(key, _)| defaults.contains_key(*key)) {
        let alone = Value::Object([(key.clone(), value.clone())].into_iter().collect());
        match serde_json::from_value::<T>(alone) {
            Ok(_) => {
                good.insert(key.clone(), value.clone());
            }
            Err(error) => reader.fault(&Place::Key(&place, key), error.to_string()),
        }
    }
    serde_json::from_value(Value::Object(good)).unwrap_or_default()
}

fn told(line: Option<usize>, path: &str, message: &str) -> String {
    let line = line.map(|line| format!("line {line}: ")).unwrap_or_default();
    let path = if path.is_empty() { String::new() } else { format!("{path}: ") };
    format!("{line}{path}{message}")
}

const LISTEN: &str = "127.0.0.1:8080";
const MASAKARI: &str = "127.0.0.1:15868";
const PEER_LISTEN: &str = "127.0.0.1:8081";

impl Config {
    /// The defaults, for a folder.
    pub fn new(data_dir: impl Into<PathBuf>, listen: SocketAddr) -> Self {
        Self {
            data_dir: data_dir.into(),
            node_id: 1,
            listen,
            masakari_listen: None,
            peer_listen: None,
            begin: raft::Begin::Alone,
            raft: Replication::default(),
            client_tls: None,
            peer_tls: None,
            scheduling: Settings::default(),
            limits: Limits::default(),
            failover: failover::Section::default(),
            accept_loss_from: None,
            log: Log::default(),
        }
    }

    /// The config of a command line: its file, if it names one, with its flags on top.
    pub fn load(args: &Args) -> Result<Self, Failure> {
        let file = match &args.config {
            None => File::default(),
            Some(path) => read(path)?,
        };
        Self::merge(args, file)
    }

    fn merge(args: &Args, file: File) -> Result<Self, Failure> {
        let data_dir = args.data_dir.clone().or(file.data_dir).ok_or_else(|| {
            Failure::Usage("no data folder: give --data-dir DIR, or data_dir in the config file".to_owned())
        })?;
        let listen = address("listen", args.listen, file.listen.as_deref(), LISTEN)?;
        let wanted = args.masakari_listen.is_some() || file.masakari_listen.is_some();
        let masakari = address("masakari_listen", args.masakari_listen, file.masakari_listen.as_deref(), MASAKARI)?;
        let masakari_listen = wanted.then_some(masakari);
        let node_id = args.node_id.or(file.node_id).unwrap_or(1);
        if node_id == 0 {
            return Err(Failure::new("node_id: 0 given, at least 1 expected"));
        }
        let peers = file.peers.filter(|peers| peers.len() > 1);
        let begin = match (peers, args.join, file.bootstrap) {
            (Some(peers), false, Some(true)) => raft::Begin::Bootstrap(peers),
            (Some(_), ..) | (None, true, _) | (None, _, Some(false)) => raft::Begin::Wait,
            (None, ..) => raft::Begin::Alone,
        };
        // Checked although a lone node does not open it, so that a slip does not wait for the second node.
        let peer_listen = address("peer_listen", args.peer_listen, file.peer_listen.as_deref(), PEER_LISTEN)?;
        let wanted = begin != raft::Begin::Alone || args.peer_listen.is_some() || file.peer_listen.is_some();
        let peer_listen = wanted.then_some(peer_listen);
        let insecure = args.insecure_plaintext || file.insecure_plaintext == Some(true);
        certificates::guard("listen", listen, file.tls.client.is_some(), insecure)?;
        if let Some(masakari_listen) = masakari_listen {
            certificates::guard("masakari_listen", masakari_listen, file.tls.client.is_some(), insecure)?;
        }
        if let Some(peer_listen) = peer_listen {
            certificates::guard("peer_listen", peer_listen, file.tls.peer.is_some(), insecure)?;
        }
        let known = file.tls.client.as_ref().is_some_and(|side| side.ca.is_some());
        if file.ha.identities == failover::Identities::Required && !known {
            return Err(Failure::new(
                "ha.identities: required given, but clients show no certificate: give tls.client.ca, the CA of theirs",
            ));
        }
        let mut log = file.log;
        log.format = args.log_format.unwrap_or(log.format);
        log.level = args.log_level.clone().unwrap_or(log.level);
        let accept_loss_from = args.accept_loss_from;
        let (client_tls, peer_tls) = (file.tls.client.map(Into::into), file.tls.peer.map(Into::into));
        Ok(Self {
            data_dir,
            node_id,
            listen,
            masakari_listen,
            peer_listen,
            begin,
            raft: file.raft,
            client_tls,
            peer_tls,
            scheduling: file.scheduling,
            limits: file.limits,
            failover: file.ha,
            accept_loss_from,
            log,
        })
    }
}

fn read(path: &Path) -> Result<File, Failure> {
    let name = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| Failure::new(format!("{name}: {error}")))?;
    File::read(&text).map_err(|errors| {
        let told: Vec<String> = errors.iter().map(|error| format!("{name}: {error}")).collect();
        Failure::new(told.join("\n       "))
    })
}

fn address(key: &str, flag: Option<SocketAddr>, file: Option<&str>, default: &str) -> Result<SocketAddr, Failure> {
    if let Some(flag) = flag {
        return Ok(flag);
    }
    let text = file.unwrap_or(default);
    text.parse().map_err(|_| {
        Failure::new(format!("{key}: '{text}' given, an address and a port expected, as in {default} or [::1]:8080"))
    })
}

#[cfg(test)]
mod tests;
