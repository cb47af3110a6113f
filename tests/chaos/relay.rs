//! A slow link: connections to a port of this process go on to a node, and what goes through waits.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Pieces on their way in one direction.
const PIECES: usize = 1024;

/// A relay. Dropping it breaks its connections.
pub struct Relay {
    /// Where it listens.
    pub port: u16,
    _tasks: JoinSet<()>,
}

impl Relay {
    /// Listens on `here` and connects to `there`; each piece waits from `delay.0` to `delay.1`
    /// milliseconds, and none overtakes another.
    pub async fn new(here: IpAddr, there: SocketAddr, delay: (u64, u64), seed: u64) -> Self {
        let listener = TcpListener::bind((here, 0)).await.expect("a port for a relay");
        let port = listener.local_addr().expect("bound").port();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut open = JoinSet::new();
            let mut seed = seed;
            while let Ok((near, _)) = listener.accept().await {
                seed += 2;
                open.spawn(async move {
                    let Ok(far) = TcpStream::connect(there).await else { return };
                    let (_, _) = (near.set_nodelay(true), far.set_nodelay(true));
                    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
                    tokio::join!(pass(near_in, far_out, delay, seed), pass(far_in, near_out, delay, seed + 1));
                });
                while open.try_join_next().is_some() {}
            }
        });
        Self { port, _tasks: tasks }
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: (u64, u64), seed: u64) {
    let (queue, mut queued) = mpsc::channel::<(Instant, Vec<u8>)>(PIECES);
    let reads = async move {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut piece = vec![0; 16 << 10];
        while let Ok(length @ 1..) = from.read(&mut piece).await {
            let due = Instant::now() + Duration::from_millis(random.random_range(delay.0..=delay.1));
            if queue.send((due, piece[..length].to_vec())).await.is_err() {
                break;
            }
        }
    };
    let writes = async move {
        while let Some((due, piece)) = queued.recv().await {
            tokio::time::sleep_until(due).await;
            if to.write_all(&piece).await.is_err() {
                break;
            }
        }
    };
    tokio::join!(reads, writes);
}
