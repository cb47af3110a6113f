//! The rows behind the host and node names of a request.

use scheduler::pipeline::{Cx, Detail, View};
use scheduler::request::Candidates;
use scheduler::{Facet, Mask, Row, Sym};

/// Rows of the hosts with these names, ASCII case ignored; unknown names give none.
pub fn of_hosts<'n>(view: &View<'_>, names: impl IntoIterator<Item = &'n String>) -> Mask {
    names.into_iter().flat_map(|name| view.rows_of_host(name)).copied().collect()
}

/// Rows of the nodes with these names, compared exactly. A host whose node name is not known yet has
/// the one under which the request sent it.
pub fn of_nodes<'n>(cx: &Cx<'_>, nodes: impl IntoIterator<Item = &'n String>) -> Mask {
    let mut mask = Mask::default();
    for node in nodes {
        mask.union(cx.view.facet(Facet::Node, node));
        if let Candidates::Sent(sent) = &cx.request.candidates {
            let unnamed = |row: &Row| cx.view.provider(*row).is_some_and(|provider| provider.node.is_none());
            sent.iter()
                .filter(|candidate| candidate.node == *node)
                .flat_map(|candidate| cx.view.rows_of_host(&candidate.host))
                .copied()
                .filter(unnamed)
                .for_each(|row| mask.insert(row));
        }
    }
    mask
}

/// What a host has of a property with at most one value.
pub fn detail(value: Option<Sym>) -> Detail {
    value.map_or(Detail::Missing, Detail::Has)
}
