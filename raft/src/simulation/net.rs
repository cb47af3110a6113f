//! The network between simulated hosts: letters that come late, twice, in another order or never,
//! and cuts in one direction or both.
//!
//! A letter is delivered whether or not its sender still lives. A stream keeps its order and stalls
//! while it is cut, as TCP does, or breaks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::random::Random;
use super::runtime::Tasks;
use super::trace::Trace;
use crate::peer::door::Door;
use crate::peer::link::{Broken, Lane, Link, Target};

/// Time after which a connection on which nothing comes back is dropped.
const ALIVE: Duration = Duration::from_secs(2);

/// How often a stalled stream looks whether it may go on.
const STALL: Duration = Duration::from_millis(20);

/// What the network does to letters.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// Of a thousand letters so many are lost.
    pub loss: u64,
    /// Of a thousand letters so many come twice.
    pub twice: u64,
    /// Of a thousand letters so many are late.
    pub late: u64,
    /// Milliseconds that a late one takes at most.
    pub latest: u64,
    /// Of a thousand parts of a stream so many break it.
    pub breaks: u64,
}

impl Weather {
    /// Nothing goes wrong.
    pub const CALM: Weather = Weather { loss: 0, twice: 0, late: 0, latest: 1, breaks: 0 };
}

struct Inner {
    random: Random,
    weather: Weather,
    cut: BTreeSet<(u64, u64)>,
    seats: BTreeMap<u64, (Arc<Door>, Tasks)>,
}

/// The network. Clones share it.
#[derive(Clone)]
pub struct Net {
    inner: Arc<Mutex<Inner>>,
    /// What the network itself does: it outlives hosts.
    tasks: Tasks,
    trace: Trace,
}

impl Net {
    /// A network where nothing goes wrong yet.
    pub fn new(random: Random, trace: Trace) -> Net {
        let inner = Inner { random, weather: Weather::CALM, cut: BTreeSet::new(), seats: BTreeMap::new() };
        Net { inner: Arc::new(Mutex::new(inner)), tasks: Tasks::default(), trace }
    }

    fn get(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what goes wrong.
    pub fn set(&self, weather: Weather) {
        self.get().weather = weather;
    }

    /// Nothing passes from one host to the other any more.
    pub fn cut(&self, from: u64, to: u64) {
        self.get().cut.insert((from, to));
    }

    /// Everything passes again.
    pub fn heal(&self) {
        self.get().cut.clear();
    }

    /// A host listens.
    pub fn join(&self, host: u64, door: Arc<Door>, tasks: Tasks) {
        self.get().seats.insert(host, (door, tasks));
    }

    /// A host is gone.
    pub fn leave(&self, host: u64) {
        self.get().seats.remove(&host);
    }

    fn seat(&self, host: u64) -> Option<(Arc<Door>, Tasks)> {
        self.get().seats.get(&host).cloned()
    }

    fn is_cut(&self, from: u64, to: u64) -> bool {
        self.get().cut.contains(&(from, to))
    }

    /// How long a letter takes, or none when it is lost.
    fn carry(&self, from: u64, to: u64, letter: &[u8]) -> Option<Duration> {
        let mut inner = self.get();
        let weather = inner.weather;
        let lost = inner.cut.contains(&(from, to)) || inner.random.per_mille(weather.loss);
        let took = inner.delay();
        drop(inner);
        self.trace.letter(from, to, letter, if lost { "lost" } else { "sent" });
        (!lost).then_some(took)
    }

    fn twice(&self) -> Option<Duration> {
        let mut inner = self.get();
        let twice = inner.weather.twice;
        inner.random.per_mille(twice).then(|| inner.delay())
    }

    fn breaks(&self) -> bool {
        let mut inner = self.get();
        let breaks = inner.weather.breaks;
        inner.random.per_mille(breaks)
    }

    /// A letter reaches a host and is answered; none when nobody is there, or the host crashes.
    async fn deliver(&self, to: u64, letter: Bytes) -> Option<Bytes> {
        let (door, tasks) = self.seat(to)?;
        tasks.spawn(async move { door.answer(&letter).await }).await.ok()
    }

    /// The way there, the answer, and the way back; none when something of it is lost.
    async fn exchange(&self, from: u64, to: u64, letter: Bytes) -> Result<Bytes, Broken> {
        let Some(there) = self.carry(from, to, &letter) else { return lost(to).await };
        if let Some(later) = self.twice() {
            let (net, letter) = (self.clone(), letter.clone());
            self.tasks.spawn(async move {
                sleep(there + later).await;
                net.deliver(to, letter).await;
            });
        }
        sleep(there).await;
        if self.seat(to).is_none() {
            return Err(Broken::NotSent(format!("nobody listens at host {to}")));
        }
        let answer = self.deliver(to, letter).await;
        let answer = answer.ok_or_else(|| Broken::Unknown(format!("host {to} hung up")))?;
        let Some(back) = self.carry(to, from, &answer) else { return lost(to).await };
        sleep(back).await;
        Ok(answer)
    }
}

/// A letter or its answer is lost: as on the real link, a connection on which nothing comes back is
/// dropped after a while, however long the sender would wait.
async fn lost(to: u64) -> Result<Bytes, Broken> {
    sleep(ALIVE).await;
    Err(Broken::Unknown(format!("the connection to host {to} broke")))
}

impl Inner {
    fn delay(&mut self) -> Duration {
        let weather = self.weather;
        if self.random.per_mille(weather.late) {
            self.random.millis(1, weather.latest)
        } else {
            self.random.millis(1, 4)
        }
    }
}

/// The network as one host uses it.
pub struct SimulatedLink {
    /// The host.
    pub from: u64,
    /// The network.
    pub net: Net,
    /// The host's tasks.
    pub tasks: Tasks,
}

impl Link for SimulatedLink {
    fn call(
        &self,
        to: &Target,
        _lane: Lane,
        letter: Bytes,
        within: Duration,
    ) -> BoxFuture<'static, Result<Bytes, Broken>> {
        let (net, from, to) = (self.net.clone(), self.from, to.node);
        async move {
            let (tell, told) = oneshot::channel();
            // A task of the network's, for a letter that is on its way arrives although its sender
            // has given up or is gone.
            let carrier = net.clone();
            net.tasks.spawn(async move {
                if let Ok(answer) = timeout(within, carrier.exchange(from, to, letter)).await {
                    let _ = tell.send(answer);
                }
            });
            told.await.unwrap_or_else(|_| Err(Broken::Unknown(format!("no answer from host {to} in time"))))
        }
        .boxed()
    }

    fn stream(
        &self,
        to: &Target,
        letters: BoxStream<'static, Bytes>,
    ) -> Option<BoxStream<'static, Result<Bytes, Broken>>> {
        let (net, from, to) = (self.net.clone(), self.from, to.node);
        let (there, arriving) = pipe(net.clone(), from, to);
        let (back, answers) = pipe(net.clone(), to, from);
        let pump = self.tasks.spawn(send(letters, there));
        let guard = Guard(pump.abort_handle());
        match net.seat(to) {
            Some((door, tasks)) => {
                tasks.spawn(async move { send(door.stream(received(arriving)), back).await });
            }
            None => drop(back),
        }
        let answers = futures::stream::unfold(Some((answers, guard)), move |state| async move {
            let (mut answers, guard) = state?;
            match answers.next().await {
                Received::Letter(bytes) => Some((Ok(bytes), Some((answers, guard)))),
                Received::End => None,
                Received::Broken => Some((Err(Broken::Unknown(format!("the stream to host {to} broke"))), None)),
            }
        });
        Some(answers.boxed())
    }
}

/// Ends a task when nobody reads its answers any more.
struct Guard(tokio::task::AbortHandle);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.abort();
    }
}

enum Received {
    Letter(Bytes),
    End,
    Broken,
}

/// One direction of a stream. `None` in it is its end; without one it broke.
struct Inlet {
    net: Net,
    from: u64,
    to: u64,
    last: Instant,
    queue: mpsc::UnboundedSender<(Instant, Option<Bytes>)>,
}

struct Outlet {
    net: Net,
    from: u64,
    to: u64,
    queue: mpsc::UnboundedReceiver<(Instant, Option<Bytes>)>,
}

fn pipe(net: Net, from: u64, to: u64) -> (Inlet, Outlet) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let inlet = Inlet { net: net.clone(), from, to, last: Instant::now(), queue: sender };
    (inlet, Outlet { net, from, to, queue: receiver })
}

impl Inlet {
    /// False when the other end is gone.
    fn put(&mut self, letter: Option<Bytes>) -> bool {
        let took = self.net.get().delay();
        self.net.trace.letter(self.from, self.to, letter.as_deref().unwrap_or_default(), "streamed");
        self.last = self.last.max(Instant::now() + took);
        self.queue.send((self.last, letter)).is_ok()
    }
}

impl Outlet {
    async fn next(&mut self) -> Received {
        let Some((at, letter)) = self.queue.recv().await else { return Received::Broken };
        sleep_until(at).await;
        while self.net.is_cut(self.from, self.to) {
            sleep(STALL).await;
        }
        match letter {
            _ if self.net.breaks() => Received::Broken,
            Some(letter) => Received::Letter(letter),
            None => Received::End,
        }
    }
}

async fn send(mut letters: BoxStream<'static, Bytes>, mut into: Inlet) {
    while let Some(letter) = letters.next().await {
        if !into.put(Some(letter)) {
            return;
        }
    }
    into.put(None);
}

fn received(outlet: Outlet) -> BoxStream<'static, Bytes> {
    futures::stream::unfold(outlet, |mut outlet| async move {
        match outlet.next().await {
            Received::Letter(bytes) => Some((bytes, outlet)),
            Received::End | Received::Broken => None,
        }
    })
    .boxed()
}
