//! From what an operator tells of a host to what failover keeps of it.

use scheduler::ha::HostId;
use scheduler::ha::host::{Fencer, HostSpec, Machine, PlaceNames};
use scheduler::state::Tables;
use uuid::Uuid;

use super::provider;
use crate::proto::ha;

fn uuid(field: &str, given: Option<&str>) -> Result<Option<Uuid>, String> {
    let read = |text: &str| {
        Uuid::parse_str(text).map_err(|_| format!("{field}: '{}' given, a uuid expected", text.escape_debug()))
    };
    given.map(read).transpose()
}

/// A host with the defaults that its provider gives. Errors: what was given, what is expected.
pub(super) fn spec(tables: &Tables, given: &ha::FailoverHostSpec) -> Result<HostSpec, String> {
    let host = &given.host;
    let known = provider(tables, host);
    let id = uuid("id", given.id.as_deref())?.or_else(|| known.map(|provider| provider.uuid)).ok_or(
        "id: none given, and placement knows no hypervisor of this name: give an id, or import the hypervisor first",
    )?;
    let zone = known.and_then(|provider| provider.zone).map(|zone| tables.names.text(zone).to_owned());
    let az = given.az.clone().or(zone).unwrap_or_else(|| "nova".to_owned());
    let alone = |what: &Option<String>| what.clone().unwrap_or_else(|| host.clone());
    let fencers: Vec<Fencer> = given
        .fencers
        .iter()
        .map(|fencer| {
            serde_json::from_value(fencer.as_str().into()).map_err(|_| {
                format!("fencers: '{}' given, redfish, ipmi, watchdog_lease or manual expected", fencer.escape_debug())
            })
        })
        .collect::<Result<_, String>>()?;
    let fencers = match (fencers.is_empty(), &given.bmc) {
        (false, _) => fencers,
        (true, Some(_)) => vec![Fencer::Redfish, Fencer::Manual],
        (true, None) => vec![Fencer::Manual],
    };
    Ok(HostSpec {
        id: HostId(id),
        nova_host: host.clone(),
        nova_service: uuid("nova_service", given.nova_service.as_deref())?,
        machine: Machine {
            uuid: uuid("machine_uuid", given.machine_uuid.as_deref())?,
            serial: given.machine_serial.clone(),
        },
        bmc: given.bmc.clone(),
        places: PlaceNames {
            cell: given.cell.clone().unwrap_or_else(|| "cell1".to_owned()),
            cluster: given.cluster.clone().unwrap_or_else(|| az.clone()),
            az,
            power: alone(&given.power),
            chassis: alone(&given.chassis),
        },
        fencers,
        enabled: given.enabled.unwrap_or(true),
        permit_check: given.permit_check.unwrap_or(true),
        unchecked: given.unchecked,
        keeps_guests: given.keeps_guests,
    })
}
