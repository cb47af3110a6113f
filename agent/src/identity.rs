//! Who this host is, in which boot, and to which cluster it belongs: what its disk remembers, and what its
//! firmware says.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::disk::{self, Failure};
use crate::report::BOOTS;

const ADVICE: &str = "it is what proves that this host has rebooted: restore it, or remove it and let an operator \
                      release the host from quarantine";

/// A boot, and whether a Hello of it was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// The kernel's boot id.
    pub id: Uuid,
    /// A server has taken its Hello in.
    pub answered: bool,
}

/// What the disk remembers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// Boots, the newest first; the first is the present one once the agent has started in it.
    pub boots: Vec<Boot>,
    /// Starts of the agent.
    pub agent_epoch: u64,
    /// The cluster that this agent belongs to.
    pub cluster: Option<Uuid>,
}

impl Memory {
    /// The agent starts in this boot.
    pub fn start(&mut self, boot: Uuid) {
        self.agent_epoch += 1;
        if self.boots.first().is_none_or(|last| last.id != boot) {
            self.boots.insert(0, Boot { id: boot, answered: false });
            self.boots.truncate(BOOTS + 1);
        }
    }
}

/// Who the machine is, by its firmware.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// System UUID.
    pub uuid: Option<Uuid>,
    /// Serial number.
    pub serial: Option<String>,
}

impl Machine {
    /// Reads DMI. What a maker left blank is none.
    pub fn read(root: &Path) -> Self {
        let field = |name: &str| {
            let text = std::fs::read_to_string(root.join("sys/class/dmi/id").join(name)).ok()?;
            Some(text.trim().to_owned()).filter(|text| !text.is_empty())
        };
        let uuid = field("product_uuid").and_then(|text| text.parse::<Uuid>().ok());
        let blank = |serial: &String| {
            let serial = serial.to_ascii_lowercase();
            let known =
                ["none", "not specified", "not applicable", "system serial number", "default string", "to be filled"];
            known.iter().any(|blank| serial.starts_with(blank))
                || serial.chars().all(|c| matches!(c, '0' | '.' | '-' | ' '))
        };
        Self {
            uuid: uuid.filter(|uuid| !uuid.is_nil() && !uuid.is_max()),
            serial: field("product_serial").filter(|serial| !blank(serial)),
        }
    }
}

/// This agent in this boot.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The host, as its credential names it.
    pub host: Uuid,
    /// The kernel's boot id.
    pub boot: Uuid,
    /// Who the machine is.
    pub machine: Machine,
    /// What the disk remembers, this start counted.
    pub memory: Memory,
    /// Where it is kept; none: nowhere (a simulated host).
    path: Option<PathBuf>,
}

impl Identity {
    /// Of a host of this machine: reads what the disk remembers, counts this start, and writes it before
    /// anything is said in its name.
    pub fn of_this_host(host: Uuid, root: &Path, state: &Path) -> Result<Self, Failure> {
        let path = root.join("proc/sys/kernel/random/boot_id");
        let text = std::fs::read_to_string(&path);
        let boot = text.and_then(|text| text.trim().parse().map_err(|_| std::io::ErrorKind::InvalidData.into()));
        let boot = boot.map_err(|error| Failure::Io { doing: "read the boot id in", path, error })?;
        disk::folder(state)?;
        let path = state.join("identity.json");
        let mut memory: Memory = disk::read(&path, ADVICE)?.unwrap_or_default();
        memory.start(boot);
        let identity = Self { host, boot, machine: Machine::read(root), memory, path: Some(path) };
        identity.keep()?;
        Ok(identity)
    }

    /// Of a host that is only played, and remembers nothing by itself.
    pub fn simulated(host: Uuid, boot: Uuid, machine: Machine, mut memory: Memory) -> Self {
        memory.start(boot);
        Self { host, boot, machine, memory, path: None }
    }

    /// Writes what is to be remembered.
    pub fn keep(&self) -> Result<(), Failure> {
        self.path.as_ref().map_or(Ok(()), |path| disk::write(path, &self.memory))
    }

    /// The last boot before this one whose Hello was answered, else the last one that is remembered.
    pub fn previous(&self) -> Option<Uuid> {
        let former = || self.memory.boots.iter().filter(|boot| boot.id != self.boot);
        former().find(|boot| boot.answered).or_else(|| former().next()).map(|boot| boot.id)
    }

    /// All boots before this one that are remembered, the newest first.
    pub fn boots(&self) -> Vec<Uuid> {
        let former = self.memory.boots.iter().filter(|boot| boot.id != self.boot);
        former.map(|boot| boot.id).take(BOOTS).collect()
    }

    /// A Hello of this boot was answered by that cluster. True: something is new, and is to be kept.
    pub fn answered(&mut self, cluster: Uuid) -> bool {
        let mut new = self.memory.cluster.replace(cluster) != Some(cluster);
        if let Some(boot) = self.memory.boots.first_mut().filter(|boot| !boot.answered) {
            boot.answered = true;
            new = true;
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use uuid::Uuid;

    use super::{Identity, Machine};
    use crate::disk::Failure;

    fn id(number: u128) -> Uuid {
        Uuid::from_u128(number)
    }

    fn boot(root: &std::path::Path, number: u128) -> Result<Identity, Failure> {
        let folder = root.join("proc/sys/kernel/random");
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join("boot_id"), format!("{}\n", id(number))).expect("a file");
        Identity::of_this_host(id(1), root, &root.join("state"))
    }

    #[test]
    fn boots_are_chained_by_those_that_were_answered() {
        let root = tempfile::tempdir().expect("a folder");
        let mut first = boot(root.path(), 10).expect("it starts");
        assert_eq!((first.previous(), first.memory.agent_epoch), (None, 1));
        assert!(first.answered(id(99)));
        assert!(!first.answered(id(99)), "nothing new");
        first.keep().expect("written");
        let again = boot(root.path(), 10).expect("it starts");
        assert_eq!((again.previous(), again.memory.agent_epoch), (None, 2), "the same boot");
        // A boot in which no server was reached.
        boot(root.path(), 11).expect("it starts");
        let third = boot(root.path(), 12).expect("it starts");
        assert_eq!((third.previous(), third.boots()), (Some(id(10)), vec![id(11), id(10)]));
        assert_eq!(third.memory.cluster, Some(id(99)));
        for number in 13..40 {
            boot(root.path(), number).expect("it starts");
        }
        assert_eq!(boot(root.path(), 40).expect("it starts").boots().len(), super::BOOTS);
    }

    #[test]
    fn a_damaged_memory_is_an_error_and_not_a_new_host() {
        let root = tempfile::tempdir().expect("a folder");
        boot(root.path(), 10).expect("it starts");
        let path = root.path().join("state/identity.json");
        let whole = fs::read(&path).expect("written");
        fs::write(&path, &whole[..whole.len() / 2]).expect("cut");
        let error = boot(root.path(), 11).expect_err("damaged").to_string();
        assert!(error.contains("identity.json is damaged") && error.contains("quarantine"), "{error}");
    }

    #[test]
    fn firmware_that_says_nothing_is_none() {
        let root = tempfile::tempdir().expect("a folder");
        let folder = root.path().join("sys/class/dmi/id");
        fs::create_dir_all(&folder).expect("a folder");
        let read = |uuid: &str, serial: &str| {
            fs::write(folder.join("product_uuid"), uuid).expect("a file");
            fs::write(folder.join("product_serial"), serial).expect("a file");
            Machine::read(root.path())
        };
        let good = read("4C4C4544-0051-3510-8052-B4C04F4E3432\n", "ABC123\n");
        assert_eq!((good.uuid.is_some(), good.serial.as_deref()), (true, Some("ABC123")));
        for serial in ["To Be Filled By O.E.M.\n", "0000000\n", "Not Specified", "\n", "None"] {
            assert_eq!(read("00000000-0000-0000-0000-000000000000\n", serial), Machine::default(), "{serial}");
        }
    }
}
