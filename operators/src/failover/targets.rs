//! Where an instance may go: what the filters and weighers of the Nova pipeline say, asked as a question that
//! claims nothing.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use raft::Node;
use scheduler::consumer::Purpose;
use scheduler::ha::planner::Targets;
use scheduler::ha::recovery::{Life, Stays};
use scheduler::intent::Intent;
use scheduler::request::{Group, Options};
use scheduler::state::Tables;
use scheduler::{Domain, Request};
use tokio::runtime::Handle;
use uuid::Uuid;

/// Hosts that are asked for: instances that ask the same are ranked once, and share the list.
const MOST: u64 = 256;

/// The pipeline's answer.
pub struct Ranked<'a> {
    node: &'a Node,
    tables: &'a Tables,
    handle: Handle,
    /// Lives of hosts that take instances, by Nova's name.
    lives: BTreeMap<&'a str, Life>,
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
    /// All that the request below says of an instance, but the instance and its group.
    fn question(&self, instance: Uuid) -> Option<u64> {
        let consumer = self.tables.consumer(Domain::Nova, instance, Purpose::Instance)?;
        let mut hasher = DefaultHasher::new();
        for (class, amount) in consumer.amounts.iter() {
            (class, amount).hash(&mut hasher);
        }
        (consumer.flavor, consumer.project, consumer.user).hash(&mut hasher);
        Some(hasher.finish())
    }

    /// Nova would build it anew from its image: what was on the disk is lost, and is not while it waits for its host.
    fn stays(&self, instance: Uuid) -> Option<Stays> {
        let host = self.tables.failover().permits.get(instance)?.life.host;
        self.node.ears().is_local(host, instance).then_some(Stays::LocalDisk)
    }

    fn ranked(&self, instance: Uuid, source: Life, group: Option<&Group>) -> Vec<Life> {
        let tables = self.tables;
        let Some(consumer) = tables.consumer(Domain::Nova, instance, Purpose::Instance) else { return Vec::new() };
        let text = |sym: Option<_>| sym.map(|sym| tables.names.text(sym).to_owned());
        let from = tables.failover().hosts.get(source.host).map(|host| tables.names.text(host.nova_host).to_owned());
        let request = Request {
            domain: Domain::Nova,
            consumers: vec![instance],
            label: Some(Intent::Evacuate),
            source_host: from.clone(),
            ignore_hosts: from.into_iter().collect(),
            resources: consumer
                .amounts
                .iter()
                .map(|(class, amount)| (tables.names.text(class).to_owned(), amount))
                .collect(),
            flavor: text(consumer.flavor),
            project: text(consumer.project),
            user: text(consumer.user),
            group: group.cloned(),
            num_instances: 1,
            options: Options { max_candidates: MOST, ..Options::probe() },
            ..Request::default()
        };
        match self.handle.block_on(self.node.probe(request)) {
            Ok(decision) => {
                decision.hosts.iter().filter_map(|ranked| self.lives.get(ranked.host.as_str()).copied()).collect()
            }
            Err(refused) => {
                tracing::warn!(%instance, %refused, "failover: where an instance may go could not be asked");
                Vec::new()
            }
        }
    }
}
