//! What `--policy` stands for.

use std::path::Path;

use clap::ValueEnum;
use scheduler::Domain;
use simulation::trace::Policy;
use simulation::trace::lifetimes::Knowledge;
use simulation::trace::variation::vary;

use super::Failure;

/// Who tells pipelines how long VMs live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Lifetimes {
    /// Nobody
    #[default]
    None,
    /// What happened in the trace so far
    Learned,
    /// The trace: knowledge of the future
    Oracle,
}

/// The policies that a name or a file stands for, each with the settings that follow it.
pub fn policies(
    text: &str,
    domain: Domain,
    gpus: bool,
    seed: u64,
    lifetimes: Lifetimes,
) -> Result<Vec<Policy>, Failure> {
    let (name, settings) = text.split_once(':').map_or((text, None), |(name, settings)| (name, Some(settings)));
    let mut policies = named(name, domain, gpus, seed)?;
    for policy in &mut policies {
        if policy.asks_lifetimes() && policy.lifetimes == Knowledge::None {
            policy.lifetimes = match lifetimes {
                Lifetimes::None => Knowledge::None,
                Lifetimes::Learned => Knowledge::Learned,
                Lifetimes::Oracle => Knowledge::Oracle,
            };
        }
        if let Some(settings) = settings {
            *policy = vary(policy, settings).map_err(Failure::Usage)?;
        }
    }
    Ok(policies)
}

fn named(name: &str, domain: Domain, gpus: bool, seed: u64) -> Result<Vec<Policy>, Failure> {
    let is_file = Path::new(name).extension().is_some_and(|end| ["yaml", "yml", "json"].iter().any(|e| end == *e));
    if !is_file {
        return Ok(vec![Policy::named(name, domain, gpus, seed).map_err(Failure::Usage)?]);
    }
    let text = std::fs::read_to_string(name).map_err(|error| Failure::new(format!("{name}: {error}")))?;
    let resources = plugins::parse_pipelines(&text).map_err(|error| Failure::new(format!("{name}: {error}")))?;
    if resources.is_empty() {
        return Err(Failure::new(format!("{name}: no Pipeline in it, at least one expected")));
    }
    Ok(resources.into_iter().map(Policy::of).collect())
}
