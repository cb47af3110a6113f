//! The domains that share one model: what a root provider is, and who asks.

use std::fmt;
use std::str::FromStr;

use bitcode::{Decode, Encode};
use serde::{Deserialize, Serialize};

/// A scheduling domain, under the name that Pipeline resources use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "lowercase")]
pub enum Domain {
    /// Hypervisors and instances.
    #[default]
    Nova,
    /// Storage pools and volumes.
    Cinder,
    /// Share backends and shares.
    Manila,
    /// Machine pools and machines.
    Machines,
    /// Kubernetes nodes and pods.
    Pods,
}

impl Domain {
    /// Every domain, in the order of the enum.
    pub const ALL: [Self; 5] = [Self::Nova, Self::Cinder, Self::Manila, Self::Machines, Self::Pods];

    /// The name used in Pipeline resources, files and APIs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nova => "nova",
            Self::Cinder => "cinder",
            Self::Manila => "manila",
            Self::Machines => "machines",
            Self::Pods => "pods",
        }
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Domain {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|domain| domain.as_str() == text)
            .ok_or_else(|| format!("unknown domain '{text}': expected nova, cinder, manila, machines or pods"))
    }
}
