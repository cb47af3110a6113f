//! What clients do: claim, repeat, release, read and report, each until it is answered, on any node.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use scheduler::request::Caller;
use scheduler::{Command, Core, Decision, Domain, Outcome, Request};
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use super::random::Random;
use super::truth::host_of;
use super::world::World;
use crate::node::{Freshness, Node};
use crate::refused::Refused;

/// Time that a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Consumers that a client holds at most.
const HELD: usize = 10;
/// CPUs of a host: what a report may say.
const CPUS: [u64; 4] = [3, 5, 6, 8];
/// Claims made while what is free is taken away.
const SQUEEZED: u64 = 6;
/// Hosts of the fleet.
pub const FLEET: u64 = 8;

/// One client.
pub struct Client {
    world: World,
    number: u64,
    random: Random,
    made: u64,
    others: u64,
    held: Vec<Held>,
    /// Where it asked last with success.
    favourite: Option<u64>,
}

#[derive(Clone)]
struct Held {
    consumer: Uuid,
    request: Request,
}

impl Client {
    /// A client with its own random numbers.
    pub fn new(world: World, number: u64, random: Random) -> Client {
        Client { world, number, random, made: 0, others: 0, held: Vec::new(), favourite: None }
    }

    /// Asks one thing after another, for ever.
    pub async fn run(mut self) {
        loop {
            sleep(self.random.millis(10, 300)).await;
            let busy = self.world.begin().await;
            self.act().await;
            drop(busy);
        }
    }

    async fn act(&mut self) {
        match self.random.below(100) {
            0..3 => self.squeeze().await,
            3..35 if self.held.len() < HELD => self.claim(None).await,
            3..45 => self.repeat().await,
            45..65 => self.release().await,
            65..85 => self.read().await,
            _ => {
                let (host, cpus) = (self.random.below(FLEET), self.random.one_of(&CPUS).unwrap_or(1));
                self.report(host, cpus).await;
            }
        }
    }

    /// A new consumer, with a key or as the hook asks; `at` names the node that is asked.
    pub async fn claim(&mut self, at: Option<u64>) {
        self.made += 1;
        let consumer = Uuid::from_u128(u128::from(self.number) << 64 | u128::from(self.made));
        let keyed = at.is_some() || self.random.per_mille(700);
        let id = self.id();
        let caller = if keyed { Caller::Keyed { key: Some(id) } } else { Caller::Hook { request: Some(id) } };
        let request = Request {
            domain: Domain::Nova,
            consumers: vec![consumer],
            caller,
            pipeline: Some("nova-general".into()),
            resources: BTreeMap::from([("VCPU".to_owned(), 1)]),
            ..Request::default()
        };
        self.favourite = at.or(self.favourite);
        self.world.truth.claims(consumer, keyed);
        self.ask(consumer, &request).await;
        self.held.push(Held { consumer, request });
    }

    async fn ask(&mut self, consumer: Uuid, request: &Request) {
        let answer = self
            .until_answered("claim", consumer, |node| {
                let request = request.clone();
                async move { decide(&node, request).await }
            })
            .await;
        self.world.truth.claimed(consumer, &answer);
    }

    /// A key of this moment.
    fn id(&mut self) -> Uuid {
        let millis = u128::from(1_700_000_000_000 + self.world.trace.elapsed().as_millis() as u64);
        let random = u128::from(self.random.next()) & 0x3FFF_FFFF_FFFF_FFFF;
        Uuid::from_u128(millis << 80 | 0x7 << 76 | u128::from(self.number & 0xFFF) << 64 | 0x2 << 62 | random)
    }

    async fn repeat(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let at = self.random.below(self.held.len() as u64) as usize;
        let Held { consumer, request } = self.held[at].clone();
        self.ask(consumer, &request).await;
    }

    async fn release(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let at = self.random.below(self.held.len() as u64) as usize;
        let Held { consumer, .. } = self.held.swap_remove(at);
        self.give_up(consumer).await;
    }

    /// Releases all that it holds.
    pub async fn release_all(&mut self) {
        for Held { consumer, .. } in std::mem::take(&mut self.held) {
            self.give_up(consumer).await;
        }
    }

    async fn give_up(&mut self, consumer: Uuid) {
        self.world.truth.releases(consumer);
        let release = Command::Release { domain: Domain::Nova, consumer, open_only: false };
        let outcome = self.propose(consumer, release).await;
        if !matches!(outcome, Outcome::Released(_)) {
            self.world.trace.broken(format_args!("a release was answered with {outcome:?}"));
        }
        self.world.truth.released(consumer);
    }

    async fn propose(&mut self, about: Uuid, command: Command) -> Outcome {
        self.until_answered("command", about, |node| {
            let command = command.clone();
            async move { node.propose(command).await }
        })
        .await
    }

    /// Says how many CPUs a host of the fleet has.
    pub async fn report(&mut self, host: u64, cpus: u64) {
        self.propose(Uuid::nil(), crate::fixture::host(host, cpus)).await;
    }

    /// Takes away what is free while claims are on their way to it: apply must see that.
    async fn squeeze(&mut self) {
        let Some((leader, (node, _))) = self.world.leader().and_then(|id| Some((id, self.world.seat(id)?))) else {
            return;
        };
        let Ok(free) = node.query(free_hosts).await else { return };
        let mut at_once = Vec::new();
        for (host, used) in free {
            let mut other = self.other();
            at_once.push(self.world.tasks.spawn(async move {
                other.favourite = Some(leader);
                other.report(host, used).await;
                other
            }));
        }
        for _ in 0..SQUEEZED {
            let mut other = self.other();
            at_once.push(self.world.tasks.spawn(async move {
                other.claim(Some(leader)).await;
                other
            }));
        }
        for other in at_once {
            if let Ok(mut other) = other.await {
                other.release_all().await;
            }
        }
    }

    /// Another client, which does one thing at the same time.
    fn other(&mut self) -> Client {
        self.others += 1;
        let number = self.number << 32 | self.others;
        Client::new(self.world.clone(), number, Random::new(self.random.next(), number))
    }

    async fn read(&mut self) {
        let Some(consumer) = self.world.truth.recent(&mut self.random) else { return };
        let truth = self.world.truth.clone();
        let (before, found) = self
            .until_answered("read", consumer, |node| {
                let before = truth.reads(consumer);
                async move {
                    node.read_barrier(Freshness::Linearizable).await?;
                    let found = node.query(move |core| host_of(core, consumer)).await?;
                    Ok((before, found))
                }
            })
            .await;
        if let Some(before) = before {
            self.world.truth.read(consumer, &before, found.as_deref(), "a read");
        }
    }

    /// Asks one node after another until there is an answer.
    async fn until_answered<T, F>(&mut self, what: &str, about: Uuid, mut ask: impl FnMut(Node) -> F) -> T
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Refused>> + Send + 'static,
    {
        loop {
            let doors = self.world.doors();
            let any = self.random.one_of(&doors);
            let at = self.favourite.take().filter(|at| doors.contains(at) && !self.random.per_mille(300)).or(any);
            let Some(at) = at else {
                sleep(self.random.millis(50, 500)).await;
                continue;
            };
            let refused = match self.once(at, &mut ask).await {
                Some(Ok(answer)) => {
                    self.world.trace.event(format_args!(
                        "client {} {what} {:x} answered by host {at}",
                        self.number,
                        about.as_u128()
                    ));
                    self.favourite = Some(at);
                    return answer;
                }
                Some(Err(Refused::Refusal(refusal))) => {
                    self.world.trace.broken(format_args!("a {what} was refused: {refusal}"));
                    "refused".to_owned()
                }
                Some(Err(refused)) => refused.to_string(),
                None => "no answer".to_owned(),
            };
            self.world.trace.event(format_args!(
                "client {} {what} {:x} at host {at}: {refused}",
                self.number,
                about.as_u128()
            ));
            sleep(self.random.millis(20, 500)).await;
        }
    }

    /// One question to one node; none when there is no answer.
    async fn once<T, F>(&mut self, at: u64, ask: &mut impl FnMut(Node) -> F) -> Option<Result<T, Refused>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Refused>> + Send + 'static,
    {
        sleep(self.random.millis(1, 3)).await;
        let (node, tasks) = self.world.seat(at)?;
        let answered = tasks.spawn(ask(node));
        let answer = timeout(PATIENCE, answered).await.ok()?.ok()?;
        sleep(self.random.millis(1, 3)).await;
        let lost = self.world.loses_answers() && self.random.per_mille(20);
        (!lost).then_some(answer)
    }
}

/// Numbers of the hosts of the fleet that are used in part, with what is used.
fn free_hosts(core: &Core) -> Vec<(u64, u64)> {
    let tables = core.state().tables();
    let Some(class) = tables.names.get("VCPU") else { return Vec::new() };
    let partly = tables.providers().filter_map(|(_, provider)| {
        let number = tables.names.text(provider.host).strip_prefix("node-")?.parse().ok()?;
        let used = provider.used(class);
        (used > 0 && used < provider.capacity(class)?).then_some((number, used))
    });
    partly.collect()
}

async fn decide(node: &Node, request: Request) -> Result<Decision, Refused> {
    let deadline = (Instant::now() + PATIENCE).into_std();
    Ok(Arc::unwrap_or_clone(node.decide(request, deadline).await?))
}
