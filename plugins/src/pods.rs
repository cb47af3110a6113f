//! The steps of the Pods domain, Kubernetes nodes that take pods; most serve machines and machine pools
//! as well. They do what kube-scheduler does by default.

pub mod binpack;
pub mod node_affinity;
pub mod node_available;
pub mod node_capacity;
pub mod noop;
pub mod taint;

/// The resource class of a Kubernetes resource: `cpu` is MILLICPU (thousandths of a CPU), `memory` is
/// MEMORY_MB (MiB), `ephemeral-storage` is EPHEMERAL_STORAGE_MB (MiB); any other in upper case, with `_`
/// for what no class may have: `nvidia.com/gpu` is NVIDIA_COM_GPU.
pub fn class_of(resource: &str) -> String {
    match resource {
        "cpu" => "MILLICPU".to_owned(),
        "memory" => "MEMORY_MB".to_owned(),
        "ephemeral-storage" => "EPHEMERAL_STORAGE_MB".to_owned(),
        other => {
            let upper = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
            other.chars().map(upper).collect()
        }
    }
}
