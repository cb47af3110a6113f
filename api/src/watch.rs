//! Watches: what is applied on this node, told to whoever listens. One task looks at the state a few
//! times each second, only while there are readers; each reader has a queue with a bound, and a
//! slow one is told how much it lost.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use raft::Node;
use scheduler::state::Tables;
use scheduler::{Domain, Provider, Row};
use tokio::sync::{Notify, broadcast, oneshot, watch};
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;

use crate::convert;
use crate::error::ApiError;
use crate::limits::{ApiConfig, Slots};
use crate::proto::v1;

/// Time between two looks at the state.
const PAUSE: Duration = Duration::from_millis(100);

/// A stream of events.
pub(crate) type Events<T> = Pin<Box<dyn Stream<Item = T> + Send>>;

/// The senders of all watches.
pub(crate) struct Watch {
    decisions: broadcast::Sender<Arc<v1::DecisionRecord>>,
    hosts: broadcast::Sender<Arc<v1::HostEvent>>,
    /// Readers that wait until the task looks.
    arrived: Mutex<Vec<oneshot::Sender<()>>>,
    wake: Notify,
    pub readers: Slots,
    closing: watch::Sender<bool>,
}

/// What the task saw last.
#[derive(Default)]
struct Seen {
    applied: Option<u64>,
    decision: u64,
    hosts: BTreeMap<Row, (u64, v1::Host)>,
}

impl Watch {
    pub(crate) fn new(config: &ApiConfig) -> Self {
        let queue = config.watch_queue.max(1);
        Self {
            decisions: broadcast::channel(queue).0,
            hosts: broadcast::channel(queue).0,
            arrived: Mutex::default(),
            wake: Notify::new(),
            readers: Slots::new(config.watchers),
            closing: watch::channel(false).0,
        }
    }

    /// Ends every watch, now and from now on.
    pub(crate) fn close(&self) {
        self.closing.send_replace(true);
    }

    /// Looks at the state while there are readers. Ends never.
    pub(crate) async fn run(&self, node: &Node) {
        let mut seen: Option<Seen> = None;
        loop {
            if self.decisions.receiver_count() + self.hosts.receiver_count() == 0 {
                seen = None;
                self.wake.notified().await;
            }
            let arrived = std::mem::take(&mut *self.arrived.lock().unwrap_or_else(PoisonError::into_inner));
            let applied = node.status().applied;
            if seen.as_ref().is_none_or(|seen| seen.applied != applied) {
                // A node that has stopped answers nothing any more; its readers wait.
                if let Ok(tables) = node.query(|core| core.state().tables().clone()).await {
                    let look = seen.get_or_insert_with(|| Seen::of(&tables));
                    look.applied = applied;
                    self.tell(look, &tables);
                }
            }
            for reader in arrived {
                let _ = reader.send(());
            }
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = self.wake.notified() => {}
            }
        }
    }

    fn tell(&self, seen: &mut Seen, tables: &Tables) {
        let newest = tables.counters().decisions;
        for id in seen.decision + 1..=newest {
            if let Some(stored) = tables.decision(id) {
                let _ = self.decisions.send(Arc::new(convert::record(tables, stored)));
            }
        }
        seen.decision = newest;
        if self.hosts.receiver_count() == 0 {
            seen.hosts = known(tables);
            return;
        }
        let send = |kind: &str, host: v1::Host| {
            let _ = self.hosts.send(Arc::new(v1::HostEvent { kind: kind.to_owned(), host: Some(host), lost: 0 }));
        };
        for (row, provider) in tables.providers() {
            let kind = match seen.hosts.get(&row) {
                None => "added",
                Some((generation, _)) if *generation != provider.generation => "changed",
                Some(_) => continue,
            };
            seen.hosts.insert(row, (provider.generation, named(tables, provider)));
            send(kind, convert::host(tables, provider));
        }
        seen.hosts.retain(|row, (_, host)| {
            let stays = tables.provider(*row).is_some();
            if !stays {
                send("removed", std::mem::take(host));
            }
            stays
        });
    }

    /// Waits until the task has looked, so that whatever changes later is told.
    async fn arrive(&self) -> Result<crate::limits::Held, ApiError> {
        let held = self.readers.take(1).ok_or_else(|| {
            let message = format!("{} watches are being read, which is the limit", self.readers.most());
            ApiError::unavailable("overloaded", message, 5)
        })?;
        let (tell, told) = oneshot::channel();
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner).push(tell);
        self.wake.notify_one();
        let _ = told.await;
        Ok(held)
    }

    /// Waits until every watch is to end.
    pub(crate) fn closed(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut closing = self.closing.subscribe();
        async move {
            let _ = closing.wait_for(|closing| *closing).await;
        }
    }

    /// Decisions as they are applied, after the remembered ones that are newer than `after`.
    pub(crate) async fn decisions(
        &self,
        node: &Node,
        domain: Option<Domain>,
        after: Option<u64>,
        lost: impl Fn(u64) + Send + 'static,
    ) -> Result<Events<v1::DecisionEvent>, ApiError> {
        let receiver = self.decisions.subscribe();
        let held = self.arrive().await?;
        let mut remembered = Vec::new();
        if let Some(after) = after {
            let tables = node.query(|core| core.state().tables().clone()).await?;
            remembered.extend(tables.decisions().take_while(|stored| stored.id > after).map(|stored| {
                let record = convert::record(&tables, stored);
                v1::DecisionEvent { decision: Some(record), lost: 0 }
            }));
            remembered.reverse();
        }
        let sent = remembered.last().and_then(|event| event.decision.as_ref()).map_or(0, |record| record.id);
        let live = BroadcastStream::new(receiver).filter_map(move |item| {
            let _held = &held;
            let event = match item {
                Ok(record) if record.id <= sent => None,
                Ok(record) => Some(v1::DecisionEvent { decision: Some((*record).clone()), lost: 0 }),
                Err(BroadcastStreamRecvError::Lagged(count)) => {
                    lost(count);
                    Some(v1::DecisionEvent { decision: None, lost: count })
                }
            };
            std::future::ready(event)
        });
        let wanted = domain.map(Domain::as_str);
        let chosen = stream::iter(remembered).chain(live).filter(move |event| {
            let fits = |record: &v1::DecisionRecord| wanted.is_none_or(|wanted| record.domain == wanted);
            std::future::ready(event.decision.as_ref().is_none_or(fits))
        });
        Ok(Box::pin(chosen.take_until(self.closed())))
    }

    /// Hosts as they change.
    pub(crate) async fn hosts(
        &self,
        domain: Option<Domain>,
        lost: impl Fn(u64) + Send + 'static,
    ) -> Result<Events<v1::HostEvent>, ApiError> {
        let receiver = self.hosts.subscribe();
        let held = self.arrive().await?;
        let wanted = domain.map(Domain::as_str);
        let live = BroadcastStream::new(receiver).filter_map(move |item| {
            let _held = &held;
            let event = match item {
                Ok(event) => {
                    let fits = |host: &v1::Host| wanted.is_none_or(|wanted| host.domain == wanted);
                    event.host.as_ref().is_none_or(fits).then(|| (*event).clone())
                }
                Err(BroadcastStreamRecvError::Lagged(count)) => {
                    lost(count);
                    Some(v1::HostEvent { kind: "lost".to_owned(), host: None, lost: count })
                }
            };
            std::future::ready(event)
        });
        Ok(Box::pin(live.take_until(self.closed())))
    }
}

impl Seen {
    fn of(tables: &Tables) -> Self {
        Self { applied: None, decision: tables.counters().decisions, hosts: known(tables) }
    }
}

fn known(tables: &Tables) -> BTreeMap<Row, (u64, v1::Host)> {
    tables.providers().map(|(row, provider)| (row, (provider.generation, named(tables, provider)))).collect()
}

/// Only what names the host.
fn named(tables: &Tables, provider: &Provider) -> v1::Host {
    v1::Host {
        uuid: provider.uuid.to_string(),
        domain: provider.domain.to_string(),
        name: tables.names.text(provider.host).to_owned(),
        hypervisor_hostname: provider.node.map(|node| tables.names.text(node).to_owned()),
        ..v1::Host::default()
    }
}
