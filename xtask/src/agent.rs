//! The host agent against the real libvirtd: installs libvirt and QEMU (which needs no KVM here), and runs the test
//! target named `libvirt`. It starts a libvirtd of its own, in a mount namespace, and leaves the machine's alone.

use std::path::Path;
use std::process::Command;
use std::{env, fs};

use anyhow::{Result, bail};

use crate::cache::Cache;
use crate::cargo::{self, cargo};
use crate::packages;
use crate::steps::{Count, Log, Verdict, counted};

/// Programs, and the Debian packages that have them.
const PROGRAMS: [(&str, &str); 4] = [
    ("libvirtd", "libvirt-daemon"),
    ("virsh", "libvirt-clients"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("qemu-nbd", "qemu-utils"),
];

/// Runs it. Where libvirt could not be had the step fails in CI, and is skipped elsewhere.
pub fn step(cache: &Cache, log: &Log) -> Result<Verdict> {
    if let Err(error) = prepare() {
        println!("  {error:#}");
        if env::var_os("CI").is_some_and(|ci| ci == "true") {
            return Ok(Verdict::Ran(Count::one(false)));
        }
        return Ok(Verdict::Skipped("it takes root, libvirtd, virsh and QEMU"));
    }
    let mut command = cargo(cache, &["test", "--workspace", "--locked", "--test", "libvirt"])?;
    let passed = log.run(command.env("PALLIUM_LIBVIRTD", "1"))?;
    Ok(Verdict::Ran(counted(&log.text(), passed)))
}

fn prepare() -> Result<()> {
    for (program, package) in PROGRAMS {
        packages::need(program, package)?;
    }
    packages::need_file("libvirt's QEMU driver", "libvirt-daemon-driver-qemu", has_driver)?;
    // A container may have a root that cannot.
    if !cargo::succeeds(Command::new("unshare").args(["--mount", "true"]))? {
        bail!("`unshare --mount` is refused: run it as root, in a container with CAP_SYS_ADMIN");
    }
    Ok(())
}

fn has_driver() -> bool {
    let drivers = |library: &Path| library.join("libvirt/connection-driver/libvirt_driver_qemu.so").is_file();
    let libraries = fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path());
    drivers(Path::new("/usr/lib64")) || libraries.into_iter().any(|library| drivers(&library))
}
