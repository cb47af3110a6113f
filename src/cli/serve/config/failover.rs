//! The key `ha`: what failover may do, and what pallium's own voters stand on.

use std::collections::BTreeMap;

use operators::reader::{Fields, Place, Reader};
use operators::{events, hands};
use scheduler::ha::HostId;
use scheduler::ha::order::Voter;
use scheduler::ha::policy;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Failover.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Section {
    /// What failover may do. The same on every node: the one that leads acts.
    pub mode: Mode,
    /// Whether the certificates of agents and operators must say who they are. The same on every node.
    pub identities: Identities,
    /// What the voters stand on, by node id, so that fencing never takes pallium's own majority.
    pub voters: BTreeMap<u64, Ground>,
    /// Nova, which evacuates. Without it nothing is evacuated.
    pub nova: Option<hands::Nova>,
    /// BMCs that speak Redfish.
    pub redfish: Option<hands::Redfish>,
    /// BMCs that speak IPMI over LAN+.
    pub ipmi: Option<hands::Ipmi>,
    /// Who is told what happens, by CloudEvents: 16 receivers at most.
    pub events: Vec<events::Receiver>,
}

/// What failover may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Nothing: hosts are known, and nobody watches them. Those that live on watchdog leases are granted them.
    #[default]
    Off,
    /// It watches and decides up to the first act, which it tells in the log and does not do.
    DryRun,
    /// It fences and evacuates.
    Enforce,
}

/// Whether certificates of clients must say who they are, by a URI as in
/// spiffe://cloud.example/pallium/operator/ada. A certificate that does is held to it in either case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Identities {
    /// A certificate without such a URI speaks for any host and gives any order.
    #[default]
    Optional,
    /// It does neither. Needs tls.client.ca.
    Required,
}

/// What a voter stands on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Ground {
    /// Id of the hypervisor that it runs on, if failover watches that.
    #[schemars(with = "Option<String>")]
    pub host: Option<Uuid>,
    /// What shares its enclosure.
    pub chassis: String,
    /// What shares its feed.
    pub power: String,
}

/// Keys of the specification whose feature does not exist yet: refused, so that nobody believes in it.
const PLANNED: [&str; 6] = ["detection", "breaker", "protect", "localDiskPolicy", "transformStates", "drills"];
/// Keys that are said for hosts, and replicated.
const IN_POLICIES: [&str; 8] =
    ["selector", "fencing", "isolationResponse", "rates", "errorInstances", "restartInPlace", "admission", "drain"];

impl Section {
    pub(super) fn read(reader: &mut Reader, fields: Fields<'_, '_>) -> Self {
        let place = Place::Key(fields.at, "ha");
        let Some(given) = reader.map(fields, "ha") else { return Self::default() };
        let planned = PLANNED.map(|key| (key, "planned, and does nothing yet; take this key out"));
        let elsewhere = "a FailoverPolicy says it (`pallium ctl ha policy apply FILE`); take this key out";
        let all = planned.into_iter().chain(IN_POLICIES.map(|key| (key, elsewhere)));
        let wrong: Vec<_> = all.filter(|(key, _)| given.contains_key(*key)).collect();
        for (key, why) in &wrong {
            reader.fault(&Place::Key(&place, key), *why);
        }
        if wrong.is_empty() { super::section(reader, fields, "ha") } else { Self::default() }
    }

    /// As the API is told.
    pub fn mode(&self) -> api::Mode {
        match self.mode {
            Mode::Off => api::Mode::Off,
            Mode::DryRun => api::Mode::DryRun,
            Mode::Enforce => api::Mode::Enforce,
        }
    }

    /// As the API is told.
    pub fn identities(&self) -> api::Identities {
        match self.identities {
            Identities::Optional => api::Identities::Optional,
            Identities::Required => api::Identities::Required,
        }
    }

    /// What acts.
    pub fn hands(&self) -> hands::Config {
        hands::Config { nova: self.nova.clone(), redfish: self.redfish.clone(), ipmi: self.ipmi.clone() }
    }

    /// As the coordinator is told.
    pub fn settings(&self) -> operators::failover::Settings {
        let voter = |(node, ground): (&u64, &Ground)| Voter {
            node: *node,
            host: ground.host.map(HostId),
            chassis: ground.chassis.clone(),
            power: ground.power.clone(),
        };
        operators::failover::Settings {
            mode: match self.mode {
                Mode::Off => policy::Mode::Off,
                Mode::DryRun => policy::Mode::DryRun,
                Mode::Enforce => policy::Mode::Enforce,
            },
            voters: self.voters.iter().map(voter).collect(),
        }
    }
}
