//! The lease under which a watchdog is fed (strict mode): pure, on the host's own `CLOCK_BOOTTIME`.
//!
//! A lease ends `ttl` after the heartbeat that it answers was *sent*; the server counts from when it
//! *granted*, which is later. So the host always stops first, and the server's bound
//! `L·(1+ρ) + W·(1+ρ) + δ` covers the watchdog's own timeout and two clocks that drift apart.

use std::collections::VecDeque;

use crate::report::LeaseEcho;

/// Heartbeats that a grant may still answer: two minutes of them.
const SENT: usize = 64;
/// The longest life of a lease that is believed, milliseconds.
const LONGEST_MS: u64 = 300_000;
/// Left unused at the end of a lease, nanoseconds: what lies between looking at the clock and the write that
/// feeds. A longer stop of the process there is covered by the server's δ (5 s) and by nothing else.
pub const MARGIN_NS: u64 = 1_000_000_000;

/// Why a grant is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It answers no heartbeat that is remembered.
    #[error("lease {lease} answers heartbeat {seq}, which was not sent in the last two minutes of this agent")]
    Unasked {
        /// The lease.
        lease: u64,
        /// The heartbeat.
        seq: u64,
    },
    /// It is too long.
    #[error("lease {lease} is for {ttl_ms} ms, and {LONGEST_MS} ms are the most")]
    TooLong {
        /// The lease.
        lease: u64,
        /// Its life.
        ttl_ms: u64,
    },
}

/// What was granted.
#[derive(Clone, Debug, Default)]
pub struct Lease {
    sent: VecDeque<(u64, u64)>,
    until_ns: u64,
    echo: Option<LeaseEcho>,
}

impl Lease {
    /// With a lease that a former agent of this boot was granted.
    pub fn until(until_ns: u64) -> Self {
        Self { until_ns, ..Self::default() }
    }

    /// A heartbeat is handed out for sending.
    pub fn sent(&mut self, seq: u64, boot_ns: u64) {
        if self.sent.len() == SENT {
            self.sent.pop_front();
        }
        self.sent.push_back((seq, boot_ns));
    }

    /// A grant has arrived. It never shortens what holds.
    pub fn granted(&mut self, lease: u64, seq: u64, ttl_ms: u64, now: u64) -> Result<(), Refused> {
        if ttl_ms > LONGEST_MS {
            return Err(Refused::TooLong { lease, ttl_ms });
        }
        let sent = self.sent.iter().find(|(sent, _)| *sent == seq);
        let (_, at) = sent.ok_or(Refused::Unasked { lease, seq })?;
        self.until_ns = self.until_ns.max(at.saturating_add(ttl_ms * 1_000_000));
        self.echo = Some(LeaseEcho { lease, received_boot_ns: now });
        Ok(())
    }

    /// When it ends.
    pub fn until_ns(&self) -> u64 {
        self.until_ns
    }

    /// The last one that was taken in.
    pub fn echo(&self) -> Option<LeaseEcho> {
        self.echo
    }
}

/// Whether the watchdog may be fed now: the lease holds for longer than the way to the device takes, and the
/// agent's own loop has gone round within the last `idle_ns`.
pub fn feeds(now: u64, until_ns: u64, alive_ns: u64, idle_ns: u64) -> bool {
    now.saturating_add(MARGIN_NS) < until_ns && now.saturating_sub(alive_ns) <= idle_ns
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use scheduler::ha::proof::Lease as Bound;

    use super::{LONGEST_MS, Lease, MARGIN_NS, Refused, feeds};

    const MS: u64 = 1_000_000;

    /// Nanoseconds on a clock that runs `drift` thousandths too fast (or slow), after `real` ones.
    fn clock(real: u64, drift: i64, offset: u64) -> u64 {
        offset + (i128::from(real) * i128::from(1_000 + drift) / 1_000) as u64
    }

    proptest! {
        /// Against the server's own formula: the hardware has fired before the server believes that it has,
        /// with both clocks and the device off by ρ, letters late by any time, and a process that is stopped
        /// between its look at the clock and its write.
        #[test]
        fn the_host_is_down_before_the_server_says_so(
            host in -5_i64..=5, leader in -5_i64..=5, device in -10_i64..=0,
            there in proptest::collection::vec((0_u64..4_000, 0_u64..4_000, any::<bool>()), 1..40),
            stop in 0_u64..4_000, offset in 0_u64..1 << 40,
        ) {
            let bound = Bound::default();
            let timeout = 10_000;
            let (mut lease, mut arrivals, mut granted) = (Lease::default(), Vec::new(), None);
            // Heartbeats every two seconds of real time; each is answered after a while, or never.
            for (seq, (request, answer, lost)) in there.iter().enumerate() {
                let sent = seq as u64 * 2_000 * MS;
                lease.sent(seq as u64, clock(sent, host, offset));
                let at = sent + request * MS;
                // The server counts from its last grant, whether it arrives or not.
                granted = granted.max(Some(at));
                if !lost {
                    arrivals.push((at + answer * MS, seq as u64));
                }
            }
            arrivals.sort_unstable();
            let last = arrivals.last().map_or(0, |(at, _)| *at);
            let (mut fed, mut real) = (0, 0);
            let mut coming = arrivals.into_iter().peekable();
            while real < last + 200_000 * MS {
                while let Some((at, seq)) = coming.next_if(|(at, _)| *at <= real) {
                    lease.granted(seq, seq, bound.ttl, clock(at, host, offset)).ok();
                }
                let now = clock(real, host, offset);
                if feeds(now, lease.until_ns(), now, 5_000 * MS) {
                    fed = real + stop * MS;
                }
                real += 500 * MS;
            }
            // A slow device takes longer than it says.
            let fires = fed + timeout * MS * 1_000 / (1_000 + device) as u64;
            let granted = granted.expect("one at least");
            let believed = clock(granted, leader, 0) + bound.fired(timeout) * MS;
            prop_assert!(clock(fires, leader, 0) < believed, "fires at {fires}, believed at {believed}");
        }
    }

    #[test]
    fn a_lease_counts_from_the_heartbeat_it_answers() {
        let mut lease = Lease::default();
        lease.sent(1, 1_000 * MS);
        lease.sent(2, 3_000 * MS);
        assert_eq!(lease.granted(7, 3, 20_000, 0), Err(Refused::Unasked { lease: 7, seq: 3 }));
        assert_eq!(lease.until_ns(), 0, "it was not asked for");
        lease.granted(8, 2, 20_000, 9_000 * MS).expect("granted");
        assert_eq!(lease.until_ns(), 23_000 * MS);
        lease.granted(9, 1, 20_000, 9_500 * MS).expect("granted");
        assert_eq!(lease.until_ns(), 23_000 * MS, "a late answer shortens nothing");
        assert_eq!(lease.echo().map(|echo| echo.lease), Some(9));
        assert!(lease.granted(10, 2, LONGEST_MS + 1, 0).is_err());
        for seq in 3..200 {
            lease.sent(seq, seq * 2_000 * MS);
        }
        assert!(lease.granted(11, 2, 20_000, 0).is_err(), "forgotten");
    }

    #[test]
    fn food_needs_a_lease_and_a_loop_that_goes_round() {
        let until = 20_000 * MS;
        let table = [
            (0, until, 0, true),
            (until - MARGIN_NS - 1, until, until - MARGIN_NS - 1, true),
            (until - MARGIN_NS, until, until - MARGIN_NS, false),
            (6_000 * MS, until, 0, false),
            (5_000 * MS, until, 0, true),
            (0, 0, 0, false),
            (u64::MAX, until, u64::MAX, false),
        ];
        for (now, until, alive, fed) in table {
            assert_eq!(feeds(now, until, alive, 5_000 * MS), fed, "at {now}");
        }
    }
}
