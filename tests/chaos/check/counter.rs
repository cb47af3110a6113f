//! How many claims a host can have had at each moment, from what was answered about each instance:
//! at least those that were surely there, at most those that may have been. A count that was read is
//! right when it lies between the two at some moment of its read.

use std::collections::{BTreeMap, BTreeSet};

use super::Timed;
use super::register::{Call, Host, Purpose};

/// The bounds of every host, as they change.
#[derive(Default)]
pub struct Bounds {
    /// Moment to the change of (at least, at most).
    changes: BTreeMap<Host, BTreeMap<u64, (i64, i64)>>,
}

impl Bounds {
    /// Adds what is known of one instance.
    pub fn add(&mut self, hosts: Host, calls: &[Timed<Call>]) {
        for purpose in [Purpose::Instance, Purpose::Move] {
            let writes: Vec<Write> = calls.iter().filter_map(|call| Write::of(call, purpose, hosts)).collect();
            let moments: BTreeSet<u64> =
                writes.iter().flat_map(|write| [Some(write.from), write.to]).flatten().collect();
            let mut before = BTreeSet::from([None]);
            for moment in moments {
                let now = possible(&writes, moment);
                for host in 0..hosts {
                    let bounds = |set: &BTreeSet<Option<Host>>| {
                        let may = set.contains(&Some(host));
                        (i64::from(may && set.len() == 1), i64::from(may))
                    };
                    let (old, new) = (bounds(&before), bounds(&now));
                    let change = self.changes.entry(host).or_default().entry(moment).or_default();
                    change.0 += new.0 - old.0;
                    change.1 += new.1 - old.1;
                }
                before = now;
            }
        }
    }

    /// The counts read of one host that cannot be, of (from, to, count) in any order.
    pub fn impossible(&self, host: Host, reads: &[(u64, u64, i64)]) -> Vec<(u64, u64, i64)> {
        let nothing = BTreeMap::new();
        let (mut least, mut most) = (0, 0);
        let mut steps = vec![(0, 0, 0)];
        for (moment, change) in self.changes.get(&host).unwrap_or(&nothing) {
            least += change.0;
            most += change.1;
            steps.push((*moment, least, most));
        }
        let fits = |&(from, to, count): &(u64, u64, i64)| {
            let first = steps.partition_point(|step| step.0 <= from) - 1;
            let during = steps[first..].iter().take_while(|step| step.0 <= to);
            during.into_iter().any(|&(_, least, most)| (least..=most).contains(&count))
        };
        reads.iter().filter(|read| !fits(read)).copied().collect()
    }
}

/// A call that may change one claim.
struct Write {
    from: u64,
    to: Option<u64>,
    /// Where the claim may be after it.
    after: BTreeSet<Option<Host>>,
}

impl Write {
    fn of(timed: &Timed<Call>, about: Purpose, hosts: Host) -> Option<Self> {
        let after = match timed.call {
            Call::Place { purpose, answer, .. } if purpose == about => match answer {
                Some(place) => BTreeSet::from([place]),
                None => (0..hosts).map(Some).chain([None]).collect(),
            },
            Call::Release { .. } => BTreeSet::from([None]),
            _ => return None,
        };
        Some(Self { from: timed.from, to: timed.to, after })
    }
}

/// Where the claim may be from `moment` until the next.
fn possible(writes: &[Write], moment: u64) -> BTreeSet<Option<Host>> {
    let ended = |write: &&Write| write.to.is_some_and(|to| to <= moment);
    let last = writes.iter().filter(ended).map(|write| write.from).max();
    let Some(last) = last else {
        let running = writes.iter().filter(|write| write.from <= moment).flat_map(|write| write.after.clone());
        return running.chain([None]).collect();
    };
    // What ended before another call began, and that ended too, was overwritten.
    let counts = |write: &&Write| write.from <= moment && write.to.is_none_or(|to| to >= last);
    writes.iter().filter(counts).flat_map(|write| write.after.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::{Bounds, Call, Purpose, Timed};

    fn place(from: u64, to: u64, host: u8) -> Timed<Call> {
        let call = Call::Place { purpose: Purpose::Instance, without: 0, answer: Some(Some(host)) };
        Timed { call, from, to: Some(to) }
    }

    fn unknown(from: u64) -> Timed<Call> {
        Timed { call: Call::Place { purpose: Purpose::Instance, without: 0, answer: None }, from, to: None }
    }

    fn release(from: u64, to: u64) -> Timed<Call> {
        Timed { call: Call::Release { answer: Some(1) }, from, to: Some(to) }
    }

    #[test]
    fn counts_are_held_against_what_was_answered() {
        let mut bounds = Bounds::default();
        bounds.add(4, &[place(10, 20, 1), release(50, 60)]);
        bounds.add(4, &[place(15, 25, 1)]);
        bounds.add(4, &[unknown(40)]);
        for (read, right) in [
            ((0, 5, 0), true),
            ((0, 5, 1), false),
            ((12, 14, 0), true),
            ((12, 14, 1), true),
            ((12, 14, 2), false),
            ((16, 18, 2), true),
            ((30, 35, 2), true),
            ((30, 35, 1), false),
            ((30, 35, 3), false),
            ((30, 45, 3), true),
            ((52, 55, 1), true),
            ((70, 80, 1), true),
            ((70, 80, 2), true),
            ((70, 80, 0), false),
            ((70, 80, 3), false),
        ] {
            assert_eq!(bounds.impossible(1, &[read]).is_empty(), right, "{read:?}");
        }
        assert!(bounds.impossible(2, &[(0, 100, 1), (0, 30, 0)]).is_empty());
        assert_eq!(bounds.impossible(2, &[(0, 30, 1)]).len(), 1);
        assert_eq!(bounds.impossible(3, &[(90, 95, 2)]).len(), 1);
    }

    #[test]
    fn overwritten_answers_count_no_more() {
        let mut bounds = Bounds::default();
        bounds.add(4, &[place(0, 1, 1), release(2, 3), place(4, 5, 2)]);
        assert_eq!(bounds.impossible(1, &[(6, 7, 1)]).len(), 1);
        assert!(bounds.impossible(2, &[(6, 7, 1)]).is_empty());
    }
}
