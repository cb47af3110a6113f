//! The step that keeps room for a failover: it drops the hosts of a failover domain in which a placement would take what
//! the policy keeps free. It stands behind the [`cordon`](super::cordon), and as that one is in each pipeline of Nova.

use std::sync::Arc;

use smallvec::SmallVec;

use super::cx::Cx;
use super::step::{Filter, Reads, Verdict};
use super::survivors::{Detail, Survivors};
use crate::consumer::{Consumer, Purpose};
use crate::domain::Domain;
use crate::ha::admission::Rule;
use crate::index::rooms::Short;
use crate::intent::Intent;
use crate::rows::Rows;

/// Its name in explanations.
pub const NAME: &str = "failover_admission";

#[derive(Debug)]
struct KeepsRoom;

/// It, as a pipeline has it.
pub(super) fn step() -> (String, Arc<dyn Filter>) {
    (NAME.to_owned(), Arc::new(KeepsRoom))
}

/// In which domains the request would take the room of a failover. It differs with use anywhere in them.
pub(super) fn short<'a>(cx: &Cx<'a>) -> SmallVec<[(Short, &'a Rows); 2]> {
    let view = cx.view;
    let rooms = view.index.rooms();
    let room = !matches!(cx.intent, Intent::Evacuate | Intent::Rebuild);
    if cx.request.domain != Domain::Nova || !room || !rooms.refuses() {
        return SmallVec::new();
    }
    // What it has there already, but for an open claim: that one is not counted while its own request is decided.
    let own = view.tables.consumer(cx.request.domain, cx.consumer, Purpose::Instance);
    let own = own.filter(|own| !Consumer::is_open(own));
    let at = own.and_then(|own| view.index.group_of(own.row));
    let asked = |group| {
        let has = |class| own.filter(|_| at == Some(group)).map_or(0, |own| own.amounts.get(class));
        let asked = cx.request.resources.iter();
        asked
            .filter_map(|(class, amount)| {
                let class = view.sym(class)?;
                Some((class, amount.saturating_sub(has(class))))
            })
            .collect()
    };
    rooms.short(asked).collect()
}

impl Filter for KeepsRoom {
    fn filter(&self, cx: &Cx<'_>, hosts: &mut Survivors) -> Verdict {
        match cx.intent {
            Intent::Evacuate => return Verdict::Skipped("an evacuation may take the room that is kept for it"),
            _ if !cx.view.index.rooms().refuses() => return Verdict::Skipped("no policy keeps room for a failover"),
            _ => {}
        }
        for (short, rows) in short(cx) {
            let class = cx.view.names().text(short.class);
            let why = match short.rule {
                Rule::Host => format!("would leave too little {class} for the loss of a host"),
                Rule::Percent(percent) => format!("would leave less than {percent} % of {class} for a failover"),
            };
            hosts.drop(rows, why, |_| Detail::None);
        }
        Verdict::Ran
    }

    /// What it says of a host hangs on the use of others: standing runs compare [`short`].
    fn reads(&self, _: &crate::request::Request) -> Reads {
        Reads::Facts
    }
}
