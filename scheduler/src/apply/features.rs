//! Applying what a source of metrics says of a host.

use crate::apply::Touched;
use crate::command::{Change, Outcome};
use crate::features::{FeatureReport, MOST};
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
    if observed_at < before.observed_at {
        return Outcome::Reported(Change::Stale);
    }
    let mut values = before.values.clone();
    values.retain(|(known, _)| !report.forget.iter().any(|name| tables.names.get(name) == Some(*known)));
    for (name, value) in &report.values {
        let name = tables.names.intern(name);
        match values.binary_search_by_key(&name, |&(known, _)| known) {
            Ok(at) => values[at].1 = *value,
            Err(at) => values.insert(at, (name, *value)),
        }
    }
    if values.len() > MOST {
        return Outcome::Refused(format!(
            "host '{}' would have {} features, at most {MOST} are kept",
            report.name,
            values.len()
        ));
    }
    let same = values == before.values;
    if (!same || observed_at > before.observed_at)
        && let Some(provider) = tables.provider_mut(row)
    {
        provider.features.values = values;
        provider.features.observed_at = observed_at;
    }
    if same {
        return Outcome::Reported(Change::Unchanged);
    }
    // Rules read them: runs that stand no longer do.
    touched.push(Touched::Facts(row));
    Outcome::Reported(Change::Changed)
}
