//! Which hosts a policy is for, and how specific that is.

use bitcode::{Decode, Encode};

use crate::ha::breaker::ScopeName;
use crate::ha::host::Host;
use crate::names::Sym;
use crate::provider::Provider;
use crate::state::Tables;

/// How a label is asked for, as Kubernetes' label selectors do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum Operator {
    /// It has one of the values.
    In,
    /// It has none of the values, or is absent.
    NotIn,
    /// It is there.
    Exists,
    /// It is absent.
    DoesNotExist,
}

/// What is asked of a label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Term {
    /// Its key.
    pub key: String,
    /// How.
    pub operator: Operator,
    /// The values.
    pub values: Vec<String>,
}

/// Which hosts a policy is for: those for which every part holds that is given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Selector {
    /// In this failure domain.
    pub domain: Option<ScopeName>,
    /// One of these, by Nova's name. Sorted.
    pub hosts: Vec<String>,
    /// In one of these aggregates, by name or uuid. Sorted.
    pub aggregates: Vec<String>,
    /// With all of these traits. Sorted.
    pub traits: Vec<String>,
    /// With all of these labels.
    pub labels: Vec<Term>,
}

impl Selector {
    /// How narrow it is, the narrower the greater. First what its narrowest part is: a region, a zone, a cell, a
    /// cluster, then what hosts have (aggregates, traits, labels), then hosts by name; then in how many ways it
    /// is narrowed.
    pub fn specificity(&self) -> (u8, usize) {
        let by_name = usize::from(!self.hosts.is_empty());
        let by_facts = usize::from(!self.aggregates.is_empty()) + self.traits.len() + self.labels.len();
        let domain = match self.domain {
            None => 0,
            Some(ScopeName::Region) => 1,
            Some(ScopeName::Az(_)) => 2,
            Some(ScopeName::Cell(_)) => 3,
            Some(ScopeName::Cluster(_)) => 4,
        };
        let narrowest = match (by_name, by_facts) {
            (1.., _) => 6,
            (0, 1..) => 5,
            (0, 0) => domain,
        };
        (narrowest, by_name + by_facts + usize::from(domain > 1))
    }

    /// Whether a host is one of its. Of a host that placement does not know nothing is known but its name and its
    /// place.
    pub(super) fn selects<'a>(
        &self,
        tables: &'a Tables,
        host: &Host,
        provider: impl FnOnce() -> Option<&'a Provider>,
    ) -> bool {
        let text = |sym| tables.names.text(sym);
        let inside = self.domain.as_ref().is_none_or(|domain| match domain {
            ScopeName::Region => true,
            ScopeName::Az(az) => text(host.places.az) == az,
            ScopeName::Cell(cell) => text(host.places.cell) == cell,
            ScopeName::Cluster(cluster) => text(host.places.cluster) == cluster,
        });
        let name = text(host.nova_host);
        let named = self.hosts.is_empty() || self.hosts.binary_search_by(|host| host.as_str().cmp(name)).is_ok();
        if !(inside && named) {
            return false;
        }
        if self.aggregates.is_empty() && self.traits.is_empty() && self.labels.is_empty() {
            return true;
        }
        let Some(provider) = provider() else { return false };
        let aggregated = self.aggregates.is_empty()
            || provider.aggregates.iter().any(|key| {
                let named = tables.aggregates.get(key).map_or("", |aggregate| aggregate.name.as_str());
                self.aggregates.iter().any(|given| given == named || given == text(*key))
            });
        let has =
            |list: &[Sym], given: &str| tables.names.get(given).is_some_and(|sym| list.binary_search(&sym).is_ok());
        aggregated
            && self.traits.iter().all(|given| has(&provider.traits, given))
            && self.labels.iter().all(|term| {
                let of_key = |label| text(label).strip_prefix(term.key.as_str())?.strip_prefix('=');
                let value = provider.labels.iter().find_map(|label| of_key(*label));
                let listed = value.is_some_and(|value| term.values.iter().any(|given| given == value));
                match term.operator {
                    Operator::In => listed,
                    Operator::NotIn => !listed,
                    Operator::Exists => value.is_some(),
                    Operator::DoesNotExist => value.is_none(),
                }
            })
    }
}
