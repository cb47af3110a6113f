//! The hands of failover: they carry out the calls of the coordinator on BMCs and on Nova, and tell what came
//! of them. They decide nothing, keep nothing that matters, and try nothing twice: the coordinator asks again.
//!
//! ```text
//!  Call ─▶ Hands ─┬─▶ power ─▶ redfish (HTTP) | ipmi (ipmitool)
//!                 └─▶ nova ──▶ keystone
//!           │ ▲
//!           ▼ │ hosts, intents; may I write now?
//!       Ledger, Gate (the server)
//! ```
//!
//! - A call that changes something and has a barrier passes it right in front of its write, on a connection
//!   of its own that goes through no proxy, is tried once, and is cut off at the barrier's deadline.
//! - An answer that is not whole is no answer: a cell of Nova that is left out, a page that is missing.
//! - All calls have a deadline, and their number in flight is bounded: one to a BMC, a few to Nova, and none
//!   while the same one is under way.
//! - A secret is read from its file when it is used, and is in no log, no error and no `Debug`.

use std::pin::Pin;
use std::sync::Arc;

use scheduler::ha::coordinator::{Answer, Call, Told};
use scheduler::ha::host::{Fencer, HostId, Machine};
use uuid::Uuid;

use crate::failover::{self, Gate, Tally};
use nova::Act;

pub(crate) mod config;
mod flights;
pub(crate) mod http;
mod ipmi;
mod keystone;
mod ledger;
mod nova;
mod power;
mod redfish;

pub use config::{Config, ConfigError, Interface, Ipmi, Login, Nova, Privilege, Redfish, RedfishAuth};

const NO_NOVA: &str = "failover needs Nova, and there is none in the configuration: set 'nova'";

/// What the hands know of a host.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Known {
    /// Nova's name of it.
    pub nova_host: String,
    /// Nova's compute service, if the inventory has it.
    pub nova_service: Option<Uuid>,
    /// Who the machine is: what a BMC must say before anything is switched.
    pub machine: Machine,
    /// Address of its BMC: `host`, `host:port` of Redfish over https, or a URL, with the path of its system
    /// (`…/redfish/v1/Systems/1`) where that is not to be looked for.
    pub bmc: Option<String>,
    /// What fences it, the first level first.
    pub fencers: Vec<Fencer>,
    /// Its Nova cell; empty: not known.
    pub cell: String,
}

/// Where the hands look up what a call is about.
pub trait Ledger: Send + Sync + 'static {
    /// What it shows.
    type View: View;
    /// The replicated state as the leader has it now; none: this node leads no more.
    fn view(&self) -> impl Future<Output = Option<Self::View>> + Send;
}

/// The replicated state at one moment.
pub trait View: Send + Sync {
    /// A host.
    fn host(&self, id: HostId) -> Option<Known>;
    /// The host that Nova calls so.
    fn named(&self, nova_host: &str) -> Option<HostId>;
    /// The fencer of a fence operation, by its id.
    fn fencer(&self, intent: Uuid) -> Option<Fencer>;
    /// The dead host that an instance is being recovered from, else the one that it may run on.
    fn source(&self, instance: Uuid) -> Option<HostId>;
    /// When an agent's list of domains that lacks the instance, or has it shut off, was taken in, replicated milliseconds.
    /// None: there is no list, or it may have a process there.
    fn absent(&self, host: HostId, instance: Uuid) -> Option<u64>;
}

/// Carries out calls.
pub struct Hands<L> {
    ledger: L,
    bmcs: power::Bmcs,
    nova: Option<nova::Nova>,
}

impl<L: Ledger> Hands<L> {
    /// Checks the configuration, and reads each of its files once.
    pub fn open(config: &Config, ledger: L) -> Result<Self, ConfigError> {
        config.check()?;
        let nova = config.nova.clone().map(nova::Nova::open).transpose()?;
        Ok(Self { ledger, bmcs: power::Bmcs::open(config)?, nova })
    }

    /// Follows the files of CAs until dropped.
    pub async fn watch(&self) {
        let nova = async {
            match &self.nova {
                Some(nova) => nova.watch().await,
                None => std::future::pending().await,
            }
        };
        tokio::join!(nova, self.bmcs.watch());
    }

    /// Does one call; `gate` is asked right in front of each write that has a barrier. None: there is no
    /// answer, and the reason is in the log. Dropped, it ends all that it began; what it had written by then
    /// may have happened.
    pub async fn act(&self, call: Call, gate: &dyn Gate) -> Option<Told> {
        let view = self.ledger.view().await;
        if let Call::Evacuate { instance, target, barrier } = call {
            let answer = match (&self.nova, view.and_then(|view| view.host(target))) {
                (Some(nova), Some(target)) => nova.evacuate(instance, &target.nova_host, &barrier, gate).await,
                _ => Answer::NotSent,
            };
            return Some(Told::Evacuated { instance, op: barrier.intent, answer });
        }
        let view = &view?;
        match call {
            Call::ReadPower(id) => self.bmcs.read(id, &view.host(id)?).await,
            Call::PowerOff { host, barrier } => {
                self.bmcs.off(host, &view.host(host)?, &barrier, view.fencer(barrier.intent), gate).await
            }
            Call::ForceDown { host, barrier } => self.nova()?.force_down(host, &view.host(host)?, &barrier, gate).await,
            Call::Disable { host, barrier } => self.nova()?.disable(host, &view.host(host)?, &barrier, gate).await,
            Call::Cordon { host, barrier } => self.nova()?.cordon(host, &view.host(host)?, &barrier, gate).await,
            Call::ListServers(id) => self.nova()?.list(id, &view.host(id)?, view).await,
            Call::ListGroups => self.nova()?.groups().await,
            Call::ReadMark | Call::SetMark { .. } if self.nova.is_none() => Some(Told::Mark(Err(NO_NOVA.to_owned()))),
            Call::ReadMark => self.nova()?.read_mark().await,
            Call::SetMark { cluster, over } => self.nova()?.set_mark(cluster, over).await,
            Call::ReadServer(instance) => self.nova()?.read(instance, view).await,
            Call::ReadCompute(id) => self.nova()?.compute(id, &view.host(id)?, view).await,
            Call::Unforce { host, barrier } => self.nova()?.unforce(host, &view.host(host)?, &barrier, gate).await,
            Call::Enable { host, barrier } => self.nova()?.enable(host, &view.host(host)?, &barrier, gate).await,
            Call::ReadDomain { host, instance } => {
                view.absent(host, instance).map(|at| Told::Absent { host, instance, at })
            }
            Call::Migrate { instance, target, live, barrier } => {
                let target = view.host(target)?;
                let act = Act::Migrate(&target.nova_host, live);
                let answer = self.nova()?.act(instance, act, &barrier, gate).await;
                Some(Told::Migrated { instance, op: barrier.intent, answer })
            }
            Call::ReadProgress { instance, migration } => self.nova()?.progress(instance, migration).await,
            Call::Confirm { instance, barrier } => {
                self.nova()?.act(instance, Act::Confirm, &barrier, gate).await;
                None
            }
            Call::ForceComplete { instance, migration, barrier } => {
                self.nova()?.act(instance, Act::Force(migration), &barrier, gate).await;
                None
            }
            Call::AbortMigration { instance, migration, barrier } => {
                self.nova()?.act(instance, Act::Abort(migration), &barrier, gate).await;
                None
            }
            Call::Restart { instance, barrier, .. } => {
                let answer = self.nova()?.act(instance, Act::Reboot, &barrier, gate).await;
                Some(Told::Restarted { instance, op: barrier.intent, answer })
            }
            Call::MoveUnhelped { instance, target, barrier, .. } => {
                let target = view.host(target)?;
                let act = Act::Migrate(&target.nova_host, false);
                let answer = self.nova()?.act(instance, act, &barrier, gate).await;
                Some(Told::Migrated { instance, op: barrier.intent, answer })
            }
            Call::Stop { instance, barrier } => {
                let answer = self.nova()?.act(instance, Act::Stop, &barrier, gate).await;
                Some(Told::Stopped { instance, op: barrier.intent, answer })
            }
            Call::PowerOn { host, barrier } => self.bmcs.on(host, &view.host(host)?, &barrier, gate).await,
            // The loop lists domains itself, and nova-compute starts by itself once its agent may let it.
            Call::Evacuate { .. } | Call::StartNova { .. } | Call::ListDomains(_) => None,
        }
    }

    /// What came of the requests to Nova so far.
    pub fn tally(&self) -> Tally {
        self.nova.as_ref().map(nova::Nova::tally).unwrap_or_default()
    }

    fn nova(&self) -> Option<&nova::Nova> {
        if self.nova.is_none() {
            tracing::warn!("{NO_NOVA}");
        }
        self.nova.as_ref()
    }
}

impl<L: Ledger> failover::Hands for Hands<L> {
    fn act(self: Arc<Self>, call: Call, gate: Arc<dyn Gate>) -> Pin<Box<dyn Future<Output = Option<Told>> + Send>> {
        Box::pin(async move { Hands::act(&self, call, &*gate).await })
    }

    fn tally(&self) -> Tally {
        Hands::tally(self)
    }
}

impl<L> std::fmt::Debug for Hands<L> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hands").finish_non_exhaustive()
    }
}
