//! What a policy is told of how long VMs live: by the trace itself, or by a forecast from what happened so far.

use plugins::packing::lifetime::EXIT_FEATURE;
use scheduler::{Command, FeatureReport};

use super::{ENDLESS, Estate, LEARN_EVERY, NOWHERE, START};
use crate::trace::hosts::Host;
use crate::trace::lifetimes::{Calibration, Forecast, Knowledge};

/// Virtual time between two looks at hosts that should be empty by now, milliseconds.
const LOOK_EVERY: u64 = 300_000;

impl Estate {
    /// A VM ends; its host, or `None` when it was never placed.
    pub fn end_of(&mut self, vm: u32) -> Result<Option<u32>, String> {
        let waits = self.waiting.contains_key(&vm);
        if let Some(forecast) = self.forecast.as_mut().filter(|_| waits || self.at[vm as usize] != NOWHERE) {
            forecast.ends(vm, self.now);
        }
        if waits {
            self.forget(vm)?;
        }
        self.delete(vm)
    }

    /// How long VMs were expected to live, against what came; `None`: nobody was told a forecast.
    pub fn calibration(&self) -> Option<Calibration> {
        self.forecast.as_ref().map(Forecast::calibration)
    }

    /// The forecast is brought up to date; `before` was the time until now. A host whose time has passed is spoken of anew:
    /// its VMs have turned out to live longer.
    pub(super) fn look_ahead(&mut self, before: u64) -> Result<(), String> {
        let passed = |every: u64| before / every < self.now / every;
        let (learns, looks) = (passed(LEARN_EVERY), passed(LOOK_EVERY));
        let Some(forecast) = self.forecast.as_mut().filter(|_| learns || looks) else { return Ok(()) };
        if learns {
            forecast.learn(self.now, self.held.iter().flat_map(|held| held.vms.iter().copied()));
        }
        for host in 0..self.held.len() {
            let late = self.exits[host] <= self.now as f64 / 1000.0;
            if !self.held[host].vms.is_empty() && (learns || late) {
                self.foretell(host as u32)?;
            }
        }
        Ok(())
    }

    /// End of a VM as the policy is told it, seconds of the trace.
    pub(super) fn end(&self, vm: u32) -> f64 {
        if let Some(forecast) = &self.forecast {
            return forecast.left(vm, self.now).map_or(ENDLESS, |left| self.now as f64 / 1000.0 + left);
        }
        let vm = &self.trace.vms[vm as usize];
        vm.lifetime.map_or(ENDLESS, |life| (vm.created + life) as f64 / 1000.0)
    }

    /// A host's last end, as a source of features says it to a policy that is told lifetimes.
    pub(super) fn foretell(&mut self, host: u32) -> Result<(), String> {
        if self.policy.lifetimes == Knowledge::None {
            return Ok(());
        }
        let last = self.held[host as usize].vms.iter().map(|&vm| self.end(vm)).reduce(f64::max);
        self.exits[host as usize] = last.unwrap_or(ENDLESS);
        let values = last.map(|last| (EXIT_FEATURE.to_owned(), last + START as f64 / 1000.0));
        let forget = if last.is_none() { vec![EXIT_FEATURE.to_owned()] } else { Vec::new() };
        let report = FeatureReport {
            domain: self.domain,
            name: Host::name_at(host as usize),
            values: values.into_iter().collect(),
            forget,
            ..FeatureReport::default()
        };
        self.tell(Command::Features(Box::new(report)))
    }
}
