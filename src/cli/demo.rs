//! `demo`: a node in a temporary folder, a sample fleet, and real Nova requests through the hook.
//! Everything goes through the front door, as a user's would.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use api::proto::v1;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use scheduler::HostReport;
use serde_json::Value;
use simulation::fleet::healthy;
use simulation::{FleetSpec, fixtures};
use tokio::net::TcpListener;
use tokio::sync::watch;
use uuid::Uuid;

use super::ctl::{Client, Target, import};
use super::output::print;
use super::serve::config::Config;
use super::{Failure, serve, wording};

const EXAMPLES: &str = "\
Examples:
  pallium demo
  pallium demo --exit

Starts a node in a temporary folder, loads a sample fleet, sends recorded Nova
requests through the external-scheduler hook, tells what came of each, and keeps
serving until it is interrupted. Everything is removed at the end.";

/// See what pallium does, with no set-up
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// End after printing
    #[arg(long)]
    exit: bool,
    /// Address to serve on [default: 127.0.0.1:8080, or a free port when that is taken]
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
}

/// Hosts of the sample fleet.
const HOSTS: usize = 300;
/// Seed of the sample fleet.
const SEED: u64 = 42;
/// Where `ctl` looks by itself.
const USUAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

/// A request of the demo.
struct Scene {
    title: &'static str,
    /// Name of the recorded body.
    request: &'static str,
    /// The host that the server leaves goes down before.
    source_goes_down: bool,
}

const fn scene(title: &'static str, request: &'static str) -> Scene {
    Scene { title, request, source_goes_down: false }
}

const SCENES: [Scene; 7] = [
    scene("A server is created", "02-create-kvm-context"),
    scene("Nova sends the same request again", "02-create-kvm-context"),
    scene("A flavor and an image that demand traits", "07-create-traits"),
    scene("One more of an anti-affinity group, two to a host at most", "08-group-anti-affinity"),
    scene("A live migration", "15-live-migrate-context"),
    Scene { source_goes_down: true, ..scene("A host goes down, and one of its servers is evacuated", "17-evacuate") },
    scene("A HANA database, for which only HANA hosts will do", "05-create-hana-kvm"),
];

pub fn run(args: &Args) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("no threads: {error}")))?;
    let folder = Folder::new()?;
    runtime.block_on(demo(args, &folder.0))
}

/// A folder of our own, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self, Failure> {
        let path = std::env::temp_dir().join(format!("pallium-demo-{}", Uuid::now_v7().simple()));
        let made = std::fs::create_dir(&path);
        made.map_err(|error| Failure::new(format!("{}: {error}; set TMPDIR to a writable folder", path.display())))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

async fn demo(args: &Args, folder: &Path) -> Result<(), Failure> {
    let listener = listener(args.listen).await?;
    let address = listener.local_addr().map_err(|error| Failure::new(error.to_string()))?;
    let config = Config::new(folder.join("data"), address);
    let node = serve::open(&config, None).await?;
    let (stop, stopped) = watch::channel(false);
    let serving = serve::serve_until(listener, None, node, &config, stopped);
    tokio::pin!(serving);
    let shown = tokio::select! {
        shown = show(address, folder) => shown,
        served = &mut serving => return served,
    };
    if shown.is_ok() && !args.exit {
        tokio::select! {
            () = interrupted() => {}
            served = &mut serving => return served,
        }
    }
    let _ = stop.send(true);
    serving.await?;
    shown
}

async fn listener(wanted: Option<SocketAddr>) -> Result<TcpListener, Failure> {
    if let Some(wanted) = wanted {
        if !wanted.ip().is_loopback() {
            return Err(Failure::new(format!("listen: {wanted} given, a loopback address expected: this is a demo")));
        }
        return serve::bind(wanted, "--listen").await;
    }
    match TcpListener::bind(USUAL).await {
        Ok(listener) => Ok(listener),
        Err(_) => serve::bind(SocketAddr::new(USUAL.ip(), 0), "--listen").await,
    }
}

async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}

/// The sample fleet, with the servers that the scenes speak of.
fn fleet() -> Vec<HostReport> {
    let mut fleet = FleetSpec::new(HOSTS, SEED).generate();
    for scene in SCENES {
        fixtures::place_for(&mut fleet, &body(scene.request));
    }
    // Their hosts are up until a scene says otherwise.
    for scene in SCENES {
        for report in fleet.iter_mut().filter(|report| Some(&report.name) == source(scene.request).as_ref()) {
            report.forced_down = Some(false);
            report.conditions = Some(healthy());
        }
    }
    fleet
}

/// The host that the server of a body leaves.
fn source(name: &str) -> Option<String> {
    body(name)["spec"]["nova_object.data"]["ignore_hosts"][0].as_str().map(str::to_owned)
}

/// What a source tells of a host that is down.
fn down(host: String) -> HostReport {
    let mut conditions = healthy();
    conditions.insert("Ready".to_owned(), "False".to_owned());
    HostReport { name: host, forced_down: Some(true), conditions: Some(conditions), ..HostReport::default() }
}

fn text(name: &str) -> &'static str {
    fixtures::REQUESTS.iter().find(|(known, _)| *known == name).map_or("{}", |(_, text)| text)
}

fn body(name: &str) -> Value {
    serde_json::from_str(text(name)).unwrap_or_default()
}

async fn show(address: SocketAddr, folder: &Path) -> Result<(), Failure> {
    let url = format!("http://{address}");
    let client = Client::connect(&Target::plain(&url)).await?;
    let fleet = fleet();
    let instances: usize = fleet.iter().map(|host| host.instances.as_ref().map_or(0, Vec::len)).sum();
    let start = Instant::now();
    import::apply(&client, &fleet, false, false).await?;
    print(&format!(
        "A node of its own on {url}\nwith {} and {}, loaded in {}.",
        wording::count(fleet.len() as u64, "hypervisor"),
        wording::count(instances as u64, "instance"),
        millis(start.elapsed()),
    ));
    let http = HttpClient::builder(TokioExecutor::new()).build_http();
    let mut last = Told::default();
    for (at, scene) in SCENES.into_iter().enumerate() {
        if let Some(host) = source(scene.request).filter(|_| scene.source_goes_down) {
            import::apply(&client, &[down(host)], false, false).await?;
        }
        let told = send(&client, &http, &url, scene.request).await?;
        print(&format!("\n{}. {}\n{}", at + 1, scene.title, told.text));
        last = told.or(last);
    }
    let file = folder.join("request.json");
    std::fs::write(&file, text(SCENES[0].request))
        .map_err(|error| Failure::new(format!("{}: {error}", file.display())))?;
    print(&hints(address, &url, &file, &last));
    Ok(())
}

/// What a scene told, and what there is to explain of it.
#[derive(Default)]
struct Told {
    text: String,
    decision: String,
    dropped: Option<String>,
}

impl Told {
    fn or(self, before: Self) -> Self {
        if self.dropped.is_some() { self } else { before }
    }
}

type Http = HttpClient<HttpConnector, Full<Bytes>>;

async fn send(client: &Client, http: &Http, url: &str, name: &str) -> Result<Told, Failure> {
    let broken = |what: String| Failure::new(format!("the hook on {url}: {what}"));
    let request = Request::post(format!("{url}/scheduler/nova/external"))
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from_static(text(name).as_bytes())))
        .map_err(|error| broken(error.to_string()))?;
    let start = Instant::now();
    let answer = http.request(request).await.map_err(|error| broken(error.to_string()))?;
    let (head, body) = answer.into_parts();
    let body = body.collect().await.map_err(|error| broken(error.to_string()))?.to_bytes();
    let took = start.elapsed();
    if !head.status.is_success() {
        return Err(broken(format!("{}: {}", head.status, String::from_utf8_lossy(&body))));
    }
    let decision =
        head.headers.get("x-pallium-decision").and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned();
    let ask = v1::ExplainRequest { decision: decision.parse().ok(), ..v1::ExplainRequest::default() };
    let explained = client.scheduler().explain(ask).await.map_err(|status| client.refusal(&status))?.into_inner();
    let decided = explained.detail.and_then(|detail| detail.decision).unwrap_or_default();
    let claimed = explained.record.map(|record| record.claimed).unwrap_or_default();
    let dropped = decided.steps.iter().flat_map(|step| &step.dropped).next().cloned();
    Ok(Told { text: describe(name, &decided, &claimed, took), decision, dropped })
}

/// Hosts of an answer that are named.
const NAMED: usize = 3;

fn describe(name: &str, decided: &v1::Decision, claimed: &[String], took: Duration) -> String {
    let body = body(name);
    let data = |value: &Value| value["nova_object.data"].clone();
    let spec = data(&body["spec"]);
    let flavor = data(&spec["flavor"]);
    let amounts: BTreeMap<String, u64> = [("VCPU", "vcpus"), ("MEMORY_MB", "memory_mb"), ("DISK_GB", "root_gb")]
        .into_iter()
        .filter_map(|(class, key)| Some((class.to_owned(), flavor[key].as_u64()?)))
        .collect();
    let sent = body["hosts"].as_array().map_or(0, Vec::len) as u64;
    let zone = spec["availability_zone"].as_str().map(|zone| format!(" in {zone}")).unwrap_or_default();
    let fit = decided.hosts.len() as u64;
    let mut lines = vec![
        line("asked", &format!("{}{zone}, {} sent", wording::amounts(&amounts), wording::count(sent, "host"))),
        line(
            "answer",
            &format!("{fit} of {} fit ({}, {})", wording::count(sent, "host"), decided.intent, millis(took)),
        ),
    ];
    for (at, host) in decided.hosts.iter().take(NAMED).enumerate() {
        lines.push(line("", &format!("{}. {:<16} score {:.4}", at + 1, host.host, host.score)));
    }
    let more = fit.saturating_sub(NAMED as u64);
    if more > 0 {
        lines.push(line("", &format!("   and {more} more")));
    }
    lines.push(line("claim", &wording::claim(&decided.claim, claimed)));
    let mut label = "dropped";
    for (step, reasons) in wording::drops_of(&decided.steps) {
        for (why, hosts) in reasons {
            lines.push(line(label, &format!("{hosts:>2} by {}: {why}", wording::step(&step))));
            label = "";
        }
    }
    lines.join("\n")
}

fn line(label: &str, text: &str) -> String {
    wording::wrapped_after(&format!("   {label:<9}"), text, 80)
}

fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

fn hints(address: SocketAddr, url: &str, file: &Path, last: &Told) -> String {
    let mut out = vec![String::new(), "Try:".to_owned()];
    if address != USUAL {
        out.push(format!("  export PALLIUM_SERVER={url}"));
    }
    out.push("  pallium ctl hosts --zone az-a".to_owned());
    if let Some(host) = &last.dropped {
        out.push(format!("  pallium ctl explain {} --host {host}", last.decision));
    }
    out.extend([
        "  pallium ctl place --vcpus 4 --memory 16Gi --zone az-b --dry-run".to_owned(),
        "  pallium ctl decisions".to_owned(),
        format!("  curl -s '{url}/v1/decisions?limit=2'"),
        format!("  curl -si {url}/scheduler/nova/external \\\n    -d @{}", file.display()),
        String::new(),
        format!("{url}/v1/openapi.json is the REST API,"),
        format!("{url}/metrics the metrics. Ctrl-C ends the demo."),
    ]);
    out.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_fleet_has_the_servers_of_the_scenes() {
        let fleet = fleet();
        assert_eq!(fleet.len(), HOSTS);
        for Scene { request, .. } in SCENES {
            for host in body(request)["hosts"].as_array().into_iter().flatten() {
                let node = host["hypervisor_hostname"].as_str();
                let known = fleet.iter().find(|report| Some(report.name.as_str()) == host["host"].as_str());
                assert_eq!(known.and_then(|report| report.hypervisor_hostname.as_deref()), node, "{request}");
            }
        }
    }

    #[test]
    fn a_scene_fits_a_terminal() {
        let decided = v1::Decision {
            intent: "create".into(),
            claim: "made".into(),
            hosts: vec![v1::RankedHost { host: "node008-bb01".into(), score: 1.0 }],
            steps: vec![v1::StepReport {
                name: "filter_instance_group_anti_affinity".into(),
                kind: "filter".into(),
                reasons: vec![v1::DropReason {
                    reason: "holds too many members of the anti-affinity group".into(),
                    hosts: 12,
                }],
                ..v1::StepReport::default()
            }],
            ..v1::Decision::default()
        };
        let told = describe("02-create-kvm-context", &decided, &["node008-bb01".into()], Duration::from_millis(2));
        assert!(told.lines().all(|line| line.chars().count() <= 80), "{told}");
        assert!(told.contains("4 VCPU, 16 GiB, 64 GiB disk in az-a, 20 hosts sent"), "{told}");
        assert!(told.contains("1 of 20 hosts fit") && told.contains("claimed on node008-bb01"), "{told}");
    }
}
