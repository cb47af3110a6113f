//! What is on the host, as it was last seen, and what of it has not been said yet. Bounded by what libvirt
//! lists ([`crate::report::INSTANCES`]).

use std::collections::{BTreeMap, BTreeSet};

use twox_hash::XxHash3_64;
use uuid::Uuid;

use crate::report::{Instance, Instances};

/// The instances, by uuid.
#[derive(Clone, Debug, Default)]
pub struct Table {
    instances: BTreeMap<Uuid, Instance>,
    /// When libvirt was asked for what it answered last; none: it never gave a whole list. What is here is of then: an event
    /// since has asked for one instance, and a libvirt that does not answer tells nothing.
    asked_ns: Option<u64>,
    /// A whole list is wanted.
    whole: bool,
    /// Changed or gone since it was said.
    unsaid: BTreeSet<Uuid>,
}

impl Table {
    /// All there is, as asked for at that time. It is to be said.
    pub fn replace(&mut self, asked_ns: u64, instances: Vec<Instance>) {
        self.instances = instances.into_iter().map(|instance| (instance.uuid, instance)).collect();
        self.asked_ns = Some(asked_ns);
        self.whole = true;
    }

    /// What one is now; `None`: it is gone. Only what is new is to be said.
    pub fn set(&mut self, asked_ns: u64, uuid: Uuid, instance: Option<Instance>) {
        self.asked_ns = self.asked_ns.map(|known| known.max(asked_ns));
        let known = self.instances.get(&uuid);
        if known == instance.as_ref() {
            return;
        }
        match instance {
            Some(instance) => self.instances.insert(uuid, instance),
            None => self.instances.remove(&uuid),
        };
        self.unsaid.insert(uuid);
    }

    /// All is to be said.
    pub fn say_all(&mut self) {
        self.whole = true;
    }

    /// Whether something is to be said.
    pub fn is_unsaid(&self) -> bool {
        self.asked_ns.is_some() && (self.whole || !self.unsaid.is_empty())
    }

    /// What is to be said: all, or what changed.
    pub fn say(&mut self) -> Option<Instances> {
        let asked_boot_ns = self.asked_ns?;
        let whole = std::mem::take(&mut self.whole);
        let unsaid = std::mem::take(&mut self.unsaid);
        if !whole && unsaid.is_empty() {
            return None;
        }
        let (mut present, mut gone) = (Vec::new(), Vec::new());
        if whole {
            present.extend(self.instances.values().cloned());
        } else {
            for uuid in unsaid {
                match self.instances.get(&uuid) {
                    Some(instance) => present.push(instance.clone()),
                    None => gone.push(uuid),
                }
            }
        }
        Some(Instances { whole, asked_boot_ns, present, gone, snapshot_hash: self.hash() })
    }

    /// Names of those that libvirt starts at boot.
    pub fn autostarted(&self) -> impl Iterator<Item = &str> {
        self.instances.values().filter(|instance| instance.autostart).map(|instance| instance.name.as_str())
    }

    fn hash(&self) -> u64 {
        let mut bytes = Vec::with_capacity(self.instances.len() * 17);
        for instance in self.instances.values() {
            bytes.extend(instance.uuid.into_bytes());
            bytes.push(instance.state as u8);
        }
        XxHash3_64::oneshot(&bytes)
    }
}
