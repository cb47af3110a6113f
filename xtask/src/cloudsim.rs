//! CloudSim Plus beside the bench `replay`: a driver of our own (`tests/cloudsim`) over the package that Maven fetches,
//! on the same hosts and the same events.

use std::fs;
use std::process::Command;

use anyhow::{Result, bail};

use crate::cache::Cache;
use crate::cargo;
use crate::packages::has;

/// Policies that both have by name.
const POLICIES: [&str; 2] = ["first-fit", "best-fit"];
/// Numbers of hosts. The list has 2,500.
const HOSTS: [u32; 2] = [500, 1_000];
/// Events of the trace: what CloudSim Plus plays in minutes.
const EVENTS: u32 = 50_000;
/// Names each dependency's path in a file; pinned as the dependency is.
const CLASS_PATH: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.7.1:build-classpath";

/// The arguments with which the bench plays the same.
pub fn arguments() -> Vec<String> {
    let hosts = HOSTS.map(|hosts| hosts.to_string()).join(",");
    let mut arguments = vec!["--hosts".to_owned(), hosts, "--events".to_owned(), EVENTS.to_string()];
    arguments.extend(POLICIES.map(str::to_owned));
    arguments
}

/// The runs, each a command that prints a `BENCH` line.
pub fn runs(cache: &Cache) -> Result<Vec<Command>> {
    for (program, package) in [("java", "openjdk-17-jdk-headless"), ("mvn", "maven")] {
        if !has(program) {
            bail!(
                "{program} is missing: CloudSim Plus needs a JDK of Java 17 or later, and Maven to fetch it; on Debian \
                 `sudo apt-get install {package}`"
            );
        }
    }
    let folder = cargo::root()?.join("tests/cloudsim");
    let path = cache.folder("cloudsim")?.join("classpath");
    let mut fetch = cargo::command(cache, "mvn")?;
    fetch.args(["-q", "-B", "-f"]).arg(folder.join("pom.xml")).arg(CLASS_PATH);
    if !cargo::succeeds(fetch.arg(format!("-Dmdep.outputFile={}", path.display())))? {
        bail!(
            "Maven could not fetch CloudSim Plus: its central repository, or a mirror in ~/.m2/settings.xml, is needed"
        );
    }
    let class_path = fs::read_to_string(&path)?;
    let traces = cargo::root()?.join("simulation/traces/azure2017");
    let cases = HOSTS.iter().flat_map(|hosts| POLICIES.map(|policy| (hosts, policy)));
    cases
        .map(|(hosts, policy)| {
            let mut run = cargo::command(cache, "java")?;
            run.args(["-cp", class_path.trim()]).arg(folder.join("Peer.java"));
            run.arg(traces.join("events.csv.gz")).arg(traces.join("nodes-uniform.csv"));
            run.args([&hosts.to_string(), &EVENTS.to_string(), policy]);
            Ok(run)
        })
        .collect()
}
