//! `serve`: one server process.

pub mod certificates;
pub mod config;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use api::Doors;
use operators::events::Webhooks;
use raft::Node;
use scheduler::Settings;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use super::{Failure, output};
use certificates::Certificates;
use config::Config;

const EXAMPLES: &str = "\
Examples:
  pallium serve --data-dir data
  pallium serve --config pallium.yaml
  pallium serve --data-dir data --listen 127.0.0.1:0 --log-format json
  pallium serve --config pallium.yaml --masakari-listen 10.0.0.1:15868
  pallium serve --data-dir data-4 --node-id 4 --join --peer-listen 10.0.0.4:8081

When it is ready it prints its addresses as one line of JSON on stdout; the log
goes to stderr. SIGTERM and SIGINT stop it gracefully, SIGHUP makes it read its
certificates again (it also sees by itself when they change).
`pallium schema config` prints the JSON Schema of the config file.";

/// Run a server
#[derive(Debug, Default, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Config file (YAML); flags win over its keys
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder of the log and the snapshots; created when absent
    #[arg(long, value_name = "DIR", required_unless_present = "config")]
    data_dir: Option<PathBuf>,
    /// Address for clients: HTTP and gRPC; port 0 takes a free one [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// Address for the other nodes of a cluster; a lone node opens it only when it is given
    /// [default: 127.0.0.1:8081]
    #[arg(long, value_name = "ADDR")]
    peer_listen: Option<SocketAddr>,
    /// Address for Masakari's monitors and clients; without it they are served at /ha/v1 of --listen
    #[arg(long, value_name = "ADDR")]
    masakari_listen: Option<SocketAddr>,
    /// Number of this node in its cluster [default: 1]
    #[arg(long, value_name = "N")]
    node_id: Option<u64>,
    /// With an empty data folder: wait to be added to a cluster (pallium ctl cluster add) instead of
    /// beginning one
    #[arg(long)]
    join: bool,
    /// Serve on other addresses than loopback although there is no TLS
    #[arg(long)]
    insecure_plaintext: bool,
    /// Start although the log is damaged, and forget entry N and all after it; N is in the message
    /// of the refused start. For this one start: it is no key of the config file
    #[arg(long, value_name = "N")]
    accept_loss_from: Option<u64>,
    /// Form of the log lines [default: text]
    #[arg(long, value_enum)]
    log_format: Option<config::LogFormat>,
    /// Least level that is logged: error, warn, info, debug, trace, or a filter as in
    /// info,raft=debug [default: info]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
}

/// Runs until it is told to stop.
pub fn run(args: &Args) -> Result<(), Failure> {
    let config = Config::load(args)?;
    log_to_stderr(&config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("no threads: {error}")))?;
    runtime.block_on(serve(&config))
}

fn log_to_stderr(config: &Config) -> Result<(), Failure> {
    use std::io::IsTerminal;

    let filter = log_filter(&config.log.level).map_err(|error| Failure::new(format!("log.level: {error}")))?;
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours);
    match config.log.format {
        config::LogFormat::Text => log.init(),
        config::LogFormat::Json => log.json().init(),
    }
    Ok(())
}

/// The filter of a level, or of a list as in `info,raft=debug`.
pub fn log_filter(level: &str) -> Result<EnvFilter, String> {
    let expected = "error, warn, info, debug, trace or off expected, or a filter as in info,raft=debug";
    // A word alone would be taken for the name of a target, and everything else switched off.
    let word =
        level.split(',').find(|one| one.is_empty() || !one.contains(['=', '[']) && one.parse::<LevelFilter>().is_err());
    if let Some(word) = word {
        return Err(format!("'{word}' given, {expected}"));
    }
    // openraft tells every step of its own at info; a filter that says more than a level is taken as it is.
    let directives = if level.contains([',', '=']) { level.to_owned() } else { format!("{level},openraft=error") };
    EnvFilter::try_new(directives).map_err(|error| format!("'{level}' given, {expected}: {error}"))
}

async fn serve(config: &Config) -> Result<(), Failure> {
    let (stop, stopped) = watch::channel(false);
    let mut terminate = listen_for(SignalKind::terminate())?;
    let mut interrupt = listen_for(SignalKind::interrupt())?;
    let certificates = Certificates::open(config)?;
    certificates.follow(listen_for(SignalKind::hangup())?);
    let listener = bind(config.listen, "--listen").await?;
    let address = listener.local_addr().map_err(|error| Failure::new(error.to_string()))?;
    let masakari = match config.masakari_listen {
        Some(address) => Some(bind(address, "--masakari-listen").await?),
        None => None,
    };
    let masakari_listen = masakari.as_ref().and_then(|listener| listener.local_addr().ok());
    let doors = Doors { main: listener, masakari };
    let opening = open(config, certificates.peer.clone());
    let node = tokio::select! {
        node = opening => node?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping: running requests may end; a second signal stops at once");
        let _ = stop.send(true);
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        std::process::exit(1);
    });
    let identity = node.identity();
    tracing::info!(%address, node = identity.node, cluster = %identity.cluster, data_dir = %config.data_dir.display(), "ready");
    output::print(
        &json!({
            "listen": address.to_string(),
            "url": format!("{}://{address}", if certificates.client.is_some() { "https" } else { "http" }),
            "masakari_listen": masakari_listen.map(|address| address.to_string()),
            "peer_listen": node.peer_addr().map(|address| address.to_string()),
            "node_id": identity.node,
            "cluster": identity.cluster,
            "data_dir": config.data_dir,
        })
        .to_string(),
    );
    serve_until(doors, certificates.client, node, config, stopped).await
}

/// Opens the node of a config.
pub async fn open(config: &Config, peer_tls: Option<(tls::Server, tls::Client)>) -> Result<Node, Failure> {
    let cordon = config.failover.mode == config::failover::Mode::Enforce;
    let mut engine = plugins::engine(Settings { cordon, ..config.scheduling.clone() });
    engine.timer = nanos;
    let mut options = raft::Options::new(&config.data_dir, config.node_id);
    options.limits.queue = config.limits.queue;
    options.wal.accept_loss_from = config.accept_loss_from;
    options.begin = config.begin.clone();
    options.peer_listen = config.peer_listen;
    options.peer_tls = peer_tls;
    options.heartbeat = config.raft.heartbeat_ms;
    options.election = (config.raft.election_min_ms, config.raft.election_max_ms);
    options.snapshot_rate = config.raft.snapshot_bytes_per_s;
    Node::open(options, engine).await.map_err(|error| Failure::new(format!("{}: {error}", config.data_dir.display())))
}

/// Binds a client address.
pub async fn bind(address: SocketAddr, flag: &str) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| {
        Failure::new(format!("cannot listen on {address}: {error}; choose another address with {flag} (port 0: any)"))
    })
}

/// Serves until told to stop, or until the node fails.
pub async fn serve_until(
    doors: impl Into<Doors>,
    tls: Option<tls::Server>,
    node: Node,
    config: &Config,
    mut stopped: watch::Receiver<bool>,
) -> Result<(), Failure> {
    let told = {
        let node = node.clone();
        async move {
            tokio::select! {
                _ = stopped.wait_for(|stop| *stop) => {}
                () = failed(&node) => {}
            }
        }
    };
    let (mode, identities) = (config.failover.mode(), config.failover.identities());
    let mutual = config.client_tls.as_ref().is_some_and(|files| files.ca.is_some());
    if mutual && mode != api::Mode::Off && identities == api::Identities::Optional {
        tracing::warn!(
            "whoever has a certificate of tls.client.ca that does not say whose it is can speak for any host and give \
             failover any order: ha.identities: required ends that"
        );
    }
    let limits = api::ApiConfig { failover: mode, identities, ..config.limits.api() };
    let coordinator = failover(&node, config)?;
    let served = api::serve(doors, tls, node.clone(), limits, told).await;
    coordinator.abort();
    let fatal = node.status().fatal;
    node.shutdown().await;
    tracing::info!("stopped");
    if let Some(reason) = fatal {
        return Err(Failure::new(format!("the node stopped: {reason}")));
    }
    served.map_err(|error| Failure::new(format!("the server stopped: {error}")))
}

/// Starts what watches hosts, and acts when this node leads.
fn failover(node: &Node, config: &Config) -> Result<AbortHandle, Failure> {
    // Off, it has no hands and tells nobody; hosts that live on leases would reset themselves without it.
    let off = config::failover::Section::default();
    let failover = if config.failover.mode == config::failover::Mode::Off { &off } else { &config.failover };
    let hands = operators::hands::Hands::open(&failover.hands(), node.clone());
    let hands = Arc::new(hands.map_err(|error| Failure::new(format!("ha.{error}")))?);
    let webhooks = Webhooks::open(&failover.events).map_err(|error| Failure::new(format!("ha.{error}")))?;
    let telling = webhooks.run(node.clone(), operators::events::Pace::default());
    let run = operators::failover::run(node.clone(), failover.settings(), Arc::clone(&hands) as _);
    let work = async move {
        tokio::join!(run, hands.watch(), telling);
    };
    Ok(tokio::spawn(work).abort_handle())
}

/// Returns when the node has stopped by itself.
async fn failed(node: &Node) {
    while node.status().fatal.is_none() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn listen_for(kind: SignalKind) -> Result<tokio::signal::unix::Signal, Failure> {
    signal(kind).map_err(|error| Failure::new(format!("signals cannot be watched: {error}")))
}

/// Nanoseconds of a steady clock, for the timings of steps.
fn nanos() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

#[cfg(test)]
mod tests {
    use super::log_filter;

    #[test]
    fn a_slip_in_the_log_level_is_told() {
        for good in ["error", "warn", "INFO", "off", "info,raft=debug", "raft=debug"] {
            assert!(log_filter(good).is_ok(), "{good}");
        }
        for (bad, word) in [
            ("warning", "'warning' given, error, warn"),
            ("info,verbose", "'verbose' given"),
            ("", "'' given"),
            ("raft=verbose", "'raft=verbose' given"),
        ] {
            let error = log_filter(bad).map(|_| ()).expect_err(bad);
            assert!(error.contains(word), "{bad}: {error}");
        }
    }
}
