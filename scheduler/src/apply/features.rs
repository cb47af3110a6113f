//! Applying what a source of metrics says of a host.

use crate::apply::Touched;
use crate::command::{Change, Outcome};
use crate::features::{Feature, FeatureReport, MOST};
use crate::names::{Names, Sym};
use crate::state::State;

pub(super) fn features(state: &mut State, report: &FeatureReport, touched: &mut Vec<Touched>) -> Outcome {
    if let Err(why) = report.validate() {
        return Outcome::Refused(why);
    }
    let tables = &mut state.tables;
    let Some(row) = tables.row_of_node(report.domain, &report.name, report.hypervisor_hostname.as_deref()) else {
        return Outcome::Refused(format!(
            "no source has reported a host '{}' in domain {}",
            report.name, report.domain
        ));
    };
    let observed_at = report.observed_at.unwrap_or(tables.counters.wall);
    let Some(before) = tables.provider(row).map(|provider| provider.features.clone()) else {
        return Outcome::Reported(Change::Stale);
    };
    let mut after = before.clone();
    let mut late = 0;
    let forget = Forget::of(report, &tables.names);
    after.0.retain(|known| {
        let named = forget.names(known.name, &tables.names);
        late += usize::from(named && known.observed_at > observed_at);
        !named || known.observed_at > observed_at
    });
    for (name, &value) in &report.values {
        let name = tables.names.intern(name);
        let new = Feature { name, value, observed_at };
        match after.0.binary_search_by_key(&name, |known| known.name) {
            Ok(at) if after.0[at].observed_at > observed_at => late += 1,
            Ok(at) => after.0[at] = new,
            Err(at) => after.0.insert(at, new),
        }
    }
    if after.0.len() > MOST {
        return Outcome::Refused(format!(
            "host '{}' would have {} features, at most {MOST} are kept",
            report.name,
            after.0.len()
        ));
    }
    let content = |feature: &Feature| (feature.name, feature.value);
    let same = after.0.iter().map(content).eq(before.0.iter().map(content));
    if after != before
        && let Some(provider) = tables.provider_mut(row)
    {
        provider.features = after;
    }
    if !same {
        // Steps read them: runs that stand no longer do.
        touched.push(Touched::Facts(row));
        return Outcome::Reported(Change::Changed);
    }
    Outcome::Reported(if late > 0 { Change::Stale } else { Change::Unchanged })
}

/// What a report forgets.
struct Forget<'a> {
    /// Sorted.
    names: Vec<Sym>,
    begins: Vec<&'a str>,
}

impl<'a> Forget<'a> {
    fn of(report: &'a FeatureReport, names: &Names) -> Self {
        let mut forget = Self { names: Vec::new(), begins: Vec::new() };
        for name in &report.forget {
            match name.strip_suffix('*') {
                Some(begin) => forget.begins.push(begin),
                None => forget.names.extend(names.get(name)),
            }
        }
        forget.names.sort_unstable();
        forget
    }

    fn names(&self, name: Sym, names: &Names) -> bool {
        self.names.binary_search(&name).is_ok() || self.begins.iter().any(|begin| names.text(name).starts_with(begin))
    }
}
