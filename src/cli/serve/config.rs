//! The config file of a server: read, merged with the flags, checked. Every error names line and
//! key; a key of a capability that does not exist yet is refused, not ignored.

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
    /// Logging.
    #[schemars(with = "Option<Log>")]
    log: Log,
}

const KEYS: [&str; 12] = [
    "node_id",
    "data_dir",
    "listen",
    "peer_listen",
    "peers",
    "bootstrap",
    "raft",
    "insecure_plaintext",
    "tls",
    "scheduling",
    "limits",
    "log",
];

/// Keys of capabilities that do not exist yet.
const LATER: [(&str, &str); 12] = [
    ("host_id", "failover does not exist yet"),
    ("chassis", "failover does not exist yet"),
    ("power_domain", "failover does not exist yet"),
    ("ha", "failover does not exist yet"),
    ("auth", "authentication does not exist yet: serve on loopback behind a proxy that authenticates"),
    ("placement", "the Placement API does not exist yet"),
    ("placement_listen", "the Placement API does not exist yet"),
    ("placement_profile", "the Placement API does not exist yet"),
    ("masakari_listen", "the Masakari API does not exist yet"),
    ("openstack", "nothing of pallium calls OpenStack yet"),
    ("kubernetes", "the Kubernetes controllers do not exist yet"),
    (
        "pipelines",
        "pipelines are replicated and no part of a node's configuration: load them with pallium ctl pipelines apply FILE",
    ),
];

mod scheduling {
    //! Mirrors `scheduler::Settings` for the schema.

    use std::collections::BTreeMap;

    use schemars::JsonSchema;

    /// How decisions are made.
    #[derive(JsonSchema)]
    #[schemars(deny_unknown_fields)]
    #[expect(dead_code, reason = "a schema, never a value")]
    pub struct Scheduling {
        /// Domain to the pipeline for requests that name none and from which none can be inferred.
        pub default_pipeline: Option<BTreeMap<String, String>>,
        /// Refuse a request whose flavor names no known hypervisor type.
        pub strict_inference: Option<bool>,
        /// Hosts that were sent but are not known: leave them out, or append them unclaimed.
        pub unknown_hosts: Option<UnknownHosts>,
        /// Life of an unconfirmed claim, seconds.
        pub claim_expiry: Option<ClaimExpiry>,
        /// Age up to which a repeat without a request id counts as the same request, milliseconds.
        pub same_request_ms: Option<u64>,
        /// Hosts of an answer that are remembered with their score.
        pub record_top: Option<u64>,
        /// Candidates up to which a reason is kept for each dropped host.
        pub detail_hosts: Option<u64>,
        /// Decisions whose detail is kept.
        pub detail_decisions: Option<u64>,
    }

    /// What to do with hosts that are not known.
    #[derive(JsonSchema)]
    #[schemars(rename_all = "lowercase")]
    #[expect(dead_code, reason = "a schema, never a value")]
    pub enum UnknownHosts {
        /// Leave them out.
        Drop,
        /// Put them last.
        Append,
    }

    /// Life of a claim by intent, seconds.
    #[derive(JsonSchema)]
    #[schemars(deny_unknown_fields)]
    #[expect(dead_code, reason = "a schema, never a value")]
    pub struct ClaimExpiry {
        /// Create and evacuate.
        pub create: Option<u64>,
        /// Resize, cold migration and unlabelled moves.
        pub resize: Option<u64>,
        /// Live migration.
        pub live_migration: Option<u64>,
    }
}

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
            peer_listen: reader.text(fields, "peer_listen"),
            peers: peers(reader, fields, node_id.unwrap_or(1)),
            bootstrap: reader.flag(fields, "bootstrap"),
            raft: replication(reader, fields),
            insecure_plaintext: reader.flag(fields, "insecure_plaintext"),
            tls: certificates::Section::read(reader, fields),
            scheduling: section(reader, fields, "scheduling"),
            limits: limits(reader, fields),
            log: section(reader, fields, "log"),
        }
    }
}

/// The initial voters; this node must be one of them.
fn peers(reader: &mut Reader, fields: Fields<'_, '_>, node_id: u64) -> Option<BTreeMap<u64, String>> {
    let map = reader.map(fields, "peers")?;
    let place = Place::Key(fields.at, "peers");
    let mut peers = BTreeMap::new();
    for (key, value) in map {
        let at = Place::Key(&place, key);
        match (key.parse::<u64>(), value.as_str()) {
            (Ok(node), Some(addr)) if node > 0 && is_host_and_port(addr) => {
                if let Some(other) = peers.iter().find(|(_, known)| *known == addr).map(|(other, _)| *other) {
                    reader.fault(&at, format!("{addr} is the address of node {other} already"));
                }
                peers.insert(node, addr.to_owned());
            }
            (Ok(node), Some(addr)) if node > 0 => {
                reader.fault(&at, format!("'{addr}' given, a host and a port expected, as in 10.0.0.1:8081"));
            }
            (Ok(node), None) if node > 0 => reader.fault(&at, "a host and a port expected, as in \"10.0.0.1:8081\""),
            _ => reader.fault(&at, "the number of a node expected, at least 1"),
        }
    }
    if !peers.contains_key(&node_id) {
        reader.fault(
            &place,
            format!("node {node_id}, this one, is not among them; add it with the address of its peer port"),
        );
    }
    if !peers.is_empty() && peers.len() % 2 == 0 {
        reader.fault(
            &place,
            format!("{} voters given, 1, 3 or 5 expected: an even number survives no more failures", peers.len()),
        );
    }
    Some(peers)
}

fn is_host_and_port(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0))
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
const PEER_LISTEN: &str = "127.0.0.1:8081";

impl Config {
    /// The defaults, for a folder.
    pub fn new(data_dir: impl Into<PathBuf>, listen: SocketAddr) -> Self {
        Self {
            data_dir: data_dir.into(),
            node_id: 1,
            listen,
            peer_listen: None,
            begin: raft::Begin::Alone,
            raft: Replication::default(),
            client_tls: None,
            peer_tls: None,
            scheduling: Settings::default(),
            limits: Limits::default(),
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
        if let Some(peer_listen) = peer_listen {
            certificates::guard("peer_listen", peer_listen, file.tls.peer.is_some(), insecure)?;
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
            peer_listen,
            begin,
            raft: file.raft,
            client_tls,
            peer_tls,
            scheduling: file.scheduling,
            limits: file.limits,
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
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use std::collections::BTreeSet;

    const FULL: &str = "\
node_id: 3
data_dir: data/3
listen: 127.0.0.1:9090
peer_listen: 127.0.0.1:9091
bootstrap: true
peers: {3: \"127.0.0.1:9091\", 4: \"127.0.0.1:9092\", 5: \"node-5:9093\"}
raft: {election_min_ms: 400}
scheduling:
  default_pipeline: {nova: nova-general}
  claim_expiry: {create: 60}
  unknown_hosts: append
limits:
  queue: 16
  deadline_ms: 1000
log: {format: json, level: debug}
";

    fn load(text: &str) -> Result<Config, String> {
        let file = File::read(text).map_err(|errors| errors.join("\n"))?;
        Config::merge(&Args::default(), file).map_err(|failure| failure.to_string())
    }

    #[test]
    fn reads_every_key() {
        let config = load(FULL).unwrap();
        assert_eq!((config.node_id, config.listen.port()), (3, 9090));
        assert_eq!(config.peer_listen, Some("127.0.0.1:9091".parse().unwrap()));
        let raft::Begin::Bootstrap(peers) = &config.begin else { panic!("{:?}", config.begin) };
        assert_eq!(peers.keys().collect::<Vec<_>>(), [&3, &4, &5]);
        assert_eq!((config.raft.election_min_ms, config.raft.election_max_ms), (400, 500));
        assert_eq!((config.scheduling.claim_expiry.create, config.scheduling.claim_expiry.resize), (60, 1800));
        assert_eq!((config.limits.queue, config.limits.deadline_ms, config.limits.concurrency), (16, 1000, 1024));
        assert_eq!(config.limits.api().deadline, Duration::from_secs(1));
        assert_eq!(config.log, Log { format: LogFormat::Json, level: "debug".into() });
    }

    #[test]
    fn flags_win() {
        let args = Args {
            data_dir: Some("elsewhere".into()),
            listen: Some("127.0.0.1:1".parse().unwrap()),
            node_id: Some(9),
            log_level: Some("warn".into()),
            ..Args::default()
        };
        let config = Config::merge(&args, File::read(FULL).unwrap()).unwrap();
        assert_eq!((config.data_dir, config.listen.port(), config.node_id), ("elsewhere".into(), 1, 9));
        assert_eq!((config.log.format, config.log.level.as_str()), (LogFormat::Json, "warn"));
    }

    #[test]
    fn errors_name_line_and_key() {
        for (from, to, want) in [
            ("listen: ", "lisen: ", "line 3: lisen: unknown key, did you mean 'listen'?"),
            ("queue", "queu", "line 13: limits.queu: unknown key, did you mean 'queue'?"),
            ("queue: 16", "queue: 0", "line 13: limits.queue: 0 given, at least 1 expected"),
            ("queue: 16", "queue: many", "line 13: limits.queue: invalid type: string \"many\", expected usize"),
            (
                "append",
                "keep",
                "line 11: scheduling.unknown_hosts: unknown variant `keep`, expected `drop` or `append`",
            ),
            ("create:", "creat:", "line 10: scheduling.claim_expiry: unknown field `creat`"),
            ("peers: {3:", "peers: {6:", "line 6: peers: node 3, this one, is not among them"),
            (", 5: \"node-5:9093\"", "", "line 6: peers: 2 voters given, 1, 3 or 5 expected"),
            ("node-5:9093", "node-5", "line 6: peers.5: 'node-5' given, a host and a port expected"),
            ("127.0.0.1:9092", "127.0.0.1:9091", "line 6: peers.4: 127.0.0.1:9091 is the address of node 3 already"),
            ("400}", "200}", "line 7: raft: election_min_ms 200 given, more than two heartbeats"),
            ("400}", "500}", "line 7: raft: election_max_ms 500 given, more than election_min_ms (500) expected"),
            ("peer_listen: 127.0.0.1", "peer_listen: 0.0.0.0", "peer_listen: 0.0.0.0:9091 is not a loopback address"),
            ("bootstrap: true", "tls: {cert: x}", "line 5: tls.cert: unknown key, known are client, peer"),
            ("bootstrap: true", "tls: {}", "line 5: tls: nothing in it: client, peer or both expected"),
            ("bootstrap: true", "tls: {client: {cert: x, key: 1}}", "line 5: tls.client.key: text expected, 1 given"),
            ("bootstrap: true", "tls:\n  client:\n    cert: x", "line 7: tls.client.key: missing"),
            ("bootstrap: true", "tls: {peer: {cert: x, key: y}}", "line 5: tls.peer.ca: missing"),
            (
                "bootstrap: true",
                "tls: {peer: {crt: x, key: y, ca: z}}",
                "tls.peer.crt: unknown key, did you mean 'cert'?",
            ),
            ("bootstrap: true", "ha: {}", "line 5: ha: failover does not exist yet"),
            ("127.0.0.1:9090", "localhost", "listen: 'localhost' given, an address and a port expected"),
            ("127.0.0.1:9090", "0.0.0.0:9090", "listen: 0.0.0.0:9090 is not a loopback address"),
            ("node_id: 3", "node_id: three", "line 1: node_id: a whole number of at least 0 expected, 'three' given"),
            ("node_id: 3", "node_id: 3\nnode_id: 4", "key 'node_id' is given twice"),
            ("data_dir: data/3\n", "", "no data folder: give --data-dir DIR"),
        ] {
            let text = FULL.replacen(from, to, 1);
            assert_ne!(text, FULL, "{from}");
            let error = load(&text).unwrap_err();
            assert!(error.contains(want), "wanted {want}\ngot {error}");
        }
    }

    #[test]
    fn others_can_reach_what_has_tls_or_is_told_to_be_plain() {
        let open = FULL.replace("127.0.0.1:909", "0.0.0.0:909");
        let (client, peer) = ("client: {cert: c, key: k}", "peer: {cert: pc, key: pk, ca: pca}");
        assert!(load(&format!("{open}tls: {{{client}}}")).unwrap_err().contains("peer_listen: 0.0.0.0:9091 is not"));
        assert!(load(&format!("{open}tls: {{{peer}}}")).unwrap_err().contains("listen: 0.0.0.0:9090 is not"));
        let config = load(&format!("{open}tls: {{{client}, {peer}}}")).unwrap();
        let files = |cert: &str, key: &str, ca: Option<&str>| {
            Some(tls::Files { cert: cert.into(), key: key.into(), ca: ca.map(Into::into) })
        };
        assert_eq!(config.client_tls, files("c", "k", None));
        assert_eq!(config.peer_tls, files("pc", "pk", Some("pca")));
        assert_eq!(load(&format!("{open}insecure_plaintext: true")).unwrap().client_tls, None);
    }

    #[test]
    fn an_empty_file_is_the_defaults() {
        let file = File::read("# nothing\n").unwrap();
        let args = Args { data_dir: Some("d".into()), ..Args::default() };
        let config = Config::merge(&args, file).unwrap();
        assert_eq!((config.listen.to_string().as_str(), config.peer_listen), (LISTEN, None));
        assert_eq!(config.begin, raft::Begin::Alone);
    }

    #[test]
    fn a_node_begins_a_cluster_or_waits_for_one() {
        let three = "peers: {1: \"a:1\", 2: \"b:1\", 3: \"c:1\"}\n";
        for (text, join, begins, listens) in [
            ("", false, "Alone", false),
            ("peer_listen: 127.0.0.1:5\n", false, "Alone", true),
            ("bootstrap: false\n", false, "Wait", true),
            ("", true, "Wait", true),
            (three, false, "Wait", true),
            (&format!("{three}bootstrap: true\n"), false, "Bootstrap", true),
            (&format!("{three}bootstrap: true\n"), true, "Wait", true),
        ] {
            let args = Args { data_dir: Some("d".into()), join, ..Args::default() };
            let config = Config::merge(&args, File::read(text).unwrap()).unwrap();
            let begin = format!("{:?}", config.begin);
            assert!(begin.starts_with(begins), "{text}: {begin}");
            assert_eq!(config.peer_listen.is_some(), listens, "{text}");
        }
    }

    #[test]
    fn the_schema_names_what_is_read() {
        let schema = schema();
        let keys = |pointer: &str| -> BTreeSet<String> {
            let map = schema.pointer(pointer).and_then(Value::as_object);
            map.unwrap_or_else(|| panic!("{pointer}: {schema:#}")).keys().cloned().collect()
        };
        assert_eq!(keys("/properties"), KEYS.iter().map(|key| (*key).to_owned()).collect());
        let settings = serde_json::to_value(Settings::default()).unwrap();
        assert_eq!(keys("/$defs/Scheduling/properties"), settings.as_object().unwrap().keys().cloned().collect());
        let expiry = settings["claim_expiry"].as_object().unwrap().keys().cloned().collect();
        assert_eq!(keys("/$defs/ClaimExpiry/properties"), expiry);
    }
}
