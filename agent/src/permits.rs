//! Which guests may start here: closed after boot until a Hello of this boot was answered, and then open for
//! exactly those instances whose permit names this host in its present life. Pure; what is kept of it on
//! disk counts for the same boot and the same cluster only.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::report::INSTANCES;

/// Questions that are remembered, to see a start that nobody asked about.
const ASKED: usize = 1_024;
/// A migration that libvirt announces begins in so long, or was given up.
const ARRIVES: Duration = Duration::from_secs(30);
/// Migrations that are announced at once.
const ARRIVALS: usize = 256;
/// Starts that wait for a permit; more are denied at once.
const WAITING: usize = 16;

/// What is kept on disk, so that a new start of the agent in the same boot need not wait for a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// The boot that it is of.
    pub boot: Uuid,
    /// The cluster that said it.
    pub cluster: Uuid,
    /// The host's life.
    pub incarnation: u64,
    /// Nothing may start.
    pub quarantined: bool,
    /// What may run here.
    pub permits: BTreeSet<Uuid>,
    /// nova-compute is held back.
    #[serde(default)]
    pub holds_compute: bool,
}

/// Why something may not start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// No Hello of this boot was answered yet.
    NotGreeted,
    /// The host is in quarantine.
    Quarantined,
    /// It is just being stopped.
    Stopping,
    /// The instance belongs elsewhere, or nobody knows it.
    NotPermitted(Uuid),
    /// What nova-compute would delete when it starts is looked at first.
    Held,
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotGreeted => f.write_str("no pallium server has answered this host since it booted"),
            Self::Stopping => f.write_str("what was left of it on this host is just being stopped"),
            Self::Quarantined => f.write_str("this host is in quarantine: see `pallium ctl ha`"),
            Self::Held => f.write_str(
                "nova-compute is held back until it is known that it deletes no only copy: see `pallium ctl ha case`",
            ),
            Self::NotPermitted(instance) => {
                write!(f, "instance {instance} is not permitted on this host in its present life")
            }
        }
    }
}

/// Why a change of permits is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is for another life of the host.
    #[error("permits are for incarnation {given}, this host lives {known:?}: say Welcome first")]
    OtherLife {
        /// Of the directive.
        given: u64,
        /// Of the host.
        known: Option<u64>,
    },
    /// There would be too many.
    #[error("{0} permits on one host, {INSTANCES} are the most; nothing was changed")]
    TooMany(usize),
}

/// The state of the check.
#[derive(Clone, Debug, Default)]
pub struct Gate {
    kept: Option<Kept>,
    asked: VecDeque<Uuid>,
    /// Guests that a migration from a source that runs is bringing here, and until when.
    arrivals: VecDeque<(Uuid, Instant)>,
    waiting: BTreeSet<Uuid>,
    checks: VecDeque<Uuid>,
    /// Guests that are being stopped: what is permitted meanwhile begins after that.
    stopping: BTreeSet<Uuid>,
}

impl Gate {
    /// Open with what was kept, if that is of this boot and this cluster; else closed.
    pub fn new(boot: Uuid, cluster: Option<Uuid>, kept: Option<Kept>) -> Self {
        let same = |kept: &Kept| kept.boot == boot && Some(kept.cluster) == cluster && kept.permits.len() <= INSTANCES;
        Self { kept: kept.filter(same), ..Self::default() }
    }

    /// libvirt is about to take a migration in: the guest executes at its source until it executes here, and libvirt
    /// itself lets it do so in one place only. So it needs no permit yet; in quarantine, or before a Hello, nothing comes in.
    pub fn arrives(&mut self, instance: Uuid, now: Instant) -> Result<(), Denied> {
        let kept = self.kept.as_ref().ok_or(Denied::NotGreeted)?;
        if kept.quarantined {
            return Err(Denied::Quarantined);
        }
        if self.stopping.contains(&instance) {
            return Err(Denied::Stopping);
        }
        self.arrivals.retain(|(other, until)| *other != instance && now < *until);
        if self.arrivals.len() == ARRIVALS {
            self.arrivals.pop_front();
        }
        self.arrivals.push_back((instance, now + ARRIVES));
        Ok(())
    }

    /// A start that was denied for want of a permit waits for one. False: as many as may do.
    pub fn wait(&mut self, instance: Uuid) -> bool {
        self.waiting.len() < WAITING && self.waiting.insert(instance)
    }

    /// It waits no more.
    pub fn waited(&mut self, instance: Uuid) {
        self.waiting.remove(&instance);
    }

    /// Starts that wait for a permit.
    pub fn waiting(&self) -> impl Iterator<Item = Uuid> {
        self.waiting.iter().copied()
    }

    /// Whether the instance may start here now. The question is remembered.
    pub fn may_start(&mut self, instance: Uuid, now: Instant) -> Result<(), Denied> {
        if !self.asked.contains(&instance) {
            if self.asked.len() == ASKED {
                self.asked.pop_front();
            }
            self.asked.push_back(instance);
        }
        let kept = self.kept.as_ref().ok_or(Denied::NotGreeted)?;
        if kept.quarantined {
            Err(Denied::Quarantined)
        } else if self.stopping.contains(&instance) {
            Err(Denied::Stopping)
        } else if kept.permits.contains(&instance)
            || self.arrivals.iter().any(|(known, until)| *known == instance && now < *until)
        {
            Ok(())
        } else {
            Err(Denied::NotPermitted(instance))
        }
    }

    /// Guests are stopped from here on until [`Self::stopped`]: none that is permitted here.
    pub fn stops(&mut self, guests: BTreeSet<Uuid>) -> Result<(), Uuid> {
        let permitted = self.kept.as_ref().and_then(|kept| kept.permits.intersection(&guests).next().copied());
        if let Some(guest) = permitted {
            return Err(guest);
        }
        self.stopping = guests;
        Ok(())
    }

    /// They are stopped, or were not.
    pub fn stopped(&mut self) {
        self.stopping.clear();
    }

    /// Those that are being stopped.
    pub fn stopping(&self) -> &BTreeSet<Uuid> {
        &self.stopping
    }

    /// Whether nova-compute may start: once a Hello was answered, in quarantine too, for it is what clears
    /// away guests that were evacuated; and not while a server holds it back.
    pub fn may_compute(&self) -> Result<(), Denied> {
        let kept = self.kept.as_ref().ok_or(Denied::NotGreeted)?;
        if kept.holds_compute { Err(Denied::Held) } else { Ok(()) }
    }

    /// nova-compute is held back, or may start.
    pub fn hold_compute(&mut self, on: bool) {
        if let Some(kept) = &mut self.kept {
            kept.holds_compute = on;
        }
    }

    /// The instance has started: whether anybody asked before it did.
    pub fn started(&mut self, instance: Uuid) -> bool {
        self.arrivals.retain(|(known, _)| *known != instance);
        let at = self.asked.iter().position(|asked| *asked == instance);
        at.and_then(|at| self.asked.remove(at)).is_some()
    }

    /// libvirt's hook was called with this number and has asked.
    pub fn checked(&mut self, number: Uuid) {
        if self.checks.len() == 8 {
            self.checks.pop_front();
        }
        self.checks.push_back(number);
    }

    /// Whether a question with this number came in.
    pub fn was_checked(&self, number: Uuid) -> bool {
        self.checks.contains(&number)
    }

    /// A Hello was answered. What was known of another life is forgotten.
    pub fn welcome(&mut self, kept: Kept) -> Result<(), Refused> {
        if kept.permits.len() > INSTANCES {
            return Err(Refused::TooMany(kept.permits.len()));
        }
        self.kept = Some(kept);
        Ok(())
    }

    /// Permits have changed: first some are withdrawn (or all, with `whole`), then others granted.
    pub fn change(
        &mut self,
        incarnation: u64,
        whole: bool,
        granted: &[Uuid],
        withdrawn: &[Uuid],
    ) -> Result<(), Refused> {
        let known = self.kept.as_ref().map(|kept| kept.incarnation);
        let Some(kept) = self.kept.as_mut().filter(|kept| kept.incarnation == incarnation) else {
            return Err(Refused::OtherLife { given: incarnation, known });
        };
        let mut permits = if whole { BTreeSet::new() } else { kept.permits.clone() };
        for instance in withdrawn {
            permits.remove(instance);
        }
        permits.extend(granted);
        if permits.len() > INSTANCES {
            return Err(Refused::TooMany(permits.len()));
        }
        kept.permits = permits;
        Ok(())
    }

    /// Quarantine begins or ends. Without a life there is nothing to end: it is closed anyway.
    pub fn quarantine(&mut self, on: bool) {
        if let Some(kept) = &mut self.kept {
            kept.quarantined = on;
        }
    }

    /// Nothing may start: closed, or in quarantine.
    pub fn is_quarantined(&self) -> bool {
        self.kept.as_ref().is_none_or(|kept| kept.quarantined)
    }

    /// What is to be kept.
    pub fn kept(&self) -> Option<&Kept> {
        self.kept.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use uuid::Uuid;

    use super::{ARRIVES, Denied, Gate, Kept, Refused, WAITING};
    use crate::report::INSTANCES;

    fn id(number: u128) -> Uuid {
        Uuid::from_u128(number)
    }

    fn kept(boot: u128, incarnation: u64, permits: &[u128]) -> Kept {
        let permits = permits.iter().copied().map(id).collect();
        Kept { boot: id(boot), cluster: id(9), incarnation, quarantined: false, permits, holds_compute: false }
    }

    #[test]
    fn it_is_closed_until_a_hello_was_answered() {
        let mut gate = Gate::new(id(1), Some(id(9)), None);
        assert_eq!(
            (gate.may_start(id(7), Instant::now()), gate.may_compute()),
            (Err(Denied::NotGreeted), Err(Denied::NotGreeted))
        );
        assert_eq!(gate.change(1, false, &[id(7)], &[]), Err(Refused::OtherLife { given: 1, known: None }));
        gate.quarantine(false);
        assert_eq!(
            gate.may_start(id(7), Instant::now()),
            Err(Denied::NotGreeted),
            "an end of quarantine opens nothing"
        );
        gate.welcome(Kept { quarantined: true, ..kept(1, 4, &[7]) }).expect("welcome");
        assert_eq!((gate.may_start(id(7), Instant::now()), gate.may_compute()), (Err(Denied::Quarantined), Ok(())));
        gate.hold_compute(true);
        assert_eq!(gate.may_compute(), Err(Denied::Held));
        gate.hold_compute(false);
        assert_eq!(gate.may_compute(), Ok(()));
        gate.quarantine(false);
        assert_eq!(
            (gate.may_start(id(7), Instant::now()), gate.may_start(id(8), Instant::now())),
            (Ok(()), Err(Denied::NotPermitted(id(8))))
        );
    }

    #[test]
    fn permits_are_of_one_life() {
        let mut gate = Gate::default();
        gate.welcome(kept(1, 4, &[7, 8])).expect("welcome");
        assert_eq!(gate.change(5, false, &[id(9)], &[]), Err(Refused::OtherLife { given: 5, known: Some(4) }));
        gate.change(4, false, &[id(9)], &[id(7)]).expect("changed");
        let starts = |gate: &mut Gate| [7, 8, 9].map(|number| gate.may_start(id(number), Instant::now()).is_ok());
        assert_eq!(starts(&mut gate), [false, true, true]);
        gate.change(4, true, &[id(7)], &[]).expect("changed");
        assert_eq!(starts(&mut gate), [true, false, false]);
        let many: Vec<Uuid> = (0..=INSTANCES as u128).map(id).collect();
        assert_eq!(gate.change(4, false, &many, &[]), Err(Refused::TooMany(INSTANCES + 1)));
        assert_eq!(starts(&mut gate), [true, false, false], "nothing was changed");
        gate.welcome(kept(1, 5, &[])).expect("welcome");
        assert_eq!(starts(&mut gate), [false; 3], "another life");
    }

    #[test]
    fn what_was_kept_counts_for_its_boot_and_cluster() {
        for (boot, cluster, open) in [(1, Some(9), true), (2, Some(9), false), (1, Some(8), false), (1, None, false)] {
            let mut gate = Gate::new(id(boot), cluster.map(id), Some(kept(1, 4, &[7])));
            assert_eq!(gate.may_start(id(7), Instant::now()).is_ok(), open, "boot {boot}, cluster {cluster:?}");
        }
    }

    #[test]
    fn a_start_without_a_question_is_seen() {
        let mut gate = Gate::default();
        gate.may_start(id(7), Instant::now()).expect_err("closed");
        assert!(gate.started(id(7)), "it asked, whatever the answer was");
        assert!(!gate.started(id(7)), "one question is for one start");
    }

    /// What Nova moves by itself: a live migration comes in for a while and once, other starts wait in bounds.
    #[test]
    fn a_migration_comes_in_and_a_start_waits() {
        let now = Instant::now();
        let mut gate = Gate::default();
        assert_eq!(gate.arrives(id(7), now), Err(Denied::NotGreeted));
        gate.welcome(Kept { quarantined: true, ..kept(1, 4, &[]) }).expect("welcome");
        assert_eq!(gate.arrives(id(7), now), Err(Denied::Quarantined));
        gate.quarantine(false);
        gate.arrives(id(7), now).expect("comes in");
        assert_eq!(
            (gate.may_start(id(7), now), gate.may_start(id(8), now)),
            (Ok(()), Err(Denied::NotPermitted(id(8))))
        );
        gate.quarantine(true);
        assert_eq!(gate.may_start(id(7), now), Err(Denied::Quarantined));
        gate.quarantine(false);
        assert_eq!(gate.may_start(id(7), now + ARRIVES), Err(Denied::NotPermitted(id(7))), "it was given up");
        assert!(gate.started(id(7)));
        assert_eq!(gate.may_start(id(7), now), Err(Denied::NotPermitted(id(7))), "one migration is one start");
        let waits = (0..=WAITING as u128).map(|n| gate.wait(id(n))).filter(|waits| *waits).count();
        assert_eq!((waits, gate.waiting().count()), (WAITING, WAITING));
        assert!(!gate.wait(id(0)), "it waits already");
        gate.waited(id(0));
        assert!(gate.wait(id(99)));
    }
}
