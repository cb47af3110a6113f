//! What failover's hands are held against: sushy-tools' Redfish emulator in a Python environment, and
//! OpenIPMI's simulator with ipmitool, taken out of Debian's packages. All of it in the cache, without root.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::cache::Cache;
use crate::cargo::cargo;
use crate::packages::{has, taken_apart, unavailable};
use crate::python;
use crate::steps::{Log, Verdict, counted};

/// The two programs, and the libraries that a machine without them lacks; Debian 12's names.
const PACKAGES: [&str; 5] = ["openipmi", "ipmitool", "libopenipmi0", "libpopt0", "libfreeipmi17"];

/// Runs the test targets named `hands`. Where what they need cannot be had the step fails in CI, and is
/// skipped elsewhere.
pub fn step(cache: &Cache, log: &Log) -> Result<Verdict> {
    let Some(python) = python::environment(cache, log, "hands", "operators/tests/hands/requirements.txt")? else {
        return Ok(unavailable("sushy-tools could not be installed: python3 with venv and a package index are needed"));
    };
    let Some([simulator, ipmitool]) = ipmi(cache)? else {
        return Ok(unavailable(
            "ipmi_sim and ipmitool are not there, and Debian's packages openipmi and ipmitool could not be fetched",
        ));
    };
    let mut command = cargo(cache, &["test", "--workspace", "--locked", "--test", "hands"])?;
    command
        .env("PALLIUM_SUSHY", python.join("sushy-emulator"))
        .env("PALLIUM_IPMI_SIM", simulator)
        .env("PALLIUM_IPMITOOL", ipmitool);
    let passed = log.run(&mut command)?;
    Ok(Verdict::Ran(counted(&log.text(), passed)))
}

fn ipmi(cache: &Cache) -> Result<Option<[PathBuf; 2]>> {
    let programs = ["ipmi_sim", "ipmitool"];
    if programs.iter().all(|program| has(program)) {
        return Ok(Some(programs.map(PathBuf::from)));
    }
    let Some(root) = taken_apart(cache, &PACKAGES)? else { return Ok(None) };
    let [simulator, ipmitool] = programs.map(|program| beside_its_libraries(&root, program));
    Ok(Some([simulator?, ipmitool?]))
}

/// A script that runs a program of `root` with the libraries that lie there, and nothing else with them.
fn beside_its_libraries(root: &Path, program: &str) -> Result<PathBuf> {
    let mut libraries = Vec::new();
    for folder in ["usr/lib", "lib"].map(|folder| root.join(folder)) {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            libraries.push(entry?.path().display().to_string());
        }
    }
    let script = root.join(program);
    let text = format!(
        "#!/bin/sh\nLD_LIBRARY_PATH='{}' exec '{}' \"$@\"\n",
        libraries.join(":"),
        root.join("usr/bin").join(program).display()
    );
    fs::write(&script, text).with_context(|| format!("cannot write {}", script.display()))?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    Ok(script)
}
