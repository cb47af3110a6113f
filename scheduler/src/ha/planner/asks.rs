//! What Nova tells of an instance beside how it stands: what it asked for, and how urgent it is.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use bitcode::{Decode, Encode};
use uuid::Uuid;

use super::Asked;
use crate::consumer::Purpose;
use crate::domain::Domain;
use crate::ha::recovery::Recorded;
use crate::intent::Intent;
use crate::request::{Options, Request};
use crate::state::Tables;

/// Classes, the most urgent first.
const CLASSES: [&str; 5] = ["critical", "high", "normal", "low", "none"];
/// A restart priority is at most this.
const MOST: u16 = 1_000;

/// What goes first: the lower class, then the higher priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Rank {
    /// 0 critical, 1 high, 2 normal, 3 low, 4 none.
    pub class: u8,
    /// 1000 less its restart priority: the smaller first.
    pub after: u16,
}

impl Default for Rank {
    fn default() -> Self {
        Self { class: 2, after: 500 }
    }
}

impl std::fmt::Display for Rank {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let class = CLASSES.get(usize::from(self.class)).unwrap_or(&"none");
        write!(f, "{class} {}", MOST.saturating_sub(self.after))
    }
}

impl Rank {
    /// By the extra specs of its flavor, and by its own metadata. Its owner writes the latter, and may only
    /// put it behind others.
    fn new(flavor: &BTreeMap<String, String>, metadata: &BTreeMap<String, String>) -> Self {
        let class = |from: &BTreeMap<String, String>| {
            let name = from.get("pallium:class")?.to_ascii_lowercase();
            CLASSES.iter().position(|known| *known == name).map(|class| class as u8)
        };
        let after = |from: &BTreeMap<String, String>| {
            let said = ["pallium:priority", "instanceha:restart_priority"].iter().find_map(|key| from.get(*key));
            let priority = said?.trim().parse::<u16>().ok().filter(|priority| (1..=MOST).contains(priority))?;
            Some(MOST - priority)
        };
        let plain = Self::default();
        let of = Self { class: class(flavor).unwrap_or(plain.class), after: after(flavor).unwrap_or(plain.after) };
        Self {
            class: class(metadata).map_or(of.class, |class| class.max(of.class)),
            after: after(metadata).map_or(of.after, |after| after.max(of.after)),
        }
    }
}

/// What is done when a guest has ended by itself, whatever the policy of its host says (`pallium:recovery`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum OnCrash {
    /// Nothing.
    Stays,
    /// It is started again where it was.
    Restart,
    /// The same; moved once when that has not helped.
    RestartThenMove,
}

impl OnCrash {
    /// What is known, by their names.
    pub const ALL: [(&'static str, Self); 3] =
        [("none", Self::Stays), ("restart", Self::Restart), ("restart_then_move", Self::RestartThenMove)];

    /// What the extra specs of a flavor, or the metadata of an instance, say; an error: words that are none of these.
    pub fn said(from: &BTreeMap<String, String>) -> Option<Result<Self, &str>> {
        let said = from.get("pallium:recovery")?;
        let known = Self::ALL.iter().find(|(name, _)| said.trim().eq_ignore_ascii_case(name));
        Some(known.map(|(_, known)| *known).ok_or(said))
    }
}

/// What an instance asked for, as far as Nova tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asks {
    /// How urgent it is.
    pub rank: Rank,
    /// Its owner, or its flavor, wants it left where it is (`pallium:ha`, `HA_Enabled`).
    pub unprotected: bool,
    /// It is of a server group of which so many members are to stay, whatever number that is: one host of them is
    /// drained at a time (`pallium:min_available`).
    pub min_available: bool,
    /// What is to be done when it crashes: as it says itself, else its flavor, else Masakari's `HA_Enabled`; `None`: what
    /// the policy of its host says.
    pub on_crash: Option<OnCrash>,
    /// The zone that it was created for, `Some(None)` for any; `None`: not told, so its host's.
    pub zone: Option<Option<String>>,
    /// Extra specs of its flavor; `None`: not told, so a host must have every trait of its host.
    pub extra_specs: Option<BTreeMap<String, String>>,
    /// Id of its image.
    pub image: Option<String>,
}

impl Asks {
    /// From its flavor and its metadata.
    pub fn new(extra_specs: Option<BTreeMap<String, String>>, metadata: &BTreeMap<String, String>) -> Self {
        let none = BTreeMap::new();
        let flavor = extra_specs.as_ref().unwrap_or(&none);
        let off = |from: &BTreeMap<String, String>| {
            let mut said = ["pallium:ha", "HA_Enabled"].iter().filter_map(|key| from.get(*key));
            said.any(|said| said.eq_ignore_ascii_case("false"))
        };
        // A value that is no number declares it as well: it cannot be refused where it is written.
        let declares = |from: &BTreeMap<String, String>| {
            from.get("pallium:min_available").is_some_and(|said| !matches!(said.trim(), "" | "0"))
        };
        let min_available = declares(flavor) || declares(metadata);
        let said = |from| OnCrash::said(from).and_then(Result::ok);
        let on = [metadata, flavor].into_iter().find_map(|from| from.get("HA_Enabled"));
        let masakari = on.filter(|said| said.eq_ignore_ascii_case("true")).map(|_| OnCrash::Restart);
        let on_crash = said(metadata).or_else(|| said(flavor)).or(masakari);
        let (rank, unprotected) = (Rank::new(flavor, metadata), off(flavor) || off(metadata));
        // It is left on its host.
        let on_crash =
            on_crash.map(|said| if unprotected && said == OnCrash::RestartThenMove { OnCrash::Restart } else { said });
        Self { rank, unprotected, min_available, on_crash, extra_specs, ..Self::default() }
    }

    /// Traits that its flavor requires, and those that it forbids; `None`: not told.
    pub fn traits(&self) -> Option<(Vec<&str>, Vec<&str>)> {
        let specs = self.extra_specs.as_ref()?;
        let with = |wanted: &'static str| {
            let named = specs.iter().filter(move |(_, value)| *value == wanted);
            named.filter_map(|(key, _)| {
                let (group, name) = key.split_once(':')?;
                group.strip_prefix("trait").map(|_| name)
            })
        };
        Some((with("required").collect(), with("forbidden").collect()))
    }
}

impl Asks {
    /// A number of all that [`Asked::request`] says of an instance but itself, its host and its group.
    pub fn question(&self, tables: &Tables, instance: Uuid) -> Option<u64> {
        let consumer = tables.consumer(Domain::Nova, instance, Purpose::Instance)?;
        let mut hasher = DefaultHasher::new();
        for (class, amount) in consumer.amounts.iter() {
            (class, amount).hash(&mut hasher);
        }
        (consumer.flavor, consumer.project, consumer.user).hash(&mut hasher);
        (&self.zone, &self.extra_specs, &self.image).hash(&mut hasher);
        Some(hasher.finish())
    }
}

impl Asked<'_> {
    /// What the pipeline is asked: a question that claims nothing, for all hosts that it lets the instance go to (with
    /// 0 only the first few are in order).
    pub fn request(&self, tables: &Tables) -> Option<Request> {
        let Self { instance, source, asks, group } = *self;
        let consumer = tables.consumer(Domain::Nova, instance, Purpose::Instance)?;
        let text = |sym: Option<_>| sym.map(|sym| tables.names.text(sym).to_owned());
        let from = tables.failover().hosts.get(source.host).map(|host| tables.names.text(host.nova_host).to_owned());
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let (required, forbidden) = asks.traits().unwrap_or_default();
        let amounts = consumer.amounts.iter();
        Some(Request {
            domain: Domain::Nova,
            consumers: vec![instance],
            label: Some(Intent::Evacuate),
            source_host: from.clone(),
            ignore_hosts: from.into_iter().collect(),
            resources: amounts.map(|(class, amount)| (tables.names.text(class).to_owned(), amount)).collect(),
            flavor: text(consumer.flavor),
            project: text(consumer.project),
            user: text(consumer.user),
            extra_specs: asks.extra_specs.clone().unwrap_or_default(),
            required_traits: names(&required),
            forbidden_traits: names(&forbidden),
            image: asks.image.clone(),
            zone: asks.zone.clone().flatten(),
            group: group.cloned(),
            num_instances: 1,
            options: Options { max_candidates: u64::from(u32::MAX), ..Options::probe() },
            ..Request::default()
        })
    }
}

/// An instance that Nova lists on a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The instance.
    pub instance: Uuid,
    /// How it stands.
    pub recorded: Recorded,
    /// What it asked for.
    pub asks: Asks,
}

impl From<(Uuid, Recorded)> for Listed {
    fn from((instance, recorded): (Uuid, Recorded)) -> Self {
        Self { instance, recorded, asks: Asks::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_only_puts_it_behind_others() {
        let of = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let cases: [(&[_], &[_], &str); 7] = [
            (&[], &[], "normal 500"),
            (&[("pallium:class", "critical")], &[], "critical 500"),
            (&[], &[("pallium:class", "critical"), ("pallium:priority", "900")], "normal 500"),
            (&[("pallium:class", "High")], &[("pallium:class", "low")], "low 500"),
            (&[("instanceha:restart_priority", "900")], &[("pallium:priority", "700")], "normal 700"),
            // What is none is not said.
            (&[("pallium:class", "urgent"), ("pallium:priority", "0")], &[("pallium:priority", "1001")], "normal 500"),
            (&[("pallium:priority", "1000")], &[("instanceha:restart_priority", "x")], "normal 1000"),
        ];
        for (flavor, metadata, expected) in cases {
            let asks = Asks::new(Some(of(flavor)), &of(metadata));
            assert_eq!(asks.rank.to_string(), expected, "{flavor:?}, {metadata:?}");
        }
        let key = |said| of(&[("pallium:min_available", said)]);
        for (flavor, metadata, expected) in [
            (of(&[]), of(&[]), false),
            (of(&[]), key("2"), true),
            (key("2"), of(&[]), true),
            // Its owner does not take back what the flavor declares, nor is that lost which cannot be read.
            (key("2"), key("0"), true),
            (of(&[]), key("0"), false),
            (of(&[]), key(" "), false),
            (of(&[]), key("50%"), true),
        ] {
            let asks = Asks::new(Some(flavor.clone()), &metadata);
            assert_eq!(asks.min_available, expected, "{flavor:?}, {metadata:?}");
        }
        let specs =
            of(&[("trait:A", "required"), ("trait1:B", "required"), ("trait:C", "forbidden"), ("hw:D", "required")]);
        let asks = Asks::new(Some(specs), &of(&[("HA_Enabled", "False")]));
        assert_eq!(asks.traits(), Some((vec!["B", "A"], vec!["C"])));
        assert!(asks.unprotected);
        assert_eq!(Asks::default().traits(), None);
    }

    #[test]
    fn what_is_done_when_it_crashes_says_itself_then_its_flavor_then_masakari() {
        let of = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let key = "pallium:recovery";
        let cases: [(&[_], &[_], Option<OnCrash>); 9] = [
            (&[], &[], None),
            (&[(key, "restart")], &[(key, "none")], Some(OnCrash::Stays)),
            (&[(key, "none")], &[(key, " Restart ")], Some(OnCrash::Restart)),
            (&[(key, "restart_then_move")], &[], Some(OnCrash::RestartThenMove)),
            // What is none is not said.
            (&[(key, "none")], &[(key, "move")], Some(OnCrash::Stays)),
            (&[], &[("HA_Enabled", "True")], Some(OnCrash::Restart)),
            (&[(key, "none"), ("HA_Enabled", "True")], &[("HA_Enabled", "True")], Some(OnCrash::Stays)),
            (&[("HA_Enabled", "True")], &[("HA_Enabled", "False")], None),
            // It is left on its host.
            (&[("pallium:ha", "false")], &[(key, "restart_then_move")], Some(OnCrash::Restart)),
        ];
        for (flavor, metadata, expected) in cases {
            let asks = Asks::new(Some(of(flavor)), &of(metadata));
            assert_eq!(asks.on_crash, expected, "{flavor:?}, {metadata:?}");
        }
        assert_eq!(OnCrash::said(&of(&[(key, "move")])), Some(Err("move")));
    }
}
