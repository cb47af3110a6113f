//! One tick: the truth goes on, agents are heard, whoever leads says what is due, its orders are applied,
//! and calls and their answers travel.

use std::sync::Arc;

use scheduler::ha::coordinator::lease::Ask;
use scheduler::ha::coordinator::{Due, Lead, Told};
use scheduler::ha::host::{Degraded, HostId};
use scheduler::ha::liveness::{Digest, Heard, Says, Stall};
use scheduler::ha::order::{Change, Groups, Role};
use scheduler::ha::policy::{self, Mode};
use scheduler::ha::proof::LeaseMode;
use scheduler::ha::recovery::{Life, Recovery, VmState};
use scheduler::ha::{stale, trouble};
use uuid::Uuid;

use super::nova::{ByHand, Moving};
use super::truth::{TrueHost, host};
use super::world::{Flaw, Least, SOUND, TICK, WATCHDOG, World};

/// What is still crashed is told again, milliseconds.
const CRASHED: u64 = 60_000;
/// A start waits for its permit so long, milliseconds.
const FOLLOWS: u64 = 30_000;

impl TrueHost {
    /// Whether what it sends to a member now is lost on the way: the same in each life.
    fn is_lost(&self, now: u64, member: u64) -> bool {
        let drawn = (now / TICK).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (self.id.0.as_u128() as u64) << 8 ^ member;
        drawn.wrapping_mul(0xD6E8_FEB8_6659_FD93) >> 32 & 0xFFFF < self.loses * 0xFFFF / 100
    }

    /// Its agent feeds the watchdog while its lease lives; unfed, it resets the host.
    fn watch(&mut self, now: u64, always: bool) {
        let Some(fed) = self.fed else { return };
        // Armed with the first lease.
        if self.lease == 0 || !self.on {
            return;
        }
        if self.runs() && self.agent && (now < self.lease || always) {
            self.fed = Some(now);
        } else if now >= fed + WATCHDOG + WATCHDOG * self.slow / 1_000 {
            self.boot_up();
            self.hung = false;
        }
    }
}

impl World {
    /// Runs for so long.
    pub fn run(&mut self, millis: u64) {
        let end = self.now + millis;
        while self.now < end {
            self.tick();
        }
    }

    /// Runs until something holds, or for so long; whether it does.
    pub fn until(&mut self, millis: u64, holds: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + millis;
        while self.now < end {
            if holds(self) {
                return true;
            }
            self.tick();
        }
        holds(self)
    }

    fn tick(&mut self) {
        self.now += TICK;
        self.truth();
        if self.elect.is_some_and(|at| self.now >= at) {
            self.take_over();
        }
        self.deliver();
        self.listen();
        self.speak();
        self.lead();
        self.check_truth();
    }

    /// The truth goes on by itself.
    fn truth(&mut self) {
        let (now, always) = (self.now, self.flaw == Some(Flaw::FeedsAlways));
        for host in &mut self.hosts {
            if host.off_at.is_some_and(|at| now >= at) {
                host.cut();
                if host.restores {
                    host.boots_at = Some(now + 60_000);
                }
            }
            if host.boots_at.is_some_and(|at| now >= at) {
                host.boot_up();
            }
            host.watch(now, always);
            if host.runs() && host.agent {
                for member in 0..3 {
                    let due = 2_000 + if host.jitter > 0 { (now * 7 + member as u64 * 13) % host.jitter } else { 0 };
                    let sent = now >= host.last_beat[member] + due;
                    if sent && host.reaches[member] && !host.is_lost(now, member as u64) {
                        host.last_beat[member] = now;
                        host.heard = now;
                    }
                }
            }
            if host.runs() && host.compute {
                host.ran = now;
            }
            let stands = !(host.runs() && host.storage);
            host.still = if stands { host.still.or(Some(now)) } else { None };
        }
        for at in 0..self.nova.moving.len() {
            let moving = self.nova.moving[at];
            if moving.over.is_some() {
                continue;
            }
            let target = self.by_id(moving.target);
            let (boots, works) = (target.boots, target.runs() && target.compute);
            if !moving.live {
                // What a nova-compute has taken up dies with it, and nothing tells Nova.
                match moving.begun {
                    None if works => self.nova.moving[at].begun = Some(boots),
                    Some(begun) if begun == boots && works => {}
                    _ => continue,
                }
            }
            if now < moving.done {
                continue;
            }
            if let Some(ByHand::Cold(asked)) = moving.by_hand {
                self.move_cold(at, asked);
                continue;
            }
            let source = self.by_id(moving.source);
            if moving.live && !(source.runs() && source.guests.contains(&moving.instance)) {
                // Its source is gone, and so is what ran there; Nova goes on believing in it.
                continue;
            }
            let target = self.by_id(moving.target);
            if target.runs() && !target.compute {
                // The message waits for its nova-compute.
                continue;
            }
            // What is migrated begins where the state lets it.
            let life = self.present(moving.target);
            let stray = match moving.by_hand {
                // Its libvirt announces it, and nothing is let in by a host that nobody knows.
                Some(_) => !self.ha().hosts.get(moving.target).is_some_and(|host| life.is_some() && !host.quarantined),
                None => moving.live && !life.is_some_and(|life| self.ha().may_begin(moving.instance, life)),
            };
            // So is what waited for its target while the instance got another place.
            let left = |known: &Arc<Recovery>| known.abandoned.contains(&moving.id);
            let left = self.ha().recoveries.get(moving.instance).is_some_and(left);
            let place = self.ha().permits.get(moving.instance).map(|permit| permit.life.host);
            let late = !moving.live && (left || moving.ours && place.is_some_and(|place| place != moving.target));
            let denied = stray || late || moving.by_hand.is_none() && self.is_denied(moving.instance, moving.target);
            let target = self.by_id(moving.target);
            // The target's libvirt refuses a domain that it has.
            let fails = !target.runs() || target.guests.contains(&moving.instance);
            let half = !fails && !denied && self.nova.halving.contains(&moving.target);
            let well = !fails && !denied && !half && !self.nova.refusing.contains(&moving.target);
            if half {
                self.by_id(moving.target).guests.insert(moving.instance);
            }
            self.nova.moving[at].over = Some(well);
            if moving.live {
                if let Some(server) = self.nova.servers.get_mut(&moving.instance) {
                    server.destination = None;
                }
                if well {
                    self.by_id(moving.source).guests.remove(&moving.instance);
                }
            }
            self.say(&format!("Nova: {} is moved to {}: {well}", moving.instance, moving.target));
            if well {
                self.by_id(moving.target).guests.insert(moving.instance);
                if let Some(server) = self.nova.servers.get_mut(&moving.instance) {
                    server.host = moving.target;
                    // What was in error comes up running.
                    server.running |= server.vm == VmState::Error;
                }
            }
        }
    }

    /// What is stopped for its move is brought over, and waits at the target until it may start there: half a minute, and
    /// then Nova gives it up, in error.
    fn move_cold(&mut self, at: usize, asked: Option<u64>) {
        let (now, moving) = (self.now, self.nova.moving[at]);
        let well = |id| self.hosts.iter().any(|host| host.id == id && host.runs() && host.compute && host.libvirt);
        let Some(asked) = asked else {
            if well(moving.source) && well(moving.target) {
                let source = self.by_id(moving.source);
                source.guests.remove(&moving.instance);
                source.crashed.remove(&moving.instance);
                self.nova.moving[at].by_hand = Some(ByHand::Cold(Some(now)));
                if let Some(server) = self.nova.servers.get_mut(&moving.instance) {
                    server.host = moving.target;
                }
            }
            return;
        };
        let life = self.present(moving.target).filter(|_| well(moving.target));
        let starts = life.is_some_and(|life| self.ha().may_begin(moving.instance, life));
        if !starts && now < asked + FOLLOWS {
            return;
        }
        if starts && self.nova.unconfirmed.contains(&moving.id) {
            self.nova.moving[at].done = u64::MAX;
        } else {
            self.nova.moving[at].over = Some(starts);
        }
        if starts {
            self.by_id(moving.target).guests.insert(moving.instance);
        }
        if let Some(server) = self.nova.servers.get_mut(&moving.instance) {
            server.destination = None;
            (server.running, server.vm) = if starts { (true, server.vm) } else { (false, VmState::Error) };
        }
        self.say(&format!("Nova: {} was stopped and is moved to {}: {starts}", moving.instance, moving.target));
    }

    /// Guests that begin, or run, where they have no permit, as agents that are heard say.
    fn strangers(&self) -> Vec<(HostId, Uuid)> {
        let waits = |moving: &&Moving| moving.over.is_none() && matches!(moving.by_hand, Some(ByHand::Cold(Some(_))));
        let waiting = self.nova.moving.iter().filter(waits).map(|moving| (moving.target, moving.instance));
        let heard = |host: &TrueHost| host.is_heard() && host.libvirt;
        let permitted = |instance, life: Option<Life>| life.is_some_and(|life| self.ha().may_begin(instance, life));
        let waiting = waiting.filter(|(id, _)| self.there(*id).is_some_and(heard));
        let waiting = waiting.filter(|(id, instance)| !permitted(*instance, self.present(*id)));
        let running = self.hosts.iter().filter(|host| heard(host)).flat_map(|host| {
            let life = self.present(host.id);
            let strange = host.guests.union(&host.crashed).filter(move |guest| !permitted(**guest, life));
            strange.map(|guest| (host.id, *guest))
        });
        waiting.chain(running).collect()
    }

    /// A host, as it is.
    fn there(&self, id: HostId) -> Option<&TrueHost> {
        let n = id.0.as_u128().checked_sub(host(1).0.as_u128())?;
        self.hosts.get(usize::try_from(n).ok()?)
    }

    /// The life that a host is in, once it is known.
    pub(super) fn present(&self, id: HostId) -> Option<Life> {
        let boot = self.there(id)?.boot();
        let known = self.ha().hosts.get(id).filter(|known| known.boot == Some(boot))?;
        Some(Life { host: id, incarnation: known.incarnation })
    }

    /// The hook of libvirt: what was meant for a former boot is not started in this one.
    pub(super) fn is_denied(&self, instance: Uuid, host: HostId) -> bool {
        let permit = self.ha().permits.get(instance);
        permit.is_some_and(|permit| permit.life.host == host && self.present(host) != Some(permit.life))
    }

    /// What befell guests, as agents say.
    fn troubles(&self) -> Vec<(HostId, Uuid, trouble::Kind)> {
        let heard = self.hosts.iter().filter(|host| host.is_heard() && host.libvirt);
        let of = |host: &TrueHost, kind, all: &mut dyn Iterator<Item = &Uuid>| {
            all.map(|guest| (host.id, *guest, kind)).collect::<Vec<_>>()
        };
        heard
            .flat_map(|host| {
                let destroyed = &mut host.destroyed.difference(&host.guests);
                let mut all = of(host, trouble::Kind::Destroyed, destroyed);
                all.extend(of(host, trouble::Kind::PostcopyFailed, &mut host.split.iter()));
                all
            })
            .collect()
    }

    /// What the leader hears of hosts.
    fn listen(&mut self) {
        let now = self.now;
        let silent = self.hosts.iter().filter(|host| host.power().is_none()).count();
        let strangers = self.strangers();
        let troubles = self.troubles();
        let Some(leading) = &mut self.leader else { return };
        let liveness = &mut leading.coordinator.liveness;
        for member in 0..3 {
            let heard: Vec<_> = self
                .hosts
                .iter()
                .filter(|host| host.last_beat[member] > 0)
                .map(|host| Heard {
                    host: host.id,
                    age: now - host.last_beat[member],
                    boot: host.boot(),
                    away: host.away.saturating_sub(now),
                })
                .collect();
            liveness.digest(
                &Digest {
                    member: member as u64,
                    in_quorum: self.voters.contains(&(member as u64 + 1)),
                    blind: self.blind[member],
                    heard: &heard,
                },
                now,
            );
        }
        leading.coordinator.tell(Told::Strangers(strangers), now);
        leading.coordinator.tell(Told::Troubles(troubles), now);
        for moving in self.nova.moving.iter().filter(|moving| moving.live && moving.over.is_none()) {
            let remaining = moving.done.saturating_sub(now).min(1_000_000);
            leading.coordinator.tell(Told::Progress { instance: moving.instance, remaining }, now);
        }
        let liveness = &mut leading.coordinator.liveness;
        for host in &self.hosts {
            let stands = host.still.map_or(0, |since| now - since);
            let storage = match stands {
                0 => Says::Runs,
                30_000.. => Says::Silent,
                _ => Says::Nothing,
            };
            liveness.observe(host.id, Groups::STORAGE, storage, now);
            let data = if host.runs() && host.data { Says::Runs } else { Says::Silent };
            liveness.observe(host.id, Groups::DATA, data, now);
            let lone = host.power().is_none() && self.hosts.len() - silent >= 3;
            let out_of_band = if lone { Says::Silent } else { Says::Runs };
            liveness.observe(host.id, Groups::OUT_OF_BAND, out_of_band, now);
        }
    }

    /// Agents ask for leases with each heartbeat, and say how they are; new boots say Hello.
    fn speak(&mut self) {
        let now = self.now;
        if self.paused {
            return;
        }
        for at in 0..self.hosts.len() {
            let host = &self.hosts[at];
            if !host.is_heard() || host.last_beat.iter().all(|beat| *beat != now) {
                continue;
            }
            let ill = if host.libvirt { Degraded::default() } else { Degraded::LIBVIRT };
            let stall = Stall { backend: "rbd:volumes".to_owned(), guests: 20, stalled: host.stalled };
            let stalls = if host.stalled > 0 { vec![stall] } else { Vec::new() };
            let (id, boot, greets) = (host.id, host.boot(), host.greets);
            let ask = Ask { host: id, boot, seq: host.asks };
            let tells = self.leader.is_some() && now >= host.told + CRASHED;
            let granted = match &mut self.leader {
                Some(leading) => {
                    let targets = Least(&self.core);
                    let tables = self.core.state().tables();
                    let ceiling = Mode::Enforce;
                    let (voters, cluster) = (&*self.voters, self.cluster);
                    let lead = Lead { tables, voters, cluster, targets: &targets, ceiling, clock: now, now };
                    leading.coordinator.tell(Told::Health(id, ill), now);
                    leading.coordinator.tell(Told::Stalls(id, stalls), now);
                    if tells {
                        for &instance in host.crashed.difference(&host.guests) {
                            leading.coordinator.tell(Told::Crashed { host: id, instance }, now);
                        }
                    }
                    leading.coordinator.grant(ask, 0, &lead).map(|grant| grant.ttl)
                }
                None => None,
            };
            let lease = self.core.state().tables().failover().small.lease;
            let ghost = (lease.mode == LeaseMode::Strict && now < self.ghost).then_some(lease.ttl);
            let host = &mut self.hosts[at];
            host.asks += 1;
            host.told = if tells { now } else { host.told };
            if let Some(ttl) = granted.or(ghost) {
                // By its own clock since it asked.
                host.lease = now + ttl + ttl * host.slow / 1_000;
                host.fed = host.fed.map(|_| now);
            }
            self.arm(at);
            self.stop_guests(at);
            if !self.hosts[at].compute && !greets {
                let free = self.ha().hosts.get(id).is_some_and(|known| known.boot == Some(boot) && !known.quarantined);
                if free && self.ha().cases.get(id).is_none() {
                    self.start_compute(id);
                }
            }
            if greets && self.leader.is_some() {
                let n = at as u128 + 1;
                let hello = Box::new(self.hello_of(n));
                let said = self.order(Role::Coordinator, Change::IncarnationOpen { host: id, hello });
                let host = &mut self.hosts[at];
                host.greets = said.is_err();
                if said.is_ok() {
                    host.answered = Some(host.boots);
                }
            }
        }
    }

    /// The session of a life that was proven over begins with a Hello like any other; agents stop what sessions name.
    fn stop_guests(&mut self, at: usize) {
        let host = &self.hosts[at];
        let (id, boot) = (host.id, host.boot());
        let epoch = self.core.state().tables().counters().epoch;
        let Some(known) = self.ha().hosts.get(id).filter(|known| known.enabled) else { return };
        let said = self.ha().cases.get(id).is_some_and(|case| case.held_recover.is_some());
        if self.ha().is_violated(known, boot, epoch) && !said && self.leader.is_some() {
            self.hello(at as u128 + 1);
        }
        let tables = self.core.state().tables();
        let Some(known) = tables.failover().hosts.get(id) else { return };
        if !self.stops || !self.hosts[at].libvirt || policy::of(tables, known).mode != Mode::Enforce {
            return;
        }
        let now = self.core.state().now();
        let stop = stale::to_stop(tables.failover(), (now, epoch), known, boot, &self.hosts[at].guests);
        if !stop.is_empty() {
            self.say(&format!("{id} stops {} guests that may not run there", stop.len()));
            self.hosts[at].guests.retain(|guest| !stop.contains(guest));
        }
    }

    /// That a watchdog is armed is replicated before anybody relies on it.
    fn arm(&mut self, at: usize) {
        let host = &self.hosts[at];
        let armed = host.fed.is_some() && host.lease > 0;
        let known = self.ha().hosts.get(host.id).filter(|known| known.boot == Some(host.boot()));
        let Some(known) = known.filter(|known| armed && known.watchdog != SOUND) else { return };
        if self.leader.is_some() {
            let (host, incarnation) = (host.id, known.incarnation);
            let change = Change::Watchdog { host, incarnation, watchdog: SOUND };
            self.order(Role::Coordinator, change).ok();
        }
    }

    fn lead(&mut self) {
        let Some(leading) = &mut self.leader else { return };
        if self.paused {
            return;
        }
        let id = leading.id;
        let targets = Least(&self.core);
        let lead = Lead {
            tables: self.core.state().tables(),
            voters: &self.voters,
            cluster: self.cluster,
            targets: &targets,
            ceiling: Mode::Enforce,
            clock: self.now,
            now: self.now,
        };
        for due in leading.coordinator.step(&lead) {
            let changes = match &due {
                Due::Propose(change) => !matches!(change, Change::BreakerSet { .. }),
                Due::Call(call) => call.writes(),
            };
            self.effects += usize::from(changes);
            let dies = self.cut.filter(|cut| changes && cut.nth == self.effects);
            if dies.is_none_or(|cut| cut.after) {
                match due {
                    Due::Propose(change) => drop(self.order(Role::Coordinator, change)),
                    Due::Call(call) if self.ambush && call.barrier().is_some() => {
                        self.say(&format!("{id} is cut off in front of {call:?}"));
                        self.ambush = false;
                        self.pause(true);
                        self.kept.push((call, id));
                        return;
                    }
                    Due::Call(call) => self.send(call, id),
                }
            }
            if dies.is_some() {
                self.kill_leader();
                return;
            }
        }
    }
}
