//! Drops hosts that have not enough left of what one instance asks for.
//!
//! For each resource class asked with an amount above 0 (VCPU count, MEMORY_MB in MiB, DISK_GB in
//! GiB, any other in its own unit), VCPU and MEMORY_MB first, then by name:
//!
//! ```text
//! kept  iff  asked ≤ min(capacity − used, max_unit)  and the host's min_unit and step_size allow it
//! ```
//!
//! capacity = floor((total − reserved) × allocation_ratio); used counts what the host reports and
//! every open claim, also those in flight, without the request's own. Always one instance, whatever
//! `num_instances` says. On the present host of an instance that is resized, the amount asked is
//! max(0, new − old) of each class, and max_unit, min_unit and step_size are those of the new size.
//!
//! With `ignoreAllocations`, or the call's option `assume_empty_hosts`, used counts as 0.
//! `lockReserved` and `ignoredReservationTypes` rule how reservations count; there are none yet, so
//! that they change nothing.
//!
//! Source: cobaltcore-dev/cortex, `filter_has_enough_capacity` (which takes a MB as 10^6 bytes, knows
//! no disk, and keeps hosts with negative or missing capacity); openstack/placement (the formula).

use std::borrow::Cow;

use scheduler::index::Column;
use scheduler::pipeline::{Cx, Detail, Filter, FilterPlugin, Reads, Survivors, Verdict};
use scheduler::{Aspect, Domain, Facet, Inventory, Request, Row, Rows, Sym};
use serde::{Deserialize, Serialize};

const RESERVATIONS: [&str; 3] = ["CommittedResourceReservation", "FailoverReservation", "InFlightReservation"];

/// The step.
#[derive(Debug)]
pub struct HasEnoughCapacity(Options);

/// Options.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Options {
    /// Never unlock committed-resource reservations, not even for their own project.
    pub lock_reserved: bool,
    /// Reservation types left out: CommittedResourceReservation, FailoverReservation,
    /// InFlightReservation.
    pub ignored_reservation_types: Vec<String>,
    /// Count every host as empty.
    pub ignore_allocations: bool,
    /// Drop hosts without a DISK_GB inventory when disk is asked.
    pub require_disk_inventory: bool,
    /// Keep hosts without an inventory of another class that is asked: only what a host reports is checked.
    pub keep_without_inventory: bool,
}

/// One asked class.
struct Ask<'a> {
    class: Sym,
    amount: u64,
    /// On the resized instance's present host: what it holds there.
    held: Option<(Row, u64)>,
    column: &'a Column,
    /// Hosts with such an inventory.
    inventory: &'a Rows,
    /// Hosts without one pass.
    optional: bool,
    empty: bool,
}

fn at(values: &[u64], row: Row) -> u64 {
    values.get(row.0 as usize).copied().unwrap_or(0)
}

fn short(class: &str) -> Cow<'static, str> {
    match class {
        "VCPU" | "MILLICPU" => "short of cpu".into(),
        "MEMORY_MB" => "short of memory".into(),
        "DISK_GB" => "short of disk".into(),
        _ => format!("short of {class}").into(),
    }
}

/// Why a host without an inventory is dropped. Reasons are remembered: one that names a class that
/// callers make up would have no bound.
fn lacking(class: &str, inventory: &Rows, hosts: &mut Survivors) -> Cow<'static, str> {
    match class {
        "VCPU" => "no VCPU inventory".into(),
        "MEMORY_MB" => "no MEMORY_MB inventory".into(),
        "DISK_GB" => "no DISK_GB inventory".into(),
        _ if inventory.is_empty() => {
            hosts.note(format!("no host has an inventory of {class}"));
            "no inventory of a class that no host has".into()
        }
        _ => format!("no {class} inventory").into(),
    }
}

impl Ask<'_> {
    fn inventory_of<'v>(&self, cx: &Cx<'v>, row: Row) -> Option<&'v Inventory> {
        cx.view.provider(row)?.inventory(self.class)
    }

    /// Amount that is asked of `row`, and the largest that it can give.
    fn balance(&self, cx: &Cx<'_>, row: Row) -> (u64, u64) {
        if let Some((source, held)) = self.held
            && row == source
        {
            let used = if self.empty { 0 } else { at(&self.column.used, row) };
            let most = self.inventory_of(cx, row).map_or(0, |inventory| inventory.max_unit);
            // What it holds counts as used: the new size may be as large as both together.
            let free = at(&self.column.capacity, row).saturating_sub(used);
            return (self.amount.saturating_sub(held), free.min(most.saturating_sub(held)));
        }
        if self.empty {
            let most = self.inventory_of(cx, row).map_or(0, |inventory| inventory.max_unit);
            return (self.amount, at(&self.column.capacity, row).min(most));
        }
        (self.amount, at(&self.column.fit, row))
    }

    fn drop_short(&self, cx: &Cx<'_>, hosts: &mut Survivors, class: &str) {
        let detail = |row| {
            let (asked, free) = self.balance(cx, row);
            let used = if self.empty { 0 } else { at(&self.column.used, row) };
            let left = at(&self.column.capacity, row).saturating_sub(used);
            if free < asked && asked <= left {
                return Detail::InOne { class: self.class, asked, most: free };
            }
            Detail::Amounts { class: self.class, asked, free }
        };
        if self.empty || self.optional || self.held.is_some_and(|(row, _)| hosts.mask().has(row)) {
            let good = |row| {
                let (asked, free) = self.balance(cx, row);
                asked <= free || (self.optional && !self.inventory.has(row))
            };
            hosts.keep_where(short(class), good, detail);
        } else {
            hosts.keep_at_least(&self.column.fit, self.amount, short(class), detail);
        }
    }

    fn drop_uneven(&self, cx: &Cx<'_>, hosts: &mut Survivors, class: &str) {
        let stepped = cx.view.facet(Facet::Stepped, class);
        if stepped.is_empty() {
            return;
        }
        let even = |row| !stepped.has(row) || self.inventory_of(cx, row).is_some_and(|i| i.allows(self.amount));
        hosts.keep_where(format!("min_unit or step_size of {class} broken"), even, |_| Detail::None);
    }
}

/// Drops the hosts that have not enough left; with `empty` what is in use counts as 0. A class that hosts need
/// not report has a word for the note that says how many of them were not checked for it.
pub(crate) fn enough(
    cx: &Cx<'_>,
    hosts: &mut Survivors,
    empty: bool,
    optional: impl Fn(&str) -> Option<&'static str>,
) -> Verdict {
    let request = cx.request;
    let first = ["VCPU", "MEMORY_MB"].map(|class| (class, request.amount(class)));
    let others = request.resources.iter().map(|(class, amount)| (class.as_str(), *amount));
    let others = others.filter(|(class, _)| !matches!(*class, "VCPU" | "MEMORY_MB"));
    let held = cx.resize_discount();
    let mut asked = false;
    for (class, amount) in first.into_iter().chain(others) {
        if amount == 0 {
            continue;
        }
        asked = true;
        if hosts.is_empty() {
            break;
        }
        let inventory = cx.view.facet(Facet::Inventory, class);
        let unknown = hosts.outside(inventory);
        let optional = optional(class).filter(|_| unknown > 0);
        if let Some(note) = optional {
            hosts.note(format!("{note}: {unknown} hosts report no {class} and were not checked for it"));
        } else if unknown > 0 {
            let why = lacking(class, inventory, hosts);
            hosts.keep(inventory, why, |_| Detail::None);
        }
        let Some((sym, column)) = cx.view.column(class) else { continue };
        let ask = Ask {
            class: sym,
            amount,
            held: held.as_ref().map(|(row, amounts)| (*row, amounts.get(sym))),
            column,
            inventory,
            optional: optional.is_some(),
            empty,
        };
        ask.drop_short(cx, hosts, class);
        ask.drop_uneven(cx, hosts, class);
    }
    if asked { Verdict::Ran } else { Verdict::Skipped("nothing asked") }
}

impl Filter for HasEnoughCapacity {
    fn filter(&self, cx: &Cx<'_>, hosts: &mut Survivors) -> Verdict {
        let empty = self.0.ignore_allocations || cx.request.options.assume_empty_hosts;
        enough(cx, hosts, empty, |class| match class {
            "DISK_GB" => (!self.0.require_disk_inventory).then_some("disk_unknown"),
            _ => self.0.keep_without_inventory.then_some("inventory_unknown"),
        })
    }

    fn reads(&self, _: &Request) -> Reads {
        Reads::OwnUse
    }

    fn acts_on(&self, _: &Request) -> Vec<Aspect> {
        vec![Aspect::Amounts]
    }
}

impl FilterPlugin for HasEnoughCapacity {
    const NAME: &'static str = "filter_has_enough_capacity";
    const DOMAINS: &'static [Domain] = &[Domain::Nova];
    const SUMMARY: &'static str = "Keeps hosts that have enough left of every asked resource class.";
    const MISSING_DATA: &'static str = "A host without an inventory of an asked class is dropped; without DISK_GB it is kept with the note disk_unknown, unless requireDiskInventory. With keepWithoutInventory it is kept for any class, with the note inventory_unknown.";
    type Options = Options;

    fn new(options: Options) -> Result<Self, String> {
        if let Some(odd) = options.ignored_reservation_types.iter().find(|kind| !RESERVATIONS.contains(&kind.as_str()))
        {
            return Err(format!("ignoredReservationTypes: '{odd}' given, {} expected", RESERVATIONS.join(", ")));
        }
        Ok(Self(options))
    }
}

#[cfg(test)]
mod tests {
    use super::HasEnoughCapacity;
    use crate::fleet::{Case, Fleet, case, filter_options_error, host, vm};
    use scheduler::{Intent, Inventory};
    use serde_json::json;

    const GIB: u64 = 1024;

    fn asks(resources: &'static [(&'static str, u64)]) -> Case {
        case("capacity").resources(resources)
    }

    fn check(case: Case, fleet: &mut Fleet) {
        case.check::<HasEnoughCapacity>(fleet);
    }

    #[test]
    fn cpu_and_memory() {
        let mut fleet = Fleet::of([
            host("h1").amounts(8, 16 * GIB),
            host("h2").amounts(4, 8 * GIB),
            host("h3").amounts(16, 32 * GIB),
            host("h4").amounts(0, 0),
            host("h5"),
        ]);
        check(
            asks(&[("VCPU", 4), ("MEMORY_MB", 8 * GIB)])
                .kept(&["h1", "h2", "h3"])
                .dropped("h4", "short of cpu: 4 asked, 0 free")
                .dropped("h5", "no VCPU inventory"),
            &mut fleet,
        );
        check(
            asks(&[("VCPU", 4), ("MEMORY_MB", 8 * GIB + 1)])
                .kept(&["h1", "h3"])
                .dropped("h2", "short of memory: 8193 MiB asked, 8192 MiB free"),
            &mut fleet,
        );
        // A class asked with 0 is not checked.
        check(
            asks(&[("VCPU", 0), ("MEMORY_MB", 16 * GIB)]).kept(&["h1", "h3"]).dropped("h5", "no MEMORY_MB inventory"),
            &mut fleet,
        );
        check(asks(&[("VCPU", 0), ("MEMORY_MB", 0)]).kept_all().skipped("nothing asked"), &mut fleet);
        // One instance, whatever the size of the original request.
        check(asks(&[("VCPU", 4)]).request(|r| r.num_instances = 9).kept(&["h1", "h2", "h3"]), &mut fleet);
    }

    #[test]
    fn what_is_not_reported_may_pass() {
        let mut fleet = Fleet::of([
            host("small").amounts(2, GIB),
            host("large").amounts(8, GIB),
            host("cpu only").inventory("VCPU", Inventory::of(8)),
            host("bare"),
        ]);
        let options = json!({"keepWithoutInventory": true});
        check(
            asks(&[("VCPU", 4), ("MEMORY_MB", GIB), ("CUSTOM_NOWHERE", 1)])
                .options(options.clone())
                .kept(&["large", "cpu only", "bare"])
                .dropped("small", "short of cpu: 4 asked, 2 free")
                .note("inventory_unknown: 2 hosts report no MEMORY_MB and were not checked for it"),
            &mut fleet,
        );
        let strict = json!({"keepWithoutInventory": true, "requireDiskInventory": true});
        check(asks(&[("DISK_GB", 1)]).options(strict).kept(&[]).dropped("bare", "no DISK_GB inventory"), &mut fleet);
    }

    #[test]
    fn what_is_used_is_not_free() {
        let mut fleet = Fleet::of([
            host("h1").amounts(8, 16 * GIB).allocated(6, 8 * GIB),
            host("h2").amounts(8, 16 * GIB).allocated(9, 8 * GIB),
            host("h3").amounts(8, 16 * GIB).sized("v1", 5, 4 * GIB),
        ]);
        let vcpus = asks(&[("VCPU", 4)]);
        check(
            vcpus
                .kept(&[])
                .dropped("h1", "short of cpu: 4 asked, 2 free")
                .dropped("h2", "short of cpu: 4 asked, 0 free"),
            &mut fleet,
        );
        check(asks(&[("VCPU", 2)]).kept(&["h1", "h3"]), &mut fleet);
        for empty in [
            asks(&[("VCPU", 8)]).request(|r| r.options.assume_empty_hosts = true),
            asks(&[("VCPU", 8)]).options(json!({"ignoreAllocations": true})),
        ] {
            check(empty.kept_all(), &mut fleet);
        }
        let nine = asks(&[("VCPU", 9)]).options(json!({"ignoreAllocations": true}));
        check(nine.kept(&[]).dropped("h1", "short of cpu: 9 asked, 8 free"), &mut fleet);
    }

    #[test]
    fn disk_is_checked_where_it_is_known() {
        let mut fleet = Fleet::of([
            host("h1").amounts(8, 16 * GIB).inventory("DISK_GB", Inventory::of(100)),
            host("h2").amounts(8, 16 * GIB).inventory("DISK_GB", Inventory::of(10)),
            host("h3").amounts(8, 16 * GIB),
        ]);
        let disk: &[(&str, u64)] = &[("VCPU", 1), ("DISK_GB", 50)];
        check(
            asks(disk)
                .kept(&["h1", "h3"])
                .dropped("h2", "short of disk: 50 GiB asked, 10 GiB free")
                .note("disk_unknown: 1 hosts report no DISK_GB and were not checked for it"),
            &mut fleet,
        );
        check(
            asks(disk)
                .options(json!({"requireDiskInventory": true}))
                .kept(&["h1"])
                .dropped("h3", "no DISK_GB inventory"),
            &mut fleet,
        );
        let mut without = Fleet::of([host("h1").amounts(8, 16 * GIB), host("h2").amounts(8, 16 * GIB)]);
        check(
            asks(disk).kept_all().note("disk_unknown: 2 hosts report no DISK_GB and were not checked for it"),
            &mut without,
        );
    }

    #[test]
    fn other_classes_and_unit_rules() {
        let gpu = |total| Inventory::of(total);
        let mut fleet = Fleet::of([
            host("h1").amounts(8, 16 * GIB).inventory("CUSTOM_GPU", gpu(2)),
            host("h2").amounts(8, 16 * GIB).inventory("CUSTOM_GPU", gpu(1)),
            host("h3").amounts(8, 16 * GIB),
            host("h4").amounts(8, 16 * GIB).inventory("CUSTOM_GPU", Inventory { min_unit: 4, step_size: 4, ..gpu(16) }),
            host("h5").amounts(8, 16 * GIB).inventory("CUSTOM_GPU", Inventory { max_unit: 1, ..gpu(16) }),
        ]);
        check(
            asks(&[("CUSTOM_GPU", 2), ("VCPU", 1)])
                .kept(&["h1"])
                .dropped("h2", "short of CUSTOM_GPU: 2 asked, 1 free")
                .dropped("h3", "no CUSTOM_GPU inventory")
                .dropped("h4", "min_unit or step_size of CUSTOM_GPU broken")
                .dropped("h5", "short of CUSTOM_GPU: 2 asked, at most 1 for one (max_unit)"),
            &mut fleet,
        );
        check(asks(&[("CUSTOM_GPU", 8)]).kept(&["h4"]), &mut fleet);
        check(asks(&[("CUSTOM_GPU", 2)]).options(json!({"ignoreAllocations": true})).kept(&["h1"]), &mut fleet);
        check(
            asks(&[("CUSTOM_FPGA", 1)])
                .kept(&[])
                .dropped("h1", "no inventory of a class that no host has")
                .note("no host has an inventory of CUSTOM_FPGA"),
            &mut fleet,
        );
        check(asks(&[("CUSTOM_FPGA", 0)]).kept_all().skipped("nothing asked"), &mut fleet);
    }

    #[test]
    fn ratios_and_reserves_make_the_capacity() {
        let cpu = Inventory { reserved: 2, allocation_ratio: 1.5, ..Inventory::of(9) };
        let mut fleet = Fleet::of([host("h1").inventory("VCPU", cpu)]);
        check(asks(&[("VCPU", 10)]).kept(&["h1"]), &mut fleet);
        check(asks(&[("VCPU", 11)]).kept(&[]).dropped("h1", "short of cpu: 11 asked, 10 free"), &mut fleet);
    }

    #[test]
    fn a_resize_on_its_own_host_asks_for_the_difference() {
        let mut fleet = Fleet::of([
            host("h1").amounts(8, 16 * GIB).sized("v1", 4, 8 * GIB).sized("v2", 2, 4 * GIB),
            host("h2").amounts(8, 16 * GIB).sized("v3", 4, 8 * GIB),
        ]);
        let resize = |resources| {
            asks(resources).intent(Intent::Resize).request(|r| {
                r.consumers = vec![vm("v1")];
                r.source_host = Some("h1".to_owned());
            })
        };
        check(
            resize(&[("VCPU", 6), ("MEMORY_MB", 10 * GIB)])
                .kept(&["h1"])
                .dropped("h2", "short of cpu: 6 asked, 4 free"),
            &mut fleet,
        );
        check(resize(&[("VCPU", 7)]).kept(&[]).dropped("h1", "short of cpu: 3 asked, 2 free"), &mut fleet);
        check(resize(&[("VCPU", 2)]).kept(&["h1", "h2"]), &mut fleet);
    }

    #[test]
    fn claims_count_but_not_the_requests_own() {
        let mut fleet = Fleet::of([host("h1").amounts(8, 16 * GIB), host("h2").amounts(8, 16 * GIB)]);
        fleet.claim("v1", "h1", |r| r.resources = [("VCPU".to_owned(), 6)].into());
        check(asks(&[("VCPU", 3)]).kept(&["h2"]).dropped("h1", "short of cpu: 3 asked, 2 free"), &mut fleet);
        check(asks(&[("VCPU", 8)]).request(|r| r.consumers = vec![vm("v1")]).kept_all(), &mut fleet);
    }

    #[test]
    fn reservation_types_are_checked() {
        let error = filter_options_error::<HasEnoughCapacity>(json!({"ignoredReservationTypes": ["Failover"]}));
        assert_eq!(
            error,
            "ignoredReservationTypes: 'Failover' given, CommittedResourceReservation, FailoverReservation, \
             InFlightReservation expected"
        );
    }
}
