//! The hosts of a body and their weights: of a large fleet they are nearly all of it, and are made candidates as they are
//! read.

use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;

use scheduler::SmolStr;
use scheduler::request::Candidate;
use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{BadRequest, Text, once, shortened};

/// The hosts of a body, without their weights.
#[derive(Default)]
pub struct Hosts {
    sent: Vec<Candidate>,
    /// More than names stands in them, and it may nest.
    pub nested: bool,
}

impl Hosts {
    /// The hosts with their weights: each has one, and there are no others.
    pub fn weighed(self, Weights { placed, others }: &Weights<'_>) -> Result<Vec<Candidate>, BadRequest> {
        let mut hosts = self.sent;
        let rest = &mut hosts[*placed..];
        if rest.len() == others.len() && rest.iter().zip(others).all(|(host, (name, _))| is_of(host, name)) {
            rest.iter_mut().zip(others).for_each(|(host, (_, weight))| host.weight = *weight);
            return Ok(hosts);
        }
        let placed = hosts[..*placed].iter().map(|host| (host.host.as_str(), host.weight));
        let others = others.iter().map(|(name, weight)| (&*name.0, *weight));
        let mut known: HashMap<&str, (f64, bool)> =
            placed.chain(others).map(|(name, weight)| (name, (weight, false))).collect();
        let mut weights = Vec::with_capacity(hosts.len());
        for (at, Candidate { host, .. }) in hosts.iter().enumerate() {
            if host.is_empty() {
                return Err(BadRequest::at(&format!("hosts[{at}].host"), "an empty name given, a host name expected"));
            }
            let Some((weight, used)) = known.get_mut(host.as_str()) else {
                return Err(BadRequest::at("weights", format!("missing weight for host '{}'", shortened(host))));
            };
            *used = true;
            weights.push(*weight);
        }
        let unknown = known.iter().filter(|(_, (_, used))| !used).map(|(host, _)| *host).min();
        if let Some(host) = unknown {
            let message = format!("weight assigned to unknown host '{}'", shortened(host));
            return Err(BadRequest::at("weights", message));
        }
        hosts.iter_mut().zip(weights).for_each(|(host, weight)| host.weight = weight);
        Ok(hosts)
    }
}

/// Whether a weight is that of a host.
fn is_of(host: &Candidate, Text(name): &Text<'_>) -> bool {
    !name.is_empty() && host.host == **name
}

/// Bytes that a host takes in a body, its weight included; with names of a usual length it takes more.
const HOST: usize = 96;

/// Reads the hosts in a body of so many bytes.
pub struct HostsIn(pub usize);

impl<'de> DeserializeSeed<'de> for HostsIn {
    type Value = Option<Hosts>;
    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<Self::Value, D::Error> {
        input.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for HostsIn {
    type Value = Option<Hosts>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a sequence")
    }
    fn visit_none<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_some<D: Deserializer<'de>>(self, input: D) -> Result<Self::Value, D::Error> {
        input.deserialize_seq(self)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        // Room for all of them at once: less than the body itself takes.
        let mut hosts = Hosts { sent: Vec::with_capacity(self.0 / HOST), nested: false };
        while list.next_element_seed(OneMore(&mut hosts))?.is_some() {}
        Ok(Some(hosts))
    }
}

/// Reads one more host.
struct OneMore<'a>(&'a mut Hosts);

impl<'de> DeserializeSeed<'de> for OneMore<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<(), D::Error> {
        input.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for OneMore<'_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let (mut host, mut node) = (None, None);
        while let Some(Text(key)) = map.next_key()? {
            match &*key {
                "host" => once(&mut host, "host", &mut map, PhantomData)?,
                "hypervisor_hostname" => once(&mut node, "hypervisor_hostname", &mut map, PhantomData)?,
                _ => {
                    self.0.nested = true;
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        let Text(host) = host.ok_or_else(|| A::Error::missing_field("host"))?;
        let host = SmolStr::from(host);
        let node: Option<Text<'_>> = node.flatten();
        let node = match node {
            // Mostly one name; a long one is kept once.
            Some(Text(node)) if host == *node => host.clone(),
            Some(Text(node)) => node.into(),
            None => SmolStr::default(),
        };
        self.0.sent.push(Candidate { host, node, weight: 0.0 });
        Ok(())
    }
}

/// Host → weight, as listed.
#[derive(Default)]
pub struct Weights<'a> {
    /// So many of the first were those of the hosts, in the order of the hosts, and stand there.
    placed: usize,
    others: Vec<(Text<'a>, f64)>,
}

/// Reads the weights of hosts that were read before. The services list weights in the order of the hosts, and each host
/// once.
pub struct WeightsOf<'a>(pub Option<&'a mut Hosts>);

impl<'de> DeserializeSeed<'de> for WeightsOf<'_> {
    type Value = Option<Weights<'de>>;
    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<Self::Value, D::Error> {
        input.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for WeightsOf<'_> {
    type Value = Option<Weights<'de>>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map from host to number")
    }
    fn visit_none<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_some<D: Deserializer<'de>>(self, input: D) -> Result<Self::Value, D::Error> {
        input.deserialize_map(self)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let hosts = self.0.map_or(&mut [][..], |hosts| &mut hosts.sent);
        let mut weights = Weights::default();
        while let Some((name, weight)) = map.next_entry()? {
            match hosts.get_mut(weights.placed).filter(|_| weights.others.is_empty()) {
                Some(host) if is_of(host, &name) => {
                    host.weight = weight;
                    weights.placed += 1;
                }
                _ => weights.others.push((name, weight)),
            }
        }
        Ok(Some(weights))
    }
}
