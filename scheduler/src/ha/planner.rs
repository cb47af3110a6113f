//! The planner: targets for the instances of a dead host. A function of the state: no clock, no budget of
//! time. Apply checks each assignment again, and what does not fit any more waits.
//!
//! Where an instance may go is asked of [`Targets`] (the filters and weighers, with the intent to
//! evacuate); here that becomes a plan as a whole: the largest first, each on the best host that the others
//! have left room on.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::case::Case;
use super::order::{Assignment, To};
use super::recovery::{Life, Recorded, Status, Stays, VmState, Waiting};
use crate::consumer::Purpose;
use crate::domain::Domain;
use crate::provider::{Amounts, Row};
use crate::state::Tables;

/// Where an instance may go, the best first.
pub trait Targets {
    /// Lives of hosts that every filter lets it go to.
    fn ranked(&self, instance: Uuid, source: Life) -> Vec<Life>;
}

/// A plan for all instances that are permitted on the dead life, and for those that Nova lists there.
pub fn plan(tables: &Tables, case: &Case, servers: &[(Uuid, Recorded)], targets: &dyn Targets) -> Vec<Assignment> {
    let ha = tables.failover();
    let source = Life { host: case.id.host, incarnation: case.id.incarnation };
    let listed: BTreeMap<Uuid, Recorded> = servers.iter().copied().collect();
    let mut out = Vec::new();
    let mut movable: Vec<(u64, Uuid, Recorded, Amounts)> = Vec::new();
    let permitted = ha.permits.iter().filter(|permit| permit.life == source).map(|permit| permit.instance);
    let mut all: Vec<Uuid> = permitted.chain(listed.keys().copied()).collect();
    all.sort_unstable();
    all.dedup();
    for instance in all {
        // What another case has settled is this one's now.
        let known = ha.recoveries.get(instance).filter(|known| known.case == case.id || !known.status.is_settled());
        if known.is_some_and(|known| known.case != case.id || !matches!(known.status, Status::Waiting(_))) {
            continue;
        }
        let recorded = known.map(|known| known.recorded).or_else(|| listed.get(&instance).copied());
        let Some(recorded) = recorded else {
            // Permitted here, and Nova does not list it: it may be gone, or the list may be short.
            let recorded = Recorded { vm: VmState::Other, running: false, task: false };
            out.push(Assignment { instance, recorded, to: To::Stays(Stays::Conflict) });
            continue;
        };
        let stays = match recorded.vm {
            _ if ha.permits.get(instance).is_none_or(|permit| permit.life != source) => Some(Stays::PermitConflict),
            _ if recorded.task => Some(Stays::TaskState),
            VmState::Error => Some(Stays::ErrorState),
            VmState::Other => Some(Stays::NotRunning),
            VmState::Active | VmState::Stopped => None,
        };
        match (stays, tables.consumer(Domain::Nova, instance, Purpose::Instance)) {
            (Some(why), _) => out.push(Assignment { instance, recorded, to: To::Stays(why) }),
            (None, Some(home)) if !home.amounts.is_empty() => {
                let size = home.amounts.iter().map(|(_, amount)| amount).max().unwrap_or(0);
                movable.push((size, instance, recorded, (*home.amounts).clone()));
            }
            (None, _) => out.push(Assignment { instance, recorded, to: To::Waiting(Waiting::Size) }),
        }
    }
    movable.sort_unstable_by(|one, other| other.0.cmp(&one.0).then(one.1.cmp(&other.1)));
    let mut taken: BTreeMap<Row, Amounts> = BTreeMap::new();
    for (_, instance, recorded, amounts) in movable {
        let excluded =
            |life: &Life| ha.recoveries.get(instance).is_some_and(|known| known.excluded.contains(&life.host));
        let found = targets.ranked(instance, source).into_iter().filter(|life| !excluded(life)).find_map(|life| {
            let host = ha.hosts.get(life.host)?;
            let free =
                host.takes_instances() && host.incarnation == life.incarnation && ha.cases.get(life.host).is_none();
            let row = tables.row_of_node(Domain::Nova, tables.names.text(host.nova_host), None).filter(|_| free)?;
            let provider = tables.provider(row)?;
            let mut with = taken.get(&row).cloned().unwrap_or_default();
            with.add(&amounts);
            provider.fits(&with, &Amounts::default()).then_some((row, life, with))
        });
        let to = match found {
            Some((row, life, with)) => {
                taken.insert(row, with);
                To::Target(life)
            }
            None => To::Waiting(Waiting::Capacity),
        };
        out.push(Assignment { instance, recorded, to });
    }
    out
}
