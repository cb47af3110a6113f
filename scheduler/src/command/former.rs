//! Batches of the former level: the shapes that differ, and the way to them and back. Kept until the
//! level after, by which no member writes or reads them any more.

use bitcode::{Decode, Encode};
use uuid::Uuid;

use super::{Batch, Command, Place, Proposer};
use crate::catalogue;
use crate::domain::Domain;
use crate::features::FeatureReport;
#[cfg(feature = "next-level")]
use crate::ha;
use crate::report::HostReport;

#[derive(Encode, Decode)]
struct FormerBatch {
    proposer: Proposer,
    now: u64,
    wall: u64,
    commands: Vec<FormerCommand>,
}

#[derive(Encode, Decode)]
enum FormerCommand {
    Place(Box<Place>),
    Release {
        domain: Domain,
        consumer: Uuid,
        open_only: bool,
    },
    Report(Box<HostReport>),
    RemoveHost {
        domain: Domain,
        provider: Uuid,
    },
    Tick,
    Pipeline(Box<catalogue::Change>),
    Features(Box<FeatureReport>),
    Raise {
        level: u8,
    },
    #[cfg(feature = "next-level")]
    Failover(Box<ha::Order>),
}

/// The body of a batch whose commands are all of the former level: others are left out.
pub fn encode(batch: &Batch) -> Vec<u8> {
    let &Batch { proposer, now, wall, ref commands } = batch;
    let commands = commands.iter().filter_map(|command| {
        Some(match command.clone() {
            Command::Place(place) => FormerCommand::Place(place),
            Command::Release { domain, consumer, open_only } => FormerCommand::Release { domain, consumer, open_only },
            Command::Report(report) => FormerCommand::Report(report),
            Command::RemoveHost { domain, provider } => FormerCommand::RemoveHost { domain, provider },
            Command::Tick => FormerCommand::Tick,
            Command::Pipeline(change) => FormerCommand::Pipeline(change),
            Command::Features(report) => FormerCommand::Features(report),
            Command::Raise { level } => FormerCommand::Raise { level },
            #[cfg(feature = "next-level")]
            Command::Failover(order) => FormerCommand::Failover(order),
            #[cfg(feature = "next-level")]
            Command::Note(_) => return None,
            #[cfg(not(feature = "next-level"))]
            Command::Failover(_) => return None,
        })
    });
    let commands = commands.collect();
    bitcode::encode(&FormerBatch { proposer, now, wall, commands })
}

/// Reads what [`encode`] wrote.
pub fn decode(body: &[u8]) -> Result<Batch, bitcode::Error> {
    let FormerBatch { proposer, now, wall, commands } = bitcode::decode(body)?;
    let commands = commands.into_iter().map(|command| match command {
        FormerCommand::Place(place) => Command::Place(place),
        FormerCommand::Release { domain, consumer, open_only } => Command::Release { domain, consumer, open_only },
        FormerCommand::Report(report) => Command::Report(report),
        FormerCommand::RemoveHost { domain, provider } => Command::RemoveHost { domain, provider },
        FormerCommand::Tick => Command::Tick,
        FormerCommand::Pipeline(change) => Command::Pipeline(change),
        FormerCommand::Features(report) => Command::Features(report),
        FormerCommand::Raise { level } => Command::Raise { level },
        #[cfg(feature = "next-level")]
        FormerCommand::Failover(order) => Command::Failover(order),
    });
    Ok(Batch { proposer, now, wall, commands: commands.collect() })
}
