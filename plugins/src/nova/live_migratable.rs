//! Keeps the hosts to which a running instance can be moved from its source: the same CPU
//! architecture, and every CPU model, domain feature and domain device of the source, compared
//! exactly. What the instance itself needs is not known here.
//!
//! Active for live migrations and for moves without a label. A live migration names its source (hint
//! `source_host`, ASCII case ignored), else it is the host of the instance; for an unlabelled move
//! the host of the instance comes first, since its hints may be old.
//!
//! Source: cobaltcore-dev/cortex, `filter_live_migratable` (the peer keeps every host when the
//! source is unknown).

use scheduler::pipeline::step::NoOptions;
use scheduler::pipeline::{Cx, Detail, Filter, FilterPlugin, Reads, Survivors, Verdict};
use scheduler::{Domain, Facet, Intent, Request, Row};

use super::hosts::detail;

/// The step.
#[derive(Debug)]
pub struct LiveMigratable;

/// The source, as far as it is known.
enum Source {
    Unnamed,
    Unknown,
    Known(Row),
}

fn source(cx: &Cx<'_>) -> Source {
    let request = cx.request;
    let present = cx.rows_of(cx.consumer).first().copied();
    let named = request.source_host.as_deref().filter(|host| !host.is_empty()).map(|host| {
        let rows = cx.view.rows_of_host(host).iter().rev();
        let known = |row: Row| cx.view.provider(row).is_some_and(|provider| provider.domain == request.domain);
        rows.copied().find(|&row| known(row)).map_or(Source::Unknown, Source::Known)
    });
    let present = present.map(Source::Known);
    let source = if cx.intent == Intent::LiveMigration { named.or(present) } else { present.or(named) };
    source.unwrap_or(Source::Unnamed)
}

impl Filter for LiveMigratable {
    fn filter(&self, cx: &Cx<'_>, hosts: &mut Survivors) -> Verdict {
        if !matches!(cx.intent, Intent::LiveMigration | Intent::Move) {
            return Verdict::Skipped("no live migration");
        }
        let row = match source(cx) {
            Source::Unnamed => return Verdict::Skipped("no source host"),
            Source::Unknown => None,
            Source::Known(row) => Some(row),
        };
        let Some(source) = row.and_then(|row| cx.view.provider(row)) else {
            hosts.drop_all("the source host is not known");
            return Verdict::Ran;
        };
        let view = cx.view;
        let arch_of = |row| view.provider(row).and_then(|provider| provider.cpu_arch);
        let why = "another CPU architecture than the source";
        match source.cpu_arch {
            Some(arch) => {
                hosts.keep(view.facet(Facet::CpuArch, view.names().text(arch)), why, |row| detail(arch_of(row)));
            }
            None => hosts.keep_where(why, |row| arch_of(row).is_none(), |row| detail(arch_of(row))),
        }
        let needs = [
            (Facet::CpuModel, "CPU model", &source.cpu_models),
            (Facet::CpuFeature, "feature", &source.cpu_features),
            (Facet::CpuDevice, "device", &source.cpu_devices),
        ];
        for (facet, what, names) in needs {
            for &name in names {
                if hosts.is_empty() {
                    return Verdict::Ran;
                }
                let name = view.names().text(name);
                hosts.keep(view.facet(facet, name), format!("lacks {what} {name} of the source"), |_| Detail::None);
            }
        }
        Verdict::Ran
    }

    fn reads(&self, _: &Request) -> Reads {
        Reads::Facts
    }
}

impl FilterPlugin for LiveMigratable {
    const NAME: &'static str = "filter_live_migratable";
    const DOMAINS: &'static [Domain] = &[Domain::Nova];
    const SUMMARY: &'static str = "Keeps hosts to which a running instance can move from its source.";
    const MISSING_DATA: &'static str = "A source that is named but not known drops every host; when nobody names one, every host is kept. A target without a list has an empty one.";
    type Options = NoOptions;

    fn new(_: NoOptions) -> Result<Self, String> {
        Ok(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::LiveMigratable;
    use crate::fleet::{Case, Fleet, case, host, vm};
    use scheduler::Intent;

    fn fleet() -> Fleet {
        let full = |name: &str| host(name).arch("x86_64").cpu(&["m1", "m2"], &["f1", "f2"], &["d1"]);
        Fleet::of([
            full("source").instances(&["v1"]),
            full("equal"),
            host("more").arch("x86_64").cpu(&["m1", "m2", "m3"], &["f1", "f2", "f3"], &["d1", "d2"]),
            host("arm").arch("aarch64").cpu(&["m1", "m2"], &["f1", "f2"], &["d1"]),
            host("model").arch("x86_64").cpu(&["m1"], &["f1", "f2"], &["d1"]),
            host("feature").arch("x86_64").cpu(&["m1", "m2"], &["f1"], &["d1"]),
            host("device").arch("x86_64").cpu(&["m1", "m2"], &["f1", "f2"], &[]),
            host("plain").arch("x86_64"),
            host("plain-2").arch("x86_64"),
            host("bare"),
            host("bare-2"),
        ])
    }

    fn live(from: &'static str) -> Case {
        case(from).intent(Intent::LiveMigration).request(move |r| r.source_host = Some(from.to_owned()))
    }

    #[test]
    fn targets_offer_what_the_source_has() {
        let mut fleet = fleet();
        live("source")
            .kept(&["source", "equal", "more"])
            .dropped("arm", "another CPU architecture than the source: the host has aarch64")
            .dropped("model", "lacks CPU model m2 of the source")
            .dropped("feature", "lacks feature f2 of the source")
            .dropped("device", "lacks device d1 of the source")
            .dropped("bare", "another CPU architecture than the source: the host has none")
            .check::<LiveMigratable>(&mut fleet);
        live("SOURCE").kept(&["source", "equal", "more"]).check::<LiveMigratable>(&mut fleet);
        live("plain")
            .hosts(&["plain", "plain-2", "arm"])
            .kept(&["plain", "plain-2"])
            .check::<LiveMigratable>(&mut fleet);
        live("bare").kept(&["bare", "bare-2"]).check::<LiveMigratable>(&mut fleet);
        live("nowhere").kept(&[]).dropped("equal", "the source host is not known").check::<LiveMigratable>(&mut fleet);
    }

    #[test]
    fn only_moves_of_running_instances() {
        let mut fleet = fleet();
        case("no source")
            .intent(Intent::LiveMigration)
            .kept_all()
            .skipped("no source host")
            .check::<LiveMigratable>(&mut fleet);
        live("source").intent(Intent::Rebuild).kept_all().check::<LiveMigratable>(&mut fleet);
        live("source")
            .intent(Intent::Evacuate)
            .kept_all()
            .skipped("no live migration")
            .check::<LiveMigratable>(&mut fleet);
        case("create").kept_all().skipped("no live migration").check::<LiveMigratable>(&mut fleet);
    }

    #[test]
    fn an_unlabelled_move_starts_where_the_instance_is() {
        let mut fleet = fleet();
        case("move")
            .request(|r| {
                r.consumers = vec![vm("v1")];
                r.source_host = Some("plain".to_owned());
            })
            .kept(&["source", "equal", "more"])
            .check::<LiveMigratable>(&mut fleet);
    }
}
