//! What runs where, as far as failover was not told yet: an instance that a host lists and that has no permit
//! gets one for that host's present life. The first place is taken as it is; from then on a permit moves only
//! by what failover's guards allow.

use std::collections::BTreeMap;

use scheduler::Domain;
use scheduler::consumer::Purpose;
use scheduler::ha::order::{Change, PermitCause};
use scheduler::ha::recovery::Life;
use scheduler::provider::Row;
use scheduler::state::Tables;

/// Permits that are missing, at most so many.
pub fn first_seen(tables: &Tables, most: usize) -> Vec<Change> {
    let failover = tables.failover();
    // In quarantine nobody knows who the host is, let alone what it may run.
    let open = failover.hosts.iter().filter(|host| host.enabled && host.is_open() && !host.quarantined);
    let open = open.filter(|host| failover.cases.get(host.id).is_none());
    let lives: BTreeMap<Row, Life> = open
        .filter_map(|host| {
            let row = tables.row_of_node(Domain::Nova, tables.names.text(host.nova_host), None)?;
            Some((row, Life { host: host.id, incarnation: host.incarnation }))
        })
        .collect();
    if lives.is_empty() {
        return Vec::new();
    }
    tables
        .consumers()
        .filter(|consumer| consumer.domain == Domain::Nova && consumer.purpose == Purpose::Instance)
        .filter(|consumer| consumer.is_listed() && failover.permits.get(consumer.uuid).is_none())
        .filter_map(|consumer| {
            let to = *lives.get(&consumer.row)?;
            Some(Change::PermitMove { instance: consumer.uuid, from: None, to, cause: PermitCause::Placed })
        })
        .take(most)
        .collect()
}
