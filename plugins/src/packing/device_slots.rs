//! Keeps nodes that have enough devices left, one by one: a share of a device comes from one device, a whole one from an
//! unused one.
//!
//! What is asked is the amount of GPU_MILLI, in thousandths of a device: below 1000 a share of one device, else whole
//! devices. The node reports its devices as the classes GPU_0, GPU_1, …, each with 1000; which device a consumer got is the
//! node's choice, so the use of each is what the node reports of it. Claims in flight are counted by GPU_MILLI alone.

use scheduler::pipeline::step::NoOptions;
use scheduler::pipeline::{Cx, Detail, Filter, FilterPlugin, Reads, Survivors, Verdict};
use scheduler::{Domain, Request, Row};

use super::{DEVICES, DOMAINS, GPU_MILLI};
use scheduler::index::Column;

/// The step.
#[derive(Debug)]
pub struct DeviceSlots;

/// What is asked: so many devices with so much free on each, thousandths.
pub(crate) fn asked(request: &Request) -> (u64, u64) {
    match request.amount(GPU_MILLI) {
        0 => (0, 0),
        share @ 1..1000 => (1, share),
        whole => (whole.div_ceil(1000), 1000),
    }
}

/// The columns of the devices that hosts have.
pub(crate) fn columns<'a>(cx: &Cx<'a>) -> Vec<&'a Column> {
    DEVICES.iter().map_while(|class| cx.view.column(class).map(|(_, column)| column)).collect()
}

/// What is free of each device of a host, thousandths.
pub(crate) fn free<'a>(columns: &'a [&Column], row: Row) -> impl Iterator<Item = u64> + 'a {
    let at = row.0 as usize;
    columns.iter().map(move |column| column.fit.get(at).copied().unwrap_or(0))
}

impl Filter for DeviceSlots {
    fn filter(&self, cx: &Cx<'_>, hosts: &mut Survivors) -> Verdict {
        let (count, each) = asked(cx.request);
        if count == 0 {
            return Verdict::Skipped("no devices asked");
        }
        let columns = columns(cx);
        let found = |row| free(&columns, row).filter(|&free| free >= each).count() as u64;
        hosts.keep_where(
            "short of devices",
            |row| found(row) >= count,
            |row| Detail::Count { found: found(row), limit: count },
        );
        Verdict::Ran
    }

    fn reads(&self, _: &Request) -> Reads {
        Reads::OwnUse
    }
}

impl FilterPlugin for DeviceSlots {
    const NAME: &'static str = "device_slots";
    const DOMAINS: &'static [Domain] = DOMAINS;
    const SUMMARY: &'static str = "Keeps nodes with enough GPUs that have what is asked free on each.";
    const MISSING_DATA: &'static str = "A node that reports no devices is dropped when one is asked.";
    type Options = NoOptions;

    fn new(_: NoOptions) -> Result<Self, String> {
        Ok(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::DeviceSlots;
    use crate::fleet::{Fleet, case, node};
    use scheduler::Inventory;

    #[test]
    fn shares_and_whole_devices() {
        let gpus = |name: &str, used: &[u64]| {
            let mut host = node(name).inventory("GPU_MILLI", Inventory::of(1000 * used.len() as u64));
            for (at, used) in used.iter().enumerate() {
                host = host.inventory(super::DEVICES[at], Inventory::of(1000));
                host.0.allocation.get_or_insert_default().insert(super::DEVICES[at].to_owned(), *used);
            }
            host
        };
        let mut fleet =
            Fleet::of([gpus("halves", &[500, 500]), gpus("one", &[0, 700]), gpus("two", &[0, 0]), node("none")]);
        for (milli, kept) in
            [(500, &["halves", "one", "two"][..]), (600, &["one", "two"]), (1000, &["one", "two"]), (2000, &["two"])]
        {
            case("devices").pod(|_| ()).resources(&[("GPU_MILLI", milli)]).kept(kept).check::<DeviceSlots>(&mut fleet);
        }
        case("none asked").pod(|_| ()).kept_all().skipped("no devices asked").check::<DeviceSlots>(&mut fleet);
    }
}
