//! Keeps hosts whose address is in the network around the address of the hint `build_near_host_ip`; the
//! hint `cidr` gives its size: `/24` (the default) or a netmask, `/255.255.255.0`.
//!
//! Source: openstack/nova, `SimpleCIDRAffinityFilter`. Nova fails the request for an address that is none,
//! and when a host says no address; here all such hosts are dropped.

use std::net::IpAddr;

use scheduler::pipeline::step::NoOptions;
use scheduler::pipeline::{Cx, Detail, Filter, FilterPlugin, Reads, Survivors, Verdict};
use scheduler::{Domain, Request};

/// The step.
#[derive(Debug)]
pub struct SimpleCidrAffinityFilter;

/// A network: address bits from the left, and how many of them count.
struct Network(IpAddr, u32);

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(four) => u128::from(four.to_bits()) << 96,
        IpAddr::V6(six) => six.to_bits(),
    }
}

impl Network {
    fn read(address: &str, size: &str) -> Option<Self> {
        let address: IpAddr = address.parse().ok()?;
        let size = size.strip_prefix('/')?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let length = if let Ok(length) = size.parse::<u32>() {
            length
        } else {
            let mask: IpAddr = size.parse().ok()?;
            let mask = (mask.is_ipv4() == address.is_ipv4()).then(|| bits(mask))?;
            // A netmask, or its complement: ones and then zeros, or the other way round.
            let mask = if mask >> 127 == 0 && address.is_ipv4() { !mask >> 96 << 96 } else { mask };
            let length = mask.leading_ones();
            (mask.count_ones() == length).then_some(length)?
        };
        (length <= most).then_some(Self(address, length))
    }

    fn has(&self, host: IpAddr) -> bool {
        let differ = bits(self.0) ^ bits(host);
        self.0.is_ipv4() == host.is_ipv4() && differ.leading_zeros() >= self.1
    }
}

impl Filter for SimpleCidrAffinityFilter {
    fn filter(&self, cx: &Cx<'_>, hosts: &mut Survivors) -> Verdict {
        let Some(near) = cx.request.hint("build_near_host_ip").filter(|near| !near.is_empty()) else {
            return Verdict::Skipped("no hint build_near_host_ip");
        };
        let Some(network) = Network::read(near, cx.request.hint("cidr").unwrap_or("/24")) else {
            hosts.drop_all("the hints build_near_host_ip and cidr name no network");
            return Verdict::Ran;
        };
        let address = |row| cx.view.host_state(row).and_then(|state| state.host_ip);
        let near = |row| address(row).is_some_and(|address| network.has(address));
        hosts.keep_where("not in the network of the hint build_near_host_ip", near, |_| Detail::None);
        Verdict::Ran
    }

    fn reads(&self, _: &Request) -> Reads {
        Reads::Facts
    }
}

impl FilterPlugin for SimpleCidrAffinityFilter {
    const NAME: &'static str = "SimpleCIDRAffinityFilter";
    const DOMAINS: &'static [Domain] = &[Domain::Nova];
    const SUMMARY: &'static str = "Keeps hosts whose address is near the one of the hint `build_near_host_ip`.";
    const MISSING_DATA: &'static str = "With the hint, a host without an address is dropped.";
    type Options = NoOptions;

    fn new(_: NoOptions) -> Result<Self, String> {
        Ok(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::SimpleCidrAffinityFilter;
    use crate::fleet::{Fleet, case, host};
    use serde_json::json;

    #[test]
    fn networks() {
        let at = |name, ip: &str| host(name).state(json!({ "host_ip": ip }));
        let mut fleet = Fleet::of([at("a", "10.0.0.9"), at("b", "10.0.1.9"), at("six", "fd00::9"), host("bare")]);
        for (near, cidr, kept) in [
            (Some("10.0.0.200"), None, &["a"][..]),
            (Some("10.0.0.200"), Some("/23"), &["a", "b"]),
            (Some("10.0.0.200"), Some("/255.255.254.0"), &["a", "b"]),
            (Some("10.0.0.200"), Some("/0.0.1.255"), &["a", "b"]),
            (Some("10.0.0.200"), Some("/255.0.255.0"), &[]),
            (Some("10.0.0.200"), Some("/0"), &["a", "b"]),
            (Some("10.0.0.200"), Some("/33"), &[]),
            (Some("10.0.0.200"), Some("24"), &[]),
            (Some("10.0.0"), None, &[]),
            (Some("fd00::1"), Some("/64"), &["six"]),
            (None, Some("/8"), &["a", "b", "six", "bare"]),
        ] {
            case("near")
                .request(|request| {
                    let hints = [("build_near_host_ip", near), ("cidr", cidr)];
                    let hints =
                        hints.into_iter().filter_map(|(hint, value)| Some((hint.to_owned(), vec![value?.to_owned()])));
                    request.hints.extend(hints);
                })
                .kept(kept)
                .check::<SimpleCidrAffinityFilter>(&mut fleet);
        }
    }
}
