//! The build cache: cargo's target directory outside the checkout, and beside cargo's own folders
//! in it the logs, tools and corpora of these tasks. A fresh clone finds everything built.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Size above which what cargo built is thrown away: each checkout leaves its own copy of the
/// workspace's crates, and nothing else removes them.
const MOST_BYTES: u64 = 24 << 30;

/// Where things are kept.
pub struct Cache {
    target: PathBuf,
}

impl Cache {
    /// Finds the cache and makes its folder.
    pub fn open() -> Result<Self> {
        let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let target = set("PALLIUM_TARGET_DIR")
            .or_else(|| set("CARGO_TARGET_DIR"))
            .or_else(|| set("XDG_CACHE_HOME").map(|home| home.join("pallium/target")))
            .or_else(|| set("HOME").map(|home| home.join(".cache/pallium/target")))
            .context("no place for the build cache: set PALLIUM_TARGET_DIR or HOME")?;
        fs::create_dir_all(&target).with_context(|| format!("cannot make the build cache {}", target.display()))?;
        let target = target.canonicalize().context("cannot find the build cache that was just made")?;
        Ok(Self { target })
    }

    /// Cargo's target directory.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// A folder of these tasks, made when it is not there.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.target.join("xtask").join(name);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(folder)
    }

    /// Removes what cargo built when it has outgrown its bound; tools and corpora stay.
    pub fn bound(&self) -> Result<()> {
        let size = size(&self.target);
        if size <= MOST_BYTES {
            println!("cache: {} ({:.1} GiB)", self.target.display(), gib(size));
            return Ok(());
        }
        println!(
            "cache: {} has {:.1} GiB, above {} GiB: builds removed",
            self.target.display(),
            gib(size),
            gib(MOST_BYTES)
        );
        for entry in fs::read_dir(&self.target)?.flatten() {
            // This program runs from `debug`: on Linux a running program may be removed.
            if entry.file_name() != "xtask" && entry.path().is_dir() {
                fs::remove_dir_all(entry.path())
                    .with_context(|| format!("cannot remove {}", entry.path().display()))?;
            }
        }
        Ok(())
    }
}

fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

/// Bytes in a folder. What vanishes while it is counted is not counted.
fn size(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => size(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}
