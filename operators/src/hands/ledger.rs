//! The state of the node that leads, as the hands look at it.

use raft::Node;
use scheduler::ha::HostId;
use scheduler::ha::host::Fencer;
use scheduler::state::Tables;
use uuid::Uuid;

use super::{Known, Ledger, View};

/// The state at one moment, and what the node hears.
pub struct Seen {
    node: Node,
    tables: Tables,
    clock: u64,
}

impl Ledger for Node {
    type View = Seen;

    async fn view(&self) -> Option<Seen> {
        let look = self.lead(|core, _| (core.state().tables().clone(), core.clock()));
        let (tables, clock) = look.await.ok()?;
        Some(Seen { node: self.clone(), tables, clock })
    }
}

impl View for Seen {
    fn host(&self, id: HostId) -> Option<Known> {
        let host = self.tables.failover().hosts.get(id)?;
        let text = |sym| self.tables.names.text(sym).to_owned();
        Some(Known {
            nova_host: text(host.nova_host),
            nova_service: host.nova_service,
            machine: host.machine.clone(),
            bmc: host.bmc.clone(),
            fencers: host.fencers.clone(),
            cell: text(host.places.cell),
        })
    }

    fn named(&self, nova_host: &str) -> Option<HostId> {
        let sym = self.tables.names.get(nova_host)?;
        self.tables.failover().hosts.iter().find(|host| host.nova_host == sym).map(|host| host.id)
    }

    fn fencer(&self, intent: Uuid) -> Option<Fencer> {
        self.tables.failover().cases.iter().find_map(|case| case.op(intent)).map(|op| op.fencer)
    }

    fn source(&self, instance: Uuid) -> Option<HostId> {
        let failover = self.tables.failover();
        let recovered = failover.recoveries.get(instance).map(|recovery| recovery.case.host);
        recovered.or_else(|| Some(failover.permits.get(instance)?.life.host))
    }

    fn absent(&self, host: HostId, instance: Uuid) -> Option<u64> {
        let boot = self.tables.failover().hosts.get(host)?.boot?;
        let (age, guests) = self.node.ears().domains(host, boot)?;
        let rests = guests.off.contains(&instance) || !guests.listed.contains(&instance);
        rests.then(|| self.clock.saturating_sub(age.as_millis() as u64))
    }
}
