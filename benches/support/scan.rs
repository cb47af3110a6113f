//! What a decision costs that does nothing else: numbers in columns, filters, five weighers, the best hundred. It knows no
//! names, groups, claims, reasons or pipelines; it is the floor that the pipelines are held against.

use scheduler::{HostReport, Request};

/// Hosts that it ranks.
const TOP: usize = 100;
const CLASSES: [&str; 3] = ["VCPU", "MEMORY_MB", "DISK_GB"];

/// The fleet as columns, a row a host.
pub struct Scan {
    free: [Vec<u64>; CLASSES.len()],
    /// Which of the fleet's traits the host has, a bit a trait.
    traits: Vec<u64>,
    /// Number of the zone; 0: the host is disabled or down.
    zone: Vec<u8>,
    weighed: [Vec<f32>; 5],
    names: Vec<String>,
    zones: Vec<String>,
    survivors: Vec<u32>,
    values: Vec<f32>,
    ranked: Vec<(f32, u32)>,
}

/// A request as the columns ask for it.
pub struct Asked {
    amounts: [u64; CLASSES.len()],
    required: u64,
    forbidden: u64,
    /// 0: any.
    zone: u8,
}

impl Scan {
    pub fn new(fleet: &[HostReport]) -> Scan {
        let mut names: Vec<String> = fleet.iter().flat_map(|host| host.traits.iter().flatten().cloned()).collect();
        names.sort_unstable();
        names.dedup();
        assert!(names.len() <= 64, "{} traits do not fit in a word", names.len());
        let inventory = |host: &HostReport, class: &str| {
            let inventory = host.inventories.as_ref()?.get(class)?;
            let used = host.allocation.as_ref().and_then(|used| used.get(class)).copied().unwrap_or(0);
            let capacity = ((inventory.total - inventory.reserved) as f64 * inventory.allocation_ratio) as u64;
            Some((capacity, capacity.saturating_sub(used)))
        };
        let free = CLASSES.map(|class| {
            fleet.iter().map(|host| inventory(host, class).map_or(0, |(_, free)| free)).collect::<Vec<_>>()
        });
        let share = |class: &str| -> Vec<f32> {
            let share = |host| inventory(host, class).map_or(0.0, |(all, free)| free as f32 / all.max(1) as f32);
            fleet.iter().map(share).collect()
        };
        let amount = |class: usize| free[class].iter().map(|&free| free as f32).collect();
        let weighed = [share("VCPU"), share("MEMORY_MB"), amount(0), amount(1), amount(2)];
        let bits = |host: &HostReport| bits(&names, host.traits.iter().flatten());
        let traits = fleet.iter().map(bits).collect();
        let mut zones: Vec<String> = fleet.iter().filter_map(|host| host.availability_zone.clone()).collect();
        zones.sort_unstable();
        zones.dedup();
        let usable = |host: &&HostReport| host.disabled != Some(true) && host.forced_down != Some(true);
        let zone = |host| Some(host).filter(usable).map_or(0, |host| number(&zones, host.availability_zone.as_ref()));
        let zone = fleet.iter().map(zone).collect();
        Scan {
            free,
            traits,
            zone,
            weighed,
            names,
            zones,
            survivors: Vec::new(),
            values: Vec::new(),
            ranked: Vec::new(),
        }
    }

    pub fn asked(&self, request: &Request) -> Asked {
        Asked {
            amounts: CLASSES.map(|class| request.resources.get(class).copied().unwrap_or(0)),
            required: bits(&self.names, &request.required_traits),
            forbidden: bits(&self.names, &request.forbidden_traits),
            zone: request.zone.as_ref().map_or(0, |zone| number(&self.zones, Some(zone))),
        }
    }

    /// The best rows, best first, and how many passed.
    #[expect(clippy::needless_bitwise_bool, reason = "whether a host passes cannot be foretold: no branches")]
    pub fn run(&mut self, asked: &Asked) -> (&[(f32, u32)], usize) {
        let Scan { free: [cpus, memory, disk], traits, zone, weighed, survivors, values, ranked, .. } = self;
        survivors.resize(traits.len(), 0);
        let mut passed = 0;
        let any = asked.zone == 0;
        let columns = cpus.iter().zip(&*memory).zip(&*disk).zip(&*traits).zip(&*zone).enumerate();
        for (row, ((((&cpus, &memory), &disk), &traits), &zone)) in columns {
            survivors[passed] = row as u32;
            let fits = (zone != 0)
                & (any | (zone == asked.zone))
                & (cpus >= asked.amounts[0])
                & (memory >= asked.amounts[1])
                & (disk >= asked.amounts[2])
                & (traits & asked.required == asked.required)
                & (traits & asked.forbidden == 0);
            passed += usize::from(fits);
        }
        survivors.truncate(passed);
        ranked.clear();
        ranked.extend(survivors.iter().map(|&row| (0.0, row)));
        for column in weighed {
            values.clear();
            values.extend(survivors.iter().map(|&row| column[row as usize]));
            let (least, most) =
                values.iter().fold((f32::MAX, f32::MIN), |(least, most), &v| (least.min(v), most.max(v)));
            let scale = if most > least { 1.0 / (most - least) } else { 0.0 };
            for (ranked, value) in ranked.iter_mut().zip(&*values) {
                ranked.0 += (value - least) * scale;
            }
        }
        let better = |a: &(f32, u32), b: &(f32, u32)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
        if passed > TOP {
            ranked.select_nth_unstable_by(TOP, better);
        }
        let top = &mut ranked[..passed.min(TOP)];
        top.sort_unstable_by(better);
        (top, passed)
    }
}

/// Number of a zone, from 1; 0: it is none of them.
fn number(zones: &[String], zone: Option<&String>) -> u8 {
    zone.and_then(|zone| zones.binary_search(zone).ok()).map_or(0, |at| at as u8 + 1)
}

fn bits<'a>(names: &[String], of: impl IntoIterator<Item = &'a String>) -> u64 {
    of.into_iter().filter_map(|name| names.binary_search(name).ok()).fold(0, |bits, at| bits | 1 << at)
}
