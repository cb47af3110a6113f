//! What a step is: the traits that plugins implement and the registry that knows them by name.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::domain::Domain;
use crate::pipeline::cx::Cx;
use crate::pipeline::scoring::{Bounds, Factors};
use crate::pipeline::survivors::Survivors;
use crate::provider::Row;
use crate::remedy::Aspect;
use crate::request::Request;
use crate::settings::Settings;

/// Whether a step ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It looked at the hosts.
    Ran,
    /// It does not apply to this request, for this reason. No host was touched.
    Skipped(&'static str),
}

/// What a step looks at, besides the request and the facts of the fleet (which hosts there are, what
/// they are and what they offer): tells how far its verdicts still hold after a claim. It is asked
/// for requests that create a consumer which nobody knows yet, outside of any group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    /// Nothing else; of the other hosts, only which ones are still in.
    Facts,
    /// How much of each class is in use on the host that it judges, and its numbers, as the columns say. Whether it
    /// is skipped depends on the request alone.
    OwnUse,
    /// Anything: its verdicts hold for one run.
    Everything,
}

/// A step that drops hosts. It sees the request and the view only, and cannot fail on missing
/// data: what it does then is stated in its documentation.
pub trait Filter: Send + Sync + fmt::Debug {
    /// Drops hosts from `hosts`, each for a reason.
    fn filter(&self, cx: &Cx<'_>, hosts: &mut Survivors) -> Verdict;

    /// True for the steps that also run on a rebuild.
    fn runs_on_rebuild(&self) -> bool {
        false
    }

    /// What it looks at.
    fn reads(&self, _: &Request) -> Reads {
        Reads::Everything
    }

    /// Parts of the request for which it drops hosts, if each can be asked otherwise by itself: what would
    /// help a refused request is told of them, and not of the whole step. With [`Aspect::Amounts`] a host
    /// that lacks something is dropped with [`Detail::Amounts`](super::Detail::Amounts): more of it helps.
    fn acts_on(&self, _: &Request) -> Vec<Aspect> {
        Vec::new()
    }
}

/// A step that scores hosts. Its activation a enters the score as multiplier × tanh(a), or as the
/// pipeline's [`Scoring`](crate::pipeline::scoring::Scoring) says.
pub trait Weigher: Send + Sync + fmt::Debug {
    /// Writes the activation of `hosts[i]` into `out[i]`; `out` starts as zeros. A skipped weigher
    /// leaves them.
    fn weigh(&self, cx: &Cx<'_>, hosts: &[Row], out: &mut [f64]) -> Verdict;

    /// What it looks at.
    fn reads(&self, _: &Request) -> Reads {
        Reads::Everything
    }

    /// Why its options give every host the same score, when they do.
    fn constant(&self) -> Option<&'static str> {
        None
    }

    /// Bounds of its activations, for pipelines with `scoring: nova`.
    fn bounds(&self) -> Bounds {
        Bounds::default()
    }

    /// Factors of `hosts` beside the pipeline's multiplier; they depend on the request and the facts of the
    /// fleet.
    fn factors(&self, _cx: &Cx<'_>, _hosts: &[Row]) -> Factors {
        Factors::One(1.0)
    }

    /// What its activation measures, and in which unit.
    fn statistic(&self) -> (&'static str, &'static str) {
        ("activation", "float")
    }
}

/// A filter with its name, its documentation and its options.
pub trait FilterPlugin: Filter + Sized + 'static {
    /// Name in pipelines: with the prefix `filter_`, or the name that stock Nova has for it.
    const NAME: &'static str;
    /// Domains whose pipelines may use it.
    const DOMAINS: &'static [Domain];
    /// One line: what it keeps.
    const SUMMARY: &'static str;
    /// What missing data means.
    const MISSING_DATA: &'static str;
    /// Options; serde defaults and `deny_unknown_fields`.
    type Options: DeserializeOwned + Serialize;
    /// Checks the options and makes the step.
    fn new(options: Self::Options) -> Result<Self, String>;
}

/// A weigher with its name, its documentation and its options.
pub trait WeigherPlugin: Weigher + Sized + 'static {
    /// Name in pipelines.
    const NAME: &'static str;
    /// Domains whose pipelines may use it.
    const DOMAINS: &'static [Domain];
    /// One line: what it prefers.
    const SUMMARY: &'static str;
    /// What missing data means.
    const MISSING_DATA: &'static str;
    /// Options; serde defaults and `deny_unknown_fields`.
    type Options: DeserializeOwned + Serialize;
    /// Checks the options and makes the step.
    fn new(options: Self::Options) -> Result<Self, String>;
}

/// Options of a step that has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoOptions {}

type Build<T> = fn(serde_json::Value) -> Result<Arc<T>, String>;

/// A kind of step.
pub struct Kind<T: ?Sized> {
    /// Name in pipelines.
    pub name: &'static str,
    /// Domains.
    pub domains: &'static [Domain],
    /// One line of documentation.
    pub summary: &'static str,
    /// What missing data means.
    pub missing_data: &'static str,
    pub(crate) build: Build<T>,
}

/// How a domain finds the pipeline of a request that names none. `Ok(None)` = use the default of
/// the settings; `Err` = the request is refused with this text.
pub type Selector = fn(&Request, &Settings) -> Result<Option<String>, String>;

/// Another name of a step, as older documents have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alias {
    /// Name of the step.
    pub step: &'static str,
}

impl Alias {
    /// What to do about `name`, which a pipeline uses.
    pub fn warning(self, name: &str) -> String {
        format!("'{name}' is an older name of '{}': use that one", self.step)
    }
}

/// The steps that pipelines may name.
#[derive(Default)]
pub struct Registry {
    pub(crate) filters: BTreeMap<&'static str, Kind<dyn Filter>>,
    pub(crate) weighers: BTreeMap<&'static str, Kind<dyn Weigher>>,
    aliases: BTreeMap<&'static str, Alias>,
    pub(crate) selectors: BTreeMap<Domain, Selector>,
}

fn options<T: DeserializeOwned>(value: serde_json::Value) -> Result<T, String> {
    serde_json::from_value(value).map_err(|e| e.to_string())
}

impl Registry {
    /// Adds a filter.
    #[must_use]
    pub fn filter<P: FilterPlugin>(mut self) -> Self {
        self.filters.insert(
            P::NAME,
            Kind {
                name: P::NAME,
                domains: P::DOMAINS,
                summary: P::SUMMARY,
                missing_data: P::MISSING_DATA,
                build: |value| Ok(Arc::new(P::new(options(value)?)?)),
            },
        );
        self
    }

    /// Adds a weigher.
    #[must_use]
    pub fn weigher<P: WeigherPlugin>(mut self) -> Self {
        self.weighers.insert(
            P::NAME,
            Kind {
                name: P::NAME,
                domains: P::DOMAINS,
                summary: P::SUMMARY,
                missing_data: P::MISSING_DATA,
                build: |value| Ok(Arc::new(P::new(options(value)?)?)),
            },
        );
        self
    }

    /// Adds another name of a step.
    #[must_use]
    pub fn alias(mut self, name: &'static str, step: &'static str) -> Self {
        self.aliases.insert(name, Alias { step });
        self
    }

    /// What a name stands for, when it is another name of a step.
    pub fn alias_of(&self, name: &str) -> Option<Alias> {
        self.aliases.get(name).copied()
    }

    /// The name of the step that `name` stands for.
    pub(crate) fn resolve<'a>(&self, name: &'a str) -> &'a str {
        self.alias_of(name).map_or(name, |alias| alias.step)
    }

    /// Sets how a domain's pipelines are inferred.
    #[must_use]
    pub fn selector(mut self, domain: Domain, selector: Selector) -> Self {
        self.selectors.insert(domain, selector);
        self
    }

    /// All filters by name.
    pub fn filters(&self) -> impl Iterator<Item = &Kind<dyn Filter>> {
        self.filters.values()
    }

    /// All weighers by name.
    pub fn weighers(&self) -> impl Iterator<Item = &Kind<dyn Weigher>> {
        self.weighers.values()
    }
}
