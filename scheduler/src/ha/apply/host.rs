//! Hosts: what the inventory says of them, their lives, and what is believed.

use std::sync::Arc;

use super::{Cx, Result, invalid, text};
use crate::apply::Touched;
use crate::ha::case::Phase;
use crate::ha::host::{
    BOOTS, Belief, Degraded, Detection, FENCERS, Hello, Host, HostId, HostSpec, Incarnation, Maintenance, PROOFS,
    Places, Unfenced, Watchdog,
};
use crate::ha::note::{SEEN, Seen, What};
use crate::ha::order::{Done, Groups};
use crate::ha::proof::{Evidence, Proof};
use crate::ha::refusal::Refusal;
use crate::ha::stop::Stop;
use crate::ha::table::HOSTS;
use crate::ha::{CONFIRM, GROUPS, SUSPECT};

/// What holds the recovery of a host whose proof was wrong.
const VIOLATED: &str = "proof violated";

impl Cx<'_> {
    pub(super) fn host_upsert(&mut self, spec: &HostSpec) -> Result {
        Self::check(spec)?;
        let names = &mut self.state.tables.names;
        let nova_host = names.intern(&spec.nova_host);
        let places = Places {
            az: names.intern(&spec.places.az),
            cell: names.intern(&spec.places.cell),
            cluster: names.intern(&spec.places.cluster),
            power: names.intern(&spec.places.power),
            chassis: names.intern(&spec.places.chassis),
        };
        let known = self.ha().hosts.get(spec.id);
        if known.is_none() && self.ha().hosts.len() >= HOSTS {
            return Err(Refusal::Full { table: "hosts".to_owned(), most: HOSTS as u64 });
        }
        let base = known.map_or_else(|| new_host(spec.id, nova_host, places), |host| Host::clone(host));
        let host = Host {
            nova_host,
            nova_service: spec.nova_service,
            machine: spec.machine.clone(),
            bmc: spec.bmc.clone(),
            places,
            fencers: spec.fencers.clone(),
            enabled: spec.enabled,
            keeps_guests: spec.keeps_guests,
            unchecked: spec.unchecked,
            ..base.clone()
        };
        if known.is_some() && host == base {
            return Ok(Done::Unchanged);
        }
        let who = |host: &Host| (host.nova_host, host.machine.clone(), host.bmc.clone(), host.places);
        let same = who(&host) == who(&base);
        if !same && self.ha().cases.get(spec.id).is_some() {
            let what = "another name, machine, BMC or place of a host with an open case";
            return Err(invalid("host", what, "the same until the case is closed"));
        }
        self.touched.push(Touched::Doubt(spec.id, base.nova_host));
        self.ha_mut().hosts.put(Arc::new(host));
        self.doubt(spec.id);
        Ok(Done::Changed)
    }

    fn check(spec: &HostSpec) -> Result<()> {
        let places = &spec.places;
        let names = [
            ("nova_host", &spec.nova_host),
            ("places.az", &places.az),
            ("places.cell", &places.cell),
            ("places.cluster", &places.cluster),
            ("places.power", &places.power),
            ("places.chassis", &places.chassis),
        ];
        for (field, name) in names {
            text(field, name)?;
            if name.is_empty() {
                return Err(invalid(field, "nothing", "a name: the breaker counts by it, or fencing needs it"));
            }
        }
        for one in [&spec.bmc, &spec.machine.serial].into_iter().flatten() {
            text("bmc or machine.serial", one)?;
        }
        if spec.fencers.len() > FENCERS {
            return Err(invalid("fencers", &spec.fencers.len().to_string(), "8 at most"));
        }
        let by_bmc = spec.fencers.iter().any(|fencer| fencer.is_bmc());
        if by_bmc && (spec.bmc.is_none() || (spec.machine.uuid.is_none() && spec.machine.serial.is_none())) {
            return Err(invalid(
                "fencers",
                "redfish or ipmi",
                "with it the BMC's address and the machine's UUID or serial",
            ));
        }
        let safe = spec.permit_check || spec.unchecked;
        if spec.enabled && !Stop::PermitCheck.lets(safe) {
            let expected = "the libvirt hook of the agent on the host, or `permit_check: off` in so many words";
            return Err(invalid("enabled", "a host where nothing checks permits", expected));
        }
        Ok(())
    }

    pub(super) fn host_remove(&mut self, id: HostId) -> Result {
        self.host(id)?;
        if let Some(case) = self.ha().cases.get(id) {
            return Err(invalid("host", &format!("one with the open case {}", case.id), "one without"));
        }
        if self.ha().permits.iter().any(|permit| permit.life.host == id) {
            return Err(invalid("host", "one that instances are permitted on", "an empty one"));
        }
        self.doubt(id);
        self.ha_mut().hosts.remove(id);
        Ok(Done::Changed)
    }

    /// A life begins. What cannot be told from a stranger's Hello proves nothing, and nothing is placed on
    /// the host until an operator has looked.
    pub(super) fn incarnation_open(&mut self, id: HostId, hello: &Hello) -> Result {
        let host = self.host(id)?;
        let epoch = self.epoch();
        if !Stop::SameMachine.lets(host.machine.is_surely(&hello.machine)) {
            let why = format!("it is {}, the inventory says {}", hello.machine, host.machine);
            return Ok(self.quarantine(id, why));
        }
        if host.boot == Some(hello.boot) {
            if host.greeted == Some(epoch) {
                return Ok(Done::Unchanged);
            }
            self.with_host(id, |host| host.greeted = Some(epoch));
            return Ok(Done::Changed);
        }
        if !Stop::BootOnce.lets(!host.boots.contains(&hello.boot)) {
            // A life that is over answers: the proof was wrong.
            let why = "a life that was proven over said Hello: its guests are being stopped; see that none runs, and what proved it";
            let known = self.ha().cases.get(id).is_none_or(|case| case.held_recover.as_deref() == Some(VIOLATED));
            if !known {
                self.note(id, What::Violated(hello.boot));
            }
            if let Some(case) = self.ha_mut().case_mut(id) {
                case.held_recover = Some(VIOLATED.to_owned());
                case.needs_operator = Some(why.to_owned());
            }
            self.with_host(id, |host| host.quarantined = true);
            return Ok(Done::ProofViolated);
        }
        let flaw = [
            (
                hello.resumes_guests,
                "it starts guests by itself when it boots: set resume_guests_state_on_host_boot=false",
            ),
            (
                host.enabled && !Stop::PermitCheck.lets(hello.permit_check || host.unchecked),
                "nothing on it checks permits: install the agent's libvirt hook",
            ),
            (host.keeps_guests && host.is_open(), "it boots with its guests alive: a new boot proves nothing"),
        ];
        if let Some((_, why)) = flaw.into_iter().find(|(flawed, _)| *flawed) {
            return Ok(self.quarantine(id, why.to_owned()));
        }
        let last = host.boot.or_else(|| host.boots.first().copied());
        let chained = last.is_none() || hello.previous == last || self.is_operator();
        if !Stop::SameMachine.lets(chained) {
            let name = |boot: Option<_>| boot.map_or_else(|| "none".to_owned(), |boot: uuid::Uuid| boot.to_string());
            let why = format!("its disk remembers boot {}, the last one known is {}", name(hello.previous), name(last));
            return Ok(self.quarantine(id, why));
        }
        let quarantined = host.quarantined && host.is_open();
        if host.is_open() {
            self.end_life(id, Evidence::NewBoot(hello.boot));
        }
        let (now, leader) = (self.now(), self.order.leader);
        let returning = self.ha().cases.get(id).is_some();
        self.with_host(id, |host| {
            host.incarnation += 1;
            host.boot = Some(hello.boot);
            host.greeted = Some(epoch);
            host.watchdog = hello.watchdog;
            host.belief = Belief { detection: Detection::Alive, since: now, by: leader };
            // With a case open it is let in step by step; else a reboot is just that.
            host.quarantined = returning || quarantined;
            host.must_reboot = false;
        });
        Ok(Done::Changed)
    }

    fn quarantine(&mut self, id: HostId, why: String) -> Done {
        self.with_host(id, |host| host.quarantined = true);
        Done::Quarantined(why)
    }

    /// Ends the present life of a host with a proof; its case goes to `Fenced`.
    pub(super) fn end_life(&mut self, id: HostId, evidence: Evidence) {
        let (now, epoch, leader) = (self.now(), self.epoch(), self.order.leader);
        let kind = evidence.kind();
        self.with_host(id, |host| {
            let proof = Proof { incarnation: host.incarnation, evidence, epoch, at: now, by: leader };
            host.proofs.insert(0, proof);
            host.proofs.truncate(PROOFS);
            if let Some(boot) = host.boot.take() {
                host.boots.insert(0, boot);
                host.boots.truncate(BOOTS);
            }
            host.incarnation += 1;
            host.watchdog = Watchdog::default();
            host.degraded = Degraded::default();
            host.belief = Belief { detection: Detection::Dead, since: now, by: leader };
            host.quarantined = true;
        });
        let step = self.step(Phase::Fenced);
        if let Some(case) = self.ha_mut().case_mut(id)
            && case.epoch == epoch
            && !case.phase.is_proven()
        {
            case.enter(step);
            let case = case.id;
            self.gather(case);
            self.note(id, What::Proven(kind));
        }
    }

    pub(super) fn watchdog(&mut self, id: HostId, incarnation: Incarnation, watchdog: Watchdog) -> Result {
        if self.alive(id, incarnation)?.watchdog == watchdog {
            return Ok(Done::Unchanged);
        }
        self.with_host(id, |host| host.watchdog = watchdog);
        Ok(Done::Changed)
    }

    pub(super) fn fence_path(&mut self, id: HostId, why: Option<&str>, age: u64) -> Result {
        let known = self.host(id)?.unfenced.as_ref();
        if known.map(|known| known.why.as_str()) == why {
            return Ok(Done::Unchanged);
        }
        text("why", why.unwrap_or_default())?;
        let since = known.map_or(self.now().saturating_sub(age), |known| known.since);
        let unfenced = why.map(|why| Unfenced { why: why.to_owned(), since });
        self.with_host(id, |host| host.unfenced = unfenced);
        Ok(Done::Changed)
    }

    pub(super) fn detection_set(
        &mut self,
        id: HostId,
        incarnation: Incarnation,
        (from, to): (Detection, Detection),
        groups: Groups,
        age: u64,
    ) -> Result {
        use Detection::{Alive, Dead, Isolated, Suspect, Unreachable};
        let (now, epoch, leader) = (self.now(), self.epoch(), self.order.leader);
        let host = self.alive(id, incarnation)?;
        let belief = host.belief;
        if belief.detection != from {
            return Err(Refusal::Detection { host: id, given: from, current: belief.detection });
        }
        let own = belief.by == leader;
        if from == to && own {
            return Ok(Done::Unchanged);
        }
        let edge = !matches!((from, to), (_, Dead) | (Dead, _) | (Alive, Unreachable | Isolated));
        if !edge {
            return Err(invalid(
                "to",
                &format!("{to:?} from {from:?}"),
                "a step by way of Suspect; Dead needs a proof",
            ));
        }
        if to != Alive && !Stop::Epoch.lets(host.greeted == Some(epoch)) {
            let expected = "its Hello first: what was before the restore says nothing of it";
            return Err(invalid("host", "one that has not said Hello in this epoch", expected));
        }
        if matches!(to, Suspect | Unreachable)
            && from != to
            && !Stop::Confirmed.lets(age >= SUSPECT || from == Unreachable)
        {
            return Err(invalid("age", &format!("{age} ms of silence"), "6000 ms at least"));
        }
        if to == Unreachable {
            let watched = from == Suspect && own && now.saturating_sub(belief.since) >= CONFIRM;
            if !Stop::Confirmed.lets(watched || from == Unreachable) {
                let expected = "Suspect for 15 s at least, watched by this leader";
                return Err(invalid("to", "Unreachable", expected));
            }
            let agreed = groups.has(Groups::MANAGEMENT) && groups.count() >= GROUPS;
            if !Stop::TwoGroups.lets(agreed) {
                let given = format!(
                    "{} groups that say no, with the management's: {}",
                    groups.count(),
                    groups.has(Groups::MANAGEMENT)
                );
                return Err(invalid("groups", &given, "the management group and another one"));
            }
            // Seen by a former leader only: it is watched anew.
            if from == Unreachable && !Stop::OwnWatch.lets(own) {
                return Err(invalid(
                    "to",
                    "Unreachable, as a former leader had it",
                    "Suspect first: it is watched anew",
                ));
            }
        }
        let wall = self.state.tables.counters.wall;
        let seen = Seen { detection: to, life: incarnation, groups, age, at: now, wall, by: leader };
        self.with_host(id, |host| {
            host.belief = Belief { detection: to, since: now, by: leader };
            if host.seen.len() >= SEEN {
                host.seen.remove(0);
            }
            host.seen.push(seen);
        });
        self.note(id, What::Seen(seen));
        if to == Alive && from != Alive {
            self.ha_mut().small_mut().false_suspicions += 1;
        }
        Ok(Done::Changed)
    }
}

fn new_host(id: HostId, nova_host: crate::names::Sym, places: Places) -> Host {
    Host {
        id,
        nova_host,
        nova_service: None,
        machine: crate::ha::host::Machine::default(),
        bmc: None,
        places,
        fencers: Vec::new(),
        enabled: false,
        keeps_guests: false,
        unchecked: false,
        incarnation: 0,
        boot: None,
        boots: Vec::new(),
        greeted: None,
        watchdog: Watchdog::default(),
        belief: Belief::default(),
        case_seq: 0,
        proofs: Vec::new(),
        forced_down: false,
        disabled: false,
        quarantined: false,
        must_reboot: false,
        maintenance: Maintenance::None,
        exempt: 0,
        degraded: Degraded::default(),
        seen: Vec::new(),
        unfenced: None,
    }
}
