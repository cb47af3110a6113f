//! The world that a trace is played into: the real core with its pipeline, and the hosts as they would be. Where a VM goes
//! is the core's decision and apply's claim; which of its GPUs a host gives is the host's, and it reports it.

mod evacuate;
mod foretell;

use std::collections::BTreeMap;
use std::sync::Arc;

use plugins::packing::lifetime::LIFETIME_HINT;
use plugins::packing::{DEVICES, fragmentation::Shape as Expected};
use scheduler::command::{Action, Part, Place};
use scheduler::rebalance::{Item, Plan, Site, make_room};
use scheduler::{
    Batch, Command, Core, Decision, Domain, Engine, HostReport, Intent, Outcome, Proposer, Purpose, Request, Row,
    Settled,
};
use smallvec::SmallVec;
use uuid::Uuid;

use super::events::Trace;
use super::hosts::{Host, Ratios};
use super::lifetimes::{Forecast, Knowledge};
use super::policy::Policy;
use super::shape::mix;

/// Wall time at which a trace begins: 2026-01-01T00:00:00Z in milliseconds.
const START: u64 = 1_767_225_600_000;
/// Seconds of a life without an end.
const ENDLESS: f64 = 1e12;
/// Virtual time between two looks at the mix, and at how long VMs live, milliseconds.
const LEARN_EVERY: u64 = 3_600_000;
/// No host.
pub const NOWHERE: u32 = u32::MAX;

/// GPUs of a host, by number.
pub type Devices = SmallVec<[u8; 8]>;

/// What a host holds.
#[derive(Clone, Debug, Default)]
pub struct Held {
    /// In use: CPU, memory, GPU (thousandths, MiB, thousandths).
    pub used: [u64; 3],
    /// VMs on it.
    pub vms: Vec<u32>,
    /// In use of each GPU, thousandths.
    pub devices: SmallVec<[u64; 8]>,
}

/// The world.
pub struct Estate {
    core: Core,
    engine: Engine,
    policy: Arc<Policy>,
    trace: Arc<Trace>,
    domain: Domain,
    /// One for each shape.
    requests: Vec<Request>,
    hosts: Arc<[Host]>,
    capacity: Arc<[[u64; 3]]>,
    held: Vec<Held>,
    /// Host of each VM.
    at: Vec<u32>,
    /// GPUs of each VM that has some.
    devices: BTreeMap<u32, Devices>,
    now: u64,
    batches: u64,
    /// Creates of each shape so far.
    seen: Vec<u64>,
    learned: Option<u64>,
    mix: Vec<Expected>,
    /// Hosts that take nothing.
    outside: Vec<usize>,
    /// VMs that ran on hosts that have failed, and their hosts.
    waiting: BTreeMap<u32, u32>,
    /// What a policy is told that learns how long VMs live.
    forecast: Option<Forecast>,
    /// When each host is expected to be empty, seconds of the trace.
    exits: Vec<f64>,
    /// Decisions are kept until the next one.
    pub keeps: bool,
    decided: Option<Arc<Decision>>,
}

/// The identity of a VM.
fn uuid(vm: u32) -> Uuid {
    Uuid::from_u128((0x5101_0000_0000_4000_8000_0000_0000_0000 << 64) | (u128::from(vm) + 1))
}

impl Estate {
    /// Hosts without VMs.
    pub fn new(trace: &Arc<Trace>, hosts: &Arc<[Host]>, ratios: Ratios, policy: &Arc<Policy>) -> Result<Self, String> {
        let domain = policy.domain();
        let engine = policy.engine()?;
        let name = &policy.resource.metadata.name;
        let ask = |shape: &super::Shape| {
            shape.request(domain, name).ok_or_else(|| {
                format!(
                    "policy '{}' is for domain nova, whose VCPU are whole numbers, and the trace asks for {} vCPU: a \
                     pipeline for domain pods expected",
                    policy.name,
                    shape.milli_cpu as f64 / 1000.0
                )
            })
        };
        let requests = trace.shapes.iter().map(ask).collect::<Result<Vec<_>, _>>()?;
        let devices = |host: &Host| Held { devices: SmallVec::from_elem(0, host.gpus as usize), ..Held::default() };
        let mut estate = Self {
            core: Core::new(),
            engine,
            policy: Arc::clone(policy),
            trace: Arc::clone(trace),
            domain,
            requests,
            capacity: hosts.iter().map(|host| host.effective(domain, ratios)).collect(),
            held: hosts.iter().map(devices).collect(),
            hosts: Arc::clone(hosts),
            at: vec![NOWHERE; trace.vms.len()],
            devices: BTreeMap::new(),
            now: 0,
            batches: 0,
            seen: vec![0; trace.shapes.len()],
            learned: None,
            mix: Vec::new(),
            outside: Vec::new(),
            waiting: BTreeMap::new(),
            forecast: (policy.lifetimes == Knowledge::Learned).then(|| Forecast::new(trace)),
            exits: vec![ENDLESS; hosts.len()],
            keeps: false,
            decided: None,
        };
        let reports = hosts.iter().enumerate().map(|(at, host)| host.report(at, domain, ratios));
        let commands = reports.map(|report| Command::Report(Box::new(report))).collect();
        for outcome in estate.apply(commands) {
            if !matches!(outcome, Outcome::Reported(_)) {
                return Err(format!("a host was refused: {outcome:?}"));
            }
        }
        Ok(estate)
    }

    /// A world of its own that goes on from here.
    pub fn fork(&self) -> Result<Self, String> {
        let mut engine = self.policy.engine()?;
        engine.activate(&self.policy.with_mix(&self.mix)).map_err(|errors| format!("{errors:?}"))?;
        Ok(Self {
            core: self.core.fork(),
            engine,
            policy: Arc::clone(&self.policy),
            trace: Arc::clone(&self.trace),
            requests: self.requests.clone(),
            hosts: Arc::clone(&self.hosts),
            capacity: Arc::clone(&self.capacity),
            held: self.held.clone(),
            at: self.at.clone(),
            devices: self.devices.clone(),
            seen: self.seen.clone(),
            mix: self.mix.clone(),
            outside: self.outside.clone(),
            waiting: self.waiting.clone(),
            forecast: self.forecast.as_ref().map(Forecast::fork),
            exits: self.exits.clone(),
            keeps: false,
            decided: None,
            ..*self
        })
    }

    /// The hosts.
    pub fn hosts(&self) -> &Arc<[Host]> {
        &self.hosts
    }

    /// Capacity of each host as the core counts it.
    pub fn capacity(&self) -> &Arc<[[u64; 3]]> {
        &self.capacity
    }

    /// What each host holds.
    pub fn held(&self) -> &[Held] {
        &self.held
    }

    /// Free resources of a host; one that takes nothing has none.
    pub fn free(&self, host: usize) -> [u64; 3] {
        if self.outside.contains(&host) {
            return [0; 3];
        }
        std::array::from_fn(|r| self.capacity[host][r].saturating_sub(self.held[host].used[r]))
    }

    /// Host of a VM.
    pub fn host_of(&self, vm: u32) -> Option<u32> {
        Some(self.at[vm as usize]).filter(|host| *host != NOWHERE)
    }

    /// The last decision, if decisions are kept.
    pub fn decided(&self) -> Option<&Decision> {
        self.decided.as_deref()
    }

    /// The core, for checks.
    pub fn core(&self) -> &Core {
        &self.core
    }

    /// Tells that a mix is known from the beginning.
    pub fn knows_mix(&mut self, mix: &[Expected]) -> Result<(), String> {
        self.learned = Some(u64::MAX);
        self.activate(mix)
    }

    fn activate(&mut self, mix: &[Expected]) -> Result<(), String> {
        let resource = self.policy.with_mix(mix);
        self.mix = mix.to_vec();
        self.engine.activate(&resource).map_err(|errors| format!("{errors:?}"))
    }

    /// The virtual time is `now`, milliseconds from the start of the trace.
    pub fn set_now(&mut self, now: u64) -> Result<(), String> {
        let before = std::mem::replace(&mut self.now, now);
        self.core.set_clock(now);
        let hour = now / LEARN_EVERY;
        if self.policy.learns() && self.learned.is_none_or(|learned| learned < hour) && self.seen.iter().any(|&n| n > 0)
        {
            self.learned = Some(hour);
            let trace = Arc::clone(&self.trace);
            let mix: Vec<Expected> = mix(&trace.shapes, &self.seen).into_iter().map(|(s, p)| s.expected(p)).collect();
            self.activate(&mix)?;
        }
        self.look_ahead(before)
    }

    fn apply(&mut self, commands: Vec<Command>) -> Vec<Outcome> {
        self.batches += 1;
        let proposer = Proposer { node: 1, run: 1, seq: self.batches };
        self.core.apply(&Batch { proposer, now: self.now, wall: START + self.now, commands })
    }

    /// Keeps hosts out of the decisions that follow, by their places; those of before are in again. They report that all they
    /// have is in use, which every pipeline understands.
    pub fn keep_out(&mut self, hosts: &[usize]) -> Result<(), String> {
        for host in std::mem::replace(&mut self.outside, hosts.to_vec()).into_iter().chain(hosts.iter().copied()) {
            self.report_use(host as u32)?;
        }
        Ok(())
    }

    /// Asks for a host for a VM; `None`: nothing fits.
    pub fn create(&mut self, vm: u32) -> Result<Option<u32>, String> {
        let shape = self.trace.vms[vm as usize].shape as usize;
        self.seen[shape] += 1;
        if let Some(forecast) = &mut self.forecast {
            forecast.create(vm, self.now);
        }
        self.place(vm)
    }

    /// The same for one that was counted before.
    pub fn place(&mut self, vm: u32) -> Result<Option<u32>, String> {
        let shape = self.trace.vms[vm as usize].shape as usize;
        let left = (self.policy.lifetimes != Knowledge::None).then(|| self.end(vm) - self.now as f64 / 1000.0);
        let request = &mut self.requests[shape];
        request.consumers.clear();
        request.consumers.push(uuid(vm));
        if let Some(left) = left {
            request.hints.insert(LIFETIME_HINT.to_owned(), vec![left.to_string()]);
        }
        let decided = self.core.decide(&self.engine, &self.requests[shape]);
        let mut proposal = decided.map_err(|refusal| format!("{}: {refusal}", self.policy.name))?;
        let outcome = proposal.take_command().and_then(|command| self.apply(vec![command]).pop());
        let host = match &outcome {
            Some(Outcome::Placed { rows, .. }) => rows.first().copied().flatten().map(|row| row.0),
            None => None,
            Some(other) => return Err(format!("a claim on the state as it is was not taken: {other:?}")),
        };
        match self.core.settle(proposal, outcome) {
            Settled::Done(decision) => self.decided = self.keeps.then_some(decision),
            other => return Err(format!("a decision on the state as it is did not hold: {other:?}")),
        }
        let Some(host) = host else { return Ok(None) };
        self.arrive(vm, host, None)?;
        Ok(Some(host))
    }

    /// Moves that make room for a VM that fits nowhere, at most `most`; `None`: there are none. VMs with GPUs stay.
    pub fn room_for(&self, vm: u32, most: usize) -> Option<Plan> {
        let shape = self.trace.shape(vm);
        if shape.gpus > 0 || most == 0 {
            return None;
        }
        let [cpu, memory, _] = shape.sizes();
        make_room(&self.sites(), [cpu, memory], most, |_, _| true)
    }

    /// The hosts as planners of moves see them: CPU and memory. VMs with GPUs stay, and a host that is kept out takes no part.
    pub fn sites(&self) -> Vec<Site> {
        let both = |sizes: [u64; 3]| [sizes[0], sizes[1]];
        let item = |&vm: &u32| {
            let shape = self.trace.shape(vm);
            Item { id: vm, sizes: both(shape.sizes()), movable: shape.gpus == 0 }
        };
        let site = |host: usize| {
            let out = self.outside.contains(&host);
            Site {
                capacity: if out { [0; 2] } else { both(self.capacity[host]) },
                free: if out { [0; 2] } else { both(self.free(host)) },
                items: if out { Vec::new() } else { self.held[host].vms.iter().map(item).collect() },
            }
        };
        (0..self.hosts.len()).map(site).collect()
    }

    /// Moves a VM; the place is claimed as any other.
    pub fn migrate(&mut self, vm: u32, to: u32) -> Result<(), String> {
        self.delete(vm)?;
        self.put(vm, to, None)
    }

    /// GPUs of a VM.
    pub fn devices_of(&self, vm: u32) -> Option<&Devices> {
        self.devices.get(&vm)
    }

    /// Puts a VM on a host without a decision; the host chooses the GPUs that are not named.
    pub fn put(&mut self, vm: u32, host: u32, devices: Option<Devices>) -> Result<(), String> {
        let names = self.core.view().names();
        let request = &self.requests[self.trace.vms[vm as usize].shape as usize];
        let amounts =
            request.resources.iter().filter_map(|(class, amount)| Some((names.get(class)?, *amount))).collect();
        self.batches += 1;
        let action = Action::Claim { ticket: u64::MAX - self.batches, targets: vec![Row(host)], amounts };
        let part = Part { consumer: uuid(vm), purpose: Purpose::Instance, seen: None, action };
        let place = Place {
            domain: self.domain,
            intent: Intent::Create,
            project: None,
            user: None,
            flavor: None,
            group: None,
            request: None,
            key: None,
            parts: vec![part],
            life: u64::MAX / 2,
            learned: Vec::new(),
            record: None,
        };
        match self.apply(vec![Command::Place(Box::new(place))]).pop() {
            Some(Outcome::Placed { .. }) => self.arrive(vm, host, devices),
            other => Err(format!(
                "{} does not fit on {}: {other:?}",
                self.trace.vms[vm as usize].id, self.hosts[host as usize].id
            )),
        }
    }

    fn arrive(&mut self, vm: u32, host: u32, devices: Option<Devices>) -> Result<(), String> {
        let sizes = self.trace.shape(vm).sizes();
        let held = &mut self.held[host as usize];
        held.vms.push(vm);
        for (used, size) in held.used.iter_mut().zip(sizes) {
            *used += size;
        }
        self.at[vm as usize] = host;
        if self.trace.shape(vm).gpus > 0 {
            self.give_devices(vm, host, devices)?;
        }
        self.foretell(host)
    }

    /// A VM leaves its host, or `None` when it was never placed.
    pub fn delete(&mut self, vm: u32) -> Result<Option<u32>, String> {
        let host = self.at[vm as usize];
        if host == NOWHERE {
            return Ok(None);
        }
        self.release(vm)?;
        self.leave(vm, host)?;
        Ok(Some(host))
    }

    /// Gives up what a VM claims.
    fn release(&mut self, vm: u32) -> Result<(), String> {
        let command = Command::Release { domain: self.domain, consumer: uuid(vm), open_only: false };
        match self.apply(vec![command]).pop() {
            Some(Outcome::Released(1)) => Ok(()),
            other => Err(format!("{} could not be released: {other:?}", self.trace.vms[vm as usize].id)),
        }
    }

    fn leave(&mut self, vm: u32, host: u32) -> Result<(), String> {
        self.at[vm as usize] = NOWHERE;
        let sizes = self.trace.shape(vm).sizes();
        let held = &mut self.held[host as usize];
        if let Some(at) = held.vms.iter().position(|other| *other == vm) {
            held.vms.swap_remove(at);
        }
        for (used, size) in held.used.iter_mut().zip(sizes) {
            *used -= size;
        }
        if let Some(devices) = self.devices.remove(&vm) {
            let each = self.trace.shape(vm).gpu_milli;
            for device in devices {
                self.held[host as usize].devices[usize::from(device)] -= each;
            }
            self.report_use(host)?;
        }
        self.foretell(host)
    }

    /// A host gives its GPUs, if they are not named: a share of the one with the least left that is enough, whole ones by number.
    fn give_devices(&mut self, vm: u32, host: u32, named: Option<Devices>) -> Result<(), String> {
        let shape = self.trace.shape(vm);
        let (count, each) = (shape.gpus as usize, shape.gpu_milli);
        let devices = &mut self.held[host as usize].devices;
        let named = named.map(|named| named.iter().map(|&at| usize::from(at)).collect());
        let mut fit: Vec<usize> = named.unwrap_or_else(|| (0..devices.len()).collect());
        fit.retain(|&at| devices[at] + each <= 1000);
        if each < 1000 {
            fit.sort_by_key(|&at| std::cmp::Reverse(devices[at]));
        }
        if fit.len() < count {
            return Err(format!(
                "policy '{}' sent {} to {}, which has not {count} GPUs with {each} free: the filter device_slots expected in it",
                self.policy.name, self.trace.vms[vm as usize].id, self.hosts[host as usize].id
            ));
        }
        fit.truncate(count);
        for &at in &fit {
            devices[at] += each;
        }
        self.devices.insert(vm, fit.into_iter().map(|at| at as u8).collect());
        self.report_use(host)
    }

    /// A host reports the use of each of its GPUs; one that is kept out also that it is down, and that CPU and memory are in use.
    fn report_use(&mut self, host: u32) -> Result<(), String> {
        let out = self.outside.contains(&(host as usize));
        let used = DEVICES.iter().zip(&self.held[host as usize].devices);
        let mut allocation: BTreeMap<String, u64> = used.map(|(class, used)| ((*class).to_owned(), *used)).collect();
        if out {
            let [milli_cpu, memory, _] = self.capacity[host as usize];
            let cpu = if self.domain == Domain::Nova { ("VCPU", milli_cpu / 1000) } else { ("MILLICPU", milli_cpu) };
            allocation.extend([cpu, ("MEMORY_MB", memory)].map(|(class, amount)| (class.to_owned(), amount)));
        }
        let report = HostReport {
            domain: self.domain,
            name: Host::name_at(host as usize),
            allocation: Some(allocation),
            disabled: Some(out),
            forced_down: Some(out),
            ..HostReport::default()
        };
        self.tell(Command::Report(Box::new(report)))
    }

    fn tell(&mut self, command: Command) -> Result<(), String> {
        match self.apply(vec![command]).pop() {
            Some(Outcome::Reported(_)) => Ok(()),
            other => Err(format!("a report was refused: {other:?}")),
        }
    }
}
