//! Probes of neighbours: whether their kernels answer on the way that guests' data takes. A refused connection
//! is an answer.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::time::Duration;

use futures::future::join_all;
use tokio::net::TcpStream;
use tokio::sync::watch;
use uuid::Uuid;

use super::Sight;

/// Between two rounds.
const ROUND: Duration = Duration::from_secs(2);
/// What an answer may take.
const DEADLINE: Duration = Duration::from_secs(1);
/// Rounds in a row without an answer that count as silence: a lost packet is none.
const ROUNDS: u32 = 2;
/// Neighbours that are probed.
pub const MOST: usize = 64;

/// Probes from now on; each round tells what it has seen.
pub fn start(neighbours: BTreeMap<Uuid, String>) -> watch::Receiver<Vec<Sight>> {
    let (tell, told) = watch::channel(Vec::new());
    if neighbours.len() > MOST {
        tracing::warn!(given = neighbours.len(), most = MOST, "neighbours: too many, only the first are probed");
    }
    let neighbours: Vec<(Uuid, String)> = neighbours.into_iter().take(MOST).collect();
    if !neighbours.is_empty() {
        tokio::spawn(async move {
            let mut missed = vec![0_u32; neighbours.len()];
            while !tell.is_closed() {
                let answers = join_all(neighbours.iter().map(|(_, address)| answers(address))).await;
                for (missed, answers) in missed.iter_mut().zip(&answers) {
                    *missed = if *answers { 0 } else { missed.saturating_add(1) };
                }
                // Who reaches none of several is more likely alone itself.
                let alone = neighbours.len() > 1 && !answers.contains(&true);
                let sights = neighbours
                    .iter()
                    .zip(&missed)
                    .filter(|(_, missed)| !alone && (**missed == 0 || **missed >= ROUNDS));
                let sights = sights.map(|((host, _), missed)| Sight {
                    host: host.to_string(),
                    group: "data".to_owned(),
                    runs: *missed == 0,
                });
                tell.send_replace(sights.collect());
                tokio::time::sleep(ROUND).await;
            }
        });
    }
    told
}

async fn answers(address: &str) -> bool {
    match tokio::time::timeout(DEADLINE, TcpStream::connect(address)).await {
        Ok(Ok(_)) => true,
        Ok(Err(error)) => error.kind() == ErrorKind::ConnectionRefused,
        Err(_) => false,
    }
}
