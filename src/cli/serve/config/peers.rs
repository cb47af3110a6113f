//! The section `peers`: the voters that a cluster begins with.

use std::collections::BTreeMap;

use operators::reader::{Fields, Place, Reader};

const EXPECTED: &str = "a host and a port expected, as in 10.0.0.1:8081";

/// The initial voters; this node must be one of them.
pub(super) fn read(reader: &mut Reader, fields: Fields<'_, '_>, node_id: u64) -> Option<BTreeMap<u64, String>> {
    let map = reader.map(fields, "peers")?;
    let place = Place::Key(fields.at, "peers");
    let mut peers = BTreeMap::new();
    for (key, value) in map {
        let at = Place::Key(&place, key);
        match (key.parse::<u64>(), value.as_str()) {
            (Ok(node), Some(addr)) if node > 0 && is_host_and_port(addr) => {
                if let Some(other) = peers.iter().find(|(_, known)| *known == addr).map(|(other, _)| *other) {
                    reader.fault(&at, format!("{addr} is the address of node {other} already"));
                }
                peers.insert(node, addr.to_owned());
            }
            (Ok(node), Some(addr)) if node > 0 => {
                reader.fault(&at, format!("'{addr}' given, {EXPECTED}"));
            }
            (Ok(node), None) if node > 0 => reader.fault(&at, EXPECTED),
            _ => reader.fault(&at, "the number of a node expected, at least 1"),
        }
    }
    if !peers.contains_key(&node_id) {
        reader.fault(
            &place,
            format!("node {node_id}, this one, is not among them; add it with the address of its peer port"),
        );
    }
    if !peers.is_empty() && peers.len() % 2 == 0 {
        reader.fault(
            &place,
            format!("{} voters given, 1, 3 or 5 expected: an even number survives no more failures", peers.len()),
        );
    }
    Some(peers)
}

/// An address that other nodes reach a node at.
pub fn peer_addr(text: &str) -> Result<String, String> {
    if is_host_and_port(text) { Ok(text.to_owned()) } else { Err(EXPECTED.to_owned()) }
}

fn is_host_and_port(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0))
}
