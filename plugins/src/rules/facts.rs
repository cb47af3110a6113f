//! The variables of a rule as CEL values. Those of the host are read when the rule asks for them, from
//! the columns and the provider of the row that is looked at: nothing is made for each host ahead.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};

use cel::common::traits::{Container, Indexer, Sizer};
use cel::common::types::{CelBool, CelDouble, CelInt, CelList, CelString, LIST_TYPE, MAP_TYPE, Type};
use cel::common::value::{CowVal, Val};
use cel::context::VariableResolver;
use cel::{ExecutionError, Value};
use scheduler::pipeline::{Cx, View};
use scheduler::request::GroupPolicy;
use scheduler::{Provider, Request, Row};
use serde::Serialize;

/// Keys of a map of a request that is given to a rule.
const MOST_KEYS: usize = 256;

/// Fields of `host`.
pub const HOST: [&str; 14] = [
    "name",
    "node",
    "zone",
    "hypervisor_type",
    "cpu_arch",
    "disabled",
    "forced_down",
    "traits",
    "aggregates",
    "metadata",
    "capacity",
    "used",
    "free",
    "instances",
];
/// Fields of `request`.
pub const REQUEST: [&str; 10] =
    ["project", "user", "flavor", "zone", "intent", "resources", "extra_specs", "image_properties", "hints", "group"];

/// Where the variables of a rule come from: the request as a value, the host by its row.
pub struct Facts<'a> {
    request: Box<dyn Val>,
    host: Part<'a>,
}

/// A value of a host: the host itself, or one of its collections.
#[derive(Clone, Copy)]
struct Part<'a> {
    view: View<'a>,
    /// The row that is looked at.
    row: &'a AtomicU32,
    /// Lists are made as such, for loops; else they only know what is in them.
    iterates: bool,
    which: Which,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    Host,
    Traits,
    Metadata,
    Capacity,
    Used,
    Free,
    Features,
}

impl fmt::Debug for Part<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} of a host", self.which)
    }
}

impl<'a> Facts<'a> {
    /// For one request; `Err` when it is too large to be looked at for each host.
    pub fn of(cx: &Cx<'a>, row: &'a AtomicU32, iterates: bool) -> Result<Self, &'static str> {
        let host = Part { view: cx.view, row, iterates, which: Which::Host };
        Ok(Self { request: request(cx.request, cx.intent.as_str())?, host })
    }
}

/// A request as a rule sees it; its fields are [`REQUEST`].
#[derive(Serialize)]
struct Asked<'a> {
    project: &'a str,
    user: &'a str,
    flavor: &'a str,
    zone: &'a str,
    intent: &'a str,
    resources: BTreeMap<&'a str, i64>,
    extra_specs: &'a BTreeMap<String, String>,
    image_properties: &'a BTreeMap<String, String>,
    hints: &'a BTreeMap<String, Vec<String>>,
    group: BTreeMap<&'static str, String>,
}

fn policy(policy: GroupPolicy) -> &'static str {
    match policy {
        GroupPolicy::Affinity => "affinity",
        GroupPolicy::AntiAffinity => "anti-affinity",
        GroupPolicy::SoftAffinity => "soft-affinity",
        GroupPolicy::SoftAntiAffinity => "soft-anti-affinity",
    }
}

/// The request as a value: made once, whatever number of hosts is looked at.
fn request(request: &Request, intent: &str) -> Result<Box<dyn Val>, &'static str> {
    let sizes = [
        request.resources.len(),
        request.extra_specs.len(),
        request.image_properties.len(),
        request.hints.len(),
        request.hints.values().map(Vec::len).max().unwrap_or(0),
    ];
    if sizes.into_iter().any(|size| size > MOST_KEYS) {
        return Err("the request has a map of more than 256 keys");
    }
    let group = request.group.as_ref();
    let asked = Asked {
        project: request.project.as_deref().unwrap_or_default(),
        user: request.user.as_deref().unwrap_or_default(),
        flavor: request.flavor.as_deref().unwrap_or_default(),
        zone: request.zone.as_deref().unwrap_or_default(),
        intent,
        resources: request.resources.iter().map(|(class, amount)| (class.as_str(), whole(*amount))).collect(),
        extra_specs: &request.extra_specs,
        image_properties: &request.image_properties,
        hints: &request.hints,
        group: BTreeMap::from([
            ("uuid", group.and_then(|group| group.uuid).map_or(String::new(), |uuid| uuid.to_string())),
            ("policy", group.and_then(|group| group.policy).map_or("", policy).to_owned()),
        ]),
    };
    let value: Value = cel::to_value(&asked).map_err(|_| "the request cannot be given to a rule")?;
    Box::<dyn Val>::try_from(value).map_err(|_| "the request cannot be given to a rule")
}

/// An amount; those that CEL's integers cannot hold count as the largest one.
fn whole(amount: u64) -> i64 {
    i64::try_from(amount).unwrap_or(i64::MAX)
}

impl VariableResolver for Facts<'_> {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        match variable {
            "host" => Some(CowVal::Borrowed(&self.host)),
            "request" => Some(CowVal::Borrowed(&*self.request)),
            "features" => Some(CowVal::owned(Part { which: Which::Features, ..self.host })),
            // The interpreter asks for a qualified name first.
            _ => self.host.field(variable.strip_prefix("host.")?),
        }
    }
}

fn text<'b>(text: &str) -> CowVal<'b, '_> {
    CowVal::owned(CelString::from(text))
}

fn list<'b, 'v>(items: impl Iterator<Item = &'v str>) -> CowVal<'b, 'v> {
    CowVal::owned(CelList::from(
        items.map(|item| Box::new(CelString::from(item)) as Box<dyn Val + 'v>).collect::<Vec<_>>(),
    ))
}

impl<'a> Part<'a> {
    fn row(&self) -> Row {
        Row(self.row.load(Ordering::Relaxed))
    }

    fn provider(&self) -> Option<&'a Provider> {
        self.view.provider(self.row())
    }

    fn part<'b, 'v>(&self, which: Which) -> CowVal<'b, 'v>
    where
        'a: 'v,
    {
        CowVal::owned(Part { which, ..*self })
    }

    /// A field of the host.
    fn field<'b, 'v>(&self, name: &str) -> Option<CowVal<'b, 'v>>
    where
        'a: 'v,
    {
        let names = self.view.names();
        let provider = self.provider()?;
        let sym = |sym: Option<scheduler::Sym>| text(sym.map_or("", |sym| names.text(sym)));
        Some(match name {
            "name" => text(names.text(provider.host)),
            "node" => sym(provider.node),
            "zone" => sym(provider.zone),
            "hypervisor_type" => sym(provider.hypervisor_type),
            "cpu_arch" => sym(provider.cpu_arch),
            "disabled" => CowVal::owned(CelBool::from(provider.disabled)),
            "forced_down" => CowVal::owned(CelBool::from(provider.forced_down)),
            "instances" => CowVal::owned(CelInt::from(provider.consumers.len() as i64)),
            "traits" if self.iterates => list(provider.traits.iter().map(|sym| names.text(*sym))),
            "traits" => self.part(Which::Traits),
            "aggregates" => list(self.view.aggregates(self.row()).map(|aggregate| aggregate.name.as_str())),
            "metadata" => self.part(Which::Metadata),
            "capacity" => self.part(Which::Capacity),
            "used" => self.part(Which::Used),
            "free" => self.part(Which::Free),
            _ => return None,
        })
    }

    /// What stands under a key of a collection.
    fn entry<'b, 'v>(&self, key: &str) -> Option<CowVal<'b, 'v>>
    where
        'a: 'v,
    {
        let at = self.row().0 as usize;
        match self.which {
            Which::Host => self.field(key),
            Which::Traits => None,
            Which::Metadata => {
                let aggregates = self.view.aggregates(self.row());
                let values: Vec<&str> =
                    aggregates.filter_map(|aggregate| aggregate.metadata.get(key).map(String::as_str)).collect();
                (!values.is_empty()).then(|| list(values.into_iter()))
            }
            Which::Features => {
                let value = self.provider()?.features.get(self.view.sym(key)?)?.value;
                Some(CowVal::owned(CelDouble::from(value)))
            }
            Which::Capacity | Which::Used | Which::Free => {
                let (class, column) = self.view.column(key)?;
                self.provider()?.inventory(class)?;
                let column = match self.which {
                    Which::Capacity => &column.capacity,
                    Which::Used => &column.used,
                    _ => &column.fit,
                };
                Some(CowVal::owned(CelInt::from(whole(column.get(at).copied().unwrap_or(0)))))
            }
        }
    }
}

impl Val for Part<'_> {
    fn get_type(&self) -> &Type {
        if self.which == Which::Traits { &LIST_TYPE } else { &MAP_TYPE }
    }

    fn cel_type() -> &'static Type
    where
        Self: Sized,
    {
        &MAP_TYPE
    }

    fn as_container(&self) -> Option<&dyn Container> {
        Some(self)
    }

    fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn as_sizer(&self) -> Option<&dyn Sizer> {
        (self.which == Which::Traits).then_some(self)
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v>
    where
        Self: 'v,
    {
        Box::new(*self)
    }
}

impl Container for Part<'_> {
    fn contains(&self, value: &dyn Val) -> Result<bool, ExecutionError> {
        let Some(key) = value.downcast_ref::<CelString>() else { return Ok(false) };
        Ok(match self.which {
            Which::Traits => {
                let sym = self.view.sym(key.inner());
                sym.is_some_and(|sym| self.provider().is_some_and(|known| known.traits.binary_search(&sym).is_ok()))
            }
            _ => self.entry(key.inner()).is_some(),
        })
    }
}

impl Sizer for Part<'_> {
    fn size(&self) -> CelInt {
        CelInt::from(self.provider().map_or(0, |provider| provider.traits.len()) as i64)
    }
}

impl Indexer for Part<'_> {
    fn get<'b, 'v>(&'b self, key: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        let Some(key) = key.downcast_ref::<CelString>() else {
            let got = key.get_type().name().to_owned();
            return Err(ExecutionError::UnexpectedType { got, want: "string".to_owned() });
        };
        self.entry(key.inner()).ok_or_else(|| ExecutionError::no_such_key(key.inner()))
    }

    fn steal<'v>(self: Box<Self>, key: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError>
    where
        Self: 'v,
    {
        self.get(key).map(CowVal::into_owned)
    }
}
