//! What an instance that runs is held to where nobody says what it asked for: what its host is. It may go to hosts of
//! the same zone, hypervisor type and architecture that have every trait of the present one.

use crate::index::Facet;
use crate::names::Sym;
use crate::provider::Provider;

/// What a host must be like; what the present one does not tell is not asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Alike {
    pub zone: Option<Sym>,
    pub hypervisor_type: Option<Sym>,
    pub cpu_arch: Option<Sym>,
    pub traits: Vec<Sym>,
}

impl Alike {
    /// As this host.
    pub fn of(host: &Provider) -> Self {
        let &Provider { zone, hypervisor_type, cpu_arch, .. } = host;
        Self { zone, hypervisor_type, cpu_arch, traits: host.traits.clone() }
    }

    /// Whether a host is so.
    pub fn holds(&self, host: &Provider) -> bool {
        let same = |asked: Option<Sym>, there| asked.is_none() || asked == there;
        same(self.zone, host.zone)
            && same(self.hypervisor_type, host.hypervisor_type)
            && same(self.cpu_arch, host.cpu_arch)
            && self.traits.iter().all(|name| host.traits.binary_search(name).is_ok())
    }

    /// The same for the index: a host must be in each of these.
    pub fn facets(&self) -> impl Iterator<Item = (Facet, Sym)> + '_ {
        let one =
            [(Facet::Zone, self.zone), (Facet::HypervisorType, self.hypervisor_type), (Facet::CpuArch, self.cpu_arch)];
        let one = one.into_iter().filter_map(|(facet, value)| Some((facet, value?)));
        one.chain(self.traits.iter().map(|name| (Facet::Trait, *name)))
    }
}
