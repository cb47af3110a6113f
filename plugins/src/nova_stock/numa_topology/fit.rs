//! Whether the cells of a guest fit cells of a host, each one of its own.
//!
//! Source: openstack/nova, `nova/virt/hardware.py`: `_numa_fit_instance_cell`, `_pack_instance_onto_cores`,
//! `_numa_cells_support_network_metadata`. Nova looks for the CPUs to pin; only whether there are enough is
//! asked here, so its searches become counts.

use std::collections::HashSet;

use scheduler::numa::{CpuPolicy, GuestCell, GuestTopology, HostCell, HostTopology, ThreadPolicy};

/// Sets of host cells that are looked at for a guest whose networks are on certain cells.
const SETS: usize = 100_000;

/// How far shared CPUs and memory of a host are overcommitted.
#[derive(Clone, Copy, Debug)]
pub struct Ratios {
    /// VCPUs for each shared CPU.
    pub cpu: f64,
    /// Guest memory for each MiB.
    pub ram: f64,
}

/// Whether the guest fits. `good` is room for the host cells that each guest cell fits, kept from host to host.
pub fn fits(host: &HostTopology, guest: &GuestTopology, ratios: Ratios, good: &mut Vec<u64>) -> bool {
    if guest.cells.len() > host.cells.len() {
        return false;
    }
    good.clear();
    good.extend(guest.cells.iter().enumerate().map(|(at, cell)| {
        let reserved = u64::from(at == 0 && guest.emulator_isolated);
        let fitting = host.cells.iter().enumerate().filter(|(_, host)| pair(host, cell, reserved, ratios));
        fitting.fold(0, |mask, (bit, _)| mask | 1 << bit)
    }));
    let near = near(host, guest);
    all_have_one(good) && (near.is_empty() || choose(good, &near, 0, &mut HashSet::new()))
}

/// Whether one cell fits one: its pages, its memory, its CPUs.
fn pair(host: &HostCell, guest: &GuestCell, reserved: u64, ratios: Ratios) -> bool {
    let (shares, dedicates) = (guest.policy != CpuPolicy::Dedicated, guest.policy != CpuPolicy::Shared);
    if !memory(host, guest, dedicates) {
        return false;
    }
    if dedicates {
        let wanted = guest.dedicated.saturating_add(reserved);
        if wanted > host.dedicated || wanted > host.dedicated_free {
            return false;
        }
    }
    if shares && guest.shared > host.shared {
        return false;
    }
    if dedicates && !packs(host, guest, reserved) {
        return false;
    }
    !shares
        || ((host.shared_used + guest.shared) as f64 <= host.shared as f64 * ratios.cpu
            && host.memory_used_mb.saturating_add(guest.memory_mb) as f64 <= host.memory_mb as f64 * ratios.ram)
}

/// A guest never overcommits a cell against itself, and one with dedicated CPUs never at all.
fn memory(host: &HostCell, guest: &GuestCell, dedicates: bool) -> bool {
    let wanted = guest.memory_mb.saturating_mul(1024);
    let (smallest, larger) = host.pages.split_first().map_or((None, &[][..]), |(first, rest)| (Some(first), rest));
    let holds = |size: u64, kib: u64| wanted <= kib && wanted.is_multiple_of(size);
    let free = |pages: &scheduler::numa::Pages| holds(pages.size_kib, pages.free_kib);
    match (guest.page_kib, smallest) {
        (0, None) if dedicates => host.memory_mb.saturating_sub(host.memory_used_mb) >= guest.memory_mb,
        (0, None) => host.memory_mb >= guest.memory_mb,
        (0, Some(pages)) => holds(pages.size_kib, if dedicates { pages.free_kib } else { pages.total_kib }),
        (-1, smallest) => smallest.is_some_and(free),
        (-2, _) => larger.iter().any(free),
        (-3, _) => host.pages.iter().any(free),
        (size, _) => host.pages.iter().find(|pages| i64::try_from(pages.size_kib) == Ok(size)).is_some_and(free),
    }
}

/// Whether the dedicated VCPUs go onto free threads as the policy wants them.
fn packs(host: &HostCell, guest: &GuestCell, reserved: u64) -> bool {
    let Some(threads) = host.threads_per_core else { return false };
    let wanted = guest.dedicated;
    // Cores with at least so many free threads.
    let cores = |free: u64| host.free_threads.iter().filter(|threads| **threads >= free).count() as u64;
    let all: u64 = host.free_threads.iter().sum();
    if wanted == 0 && reserved > 0 {
        return false;
    }
    match guest.threads {
        ThreadPolicy::Isolate => {
            let whole = cores(threads);
            wanted > 0 && whole >= wanted && (threads == 1 || host.same) && (reserved == 0 || cores(1) > wanted)
        }
        ThreadPolicy::Require => {
            let most = host.free_threads.iter().copied().max().unwrap_or(0);
            threads > 1 && (2..=most).any(|free| free * cores(free) >= wanted) && (reserved == 0 || all > wanted)
        }
        ThreadPolicy::Prefer => all >= wanted + reserved,
    }
}

/// For each network of the guest that the host ties to cells: these cells, of which one must be chosen.
fn near(host: &HostTopology, guest: &GuestTopology) -> Vec<u64> {
    let tied = |has: &dyn Fn(&HostCell) -> bool| {
        let cells = host.cells.iter().enumerate().filter(|(_, cell)| has(cell));
        cells.fold(0_u64, |mask, (bit, _)| mask | 1 << bit)
    };
    let physnets = guest.physnets.iter().map(|net| tied(&|cell| cell.physnets.contains(net)));
    let tunneled = guest.tunneled.then(|| tied(&|cell| cell.tunneled));
    physnets.chain(tunneled).filter(|mask| *mask != 0).collect()
}

/// Whether each guest cell can have a host cell of its own (Kuhn's matching).
fn all_have_one(good: &[u64]) -> bool {
    fn augment(at: usize, good: &[u64], owner: &mut [Option<usize>; 64], tried: &mut u64) -> bool {
        loop {
            let open = good[at] & !*tried;
            if open == 0 {
                return false;
            }
            let bit = open.trailing_zeros() as usize;
            *tried |= 1 << bit;
            if owner[bit].is_none_or(|other| augment(other, good, owner, tried)) {
                owner[bit] = Some(at);
                return true;
            }
        }
    }
    let mut owner = [None; 64];
    (0..good.len()).all(|at| augment(at, good, &mut owner, &mut 0))
}

/// Whether the guest cells can be given host cells of which each set of `near` has one. A set of cells
/// that came to nothing is not tried again; more than [`SETS`] are not tried at all.
fn choose(good: &[u64], near: &[u64], used: u64, seen: &mut HashSet<u64>) -> bool {
    let Some((first, rest)) = good.split_first() else { return near.iter().all(|cells| cells & used != 0) };
    let mut open = first & !used;
    while open != 0 {
        let bit = open & open.wrapping_neg();
        open &= !bit;
        if seen.len() < SETS && seen.insert(used | bit) && choose(rest, near, used | bit, seen) {
            return true;
        }
    }
    false
}
