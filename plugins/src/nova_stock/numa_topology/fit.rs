//! Whether the cells of a guest fit cells of a host, each one of its own.
//!
//! Source: openstack/nova, `nova/virt/hardware.py`: `_numa_fit_instance_cell`, `_pack_instance_onto_cores`,
//! `_numa_cells_support_network_metadata`. Nova looks for the CPUs to pin; only whether there are enough is
//! asked here, so its searches become counts.

use scheduler::numa::{CELLS, CpuPolicy, GuestCell, GuestTopology, HostCell, HostTopology, ThreadPolicy};
use smallvec::SmallVec;

/// Host cells that are tried for the networks of a guest before a host counts as one that does not fit: all that there
/// are for two networks on 16 cells or for three on 8.
const TRIES: usize = 512;

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
    all_have_one(good) && (near.is_empty() || all_are_near(&guests_of(good), &near, 0, &mut { TRIES }))
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

/// For each host cell the guest cells that fit it.
fn guests_of(good: &[u64]) -> [u64; CELLS] {
    std::array::from_fn(|cell| (0..).zip(good).fold(0, |mask, (guest, cells)| mask | (cells >> cell & 1) << guest))
}

/// Whether the guest cells can be given host cells of which each set of `near` has one, `taken` among them. Which
/// guest cell gets which is left open: a set of host cells can be part of a whole matching when each of them alone can
/// have a guest cell of its own and each guest cell a host cell (Mendelsohn and Dulmage, 1958).
fn all_are_near(guests: &[u64; CELLS], near: &[u64], taken: u64, tries: &mut usize) -> bool {
    let missing = near.iter().filter(|cells| *cells & taken == 0);
    let Some(&cells) = missing.min_by_key(|cells| cells.count_ones()) else { return true };
    bits(cells).any(|cell| {
        let taken = taken | 1 << cell;
        let asked: SmallVec<[u64; 8]> = bits(taken).map(|cell| guests[cell]).collect();
        *tries = tries.saturating_sub(1);
        *tries > 0 && all_have_one(&asked) && all_are_near(guests, near, taken, tries)
    })
}

/// The places of the set bits.
fn bits(mask: u64) -> impl Iterator<Item = usize> {
    std::iter::successors(Some(mask), |mask| Some(mask & mask.wrapping_sub(1)))
        .take_while(|mask| *mask != 0)
        .map(|mask| mask.trailing_zeros() as usize)
}

#[cfg(test)]
mod tests {
    use super::{all_are_near, all_have_one, guests_of};

    /// Every way to give the guest cells host cells, one after the other.
    fn every_way(good: &[u64], near: &[u64], used: u64) -> bool {
        match good.split_first() {
            None => near.iter().all(|cells| cells & used != 0),
            Some((cells, rest)) => {
                (0..8).any(|bit| cells & !used & 1 << bit != 0 && every_way(rest, near, used | 1 << bit))
            }
        }
    }

    #[test]
    fn it_finds_what_trying_every_way_finds() {
        let mut seed = 1_u64;
        let mut next = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        let (mut near_ones, mut others) = (0, 0);
        for _ in 0..20_000 {
            let good: Vec<u64> = (0..=next(4)).map(|_| next(256)).collect();
            let near: Vec<u64> = (0..=next(3)).map(|_| next(32) << next(4)).filter(|cells| *cells != 0).collect();
            let found = all_have_one(&good) && all_are_near(&guests_of(&good), &near, 0, &mut 512);
            assert_eq!(found, every_way(&good, &near, 0), "{good:?} near {near:?}");
            if found { near_ones += 1 } else { others += 1 }
        }
        assert!(near_ones > 1_000 && others > 1_000, "{near_ones} and {others}");
    }

    #[test]
    fn it_gives_up() {
        let all = u64::MAX;
        // Of 20 networks each on three cells of its own, 19 can be reached.
        let near: Vec<u64> = (0..20).map(|net| 7 << (3 * net)).collect();
        let mut tries = 512;
        assert!(!all_are_near(&guests_of(&[all; 19]), &near, 0, &mut tries));
        assert_eq!(tries, 0);
        assert!(all_are_near(&guests_of(&[all; 20]), &near, 0, &mut 512));
    }
}
