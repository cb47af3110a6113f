//! Keeps nodes that the pod's node selector and its required node affinity allow.
//!
//! Every label of the selector must be there. Of the terms of the affinity one must hold; a term holds when
//! all that it says holds, and an empty term never does.
//!
//! | operator | holds when the label |
//! | --- | --- |
//! | In | is there with one of the values |
//! | NotIn | is absent, or has none of the values |
//! | Exists, DoesNotExist | is there, is absent |
//! | Gt, Lt | is there with a whole number above, below the value |
//!
//! `matchFields` knows the node's name (`metadata.name`), with In and NotIn. Preferred terms are not looked
//! at.
//!
//! Source: kubernetes/kubernetes, kube-scheduler's plugin NodeAffinity; the name is that of
//! cobaltcore-dev/cortex (which reads neither selector nor `matchFields`, and for which an empty term holds).

use scheduler::pipeline::step::NoOptions;
use scheduler::pipeline::{Cx, Detail, Filter, FilterPlugin, Reads, Survivors, Verdict, View};
use scheduler::pod::{Demand, Requirement, Term};
use scheduler::{Domain, Facet, Mask, Request, Row, Sym};

/// The step.
#[derive(Debug)]
pub struct NodeAffinity;

/// What must hold for a row: to be in the mask, or not.
struct Check {
    rows: Mask,
    inside: bool,
}

impl Check {
    fn holds(&self, row: Row) -> bool {
        self.rows.has(row) == self.inside
    }
}

fn labelled<'t>(view: View<'_>, key: &str, values: impl IntoIterator<Item = &'t String>) -> Mask {
    let mut rows = Mask::default();
    for value in values {
        rows.union(view.facet(Facet::Label, &format!("{key}={value}")));
    }
    rows
}

fn numbered(view: View<'_>, key: &str, good: impl Fn(i64) -> bool) -> Mask {
    let mut rows = Mask::default();
    for (label, labelled) in view.facet_values(Facet::Label) {
        let value = label.split_once('=').filter(|(known, _)| *known == key).and_then(|(_, value)| value.parse().ok());
        if value.is_some_and(&good) {
            rows.union(labelled);
        }
    }
    rows
}

fn check(view: View<'_>, Requirement { key, demand }: &Requirement) -> Check {
    let there = || {
        let mut rows = Mask::default();
        rows.union(view.facet(Facet::LabelKey, key));
        rows
    };
    let (rows, inside) = match demand {
        Demand::In(values) => (labelled(view, key, values), true),
        Demand::NotIn(values) => (labelled(view, key, values), false),
        Demand::Exists => (there(), true),
        Demand::DoesNotExist => (there(), false),
        Demand::Gt(least) => (numbered(view, key, |value| value > *least), true),
        Demand::Lt(most) => (numbered(view, key, |value| value < *most), true),
    };
    Check { rows, inside }
}

/// Rows of the nodes with these names, which Kubernetes compares exactly.
fn named(view: View<'_>, names: &[String]) -> Mask {
    let of = |name: &String| {
        let rows = view.rows_of_host(name).iter().copied();
        rows.filter(|row| view.host(*row) == name.as_str()).collect::<Vec<_>>()
    };
    names.iter().flat_map(of).collect()
}

/// What must hold for a term to hold; `None`: it never does.
fn checks(view: View<'_>, term: &Term) -> Option<Vec<Check>> {
    let mut out: Vec<Check> = term.labels.iter().map(|requirement| check(view, requirement)).collect();
    out.extend(term.names.as_ref().map(|names| Check { rows: named(view, names), inside: true }));
    if !term.not_names.is_empty() {
        out.push(Check { rows: named(view, &term.not_names), inside: false });
    }
    (!out.is_empty()).then_some(out)
}

impl Filter for NodeAffinity {
    fn filter(&self, cx: &Cx<'_>, hosts: &mut Survivors) -> Verdict {
        let (view, pod) = (cx.view, &cx.request.pod);
        if pod.node_selector.is_empty() && pod.affinity.is_empty() {
            return Verdict::Skipped("nothing asked");
        }
        for (key, value) in &pod.node_selector {
            let keyed = view.facet(Facet::LabelKey, key);
            // Reasons are remembered: they name labels that nodes have, not what callers make up.
            let why = if keyed.is_empty() {
                "node selector: no node has that label".to_owned()
            } else {
                format!("node selector: another {key} than asked")
            };
            let has = |row| {
                let labels = view.provider(row).into_iter().flat_map(|node| &node.labels);
                let own =
                    |label: &&Sym| view.names().text(**label).split_once('=').is_some_and(|(known, _)| known == key);
                labels.into_iter().find(own).map_or(Detail::Missing, |label| Detail::Has(*label))
            };
            hosts.keep(view.facet(Facet::Label, &format!("{key}={value}")), why, has);
        }
        if !pod.affinity.is_empty() {
            let terms: Vec<Vec<Check>> = pod.affinity.iter().filter_map(|term| checks(view, term)).collect();
            let good = |row| terms.iter().any(|term| term.iter().all(|check| check.holds(row)));
            hosts.keep_where("no term of the required node affinity holds", good, |_| Detail::None);
        }
        Verdict::Ran
    }

    fn reads(&self, _: &Request) -> Reads {
        Reads::Facts
    }
}

impl FilterPlugin for NodeAffinity {
    const NAME: &'static str = "nodeaffinity";
    const DOMAINS: &'static [Domain] = &[Domain::Machines, Domain::Pods];
    const SUMMARY: &'static str = "Keeps nodes that the pod's node selector and required node affinity allow.";
    const MISSING_DATA: &'static str = "A label that a node does not report is absent.";
    type Options = NoOptions;

    fn new(_: NoOptions) -> Result<Self, String> {
        Ok(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::NodeAffinity;
    use crate::fleet::{Case, Fleet, case, node, texts};
    use scheduler::pod::{Demand, Requirement, Term};

    fn term(requirements: &[(&str, Demand)]) -> Term {
        let read = |(key, demand): &(&str, Demand)| Requirement { key: (*key).to_owned(), demand: demand.clone() };
        Term { labels: requirements.iter().map(read).collect(), ..Term::default() }
    }

    fn asks(name: &str, terms: Vec<Term>) -> Case {
        case(name).pod(|pod| pod.affinity = terms)
    }

    fn is(values: &[&str]) -> Demand {
        Demand::In(texts(values))
    }

    fn is_not(values: &[&str]) -> Demand {
        Demand::NotIn(texts(values))
    }

    #[test]
    fn required_terms() {
        let mut fleet = Fleet::of([
            node("n1").labels(&[("zone", "e1"), ("type", "m5"), ("cores", "8")]),
            node("n2").labels(&[("zone", "e1"), ("type", "t3"), ("cores", "4")]),
            node("n3").labels(&[("zone", "north"), ("cores", "x"), ("empty", "")]),
            node("n4"),
        ]);
        let mut check = |case: Case| case.check::<NodeAffinity>(&mut fleet);
        check(asks("nothing", vec![]).kept_all().skipped("nothing asked"));
        check(
            asks("In", vec![term(&[("zone", is(&["e1", "w1"]))])])
                .kept(&["n1", "n2"])
                .dropped("n4", "no term of the required node affinity holds"),
        );
        check(asks("NotIn", vec![term(&[("type", is_not(&["t3"]))])]).kept(&["n1", "n3", "n4"]));
        check(asks("Exists", vec![term(&[("empty", Demand::Exists)])]).kept(&["n3"]));
        check(asks("an empty value", vec![term(&[("empty", is(&[""]))])]).kept(&["n3"]));
        check(asks("DoesNotExist", vec![term(&[("type", Demand::DoesNotExist)])]).kept(&["n3", "n4"]));
        check(asks("Gt", vec![term(&[("cores", Demand::Gt(4))])]).kept(&["n1"]));
        check(asks("Lt", vec![term(&[("cores", Demand::Lt(8))])]).kept(&["n2"]));
        let both = term(&[("zone", is(&["e1"])), ("type", is(&["m5"]))]);
        check(asks("a term is AND", vec![both.clone()]).kept(&["n1"]));
        let north = term(&[("zone", is(&["north"]))]);
        check(asks("terms are OR", vec![both, north.clone()]).kept(&["n1", "n3"]));
        check(asks("an empty term never holds", vec![Term::default()]).kept(&[]));
        check(asks("nor beside others", vec![Term::default(), north]).kept(&["n3"]));
        check(asks("a label that no node has", vec![term(&[("disk", Demand::Exists)])]).kept(&[]));
    }

    #[test]
    fn names_of_nodes() {
        let mut fleet = Fleet::of(["n1", "n2", "n3"].map(|name| node(name).labels(&[("zone", "e1")])));
        let mut check = |case: Case| case.check::<NodeAffinity>(&mut fleet);
        let names = |names: &[&str]| Term { names: Some(texts(names)), ..Term::default() };
        check(asks("In", vec![names(&["n2"])]).kept(&["n2"]));
        check(asks("exactly", vec![names(&["N2"])]).kept(&[]));
        check(asks("OR", vec![names(&["n2"]), names(&["n3"])]).kept(&["n2", "n3"]));
        let others = Term { not_names: texts(&["n1"]), ..term(&[("zone", is(&["e1"]))]) };
        check(asks("NotIn beside labels", vec![others]).kept(&["n2", "n3"]));
    }

    #[test]
    fn selectors() {
        let mut fleet = Fleet::of([
            node("n1").labels(&[("zone", "e1"), ("disk", "ssd")]),
            node("n2").labels(&[("zone", "e1")]),
            node("n3").labels(&[("zone", "w1"), ("disk", "ssd")]),
        ]);
        let mut check = |selector: &[(&str, &str)], change: fn(Case) -> Case| {
            let selector = selector.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            change(case("selector").pod(|pod| pod.node_selector = selector)).check::<NodeAffinity>(&mut fleet);
        };
        check(&[("zone", "e1"), ("disk", "ssd")], |case| {
            case.kept(&["n1"])
                .dropped("n2", "node selector: another disk than asked: the host has none")
                .dropped("n3", "node selector: another zone than asked: the host has zone=w1")
        });
        check(&[("made-up", "x")], |case| {
            case.kept(&[]).dropped("n1", "node selector: no node has that label: the host has none")
        });
    }
}
