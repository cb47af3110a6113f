//! What would help a request that nothing fits, in words.

use api::proto::v1;

use super::{amounts_exact, count, grouped, step, wrapped_after};

/// Width of text.
const WIDTH: usize = 80;

/// What would help, one remedy to an item; empty when something fits and nobody has to be told.
pub fn remedies(told: &v1::Remedies) -> String {
    if told.remedies.is_empty() && told.fits > 0 {
        return format!("things have changed since: {} would fit now", count(told.fits, "host"));
    }
    let bound = if told.bounded { "the search ended at its bound of work, there may be more" } else { "" };
    if told.remedies.is_empty() {
        let none = "nothing that would help was found: no one change, and no two together";
        return wrapped_after("", &[none, bound].join(if bound.is_empty() { "" } else { "; " }), WIDTH);
    }
    let mut out = vec![match told.placed {
        0 => "what would help, each by itself:".to_owned(),
        placed => format!("{} can be placed; what would help the next, each by itself:", count(placed, "consumer")),
    }];
    out.extend(told.remedies.iter().map(|remedy| wrapped_after("  - ", &remedy_text(remedy), WIDTH)));
    if !bound.is_empty() {
        out.push(format!("  ({bound})"));
    }
    out.join("\n")
}

fn remedy_text(remedy: &v1::Remedy) -> String {
    let changes: Vec<String> = remedy.changes.iter().map(change).collect();
    let text = changes.join(" and ");
    let named = remedy.first.join(", ");
    let rest = remedy.hosts.saturating_sub(remedy.first.len() as u64);
    let named = if rest > 0 { format!("{named} and {} more", grouped(rest)) } else { named };
    match remedy.changes.last() {
        Some(last) if last.kind == "more_capacity" => {
            let zone = last.zone.as_ref().map(|zone| format!(" in {zone}")).unwrap_or_default();
            match remedy.hosts {
                1 => format!("{text} on {named}{zone}"),
                hosts => format!("{text} on any of {}{zone} ({named})", count(hosts, "host")),
            }
        }
        Some(last) if last.kind == "move" => match remedy.changes.len() {
            1 => format!("{text}: it fits on {named} then"),
            moves => format!("after these {moves} moves it fits on {named}: {text}"),
        },
        _ => format!("{text}: {} ({named})", count(remedy.hosts, "host")),
    }
}

fn change(change: &v1::RemedyChange) -> String {
    let name = change.name.as_deref().unwrap_or_default();
    match change.kind.as_str() {
        "without_required_trait" => format!("without asking for trait {name}"),
        "without_forbidden_trait" => format!("without forbidding trait {name}"),
        "without_group" => "without the server group".to_owned(),
        "other_candidates" => "beyond the hosts that were sent".to_owned(),
        "more_capacity" => format!("{} more", amounts_exact(&change.amounts)),
        "move" => format!(
            "move {} ({}) from {} to {}",
            change.consumer.as_deref().unwrap_or_default(),
            amounts_exact(&change.amounts),
            change.from.as_deref().unwrap_or_default(),
            change.to.as_deref().unwrap_or_default()
        ),
        // No pipeline can do without these two.
        _ if name == scheduler::pipeline::cordon::NAME => {
            format!("once failover lets new instances there again ({})", change.reasons.join(", "))
        }
        _ if name == scheduler::pipeline::admission::NAME => {
            format!("once there is room beside what is kept for a failover ({})", change.reasons.join(", "))
        }
        _ if change.reasons.is_empty() => format!("without {}", step(name)),
        _ => format!("without {} ({})", step(name), change.reasons.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn because(kind: &str, hosts: u64, first: &[&str], set: impl FnOnce(&mut v1::RemedyChange)) -> v1::Remedy {
        let mut change = v1::RemedyChange { kind: kind.to_owned(), ..v1::RemedyChange::default() };
        set(&mut change);
        v1::Remedy { changes: vec![change], hosts, first: first.iter().map(|&host| host.to_owned()).collect() }
    }

    #[test]
    fn remedies_read_well_and_fit_a_terminal() {
        let uuid = "198d1710-5a6c-4990-8a9f-9ea722780747";
        let moved = |to: &'static str| {
            move |change: &mut v1::RemedyChange| {
                change.amounts = [("VCPU".to_owned(), 4), ("MEMORY_MB".to_owned(), 16_384)].into();
                change.consumer = Some(uuid.to_owned());
                change.from = Some("node001-bb00".to_owned());
                change.to = Some(to.to_owned());
            }
        };
        let mut two = because("move", 1, &["node001-bb00"], moved("node002-bb00"));
        two.changes.extend(because("move", 1, &[], moved("node003-bb00")).changes);
        let told = v1::Remedies {
            remedies: vec![
                because("without_required_trait", 14, &["a", "b"], |change| change.name = Some("CUSTOM_X".to_owned())),
                because("without_group", 2, &["c", "d"], |_| {}),
                because("without_filter", 1, &["e"], |change| {
                    change.name = Some("filter_correct_az".to_owned());
                    change.reasons = vec!["in another availability zone".to_owned()];
                }),
                because("more_capacity", 3, &["f", "g", "h"], |change| {
                    change.amounts = [("MEMORY_MB".to_owned(), 12_288)].into();
                    change.zone = Some("az-a".to_owned());
                }),
                because("more_capacity", 1, &["f"], |change| {
                    change.amounts = [("MEMORY_MB".to_owned(), 1500), ("VCPU".to_owned(), 2)].into();
                }),
                because("move", 1, &["node001-bb00"], moved("node002-bb00")),
                two,
            ],
            ..v1::Remedies::default()
        };
        expect_test::expect![[r"
            what would help, each by itself:
              - without asking for trait CUSTOM_X: 14 hosts (a, b and 12 more)
              - without the server group: 2 hosts (c, d)
              - without correct_az (in another availability zone): 1 host (e)
              - 12 GiB more on any of 3 hosts in az-a (f, g, h)
              - 2 VCPU, 1,500 MiB more on f
              - move 198d1710-5a6c-4990-8a9f-9ea722780747 (4 VCPU, 16 GiB) from node001-bb00
                to node002-bb00: it fits on node001-bb00 then
              - after these 2 moves it fits on node001-bb00: move
                198d1710-5a6c-4990-8a9f-9ea722780747 (4 VCPU, 16 GiB) from node001-bb00 to
                node002-bb00 and move 198d1710-5a6c-4990-8a9f-9ea722780747 (4 VCPU, 16 GiB)
                from node001-bb00 to node003-bb00"]]
        .assert_eq(&remedies(&told));
        assert!(remedies(&told).lines().all(|line| line.chars().count() <= 80));
        let none = v1::Remedies { bounded: true, ..v1::Remedies::default() };
        assert!(
            remedies(&none).replace('\n', " ").contains("no two together; the search ended"),
            "{}",
            remedies(&none)
        );
        let changed = v1::Remedies { fits: 3, ..v1::Remedies::default() };
        assert_eq!(remedies(&changed), "things have changed since: 3 hosts would fit now");
    }
}
