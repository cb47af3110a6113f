//! What an operator may set of deciding. Part of the node's configuration; apply never reads it:
//! what of it matters to the state travels inside commands.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::domain::Domain;
use crate::intent::Intent;

/// Settings of the decision path, with the defaults of `nova-pipeline` section 0.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Pipeline for a request that names none and from which none can be inferred, where it is another
    /// than the shipped one: see [`Self::default_of`].
    pub default_pipeline: BTreeMap<Domain, String>,
    /// Refuse a request whose flavor names no known hypervisor type, as the peer does.
    pub strict_inference: bool,
    /// What happens to hosts that were sent but are not known.
    pub unknown_hosts: UnknownHosts,
    /// Life of an unconfirmed claim, seconds.
    pub claim_expiry: ClaimExpiry,
    /// Age up to which a repeat without a request id counts as the same request, milliseconds.
    pub same_request_ms: u64,
    /// Hosts of the answer that are also remembered with their score.
    pub record_top: usize,
    /// Candidates up to which the deciding node keeps a reason for each dropped host.
    pub detail_hosts: usize,
    /// Decisions whose detail the deciding node keeps.
    pub detail_decisions: usize,
    /// Whether what failover thinks of hosts keeps new instances off them: where it acts.
    #[serde(skip)]
    pub cordon: bool,
}

/// What to do with hosts that were sent but are not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnknownHosts {
    /// Leave them out of the answer.
    #[default]
    Drop,
    /// Put them after all known hosts; they are never claimed.
    Append,
}

/// Life of a claim by intent, seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClaimExpiry {
    /// Create and evacuate.
    pub create: u64,
    /// Resize, cold migration and unlabelled moves.
    pub resize: u64,
    /// Live migration.
    pub live_migration: u64,
}

impl Default for ClaimExpiry {
    fn default() -> Self {
        Self { create: 600, resize: 1800, live_migration: 4500 }
    }
}

impl ClaimExpiry {
    /// Life in milliseconds of a claim made for `intent`.
    pub fn millis(&self, intent: Intent) -> u64 {
        1000 * match intent {
            Intent::LiveMigration => self.live_migration,
            Intent::Resize | Intent::Move => self.resize,
            _ => self.create,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            default_pipeline: BTreeMap::new(),
            strict_inference: false,
            unknown_hosts: UnknownHosts::Drop,
            claim_expiry: ClaimExpiry::default(),
            same_request_ms: 10_000,
            record_top: 4,
            detail_hosts: 1024,
            detail_decisions: 1024,
            cordon: false,
        }
    }
}

impl Settings {
    /// Pipeline of a domain for a request that names none and from which none can be inferred.
    pub fn default_of(&self, domain: Domain) -> &str {
        self.default_pipeline.get(&domain).map_or(
            match domain {
                Domain::Nova => "nova-general",
                Domain::Cinder => "cinder-external-scheduler",
                Domain::Manila => "manila-external-scheduler",
                Domain::Machines => "machines-scheduler",
                Domain::Pods => "pods-scheduler",
            },
            String::as_str,
        )
    }
}
