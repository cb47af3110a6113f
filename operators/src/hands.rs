//! The hands of failover: they carry out the calls of the coordinator on BMCs and on Nova, and tell what came
//! of them. They decide nothing, keep nothing that matters, and try nothing twice: the coordinator asks again.
//!
//! ```text
//!  Call ─▶ Hands ─┬─▶ power ─▶ redfish (HTTP) | ipmi (ipmitool)
//!                 └─▶ nova ──▶ keystone
//!           │ ▲
//!           ▼ │ hosts, intents, the barrier
//!          Ledger (the server)
//! ```
//!
//! - A call that changes something and has a [`Barrier`] passes it right in front of its write, on a connection
//!   of its own that goes through no proxy, is tried once, and is cut off at the barrier's deadline.
//! - An answer that is not whole is no answer: a cell of Nova that is left out, a page that is missing.
//! - All calls have a deadline, and their number in flight is bounded: one to a BMC, a few to Nova, and none
//!   while the same one is under way.
//! - A secret is read from its file when it is used, and is in no log, no error and no `Debug`.

use scheduler::ha::coordinator::{Answer, Barrier, Call, Told};
use scheduler::ha::host::{Fencer, HostId, Machine};
use uuid::Uuid;

mod config;
mod flights;
mod http;
mod ipmi;
mod keystone;
mod nova;
mod power;
mod redfish;

pub use config::{Config, ConfigError, Interface, Ipmi, Login, Nova, Privilege, Redfish, RedfishAuth};

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

/// What the hands ask of the server: the replicated state as this node has it, and the right to act.
pub trait Ledger: Send + Sync {
    /// A host.
    fn host(&self, id: HostId) -> Option<Known>;
    /// The host that Nova calls so.
    fn named(&self, nova_host: &str) -> Option<HostId>;
    /// The fencer of a fence operation, by its id.
    fn fencer(&self, intent: Uuid) -> Option<Fencer>;
    /// The dead host that an instance is being recovered from.
    fn source(&self, instance: Uuid) -> Option<HostId>;
    /// When an agent's list of domains that lacks the instance was taken in, replicated milliseconds. None:
    /// there is no list, or the instance is on it.
    fn absent(&self, host: HostId, instance: Uuid) -> Option<u64>;
    /// Whether a barrier holds now. It is asked right in front of the write, and nothing comes between.
    fn passes(&self, barrier: &Barrier) -> impl Future<Output = bool> + Send;
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

    /// Does one call. None: there is no answer, and the reason is in the log. Dropped, it ends all that it
    /// began; what it had written by then may have happened.
    pub async fn act(&self, call: Call) -> Option<Told> {
        let ledger = &self.ledger;
        match call {
            Call::ReadPower(id) => self.bmcs.read(id, &ledger.host(id)?).await,
            Call::PowerOff { host, barrier } => self.bmcs.off(host, &ledger.host(host)?, &barrier, ledger).await,
            Call::ForceDown(id) => self.nova()?.force_down(id, &ledger.host(id)?).await,
            Call::Disable(id) => self.nova()?.disable(id, &ledger.host(id)?).await,
            Call::ListServers(id) => self.nova()?.list(id, &ledger.host(id)?, ledger).await,
            Call::ReadServer(instance) => self.nova()?.read(instance, ledger).await,
            Call::Evacuate { instance, target, barrier } => {
                let answer = match (&self.nova, ledger.host(target)) {
                    (Some(nova), Some(target)) => nova.evacuate(instance, &target.nova_host, &barrier, ledger).await,
                    _ => Answer::NotSent,
                };
                Some(Told::Evacuated { instance, op: barrier.intent, answer })
            }
            Call::ReadDomain { host, instance } => {
                ledger.absent(host, instance).map(|at| Told::Absent { host, instance, at })
            }
        }
    }

    fn nova(&self) -> Option<&nova::Nova> {
        if self.nova.is_none() {
            tracing::warn!("failover needs Nova, and there is none in the configuration: set 'nova'");
        }
        self.nova.as_ref()
    }
}

impl<L> std::fmt::Debug for Hands<L> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hands").finish_non_exhaustive()
    }
}
