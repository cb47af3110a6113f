//! The identity of a data folder: which cluster, which node, which store.
//!
//! Written when the folder is first used; the cluster of a node that waits to be added is written
//! when it is. A folder opened as another node is refused: its log and its vote belong to the node
//! that wrote them.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use scheduler::Levels;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Version of the identity file this program writes and reads.
pub const VERSION: u32 = 1;
const NAME: &str = "identity";

/// What the file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Version of the file.
    pub version: u32,
    /// The cluster; nil while the node is a member of none.
    pub cluster: Uuid,
    /// The node's number in it.
    pub node: u64,
    /// This folder, at random: an emptied folder is another store.
    pub store: Uuid,
    /// The highest [feature level](scheduler::level) that the folder has seen its cluster reach; 0: none.
    #[serde(default)]
    pub level: u8,
}

/// Why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file operation failed.
    #[error("{path}: {source}; check the disk and the owner of the folder", path = .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// Not an identity.
    #[error("{path}: not an identity file: {what}; restore it, or empty the folder and let the node join again with a new node id", path = .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// Written by another version.
    #[error("{path}: identity of version {found}, this program reads version {VERSION}; start the version of pallium that wrote it", path = .path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Version in the file.
        found: u32,
    },
    /// The folder of another node.
    #[error("{path}: this folder belongs to node {found}, but node {expected} was to be started; give the node its own data folder, or the right node id", path = .path.display())]
    OtherNode {
        /// The file.
        path: PathBuf,
        /// The node in the file.
        found: u64,
        /// The node to be started.
        expected: u64,
    },
    /// The node is a member of a cluster already.
    #[error("node {node} is a member of cluster {found} already")]
    Member {
        /// The node.
        node: u64,
        /// Its cluster.
        found: Uuid,
    },
    /// The folder of another cluster.
    #[error("{path}: this folder belongs to cluster {found}, expected {expected}; give the node the right data folder", path = .path.display())]
    OtherCluster {
        /// The file.
        path: PathBuf,
        /// The cluster in the file.
        found: Uuid,
        /// The cluster asked for.
        expected: Uuid,
    },
    /// There is a log, but nothing says whose.
    #[error("{path}: the identity is missing although the folder holds a log; restore it, or empty the folder and let the node join again with a new node id", path = .0.display())]
    Missing(PathBuf),
}

/// The identity of a running node, and the file that keeps it.
#[derive(Debug)]
pub struct Me {
    folder: PathBuf,
    identity: Mutex<Identity>,
    /// Feature levels that this node supports.
    pub levels: Levels,
}

impl Me {
    /// Of this folder.
    pub fn new(folder: &Path, identity: Identity, levels: Levels) -> Me {
        Me { folder: folder.to_owned(), identity: Mutex::new(identity), levels }
    }

    /// Who this node is now.
    pub fn get(&self) -> Identity {
        *self.identity.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Becomes a member of a cluster, for good. Again of the same one is no change.
    pub fn adopt(&self, cluster: Uuid) -> Result<(), IdentityError> {
        let mut identity = self.identity.lock().unwrap_or_else(PoisonError::into_inner);
        if identity.cluster == cluster {
            return Ok(());
        }
        if !identity.cluster.is_nil() {
            return Err(IdentityError::Member { node: identity.node, found: identity.cluster });
        }
        let new = Identity { cluster, ..*identity };
        self.change(&mut identity, new)
    }

    /// The feature level that this node writes at.
    pub fn level(&self) -> u8 {
        self.levels.written(self.get().level)
    }

    /// Notes that the cluster has reached a feature level, so that a program that does not support it
    /// refuses the folder instead of reading it.
    pub fn reached(&self, level: u8) -> Result<(), IdentityError> {
        let mut identity = self.identity.lock().unwrap_or_else(PoisonError::into_inner);
        if identity.level >= level {
            return Ok(());
        }
        let new = Identity { level, ..*identity };
        self.change(&mut identity, new)
    }

    fn change(&self, identity: &mut Identity, new: Identity) -> Result<(), IdentityError> {
        let path = self.folder.join(NAME);
        write(&self.folder, &path, &new).map_err(|source| IdentityError::File { path, source })?;
        *identity = new;
        Ok(())
    }
}

/// Reads the identity of a folder, or writes one into a folder that holds no log yet: of this
/// cluster, or of a new one.
pub fn identify(folder: &Path, node: u64, cluster: Option<Uuid>, has_log: bool) -> Result<Identity, IdentityError> {
    let path = folder.join(NAME);
    let file_error = |source| IdentityError::File { path: path.clone(), source };
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound && has_log => return Err(IdentityError::Missing(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let cluster = cluster.unwrap_or_else(Uuid::now_v7);
            let identity = Identity { version: VERSION, cluster, node, store: Uuid::now_v7(), level: 0 };
            write(folder, &path, &identity).map_err(file_error)?;
            return Ok(identity);
        }
        Err(error) => return Err(file_error(error)),
    };
    let damaged = |what: String| IdentityError::Damaged { path: path.clone(), what };
    let value: serde_json::Value = serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
    let version = value["version"].as_u64().ok_or_else(|| damaged("it has no version".to_owned()))?;
    if version != u64::from(VERSION) {
        return Err(IdentityError::Version { path, found: version as u32 });
    }
    let identity: Identity = serde_json::from_value(value).map_err(|error| damaged(error.to_string()))?;
    if identity.node != node {
        return Err(IdentityError::OtherNode { path, found: identity.node, expected: node });
    }
    match cluster {
        Some(expected) if !expected.is_nil() && expected != identity.cluster => {
            Err(IdentityError::OtherCluster { path, found: identity.cluster, expected })
        }
        _ => Ok(identity),
    }
}

fn write(folder: &Path, path: &Path, identity: &Identity) -> io::Result<()> {
    let unfinished = path.with_extension("unfinished");
    let mut file = File::create(&unfinished)?;
    file.write_all(&serde_json::to_vec_pretty(identity)?)?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    File::open(folder)?.sync_all()
}
