//! The step that keeps new instances off hosts that failover has doubts about. It stands in front of each pipeline
//! of Nova where failover acts; no pipeline names it, and none can leave it out.

use std::sync::Arc;

use super::cx::Cx;
use super::step::{Filter, Reads, Verdict};
use super::survivors::{Detail, Survivors};
use crate::ha::cordon::Cordon;
use crate::index::Facet;
use crate::request::Request;

/// Its name in explanations.
pub const NAME: &str = "failover_cordon";

#[derive(Debug)]
struct KeepsOut;

/// It, as a pipeline has it.
pub(super) fn step() -> (String, Arc<dyn Filter>) {
    (NAME.to_owned(), Arc::new(KeepsOut))
}

impl Filter for KeepsOut {
    fn filter(&self, cx: &Cx<'_>, hosts: &mut Survivors) -> Verdict {
        let mut any = false;
        for why in Cordon::ALL {
            let rows = cx.view.flag(Facet::Cordoned(why));
            any |= !rows.is_empty();
            hosts.drop(rows, why.why(), |_| Detail::None);
        }
        if any { Verdict::Ran } else { Verdict::Skipped("failover keeps no host out") }
    }

    fn reads(&self, _: &Request) -> Reads {
        Reads::Facts
    }
}
