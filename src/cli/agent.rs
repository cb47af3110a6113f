//! `agent`: the agent of a compute host, and its gRPC session with pallium's nodes.

mod probes;
mod storage;
mod wire;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use agent::hook::{self, OnSilence};
use agent::report::Goodbye;
use agent::{Agent, Settings, Teller};
use api::proto::ha;
use clap::Subcommand;
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use uuid::Uuid;

use super::Failure;
use super::ctl::{Client, Target};

const EXAMPLES: &str = "\
Examples:
  pallium agent --config /etc/pallium/agent.yaml
  pallium agent hook instance-00000007 prepare begin - < domain.xml

FILE is YAML:
  host: 0a3c7d1e-…                  # its id in `pallium ctl ha hosts`
  nova_host: compute-17             # [DEFAULT] host of nova.conf
  servers: [https://10.0.0.1:8080, https://10.0.0.2:8080]
  tls: {ca: ca.pem, cert: host.pem, key: host-key.pem}
  neighbours: {5b1f…: 10.0.0.18:22} # hosts that it probes, by id
  storage_heartbeat: /var/lib/nova/instances/pallium   # on shared storage
docs/agent.md has the other keys, libvirt's hook and the units.";

const HOOK: &str = "\
Example: libvirt's /etc/libvirt/hooks/qemu is two lines:
  #!/bin/sh
  exec pallium agent hook \"$@\"

It asks the agent of this host whether the guest on stdin may start here, and
denies when the agent does not answer.";

/// Run the agent of a compute host
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct Args {
    /// Config file (YAML)
    #[arg(long, value_name = "FILE", default_value = "/etc/pallium/agent.yaml")]
    config: PathBuf,
    /// Least level that is logged: error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log_level: String,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// libvirt's qemu hook: may this guest start here?
    #[command(after_help = HOOK)]
    Hook {
        /// Socket of the agent
        #[arg(long, value_name = "PATH", default_value = hook::SOCKET)]
        socket: PathBuf,
        /// Let guests start when the agent does not answer
        #[arg(long)]
        allow_on_silence: bool,
        /// What libvirt gives: NAME OPERATION SUB-OPERATION EXTRA
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

/// What this program adds to the agent's own settings.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Outer {
    /// Addresses of nodes; the first that answers is spoken to.
    servers: Vec<String>,
    /// What makes them trust each other.
    tls: Option<Tls>,
    /// Hosts that are probed: id to address and port.
    neighbours: BTreeMap<Uuid, String>,
    /// A folder on storage that neighbours share: the storage heartbeat.
    storage_heartbeat: Option<PathBuf>,
    /// When the host shuts down or boots anew on purpose it is not missed for so many seconds.
    expected_down_s: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tls {
    ca: PathBuf,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
}

const OUTER: [&str; 5] = ["servers", "tls", "neighbours", "storage_heartbeat", "expected_down_s"];
/// Seconds in which a host usually boots, and the most that a server takes.
const DOWN: (u32, u32) = (300, 900);

/// Between two tries to reach a node.
const AGAIN: (u64, u64) = (500, 5_000);
/// A node that does not answer a Hello for so long is left for another.
const WELCOME: Duration = Duration::from_secs(20);

/// Runs until it is told to stop.
pub fn run(args: Args) -> Result<(), Failure> {
    if let Some(Command::Hook { socket, allow_on_silence, arguments }) = args.command {
        let on_silence = if allow_on_silence { OnSilence::Allow } else { OnSilence::Deny };
        return hook::ask(&socket, on_silence, &arguments, std::io::stdin().lock()).map_err(Failure::new);
    }
    let (settings, outer) = read(&args.config)?;
    let filter =
        super::serve::log_filter(&args.log_level).map_err(|error| Failure::Usage(format!("--log-level: {error}")))?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("no threads: {error}")))?;
    runtime.block_on(work(settings, &outer))
}

fn read(path: &Path) -> Result<(Settings, Outer), Failure> {
    let name = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::new(format!("{name}: {error}; name the config file with --config")))?;
    let told = |error: String| Failure::new(format!("{name}: {error}"));
    let whole: Map<String, Value> = serde_norway::from_str(&text).map_err(|error| told(error.to_string()))?;
    let (outer, inner): (Map<_, _>, Map<_, _>) = whole.into_iter().partition(|(key, _)| OUTER.contains(&key.as_str()));
    let outer: Outer = serde_json::from_value(Value::Object(outer)).map_err(|error| told(error.to_string()))?;
    let inner: Settings = serde_json::from_value(Value::Object(inner)).map_err(|error| told(error.to_string()))?;
    if outer.servers.is_empty() {
        return Err(told("servers: none given, at least one address expected, as in https://10.0.0.1:8080".to_owned()));
    }
    if let Some(given) = outer.expected_down_s.filter(|given| *given > DOWN.1) {
        return Err(told(format!("expected_down_s: {given} given, 0 to {} expected", DOWN.1)));
    }
    Ok((inner, outer))
}

async fn work(settings: Settings, outer: &Outer) -> Result<(), Failure> {
    let watch = |kind| signal(kind).map_err(|error| Failure::new(format!("signals cannot be watched: {error}")));
    let (mut terminate, mut interrupt) = (watch(SignalKind::terminate())?, watch(SignalKind::interrupt())?);
    let own = settings.host;
    let agent = Agent::start(settings).map_err(|error| Failure::new(error.to_string()))?;
    let (ca, cert, key) = match &outer.tls {
        Some(tls) => (Some(tls.ca.clone()), tls.cert.clone(), tls.key.clone()),
        None => (None, None, None),
    };
    let target = Target::new(outer.servers.join(","), ca, cert, key);
    let heartbeat = outer.storage_heartbeat.as_deref().map(|folder| {
        let neighbours = outer.neighbours.keys().copied().take(probes::MOST).collect();
        storage::start(folder, own, neighbours)
    });
    let mut sights = Sights::default();
    sights.0.push(probes::start(outer.neighbours.clone()));
    sights.0.extend(heartbeat.as_ref().map(storage::Heartbeat::seen));
    tokio::select! {
        () = sessions(&agent, &target, sights) => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    let why = leaving().await;
    // An agent that alone goes leaves its host at work, which others see.
    let down = if why == Goodbye::AgentRestart { 0 } else { outer.expected_down_s.unwrap_or(DOWN.0) };
    agent.leave(why, down).await;
    if let Some(heartbeat) = heartbeat {
        heartbeat.end();
    }
    Ok(())
}

/// What the last rounds of looking at other hosts have seen.
#[derive(Default)]
struct Sights(Vec<watch::Receiver<Vec<Sight>>>);

impl Sights {
    /// As it is now; each round is told once.
    fn now(&mut self) -> Vec<Sight> {
        let new = self.0.iter_mut().filter(|seen| seen.has_changed().unwrap_or(false));
        new.flat_map(|seen| seen.borrow_and_update().clone()).collect()
    }
}

/// systemd is asked for so long why this program was told to stop.
const WHY: Duration = Duration::from_secs(1);

/// Why the agent leaves: the host goes down when systemd has a job for that.
async fn leaving() -> Goodbye {
    let asked = tokio::process::Command::new("systemctl").args(["list-jobs", "--no-legend", "--plain"]).output();
    match tokio::time::timeout(WHY, asked).await {
        Ok(Ok(output)) => reason(&String::from_utf8_lossy(&output.stdout)),
        _ => Goodbye::AgentRestart,
    }
}

/// By the jobs of systemd: number, unit, kind, state.
fn reason(jobs: &str) -> Goodbye {
    let starts = |targets: &[&str]| {
        jobs.lines().any(|job| {
            let words: Vec<&str> = job.split_whitespace().collect();
            matches!(words[..], [_, unit, "start", ..] if targets.contains(&unit))
        })
    };
    if starts(&["reboot.target", "kexec.target", "soft-reboot.target"]) {
        Goodbye::Reboot
    } else if starts(&["poweroff.target", "halt.target"]) {
        Goodbye::Shutdown
    } else {
        Goodbye::AgentRestart
    }
}

/// One session after the other. Ends never.
async fn sessions(agent: &Agent, target: &Target, mut sights: Sights) {
    let (least, most) = AGAIN;
    let mut pause = least;
    // Each from another node on, so that they spread, and the next time from the next: one that takes
    // connections may be deaf all the same.
    for turn in std::process::id() as usize.. {
        let began = std::time::Instant::now();
        match session(agent, &target.from(turn), &mut sights).await {
            Ok(why) => tracing::warn!(why, "the session with pallium has ended"),
            Err(failure) => tracing::warn!(%failure, "no session with pallium"),
        }
        pause = if began.elapsed() > WELCOME { least } else { (pause * 2).min(most) };
        // Apart from the others that lost the same node.
        let jitter = u64::from(std::process::id() % 100) * pause / 100;
        tokio::time::sleep(Duration::from_millis(pause + jitter)).await;
    }
}

async fn session(agent: &Agent, target: &Target, sights: &mut Sights) -> Result<String, Failure> {
    let client = Client::connect(target).await?;
    let mut session = agent.session().await;
    let (reports, receiver) = mpsc::channel(1);
    let Some(first) = session.next().await else { return Ok("the agent has ended".to_owned()) };
    let _ = reports.try_send(wire::report(first));
    let mut host_agent = client.host_agent();
    let begun = tokio::time::timeout(WELCOME, host_agent.session(ReceiverStream::new(receiver)));
    let mut directives = match begun.await {
        Err(_) => return Ok(format!("no answer to the Hello within {WELCOME:?}")),
        Ok(Err(status)) => return Err(client.refusal(&status)),
        Ok(Ok(answer)) => answer.into_inner(),
    };
    let teller: Teller = session.teller();
    tracing::info!("a session with pallium begins");
    loop {
        tokio::select! {
            envelope = session.next() => match envelope {
                None => return Ok("the agent has ended, or begun another one".to_owned()),
                Some(envelope) => {
                    let mut report = wire::report(envelope);
                    if report.heartbeat.is_some() {
                        report.sights = sights.now();
                    }
                    if reports.send(report).await.is_err() {
                        return Ok("the node takes no reports any more".to_owned());
                    }
                }
            },
            directive = directives.message() => match directive {
                Err(status) => return Err(client.refusal(&status)),
                Ok(None) => return Ok("the node has ended it".to_owned()),
                Ok(Some(directive)) => match wire::directive(directive) {
                    Ok(Some(directive)) => teller.told(directive).await,
                    Ok(None) => tracing::debug!("a directive of a newer version is left aside"),
                    Err(why) => return Ok(format!("a directive that cannot be read: {why}")),
                },
            },
        }
    }
}

/// What was seen of a neighbour.
pub(super) type Sight = ha::AgentSight;

#[cfg(test)]
mod tests {
    use agent::report::Goodbye;

    use super::reason;

    #[test]
    fn an_agent_says_why_it_leaves() {
        for (jobs, why) in [
            ("", Goodbye::AgentRestart),
            ("17 pallium-agent.service restart running\n", Goodbye::AgentRestart),
            ("17 reboot.target start waiting\n18 pallium-agent.service stop running\n", Goodbye::Reboot),
            ("9 poweroff.target start waiting\n", Goodbye::Shutdown),
            ("9 poweroff.target stop waiting\n", Goodbye::AgentRestart),
        ] {
            assert_eq!(reason(jobs), why, "{jobs}");
        }
    }
}
