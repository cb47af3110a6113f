//! Keeps isolated images on isolated hosts, and other images off them.
//!
//! | | isolated image | other image |
//! | --- | --- | --- |
//! | isolated host | kept | dropped; kept without `restrict_isolated_hosts_to_isolated_images` |
//! | other host | dropped | kept |
//!
//! Without isolated images, isolated hosts are dropped if they are restricted. Host names and image ids
//! are compared exactly.
//!
//! Source: openstack/nova, `IsolatedHostsFilter`.

use scheduler::pipeline::{Cx, Detail, Filter, FilterPlugin, Reads, Survivors, Verdict};
use scheduler::{Domain, Request};
use serde::{Deserialize, Serialize};

use super::instances::named;

/// The step.
#[derive(Debug)]
pub struct IsolatedHostsFilter(Options);

/// Options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Names of the isolated hosts.
    pub isolated_hosts: Vec<String>,
    /// Ids of the isolated images.
    pub isolated_images: Vec<String>,
    /// Isolated hosts take nothing but isolated images.
    pub restrict_isolated_hosts_to_isolated_images: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            isolated_hosts: Vec::new(),
            isolated_images: Vec::new(),
            restrict_isolated_hosts_to_isolated_images: true,
        }
    }
}

impl Filter for IsolatedHostsFilter {
    fn filter(&self, cx: &Cx<'_>, hosts: &mut Survivors) -> Verdict {
        let isolated = named(cx, &self.0.isolated_hosts);
        let image = cx.request.image.as_ref().is_some_and(|image| self.0.isolated_images.contains(image));
        if image {
            hosts.keep_mask(&isolated, "not set apart for this image", |_| Detail::None);
        } else if self.0.restrict_isolated_hosts_to_isolated_images {
            hosts.drop_mask(&isolated, "set apart for other images", |_| Detail::None);
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

impl FilterPlugin for IsolatedHostsFilter {
    const NAME: &'static str = "IsolatedHostsFilter";
    const DOMAINS: &'static [Domain] = &[Domain::Nova];
    const SUMMARY: &'static str = "Keeps isolated images on isolated hosts, and other images off them.";
    const MISSING_DATA: &'static str = "An image without an id is not isolated.";
    type Options = Options;

    fn new(options: Options) -> Result<Self, String> {
        Ok(Self(options))
    }
}

#[cfg(test)]
mod tests {
    use super::IsolatedHostsFilter;
    use crate::fleet::{Fleet, case, host};
    use serde_json::json;

    #[test]
    fn the_four_cases() {
        let mut fleet = Fleet::of([host("a"), host("b")]);
        for (images, restrict, image, kept) in [
            (&["i"][..], true, Some("i"), &["a"][..]),
            (&["i"], true, Some("j"), &["b"]),
            (&["i"], true, None, &["b"]),
            (&["i"], false, Some("i"), &["a"]),
            (&["i"], false, Some("j"), &["a", "b"]),
            (&[], true, Some("i"), &["b"]),
            (&[], false, Some("i"), &["a", "b"]),
        ] {
            case("isolated")
                .request(|request| request.image = image.map(str::to_owned))
                .options(json!({"isolated_hosts": ["a", "B"], "isolated_images": images,
                    "restrict_isolated_hosts_to_isolated_images": restrict}))
                .kept(kept)
                .check::<IsolatedHostsFilter>(&mut fleet);
        }
    }
}
