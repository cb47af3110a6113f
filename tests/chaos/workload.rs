//! Five clients that place, move, release and read a few instances on a few hosts, each call on any
//! node. A place whose outcome is not known is sent again with the same id, until an end; a release
//! has no id, so each try is a call of its own.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tokio::sync::watch;
use uuid::Uuid;

use crate::check::register::{Call, Host, Places, Purpose};
use crate::client::{Came, Http};
use crate::history::History;

/// Clients.
pub const CLIENTS: u64 = 5;
/// Hosts.
pub const HOSTS: Host = 8;
/// Claims that fit on a host.
pub const SLOTS: u64 = 5;
/// Instances that are used at one time: with their moves more than fit.
const INSTANCES: usize = 32;
/// Calls about an instance, after which another takes its place.
const CALLS: u32 = 40;
/// Calls about it whose outcome is not known, likewise: each makes the search longer.
const UNKNOWN: u32 = 3;
/// Time to send one place again and again.
const PATIENCE: Duration = Duration::from_secs(15);
/// Tries to release an instance that is used no more.
const LAST_TRIES: u32 = 10;
const PAUSE: Duration = Duration::from_millis(100);
/// Answered places of a client of which one may be sent again.
const ANSWERED: usize = 16;
/// Most milliseconds between two calls of a client.
const THINK: u64 = 40;

/// An instance in use.
#[derive(Clone, Copy)]
struct Used {
    number: u64,
    calls: u32,
    unknown: u32,
}

/// What the clients share.
pub struct Workload {
    /// What they did.
    pub history: History,
    /// How they speak.
    pub http: Http,
    urls: Vec<String>,
    used: Mutex<(Vec<Used>, u64)>,
}

/// The name of a host.
pub fn host_name(host: Host) -> String {
    format!("host-{host}")
}

fn host_number(name: &str) -> Option<Host> {
    name.strip_prefix("host-")?.parse().ok().filter(|host| *host < HOSTS)
}

fn uuid(number: u64) -> String {
    format!("00000000-0000-4000-8000-{number:012x}")
}

fn number(uuid: &str) -> Option<u64> {
    u64::from_str_radix(uuid.strip_prefix("00000000-0000-4000-8000-")?, 16).ok()
}

fn purpose(text: &str) -> Option<Purpose> {
    match text {
        "instance" => Some(Purpose::Instance),
        "move" => Some(Purpose::Move),
        _ => None,
    }
}

/// The claims of a list: (instance, purpose, host).
pub fn claims(list: &Value) -> Result<Vec<(u64, Purpose, Host)>, String> {
    let claim = |item: &Value| {
        let text = |key: &str| item[key].as_str();
        Some((number(text("uuid")?)?, purpose(text("purpose")?)?, host_number(text("host")?)?))
    };
    let items = list["instances"].as_array().ok_or_else(|| format!("no list of instances: {list}"))?;
    items.iter().map(|item| claim(item).ok_or_else(|| format!("a claim that nobody asked for: {item}"))).collect()
}

/// The host of an answered place; none when nothing fits.
fn placed(answer: &Value) -> Result<Option<Host>, String> {
    let Some(name) = answer["decision"]["placements"][0]["host"].as_str() else { return Ok(None) };
    host_number(name).map(Some).ok_or_else(|| format!("a place on an unknown host: {answer}"))
}

/// Where the claims of one instance are.
pub fn places(claims: &[(u64, Purpose, Host)], instance: u64) -> Places {
    let mut places = [None; 2];
    for (_, purpose, host) in claims.iter().filter(|claim| claim.0 == instance) {
        places[*purpose as usize] = Some(*host);
    }
    places
}

/// The hosts, with nothing on them.
pub fn fleet() -> Value {
    let inventory = |total: u64| json!({"total": total});
    let host = |host: Host| {
        json!({
            "name": host_name(host), "hypervisor_hostname": host_name(host), "availability_zone": "az-a",
            "hypervisor_type": "qemu", "cpu_arch": "x86_64", "instances": [],
            "inventories": {"VCPU": inventory(SLOTS), "MEMORY_MB": inventory(SLOTS << 10)},
        })
    };
    json!({"hosts": (0..HOSTS).map(host).collect::<Vec<_>>()})
}

impl Workload {
    /// One for these nodes.
    pub fn new(urls: Vec<String>) -> Self {
        let used = (0..INSTANCES as u64).map(|number| Used { number, calls: 0, unknown: 0 }).collect();
        let used = Mutex::new((used, INSTANCES as u64));
        Self { history: History::new(), http: Http::new(), urls, used }
    }

    /// One client, until it is told to stop.
    pub async fn client(self: Arc<Self>, seed: u64, stop: watch::Receiver<bool>) {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut answered = VecDeque::new();
        while !*stop.borrow() {
            match random.random_range(0..100) {
                0..30 => answered.extend(self.place(&mut random, Purpose::Instance).await),
                30..45 => answered.extend(self.place(&mut random, Purpose::Move).await),
                45..50 => self.again(&mut random, &answered).await,
                50..68 => {
                    let instance = self.pick(&mut random);
                    let released = self.release(&mut random, instance).await;
                    self.note(&mut random, instance, released.is_none()).await;
                }
                68..82 => self.list(&mut random).await,
                82..92 => self.list_host(&mut random).await,
                _ => self.use_of_host(&mut random).await,
            }
            answered.drain(..answered.len().saturating_sub(ANSWERED));
            tokio::time::sleep(Duration::from_millis(random.random_range(0..THINK))).await;
        }
    }

    fn url(&self, random: &mut SmallRng, path: &str) -> String {
        let node = self.urls.choose(random).expect("nodes");
        format!("{node}{path}")
    }

    fn pick(&self, random: &mut SmallRng) -> u64 {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).0.choose(random).expect("instances").number
    }

    /// Notes a call about an instance; true when it was the last one and the caller shall release it.
    fn used(&self, instance: u64, unknown: bool) -> bool {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let (used, next) = &mut *used;
        let Some(at) = used.iter_mut().find(|used| used.number == instance) else { return false };
        at.calls += 1;
        at.unknown += u32::from(unknown);
        let done = at.calls >= CALLS || at.unknown >= UNKNOWN;
        if done {
            *at = Used { number: *next, calls: 0, unknown: 0 };
            *next += 1;
        }
        done
    }

    async fn note(&self, random: &mut SmallRng, instance: u64, unknown: bool) {
        if self.used(instance, unknown) {
            for _ in 0..LAST_TRIES {
                if self.release(random, instance).await == Some(true) {
                    break;
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Gives what was sent and the host that was answered.
    async fn place(&self, random: &mut SmallRng, purpose: Purpose) -> Option<(Value, Option<Host>)> {
        let kind = if purpose == Purpose::Instance { "place" } else { "migrate" };
        let instance = self.pick(random);
        let without: u16 = match random.random_range(0..4) {
            0 | 1 => 0,
            2 => 1 << random.random_range(0..HOSTS),
            _ => random.random_range(0..1 << HOSTS),
        };
        let ignore: Vec<String> = (0..HOSTS).filter(|host| without & (1 << host) != 0).map(host_name).collect();
        let body = json!({
            "request_id": Uuid::now_v7(), "consumers": [uuid(instance)], "pipeline": "nova-general",
            "resources": {"VCPU": 1, "MEMORY_MB": 1024}, "ignore_hosts": ignore,
            "intent": if purpose == Purpose::Instance { "create" } else { "live_migration" },
        });
        let (from, until) = (self.history.now(), Instant::now() + PATIENCE);
        let mut unknown = false;
        loop {
            match self.http.send("POST", &self.url(random, "/v1/place"), Some(&body)).await {
                Came::Done(answer) => {
                    let host = match placed(&answer) {
                        Ok(host) => host,
                        Err(what) => {
                            self.history.wrong(what);
                            return None;
                        }
                    };
                    let call = Call::Place { purpose, without, answer: Some(host) };
                    self.history.call(instance, call, from, Some(self.history.now()));
                    self.history.ok(kind);
                    self.note(random, instance, false).await;
                    return Some((body, host));
                }
                Came::Wrong(what) => self.history.wrong(what),
                Came::Nothing => {}
                Came::Unknown => unknown = true,
            }
            if Instant::now() > until {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        if unknown {
            self.history.call(instance, Call::Place { purpose, without, answer: None }, from, None);
            self.history.unknown(kind);
            self.note(random, instance, true).await;
        } else {
            self.history.refused(kind);
        }
        None
    }

    /// Sends a place that was answered once more, as a network might: it must get the same answer,
    /// and as a call that changes nothing it is no part of the history.
    async fn again(&self, random: &mut SmallRng, answered: &VecDeque<(Value, Option<Host>)>) {
        let Some((body, host)) = answered.get(random.random_range(0..ANSWERED)) else { return };
        match self.http.send("POST", &self.url(random, "/v1/place"), Some(body)).await {
            Came::Done(answer) => {
                self.history.ok("repeat");
                match placed(&answer) {
                    Ok(again) if again == *host => {}
                    _ => self.history.wrong(format!("{body} was answered {host:?}, and then {answer}")),
                }
            }
            Came::Wrong(what) => self.history.wrong(what),
            Came::Nothing => self.history.refused("repeat"),
            Came::Unknown => self.history.unknown("repeat"),
        }
    }

    /// Whether it was done; `None`: not known.
    async fn release(&self, random: &mut SmallRng, instance: u64) -> Option<bool> {
        let from = self.history.now();
        let path = format!("/v1/instances/{}", uuid(instance));
        match self.http.send("DELETE", &self.url(random, &path), None).await {
            Came::Done(answer) => {
                let answer = answer["released"].as_u64().map(|count| count as u32);
                self.history.call(instance, Call::Release { answer }, from, Some(self.history.now()));
                self.history.ok("release");
                return Some(true);
            }
            Came::Wrong(what) => self.history.wrong(what),
            Came::Nothing => self.history.refused("release"),
            Came::Unknown => {
                self.history.call(instance, Call::Release { answer: None }, from, None);
                self.history.unknown("release");
                return None;
            }
        }
        Some(false)
    }

    /// Reads something; what did not work is no part of the history.
    async fn read(&self, random: &mut SmallRng, kind: &'static str, path: &str) -> Option<Value> {
        match self.http.send("GET", &self.url(random, path), None).await {
            Came::Done(answer) => {
                self.history.ok(kind);
                return Some(answer);
            }
            Came::Wrong(what) => self.history.wrong(what),
            Came::Nothing => self.history.refused(kind),
            Came::Unknown => self.history.unknown(kind),
        }
        None
    }

    async fn list(&self, random: &mut SmallRng) {
        let (instance, from) = (self.pick(random), self.history.now());
        let path = format!("/v1/instances?uuid={}", uuid(instance));
        let Some(answer) = self.read(random, "list", &path).await else { return };
        match claims(&answer) {
            Ok(claims) => {
                self.history.call(instance, Call::List(places(&claims, instance)), from, Some(self.history.now()));
                self.note(random, instance, false).await;
            }
            Err(what) => self.history.wrong(what),
        }
    }

    /// A host's list says of each instance in use whether it is there.
    async fn list_host(&self, random: &mut SmallRng) {
        let host = random.random_range(0..HOSTS);
        let mut instances: Vec<u64> = {
            let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
            used.0.iter().map(|used| used.number).collect()
        };
        let from = self.history.now();
        let path = format!("/v1/instances?host={}&page_size=1000", host_name(host));
        let Some(answer) = self.read(random, "list host", &path).await else { return };
        let to = self.history.now();
        let claims = match claims(&answer) {
            Ok(claims) => claims,
            Err(what) => return self.history.wrong(what),
        };
        if claims.len() as u64 > SLOTS {
            self.history.wrong(format!("{} claims on {}: {answer}", claims.len(), host_name(host)));
        }
        self.history.count(host, from, to, claims.len() as i64);
        instances.extend(claims.iter().map(|claim| claim.0));
        instances.sort_unstable();
        instances.dedup();
        for instance in instances {
            let seen = places(&claims, instance).map(|place| place.is_some());
            self.history.call(instance, Call::On { host, seen }, from, Some(to));
        }
    }

    async fn use_of_host(&self, random: &mut SmallRng) {
        let (host, from) = (random.random_range(0..HOSTS), self.history.now());
        let path = format!("/v1/hosts?name={}", host_name(host));
        let Some(answer) = self.read(random, "use of host", &path).await else { return };
        let to = self.history.now();
        let known = &answer["hosts"][0];
        let used = known["resources"]["VCPU"]["used"].as_u64();
        match used.filter(|used| *used <= SLOTS && known["claims"].as_u64() == Some(*used)) {
            Some(used) => self.history.count(host, from, to, used as i64),
            None => self.history.wrong(format!("use and claims of {}: {answer}", host_name(host))),
        }
    }
}
