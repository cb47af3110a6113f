//! Policies of failover: their documents in and out, and what a change of one means for which hosts.

use std::collections::BTreeMap;

use raft::Freshness;
use scheduler::ha::Host;
use scheduler::ha::order::{Change, Done};
use scheduler::ha::policy::{self, FailoverPolicy, Kept, Mode, Rules, Selector, document};
use scheduler::state::Tables;
use similar::TextDiff;

use super::{find, name, nova_host, operator};
use crate::error::ApiError;
use crate::failover;
use crate::proto::ha;
use crate::service::{Call, Service};

/// Hosts that are named with what changes for them.
const EFFECTS: usize = 20;
/// Bytes of a document: about 4096 names.
const LONGEST: usize = 1 << 20;

fn policies(tables: &Tables) -> &[Kept] {
    &tables.failover().small.policies
}

/// Policies that a host is under, the most specific first.
pub(super) fn names<'a>(tables: &'a Tables, host: &'a Host) -> impl Iterator<Item = &'a str> {
    let mut names: Vec<_> =
        policy::selecting(policies(tables), tables, host).map(|kept| kept.policy.name.as_str()).collect();
    names.reverse();
    names.into_iter()
}

/// Hosts by the policies that they are under.
pub(super) fn under(tables: &Tables) -> Vec<ha::FailoverUnder> {
    let mut counts: BTreeMap<(Vec<&str>, Mode), u64> = BTreeMap::new();
    for host in tables.failover().hosts.iter() {
        *counts.entry((names(tables, host).collect(), policy::of(tables, host).mode)).or_default() += 1;
    }
    let told = |((names, mode), hosts): ((Vec<&str>, Mode), u64)| ha::FailoverUnder {
        policies: names.into_iter().map(str::to_owned).collect(),
        mode: name(mode),
        hosts,
    };
    counts.into_iter().map(told).collect()
}

/// What a selector selects, in words.
fn words(selector: &Selector) -> String {
    let Selector { domain, hosts, aggregates, traits, labels } = selector;
    let mut parts: Vec<String> = domain.iter().map(ToString::to_string).collect();
    for (what, list) in [("host", hosts), ("aggregate", aggregates), ("trait", traits)] {
        match list.as_slice() {
            [] => {}
            [only] => parts.push(format!("{what} {only}")),
            [first, rest @ ..] => parts.push(format!("{what}s {first} and {} more", rest.len())),
        }
    }
    parts.extend(labels.iter().map(|term| match term.values.as_slice() {
        [] => format!("label {} {:?}", term.key, term.operator),
        values => format!("label {} {:?} {}", term.key, term.operator, values.join(", ")),
    }));
    parts.join(", ")
}

fn told(kept: &Kept, hosts: u64) -> ha::FailoverPolicy {
    ha::FailoverPolicy {
        name: kept.policy.name.clone(),
        document: Some(document::write(&kept.policy).to_string()),
        revision: kept.revision,
        actor: kept.by.clone(),
        reason: kept.why.clone(),
        wall_ms: kept.wall,
        hosts,
        selector: words(&kept.policy.selector),
        mode: kept.policy.rules.mode.map(name),
    }
}

/// How many hosts each policy selects.
fn counts<'a>(policies: &'a [Kept], tables: &'a Tables) -> BTreeMap<&'a str, u64> {
    let mut counts = BTreeMap::new();
    for host in tables.failover().hosts.iter() {
        for kept in policy::selecting(policies, tables, host) {
            *counts.entry(kept.policy.name.as_str()).or_default() += 1;
        }
    }
    counts
}

/// What a host is under, key by key.
fn rules(tables: &Tables, host: &Host) -> Vec<ha::FailoverRule> {
    let failover = tables.failover();
    let mut base = failover.small.policy;
    base.lease = base.lease.or(Some(failover.small.lease.mode));
    let mut keys: BTreeMap<&str, (String, Option<&str>)> = BTreeMap::new();
    let base = Rules::from(base);
    keys.extend(document::keys(&base).map(|(key, value)| (key, (value, None))));
    for kept in policy::selecting(policies(tables), tables, host) {
        let said = document::keys(&kept.policy.rules);
        keys.extend(said.map(|(key, value)| (key, (value, Some(kept.policy.name.as_str())))));
    }
    let told = |(key, (value, policy)): (&str, (String, Option<&str>))| ha::FailoverRule {
        key: key.to_owned(),
        value,
        policy: policy.map(str::to_owned),
    };
    keys.into_iter().map(told).collect()
}

/// A document as YAML, for comparisons by people.
fn yaml(policy: Option<&FailoverPolicy>) -> Result<String, ApiError> {
    let text = policy.map(|policy| serde_norway::to_string(&document::write(policy))).transpose();
    text.map(Option::unwrap_or_default).map_err(|error| ApiError::internal(error.to_string()))
}

/// What some hosts would be under otherwise with other policies.
fn effects(tables: &Tables, after: &[Kept]) -> (u64, Vec<String>) {
    let mut affected: Vec<(&str, String)> = Vec::new();
    for host in tables.failover().hosts.iter() {
        let (old, new) = (policy::of(tables, host), policy::with(after, tables, host));
        if old == new {
            continue;
        }
        let old: BTreeMap<_, _> = document::keys(&Rules::from(old)).collect();
        let new = Rules::from(new);
        let differs = document::keys(&new).filter(|(key, value)| old.get(key) != Some(value));
        let before = |key: &str| old.get(key).map_or("default", String::as_str);
        let mut parts: Vec<_> = differs.map(|(key, value)| format!("{key} {} -> {value}", before(key))).collect();
        parts.extend(
            (new.lease.is_none() && old.contains_key("fencing.leaseMode"))
                .then(|| "fencing.leaseMode -> default".to_owned()),
        );
        affected.push((nova_host(tables, host), parts.join(", ")));
    }
    affected.sort_unstable();
    let told = affected.iter().take(EFFECTS).map(|(host, parts)| format!("{host}: {parts}"));
    (affected.len() as u64, told.collect())
}

/// What becomes of it when `new` is put in, or what has its name is taken out.
fn change(tables: &Tables, name: &str, new: Option<&FailoverPolicy>) -> Result<ha::FailoverPolicyChange, ApiError> {
    let known = policies(tables).iter().find(|kept| kept.policy.name == name);
    let mut after = policies(tables).to_vec();
    match new {
        Some(new) => {
            let kept = Kept { policy: new.clone(), revision: 0, by: String::new(), why: String::new(), wall: 0 };
            policy::put(&mut after, kept);
        }
        None => drop(policy::remove(&mut after, name)),
    }
    let old = known.map(|kept| &kept.policy);
    let (before, then) = (yaml(old)?, yaml(new)?);
    let diff = TextDiff::from_lines(&before, &then).unified_diff().header("in force", "then").to_string();
    let (affected, effects) = effects(tables, &after);
    let hosts = counts(&after, tables).get(name).copied().unwrap_or_default();
    let mut notes = Vec::new();
    if new.is_some() && hosts == 0 {
        notes.push("it selects no host that failover watches now".to_owned());
    }
    if let Some(new) = new {
        notes.extend(rivals(tables, &after, new));
    }
    Ok(ha::FailoverPolicyChange {
        name: name.to_owned(),
        changed: old != new,
        revision: known.map_or(0, |kept| kept.revision),
        diff,
        hosts,
        affected,
        effects,
        notes,
    })
}

/// Others that are as specific and select hosts of it: the name decides there.
fn rivals(tables: &Tables, after: &[Kept], new: &FailoverPolicy) -> Vec<String> {
    let mut shared: BTreeMap<&str, u64> = BTreeMap::new();
    for host in tables.failover().hosts.iter() {
        let all: Vec<_> = policy::selecting(after, tables, host).map(|kept| &kept.policy).collect();
        if !all.iter().any(|policy| policy.name == new.name) {
            continue;
        }
        for other in all {
            if other.name != new.name && other.selector.specificity() == new.selector.specificity() {
                *shared.entry(&other.name).or_default() += 1;
            }
        }
    }
    let told = |(other, hosts): (&str, u64)| {
        let first = other.min(new.name.as_str());
        format!(
            "'{other}' is as specific, for {hosts} hosts of both: what both say is as '{first}' says, the first by name"
        )
    };
    shared.into_iter().map(told).collect()
}

/// Reads what a client sent. Errors: everything that is wrong with it.
fn read(given: Option<&str>) -> Result<FailoverPolicy, ApiError> {
    let given = given.unwrap_or_default();
    if given.is_empty() || given.len() > LONGEST {
        let given = given.len();
        return Err(ApiError::bad_request(format!("document: {given} bytes given, 1 to {LONGEST} expected")));
    }
    let value: serde_json::Value = serde_json::from_str(given)
        .map_err(|error| ApiError::bad_request(format!("document: a FailoverPolicy as JSON expected: {error}")))?;
    document::read(&value).map_err(|faults| {
        let faults: Vec<_> = faults.iter().map(|fault| format!("document.{fault}")).collect();
        ApiError::bad_request(faults.join("\n"))
    })
}

impl Service {
    pub(crate) async fn failover_policies(
        &self,
        asked: ha::FailoverPoliciesRequest,
        call: &Call,
    ) -> Result<ha::FailoverPoliciesResponse, ApiError> {
        let tables = self.tables(call.fresh).await?;
        let counts = counts(policies(&tables), &tables);
        let wanted = |kept: &&Kept| asked.name.as_ref().is_none_or(|name| *name == kept.policy.name);
        let hosts = |kept: &Kept| counts.get(kept.policy.name.as_str()).copied().unwrap_or_default();
        let found: Vec<_> = policies(&tables).iter().rev().filter(wanted).map(|kept| told(kept, hosts(kept))).collect();
        if let Some(name) = asked.name.as_ref().filter(|_| found.is_empty()) {
            return Err(unknown(name));
        }
        let rules = asked.host.as_deref().map(|host| {
            find(&tables, host).map(|host| rules(&tables, host)).ok_or_else(|| {
                ApiError::not_found(format!("host: '{}' is none that failover watches", host.escape_debug()))
            })
        });
        Ok(ha::FailoverPoliciesResponse { policies: found, rules: rules.transpose()?.unwrap_or_default() })
    }

    pub(crate) async fn check_policy(
        &self,
        asked: ha::FailoverPolicyRequest,
    ) -> Result<ha::FailoverPolicyChange, ApiError> {
        let policy = read(asked.document.as_deref())?;
        let tables = self.tables(Freshness::Linearizable).await?;
        let mut change = change(&tables, &policy.name, Some(&policy))?;
        if policy.rules.mode == Some(Mode::Enforce) && self.config.failover != failover::Mode::Enforce {
            change
                .notes
                .push("ha.mode of the node that answers is not enforce: while it leads nothing is done".to_owned());
        }
        Ok(change)
    }

    pub(crate) async fn apply_policy(
        &self,
        asked: ha::FailoverPolicyRequest,
    ) -> Result<ha::FailoverPolicyChange, ApiError> {
        let policy = read(asked.document.as_deref())?;
        let ha::FailoverPolicyRequest { document, actor, reason } = asked;
        let name = policy.name.clone();
        let checked =
            self.check_policy(ha::FailoverPolicyRequest { document, ..ha::FailoverPolicyRequest::default() }).await?;
        self.policy_changed(checked, &name, operator(&actor, &reason), Change::PolicyPut(Box::new(policy))).await
    }

    pub(crate) async fn delete_policy(
        &self,
        asked: ha::DeleteFailoverPolicyRequest,
    ) -> Result<ha::FailoverPolicyChange, ApiError> {
        let ha::DeleteFailoverPolicyRequest { name, actor, reason } = asked;
        let tables = self.tables(Freshness::Linearizable).await?;
        if !policies(&tables).iter().any(|kept| kept.policy.name == name) {
            return Err(unknown(&name));
        }
        let checked = change(&tables, &name, None)?;
        let removal = Change::PolicyRemove(name.clone());
        self.policy_changed(checked, &name, operator(&actor, &reason), removal).await
    }

    async fn policy_changed(
        &self,
        checked: ha::FailoverPolicyChange,
        name: &str,
        actor: scheduler::ha::Actor,
        change: Change,
    ) -> Result<ha::FailoverPolicyChange, ApiError> {
        let done = self.node.order(actor, change).await?.map_err(|refusal| ApiError::conflict(refusal.to_string()))?;
        let tables = self.tables(Freshness::Linearizable).await?;
        let kept = policies(&tables).iter().find(|kept| kept.policy.name == name);
        let revision = kept.map_or(0, |kept| kept.revision);
        Ok(ha::FailoverPolicyChange { changed: done != Done::Unchanged, revision, ..checked })
    }
}

fn unknown(name: &str) -> ApiError {
    ApiError::not_found(format!(
        "name: '{}' is no policy; `pallium ctl ha policy show` lists them",
        name.escape_debug()
    ))
}
