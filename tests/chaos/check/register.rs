//! One instance as a register: the host of its claim and the host of its move's claim, or nothing.

use super::{Model, Timed, Verdict, order};
use std::time::Duration;

/// A host by its number.
pub type Host = u8;

/// Which claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Of the instance itself.
    Instance,
    /// Of the place to which it moves.
    Move,
}

/// Where the claims of one instance are, by purpose.
pub type Places = [Option<Host>; 2];

/// A call about one instance, with its answer.
#[expect(clippy::option_option, reason = "that nothing fits is an answer too")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// A host was asked for, but not one of the bits `without`; it was given, or none fits. No
    /// answer: it is not known which.
    Place { purpose: Purpose, without: u16, answer: Option<Option<Host>> },
    /// The claims were given up; so many there were.
    Release { answer: Option<u32> },
    /// The claims were listed.
    List(Places),
    /// A host's list was read, and the claims of these purposes were in it.
    On { host: Host, seen: [bool; 2] },
}

/// The model. Holds the number of hosts.
pub struct Instance(pub Host);

impl Model for Instance {
    type State = Places;
    type Call = Call;

    fn start(&self) -> Places {
        [None; 2]
    }

    fn step(&self, state: &Places, call: &Call) -> Vec<Places> {
        match *call {
            Call::Place { purpose, without, answer } => {
                let at = purpose as usize;
                let allowed = |host: Host| without & (1 << host) == 0;
                let left = |place: Option<Host>| {
                    let mut after = *state;
                    after[at] = place;
                    after
                };
                // A claim on a host that may stay, stays.
                if let Some(host) = state[at].filter(|host| allowed(*host)) {
                    let kept = answer.is_none_or(|answer| answer == Some(host));
                    return if kept { vec![*state] } else { Vec::new() };
                }
                match answer {
                    Some(place) if place.is_none_or(allowed) => vec![left(place)],
                    Some(_) => Vec::new(),
                    None => {
                        let hosts = (0..self.0).filter(|host| allowed(*host)).map(Some);
                        hosts.chain([None]).map(left).collect()
                    }
                }
            }
            Call::Release { answer } => {
                let held = state.iter().flatten().count() as u32;
                if answer.is_none_or(|answer| answer == held) { vec![[None; 2]] } else { Vec::new() }
            }
            Call::List(places) => {
                if places == *state {
                    vec![*state]
                } else {
                    Vec::new()
                }
            }
            Call::On { host, seen } => {
                let there = state.map(|place| place == Some(host));
                if there == seen { vec![*state] } else { Vec::new() }
            }
        }
    }

    fn reads(&self, call: &Call) -> bool {
        matches!(call, Call::List(_) | Call::On { .. })
    }
}

/// Whether the history of one instance has an order.
pub fn check(hosts: Host, calls: &[Timed<Call>], within: Duration) -> Verdict {
    order(&Instance(hosts), calls, within)
}

#[cfg(test)]
mod tests {
    use super::{Call, Host, Places, Purpose, Timed, Verdict, check};
    use std::time::Duration;

    fn place(from: u64, to: u64, host: Option<Host>) -> Timed<Call> {
        place_without(from, to, 0, host)
    }

    fn place_without(from: u64, to: u64, without: u16, host: Option<Host>) -> Timed<Call> {
        Timed { call: Call::Place { purpose: Purpose::Instance, without, answer: Some(host) }, from, to: Some(to) }
    }

    fn migrate(from: u64, to: u64, host: Host) -> Timed<Call> {
        let call = Call::Place { purpose: Purpose::Move, without: 0, answer: Some(Some(host)) };
        Timed { call, from, to: Some(to) }
    }

    fn unknown_place(from: u64) -> Timed<Call> {
        Timed { call: Call::Place { purpose: Purpose::Instance, without: 0, answer: None }, from, to: None }
    }

    fn release(from: u64, to: u64, count: u32) -> Timed<Call> {
        Timed { call: Call::Release { answer: Some(count) }, from, to: Some(to) }
    }

    fn unknown_release(from: u64) -> Timed<Call> {
        Timed { call: Call::Release { answer: None }, from, to: None }
    }

    fn list(from: u64, to: u64, places: Places) -> Timed<Call> {
        Timed { call: Call::List(places), from, to: Some(to) }
    }

    fn on(from: u64, to: u64, host: Host, seen: [bool; 2]) -> Timed<Call> {
        Timed { call: Call::On { host, seen }, from, to: Some(to) }
    }

    const NOWHERE: Places = [None, None];

    fn at(host: Host) -> Places {
        [Some(host), None]
    }

    #[test]
    fn histories_with_an_order() {
        for (what, calls) in [
            ("nothing", vec![]),
            (
                "place, read, release",
                vec![place(0, 1, Some(3)), list(2, 3, at(3)), release(4, 5, 1), list(6, 7, NOWHERE)],
            ),
            ("a read beside a place sees either", vec![place(0, 10, Some(3)), list(1, 2, NOWHERE), list(3, 4, at(3))]),
            ("a repeat keeps", vec![place(0, 1, Some(3)), place(2, 3, Some(3))]),
            ("a move", vec![place(0, 1, Some(3)), place_without(2, 3, 1 << 3, Some(4)), list(4, 5, at(4))]),
            (
                "a move that fits nowhere gives up",
                vec![place(0, 1, Some(3)), place_without(2, 3, 8, None), list(4, 5, NOWHERE)],
            ),
            ("full", vec![place(0, 1, None), list(2, 3, NOWHERE)]),
            (
                "two claims",
                vec![place(0, 1, Some(3)), migrate(2, 3, 5), list(4, 5, [Some(3), Some(5)]), release(6, 7, 2)],
            ),
            ("an unknown place took effect late", vec![unknown_place(0), list(5, 6, NOWHERE), list(7, 8, at(2))]),
            ("an unknown place never took effect", vec![unknown_place(0), list(5, 6, NOWHERE), place(7, 8, Some(1))]),
            (
                "an unknown release took effect late",
                vec![place(0, 1, Some(3)), unknown_release(2), list(5, 6, at(3)), list(7, 8, NOWHERE)],
            ),
            ("two at once, one after the other", vec![place(0, 9, Some(3)), release(1, 8, 0), list(10, 11, at(3))]),
            ("a host's list", vec![place(0, 1, Some(3)), on(2, 3, 3, [true, false]), on(2, 3, 4, [false, false])]),
            (
                "a read is between two writes",
                vec![place(0, 9, Some(3)), release(0, 9, 1), list(0, 9, at(3)), list(10, 11, NOWHERE)],
            ),
        ] {
            assert_eq!(check(8, &calls, Duration::from_secs(5)), Verdict::Ordered, "{what}");
        }
    }

    #[test]
    fn histories_without_one() {
        for (what, calls, broken) in [
            ("a stale read", vec![place(0, 1, Some(3)), list(2, 3, NOWHERE)], 1),
            ("a stale read after a release", vec![place(0, 1, Some(3)), release(2, 3, 1), list(4, 5, at(3))], 2),
            ("a lost claim", vec![place(0, 1, Some(3)), list(2, 3, at(3)), list(4, 5, NOWHERE)], 2),
            ("a lost claim, by its release", vec![place(0, 1, Some(3)), release(2, 3, 0)], 1),
            ("a lost claim, by a host's list", vec![place(0, 1, Some(3)), on(2, 3, 3, [false, false])], 1),
            ("a doubled claim, by the next place", vec![place(0, 1, Some(3)), place(2, 3, Some(4))], 1),
            ("a doubled claim, by its release", vec![place(0, 1, Some(3)), release(2, 3, 2)], 1),
            ("a doubled claim, by another host's list", vec![place(0, 1, Some(3)), on(2, 3, 4, [true, false])], 1),
            ("a phantom", vec![list(0, 1, at(3))], 0),
            ("a phantom move", vec![place(0, 1, Some(3)), list(2, 3, [Some(3), Some(4)])], 1),
            ("a phantom on a host", vec![on(0, 1, 3, [false, true])], 0),
            ("a release that comes back", vec![place(0, 1, Some(3)), release(2, 3, 1), on(4, 5, 3, [true, false])], 2),
            ("a host that was excluded", vec![place_without(0, 1, 1 << 3, Some(3))], 0),
            (
                "an unknown place that took effect and vanished",
                vec![unknown_place(0), list(5, 6, at(2)), list(7, 8, NOWHERE)],
                2,
            ),
            (
                "an unknown place that took effect twice",
                vec![unknown_place(0), list(5, 6, at(2)), release(7, 8, 1), list(9, 10, at(2))],
                3,
            ),
            ("reads that go back", vec![place(0, 10, Some(3)), list(1, 2, at(3)), list(3, 4, NOWHERE)], 2),
        ] {
            assert_eq!(check(8, &calls, Duration::from_secs(5)), Verdict::Broken(broken), "{what}");
        }
    }

    #[test]
    fn a_search_without_time_is_undecided() {
        let calls = [place(0, 1, Some(3))];
        assert_eq!(check(8, &calls, Duration::ZERO), Verdict::Undecided);
        let many: Vec<_> = (0..65).map(unknown_place).collect();
        assert_eq!(check(8, &many, Duration::from_secs(5)), Verdict::Undecided);
    }
}
