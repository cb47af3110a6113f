//! Steps of every domain whose rule stands in the pipeline, as an expression in CEL
//! (<https://cel.dev>): what an operator wants and no other step has.
//!
//! ```text
//!  request   project, user, flavor, zone, intent        strings, "" when the request has none
//!            resources                                  class → amount (MEMORY_MB: MiB, DISK_GB: GiB)
//!            extra_specs, image_properties              key → string
//!            hints                                      key → list of strings
//!            group                                      uuid, policy; "" without one
//!  host      name, node, zone, hypervisor_type, cpu_arch  strings, "" when not known
//!            disabled, forced_down                      booleans
//!            traits, aggregates                         lists of strings (aggregates by name)
//!            metadata                                   key → list of strings, of all its aggregates
//!            capacity, used, free                       class → amount, claims in flight counted
//!            instances                                  number of instances and claims on it
//!  features  name → number                              what sources of metrics say of the host, however old
//! ```
//!
//! A key that is not there is an error of the rule for that host: ask with `in` or `has()` first.
//! Numbers do not mix in arithmetic: `double(host.free["VCPU"]) / 2.0`.
//!
//! Bounds: an expression has at most 2,048 bytes and 256 nodes, nested at most 32 deep, no loop stands in
//! a loop, and a request with a map of more than 256 keys is not given to a rule. So a host costs a
//! bounded amount of work.
//! Left out of the language: `matches` (it would compile its pattern for each host), times and
//! durations (a rule has no clock), messages and maps that a rule makes itself.

pub mod cel_filter;
pub mod cel_score;
mod facts;
mod rule;
