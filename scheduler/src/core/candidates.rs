//! Candidates = hosts sent ∩ hosts known (`nova-pipeline` 0.2), or the whole domain. Hosts of Cinder and
//! Manila that nobody has reported are ranked as well: see [`Stranger`].

use rustc_hash::FxHashMap;

use crate::index::Facet;
use crate::names::Text;
use crate::pipeline::cx::View;
use crate::pipeline::engine::Pipeline;
use crate::pipeline::run::Entrant;
use crate::provider::Row;
use crate::request::{Candidates, Request};
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
    pub sent: Vec<Entrant>,
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
            match view.facet(Facet::Domain, request.domain.as_str()) {
                Rows::Dense(mask, _) => field.mask.clone_from(mask),
                sparse @ Rows::Sparse(_) => field.mask.union(sparse),
            }
            field.count = field.mask.len();
            if field.count == 0 {
                return Err(Refusal::FleetUnknown { sent: 0 });
            }
        }
        Candidates::Sent(hosts) => {
            if hosts.is_empty() && !strange {
                return Err(Refusal::Invalid("hosts: an empty list given, at least one host expected".to_owned()));
            }
            // With several nodes behind one host, the last one listed is ranked (Nova maps a name
            // of the answer to its last node).
            let mut last: FxHashMap<&str, usize> = FxHashMap::default();
            for (at, candidate) in hosts.iter().enumerate() {
                last.insert(&candidate.host, at);
            }
            for (at, candidate) in hosts.iter().enumerate() {
                if last.get(candidate.host.as_str()) != Some(&at) {
                    continue;
                }
                let Some((row, learns)) = find(view, request, &candidate.host, &candidate.node) else {
                    field.unknown.push(candidate.host.clone());
                    if strange {
                        field.strangers.push(Stranger { position: at as u32, weight: candidate.weight });
                    }
                    continue;
                };
                if learns {
                    field.learned.push((row, view.names().refer(&candidate.node)));
                }
                field.mask.insert(row);
                field.sent.push(Entrant { row, position: at as u32, weight: candidate.weight });
            }
            field.sent.sort_unstable_by_key(|entrant| entrant.row);
            // Two spellings of one host (ASCII case) reach one row: the first stays.
            field.sent.dedup_by_key(|entrant| entrant.row);
            field.count = field.sent.len();
            if field.count == 0 && !strange {
                return Err(Refusal::FleetUnknown { sent: hosts.len() });
            }
        }
    }
    Ok(field)
}

/// The row of (domain, host, node), and whether the request teaches its node name.
fn find(view: View<'_>, request: &Request, host: &str, node: &str) -> Option<(Row, bool)> {
    let mut fallback = None;
    for &row in view.rows_of_host(host) {
        let Some(provider) = view.provider(row).filter(|provider| provider.domain == request.domain) else { continue };
        match provider.node {
            Some(known) if view.names().text(known) == node => return Some((row, false)),
            Some(_) if node.is_empty() => fallback = fallback.or(Some((row, false))),
            Some(_) => {}
            None => fallback = fallback.or(Some((row, !node.is_empty()))),
        }
    }
    fallback
}
