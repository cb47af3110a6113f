//! The steps of the Manila domain: storage pools that take shares.

pub mod min_max_scale;
pub mod netapp_cpu_usage_balancing;
