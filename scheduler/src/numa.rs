//! NUMA cells: what a guest asks of them, and what a host has. Of the sets of CPUs that Nova keeps only what
//! decides whether one fits the other is kept: how many there are.
//!
//! Source: openstack/nova, `nova/objects/numa.py` and `nova/objects/instance_numa.py`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Most cells of a guest or a host.
pub const CELLS: usize = 64;

/// Which CPUs of a host a guest cell uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum CpuPolicy {
    /// Those that all guests share.
    #[default]
    Shared,
    /// Some for itself alone.
    Dedicated,
    /// Both kinds.
    Mixed,
}

/// How dedicated CPUs are taken from the threads of a core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ThreadPolicy {
    /// Siblings where there are some.
    #[default]
    Prefer,
    /// One thread of each core, the others stay idle.
    Isolate,
    /// Siblings, or nothing.
    Require,
}

/// A cell of a guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestCell {
    /// VCPUs on shared CPUs.
    pub shared: u64,
    /// VCPUs on CPUs of their own.
    pub dedicated: u64,
    /// Memory, MiB.
    pub memory_mb: u64,
    /// Size of its memory pages, KiB; -1: the smallest, -2: any larger one, -3: any, 0: not asked.
    pub page_kib: i64,
    /// Which CPUs.
    pub policy: CpuPolicy,
    /// How dedicated ones are taken.
    pub threads: ThreadPolicy,
}

/// What a guest asks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestTopology {
    /// Its cells; each needs a host cell of its own.
    pub cells: Vec<GuestCell>,
    /// One more dedicated CPU beside those of the first cell, for the emulator.
    pub emulator_isolated: bool,
    /// Physical networks that its ports are on.
    pub physnets: Vec<String>,
    /// A port is on a tunneled network.
    pub tunneled: bool,
}

/// Pages of one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pages {
    /// Size of one, KiB.
    pub size_kib: u64,
    /// All of them, KiB.
    pub total_kib: u64,
    /// Free ones, KiB.
    pub free_kib: u64,
}

/// A cell of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostCell {
    /// Shared CPUs (`cpuset`).
    pub shared: u64,
    /// Of them in use; more than there are when they are overcommitted.
    pub shared_used: u64,
    /// Dedicated CPUs (`pcpuset`).
    pub dedicated: u64,
    /// Of them free.
    pub dedicated_free: u64,
    /// Shared and dedicated ones are the same (`vcpu_pin_set`).
    pub same: bool,
    /// Free dedicated threads of each core that has some.
    pub free_threads: Vec<u64>,
    /// Most threads of a core; none: the host does not say which threads are siblings.
    pub threads_per_core: Option<u64>,
    /// Memory, MiB.
    pub memory_mb: u64,
    /// Of it in use.
    pub memory_used_mb: u64,
    /// Its pages, smallest first.
    pub pages: Vec<Pages>,
    /// Physical networks whose cards are on this cell.
    pub physnets: Vec<String>,
    /// The card of the tunneled networks is on this cell.
    pub tunneled: bool,
}

/// What a host has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostTopology {
    /// Its cells.
    pub cells: Vec<HostCell>,
}

impl HostTopology {
    /// Whether a core has several threads.
    pub fn has_threads(&self) -> bool {
        self.cells.iter().any(|cell| cell.threads_per_core > Some(1))
    }

    /// Reads `{"cells": [...]}` with the fields of Nova's `NUMACell`, bare or in Nova's wrappers
    /// (`nova_object.data`), or that as JSON in a text, as Nova's database has it. The error says what was
    /// expected, behind the place.
    pub fn read(value: &Value) -> Result<Self, (String, &'static str)> {
        if let Value::String(text) = value {
            let inner: Value = serde_json::from_str(text).map_err(|_| (String::new(), "JSON of a map with cells"))?;
            return Self::read(&inner);
        }
        let cells = data(value).get("cells").and_then(Value::as_array);
        let cells = cells.filter(|cells| cells.len() <= CELLS).ok_or((String::new(), "a map with at most 64 cells"))?;
        let cells = cells.iter().enumerate().map(|(at, cell)| {
            HostCell::read(data(cell)).map_err(|(key, expected)| (format!(".cells[{at}].{key}"), expected))
        });
        Ok(Self { cells: cells.collect::<Result<_, _>>()? })
    }
}

impl HostCell {
    fn read(cell: &Value) -> Result<Self, (&'static str, &'static str)> {
        let (cpuset, pcpuset) = (set(cell, "cpuset")?, set(cell, "pcpuset")?);
        let mut free = pcpuset.clone();
        let pinned = set(cell, "pinned_cpus")?;
        free.retain(|cpu| pinned.binary_search(cpu).is_err());
        let siblings = list(cell, "siblings")?.iter().map(|cores| numbers(cores).ok_or(("siblings", "lists of CPUs")));
        let siblings = siblings.collect::<Result<Vec<_>, _>>()?;
        let free_of = |core: &Vec<u64>| core.iter().filter(|cpu| free.binary_search(cpu).is_ok()).count() as u64;
        let mut pages =
            list(cell, "mempages")?.iter().map(|pages| read_pages(data(pages))).collect::<Result<Vec<_>, _>>()?;
        pages.sort_unstable_by_key(|pages| pages.size_kib);
        let network = cell.get("network_metadata").map_or(&Value::Null, data);
        Ok(Self {
            shared: cpuset.len() as u64,
            shared_used: whole(cell, "cpu_usage")?,
            dedicated: pcpuset.len() as u64,
            dedicated_free: free.len() as u64,
            same: cpuset == pcpuset,
            free_threads: siblings.iter().map(free_of).filter(|free| *free > 0).collect(),
            threads_per_core: siblings.iter().map(|core| core.len() as u64).max().map(|most| most.max(1)),
            memory_mb: whole(cell, "memory")?,
            memory_used_mb: whole(cell, "memory_usage")?,
            pages,
            physnets: texts(network, "physnets"),
            tunneled: network.get("tunneled").and_then(Value::as_bool).unwrap_or(false),
        })
    }
}

/// The fields of an object of Nova, in its wrapper or bare.
fn data(value: &Value) -> &Value {
    value.get("nova_object.data").unwrap_or(value)
}

fn list<'a>(cell: &'a Value, key: &'static str) -> Result<&'a [Value], (&'static str, &'static str)> {
    match cell.get(key) {
        None | Some(Value::Null) => Ok(&[]),
        Some(Value::Array(items)) => Ok(items),
        Some(_) => Err((key, "a list")),
    }
}

/// Each number once, ascending.
fn numbers(list: &Value) -> Option<Vec<u64>> {
    let mut out = list.as_array()?.iter().map(Value::as_u64).collect::<Option<Vec<_>>>()?;
    out.sort_unstable();
    out.dedup();
    Some(out)
}

fn set(cell: &Value, key: &'static str) -> Result<Vec<u64>, (&'static str, &'static str)> {
    match cell.get(key) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(list) => numbers(list).ok_or((key, "a list of CPUs")),
    }
}

fn whole(map: &Value, key: &'static str) -> Result<u64, (&'static str, &'static str)> {
    match map.get(key) {
        None | Some(Value::Null) => Ok(0),
        Some(number) => {
            number.as_u64().filter(|number| *number <= 1 << 53).ok_or((key, "a whole number of at least 0"))
        }
    }
}

fn texts(map: &Value, key: &str) -> Vec<String> {
    let items = map.get(key).and_then(Value::as_array).into_iter().flatten();
    items.filter_map(Value::as_str).map(str::to_owned).collect()
}

fn read_pages(pages: &Value) -> Result<Pages, (&'static str, &'static str)> {
    let number = |key| whole(pages, key).map_err(|(_, expected)| ("mempages", expected));
    let (size_kib, total) = (number("size_kb")?, number("total")?);
    let taken = number("used")?.saturating_add(number("reserved")?);
    if size_kib == 0 {
        return Err(("mempages", "a size_kb above 0"));
    }
    Ok(Pages {
        size_kib,
        total_kib: total.saturating_mul(size_kib),
        free_kib: total.saturating_sub(taken).saturating_mul(size_kib),
    })
}
