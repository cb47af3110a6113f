//! The pipeline of a Nova request that names none, from its flavor.
//!
//! | extra spec `capabilities:hypervisor_type` | general purpose | HANA |
//! | --- | --- | --- |
//! | `qemu`, `ch` | kvm-general-purpose-load-balancing | kvm-hana-bin-packing |
//! | `vmware vcenter server` | vmware-general-purpose-load-balancing | vmware-hana-bin-packing |
//!
//! A flavor is HANA with `trait:CUSTOM_HANA_EXCLUSIVE_HOST` = `required`, and general purpose without
//! that key or with `forbidden`. Case is ignored. Any other value of either leaves the choice to the
//! setting `default_pipeline`, or with `strict_inference` refuses the request in the peer's words.
//!
//! Source: cobaltcore-dev/cortex, the Nova external scheduler API.

use scheduler::{Request, Settings};

/// The name of the pipeline; `Ok(None)` = the default of the settings.
pub fn select(request: &Request, settings: &Settings) -> Result<Option<String>, String> {
    let undetermined = |what: &str| {
        if settings.strict_inference {
            return Err(format!("failed to determine {what} type from request data"));
        }
        Ok(None)
    };
    let spec = |key: &str| request.extra_specs.get(key).map(|value| value.to_lowercase());
    let vmware = match spec("capabilities:hypervisor_type").as_deref() {
        Some("qemu" | "ch") => false,
        Some("vmware vcenter server") => true,
        _ => return undetermined("hypervisor"),
    };
    let hana = match spec("trait:CUSTOM_HANA_EXCLUSIVE_HOST").as_deref() {
        None | Some("forbidden") => false,
        Some("required") => true,
        Some(_) => return undetermined("flavor"),
    };
    let name = match (vmware, hana) {
        (false, false) => "kvm-general-purpose-load-balancing",
        (false, true) => "kvm-hana-bin-packing",
        (true, false) => "vmware-general-purpose-load-balancing",
        (true, true) => "vmware-hana-bin-packing",
    };
    Ok(Some(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::select;
    use scheduler::{Request, Settings};

    /// Hypervisor type, HANA trait, pipeline or error.
    type Case = (Option<&'static str>, Option<&'static str>, Result<&'static str, &'static str>);

    #[test]
    fn flavors_choose_pipelines() {
        let rows: &[Case] = &[
            (Some("QEMU"), None, Ok("kvm-general-purpose-load-balancing")),
            (Some("qemu"), Some("forbidden"), Ok("kvm-general-purpose-load-balancing")),
            (Some("CH"), Some("Forbidden"), Ok("kvm-general-purpose-load-balancing")),
            (Some("ch"), Some("required"), Ok("kvm-hana-bin-packing")),
            (Some("QEMU"), Some("REQUIRED"), Ok("kvm-hana-bin-packing")),
            (Some("VMware vCenter Server"), None, Ok("vmware-general-purpose-load-balancing")),
            (Some("VMware vCenter Server"), Some("required"), Ok("vmware-hana-bin-packing")),
            (None, None, Err("failed to determine hypervisor type from request data")),
            (None, Some("required"), Err("failed to determine hypervisor type from request data")),
            (Some("KVM"), None, Err("failed to determine hypervisor type from request data")),
            (Some("QEMU"), Some("preferred"), Err("failed to determine flavor type from request data")),
        ];
        let lax = Settings::default();
        let strict = Settings { strict_inference: true, ..Settings::default() };
        for (hypervisor, hana, expected) in rows {
            let mut request = Request::default();
            let specs = [("capabilities:hypervisor_type", hypervisor), ("trait:CUSTOM_HANA_EXCLUSIVE_HOST", hana)];
            for (key, value) in specs {
                if let Some(value) = value {
                    request.extra_specs.insert(key.to_owned(), (*value).to_owned());
                }
            }
            let name = expected.ok().map(str::to_owned);
            assert_eq!(select(&request, &lax), Ok(name.clone()), "{hypervisor:?} {hana:?}");
            let outcome = expected.map(|_| name).map_err(str::to_owned);
            assert_eq!(select(&request, &strict), outcome, "{hypervisor:?} {hana:?}, strict");
        }
    }
}
