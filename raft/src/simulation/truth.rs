//! What clients were told of their consumers, and what a read may show.
//!
//! A consumer is claimed once and released once, so each of its states excludes another answer: a
//! claim that was acknowledged is there until its release is asked for or its life may be over, and
//! a released one never comes back.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use scheduler::{Core, Decision, Domain, Purpose};
use tokio::time::Instant;
use uuid::Uuid;

use super::random::Random;
use super::trace::Trace;

/// Life of a claim in a simulation.
pub const LIFE: Duration = Duration::from_mins(3);

/// Where a consumer stands, as its client knows.
#[derive(Clone, Debug, PartialEq)]
enum Phase {
    /// Asked for, not answered.
    Claiming,
    /// Answered: it has this host.
    Held { decision: u64, host: String },
    /// Answered: nothing fits.
    Nowhere { decision: u64 },
    /// Its release was asked for.
    Releasing,
    /// Its release was answered.
    Gone,
}

#[derive(Clone, Debug)]
struct Consumer {
    phase: Phase,
    /// Grows with each change of the phase.
    version: u64,
    /// When the claim was asked for: it lives at least [`LIFE`] from here.
    asked: Instant,
    /// The hook has no key: a late repeat of a claim is ranked anew, and may move or end the claim.
    keyed: bool,
    /// What a read saw in this version; a later one must not see less.
    seen: Option<bool>,
}

/// What a read was begun with.
#[derive(Clone, Debug)]
pub struct Before {
    version: u64,
    seen: Option<bool>,
}

/// What clients know. Clones share it.
#[derive(Clone)]
pub struct Truth {
    consumers: Arc<Mutex<BTreeMap<Uuid, Consumer>>>,
    trace: Trace,
}

impl Truth {
    /// Nothing yet.
    pub fn new(trace: Trace) -> Truth {
        Truth { consumers: Arc::default(), trace }
    }

    fn get(&self) -> MutexGuard<'_, BTreeMap<Uuid, Consumer>> {
        self.consumers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, consumer: Uuid, phase: Phase) {
        if let Some(known) = self.get().get_mut(&consumer) {
            known.phase = phase;
            known.version += 1;
            known.seen = None;
        }
    }

    /// A claim is asked for.
    pub fn claims(&self, consumer: Uuid, keyed: bool) {
        let new = Consumer { phase: Phase::Claiming, version: 0, asked: Instant::now(), keyed, seen: None };
        self.get().insert(consumer, new);
    }

    /// A claim, or a repeat of it, was answered.
    pub fn claimed(&self, consumer: Uuid, answer: &Decision) {
        let host = answer.placements.first().map(|placement| placement.host.clone());
        let phase = match host {
            Some(host) => Phase::Held { decision: answer.id, host },
            None => Phase::Nowhere { decision: answer.id },
        };
        let known = self.get().get(&consumer).cloned();
        let Some(known) = known else { return };
        match &known.phase {
            Phase::Held { .. } | Phase::Nowhere { .. } if known.keyed => {
                if known.phase != phase {
                    self.trace.broken(format_args!(
                        "the same request was answered twice for {consumer}: {:?}, then {phase:?}",
                        known.phase
                    ));
                }
            }
            Phase::Claiming | Phase::Held { .. } | Phase::Nowhere { .. } => self.change(consumer, phase),
            Phase::Releasing | Phase::Gone => {}
        }
    }

    /// A release is asked for.
    pub fn releases(&self, consumer: Uuid) {
        self.change(consumer, Phase::Releasing);
    }

    /// A release was answered.
    pub fn released(&self, consumer: Uuid) {
        self.change(consumer, Phase::Gone);
    }

    /// One of the consumers that were asked for last.
    pub fn recent(&self, random: &mut Random) -> Option<Uuid> {
        let consumers = self.get();
        let mut recent: Vec<(Instant, Uuid)> = consumers.iter().map(|(uuid, known)| (known.asked, *uuid)).collect();
        recent.sort_unstable();
        recent.reverse();
        recent.truncate(64);
        random.one_of(&recent).map(|(_, uuid)| uuid)
    }

    /// What a read begins with.
    pub fn reads(&self, consumer: Uuid) -> Option<Before> {
        self.get().get(&consumer).map(|known| Before { version: known.version, seen: known.seen })
    }

    /// A read was answered with the consumer's host.
    pub fn read(&self, consumer: Uuid, before: &Before, found: Option<&str>, how: &str) {
        let mut consumers = self.get();
        let Some(known) = consumers.get_mut(&consumer) else { return };
        if !known.keyed || known.version != before.version {
            return;
        }
        let expires = known.asked.elapsed() >= LIFE;
        let wrong = match (&known.phase, found) {
            (Phase::Held { host, .. }, None) if !expires => Some(format!("was claimed on {host} and is gone")),
            (Phase::Held { host, .. }, Some(found)) if host != found => {
                Some(format!("was claimed on {host} and is on {found}"))
            }
            (Phase::Nowhere { .. }, Some(found)) => Some(format!("was refused and is on {found}")),
            (Phase::Gone, Some(found)) => Some(format!("was released and is on {found}")),
            (Phase::Claiming, None) if before.seen == Some(true) && !expires => {
                Some("was there in a read before and is gone".to_owned())
            }
            (Phase::Releasing, Some(_)) if before.seen == Some(false) => {
                Some("was gone in a read before and is there".to_owned())
            }
            _ => None,
        };
        known.seen = Some(found.is_some());
        drop(consumers);
        if let Some(wrong) = wrong {
            self.trace.broken(format_args!("{consumer} {wrong}, says {how}"));
        }
    }

    /// Holds all that clients know against a state that has all of it.
    pub fn check(&self, host: u64, core: &Core) {
        let consumers: Vec<Uuid> = self.get().keys().copied().collect();
        for consumer in consumers {
            let Some(before) = self.reads(consumer) else { continue };
            let found = host_of(core, consumer);
            self.read(consumer, &before, found.as_deref(), &format!("host {host} at rest"));
        }
    }

    /// Forgets what is gone for so long that no letter about it can be on its way.
    pub fn forget_gone(&self) {
        self.get().retain(|_, known| known.phase != Phase::Gone || known.asked.elapsed() < LIFE * 2);
    }
}

/// The host of a consumer in a state.
pub fn host_of(core: &Core, consumer: Uuid) -> Option<String> {
    let tables = core.state().tables();
    let found = tables.consumer(Domain::Nova, consumer, Purpose::Instance)?;
    let provider = tables.provider(found.row)?;
    Some(tables.names.text(provider.host).to_owned())
}
