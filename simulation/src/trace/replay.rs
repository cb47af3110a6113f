//! Playing a trace into the world, and what is searched by doing so again and again.

use std::sync::Arc;

use scheduler::rebalance::Move;
use serde::Serialize;

use super::estate::Estate;
use super::events::{Event, Kind, Trace};
use super::failures::{Failures, Turn};
use super::hosts::{Host, HostList, Ratios};
use super::meter::{ByResource, Meter, Metrics, Moment};
use super::migrations::{Migrations, Period};
use super::outages::Outages;
use super::picture::{MOMENTS, Picture};
use super::policy::Policy;
use super::rebalance::{Periods, Rebalance};
use super::record::Record;

/// What every run of one policy has in common.
#[derive(Clone)]
pub struct Inputs {
    /// The trace.
    pub trace: Arc<Trace>,
    /// The host list.
    pub list: Arc<HostList>,
    /// Overcommit.
    pub ratios: Ratios,
    /// Share of the trace's span that averages leave out.
    pub warm_up: f64,
    /// Seed of every random choice.
    pub seed: u64,
    /// All invariants of the core are checked after each event, not now and then.
    pub check: bool,
    /// VMs that may be moved on a day of the trace, as a share of those alive when it begins; 0: none.
    pub migrations: f64,
    /// Hosts that fail in a replay.
    pub failures: Option<Failures>,
    /// Rebalancing within that budget.
    pub rebalance: Option<Rebalance>,
}

/// What a run tells while it goes on.
pub trait Watch: Sync {
    /// So many events more were played.
    fn played(&self, events: u64);
    /// A run went on to another number of hosts, or another start.
    fn step(&self, _what: &str) {}
}

/// Nobody watches.
pub struct Unwatched;

impl Watch for Unwatched {
    fn played(&self, _: u64) {}
}

/// Events after which invariants are checked when they are sampled.
const CHECK_EVERY: u64 = 100_000;
/// Events after which a watcher is told.
const TELL_EVERY: u64 = 4096;

impl Inputs {
    /// A world of the first `count` hosts.
    pub fn estate(&self, policy: &Arc<Policy>, count: usize) -> Result<Estate, String> {
        let hosts: Arc<[Host]> = self.list.first(count).into();
        Estate::new(&self.trace, &hosts, self.ratios, policy)
    }

    /// When these hosts fail and come back.
    pub fn turns(&self, hosts: &[Host]) -> Result<Vec<Turn>, String> {
        let begin = self.trace.events.first().map_or(0, |event| event.time);
        let turns = self.failures.as_ref().map(|failures| failures.turns(hosts, begin, self.trace.end(), self.seed));
        turns.unwrap_or_else(|| Ok(Vec::new()))
    }

    /// Where the warm-up ends, milliseconds.
    pub fn warm(&self) -> u64 {
        let begin = self.trace.events.first().map_or(0, |event| event.time);
        begin + ((self.trace.end() - begin) as f64 * self.warm_up) as u64
    }
}

/// Goes through events, and stops at the first rejection when it is told to.
pub struct Player<'a> {
    inputs: &'a Inputs,
    watch: &'a dyn Watch,
    /// The world.
    pub estate: Estate,
    /// Deletes are not played.
    pub fading: bool,
    stop: bool,
    events: u64,
    /// What was moved so far.
    pub migrations: Migrations,
    /// Hosts that fail.
    pub outages: Outages,
    periods: Periods,
    alive: u64,
}

/// What an event did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Played {
    /// A VM was placed.
    Placed(u32, u32),
    /// A VM found no host.
    Rejected(u32),
    /// A VM was moved, from one host to another, and what for: `room` for the one that is placed next, or an objective.
    Moved(u32, u32, u32, &'static str),
    /// A VM left a host.
    Left(u32, u32),
    /// A VM runs no more: its host has failed.
    Lost(u32, u32),
    /// It runs again, on a host.
    Restored(u32, u32),
    /// It is deleted before that.
    Gone(u32),
    /// A VM that had no host is deleted.
    Orphan,
}

impl<'a> Player<'a> {
    /// A player over a world.
    pub fn new(inputs: &'a Inputs, estate: Estate, watch: &'a dyn Watch) -> Self {
        let (migrations, periods, outages) = (Migrations::default(), Periods::default(), Outages::default());
        Self { inputs, watch, estate, fading: false, stop: false, events: 0, migrations, periods, outages, alive: 0 }
    }

    /// The same, which stops at the first rejection.
    pub fn stopping(self) -> Self {
        Self { stop: true, ..self }
    }

    /// The same, in which hosts fail.
    pub fn failing(mut self) -> Result<Self, String> {
        if self.inputs.failures.is_some() {
            self.estate.expect_failures()?;
            self.outages = Outages::new(self.inputs.turns(self.estate.hosts())?);
        }
        Ok(self)
    }

    /// Plays the events from place `from` on. `before` sees the world before each event, `after` what it did.
    pub fn play(
        &mut self,
        from: usize,
        mut before: impl FnMut(u64, &mut Estate) -> Result<(), String>,
        mut after: impl FnMut(u64, Played, &Estate),
    ) -> Result<(), String> {
        let trace = Arc::clone(&self.inputs.trace);
        for event in &trace.events[from.min(trace.events.len())..] {
            if let Some(rebalance) = self.inputs.rebalance
                && let Some(time) = self.periods.due(rebalance.every, event.time)
            {
                self.fail_until(time, &mut before, &mut after)?;
                before(time, &mut self.estate)?;
                self.rebalance(rebalance, time, |moved, estate| after(time, moved, estate))?;
            }
            self.fail_until(event.time, &mut before, &mut after)?;
            before(event.time, &mut self.estate)?;
            self.estate.set_now(event.time)?;
            if self.inputs.migrations > 0.0 {
                self.migrations.go_on_to(event.time, self.inputs.migrations, self.alive);
            }
            let played = match event.kind {
                Kind::Create => match self.create(event, |moved, estate| after(event.time, moved, estate))? {
                    Some(host) => Played::Placed(event.vm, host),
                    None => Played::Rejected(event.vm),
                },
                Kind::Delete if self.fading => continue,
                Kind::Delete => {
                    let waits = self.estate.waiting().contains_key(&event.vm);
                    match self.estate.end_of(event.vm)? {
                        Some(host) => Played::Left(event.vm, host),
                        None if waits => Played::Gone(event.vm),
                        None => Played::Orphan,
                    }
                }
            };
            match played {
                Played::Placed(..) => self.alive += 1,
                Played::Left(..) | Played::Gone(_) => self.alive -= 1,
                _ => {}
            }
            self.outages.played(played, event.time);
            after(event.time, played, &self.estate);
            self.events += 1;
            if self.events.is_multiple_of(TELL_EVERY) {
                self.watch.played(TELL_EVERY);
            }
            self.check(self.inputs.check || self.events.is_multiple_of(CHECK_EVERY))?;
            if self.stop && matches!(played, Played::Rejected(_)) {
                break;
            }
        }
        self.watch.played(self.events % TELL_EVERY);
        Ok(())
    }

    /// Hosts fail and come back, and what waits is planned, up to `time`.
    fn fail_until(
        &mut self,
        time: u64,
        before: &mut impl FnMut(u64, &mut Estate) -> Result<(), String>,
        after: &mut impl FnMut(u64, Played, &Estate),
    ) -> Result<(), String> {
        while let Some(time) = self.outages.due(time) {
            before(time, &mut self.estate)?;
            self.estate.set_now(time)?;
            let trace = &self.inputs.trace;
            self.outages.play(time, trace, &mut self.estate, |played, estate| after(time, played, estate))?;
            self.check(self.inputs.check)?;
        }
        Ok(())
    }

    /// Checks the invariants of the core, if that is due.
    fn check(&self, due: bool) -> Result<(), String> {
        let broken = if due { self.estate.core().check() } else { Vec::new() };
        if broken.is_empty() {
            return Ok(());
        }
        Err(format!("an invariant is broken after event {}: {}", self.events, broken.join("; ")))
    }

    /// A VM is asked for; if it fits nowhere, others are moved as far as the day's budget goes, and it is asked for again.
    fn create(&mut self, event: &Event, mut moved: impl FnMut(Played, &Estate)) -> Result<Option<u32>, String> {
        let vm = event.vm;
        if let Some(host) = self.estate.create(vm)? {
            return Ok(Some(host));
        }
        let Some(plan) = self.estate.room_for(vm, self.migrations.left()) else { return Ok(None) };
        for &Move { item, from, to } in &plan.moves {
            self.estate.migrate(item, to as u32)?;
            self.migrations.count(self.inputs.trace.shape(item).memory_mib);
            self.periods.moved(item, from, to, event.time);
            moved(Played::Moved(item, from as u32, to as u32, "room"), &self.estate);
        }
        let host = self.estate.place(vm)?;
        // The plan made room: a pipeline that refuses it has rules that the plan does not know.
        match host {
            Some(_) => self.migrations.made_room += 1,
            None => self.migrations.in_vain += plan.moves.len() as u64,
        }
        Ok(host)
    }
}

impl Player<'_> {
    /// Hosts are rebalanced at a time, as far as the budget goes.
    fn rebalance(
        &mut self,
        rebalance: Rebalance,
        time: u64,
        mut moved: impl FnMut(Played, &Estate),
    ) -> Result<(), String> {
        // The day that ends now is not the next one yet.
        self.migrations.go_on_to(time.saturating_sub(1), self.inputs.migrations, self.alive);
        self.estate.set_now(time)?;
        let most = self.migrations.left_at(time);
        let mut period = Period { time_s: time as f64 / 1000.0, budget: most as u64, ..Period::default() };
        if most > 0 {
            let sites = self.estate.sites();
            let in_use: Vec<bool> = sites.iter().map(|site| !site.items.is_empty()).collect();
            let steps = self.periods.plan(rebalance.objective, sites, most, time);
            for &Move { item, from, to } in steps.iter().flat_map(|step| &step.moves) {
                self.estate.migrate(item, to as u32)?;
                let memory_mib = self.inputs.trace.shape(item).memory_mib;
                self.migrations.count(memory_mib);
                self.periods.moved(item, from, to, time);
                (period.moves, period.memory_mib) = (period.moves + 1, period.memory_mib + memory_mib);
                moved(Played::Moved(item, from as u32, to as u32, rebalance.objective.name()), &self.estate);
            }
            let freed = in_use.iter().zip(self.estate.held()).filter(|(used, held)| **used && held.vms.is_empty());
            period.hosts_freed = freed.count() as u64;
        }
        self.migrations.rebalanced(period);
        Ok(())
    }
}

/// What a replay came to.
#[derive(Clone, Debug, Default)]
pub struct Replay {
    /// Averages and counts.
    pub metrics: Metrics,
    /// Moments, where a series was asked for.
    pub series: Vec<Moment>,
    /// Hosts over time, where a series was asked for.
    pub picture: Option<Picture>,
    /// Every decision and move, where they were asked for.
    pub record: Option<Record>,
}

/// What is wanted of a replay beside averages and counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// A series with a moment each so many milliseconds, and hosts over time.
    pub series: Option<u64>,
    /// Every decision and move.
    pub decisions: bool,
}

/// Mode `replay`: all events, rejected creates are dropped.
pub fn replay(
    inputs: &Inputs,
    policy: &Arc<Policy>,
    count: usize,
    wanted: Wanted,
    watch: &dyn Watch,
) -> Result<Replay, String> {
    let every = wanted.series;
    let mut estate = inputs.estate(policy, count)?;
    estate.keeps = wanted.decisions;
    let mut record = wanted.decisions.then(Record::default);
    let mut meter = Meter::new(&inputs.trace, &estate, inputs.warm());
    let mut series = Vec::new();
    let mut player = Player::new(inputs, estate, watch).failing()?;
    let begin = inputs.trace.events.first().map_or(0, |event| event.time);
    let (mut next, mut next_picture) = (begin, begin);
    let mut picture = every.map(|_| Picture::default());
    let meter = std::cell::RefCell::new(&mut meter);
    player.play(
        0,
        |time, estate| {
            let mut meter = meter.borrow_mut();
            if let Some(every) = every {
                while next < time {
                    meter.advance(next, estate);
                    series.push(meter.moment(next));
                    next += every;
                }
            }
            if let Some(picture) = &mut picture {
                while next_picture < time {
                    picture.take(next_picture, estate);
                    next_picture += ((inputs.trace.end() - begin) / MOMENTS).max(1);
                }
            }
            meter.advance(time, estate);
            Ok(())
        },
        |time, played, estate| {
            let mut meter = meter.borrow_mut();
            let host = |host: u32| &*estate.hosts()[host as usize].id;
            let id = |vm: u32| &*inputs.trace.vms[vm as usize].id;
            let mut outcome = None;
            match played {
                Played::Placed(vm, at) => {
                    meter.placed(vm, at, estate);
                    outcome = Some((vm, Ok(host(at))));
                }
                Played::Rejected(vm) => outcome = Some((vm, Err(meter.rejected(vm, time, estate)))),
                Played::Moved(vm, from, to, _) => meter.moved(vm, from, to, estate),
                Played::Left(vm, host) => meter.left(vm, host, estate),
                Played::Lost(vm, host) => meter.lost(vm, host, estate),
                Played::Restored(vm, host) => meter.restored(vm, host, estate),
                Played::Gone(_) => meter.gone(),
                Played::Orphan => meter.orphan(),
            }
            let Some(record) = &mut record else { return };
            if let Some(((vm, outcome), decision)) = outcome.zip(estate.decided()) {
                record.decided(time, id(vm), outcome, decision);
            }
            if let Played::Moved(vm, from, to, why) = played {
                record.moved(time, id(vm), [host(from), host(to)], inputs.trace.shape(vm).memory_mib, why);
            }
        },
    )?;
    let migrations = (inputs.migrations > 0.0).then_some(player.migrations);
    if let Some(picture) = &mut picture {
        picture.take(inputs.trace.end(), &player.estate);
        picture.take_free(&player.estate);
    }
    let lifetimes = player.estate.calibration();
    let failures = inputs.failures.is_some().then(|| player.outages.metrics(inputs.trace.end()));
    let metrics = Metrics { migrations, failures, lifetimes, ..meter.into_inner().metrics() };
    Ok(Replay { metrics, series, picture, record })
}

/// What was moved in a replay on the first `count` hosts without a rejection; `None`: there was one.
pub fn passes(
    inputs: &Inputs,
    policy: &Arc<Policy>,
    count: usize,
    watch: &dyn Watch,
) -> Result<Option<Migrations>, String> {
    let mut player = Player::new(inputs, inputs.estate(policy, count)?, watch).stopping();
    let mut passed = true;
    player.play(0, |_, _| Ok(()), |_, played, _| passed &= !matches!(played, Played::Rejected(_)))?;
    Ok(passed.then_some(player.migrations))
}

/// Mode `min-hosts`: the least number of hosts without a rejection, from a lower bound on by 6 % each, then by bisection
/// (it need not be monotone); and what was moved on so many.
pub fn min_hosts(
    inputs: &Inputs,
    policy: &Arc<Policy>,
    bound: u64,
    watch: &dyn Watch,
) -> Result<(u64, Migrations), String> {
    let tried = |count: u64| {
        watch.step(&format!("{count} hosts"));
        passes(inputs, policy, count as usize, watch)
    };
    let mut fails = bound.max(1) - 1;
    let mut count = bound.max(1);
    let mut migrations = loop {
        if let Some(migrations) = tried(count)? {
            break migrations;
        }
        fails = count;
        let more = (count as f64 * 1.06).ceil() as u64;
        count = more.max(count + 1);
        if count > 100 * bound.max(100) {
            return Err(format!(
                "policy '{}' rejects a VM even with {fails} hosts: no host may be large enough",
                policy.name
            ));
        }
    };
    while count - fails > 1 {
        let middle = fails + (count - fails) / 2;
        match tried(middle)? {
            Some(less) => (count, migrations) = (middle, less),
            None => fails = middle,
        }
    }
    Ok((count, migrations))
}

/// What a run from one start came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct FirstFailure {
    /// VMs placed before the first rejection, and their standard deviation over the starts.
    pub placed: f64,
    /// Standard deviation.
    pub placed_sd: f64,
    /// Use over capacity at that point.
    pub allocation: ByResource,
    /// Starts that ended without a rejection.
    pub without: u64,
}

/// Mode `first-failure`: from each of `starts` points with empty hosts up to the first rejection.
pub fn first_failure(
    inputs: &Inputs,
    policy: &Arc<Policy>,
    count: usize,
    starts: usize,
    fading: bool,
    watch: &dyn Watch,
) -> Result<FirstFailure, String> {
    let events = inputs.trace.events.len();
    let mut placed = Vec::new();
    let mut sums = [(0.0, 0_u64); 3];
    let mut without = 0;
    for k in 0..starts {
        watch.step(&format!("start {} of {starts}", k + 1));
        let from = (0.7 * events as f64 * k as f64 / starts as f64).floor() as usize;
        let moved = inputs.trace.events[from..].iter().position(|event| event.kind == Kind::Create).unwrap_or(0);
        let mut player = Player::new(inputs, inputs.estate(policy, count)?, watch).stopping();
        player.fading = fading;
        let (mut number, mut rejected) = (0_u64, false);
        player.play(
            from + moved,
            |_, _| Ok(()),
            |_, played, _| match played {
                Played::Placed(..) => number += 1,
                Played::Rejected(_) => rejected = true,
                _ => {}
            },
        )?;
        without += u64::from(!rejected);
        placed.push(number as f64);
        for (r, (sum, n)) in sums.iter_mut().enumerate() {
            let capacity: u64 = player.estate.capacity().iter().map(|capacity| capacity[r]).sum();
            let used: u64 = player.estate.held().iter().map(|held| held.used[r]).sum();
            if capacity > 0 {
                *sum += used as f64 / capacity as f64;
                *n += 1;
            }
        }
    }
    let n = placed.len().max(1) as f64;
    let mean = placed.iter().sum::<f64>() / n;
    let variance = placed.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n;
    let allocation = ByResource::of(sums.map(|(sum, n)| (n > 0).then(|| sum / n as f64)));
    Ok(FirstFailure { placed: mean, placed_sd: variance.sqrt(), allocation, without })
}
