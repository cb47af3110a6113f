//! What the host itself says, read from `/proc`, `/sys` and `/etc`: clocks, load, nova-compute, and what would
//! start guests by itself. Nothing is written.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::time::{ClockId, clock_gettime};
use serde::Deserialize;

use crate::report::Pressure;

/// Two readings of the time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Nanoseconds of `CLOCK_BOOTTIME`: it counts suspends, and begins anew with each boot.
    pub boot_ns: u64,
    /// Milliseconds since 1970, by the wall clock.
    pub wall_ms: u64,
}

impl Now {
    /// Of this host, now.
    pub fn read() -> Self {
        let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Self { boot_ns: boot_ns(), wall_ms: wall.as_millis() as u64 }
    }
}

fn nanoseconds(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    (time.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(time.tv_nsec as u64)
}

/// `CLOCK_BOOTTIME`, nanoseconds.
pub fn boot_ns() -> u64 {
    nanoseconds(ClockId::Boottime)
}

/// How long of this boot the host was suspended, nanoseconds.
pub fn suspended_ns() -> u64 {
    nanoseconds(ClockId::Boottime).saturating_sub(nanoseconds(ClockId::Monotonic))
}

/// The kernel's release.
pub fn kernel() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

fn text(path: impl AsRef<Path>) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// File systems that other hosts reach too, by the names that the kernel has for them.
const SHARED: [&str; 13] = [
    "nfs",
    "nfs4",
    "ceph",
    "fuse.ceph",
    "fuse.ceph-fuse",
    "fuse.glusterfs",
    "glusterfs",
    "lustre",
    "gpfs",
    "beegfs",
    "ocfs2",
    "gfs2",
    "cifs",
];

/// Where they are mounted, each with a `/` at its end.
pub fn shared_mounts(root: &Path) -> Vec<String> {
    let mounts = text(root.join("proc/1/mountinfo")).unwrap_or_default();
    let shared = mounts.lines().filter_map(|line| {
        let (mount, source) = line.split_once(" - ")?;
        let kind = source.split(' ').next()?;
        let at = mount.split(' ').nth(4)?;
        SHARED.contains(&kind).then(|| format!("{}/", at.trim_end_matches('/')))
    });
    shared.collect()
}

/// Load of one minute; 0 when it cannot be read.
pub fn load1(root: &Path) -> f32 {
    let load = text(root.join("proc/loadavg"));
    load.and_then(|load| load.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

/// Pressure of the last ten seconds, per cent; 0 where the kernel does not count it.
pub fn pressure(root: &Path) -> Pressure {
    let some10 = |of: &str| {
        let text = text(root.join("proc/pressure").join(of))?;
        text.lines().find(|line| line.starts_with("some"))?.split("avg10=").nth(1)?.split(' ').next()?.parse().ok()
    };
    let of = |name: &str| some10(name).unwrap_or_default();
    Pressure { cpu: of("cpu"), memory: of("memory"), io: of("io") }
}

/// Whether this is a virtual machine. What cannot be told is physical: its watchdog is judged by its driver.
pub fn is_virtual(root: &Path) -> bool {
    let flags = text(root.join("proc/cpuinfo")).is_some_and(|info| {
        info.lines()
            .find(|line| line.starts_with("flags"))
            .is_some_and(|line| line.split(' ').any(|flag| flag == "hypervisor"))
    });
    let vendor =
        ["sys_vendor", "product_name"].iter().filter_map(|name| text(root.join("sys/class/dmi/id").join(name)));
    let makers =
        ["QEMU", "KVM", "VMware", "VirtualBox", "Xen", "Virtual Machine", "OpenStack", "Google Compute", "Bochs"];
    let by_maker = vendor.into_iter().any(|vendor| makers.iter().any(|maker| vendor.contains(maker)));
    flags || by_maker || root.join("sys/hypervisor/type").exists() || root.join("proc/device-tree/hypervisor").exists()
}

/// Whether the host can suspend: the kernel can, and systemd has not masked it.
pub fn suspends(root: &Path) -> bool {
    let able = text(root.join("sys/power/state")).is_some_and(|states| !states.trim().is_empty());
    let masked =
        fs::read_link(root.join("etc/systemd/system/sleep.target")).is_ok_and(|to| to == Path::new("/dev/null"));
    able && !masked
}

/// How nova-compute is seen.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Compute {
    /// A systemd unit: it has a process.
    Unit(String),
    /// The name of its program (or of the script that Python runs).
    Process(String),
}

impl Compute {
    /// Whether it runs. None: that cannot be seen.
    pub fn runs(&self, root: &Path) -> Option<bool> {
        match self {
            Self::Unit(unit) => {
                let groups =
                    ["sys/fs/cgroup", "sys/fs/cgroup/systemd"].map(|place| root.join(place).join("system.slice"));
                let slice = groups.into_iter().find(|slice| slice.is_dir())?;
                Some(text(slice.join(unit).join("cgroup.procs")).is_some_and(|processes| !processes.trim().is_empty()))
            }
            Self::Process(name) => {
                let named = |path: PathBuf| {
                    let line = fs::read(path.join("cmdline")).unwrap_or_default();
                    // The program itself, or what an interpreter was given.
                    line.split(|byte| *byte == 0)
                        .take(3)
                        .any(|word| word.rsplit(|byte| *byte == b'/').next() == Some(name.as_bytes()))
                };
                let processes = fs::read_dir(root.join("proc")).ok()?.flatten();
                let number = |entry: &fs::DirEntry| entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit);
                Some(processes.filter(number).any(|process| named(process.path())))
            }
        }
    }
}

/// What would start guests by itself when the host boots, in words: libvirt-guests, and Nova's
/// `resume_guests_state_on_host_boot`. (Autostart is libvirt's to say.)
pub fn resumes(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let enabled = root.join("etc/systemd/system/multi-user.target.wants/libvirt-guests.service");
    if enabled.symlink_metadata().is_ok() {
        let settings = ["etc/default/libvirt-guests", "etc/sysconfig/libvirt-guests"].map(|path| text(root.join(path)));
        let mut on_boot = settings
            .iter()
            .flatten()
            .flat_map(|text| text.lines())
            .filter_map(|line| line.trim().strip_prefix("ON_BOOT="));
        // Without a setting it starts what ran before.
        if on_boot.next_back().is_none_or(|value| value.trim_matches(['"', '\'']) == "start") {
            found.push("libvirt-guests.service with ON_BOOT=start".to_owned());
        }
    }
    let drop_ins = |folder: &str| {
        let entries = fs::read_dir(root.join(folder)).map(|entries| entries.flatten().map(|entry| entry.path()));
        let mut paths: Vec<PathBuf> = entries.map(|entries| entries.take(64).collect()).unwrap_or_default();
        paths.sort();
        paths
    };
    let mut files = vec![root.join("etc/nova/nova.conf"), root.join("etc/nova/nova-compute.conf")];
    files.extend(drop_ins("etc/nova/nova.conf.d"));
    let mut resume = files.iter().filter_map(text).filter_map(|text| {
        let setting = text
            .lines()
            .filter_map(|line| line.split_once('='))
            .filter(|(key, _)| key.trim() == "resume_guests_state_on_host_boot");
        setting.map(|(_, value)| value.trim().to_ascii_lowercase()).next_back()
    });
    if resume.next_back().is_some_and(|value| matches!(value.as_str(), "true" | "1" | "yes" | "on")) {
        found.push("resume_guests_state_on_host_boot in Nova's configuration".to_owned());
    }
    found
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::{Compute, is_virtual, load1, pressure, resumes, shared_mounts, suspends};

    fn put(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text).expect("a file");
    }

    #[test]
    fn what_other_hosts_reach_too_is_told_by_the_kind_of_its_mount() {
        let root = tempfile::tempdir().expect("a folder");
        assert!(shared_mounts(root.path()).is_empty());
        let mounts = "\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
40 22 0:51 / /var/lib/nova/instances rw,relatime shared:9 - nfs4 filer:/nova rw,vers=4.2
41 22 0:52 /a /srv/ceph rw - ceph 10.0.0.1:/ rw
42 22 0:53 / /nfs-like rw - tmpfs nfs rw
broken
";
        put(root.path(), "proc/1/mountinfo", mounts);
        assert_eq!(shared_mounts(root.path()), ["/var/lib/nova/instances/", "/srv/ceph/"]);
    }

    #[test]
    fn an_empty_host_says_little() {
        let root = tempfile::tempdir().expect("a folder");
        let root = root.path();
        assert_eq!(
            (load1(root), pressure(root), is_virtual(root), suspends(root)),
            (0.0, super::Pressure::default(), false, false)
        );
        assert_eq!(Compute::Unit("nova-compute.service".into()).runs(root), None);
        assert!(resumes(root).is_empty());
    }

    #[test]
    fn a_host_is_read() {
        let root = tempfile::tempdir().expect("a folder");
        let root = root.path();
        put(root, "proc/loadavg", "1.50 1.00 0.50 1/200 4000\n");
        put(root, "proc/pressure/io", "some avg10=12.34 avg60=1.00 avg300=0.00 total=5\nfull avg10=1.00\n");
        put(root, "proc/cpuinfo", "processor : 0\nflags : fpu hypervisor lahf_lm\n");
        put(root, "sys/power/state", "freeze mem\n");
        assert_eq!((load1(root), pressure(root).io, is_virtual(root), suspends(root)), (1.5, 12.34, true, true));
        put(root, "etc/systemd/system/x", "");
        symlink("/dev/null", root.join("etc/systemd/system/sleep.target")).expect("a link");
        assert!(!suspends(root), "masked");

        let unit = Compute::Unit("nova-compute.service".into());
        put(root, "sys/fs/cgroup/system.slice/x", "");
        assert_eq!(unit.runs(root), Some(false));
        put(root, "sys/fs/cgroup/system.slice/nova-compute.service/cgroup.procs", "4711\n");
        assert_eq!(unit.runs(root), Some(true));
        let process = Compute::Process("nova-compute".into());
        assert_eq!(process.runs(root), Some(false));
        put(root, "proc/4711/cmdline", "/usr/bin/python3\0/usr/bin/nova-compute\0--config-file=x");
        assert_eq!(process.runs(root), Some(true));
    }

    #[test]
    fn what_starts_guests_at_boot_is_found() {
        let root = tempfile::tempdir().expect("a folder");
        let root = root.path();
        put(
            root,
            "etc/nova/nova.conf",
            "[DEFAULT]\n#resume_guests_state_on_host_boot = true\nresume_guests_state_on_host_boot=False\n",
        );
        put(root, "etc/systemd/system/multi-user.target.wants/libvirt-guests.service", "");
        put(root, "etc/default/libvirt-guests", "ON_BOOT=ignore\n");
        assert!(resumes(root).is_empty(), "{:?}", resumes(root));
        put(root, "etc/default/libvirt-guests", "#ON_BOOT=ignore\n");
        put(root, "etc/nova/nova.conf.d/50.conf", "resume_guests_state_on_host_boot = True\n");
        assert_eq!(resumes(root).len(), 2, "{:?}", resumes(root));
    }
}
