#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use scheduler::{Batch, Core, Decision, Levels, Outcome};
use tokio::sync::mpsc;

use super::{Fate, Limits, Owner, Proposed};
use crate::clock::Wall;
use crate::fixture::{ask, engine, host, soon};
use crate::refused::Refused;

/// An owner whose log is this test.
struct Stage {
    owner: Owner,
    proposed: mpsc::UnboundedReceiver<Proposed>,
    _thread: JoinHandle<()>,
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.owner.end();
    }
}

type Asked = tokio::task::JoinHandle<Result<Arc<Decision>, Refused>>;

impl Stage {
    fn new(limits: Limits) -> Stage {
        Stage::by(limits, Wall::system())
    }

    /// By that wall clock.
    fn by(limits: Limits, wall: Wall) -> Stage {
        let (proposals, proposed) = mpsc::unbounded_channel();
        let (owner, at_rest) = Owner::at_rest(Core::new(), engine(), limits, (1, 7), proposals, wall);
        let thread = std::thread::spawn(move || at_rest.run());
        owner.lead(true);
        Stage { owner, proposed, _thread: thread }
    }

    async fn with_host(limits: Limits, cpus: u64) -> Stage {
        let mut stage = Stage::new(limits);
        let owner = stage.owner.clone();
        let reported = tokio::spawn(async move { owner.propose(host(0, cpus)).await });
        let batch = stage.next().await;
        stage.owner.apply(vec![batch]).await.unwrap();
        assert!(matches!(reported.await.unwrap().unwrap(), Outcome::Reported(_)));
        stage
    }

    async fn next(&mut self) -> Batch {
        Batch::decode(&self.proposed.recv().await.unwrap().bytes, Levels::PROGRAM).unwrap()
    }

    /// Asks and returns when the owner has seen it.
    async fn ask(&self, instance: u64) -> Asked {
        let owner = self.owner.clone();
        let decided = self.owner.counts().0;
        let asked = tokio::spawn(async move { owner.decide(ask(instance).into(), soon()).await });
        while self.owner.counts().0 == decided && !asked.is_finished() {
            tokio::task::yield_now().await;
        }
        asked
    }
}

fn placed(decision: &Result<Arc<Decision>, Refused>) -> usize {
    decision.as_ref().unwrap().placements.len()
}

#[tokio::test]
async fn nothing_is_answered_before_it_is_applied_and_claims_in_flight_count() {
    let mut stage = Stage::with_host(Limits::default(), 1).await;
    let first = stage.ask(1).await;
    let batch = stage.next().await;
    // The only CPU is claimed in flight.
    let second = stage.ask(2).await;
    assert!(!first.is_finished());
    stage.owner.apply(vec![batch]).await.unwrap();
    assert_eq!(placed(&first.await.unwrap()), 1);
    // That nothing fits is remembered too.
    let batch = stage.next().await;
    stage.owner.apply(vec![batch]).await.unwrap();
    assert_eq!(placed(&second.await.unwrap()), 0);
}

#[tokio::test]
async fn a_lost_batch_gives_its_claims_back() {
    for (fate, refused) in [(Fate::Unknown, Refused::Unknown), (Fate::NotProposed, Refused::NotLeader)] {
        let mut stage = Stage::with_host(Limits::default(), 1).await;
        let first = stage.ask(1).await;
        let lost = stage.next().await;
        stage.owner.failed(lost.proposer.seq, fate);
        assert_eq!(first.await.unwrap().unwrap_err(), refused);
        let mut second = stage.ask(2).await;
        let batch = stage.next().await;
        if fate == Fate::Unknown {
            // It was committed after all: apply finds the CPU taken, and the second decides again.
            stage.owner.apply(vec![lost, batch]).await.unwrap();
        } else {
            stage.owner.apply(vec![batch]).await.unwrap();
        }
        let decision = loop {
            tokio::select! {
                decision = &mut second => break decision.unwrap(),
                Some(again) = stage.proposed.recv() => {
                    stage.owner.apply(vec![Batch::decode(&again.bytes, Levels::PROGRAM).unwrap()]).await.unwrap();
                }
            }
        };
        assert_eq!(placed(&decision), usize::from(fate == Fate::NotProposed));
    }
}

#[tokio::test]
async fn each_batch_is_twice_as_large_as_those_in_flight() {
    for (in_flight, sizes) in [(8, [1, 2, 4, 3].as_slice()), (2, &[1, 2, 7])] {
        let mut stage = Stage::with_host(Limits { in_flight, ..Limits::default() }, 100).await;
        let mut asked = Vec::new();
        for instance in 0..10 {
            asked.push(stage.ask(instance).await);
        }
        for &size in sizes {
            let batch = stage.next().await;
            assert_eq!(batch.commands.len(), size);
            stage.owner.apply(vec![batch]).await.unwrap();
        }
        for decision in asked {
            assert_eq!(placed(&decision.await.unwrap()), 1);
        }
    }
}

#[tokio::test]
async fn a_full_queue_refuses() {
    let limits = Limits { queue: 3, in_flight: 1, batch_commands: 1, ..Limits::default() };
    let mut stage = Stage::with_host(limits, 100).await;
    // One in flight, one packed, three waiting.
    let mut asked = vec![stage.ask(0).await, stage.ask(1).await];
    for instance in 2..5 {
        let owner = stage.owner.clone();
        asked.push(tokio::spawn(async move { owner.decide(ask(instance).into(), soon()).await }));
    }
    while stage.owner.queue_len() < 3 {
        tokio::task::yield_now().await;
    }
    let full = stage.owner.decide(ask(99).into(), soon()).await.unwrap_err();
    assert!(matches!(full, Refused::Overloaded { waiting: 3, .. }), "{full}");
    for _ in 0..5 {
        let batch = stage.next().await;
        stage.owner.apply(vec![batch]).await.unwrap();
    }
    for asked in asked {
        assert_eq!(placed(&asked.await.unwrap()), 1);
    }
}

/// The pace is known from the requests before: then who cannot be reached in time is refused at once.
#[tokio::test]
async fn who_would_wait_too_long_is_refused_at_once() {
    let limits = Limits { in_flight: 1, batch_commands: 1, ..Limits::default() };
    let mut stage = Stage::with_host(limits, 1000).await;
    let mut asked = Vec::new();
    for instance in 0..40 {
        let owner = stage.owner.clone();
        asked.push(tokio::spawn(async move { owner.decide(ask(instance).into(), soon()).await }));
    }
    while stage.owner.queue_len() < 38 {
        tokio::task::yield_now().await;
    }
    for _ in 0..20 {
        let (batch, before) = (stage.next().await, Instant::now());
        while before.elapsed() < Duration::from_millis(2) {
            std::hint::spin_loop();
        }
        stage.owner.apply(vec![batch]).await.unwrap();
    }
    let decided = stage.owner.counts().0;
    let late = stage.owner.decide(ask(99).into(), Instant::now() + Duration::from_millis(5)).await.unwrap_err();
    assert!(matches!(late, Refused::Overloaded { wait: 5.., .. }), "{late}");
    assert!(stage.owner.counts().0 <= decided + 1, "it was not looked at");
    for _ in 20..40 {
        let batch = stage.next().await;
        stage.owner.apply(vec![batch]).await.unwrap();
    }
    for asked in asked {
        assert_eq!(placed(&asked.await.unwrap()), 1);
    }
}

#[tokio::test]
async fn who_does_not_lead_decides_nothing() {
    let mut stage = Stage::with_host(Limits::default(), 10).await;
    let first = stage.ask(1).await;
    let _lost = stage.next().await;
    stage.owner.lead(false);
    assert_eq!(first.await.unwrap().unwrap_err(), Refused::Unknown);
    assert_eq!(stage.owner.decide(ask(2).into(), soon()).await.unwrap_err(), Refused::NotLeader);
    assert!(!stage.owner.look(|core, _| core.has_flights()).await.unwrap());
    stage.owner.stop("because".into());
    assert_eq!(stage.owner.decide(ask(2).into(), soon()).await.unwrap_err(), Refused::Stopped("because".into()));
}

#[tokio::test]
async fn replicated_time_never_goes_back() {
    let mut stage = Stage::with_host(Limits::default(), 10).await;
    let mut last = 0;
    for instance in 0..20 {
        let asked = stage.ask(instance).await;
        let batch = stage.next().await;
        assert!(batch.now >= last);
        if instance == 10 {
            stage.owner.lead(false);
            stage.owner.lead(true);
        } else {
            last = batch.now;
            stage.owner.apply(vec![batch]).await.unwrap();
        }
        let _ = asked.await;
    }
}

/// CLU-02: what ends by itself ends by replicated time; the wall's stands beside it, for people.
#[tokio::test]
async fn replicated_time_does_not_follow_a_wall_clock_that_jumps() {
    const NOON: u64 = 1_700_000_000_000;
    const HOURS: u64 = 7_200_000;
    let shown = Arc::new(AtomicU64::new(NOON));
    let began = Instant::now();
    let read = Arc::clone(&shown);
    let mut stage = Stage::by(Limits::default(), Wall::new(move || read.load(Ordering::Relaxed)));
    let mut last = 0;
    for (number, wall) in [NOON, NOON + HOURS, NOON - HOURS, NOON].into_iter().enumerate() {
        shown.store(wall, Ordering::Relaxed);
        let owner = stage.owner.clone();
        let reported = tokio::spawn(async move { owner.propose(host(number as u64, 1)).await });
        let batch = stage.next().await;
        assert_eq!(batch.wall, wall);
        let passed = began.elapsed().as_millis() as u64;
        assert!((last..=passed).contains(&batch.now), "{} after {passed} ms, at {wall} by the wall", batch.now);
        last = batch.now;
        stage.owner.apply(vec![batch]).await.unwrap();
        reported.await.unwrap().unwrap();
        // Another leadership goes on from there.
        stage.owner.lead(false);
        stage.owner.lead(true);
    }
}

#[tokio::test]
async fn a_late_request_is_not_looked_at() {
    let stage = Stage::with_host(Limits::default(), 10).await;
    let decided = stage.owner.counts().0;
    assert_eq!(stage.owner.decide(ask(1).into(), Instant::now()).await.unwrap_err(), Refused::Deadline);
    assert_eq!(stage.owner.counts().0, decided);
}
