//! The core without Raft: what is decided is applied at once, in virtual time. After each step the
//! invariants are checked, unless that is switched off for a bench.

use scheduler::command::Change;
use scheduler::decision::DetailView;
use scheduler::{
    Batch, Command, Core, Decision, Domain, Engine, HostReport, Outcome, Proposer, Refusal, Request, Settled,
};
use std::sync::Arc;
use uuid::Uuid;

/// Wall time at which a driver starts: 2026-01-01T00:00:00Z in milliseconds.
const START: u64 = 1_767_225_600_000;

/// A core with its engine and a virtual clock.
pub struct Driver {
    core: Core,
    engine: Engine,
    now: u64,
    batches: u64,
    checked: bool,
}

impl Driver {
    /// An empty core at time 0 that checks the invariants after each step.
    pub fn new(engine: Engine) -> Self {
        Self { core: Core::new(), engine, now: 0, batches: 0, checked: true }
    }

    /// The same without the checks, for benches.
    pub fn unchecked(engine: Engine) -> Self {
        Self { checked: false, ..Self::new(engine) }
    }

    /// The core.
    pub fn core(&self) -> &Core {
        &self.core
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The engine, to activate pipelines or change settings.
    pub fn engine_mut(&mut self) -> &mut Engine {
        &mut self.engine
    }

    /// Virtual milliseconds since the start.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// Decides and applies.
    ///
    /// # Panics
    /// When an invariant is broken afterwards, or when a decision on the state as it is turns out
    /// stale.
    pub fn place(&mut self, request: &Request) -> Result<Decision, Refusal> {
        let mut proposal = self.core.decide(&self.engine, request)?;
        let outcome = proposal.take_command().map(|command| self.apply(command));
        let settled = self.core.settle(proposal, outcome);
        self.must_hold("place");
        match settled {
            Settled::Done(decision) => Ok(Arc::unwrap_or_clone(decision)),
            Settled::Refused(refusal) => Err(refusal),
            Settled::Again => panic!("a decision was stale although nothing came between"),
        }
    }

    /// Decides without a trace.
    pub fn probe(&mut self, request: &Request) -> Result<Decision, Refusal> {
        self.core.probe(&self.engine, request)
    }

    /// Decides without a trace and tells the story of `hosts` (none = the first, `*` = all).
    pub fn probe_detail(&mut self, request: &Request, hosts: &[String]) -> Result<DetailView, Refusal> {
        self.core.probe_detail(&self.engine, request, hosts)
    }

    /// Applies what a source says of a host.
    ///
    /// # Panics
    /// When an invariant is broken afterwards.
    pub fn report(&mut self, report: HostReport) -> Outcome {
        self.run(Command::Report(Box::new(report)), "report")
    }

    /// Applies a fleet; the number of hosts that were added or changed. The invariants are checked
    /// once, at the end.
    ///
    /// # Panics
    /// When a report is refused, or an invariant is broken afterwards.
    pub fn load(&mut self, fleet: impl IntoIterator<Item = HostReport>) -> usize {
        let mut changed = 0;
        for report in fleet {
            let name = report.name.clone();
            match self.apply(Command::Report(Box::new(report))) {
                Outcome::Reported(Change::Added | Change::Changed) => changed += 1,
                Outcome::Reported(_) => {}
                other => panic!("report of {name}: {other:?}"),
            }
        }
        self.must_hold("load");
        changed
    }

    /// Gives up the claims of a consumer, or (`open_only` false) the consumer itself.
    ///
    /// # Panics
    /// When an invariant is broken afterwards.
    pub fn release(&mut self, domain: Domain, consumer: Uuid, open_only: bool) -> Outcome {
        self.run(Command::Release { domain, consumer, open_only }, "release")
    }

    /// Removes a host.
    ///
    /// # Panics
    /// When an invariant is broken afterwards.
    pub fn remove_host(&mut self, domain: Domain, provider: Uuid) -> Outcome {
        self.run(Command::RemoveHost { domain, provider }, "remove_host")
    }

    /// Lets time pass and expires what is due; the number of claims that expired.
    ///
    /// # Panics
    /// When an invariant is broken afterwards.
    pub fn tick(&mut self, advance: u64) -> u32 {
        self.now += advance;
        self.core.set_clock(self.now);
        match self.run(Command::Tick, "tick") {
            Outcome::Expired(count) => count,
            _ => 0,
        }
    }

    /// Every broken invariant, in words.
    pub fn check(&self) -> Vec<String> {
        self.core.check()
    }

    fn run(&mut self, command: Command, what: &str) -> Outcome {
        let outcome = self.apply(command);
        self.must_hold(what);
        outcome
    }

    fn apply(&mut self, command: Command) -> Outcome {
        self.batches += 1;
        let batch = Batch {
            proposer: Proposer { node: 1, run: 1, seq: self.batches },
            now: self.now,
            wall: START + self.now,
            commands: vec![command],
        };
        let mut outcomes = self.core.apply(&batch);
        outcomes.pop().unwrap_or_else(|| Outcome::Refused("no outcome".to_owned()))
    }

    fn must_hold(&self, what: &str) {
        if self.checked {
            let broken = self.check();
            assert!(broken.is_empty(), "after {what} at {} ms: {}", self.now, broken.join("; "));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::Driver;
    use crate::fleet::FleetSpec;
    use crate::requests::Requests;
    use scheduler::decision::Claim;
    use scheduler::{Intent, Settings};

    fn run(seed: u64) -> (u64, Vec<String>) {
        let fleet = FleetSpec::new(40, seed).generate();
        let mut driver = Driver::new(plugins::engine(Settings::default()));
        assert_eq!(driver.load(fleet.clone()), 40);
        assert_eq!(driver.load(fleet.clone()), 0, "a second load changes nothing");
        let mut requests = Requests::new(&fleet, seed);
        let mut answers = Vec::new();
        for _ in 0..120 {
            let decision = driver.place(&requests.any().request()).unwrap();
            answers.push(format!("{} {} {:?}", decision.intent, decision.pipeline, decision.hosts.first()));
            driver.tick(1000);
        }
        (driver.core().state().checksum(), answers)
    }

    #[test]
    fn a_run_follows_its_seed() {
        assert_eq!(run(1), run(1));
        assert_ne!(run(1).0, run(2).0);
    }

    #[test]
    fn claims_are_made_and_expire() {
        let fleet = FleetSpec { unfit_percent: 0, ..FleetSpec::new(40, 2) }.generate();
        let mut driver = Driver::new(plugins::engine(Settings::default()));
        driver.load(fleet.clone());
        let mut requests = Requests::new(&fleet, 2);
        let mut made = 0;
        for _ in 0..20 {
            let decision = driver.place(&requests.of(Intent::Create).request()).unwrap();
            made += u32::from(decision.claim == Claim::Made);
        }
        assert!(made > 10, "{made}");
        assert_eq!(driver.tick(599_000), 0);
        assert_eq!(driver.tick(2_000), made);
    }
}
