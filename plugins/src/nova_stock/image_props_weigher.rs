//! Weighs hosts by the image properties that their instances share with the request's image: for each
//! property that some instance has with the same value, the number of such instances × the setting of that
//! property (1 without any setting, 0 for one that the settings leave out).
//!
//! Off while the option's multiplier is 0, also where an aggregate overrides it. Otherwise the multiplier
//! is the option, overridden for a host by the metadata `image_props_weight_multiplier` of its
//! aggregates (the smallest of several). The instances' properties are those that the host state counts
//! in `image_properties`.
//!
//! Source: openstack/nova, `ImagePropertiesWeigher`.

use scheduler::pipeline::{Cx, Factors, Reads, Verdict, Weigher, WeigherPlugin};
use scheduler::{Domain, Request, Row};
use serde::{Deserialize, Serialize};

use super::metrics::settings;
use super::multipliers::{factors, finite};
use super::python;

/// The step.
#[derive(Debug)]
pub struct ImagePropertiesWeigher {
    setting: Vec<(String, f64)>,
    multiplier: f64,
}

/// Options.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Multiplier where no aggregate sets one; 0: off.
    pub image_props_weight_multiplier: f64,
    /// Properties as `NAME=FACTOR`.
    pub image_props_weight_setting: Vec<String>,
}

impl Weigher for ImagePropertiesWeigher {
    fn weigh(&self, cx: &Cx<'_>, hosts: &[Row], out: &mut [f64]) -> Verdict {
        if self.multiplier == 0.0 {
            return Verdict::Skipped("the multiplier is 0");
        }
        let setting = |name: &str| match self.setting.iter().rev().find(|(known, _)| known == name) {
            Some((_, factor)) => *factor,
            None => f64::from(self.setting.is_empty()),
        };
        let asked = cx.request.image_properties.iter();
        let asked: Vec<_> = asked.map(|(name, value)| (name.as_str(), python::text(value), setting(name))).collect();
        for (&row, out) in hosts.iter().zip(out) {
            for (name, value, count) in cx.view.host_state(row).into_iter().flat_map(|state| &state.image_properties) {
                let same = asked.iter().find(|(known, text, _)| **known == **name && **text == **value);
                *out += same.map_or(0.0, |(_, _, factor)| factor * *count as f64);
            }
        }
        Verdict::Ran
    }

    fn factors(&self, cx: &Cx<'_>, hosts: &[Row]) -> Factors {
        factors(cx, hosts, "image_props_weight_multiplier", self.multiplier, 1.0)
    }

    fn reads(&self, _: &Request) -> Reads {
        Reads::Facts
    }
}

impl WeigherPlugin for ImagePropertiesWeigher {
    const NAME: &'static str = "ImagePropertiesWeigher";
    const DOMAINS: &'static [Domain] = &[Domain::Nova];
    const SUMMARY: &'static str = "Prefers hosts whose instances have the image's properties.";
    const MISSING_DATA: &'static str = "A host that counts no properties gets 0.";
    type Options = Options;

    fn new(options: Options) -> Result<Self, String> {
        Ok(Self {
            setting: settings("image_props_weight_setting", &options.image_props_weight_setting)?,
            multiplier: finite("image_props_weight_multiplier", options.image_props_weight_multiplier)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::ImagePropertiesWeigher;
    use crate::fleet::{Fleet, case, host};
    use serde_json::json;

    #[test]
    fn shared_properties_count() {
        let mut fleet = Fleet::of([
            host("a").state(
                json!({"image_properties": {"os_type": {"linux": 3, "windows": 5}, "hw_boot_menu": {"True": 2}}}),
            ),
            host("b").state(json!({"image_properties": {"os_type": {"linux": 1}}})),
            host("bare"),
        ]);
        let with = |options| {
            case("image").options(options).request(|request| {
                for (name, value) in [("os_type", "linux"), ("hw_boot_menu", "true")] {
                    request.image_properties.insert(name.to_owned(), value.to_owned());
                }
            })
        };
        with(json!({"image_props_weight_multiplier": 1.0}))
            .scores(&[("a", 5.0), ("b", 1.0), ("bare", 0.0)])
            .weigh::<ImagePropertiesWeigher>(&mut fleet);
        with(json!({"image_props_weight_multiplier": 1.0, "image_props_weight_setting": ["hw_boot_menu=0.5"]}))
            .scores(&[("a", 1.0), ("b", 0.0), ("bare", 0.0)])
            .weigh::<ImagePropertiesWeigher>(&mut fleet);
        with(json!({})).skipped("the multiplier is 0").weigh::<ImagePropertiesWeigher>(&mut fleet);
    }
}
