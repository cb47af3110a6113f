//! Every figure of a policy's results by name: where it stands in `result.json`, its unit, and what it means. The summary, the
//! report and the comparison of two studies show them in this order.

use serde_json::Value;

/// A figure.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// What a table calls it.
    pub label: &'static str,
    /// Where it stands in the results of a policy, with dots between keys.
    pub path: &'static str,
    /// Unit: `share` is a number from 0 to 1, `ratio` one without unit.
    pub unit: &'static str,
    /// Definition.
    pub means: &'static str,
}

const fn metric(label: &'static str, path: &'static str, unit: &'static str, means: &'static str) -> Metric {
    Metric { label, path, unit, means }
}

const DENSITY: &str = "in use over capacity of the hosts in use, averaged over time after the warm-up";
const ALLOCATION: &str = "in use over capacity of all hosts, averaged over time after the warm-up";
const STRANDED: &str = "free where no shape of the mix fits, over all capacity";
const IMBALANCE: &str = "standard deviation of use over capacity of the hosts in use";
const REASON: &str = "rejections because no host had enough of it";

/// All figures.
pub const METRICS: &[Metric] = &[
    metric("Hosts needed", "min_hosts", "hosts", "least number of hosts without a rejection"),
    metric("Hosts needed over the bound", "min_hosts_over_bound", "ratio", "the same over the largest lower bound"),
    metric("Empty hosts", "replay.empty_hosts", "share", "hosts without a VM, averaged over time after the warm-up"),
    metric(
        "Empty hosts over best-fit",
        "replay.empty_hosts_over_best_fit",
        "share",
        "how many more than best-fit leaves; only where both reject as much",
    ),
    metric("Hosts at the peak", "replay.hosts_peak", "hosts", "most hosts in use at a time"),
    metric("Rejections", "replay.rejections.count", "VMs", "creates that found no host"),
    metric("Rejections in the warm-up", "replay.rejections.in_warm_up", "VMs", "of them before averages begin"),
    metric("Rejected vCPU", "replay.rejections.milli_vcpus", "vCPU/1000", "what the rejected VMs asked for"),
    metric("Rejected memory", "replay.rejections.memory_mib", "MiB", "what the rejected VMs asked for"),
    metric("Rejected GPUs", "replay.rejections.gpu_milli", "GPU/1000", "what the rejected VMs asked for"),
    metric("Rejected for CPU", "replay.rejections.by_reason.cpu", "VMs", REASON),
    metric("Rejected for memory", "replay.rejections.by_reason.mem", "VMs", REASON),
    metric("Rejected for GPUs", "replay.rejections.by_reason.gpu", "VMs", REASON),
    metric("Rejected for the GPU model", "replay.rejections.by_reason.gpu_model", "VMs", REASON),
    metric(
        "Rejected for a combination",
        "replay.rejections.by_reason.combination",
        "VMs",
        "rejections though some host had enough of each resource by itself",
    ),
    metric("First rejection", "replay.first_rejection", "VMs", "placed before it"),
    metric("Density of CPU", "replay.density.cpu", "share", DENSITY),
    metric("Density of memory", "replay.density.mem", "share", DENSITY),
    metric("Density of GPUs", "replay.density.gpu", "share", DENSITY),
    metric("Allocation of CPU", "replay.allocation.cpu", "share", ALLOCATION),
    metric("Allocation of memory", "replay.allocation.mem", "share", ALLOCATION),
    metric("Allocation of GPUs", "replay.allocation.gpu", "share", ALLOCATION),
    metric("Fragmentation", "replay.fragmentation", "share", "free and of no use for the mix, over all capacity"),
    metric("Fragmentation of what is free", "replay.frag_of_free", "share", "the same over what is free"),
    metric("Stranded CPU", "replay.stranded.cpu", "share", STRANDED),
    metric("Stranded memory", "replay.stranded.mem", "share", STRANDED),
    metric("Stranded GPUs", "replay.stranded.gpu", "share", STRANDED),
    metric("Large slots", "replay.large_slots", "VMs", "further VMs of 16 vCPU and 64 GiB that would fit"),
    metric("Imbalance of CPU", "replay.imbalance.cpu", "share", IMBALANCE),
    metric("Imbalance of memory", "replay.imbalance.mem", "share", IMBALANCE),
    metric("Imbalance of GPUs", "replay.imbalance.gpu", "share", IMBALANCE),
    metric(
        "Spread of groups",
        "replay.group_spread",
        "share",
        "largest share of a group on one host, mean over groups of two and more",
    ),
    metric("Memory moved", "replay.migrations.memory_mib", "MiB", "of all VMs that were moved"),
    metric("Moves by rebalancing", "replay.migrations.rebalanced.moves", "moves", "in all periods"),
    metric("Memory moved by rebalancing", "replay.migrations.rebalanced.memory_mib", "MiB", "in all periods"),
    metric(
        "Hosts freed by rebalancing",
        "replay.migrations.rebalanced.hosts_freed",
        "hosts",
        "with a VM before and none after it, in all periods",
    ),
    metric(
        "Hosts freed per move",
        "replay.migrations.rebalanced.hosts_freed_per_move",
        "ratio",
        "hosts freed by rebalancing over its moves",
    ),
    metric("Placed by moves", "replay.migrations.made_room", "VMs", "that fitted nowhere before others were moved"),
    metric(
        "Moves in vain",
        "replay.migrations.in_vain",
        "moves",
        "after which the pipeline refused the VM all the same",
    ),
    metric("Failures of hosts", "replay.failures.hosts", "hosts", "each time counted"),
    metric("Moments of failure", "replay.failures.moments", "moments", "at which one host failed, or several"),
    metric("Hosts down at a time", "replay.failures.down_at_once", "hosts", "the most"),
    metric("VMs of failed hosts", "replay.failures.vms", "VMs", "on hosts when they failed, each time counted"),
    metric("Evacuated at once", "replay.failures.at_once", "VMs", "placed elsewhere by the plan of that moment"),
    metric("Evacuated later", "replay.failures.later", "VMs", "placed elsewhere by a later plan"),
    metric("Started in place", "replay.failures.in_place", "VMs", "waited until their host came back"),
    metric("Deleted while waiting", "replay.failures.deleted", "VMs", "deleted before they had a place"),
    metric("Lost", "replay.failures.lost", "VMs", "without a place when the trace ended"),
    metric(
        "Restored at once",
        "replay.failures.restored_at_once",
        "share",
        "evacuated at once, of VMs of failed hosts",
    ),
    metric("VM-seconds down", "replay.failures.down_vm_s", "VM-seconds", "that VMs of failed hosts waited for a place"),
    metric("Longest wait", "replay.failures.longest_s", "s", "of a VM of a failed host"),
    metric(
        "Rejected while hosts were down",
        "replay.failures.rejected",
        "VMs",
        "creates without a host while one was down",
    ),
    metric(
        "VMs without a place at the worst moment",
        "replay.failures.worst.without",
        "VMs",
        "the moment of failure at which most found none",
    ),
    metric(
        "Lifetimes foretold",
        "replay.lifetimes.created.right",
        "share",
        "new VMs whose class of lifetime was foretold, of those that ended (below 1 h, 10 h, 100 h, longer)",
    ),
    metric(
        "Lifetimes by one class",
        "replay.lifetimes.created.right_by_one_class",
        "share",
        "the same if one always said the most frequent class",
    ),
    metric(
        "Rest of lifetimes foretold",
        "replay.lifetimes.an_hour_old.right",
        "share",
        "VMs an hour old, of whose rest of life the class was foretold",
    ),
    metric(
        "Rest of lifetimes by one class",
        "replay.lifetimes.an_hour_old.right_by_one_class",
        "share",
        "the same if one always said the most frequent class",
    ),
    metric("Placed, fading", "first_failure.fading.placed", "VMs", "before the first rejection, deletes ignored"),
    metric("Placed, fading: deviation", "first_failure.fading.placed_sd", "VMs", "standard deviation over the starts"),
    metric("Placed, recovering", "first_failure.recovering.placed", "VMs", "before the first rejection"),
    metric(
        "Placed, recovering: deviation",
        "first_failure.recovering.placed_sd",
        "VMs",
        "standard deviation over the starts",
    ),
    metric("Allocated at 100 %", "inflate.at_100", "share", "of the scarce resource when demand reaches the capacity"),
    metric("Allocated at the end", "inflate.at_factor", "share", "of the scarce resource when all demand has arrived"),
    metric("Rejected by inflation", "inflate.rejected", "VMs", "creates that found no host"),
    metric("Fragmentation at 60 %", "fragmentation_at.60", "share", "when 60 % of the capacity is asked for"),
    metric("Fragmentation at 80 %", "fragmentation_at.80", "share", "when 80 % of the capacity is asked for"),
    metric("Fragmentation at 90 %", "fragmentation_at.90", "share", "when 90 % of the capacity is asked for"),
    metric("Fragmentation at 100 %", "fragmentation_at.100", "share", "when all of the capacity is asked for"),
    metric("One host lost", "survive.n1", "share", "losses of one host whose VMs all restart elsewhere"),
    metric("One host lost: worst", "survive.n1_worst", "share", "the same at the worst snapshot"),
    metric("VMs lost", "survive.n1_vms_lost", "share", "those without a place, over those on lost hosts"),
    metric("Two hosts lost", "survive.n2", "share", "losses of random pairs whose VMs all restart elsewhere"),
    metric("A domain lost", "survive.n_domain", "share", "losses of failure domains whose VMs all restart elsewhere"),
];

/// A number with a comma between thousands; one decimal if it is not whole.
pub fn grouped(value: f64) -> String {
    let digits = if value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.1}") };
    let whole = digits.split('.').next().map_or(0, |whole| whole.trim_start_matches('-').len());
    let before = digits.find(|digit: char| digit.is_ascii_digit()).unwrap_or(0);
    let comma = |at: usize| at > before && at < before + whole && (before + whole - at).is_multiple_of(3);
    digits.char_indices().flat_map(|(at, digit)| comma(at).then_some(',').into_iter().chain([digit])).collect()
}

impl Metric {
    /// Its value in the results of a policy.
    pub fn of(&self, policy: &Value) -> Option<f64> {
        self.path.split('.').fold(policy, |value, key| &value[key]).as_f64()
    }

    /// A value as people read it.
    pub fn shown(&self, value: f64) -> String {
        match self.unit {
            "share" => format!("{:.1} %", value * 100.0),
            "ratio" => format!("{value:.3}"),
            "vCPU/1000" | "GPU/1000" => grouped(value / 1000.0),
            _ => grouped(value),
        }
    }

    /// The unit of what is shown; empty where the value says it.
    pub fn unit_shown(&self) -> &'static str {
        match self.unit {
            "share" | "ratio" => "",
            unit => unit.trim_end_matches("/1000"),
        }
    }

    /// A difference as people read it: points of a share, else percent of what it was.
    pub fn difference(&self, value: f64, before: f64) -> String {
        let change = value - before;
        match self.unit {
            "share" if (change * 100.0).abs() < 0.005 => "=".to_owned(),
            "share" => format!("{:+.2} pt", change * 100.0),
            _ if change == 0.0 => "=".to_owned(),
            _ if before == 0.0 => format!("{change:+}"),
            _ => format!("{:+.1} %", change / before * 100.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{METRICS, grouped};

    #[test]
    fn numbers_as_people_read_them() {
        let values = [0.0, 999.0, 1000.0, -123_456.0, 1_234_567.25, 0.25, -0.5];
        assert_eq!(values.map(grouped).join(" "), "0 999 1,000 -123,456 1,234,567.2 0.2 -0.5");
        let milli = METRICS.iter().find(|metric| metric.unit == "vCPU/1000").expect("what was rejected");
        assert_eq!((milli.shown(2_848_000.0), milli.unit_shown()), ("2,848".to_owned(), "vCPU"));
    }
}
