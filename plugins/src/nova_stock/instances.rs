//! Where instances that a request names are.

use scheduler::pipeline::{Cx, Verdict};
use scheduler::request::GroupPolicy;
use scheduler::{Mask, Row};
use uuid::Uuid;

/// Hosts of the instances in a hint; `None`: there is no such hint. Nova compares uuids as texts: one
/// in another spelling than the usual names no instance.
pub fn hinted(cx: &Cx<'_>, hint: &str) -> Option<Mask> {
    let texts = cx.request.hints.get(hint).filter(|texts| !texts.iter().all(String::is_empty))?;
    let rows = texts.iter().filter_map(|text| {
        let uuid = Uuid::try_parse(text).ok()?;
        (uuid.hyphenated().encode_lower(&mut Uuid::encode_buffer()) == text).then(|| cx.rows_of(uuid))
    });
    Some(rows.flatten().collect())
}

/// Hosts whose name is exactly one of `names`.
pub fn named(cx: &Cx<'_>, names: &[String]) -> Mask {
    let rows = names.iter().flat_map(|name| cx.view.rows_of_host(name).iter().map(move |&row| (name, row)));
    rows.filter(|&(name, row): &(&String, Row)| cx.view.host(row) == name).map(|(_, row)| row).collect()
}

/// Writes sign × number of members of the request's group on each host, if its policy is this one.
pub fn weigh_members(cx: &Cx<'_>, policy: GroupPolicy, sign: f64, hosts: &[Row], out: &mut [f64]) -> Verdict {
    let Some(group) = cx.request.group.as_ref().filter(|group| group.policy == Some(policy)) else {
        return Verdict::Skipped("no group of this policy");
    };
    let mut members = cx.members_by_row(group);
    if let Some(own) = cx.seen_on().filter(|_| group.members.contains(&cx.consumer)) {
        *members.entry(own).or_insert(0) += 1;
    }
    for (row, count) in members {
        if let Ok(at) = hosts.binary_search(&row) {
            out[at] = sign * count as f64;
        }
    }
    Verdict::Ran
}
