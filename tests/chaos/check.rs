//! Whether a history of concurrent calls has an order: one in which each call takes effect between
//! its invocation and its return, and answers as the model says. Knows nothing of what the calls do.
//!
//! The search of Wing, Gong and Lowe, done as the history goes on: after each return it holds every
//! set of open calls that may have taken effect, with the state that they left. A call whose outcome
//! is not known never returns: it may take effect at any time, or never.

pub mod counter;
pub mod register;

use std::collections::HashSet;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Calls that may be open at one time.
const OPEN: usize = 64;

/// What calls do to a state.
pub trait Model {
    /// The state.
    type State: Clone + Eq + Hash;
    /// A call with its answer.
    type Call;
    /// The state before the first call.
    fn start(&self) -> Self::State;
    /// Every state that `call` may leave with its answer; none: it cannot have that answer here.
    fn step(&self, state: &Self::State, call: &Self::Call) -> Vec<Self::State>;
    /// Whether `call` never changes the state.
    fn reads(&self, call: &Self::Call) -> bool;
}

/// A call, when it was made and when it returned. No return: its outcome is not known.
#[derive(Clone, Debug)]
pub struct Timed<C> {
    /// The call with its answer.
    pub call: C,
    /// Invocation, nanoseconds of one clock.
    pub from: u64,
    /// Return.
    pub to: Option<u64>,
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is an order.
    Ordered,
    /// There is none up to the return of the call of this number.
    Broken(usize),
    /// The search took too long.
    Undecided,
}

/// Calls in effect, of those that are open, and the state that they left.
type Reached<S> = (u64, S);

struct Search<'a, M: Model> {
    model: &'a M,
    calls: &'a [Timed<M::Call>],
    /// The open call of each bit.
    open: Vec<Option<usize>>,
    until: Instant,
}

/// Looks for an order, for so long.
pub fn order<M: Model>(model: &M, calls: &[Timed<M::Call>], within: Duration) -> Verdict {
    // At one instant calls come before returns: they overlap.
    let mut moments: Vec<(u64, bool, usize)> = Vec::with_capacity(2 * calls.len());
    for (at, call) in calls.iter().enumerate() {
        moments.push((call.from, false, at));
        moments.extend(call.to.map(|to| (to, true, at)));
    }
    moments.sort_unstable();
    let mut search = Search { model, calls, open: vec![None; OPEN], until: Instant::now() + within };
    let mut reached = HashSet::from([(0, model.start())]);
    for (_, returns, at) in moments {
        if !returns {
            let Some(bit) = search.open.iter().position(Option::is_none) else { return Verdict::Undecided };
            search.open[bit] = Some(at);
            if model.reads(&calls[at].call) {
                reached = reached.into_iter().map(|it| search.with_reads(it)).collect();
            }
            continue;
        }
        let Some(bit) = search.open.iter().position(|open| *open == Some(at)) else { continue };
        let Some(next) = search.returned(reached, bit) else { return Verdict::Undecided };
        if next.is_empty() {
            return Verdict::Broken(at);
        }
        reached = next;
        search.open[bit] = None;
    }
    Verdict::Ordered
}

impl<M: Model> Search<'_, M> {
    /// Lets each open read take effect that can: it is never worth waiting.
    fn with_reads(&self, (mut done, state): Reached<M::State>) -> Reached<M::State> {
        for (bit, at) in self.open.iter().enumerate() {
            let Some(at) = at.filter(|_| done & (1 << bit) == 0) else { continue };
            let call = &self.calls[at].call;
            if self.model.reads(call) && !self.model.step(&state, call).is_empty() {
                done |= 1 << bit;
            }
        }
        (done, state)
    }

    /// What is reached with the call of `bit` in effect; `None` when that takes too long.
    fn returned(&self, reached: HashSet<Reached<M::State>>, bit: usize) -> Option<HashSet<Reached<M::State>>> {
        let mut next = HashSet::new();
        let mut seen = reached.clone();
        let mut work: Vec<_> = reached.into_iter().collect();
        while let Some((done, state)) = work.pop() {
            if done & (1 << bit) != 0 {
                next.insert((done & !(1 << bit), state));
                continue;
            }
            if Instant::now() > self.until {
                return None;
            }
            for (other, at) in self.open.iter().enumerate() {
                let Some(at) = at.filter(|_| done & (1 << other) == 0) else { continue };
                let call = &self.calls[at].call;
                if self.model.reads(call) {
                    continue;
                }
                for state in self.model.step(&state, call) {
                    let further = self.with_reads((done | 1 << other, state));
                    if seen.insert(further.clone()) {
                        work.push(further);
                    }
                }
            }
        }
        Some(next)
    }
}
