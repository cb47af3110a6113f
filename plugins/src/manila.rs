//! The steps of the Manila domain: storage pools that take shares.

pub mod netapp_cpu_usage_balancing;
