#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use scheduler::{Core, Levels};
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::LogStore;
use crate::fixture::engine;
use crate::identity::{Me, identify};
use crate::machine::Machine;
use crate::owner::{Limits, Owner};
use crate::snapshot::Folder;
use crate::types::TypeConfig;
use crate::wal::faulty::Disk;
use crate::wal::{Options, Wal};

struct Stores;

impl StoreBuilder<TypeConfig, LogStore, Machine, TempDir> for Stores {
    async fn build(&self) -> Result<(TempDir, LogStore, Machine), StorageError<TypeConfig>> {
        let folder = tempfile::tempdir().unwrap();
        let options = Options {
            segment_bytes: 16 << 10,
            ready_segments: 1,
            first_segment_bytes: 4 << 10,
            tail_bytes: 4 << 10,
            ..Options::default()
        };
        let wal = Wal::open_in(&Disk::default().files(), &options).unwrap();
        let me = identify(folder.path(), 1, None, false).unwrap();
        let me = Me::new(folder.path(), me, Levels::PROGRAM);
        let (proposals, _) = mpsc::unbounded_channel();
        let (owner, _) = Owner::start(Core::new(), engine(), Limits::default(), (1, 1), proposals).unwrap();
        let machine = Machine::new(owner, Arc::new(me), Folder::open(folder.path(), Levels::PROGRAM).unwrap(), None);
        Ok((folder, LogStore::new(Arc::new(wal)), machine))
    }
}

#[test]
fn openrafts_suite() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(Suite::test_all(Stores)).unwrap();
}
