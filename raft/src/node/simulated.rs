//! A node without threads, for simulations: the same parts, run as tasks.

use std::sync::{Arc, Mutex, OnceLock};

use scheduler::Engine;
use tokio::sync::mpsc;

use super::open::{Start, Unpacked, doors, start, unpack};
use super::{Inner, Node, OpenError, Options};
use crate::clock::Wall;
use crate::local::Local;
use crate::machine::Machine;
use crate::owner::{Owner, Watch};
use crate::peer::door::Door;
use crate::peer::link::Link;
use crate::tasks;
use crate::wal::Wal;

/// What a simulated node is given instead of threads and clocks.
pub struct Stage {
    /// The link to its peers.
    pub link: Arc<dyn Link>,
    /// Told where peers are answered, before anything else happens.
    pub listens: Box<dyn FnOnce(Arc<Door>) + Send>,
    /// Names this start.
    pub run: u64,
    /// Its wall clock.
    pub wall: Wall,
    /// Sees what the core does.
    pub watch: Watch,
}

impl Node {
    /// Opens a node on a log whose writer runs already.
    pub(crate) async fn simulated(
        options: &Options,
        engine: Engine,
        wal: Arc<Wal>,
        stage: Stage,
    ) -> Result<Node, OpenError> {
        let Unpacked { me, has_log, core, snapshots, snapshot } = unpack(options, &wal)?;
        let (proposals, proposed) = mpsc::unbounded_channel();
        let names = (me.get().node, stage.run);
        let (owner, at_rest) = Owner::at_rest(core, engine, options.limits.clone(), names, proposals, stage.wall);
        tasks::spawn(at_rest.drive(stage.watch));
        let machine = Machine::new(owner.clone(), Arc::clone(&me), snapshots, snapshot);
        let (peers, door) = doors(options, &me, has_log, stage.link);
        (stage.listens)(Arc::clone(&door));
        let failed = Arc::new(OnceLock::new());
        let parts = Start { options, peers, owner: &owner, wal: &wal, door: &door, peer_addr: None, failed: &failed };
        let local = start(parts, machine, proposed).await?;
        let fresh = tokio::sync::Mutex::default();
        Ok(Node(Arc::new(Inner { local, parts: Mutex::new(None), fresh, peer_addr: None, failed })))
    }

    /// Its parts.
    pub(crate) fn local(&self) -> &Local {
        &self.0.local
    }
}
