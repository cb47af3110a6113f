//! What a provider offers of one resource class, and the one capacity formula (Placement's).

use bitcode::{Decode, Encode};
use serde::{Deserialize, Serialize};

/// Inventory of one resource class. Amounts are integers in the class's unit (VCPU: count,
/// MEMORY_MB: MiB, DISK_GB: GiB).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, Encode, Decode)]
#[serde(deny_unknown_fields)]
pub struct Inventory {
    /// Physical amount.
    pub total: u64,
    /// Amount that is never given to consumers.
    #[serde(default)]
    pub reserved: u64,
    /// Overcommit: finite and above 0.
    #[serde(default = "one")]
    pub allocation_ratio: f64,
    /// Smallest amount that one consumer may take.
    #[serde(default = "unit")]
    pub min_unit: u64,
    /// Largest amount that one consumer may take.
    #[serde(default = "no_limit")]
    pub max_unit: u64,
    /// Amounts are multiples of this.
    #[serde(default = "unit")]
    pub step_size: u64,
}

fn one() -> f64 {
    1.0
}
fn unit() -> u64 {
    1
}
fn no_limit() -> u64 {
    i32::MAX as u64
}

impl Inventory {
    /// Inventory of `total` with no reserve, ratio 1 and no unit limits.
    pub fn of(total: u64) -> Self {
        Self { total, reserved: 0, allocation_ratio: 1.0, min_unit: 1, max_unit: no_limit().max(total), step_size: 1 }
    }

    /// The same with an overcommit ratio.
    pub fn with_ratio(self, allocation_ratio: f64) -> Self {
        Self { allocation_ratio, ..self }
    }

    /// Capacity = floor((total − reserved) × allocation_ratio), 0 when reserved exceeds total.
    /// One IEEE multiplication and a floor: equal on every replica.
    pub fn capacity(&self) -> u64 {
        (self.total.saturating_sub(self.reserved) as f64 * self.allocation_ratio) as u64
    }

    /// The rule of min_unit, max_unit and step_size for one consumer's amount.
    pub fn allows(&self, amount: u64) -> bool {
        amount >= self.min_unit && amount <= self.max_unit && amount.is_multiple_of(self.step_size.max(1))
    }

    /// What is wrong with it, in words that name field, value and expectation.
    pub fn validate(&self) -> Result<(), String> {
        if !(self.allocation_ratio.is_finite() && self.allocation_ratio > 0.0) {
            return Err(format!("allocation_ratio: {} given, a finite number above 0 expected", self.allocation_ratio));
        }
        if self.min_unit == 0 || self.step_size == 0 {
            return Err("min_unit and step_size: at least 1 expected".to_owned());
        }
        if self.max_unit < self.min_unit {
            return Err(format!("max_unit: {} given, at least min_unit ({}) expected", self.max_unit, self.min_unit));
        }
        for (field, value) in [("total", self.total), ("reserved", self.reserved)] {
            if value > Self::LARGEST {
                return Err(format!("{field}: {value} given, at most {} expected", Self::LARGEST));
            }
        }
        if self.total.saturating_sub(self.reserved) as f64 * self.allocation_ratio > Self::LARGEST as f64 {
            return Err(format!(
                "allocation_ratio: {} makes a capacity above {}",
                self.allocation_ratio,
                Self::LARGEST
            ));
        }
        Ok(())
    }

    /// Largest amount that any input may name: sums of such amounts stay exact.
    pub const LARGEST: u64 = 1 << 50;
}
