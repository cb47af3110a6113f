//! Candidates = hosts sent ∩ hosts known (`nova-pipeline` 0.2), or the whole domain. Hosts of Cinder and
//! Manila that nobody has reported are ranked as well: see [`Stranger`].

use std::sync::Arc;

// Names that callers send must not be made to collide: its hasher has a random seed.
use hashbrown::HashMap;

use crate::index::Facet;
use crate::names::Text;
use crate::pipeline::cx::View;
use crate::pipeline::engine::Pipeline;
use crate::pipeline::run::Entrant;
use crate::provider::Row;
use crate::request::{Candidate, Candidates, Request};
use crate::rows::{Mask, Rows};

use super::Refusal;

/// A host that the caller sent, that no source has reported, and that is ranked all the same: by the
/// caller's weight, with 0 from each weigher.
#[derive(Debug)]
pub(super) struct Stranger {
    pub position: u32,
    pub weight: f64,
}

/// The candidates of a request.
#[derive(Debug, Default)]
pub(super) struct Field {
    pub mask: Mask,
    /// Ascending by row; empty when the whole domain was asked for.
    pub sent: Arc<Vec<Entrant>>,
    pub unknown: Vec<String>,
    /// Those of the unknown that are ranked.
    pub strangers: Vec<Stranger>,
    /// Node names that the request teaches.
    pub learned: Vec<(Row, Text)>,
    pub count: usize,
}

/// The candidates of `request`; what no source has reported passes no filter.
pub(super) fn field(view: View<'_>, request: &Request, pipeline: &Pipeline) -> Result<Field, Refusal> {
    let strange = request.ranks_unknown() && pipeline.filters.is_empty();
    let mut field = Field { mask: Mask::none(view.index.rows()), ..Field::default() };
    match &request.candidates {
        Candidates::All => {
            let rows = view.facet(Facet::Domain, request.domain.as_str());
            match rows {
                Rows::Dense(mask, _) => field.mask.clone_from(mask),
                Rows::Sparse(_) => field.mask.union(rows),
            }
            field.count = rows.len();
            if field.count == 0 {
                return Err(Refusal::FleetUnknown { sent: 0 });
            }
        }
        Candidates::Sent(hosts) => {
            if hosts.is_empty() && !strange {
                return Err(Refusal::Invalid("hosts: an empty list given, at least one host expected".to_owned()));
            }
            let domain = view.facet(Facet::Domain, request.domain.as_str());
            let mut sent = Vec::with_capacity(hosts.len());
            if !enter_plain(view, domain, hosts, &mut field, &mut sent) {
                field = Field { mask: Mask::none(view.index.rows()), ..Field::default() };
                sent.clear();
                enter_by_name(view, domain, hosts, &mut field, &mut sent, strange);
            }
            sent.sort_unstable_by_key(|entrant| entrant.row);
            // Two spellings of one host (ASCII case) reach one row: the first stays.
            sent.dedup_by_key(|entrant| entrant.row);
            field.count = sent.len();
            field.sent = Arc::new(sent);
            if field.count == 0 && !strange {
                return Err(Refusal::FleetUnknown { sent: hosts.len() });
            }
        }
    }
    Ok(field)
}

/// Enters hosts that are all known, have one node each, and are listed once, as nearly always. False when one
/// is not: nothing that was entered counts then.
fn enter_plain(view: View<'_>, domain: &Rows, hosts: &[Candidate], field: &mut Field, sent: &mut Vec<Entrant>) -> bool {
    let mut guess = Row(0);
    (0..).zip(hosts).all(|(position, candidate)| {
        let Some(row) = view.index.only_row_of_host(&candidate.host, guess) else { return false };
        guess = Row(row.0.wrapping_add(1));
        match found(view, domain, &[row], &candidate.node) {
            Some((row, false)) if !field.mask.has(row) => {
                field.mask.insert(row);
                sent.push(Entrant { row, position, weight: candidate.weight });
                true
            }
            _ => false,
        }
    })
}

/// Enters any hosts. With several nodes behind one host, the last one listed is ranked (Nova maps a name of the
/// answer to its last node).
fn enter_by_name(
    view: View<'_>,
    domain: &Rows,
    hosts: &[Candidate],
    field: &mut Field,
    sent: &mut Vec<Entrant>,
    strange: bool,
) {
    let last: HashMap<&str, u32> = hosts.iter().map(|candidate| candidate.host.as_str()).zip(0..).collect();
    for (position, candidate) in (0..).zip(hosts) {
        if last.get(candidate.host.as_str()) != Some(&position) {
            continue;
        }
        let rows = view.rows_of_host(&candidate.host);
        let Some((row, learns)) = found(view, domain, rows, &candidate.node) else {
            field.unknown.push(candidate.host.to_string());
            if strange {
                field.strangers.push(Stranger { position, weight: candidate.weight });
            }
            continue;
        };
        if learns {
            field.learned.push((row, view.names().refer(&candidate.node)));
        }
        field.mask.insert(row);
        sent.push(Entrant { row, position, weight: candidate.weight });
    }
}

/// The row of (domain, host, node) among those of the host, and whether the request teaches its node name.
fn found(view: View<'_>, domain: &Rows, rows: &[Row], node: &str) -> Option<(Row, bool)> {
    let mut fallback = None;
    for &row in rows.iter().filter(|row| domain.has(**row)) {
        match view.index.node(row) {
            Some(known) if known == node => return Some((row, false)),
            Some(_) if node.is_empty() => fallback = fallback.or(Some((row, false))),
            Some(_) => {}
            None => fallback = fallback.or(Some((row, !node.is_empty()))),
        }
    }
    fallback
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::command::{Batch, Command, Proposer};
    use crate::core::Core;
    use crate::report::HostReport;

    /// Hosts a to h; g and h have two nodes each, and a's node is not known.
    fn core() -> Core {
        let hosts = [("a", ""), ("B", "b"), ("c", "c"), ("d", "d"), ("e", "e"), ("f", "f")].into_iter();
        let report = |(name, node): (&str, &str)| HostReport {
            name: name.to_owned(),
            hypervisor_hostname: (!node.is_empty()).then(|| node.to_owned()),
            ..HostReport::default()
        };
        let reports = hosts.chain([("g", "g1"), ("g", "g2"), ("h", "h1"), ("h", "h2")]).map(report);
        let commands = reports.map(|report| Command::Report(Box::new(report))).collect();
        let mut core = Core::new();
        core.apply(&Batch { proposer: Proposer::default(), now: 0, wall: 1, commands });
        assert_eq!(core.index.rows(), 10, "every report counts");
        core
    }

    proptest! {
        /// Hosts in the order of their rows and in any other, strangers, doubles, nodes that are not theirs: the short way
        /// finds what the long way finds, or says that it cannot.
        #[test]
        fn both_ways_in_find_the_same(
            sent in prop::collection::vec(("[a-iBE]", 0_u8..8), 1..12),
            from in 0_usize..5,
            ordered in any::<bool>(),
        ) {
            let core = core();
            let view = core.view();
            let sent: Vec<Candidate> = if ordered {
                let plain = ["b", "c", "d", "e", "f"].iter().skip(from);
                plain.map(|name| Candidate { host: (*name).into(), node: (*name).into(), weight: 1.0 }).collect()
            } else {
                let node = |name: &str, node| match node {
                    0 => String::new(),
                    1 => format!("{name}2"),
                    _ => name.to_lowercase(),
                };
                let sent = sent.into_iter();
                sent.map(|(name, at)| Candidate { node: node(&name, at).into(), host: name.into(), weight: f64::from(at) }).collect()
            };
            let domain = view.facet(Facet::Domain, "nova");
            let enter = |plainly: bool| {
                let mut field = Field { mask: Mask::none(view.index.rows()), ..Field::default() };
                let mut entered = Vec::new();
                let done = if plainly {
                    enter_plain(view, domain, &sent, &mut field, &mut entered)
                } else {
                    enter_by_name(view, domain, &sent, &mut field, &mut entered, true);
                    true
                };
                entered.sort_unstable_by_key(|entrant| (entrant.row, entrant.position));
                (done, format!("{field:?} {entered:?}"))
            };
            let (short, long) = (enter(true), enter(false));
            prop_assert!(short.0 || !ordered, "hosts in their order are plain");
            prop_assert!(!short.0 || short == long, "{:?} and {:?}", short, long);
        }
    }
}
