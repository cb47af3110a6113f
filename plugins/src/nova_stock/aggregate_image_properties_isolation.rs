//! Drops hosts whose aggregates want other image properties than the image has: a property that the
//! image has (and that is not empty, 0 or false) and that is a metadata key of some aggregate of the host
//! must be among the comma-separated values of that key in the host's aggregates.
//!
//! With a namespace only keys that begin with namespace and separator are looked at.
//!
//! Source: openstack/nova, `AggregateImagePropertiesIsolation`.

use scheduler::pipeline::{Cx, Detail, Filter, FilterPlugin, Reads, Survivors, Verdict};
use scheduler::{Domain, Mask, Request};
use serde::{Deserialize, Serialize};

use super::aggregates::{with_key, words};
use super::python;

/// The step: what keys must begin with.
#[derive(Debug)]
pub struct AggregateImagePropertiesIsolation(Option<String>);

/// Options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Namespace of the metadata keys; none: every key.
    pub aggregate_image_properties_isolation_namespace: Option<String>,
    /// What stands between the namespace and the property.
    pub aggregate_image_properties_isolation_separator: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            aggregate_image_properties_isolation_namespace: None,
            aggregate_image_properties_isolation_separator: ".".to_owned(),
        }
    }
}

impl Filter for AggregateImagePropertiesIsolation {
    fn filter(&self, cx: &Cx<'_>, hosts: &mut Survivors) -> Verdict {
        for (key, value) in &cx.request.image_properties {
            let Some(value) = python::property(value) else { continue };
            if self.0.as_ref().is_some_and(|begin| !key.starts_with(begin.as_str())) {
                continue;
            }
            let (mut closed, mut open) = (Mask::default(), Vec::new());
            for (listed, rows) in with_key(cx.view, key) {
                if words(listed).any(|listed| listed == value) {
                    open.push(rows);
                } else {
                    closed.union(rows);
                }
            }
            open.into_iter().flat_map(|rows| rows.iter()).for_each(|row| closed.remove(row));
            hosts.drop_mask(&closed, "in an aggregate for other images", |_| Detail::None);
        }
        Verdict::Ran
    }

    fn runs_on_rebuild(&self) -> bool {
        true
    }

    fn reads(&self, _: &Request) -> Reads {
        Reads::Facts
    }
}

impl FilterPlugin for AggregateImagePropertiesIsolation {
    const NAME: &'static str = "AggregateImagePropertiesIsolation";
    const DOMAINS: &'static [Domain] = &[Domain::Nova];
    const SUMMARY: &'static str = "Drops hosts whose aggregates want other image properties than the image has.";
    const MISSING_DATA: &'static str = "A property that the image lacks, or that no aggregate names, drops nothing.";
    type Options = Options;

    fn new(options: Options) -> Result<Self, String> {
        let namespace = options.aggregate_image_properties_isolation_namespace.filter(|name| !name.is_empty());
        Ok(Self(namespace.map(|name| name + &options.aggregate_image_properties_isolation_separator)))
    }
}

#[cfg(test)]
mod tests {
    use super::AggregateImagePropertiesIsolation;
    use crate::fleet::{Case, Fleet, case, host};
    use serde_json::json;

    #[test]
    fn images_of_aggregates() {
        let mut fleet = Fleet::of([
            host("linux").aggregate("one", &[("os_type", "linux"), ("hw_boot_menu", "True")]),
            host("both")
                .aggregate("one", &[("os_type", "linux"), ("hw_boot_menu", "True")])
                .aggregate("two", &[("os_type", "windows, bsd")]),
            host("bare"),
        ]);
        let image = |name: &'static str, value: &'static str| -> Case {
            case(value).request(move |request| {
                request.image_properties.insert(name.to_owned(), value.to_owned());
            })
        };
        for (name, value, kept) in [
            ("os_type", "linux", &["linux", "both", "bare"][..]),
            ("os_type", "bsd", &["both", "bare"]),
            ("os_type", "Linux", &["bare"]),
            ("os_type", "", &["linux", "both", "bare"]),
            ("hw_boot_menu", "true", &["linux", "both", "bare"]),
            ("hw_boot_menu", "false", &["linux", "both", "bare"]),
            ("other", "any", &["linux", "both", "bare"]),
        ] {
            image(name, value).kept(kept).check::<AggregateImagePropertiesIsolation>(&mut fleet);
        }
        let namespace = |name: &str, separator: &str| {
            json!({"aggregate_image_properties_isolation_namespace": name,
                "aggregate_image_properties_isolation_separator": separator})
        };
        for (options, kept) in [
            (namespace("os", "_"), &["both", "bare"][..]),
            (namespace("os", "."), &["linux", "both", "bare"]),
            (namespace("", "."), &["both", "bare"]),
        ] {
            image("os_type", "bsd").options(options).kept(kept).check::<AggregateImagePropertiesIsolation>(&mut fleet);
        }
    }
}
