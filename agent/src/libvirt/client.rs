//! One connection to libvirtd over its unix socket. It asks and listens at the read-only socket; the one procedure that
//! changes something ([`Client::destroy`]) needs a connection that was opened for it.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::wire::{self, Domain, FRAME, HEAD, Header, KEEPALIVE, Kind, PING, PONG, Procedure, REMOTE, Refused};
use super::xdr::{Malformed, Reader, Writer};
use crate::report::DomainEvent;

/// Events that wait; more are counted and lost, and a whole snapshot makes up for them.
const EVENTS: usize = 1_024;
/// Frames that wait to be written.
const FRAMES: usize = 64;

/// Why libvirt could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// There is no socket, or nobody behind it.
    #[error("libvirt cannot be reached at {path}: {error}; is libvirtd (or virtqemud) running?")]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It did not answer in time.
    #[error("libvirt has not answered {0:?} within {1:?}")]
    Silent(Procedure, Duration),
    /// It has closed the connection.
    #[error("libvirt has closed the connection")]
    Closed,
    /// It wants credentials.
    #[error(
        "libvirt wants SASL credentials on its socket: set auth_unix_ro (auth_unix_rw for the other socket) to \"none\" or \"polkit\" in libvirtd.conf"
    )]
    Credentials,
    /// It has refused.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// It does not speak its protocol.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

type Reply = Result<Vec<u8>, Refused>;

#[derive(Default)]
struct Shared {
    /// Calls without an answer, by serial. One caller asks one thing at a time, so there are few.
    waiting: Mutex<HashMap<u32, oneshot::Sender<Reply>>>,
    /// Events that nobody took.
    lost: AtomicU64,
    closed: AtomicBool,
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, HashMap<u32, oneshot::Sender<Reply>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection. Dropped, it ends.
pub struct Client {
    serial: u32,
    deadline: Duration,
    frames: mpsc::Sender<Vec<u8>>,
    events: mpsc::Receiver<DomainEvent>,
    shared: Arc<Shared>,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Client {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// libvirt's `remote_string` that is set.
fn some(text: &str) -> Writer {
    Writer::default().u32(1).string(text)
}

impl Client {
    /// Connects, opens `uri` for reading, and asks for the events. Each step has `deadline`.
    pub async fn open(socket: &Path, uri: &str, deadline: Duration, now: fn() -> u64) -> Result<Self, Failure> {
        // Flag 1: read-only (`VIR_CONNECT_RO`).
        let mut client = Self::connect(socket, (uri, 1), deadline, now).await?;
        for event in wire::EVENTS {
            let asked = client.call(Procedure::EventRegister, &Writer::default().i32(event).u32(0).done()).await;
            match asked {
                Err(Failure::Refused(refused)) if event == wire::MEMORY_FAILURE => {
                    tracing::info!(%refused, "this libvirt tells no memory failures");
                }
                asked => drop(asked?),
            }
        }
        Ok(client)
    }

    /// Connects and opens `uri` for what changes something. No events are asked for.
    pub async fn control(socket: &Path, uri: &str, deadline: Duration) -> Result<Self, Failure> {
        Self::connect(socket, (uri, 0), deadline, || 0).await
    }

    async fn connect(
        socket: &Path,
        (uri, flags): (&str, u32),
        deadline: Duration,
        now: fn() -> u64,
    ) -> Result<Self, Failure> {
        let unreachable = |error| Failure::Unreachable { path: socket.to_owned(), error };
        let stream = timeout(deadline, UnixStream::connect(socket)).await;
        let stream = stream.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(unreachable)?;
        let (read, write) = stream.into_split();
        let (frames, to_write) = mpsc::channel(FRAMES);
        let (heard, events) = mpsc::channel(EVENTS);
        let shared = Arc::new(Shared::default());
        let tasks = [
            tokio::spawn(listen(read, frames.clone(), heard, Arc::clone(&shared), now)),
            tokio::spawn(write_all(write, to_write, Arc::clone(&shared))),
        ];
        let mut client = Self { serial: 0, deadline, frames, events, shared, tasks };
        client.authenticate().await?;
        client.call(Procedure::Open, &some(uri).u32(flags).done()).await?;
        Ok(client)
    }

    async fn authenticate(&mut self) -> Result<(), Failure> {
        let answer = self.call(Procedure::AuthList, &[]).await?;
        let mut reader = Reader::new(&answer);
        let kinds = reader.length(20, 4)?;
        let kinds: Vec<i32> = (0..kinds).map(|_| reader.i32()).collect::<Result<_, _>>()?;
        // 0: none, 1: SASL, 2: polkit (which asks the kernel who we are).
        if kinds.is_empty() || kinds.contains(&0) {
            Ok(())
        } else if kinds.contains(&2) {
            self.call(Procedure::AuthPolkit, &[]).await.map(drop)
        } else {
            Err(Failure::Credentials)
        }
    }

    /// Calls a procedure and waits for its answer, [`Self::deadline`] at most.
    pub async fn call(&mut self, procedure: Procedure, arguments: &[u8]) -> Result<Vec<u8>, Failure> {
        self.serial = self.serial.wrapping_add(1).max(1);
        let (answer, answered) = oneshot::channel();
        self.shared.waiting().insert(self.serial, answer);
        let frame = wire::frame(REMOTE, procedure as i32, Kind::Call, self.serial, arguments);
        let asked = async {
            self.frames.send(frame).await.map_err(|_| Failure::Closed)?;
            // The listener may have gone after it was asked and before the question was laid down.
            if self.shared.closed.load(Ordering::Acquire) {
                return Err(Failure::Closed);
            }
            Ok(answered.await.map_err(|_| Failure::Closed)??)
        };
        let answer = timeout(self.deadline, asked).await;
        self.shared.waiting().remove(&self.serial);
        answer.map_err(|_| Failure::Silent(procedure, self.deadline))?
    }

    /// How many guests run: the cheapest question that a hung libvirtd does not answer.
    pub async fn active(&mut self) -> Result<u32, Failure> {
        // Without their names; flag 1: active ones.
        let answer = self.call(Procedure::ListAllDomains, &Writer::default().i32(0).u32(1).done()).await?;
        let mut reader = Reader::new(&answer);
        reader.length(wire::DOMAINS, 24)?;
        Ok(reader.u32()?)
    }

    /// All domains with one of `flags` (`virConnectListAllDomainsFlags`); 0: all.
    pub async fn domains(&mut self, flags: u32) -> Result<Vec<Domain>, Failure> {
        let answer = self.call(Procedure::ListAllDomains, &Writer::default().i32(1).u32(flags).done()).await?;
        Ok(wire::domains(&answer)?)
    }

    /// State and reason of a domain.
    pub async fn state(&mut self, domain: &Domain) -> Result<(i32, i32), Failure> {
        let answer = self.call(Procedure::DomainState, &domain.write(Writer::default()).u32(0).done()).await?;
        let mut reader = Reader::new(&answer);
        Ok((reader.i32()?, reader.i32()?))
    }

    /// The description of a domain.
    pub async fn xml(&mut self, domain: &Domain) -> Result<String, Failure> {
        let answer = self.call(Procedure::DomainXml, &domain.write(Writer::default()).u32(0).done()).await?;
        Ok(Reader::new(&answer).string()?)
    }

    /// Ends a guest's process, as by pulling its plug. One that does not run is as well.
    pub async fn destroy(&mut self, domain: &Domain) -> Result<(), Failure> {
        match self.call(Procedure::DomainDestroy, &domain.write(Writer::default()).done()).await {
            Err(Failure::Refused(refused)) if matches!(refused.code, wire::NO_DOMAIN | wire::NOT_NOW) => Ok(()),
            answer => answer.map(drop),
        }
    }

    /// libvirt's version, and the name of the hypervisor.
    pub async fn version(&mut self) -> Result<(String, String), Failure> {
        let answer = self.call(Procedure::LibVersion, &[]).await?;
        let number = Reader::new(&answer).u64()?;
        let version = format!("{}.{}.{}", number / 1_000_000, number / 1_000 % 1_000, number % 1_000);
        let answer = self.call(Procedure::Type, &[]).await?;
        Ok((version, wire::short(Reader::new(&answer).string()?)))
    }

    /// The next event; `None`: the connection has ended.
    pub async fn event(&mut self) -> Option<DomainEvent> {
        self.events.recv().await
    }

    /// Events that were lost since this was asked last.
    pub fn lost(&self) -> u64 {
        self.shared.lost.swap(0, Ordering::Relaxed)
    }
}

async fn write_all(mut stream: OwnedWriteHalf, mut frames: mpsc::Receiver<Vec<u8>>, shared: Arc<Shared>) {
    while let Some(frame) = frames.recv().await {
        if stream.write_all(&frame).await.is_err() {
            break;
        }
    }
    shared.closed.store(true, Ordering::Release);
    shared.waiting().clear();
}

/// Reads until the connection ends or what comes makes no sense.
async fn listen(
    mut stream: OwnedReadHalf,
    frames: mpsc::Sender<Vec<u8>>,
    events: mpsc::Sender<DomainEvent>,
    shared: Arc<Shared>,
    now: fn() -> u64,
) {
    while let Ok(frame) = read_frame(&mut stream).await {
        if let Err(error) = take_in(&frame, &frames, &events, &shared, now) {
            tracing::warn!(%error, "the connection to libvirt is closed");
            break;
        }
    }
    shared.closed.store(true, Ordering::Release);
    shared.waiting().clear();
}

async fn read_frame(stream: &mut OwnedReadHalf) -> io::Result<Vec<u8>> {
    let length = stream.read_u32().await?;
    if !(HEAD..=FRAME).contains(&length) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    // It grows with what arrives, not with what was announced.
    let (mut frame, rest) = (Vec::new(), u64::from(length - 4));
    stream.take(rest).read_to_end(&mut frame).await?;
    if (frame.len() as u64) < rest {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(frame)
}

fn take_in(
    frame: &[u8],
    frames: &mpsc::Sender<Vec<u8>>,
    events: &mpsc::Sender<DomainEvent>,
    shared: &Shared,
    now: fn() -> u64,
) -> Result<(), Malformed> {
    let mut reader = Reader::new(frame);
    let header = Header::read(&mut reader)?;
    let payload = &frame[HEAD as usize - 4..];
    match (header.program, header.kind) {
        (KEEPALIVE, Kind::Message) if header.procedure == PING => {
            // A full queue means that libvirt reads nothing: it needs no answer to know that.
            let _ = frames.try_send(wire::frame(KEEPALIVE, PONG, Kind::Message, 0, &[]));
        }
        (REMOTE, Kind::Reply) => {
            let reply = if header.failed { Err(Refused::read(&mut reader)?) } else { Ok(payload.to_vec()) };
            if let Some(waiting) = shared.waiting().remove(&header.serial) {
                let _ = waiting.send(reply);
            }
        }
        (REMOTE, Kind::Message) => {
            if let Some(event) = wire::event(header.procedure, payload, now())?
                && events.try_send(event).is_err()
            {
                shared.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
        _ => {}
    }
    Ok(())
}
