//! What a config file says is what the server is started with, and every slip is told with its place.

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
        ("append", "keep", "line 11: scheduling.unknown_hosts: unknown variant `keep`, expected `drop` or `append`"),
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
        ("bootstrap: true", "tls: {peer: {crt: x, key: y, ca: z}}", "tls.peer.crt: unknown key, did you mean 'cert'?"),
        ("bootstrap: true", "ha: {breaker: {}}", "line 5: ha.breaker: planned, and does nothing yet"),
        (
            "bootstrap: true",
            "ha: {identities: required}",
            "ha.identities: required given, but clients show no certificate",
        ),
        ("bootstrap: true", "ha: {identities: strict}", "line 5: ha.identities: unknown variant `strict`"),
        ("bootstrap: true", "ha: {rates: {}}", "line 5: ha.rates: a FailoverPolicy says it"),
        ("bootstrap: true", "ha: {events: [{name: a}]}", "line 5: ha.events: missing field `url`"),
        (
            "bootstrap: true",
            "masakari_listen: 0.0.0.0:15868",
            "masakari_listen: 0.0.0.0:15868 is not a loopback address",
        ),
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
