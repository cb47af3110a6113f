//! Moves that make room on a host that lacks nothing but capacity: of one consumer, else of two.
//!
//! What nobody knows of a running instance (which zone and which traits it asked for) is taken from its
//! host: it may go to hosts of the same zone, hypervisor type and architecture that have every trait of
//! the present one, where the pipeline of the request would let it live-migrate. A member of a server
//! group stays where it is, unless the group is the request's own: its policy is not known. Only instances are
//! moved: pods do not migrate, and what a running one demanded of its node is not known.

use crate::alike::Alike;
use crate::consumer::{Consumer, Phase, Purpose, Slot};
use crate::domain::Domain;
use crate::index::Facet;
use crate::intent::Intent;
use crate::pipeline::cx::Cx;
use crate::pipeline::survivors::Survivors;
use crate::provider::{Amounts, Row};
use crate::remedy::{Change, Remedy};
use crate::request::{Group, Options, Request};
use crate::rows::Mask;
use crate::state::Tables;

use super::capacity::{Short, covers};
use super::trial::{Asked, Trial};

/// Hosts on which room is looked for.
const HOSTS: usize = 32;
/// Consumers of one host that are looked at, the smallest first.
const CONSUMERS: usize = 32;
/// Pairs of consumers of one host that are moved to try.
const PAIRS: usize = 64;
/// Remedies of moves.
const MOST: usize = 3;

/// A consumer that may be moved.
struct Mover {
    slot: Slot,
    consumer: Consumer,
}

/// What a move was made from.
struct Before {
    tables: Tables,
    from: Row,
    to: Row,
}

impl Trial {
    /// Moves as remedies: at most one for each host.
    pub fn moves(&mut self, asked: &Asked, short: &[Short]) -> Vec<Remedy> {
        let mut out = Vec::new();
        if asked.request.domain != Domain::Nova {
            return out;
        }
        for search in [Self::one_move, Self::two_moves] {
            for host in short.iter().take(HOSTS) {
                if out.len() >= MOST || self.is_spent() {
                    break;
                }
                out.extend(search(self, asked, host));
            }
            if !out.is_empty() {
                break;
            }
        }
        out
    }

    fn one_move(&mut self, asked: &Asked, host: &Short) -> Option<Remedy> {
        let movers = self.movers(asked, host.row);
        movers.iter().filter(|mover| covers(&mover.consumer.amounts, &host.lacks)).find_map(|mover| {
            let to = self.target(asked, mover)?;
            let before = self.relocate(mover, to)?;
            let fits = self.kept(asked).is_some_and(|kept| kept.hosts.has(host.row));
            self.undo(before);
            fits.then(|| self.remedy(vec![self.moved(mover, to)], [host.row].into_iter()))
        })
    }

    fn two_moves(&mut self, asked: &Asked, host: &Short) -> Option<Remedy> {
        let movers = self.movers(asked, host.row);
        let pairs = movers.iter().enumerate().flat_map(|(at, one)| movers[..at].iter().map(move |two| (two, one)));
        let enough = pairs.filter(|(one, two)| {
            let mut both: Amounts = (*one.consumer.amounts).clone();
            both.add(&two.consumer.amounts);
            covers(&both, &host.lacks)
        });
        for (one, two) in enough.take(PAIRS) {
            let Some(to) = self.target(asked, one) else { continue };
            let Some(first) = self.relocate(one, to) else { continue };
            let then = self.target(asked, two);
            let second = then.and_then(|then| self.relocate(two, then));
            let fits = second.is_some() && self.kept(asked).is_some_and(|kept| kept.hosts.has(host.row));
            if let Some(second) = second {
                self.undo(second);
            }
            self.undo(first);
            if let Some(then) = then.filter(|_| fits) {
                return Some(self.remedy(vec![self.moved(one, to), self.moved(two, then)], [host.row].into_iter()));
            }
        }
        None
    }

    /// The consumers of a host that may be moved, the smallest first.
    fn movers(&self, asked: &Asked, row: Row) -> Vec<Mover> {
        let tables = self.core.state.tables();
        let Some(provider) = tables.provider(row).filter(|provider| !provider.forced_down) else { return Vec::new() };
        let mut out: Vec<Mover> = provider
            .consumers
            .iter()
            .filter_map(|&slot| Some(Mover { slot, consumer: tables.consumer_at(slot)?.clone() }))
            .filter(|Mover { consumer, .. }| {
                let on_its_way = |purpose| {
                    self.core.overlay.pending(consumer.domain, consumer.uuid, purpose).is_some()
                        || purpose == Purpose::Move
                            && tables.consumer(consumer.domain, consumer.uuid, purpose).is_some()
                };
                consumer.is_listed()
                    && consumer.purpose == Purpose::Instance
                    && !consumer.amounts.is_empty()
                    && !asked.request.consumers.contains(&consumer.uuid)
                    && !on_its_way(Purpose::Instance)
                    && !on_its_way(Purpose::Move)
                    && (consumer.group.is_none() || group_of(asked, consumer).is_some())
            })
            .collect();
        let size = |mover: &Mover| {
            let share = |(class, amount)| {
                let capacity = provider.capacity(class).unwrap_or(0).max(1);
                u128::from(amount) * 1_000_000 / u128::from(capacity)
            };
            mover.consumer.amounts.iter().map(share).max()
        };
        out.sort_by_cached_key(|mover| (size(mover), mover.consumer.uuid));
        out.truncate(CONSUMERS);
        out
    }

    /// Where a consumer could go.
    fn target(&mut self, asked: &Asked, mover: &Mover) -> Option<Row> {
        let view = self.core.view();
        let source = mover.consumer.row;
        let host = view.host(source).to_owned();
        let text = |sym: Option<_>| sym.map(|sym| view.names().text(sym).to_owned());
        let request = Request {
            domain: mover.consumer.domain,
            consumers: vec![mover.consumer.uuid],
            project: text(mover.consumer.project),
            user: text(mover.consumer.user),
            flavor: text(mover.consumer.flavor),
            label: Some(Intent::LiveMigration),
            source_host: Some(host.clone()),
            resources: self.named(&mover.consumer.amounts).into_iter().collect(),
            ignore_hosts: vec![host],
            group: group_of(asked, &mover.consumer),
            num_instances: 1,
            options: Options::probe(),
            ..Request::default()
        };
        let mut like_it = Mask::none(view.index.rows());
        like_it.union(view.facet(Facet::Domain, mover.consumer.domain.as_str()));
        like_it.remove(source);
        let mut hosts = Survivors::new(like_it, false);
        let alike = view.provider(source).map(Alike::of).unwrap_or_default();
        for (facet, value) in alike.facets() {
            hosts.keep(view.index.facet(facet, value), "", |_| crate::pipeline::Detail::None);
        }
        for flag in [Facet::Disabled, Facet::ForcedDown] {
            hosts.drop(view.flag(flag), "", |_| crate::pipeline::Detail::None);
        }
        hosts.end_step();
        if !self.spend(hosts.len()) {
            return None;
        }
        let cx = Cx {
            request: &request,
            intent: Intent::LiveMigration,
            consumer: mover.consumer.uuid,
            view: self.core.view(),
        };
        for at in 0..self.pipeline.filters.len() {
            self.pipeline.filter(at, &cx, &mut hosts);
            hosts.end_step();
        }
        hosts.iter().next()
    }

    /// Takes a consumer off its host, in the host's own count too, and claims its place on another.
    fn relocate(&mut self, mover: &Mover, to: Row) -> Option<Before> {
        let state = &mut self.core.state;
        let before = Before { tables: state.tables.clone(), from: mover.consumer.row, to };
        let mut touched = Vec::new();
        let gone = state.remove(mover.slot, &mut touched)?;
        if let Some(provider) = state.tables.provider_mut(before.from) {
            provider.reported.take(&gone.amounts);
        }
        state.put(Consumer { row: to, phase: Phase::Claimed { expires: u64::MAX }, ..gone }, &mut touched);
        self.core.refresh(&mut touched);
        Some(before)
    }

    fn undo(&mut self, before: Before) {
        self.core.state.tables = before.tables;
        for row in [before.from, before.to] {
            self.core.index.refresh_use(self.core.state.tables(), &self.core.overlay, row);
        }
    }

    fn moved(&self, mover: &Mover, to: Row) -> Change {
        let view = self.core.view();
        Change::Move {
            consumer: mover.consumer.uuid,
            from: view.host(mover.consumer.row).to_owned(),
            to: view.host(to).to_owned(),
            amounts: self.named(&mover.consumer.amounts),
        }
    }
}

/// The request's group, of a consumer that is a member of it.
fn group_of(asked: &Asked, consumer: &Consumer) -> Option<Group> {
    let group = asked.request.group.as_ref()?;
    let named = consumer.group.is_some() && consumer.group.as_deref() == group.uuid.as_ref();
    (named || group.members.contains(&consumer.uuid)).then(|| group.clone())
}
