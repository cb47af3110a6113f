//! What a domain's XML says of its disks and devices. Bounded; what makes no sense is left out.

use roxmltree::{Document, Node, ParsingOptions};
use twox_hash::XxHash3_64;
use uuid::Uuid;

use super::wire::short;
use crate::report::{DEVICES, Disk};

/// Nodes of a description; a guest with 64 disks has some thousands.
const NODES: u32 = 50_000;

/// The parts of a description that are reported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    /// Disks with a source.
    pub disks: Vec<Disk>,
    /// PCI devices that are handed through.
    pub pci: Vec<String>,
    /// There is a virtual TPM (one that QEMU emulates).
    pub has_vtpm: bool,
}

fn document(xml: &str) -> Option<Document<'_>> {
    Document::parse_with_options(xml, ParsingOptions { nodes_limit: NODES, ..Default::default() }).ok()
}

/// The uuid of the domain that a description is of.
pub fn uuid(xml: &str) -> Option<Uuid> {
    let document = document(xml)?;
    let root = document.root_element();
    child(root, "uuid").filter(|_| root.has_tag_name("domain"))?.text()?.trim().parse().ok()
}

/// Reads a description. Files below one of `shared` are reached by other hosts too.
pub fn read(xml: &str, shared: &[String]) -> Option<Description> {
    let document = document(xml)?;
    let devices = child(document.root_element(), "devices")?;
    let named = |name: &'static str| devices.children().filter(move |node| node.has_tag_name(name));
    let pci = named("hostdev").filter(|device| device.attribute("type") == Some("pci"));
    Some(Description {
        disks: named("disk").filter_map(|node| disk(node, shared)).take(DEVICES).collect(),
        pci: pci.filter_map(pci_address).take(DEVICES).collect(),
        has_vtpm: named("tpm").filter_map(|tpm| child(tpm, "backend")).any(|b| b.attribute("type") == Some("emulator")),
    })
}

fn child<'a, 'input>(node: Node<'a, 'input>, name: &str) -> Option<Node<'a, 'input>> {
    node.children().find(|child| child.has_tag_name(name))
}

fn disk(node: Node<'_, '_>, shared: &[String]) -> Option<Disk> {
    let source = child(node, "source")?;
    let kind = node.attribute("type")?;
    let named = ["name", "file", "dev", "volume", "dir"].into_iter().find_map(|name| source.attribute(name));
    let path = named.unwrap_or_default();
    let (backend, elsewhere) = match kind {
        "network" => {
            let protocol = source.attribute("protocol")?;
            let server = child(source, "host").and_then(|host| host.attribute("name"));
            // Of RBD the pool tells what fails together; of the others the server.
            let place = match protocol {
                "rbd" => path.split('/').next(),
                _ => server.or_else(|| path.split('/').next()),
            };
            (format!("{protocol}:{}", place.unwrap_or_default()), true)
        }
        "file" | "block" | "dir" => match shared.iter().find(|prefix| path.starts_with(prefix.as_str())) {
            Some(prefix) => {
                let below = path[prefix.len()..].trim_start_matches('/').split('/').next().unwrap_or_default();
                (format!("{kind}:{}/{below}", prefix.trim_end_matches('/')), true)
            }
            None => (kind.to_owned(), false),
        },
        other => (other.to_owned(), false),
    };
    let protocol = source.attribute("protocol").unwrap_or_default();
    Some(Disk {
        backend: short(backend),
        shared: elsewhere,
        readonly: child(node, "readonly").is_some(),
        path_hash: XxHash3_64::oneshot(format!("{kind}|{protocol}|{path}").as_bytes()),
        alias: short(child(node, "alias").and_then(|alias| alias.attribute("name")).unwrap_or_default().to_owned()),
    })
}

fn pci_address(device: Node<'_, '_>) -> Option<String> {
    let address = child(child(device, "source")?, "address")?;
    let part = |name| u32::from_str_radix(address.attribute(name)?.trim_start_matches("0x"), 16).ok();
    let (domain, bus, slot, function) = (part("domain")?, part("bus")?, part("slot")?, part("function")?);
    Some(format!("{domain:04x}:{bus:02x}:{slot:02x}.{function:x}"))
}

#[cfg(test)]
mod tests {
    use super::{read, uuid};

    const XML: &str = "<domain type='kvm' id='4'><uuid>6f000000-0000-4000-8000-000000000001</uuid><devices>
        <disk type='network' device='disk'><source protocol='rbd' name='volumes/volume-1'><host name='10.0.0.1'/></source>
            <target dev='vda'/><alias name='virtio-disk0'/></disk>
        <disk type='network'><source protocol='iscsi' name='iqn.2026:x/1'><host name='san1'/></source></disk>
        <disk type='file' device='disk'><source file='/var/lib/nova/mnt/ab12/volume-2'/><readonly/></disk>
        <disk type='file' device='disk'><source file='/var/lib/nova/instances/1/disk'/></disk>
        <disk type='block'><source dev='/dev/vg/lv'/></disk>
        <disk type='file' device='cdrom'><target dev='hda'/></disk>
        <hostdev type='pci'><source><address domain='0x0000' bus='0x3b' slot='0x00' function='0x1'/></source></hostdev>
        <tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm></devices></domain>";

    #[test]
    fn a_description_is_read() {
        let shared = ["/var/lib/nova/mnt/".to_owned()];
        let read_ = read(XML, &shared).expect("well-formed");
        let disks: Vec<_> =
            read_.disks.iter().map(|d| (d.backend.as_str(), d.shared, d.readonly, d.alias.as_str())).collect();
        assert_eq!(
            disks,
            [
                ("rbd:volumes", true, false, "virtio-disk0"),
                ("iscsi:san1", true, false, ""),
                ("file:/var/lib/nova/mnt/ab12", true, true, ""),
                ("file", false, false, ""),
                ("block", false, false, ""),
            ]
        );
        assert_eq!((read_.pci, read_.has_vtpm), (vec!["0000:3b:00.1".to_owned()], true));
        assert_eq!(uuid(XML).map(|uuid| uuid.as_u128() & 0xff), Some(1));
        assert_eq!(read_.disks[0].path_hash, read(XML, &[]).expect("well-formed").disks[0].path_hash);
    }

    #[test]
    fn what_is_no_description_is_refused() {
        let bomb = format!("<domain>{}</domain>", "<a/>".repeat(60_000));
        let entity = "<!DOCTYPE d [<!ENTITY a 'aaaa'>]><domain><uuid>&a;</uuid></domain>";
        for xml in
            ["", "<domain>", "<network><uuid>6f000000-0000-4000-8000-000000000001</uuid></network>", &bomb, entity]
        {
            assert_eq!((uuid(xml), read(xml, &[])), (None, None), "{}", &xml[..xml.len().min(40)]);
        }
    }
}
