//! Power of a host through its BMC: whichever of its levels answers first is read, and the level that an
//! intent names switches off. A dead host that is to come back is switched on.
//!
//! Never here: a power state out of a status code, a reset, a graceful shutdown.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use scheduler::ha::coordinator::{Barrier, Told};
use scheduler::ha::host::{Fencer, HostId, Machine};
use scheduler::ha::proof::{Power, PowerRead};
use uuid::Uuid;

use super::Known;
use super::config::{Config, ConfigError};
use super::flights::Flights;
use super::ipmi::Ipmi;
use super::redfish::Redfish;
use crate::failover::Gate;

/// A call to a BMC.
const MOST: Duration = Duration::from_secs(5);
/// The next level is asked too when the one before it has not answered for so long.
const HEAD_START: Duration = Duration::from_millis(1_500);
/// BMCs that are talked to at once.
const AT_ONCE: usize = 64;
/// Bytes of a raw state or a serial number that are kept.
const TEXT: usize = 128;
/// Characters of why there is no state.
const WHY: usize = 200;

/// Why nothing is known of a power state.
pub(super) type Why = String;

/// What a machine is switched to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Switch {
    Off,
    On,
}

impl Switch {
    /// Whether there is nothing to do in that state. Only what is off, exactly, is switched on.
    pub(super) fn is_done(self, power: Power) -> bool {
        match self {
            Self::Off => power == Power::Off,
            Self::On => power != Power::Off,
        }
    }
}

pub(super) struct Bmcs {
    redfish: Option<Redfish>,
    ipmi: Option<Ipmi>,
    flights: Flights<String>,
}

impl Bmcs {
    pub(super) fn open(config: &Config) -> Result<Self, ConfigError> {
        Ok(Self {
            redfish: config.redfish.clone().map(Redfish::open).transpose()?,
            ipmi: config.ipmi.clone().map(Ipmi::new),
            flights: Flights::new(AT_ONCE),
        })
    }

    pub(super) async fn watch(&self) {
        match &self.redfish {
            Some(redfish) => redfish.watch().await,
            None => std::future::pending().await,
        }
    }

    /// Power state and identity, of one session with one of the host's levels, or why none of them says so. None
    /// while it is being asked already.
    pub(super) async fn read(&self, id: HostId, known: &Known) -> Option<Told> {
        let bmc = known.bmc.as_deref()?;
        let _flight = self.flights.enter(bmc.to_owned()).await?;
        let levels = known.fencers.iter().filter(|fencer| matches!(fencer, Fencer::Redfish | Fencer::Ipmi));
        let mut asked = FuturesUnordered::new();
        for (nth, &fencer) in levels.enumerate() {
            asked.push(async move {
                tokio::time::sleep(HEAD_START * nth as u32).await;
                let read = tokio::time::timeout(MOST, self.read_by(fencer, bmc, known)).await;
                (fencer, read.unwrap_or_else(|_| Err(format!("no answer within {MOST:?}"))))
            });
        }
        let mut unread = None;
        while let Some((fencer, read)) = asked.next().await {
            match read {
                Ok(read) => return Some(told(id, known, read)),
                Err(why) => {
                    tracing::warn!(host = %known.nova_host, ?fencer, why, "no power state");
                    // What the first of them said: the second one only waits longer.
                    unread.get_or_insert_with(|| why.replace(char::is_control, " ").chars().take(WHY).collect());
                }
            }
        }
        unread.map(|why| Told::Unread(id, why))
    }

    async fn read_by(&self, fencer: Fencer, bmc: &str, known: &Known) -> Result<PowerRead, Why> {
        match (fencer, &self.redfish, &self.ipmi) {
            (Fencer::Redfish, Some(redfish), _) => redfish.read(bmc, known).await,
            (Fencer::Ipmi, _, Some(ipmi)) => ipmi.read(bmc, known).await,
            (fencer, ..) => Err(missing(fencer)),
        }
    }

    /// Power off, by the level that the intent names, unless it is off or the BMC is another machine's. Told
    /// is what was read, before or after: that it was sent says nothing.
    pub(super) async fn off(
        &self,
        id: HostId,
        known: &Known,
        barrier: &Barrier,
        fencer: Option<Fencer>,
        gate: &dyn Gate,
    ) -> Option<Told> {
        let bmc = known.bmc.as_deref()?;
        let Some(fencer) = fencer else {
            tracing::warn!(host = %known.nova_host, intent = %barrier.intent, "no fence: its intent is not in the state");
            return None;
        };
        self.switch(id, known, bmc, Switch::Off, fencer, barrier, gate).await
    }

    /// Power on, by the first of the host's levels that switches, if it is off and the BMC is the host's.
    pub(super) async fn on(&self, id: HostId, known: &Known, barrier: &Barrier, gate: &dyn Gate) -> Option<Told> {
        let bmc = known.bmc.as_deref()?;
        let fencer = known.fencers.iter().copied().find(|fencer| matches!(fencer, Fencer::Redfish | Fencer::Ipmi))?;
        self.switch(id, known, bmc, Switch::On, fencer, barrier, gate).await
    }

    #[expect(clippy::too_many_arguments, reason = "two callers, and each of them is another fact")]
    async fn switch(
        &self,
        id: HostId,
        known: &Known,
        bmc: &str,
        to: Switch,
        fencer: Fencer,
        barrier: &Barrier,
        gate: &dyn Gate,
    ) -> Option<Told> {
        let most = Duration::from_millis(barrier.deadline);
        let switched = async {
            let _flight = self.flights.wait(bmc.to_owned()).await.ok_or_else(|| "closing".to_owned())?;
            match (fencer, &self.redfish, &self.ipmi) {
                (Fencer::Redfish, Some(redfish), _) => {
                    redfish.switch(bmc, known, to, most, || gate.passes(*barrier)).await
                }
                (Fencer::Ipmi, _, Some(ipmi)) => ipmi.switch(bmc, known, to, || gate.passes(*barrier)).await,
                (fencer, ..) => Err(missing(fencer)),
            }
        };
        match tokio::time::timeout(most, switched).await {
            Ok(Ok(read)) => Some(told(id, known, read)),
            Ok(Err(why)) => {
                tracing::warn!(host = %known.nova_host, ?fencer, ?to, why, "power: no state after it was switched");
                None
            }
            Err(_) => {
                tracing::warn!(host = %known.nova_host, ?fencer, ?to, "power: given up after {most:?}");
                None
            }
        }
    }
}

fn missing(fencer: Fencer) -> Why {
    match fencer {
        Fencer::Redfish => "the host's level is redfish, and there are no credentials for it: set 'redfish'".to_owned(),
        Fencer::Ipmi => "the host's level is ipmi, and there are no credentials for it: set 'ipmi'".to_owned(),
        Fencer::WatchdogLease | Fencer::Manual => "this level switches nothing".to_owned(),
    }
}

fn told(id: HostId, known: &Known, read: PowerRead) -> Told {
    if !known.machine.is(&read.machine) {
        tracing::error!(
            host = %known.nova_host,
            bmc = known.bmc,
            expected = %known.machine,
            read = %read.machine,
            "the BMC belongs to another machine: nothing is switched there; look at its address in the inventory"
        );
    }
    Told::Power(id, read)
}

/// What was read; the coordinator says when.
pub(super) fn read(power: Power, raw: &str, uuid: Option<Uuid>, serial: Option<&str>) -> PowerRead {
    // What firmware has where nobody wrote an identity.
    let blank = |uuid: &Uuid| uuid.is_nil() || uuid.is_max();
    let serial = serial.map(str::trim).filter(|serial| !serial.is_empty()).map(cut);
    PowerRead { power, raw: cut(raw), machine: Machine { uuid: uuid.filter(|uuid| !blank(uuid)), serial }, at: 0 }
}

fn cut(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(TEXT).collect()
}
