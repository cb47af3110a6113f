//! What a build from nothing costs, by crate.

use std::fs;
use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::cache::Cache;
use crate::cargo::{self, cargo};
use crate::steps::words;

/// Crates that are printed.
const MOST: usize = 25;

/// Builds the program into an empty folder and prints the crates that took longest.
pub fn run(cache: &Cache, release: bool) -> Result<bool> {
    let target = cache.target().join("timings");
    if target.exists() {
        fs::remove_dir_all(&target).with_context(|| format!("cannot empty {}", target.display()))?;
    }
    let mut command = cargo(cache, &["build", "--locked", "--timings"])?;
    command.args(release.then_some("--release")).env("CARGO_TARGET_DIR", &target);
    let start = Instant::now();
    if !cargo::succeeds(&mut command)? {
        return Ok(false);
    }
    println!("\nbuilt from nothing in {}", words(start.elapsed()));
    let page = target.join("cargo-timings/cargo-timing.html");
    let html = fs::read_to_string(&page).with_context(|| format!("cannot read {}", page.display()))?;
    let mut units = units(&html).context("cargo's timing page has no UNIT_DATA: its format has changed")?;
    units.sort_by(|a, b| b.1.total_cmp(&a.1));
    for (name, seconds) in units.iter().take(MOST) {
        println!("{seconds:7.1} s  {name}");
    }
    println!(
        "\n{} units, {:.0} s one after the other; the page: {}",
        units.len(),
        units.iter().map(|u| u.1).sum::<f64>(),
        page.display()
    );
    Ok(true)
}

/// Crate and duration of each unit, from the data inside cargo's page.
fn units(html: &str) -> Option<Vec<(String, f64)>> {
    let data = html.split_once("const UNIT_DATA = ")?.1;
    let units = serde_json::Deserializer::from_str(data).into_iter::<Value>().next()?.ok()?;
    let text = |unit: &Value, key: &str| unit[key].as_str().unwrap_or_default().to_owned();
    let row = |unit: &Value| {
        let name = format!("{} {}{}", text(unit, "name"), text(unit, "version"), text(unit, "target"));
        Some((name, unit["duration"].as_f64()?))
    };
    Some(units.as_array()?.iter().filter_map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::units;

    #[test]
    fn units_are_read_from_the_page() {
        let html = r#"<script>const UNIT_DATA = [{"i":0,"name":"syn","version":"2.0","target":"","duration":3.5}];
const CONCURRENCY_DATA = [];</script>"#;
        assert_eq!(units(html), Some(vec![("syn 2.0".to_owned(), 3.5)]));
        assert_eq!(units("<html>"), None);
    }
}
