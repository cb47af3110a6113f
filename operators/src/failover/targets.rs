//! Where an instance may go: what the filters and weighers of the Nova pipeline say, asked as a question that
//! claims nothing.

use std::collections::HashMap;

use raft::Node;
use scheduler::ha::planner::{Asked, Asks, Targets};
use scheduler::ha::recovery::{Life, Stays};
use scheduler::state::Tables;
use tokio::runtime::Handle;
use uuid::Uuid;

/// The pipeline's answer.
pub struct Ranked<'a> {
    node: &'a Node,
    tables: &'a Tables,
    handle: Handle,
    /// Lives of hosts that take instances, by Nova's name.
    lives: HashMap<&'a str, Life>,
}

impl<'a> Ranked<'a> {
    /// On a thread that may block, within a runtime.
    pub fn new(node: &'a Node, tables: &'a Tables) -> Self {
        let failover = tables.failover();
        // Only a plan asks.
        let plans = !failover.cases.is_empty() || !failover.drains.is_empty();
        let hosts = failover.hosts.iter().filter(|host| plans && host.takes_instances());
        let lives = hosts
            .map(|host| (tables.names.text(host.nova_host), Life { host: host.id, incarnation: host.incarnation }));
        Self { node, tables, handle: Handle::current(), lives: lives.collect() }
    }
}

impl Targets for Ranked<'_> {
    fn question(&self, instance: Uuid, asks: &Asks) -> Option<u64> {
        asks.question(self.tables, instance)
    }

    /// Nova would build it anew from its image: what was on the disk is lost, and is not while it waits for its host.
    fn stays(&self, instance: Uuid) -> Option<Stays> {
        let host = self.tables.failover().permits.get(instance)?.life.host;
        self.node.ears().is_local(host, instance).then_some(Stays::LocalDisk)
    }

    fn ranked(&self, asked: &Asked<'_>) -> Vec<Life> {
        let Some(request) = asked.request(self.tables) else { return Vec::new() };
        match self.handle.block_on(self.node.probe(request)) {
            Ok(decision) => {
                decision.hosts.iter().filter_map(|ranked| self.lives.get(ranked.host.as_str()).copied()).collect()
            }
            Err(refused) => {
                tracing::warn!(instance = %asked.instance, %refused, "failover: where an instance may go could not be asked");
                Vec::new()
            }
        }
    }
}
